//! Sessions that change places: the edge gives them, an agent takes them. What passes between the
//! two is `ssh::handoff`'s.
//!
//! - `links`: the edge's control links, one a process and agent. `door/hand_over` is the way from a
//!   proved key to two sockets that are spliced.
//! - `claims`: what edges have announced to an agent. `door/take_over` is the way from a data
//!   connection to a session that is relayed like any other.

mod claims;
mod closing;
mod far_end;
mod given;
mod handed;
mod link;
mod links;
mod rates;
mod signers;
mod signing_keys;
mod trouble;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::IpNet;

pub(super) use self::claims::Sighting;
use self::claims::{Claims, Seen};
pub use self::claims::{SEEN_S_MIN, SeenId};
use self::closing::Closing;
pub use self::far_end::{FarEnd, Peer};
pub(super) use self::given::{Given, Next};
pub use self::handed::Handed;
pub(super) use self::handed::Known;
pub use self::link::{LinkShown, LinkState};
pub use self::links::Links;
pub use self::signers::LinkSeen;
use self::signers::Signers;
pub(super) use self::signers::SigningLink;
use crate::route::Vm;
use crate::ssh::digest::sha256;
use crate::ssh::publickey::{Fingerprint, PublicKey};
use crate::ssh::transport::ServerConfig;
use crate::ssh::wire::{Malformed, Put, Reader};
use crate::unix_time::unix_s;

/// Which end of a handoff this process is.
#[derive(Default)]
pub enum Part {
    /// It relays all sessions itself.
    #[default]
    Alone,
    /// It hands sessions to agents.
    Edge(Links),
    /// It takes them from edges.
    Agent(Box<Agent>),
}

/// What an agent is told at its start, and what it remembers.
pub struct Agent {
    /// From where edges may come.
    edge_networks: Vec<IpNet>,
    /// What it is to edges: its identity as a host key. Its limits are those of the sessions that
    /// it takes.
    pub(super) identity: Arc<ServerConfig>,
    /// Of that identity.
    key: Fingerprint,
    /// Replaced by a reload.
    trusted: ArcSwap<Trusted>,
    pub(super) claims: Claims,
    pub(super) seen: Seen,
    pub(super) signers: Signers,
    pub(super) closing: Closing,
}

/// Whom an agent believes.
#[derive(Default)]
pub struct Trusted {
    /// Edges that may hand sessions over. Asked for each session whenever rights change.
    pub edges: HashSet<Fingerprint>,
    /// The front door's host keys.
    pub host_keys: Vec<PublicKey>,
}

impl Agent {
    /// Nothing is announced yet.
    #[must_use]
    pub fn new(edge_networks: Vec<IpNet>, identity: Arc<ServerConfig>, trusted: Trusted) -> Self {
        let trusted = ArcSwap::from_pointee(trusted);
        let key = identity.host_keys().first().map(|it| it.key.public().fingerprint());
        // Without a key it takes nobody's session.
        let key = key.unwrap_or(Fingerprint([0; 32]));
        let (claims, seen, signers) = (Claims::default(), Seen::default(), Signers::default());
        let closing = Closing::default();
        Self { edge_networks, identity, key, trusted, claims, seen, signers, closing }
    }

    /// What nodes pin it by.
    #[must_use]
    pub const fn key(&self) -> Fingerprint {
        self.key
    }

    /// `keep` is told of every session that is taken, and when: an agent that comes after this one
    /// must not take it again for [`SEEN_S_MIN`].
    pub fn keep_taken_with(&self, keep: impl Fn(SeenId, u64) + Send + Sync + 'static) {
        self.seen.keep_with(Box::new(keep));
    }

    /// Another process has taken these.
    pub fn were_taken(&self, ids: impl IntoIterator<Item = SeenId>) {
        self.seen.were_taken(ids, unix_s());
    }

    /// The control links that edges have opened.
    pub fn links(&self) -> Vec<LinkSeen> {
        self.signers.links()
    }

    /// Whom it believes now.
    pub fn trusted(&self) -> Arc<Trusted> {
        self.trusted.load_full()
    }

    /// Believes these from now on; the links of other edges are cut.
    pub fn trust(&self, trusted: Trusted) {
        let before = self.trusted.swap(Arc::new(trusted));
        let now = self.trusted.load();
        for edge in before.edges.difference(&now.edges) {
            tracing::warn!(%edge, "an edge is admitted no more: its links and sessions end");
        }
        for edge in now.edges.difference(&before.edges) {
            tracing::info!(%edge, "an edge is admitted");
        }
        self.signers.cut(|edge| !self.trusts_edge(edge));
    }

    pub(super) fn lets_come(&self, from: IpAddr) -> bool {
        let from = from.to_canonical();
        self.edge_networks.iter().any(|network| network.contains(&from))
    }

    pub(super) fn trusts_edge(&self, key: &Fingerprint) -> bool {
        self.trusted.load().edges.contains(key)
    }
}

/// What an agent cannot compute of a session, and has to be told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Details {
    /// Names it in both logs.
    pub(super) request: u64,
    pub(super) client: SocketAddr,
    /// The pool address.
    pub(super) dialled: IpAddr,
    /// Where the edge's map leads: the VM's id.
    pub(super) vm: String,
    /// What the edge's map has of it: [`entry_of`].
    pub(super) entry: [u8; 32],
}

/// What tells whether two maps know the same of a VM.
pub(super) fn entry_of(vm: &Vm) -> [u8; 32] {
    sha256(&vm.entry())
}

impl Details {
    pub(super) fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u64(self.request);
        for text in [self.client.to_string(), self.dialled.to_string(), self.vm.clone()] {
            out.put_string(text.as_bytes());
        }
        out.put_bytes(&self.entry);
        out
    }

    pub(super) fn parse(encoded: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(encoded);
        let details = Self {
            request: reader.u64()?,
            client: reader.text()?.parse().map_err(|_| Malformed::Text)?,
            dialled: reader.text()?.parse().map_err(|_| Malformed::Text)?,
            vm: reader.text()?.to_owned(),
            entry: reader.array()?,
        };
        reader.end()?;
        Ok(details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_come_out_as_they_went_in_and_cut_ones_not_at_all() {
        let details = Details {
            request: 7,
            client: "[2001:db8::1]:4711".parse().unwrap(),
            dialled: "192.0.2.3".parse().unwrap(),
            vm: "blue".into(),
            entry: [7; 32],
        };
        let encoded = details.encoded();
        assert_eq!(Details::parse(&encoded), Ok(details));
        for len in 0..encoded.len() {
            assert!(Details::parse(&encoded[..len]).is_err(), "{len}");
        }
    }
}
