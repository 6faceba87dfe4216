//! Public-key requests: which key they name, whose it is, and whether it signed (RFC 4252 §7).
//!
//! The only place that makes a [`ProvedKey`]. What came before a request means nothing to it, but
//! for the arithmetic that it saves ([`CaChecks`]). It verifies; whether a key may enter is for the
//! [`Gate`] to judge, and that comes first: a lookup costs a thousandth of a signature.

use std::net::IpAddr;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::super::certificate::{CertificateFault, Claimed, Restrictions};
use super::super::publickey::{Fingerprint, PublicKey, SignatureAlgorithm, Touch};
use super::super::wire::{Malformed, Put, Reader};
use super::messages::{Method, request, signed_data};
use super::policy::Policy;
use super::presented::{Identity, Presented};
use super::standing::{Offer, Pass, Subject};

/// Longest key or certificate blob, in bytes. An RSA key of 16384 bits is 2 kB; OpenSSH's
/// certificates with 256 principals stay below this.
pub(super) const BLOB_BYTES_MAX: usize = 16 << 10;

/// Longest signature blob, in bytes: RSA with 16384 bits needs 2048 and a name.
pub(super) const SIGNATURE_BYTES_MAX: usize = 4 << 10;

/// Most signatures of CAs verified for one connection. A client has one certificate, or a few; a
/// P-521 CA's costs half a millisecond.
pub(super) const CA_CHECKS_MAX: u32 = 8;

/// Judges offers: a front door's is `RouteGate`, which asks `gate::judge`. Pure: no dial, no
/// counter, no ban.
pub trait Gate {
    /// Whom a proof of this would let in here, if anybody: everything but signatures, which are
    /// verified afterwards.
    fn judge_offer(&self, offer: &Offer<'_>) -> Option<Pass>;

    /// Hears of what is refused without being judged: a key or certificate that cannot be read,
    /// whatever comes under a login that nobody can have, or what [`Gate::judge_offer`] let pass
    /// and its CA never signed. `login`: as sent. `key`: of the plain key, if that much is known.
    fn hears(&self, _login: &str, _key: Option<Fingerprint>, _why: CertificateFault) {}
}

/// A key whose possession was proved by a signature over this session. Only this file makes one.
///
/// It keeps the proof, so that somebody who trusts neither us nor the network can verify it
/// again: [`ProvedKey::signed_data`] and [`ProvedKey::signature`]. Its size is bounded by the
/// limits of this file.
#[derive(Clone, Debug)]
pub struct ProvedKey {
    login: String,
    identity: Identity,
    presented: Arc<Presented>,
    restrictions: Restrictions,
    user_verified: bool,
    method: Method,
    algorithm: SignatureAlgorithm,
    /// Whoever has it can be the user to an agent for a while.
    signature: Zeroizing<Vec<u8>>,
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

    /// What the certificate, or the plain key's own entry, took away when it was judged.
    #[must_use]
    pub const fn restrictions(&self) -> &Restrictions {
        &self.restrictions
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

    /// What to judge again while the session lives.
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
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The request that proved it, byte for byte as it came: for somebody who is to verify it again
    /// ([`Authenticator::prove_again`](super::Authenticator::prove_again)). `host_key` as in
    /// [`ProvedKey::signed_data`].
    #[must_use]
    pub fn request(&self, host_key: &[u8]) -> Zeroizing<Vec<u8>> {
        let mut request = Zeroizing::new(self.covered(host_key));
        request.put_string(&self.signature);
        request
    }

    /// The bytes that [`ProvedKey::signature`] covers, byte for byte as they were verified.
    /// `host_key` matters to [`Method::HostBound`] only.
    #[must_use]
    pub fn signed_data(&self, session_id: &[u8], host_key: &[u8]) -> Vec<u8> {
        signed_data(session_id, &self.covered(host_key))
    }

    /// The request without its signature.
    fn covered(&self, host_key: &[u8]) -> Vec<u8> {
        let name = match self.identity {
            Identity::Key(_) => self.algorithm.name(),
            Identity::User(_) => self.algorithm.certificate_name(),
        };
        let mut request = request(&self.login, self.method, true, name, self.presented());
        match self.method {
            Method::PublicKey => {}
            Method::HostBound => request.put_string(host_key),
        }
        request
    }
}

/// All that a request is judged by.
#[derive(Clone, Copy)]
pub(super) struct RequestJudge<'a> {
    pub(super) policy: &'a Policy,
    /// The client's address.
    pub(super) source: IpAddr,
    /// Now, for the dates of certificates.
    pub(super) unix_s: u64,
    pub(super) gate: &'a dyn Gate,
    pub(super) session_id: &'a [u8],
    /// The host key we presented, as the client saw it: plain key or certificate.
    pub(super) host_key: &'a [u8],
}

/// What becomes of a public-key request.
pub(super) enum RequestVerdict {
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
    what: What,
}

/// What was read, of which nothing is verified.
enum What {
    Key(PublicKey),
    Certificate(Claimed),
}

impl What {
    const fn subject(&self) -> Subject<'_> {
        match self {
            Self::Key(key) => Subject::Key(key),
            Self::Certificate(claimed) => Subject::Certificate(claimed.unverified()),
        }
    }

    const fn key(&self) -> &PublicKey {
        match self {
            Self::Key(key) => key,
            Self::Certificate(claimed) => claimed.unverified().key(),
        }
    }

    /// Whether the CA signed it; a plain key needs none.
    fn certified(&self, checks: &mut CaChecks) -> Result<(), CertificateFault> {
        match self {
            Self::Key(_) => Ok(()),
            Self::Certificate(claimed) => checks.check(claimed),
        }
    }
}

/// Signatures of CAs verified on one connection. Clients ask about a certificate before they sign
/// with it, and whoever wants to keep us busy goes on asking.
pub(super) struct CaChecks {
    /// The last blob's hash, and what came of it.
    pub(super) last: Option<(Fingerprint, Result<(), CertificateFault>)>,
    /// Verified so far, those that came of memory not counted.
    pub(super) done: u32,
}

impl CaChecks {
    fn check(&mut self, claimed: &Claimed) -> Result<(), CertificateFault> {
        let blob = Fingerprint::of(claimed.unverified().blob());
        if let Some((last, verdict)) = self.last
            && last == blob
        {
            return verdict;
        }
        if self.done >= CA_CHECKS_MAX {
            return Err(CertificateFault::TooMany);
        }
        self.done = self.done.saturating_add(1);
        let verdict = claimed.verify();
        self.last = Some((blob, verdict));
        verdict
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
            // RFC 4251 §5 forbids senders to store anything else, and the signature
            // covers this byte.
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

    /// Whether it only asks.
    pub(super) const fn is_query(&self) -> bool {
        matches!(self.proof, Signature::Query)
    }
}

impl RequestJudge<'_> {
    pub(super) fn verdict(&self, request: &Request<'_>, checks: &mut CaChecks) -> RequestVerdict {
        let claim = self.claim(request);
        match request.proof {
            Signature::Query => match claim {
                Some(claim) if self.policy.hide_keys || self.accepts(&claim, request, checks) => {
                    RequestVerdict::Usable {
                        name: request.name.to_owned(),
                        blob: request.blob.to_vec(),
                    }
                }
                Some(_) | None => RequestVerdict::OfferRefused,
            },
            Signature::Signed { covered, signature } => claim
                .and_then(|claim| self.proved(claim, request, covered, signature, checks))
                .map_or(RequestVerdict::ProofRefused, |proved| {
                    RequestVerdict::Proved(Box::new(proved))
                }),
        }
    }

    /// What key this is, if it is one at all. The list of algorithms is asked before
    /// anything is parsed.
    fn claim(&self, request: &Request<'_>) -> Option<Claim> {
        let Request { login, name, blob, foreign, .. } = *request;
        if foreign || blob.len() > BLOB_BYTES_MAX {
            return None;
        }
        let unread = |fault| self.gate.hears(login, None, fault);
        let (what, algorithm) = if let Some(algorithm) = SignatureAlgorithm::from_name(name) {
            let key = PublicKey::parse(blob).map_err(CertificateFault::Key);
            (What::Key(key.inspect_err(|fault| unread(*fault)).ok()?), algorithm)
        } else {
            let algorithm = SignatureAlgorithm::from_certificate_name(name)?;
            let claimed = Claimed::parse(blob).inspect_err(|fault| unread(*fault)).ok()?;
            (What::Certificate(claimed), algorithm)
        };
        (what.key().key_type() == algorithm.key_type()).then_some(Claim { algorithm, what })
    }

    fn offer<'a>(&'a self, what: &'a What, request: &Request<'a>) -> Offer<'a> {
        let Self { policy, source, unix_s, .. } = *self;
        Offer { login: request.login, subject: what.subject(), source, unix_s, policy }
    }

    /// Whether a proof would be let in.
    fn accepts(&self, claim: &Claim, request: &Request<'_>, checks: &mut CaChecks) -> bool {
        self.gate.judge_offer(&self.offer(&claim.what, request)).is_some()
            && self.certified(claim, request, checks).is_ok()
    }

    fn certified(
        &self,
        claim: &Claim,
        request: &Request<'_>,
        checks: &mut CaChecks,
    ) -> Result<(), CertificateFault> {
        let key = || Some(claim.what.key().fingerprint());
        let hears = |fault: &_| self.gate.hears(request.login, key(), *fault);
        claim.what.certified(checks).inspect_err(hears)
    }

    /// Asks the gate, then verifies. With `hide_keys` both signatures are verified whatever the
    /// gate says, so that the time an answer takes says nothing about key or CA.
    fn proved(
        &self,
        claim: Claim,
        request: &Request<'_>,
        covered: &[u8],
        signature: &[u8],
        checks: &mut CaChecks,
    ) -> Option<ProvedKey> {
        if signature.len() > SIGNATURE_BYTES_MAX {
            return None;
        }
        let hides = self.policy.hide_keys;
        let pass = self.gate.judge_offer(&self.offer(&claim.what, request));
        if pass.is_none() && !hides {
            return None;
        }
        let certified = self.certified(&claim, request, checks);
        if certified.is_err() && !hides {
            return None;
        }
        let data = signed_data(self.session_id, covered);
        let touch = pass.as_ref().map_or(Touch::Required, |pass| pass.restrictions.touch());
        let proof = claim.what.key().verify_with(claim.algorithm, touch, &data, signature);
        let Pass { identity, restrictions } = pass?;
        certified.ok()?;
        let proof = proof.ok()?;
        if !restrictions.is_satisfied_by(proof) {
            let (login, key) = (request.login, Some(claim.what.key().fingerprint()));
            self.gate.hears(login, key, CertificateFault::Unverified);
            return None;
        }
        let presented = match claim.what {
            What::Key(key) => Presented::Key(key),
            What::Certificate(claimed) => Presented::Certificate(claimed.into_verified()),
        };
        Some(ProvedKey {
            login: request.login.to_owned(),
            identity,
            presented: Arc::new(presented),
            restrictions,
            user_verified: proof.user_verified,
            method: request.method,
            algorithm: claim.algorithm,
            signature: Zeroizing::new(signature.to_vec()),
        })
    }
}
