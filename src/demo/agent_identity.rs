//! Who the demonstration's agent is, and where it will listen: what the front door and the VMs have
//! to know of it before it runs.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};

use super::directory::Directory;
use crate::serve::Failure;
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::PublicKey;
use crate::state::State;

/// Its state directory.
pub(super) const STATE: &str = "agent_state";

/// What an agent is before it runs.
pub(super) struct Identity {
    pub(super) state: State,
    /// What the front door knows it by.
    pub(super) key: PublicKey,
    /// What opens the VMs that it carries sessions to, and no other VM.
    pub(super) user_ca: PrivateKey,
    /// Where it will listen.
    pub(super) address: SocketAddr,
}

impl Identity {
    /// Makes its keys.
    pub(super) fn make(
        directory: &Directory,
        entropy: &mut SystemEntropy,
    ) -> Result<Self, Failure> {
        let state = State::open(&directory.path().join(STATE))?;
        let key = state.identity(entropy)?.public().clone();
        let user_ca = state.user_ca(entropy)?;
        Ok(Self { key, user_ca, address: free_address()?, state })
    }
}

/// A port of loopback that nobody has just now.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((IpAddr::from([127, 0, 0, 1]), 0))?.local_addr()
}
