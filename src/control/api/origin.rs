//! Where a connection of the API comes from, and the place that it takes for as long as it lasts.

use std::net::{IpAddr, SocketAddr};

use super::auth::Process;
use crate::control::places::Place;
use crate::registry::writer::Actor;

/// Where a connection comes from.
pub(super) enum Origin {
    /// The socket; who it is is known. Its place is one of its user's.
    Socket(Actor, Process, Place<u32>),
    /// TLS: each request says who it is.
    Tls(SocketAddr, Place<IpAddr>),
}

impl Origin {
    /// A request has come from somebody with a role: nobody takes the place away meanwhile.
    pub(super) fn asks(&self, who: &str) {
        match self {
            Self::Socket(_, _, place) => place.asks(who),
            Self::Tls(_, place) => place.asks(who),
        }
    }

    /// It is answered.
    pub(super) fn rests(&self) {
        match self {
            Self::Socket(_, _, place) => place.rests(),
            Self::Tls(_, place) => place.rests(),
        }
    }
}
