//! Programs that the tests start: each has a deadline, its output is kept, and nothing
//! outlives its test.

use std::fs;
use std::io::Read;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait;

/// Most that one client run may take: a hundred megabytes through a debug build on a busy machine.
const RUN_MAX: Duration = Duration::from_mins(4);

/// A program that runs beside the test. Its output goes to a file; dropping it kills it and
/// its descendants.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    #[track_caller]
    pub(crate) fn start(name: &str, dir: &Path, command: &mut Command) -> Self {
        let log = dir.join(format!("{name}.log"));
        let file = fs::File::create(&log).expect("a log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|why| panic!("{name} does not start: {why}"));
        Self { child, name: name.to_owned(), log }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        kill_tree(self.child.id());
        let _ = self.child.wait();
    }
}

/// A program of which the test has the pipes. Dropping it, by a test that fails too, kills it and
/// its descendants: whoever waits for one of the pipes goes on then.
#[derive(Debug)]
pub(crate) struct Leashed(Child);

impl Leashed {
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|why| panic!("{command:?} does not start: {why}")))
    }
}

impl Deref for Leashed {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Leashed {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Leashed {
    fn drop(&mut self) {
        kill_tree(self.0.id());
        let _ = self.0.wait();
    }
}

pub(crate) fn signal(id: u32, signal: Signal) {
    if let Ok(id) = i32::try_from(id) {
        // It may have ended by itself in between: that is as good.
        let _ = kill(Pid::from_raw(id), signal);
    }
}

/// Kills a process and all that descend from it, sessions in process groups of their own included.
pub(crate) fn kill_tree(root: u32) {
    // Looked up before: those of a dead process are somebody else's.
    let family = descendants(root);
    for id in std::iter::once(root).chain(family) {
        signal(id, Signal::SIGKILL);
    }
}

/// All processes that descend from one, however far.
pub(crate) fn descendants(root: u32) -> Vec<u32> {
    let mut family = vec![root];
    let parents = parents();
    let mut at = 0;
    while let Some(&parent) = family.get(at) {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(id, _)| *id));
        at += 1;
    }
    family.split_off(1)
}

/// Every process of the machine with its parent.
fn parents() -> Vec<(u32, u32)> {
    let Ok(entries) = fs::read_dir("/proc") else { return vec![] };
    entries
        .flatten()
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // The program's name stands in brackets and may hold anything: fields
            // count from behind it.
            let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
            Some((id, parent))
        })
        .collect()
}

/// What a client that ran to its end said.
#[derive(Debug)]
pub(crate) struct Output {
    /// Exit status; -1 if a signal ended it.
    pub(crate) status: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    command: String,
}

impl Output {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// Fails the test unless the client succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.ends(0)
    }

    /// Fails the test unless the client ended with `status`.
    #[track_caller]
    pub(crate) fn ends(self, status: i32) -> Self {
        assert!(
            self.status == status,
            "{}\nended with {} instead of {status}\nstdout: {}\nstderr: {}",
            self.command,
            self.status,
            String::from_utf8_lossy(&self.stdout[..self.stdout.len().min(4096)]),
            self.stderr
        );
        self
    }
}

/// Runs a command to its end, without input.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Output {
    finish(command.stdin(Stdio::null()), None)
}

/// Runs a command to its end, without input; what it says goes to the file `output`.
#[track_caller]
pub(crate) fn run_into(command: &mut Command, output: &Path) -> Output {
    let output = fs::File::create(output).expect("an output file");
    finish(command.stdin(Stdio::null()), Some(output))
}

/// Runs a command to its end, its input being the file `input`.
#[track_caller]
pub(crate) fn run_with_input(command: &mut Command, input: &Path) -> Output {
    finish(command.stdin(fs::File::open(input).expect("an input file")), None)
}

#[track_caller]
fn finish(command: &mut Command, output: Option<fs::File>) -> Output {
    let shown = format!("{command:?}");
    let mut child = command
        .stdout(output.map_or_else(Stdio::piped, Stdio::from))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|why| panic!("{shown} does not start: {why}"));
    let stdout = child.stdout.take().map(drain);
    let stderr = drain(child.stderr.take().expect("piped"));
    let ended = wait::happens(RUN_MAX, || child.try_wait().expect("a child of ours").is_some());
    if !ended {
        kill_tree(child.id());
    }
    let status = child.wait().expect("a child of ours").code().unwrap_or(-1);
    // A background process of the client (a ControlMaster) may hold the pipes longer than the
    // client lives: what stands in them when the client has ended is all that it said.
    let stdout = stdout.map(Drained::finish).unwrap_or_default();
    let stderr = String::from_utf8_lossy(&stderr.finish()).into_owned();
    assert!(ended, "{shown}\nstill runs after {RUN_MAX:?}\nstderr: {stderr}");
    Output { status, stdout, stderr, command: shown }
}

/// Collects a pipe in the background.
struct Drained(std::sync::mpsc::Receiver<Vec<u8>>);

impl Drained {
    /// All bytes until the pipe's end, or until nothing more comes for a while after its
    /// writer has ended.
    fn finish(self) -> Vec<u8> {
        let mut all = vec![];
        while let Ok(part) = self.0.recv_timeout(Duration::from_secs(2)) {
            all.extend(part);
        }
        all
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> Drained {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut block = vec![0; 1 << 16];
        while let Ok(len @ 1..) = pipe.read(&mut block) {
            if sender.send(block[..len].to_vec()).is_err() {
                break;
            }
        }
    });
    Drained(receiver)
}

#[test]
fn a_test_that_fails_leaves_nobody_who_holds_a_pipe() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "sleep 600 & echo in; wait"]).stdout(Stdio::piped());
    let mut shell = Leashed::start(&mut shell);
    let pipe = drain(shell.stdout.take().expect("piped"));
    assert_eq!(pipe.0.recv().expect("a word"), b"in\n");
    let fails = move || {
        let _leashed = shell;
        std::panic::resume_unwind(Box::new("as a test fails"));
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(fails)).expect_err("it failed");
    wait::until("the end of the pipe", wait::SOON, || {
        pipe.0.try_recv() == Err(std::sync::mpsc::TryRecvError::Disconnected)
    });
}
