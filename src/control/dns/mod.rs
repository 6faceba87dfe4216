//! DNS: authoritative for the zone of the VMs' names, straight from the live map. A change is
//! answered at once; there is no copy of the zone that could be late.
//!
//! ```text
//! datagram or message -> responder reads -> zone (records) -> responder writes -> its sender
//! ```
//! - [`zone`]: {name, type} -> records; what exists and what does not.
//! - [`responder`]: bytes -> bytes. EDNS, truncation, refusals. `sign`: DNSSEC, answer by answer.
//! - [`limit`]: how many answers a network gets over UDP.
//! - `server`, `socket`: UDP and TCP, on a thread of their own, with a limit on everything.
//! - [`transfer`], `notify`, [`export`]: the whole zone, for secondaries and as a file.
//!
//! hickory reads and writes what is on the wire. The server around it is our own, because
//! `hickory-server`'s (0.26) answers a wildcard socket's questions from whatever address the route
//! prefers, takes any number of connections, has no back-pressure for a transfer (a full queue
//! loses messages of it), and logs a line of the peer's text at `info` for every question.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task;

use crate::config::Dns;
use crate::control::server_thread::{ServerThread, Stopped};

mod counters;
pub mod export;
mod label;
pub mod limit;
mod notify;
pub mod responder;
mod server;
pub mod sign;
mod socket;
#[cfg(test)]
mod testing;
pub mod transfer;
pub mod zone;

pub use self::counters::{Counters, Event, ResponseKind, Transport};
pub use self::label::Label;
use self::limit::Limiter;
use self::server::{Shared, TRANSFERS_MAX};
use self::socket::Datagrams;
pub use self::zone::{Addresses, Entry, Names, PointsAt, Zone};

/// How long a transfer's thread may take to see that the server ends.
const FAREWELL_WAIT: Duration = Duration::from_secs(2);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum DnsServeError {
    /// An address cannot be listened on.
    #[error("DNS cannot be served on {address} ({}): {source}; fix: {}", .transport.as_str(), fix(.source, *.address))]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// Which of the two sockets.
        transport: Transport,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No thread or no event loop for it.
    #[error("DNS cannot be served: {0}")]
    Start(#[source] io::Error),
}

fn fix(source: &io::Error, address: SocketAddr) -> String {
    let port = address.port();
    if source.kind() == io::ErrorKind::PermissionDenied {
        return format!(
            "a port below 1024 needs CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE), or write a higher one in dns.listen and have port {port} forwarded to it"
        );
    }
    if source.kind() == io::ErrorKind::AddrInUse {
        return format!(
            "another server has it (`ss -lnp sport = :{port}` says which; systemd-resolved keeps port 53 of 127.0.0.53): stop that one, or write other addresses in dns.listen"
        );
    }
    if source.kind() == io::ErrorKind::AddrNotAvailable {
        return "this host does not have the address: correct dns.listen (`ip address` lists them)"
            .to_owned();
    }
    "correct dns.listen".to_owned()
}

/// The running server. Dropping it stops it and waits until its thread is gone.
#[derive(Debug)]
pub struct Handle {
    addresses: Vec<SocketAddr>,
    counters: Arc<Counters>,
    _thread: ServerThread,
}

impl Handle {
    /// Where it answers, UDP and TCP, with real ports, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What it counts.
    #[must_use]
    pub const fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

/// Addresses that are ours, and are not answered at yet.
pub struct Reserved(Vec<socket::Pair>);

/// Serves `zone` at every address of `settings`, UDP and TCP, from the moment this returns.
///
/// # Errors
/// [`DnsServeError`]; then nothing is served anywhere.
pub fn start(settings: &Dns, zone: Arc<Zone>) -> Result<Handle, DnsServeError> {
    reserve(settings, false)?.serve(settings, zone)
}

/// Takes every address of `settings`. `shared`: a process of ours may answer there until we do.
///
/// # Errors
/// [`DnsServeError::Listen`].
pub fn reserve(settings: &Dns, shared: bool) -> Result<Reserved, DnsServeError> {
    let mut pairs = Vec::new();
    for address in settings.listen.iter().copied() {
        let failed = |(transport, source)| DnsServeError::Listen { address, transport, source };
        pairs.push(socket::bind(address, shared).map_err(failed)?);
    }
    Ok(Reserved(pairs))
}

impl Reserved {
    /// Serves `zone`, from the moment this returns.
    ///
    /// # Errors
    /// [`DnsServeError::Start`].
    pub fn serve(self, settings: &Dns, zone: Arc<Zone>) -> Result<Handle, DnsServeError> {
        serve(self.0, settings, zone)
    }
}

fn serve(
    pairs: Vec<socket::Pair>,
    settings: &Dns,
    zone: Arc<Zone>,
) -> Result<Handle, DnsServeError> {
    let addresses: Vec<_> = pairs.iter().map(|pair| pair.address).collect();
    let notified: Vec<_> = settings.secondaries.iter().filter_map(|it| it.notify).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(TRANSFERS_MAX)
        .build()
        .map_err(DnsServeError::Start)?;
    let counters = Arc::new(Counters::default());
    let limiter = settings.responses_per_second.map(Limiter::new);
    let shared = Shared::new(zone, Arc::clone(&counters), limiter);
    {
        let _inside = runtime.enter();
        for pair in pairs {
            let datagrams = Datagrams::new(pair.udp).map_err(DnsServeError::Start)?;
            let listener = TcpListener::from_std(pair.tcp).map_err(DnsServeError::Start)?;
            task::spawn(server::datagrams(datagrams, Arc::clone(&shared)));
            task::spawn(server::connections(listener, Arc::clone(&shared)));
        }
        if !notified.is_empty() {
            task::spawn(notify::run(notified, addresses.clone(), shared));
        }
    }
    let serve = move |stopped: Stopped| {
        let _dropped = runtime.block_on(stopped);
        runtime.shutdown_timeout(FAREWELL_WAIT);
    };
    let thread = ServerThread::start("dns", serve).map_err(DnsServeError::Start)?;
    Ok(Handle { addresses, counters, _thread: thread })
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
