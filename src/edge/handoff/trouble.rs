//! Why an edge has no control link.

use std::io;

use super::super::login_leg::{Broken, LoginLeg};
use crate::ssh::publickey::Fingerprint;

/// Why a link is not there, for operators.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("{0}")]
    Socket(#[from] io::Error),
    #[error("no answer within 10 seconds")]
    Deadline,
    #[error("closed")]
    Closed,
    #[error(
        "it hung up without a word: its log says why, `not from agent's edge_networks` where it sees this edge at \
         an address that is none of those"
    )]
    Unheard,
    #[error("{0}")]
    Said(String),
    #[error("it shows {0} and not the node's agent_key")]
    Identity(Fingerprint),
    #[error(
        "it does not know this edge's key, or no longer: `keyway edge list` and `keyway edge add` at the \
         registry that it follows, or `edges` in agent.toml; `keyway identity` prints it"
    )]
    Unknown,
}

/// How a link broke.
pub(super) fn trouble(broken: &Broken, leg: &LoginLeg) -> Trouble {
    if leg.transport.peer_ident().is_empty() && hung_up(broken) {
        return Trouble::Unheard;
    }
    match (broken.detail(&leg.transport), broken) {
        (Some(detail), _) => Trouble::Said(detail.as_str().to_owned()),
        (None, Broken::Closed) => Trouble::Closed,
        (None, Broken::Socket(error)) => Trouble::Said(error.to_string()),
        (None, Broken::Fault(fault)) => Trouble::Said(fault.to_string()),
    }
}

/// Whether the far end was there and left.
fn hung_up(broken: &Broken) -> bool {
    match broken {
        Broken::Closed => true,
        Broken::Socket(error) => {
            matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
        }
        Broken::Fault(_) => false,
    }
}
