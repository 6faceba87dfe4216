//! The last routing map on disk, for a start without the registry: a snapshot, and a journal of
//! the deltas since.
//!
//! A delta is appended as it is applied, and one without changes too: the map is known to be that
//! of a revision. The snapshot is written anew when the journal has outgrown it. Nothing here is
//! fsynced but the snapshot: after a crash of the host the map may be some seconds old, and then
//! the registry is asked first.
//!
//! What cannot be written leaves nothing to start from: what stood there may let in whom nobody
//! lets in any more. Of which store and revision it was stays known, so that no earlier one is
//! believed.

#![expect(clippy::disallowed_methods, reason = "a disk that failed is tried again after a rest")]

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::quarantine::SavedQuarantine;
use crate::durable::{self, FILE_MODE};
use crate::registry::store;
use crate::route::saved_routes::{self, Decoder, Head, Message};
use crate::route::{Change, Contents, Delta, Denied, FrontDoor, Snapshot, Table, VmEntry};
use crate::ssh::entropy::{Entropy, SystemEntropy};
use crate::ssh::publickey::Fingerprint;
use crate::unix_time::unix_s;

const SNAPSHOT: &str = "routes.snapshot";
const JOURNAL: &str = "routes.journal";
const QUARANTINE: &str = "routes.holds";
/// What a follower knows of the front door.
const FRONT_DOOR: &str = "front_door.known";
/// What a follower refuses of what its map has.
const DENIED: &str = "denied.known";
/// The journal may grow to this, or to half of the snapshot if that is more.
const JOURNAL_BYTES_MIN: u64 = 4 << 20;
/// Longest delta read back, in bytes.
const DELTA_BYTES_MAX: u32 = 256 << 20;
const READ_BYTES: usize = 1 << 20;
/// How long a disk that failed is left alone: to write everything takes its time, and the
/// registry waits meanwhile.
const REST: Duration = Duration::from_mins(1);

/// Where the map is saved.
#[derive(Debug)]
pub(crate) struct Saved {
    snapshot: PathBuf,
    journal: PathBuf,
    /// What is no way any more, and must be none to another VM yet.
    pub(crate) quarantined: SavedQuarantine,
    /// Open once a snapshot was written, or all that was saved was read, by this process.
    open: Option<Open>,
    /// When it could not be written last, if it could not.
    failed: Option<Instant>,
    /// The same of the front door.
    front_door_failed: Option<Instant>,
    pub(crate) unsaved: Arc<Unsaved>,
}

/// Since when a restart would not find what is judged by, in Unix seconds; 0 while it would.
#[derive(Debug, Default)]
pub(crate) struct Unsaved(AtomicU64);

#[derive(Debug)]
struct Open {
    journal: File,
    /// Where the last delta leads.
    revision: u64,
    journal_bytes: u64,
    snapshot_bytes: u64,
}

/// What comes of a delta.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Appended {
    Done,
    /// It is there, and a snapshot is wanted: the journal has outgrown it.
    Full,
    /// It is not there, nor is what came before it: everything is to be written.
    Missing,
    /// The same, but the disk has failed not long ago.
    Rests,
}

/// Where a saved map led.
pub(crate) struct Ways {
    /// Of which moment the map's snapshot is.
    pub(crate) head: Head,
    /// Principal, address, and the id of the VM.
    pub(crate) slots: Vec<(String, String, String)>,
    /// Teams and the users who saw what they see.
    pub(crate) members: Vec<(String, String)>,
}

impl Saved {
    pub(crate) fn at(state_dir: &Path) -> Self {
        Self::named(|name| state_dir.join(name))
    }

    fn named(path: impl Fn(&str) -> PathBuf) -> Self {
        let (snapshot, journal) = (path(SNAPSHOT), path(JOURNAL));
        let quarantined = SavedQuarantine::at(path(QUARANTINE));
        let (open, failed, unsaved) = (None, None, Arc::default());
        Self { snapshot, journal, quarantined, open, failed, front_door_failed: failed, unsaved }
    }

    /// Whether something could not be written, and the time has come to try again.
    pub(crate) fn is_to_be_tried(&self) -> bool {
        let mut failed = [self.failed, self.front_door_failed].into_iter().flatten();
        failed.any(|at| at.elapsed() >= REST)
    }

    /// Whether all that came is on the disk.
    pub(crate) fn is_kept(&self) -> bool {
        self.failed.is_none() && self.front_door_failed.is_none()
    }

    fn note_unsaved(&self) {
        self.unsaved.is(!self.is_kept());
    }

    /// Writes everything, in the place of what was saved. If that fails nobody starts from what
    /// was saved before.
    pub(crate) fn write(&mut self, head: Head, contents: &Contents) -> io::Result<()> {
        match self.try_write(head, contents) {
            Ok(()) => {
                self.failed = None;
                self.note_unsaved();
                Ok(())
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Nobody starts from what was saved, and everything is to be written again.
    fn failed(&mut self, error: &io::Error) -> io::Error {
        (self.open, self.failed) = (None, Some(Instant::now()));
        self.note_unsaved();
        // It may be what the disk is full of.
        drop(fs::remove_file(self.snapshot.with_extension("new")));
        let spoiled = spoil(&self.snapshot).or_else(|_| remove(&self.snapshot));
        worded(error, &self.snapshot, spoiled)
    }

    /// Whether what was saved is no more than of which moment it was.
    pub(crate) fn is_spoiled(&self) -> bool {
        fs::metadata(&self.snapshot).is_ok_and(|about| about.len() == saved_routes::HEAD_LEN as u64)
    }

    fn try_write(&mut self, head: Head, contents: &Contents) -> io::Result<()> {
        self.open = None;
        let temporary = self.snapshot.with_extension("new");
        let mut snapshot_bytes = 0;
        let mut file = create(&temporary)?;
        for piece in saved_routes::encode(head, contents) {
            file.write_all(&piece)?;
            snapshot_bytes += piece.len() as u64;
        }
        file.sync_all()?;
        // Synced, else the deltas to come could be found behind the snapshot of before.
        durable::rename(&temporary, &self.snapshot)?;
        // Deltas of before are known by their revisions, should this be as far as we get.
        let (journal, revision) = (create(&self.journal)?, head.revision);
        self.open = Some(Open { journal, revision, journal_bytes: 0, snapshot_bytes });
        Ok(())
    }

    /// Keeps what is known of the front door, in the place of what was. If that fails nothing is
    /// kept: what was there may believe an edge that was removed since.
    pub(crate) fn write_front_door(
        &mut self,
        head: Head,
        front_door: &FrontDoor,
    ) -> io::Result<()> {
        let path = self.snapshot.with_file_name(FRONT_DOOR);
        let written = write_synced(&path, &saved_routes::encode_front_door(head, front_door));
        self.front_door_failed = written.is_err().then(Instant::now);
        self.note_unsaved();
        written.map_err(|error| worded(&error, &path, remove(&path)))
    }

    /// Keeps what is refused of what the map has, until it has come to `head`. If that fails nobody
    /// starts from the map: it has who is refused.
    pub(crate) fn write_denied(&mut self, head: Head, denied: &Denied) -> io::Result<()> {
        let path = self.snapshot.with_file_name(DENIED);
        write_synced(&path, &saved_routes::encode_denied(head, denied))
            .map_err(|error| self.failed(&error))
    }

    /// What was refused of what the map had.
    pub(crate) fn denied(&self) -> io::Result<Option<(Head, Denied)>> {
        match self.read(DENIED)? {
            None => Ok(None),
            Some((_, Message::Denied(head, denied))) => Ok(Some((head, denied))),
            Some((
                path,
                Message::Snapshot(..)
                | Message::Delta(..)
                | Message::FrontDoor(..)
                | Message::Asked(_),
            )) => Err(wrong(&path, Some(&"nothing of what is denied"))),
        }
    }

    /// The map has come so far.
    pub(crate) fn remove_denied(&self) -> io::Result<()> {
        match fs::remove_file(self.snapshot.with_file_name(DENIED)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Err(_) | Ok(()) => Ok(()),
        }
    }

    /// What lies beside the map under a name.
    fn read(&self, name: &str) -> io::Result<Option<(PathBuf, Message)>> {
        let path = self.snapshot.with_file_name(name);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let read = saved_routes::decode_any(&bytes);
        let message = read.map_err(|fault| wrong(&path, Some(&fault)))?;
        Ok(Some((path, message)))
    }

    /// What was kept of the front door, if anything was.
    pub(crate) fn front_door(&self) -> io::Result<Option<FrontDoor>> {
        match self.read(FRONT_DOOR)? {
            None => Ok(None),
            Some((_, Message::FrontDoor(_, front_door))) => Ok(Some(front_door)),
            Some((
                path,
                Message::Snapshot(..)
                | Message::Delta(..)
                | Message::Denied(..)
                | Message::Asked(_),
            )) => Err(wrong(&path, Some(&"routes, and nothing of the front door"))),
        }
    }

    /// Adds what was changed since.
    pub(crate) fn append(&mut self, head: Head, delta: &Delta) -> io::Result<Appended> {
        // If this fails no other delta may follow: it would hide behind a torn one, or stand for
        // what is missing.
        let Some(mut open) = self.open.take() else {
            let rests = self.failed.is_some_and(|at| at.elapsed() < REST);
            return Ok(if rests { Appended::Rests } else { Appended::Missing });
        };
        match open.append(head, delta) {
            Ok(()) => {
                let full = open.journal_bytes > JOURNAL_BYTES_MIN.max(open.snapshot_bytes / 2);
                self.open = Some(open);
                Ok(if full { Appended::Full } else { Appended::Done })
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// What stood when a registry of another history was adopted, until that has taken place.
    pub(crate) fn before_adoption(state_dir: &Path) -> Self {
        Self::named(|name| state_dir.join(format!("{name}.before-adoption")))
    }

    /// Moves what was saved there, unless something is there: an adoption that was cut short
    /// begins again with it.
    pub(crate) fn set_aside(&self, there: &Self) -> io::Result<()> {
        if there.snapshot.exists() {
            return Ok(());
        }
        self.quarantined.set_aside(&there.quarantined)?;
        match fs::rename(&self.journal, &there.journal) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) | Ok(()) => {}
        }
        // The snapshot last, after a crash too: with it the move is done.
        durable::sync_names(durable::directory(&there.snapshot))?;
        durable::rename(&self.snapshot, &there.snapshot)
    }

    /// Forgets what was saved.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for path in [&self.snapshot, &self.journal, self.quarantined.path()] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Err(_) | Ok(()) => {}
            }
        }
        durable::sync_names(durable::directory(&self.snapshot))
    }

    /// Of which moment the map was saved last; `None` if none was, or none that can be read.
    pub(crate) fn last(&self) -> Option<Head> {
        let mut first = [0; saved_routes::HEAD_LEN];
        File::open(&self.snapshot).ok()?.read_exact(&mut first).ok()?;
        let mut head = saved_routes::peek(&first)?;
        let _torn = self.each_delta(&mut |bytes| {
            if let Some(next) = saved_routes::peek(bytes)
                && next.store == head.store
            {
                head.revision = head.revision.max(next.revision);
            }
            Ok(())
        });
        Some(head)
    }

    /// Every way that the map had when it was saved last.
    pub(crate) fn ways(&self) -> io::Result<Ways> {
        let (head, contents) = self.contents(u64::MAX)?;
        let ways = contents.vms.into_iter().flat_map(|VmEntry { vm, slots, .. }| {
            slots.into_iter().map(move |slot| (slot.principal, slot.address, vm.id.clone()))
        });
        let members = contents
            .teams
            .into_iter()
            .flat_map(|team| team.members.into_iter().map(move |user| (team.name.clone(), user)));
        Ok(Ways { head, slots: ways.collect(), members: members.collect() })
    }

    /// What was saved last, up to a revision, and of which moment its snapshot is. What cannot be
    /// read of the journal is left out.
    pub(crate) fn contents(&self, up_to: u64) -> io::Result<(Head, Contents)> {
        let (head, Contents { addresses, users, teams, nodes, vms }) = self.read_snapshot()?;
        let mut addresses = by_name(addresses, |entry| &entry.name);
        let mut users = by_name(users, |entry| &entry.name);
        let mut teams = by_name(teams, |entry| &entry.name);
        let mut nodes = by_name(nodes, |entry| &entry.name);
        let mut vms = by_name(vms, |entry| &entry.vm.name);
        self.each_delta(&mut |bytes| {
            let Ok((next, _, delta)) = saved_routes::decode_delta(bytes) else { return Ok(()) };
            let is_later = next.revision > head.revision && next.revision <= up_to;
            if next.store != head.store || !is_later {
                return Ok(());
            }
            for change in delta.changes {
                match change {
                    Change::PutAddress(it) => drop(addresses.insert(it.name.clone(), it)),
                    Change::RemoveAddress(name) => drop(addresses.remove(&name)),
                    Change::PutUser(it) => drop(users.insert(it.name.clone(), it)),
                    Change::RemoveUser(name) => drop(users.remove(&name)),
                    Change::PutTeam(it) => drop(teams.insert(it.name.clone(), it)),
                    Change::RemoveTeam(name) => drop(teams.remove(&name)),
                    Change::PutNode(it) => drop(nodes.insert(it.name.clone(), it)),
                    Change::RemoveNode(name) => drop(nodes.remove(&name)),
                    Change::PutVm(it) => drop(vms.insert(it.vm.name.clone(), it)),
                    Change::RemoveVm(name) => drop(vms.remove(&name)),
                }
            }
            Ok(())
        })?;
        let contents = Contents {
            addresses: addresses.into_values().collect(),
            users: users.into_values().collect(),
            teams: teams.into_values().collect(),
            nodes: nodes.into_values().collect(),
            vms: vms.into_values().collect(),
        };
        Ok((head, contents))
    }

    /// Makes `table` what was saved last; returns of which moment that is, and when it was written.
    pub(crate) fn restore(&mut self, table: &Table) -> io::Result<(Head, SystemTime)> {
        let (mut head, contents) = self.read_snapshot()?;
        let mut written = fs::metadata(&self.snapshot)?.modified()?;
        if let Ok(journal) = fs::metadata(&self.journal) {
            written = written.max(journal.modified()?);
        }
        let snapshot =
            Snapshot::new(contents).map_err(|found| wrong(&self.snapshot, found.first()))?;
        table.apply(snapshot);
        let ended = self.each_delta(&mut |bytes| {
            let (next, after, delta) = saved_routes::decode_delta(bytes)
                .map_err(|fault| wrong(&self.journal, Some(&fault)))?;
            if next.store == head.store && next.revision > head.revision {
                if after != head.revision {
                    let missing = format!("what follows revision {} is missing", head.revision);
                    return Err(wrong(&self.journal, Some(&missing)));
                }
                table.change(delta).map_err(|found| wrong(&self.journal, found.first()))?;
                head = next;
            }
            Ok(())
        });
        match ended {
            Ok(whole) => self.go_on(head.revision, whole)?,
            // What came before is true of its moment; nothing may be left out between two changes.
            Err(error) => tracing::error!(
                "the routes saved last are read up to revision {}: {error}",
                head.revision
            ),
        }
        Ok((head, written))
    }

    /// The next delta stands behind the last whole one.
    fn go_on(&mut self, revision: u64, whole: u64) -> io::Result<()> {
        let mut journal =
            OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(&self.journal)?;
        journal.set_len(whole)?;
        journal.seek(io::SeekFrom::End(0))?;
        let snapshot_bytes = fs::metadata(&self.snapshot)?.len();
        self.open = Some(Open { journal, revision, journal_bytes: whole, snapshot_bytes });
        Ok(())
    }

    fn read_snapshot(&self) -> io::Result<(Head, Contents)> {
        let mut file = File::open(&self.snapshot)?;
        let mut decoder = Decoder::default();
        let mut piece = vec![0; READ_BYTES];
        loop {
            let count = file.read(&mut piece)?;
            let Some(read) = piece.get(..count).filter(|read| !read.is_empty()) else { break };
            decoder.take(read).map_err(|fault| wrong(&self.snapshot, Some(&fault)))?;
        }
        decoder.finish().map_err(|fault| wrong(&self.snapshot, Some(&fault)))
    }

    /// Shows every whole entry of the journal, and says how many bytes they are. A torn last one is
    /// what a crash leaves: all before it stand.
    fn each_delta(&self, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<u64> {
        let mut journal = match File::open(&self.journal) {
            Ok(file) => BufReader::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let (mut bytes, mut whole) = (Vec::new(), 0);
        loop {
            let mut length = [0; 4];
            if journal.read_exact(&mut length).is_err() {
                return Ok(whole);
            }
            let length = u32::from_be_bytes(length);
            bytes.clear();
            let read = (&mut journal).take(u64::from(length)).read_to_end(&mut bytes)?;
            if length > DELTA_BYTES_MAX || read as u64 != u64::from(length) {
                return Ok(whole);
            }
            each(&bytes)?;
            whole += u64::from(length) + 4;
        }
    }
}

impl Open {
    fn append(&mut self, head: Head, delta: &Delta) -> io::Result<()> {
        let bytes = saved_routes::encode_delta(head, self.revision, delta);
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.journal.write_all(&[&length.to_be_bytes()[..], &bytes].concat())?;
        self.journal_bytes += u64::from(length) + 4;
        self.revision = head.revision;
        Ok(())
    }
}

impl Unsaved {
    fn is(&self, is_unsaved: bool) {
        let is_new = self.0.load(Ordering::Relaxed) == 0;
        match is_unsaved {
            true if is_new => self.0.store(unix_s(), Ordering::Relaxed),
            true => {}
            false => self.0.store(0, Ordering::Relaxed),
        }
    }

    /// For how many seconds it was so, if it is.
    pub(crate) fn for_s(&self) -> Option<u64> {
        let since_s = self.0.load(Ordering::Relaxed);
        (since_s > 0).then(|| unix_s().saturating_sub(since_s))
    }
}

/// Leaves of a snapshot nothing but of which moment it was. That takes no room on the disk.
fn spoil(snapshot: &Path) -> io::Result<()> {
    let file = match OpenOptions::new().write(true).open(snapshot) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    if file.metadata()?.len() > saved_routes::HEAD_LEN as u64 {
        file.set_len(saved_routes::HEAD_LEN as u64)?;
    }
    file.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| durable::sync_names(durable::directory(path))),
    }
}

/// Why something is not kept, and what a restart makes of that.
fn worded(error: &io::Error, path: &Path, gone: io::Result<()>) -> io::Error {
    let path = path.display();
    let then = match gone {
        Ok(()) => "a restart has nothing of it, and lets in nobody by it".to_owned(),
        Err(fault) => format!(
            "and {path} cannot be taken back ({fault}): a restart would let in whom it lets in; remove it before one"
        ),
    };
    io::Error::new(error.kind(), format!("{path}: {error}; {then}"))
}

fn by_name<T>(entries: Vec<T>, name: impl Fn(&T) -> &String) -> HashMap<String, T> {
    entries.into_iter().map(|entry| (name(&entry).clone(), entry)).collect()
}

fn wrong(path: &Path, why: Option<&impl ToString>) -> io::Error {
    let why = why.map(ToString::to_string).unwrap_or_default();
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()))
}

/// Whether routes are of another store than the one that stands there, or of a later state of it.
pub(crate) fn differs(last: Head, now: store::Head) -> bool {
    last.store != now.store_id.0 || last.revision > now.revision.0
}

/// Names this program: one that is built anew is another.
pub(crate) fn program() -> [u8; 8] {
    let named = fs::metadata("/proc/self/exe").map(|about| {
        let about = [about.dev(), about.ino(), about.size(), about.mtime_nsec().cast_unsigned()];
        Fingerprint::of(&about.map(u64::to_be_bytes).concat()).0
    });
    // Nothing that was saved is of a program that cannot be named.
    let random = |_| {
        let mut random = [0; 32];
        SystemEntropy::default().fill(&mut random);
        random
    };
    named.unwrap_or_else(random).first_chunk().copied().unwrap_or_default()
}

/// In the place of what was there.
fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    durable::rename(&temporary, path)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(path)
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
