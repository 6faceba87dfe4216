//! A node's Docker, wherever it is, and what it says of itself.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::UnixStream;

use super::docker::{Docker, Fault};
use super::tunnel::{Endpoint, Pin, Reason, Tunnel};

/// Where a node's Docker is.
#[derive(Clone, Debug)]
pub enum At {
    /// On this machine.
    Here(PathBuf),
    /// Over SSH.
    There {
        /// Its sshd, and how it is entered.
        endpoint: Arc<Endpoint>,
        /// What it has to show; none: it is not dialled.
        pin: Option<Pin>,
    },
}

/// What a daemon says of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Daemon {
    /// Its version.
    pub version: String,
    /// Newest version of its API.
    pub api_version: String,
    /// As it calls it: `x86_64`.
    pub architecture: String,
}

/// The Docker that a connection leads to.
pub(super) fn over(tunnel: Tunnel) -> Docker {
    Docker::new(move || {
        let tunnel = tunnel.clone();
        async move { tunnel.docker_stream().await.map_err(io::Error::other) }
    })
}

/// The Docker of this machine.
pub(super) fn here(socket: PathBuf) -> Docker {
    Docker::new(move || UnixStream::connect(socket.clone()))
}

/// What it is.
pub(super) async fn daemon(docker: &Docker) -> Result<Daemon, Fault> {
    let version = docker.version().await?;
    let info = docker.info().await?;
    let api_version = version.api().to_owned();
    Ok(Daemon { version: version.version, api_version, architecture: info.architecture })
}

/// Why a Docker does not answer, for people.
pub(super) fn reason(fault: &Fault) -> Reason {
    Reason { label: fault.label(), fault: fault.to_string(), fix: String::new(), shown: None }
}
