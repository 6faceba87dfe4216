//! Reads key material that a configuration file names: the one place where
//! configuration meets `ssh`.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::document::Value;
use crate::durable::MODE_OTHERS;
use crate::route::Pin;
use crate::ssh::authorized_keys::{AuthorizedKey, LineFault};
use crate::ssh::certificate::Certificate;
use crate::ssh::host_key::HostKey;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::{Fingerprint, KeyFault, KeyType, PublicKey};
use crate::ssh::revocation::Revocations;

/// Largest key file read, in bytes: an RSA-8192 private key takes 7 kB.
const KEY_FILE_BYTES_MAX: u64 = 64 << 10;
/// Largest revocation list read, in bytes: a million hashes with room to spare.
const REVOCATIONS_BYTES_MAX: u64 = 64 << 20;

/// As `ssh-keygen` is told the types that are asked for.
pub(super) const ED25519: &str = "-t ed25519";
/// The one type that zones are signed with here.
pub(super) const ECDSA_P256: &str = "-t ecdsa -b 256";

const PASTE: &str = "paste the one line of the .pub file: type, base64, comment";

/// A path in a file is meant from where the file is.
pub(super) fn resolve(base: &Path, path: &str) -> PathBuf {
    base.join(path)
}

/// Reads a private key, which nobody but its owner may be able to read, as `ssh` wants it too.
/// `kind` is the type to make where there is none, as `ssh-keygen` is told it.
pub(super) fn private_key(value: &Value<'_, '_>, path: &Path, kind: &str) -> Option<PrivateKey> {
    let shown = path.display();
    let (bytes, mode) = match read(path, KEY_FILE_BYTES_MAX) {
        Ok(read) => read,
        Err(error) => {
            let fix = if error.kind() == io::ErrorKind::NotFound {
                format!("correct the path, or make one: ssh-keygen {kind} -N '' -f {shown}")
            } else {
                "correct the path or its permissions".to_owned()
            };
            value.fault(format_args!("names {shown}: {}", plain(&error)), fix);
            return None;
        }
    };
    // Before its mode: nobody should make a public key unreadable to find out that it is
    // none of use here.
    if PublicKey::parse_line(lossy(&bytes).trim()).is_ok() {
        let private = path.with_extension("");
        let named = path.extension().is_some_and(|end| end == "pub");
        let fix = if named {
            format!("name the private key beside it, {}", private.display())
        } else {
            "name the private key, not the public one".to_owned()
        };
        value.fault(format_args!("names {shown}, which is a public key"), fix);
        return None;
    }
    if mode & MODE_OTHERS != 0 {
        let what = format!("names {shown}, which others may read (mode {:04o})", mode & 0o7777);
        value.fault(what, format_args!("chmod 600 {shown}"));
        return None;
    }
    let parsed = std::str::from_utf8(&bytes)
        .map_err(|_| KeyFault::Unsupported)
        .and_then(PrivateKey::from_openssh);
    match parsed {
        Ok((key, _)) => Some(key),
        Err(fault) => {
            let fix = match fault {
                KeyFault::Encrypted => {
                    format!("take the passphrase off: ssh-keygen -p -N '' -f {shown}")
                }
                KeyFault::Unsupported => {
                    format!("convert it to OpenSSH's format: ssh-keygen -p -N '' -f {shown}")
                }
                KeyFault::Weak => "use an Ed25519 key, or RSA from 2048 bits".to_owned(),
                KeyFault::Malformed | KeyFault::Signature | KeyFault::Touch => {
                    "restore the file from a backup, or make a new key".to_owned()
                }
            };
            value.fault(format_args!("names {shown}: {fault}"), fix);
            None
        }
    }
}

/// Reads a host key and the certificate beside it (`<path>-cert.pub`), if there is one.
pub(super) fn host_key(value: &Value<'_, '_>, path: &Path) -> Option<HostKey> {
    let key = private_key(value, path, ED25519)?;
    match key.public().key_type() {
        KeyType::Ed25519 | KeyType::EcdsaP256 | KeyType::Rsa => {}
        KeyType::EcdsaP384 | KeyType::EcdsaP521 | KeyType::SkEd25519 | KeyType::SkEcdsaP256 => {
            let what = format!("names {}: this type is not offered as a host key", path.display());
            value.fault(what, "use Ed25519, ECDSA P-256 or RSA");
            return None;
        }
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push("-cert.pub");
    let beside = Path::new(&beside);
    let bytes = match read(beside, KEY_FILE_BYTES_MAX) {
        Ok((bytes, _)) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Some(HostKey { key, certificate: None });
        }
        Err(error) => {
            let what =
                format!("has a certificate beside it, {}: {}", beside.display(), plain(&error));
            value.fault(what, "make it readable, or move it away");
            return None;
        }
    };
    let with = Certificate::parse_line(lossy(&bytes).trim())
        .and_then(|certificate| HostKey::with_certificate(key, certificate));
    with.map_err(|fault| {
        let what = format!("has a certificate beside it, {}: {fault}", beside.display());
        value.fault(
            what,
            "sign this very key again with ssh-keygen -h, or move the certificate away",
        );
    })
    .ok()
}

/// Reads a KRL or a plain list of revoked keys.
pub(super) fn revocations(value: &Value<'_, '_>, path: &Path) -> Option<Revocations> {
    let shown = path.display();
    let fix = "give an OpenSSH KRL or one public key or SHA256 fingerprint a line, or \"\"";
    match read_revocations(path) {
        Ok(revocations) => {
            if revocations.is_empty() {
                let what = format_args!("names {shown}, which revokes nothing");
                value.warn(what, "make sure that it is the file you meant, or write \"\"");
            }
            Some(revocations)
        }
        Err(fault) => {
            value.fault(format_args!("names {shown}: {fault}"), fix);
            None
        }
    }
}

pub(super) fn read_revocations(path: &Path) -> Result<Revocations, String> {
    let (bytes, _) = read(path, REVOCATIONS_BYTES_MAX).map_err(|error| plain(&error))?;
    Revocations::parse(&bytes)
}

/// Reads the public key of a CA.
pub(super) fn ca_line(value: &Value<'_, '_>, line: &str) -> Option<PublicKey> {
    match PublicKey::parse_line(line) {
        Ok((key, _)) => Some(key),
        Err(fault) => {
            value.fault(format_args!("holds a line that is no public key: {fault}"), PASTE);
            None
        }
    }
}

/// Reads a user's key with its options.
pub(super) fn user_line(value: &Value<'_, '_>, line: &str) -> Option<AuthorizedKey> {
    if line.contains("PRIVATE KEY") {
        value.fault("holds a private key", format_args!("{PASTE}, and make a new key"));
        return None;
    }
    let fault = match AuthorizedKey::parse(line) {
        Ok(key) => return Some(key),
        Err(fault) => fault,
    };
    let fix = match &fault {
        LineFault::Key(KeyFault::Weak) => "use an Ed25519 key, or RSA from 2048 bits",
        LineFault::Key(KeyFault::Unsupported) => {
            "use Ed25519, ECDSA, RSA, or a security key of these (ssh-keygen -t ed25519)"
        }
        LineFault::Key(_) => PASTE,
        LineFault::Refused { .. } => "remove the option: it cannot be enforced here",
        LineFault::Unknown(_) => "write the options as in sshd(8), before the key",
        LineFault::Twice(_) => "write it once",
        LineFault::Value(_) | LineFault::Quotes => "write it as option=\"value\"",
        LineFault::Source(_) => "write addresses or networks, separated by commas",
    };
    value.fault(format_args!("holds a line that is no key: {fault}"), fix);
    None
}

/// Reads the host key of a VM: a fingerprint or a public key line.
pub(super) fn pin(value: &Value<'_, '_>, text: &str) -> Option<Pin> {
    let parsed = if text.starts_with("SHA256:") {
        text.parse().map(|Fingerprint(hash)| Pin::Fingerprint(hash))
    } else {
        match PublicKey::parse_line(text) {
            Ok((key, _)) if key.key_type().is_security_key() => Err(KeyFault::Unsupported),
            Ok((key, _)) => Ok(Pin::of_key(key.blob())),
            Err(fault) => Err(fault),
        }
    };
    let fix =
        "write SHA256:... as `ssh-keygen -l` prints it, or the line of the VM's ssh_host_*_key.pub";
    parsed.map_err(|fault| value.fault(format_args!("is no host key: {fault}"), fix)).ok()
}

/// The file and its mode. The limit is ours: no key needs more, and a wrong path may be a disk.
fn read(path: &Path, bytes_max: u64) -> io::Result<(Zeroizing<Vec<u8>>, u32)> {
    let file = File::open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
    }
    if about.len() > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too large"));
    }
    // Read in one piece, for what a growing buffer leaves behind is not wiped.
    let mut bytes =
        Zeroizing::new(Vec::with_capacity(usize::try_from(about.len()).unwrap_or(0) + 1));
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok((bytes, about.mode()))
}

/// An error without its number.
pub(super) fn plain(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        "no such file".to_owned()
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        "permission denied".to_owned()
    } else {
        error.to_string()
    }
}

fn lossy(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
