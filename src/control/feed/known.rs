//! What a follower that comes has already, and how it shows that: by a revision where whoever told
//! it is asked, by a digest where another process did.
//!
//! Revisions of one store say nothing of what was made of them: another build of control may derive
//! other routes from the same documents. A number that somebody has to raise with every such change
//! would be forgotten once; what is the same has the same digest.

use crate::route::Contents;
use crate::route::saved_routes::{self, Head};
use crate::ssh::digest::sha256_of;

/// Stands for the program in every frame of the feed, whichever build sends it.
pub const PROGRAM: [u8; 8] = *b"keyway/f";

/// How far a follower has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::control) struct Known {
    pub(in crate::control) head: Head,
    /// Of all that it has, if it can tell.
    pub(in crate::control) digest: Option<[u8; 32]>,
}

/// SHA-256 of everything that somebody has, in whichever order it has it.
#[must_use]
pub fn digest(mut contents: Contents) -> [u8; 32] {
    contents.addresses.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    contents.users.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    contents.teams.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    contents.nodes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    contents.vms.sort_unstable_by(|a, b| a.vm.name.cmp(&b.vm.name));
    sha256_of(saved_routes::encode(Head::default(), &contents))
}

/// How far a follower has come, in a word.
fn write_head(head: Head) -> String {
    let Head { store, program, revision } = head;
    let (store, program) = (u128::from_be_bytes(store), u64::from_be_bytes(program));
    format!("{store:032x}.{program:016x}.{revision}")
}

/// The same, read.
fn read_head(text: &str) -> Option<Head> {
    let mut parts = text.split('.');
    let store = u128::from_str_radix(parts.next()?, 16).ok()?.to_be_bytes();
    let program = u64::from_str_radix(parts.next()?, 16).ok()?.to_be_bytes();
    let revision = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some(Head { store, program, revision })
}

fn read_digest(text: &str) -> Option<[u8; 32]> {
    let (high, low) = text.split_at_checked(32)?;
    let half = |text| u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes);
    let (high, low) = (half(high)?, half(low).filter(|_| low.len() == 32)?);
    <[u8; 32]>::try_from([high, low].concat()).ok()
}

impl Known {
    /// For a query.
    pub(super) fn write(self) -> String {
        let mut text = format!("known={}", write_head(self.head));
        if let Some(digest) = self.digest {
            text += "&digest=";
            text.extend(digest.map(|byte| format!("{byte:02x}")));
        }
        text
    }

    /// From the values of a query. A place that is none is that of somebody who begins anew.
    pub(in crate::control) fn read(head: Option<&str>, digest: Option<&str>) -> Option<Self> {
        Some(Self { head: read_head(head?)?, digest: digest.and_then(read_digest) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::testing::{contents, vm};

    #[test]
    fn what_is_known_is_read_as_it_was_written() {
        let head = Head { store: [7; 16], program: PROGRAM, revision: 1 << 40 };
        for digest in [None, Some([9; 32])] {
            let known = Known { head, digest };
            let text = known.write();
            let value =
                |name| text.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            assert_eq!(Known::read(value("known"), value("digest")), Some(known), "{text}");
        }
        for wrong in ["", "1", "1.2", "1.2.3.4", "x.2.3"] {
            assert_eq!(Known::read(Some(wrong), None), None, "{wrong}");
        }
        let short = "0".repeat(63);
        let long = "0".repeat(65);
        for wrong in ["", "é", &short, &long, &"x".repeat(64)] {
            assert_eq!(read_digest(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_digest_is_of_what_there_is_and_not_of_its_order() {
        let all = contents();
        let mut turned = all.clone();
        turned.vms.reverse();
        turned.users.reverse();
        turned.addresses.reverse();
        assert_eq!(digest(turned), digest(all.clone()));
        let mut more = all.clone();
        more.vms.push(vm("green", "bob", "s002"));
        assert_ne!(digest(more), digest(all.clone()));
        let mut less = all.clone();
        less.users[0].keys.pop();
        assert_ne!(digest(less), digest(all));
    }
}
