//! What `keyway backup` writes: files as a tar, sealed in the age format (age-encryption.org/v1),
//! so that `age -d | tar x` opens it where there is no Keyway. Whole or not at all, and never over
//! a file that is there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use age::secrecy::SecretString;
use age::{Decryptor, Encryptor, x25519};

use super::error::CliError;
use crate::durable::{self, FILE_MODE};

/// How a sealed archive begins.
const SEALED: &[u8] = b"age-encryption.org/v1\n";
/// Bytes of one file but the store: keys, and a configuration.
pub(super) const SMALL_BYTES_MAX: u64 = 1 << 20;

/// Who can open it.
pub(super) enum Seal {
    /// Whoever has the identity of one of them.
    Recipients(Vec<x25519::Recipient>),
    /// Whoever knows it.
    Passphrase(SecretString),
    /// Everybody who has the file.
    Plain,
}

/// What opens it.
pub(super) enum Opens {
    /// Any of them.
    Identities(Vec<x25519::Identity>),
    /// It.
    Passphrase(SecretString),
    /// Nothing is needed.
    Nothing,
}

/// A file on its way in.
pub(super) enum Content {
    /// This.
    Bytes(zeroize::Zeroizing<Vec<u8>>),
    /// What is there.
    File(PathBuf),
}

/// A file that goes unless it is kept.
pub(super) struct Temporary {
    path: PathBuf,
}

impl Temporary {
    /// A new file beside `to`, open to nobody else.
    pub(super) fn beside(to: &Path) -> io::Result<(Self, File)> {
        for number in 1..1000 {
            let mut name = to.as_os_str().to_owned();
            name.push(format!(".partial-{number}"));
            let path = PathBuf::from(name);
            let mut options = OpenOptions::new();
            match options.read(true).write(true).create_new(true).mode(FILE_MODE).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                opened => return opened.map(|file| (Self { path }, file)),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nothing more to say if even that fails.
        let _ = fs::remove_file(&self.path);
    }
}

/// Writes a new archive of these files, by name.
pub(super) fn write(
    to: &Path,
    seal: &Seal,
    files: &[(String, Content)],
    at_s: u64,
) -> Result<(), CliError> {
    let failed = |error: io::Error| CliError::failed(format!("{}: {error}", to.display()));
    let exists =
        || CliError::failed(format!("{} is there already; name another file", to.display()));
    if fs::symlink_metadata(to).is_ok() {
        return Err(exists());
    }
    let (temporary, file) = Temporary::beside(to).map_err(failed)?;
    let out = BufWriter::new(file);
    let encryptor = match seal {
        Seal::Plain => None,
        Seal::Passphrase(passphrase) => Some(Encryptor::with_user_passphrase(passphrase.clone())),
        Seal::Recipients(all) => {
            let all = all.iter().map(|recipient| recipient as &dyn age::Recipient);
            let encryptor = Encryptor::with_recipients(all);
            Some(encryptor.map_err(|fault| CliError::failed(format!("the recipients: {fault}")))?)
        }
    };
    let written = match encryptor {
        None => fill(out, files, at_s),
        Some(encryptor) => encryptor
            .wrap_output(out)
            .and_then(|sealed| fill(sealed, files, at_s))
            .and_then(age::stream::StreamWriter::finish),
    };
    let file = written.and_then(|out| out.into_inner().map_err(io::IntoInnerError::into_error));
    file.and_then(|file| file.sync_all()).map_err(failed)?;
    match durable::link(temporary.path(), to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists()),
        linked => linked.map_err(failed),
    }
}

fn fill<W: Write>(out: W, files: &[(String, Content)], at_s: u64) -> io::Result<W> {
    let mut tar = tar::Builder::new(out);
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(FILE_MODE);
        header.set_mtime(at_s);
        match content {
            Content::Bytes(bytes) => {
                header.set_size(bytes.len() as u64);
                tar.append_data(&mut header, name, bytes.as_slice())?;
            }
            Content::File(path) => {
                let file = File::open(path)?;
                header.set_size(file.metadata()?.len());
                tar.append_data(&mut header, name, BufReader::new(file))?;
            }
        }
    }
    tar.into_inner()
}

/// Whether an archive is sealed.
pub(super) fn is_sealed(from: &Path) -> io::Result<bool> {
    let mut begin = Vec::new();
    File::open(from)?.take(SEALED.len() as u64).read_to_end(&mut begin)?;
    Ok(begin == SEALED)
}

/// Takes a file of an archive: its name, its size in bytes, and what is in it.
pub(super) type Each<'a> = dyn FnMut(&str, u64, &mut dyn Read) -> Result<(), CliError> + 'a;

/// Shows `each` every file of an archive. All of it is true only when this has returned: what was
/// altered or cut off may be noticed last.
pub(super) fn read(from: &Path, opens: &Opens, each: &mut Each<'_>) -> Result<(), CliError> {
    let shown = from.display();
    let failed = |error: io::Error| CliError::failed(format!("{shown}: {error}"));
    let mut file = File::open(from).map_err(failed)?;
    file.rewind().map_err(failed)?;
    let input = BufReader::new(file);
    if let Opens::Nothing = opens {
        return unpack(from, input, each);
    }
    let wrong = |fault: age::DecryptError| {
        let fix = match (&fault, opens) {
            (age::DecryptError::NoMatchingKeys, _) => {
                "; fix: name the --identity of one of its recipients"
            }
            (_, Opens::Passphrase(_)) => "; fix: check the passphrase",
            (_, _) => "",
        };
        CliError::failed(format!("{shown}: {fault}{fix}"))
    };
    let decryptor = Decryptor::new_buffered(input).map_err(wrong)?;
    let by_passphrase = decryptor.is_scrypt();
    let opened = match opens {
        Opens::Passphrase(_) if !by_passphrase => {
            let what =
                format!("{shown} is sealed for recipients; name --identity, not a passphrase");
            return Err(CliError::failed(what));
        }
        Opens::Identities(_) if by_passphrase => {
            let what = format!("{shown} is sealed by a passphrase; name --passphrase-file");
            return Err(CliError::failed(what));
        }
        Opens::Passphrase(passphrase) => {
            let identity = age::scrypt::Identity::new(passphrase.clone());
            decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity))
        }
        Opens::Identities(all) => {
            decryptor.decrypt(all.iter().map(|identity| identity as &dyn age::Identity))
        }
        Opens::Nothing => return Ok(()),
    };
    unpack(from, opened.map_err(wrong)?, each)
}

fn unpack(from: &Path, input: impl Read, each: &mut Each<'_>) -> Result<(), CliError> {
    let shown = from.display();
    let torn = |error: io::Error| {
        CliError::failed(format!("{shown} is no whole backup of keyway ({error})"))
    };
    let mut tar = tar::Archive::new(input);
    for entry in tar.entries().map_err(torn)? {
        let mut entry = entry.map_err(torn)?;
        let name = entry.path().map_err(torn)?.to_string_lossy().into_owned();
        if entry.header().entry_type() != tar::EntryType::Regular {
            return Err(CliError::failed(format!(
                "{shown}: `{name}` is no file; it is no backup of keyway"
            )));
        }
        let size = entry.size();
        each(&name, size, &mut entry)?;
    }
    // The last piece of what is sealed says that it is the last.
    io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(torn)?;
    Ok(())
}
