//! Proofs that an agent has used, for the process that comes after it: as long as one is fresh it
//! is good once.
//!
//! Records of fixed length, added at the end by whichever process used one. One that drains may do
//! so beside its successor, which reads what was added since it looked last.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use super::private_file::{alone_in, replace};
use super::{FILE_MODE, State, StateFault};
use crate::durable;

const USED_PROOFS: &str = "used_proofs";
/// Bytes that a proof is known by.
const ID_BYTES: usize = 16;
const RECORD_BYTES: usize = ID_BYTES + size_of::<u64>();
/// Records beyond twice those that were fresh at which the stale ones go.
const SPARE_RECORDS: usize = 1 << 16;

/// What a proof is known by, and when it was used, in Unix seconds.
pub type UsedProof = ([u8; ID_BYTES], u64);

/// The file, as far as this process has read it.
#[derive(Debug)]
pub struct UsedProofs {
    path: PathBuf,
    /// For how long a proof is fresh at most, in seconds.
    fresh_s: u64,
    /// Which file it was: one in its place is read from its beginning.
    inode: u64,
    read: u64,
    records_max: usize,
}

impl State {
    /// Proofs that were used here.
    pub fn used_proofs(&self, fresh_s: u64) -> UsedProofs {
        let path = self.path.join(USED_PROOFS);
        UsedProofs { path, fresh_s, inode: 0, read: 0, records_max: 0 }
    }
}

impl UsedProofs {
    /// Adds `used`, and returns those that others have added and that are fresh at `now_s`. Only
    /// [`Self::sync`] makes sure that they outlive a crash of the host.
    ///
    /// # Errors
    /// [`StateFault::Io`]; what was added may be there all the same.
    pub fn add(&mut self, used: &[UsedProof], now_s: u64) -> Result<Vec<UsedProof>, StateFault> {
        self.try_add(used, now_s).map_err(|error| StateFault::Io { path: self.path.clone(), error })
    }

    fn try_add(&mut self, used: &[UsedProof], now_s: u64) -> io::Result<Vec<UsedProof>> {
        let _others_wait = alone_in(durable::directory(&self.path))?;
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).append(true).create(true).mode(FILE_MODE).open(&self.path)?;
        let about = file.metadata()?;
        if about.ino() != self.inode || about.len() < self.read {
            (self.inode, self.read) = (about.ino(), 0);
        }
        file.seek(SeekFrom::Start(self.read))?;
        let mut added = Vec::new();
        file.read_to_end(&mut added)?;
        let (records, cut) = added.as_chunks::<RECORD_BYTES>();
        if !cut.is_empty() {
            // A process died while it wrote.
            file.set_len(self.read + bytes(records.len()))?;
        }
        let mut theirs: Vec<UsedProof> = records.iter().map(parse).collect();
        file.write_all(&encoded(used))?;
        let before = usize::try_from(self.read).unwrap_or(usize::MAX) / RECORD_BYTES;
        self.read += bytes(records.len()) + bytes(used.len());
        if before + records.len() + used.len() > self.records_max {
            self.forget_stale(now_s)?;
        }
        theirs.retain(|proof| self.is_fresh(proof, now_s));
        Ok(theirs)
    }

    /// What was added is there after a crash of the host.
    ///
    /// # Errors
    /// [`StateFault::Io`].
    pub fn sync(&self) -> Result<(), StateFault> {
        let synced = std::fs::File::open(&self.path).and_then(|file| file.sync_data());
        synced.map_err(|error| StateFault::Io { path: self.path.clone(), error })
    }

    /// Writes a file in place of this one, of those that are fresh.
    fn forget_stale(&mut self, now_s: u64) -> io::Result<()> {
        let all = std::fs::read(&self.path)?;
        let mut fresh: Vec<UsedProof> =
            all.as_chunks::<RECORD_BYTES>().0.iter().map(parse).collect();
        let before = fresh.len();
        fresh.retain(|proof| self.is_fresh(proof, now_s));
        self.records_max = 2 * fresh.len() + SPARE_RECORDS;
        if fresh.len() < before {
            replace(&self.path, &encoded(&fresh))?;
            let about = std::fs::metadata(&self.path)?;
            (self.inode, self.read) = (about.ino(), about.len());
        }
        Ok(())
    }

    /// A clock that was set back makes nothing stale.
    const fn is_fresh(&self, (_, used_s): &UsedProof, now_s: u64) -> bool {
        now_s.saturating_sub(*used_s) < self.fresh_s
    }
}

fn bytes(records: usize) -> u64 {
    u64::try_from(records * RECORD_BYTES).unwrap_or(u64::MAX)
}

fn encoded(proofs: &[UsedProof]) -> Vec<u8> {
    proofs.iter().flat_map(|(id, used_s)| id.iter().copied().chain(used_s.to_be_bytes())).collect()
}

fn parse(record: &[u8; RECORD_BYTES]) -> UsedProof {
    let (id, used_s) = (record.first_chunk(), record.last_chunk());
    (id.copied().unwrap_or_default(), used_s.map_or(0, |used_s| u64::from_be_bytes(*used_s)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::scratch::Scratch;

    const FRESH_S: u64 = 1800;
    const NOW_S: u64 = 1_800_000_000;

    fn proof(number: u64) -> UsedProof {
        let mut id = [0; ID_BYTES];
        id[..8].copy_from_slice(&number.to_be_bytes());
        (id, NOW_S)
    }

    #[test]
    fn what_one_process_used_the_next_knows_and_one_that_is_there_hears_of_it() {
        let scratch = Scratch::new();
        let state = State::open(&scratch.0.join("state")).unwrap();
        let mut old = state.used_proofs(FRESH_S);
        assert_eq!(old.add(&[], NOW_S).unwrap(), []);
        assert_eq!(old.add(&[proof(1), proof(2)], NOW_S).unwrap(), []);
        let mut new = state.used_proofs(FRESH_S);
        assert_eq!(new.add(&[], NOW_S).unwrap(), [proof(1), proof(2)]);
        old.add(&[proof(3)], NOW_S).unwrap();
        assert_eq!(new.add(&[proof(4)], NOW_S).unwrap(), [proof(3)]);
        assert_eq!(new.add(&[], NOW_S).unwrap(), [], "its own");
        new.sync().unwrap();
        // One that died in the middle of a record.
        let path = scratch.0.join("state").join(USED_PROOFS);
        let mut cut = fs::read(&path).unwrap();
        cut.extend([9; 7]);
        fs::write(&path, cut).unwrap();
        assert_eq!(new.add(&[proof(5)], NOW_S).unwrap(), []);
        let last = state.used_proofs(FRESH_S).add(&[], NOW_S).unwrap();
        assert_eq!(last, [1, 2, 3, 4, 5].map(proof));
    }

    #[test]
    fn what_is_stale_is_forgotten_and_the_file_does_not_grow_for_ever() {
        let scratch = Scratch::new();
        let state = State::open(&scratch.0.join("state")).unwrap();
        let path = scratch.0.join("state").join(USED_PROOFS);
        let len = || usize::try_from(fs::metadata(&path).unwrap().len()).unwrap();
        let mut old = state.used_proofs(FRESH_S);
        let many: Vec<_> = (0..u64::try_from(SPARE_RECORDS).unwrap()).map(proof).collect();
        old.add(&many, NOW_S).unwrap();
        old.add(&[proof(1 << 40)], NOW_S).unwrap();
        assert_eq!(len(), (SPARE_RECORDS + 1) * RECORD_BYTES, "all are fresh");
        let late_s = NOW_S + FRESH_S;
        let kept = (proof(1 << 41).0, late_s);
        // Whoever starts then has nothing to know, and leaves little behind.
        assert_eq!(state.used_proofs(FRESH_S).add(&[kept], late_s).unwrap(), []);
        assert_eq!(len(), RECORD_BYTES);
        // Another file is there now, which is read from its beginning.
        assert_eq!(old.add(&[], late_s).unwrap(), [kept]);
        assert_eq!(old.add(&[], NOW_S - 5).unwrap(), []);
    }
}
