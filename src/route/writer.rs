//! What only the writer of a table needs: which identities were given out, and who is behind them.

use std::collections::{HashMap, HashSet};
use std::hash::RandomState;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::ids::{AddressId, PrincipalId};
use super::node::Host;
use super::user_routes::VmId;
use super::{Address, AddressEntry, Counts};

/// One writer at a time has it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Writer {
    /// By name, teams with their prefix.
    pub(super) principals: HashMap<Arc<str>, PrincipalId>,
    pub(super) known: HashMap<PrincipalId, Known>,
    /// By name.
    pub(super) addresses: HashMap<String, KnownAddress>,
    /// By name.
    pub(super) nodes: HashMap<Arc<str>, KnownNode>,
    /// Of all VMs: no two have the same.
    pub(super) ids: HashSet<VmId, RandomState>,
    pub(super) given: IdAllocator,
    pub(super) counts: Counts,
}

/// What a principal is beside what it may enter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Known {
    User {
        name: Arc<str>,
        keys: Box<[[u8; 32]]>,
    },
    Team {
        /// With the prefix.
        name: Arc<str>,
        /// Sorted.
        members: Box<[PrincipalId]>,
        /// Sorted.
        members_by_name: Box<[PrincipalId]>,
    },
}

impl Known {
    pub(super) const fn name(&self) -> &Arc<str> {
        match self {
            Self::User { name, .. } | Self::Team { name, .. } => name,
        }
    }
}

/// A pool address and how much hangs on it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct KnownAddress {
    pub(super) address: Arc<Address>,
    /// Filled slots.
    pub(super) slots: usize,
    /// VMs whose DNS name points at it.
    pub(super) pointing: usize,
}

/// A node and how much lies on it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct KnownNode {
    pub(super) host: Host,
    pub(super) vms: usize,
    /// Those of them that are to be handed off.
    pub(super) handoffs: usize,
}

/// Identities given out. At a million a second they last half a million years.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct IdAllocator {
    principals: u64,
    addresses: u64,
}

impl IdAllocator {
    pub(super) const fn principal(&mut self) -> PrincipalId {
        self.principals += 1;
        PrincipalId(self.principals)
    }

    /// The present address if nothing about it changed, else a new one: of the same id if there is
    /// one of its name.
    pub(super) fn address(
        &mut self,
        entry: &AddressEntry,
        now: Option<&Arc<Address>>,
    ) -> Arc<Address> {
        let AddressEntry { name, public, public6, private, lobby, closed } = entry.clone();
        let dialled = (public, public6, private, lobby);
        if let Some(now) = now.filter(|now| now.dialled() == dialled && now.closed == closed) {
            return Arc::clone(now);
        }
        let id = now.map_or_else(
            || {
                self.addresses += 1;
                AddressId(NonZeroU64::MIN.saturating_add(self.addresses))
            },
            |now| now.id,
        );
        let retired = AtomicU64::new(u64::MAX);
        Arc::new(Address { name, public, public6, private, lobby, closed, id, retired })
    }
}
