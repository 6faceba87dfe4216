//! What `keyway.toml` says, section by section.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::domain_name::DomainName;
use crate::registry::apply::served_file::RemovalsMax;
use crate::registry::document::Role;
use crate::route::SourceAddress;
use crate::ssh::host_key::HostKey;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::PublicKey;
use crate::ssh::revocation::Revocations;

/// How this front door runs: `keyway.toml`.
#[derive(Debug)]
pub struct Config {
    /// Where keys made once and the registry are kept. May not exist yet.
    pub state_dir: PathBuf,
    /// Towards the clients.
    pub edge: Edge,
    /// Towards the VMs.
    pub vm_leg: VmLeg,
    /// For the operator.
    pub metrics: Metrics,
    /// For operators and their machines.
    pub api: Api,
    /// For the allocator.
    pub registry: Registry,
    /// For hosts that VMs lie on.
    pub nodes: Nodes,
    /// What a served fleet file may do by itself.
    pub fleet_file: FleetFile,
    /// Names for the VMs; absent: somebody else's task.
    pub dns: Option<Dns>,
}

/// The `[edge]` section.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the file")]
pub struct Edge {
    /// At least one; no two the same.
    pub listen: Vec<SocketAddr>,
    /// How many cores to use; automatic: all.
    pub shards: Count,
    /// What clients see.
    pub host_keys: HostKeys,
    /// From accept to a proved key.
    pub login_grace: Duration,
    /// From SIGTERM to the end of the last session.
    pub drain: Duration,
    /// Peers that must, and alone may, send a PROXY header.
    pub proxy_protocol_from: Vec<IpNet>,
    /// Established sessions; automatic: from the file descriptor limit.
    pub sessions_max: Count,
    /// Of one user; automatic: half of them.
    pub sessions_max_per_user: Count,
    /// In one VM; automatic: half of them.
    pub sessions_max_per_vm: Count,
    /// Connections before a proved key; automatic: a quarter of the file descriptor budget.
    pub half_open_max: Count,
    /// How log lines look.
    pub log: Log,
    /// Answer yes to every well-formed key and decide after the signature.
    pub hide_keys: bool,
    /// Offer plain hmac-sha2, last.
    pub legacy_macs: bool,
    /// Offer clients key exchange on NIST curves, which old and FIPS clients have alone.
    pub legacy_kex: bool,
    /// Whether bulky chacha20 sessions move to AES-GCM.
    pub prefer_gcm: PreferGcm,
    /// Silence before a client is asked whether it is there; 0: it is not.
    pub client_alive_interval: Duration,
    /// Questions it may leave unanswered; 0: any number.
    pub client_alive_count_max: u32,
    /// Ask the kernel for the address before DNAT.
    pub original_dst: bool,
    /// The file that says what is revoked.
    pub revoked_keys: Option<PathBuf>,
    /// What it says: keys, certificates and CAs that are let in no more.
    pub revocations: Revocations,
    /// CAs whose user certificates are accepted.
    pub trusted_user_cas: Vec<PublicKey>,
}

/// A number that may be left to the program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Count {
    /// `0` in the file.
    Automatic,
    /// As configured.
    Exactly(NonZeroU32),
}

/// Where the host keys come from.
#[derive(Debug)]
pub enum HostKeys {
    /// One Ed25519 key, made once in the state directory.
    InState,
    /// From files; one of each type at most.
    Given(Vec<HostKey>),
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Log {
    /// JSON unless stderr is a terminal.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Readable,
}

/// Whether bulky chacha20 sessions of clients that also offered AES-GCM are re-keyed to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PreferGcm {
    /// Once the session has shown to be bulky.
    Bulk,
    /// Never.
    Never,
}

/// The `[vm_leg]` section.
#[derive(Debug)]
pub struct VmLeg {
    /// How the edge logs in to VMs.
    pub credential: VmCredential,
    /// For one connect.
    pub dial_timeout: Duration,
    /// Where VM endpoints may lie; at least one.
    pub networks: Vec<IpNet>,
    /// From where the edge comes, as VMs see it, unless a VM has its own.
    pub source_address: SourceAddress,
}

/// How the edge logs in to VMs.
#[derive(Debug)]
pub enum VmCredential {
    /// With a certificate minted for each connection.
    Certificates {
        /// Who signs.
        ca: UserCa,
        /// For whom.
        principals: Principals,
    },
    /// With one plain key.
    Key(PrivateKey),
}

/// Where the CA key for VM logins comes from.
#[derive(Debug)]
pub enum UserCa {
    /// Made once in the state directory.
    InState,
    /// From a file.
    Given(PrivateKey),
}

/// What a minted certificate is good for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Principals {
    /// `vm:<name>`: one VM.
    Vm,
    /// The login name: any VM that trusts the CA.
    Login,
}

/// The `[metrics]` section.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Metrics {
    /// Never a pool address.
    pub listen: SocketAddr,
}

/// The `[api]` section.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Api {
    /// The unix socket.
    pub socket: PathBuf,
    /// Where it is served over TLS, if anywhere; never a pool address.
    pub tls: Option<ApiTls>,
    /// What others than root and this process's own user may do at the socket.
    pub peers: Vec<(Peer, Role)>,
    /// How long the agent that has a large commit first is watched; zero: all have it at once.
    pub canary: Duration,
}

/// The API over TLS.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ApiTls {
    /// Never every address.
    pub listen: SocketAddr,
    /// PEM: the server's certificate, then those between it and the root.
    pub cert: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
}

/// Who may be at the other end of a unix socket.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Peer {
    /// A user by name.
    User(String),
    /// A user by number.
    Uid(u32),
    /// Whoever is in a group.
    Group(String),
}

/// The `[registry]` section.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Registry {
    /// Seconds for which a slot points at no other VM after its last use.
    pub quarantine_s: u64,
    /// Seconds for which the audit log remembers; 0: for ever.
    pub audit_keep_s: u64,
}

/// The `[nodes]` section.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Nodes {
    /// From one look at a node to the next.
    pub health: Duration,
}

/// The `[fleet_file]` section.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FleetFile {
    /// How much it may remove at a start or reload.
    pub removals_max: RemovalsMax,
}

/// The `[dns]` section.
#[derive(Debug)]
pub struct Dns {
    /// Where the names live: `vm.zone`, `s003.zone`.
    pub zone: DomainName,
    /// Both UDP and TCP; at least one; no two the same.
    pub listen: Vec<SocketAddr>,
    /// At least one; the first is the primary.
    pub ns: Vec<NameServer>,
    /// Of every record but the SOA, in seconds.
    pub ttl_s: u32,
    /// How long a secondary serves a copy that it cannot renew, in seconds: with the TTL behind it,
    /// no longer than a slot leads to no other VM.
    pub expire_s: u32,
    /// Who may copy the zone, and who is told that it changed.
    pub secondaries: Vec<Secondary>,
    /// Signs answers on the fly; ECDSA P-256.
    pub dnssec_key: Option<Arc<PrivateKey>>,
    /// Over UDP, for each network of 24 bits (IPv6: 56); `None`: as many as are asked for.
    pub responses_per_second: Option<NonZeroU32>,
}

/// A name of the zone's NS set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NameServer {
    /// Its host name.
    pub name: DomainName,
    /// Published if the name lies in the zone; empty if it does not.
    pub addresses: Vec<IpAddr>,
}

/// Who may copy the zone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Secondary {
    /// Where transfers come from.
    pub network: IpNet,
    /// Where it takes NOTIFY; a network gets none.
    pub notify: Option<SocketAddr>,
}
