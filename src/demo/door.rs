//! The front door of the demonstration: the edge itself, as `serve` runs it, on one shard and
//! loopback addresses.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::directory::Directory;
use super::stage::POOL;
use crate::config::{self, Config, Loaded, Report};
use crate::edge::first_use::{FirstUse, Shown};
use crate::edge::shared::Shared;
use crate::edge::{Edge, Start, listen};
use crate::metrics::{Inventory, Registry};
use crate::route::Vm;
use crate::serve::Failure;
use crate::ssh::publickey::PublicKey;
use crate::state::State;
use crate::{host, serve};

pub(super) const SESSIONS_MAX: usize = 256;
const HALF_OPEN_MAX: NonZeroU32 = NonZeroU32::new(64).unwrap();
/// What counts them.
const SPLICED: &str = "keyway_spliced_session_bytes_total{passage=\"spliced\"}";
/// Tries to find a port that is free at every pool address.
const PORTS_MAX: u32 = 100;

/// The file with the front door's host key.
pub(super) const KNOWN_HOSTS: &str = "known_hosts";
/// The port for which a known_hosts line needs no brackets.
const SSH_PORT: u16 = 22;

/// A running front door.
pub(super) struct FrontDoor {
    edge: Edge,
    registry: Registry,
    pub(super) port: u16,
    pub(super) host_key: PublicKey,
}

impl FrontDoor {
    /// Where `ip` is served.
    pub(super) fn at(&self, ip: impl Into<IpAddr>) -> SocketAddr {
        SocketAddr::new(ip.into(), self.port)
    }

    /// Lines of known_hosts for the whole pool.
    pub(super) fn known_hosts(&self) -> String {
        let port = self.port;
        let names: Vec<_> = POOL
            .iter()
            .map(|address| match port {
                SSH_PORT => address.ip.to_string(),
                _ => format!("[{}]:{port}", address.ip),
            })
            .collect();
        format!("{} {}\n", names.join(","), self.host_key.to_line())
    }

    /// Bytes of sessions that went through without being looked at.
    pub(super) fn spliced_bytes(&self) -> u64 {
        let counted = self.registry.render();
        let lines = counted.lines().filter(|line| line.starts_with(SPLICED));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    }

    /// Ends all sessions, with a word to their users.
    pub(super) fn close(self) {
        self.edge.drain(Duration::ZERO, || ());
    }
}

/// The configuration files, as written.
pub(super) const FILES: [&str; 2] = ["keyway.toml", "fleet.toml"];

/// Writes both files and loads them, so that the demonstration is configured the way everything
/// else is. Listens at `port` of every pool address, or at one that is free.
pub(super) fn configured(
    directory: &Directory,
    fleet: &str,
    port: Option<u16>,
) -> Result<Loaded, Failure> {
    let port = match port {
        Some(port) => port,
        None => free_port()?,
    };
    let listen = POOL.map(|address| format!("\"{}:{port}\"", address.ip)).join(", ");
    let config = format!(
        "# The front door of this demonstration.\n\
         state_dir = \"state\"\n\n\
         [edge]\nlisten = [{listen}]\n\n\
         [vm_leg]\ndial_timeout_s = 5\nnetworks = [\"127.0.0.0/8\"]\n"
    );
    let [config_name, fleet_name] = FILES;
    let config = directory.file(config_name, &config)?;
    let fleet = directory.file(fleet_name, fleet)?;
    read(config::load(Some(&config), Some(&fleet)))
}

/// A configuration of our own, which has no faults.
pub(super) fn read<T>(loaded: Result<T, Report>) -> Result<T, Failure> {
    let told = loaded.map_err(|report| {
        report.faults.iter().fold(String::from("own configuration"), |mut text, fault| {
            let _infallible = write!(text, "; {fault}");
            text
        })
    });
    Ok(told?)
}

/// The fleet file has the host key of every VM that answers.
struct AllGiven;

impl FirstUse for AllGiven {
    fn shown(&self, _: &Vm, _: &PublicKey) -> Shown {
        Shown::Failed { why: "nothing is pinned in a demonstration".to_owned() }
    }
}

/// Opens an edge at `listen`, on one shard.
pub(super) fn open(listen: &[SocketAddr], shared: Shared) -> Result<(Edge, Registry), Failure> {
    let cpus: Vec<usize> = host::cpus()?.into_iter().take(1).collect();
    let registry = Registry::new(0, Inventory::default);
    let doors = listen::reserve(listen, &cpus, false)?;
    let (half_open_max, shared) = (HALF_OPEN_MAX, Arc::new(shared));
    let edge = Edge::start(Start { doors, beside: 0, cpus, half_open_max, shared }, &registry)?;
    Ok((edge, registry))
}

/// Opens the front door that `loaded` describes. `state`: its keys.
pub(super) fn front_door(
    loaded: Loaded,
    host_key: PublicKey,
    state: &State,
) -> Result<FrontDoor, Failure> {
    let Loaded { config: Config { edge, vm_leg, .. }, fleet, .. } = loaded;
    let listen = edge.listen.clone();
    let snapshot = fleet.map(|fleet| fleet.snapshot);
    let shared = serve::shared(edge, vm_leg, snapshot, state, SESSIONS_MAX, Arc::new(AllGiven))?;
    let shared = shared.playing(serve::part(state)?);
    let (edge, registry) = open(&listen, shared)?;
    let port = edge.addresses().first().map_or(0, SocketAddr::port);
    Ok(FrontDoor { edge, registry, port, host_key })
}

/// A port that nobody has at any pool address just now.
fn free_port() -> io::Result<u16> {
    let [first, rest @ ..] = POOL;
    for _ in 0..PORTS_MAX {
        let found = TcpListener::bind((first.ip, 0))?;
        let port = found.local_addr()?.port();
        let others: Result<Vec<_>, _> =
            rest.iter().map(|address| TcpListener::bind((address.ip, port))).collect();
        if others.is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::other("no port is free at all addresses; choose one with --port"))
}
