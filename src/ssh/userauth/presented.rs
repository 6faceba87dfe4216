//! What a client came with, and whose it is.

use super::super::certificate::Certificate;
use super::super::publickey::{Fingerprint, PublicKey};

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
