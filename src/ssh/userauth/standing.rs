//! What a key or certificate is worth by itself, and what is asked about one: the half of a
//! judgement that needs nothing but the protocol. Where it leads is for the
//! [`Gate`](super::Gate) to know.

use std::net::IpAddr;

use super::super::certificate::{Certificate, CertificateFault, Restrictions, Standing};
use super::super::publickey::{Fingerprint, PublicKey};
use super::policy::Policy;
use super::presented::{Identity, Presented};

/// What is judged.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// A plain key.
    Key(&'a PublicKey),
    /// A plain key of which no more is known. Nobody logs in with that, but somebody may ask.
    Fingerprint(Fingerprint),
    /// A certificate. Of one that is offered the CA's signature is not verified yet.
    Certificate(&'a Certificate),
}

impl Subject<'_> {
    /// Of the plain key, also under a certificate.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::Key(key) => key.fingerprint(),
            Self::Fingerprint(fingerprint) => *fingerprint,
            Self::Certificate(certificate) => certificate.key().fingerprint(),
        }
    }
}

impl<'a> From<&'a Presented> for Subject<'a> {
    fn from(presented: &'a Presented) -> Self {
        match presented {
            Presented::Key(key) => Self::Key(key),
            Presented::Certificate(certificate) => Self::Certificate(certificate),
        }
    }
}

/// A key a client claims to hold, with all that the protocol knows of the login. Answering must
/// have no side effect.
#[derive(Clone, Copy)]
pub struct Offer<'a> {
    /// The user name of the request, as sent (not printable-safe).
    pub login: &'a str,
    /// The key or certificate.
    pub subject: Subject<'a>,
    /// The client's address.
    pub source: IpAddr,
    /// Now.
    pub unix_s: u64,
    /// The one in force now.
    pub policy: &'a Policy,
}

impl<'a> Offer<'a> {
    /// As [`Policy::stand`], here and now.
    ///
    /// # Errors
    /// As [`Policy::stand`].
    pub fn stand(&self) -> Result<Standing<'a>, CertificateFault> {
        self.policy.stand(self.subject, Some(self.source), self.unix_s)
    }
}

/// Whom an offer lets in, once it is proved.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pass {
    /// Whose key it is.
    pub identity: Identity,
    /// What is taken away, and what the signature has to show.
    pub restrictions: Restrictions,
}

impl Policy {
    /// What `subject` is worth at `unix_s`, from `source` where that is known: neither it nor its
    /// CA is revoked; of a certificate also that its CA is trusted and what
    /// [`Certificate::admit_user`] asks. No signature is verified. The same for offers, proofs,
    /// live sessions and questions.
    ///
    /// # Errors
    /// [`CertificateFault::Revoked`]; of a certificate also those of [`Certificate::admit_user`].
    pub fn stand<'a>(
        &self,
        subject: Subject<'a>,
        source: Option<IpAddr>,
        unix_s: u64,
    ) -> Result<Standing<'a>, CertificateFault> {
        let (standing, revoked) = match subject {
            Subject::Key(key) => (Standing::default(), self.revocations.revokes_key(key)),
            Subject::Fingerprint(fingerprint) => {
                (Standing::default(), self.revocations.revokes_fingerprint(&fingerprint))
            }
            Subject::Certificate(certificate) => {
                let standing = certificate.admit_user(&self.cas, source, unix_s)?;
                (standing, self.revocations.revokes_certificate(certificate))
            }
        };
        if revoked { Err(CertificateFault::Revoked) } else { Ok(standing) }
    }
}
