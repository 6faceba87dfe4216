//! A pool address as the live map holds it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ids::AddressId;

/// One pool address as the live map holds it. Only a [`Table`](super::Table) makes one: its hidden
/// identity ties a connection to the address it dialled, so that an answer found before a reload
/// cannot be used for another address after it.
#[derive(Debug)]
pub struct Address {
    /// Its name, e.g. `s003`.
    pub name: String,
    /// What clients dial.
    pub public: IpAddr,
    /// What clients dial over IPv6.
    pub public6: Option<IpAddr>,
    /// What the host sees when a NAT stands before it.
    pub private: Option<IpAddr>,
    /// Whether every registered user gets the list of their VMs here.
    pub lobby: bool,
    /// Whether nobody gets in here: it is in maintenance.
    /// [`Table::address`](super::Table::address) does not find it.
    pub closed: bool,
    pub(super) id: AddressId,
    /// The first revision in which the address of this id has other IP addresses, so that nothing
    /// is in this one's slots.
    pub(super) retired: AtomicU64,
}

impl Address {
    pub(super) fn is_retired(&self, revision: u64) -> bool {
        self.retired.load(Ordering::Relaxed) <= revision
    }

    /// What a client may have dialled to be here. As long as this stays, a connection may go on
    /// with an older [`Address`].
    pub(super) fn dialled(&self) -> (IpAddr, Option<IpAddr>, Option<IpAddr>, bool) {
        (self.public, self.public6, self.private, self.lobby)
    }
}

impl Eq for Address {}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.id, self.closed) == (&other.name, other.id, other.closed)
            && self.dialled() == other.dialled()
    }
}
