//! The process behind one channel: how it is started, and its pipes or terminal
//! without ever blocking.
//!
//! Back-pressure both ways by the channel's windows: output is read only as far as the peer's
//! window and the link take it, and input gives its window back only once the process has it. So a
//! channel holds at most one window of input and no output at all.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};
use nix::sys::eventfd::EventFd;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::link::{is_later, takes_data};
use super::terminal::{self, Terminal};
use crate::ssh::connection::{ChannelId, Connection};
use crate::ssh::fault::Fault;
use crate::ssh::transport::{Context, Transport};

/// Output that is read and sent at once: one full data message.
pub(super) const CHUNK_BYTES: usize = 32 << 10;
/// How long after its leader's exit a terminal is read that something in the background keeps open.
const LAST_OUTPUT: Duration = Duration::from_millis(200);
/// Where distributions put the SFTP server.
const SFTP_SERVERS: [&str; 5] = [
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/sftp-server",
    "/usr/lib/sftp-server",
];
/// Where commands are looked for when the demonstration itself was started without a PATH.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// What to run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Program {
    /// A login shell.
    Shell,
    /// `/bin/sh -c`.
    Line(String),
    /// The installed SFTP server.
    Sftp,
}

/// The installed SFTP server, if there is one.
pub(super) fn sftp_server() -> Option<&'static Path> {
    SFTP_SERVERS.into_iter().map(Path::new).find(|path| path.exists())
}

/// What every process of one login gets.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    /// The VM's name, for `KEYWAY_VM`.
    pub(super) vm: String,
    /// The login name, as sent.
    pub(super) login: String,
    /// Working directory and `HOME`.
    pub(super) home: PathBuf,
    /// For `SSH_CONNECTION`.
    pub(super) connection: String,
}

/// Whether the process lives. It is signalled and reaped under one lock, so that no signal meets a
/// number that the system has given to somebody else.
#[derive(Debug)]
enum Life {
    Running(Pid),
    Over { status: u32, since: Instant },
}

/// One process, its input and its outputs. Dropping it hangs it up.
#[derive(Debug)]
pub(super) struct Process {
    life: Arc<Mutex<Life>>,
    input: Input,
    outputs: Vec<Output>,
    /// The terminal's own end, to change its size; `None` without one.
    terminal: Option<File>,
}

/// Bytes on their way to the process.
#[derive(Debug)]
enum Input {
    /// The process reads.
    Open {
        /// A pipe, or the terminal.
        sink: File,
        /// At most one window.
        waiting: Vec<u8>,
        /// The client sends no more.
        ended: bool,
    },
    /// Nobody reads: what still comes is thrown away.
    Closed,
}

/// One stream from the process.
#[derive(Debug)]
struct Output {
    source: File,
    stderr: bool,
}

/// What became of a process after a turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Turn {
    /// It goes on.
    Running,
    /// It is over and all its output is sent: this is its exit status.
    Over(u32),
}

impl Process {
    /// Starts `program`. `exits` is written to when it ends.
    ///
    /// # Errors
    /// It cannot be started: the request is to be refused.
    pub(super) fn start(
        program: &Program,
        surroundings: &Surroundings,
        variables: &[(String, String)],
        on: Option<Terminal>,
        exits: &Arc<EventFd>,
    ) -> io::Result<Self> {
        let mut command = command(program)?;
        command
            .env_clear()
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH.into()))
            .env("HOME", &surroundings.home)
            .env("USER", &surroundings.login)
            .env("LOGNAME", &surroundings.login)
            .env("SHELL", shell())
            .env("SSH_CONNECTION", &surroundings.connection)
            .env("KEYWAY_VM", &surroundings.vm)
            .current_dir(&surroundings.home);
        let (child, input, outputs, terminal) = if let Some(terminal) = on {
            command.env("TERM", &terminal.term).env("SSH_TTY", &terminal.path);
            let master = terminal.attach(&mut command)?;
            let child = command.spawn()?;
            let output = Output { source: master.try_clone()?, stderr: false };
            (child, master.try_clone()?, vec![output], Some(master))
        } else {
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.process_group(0).spawn()?;
            let input = pipe(child.stdin.take().map(Into::into))?;
            let stdout = pipe(child.stdout.take().map(Into::into))?;
            let stderr = pipe(child.stderr.take().map(Into::into))?;
            let outputs = vec![
                Output { source: stdout, stderr: false },
                Output { source: stderr, stderr: true },
            ];
            (child, input, outputs, None)
        };
        let life = watch(child, Arc::clone(exits))?;
        let input = Input::Open { sink: input, waiting: Vec::new(), ended: false };
        Ok(Self { life, input, outputs, terminal })
    }

    /// Takes standard input from the client.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> usize {
        match &mut self.input {
            Input::Open { waiting, .. } => {
                waiting.extend_from_slice(bytes);
                0
            }
            Input::Closed => bytes.len(),
        }
    }

    /// The client sends no more input. A terminal has no end of input: there it means nothing.
    pub(super) fn end_of_input(&mut self) {
        if let (Input::Open { ended, .. }, None) = (&mut self.input, &self.terminal) {
            *ended = true;
        }
    }

    /// Nobody reads standard output any more: whoever writes to it finds out.
    pub(super) fn end_of_output(&mut self) {
        self.outputs.retain(|output| output.stderr);
    }

    /// Sends a signal, by its name without `SIG`, to the process and its children.
    pub(super) fn signal(&self, name: &str) -> bool {
        let signal = Signal::from_str(&format!("SIG{name}"));
        signal.is_ok_and(|signal| self.kill(signal))
    }

    /// Changes the terminal's size.
    pub(super) fn resize(&self, columns: u32, rows: u32) -> bool {
        self.terminal
            .as_ref()
            .is_some_and(|terminal| terminal::resize(terminal, columns, rows).is_ok())
    }

    fn kill(&self, signal: Signal) -> bool {
        match *self.life.lock().unwrap_or_else(PoisonError::into_inner) {
            Life::Running(leader) => killpg(leader, signal).is_ok(),
            Life::Over { .. } => false,
        }
    }

    /// What to wait for: input that waits, and output if the peer takes `window` bytes and the
    /// link takes data.
    pub(super) fn interest<'a>(&'a self, window: u32, takes_data: bool, fds: &mut Vec<PollFd<'a>>) {
        if let Input::Open { sink, waiting, .. } = &self.input
            && !waiting.is_empty()
        {
            fds.push(PollFd::new(sink.as_fd(), PollFlags::POLLOUT));
        }
        if takes_data && window > 0 {
            let sources = self.outputs.iter().map(|output| output.source.as_fd());
            fds.extend(
                sources.map(|source: BorrowedFd<'_>| PollFd::new(source, PollFlags::POLLIN)),
            );
        }
    }

    /// How long the next turn may be away although nothing happens.
    pub(super) fn patience(&self) -> Option<Duration> {
        let over =
            matches!(*self.life.lock().unwrap_or_else(PoisonError::into_inner), Life::Over { .. });
        (over && self.terminal.is_some()).then_some(LAST_OUTPUT)
    }

    /// Moves bytes both ways, as far as nothing blocks. `chunk` is what output goes through.
    ///
    /// # Errors
    /// The transport's.
    pub(super) fn turn(
        &mut self,
        channel: ChannelId,
        connection: &mut Connection,
        transport: &mut Transport,
        cx: &mut Context<'_>,
        chunk: &mut [u8],
    ) -> Result<Turn, Fault> {
        // Looked at first: what the process wrote before its end is there to be read by now.
        let status = self.status();
        let written = self.write();
        connection.consumed(channel, written, transport, cx)?;
        let mut index = 0;
        while let Some(output) = self.outputs.get_mut(index) {
            if output.relay(channel, connection, transport, cx, chunk)? {
                index += 1;
            } else {
                self.outputs.remove(index);
            }
        }
        let Some((status, since)) = status else { return Ok(Turn::Running) };
        let left_behind = self.terminal.is_some()
            && since.elapsed() >= LAST_OUTPUT
            && takes_data(transport)
            && connection.window(channel).is_some_and(|window| window > 0);
        let finished = self.outputs.is_empty() || left_behind;
        Ok(if finished { Turn::Over(status) } else { Turn::Running })
    }

    fn status(&self) -> Option<(u32, Instant)> {
        match *self.life.lock().unwrap_or_else(PoisonError::into_inner) {
            Life::Running(_) => None,
            Life::Over { status, since } => Some((status, since)),
        }
    }

    /// Writes waiting input; returns how many bytes need not wait any more.
    fn write(&mut self) -> usize {
        let Input::Open { sink, waiting, ended } = &mut self.input else { return 0 };
        let mut written = 0;
        let mut open = true;
        while written < waiting.len() {
            match (&*sink).write(&waiting[written..]) {
                Ok(count) => written += count,
                Err(error) if is_later(&error) => break,
                // The process has closed its input: the rest is nobody's.
                Err(_) => {
                    written = waiting.len();
                    open = false;
                }
            }
        }
        waiting.drain(..written);
        if !open || (*ended && waiting.is_empty()) {
            self.input = Input::Closed;
        }
        written
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // As when somebody hangs up a terminal. What ignores it was meant to stay.
        self.kill(Signal::SIGHUP);
    }
}

impl Output {
    /// Reads and sends what is there and what the peer takes; false at the end of the stream.
    fn relay(
        &mut self,
        channel: ChannelId,
        connection: &mut Connection,
        transport: &mut Transport,
        cx: &mut Context<'_>,
        chunk: &mut [u8],
    ) -> Result<bool, Fault> {
        while takes_data(transport) {
            // A channel that is closed takes everything, so that the process finds out.
            let window = connection.window(channel).unwrap_or(u32::MAX);
            let room =
                usize::try_from(window).map_or(CHUNK_BYTES, |window| window.min(CHUNK_BYTES));
            if room == 0 {
                break;
            }
            match self.source.read(&mut chunk[..room]) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    connection.data(channel, self.stderr, &chunk[..count], transport, cx)?;
                }
                Err(error) if is_later(&error) => break,
                // EIO: nobody has the other end of the terminal any more.
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }
}

fn command(program: &Program) -> io::Result<Command> {
    match program {
        Program::Shell => {
            let shell = shell();
            let mut command = Command::new(shell);
            // What a login shell looks at.
            let name = shell.file_name().unwrap_or_default().to_string_lossy();
            command.arg0(format!("-{name}"));
            Ok(command)
        }
        Program::Line(line) => {
            let mut command = Command::new("/bin/sh");
            command.arg("-c").arg(line);
            Ok(command)
        }
        Program::Sftp => sftp_server().map(Command::new).ok_or(io::ErrorKind::NotFound.into()),
    }
}

/// A shell that needs no set-up and reads `.profile`, whatever its user is used to.
fn shell() -> &'static Path {
    let bash = Path::new("/bin/bash");
    if bash.exists() { bash } else { Path::new("/bin/sh") }
}

/// Our end of a pipe, which from now on does not block.
fn pipe(end: Option<OwnedFd>) -> io::Result<File> {
    let end = end.ok_or(io::ErrorKind::BrokenPipe)?;
    let flags = OFlag::from_bits_retain(fcntl(&end, FcntlArg::F_GETFL)?);
    fcntl(&end, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(File::from(end))
}

/// Waits for the process on a thread of its own, which ends with it.
fn watch(mut child: Child, exits: Arc<EventFd>) -> io::Result<Arc<Mutex<Life>>> {
    let leader = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    let life = Arc::new(Mutex::new(Life::Running(leader)));
    let told = Arc::clone(&life);
    std::thread::Builder::new().name("vm-wait".into()).spawn(move || {
        // Leaves it unreaped: its number stays its own until the lock is held.
        while waitid(Id::Pid(leader), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
            == Err(nix::errno::Errno::EINTR)
        {}
        let mut life = told.lock().unwrap_or_else(PoisonError::into_inner);
        let status = child.wait().map_or(u32::MAX, exit_status);
        *life = Life::Over { status, since: Instant::now() };
        drop(life);
        let _nobody_waits = exits.write(1);
    })?;
    Ok(life)
}

/// As a shell tells it: 128 and the signal's number for a process that a signal ended.
fn exit_status(status: ExitStatus) -> u32 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u32::try_from(code).ok()).unwrap_or(u32::MAX)
}
