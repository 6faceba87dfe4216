//! The built-in client of the check: one login, one program, its input, its two outputs and
//! its exit status.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollTimeout, poll};

use super::link::{Broken, Link, takes_data};
use crate::ssh::fault::Fault;
use crate::ssh::message;
use crate::ssh::publickey::SignatureAlgorithm;
use crate::ssh::text::printable;
use crate::ssh::transport::{Algorithms, ClientConfig, Context, Event, RekeyLimits, Transport};
use crate::ssh::userauth::{Credential, Login, LoginStep};
use crate::ssh::wire::{Malformed, Put, Reader};

/// OpenSSH PROTOCOL §2.1.
const NO_MORE_OUTPUT: &[u8] = b"eow@openssh.com";
/// The window we give the server, in bytes.
const WINDOW_BYTES: u32 = 2 << 20;
/// It is opened again once this much came.
const WINDOW_STEP_BYTES: u32 = WINDOW_BYTES / 2;
/// Most bytes of data in one message, both ways.
const PACKET_BYTES: u32 = 32 << 10;
/// Output of a program that is kept.
const OUTPUT_BYTES_MAX: usize = 64 << 20;
/// The status of a program of which a server says only that a signal ended it.
const BY_SIGNAL: u32 = 128;
/// The one channel's number, as we give it out.
const CHANNEL: u32 = 0;
/// Longest text of a server that is shown, in bytes.
const TEXT_BYTES_MAX: usize = 200;

/// What is wanted from the server.
#[derive(Clone, Debug)]
pub(super) struct Task<'a> {
    pub(super) ask: Ask<'a>,
    /// Columns and rows of a terminal to ask for.
    pub(super) terminal: Option<(u32, u32)>,
    /// Standard input.
    pub(super) input: &'a [u8],
    pub(super) begin: Begin,
    pub(super) end: End,
}

/// When the input begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Begin {
    AtOnce,
    /// When some output came: the program is ready by then.
    AfterOutput,
}

/// How the input ends, once all of it is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    AtOnce,
    /// When some output came: the program answers what it reads, and ends with its input.
    AfterOutput,
    /// Not at all. Instead no more output is wanted as soon as some came, as when `head`
    /// has seen enough.
    NoMoreOutput,
    /// Not at all: the client is gone without a word as soon as some output came. That is
    /// [`Trouble::Late`].
    #[cfg(test)]
    Vanish,
}

/// What to start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ask<'a> {
    Exec(&'a str),
    Shell,
    Subsystem(&'a str),
    /// Nothing but a connection from the server's side to elsewhere.
    Forward,
}

impl<'a> Task<'a> {
    /// A command without input.
    pub(super) const fn exec(command: &'a str) -> Self {
        Self::ask(Ask::Exec(command))
    }

    /// Anything, without input.
    pub(super) const fn ask(ask: Ask<'a>) -> Self {
        Self { ask, terminal: None, input: b"", begin: Begin::AtOnce, end: End::AtOnce }
    }
}

/// What the program said.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Answer {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) status: u32,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// No connection, or it broke.
    #[error("{0}")]
    Broken(#[from] Broken),
    /// The host key is another than the one expected.
    #[error("the server has another host key")]
    HostKey,
    /// The key was refused.
    #[error("permission denied")]
    Denied,
    /// The channel was not opened.
    #[error("channel refused: {0}")]
    Refused(String),
    /// The server does not want to start that.
    #[error("request refused")]
    Request,
    /// The channel ended without an exit status.
    #[error("no exit status")]
    NoStatus,
    /// It took too long.
    #[error("no answer in time")]
    Late,
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Broken(fault.into())
    }
}

impl From<Malformed> for Trouble {
    fn from(malformed: Malformed) -> Self {
        Fault::from(malformed).into()
    }
}

/// Logs in with `credential` and does `task`. `host_key`: the only one to talk to.
///
/// # Errors
/// [`Trouble`].
pub(super) fn run(
    server: SocketAddr,
    host_key: &[u8],
    login: &str,
    credential: &Credential,
    task: &Task<'_>,
    patience: Duration,
) -> Result<Answer, Trouble> {
    let until = Instant::now() + patience;
    let stream = TcpStream::connect_timeout(&server, patience).map_err(Broken::from)?;
    let config = ClientConfig::new(
        &[SignatureAlgorithm::Ed25519],
        Algorithms::default(),
        RekeyLimits::default(),
    );
    let transport = |cx: &mut Context<'_>| Transport::client(Arc::new(config), cx);
    let mut link = Link::new(stream, transport).map_err(Broken::from)?;
    let mut visit = Visit { host_key, login, credential, task, phase: Phase::Exchange };
    link.flush()?;
    loop {
        let rest = until.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Err(Trouble::Late);
        }
        let mut fds = [link.interest()];
        match poll(&mut fds, PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Broken::from(io::Error::from(errno)).into()),
        }
        let mut found = Ok(());
        let received = link.receive(|transport, event, payload, cx| {
            // After an end has come, what follows it changes nothing.
            if found.is_ok() && !visit.is_over() {
                found = visit.take(transport, event, payload, cx);
            }
            Ok(())
        });
        found?;
        link.with(|transport, cx| visit.send_input(transport, cx))?;
        if let Phase::Over(answer) = visit.phase {
            link.disconnect("done");
            return answer;
        }
        received?;
        link.flush()?;
    }
}

struct Visit<'a> {
    host_key: &'a [u8],
    login: &'a str,
    credential: &'a Credential,
    task: &'a Task<'a>,
    phase: Phase,
}

enum Phase {
    /// The first key exchange runs.
    Exchange,
    /// The key is offered.
    Login(Login),
    /// The channel is asked for.
    Opening,
    /// The channel is open.
    Open(Channel),
    /// That was it.
    Over(Result<Answer, Trouble>),
}

/// The one channel.
struct Channel {
    /// Its number at the server.
    peer: u32,
    /// Bytes the server takes, and at most how many of them in one message.
    window: u32,
    packet_max: u32,
    /// Bytes that came and were not given back.
    consumed: u32,
    /// Requests without an answer.
    unanswered: u32,
    /// Input bytes sent.
    sent: usize,
    input: Input,
    answer: Answer,
    status: Status,
}

/// Whether the end of the input is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Input {
    Open,
    Ended,
}

/// What the server said about the exit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Status {
    Unknown,
    Told,
}

impl Visit<'_> {
    const fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over(_))
    }

    fn take(
        &mut self,
        transport: &mut Transport,
        event: &Event,
        payload: &[u8],
        cx: &mut Context<'_>,
    ) -> Result<(), Trouble> {
        match (&mut self.phase, event) {
            (Phase::Exchange, Event::Secured) => {
                if transport.host_key() != self.host_key {
                    return Err(Trouble::HostKey);
                }
                let login = Login::start(self.login, self.credential, transport, cx)?;
                self.phase = Phase::Login(login);
            }
            (Phase::Login(login), Event::Payload(_)) => {
                match login.receive(payload, transport, cx)? {
                    LoginStep::Continue | LoginStep::Banner(_) => {}
                    LoginStep::Refused(_) | LoginStep::MoreWanted(_) => {
                        return Err(Trouble::Denied);
                    }
                    LoginStep::Success => {
                        transport.send(&open(self.task.ask), cx)?;
                        self.phase = Phase::Opening;
                    }
                }
            }
            (Phase::Opening | Phase::Open(_), Event::Payload(_)) => {
                self.connection(payload, transport, cx)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn connection(
        &mut self,
        payload: &[u8],
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Result<(), Trouble> {
        let mut reader = Reader::new(payload);
        let number = reader.u8()?;
        match (number, &mut self.phase) {
            (message::GLOBAL_REQUEST, _) => {
                let _name = reader.string()?;
                if reader.bool()? {
                    transport.send(&[message::REQUEST_FAILURE], cx)?;
                }
            }
            (message::CHANNEL_OPEN_FAILURE, Phase::Opening) => {
                let (_channel, _reason) = (reader.u32()?, reader.u32()?);
                let text = String::from_utf8_lossy(reader.string()?).into_owned();
                return Err(Trouble::Refused(printable(&text, TEXT_BYTES_MAX)));
            }
            (message::CHANNEL_OPEN_CONFIRMATION, Phase::Opening) => {
                let _ours = reader.u32()?;
                let channel = Channel {
                    peer: reader.u32()?,
                    window: reader.u32()?,
                    packet_max: reader.u32()?.clamp(1, PACKET_BYTES),
                    consumed: 0,
                    unanswered: 0,
                    sent: 0,
                    input: Input::Open,
                    answer: Answer::default(),
                    status: Status::Unknown,
                };
                self.phase = Phase::Open(channel);
                self.ask(transport, cx)?;
            }
            (_, Phase::Open(channel)) => {
                let _ours = reader.u32()?;
                match channel.take(number, reader, transport, cx)? {
                    Heard::More => {}
                    Heard::Close => {
                        let answer = std::mem::take(&mut channel.answer);
                        let answer = match channel.status {
                            Status::Told => Ok(answer),
                            Status::Unknown => Err(Trouble::NoStatus),
                        };
                        self.phase = Phase::Over(answer);
                    }
                }
            }
            _ => return Err(Trouble::NoStatus),
        }
        Ok(())
    }

    /// Sends the requests of the task in one go.
    fn ask(&mut self, transport: &mut Transport, cx: &mut Context<'_>) -> Result<(), Trouble> {
        let Phase::Open(channel) = &mut self.phase else { return Ok(()) };
        if let Some((columns, rows)) = self.task.terminal {
            let mut request = channel.request("pty-req");
            request.put_string(b"xterm");
            for number in [columns, rows, 0, 0] {
                request.put_u32(number);
            }
            request.put_string(&[0]);
            transport.send(&request, cx)?;
        }
        let request = match self.task.ask {
            Ask::Exec(command) => {
                let mut request = channel.request("exec");
                request.put_string(command.as_bytes());
                request
            }
            Ask::Shell => channel.request("shell"),
            Ask::Subsystem(name) => {
                let mut request = channel.request("subsystem");
                request.put_string(name.as_bytes());
                request
            }
            Ask::Forward => return Ok(()),
        };
        transport.send(&request, cx)?;
        Ok(())
    }

    /// Sends as much of the input as the window and the link take, and its end after it.
    fn send_input(
        &mut self,
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Result<(), Trouble> {
        let Phase::Open(channel) = &mut self.phase else { return Ok(()) };
        // The program has to be there first.
        if channel.unanswered > 0 || channel.input == Input::Ended {
            return Ok(());
        }
        let silent = channel.answer.stdout.is_empty();
        if silent && self.task.begin == Begin::AfterOutput {
            return Ok(());
        }
        while takes_data(transport) {
            let rest = self.task.input.get(channel.sent..).unwrap_or_default();
            let room = usize::try_from(channel.window.min(channel.packet_max)).unwrap_or(0);
            let chunk = rest.get(..room).unwrap_or(rest);
            if rest.is_empty() {
                if silent && self.task.end != End::AtOnce {
                    return Ok(());
                }
                let last = match self.task.end {
                    End::AtOnce | End::AfterOutput => {
                        to_channel(message::CHANNEL_EOF, channel.peer)
                    }
                    End::NoMoreOutput => {
                        let mut request = to_channel(message::CHANNEL_REQUEST, channel.peer);
                        request.put_string(NO_MORE_OUTPUT);
                        request.put_bool(false);
                        request
                    }
                    #[cfg(test)]
                    End::Vanish => return Err(Trouble::Late),
                };
                channel.input = Input::Ended;
                transport.send(&last, cx)?;
                return Ok(());
            }
            if chunk.is_empty() {
                return Ok(());
            }
            let mut data = to_channel(message::CHANNEL_DATA, channel.peer);
            data.put_string(chunk);
            transport.send(&data, cx)?;
            channel.sent += chunk.len();
            channel.window -= u32::try_from(chunk.len()).unwrap_or(channel.window);
        }
        Ok(())
    }
}

/// Whether a channel goes on after a message.
enum Heard {
    More,
    Close,
}

impl Channel {
    fn request(&mut self, name: &str) -> Vec<u8> {
        self.unanswered += 1;
        let mut request = to_channel(message::CHANNEL_REQUEST, self.peer);
        request.put_string(name.as_bytes());
        request.put_bool(true);
        request
    }

    fn take(
        &mut self,
        number: u8,
        mut reader: Reader<'_>,
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Result<Heard, Trouble> {
        match number {
            message::CHANNEL_DATA => {
                let bytes = reader.string()?;
                keep(&mut self.answer.stdout, bytes);
                self.give_back(bytes.len(), transport, cx)?;
            }
            message::CHANNEL_EXTENDED_DATA => {
                let _kind = reader.u32()?;
                let bytes = reader.string()?;
                keep(&mut self.answer.stderr, bytes);
                self.give_back(bytes.len(), transport, cx)?;
            }
            message::CHANNEL_WINDOW_ADJUST => {
                self.window = self.window.saturating_add(reader.u32()?);
            }
            message::CHANNEL_SUCCESS => self.unanswered = self.unanswered.saturating_sub(1),
            message::CHANNEL_FAILURE => return Err(Trouble::Request),
            message::CHANNEL_REQUEST => match reader.string()? {
                b"exit-status" => {
                    let _wants_reply = reader.bool()?;
                    self.answer.status = reader.u32()?;
                    self.status = Status::Told;
                }
                b"exit-signal" => {
                    self.answer.status = BY_SIGNAL;
                    self.status = Status::Told;
                }
                // It wants nothing of us.
                _ => {}
            },
            message::CHANNEL_CLOSE => {
                transport.send(&to_channel(message::CHANNEL_CLOSE, self.peer), cx)?;
                return Ok(Heard::Close);
            }
            // EOF among them: CLOSE follows.
            _ => {}
        }
        Ok(Heard::More)
    }

    fn give_back(
        &mut self,
        count: usize,
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Result<(), Trouble> {
        self.consumed = self.consumed.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        if self.consumed >= WINDOW_STEP_BYTES {
            let mut adjust = to_channel(message::CHANNEL_WINDOW_ADJUST, self.peer);
            adjust.put_u32(self.consumed);
            self.consumed = 0;
            transport.send(&adjust, cx)?;
        }
        Ok(())
    }
}

/// The beginning of an output is enough to find it wrong.
fn keep(output: &mut Vec<u8>, bytes: &[u8]) {
    let room = OUTPUT_BYTES_MAX.saturating_sub(output.len());
    output.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
}

fn to_channel(number: u8, peer: u32) -> Vec<u8> {
    let mut message = vec![number];
    message.put_u32(peer);
    message
}

fn open(ask: Ask<'_>) -> Vec<u8> {
    let mut open = vec![message::CHANNEL_OPEN];
    let kind: &[u8] = match ask {
        Ask::Exec(_) | Ask::Shell | Ask::Subsystem(_) => b"session",
        Ask::Forward => b"direct-tcpip",
    };
    open.put_string(kind);
    for number in [CHANNEL, WINDOW_BYTES, PACKET_BYTES] {
        open.put_u32(number);
    }
    if ask == Ask::Forward {
        open.put_string(b"localhost");
        open.put_u32(80);
        open.put_string(b"localhost");
        open.put_u32(0);
    }
    open
}
