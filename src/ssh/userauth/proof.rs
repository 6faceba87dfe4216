//! Public-key requests: which key they name, whose it is, and whether it signed (RFC 4252 §7).
//!
//! The only place that makes a [`ProvedKey`]. It keeps no state: what came before a request means nothing to it.

use super::{
    super::{
        certificate::{Certificate, CertificateFault, Claimed, Restrictions},
        publickey::{Fingerprint, PublicKey, SignatureAlgorithm, Touch},
        wire::{Malformed, Put, Reader},
    },
    PUBLIC_KEY, PUBLIC_KEY_HOST_BOUND, Policy, request, signed_data, still_stands,
};
use std::{net::IpAddr, sync::Arc};

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

/// What a client came with: the key itself, or the certificate for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Presented {
    /// A plain key.
    Key(PublicKey),
    /// A certificate whose CA was trusted and did sign it.
    Certificate(Certificate),
}

impl Presented {
    /// The plain key.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        match self {
            Self::Key(key) => key,
            Self::Certificate(certificate) => certificate.key(),
        }
    }

    /// As it stood in the request.
    #[must_use]
    pub fn blob(&self) -> &[u8] {
        match self {
            Self::Key(key) => key.blob(),
            Self::Certificate(certificate) => certificate.blob(),
        }
    }
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
    presented: Arc<Presented>,
    restrictions: Restrictions,
    user_verified: bool,
    method: Method,
    algorithm: SignatureAlgorithm,
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
        self.key().fingerprint()
    }

    /// What the certificate takes away; nothing for a plain key.
    #[must_use]
    pub const fn restrictions(&self) -> &Restrictions {
        &self.restrictions
    }

    /// The key id of the certificate, if it was one (not printable-safe).
    #[must_use]
    pub fn certificate_key_id(&self) -> Option<&str> {
        match &*self.presented {
            Presented::Key(_) => None,
            Presented::Certificate(certificate) => Some(certificate.key_id()),
        }
    }

    /// Whether a security key attests that it verified its user (PIN or fingerprint).
    #[must_use]
    pub const fn user_verified(&self) -> bool {
        self.user_verified
    }

    /// The plain key that made the signature.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        self.presented.key()
    }

    /// The blob of the request: the plain key, or the certificate.
    #[must_use]
    pub fn presented(&self) -> &[u8] {
        self.presented.blob()
    }

    /// What to ask [`still_stands`] about while the session lives.
    #[must_use]
    pub fn standing(&self) -> Arc<Presented> {
        Arc::clone(&self.presented)
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
        let mut request = request(&self.login, self.method, true, name, self.presented());
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
    algorithm: SignatureAlgorithm,
    standing: Standing,
}

/// What a key is worth before anybody asks the routing map.
enum Standing {
    /// It stands for somebody.
    Somebody { identity: Identity, restrictions: Restrictions, presented: Arc<Presented> },
    /// Revoked, or a certificate that lets nobody in.
    Nobody { key: PublicKey },
}

impl Standing {
    fn key(&self) -> &PublicKey {
        match self {
            Self::Somebody { presented, .. } => presented.key(),
            Self::Nobody { key } => key,
        }
    }
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
        let (standing, algorithm) = if let Some(algorithm) = SignatureAlgorithm::from_name(name) {
            (self.plain(blob)?, algorithm)
        } else {
            let algorithm = SignatureAlgorithm::from_certificate_name(name)?;
            (self.certified(blob)?, algorithm)
        };
        let fits = standing.key().key_type() == algorithm.key_type();
        fits.then_some(Claim { algorithm, standing })
    }

    fn plain(&self, blob: &[u8]) -> Option<Standing> {
        let key = PublicKey::parse(blob).ok()?;
        let identity = Identity::Key(key.fingerprint());
        let presented = Presented::Key(key.clone());
        Some(if still_stands(self.policy, &presented) {
            let (restrictions, presented) = (Restrictions::default(), Arc::new(presented));
            Standing::Somebody { identity, restrictions, presented }
        } else {
            Standing::Nobody { key }
        })
    }

    fn certified(&self, blob: &[u8]) -> Option<Standing> {
        if self.policy.cas.is_empty() && !self.policy.hide_keys {
            return None;
        }
        let claimed = Claimed::parse(blob).ok()?;
        let key = claimed.key().clone();
        // With `hide_keys` every one that is well-formed gets the same answer: also one that its CA never signed.
        Some(self.admitted(claimed).unwrap_or(Standing::Nobody { key }))
    }

    fn admitted(&self, claimed: Claimed) -> Result<Standing, CertificateFault> {
        let certificate = claimed.trusted(&self.policy.cas)?;
        let (user, restrictions) =
            certificate.admit_user(&self.policy.cas, self.source, self.unix_s)?;
        let identity = Identity::User(user);
        let presented = Presented::Certificate(certificate);
        if still_stands(self.policy, &presented) {
            Ok(Standing::Somebody { identity, restrictions, presented: Arc::new(presented) })
        } else {
            Err(CertificateFault::Revoked)
        }
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
            Standing::Nobody { .. } => Touch::Required,
        };
        let verdict = claim.standing.key().verify_with(claim.algorithm, touch, &data, signature);
        if self.policy.hide_keys && !self.accepts(&claim, request) {
            return None;
        }
        match claim.standing {
            Standing::Nobody { .. } => None,
            Standing::Somebody { identity, restrictions, presented } => {
                let proof = verdict.ok().filter(|proof| restrictions.is_satisfied_by(*proof))?;
                Some(ProvedKey {
                    login: request.login.to_owned(),
                    identity,
                    presented,
                    restrictions,
                    user_verified: proof.user_verified,
                    method: request.method,
                    algorithm: claim.algorithm,
                    signature: signature.into(),
                })
            }
        }
    }

    fn accepts(&self, claim: &Claim, request: &Request<'_>) -> bool {
        match &claim.standing {
            Standing::Nobody { .. } => false,
            Standing::Somebody { identity, restrictions, presented } => self.gate.accepts(&Offer {
                login: request.login,
                identity,
                fingerprint: presented.key().fingerprint(),
                restrictions,
            }),
        }
    }
}
