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
    match (broken.detail(&leg.transport), broken) {
        (Some(detail), _) => Trouble::Said(detail.as_str().to_owned()),
        (None, Broken::Closed) => Trouble::Closed,
        (None, Broken::Socket(error)) => Trouble::Said(error.to_string()),
        (None, Broken::Fault(fault)) => Trouble::Said(fault.to_string()),
    }
}
