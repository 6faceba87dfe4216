//! A tunnel: one SSH connection to a node, and what is opened through it.

use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::client::{AuthResult, Config, Handle, Msg, connect_stream};
use russh::keys::{Algorithm, PrivateKeyWithHashAlg};
use russh::{Channel, ChannelOpenFailure, Limits, MethodKind, Preferred, cipher, kex};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle as Runtime;
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::dial::dial;
use super::endpoint::{DockerSocket, Endpoint};
use super::fault::{Stage, Unreached};
use super::guard::{Expected, Guard};
use super::link::{Link, Target};
use super::pin::{HOST_KEY_TYPES, Pin, Trust, algorithm};
use super::probe::{self, Findings, NoProbe, Probe, SocketKind};
use super::script;
use super::settings::Settings;
use super::stream::{Kind, Seats, Stream};
use super::unread::{Company, Unread};
use super::wire::{Lifeline, Line, Wire};
use crate::ssh::publickey::{Fingerprint, KeyType, PublicKey};

/// Streams of one connection.
const STREAMS_MAX: usize = 256;
/// Sessions among them: sshd's MaxSessions is 10, and the probe takes one.
const SESSIONS_MAX: usize = 8;
/// What a node may send on a channel before it hears that more may come, in bytes.
const WINDOW_BYTES: u32 = 1 << 20;
/// Messages of a channel on their way to their inbox: each is at most a packet.
const CHANNEL_MESSAGES: usize = 16;
/// Signs of life that may be missed.
const KEEPALIVES_MISSED_MAX: usize = 2;
/// Channels that were refused, or closed by this side first: each leaves some kilobytes in the
/// library's tables until its connection ends.
const WORN_MAX: usize = 16;

/// Payload after which this side begins a key exchange on a shared connection, in bytes: far below
/// what AES-GCM and 32-bit packet numbers bear. Rarely and never by time, because the library ends
/// a connection on which more than two windows are under way meanwhile, and many streams may be:
/// what sshd begins by itself does no harm.
const SHARED_REKEY_BYTES: usize = 16 << 30;

const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
];
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_128_CTR,
];

/// How the Docker socket is reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// sshd forwards to it.
    Forwarded,
    /// The node's own docker client leads to it, as sshd refuses to.
    DockerClient,
}

impl Way {
    /// A word that does not change.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::DockerClient => "docker_client",
        }
    }
}

/// One connection to a node. A copy is the same connection; it ends with its last copy and
/// its last stream.
#[derive(Clone)]
pub struct Tunnel {
    link: Arc<Link>,
    endpoint: Arc<Endpoint>,
    settings: Arc<Settings>,
    host_key: PublicKey,
    address: SocketAddr,
    /// What the last probe found.
    found: Arc<Mutex<Option<Probe>>>,
    by_client: Arc<AtomicBool>,
}

/// A session that is ended with its user, whatever runs in it.
struct Session {
    channel: Option<Channel<Msg>>,
    seats: Seats,
    link: Arc<Link>,
}

impl Session {
    const fn new(channel: Channel<Msg>, seats: Seats, link: Arc<Link>) -> Self {
        Self { channel: Some(channel), seats, link }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let (link, seats) = (Arc::clone(&self.link), std::mem::take(&mut self.seats));
        // Without a runtime the connection has ended, too.
        if let (Some(channel), Ok(_)) = (self.channel.take(), Runtime::try_current()) {
            drop(Stream::begin(Kind::Program, channel, link, seats));
        }
    }
}

/// Cuts a connection that is not to be kept.
struct Unfinished(Option<Arc<Line>>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(|line| line.cut());
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Tunnel {
    /// Connects, checks the host key and logs in. Each step has a deadline; the connection ends
    /// with `lifeline` at the latest.
    ///
    /// # Errors
    /// [`Unreached`]; nothing of the credential was sent unless the host key was trusted.
    pub async fn open(
        endpoint: Arc<Endpoint>,
        trust: Trust,
        settings: Arc<Settings>,
        lifeline: &Lifeline,
    ) -> Result<Self, Unreached> {
        Self::open_in(Company::Shared, endpoint, trust, settings, lifeline).await
    }

    pub(super) async fn open_in(
        company: Company,
        endpoint: Arc<Endpoint>,
        trust: Trust,
        settings: Arc<Settings>,
        lifeline: &Lifeline,
    ) -> Result<Self, Unreached> {
        let (types, expected) = match trust {
            Trust::Pinned(Pin::Key(key)) => {
                (vec![key.key_type()], Expected::Pinned(key.fingerprint()))
            }
            Trust::Pinned(Pin::Fingerprint(fingerprint)) => {
                return Self::try_types(company, endpoint, fingerprint, settings, lifeline).await;
            }
            Trust::FirstUse(question) => (HOST_KEY_TYPES.to_vec(), Expected::Asked(Some(question))),
        };
        let opening = Opening { company, endpoint, settings };
        opening.open(&types, expected, lifeline).await
    }

    /// The pinned key may be of any type: a connection for each, until one has it.
    async fn try_types(
        company: Company,
        endpoint: Arc<Endpoint>,
        fingerprint: Fingerprint,
        settings: Arc<Settings>,
        lifeline: &Lifeline,
    ) -> Result<Self, Unreached> {
        let mut changed = None;
        let mut none_common = None;
        for key_type in HOST_KEY_TYPES {
            let (endpoint, settings) = (Arc::clone(&endpoint), Arc::clone(&settings));
            let opening = Opening { company, endpoint, settings };
            match opening.open(&[key_type], Expected::Pinned(fingerprint), lifeline).await {
                Err(why @ Unreached::HostKeyChanged { .. }) => {
                    changed.get_or_insert(why);
                }
                Err(why @ Unreached::NoCommonAlgorithm { of: "host key", .. }) => {
                    none_common.get_or_insert(why);
                }
                done => return done,
            }
        }
        Err(changed.or(none_common).unwrap_or(Unreached::NotYet))
    }

    /// The host key that the node has shown.
    pub const fn host_key(&self) -> &PublicKey {
        &self.host_key
    }

    /// The address that was dialled.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How the Docker socket is reached.
    pub fn way(&self) -> Way {
        let by_client = self.by_client.load(Ordering::Relaxed);
        if by_client { Way::DockerClient } else { Way::Forwarded }
    }

    /// Takes the same way as another connection to this node.
    pub(super) fn goes_as(&self, other: &Self) {
        self.by_client.store(other.way() == Way::DockerClient, Ordering::Relaxed);
    }

    /// What the last probe found; nothing before the first one.
    pub fn found(&self) -> Option<Probe> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the connection has ended; says why.
    pub async fn ended(&self) -> Unreached {
        let mut ended = self.link.ended.clone();
        let _ = ended.wait_for(Option::is_some).await;
        self.link.why_ended()
    }

    /// Ends the connection and its streams.
    pub fn cut(&self) {
        self.link.line.cut();
    }

    /// Whether the node itself still answers, whatever its Docker does.
    pub(super) async fn is_alive(&self) -> bool {
        timeout(self.settings.check, self.link.handle.send_ping()).await.is_ok()
            && !self.link.handle.is_closed()
    }

    /// Whether the connection should make place for another one, which nothing prevents.
    pub(super) fn is_worn_and_free(&self) -> bool {
        self.link.worn.load(Ordering::Relaxed) >= WORN_MAX && self.is_free()
    }

    /// Whether no stream is open.
    pub(super) fn is_free(&self) -> bool {
        self.link.seats.available_permits() == STREAMS_MAX
    }

    /// Asks the node about itself and its Docker socket, in a session.
    pub async fn probe(&self) -> Probe {
        let asked = async {
            let (channel, seats) = self.channel(Target::Session).await.map_err(|why| {
                let is_late = matches!(why, Unreached::TimedOut { .. });
                if is_late { NoProbe::TimedOut } else { NoProbe::NoSession }
            })?;
            let mut session = Session::new(channel, seats, Arc::clone(&self.link));
            let command = script::probe(self.endpoint.docker_socket());
            match &mut session.channel {
                Some(channel) => probe::run(channel, command).await,
                None => Err(NoProbe::NoSession),
            }
        };
        let found = timeout(self.settings.probe, asked).await.unwrap_or(Err(NoProbe::TimedOut));
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found.clone());
        found
    }

    /// A session that does nothing, on a connection that has had none.
    pub(super) async fn hasten(&self) {
        if let Ok((session, seats)) = self.channel(Target::Session).await {
            let _ = session.exec(false, script::NOTHING).await;
            drop(Stream::begin(Kind::Program, session, Arc::clone(&self.link), seats));
        }
    }

    /// A stream to the node's Docker socket.
    ///
    /// # Errors
    /// [`Unreached`], named by a fresh probe if the node refuses.
    pub async fn docker_stream(&self) -> Result<Stream, Unreached> {
        self.docker_stream_with(Seats::default()).await
    }

    pub(super) async fn docker_stream_with(&self, more: Seats) -> Result<Stream, Unreached> {
        let socket = self.endpoint.docker_socket();
        if self.way() == Way::DockerClient {
            return self.by_docker_client(more).await;
        }
        match self.channel(Target::Socket(socket.as_str().to_owned())).await {
            Ok((channel, seats)) => {
                return Ok(self.stream(Kind::Forward, channel, seats, more));
            }
            Err(Unreached::ForwardingRefused { .. }) => {}
            Err(why) => return Err(why),
        }
        let socket = socket.clone();
        let found = match self.probe().await {
            Ok(found) => found,
            Err(why) => return Err(Unreached::Unexplained { socket, why: Some(why) }),
        };
        if let Some(why) = against(&found, &socket) {
            return Err(why);
        }
        if found.docker_client {
            let stream = self.by_docker_client(more).await?;
            self.by_client.store(true, Ordering::Relaxed);
            return Ok(stream);
        }
        Err(match found.listening {
            Some(_) => Unreached::ForwardingRefused { to: socket.to_string() },
            None => Unreached::Unexplained { socket, why: None },
        })
    }

    async fn by_docker_client(&self, more: Seats) -> Result<Stream, Unreached> {
        let (session, seats) = self.channel(Target::Session).await?;
        let command = script::dial_stdio(self.endpoint.docker_socket());
        session.exec(false, command).await.map_err(|_| self.link.why_ended())?;
        Ok(self.stream(Kind::Program, session, seats, more))
    }

    /// A stream to an address, as the node reaches it.
    ///
    /// # Errors
    /// [`Unreached`].
    pub async fn tcp_stream(&self, to: SocketAddr) -> Result<Stream, Unreached> {
        self.tcp_stream_with(to, Seats::default()).await
    }

    pub(super) async fn tcp_stream_with(
        &self,
        to: SocketAddr,
        more: Seats,
    ) -> Result<Stream, Unreached> {
        let (channel, seats) = self.channel(Target::Address(to)).await?;
        Ok(self.stream(Kind::Forward, channel, seats, more))
    }

    fn stream(&self, of: Kind, channel: Channel<Msg>, mut seats: Seats, more: Seats) -> Stream {
        seats.0.extend(more.0);
        Stream::begin(of, channel, Arc::clone(&self.link), seats)
    }

    /// Opens a channel. One that the node confirms too late is closed at once.
    async fn channel(&self, to: Target) -> Result<(Channel<Msg>, Seats), Unreached> {
        let link = Arc::clone(&self.link);
        let full = |_| Unreached::TooManyStreams { max: STREAMS_MAX };
        let mut seats = Seats(vec![Arc::clone(&link.seats).try_acquire_owned().map_err(full)?]);
        if matches!(to, Target::Session) {
            let session = Arc::clone(&link.sessions).try_acquire_owned();
            seats.0.push(session.map_err(|_| Unreached::SessionsRefused)?);
        }
        let (tell, told) = oneshot::channel();
        let wanted = to.clone();
        tokio::spawn(async move {
            let opened = link.open_channel(wanted).await;
            if let Err((Ok(late), seats)) = tell.send((opened, seats)) {
                drop(Stream::begin(Kind::Forward, late, link, seats));
            }
        });
        match timeout(self.settings.channel, told).await {
            Err(_) => Err(Unreached::TimedOut { stage: Stage::Channel }),
            Ok(Ok((Ok(channel), seats))) => Ok((channel, seats)),
            Ok(Ok((Err(russh::Error::ChannelOpenFailure(why)), _))) => {
                self.link.wear();
                Err(refused(&to, &why))
            }
            Ok(Ok((Err(_), _)) | Err(_)) => Err(self.link.why_ended()),
        }
    }
}

/// Why the socket cannot be used, if that is what was found.
fn against(found: &Findings, socket: &DockerSocket) -> Option<Unreached> {
    let (socket, user) = (socket.clone(), found.user.clone());
    Some(match found.socket {
        SocketKind::Missing => Unreached::SocketMissing { socket },
        SocketKind::Hidden => Unreached::SocketHidden { socket, user },
        SocketKind::Other => Unreached::NotASocket { socket },
        SocketKind::Socket if !found.writable => {
            Unreached::NoPermission { socket, user, groups: found.groups.clone() }
        }
        SocketKind::Socket if found.listening == Some(false) => Unreached::SocketDead { socket },
        SocketKind::Socket => return None,
    })
}

/// Why a channel was refused, as far as the refusal says it: for a socket it says nothing.
fn refused(to: &Target, why: &ChannelOpenFailure) -> Unreached {
    match to {
        Target::Session => Unreached::SessionsRefused,
        Target::Socket(path) => Unreached::ForwardingRefused { to: path.clone() },
        Target::Address(to) if *why == ChannelOpenFailure::ConnectFailed => {
            Unreached::NotConnected { to: *to }
        }
        Target::Address(to) => Unreached::ForwardingRefused { to: to.to_string() },
    }
}

/// One try to connect.
struct Opening {
    company: Company,
    endpoint: Arc<Endpoint>,
    settings: Arc<Settings>,
}

impl Opening {
    async fn open(
        self,
        types: &[KeyType],
        expected: Expected,
        lifeline: &Lifeline,
    ) -> Result<Tunnel, Unreached> {
        let line = lifeline.attach().ok_or(Unreached::Gone)?;
        let (stream, address) = dial(&self.endpoint, &self.settings).await?;
        self.over(stream, address, line, types, expected).await
    }

    /// The same over a byte stream that stands.
    async fn over(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        address: SocketAddr,
        line: Arc<Line>,
        types: &[KeyType],
        expected: Expected,
    ) -> Result<Tunnel, Unreached> {
        let mut unfinished = Unfinished(Some(Arc::clone(&line)));
        let asking = Arc::new(Notify::new());
        let (shown, host_key) = watch::channel(None);
        let (tell, ended) = watch::channel(None);
        let guard = Guard { expected, asking: Arc::clone(&asking), shown, ended: tell };
        let wire = Wire::new(stream, Arc::clone(&line), self.settings.keepalive.saturating_mul(4));
        let mut connecting = pin!(connect_stream(self.config(types), wire, guard));
        let timed_out = |stage| Err(Unreached::TimedOut { stage });
        let connected = tokio::select! {
            done = &mut connecting => done,
            () = sleep(self.settings.exchange) => timed_out(Stage::Exchange),
            () = asking.notified() => tokio::select! {
                done = &mut connecting => done,
                () = sleep(self.settings.question) => timed_out(Stage::Question),
            },
        };
        let mut handle = connected.map_err(|why| explained(why, &line))?;
        let host_key = host_key.borrow().clone();
        let broken = || Unreached::Malformed { said: "it shows no host key".to_owned() };
        let host_key = host_key.ok_or_else(broken)?;
        let login = self.log_in(&mut handle, &ended);
        let login = timeout(self.settings.login, login).await;
        login.unwrap_or(Err(Unreached::TimedOut { stage: Stage::Login }))?;
        line.logged_in();
        unfinished.0 = None;
        let connection = Link {
            handle,
            line,
            ended,
            unread: Unread::new(self.company),
            seats: Arc::new(Semaphore::new(STREAMS_MAX)),
            sessions: Arc::new(Semaphore::new(SESSIONS_MAX)),
            worn: AtomicUsize::new(0),
        };
        Ok(Tunnel {
            link: Arc::new(connection),
            endpoint: self.endpoint,
            settings: self.settings,
            host_key,
            address,
            found: Arc::default(),
            by_client: Arc::default(),
        })
    }

    fn config(&self, types: &[KeyType]) -> Arc<Config> {
        let types: Vec<Algorithm> = types.iter().filter_map(|of| algorithm(*of)).collect();
        let preferred = Preferred {
            kex: KEX.into(),
            key: types.into(),
            cipher: CIPHERS.into(),
            host_key_certificates: (&[]).into(),
            ..Preferred::DEFAULT
        };
        let keepalive = self.settings.keepalive;
        let limits = match self.company {
            Company::Shared => Limits {
                rekey_write_limit: SHARED_REKEY_BYTES,
                rekey_read_limit: SHARED_REKEY_BYTES,
                rekey_time_limit: Duration::MAX,
            },
            Company::Own => Limits::default(),
        };
        Arc::new(Config {
            preferred,
            limits,
            window_size: WINDOW_BYTES,
            channel_buffer_size: CHANNEL_MESSAGES,
            keepalive_interval: Some(keepalive),
            keepalive_max: KEEPALIVES_MISSED_MAX,
            // It would also end a connection whose reader paused so long: the wire watches writes.
            inactivity_timeout: None,
            ..Config::default()
        })
    }

    async fn log_in(
        &self,
        handle: &mut Handle<Guard>,
        ended: &watch::Receiver<Option<Unreached>>,
    ) -> Result<(), Unreached> {
        let user = self.endpoint.user();
        let key = PrivateKeyWithHashAlg::new(self.endpoint.credential().key(), None);
        let answer = handle.authenticate_publickey(user, key).await;
        let (methods, partial) = match answer {
            Ok(AuthResult::Success) => return Ok(()),
            Ok(AuthResult::Failure { remaining_methods, partial_success }) => {
                (remaining_methods, partial_success)
            }
            Err(why) => return Err(in_login(why.into())),
        };
        let names: Vec<&str> = methods.iter().map(|kind: &MethodKind| <&str>::from(kind)).collect();
        let (user, methods) = (user.to_owned(), names.join(", "));
        if partial {
            return Err(Unreached::MoreThanKey { user, methods });
        }
        // No methods: the node offers none, or the connection has ended.
        match ended.borrow().clone() {
            Some(why) if methods.is_empty() && !is_refusal(&why) => Err(in_login(why)),
            _ => Err(Unreached::KeyNotAccepted { user, methods }),
        }
    }
}

/// Whether a connection ended because no way to log in was left.
fn is_refusal(why: &Unreached) -> bool {
    let said = russh::Error::NoAuthMethod.to_string();
    matches!(why, Unreached::Malformed { said: it } if *it == said)
}

fn in_login(why: Unreached) -> Unreached {
    if let Unreached::Closed { said, .. } = why {
        Unreached::Closed { stage: Stage::Login, said }
    } else {
        why
    }
}

/// An end before the key exchange was done, by what came until then.
fn explained(why: Unreached, line: &Line) -> Unreached {
    match (why, line.first_line()) {
        (Unreached::Closed { .. }, Some(said)) if is_sshd_in_need(&said) => {
            Unreached::Closed { stage: Stage::Exchange, said }
        }
        (Unreached::Closed { .. } | Unreached::NotSsh { .. }, Some(said)) => {
            Unreached::NotSsh { said }
        }
        (Unreached::Closed { said, .. }, None) => {
            Unreached::Closed { stage: Stage::Exchange, said }
        }
        (why, _) => why,
    }
}

/// What an sshd says in place of its version when it takes no more connections (sshd.c,
/// `drop_connection`), or none from here.
fn is_sshd_in_need(said: &str) -> bool {
    said.starts_with("Exceeded MaxStartups") || said.starts_with("Not allowed at this time")
}

#[cfg(test)]
#[path = "open_tests.rs"]
mod tests;
