//! `keyway agent join`: an agent becomes a node's, and keeps whom it then believes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::super::front_door::Believed;
use super::feed::{goes_on, is_adopted};
use super::own_state;
use crate::config::Control;
pub use crate::control::feed::client::JoinFault;
use crate::control::feed::client::{self, Met};
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::{Fingerprint, PublicKey};
use crate::state::{State, StateFault};

/// An agent that has shown a token and was told what it would join; nothing has changed.
pub struct Meeting {
    control: Control,
    token: String,
    state: State,
    identity: Arc<PrivateKey>,
    met: Met,
    believed: Believed,
}

/// What both sides will know of each other.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The token's node.
    pub node: String,
    /// Where edges look for its agent.
    pub agent: SocketAddr,
    /// Whether sessions are handed to it.
    pub trusted: bool,
    /// Of this agent.
    pub identity: Fingerprint,
    /// Of the front door.
    pub host_keys: Vec<PublicKey>,
    /// Who may hand sessions over.
    pub edges: Vec<Fingerprint>,
    /// Of users' certificates.
    pub trusted_user_cas: Vec<PublicKey>,
}

/// Where what is believed has gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeptTerms {
    /// Into the state directory: the agent starts from it.
    OnDisk,
    /// Nowhere: an agent runs there, which hears it from control.
    ByTheAgent,
}

impl Meeting {
    /// Asks `control` what the agent of this state directory would join with `token`. Its identity
    /// is made if there is none.
    ///
    /// # Errors
    /// [`JoinFault`].
    pub fn begin(state_dir: &Path, control: Control, token: String) -> Result<Self, JoinFault> {
        let here = |fault: StateFault| JoinFault::Here(fault.to_string());
        let state = own_state(state_dir).map_err(|fault| JoinFault::Here(fault.to_string()))?;
        let identity = Arc::new(state.identity(&mut SystemEntropy::default()).map_err(here)?);
        let at = (control.url.as_str(), control.ca.as_deref());
        let met = client::join(at, Arc::clone(&identity), &token, None)?;
        let known = state.routes().last();
        if !known.is_some_and(|known| is_adopted(known, met.head, &met.front_door)) {
            goes_on(known, met.head).map_err(JoinFault::Here)?;
        }
        let believed = Believed::read(&met.front_door);
        let believed = believed.map_err(|fault| JoinFault::Here(fault.to_string()))?;
        Ok(Self { control, token, state, identity, met, believed })
    }

    /// What is to be looked at before [`Meeting::join`].
    #[must_use]
    pub fn terms(&self) -> Terms {
        let Believed { edges, host_keys, trusted_user_cas, revocations: _ } = &self.believed;
        Terms {
            node: self.met.node.clone(),
            agent: self.met.agent,
            trusted: self.met.trusted,
            identity: self.identity.public().fingerprint(),
            host_keys: host_keys.clone(),
            edges: edges.clone(),
            trusted_user_cas: trusted_user_cas.clone(),
        }
    }

    /// Joins, if control is believed by the same keys still. What is believed is kept after that.
    ///
    /// # Errors
    /// [`JoinFault`]; the inner one: it has joined, and what is believed could not be kept.
    pub fn join(self) -> Result<Result<KeptTerms, String>, JoinFault> {
        let Self { control, token, state, identity, met: shown, .. } = self;
        let at = (control.url.as_str(), control.ca.as_deref());
        let met = client::join(at, identity, &token, Some(&shown.front_door))?;
        // Whoever has the directory writes there.
        let lock = match state.lock() {
            Ok(lock) => lock,
            Err(StateFault::InUse { .. }) => return Ok(Ok(KeptTerms::ByTheAgent)),
            Err(fault) => return Ok(Err(fault.to_string())),
        };
        let written = state.routes().write_front_door(met.head, &met.front_door);
        drop(lock);
        Ok(written.map(|()| KeptTerms::OnDisk).map_err(|error| error.to_string()))
    }
}
