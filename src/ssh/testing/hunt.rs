//! Finds secrets in this process's own memory: for tests of what stays behind when
//! keys are retired.
#![expect(clippy::arithmetic_side_effects, reason = "for tests only; addresses of this process")]

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Memory is read by aligned words, and a secret holds one wherever it begins: any 15 bytes do.
const WORD: usize = size_of::<u64>();
/// Laid over what is looked for, so that the list itself is none of it.
const MASK: u64 = 0x5aa5_c33c_9669_0ff0;
/// Bits of a word that tell at once of most that they are not looked for.
const SIEVE_BITS: u32 = 24;

/// Secrets to look for.
#[derive(Default)]
pub(crate) struct Hunt {
    /// By masked word.
    words: HashMap<u64, String>,
    names: Vec<String>,
}

impl Hunt {
    pub(crate) fn look_for(&mut self, name: &str, secret: &[u8]) {
        self.names.push(name.to_owned());
        for window in secret.array_windows::<WORD>() {
            self.words.insert(u64::from_ne_bytes(*window) ^ MASK, name.to_owned());
        }
    }

    /// How often each secret was found, at least in part.
    pub(crate) fn sightings(&self) -> Vec<(&str, usize)> {
        let mut sieve = vec![false; 1 << SIEVE_BITS];
        for word in self.words.keys() {
            sieve[slot(*word)] = true;
        }
        let memory = File::open("/proc/self/mem").unwrap();
        let mut buffer = vec![0; 1 << 20];
        let own = buffer.as_ptr_range();
        let own = own.start.addr()..own.end.addr();
        // By secret: where it ended last, so that its words in a row are one sighting.
        let mut found: HashMap<&str, (usize, usize)> = HashMap::new();
        for (start, end) in regions() {
            let mut at = start;
            while at < end {
                let len = buffer.len().min(end - at);
                // Other tests give memory back meanwhile.
                let place = u64::try_from(at).unwrap();
                let Ok(len @ 1..) = memory.read_at(&mut buffer[..len], place) else { break };
                for (index, word) in buffer[..len].as_chunks::<WORD>().0.iter().enumerate() {
                    let word = u64::from_ne_bytes(*word) ^ MASK;
                    if sieve[slot(word)]
                        && let Some(name) = self.words.get(&word)
                        && !own.contains(&(at + index * WORD))
                    {
                        let place = at + index * WORD;
                        let (count, last) = found.entry(name).or_default();
                        *count += usize::from(*last + WORD != place);
                        *last = place;
                    }
                }
                at += len;
            }
        }
        self.names.iter().map(|name| (&**name, found.get(&**name).map_or(0, |one| one.0))).collect()
    }

    /// The names of those that are found.
    pub(crate) fn seen(&self) -> Vec<&str> {
        self.sightings().into_iter().filter(|(_, count)| *count > 0).map(|(name, _)| name).collect()
    }
}

fn slot(word: u64) -> usize {
    usize::try_from(word >> (u64::BITS - SIEVE_BITS)).unwrap()
}

/// Heap, stacks, and what else this process can write and no file stands behind.
fn regions() -> Vec<(usize, usize)> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let region = |line: &str| {
        let mut fields = line.split_whitespace();
        let (range, rights) = (fields.next()?, fields.next()?);
        let is_file = fields.nth(3).is_some_and(|name| name.starts_with('/'));
        let (start, end) = range.split_once('-')?;
        let [start, end] = [start, end].map(|hex| usize::from_str_radix(hex, 16).unwrap());
        (rights.starts_with("rw-p") && !is_file).then_some((start, end))
    };
    maps.lines().filter_map(region).collect()
}
