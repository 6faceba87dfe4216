//! The state directory: keys made once, who serves with it, and the routes that were saved
//! last (`routes`).
//!
//! Everything in it is for the service's user alone (directory 0700, files 0600). A file appears
//! whole or not at all, and nothing that exists is ever replaced by something newly made: two
//! processes that start together agree on one key.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::durable::{self, FILE_MODE, MODE_OTHERS, write_new};
use crate::ssh::entropy::Entropy;
use crate::ssh::private_key::PrivateKey;

mod agent_socket;
mod fault;
mod marks;
mod pins;
mod private_file;
mod quarantine;
pub(crate) mod routes;
mod seal;
mod succession;
mod used_proofs;

pub use self::agent_socket::{AGENT_DRAIN, AGENT_END, AgentSocket};
pub use self::fault::StateFault;
pub use self::marks::{Adopted, Restored};
pub(crate) use self::marks::{Adopting, RemovedEdge};
pub(crate) use self::pins::PINS;
pub use self::pins::{KeptPins, OldPins, Pinned};
use self::private_file::{link_beside, make_once, read, replace};
use self::routes::Saved;
pub(crate) use self::seal::SEAL_KEY;
pub use self::seal::{NotOurs, Sealer};
pub use self::succession::{Doors, Turn};
pub use self::used_proofs::{UsedProof, UsedProofs};

pub(crate) const HOST_KEY: &str = "ssh_host_ed25519_key";
pub(crate) const USER_CA: &str = "user_ca";
/// What an edge and an agent are to each other.
pub(crate) const IDENTITY: &str = "identity";
/// What nodes are logged in to with.
pub(crate) const NODE_KEY: &str = "node_key";
const LOCK: &str = "lock";
/// The registry's store.
pub(crate) const STORE: &str = "registry.db";
/// Locked by everybody who uses the store.
const STORE_USE: &str = "store.use";
const NAMED_HOST_KEYS: &str = "host_keys_in_zone";
const FOLLOWED: &str = "configuration";
const DIRECTORY_MODE: u32 = 0o700;
/// More digits than any process id has.
const ID_BYTES_MAX: u64 = 20;

/// The state directory.
#[derive(Clone, Debug)]
pub struct State {
    path: PathBuf,
}

impl State {
    /// Opens the directory, which is made if it is missing (its parents too).
    ///
    /// # Errors
    /// [`StateFault::Io`], [`StateFault::Open`].
    pub fn open(path: &Path) -> Result<Self, StateFault> {
        let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path);
        made.map_err(|error| StateFault::Io { path: path.to_owned(), error })?;
        Self::open_kept(path)
    }

    /// Opens a directory that is there.
    ///
    /// # Errors
    /// [`StateFault::Io`], [`StateFault::Open`].
    pub fn open_kept(path: &Path) -> Result<Self, StateFault> {
        let io = |error| StateFault::Io { path: path.to_owned(), error };
        let about = fs::metadata(path).map_err(io)?;
        if !about.is_dir() {
            return Err(io(io::Error::from(io::ErrorKind::NotADirectory)));
        }
        if about.mode() & MODE_OTHERS != 0 {
            return Err(StateFault::Open { path: path.to_owned(), mode: about.mode() & 0o7777 });
        }
        Ok(Self { path: path.to_owned() })
    }

    /// Takes the directory for this process, until the lock is dropped or the process ends,
    /// however it ends.
    ///
    /// # Errors
    /// [`StateFault::InUse`], [`StateFault::Io`].
    pub fn lock(&self) -> Result<Lock, StateFault> {
        let path = self.path.join(LOCK);
        let io = |error| StateFault::Io { path: path.clone(), error };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        let mut file = options.open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut id = String::new();
                let read = file.take(ID_BYTES_MAX).read_to_string(&mut id);
                let by = read.ok().and_then(|_| id.trim().parse().ok());
                return Err(StateFault::InUse { path: self.path.clone(), by });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        file.set_len(0).map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(Lock { _file: file })
    }

    /// The edge's own host key, made at first use.
    ///
    /// # Errors
    /// [`StateFault::Io`], [`StateFault::Open`], [`StateFault::Key`].
    pub fn host_key(&self, entropy: &mut dyn Entropy) -> Result<PrivateKey, StateFault> {
        self.key_made_once(HOST_KEY, "keyway host key", entropy)
    }

    /// The CA that signs VM logins, made at first use.
    ///
    /// # Errors
    /// [`StateFault::Io`], [`StateFault::Open`], [`StateFault::Key`].
    pub fn user_ca(&self, entropy: &mut dyn Entropy) -> Result<PrivateKey, StateFault> {
        self.key_made_once(USER_CA, "keyway user CA", entropy)
    }

    /// What this edge is to agents, or this agent to edges, made at first use. Never a host key:
    /// what it signs proves who is there, and nothing else.
    ///
    /// # Errors
    /// [`StateFault::Io`], [`StateFault::Open`], [`StateFault::Key`].
    pub fn identity(&self, entropy: &mut dyn Entropy) -> Result<PrivateKey, StateFault> {
        self.key_made_once(IDENTITY, "keyway identity", entropy)
    }

    /// What this front door logs in to nodes with, made at first use.
    ///
    /// # Errors
    /// [`StateFault::Io`], [`StateFault::Open`], [`StateFault::Key`].
    pub fn node_key(&self, entropy: &mut dyn Entropy) -> Result<PrivateKey, StateFault> {
        self.key_made_once(NODE_KEY, "keyway node key", entropy)
    }

    /// The key that is kept as `name`, if there is one: none is made.
    ///
    /// # Errors
    /// [`StateFault::Io`], [`StateFault::Open`], [`StateFault::Key`].
    pub(crate) fn kept_key(&self, name: &str) -> Result<Option<PrivateKey>, StateFault> {
        match read_key(&self.path.join(name)) {
            Err(StateFault::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            found => found.map(Some),
        }
    }

    /// Makes a key from elsewhere the edge's own host key: `text` is its private file.
    ///
    /// # Errors
    /// [`StateFault::OtherKey`] if there is another one; what [`State::host_key`] says.
    pub fn import_host_key(
        &self,
        key: &PrivateKey,
        text: &str,
        entropy: &mut dyn Entropy,
    ) -> Result<Imported, StateFault> {
        self.import_key(HOST_KEY, key, text, entropy)
    }

    /// Makes a key from elsewhere the CA that signs VM logins: `text` is its private file.
    ///
    /// # Errors
    /// [`StateFault::OtherKey`] if there is another one; what [`State::user_ca`] says.
    pub fn import_user_ca(
        &self,
        key: &PrivateKey,
        text: &str,
        entropy: &mut dyn Entropy,
    ) -> Result<Imported, StateFault> {
        self.import_key(USER_CA, key, text, entropy)
    }

    fn import_key(
        &self,
        name: &str,
        key: &PrivateKey,
        text: &str,
        entropy: &mut dyn Entropy,
    ) -> Result<Imported, StateFault> {
        let path = self.path.join(name);
        let (there, imported) = match self.kept_key(name)? {
            None => (self.place(name, text, entropy)?, Imported::New),
            Some(found) => (found, Imported::Already),
        };
        if there.public() == key.public() {
            return Ok(imported);
        }
        let fingerprint = there.public().fingerprint();
        Err(StateFault::OtherKey { path, fingerprint })
    }

    /// Puts a file of a backup in its place. Another one that is there is kept, under a name with
    /// `stamp` that was free.
    ///
    /// # Errors
    /// [`StateFault::Io`], [`StateFault::Open`].
    pub fn put(&self, name: &str, text: &str, stamp: &str) -> Result<Placed, StateFault> {
        let path = self.path.join(name);
        let io = |error| StateFault::Io { path: path.clone(), error };
        let there = match read(&path) {
            Err(StateFault::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                replace(&path, text.as_bytes()).map_err(io)?;
                return Ok(Placed::New);
            }
            there => there?,
        };
        let key = |text: &str| PrivateKey::from_openssh(text).ok();
        // The same key is written in another way each time.
        let same = match (key(&there), key(text)) {
            (Some((there, _)), Some((new, _))) => there.public() == new.public(),
            (_, _) => *there == *text,
        };
        if same {
            return Ok(Placed::Already);
        }
        let kept = link_beside(&path, stamp).map_err(io)?;
        replace(&path, text.as_bytes()).map_err(io)?;
        Ok(Placed::InPlaceOf(kept))
    }

    /// Writes a new file into a directory of this one, for an operator to look at; where it is.
    ///
    /// # Errors
    /// [`StateFault::Io`].
    pub fn put_aside(&self, within: &str, name: &str, text: &str) -> Result<PathBuf, StateFault> {
        let directory = self.path.join(within);
        let path = directory.join(name);
        let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&directory);
        let written = made
            .and_then(|()| write_new(&path, text.as_bytes()))
            .and_then(|()| durable::sync_names(&directory))
            .and_then(|()| durable::sync_names(&self.path));
        written.map_err(|error| StateFault::Io { path: path.clone(), error })?;
        Ok(path)
    }

    /// What the file of pins says that wait for the registry, if there is one.
    ///
    /// # Errors
    /// [`StateFault::Io`], [`StateFault::Open`].
    pub fn old_pins_text(&self) -> Result<Option<Zeroizing<String>>, StateFault> {
        match read(&self.path.join(PINS)) {
            Err(StateFault::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            text => text.map(Some),
        }
    }

    /// Pins of an earlier Keyway, until the registry has them.
    ///
    /// # Errors
    /// [`StateFault::Io`], [`StateFault::Open`], [`StateFault::Pins`] with every line
    /// that cannot be read.
    pub fn old_pins(&self) -> Result<Option<OldPins>, StateFault> {
        OldPins::open(&self.path)
    }

    /// Host keys of VMs that an agent has pinned.
    ///
    /// # Errors
    /// As [`State::old_pins`].
    pub fn kept_pins(&self) -> Result<KeptPins, StateFault> {
        KeptPins::open(&self.path)
    }

    /// The routes that were saved last.
    pub(crate) fn routes(&self) -> Saved {
        Saved::at(&self.path)
    }

    /// The routes that were saved when an adoption began, until it is done.
    pub(crate) fn routes_before_adoption(&self) -> Saved {
        Saved::before_adoption(&self.path)
    }

    /// Where the registry's store is kept.
    pub fn store(&self) -> PathBuf {
        self.path.join(STORE)
    }

    /// Takes part in the use of the store: until the last of those who do has ended, no backup is
    /// restored over it.
    ///
    /// # Errors
    /// [`StateFault::StoreInUse`] while one is; [`StateFault::Io`].
    pub fn use_store(&self) -> Result<StoreUse, StateFault> {
        self.lock_store(File::try_lock_shared)
    }

    /// Makes sure that nobody uses the store, neither by serving nor in a drain, until the
    /// lock is dropped.
    ///
    /// # Errors
    /// [`StateFault::StoreInUse`], [`StateFault::Io`].
    pub fn have_store(&self) -> Result<StoreUse, StateFault> {
        self.lock_store(File::try_lock)
    }

    fn lock_store(
        &self,
        lock: fn(&File) -> Result<(), TryLockError>,
    ) -> Result<StoreUse, StateFault> {
        let path = self.path.join(STORE_USE);
        let io = |error| StateFault::Io { path: path.clone(), error };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        let file = options.open(&path).map_err(io)?;
        match lock(&file) {
            Ok(()) => Ok(StoreUse { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StateFault::StoreInUse { path: self.store() }),
            Err(TryLockError::Error(error)) => Err(io(error)),
        }
    }

    /// The host keys that the zone had last, as [`State::name_host_keys`] was given them.
    ///
    /// # Errors
    /// [`StateFault::Io`], [`StateFault::Open`].
    pub fn named_host_keys(&self) -> Result<Option<String>, StateFault> {
        match read(&self.path.join(NAMED_HOST_KEYS)) {
            Err(StateFault::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            text => Ok(Some(text?.trim().to_owned())),
        }
    }

    /// The zone has these host keys from now on.
    ///
    /// # Errors
    /// [`StateFault::Io`].
    pub fn name_host_keys(&self, keys: &str) -> Result<(), StateFault> {
        let path = self.path.join(NAMED_HOST_KEYS);
        replace(&path, format!("{keys}\n").as_bytes())
            .map_err(|error| StateFault::Io { path, error })
    }

    /// Which files are followed by a process that drains: those that its successor was started
    /// with, or read again last.
    ///
    /// # Errors
    /// [`StateFault::Io`].
    pub fn follow_files(&self, config: &Path) -> Result<(), StateFault> {
        let path = self.path.join(FOLLOWED);
        replace(&path, config.as_os_str().as_bytes())
            .map_err(|error| StateFault::Io { path, error })
    }

    /// The configuration that was read last by whoever serves, and which reading it was: it differs
    /// after every one.
    pub fn followed(&self) -> Option<(PathBuf, (u64, i64))> {
        let path = self.path.join(FOLLOWED);
        let about = fs::metadata(&path).ok()?;
        let config = fs::read(&path).ok()?;
        let config = PathBuf::from(std::ffi::OsString::from_vec(config));
        Some((config, (about.ino(), about.mtime_nsec())))
    }

    fn key_made_once(
        &self,
        name: &str,
        comment: &str,
        entropy: &mut dyn Entropy,
    ) -> Result<PrivateKey, StateFault> {
        if let Some(found) = self.kept_key(name)? {
            return Ok(found);
        }
        let text = PrivateKey::generate_ed25519(entropy).to_openssh(comment, entropy);
        self.place(name, &text, entropy)
    }

    /// Writes a key's file unless there is one; the key that is there then.
    fn place(
        &self,
        name: &str,
        text: &str,
        entropy: &mut dyn Entropy,
    ) -> Result<PrivateKey, StateFault> {
        let path = self.path.join(name);
        make_once(&path, text.as_bytes(), entropy)
            .map_err(|error| StateFault::Io { path: path.clone(), error })?;
        read_key(&path)
    }
}

/// What came of a host key from elsewhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Imported {
    /// There was none before.
    New,
    /// It was there.
    Already,
}

/// What came of a file from a backup.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Placed {
    /// There was none before.
    New,
    /// It was there.
    Already,
    /// Another one was, which is kept here.
    InPlaceOf(PathBuf),
}

/// A part in the use of the store, or all of it.
#[derive(Debug)]
pub struct StoreUse {
    _file: File,
}

/// The state directory is this process's.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

fn read_key(path: &Path) -> Result<PrivateKey, StateFault> {
    let text = read(path)?;
    let (key, _) = PrivateKey::from_openssh(&text)
        .map_err(|fault| StateFault::Key { path: path.to_owned(), fault })?;
    Ok(key)
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
