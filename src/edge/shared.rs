//! What all shards share: settings, the live configuration, the routing map, and who is present.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::route::{SourceAddress, Table, Vm};
use crate::ssh::hostkey::PrivateKey;
use crate::ssh::publickey::PublicKey;
use crate::ssh::transport::ServerConfig;
use crate::ssh::userauth::Policy;

use super::local_address::Destination;
use super::names::Names;
use super::proxy_header::Senders;
use super::relay::{ClientAlive, PreferGcm};
use super::seats::{Full, Most, Seats, SessionPermit, Shares};
use super::workers::Workers;

/// Host keys that are written down at a time, of all shards together: the registry makes them durable in one go.
const PINS_MAX: usize = 4;
/// Host keys that wait for that; further ones are refused. Each is a login that waits, and has its deadline.
const PINS_WAITING_MAX: usize = 4096;
/// Lists of VMs made at a time: some milliseconds each for somebody with thousands.
const LISTERS_MAX: usize = 1;
/// Visitors of lobbies that wait for theirs; further ones are told to come again.
const LISTS_WAITING_MAX: usize = 256;

/// What a restart is needed for to change.
pub struct Settings {
    /// Time from accept to an accepted key.
    pub login_grace: Duration,
    /// Who must, and alone may, send a PROXY header.
    pub senders: Senders,
    /// Where the local address comes from when no header names it.
    pub destination: Destination,
    /// Seats for sessions.
    pub seats: Most,
    /// Time for the TCP connection to a VM.
    pub dial_timeout: Duration,
    /// Where VM endpoints may lie.
    pub networks: Vec<IpNet>,
    /// Move bulky chacha20-poly1305 sessions to AES-GCM.
    pub prefer_gcm: PreferGcm,
    /// How long clients may be silent.
    pub client_alive: ClientAlive,
    /// The DNS zone in which VMs have their names.
    pub zone: Option<Arc<str>>,
}

/// What a reload replaces.
pub struct Live {
    /// Host keys and algorithms towards clients.
    pub server: Arc<ServerConfig>,
    /// CAs, revocations and limits of authentication.
    pub policy: Arc<Policy>,
    /// How the edge logs in to VMs.
    pub credential: VmCredential,
    /// From where it comes, as VMs see it, unless a VM has its own.
    pub source_address: SourceAddress,
}

/// How the edge logs in to VMs.
#[derive(Clone)]
pub enum VmCredential {
    /// A certificate per connection, signed by this CA.
    Authority {
        /// Signs the certificates.
        ca: Arc<PrivateKey>,
        /// What its principal says.
        principal: Principal,
    },
    /// One plain key for all VMs.
    Identity(Arc<PrivateKey>),
}

/// What the certificate for a VM names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Principal {
    /// `vm:<id>`: this VM takes it and no other.
    Vm,
    /// The login name: every VM that trusts the CA takes it.
    Login,
}

/// Keeps the host keys that VMs show when there is none they have to show. What is kept comes back with the routing map.
pub trait FirstUse: Send + Sync {
    /// What answers for `vm`, as it was dialled, has shown `key`, and has proved that it holds the private half. Blocks
    /// (a few milliseconds).
    fn shown(&self, vm: &Vm, key: &PublicKey) -> Shown;
}

/// What came of a key that a VM has shown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Shown {
    /// It is the VM's from now on, or was already: another shard was faster.
    Pinned,
    /// Another key is pinned: refuse the session.
    Other,
    /// The key belongs to a VM of another owner: refuse the session.
    OfOtherOwner {
        /// That VM's name.
        vm: String,
    },
    /// Nothing is pinned: refuse the session.
    Failed {
        /// Why.
        why: String,
    },
}

/// Shared by all shards of one edge.
pub struct Shared {
    /// Fixed at start.
    pub settings: Settings,
    /// Replaced by a reload.
    pub live: ArcSwap<Live>,
    /// Who may go where.
    pub table: Table,
    /// Whoever pins the host keys of the VMs.
    pub first_use: Arc<dyn FirstUse>,
    /// Asks it: whoever pins waits for a disk.
    pub(super) pins: Workers,
    /// Addresses of VMs that have a host name.
    pub(super) names: Names,
    present: AtomicUsize,
    seats: Seats,
    /// Writes the lists of lobbies.
    pub(super) lister: Workers,
    /// Lists on their way, by user.
    pub(super) lists: Arc<Shares>,
    left: Mutex<Wait>,
    everybody_left: Condvar,
}

impl Shared {
    /// Nobody is present yet.
    pub fn new(settings: Settings, live: Live, table: Table, first_use: Arc<dyn FirstUse>) -> Self {
        Self {
            seats: Seats::new(settings.seats),
            lister: Workers::new("lobby", LISTERS_MAX, LISTS_WAITING_MAX),
            lists: Arc::default(),
            settings,
            live: ArcSwap::from_pointee(live),
            table,
            first_use,
            pins: Workers::new("pins", PINS_MAX, PINS_WAITING_MAX),
            names: Names::default(),
            present: AtomicUsize::new(0),
            left: Mutex::new(Wait::Patient),
            everybody_left: Condvar::new(),
        }
    }

    /// Counts a connection or a listener until the returned value is dropped.
    pub fn enter(self: &Arc<Self>) -> ConnectionGuard {
        self.present.fetch_add(1, Ordering::Relaxed);
        ConnectionGuard(Arc::clone(self))
    }

    /// A seat for a session of `user` in the VM whose id is `vm`.
    pub(super) fn take_seat(&self, user: &Arc<str>, vm: &str) -> Result<SessionPermit, Full> {
        self.seats.take(user, vm)
    }

    /// How many seats are taken, at any time.
    pub fn seats_taken(&self) -> Arc<AtomicUsize> {
        Arc::clone(self.seats.taken())
    }

    /// Ends every wait for people to leave.
    pub fn stop_waiting(&self) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Wait::Over;
        self.everybody_left.notify_all();
    }

    /// Waits until nobody is present, at most `patience`. True if everybody left.
    pub fn wait_empty(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if self.present.load(Ordering::Acquire) == 0 {
                return true;
            }
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() || matches!(*left, Wait::Over) {
                return false;
            }
            left = self
                .everybody_left
                .wait_timeout(left, rest)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// Whether it is still worth waiting for people to leave.
enum Wait {
    Patient,
    Over,
}

/// One connection that is not over, or one listener.
pub struct ConnectionGuard(Arc<Shared>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        if self.0.present.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Under the lock, so that a waiter cannot miss it between its look and its wait.
            let _left = self.0.left.lock().unwrap_or_else(PoisonError::into_inner);
            self.0.everybody_left.notify_all();
        }
    }
}
