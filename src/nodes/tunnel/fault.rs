//! Why a node, or something on it, is not reached: one label, one sentence about the fault and one
//! about its mending each.
//!
//! A node never says why it refuses a channel; where it matters the probe tells.

#![expect(missing_docs, reason = "a field is what its name says")]

use std::net::{IpAddr, SocketAddr};
use std::{fmt, io};

use russh::AlgorithmKind;

use super::address::Unfit;
use super::endpoint::DockerSocket;
use super::probe::NoProbe;
use super::said::shown;
use crate::plural;
use crate::ssh::publickey::{Fingerprint, PublicKey};

/// How far a connection had come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Asking for the name's addresses.
    Resolve,
    /// Connecting by TCP.
    Connect,
    /// Version lines and key exchange.
    Exchange,
    /// Somebody is asked about the host key.
    Question,
    /// Logging in.
    Login,
    /// Opening a channel.
    Channel,
    /// A connection that stood.
    Standing,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "resolving the name",
            Self::Connect => "connecting",
            Self::Exchange => "the key exchange",
            Self::Question => "the question about the host key",
            Self::Login => "the login",
            Self::Channel => "opening a channel",
            Self::Standing => "an open connection",
        })
    }
}

/// Why something is not reached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unreached {
    /// The name has no address.
    NotResolved { host: String },
    /// The address may not be dialled.
    AddressRefused { address: IpAddr, why: Unfit },
    /// Nothing listens there.
    ConnectionRefused { address: SocketAddr },
    /// No way leads there.
    NoRoute { address: SocketAddr },
    /// No answer within the deadline.
    TimedOut { stage: Stage },
    /// Something else than an SSH server answered.
    NotSsh { said: String },
    /// The two sides have no algorithm in common.
    NoCommonAlgorithm { of: &'static str, theirs: String },
    /// The peer broke the protocol.
    Malformed { said: String },
    /// Another host key than the pinned one. Nothing of the credential was sent.
    HostKeyChanged { pinned: Fingerprint, shown: PublicKey },
    /// Whoever was asked about a new host key did not say yes.
    HostKeyNotConfirmed { shown: PublicKey },
    /// The login's key was refused.
    KeyNotAccepted { user: String, methods: String },
    /// The key was accepted, but the node asks for more than a key.
    MoreThanKey { user: String, methods: String },
    /// The peer ended the connection.
    Closed { stage: Stage, said: String },
    /// The connection stood, and no sign of life came any more.
    Frozen,
    /// There is no such file.
    SocketMissing { socket: DockerSocket },
    /// The login may not look into the directory.
    SocketHidden { socket: DockerSocket, user: String },
    /// The file is no socket.
    NotASocket { socket: DockerSocket },
    /// The login may not write to it.
    NoPermission { socket: DockerSocket, user: String, groups: String },
    /// Nobody listens at it.
    SocketDead { socket: DockerSocket },
    /// The node's sshd refuses to forward to the socket, or to an address.
    ForwardingRefused { to: String },
    /// The socket was refused, and the probe could not find out more.
    Unexplained { socket: DockerSocket, why: Option<NoProbe> },
    /// The node could not connect to an address of its own networks.
    NotConnected { to: SocketAddr },
    /// The node takes no more sessions on one connection.
    SessionsRefused,
    /// As many streams as a connection may have are open.
    TooManyStreams { max: usize },
    /// As many connections as a node may have are open.
    TooManyConnections { max: usize },
    /// The node is being connected, for the first time or again.
    NotYet,
    /// The node was removed.
    Gone,
}

impl Unreached {
    /// A short name that does not change.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NotResolved { .. } => "not_resolved",
            Self::AddressRefused { .. } => "address_refused",
            Self::ConnectionRefused { .. } => "connection_refused",
            Self::NoRoute { .. } => "no_route",
            Self::TimedOut { .. } => "timed_out",
            Self::NotSsh { .. } => "not_ssh",
            Self::NoCommonAlgorithm { .. } => "no_common_algorithm",
            Self::Malformed { .. } => "malformed",
            Self::HostKeyChanged { .. } => "host_key_changed",
            Self::HostKeyNotConfirmed { .. } => "host_key_not_confirmed",
            Self::KeyNotAccepted { .. } => "key_not_accepted",
            Self::MoreThanKey { .. } => "more_than_key",
            Self::Closed { .. } => "closed",
            Self::Frozen => "frozen",
            Self::SocketMissing { .. } => "socket_missing",
            Self::SocketHidden { .. } => "socket_hidden",
            Self::NotASocket { .. } => "not_a_socket",
            Self::NoPermission { .. } => "no_permission",
            Self::SocketDead { .. } => "socket_dead",
            Self::ForwardingRefused { .. } => "forwarding_refused",
            Self::Unexplained { .. } => "unexplained",
            Self::NotConnected { .. } => "not_connected",
            Self::SessionsRefused => "sessions_refused",
            Self::TooManyStreams { .. } => "too_many_streams",
            Self::TooManyConnections { .. } => "too_many_connections",
            Self::NotYet => "not_yet",
            Self::Gone => "gone",
        }
    }

    /// The host key that was shown, and must not be.
    pub const fn shown(&self) -> Option<&PublicKey> {
        if let Self::HostKeyChanged { shown, .. } = self { Some(shown) } else { None }
    }

    /// Whether something answered, so that there is something to mend at one of both ends;
    /// else the node is out of reach.
    pub const fn is_to_be_mended(&self) -> bool {
        match self {
            Self::NotResolved { .. }
            | Self::ConnectionRefused { .. }
            | Self::NoRoute { .. }
            | Self::TimedOut { .. }
            | Self::Closed { .. }
            | Self::Frozen
            | Self::NotYet
            | Self::Gone => false,
            Self::AddressRefused { .. }
            | Self::NotSsh { .. }
            | Self::NoCommonAlgorithm { .. }
            | Self::Malformed { .. }
            | Self::HostKeyChanged { .. }
            | Self::HostKeyNotConfirmed { .. }
            | Self::KeyNotAccepted { .. }
            | Self::MoreThanKey { .. }
            | Self::SocketMissing { .. }
            | Self::SocketHidden { .. }
            | Self::NotASocket { .. }
            | Self::NoPermission { .. }
            | Self::SocketDead { .. }
            | Self::ForwardingRefused { .. }
            | Self::Unexplained { .. }
            | Self::NotConnected { .. }
            | Self::SessionsRefused
            | Self::TooManyStreams { .. }
            | Self::TooManyConnections { .. } => true,
        }
    }

    /// What is wrong, in a sentence without its full stop.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others stand in the other half")]
    pub fn fault(&self) -> String {
        match self {
            Self::NotResolved { host } => format!("the name {host} has no address"),
            Self::AddressRefused { address, why } => format!("{address} is {why}"),
            Self::ConnectionRefused { address } => format!("nothing listens at {address}"),
            Self::NoRoute { address } => format!("no route leads to {address}"),
            Self::TimedOut { stage } => format!("no answer in time, in {stage}"),
            Self::NotSsh { said } => format!("no SSH server answers there{}", quoted(said)),
            Self::NoCommonAlgorithm { of, theirs } => {
                format!("no {of} algorithm in common; the node has {}", shown(theirs))
            }
            Self::Malformed { said } => format!("the node breaks the protocol{}", quoted(said)),
            Self::HostKeyChanged { pinned, shown } => format!(
                "the node shows another host key: {} ({}) instead of {pinned}",
                shown.fingerprint(),
                shown.key_type().name()
            ),
            Self::HostKeyNotConfirmed { shown } => format!(
                "the node's host key {} ({}) was not confirmed",
                shown.fingerprint(),
                shown.key_type().name()
            ),
            Self::KeyNotAccepted { user, methods } => {
                format!("the node does not let {user} in with this key{}", offered(methods))
            }
            Self::MoreThanKey { user, methods } => {
                format!("the node asks {user} for more than a key{}", offered(methods))
            }
            Self::Closed { stage, said } => {
                format!("the node ended the connection, in {stage}{}", quoted(said))
            }
            Self::Frozen => "the node gave no sign of life any more".to_owned(),
            Self::NotYet => "the node is not connected yet".to_owned(),
            Self::Gone => "the node was removed".to_owned(),
            Self::TooManyStreams { max } => {
                format!("{} of this node are open, as many as may be", plural::count(max, "stream"))
            }
            Self::TooManyConnections { max } => format!(
                "{} to this node are open, as many as may be",
                plural::count(max, "connection")
            ),
            channel => channel.fault_of_channel(),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the others stand in the other half")]
    fn fault_of_channel(&self) -> String {
        match self {
            Self::SocketMissing { socket } => format!("there is no {socket} on the node"),
            Self::SocketHidden { socket, user } => {
                format!("{user} may not look into the directory of {socket}")
            }
            Self::NotASocket { socket } => format!("{socket} on the node is no socket"),
            Self::NoPermission { socket, user, groups } => {
                format!("{user} (groups {groups}) may not use {socket}")
            }
            Self::SocketDead { socket } => format!("nobody listens at {socket} on the node"),
            Self::ForwardingRefused { to } => {
                format!("the node's sshd refuses to forward to {to}")
            }
            Self::Unexplained { socket, why: Some(why) } => {
                format!("the node refuses {socket}, and no probe is possible: {why}")
            }
            Self::Unexplained { socket, why: None } => {
                format!("the node refuses {socket}: nobody listens there, or forwarding is refused")
            }
            Self::NotConnected { to } => format!("the node could not connect to {to}"),
            Self::SessionsRefused => "the node takes no more sessions on a connection".to_owned(),
            other => other.label().to_owned(),
        }
    }

    /// What to do about it, in a sentence without its full stop.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others stand in the other half")]
    pub fn fix(&self) -> &'static str {
        match self {
            Self::NotResolved { .. } => "check the node's host and this host's DNS",
            Self::AddressRefused { why: Unfit::Outside, .. } => {
                "add its network to the node's `networks`, or correct its host"
            }
            Self::AddressRefused { .. } => {
                "if that is meant, name it in the node's `networks`, no wider than what it is"
            }
            Self::ConnectionRefused { .. } => "check that sshd runs there, and the node's port",
            Self::NoRoute { .. } | Self::TimedOut { .. } => {
                "check that the node is up and that no firewall drops the way to it"
            }
            Self::NotSsh { .. } => "check the node's host and port",
            Self::NoCommonAlgorithm { .. } => {
                "bring the node's sshd up to date; it needs an Ed25519 or ECDSA host key"
            }
            Self::Malformed { .. } => "check what answers at the node's address",
            Self::HostKeyChanged { .. } => {
                "if the node was installed anew, compare the fingerprint there and set it with \
                 `node host-key set`; else somebody may stand in between"
            }
            Self::HostKeyNotConfirmed { .. } => {
                "compare it with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the node"
            }
            Self::KeyNotAccepted { .. } => {
                "add the line of `node identity` to that user's authorized_keys on the node"
            }
            Self::MoreThanKey { .. } => {
                "let this user in by its key alone (AuthenticationMethods publickey)"
            }
            Self::Closed { .. } | Self::Frozen => {
                "look into the node's sshd log (MaxStartups, PerSourcePenalties, a restart)"
            }
            Self::NotYet => "try again in a moment, or see `node show`",
            Self::Gone => "add it again",
            Self::TooManyStreams { .. } | Self::TooManyConnections { .. } => {
                "end some of what runs on this node, or try again later"
            }
            channel => channel.fix_of_channel(),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the others stand in the other half")]
    fn fix_of_channel(&self) -> &'static str {
        match self {
            Self::SocketMissing { .. } => "install or start Docker, or set `docker-socket`",
            Self::NotASocket { .. } => "set `docker-socket` to the socket that Docker listens at",
            Self::SocketHidden { .. } | Self::NoPermission { .. } => {
                "add the user to the group that owns the socket (docker), or log in as root"
            }
            Self::SocketDead { .. } => "start Docker on the node",
            Self::ForwardingRefused { .. } => {
                "allow it: AllowTcpForwarding, AllowStreamLocalForwarding, DisableForwarding, \
                 PermitOpen or an option of the key stands against it"
            }
            Self::Unexplained { .. } => {
                "check on the node that Docker listens there, that the user may use the socket, and \
                 AllowStreamLocalForwarding"
            }
            Self::NotConnected { .. } => "check that something listens there",
            Self::SessionsRefused => "raise MaxSessions in the node's sshd_config",
            _ => "try again",
        }
    }
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.fault(), self.fix())
    }
}

impl std::error::Error for Unreached {}

fn quoted(said: &str) -> String {
    if said.trim().is_empty() { String::new() } else { format!(" (\"{}\")", shown(said)) }
}

fn offered(methods: &str) -> String {
    if methods.is_empty() { String::new() } else { format!(" (it offers {methods})") }
}

const fn kind(kind: &AlgorithmKind) -> &'static str {
    match kind {
        AlgorithmKind::Kex => "key exchange",
        AlgorithmKind::Key => "host key",
        AlgorithmKind::Cipher => "cipher",
        AlgorithmKind::Compression => "compression",
        AlgorithmKind::Mac => "MAC",
    }
}

impl From<russh::Error> for Unreached {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whatever else the library finds wrong is the peer's way of speaking"
    )]
    fn from(error: russh::Error) -> Self {
        let closed = |said: String| Self::Closed { stage: Stage::Standing, said };
        match error {
            russh::Error::Version => Self::NotSsh { said: String::new() },
            russh::Error::NoCommonAlgo { kind: of, theirs, .. } => {
                Self::NoCommonAlgorithm { of: kind(&of), theirs: theirs.join(", ") }
            }
            russh::Error::KeepaliveTimeout | russh::Error::InactivityTimeout => Self::Frozen,
            russh::Error::IO(error) if error.kind() == io::ErrorKind::InvalidData => {
                Self::Malformed { said: error.to_string() }
            }
            russh::Error::IO(error) if error.kind() == io::ErrorKind::TimedOut => Self::Frozen,
            russh::Error::IO(_)
            | russh::Error::Disconnect
            | russh::Error::HUP
            | russh::Error::SendError
            | russh::Error::RecvError
            | russh::Error::Join(_) => closed(String::new()),
            other => Self::Malformed { said: other.to_string() },
        }
    }
}
