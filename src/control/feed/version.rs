//! Which version of the frames two programs speak with each other: the newest that both know.

use std::fmt;
use std::ops::RangeInclusive;

use crate::route::saved_routes::{VERSION, VERSION_BEFORE};

/// Versions that are spoken here: the newest, and the one before it.
pub(in crate::control) const SPOKEN: RangeInclusive<u16> = VERSION_BEFORE..=VERSION;

/// There is no version that both speak.
#[derive(Debug, Eq, PartialEq)]
pub(in crate::control) struct Disagreement {
    /// Spoken here.
    ours: RangeInclusive<u16>,
    theirs: RangeInclusive<u16>,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ours, theirs } = self;
        if theirs.end() < ours.start() {
            let (last, first) = (theirs.end(), ours.start());
            return write!(
                f,
                "the follower speaks version {last} of the feed at most, and this front door {first} \
                 at least; fix: upgrade the follower"
            );
        }
        let (first, last) = (theirs.start(), ours.end());
        write!(
            f,
            "the follower speaks version {first} of the feed at least, and this front door {last} at \
             most; fix: upgrade the front door first"
        )
    }
}

/// The newest that is spoken by both.
pub(in crate::control) fn agreed(
    ours: RangeInclusive<u16>,
    theirs: RangeInclusive<u16>,
) -> Result<u16, Disagreement> {
    let newest = *ours.end().min(theirs.end());
    if ours.contains(&newest) && theirs.contains(&newest) {
        Ok(newest)
    } else {
        Err(Disagreement { ours, theirs })
    }
}

/// What somebody speaks, in a word: `4-5`.
pub(super) fn write(spoken: &RangeInclusive<u16>) -> String {
    format!("{}-{}", spoken.start(), spoken.end())
}

/// The same, read.
pub(in crate::control) fn read(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-')?;
    let spoken = first.parse().ok()?..=last.parse().ok()?;
    (!spoken.is_empty()).then_some(spoken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_that_both_speak_is_spoken() {
        assert_eq!(agreed(4..=5, 4..=5), Ok(5));
        assert_eq!(agreed(4..=5, 3..=4), Ok(4), "a follower of the last version is served");
        assert_eq!(agreed(4..=5, 5..=6), Ok(5), "so is one of the next");
        assert_eq!(agreed(4..=4, 3..=5), Ok(4));
    }

    #[test]
    fn whoever_speaks_no_such_version_is_told_which_end_to_upgrade() {
        let says = |theirs| agreed(4..=5, theirs).unwrap_err().to_string();
        let old = says(2..=3);
        assert!(
            old.contains("3 of the feed at most") && old.contains("upgrade the follower"),
            "{old}"
        );
        let new = says(6..=7);
        assert!(
            new.contains("6 of the feed at least") && new.contains("front door first"),
            "{new}"
        );
    }

    #[test]
    fn what_is_spoken_is_read_as_it_was_written_and_nothing_else_is() {
        assert_eq!(read(&write(&(4..=5))), Some(4..=5));
        for wrong in ["", "4", "-", "5-4", "4-x", "4-5-6", "-1-4", "70000-70001"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
