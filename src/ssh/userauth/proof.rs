//! Public-key requests: which key they name, whose it is, and whether it signed (RFC 4252 §7).
//!
//! The only place that makes a [`ProvedKey`]. It keeps no state: what came before a request means nothing to it.

use super::{
    super::{
        certificate::{Certificate, Restrictions},
        publickey::{Fingerprint, PublicKey, SignatureAlgorithm, Touch},
        wire::{Malformed, Put, Reader},
    },
    PUBLIC_KEY, PUBLIC_KEY_HOST_BOUND, Policy, request, signed_data,
};
use std::net::IpAddr;

/// Longest key or certificate blob, in bytes. An RSA key of 16384 bits is 2 kB; OpenSSH's certificates with 256
/// principals stay below this.
pub(super) const BLOB_BYTES_MAX: usize = 16 << 10;

/// Longest signature blob, in bytes: RSA with 16384 bits needs 2048 and a name.
pub(super) const SIGNATURE_BYTES_MAX: usize = 4 << 10;

/// Whose key it is: a plain key stands for itself, a certificate for the user it names.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
pub enum Identity {
    /// A plain key, by its fingerprint.
    Key(Fingerprint),
    /// The one principal of a certificate from a trusted CA.
    User(String),
}

/// A key a client claims to hold. Answering must have no side effect.
pub struct Offer<'a> {
    /// The user name of the request, as sent (not printable-safe).
    pub login: &'a str,
    /// Whose key it would be.
    pub identity: &'a Identity,
    /// Of the plain key, also when a certificate is offered.
    pub fingerprint: Fingerprint,
    /// What the certificate takes away; nothing for a plain key.
    pub restrictions: &'a Restrictions,
}

/// Decides about offers; implemented over the routing map. Pure: no dial, no counter, no ban.
pub trait Gate {
    /// Whether a proof of this key would be let in here.
    fn accepts(&self, offer: &Offer<'_>) -> bool;
}

/// Which of the two public-key methods a request used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Method {
    /// `publickey` (RFC 4252 §7).
    PublicKey,
    /// `publickey-hostbound-v00@openssh.com`: the signature also covers our host key.
    HostBound,
}

impl Method {
    /// The method's name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PublicKey => PUBLIC_KEY,
            Self::HostBound => PUBLIC_KEY_HOST_BOUND,
        }
    }
}

/// A key whose possession was proved by a signature over this session. Only this file makes one.
///
/// It keeps the proof, so that somebody who trusts neither us nor the network can verify it again:
/// [`ProvedKey::signed_data`] and [`ProvedKey::signature`]. Its size is bounded by the limits of this file.
#[derive(Clone, Debug)]
pub struct ProvedKey {
    login: String,
    identity: Identity,
    key: PublicKey,
    restrictions: Restrictions,
    certificate_key_id: Option<String>,
    user_verified: bool,
    method: Method,
    algorithm: SignatureAlgorithm,
    presented: Box<[u8]>,
    signature: Box<[u8]>,
}

impl ProvedKey {
    /// The user name of the request, as sent (UTF-8, at most 255 bytes, not printable-safe!).
    #[must_use]
    pub fn login(&self) -> &str {
        &self.login
    }

    /// Whose key it is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Of the plain key, also when a certificate was used.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.key.fingerprint()
    }

    /// What the certificate takes away; nothing for a plain key.
    #[must_use]
    pub const fn restrictions(&self) -> &Restrictions {
        &self.restrictions
    }

    /// The key id of the certificate, if it was one (not printable-safe).
    #[must_use]
    pub fn certificate_key_id(&self) -> Option<&str> {
        self.certificate_key_id.as_deref()
    }

    /// Whether a security key attests that it verified its user (PIN or fingerprint).
    #[must_use]
    pub const fn user_verified(&self) -> bool {
        self.user_verified
    }

    /// The plain key that made the signature.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The blob of the request: the plain key, or the certificate.
    #[must_use]
    pub const fn presented(&self) -> &[u8] {
        &self.presented
    }

    /// The algorithm of the signature.
    #[must_use]
    pub const fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    /// Whether the signature also covers our host key.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.method
    }

    /// The signature blob: algorithm name and signature.
    #[must_use]
    pub const fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The bytes that [`ProvedKey::signature`] covers, byte for byte as they were verified.
    /// `host_key` matters to [`Method::HostBound`] only.
    #[must_use]
    pub fn signed_data(&self, session_id: &[u8; 32], host_key: &[u8]) -> Vec<u8> {
        let name = match self.identity {
            Identity::Key(_) => self.algorithm.name(),
            Identity::User(_) => self.algorithm.certificate_name(),
        };
        let mut request = request(&self.login, self.method, true, name, &self.presented);
        match self.method {
            Method::PublicKey => {}
            Method::HostBound => request.put_string(host_key),
        }
        signed_data(session_id, &request)
    }
}

/// All that a request is judged by.
#[derive(Clone, Copy)]
pub(super) struct Judge<'a> {
    pub(super) policy: &'a Policy,
    /// The client's address.
    pub(super) source: IpAddr,
    /// Now, for the dates of certificates.
    pub(super) unix_s: u64,
    pub(super) gate: &'a dyn Gate,
    pub(super) session_id: &'a [u8; 32],
    /// The host key we presented, as the client saw it: plain key or certificate.
    pub(super) host_key: &'a [u8],
}

/// What becomes of a public-key request.
pub(super) enum Verdict {
    /// The offered key may be used.
    Usable { name: String, blob: Vec<u8> },
    /// It may not.
    OfferRefused,
    /// The key signed this request, and the gate accepts it.
    Proved(Box<ProvedKey>),
    /// One of the two does not hold.
    ProofRefused,
}

/// A public-key request, taken apart.
pub(super) struct Request<'a> {
    login: &'a str,
    method: Method,
    /// It is bound to another server's host key: somebody in the middle passes it on.
    foreign: bool,
    name: &'a str,
    blob: &'a [u8],
    proof: Signature<'a>,
}

/// The second half of a public-key request.
enum Signature<'a> {
    /// None: it asks whether the key would do.
    Query,
    /// A signature over the session id and `covered`.
    Signed { covered: &'a [u8], signature: &'a [u8] },
}

/// A well-formed key of a request.
struct Claim {
    key: PublicKey,
    algorithm: SignatureAlgorithm,
    standing: Standing,
}

/// What a key is worth before anybody asks the routing map.
enum Standing {
    /// It stands for somebody.
    Somebody { identity: Identity, restrictions: Restrictions, certificate_key_id: Option<String> },
    /// Revoked, or a certificate that lets nobody in.
    Nobody,
}

impl<'a> Request<'a> {
    /// Reads what follows the method name. `payload` is the whole message.
    pub(super) fn read(
        payload: &'a [u8],
        login: &'a str,
        method: Method,
        mut reader: Reader<'a>,
        host_key: &[u8],
    ) -> Result<Self, Malformed> {
        let signed = match reader.u8()? {
            0 => false,
            1 => true,
            // RFC 4251 §5 forbids senders to store anything else, and the signature covers this byte.
            _ => return Err(Malformed::Range),
        };
        let name = reader.name()?;
        let blob = reader.string()?;
        let foreign = match method {
            Method::PublicKey => false,
            Method::HostBound => reader.string()? != host_key,
        };
        let proof = if signed {
            let covered_len = payload.len().saturating_sub(reader.rest().len());
            let covered = payload.get(..covered_len).ok_or(Malformed::Short)?;
            Signature::Signed { covered, signature: reader.string()? }
        } else {
            Signature::Query
        };
        reader.end()?;
        Ok(Self { login, method, foreign, name, blob, proof })
    }
}

impl Judge<'_> {
    pub(super) fn verdict(&self, request: &Request<'_>) -> Verdict {
        let claim = self.claim(request);
        match request.proof {
            Signature::Query => match claim {
                Some(claim) if self.policy.hide_keys || self.accepts(&claim, request) => {
                    Verdict::Usable { name: request.name.to_owned(), blob: request.blob.to_vec() }
                }
                Some(_) | None => Verdict::OfferRefused,
            },
            Signature::Signed { covered, signature } => claim
                .and_then(|claim| self.proved(claim, request, covered, signature))
                .map_or(Verdict::ProofRefused, |proved| Verdict::Proved(Box::new(proved))),
        }
    }

    /// What key this is, if it is one at all. The list of algorithms is asked before anything is parsed.
    fn claim(&self, request: &Request<'_>) -> Option<Claim> {
        let Request { name, blob, foreign, .. } = *request;
        if foreign || blob.len() > BLOB_BYTES_MAX {
            return None;
        }
        let (claim, key_type) = if let Some(algorithm) = SignatureAlgorithm::from_name(name) {
            (self.plain(algorithm, blob)?, algorithm.key_type())
        } else {
            let algorithm = SignatureAlgorithm::from_certificate_name(name)?;
            (self.certified(algorithm, blob)?, algorithm.key_type())
        };
        (claim.key.key_type() == key_type).then_some(claim)
    }

    fn plain(&self, algorithm: SignatureAlgorithm, blob: &[u8]) -> Option<Claim> {
        let key = PublicKey::parse(blob).ok()?;
        let standing = if self.policy.revocations.revokes_key(&key) {
            Standing::Nobody
        } else {
            Standing::Somebody {
                identity: Identity::Key(key.fingerprint()),
                restrictions: Restrictions::default(),
                certificate_key_id: None,
            }
        };
        Some(Claim { key, algorithm, standing })
    }

    fn certified(&self, algorithm: SignatureAlgorithm, blob: &[u8]) -> Option<Claim> {
        // To parse a certificate is to verify its CA's signature: no work for strangers when no CA is believed.
        if self.policy.cas.is_empty() && !self.policy.hide_keys {
            return None;
        }
        let certificate = Certificate::parse(blob).ok()?;
        let revoked = self.policy.revocations.revokes_certificate(&certificate);
        let standing = match certificate.admit_user(&self.policy.cas, self.source, self.unix_s) {
            Ok((user, restrictions)) if !revoked => Standing::Somebody {
                identity: Identity::User(user),
                restrictions,
                certificate_key_id: Some(certificate.key_id().to_owned()),
            },
            Ok(_) | Err(_) => Standing::Nobody,
        };
        Some(Claim { key: certificate.key().clone(), algorithm, standing })
    }

    /// Asks the gate, then verifies. With `hide_keys` it verifies first, so that the time an answer takes says
    /// nothing about the key.
    fn proved(
        &self,
        claim: Claim,
        request: &Request<'_>,
        covered: &[u8],
        signature: &[u8],
    ) -> Option<ProvedKey> {
        if !self.policy.hide_keys && !self.accepts(&claim, request) {
            return None;
        }
        if signature.len() > SIGNATURE_BYTES_MAX {
            return None;
        }
        let data = signed_data(self.session_id, covered);
        let touch = match &claim.standing {
            Standing::Somebody { restrictions, .. } => restrictions.touch(),
            Standing::Nobody => Touch::Required,
        };
        let verdict = claim.key.verify_with(claim.algorithm, touch, &data, signature);
        if self.policy.hide_keys && !self.accepts(&claim, request) {
            return None;
        }
        match claim.standing {
            Standing::Nobody => None,
            Standing::Somebody { identity, restrictions, certificate_key_id } => {
                let proof = verdict.ok().filter(|proof| restrictions.is_satisfied_by(*proof))?;
                Some(ProvedKey {
                    login: request.login.to_owned(),
                    identity,
                    key: claim.key,
                    restrictions,
                    certificate_key_id,
                    user_verified: proof.user_verified,
                    method: request.method,
                    algorithm: claim.algorithm,
                    presented: request.blob.into(),
                    signature: signature.into(),
                })
            }
        }
    }

    fn accepts(&self, claim: &Claim, request: &Request<'_>) -> bool {
        match &claim.standing {
            Standing::Nobody => false,
            Standing::Somebody { identity, restrictions, .. } => self.gate.accepts(&Offer {
                login: request.login,
                identity,
                fingerprint: claim.key.fingerprint(),
                restrictions,
            }),
        }
    }
}
