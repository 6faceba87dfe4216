//! What the DNS server counts. Labels are closed sets; nothing of a question is in them.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// How a question came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// A connection.
    Tcp,
}

impl Transport {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Udp, Self::Tcp];

    /// The metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// What an answer said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ResponseKind {
    /// Records.
    Found,
    /// The name exists, the type does not.
    NoData,
    /// The name does not exist.
    NxDomain,
    /// Too large for UDP: ask again over TCP.
    Truncated,
    /// The request could not be read.
    Malformed,
    /// A fault of ours.
    Failure,
    /// A kind of question that is never answered.
    NotImplemented,
    /// Outside the zone, or not for this peer.
    Refused,
    /// A transfer of something that is not the zone.
    NotAuthoritative,
    /// An EDNS version that does not exist yet.
    BadVersion,
}

impl ResponseKind {
    /// Every one, in the order of declaration.
    pub const ALL: [Self; 10] = [
        Self::Found,
        Self::NoData,
        Self::NxDomain,
        Self::Truncated,
        Self::Malformed,
        Self::Failure,
        Self::NotImplemented,
        Self::Refused,
        Self::NotAuthoritative,
        Self::BadVersion,
    ];

    /// The metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Found => "noerror",
            Self::NoData => "nodata",
            Self::NxDomain => "nxdomain",
            Self::Truncated => "truncated",
            Self::Malformed => "formerr",
            Self::Failure => "servfail",
            Self::NotImplemented => "notimp",
            Self::Refused => "refused",
            Self::NotAuthoritative => "notauth",
            Self::BadVersion => "badvers",
        }
    }
}

/// What is counted beside answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// A packet that gets no answer: no header, or an answer itself.
    Ignored,
    /// An answer that the kernel had no room for, or could not send.
    Unsent,
    /// A question was not answered over UDP: its network had enough answers.
    Limited,
    /// For the same reason it was told to come by TCP.
    Slipped,
    /// A panic contained to the question that caused it.
    Panicked,
    /// A TCP connection was taken.
    Connected,
    /// A TCP connection was closed at once: its peer has enough of them.
    Crowded,
    /// A transfer of the zone was sent to its end.
    Transferred,
    /// A transfer broke off: its peer went, or was too slow.
    TransferFailed,
    /// A NOTIFY was sent, repetitions included.
    Notified,
}

impl Event {
    /// Every one, in the order of declaration.
    pub const ALL: [Self; 10] = [
        Self::Ignored,
        Self::Unsent,
        Self::Limited,
        Self::Slipped,
        Self::Panicked,
        Self::Connected,
        Self::Crowded,
        Self::Transferred,
        Self::TransferFailed,
        Self::Notified,
    ];

    /// The metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ignored => "ignored",
            Self::Unsent => "unsent",
            Self::Limited => "limited",
            Self::Slipped => "slipped",
            Self::Panicked => "panicked",
            Self::Connected => "connected",
            Self::Crowded => "crowded",
            Self::Transferred => "transferred",
            Self::TransferFailed => "transfer_failed",
            Self::Notified => "notified",
        }
    }
}

/// All counts, from the start of the server on.
#[derive(Debug, Default)]
pub struct Counters {
    answers: [[AtomicU64; ResponseKind::ALL.len()]; Transport::ALL.len()],
    events: [AtomicU64; Event::ALL.len()],
}

impl Counters {
    pub(super) fn answered(&self, transport: Transport, said: ResponseKind) {
        self.answers[transport as usize][said as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn happened(&self, event: Event) {
        self.events[event as usize].fetch_add(1, Relaxed);
    }

    /// Answers of one kind.
    pub fn answers(&self, transport: Transport, said: ResponseKind) -> u64 {
        self.answers[transport as usize][said as usize].load(Relaxed)
    }

    /// Events of one kind.
    pub fn events(&self, event: Event) -> u64 {
        self.events[event as usize].load(Relaxed)
    }
}
