//! A VM of the demonstration: a small SSH server that runs real commands as the user who started
//! the demonstration.
//!
//! It is entered the way a real VM is: by a certificate of the user CA whose principal is
//! `vm:<name>`, and by nothing else. Forwarding is refused. One thread a connection, which waits
//! with poll(2) for everything at once.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::link::{Broken, Link};
use super::process::{CHUNK_BYTES, Process, Program, Surroundings, Turn};
use super::terminal::Terminal;
use crate::edge::clock;
use crate::ssh::certificate::Restrictions;
use crate::ssh::connection::{Asked, ChannelEvent, ChannelId, Connection};
use crate::ssh::fault::Fault;
use crate::ssh::host_key::HostKey;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::PublicKey;
use crate::ssh::transport::{Algorithms, Context, Event, RekeyLimits, ServerConfig, Transport};
use crate::ssh::userauth::{Authenticator, Gate, Identity, Offer, Pass, Policy, ProvedKey, Step};

/// Channels of one connection, as OpenSSH's `MaxSessions`.
const CHANNELS_MAX: usize = 10;
/// Connections of one VM.
const CONNECTIONS_MAX: usize = 64;
/// From accept to a proved key.
const LOGIN_WAIT: Duration = Duration::from_secs(30);
/// Refused signatures on one connection.
const ATTEMPTS_MAX: u32 = 3;
/// How often the listener looks for threads that have ended.
const ACCEPT_WAIT: Duration = Duration::from_secs(1);
/// The client's own standard output is closed (OpenSSH PROTOCOL §2.1).
const NO_MORE_OUTPUT: &str = "eow@openssh.com";
const REFUSAL: &str = "the demonstration's VMs forward nothing";

/// What a VM is made of.
pub(super) struct Setup {
    pub(super) name: String,
    /// Home of whoever logs in.
    pub(super) home: PathBuf,
    pub(super) host_key: PrivateKey,
    /// The only one whose certificates let anybody in.
    pub(super) user_ca: PublicKey,
}

/// A running VM. Dropping it ends its connections and hangs up what they run.
pub(super) struct Vm {
    address: SocketAddr,
    stop: Arc<EventFd>,
    listener: Option<JoinHandle<()>>,
}

/// What all connections of one VM share.
struct Server {
    name: String,
    home: PathBuf,
    config: Arc<ServerConfig>,
    policy: Policy,
    /// Readable from the moment on at which everything has to end.
    stop: Arc<EventFd>,
    connections: AtomicUsize,
}

impl Vm {
    /// Starts a VM at a loopback port of the system's choice.
    pub(super) fn start(setup: Setup) -> io::Result<Self> {
        let Setup { name, home, host_key, user_ca } = setup;
        let socket = TcpListener::bind((IpAddr::from([127, 0, 0, 1]), 0))?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let host_keys = vec![HostKey { key: host_key, certificate: None }];
        let config = ServerConfig::new(host_keys, Algorithms::default(), RekeyLimits::default());
        let server = Arc::new(Server {
            home,
            config: Arc::new(config),
            policy: Policy { cas: vec![user_ca], attempts_max: ATTEMPTS_MAX, ..Policy::default() },
            stop: Arc::clone(&stop),
            connections: AtomicUsize::new(0),
            name,
        });
        let listener = std::thread::Builder::new()
            .name(format!("vm-{}", server.name))
            .spawn(move || listen(&server, &socket))?;
        Ok(Self { address, stop, listener: Some(listener) })
    }

    /// Where it listens.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _cannot_fail = self.stop.write(1);
        if let Some(listener) = self.listener.take() {
            let _ended = listener.join();
        }
    }
}

fn listen(server: &Arc<Server>, socket: &TcpListener) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    loop {
        let mut fds = [
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(server.stop.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, timeout(ACCEPT_WAIT)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => break,
        }
        if fds[1].any() == Some(true) {
            break;
        }
        threads.retain(|thread| !thread.is_finished());
        while let Ok((stream, _)) = socket.accept() {
            // Beyond the limit the connection is closed: the edge tells its user.
            if server.connections.load(Ordering::Relaxed) < CONNECTIONS_MAX {
                let place = ConnectionPermit::take(server);
                let name = format!("vm-{}", server.name);
                let serve = move || serve(&place.0, stream);
                threads.extend(std::thread::Builder::new().name(name).spawn(serve));
            }
        }
    }
    for thread in threads {
        let _ended = thread.join();
    }
}

/// One of the places for connections.
struct ConnectionPermit(Arc<Server>);

impl ConnectionPermit {
    fn take(server: &Arc<Server>) -> Self {
        server.connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(server))
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

fn timeout(wait: Duration) -> PollTimeout {
    PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
}

/// Takes one connection to its end.
fn serve(server: &Server, stream: TcpStream) {
    let transport = |cx: &mut Context<'_>| Transport::server(Arc::clone(&server.config), cx);
    let Ok(mut link) = Link::new(stream, transport) else { return };
    match converse(server, &mut link) {
        // The transport has its DISCONNECT for the peer already.
        Ok(()) | Err(Broken::Fault(_)) => drop(link.flush()),
        Err(Broken::Closed | Broken::Socket(_)) => {}
    }
}

fn converse(server: &Server, link: &mut Link) -> Result<(), Broken> {
    let [peer, local] = link.addresses()?;
    let exits = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map_err(io::Error::from)?;
    let mut visit = Visit {
        server,
        connection: format!("{} {} {} {}", peer.ip(), peer.port(), local.ip(), local.port()),
        exits: Arc::new(exits),
        chunk: vec![0; CHUNK_BYTES].into_boxed_slice(),
        phase: Phase::Login(Authenticator::new(peer.ip())),
    };
    let grace_over = Instant::now() + LOGIN_WAIT;
    link.flush()?;
    loop {
        let mut wait = visit.patience();
        if let Phase::Login(_) = visit.phase {
            let rest = grace_over.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                link.disconnect("no login in time");
                return Ok(());
            }
            wait = Some(rest);
        }
        let mut fds = vec![
            link.interest(),
            PollFd::new(server.stop.as_fd(), PollFlags::POLLIN),
            PollFd::new(visit.exits.as_fd(), PollFlags::POLLIN),
        ];
        visit.interest(link.takes_data(), &mut fds);
        match poll(&mut fds, wait.map_or(PollTimeout::NONE, timeout)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
        let happened = |index: usize| fds.get(index).is_some_and(|fd| fd.any() == Some(true));
        let (readable, stopped, exited) = (happened(0), happened(1), happened(2));
        drop(fds);
        if stopped {
            link.disconnect("the demonstration is over");
            return Ok(());
        }
        if exited {
            let _how_many = visit.exits.read();
        }
        if readable {
            link.receive(|transport, event, payload, cx| {
                visit.take(transport, event, payload, cx)
            })?;
        }
        link.with(|transport, cx| visit.turn(transport, cx))?;
        link.flush()?;
    }
}

/// One connection, above its transport.
struct Visit<'a> {
    server: &'a Server,
    /// For `SSH_CONNECTION`.
    connection: String,
    exits: Arc<EventFd>,
    /// What output goes through.
    chunk: Box<[u8]>,
    phase: Phase,
}

enum Phase {
    /// Nobody has proved a key yet.
    Login(Authenticator),
    /// A user is in.
    Open(Box<Session>),
}

/// What a user who is in has.
struct Session {
    connection: Connection,
    login: String,
    restrictions: Restrictions,
    channels: BTreeMap<ChannelId, Channel>,
}

/// Where a channel stands.
enum Channel {
    /// What the program is to find when it starts.
    Preparing { variables: Vec<(String, String)>, terminal: Option<Terminal> },
    /// A program runs.
    Running(Process),
    /// Its status is sent; the client closes.
    Over,
}

impl Channel {
    const fn new() -> Self {
        Self::Preparing { variables: Vec::new(), terminal: None }
    }
}

/// Lets in whom a certificate names as this VM, and no plain key.
struct Door<'a>(&'a str);

impl Door<'_> {
    fn is_open_to(&self, identity: &Identity) -> bool {
        match identity {
            Identity::User(principal) => principal.strip_prefix("vm:") == Some(self.0),
            Identity::Key(_) => false,
        }
    }
}

impl Gate for Door<'_> {
    fn judge_offer(&self, offer: &Offer<'_>) -> Option<Pass> {
        let standing = offer.stand().ok()?;
        let mut names = standing.principals.iter().cloned().map(Identity::User);
        let identity = names.find(|name| self.is_open_to(name))?;
        Some(Pass { identity, restrictions: standing.restrictions })
    }
}

impl Visit<'_> {
    /// Takes one packet.
    fn take(
        &mut self,
        transport: &mut Transport,
        event: &Event,
        payload: &[u8],
        cx: &mut Context<'_>,
    ) -> Result<(), Fault> {
        if !matches!(event, Event::Payload(_)) {
            return Ok(());
        }
        match &mut self.phase {
            Phase::Login(authenticator) => {
                let door = Door(&self.server.name);
                let step = authenticator.receive(
                    payload,
                    clock::unix_s(),
                    &self.server.policy,
                    &door,
                    transport,
                    cx,
                )?;
                let Step::Proved(key) = step else { return Ok(()) };
                if door.is_open_to(key.identity()) {
                    authenticator.accept(transport, cx)?;
                    self.phase = Phase::Open(Box::new(Session::new(&key)));
                } else {
                    authenticator.refuse(&self.server.policy, transport, cx)?;
                }
                Ok(())
            }
            Phase::Open(session) => {
                let heard = session.hear(payload, transport, cx)?;
                let Some((channel, asked, wants_reply)) = heard else { return Ok(()) };
                let surroundings = Surroundings {
                    vm: self.server.name.clone(),
                    login: session.login.clone(),
                    home: self.server.home.clone(),
                    connection: self.connection.clone(),
                };
                let granted = session.asked(channel, asked, &surroundings, &self.exits);
                if wants_reply {
                    session.connection.answer(channel, granted, transport, cx)?;
                }
                Ok(())
            }
        }
    }

    fn interest<'a>(&'a self, takes_data: bool, fds: &mut Vec<PollFd<'a>>) {
        let Phase::Open(session) = &self.phase else { return };
        for (id, channel) in &session.channels {
            if let Channel::Running(process) = channel {
                let window = session.connection.window(*id).unwrap_or(u32::MAX);
                process.interest(window, takes_data, fds);
            }
        }
    }

    fn patience(&self) -> Option<Duration> {
        let Phase::Open(session) = &self.phase else { return None };
        let channels = session.channels.values();
        channels
            .filter_map(|channel| match channel {
                Channel::Running(process) => process.patience(),
                Channel::Preparing { .. } | Channel::Over => None,
            })
            .min()
    }

    /// Moves the bytes of all channels.
    fn turn(&mut self, transport: &mut Transport, cx: &mut Context<'_>) -> Result<(), Fault> {
        let Phase::Open(session) = &mut self.phase else { return Ok(()) };
        for (id, channel) in &mut session.channels {
            let Channel::Running(process) = channel else { continue };
            match process.turn(*id, &mut session.connection, transport, cx, &mut self.chunk)? {
                Turn::Running => {}
                Turn::Over(status) => {
                    session.connection.finish(*id, status, transport, cx)?;
                    *channel = Channel::Over;
                }
            }
        }
        Ok(())
    }
}

impl Session {
    fn new(key: &ProvedKey) -> Self {
        Self {
            connection: Connection::new(CHANNELS_MAX, REFUSAL),
            login: key.login().to_owned(),
            restrictions: key.restrictions().clone(),
            channels: BTreeMap::new(),
        }
    }

    /// Takes one message; answers with the request in it.
    fn hear(
        &mut self,
        payload: &[u8],
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Result<Option<(ChannelId, Asked, bool)>, Fault> {
        match self.connection.receive(payload, transport, cx)? {
            ChannelEvent::None => {}
            ChannelEvent::Opened(channel) => {
                self.channels.insert(channel, Channel::new());
            }
            ChannelEvent::Data { channel, bytes } => {
                let unused = match self.channels.get_mut(&channel) {
                    Some(Channel::Running(process)) => process.feed(&bytes),
                    // Nothing runs that could read it.
                    Some(Channel::Preparing { .. } | Channel::Over) | None => bytes.len(),
                };
                self.connection.consumed(channel, unused, transport, cx)?;
            }
            ChannelEvent::Eof(channel) => {
                if let Some(Channel::Running(process)) = self.channels.get_mut(&channel) {
                    process.end_of_input();
                }
            }
            ChannelEvent::Closed(channel) => {
                self.channels.remove(&channel);
            }
            ChannelEvent::Request { channel, asked, wants_reply } => {
                return Ok(Some((channel, asked, wants_reply)));
            }
        }
        Ok(None)
    }

    /// Does what a request wants; false if it cannot or may not be done.
    fn asked(
        &mut self,
        id: ChannelId,
        asked: Asked,
        surroundings: &Surroundings,
        exits: &Arc<EventFd>,
    ) -> bool {
        let Some(channel) = self.channels.get_mut(&id) else { return false };
        let program = match (channel, asked) {
            (Channel::Preparing { terminal, .. }, Asked::Pty(pty)) => {
                if self.restrictions.no_pty || terminal.is_some() {
                    return false;
                }
                *terminal = Terminal::open(&pty).ok();
                return terminal.is_some();
            }
            (Channel::Preparing { variables, .. }, Asked::Env { name, value }) => {
                variables.push((name, value));
                return true;
            }
            (Channel::Running(process), Asked::Window { columns, rows, .. }) => {
                return process.resize(columns, rows);
            }
            (Channel::Running(process), Asked::Signal(name)) => return process.signal(&name),
            (Channel::Running(process), Asked::Other(name)) if name == NO_MORE_OUTPUT => {
                process.end_of_output();
                return true;
            }
            (Channel::Preparing { .. }, Asked::Shell) => Program::Shell,
            (Channel::Preparing { .. }, Asked::Exec(line)) => Program::Line(line),
            (Channel::Preparing { .. }, Asked::Subsystem(name)) if name == "sftp" => Program::Sftp,
            _ => return false,
        };
        let program = self.restrictions.force_command.clone().map_or(program, Program::Line);
        let Some(channel) = self.channels.get_mut(&id) else { return false };
        let Channel::Preparing { variables, terminal } = std::mem::replace(channel, Channel::new())
        else {
            return false;
        };
        match Process::start(&program, surroundings, &variables, terminal, exits) {
            Ok(process) => {
                *channel = Channel::Running(process);
                true
            }
            Err(error) => {
                tracing::warn!(vm = surroundings.vm, %error, "a program could not be started");
                false
            }
        }
    }
}

#[cfg(test)]
#[path = "vm_tests.rs"]
mod tests;
