//! The demonstration's own directory: keys, known hosts, the homes of the VMs. Gone when the
//! demonstration ends.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ssh::entropy::Entropy;

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Random bytes in its name. Somebody else who made the same name first is a fault,
/// not a race to win.
const SUFFIX_BYTES: usize = 4;
/// Shells that were just hung up may still write into their homes while these are removed.
const REMOVALS_MAX: u32 = 10;
/// Between two tries to remove it.
const REMOVAL_REST: Duration = Duration::from_millis(50);

/// A directory that only this user can enter; dropping it removes it with all that is in it.
#[derive(Debug)]
pub(super) struct Directory(PathBuf);

impl Directory {
    /// Makes a new one among the system's temporary files.
    pub(super) fn new(entropy: &mut dyn Entropy) -> io::Result<Self> {
        let mut suffix = [0; SUFFIX_BYTES];
        entropy.fill(&mut suffix);
        let mut name = String::from("keyway-demo-");
        for byte in suffix {
            let _infallible = write!(name, "{byte:02x}");
        }
        let among = std::env::temp_dir();
        let path = among.join(name);
        DirBuilder::new().mode(DIRECTORY_MODE).create(&path).map_err(|error| {
            let among = among.display();
            let why = format!(
                "no directory can be made in {among} ({error}); set TMPDIR to one that is there"
            );
            io::Error::new(error.kind(), why)
        })?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes a directory inside it, parents too.
    pub(super) fn directory(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.0.join(name);
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&path)?;
        Ok(path)
    }

    /// Writes a file inside it that is not there yet.
    pub(super) fn file(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.0.join(name);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path)?;
        file.write_all(text.as_bytes())?;
        Ok(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        for _ in 0..REMOVALS_MAX {
            match fs::remove_dir_all(&self.0) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                Err(_) => std::thread::sleep(REMOVAL_REST),
            }
        }
    }
}

/// A path as a shell takes it: quoted if it has to be.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@%,=".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::{Directory, quoted};
    use crate::ssh::entropy::SystemEntropy;

    #[test]
    fn the_directory_is_private_and_leaves_nothing_behind() {
        let directory = Directory::new(&mut SystemEntropy::default()).unwrap();
        let path = directory.path().to_owned();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
        directory.directory("vms/blue").unwrap();
        let file = directory.file("vms/blue/key", "secret").unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(directory.file("vms/blue/key", "other").is_err());
        drop(directory);
        assert!(!path.exists());
    }

    #[test]
    fn a_path_that_a_shell_would_take_apart_is_quoted() {
        assert_eq!(quoted(Path::new("/tmp/keyway-demo-0a/alice")), "/tmp/keyway-demo-0a/alice");
        assert_eq!(quoted(Path::new("/tmp/it's a/b")), r"'/tmp/it'\''s a/b'");
    }
}
