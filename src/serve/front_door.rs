//! What followers have to know of the front door: told by the process that is one, believed by
//! those elsewhere.

use super::Failure;
use crate::edge::Edge;
use crate::edge::handoff::{Part, Trusted};
use crate::edge::settings::Live;
use crate::edge::shared::Shared;
use crate::route::FrontDoor;
use crate::ssh::publickey::{Fingerprint, PublicKey};
use crate::ssh::revocation::Revocations;
use crate::ssh::userauth::Policy;

/// As this process has it, whose store was adopted in the place of others; edges are told apart.
///
/// # Errors
/// What is revoked cannot be written.
pub(super) fn now(shared: &Shared, stands_for: Vec<[u8; 16]>) -> Result<FrontDoor, Failure> {
    let blobs = |keys: &[PublicKey]| keys.iter().map(|key| key.blob().to_vec()).collect();
    let host_keys = match &shared.part {
        Part::Edge(links) => links.signing_keys(),
        Part::Alone | Part::Agent(_) => Vec::new(),
    };
    let policy = &shared.live.load().policy;
    Ok(FrontDoor {
        host_keys: blobs(&host_keys),
        edges: Vec::new(),
        trusted_user_cas: blobs(&policy.cas),
        revocations: postcard::to_allocvec(&policy.revocations)?,
        stands_for,
    })
}

/// What was told, read.
#[derive(Debug, Default)]
pub(super) struct Believed {
    pub(super) edges: Vec<Fingerprint>,
    pub(super) host_keys: Vec<PublicKey>,
    pub(super) trusted_user_cas: Vec<PublicKey>,
    pub(super) revocations: Revocations,
}

impl Believed {
    /// # Errors
    /// Something of it is of a keyway that knows more.
    pub(super) fn read(told: &FrontDoor) -> Result<Self, Failure> {
        let FrontDoor { host_keys, edges, trusted_user_cas, revocations, stands_for: _ } = told;
        let keys = |blobs: &[Vec<u8>]| -> Result<Vec<_>, Failure> {
            blobs.iter().map(|blob| Ok(PublicKey::parse(blob)?)).collect()
        };
        Ok(Self {
            edges: edges.iter().copied().map(Fingerprint).collect(),
            host_keys: keys(host_keys)?,
            trusted_user_cas: keys(trusted_user_cas)?,
            revocations: postcard::from_bytes(revocations)?,
        })
    }

    /// From now on this counts: whoever has lost a right by it is ended.
    pub(super) fn rules(self, edge: &Edge, shared: &Shared) {
        let Self { edges, host_keys, trusted_user_cas, revocations } = self;
        if let Part::Agent(agent) = &shared.part {
            agent.trust(Trusted { edges: edges.into_iter().collect(), host_keys });
        }
        let live = shared.live.load_full();
        let policy = Policy { cas: trusted_user_cas, revocations, ..Policy::clone(&live.policy) };
        edge.renew(Live {
            server: live.server.clone(),
            policy: policy.into(),
            credential: live.credential.clone(),
            source_address: live.source_address.clone(),
        });
    }
}
