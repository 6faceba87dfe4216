//! Why a connection ended: side x stage x cause -> one log line, one metric label, one
//! message to the user.
//!
//! Every connection ends with exactly one [`Ended`]. All three are closed sets of ours, so peer
//! text never reaches a label, and a dashboard can name each value. The texts for users are here
//! too, so that they sound alike.

use std::fmt;

use crate::plural;
use crate::ssh::fault::Fault;
use crate::ssh::text::printable as escaped;

/// Declares an enum whose variants carry a fixed label each.
macro_rules! labelled {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$item:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum $name { $($(#[$item])* $variant,)* }

        impl $name {
            /// Every value, in the order of declaration: `ALL[x as usize] == x`.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The value as a log field and a metric label: `snake_case`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use labelled;

labelled! {
    /// Who ended it.
    pub enum Side {
        /// The SSH client, or the network on its side.
        Client = "client",
        /// The VM's SSH server, or the network on its side.
        Vm = "vm",
        /// The agent that a session is handed to, or the network on its side.
        Agent = "agent",
        /// This program, by a rule or for want of something.
        Edge = "edge",
        /// A person: a drain, a revocation, a kill.
        Operator = "operator",
    }
}

labelled! {
    /// How far it had come.
    pub enum Stage {
        /// Accepted; its local address and its place are being looked at.
        Accept = "accept",
        /// Waiting for a PROXY header.
        Header = "header",
        /// The client leg's version lines and key exchange.
        Exchange = "exchange",
        /// Keys are offered and proved.
        Authentication = "authentication",
        /// Between an edge and an agent, until the keys have changed hands.
        Handoff = "handoff",
        /// Connecting to the VM.
        Dial = "dial",
        /// The VM leg's key exchange.
        VmExchange = "vm_exchange",
        /// Logging in to the VM.
        VmLogin = "vm_login",
        /// Carried by the pump.
        Session = "session",
        /// Showing the user's VMs.
        Lobby = "lobby",
    }
}

labelled! {
    /// Why. A closed set: it is a metric label.
    pub enum Cause {
        /// Orderly: end of file, or DISCONNECT by application.
        Closed = "closed",
        /// The TCP connection broke: RST, timed out, unreachable.
        Reset = "reset",
        /// The peer broke a rule of SSH.
        Protocol = "protocol",
        /// A packet did not authenticate.
        Corrupt = "corrupt",
        /// No common algorithm.
        NoCommonAlgorithm = "no_common_algorithm",
        /// The client has no attempt left.
        Attempts = "attempts",
        /// A wait took longer than it may.
        Deadline = "deadline",
        /// The client did not answer the key exchange that hands its session to an agent.
        ExchangeUnanswered = "exchange_unanswered",
        /// The local address is not in the pool, or not known for sure.
        NotInPool = "not_in_pool",
        /// A PROXY header that is missing, malformed, or not allowed.
        HeaderRefused = "header_refused",
        /// Shown out for a newcomer while half-open.
        HalfOpenFull = "half_open_full",
        /// `sessions_max` is reached.
        SessionsFull = "sessions_full",
        /// The user has as many sessions as one may have.
        UserSessionsFull = "user_sessions_full",
        /// The VM has as many sessions as one may have.
        VmSessionsFull = "vm_sessions_full",
        /// The agent beside the VM cannot be reached, or went away.
        AgentUnreachable = "agent_unreachable",
        /// The agent beside the VM does not take the session.
        AgentRefused = "agent_refused",
        /// The edge's identity was removed: agents take no sessions from it.
        EdgeRemoved = "edge_removed",
        /// An edge asked this agent for what it does not do.
        HandoffRefused = "handoff_refused",
        /// The VM did not answer.
        DialFailed = "dial_failed",
        /// The VM's host answered that nothing listens.
        DialRefused = "dial_refused",
        /// The VM's SSH server took the connection and said why it does not want it: it is
        /// busy, or punishes us.
        TurnedAway = "turned_away",
        /// The VM's endpoint lies outside `vm_leg.networks`.
        NetworkNotAllowed = "network_not_allowed",
        /// The VM's host key is not the pinned one.
        PinMismatch = "pin_mismatch",
        /// The VM's host key is already pinned to a VM of another owner.
        PinConflict = "pin_conflict",
        /// The VM's host key, seen for the first time, could not be written down.
        PinUnwritten = "pin_unwritten",
        /// The VM refused the login.
        LoginRefused = "login_refused",
        /// The VM took the login and wants something else beside it.
        SecondFactor = "second_factor",
        /// The key is restricted, and the edge's own login to the VM cannot carry that.
        Restricted = "restricted",
        /// The VM refused this login a moment ago and was not asked again.
        LoginRemembered = "login_remembered",
        /// The route of a live session, or the right to the lobby, was taken away.
        RightLost = "right_lost",
        /// The key or certificate of a live session gives less now than the session began with.
        RightNarrowed = "right_narrowed",
        /// The time of a live session's key or certificate is over.
        RightExpired = "right_expired",
        /// The VM is in maintenance.
        VmMaintenance = "vm_maintenance",
        /// The pool address dialled is in maintenance.
        AddressMaintenance = "address_maintenance",
        /// The drain time is over.
        Drained = "drained",
        /// A bug of ours; contained to this connection.
        Panic = "panic",
        /// Descriptors, memory or queue space ran out.
        Resources = "resources",
        /// Ended by name by an operator.
        Killed = "killed",
    }
}

impl Cause {
    /// What happened, for the log line's reader.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Closed => "closed in good order",
            Self::Reset => "the network connection broke",
            Self::Protocol => "the peer broke a rule of the SSH protocol",
            Self::Corrupt => "a packet did not authenticate",
            Self::NoCommonAlgorithm => "the peers have no algorithm in common",
            Self::Attempts => "no key of the client opens anything at this address",
            Self::Deadline => "a step took longer than it may",
            Self::ExchangeUnanswered => "the client did not answer the key exchange of a handoff",
            Self::NotInPool => "the address dialled is not in the pool or not known for sure",
            Self::HeaderRefused => {
                "the PROXY header is missing, malformed or not allowed from this peer"
            }
            Self::HalfOpenFull => "gave its place to a newcomer: too many half-open connections",
            Self::SessionsFull => "sessions_max is reached",
            Self::UserSessionsFull => "the user has sessions_max_per_user sessions",
            Self::VmSessionsFull => "the VM has sessions_max_per_vm sessions",
            Self::AgentUnreachable => "the agent beside the VM cannot be reached",
            Self::AgentRefused => "the agent beside the VM does not take the session",
            Self::EdgeRemoved => "the edge's identity is removed: agents take no sessions from it",
            Self::HandoffRefused => "the agent was asked for what it does not do",
            Self::DialFailed => "the VM does not answer",
            Self::DialRefused => "nothing listens at the VM's endpoint",
            Self::TurnedAway => "the VM's SSH server turned the connection away",
            Self::NetworkNotAllowed => "the VM's endpoint lies outside vm_leg.networks",
            Self::PinMismatch => "the VM's host key is not the pinned one",
            Self::PinConflict => "the VM's host key is pinned to a VM of another owner",
            Self::PinUnwritten => "the VM's first host key could not be recorded",
            Self::LoginRefused => "the VM refused the login",
            Self::SecondFactor => "the VM asks for more than a key",
            Self::Restricted => "the key's restrictions cannot be carried to the VM",
            Self::LoginRemembered => "the VM refused this login less than a minute ago",
            Self::RightLost => "the user's right to be there was taken away",
            Self::RightNarrowed => "the user's key gives less than the session began with",
            Self::RightExpired => "the time of the user's key or certificate is over",
            Self::VmMaintenance => "the VM is in maintenance",
            Self::AddressMaintenance => "the address dialled is in maintenance",
            Self::Drained => "the drain time is over",
            Self::Panic => "a bug in keyway ended this connection",
            Self::Resources => "out of descriptors, memory or queue space",
            Self::Killed => "ended by an operator",
        }
    }
}

impl From<&Fault> for Cause {
    fn from(fault: &Fault) -> Self {
        match fault {
            Fault::Corrupt => Self::Corrupt,
            Fault::NoCommon(_) => Self::NoCommonAlgorithm,
            Fault::Attempts => Self::Attempts,
            Fault::Disconnected { .. } => Self::Closed,
            // One connection, two host keys: whoever answers now is not who was pinned.
            Fault::HostKeyChanged => Self::PinMismatch,
            Fault::QueueFull => Self::Resources,
            Fault::Malformed(_)
            | Fault::Ident
            | Fault::Unexpected { .. }
            | Fault::Length { .. }
            | Fault::KeyExchange
            | Fault::HostKey
            | Fault::Flood
            | Fault::KeysUsedUp
            | Fault::Service => Self::Protocol,
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Ended {
    /// Who ended it.
    pub side: Side,
    /// How far it had come.
    pub stage: Stage,
    /// The cause, as it is counted.
    pub cause: Cause,
}

impl Ended {
    /// By us.
    #[must_use]
    pub const fn edge(stage: Stage, cause: Cause) -> Self {
        Self { side: Side::Edge, stage, cause }
    }

    /// By the client.
    #[must_use]
    pub const fn client(stage: Stage, cause: Cause) -> Self {
        Self { side: Side::Client, stage, cause }
    }

    /// By the VM.
    #[must_use]
    pub const fn vm(stage: Stage, cause: Cause) -> Self {
        Self { side: Side::Vm, stage, cause }
    }

    /// What was under way in good order and had to end.
    #[must_use]
    pub fn evicted(stage: Stage, cause: Cause) -> Self {
        // A time that passes is a rule; everything else is somebody's doing.
        let side = if cause == Cause::RightExpired { Side::Edge } else { Side::Operator };
        Self { side, stage, cause }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { side, stage, cause } = self;
        write!(f, "{side} during {stage}: {}", cause.sentence())
    }
}

/// What is known of an end beyond its cause: printable ASCII of bounded length.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Detail {
    /// The peer's own words.
    Said(Box<str>),
    /// What went wrong, in our words or the system's.
    Found(Box<str>),
    /// As [`Detail::Found`], for operators: it stands in the log line alone.
    Noted(Box<str>),
}

impl Detail {
    /// Longest detail, in bytes: with it every notice fits into a DISCONNECT, its
    /// request id included.
    pub const BYTES_MAX: usize = 160;

    /// `text` may be anything that a peer sent.
    #[must_use]
    pub fn said(text: &str) -> Self {
        Self::Said(escaped(text, Self::BYTES_MAX).into())
    }

    /// What went wrong.
    #[must_use]
    pub fn found(what: impl fmt::Display) -> Self {
        Self::Found(escaped(&what.to_string(), Self::BYTES_MAX).into())
    }

    /// What only operators are told.
    #[must_use]
    pub fn noted(what: impl fmt::Display) -> Self {
        Self::Noted(escaped(&what.to_string(), Self::BYTES_MAX).into())
    }

    /// As the log field `detail`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let (Self::Said(text) | Self::Found(text) | Self::Noted(text)) = self;
        text
    }

    /// As a sentence for users, with a space before it.
    fn sentence(&self) -> String {
        match self {
            Self::Said(text) => format!(" It said: \"{text}\"."),
            Self::Found(text) => format!(" Reason: {text}."),
            Self::Noted(_) => String::new(),
        }
    }
}

/// Whom a [`notice`] is about.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The VM's name.
    pub vm: &'a str,
    /// The login asked for in the VM; may be what the client sent.
    pub login: &'a str,
    /// What is known beyond the cause.
    pub detail: Option<&'a Detail>,
    /// Stands in the log line too, so that a user can quote it to an operator.
    pub request: &'a str,
    /// How many sessions the user or the VM has, where that is the cause.
    pub sessions: usize,
}

/// Characters of a name that a notice repeats; longer ones are cut.
const NAME_CHARS_MAX: usize = 64;

/// The line a user sees, after a proved key only. One line of printable ASCII without a line end,
/// whatever the names.
#[must_use]
pub fn notice(cause: Cause, about: &About<'_>) -> String {
    let vm = printable(about.vm);
    let login = printable(about.login);
    let detail = about.detail.map_or_else(String::new, Detail::sentence);
    let text = match cause {
        Cause::DialFailed
        | Cause::DialRefused
        | Cause::AgentUnreachable
        | Cause::AgentRefused => out_of_reach(cause, &vm),
        Cause::EdgeRemoved | Cause::ExchangeUnanswered => not_handed_over(cause, &vm),
        Cause::TurnedAway => format!(
            "the SSH server of {vm} takes no connection right now. Your key is fine; try again in a moment."
        ),
        Cause::NetworkNotAllowed => format!(
            "{vm} has an endpoint that this server may not connect to. Your key is fine; the \
             operator has to correct the endpoint or vm_leg.networks."
        ),
        Cause::PinMismatch => format!(
            "{vm} shows another host key than the one on record, so you were not connected. If it \
             was rebuilt, its operator can forget the old key; if not, take this as a warning. \
             Nothing you typed was sent."
        ),
        Cause::PinConflict => format!(
            "{vm} shows a host key that belongs to a VM of somebody else, so you were not \
             connected. If both were cloned from one image, the operator can set host_key for \
             {vm}."
        ),
        Cause::PinUnwritten => format!(
            "nobody was connected to {vm} before, and its host key cannot be recorded right now, so you were not \
             connected. Your key is fine; try again later."
        ),
        Cause::LoginRefused | Cause::SecondFactor | Cause::LoginRemembered => {
            refusal(cause, &vm, &login, !detail.is_empty())
        }
        Cause::Restricted => format!(
            "your key has restrictions that the login to {vm} cannot carry, so you were not connected. The operator has to let this server log in with certificates (vm_leg.user_ca)."
        ),
        Cause::SessionsFull => {
            "this server has all the sessions it can carry. Your key is fine; try again in a few minutes.".into()
        }
        Cause::UserSessionsFull => format!(
            "you have {} open, and one user may have no more. Your key is fine; close one and try again.",
            plural::count(about.sessions, "session")
        ),
        Cause::VmSessionsFull => format!(
            "{vm} has {} open, and one VM may have no more. Your key is fine; close one, or try again in a few minutes.",
            plural::count(about.sessions, "session")
        ),
        Cause::Resources => {
            "this server is short of resources right now. Your key is fine; try again in a moment.".into()
        }
        Cause::RightLost => format!("your access to {vm} was taken away, so this session has ended."),
        Cause::RightNarrowed => format!(
            "the rights of your key at {vm} were narrowed, so this session has ended. Connect again \
             to go on with what is left of them."
        ),
        Cause::RightExpired => format!(
            "the time of your key or certificate for {vm} is over, so this session has ended. Ask for \
             a new one to go on."
        ),
        Cause::VmMaintenance => format!(
            "{vm} is in maintenance, so nobody is connected to it. Your key is fine; try again later."
        ),
        Cause::AddressMaintenance => {
            "the address you dialled is in maintenance. Your key is fine; try again later, or ask \
             the operator for another address."
                .into()
        }
        Cause::Drained => {
            "this server is going down for maintenance, so this session has ended. Connect again to go on.".into()
        }
        Cause::Killed => format!("an operator ended this session with {vm}."),
        Cause::Deadline => {
            format!("{vm} took too long to answer. Your key is fine; try again in a moment.")
        }
        Cause::Closed | Cause::Reset => {
            format!("{vm} closed the connection. Your key is fine; try again in a moment.")
        }
        Cause::NoCommonAlgorithm => format!(
            "{vm} has no encryption method in common with this server. Your key is fine; the \
             operator has to update its SSH server."
        ),
        Cause::Protocol | Cause::Corrupt => format!(
            "{vm} does not speak SSH the way it should, so the connection was closed. Your key is \
             fine; please tell the operator."
        ),
        Cause::Panic => {
            "something went wrong inside this server. It was noted; try again in a moment.".into()
        }
        // These end before a key is proved, and users who see none of it cannot be helped by more.
        Cause::Attempts
        | Cause::HandoffRefused
        | Cause::NotInPool
        | Cause::HeaderRefused
        | Cause::HalfOpenFull => "this connection cannot be carried.".into(),
    };
    format!("keyway: {text}{detail} [request {}]", printable(about.request))
}

/// Of a VM that cannot be connected to.
fn out_of_reach(cause: Cause, vm: &str) -> String {
    let why = if cause == Cause::DialFailed {
        "no answer"
    } else if cause == Cause::DialRefused {
        "connection refused"
    } else {
        "its host does not take sessions"
    };
    format!("{vm} is not reachable right now ({why}). Your key is fine; try again in a moment.")
}

/// To a client that was to be handed to the VM's host.
fn not_handed_over(cause: Cause, vm: &str) -> String {
    if cause == Cause::EdgeRemoved {
        return format!(
            "this server may not connect anybody to {vm} any more. Your key is fine; please tell the operator."
        );
    }
    format!(
        "your SSH client did not go on with the key exchange that leads to {vm}, so you were not connected. Your key \
         is fine; try again."
    )
}

/// Of a VM that does not let its user in. Another login name is a guess: it is not advised where it
/// is `known` what the VM wants.
fn refusal(cause: Cause, vm: &str, login: &str, known: bool) -> String {
    if cause == Cause::SecondFactor {
        return format!(
            "{vm} took the key for \"{login}\" and wants something more, which this server cannot pass on. The \
             operator of {vm} can let this server in by its certificate alone."
        );
    }
    let (text, advice) = if cause == Cause::LoginRemembered {
        (
            format!(
                "{vm} refused the login \"{login}\" less than a minute ago, so it was not asked again."
            ),
            " Try another login name, or the same in a minute.",
        )
    } else {
        (
            format!("{vm} does not let you in as \"{login}\". Your key is fine here."),
            " Try another login name: ssh NAME@host.",
        )
    };
    if known { text } else { text + advice }
}

/// `name` cut to [`NAME_CHARS_MAX`], with anything but printable ASCII replaced: it may be
/// what a client sent.
fn printable(name: &str) -> String {
    name.chars()
        .take(NAME_CHARS_MAX)
        .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
        .collect()
}

#[cfg(test)]
#[path = "ended_tests.rs"]
mod tests;
