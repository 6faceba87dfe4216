//! Why the API is not served.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the API did not start.
#[derive(Debug, thiserror::Error)]
pub enum ApiServeError {
    /// The socket cannot be made.
    #[error("the API cannot be served at {path}: {source}")]
    Socket {
        /// As configured.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Somebody answers there.
    #[error("another keyway answers at {0}; end it first, or give this one another api.socket")]
    Taken(PathBuf),
    /// Something else is there.
    #[error("{0} is there and is no socket; remove it, or write another api.socket")]
    NoSocket(PathBuf),
    /// The address cannot be listened on.
    #[error("the API cannot be served on {address}: {source}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Certificate or key are of no use.
    #[error("the API cannot be served with {path}: {why}")]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No thread or no event loop for it.
    #[error("the API cannot be served: {0}")]
    Start(#[source] io::Error),
}
