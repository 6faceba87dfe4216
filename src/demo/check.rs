//! `keyway demo --check`: does what the screen promises, and says whether it came out so.
//!
//! Everything with the built-in client; the printed lines also with the installed `ssh`,
//! if there is one.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::Uid;

use super::client::{self, Answer, Ask, End, Task, Trouble};
use super::process::sftp_server;
use super::running::Demo;
use super::screen::{self, ENTRIES, Entry, Leads};
use super::stage::{Kind, PLACED_VMS, S001, Who};
use crate::serve::Failure;
use crate::ssh::text::printable;

/// How long one login with all that follows may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two looks whether `ssh` has ended.
const REST: Duration = Duration::from_millis(10);
/// How long what was carried may take to be counted.
const COUNTED_WITHIN: Duration = Duration::from_secs(5);
/// Prints which VM it runs in.
const WHERE: &str = "echo \"$KEYWAY_VM\"";
/// Sent to a VM and back.
const ROUND_TRIP_BYTES: usize = 4 << 20;
/// Logins at a time, half of them by each user.
const CROWD: usize = 8;
/// What `ssh` ends with when there is no session.
const NO_SESSION: u32 = 255;
/// SSH_FXP_INIT, version 3 (draft-ietf-secsh-filexfer-02 §4).
const SFTP_INIT: [u8; 9] = [0, 0, 0, 5, 1, 0, 0, 0, 3];
/// SSH_FXP_VERSION.
const SFTP_VERSION: u8 = 2;
/// Longest piece of an unexpected output that is shown, in bytes.
const SHOWN_BYTES_MAX: usize = 120;

/// What came of all checks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Tally {
    right: u32,
    wrong: u32,
}

/// What came of one check.
enum TaskVerdict {
    Right,
    Wrong(String),
    /// Not there to be checked.
    Skipped,
}

impl From<Result<(), String>> for TaskVerdict {
    fn from(result: Result<(), String>) -> Self {
        result.map_or_else(Self::Wrong, |()| Self::Right)
    }
}

/// Runs all checks and prints the table.
///
/// # Errors
/// A check went wrong, or not all were run.
pub(super) fn run(
    demo: &Demo,
    out: &mut dyn Write,
    interrupted: &mut dyn FnMut() -> bool,
) -> Result<(), Failure> {
    let Tally { right, wrong } = run_all(demo, out, interrupted)?;
    match wrong {
        0 => Ok(()),
        wrong => Err(format!("{wrong} of {} checks went wrong", right + wrong).into()),
    }
}

fn run_all(
    demo: &Demo,
    out: &mut dyn Write,
    interrupted: &mut dyn FnMut() -> bool,
) -> io::Result<Tally> {
    let ssh = find("ssh");
    let mut tally = Tally::default();
    writeln!(out, "{:56} {:9} SSH", "CHECK", "BUILT-IN")?;
    for entry in &ENTRIES {
        if interrupted() {
            tally.wrong += 1;
            writeln!(out, "interrupted")?;
            return Ok(tally);
        }
        let built_in = TaskVerdict::from(enter(demo, entry));
        let with_ssh = ssh.as_ref().map_or(TaskVerdict::Skipped, |ssh| {
            TaskVerdict::from(enter_with_ssh(demo, entry, ssh.as_os_str()))
        });
        tell(out, entry.says, [built_in, with_ssh], &mut tally)?;
    }
    for (says, check) in CHECKS {
        if interrupted() {
            tally.wrong += 1;
            writeln!(out, "interrupted")?;
            return Ok(tally);
        }
        tell(out, says, [check(demo), TaskVerdict::Skipped], &mut tally)?;
    }
    match &ssh {
        Some(ssh) => writeln!(out, "\nssh is {}.", ssh.display())?,
        None => writeln!(out, "\nNo ssh is installed: only the built-in client was used.")?,
    }
    let Tally { right, wrong } = tally;
    match wrong {
        0 => writeln!(out, "All {right} checks went right.")?,
        _ => writeln!(out, "{wrong} of {} checks went wrong.", right + wrong)?,
    }
    out.flush()?;
    Ok(tally)
}

fn tell(
    out: &mut dyn Write,
    says: &str,
    verdicts: [TaskVerdict; 2],
    tally: &mut Tally,
) -> io::Result<()> {
    let words = verdicts.each_ref().map(|verdict| match verdict {
        TaskVerdict::Right => "ok",
        TaskVerdict::Wrong(_) => "WRONG",
        TaskVerdict::Skipped => "-",
    });
    writeln!(out, "{says:56} {:9} {}", words[0], words[1])?;
    for verdict in verdicts {
        match verdict {
            TaskVerdict::Right => tally.right += 1,
            TaskVerdict::Wrong(what) => {
                tally.wrong += 1;
                writeln!(out, "    {what}")?;
            }
            TaskVerdict::Skipped => {}
        }
    }
    out.flush()
}

/// What is checked beyond the lines on the screen.
type Check = fn(&Demo) -> TaskVerdict;
const CHECKS: [(&str, Check); 9] = [
    ("exit status and standard error arrive as they are", outputs),
    ("4 MiB to a VM and back come out unchanged", round_trip),
    ("a program that ends early ends a long input", early_end),
    ("a client that has seen enough ends an endless output", enough),
    ("a terminal is a terminal", terminal),
    ("a login shell reads its commands from its input", shell),
    ("sftp answers", sftp),
    ("of what the agent carries the front door touches no byte", spliced),
    ("8 logins at a time reach each their own VM", crowd),
];

fn attempt(demo: &Demo, entry: &Entry, task: &Task<'_>) -> Result<Answer, Trouble> {
    let credential = demo.stage.credential(entry.who).ok_or(Trouble::Denied)?;
    let server = demo.door.at(entry.address.ip);
    client::run(server, demo.door.host_key.blob(), entry.login, credential, task, PATIENCE)
}

/// Goes one way in with the built-in client.
fn enter(demo: &Demo, entry: &Entry) -> Result<(), String> {
    let task = match entry.leads {
        Leads::Lobby => Task::ask(Ask::Shell),
        Leads::To(_) | Leads::Down(_) | Leads::Nowhere => Task::exec(WHERE),
    };
    match (attempt(demo, entry, &task), entry.leads) {
        (Err(Trouble::Denied), Leads::Nowhere) => Ok(()),
        (Ok(answer), Leads::Nowhere) => Err(format!("was let in: {}", shown(&answer.stdout))),
        (Ok(answer), leads) => judge_answer(leads, &answer),
        (Err(trouble), _) => Err(trouble.to_string()),
    }
}

/// Goes the same way with the line from the screen.
fn enter_with_ssh(demo: &Demo, entry: &Entry, ssh: &OsStr) -> Result<(), String> {
    let mut command = Command::new(ssh);
    // Nobody is there to be asked, and no set-up of this user's may help or hinder.
    command.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]);
    command.args(["-o", "IdentityAgent=none"]).args(screen::arguments(demo, entry));
    match entry.leads {
        Leads::Lobby => {}
        Leads::To(_) | Leads::Down(_) | Leads::Nowhere => {
            command.arg(WHERE);
        }
    }
    let answer = wait(&mut command).map_err(|error| error.to_string())?;
    match entry.leads {
        Leads::Nowhere => {
            let denied = String::from_utf8_lossy(&answer.stderr).contains("Permission denied");
            if denied && answer.status == NO_SESSION {
                Ok(())
            } else {
                Err(format!("exit status {}: {}", answer.status, shown(&answer.stderr)))
            }
        }
        leads @ (Leads::To(_) | Leads::Down(_) | Leads::Lobby) => judge_answer(leads, &answer),
    }
}

/// Is this what comes of a way in that leads there?
fn judge_answer(leads: Leads, answer: &Answer) -> Result<(), String> {
    let Answer { stdout, stderr, status } = answer;
    let (out, err) = (String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr));
    let (right, wanted) = match leads {
        Leads::To(vm) => (*status == 0 && out == format!("{vm}\n"), format!("\"{vm}\"")),
        Leads::Down(vm) => {
            let says_so = err.contains("keyway: ") && err.contains(vm) && err.contains("refused");
            let clean = out.is_empty() && *status == NO_SESSION;
            (says_so && clean, format!("a word about {vm} on standard error"))
        }
        Leads::Lobby => {
            let own = |who: Who| PLACED_VMS.iter().filter(move |place| place.owner == who);
            let lists = own(Who::Alice).all(|place| out.contains(place.vm));
            let hides = !own(Who::Bob).any(|place| out.contains(place.vm));
            (*status == 0 && lists && hides, "alice's VMs and no others".to_owned())
        }
        Leads::Nowhere => (false, "no session".to_owned()),
    };
    if right {
        return Ok(());
    }
    let (out, err) = (shown(stdout), shown(stderr));
    Err(format!("wanted {wanted}; got status {status}, output {out}, error {err}"))
}

fn shown(bytes: &[u8]) -> String {
    format!("\"{}\"", printable(&String::from_utf8_lossy(bytes), SHOWN_BYTES_MAX))
}

/// A task for blue, and whether its answer is the right one.
fn in_blue(demo: &Demo, task: &Task<'_>, right: impl FnOnce(&Answer) -> bool) -> TaskVerdict {
    let blue = Entry {
        who: Who::Alice,
        login: "alice",
        address: S001,
        leads: Leads::To("blue"),
        says: "",
    };
    match attempt(demo, &blue, task) {
        Ok(answer) if right(&answer) => TaskVerdict::Right,
        Ok(Answer { stdout, stderr, status }) => TaskVerdict::Wrong(format!(
            "got status {status}, {} bytes of output {}, error {}",
            stdout.len(),
            shown(&stdout),
            shown(&stderr)
        )),
        Err(trouble) => TaskVerdict::Wrong(trouble.to_string()),
    }
}

/// Red answers through its agent, and the front door counts what it spliced.
fn spliced(demo: &Demo) -> TaskVerdict {
    let before = demo.door.spliced_bytes();
    let input = vec![b'r'; ROUND_TRIP_BYTES];
    let task = Task { input: &input, ..Task::exec("cat") };
    let red = ENTRIES.iter().find(|entry| entry.leads == Leads::To("red"));
    let Some(red) = red else { return TaskVerdict::Skipped };
    match attempt(demo, red, &task) {
        Ok(answer) if answer.stdout != input => {
            TaskVerdict::Wrong(format!("{} bytes came back", answer.stdout.len()))
        }
        // Both ways.
        Ok(_) => match spliced_since(demo, before, 2 * ROUND_TRIP_BYTES as u64) {
            bytes if bytes >= 2 * ROUND_TRIP_BYTES as u64 => TaskVerdict::Right,
            bytes => TaskVerdict::Wrong(format!("{bytes} bytes were spliced")),
        },
        Err(trouble) => TaskVerdict::Wrong(trouble.to_string()),
    }
}

/// How many bytes more are counted. The pump counts at the end of a round, when the client has had
/// them already: waits a while for `enough`.
fn spliced_since(demo: &Demo, before: u64, enough: u64) -> u64 {
    let until = Instant::now() + COUNTED_WITHIN;
    loop {
        let bytes = demo.door.spliced_bytes() - before;
        if bytes >= enough || Instant::now() > until {
            return bytes;
        }
        std::thread::sleep(REST);
    }
}

fn outputs(demo: &Demo) -> TaskVerdict {
    let task = Task::exec("echo to output; echo to error >&2; exit 7");
    in_blue(demo, &task, |answer| {
        answer.stdout == b"to output\n" && answer.stderr == b"to error\n" && answer.status == 7
    })
}

fn round_trip(demo: &Demo) -> TaskVerdict {
    // Bytes that do not repeat with any buffer's length.
    let input: Vec<u8> = (0..=250_u8).cycle().take(ROUND_TRIP_BYTES).collect();
    let task = Task { input: &input, ..Task::exec("cat") };
    in_blue(demo, &task, |answer| answer.stdout == input && answer.status == 0)
}

fn early_end(demo: &Demo) -> TaskVerdict {
    let input = vec![b'y'; ROUND_TRIP_BYTES];
    let task = Task { input: &input, ..Task::exec("exec head -c 10") };
    in_blue(demo, &task, |answer| answer.stdout == b"yyyyyyyyyy" && answer.status == 0)
}

fn enough(demo: &Demo) -> TaskVerdict {
    let task = Task { end: End::NoMoreOutput, ..Task::exec("exec yes") };
    in_blue(demo, &task, |answer| answer.stdout.starts_with(b"y\ny\n"))
}

fn terminal(demo: &Demo) -> TaskVerdict {
    // Where the system's terminals do not belong to the group `tty` from the start, only root's
    // sshd can give one.
    if demo.stage.kind == Kind::Sshd && !Uid::effective().is_root() {
        return TaskVerdict::Skipped;
    }
    let command = "test -t 0 && test -t 1 && test -t 2 && echo \"$TERM on a terminal\"";
    let task = Task { terminal: Some((100, 30)), ..Task::exec(command) };
    in_blue(demo, &task, |answer| answer.stdout == b"xterm on a terminal\r\n" && answer.status == 0)
}

fn shell(demo: &Demo) -> TaskVerdict {
    let task = Task { input: b"echo in $KEYWAY_VM\nexit 3\n", ..Task::ask(Ask::Shell) };
    in_blue(demo, &task, |answer| {
        String::from_utf8_lossy(&answer.stdout).ends_with("in blue\n") && answer.status == 3
    })
}

fn sftp(demo: &Demo) -> TaskVerdict {
    if demo.stage.kind == Kind::BuiltIn && sftp_server().is_none() {
        return TaskVerdict::Skipped;
    }
    let task =
        Task { input: &SFTP_INIT, end: End::AfterOutput, ..Task::ask(Ask::Subsystem("sftp")) };
    in_blue(demo, &task, |answer| answer.stdout.get(4) == Some(&SFTP_VERSION))
}

fn crowd(demo: &Demo) -> TaskVerdict {
    let ways: Vec<_> = ENTRIES.iter().filter(|entry| matches!(entry.leads, Leads::To(_))).collect();
    let wrong = std::thread::scope(|scope| {
        let logins: Vec<_> = ways
            .iter()
            .cycle()
            .take(CROWD)
            .map(|entry| scope.spawn(|| enter(demo, entry)))
            .collect();
        logins.into_iter().find_map(|login| match login.join() {
            Ok(result) => result.err(),
            Err(_) => Some("a login's thread panicked".to_owned()),
        })
    });
    wrong.map_or(TaskVerdict::Right, TaskVerdict::Wrong)
}

/// Runs a program whose output is short.
fn wait(command: &mut Command) -> io::Result<Answer> {
    let until = Instant::now() + PATIENCE;
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    while child.try_wait()?.is_none() {
        if Instant::now() > until {
            child.kill()?;
        }
        std::thread::sleep(REST);
    }
    let output = child.wait_with_output()?;
    let status = output.status.code().and_then(|code| u32::try_from(code).ok());
    Ok(Answer { stdout: output.stdout, stderr: output.stderr, status: status.unwrap_or(u32::MAX) })
}

/// A program on the PATH.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| {
        file.metadata()
            .is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    })
}
