//! For the tests of `cli`: a server that answers what it is told to, and a terminal
//! whose output is kept.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::JoinHandle;

use super::*;
pub(super) use crate::testing::scratch::Scratch;

/// alice's key, as in a .pub file.
pub(super) const ALICE: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINILzCr80scSuAcnYpxLu4nnirz6xztusEayvak/vj9f alice@laptop";
/// Its fingerprint.
/// A certificate for `alice` and `root`, for ever. Both private halves were thrown away.
pub(super) const CERTIFICATE: &str = "ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29tAAAAIMkc9gZ0q+KqqF4lAjFbhyDryFyoTP/K9kbmbw1vqAXBAAAAIKVV6DxpL8weDCXpsEza2RcUCDbmNj0J9ZjjV2lvg7YQAAAAAAAAAAAAAAABAAAABHRlc3QAAAARAAAABWFsaWNlAAAABHJvb3QAAAAAAAAAAP//////////AAAAAAAAAIIAAAAVcGVybWl0LVgxMS1mb3J3YXJkaW5nAAAAAAAAABdwZXJtaXQtYWdlbnQtZm9yd2FyZGluZwAAAAAAAAAWcGVybWl0LXBvcnQtZm9yd2FyZGluZwAAAAAAAAAKcGVybWl0LXB0eQAAAAAAAAAOcGVybWl0LXVzZXItcmMAAAAAAAAAAAAAADMAAAALc3NoLWVkMjU1MTkAAAAgMprigkypq/iUVi6R7gla9svjBZ7diaFb4kClXACXBWoAAABTAAAAC3NzaC1lZDI1NTE5AAAAQET5vSlbmTigXqUHjb9Aj+FVDk/RXwLs520yGUSKImehbyY3WV5EUw7w9tEeDRGgMkcKXyuNG9q9x6MInjF0CQ8=";
pub(super) const ALICE_PRINT: &str = "SHA256:8co1HLjPv/AoEpWQDCZC/aWYJUq+4alhNtRBvyoP1+Y";

/// What a command did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Said {
    pub(super) code: u8,
    pub(super) out: String,
    pub(super) err: String,
}

/// Who sits at the terminal.
#[derive(Clone, Copy)]
pub(super) enum Sitting {
    Nobody,
    Somebody,
}

pub(super) fn refusing() -> Roles {
    Roles {
        serve: |_| Err("serve was called".into()),
        agent: |_| Err("agent was called".into()),
        demo: |_| Err("demo was called".into()),
    }
}

/// Runs a command line with these environment variables and this stdin.
pub(super) fn say_with(
    arguments: &[&str],
    roles: &Roles,
    variables: &[(&str, &str)],
    stdin: &str,
    sitting: Sitting,
) -> Said {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let all = std::iter::once("keyway").chain(arguments.iter().copied()).map(OsString::from);
    let variable = |name: &str| {
        let found = variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| OsString::from(value))
    };
    let here = matches!(sitting, Sitting::Somebody);
    let terminal = Terminal {
        stdin: &mut stdin.as_bytes(),
        stdout: &mut out,
        stderr: &mut err,
        variable: &variable,
        asks: here,
        seen: here,
        keep: &|| Ok(false),
    };
    let code = run_with(all, roles, terminal).unwrap();
    Said { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

/// A server on a unix socket that gives these answers, one a request, and remembers
/// what it was asked.
pub(super) struct Fake {
    pub(super) scratch: Scratch,
    served: Option<JoinHandle<Vec<String>>>,
}

impl Fake {
    pub(super) fn new(answers: &[(u16, &str)]) -> Self {
        let scratch = Scratch::new();
        let listener = UnixListener::bind(scratch.0.join("keyway.sock")).unwrap();
        let answers: Vec<(u16, String)> =
            answers.iter().map(|(status, body)| (*status, (*body).to_owned())).collect();
        let served = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for (status, body) in answers {
                let (stream, _) = listener.accept().unwrap();
                let Some(request) = answer(stream, status, &body) else { break };
                asked.push(request);
            }
            asked
        });
        Self { scratch, served: Some(served) }
    }

    /// A server that takes its time: the answer to the last request comes when all the
    /// others have theirs.
    pub(super) fn slow(first: &[&str], meanwhile: &[&str], last: &str) -> Self {
        let scratch = Scratch::new();
        let listener = UnixListener::bind(scratch.0.join("keyway.sock")).unwrap();
        let owned = |all: &[&str]| all.iter().map(|&body| body.to_owned()).collect::<Vec<_>>();
        let (first, meanwhile, last) = (owned(first), owned(meanwhile), last.to_owned());
        let served = std::thread::spawn(move || {
            let next = || listener.accept().unwrap().0;
            let mut asked: Vec<String> =
                first.iter().map(|body| answer(next(), 200, body).unwrap()).collect();
            let (request, waiting) = read(next()).unwrap();
            asked.push(request);
            asked.extend(meanwhile.iter().map(|body| answer(next(), 200, body).unwrap()));
            reply(waiting, 200, &last);
            asked
        });
        Self { scratch, served: Some(served) }
    }

    pub(super) fn socket(&self) -> String {
        self.scratch.path("keyway.sock")
    }

    pub(super) fn say(&self, arguments: &[&str]) -> Said {
        self.say_sitting(arguments, "", Sitting::Nobody)
    }

    pub(super) fn say_sitting(&self, arguments: &[&str], stdin: &str, sitting: Sitting) -> Said {
        let variables = [("KEYWAY_SOCKET", self.socket())];
        let variables: Vec<_> = variables.iter().map(|(n, v)| (*n, v.as_str())).collect();
        say_with(arguments, &refusing(), &variables, stdin, sitting)
    }

    /// What was asked: `METHOD path body`, and `if REVISION` behind it.
    pub(super) fn asked(mut self) -> Vec<String> {
        // Whoever still waits for a request gets an empty one, which ends it.
        drop(UnixStream::connect(self.scratch.0.join("keyway.sock")));
        self.served.take().unwrap().join().unwrap()
    }
}

/// Reads a request and answers it; nothing if there is none.
fn answer(stream: UnixStream, status: u16, body: &str) -> Option<String> {
    let (asked, stream) = read(stream)?;
    reply(stream, status, body);
    Some(asked)
}

fn read(stream: UnixStream) -> Option<(String, UnixStream)> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let mut words = line.split_whitespace();
    let mut asked = format!("{} {}", words.next()?, words.next()?);
    let (mut length, mut revision) = (0, String::new());
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "if-match" => revision = format!(" if {}", value.trim_matches('"')),
            "content-type" => assert_eq!(value, "application/json"),
            _ => {}
        }
    }
    let mut sent = vec![0; length];
    reader.read_exact(&mut sent).unwrap();
    if !sent.is_empty() {
        asked = format!("{asked} {}", String::from_utf8(sent).unwrap());
    }
    Some((asked + &revision, reader.into_inner()))
}

fn reply(mut stream: UnixStream, status: u16, body: &str) {
    write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
}
