//! What a transport is set up with: its role, its algorithms and host keys, and when it re-keys by itself.

use std::sync::Arc;

use crate::ssh::cipher::Cipher;
use crate::ssh::entropy::Entropy;
use crate::ssh::host_key::HostKey;
use crate::ssh::negotiate::{AlgorithmOffer, Algorithms, HostKeyAlgorithm};
use crate::ssh::publickey::SignatureAlgorithm;
use crate::ssh::role::Role;

/// A point on the caller's monotonic clock, in milliseconds from any origin.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Instant(pub u64);

/// What every call needs from outside.
pub struct Context<'a> {
    /// The time of the call.
    pub now: Instant,
    /// Where randomness comes from.
    pub entropy: &'a mut dyn Entropy,
}

/// When we start a key exchange by ourselves. Both directions count separately.
#[derive(Clone, Copy, Debug)]
pub struct RekeyLimits {
    /// Bytes under one key.
    pub bytes: u64,
    /// Packets under one key.
    pub packets: u64,
    /// Age of the keys, in milliseconds.
    pub age_ms: u64,
}

impl Default for RekeyLimits {
    /// 1 GiB, 2^30 packets or an hour (RFC 4253 §9, RFC 4344 §3.1).
    fn default() -> Self {
        Self { bytes: 1 << 30, packets: 1 << 30, age_ms: 3_600_000 }
    }
}

/// Shared by the server transports of a shard; a reload replaces it as a whole.
pub struct ServerConfig {
    host_keys: Vec<HostKey>,
    names: Vec<HostKeyAlgorithm>,
    algorithms: Algorithms,
    limits: RekeyLimits,
    pub(super) sig_algs: String,
}

impl ServerConfig {
    /// `host_keys`: best first, at least one.
    pub fn new(host_keys: Vec<HostKey>, algorithms: Algorithms, limits: RekeyLimits) -> Self {
        let names = host_keys
            .iter()
            .flat_map(|host_key| {
                let plain = host_key.key.algorithms().iter();
                let signed = host_key.certificate.iter().flat_map(|_| host_key.key.algorithms());
                signed
                    .map(|signature| HostKeyAlgorithm { signature: *signature, certificate: true })
                    .chain(plain.map(|signature| HostKeyAlgorithm {
                        signature: *signature,
                        certificate: false,
                    }))
                    .collect::<Vec<_>>()
            })
            .collect();
        let sig_algs = SignatureAlgorithm::ALL.map(SignatureAlgorithm::name).join(",");
        Self { host_keys, names, algorithms, limits, sig_algs }
    }

    /// The keys we answer with.
    pub fn host_keys(&self) -> &[HostKey] {
        &self.host_keys
    }

    pub(super) fn host_key(&self, algorithm: HostKeyAlgorithm) -> Option<&HostKey> {
        self.host_keys.iter().find(|host_key| {
            host_key.key.algorithms().contains(&algorithm.signature)
                && (host_key.certificate.is_some() || !algorithm.certificate)
        })
    }
}

/// What a client transport asks for.
pub struct ClientConfig {
    names: Vec<HostKeyAlgorithm>,
    algorithms: Algorithms,
    limits: RekeyLimits,
}

impl ClientConfig {
    /// `host_keys`: the algorithms of the pinned key, or all that may be tried, best first.
    pub fn new(
        host_keys: &[SignatureAlgorithm],
        algorithms: Algorithms,
        limits: RekeyLimits,
    ) -> Self {
        let names = host_keys
            .iter()
            .map(|signature| HostKeyAlgorithm { signature: *signature, certificate: false })
            .collect();
        Self { names, algorithms, limits }
    }
}

/// The configuration decides the role.
#[derive(Clone)]
pub(super) enum End {
    Client(Arc<ClientConfig>),
    Server(Arc<ServerConfig>),
}

impl End {
    pub(super) const fn role(&self) -> Role {
        match self {
            Self::Client(_) => Role::Client,
            Self::Server(_) => Role::Server,
        }
    }

    pub(super) fn limits(&self) -> RekeyLimits {
        match self {
            Self::Client(config) => config.limits,
            Self::Server(config) => config.limits,
        }
    }

    pub(super) fn offer<'a>(&'a self, ours: &'a Ours, first: bool) -> AlgorithmOffer<'a> {
        let (names, algorithms) = match self {
            Self::Client(config) => (&config.names, &config.algorithms),
            Self::Server(config) => (&config.names, &config.algorithms),
        };
        AlgorithmOffer {
            role: self.role(),
            methods: &algorithms.methods,
            host_keys: names,
            ciphers: ours.ciphers.as_deref().unwrap_or(&algorithms.ciphers),
            macs: &algorithms.macs,
            first,
        }
    }
}

/// The KEXINIT we sent: all that is needed to build it again.
#[derive(Default)]
pub(super) struct Ours {
    pub(super) cookie: [u8; 16],
    /// In place of the configured list, for a cipher upgrade.
    pub(super) ciphers: Option<Box<[Cipher]>>,
}

impl Ours {
    pub(super) fn fresh(ciphers: Option<Box<[Cipher]>>, entropy: &mut dyn Entropy) -> Self {
        let mut cookie = [0; 16];
        entropy.fill(&mut cookie);
        Self { cookie, ciphers }
    }
}
