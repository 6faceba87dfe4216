//! OpenSSH certificates: reading, the one enforcement point for users, and minting (OpenSSH
//! PROTOCOL.certkeys).
//!
//! A certificate's CA signature is verified while it is parsed, so a [`Certificate`] in hand
//! says what its CA said; the one exception is a [`Claimed`] one, which is judged before anybody
//! does arithmetic for it and lent out for that alone. Whether that CA is trusted, and for what,
//! only [`Certificate::admit_user`] decides: nothing else yields the principals together with
//! the restrictions.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::entropy::Entropy;
use super::private_key::PrivateKey;
use super::publickey::{KeyFault, KeyType, PublicKey, SignatureAlgorithm, split_line};
pub use super::restrictions::{Restrictions, Standing};
use super::source_address::is_in_networks;
use super::wire::{Malformed, Put, Reader};

/// Most principals in one certificate, as in OpenSSH (`SSHKEY_CERT_MAX_PRINCIPALS`).
const PRINCIPALS_MAX: usize = 256;
/// Bytes of randomness in a new certificate, against chosen-prefix collisions in its
/// signature's hash.
const NONCE_BYTES: usize = 32;
/// `valid before` of a certificate without an end.
pub const FOREVER: u64 = u64::MAX;

const FORCE_COMMAND: &str = "force-command";
const SOURCE_ADDRESS: &str = "source-address";
const VERIFY_REQUIRED: &str = "verify-required";
const NO_TOUCH_REQUIRED: &str = "no-touch-required";
const PERMIT_X11_FORWARDING: &str = "permit-X11-forwarding";
const PERMIT_AGENT_FORWARDING: &str = "permit-agent-forwarding";
const PERMIT_PORT_FORWARDING: &str = "permit-port-forwarding";
const PERMIT_PTY: &str = "permit-pty";
const PERMIT_USER_RC: &str = "permit-user-rc";

/// Whom a certificate is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CertificateType {
    /// A user who logs in.
    User,
    /// A host that is logged in to.
    Host,
}

impl CertificateType {
    const fn number(self) -> u32 {
        match self {
            Self::User => 1,
            Self::Host => 2,
        }
    }
}

/// Why a certificate does not let its holder in. Parsing problems are [`KeyFault`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CertificateFault {
    /// The certificate, its key or its CA's key does not parse.
    #[error("certificate: {0}")]
    Key(#[from] KeyFault),
    /// A host certificate where a user certificate is needed, or the other way round.
    #[error("wrong certificate type")]
    Type,
    /// Signed by a CA that is not in the set.
    #[error("CA not trusted")]
    Untrusted,
    /// Before `valid after`.
    #[error("not valid yet")]
    NotYet,
    /// At or after `valid before`, or a key past its `expiry-time`.
    #[error("expired")]
    Expired,
    /// No principal, or an empty one.
    #[error("names no principal")]
    Principals,
    /// The client's address is not one it may be used from.
    #[error("source address not allowed")]
    Source,
    /// A critical option that is not known, repeated, or malformed.
    #[error("critical option not known or malformed")]
    Critical,
    /// In the revocation list.
    #[error("revoked")]
    Revoked,
    /// The CA did not sign this.
    #[error("CA signature does not verify")]
    Signature,
    /// One certificate too many on this connection: its signature was not verified.
    #[error("too many certificates on one connection")]
    TooMany,
    /// A security key's signature that does not show what `verify-required` asks for.
    #[error("the security key did not verify its user")]
    Unverified,
    /// The user name asked for is none that an account can have, whatever the key.
    #[error("no account has such a name")]
    Login,
}

impl From<Malformed> for CertificateFault {
    fn from(fault: Malformed) -> Self {
        Self::Key(fault.into())
    }
}

/// A parsed certificate; its CA signature is checked at parse.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(
    clippy::struct_field_names,
    reason = "`type` is a keyword, and PROTOCOL.certkeys says type"
)]
pub struct Certificate {
    blob: Box<[u8]>,
    key: PublicKey,
    ca: PublicKey,
    certificate_type: CertificateType,
    serial: u64,
    key_id: String,
    principals: Vec<String>,
    valid_after_s: u64,
    valid_before_s: u64,
    /// Name and value strings, well-formed as a list.
    critical_options: Box<[u8]>,
    /// The same.
    extensions: Box<[u8]>,
}

impl Certificate {
    /// From a wire blob. The CA's key must be plain, its signature of an algorithm that fits its
    /// type (so never SHA-1), and a CA that is a security key must have been touched.
    ///
    /// # Errors
    /// [`CertificateFault::Key`], [`CertificateFault::Signature`].
    ///
    /// Source: OpenSSH PROTOCOL.certkeys, `cert_parse` in sshkey.c.
    pub fn parse(blob: &[u8]) -> Result<Self, CertificateFault> {
        Claimed::parse(blob)?.verified()
    }

    /// Everything but the CA's signature, and how many bytes that covers.
    fn read(blob: &[u8]) -> Result<(Self, usize), CertificateFault> {
        let mut reader = Reader::new(blob);
        let name = reader.name()?;
        let key_type = KeyType::from_certificate_name(name).ok_or(KeyFault::Unsupported)?;
        let _nonce = reader.string()?;
        let key = read_plain_key(&mut reader, key_type)?;
        let serial = reader.u64()?;
        let certificate_type = match reader.u32()? {
            1 => CertificateType::User,
            2 => CertificateType::Host,
            _ => return Err(KeyFault::Malformed.into()),
        };
        let key_id = read_text(&mut reader)?;
        let principals = read_principals(reader.string()?)?;
        let (valid_after_s, valid_before_s) = (reader.u64()?, reader.u64()?);
        let (critical_options, extensions) = (reader.string()?, reader.string()?);
        for option in Options(Reader::new(critical_options)).chain(Options(Reader::new(extensions)))
        {
            option?;
        }
        let _reserved = reader.string()?;
        let ca = PublicKey::parse(reader.string()?)?;
        let signed_len = blob.len().saturating_sub(reader.rest().len());
        let _signature = reader.string()?;
        reader.end()?;
        let certificate = Self {
            blob: blob.into(),
            key,
            ca,
            certificate_type,
            serial,
            key_id,
            principals,
            valid_after_s,
            valid_before_s,
            critical_options: critical_options.into(),
            extensions: extensions.into(),
        };
        Ok((certificate, signed_len))
    }

    /// From a line as in `id-cert.pub`.
    ///
    /// # Errors
    /// As [`Certificate::parse`]; [`KeyFault::Malformed`] too if the line's type is not the blob's.
    pub fn parse_line(line: &str) -> Result<Self, CertificateFault> {
        let (name, blob, _comment) = split_line(line)?;
        if KeyType::from_certificate_name(name).is_none() {
            return Err(KeyFault::Unsupported.into());
        }
        let certificate = Self::parse(&blob)?;
        if certificate.key.key_type().certificate_name() == name {
            Ok(certificate)
        } else {
            Err(KeyFault::Malformed.into())
        }
    }

    /// The wire blob, exactly as it was read.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// The line of an `id-cert.pub` file, without a comment.
    pub fn to_line(&self) -> String {
        format!("{} {}", self.key.key_type().certificate_name(), STANDARD.encode(&self.blob))
    }

    /// The certified plain key.
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Whom it is for.
    pub const fn certificate_type(&self) -> CertificateType {
        self.certificate_type
    }

    /// The key that signed it.
    pub const fn ca(&self) -> &PublicKey {
        &self.ca
    }

    /// Free text that the CA chose. Peer text: escape it before it is shown.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The CA's number for it; 0 if the CA does not number.
    pub const fn serial(&self) -> u64 {
        self.serial
    }

    /// First second of its validity, Unix time.
    pub const fn valid_after_s(&self) -> u64 {
        self.valid_after_s
    }

    /// First second after its validity, Unix time, or [`FOREVER`].
    pub const fn valid_before_s(&self) -> u64 {
        self.valid_before_s
    }

    /// All principals. Who may log in is not decided here but by [`Certificate::admit_user`].
    pub fn principals(&self) -> &[String] {
        &self.principals
    }

    /// The one enforcement point for user certificates: type, CA in `cas`, dates at `unix_s`,
    /// principals that are names, critical options all known, `source-address` against `source`
    /// where that is known. Which of the principals logs in is for whoever knows the users to say.
    ///
    /// # Errors
    /// Every [`CertificateFault`] but `Revoked` and `Signature`.
    pub fn admit_user(
        &self,
        cas: &[PublicKey],
        source: Option<IpAddr>,
        unix_s: u64,
    ) -> Result<Standing<'_>, CertificateFault> {
        if self.certificate_type != CertificateType::User {
            return Err(CertificateFault::Type);
        }
        if !cas.contains(&self.ca) {
            return Err(CertificateFault::Untrusted);
        }
        if unix_s < self.valid_after_s {
            return Err(CertificateFault::NotYet);
        }
        if unix_s >= self.valid_before_s {
            return Err(CertificateFault::Expired);
        }
        // To sshd no principal at all means anybody, and an empty one nobody knows what.
        if self.principals.is_empty() || self.principals.iter().any(String::is_empty) {
            return Err(CertificateFault::Principals);
        }
        let (restrictions, source_bound) = self.restrictions(source)?;
        let until_s = (self.valid_before_s != FOREVER).then_some(self.valid_before_s);
        Ok(Standing { principals: &self.principals, restrictions, source_bound, until_s })
    }

    /// Reads the extensions, of which unknown ones mean nothing, then the critical options, of
    /// which unknown ones refuse. Says too whether it is good from some addresses only.
    fn restrictions(
        &self,
        source: Option<IpAddr>,
    ) -> Result<(Restrictions, bool), CertificateFault> {
        let mut restrictions = Restrictions {
            no_pty: true,
            no_port_forwarding: true,
            no_agent_forwarding: true,
            no_x11_forwarding: true,
            no_user_rc: true,
            ..Restrictions::default()
        };
        for option in Options(Reader::new(&self.extensions)) {
            let (name, value) = option?;
            match name {
                PERMIT_PTY => restrictions.no_pty = false,
                PERMIT_PORT_FORWARDING => restrictions.no_port_forwarding = false,
                PERMIT_AGENT_FORWARDING => restrictions.no_agent_forwarding = false,
                PERMIT_X11_FORWARDING => restrictions.no_x11_forwarding = false,
                PERMIT_USER_RC => restrictions.no_user_rc = false,
                NO_TOUCH_REQUIRED => restrictions.no_touch_required = true,
                _ => continue,
            }
            if !value.is_empty() {
                return Err(KeyFault::Malformed.into());
            }
        }
        let mut seen: Vec<&str> = Vec::new();
        for option in Options(Reader::new(&self.critical_options)) {
            let (name, value) = option?;
            if seen.contains(&name) {
                return Err(CertificateFault::Critical);
            }
            match name {
                FORCE_COMMAND => restrictions.force_command = Some(option_text(value)?.to_owned()),
                SOURCE_ADDRESS => {
                    let anywhere = IpAddr::from([0, 0, 0, 0]);
                    let list = option_text(value)?;
                    match is_in_networks(list, source.unwrap_or(anywhere)) {
                        Some(is_in) if is_in || source.is_none() => {}
                        Some(_) => return Err(CertificateFault::Source),
                        None => return Err(CertificateFault::Critical),
                    }
                }
                VERIFY_REQUIRED if value.is_empty() => restrictions.verify_required = true,
                _ => return Err(CertificateFault::Critical),
            }
            seen.push(name);
        }
        Ok((restrictions, seen.contains(&SOURCE_ADDRESS)))
    }
}

/// A certificate as a stranger presents it: read, but whether its CA said so is open.
pub(super) struct Claimed {
    certificate: Certificate,
    /// Bytes of the blob that the CA's signature covers; the signature is what follows.
    signed_len: usize,
}

impl Claimed {
    /// # Errors
    /// [`CertificateFault::Key`].
    pub(super) fn parse(blob: &[u8]) -> Result<Self, CertificateFault> {
        Certificate::read(blob).map(|(certificate, signed_len)| Self { certificate, signed_len })
    }

    /// What it says, which anybody may have written: to judge by, never to let in by.
    pub(super) const fn unverified(&self) -> &Certificate {
        &self.certificate
    }

    /// Does the arithmetic with its CA's key, which a stranger may have chosen, and the
    /// dearest one there is.
    ///
    /// # Errors
    /// [`CertificateFault::Signature`].
    pub(super) fn verify(&self) -> Result<(), CertificateFault> {
        let blob = &self.certificate.blob;
        let (signed, rest) = blob.split_at_checked(self.signed_len).ok_or(Malformed::Short)?;
        verify_ca(&self.certificate.ca, signed, Reader::new(rest).string()?)
    }

    /// As [`Claimed::verify`].
    fn verified(self) -> Result<Certificate, CertificateFault> {
        self.verify()?;
        Ok(self.certificate)
    }

    /// For whoever has called [`Claimed::verify`] on the same bytes.
    pub(super) fn into_verified(self) -> Certificate {
        self.certificate
    }
}

/// The name-value pairs of a list of options. Ends after the first malformed one.
struct Options<'a>(Reader<'a>);

impl<'a> Iterator for Options<'a> {
    type Item = Result<(&'a str, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let option = self.0.text().and_then(|name| Ok((name, self.0.string()?)));
        if option.is_err() {
            self.0 = Reader::new(&[]);
        }
        Some(option)
    }
}

/// The value of an option that has one: a string inside the string.
fn option_text(value: &[u8]) -> Result<&str, CertificateFault> {
    let mut reader = Reader::new(value);
    let text = reader.text().map_err(|_| CertificateFault::Critical)?;
    if reader.is_empty() && !text.contains('\0') {
        Ok(text)
    } else {
        Err(CertificateFault::Critical)
    }
}

/// The key's fields stand in a certificate as in the plain blob, without their type.
fn read_plain_key(reader: &mut Reader<'_>, key_type: KeyType) -> Result<PublicKey, KeyFault> {
    let fields = match key_type {
        KeyType::Ed25519 => 1,
        KeyType::EcdsaP256
        | KeyType::EcdsaP384
        | KeyType::EcdsaP521
        | KeyType::Rsa
        | KeyType::SkEd25519 => 2,
        KeyType::SkEcdsaP256 => 3,
    };
    let mut plain = Vec::with_capacity(256);
    plain.put_string(key_type.name().as_bytes());
    for _ in 0..fields {
        plain.put_string(reader.string()?);
    }
    PublicKey::parse(&plain)
}

fn read_text(reader: &mut Reader<'_>) -> Result<String, Malformed> {
    let text = reader.text()?;
    if text.contains('\0') { Err(Malformed::Text) } else { Ok(text.to_owned()) }
}

fn read_principals(list: &[u8]) -> Result<Vec<String>, Malformed> {
    let mut reader = Reader::new(list);
    let mut principals = Vec::new();
    while !reader.is_empty() {
        if principals.len() >= PRINCIPALS_MAX {
            return Err(Malformed::Range);
        }
        principals.push(read_text(&mut reader)?);
    }
    Ok(principals)
}

/// The algorithm is the one the signature names; `verify` insists that it fits the CA's key.
fn verify_ca(ca: &PublicKey, signed: &[u8], signature: &[u8]) -> Result<(), CertificateFault> {
    let name = Reader::new(signature).name()?;
    let algorithm = SignatureAlgorithm::from_name(name).ok_or(CertificateFault::Signature)?;
    ca.verify(algorithm, signed, signature).map_err(|_| CertificateFault::Signature)?;
    Ok(())
}

/// What to write into a new user certificate.
#[derive(Clone, Copy, Debug)]
pub struct UserCertificate<'a> {
    /// The key to certify.
    pub key: &'a PublicKey,
    /// Shown in the log of whoever lets it in.
    pub key_id: &'a str,
    /// Who it may log in as. Never empty: that would mean anybody.
    pub principals: &'a [&'a str],
    /// First second of validity, Unix time.
    pub valid_after_s: u64,
    /// First second after its validity, Unix time, or [`FOREVER`].
    pub valid_before_s: u64,
    /// Addresses and networks it may be used from, comma-separated.
    pub source_address: Option<&'a str>,
    /// What it does not allow.
    pub restrictions: &'a Restrictions,
    /// The CA's number for it.
    pub serial: u64,
}

impl UserCertificate<'_> {
    /// Signs with `ca`; returns the certificate's wire blob.
    ///
    /// `verify-required` and `no-touch-required` are written for security keys only: they say how
    /// *this* key must sign, other keys cannot, and an sshd too old to know the option would refuse
    /// the certificate.
    ///
    /// # Errors
    /// [`KeyFault::Malformed`] for what sshd would refuse or take for more than was meant: no
    /// principal, an empty one, too many, a NUL in a text, an empty validity, a malformed
    /// `source_address`. [`KeyFault::Signature`].
    pub fn mint(&self, ca: &PrivateKey, entropy: &mut dyn Entropy) -> Result<Vec<u8>, KeyFault> {
        self.check()?;
        let key_type = self.key.key_type();
        let mut plain = Reader::new(self.key.blob());
        plain.string()?;
        let mut nonce = [0; NONCE_BYTES];
        entropy.fill(&mut nonce);
        let mut principals = Vec::new();
        for principal in self.principals {
            principals.put_string(principal.as_bytes());
        }
        let mut blob = Vec::with_capacity(1024);
        blob.put_string(key_type.certificate_name().as_bytes());
        blob.put_string(&nonce);
        blob.put_bytes(plain.rest());
        blob.put_u64(self.serial);
        blob.put_u32(CertificateType::User.number());
        blob.put_string(self.key_id.as_bytes());
        blob.put_string(&principals);
        blob.put_u64(self.valid_after_s);
        blob.put_u64(self.valid_before_s);
        blob.put_string(&self.critical_options());
        blob.put_string(&self.extensions());
        blob.put_string(b"");
        blob.put_string(ca.public().blob());
        let algorithm = *ca.algorithms().first().ok_or(KeyFault::Unsupported)?;
        let signature = ca.sign(algorithm, &blob)?;
        blob.put_string(&signature);
        Ok(blob)
    }

    fn check(&self) -> Result<(), KeyFault> {
        let nul = |text: &str| text.contains('\0');
        let anywhere = IpAddr::from([0, 0, 0, 0]);
        if self.principals.is_empty()
            || self.principals.len() > PRINCIPALS_MAX
            || self.principals.iter().any(|principal| principal.is_empty() || nul(principal))
            || nul(self.key_id)
            || self.restrictions.force_command.as_deref().is_some_and(nul)
            || self.valid_after_s >= self.valid_before_s
            || self.source_address.is_some_and(|list| is_in_networks(list, anywhere).is_none())
        {
            return Err(KeyFault::Malformed);
        }
        Ok(())
    }

    /// In lexical order, as PROTOCOL.certkeys asks.
    fn critical_options(&self) -> Vec<u8> {
        let mut options = Vec::new();
        if let Some(command) = &self.restrictions.force_command {
            put_option(&mut options, FORCE_COMMAND, command);
        }
        if let Some(networks) = self.source_address {
            put_option(&mut options, SOURCE_ADDRESS, networks);
        }
        if self.restrictions.verify_required && self.key.key_type().is_security_key() {
            put_flag(&mut options, VERIFY_REQUIRED);
        }
        options
    }

    /// In lexical order too; upper case sorts before lower case.
    fn extensions(&self) -> Vec<u8> {
        let untouched =
            self.restrictions.no_touch_required && self.key.key_type().is_security_key();
        let mut extensions = Vec::new();
        for (wanted, name) in [
            (untouched, NO_TOUCH_REQUIRED),
            (!self.restrictions.no_x11_forwarding, PERMIT_X11_FORWARDING),
            (!self.restrictions.no_agent_forwarding, PERMIT_AGENT_FORWARDING),
            (!self.restrictions.no_port_forwarding, PERMIT_PORT_FORWARDING),
            (!self.restrictions.no_pty, PERMIT_PTY),
            (!self.restrictions.no_user_rc, PERMIT_USER_RC),
        ] {
            if wanted {
                put_flag(&mut extensions, name);
            }
        }
        extensions
    }
}

fn put_flag(options: &mut Vec<u8>, name: &str) {
    options.put_string(name.as_bytes());
    options.put_string(b"");
}

fn put_option(options: &mut Vec<u8>, name: &str, value: &str) {
    let mut inner = Vec::with_capacity(value.len().saturating_add(4));
    inner.put_string(value.as_bytes());
    options.put_string(name.as_bytes());
    options.put_string(&inner);
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
