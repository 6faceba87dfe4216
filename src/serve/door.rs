//! What the edge of a front door or an agent is started with, and what a reload renews of it.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::last_words::{PLUS_WORDS, last_words};
use super::start::Failure;
use crate::config::{self, Count, HostKeys, Principals, UserCa, VmCredential};
use crate::edge::first_use::FirstUse;
use crate::edge::local_address::Destination;
use crate::edge::proxy_header::Senders;
use crate::edge::relay::{ClientAlive, PreferGcm};
use crate::edge::seats::Most;
use crate::edge::settings::{self, Live, Principal, Settings};
use crate::edge::shared::Shared;
use crate::edge::{self, Edge, listen};
use crate::host;
use crate::metrics::{Inventory, Registry};
use crate::route::{Snapshot, Table};
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::host_key::HostKey;
use crate::ssh::transport::{Algorithms, RekeyLimits, ServerConfig};
use crate::ssh::userauth::Policy;
use crate::state::State;

/// Refused signatures and unknown methods one connection may send, as OpenSSH's `MaxAuthTries`.
const ATTEMPTS_MAX: u32 = 6;

/// What all shards of the front door share.
///
/// # Errors
/// What keeps the state directory from being used.
pub(crate) fn shared(
    edge: config::Edge,
    vm_leg: config::VmLeg,
    snapshot: Option<Snapshot>,
    state: &State,
    sessions_max: usize,
    first_use: Arc<dyn FirstUse>,
) -> Result<Shared, Failure> {
    let settings = settings(&edge, &vm_leg, sessions_max);
    let table = Table::new();
    if let Some(snapshot) = snapshot {
        table.apply(snapshot);
    }
    let live = live(edge, vm_leg, &table, state)?;
    Ok(Shared::new(settings, live, table, first_use))
}

/// What a restart is needed for to change.
fn settings(edge: &config::Edge, vm_leg: &config::VmLeg, sessions_max: usize) -> Settings {
    Settings {
        login_grace: edge.login_grace,
        senders: Senders::new(edge.proxy_protocol_from.clone()),
        destination: if edge.original_dst { Destination::Tracked } else { Destination::Socket },
        seats: Most {
            sessions: sessions_max,
            per_user: share(edge.sessions_max_per_user, sessions_max),
            per_vm: share(edge.sessions_max_per_vm, sessions_max),
        },
        dial_timeout: vm_leg.dial_timeout,
        networks: vm_leg.networks.clone(),
        prefer_gcm: match edge.prefer_gcm {
            config::PreferGcm::Bulk => PreferGcm::Bulk,
            config::PreferGcm::Never => PreferGcm::Never,
        },
        client_alive: ClientAlive {
            interval: edge.client_alive_interval,
            count_max: edge.client_alive_count_max,
        },
        // The control plane knows it.
        zone: None,
    }
}

/// What one principal may have of `all`: half, if nothing else is said.
fn share(of_one: Count, all: usize) -> usize {
    match of_one {
        Count::Automatic => all.div_ceil(2),
        Count::Exactly(number) => usize::try_from(number.get()).unwrap_or(usize::MAX),
    }
}

/// What a reload replaces.
pub(super) fn live(
    edge: config::Edge,
    vm_leg: config::VmLeg,
    table: &Table,
    state: &State,
) -> Result<Live, Failure> {
    let mut entropy = SystemEntropy::default();
    let host_keys = match edge.host_keys {
        HostKeys::Given(host_keys) => host_keys,
        HostKeys::InState => {
            vec![HostKey { key: state.host_key(&mut entropy)?, certificate: None }]
        }
    };
    let mut algorithms = Algorithms::default();
    if !edge.legacy_macs {
        algorithms.macs.retain(|mac| mac.is_etm());
    }
    if !edge.legacy_kex {
        algorithms.methods.retain(|method| !method.is_legacy());
    }
    let credential = match vm_leg.credential {
        VmCredential::Key(key) => settings::VmCredential::Identity(Arc::new(key)),
        VmCredential::Certificates { ca, principals } => {
            let ca = match ca {
                UserCa::Given(key) => key,
                UserCa::InState => state.user_ca(&mut entropy)?,
            };
            let principal = match principals {
                Principals::Vm => Principal::Vm,
                Principals::Login => Principal::Login,
            };
            settings::VmCredential::Authority { ca: Arc::new(ca), principal }
        }
    };
    let policy = Policy {
        cas: edge.trusted_user_cas,
        revocations: edge.revocations,
        attempts_max: ATTEMPTS_MAX,
        hide_keys: edge.hide_keys,
        last_words: last_words(table),
        plus_words: PLUS_WORDS.to_owned(),
    };
    Ok(Live {
        server: Arc::new(ServerConfig::new(host_keys, algorithms, RekeyLimits::default())),
        policy: Arc::new(policy),
        credential,
        source_address: vm_leg.source_address,
    })
}

/// Opens the door at addresses that are reserved, beside so many shards of another process, with a
/// shard on each of these CPUs.
pub(super) fn open(
    (doors, beside, cpus): (listen::Reserved, usize, Vec<usize>),
    half_open_max: u32,
    shared: &Arc<Shared>,
    counted: &Registry,
) -> Result<Arc<Edge>, Failure> {
    let half_open_max = NonZeroU32::new(half_open_max).unwrap_or(NonZeroU32::MIN);
    let shared = Arc::clone(shared);
    let edge = Edge::start(edge::Start { doors, beside, cpus, half_open_max, shared }, counted)?;
    for address in edge.addresses() {
        tracing::info!(%address, "listening");
    }
    Ok(Arc::new(edge))
}

/// What an agent is to edges, in the place of a front door's host keys.
pub(super) fn identity(state: &State) -> Result<HostKeys, Failure> {
    let key = state.identity(&mut SystemEntropy::default())?;
    Ok(HostKeys::Given(vec![HostKey { key, certificate: None }]))
}

/// The CPUs to use: the first of those that this process may run on.
pub(super) fn cpus(shards: Count) -> Result<Vec<usize>, Failure> {
    let mut cpus = host::cpus()?;
    if let Count::Exactly(wanted) = shards {
        let wanted = usize::try_from(wanted.get())?;
        if wanted > cpus.len() {
            let have = cpus.len();
            return Err(format!("shards = {wanted}, but this process may use {have} CPUs").into());
        }
        cpus.truncate(wanted);
    }
    Ok(cpus)
}

pub(super) fn inventory(table: &Table) -> Inventory {
    let counts = table.counts();
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    Inventory {
        users: number(counts.users),
        keys: number(counts.keys),
        vms: number(counts.vms),
        addresses: number(counts.addresses),
        routes: number(counts.slots),
    }
}

/// Where it listens, in words.
pub(super) fn at(edge: &Edge) -> String {
    let addresses: Vec<String> = edge.addresses().iter().map(ToString::to_string).collect();
    addresses.join(", ")
}
