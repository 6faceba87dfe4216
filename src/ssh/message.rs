//! Message numbers (RFC 4250 §4.1, OpenSSH PROTOCOL) and disconnect reasons (RFC 4250 §4.2.2).

/// Builds the constants and nothing else: the number is the name's whole content.
macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        $($(#[$doc])* pub const $name: u8 = $value;)*
    };
}

numbers! {
    /// RFC 4253 §11.1.
    DISCONNECT = 1,
    /// RFC 4253 §11.2.
    IGNORE = 2,
    /// RFC 4253 §11.4.
    UNIMPLEMENTED = 3,
    /// RFC 4253 §11.3.
    DEBUG = 4,
    /// RFC 4253 §10.
    SERVICE_REQUEST = 5,
    /// RFC 4253 §10.
    SERVICE_ACCEPT = 6,
    /// RFC 8308 §2.3.
    EXT_INFO = 7,
    /// RFC 8308 §3.2.
    NEWCOMPRESS = 8,
    /// RFC 4253 §7.1.
    KEXINIT = 20,
    /// RFC 4253 §7.3.
    NEWKEYS = 21,
    /// RFC 5656 §4; also the first message of `mlkem768x25519-sha256`.
    KEX_ECDH_INIT = 30,
    /// RFC 5656 §4.
    KEX_ECDH_REPLY = 31,
    /// RFC 4252 §5.
    USERAUTH_REQUEST = 50,
    /// RFC 4252 §5.1.
    USERAUTH_FAILURE = 51,
    /// RFC 4252 §5.1.
    USERAUTH_SUCCESS = 52,
    /// RFC 4252 §5.4.
    USERAUTH_BANNER = 53,
    /// RFC 4252 §7.
    USERAUTH_PK_OK = 60,
    /// RFC 4254 §4.
    GLOBAL_REQUEST = 80,
    /// RFC 4254 §4.
    REQUEST_SUCCESS = 81,
    /// RFC 4254 §4.
    REQUEST_FAILURE = 82,
    /// RFC 4254 §5.1.
    CHANNEL_OPEN = 90,
    /// RFC 4254 §5.1.
    CHANNEL_OPEN_CONFIRMATION = 91,
    /// RFC 4254 §5.1.
    CHANNEL_OPEN_FAILURE = 92,
    /// RFC 4254 §5.2.
    CHANNEL_WINDOW_ADJUST = 93,
    /// RFC 4254 §5.2.
    CHANNEL_DATA = 94,
    /// RFC 4254 §5.2.
    CHANNEL_EXTENDED_DATA = 95,
    /// RFC 4254 §5.3.
    CHANNEL_EOF = 96,
    /// RFC 4254 §5.3.
    CHANNEL_CLOSE = 97,
    /// RFC 4254 §5.4.
    CHANNEL_REQUEST = 98,
    /// RFC 4254 §5.4.
    CHANNEL_SUCCESS = 99,
    /// RFC 4254 §5.4.
    CHANNEL_FAILURE = 100,
    /// OpenSSH PROTOCOL §1.11, `ping@openssh.com`.
    PING = 192,
    /// OpenSSH PROTOCOL §1.11, `ping@openssh.com`.
    PONG = 193,
}

/// Connection-protocol messages: what a relay carries verbatim (RFC 4250 §4.1.1).
pub const CONNECTION: std::ops::RangeInclusive<u8> = 80..=127;

/// Numbers that no protocol spoken here has: client protocols, and local extensions but for PING
/// and PONG (RFC 4250 §4.1.1).
pub const fn is_foreign(number: u8) -> bool {
    matches!(number, 128..=191 | 194..=255)
}

/// Why a DISCONNECT was sent (RFC 4250 §4.2.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Reason {
    /// Not allowed to connect from here.
    HostNotAllowedToConnect = 1,
    /// The peer broke the protocol.
    ProtocolError = 2,
    /// No common algorithm, or a key exchange value out of range.
    KeyExchangeFailed = 3,
    /// A packet did not authenticate.
    MacError = 5,
    /// The service asked for is not offered.
    ServiceNotAvailable = 7,
    /// The peer's version is not 2.0.
    ProtocolVersionNotSupported = 8,
    /// The host key is not the pinned one.
    HostKeyNotVerifiable = 9,
    /// The connection is lost.
    ConnectionLost = 10,
    /// An orderly end.
    ByApplication = 11,
    /// Too many connections.
    TooManyConnections = 12,
    /// No authentication method is left.
    NoMoreAuthMethods = 14,
    /// The user name is not allowed here.
    IllegalUserName = 15,
}

impl Reason {
    /// The number on the wire.
    #[must_use]
    #[expect(clippy::as_conversions, reason = "reads the discriminant of a repr(u32) enum")]
    pub const fn code(self) -> u32 {
        self as u32
    }
}
