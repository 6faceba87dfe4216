//! What a server shows of itself: a private key, and the certificate that a CA gave it.

use super::certificate::{Certificate, CertificateFault, CertificateType};
use super::private_key::PrivateKey;
use super::publickey::KeyFault;

/// A host key and the host certificate that goes with it, if any.
#[derive(Debug)]
pub struct HostKey {
    /// Signs the exchange hash.
    pub key: PrivateKey,
    /// Offered beside the plain key under its `-cert-v01@openssh.com` names.
    pub certificate: Option<Certificate>,
}

impl HostKey {
    /// A host key with its certificate, which must be a host certificate for this very key.
    ///
    /// # Errors
    /// [`CertificateFault::Type`] for a user certificate, [`CertificateFault::Key`]
    /// for another key's.
    pub fn with_certificate(
        key: PrivateKey,
        certificate: Certificate,
    ) -> Result<Self, CertificateFault> {
        if certificate.certificate_type() != CertificateType::Host {
            return Err(CertificateFault::Type);
        }
        if certificate.key() != key.public() {
            return Err(KeyFault::Malformed.into());
        }
        Ok(Self { key, certificate: Some(certificate) })
    }
}
