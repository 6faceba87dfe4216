//! What a node says about itself when it is asked in a session.
//!
//! For people to read, and to choose a cause when a channel was refused: nothing is
//! allowed because of it.

#![expect(missing_docs, reason = "a field is what its name says")]

use std::fmt;

use russh::client::Msg;
use russh::{Channel, ChannelMsg};

use super::said::shown;
use super::script::{BEGIN, END};

/// Longest answer, in bytes: a user may be in many groups, with long names.
const ANSWER_BYTES_MAX: usize = 16 << 10;
/// Longest value, in bytes.
const VALUE_BYTES_MAX: usize = 4 << 10;

/// The answer of a node, or why there is none.
pub type Probe = Result<Findings, NoProbe>;

/// Why no probe was possible.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NoProbe {
    /// The node opens no sessions.
    NoSession,
    /// It opened one and ran nothing in it.
    NotRun,
    /// Something else than the probe ran.
    Other { said: String, status: Option<u32> },
    /// It did not answer in time.
    TimedOut,
    /// The answer was too long, or not what the probe says.
    NotUnderstood,
}

impl fmt::Display for NoProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSession => f.write_str("the node opens no sessions (MaxSessions)"),
            Self::NotRun => f.write_str("the node runs no commands for this user"),
            Self::Other { said, .. } if !said.is_empty() => write!(
                f,
                "something else ran (ForceCommand, an option of the key or the user's shell) and \
                 said \"{said}\""
            ),
            Self::Other { status, .. } => {
                f.write_str("a command gave no answer (ForceCommand, or the user's shell)")?;
                status.map_or(Ok(()), |status| write!(f, " and ended with {status}"))
            }
            Self::TimedOut => f.write_str("a command did not end in time"),
            Self::NotUnderstood => f.write_str("the answer was not understood"),
        }
    }
}

/// What lies at a socket's path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SocketKind {
    Socket,
    /// Something else.
    Other,
    Missing,
    /// The user may not look into its directory.
    Hidden,
}

/// What the probe found. Texts are the node's, made printable.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Findings {
    pub socket: SocketKind,
    /// Whether the user may write to it.
    pub writable: bool,
    /// Whether somebody listens at it; not always to be found out.
    pub listening: Option<bool>,
    pub uid: String,
    pub user: String,
    pub groups: String,
    /// As `uname -m` says it.
    pub machine: String,
    /// As `uname -s` says it.
    pub system: String,
    /// Whether there is a `docker` client.
    pub docker_client: bool,
}

/// Runs the probe in a session that was just opened for it.
#[expect(clippy::wildcard_enum_match_arm, reason = "most messages are for servers")]
pub(super) async fn run(session: &mut Channel<Msg>, command: String) -> Probe {
    if session.exec(true, command).await.is_err() {
        return Err(NoProbe::NotRun);
    }
    let (mut out, mut complaint, mut status) = (Vec::new(), Vec::new(), None);
    while let Some(message) = session.wait().await {
        match message {
            ChannelMsg::Data { data } => out.extend_from_slice(&data),
            ChannelMsg::ExtendedData { data, .. } => complaint.extend_from_slice(&data),
            ChannelMsg::Failure => return Err(NoProbe::NotRun),
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            ChannelMsg::Close => break,
            // What is not asked for here, and what only a server gets.
            _ => {}
        }
        if out.len().max(complaint.len()) > ANSWER_BYTES_MAX {
            return Err(NoProbe::NotUnderstood);
        }
    }
    let text = String::from_utf8_lossy(&out);
    if let Some(answer) = answer(&text) {
        return findings(&answer).ok_or(NoProbe::NotUnderstood);
    }
    let complaint = String::from_utf8_lossy(&complaint);
    let mut lines = text.lines().chain(complaint.lines()).map(str::trim);
    let said = lines.find(|line| !line.is_empty()).map(shown).unwrap_or_default();
    Err(NoProbe::Other { said, status })
}

/// The lines of the answer, if there is one in the text.
fn answer(text: &str) -> Option<Vec<&str>> {
    // A shell's start-up files may speak before and behind it.
    let mut lines = text.lines().map(|line| line.strip_suffix('\r').unwrap_or(line));
    lines.find(|line| *line == BEGIN)?;
    let mut answer: Vec<&str> = lines.collect();
    answer.truncate(answer.iter().position(|line| *line == END)?);
    Some(answer)
}

fn findings(lines: &[&str]) -> Option<Findings> {
    let mut lines = lines.iter().map(|line| line.split_once('='));
    let mut next = |name: &str| {
        let (key, value) = lines.next()??;
        (key == name && value.len() <= VALUE_BYTES_MAX).then_some(value)
    };
    let is = |value: &str| match value {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    };
    let found = Findings {
        socket: match next("file")? {
            "socket" => SocketKind::Socket,
            "other" => SocketKind::Other,
            "missing" => SocketKind::Missing,
            "hidden" => SocketKind::Hidden,
            _ => return None,
        },
        writable: is(next("writable")?)?,
        listening: match next("listening")? {
            "unknown" => None,
            value => Some(is(value)?),
        },
        uid: shown(next("uid")?),
        user: shown(next("user")?),
        groups: shown(next("groups")?),
        machine: shown(next("machine")?),
        system: shown(next("system")?),
        docker_client: is(next("docker")?)?,
    };
    lines.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::nodes::tunnel::DockerSocket;

    const ANSWER: &str = "welcome\n\nkeyway-probe-1 begin\nfile=socket\nwritable=yes\n\
        listening=unknown\nuid=0\nuser=root\ngroups=root docker\nmachine=x86_64\nsystem=Linux\n\
        docker=no\nkeyway-probe-1 end\nbye\n";

    #[test]
    fn an_answer_is_read_among_what_start_up_files_say() {
        let found = findings(&answer(ANSWER).unwrap()).unwrap();
        assert_eq!((found.socket, found.writable), (SocketKind::Socket, true));
        assert_eq!((found.listening, found.docker_client), (None, false));
        assert_eq!(found.groups, "root docker");
        let by_line = ANSWER.replace('\n', "\r\n");
        assert_eq!(findings(&answer(&by_line).unwrap()), Some(found));
    }

    #[test]
    fn an_answer_that_differs_in_anything_is_none() {
        for (from, to) in [
            ("file=socket", "file=door"),
            ("writable=yes\n", ""),
            ("writable=yes", "writable=yes\nwritable=yes"),
            ("writable=yes", "writable=maybe"),
            ("uid=0", "uid"),
            ("docker=no\n", "docker=no\nmore=1\n"),
        ] {
            assert!(ANSWER.contains(from));
            let other = ANSWER.replace(from, to);
            assert_eq!(findings(&answer(&other).unwrap()), None, "{to:?}");
        }
        // The script itself, as a ForceCommand that prints what was asked for would say it.
        let script = super::super::script::probe(&DockerSocket::default());
        assert_eq!(answer(&script), None);
        assert_eq!(answer(&ANSWER.replace(END, "")), None);
    }

    #[test]
    fn trap_46_what_a_node_says_is_made_printable_and_short() {
        let text = ANSWER.replace("user=root", &format!("user=\x1b[31m{}", "x".repeat(999)));
        let user = findings(&answer(&text).unwrap()).unwrap().user;
        assert!(user.starts_with("\\x1b[31mxx") && user.len() <= 200, "{user}");
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reading(text in "(keyway-probe-1 begin\n|.*\n|file=.*\n|keyway-probe-1 end\n){0,9}") {
            if let Some(answer) = answer(&text) {
                let _ = findings(&answer);
            }
        }
    }
}
