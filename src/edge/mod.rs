//! THE DATA PLANE: accepts, authenticates, routes, dials and carries. The only room with epoll and unsafe.
//!
//! Fed by the kernel and by `route`; it never parses SSH itself (that is `ssh`), never decides who may go where (that is
//! `route`), and never names `control`. In reading order: [`Edge`], then `shard`, `door`, `dial`, `pump`, `relay`.

#![allow(unsafe_code, reason = "descriptors, socket options and epoll; one operation a block")]

pub mod admission;
mod buffers;
pub mod clock;
mod dial;
mod door;
mod epoll;
mod global_requests;
mod leg;
pub mod limits;
mod line;
pub mod listen;
mod lobby;
pub mod local_address;
pub mod proxy_header;
pub mod pump;
pub mod relay;
pub mod report;
mod sequence;
mod shard;
pub mod shared;
mod slab;
mod socket_options;
mod stream;
mod tasks;
#[cfg(test)]
mod testing;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::ended::Cause;
use crate::metrics::Registry;
use crate::route::Snapshot;

use self::report::{Carried, Info};
use self::shard::Shard;
use self::shared::{Live, Shared};

/// How long sessions that are ended at the end of a drain may take to say goodbye.
const FAREWELL_WAIT: Duration = Duration::from_secs(5);

/// What an edge is started with.
pub struct Start {
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// The CPU of each shard; as many shards as CPUs.
    pub cpus: Vec<usize>,
    /// Half-open connections, all shards together.
    pub half_open_max: NonZeroU32,
    /// Made by the caller, who reloads it.
    pub shared: Arc<Shared>,
}

/// Why the edge did not come up.
#[derive(Debug, thiserror::Error)]
pub enum StartFault {
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] listen::Fault),
    /// A shard did not start.
    #[error("{0}")]
    Shard(#[from] io::Error),
}

/// A running edge: a shard on every CPU.
pub struct Edge {
    shards: Vec<Shard>,
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
}

impl Edge {
    /// Listens and starts all shards; connections are served when this returns.
    ///
    /// # Errors
    /// [`StartFault`]; nothing is left running.
    pub fn start(start: Start, registry: &Registry) -> Result<Self, StartFault> {
        let Start { listen: addresses, cpus, half_open_max, shared } = start;
        let listeners = listen::bind(&addresses, &cpus)?;
        for warning in &listeners.warnings {
            tracing::warn!("{warning}");
        }
        let addresses = listeners
            .shards
            .first()
            .map_or_else(Vec::new, |first| first.iter().map(|listener| listener.address).collect());
        let share = half_open_max.get().div_ceil(u32::try_from(cpus.len()).unwrap_or(1).max(1));
        let share = NonZeroU32::new(share).unwrap_or(NonZeroU32::MIN);
        let mut shards = Vec::with_capacity(cpus.len());
        for (index, (cpu, listeners)) in cpus.iter().copied().zip(listeners.shards).enumerate() {
            let prefer_gcm = shared.settings.prefer_gcm;
            let settings = pump::Settings { cpu: Some(cpu), prefer_gcm };
            let counters = registry.counters();
            let pump = pump::spawn(format!("pump-{index}"), settings, counters, words, ended)?;
            let door = registry.counters();
            let shared = Arc::clone(&shared);
            shards.push(Shard::start(index, cpu, listeners, shared, door, pump, share)?);
        }
        Ok(Self { shards, shared, addresses })
    }

    /// What is listened on, with the real ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Replaces what a reload replaces, and ends the sessions whose right is gone. Others do not notice.
    pub fn reload(&self, live: Live, snapshot: Snapshot) {
        self.shared.live.store(Arc::new(live));
        self.shared.table.apply(snapshot);
        let shared = Arc::clone(&self.shared);
        let check: pump::Check<Info> = Arc::new(move |info| info.report.keeps_its_right(&shared));
        for shard in &self.shards {
            shard.pump.recheck(Arc::clone(&check));
        }
    }

    /// Accepts nothing more.
    pub fn stop_accepting(&self) {
        for shard in &self.shards {
            shard.stop_accepting();
        }
    }

    /// Accepts nothing more and lets sessions go on until they end, at most `patience`; then ends them with a word.
    pub fn drain(self, patience: Duration) {
        self.stop_accepting();
        if self.shared.wait_empty(patience) {
            return;
        }
        for shard in &self.shards {
            shard.pump.end_all();
        }
        self.shared.wait_empty(FAREWELL_WAIT);
    }
}

/// What a user reads whose session is ended.
fn words(info: &Info, cause: Cause) -> String {
    info.report.notice(cause)
}

/// The log line of a session that the pump has ended.
fn ended(info: &Info, over: &pump::Report) {
    let lasted_ms = u64::try_from(over.lasted.as_millis()).unwrap_or(u64::MAX);
    let carried = Carried { up_bytes: over.up, down_bytes: over.down, lasted_ms };
    info.report.write(over.ended, carried);
}

#[cfg(test)]
mod tests {
    use super::local_address::Destination;
    use super::proxy_header::Senders;
    use super::relay::PreferGcm;
    use super::shared::{Settings, VmCredential};
    use super::*;
    use crate::metrics::Inventory;
    use crate::route::Table;
    use crate::ssh::entropy::SystemEntropy;
    use crate::ssh::hostkey::PrivateKey;
    use crate::ssh::testing::server_config;
    use crate::ssh::transport::{Algorithms, RekeyLimits};
    use crate::ssh::userauth::Policy;
    use crate::state::State;
    use std::fs;

    fn shared(state: &State) -> Shared {
        let settings = Settings {
            login_grace: Duration::from_secs(1),
            senders: Senders::new(Vec::new()),
            destination: Destination::Socket,
            sessions_max: 1,
            dial_timeout: Duration::from_secs(1),
            networks: Vec::new(),
            prefer_gcm: PreferGcm::Never,
        };
        let key = PrivateKey::generate_ed25519(&mut SystemEntropy::default());
        let live = Live {
            server: server_config(1, Algorithms::default(), RekeyLimits::default()),
            policy: Arc::new(Policy::default()),
            credential: VmCredential::Identity(Arc::new(key)),
        };
        Shared::new(settings, live, Table::new(), state.pins().unwrap())
    }

    /// How many threads of this process have this name.
    fn threads(name: &str) -> usize {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|of| of.trim_end() == name).count()
    }

    #[test]
    fn a_shard_that_does_not_start_leaves_no_thread_behind() {
        let path = std::env::temp_dir().join(format!("keyway-edge-{}", std::process::id()));
        let state = State::open(&path).unwrap();
        let registry = Registry::new(0, Inventory::default);
        let settings = pump::Settings { cpu: None, prefer_gcm: PreferGcm::Never };
        let pump = pump::spawn("pump-x".into(), settings, registry.counters(), words, ended);
        // Nobody can wait for a file: epoll refuses it.
        let file = std::os::fd::OwnedFd::from(fs::File::open("/proc/self/stat").unwrap());
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = listen::Listener { socket: file.into(), address };
        let (door, shared) = (registry.counters(), Arc::new(shared(&state)));
        let started =
            Shard::start(77, 0, vec![listener], shared, door, pump.unwrap(), NonZeroU32::MIN);
        assert!(started.is_err());
        assert_eq!((threads("door-77"), threads("pump-x")), (0, 0));
        fs::remove_dir_all(path).unwrap();
    }
}
