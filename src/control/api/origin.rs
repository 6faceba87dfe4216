//! Where a connection of the API comes from, and the place that it takes for as long as it lasts.

use std::net::{IpAddr, SocketAddr};

use super::auth::Process;
use crate::control::feed::proof::Exporter;
use crate::control::places::Place;
use crate::registry::writer::Actor;

/// Where a connection comes from.
pub(super) enum Origin {
    /// The socket; who it is is known. Its place is one of its user's.
    Socket(Actor, Process, Place<u32>),
    /// TLS: each request says who it is.
    Tls {
        peer: SocketAddr,
        place: Place<IpAddr>,
        exporter: Option<Exporter>,
        /// Whether it has the place of a follower.
        follows: bool,
    },
}

impl Origin {
    /// A request has come from somebody with a role: nobody takes the place away meanwhile.
    pub(super) fn asks(&self, who: &str) {
        match self {
            Self::Socket(_, _, place) => place.asks(who),
            Self::Tls { place, .. } => place.asks(who),
        }
    }

    /// It is answered.
    pub(super) fn rests(&self) {
        match self {
            Self::Socket(_, _, place) => place.rests(),
            Self::Tls { place, .. } => place.rests(),
        }
    }

    /// It stays, and takes no place of others' any more.
    pub(super) fn stays_outside(&self) {
        match self {
            Self::Socket(_, _, place) => place.leaves(),
            Self::Tls { place, .. } => place.leaves(),
        }
    }

    /// Whether it has said that it follows, and nothing else.
    pub(super) const fn follows(&self) -> bool {
        matches!(self, Self::Tls { follows: true, .. })
    }

    /// What both ends of it know and nobody else.
    pub(super) const fn exporter(&self) -> Option<&Exporter> {
        match self {
            Self::Socket(..) => None,
            Self::Tls { exporter, .. } => exporter.as_ref(),
        }
    }

    /// Where it is from, in words.
    pub(super) fn peer(&self) -> String {
        match self {
            Self::Socket(actor, ..) => actor.from.clone(),
            Self::Tls { peer, .. } => peer.to_string(),
        }
    }
}
