//! Why the protocol core gave up on a peer. Final: every later call gets the same answer.

use super::message::Reason;
use super::wire::Malformed;

/// What went wrong on one transport. All but [`Fault::Disconnected`] are answered with DISCONNECT.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Fault {
    /// A message does not parse.
    #[error("malformed message: {0}")]
    Malformed(#[from] Malformed),
    /// The identification line is missing, too long, or not SSH 2.0 (RFC 4253 §4.2).
    #[error("no SSH 2.0 identification line")]
    Ident,
    /// A message that the table of legal messages does not allow now.
    #[error("message {number} not allowed during {during}")]
    Unexpected {
        /// The message number.
        number: u8,
        /// Where the transport stood.
        during: Stage,
    },
    /// `packet_length` above the limit or not a multiple of the block size.
    #[error("packet_length {len} out of range")]
    Length {
        /// The length claimed, in bytes.
        len: u32,
    },
    /// A packet did not authenticate, or its padding is wrong: one answer for all of these.
    #[error("corrupt packet")]
    Corrupt,
    /// No algorithm in common.
    #[error("no common {0}")]
    NoCommon(&'static str),
    /// A key exchange value of the wrong size, zero, or out of range.
    #[error("invalid key exchange value")]
    KeyExchange,
    /// The peer's signature over the exchange hash does not verify.
    #[error("host key signature does not verify")]
    HostKey,
    /// The host key changed between two key exchanges of one connection.
    #[error("host key changed during the connection")]
    HostKeyChanged,
    /// The peer sent more than its share of messages that make no progress.
    #[error("too many messages without progress")]
    Flood,
    /// Output queued for this peer reached its limit.
    #[error("output queue full")]
    QueueFull,
    /// A sequence number or key was used up before a key exchange replaced it.
    #[error("keys used up")]
    KeysUsedUp,
    /// The client has used all its authentication attempts.
    #[error("too many authentication failures")]
    Attempts,
    /// The service asked for is not `ssh-userauth`.
    #[error("service not available")]
    Service,
    /// The peer said goodbye first.
    #[error("peer disconnected with reason {reason}")]
    Disconnected {
        /// RFC 4250 §4.2.2, as received.
        reason: u32,
    },
}

impl Fault {
    /// The reason for the DISCONNECT that tells the peer.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Ident => Reason::ProtocolVersionNotSupported,
            Self::NoCommon(_) | Self::KeyExchange => Reason::KeyExchangeFailed,
            Self::HostKey | Self::HostKeyChanged => Reason::HostKeyNotVerifiable,
            Self::Corrupt => Reason::MacError,
            Self::Attempts => Reason::NoMoreAuthMethods,
            Self::Service => Reason::ServiceNotAvailable,
            Self::Disconnected { .. } => Reason::ByApplication,
            Self::Malformed(_)
            | Self::Unexpected { .. }
            | Self::Length { .. }
            | Self::Flood
            | Self::QueueFull
            | Self::KeysUsedUp => Reason::ProtocolError,
        }
    }
}

/// Where a transport stands, for the table of legal messages and for error texts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Before or during the first key exchange.
    FirstExchange,
    /// Keys are in place, nobody is authenticated.
    Authentication,
    /// A user is authenticated: the connection protocol runs.
    Connection,
    /// A later key exchange: from the peer's KEXINIT to its NEWKEYS.
    Rekey,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::FirstExchange => "the first key exchange",
            Self::Authentication => "authentication",
            Self::Connection => "the connection protocol",
            Self::Rekey => "a re-key",
        })
    }
}
