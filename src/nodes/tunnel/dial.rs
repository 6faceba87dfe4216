//! From a node's name to a TCP connection: resolved, judged and dialled, each time anew.
//!
//! An address that is special to this host or to its cloud is refused, whatever name led to it.
//! What is dialled is the address that was judged; the name is not resolved again.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::address::judge;
use super::endpoint::Endpoint;
use super::fault::{Stage, Unreached};
use super::settings::Settings;

/// Addresses of one name that are looked at.
const ADDRESSES_MAX: usize = 8;

/// Connects to the first address of the node that may be dialled and answers.
pub(super) async fn dial(
    endpoint: &Endpoint,
    settings: &Settings,
) -> Result<(TcpStream, SocketAddr), Unreached> {
    let mut last = None;
    for address in resolve(endpoint, settings).await? {
        if let Err(why) = judge(address.ip(), endpoint.networks()) {
            last.get_or_insert(Unreached::AddressRefused { address: address.ip(), why });
            continue;
        }
        match timeout(settings.connect, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Without it each small request waits for the acknowledgement of the last.
                let _ = stream.set_nodelay(true);
                return Ok((stream, address));
            }
            Ok(Err(why)) => last = Some(not_connected(address, why.kind())),
            Err(_) => last = Some(Unreached::TimedOut { stage: Stage::Connect }),
        }
    }
    Err(last.unwrap_or_else(|| Unreached::NotResolved { host: endpoint.host().to_owned() }))
}

async fn resolve(endpoint: &Endpoint, settings: &Settings) -> Result<Vec<SocketAddr>, Unreached> {
    let (host, port) = (endpoint.host(), endpoint.port());
    if let Ok(ip) = host.parse() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    match timeout(settings.connect, lookup_host((host, port))).await {
        Ok(Ok(found)) => Ok(found.take(ADDRESSES_MAX).collect()),
        Ok(Err(_)) => Err(Unreached::NotResolved { host: host.to_owned() }),
        Err(_) => Err(Unreached::TimedOut { stage: Stage::Resolve }),
    }
}

fn not_connected(address: SocketAddr, why: ErrorKind) -> Unreached {
    if why == ErrorKind::ConnectionRefused {
        Unreached::ConnectionRefused { address }
    } else if why == ErrorKind::TimedOut {
        Unreached::TimedOut { stage: Stage::Connect }
    } else if why == ErrorKind::ConnectionReset {
        Unreached::Closed { stage: Stage::Connect, said: String::new() }
    } else {
        Unreached::NoRoute { address }
    }
}
