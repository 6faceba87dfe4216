//! Algorithm negotiation (RFC 4253 §7.1): what we offer, and what two KEXINITs agree on.

use super::cipher::{Cipher, Mac, Suite};
use super::fault::Fault;
use super::kex::Method;
use super::message;
use super::publickey::{KeyType, SignatureAlgorithm};
use super::role::Role;
use super::wire::{Malformed, Put, Reader};

const STRICT_CLIENT: &str = "kex-strict-c-v00@openssh.com";
const STRICT_SERVER: &str = "kex-strict-s-v00@openssh.com";
const EXT_INFO_CLIENT: &str = "ext-info-c";
const NO_COMPRESSION: &str = "none";

/// What one side offers, each list best first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Algorithms {
    /// Key exchange methods.
    pub methods: Vec<Method>,
    /// Ciphers, the same in both directions.
    pub ciphers: Vec<Cipher>,
    /// MACs for the ciphers that need one, the same in both directions.
    pub macs: Vec<Mac>,
}

impl Default for Algorithms {
    /// All that Keyway speaks.
    fn default() -> Self {
        Self {
            methods: Method::ALL.to_vec(),
            ciphers: Cipher::ALL.to_vec(),
            macs: Mac::ALL.to_vec(),
        }
    }
}

/// A host key algorithm: a signature algorithm over a plain key or over a host certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HostKeyAlgorithm {
    /// How the exchange hash is signed.
    pub signature: SignatureAlgorithm,
    /// The key is presented inside a certificate.
    pub certificate: bool,
}

impl HostKeyAlgorithm {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        if self.certificate { self.signature.certificate_name() } else { self.signature.name() }
    }
}

impl HostKeyAlgorithm {
    /// The algorithm of that name on the wire.
    pub fn from_name(name: &str) -> Option<Self> {
        let plain = SignatureAlgorithm::from_name(name);
        let plain = plain.map(|signature| Self { signature, certificate: false });
        plain.or_else(|| {
            let signature = SignatureAlgorithm::from_certificate_name(name)?;
            Some(Self { signature, certificate: true })
        })
    }
}

/// Our KEXINIT but for the cookie: enough to build the same bytes again when the exchange hash
/// needs them, so that a connection that waits for its peer keeps 16 bytes and not a kilobyte.
#[derive(Clone, Copy, Debug)]
pub(super) struct AlgorithmOffer<'a> {
    pub(super) role: Role,
    pub(super) methods: &'a [Method],
    pub(super) host_keys: &'a [HostKeyAlgorithm],
    pub(super) ciphers: &'a [Cipher],
    pub(super) macs: &'a [Mac],
    /// The first KEXINIT of a connection also carries the strict-KEX and ext-info markers.
    pub(super) first: bool,
}

impl AlgorithmOffer<'_> {
    /// The KEXINIT payload, message number included.
    pub(super) fn kexinit(&self, cookie: [u8; 16]) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        out.put_u8(message::KEXINIT);
        out.put_bytes(&cookie);
        let markers: &[&str] = match (self.first, self.role) {
            (false, _) => &[],
            (true, Role::Client) => &[EXT_INFO_CLIENT, STRICT_CLIENT],
            (true, Role::Server) => &[STRICT_SERVER],
        };
        let methods = self.methods.iter().map(|method| method.name());
        put_names(&mut out, methods.chain(markers.iter().copied()));
        put_names(&mut out, self.host_keys.iter().map(|algorithm| algorithm.name()));
        for _ in 0..2 {
            put_names(&mut out, self.ciphers.iter().map(|cipher| cipher.name()));
        }
        for _ in 0..2 {
            put_names(&mut out, self.macs.iter().map(|mac| mac.name()));
        }
        for _ in 0..2 {
            put_names(&mut out, std::iter::once(NO_COMPRESSION));
        }
        for _ in 0..2 {
            put_names(&mut out, std::iter::empty());
        }
        out.put_bool(false);
        out.put_u32(0);
        out
    }

    /// What this offer and the peer's KEXINIT agree on: the first of the client's names that the
    /// server has too (RFC 4253 §7.1).
    pub(super) fn agree(&self, peer: &KexInit<'_>) -> Result<Agreement, Fault> {
        let method = self.first_common(self.methods, peer.methods, Method::name);
        let host_key = self.first_common(self.host_keys, peer.host_keys, HostKeyAlgorithm::name);
        let to_server = self.suite(peer.ciphers_to_server, peer.macs_to_server)?;
        let to_client = self.suite(peer.ciphers_to_client, peer.macs_to_client)?;
        for compression in [peer.compression_to_server, peer.compression_to_client] {
            if !names(compression).any(|name| name == NO_COMPRESSION) {
                return Err(Fault::NoCommon("compression"));
            }
        }
        let (strict, ext_info) = match self.role {
            Role::Server => (STRICT_CLIENT, EXT_INFO_CLIENT),
            Role::Client => (STRICT_SERVER, "ext-info-s"),
        };
        let first = |ours: Option<&'static str>, theirs| ours == names(theirs).next();
        let guess_right = first(self.methods.first().map(|method| method.name()), peer.methods)
            && first(self.host_keys.first().map(|key| key.name()), peer.host_keys);
        let method = method.ok_or(Fault::NoCommon("key exchange method"))?;
        let host_key = host_key.ok_or(Fault::NoCommon("host key algorithm"))?;
        Ok(Agreement {
            method,
            host_key,
            to_server,
            to_client,
            strict: names(peer.methods).any(|name| name == strict),
            ext_info: names(peer.methods).any(|name| name == ext_info),
            skip_guess: peer.guess_follows && !guess_right,
            peer_can: PeerCan { gcm: peer.offers_gcm(), rsa_proofs: peer.rsa_proofs(host_key) },
        })
    }

    fn suite(&self, ciphers: &str, macs: &str) -> Result<Suite, Fault> {
        let cipher = self
            .first_common(self.ciphers, ciphers, Cipher::name)
            .ok_or(Fault::NoCommon("cipher"))?;
        if cipher.is_aead() {
            return Ok(Suite { cipher, mac: None });
        }
        let mac = self.first_common(self.macs, macs, Mac::name);
        Ok(Suite { cipher, mac: Some(mac.ok_or(Fault::NoCommon("MAC"))?) })
    }

    fn first_common<T: Copy>(
        &self,
        ours: &[T],
        theirs: &str,
        name: impl Fn(T) -> &'static str,
    ) -> Option<T> {
        match self.role {
            Role::Client => {
                ours.iter().copied().find(|one| names(theirs).any(|their| their == name(*one)))
            }
            Role::Server => {
                names(theirs).find_map(|their| ours.iter().copied().find(|one| name(*one) == their))
            }
        }
    }
}

/// What a key exchange will use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Agreement {
    pub(super) method: Method,
    pub(super) host_key: HostKeyAlgorithm,
    pub(super) to_server: Suite,
    pub(super) to_client: Suite,
    /// The peer wants strict KEX; it counts in the first KEXINIT only.
    pub(super) strict: bool,
    /// The peer takes EXT_INFO; it counts in the first KEXINIT only.
    pub(super) ext_info: bool,
    /// The peer's next packet is a wrong guess, to be dropped unread (RFC 4253 §7).
    pub(super) skip_guess: bool,
    pub(super) peer_can: PeerCan,
}

/// What a peer's KEXINIT tells beyond what is agreed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct PeerCan {
    /// AES-GCM, both ways.
    pub(super) gcm: bool,
    /// How this client verifies a proof of an RSA host key that is not the exchange's own; `None`:
    /// it has none but SHA-1.
    pub(super) rsa_proofs: Option<SignatureAlgorithm>,
}

/// The peer's KEXINIT, borrowed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KexInit<'a> {
    methods: &'a str,
    host_keys: &'a str,
    ciphers_to_server: &'a str,
    ciphers_to_client: &'a str,
    macs_to_server: &'a str,
    macs_to_client: &'a str,
    compression_to_server: &'a str,
    compression_to_client: &'a str,
    guess_follows: bool,
}

impl<'a> KexInit<'a> {
    /// Parses a payload that starts with the KEXINIT number.
    ///
    /// # Errors
    /// [`Malformed`] as the fields are.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        if reader.u8()? != message::KEXINIT {
            return Err(Malformed::Range);
        }
        reader.bytes(16)?;
        let parsed = Self {
            methods: reader.name()?,
            host_keys: reader.name()?,
            ciphers_to_server: reader.name()?,
            ciphers_to_client: reader.name()?,
            macs_to_server: reader.name()?,
            macs_to_client: reader.name()?,
            compression_to_server: reader.name()?,
            compression_to_client: reader.name()?,
            guess_follows: {
                reader.string()?;
                reader.string()?;
                reader.bool()?
            },
        };
        reader.u32()?;
        reader.end()?;
        Ok(parsed)
    }

    /// How this client verifies a proof of an RSA host key that is not the exchange's own:
    /// by the algorithm of the exchange if that is RSA, else by the best it has. `None`: it
    /// has none but SHA-1.
    ///
    /// Source: OpenSSH PROTOCOL §2.5, `server_input_hostkeys_prove`.
    pub(super) fn rsa_proofs(&self, agreed: HostKeyAlgorithm) -> Option<SignatureAlgorithm> {
        if agreed.signature.key_type() == KeyType::Rsa {
            return Some(agreed.signature);
        }
        [SignatureAlgorithm::RsaSha512, SignatureAlgorithm::RsaSha256].into_iter().find(|rsa| {
            names(self.host_keys).any(|name| name == rsa.name() || name == rsa.certificate_name())
        })
    }

    /// The method that this client's first KEXINIT and that of `server` agree on, and whether both
    /// want strict KEX.
    pub(super) fn agreed_method(&self, server: &KexInit<'_>) -> Option<(Method, bool)> {
        let wants = |list, marker| names(list).any(|name| name == marker);
        let strict = wants(self.methods, STRICT_CLIENT) && wants(server.methods, STRICT_SERVER);
        let name = names(self.methods).find(|name| wants(server.methods, name))?;
        Some((Method::from_name(name)?, strict))
    }

    /// The host key algorithm that they agree on.
    pub(super) fn agreed_host_key(&self, server: &KexInit<'_>) -> Option<HostKeyAlgorithm> {
        let theirs = |name: &&str| names(server.host_keys).any(|their| their == *name);
        HostKeyAlgorithm::from_name(names(self.host_keys).find(theirs)?)
    }

    /// What this KEXINIT offers, and the host key algorithms; `None` for names that we do not
    /// speak, and where the two directions differ: no KEXINIT of ours does either.
    pub(super) fn offered(&self) -> Option<(Algorithms, Vec<HostKeyAlgorithm>)> {
        let both = self.ciphers_to_server == self.ciphers_to_client
            && self.macs_to_server == self.macs_to_client;
        let markers = [STRICT_SERVER, STRICT_CLIENT, EXT_INFO_CLIENT];
        let methods = names(self.methods).filter(|name| !markers.contains(name));
        let algorithms = Algorithms {
            methods: methods.map(Method::from_name).collect::<Option<_>>()?,
            ciphers: names(self.ciphers_to_client).map(Cipher::from_name).collect::<Option<_>>()?,
            macs: names(self.macs_to_client).map(Mac::from_name).collect::<Option<_>>()?,
        };
        let host_keys = names(self.host_keys).map(HostKeyAlgorithm::from_name);
        let host_keys = host_keys.collect::<Option<_>>()?;
        both.then_some((algorithms, host_keys))
    }

    /// The peer has AES-GCM in both directions.
    #[must_use]
    pub fn offers_gcm(&self) -> bool {
        let gcm = |list| {
            names(list)
                .any(|name| name == Cipher::Aes128Gcm.name() || name == Cipher::Aes256Gcm.name())
        };
        gcm(self.ciphers_to_server) && gcm(self.ciphers_to_client)
    }
}

/// The names of a name-list, in order.
fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter(|name| !name.is_empty())
}

fn put_names<'a>(out: &mut Vec<u8>, list: impl Iterator<Item = &'a str>) {
    let mut joined = String::new();
    for name in list {
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(name);
    }
    out.put_string(joined.as_bytes());
}

#[cfg(test)]
#[path = "negotiate_tests.rs"]
mod tests;
