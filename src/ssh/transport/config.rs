//! What a transport is set up with: its role, its algorithms and host keys, and when it
//! re-keys by itself.

use std::sync::Arc;

use crate::ssh::cipher::Cipher;
use crate::ssh::entropy::Entropy;
use crate::ssh::host_key::HostKey;
use crate::ssh::negotiate::{AlgorithmOffer, Algorithms, HostKeyAlgorithm, KexInit};
use crate::ssh::private_key::PrivateKey;
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
    host_keys: HostKeys,
    names: Vec<HostKeyAlgorithm>,
    algorithms: Algorithms,
    limits: RekeyLimits,
    pub(super) sig_algs: String,
}

/// What a server shows of itself, and who signs with it.
enum HostKeys {
    /// We do.
    Ours(Vec<HostKey>),
    /// Whoever holds the private halves: the blob shown under each algorithm.
    Elsewhere(Vec<(HostKeyAlgorithm, Box<[u8]>)>),
}

/// A host key as a key exchange takes it.
pub(in crate::ssh) struct Shown<'a> {
    /// The key, or the certificate for it.
    pub(in crate::ssh) blob: &'a [u8],
    /// `None`: it is elsewhere.
    pub(in crate::ssh) key: Option<&'a PrivateKey>,
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
        Self {
            host_keys: HostKeys::Ours(host_keys),
            names,
            algorithms,
            limits,
            sig_algs: sig_algs(),
        }
    }

    /// A server that goes on where another one is, whose latest KEXINIT `kexinit` is and who signs
    /// for both: it offers the same, under each host key algorithm what `blob` says. `None` if that
    /// KEXINIT is none of our kind.
    pub(in crate::ssh) fn elsewhere(
        kexinit: &KexInit<'_>,
        blob: impl Fn(HostKeyAlgorithm) -> Option<Box<[u8]>>,
        limits: RekeyLimits,
    ) -> Option<Self> {
        let (algorithms, names) = kexinit.offered()?;
        let shown = names.iter().filter_map(|name| Some((*name, blob(*name)?))).collect();
        let host_keys = HostKeys::Elsewhere(shown);
        Some(Self { host_keys, names, algorithms, limits, sig_algs: sig_algs() })
    }

    /// The same server, whose private halves are elsewhere.
    #[cfg(test)]
    pub(crate) fn without_keys(&self) -> Self {
        let shown = |name: &HostKeyAlgorithm| Some((*name, self.shown(*name)?.blob.into()));
        Self {
            host_keys: HostKeys::Elsewhere(self.names.iter().filter_map(shown).collect()),
            names: self.names.clone(),
            algorithms: self.algorithms.clone(),
            limits: self.limits,
            sig_algs: sig_algs(),
        }
    }

    /// Whether this is the KEXINIT that starts a later key exchange of such a server.
    pub(in crate::ssh) fn sends(self: &Arc<Self>, cookie: [u8; 16], kexinit: &[u8]) -> bool {
        let ours = Ours { cookie, ..Ours::default() };
        End::Server(Arc::clone(self)).offer(&ours, false).kexinit(cookie) == kexinit
    }

    /// The keys we answer with; none if they are elsewhere.
    pub fn host_keys(&self) -> &[HostKey] {
        match &self.host_keys {
            HostKeys::Ours(host_keys) => host_keys,
            HostKeys::Elsewhere(_) => &[],
        }
    }

    /// When it starts a key exchange by itself.
    #[must_use]
    pub const fn limits(&self) -> RekeyLimits {
        self.limits
    }

    /// Whether the private halves of what is shown are here.
    #[must_use]
    pub const fn signs(&self) -> bool {
        matches!(self.host_keys, HostKeys::Ours(_))
    }

    pub(in crate::ssh) fn shown(&self, algorithm: HostKeyAlgorithm) -> Option<Shown<'_>> {
        match &self.host_keys {
            HostKeys::Ours(host_keys) => {
                let host_key = host_keys.iter().find(|host_key| {
                    host_key.key.algorithms().contains(&algorithm.signature)
                        && (host_key.certificate.is_some() || !algorithm.certificate)
                })?;
                let blob = match &host_key.certificate {
                    Some(certificate) if algorithm.certificate => certificate.blob(),
                    Some(_) | None => host_key.key.public().blob(),
                };
                Some(Shown { blob, key: Some(&host_key.key) })
            }
            HostKeys::Elsewhere(shown) => {
                let (_, blob) = shown.iter().find(|(name, _)| *name == algorithm)?;
                Some(Shown { blob, key: None })
            }
        }
    }
}

fn sig_algs() -> String {
    SignatureAlgorithm::ALL.map(SignatureAlgorithm::name).join(",")
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
    pub(super) reply: Reply,
}

/// What becomes of a server's answer to the client's value.
#[derive(Default)]
pub(super) enum Reply {
    /// It goes out like everything we send.
    #[default]
    Ours,
    /// So it does, and what the exchange hash was made of is kept.
    Kept,
    /// It is for whoever sent our KEXINIT to send, and NEWKEYS behind it, under keys of its own.
    /// `next_seq`: the number of the packet after these two.
    Theirs { next_seq: u32 },
}

impl Ours {
    pub(super) fn fresh(ciphers: Option<Box<[Cipher]>>, entropy: &mut dyn Entropy) -> Self {
        let mut cookie = [0; 16];
        entropy.fill(&mut cookie);
        Self { cookie, ciphers, reply: Reply::Ours }
    }

    /// For a first exchange whose values are kept. Who is shown them later can see
    /// when they were made.
    pub(super) fn dated(unix_s: u64, entropy: &mut dyn Entropy) -> Self {
        let mut ours = Self { reply: Reply::Kept, ..Self::fresh(None, entropy) };
        for (to, from) in ours.cookie.iter_mut().zip(unix_s.to_be_bytes()) {
            *to = from;
        }
        ours
    }
}
