//! What an edge is told: once at its start, and again by a reload.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::local_address::Destination;
use super::proxy_header::Senders;
use super::relay::{ClientAlive, PreferGcm};
use super::seats::Most;
use crate::route::SourceAddress;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::transport::ServerConfig;
use crate::ssh::userauth::Policy;

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
