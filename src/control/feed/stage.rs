//! A large commit, and the one follower that has it before the others: the canary.
//!
//! It has to take it, have what control has, be well, and stay so for a while. Until then nothing
//! goes to the others that the commit concerns but what is taken away. Whatever keeps the canary
//! from it is told once, as an error; it may still come to it, or an operator lets all go.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::HEARTBEAT;

/// A commit is large that touches more than this part of what an agent has.
const LARGE_PERCENT: usize = 1;
/// And so many entries of it: of five VMs each is more than a hundredth.
const LARGE_MIN: usize = 32;
/// How long the canary may take beside the time that it is watched.
const REPORT_MAX: Duration = Duration::from_secs(10);

/// Whether a commit that touches so many of so many entries is shown to a canary first.
pub(super) fn is_large(touched: usize, of: usize) -> bool {
    touched >= LARGE_MIN && touched.saturating_mul(100) > of.saturating_mul(LARGE_PERCENT)
}

/// How a canary is.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(in crate::control) struct Report {
    /// How far it has come.
    pub(in crate::control) revision: u64,
    /// Of all that it has, if it can tell.
    pub(in crate::control) digest: Option<[u8; 32]>,
    /// Whether it works.
    pub(in crate::control) well: bool,
}

/// A commit that is shown to one follower first.
#[derive(Debug)]
pub(super) struct Stage {
    /// The node of the canary.
    pub(super) canary: Arc<str>,
    /// What the canary has to come to.
    pub(super) revision: u64,
    begun: Option<Instant>,
    asked: Option<Instant>,
    well_since: Option<Instant>,
    /// What keeps it, once that was told.
    pub(super) trouble: Option<String>,
}

impl Stage {
    pub(super) const fn new(canary: Arc<str>, revision: u64) -> Self {
        Self { canary, revision, begun: None, asked: None, well_since: None, trouble: None }
    }

    /// Another commit comes to the canary: it has to take that too.
    pub(super) fn again(&mut self, revision: u64) {
        *self = Self::new(Arc::clone(&self.canary), revision);
    }

    /// Whether somebody who has come so far is asked how it is. Anybody's time is good to look how
    /// long it takes.
    pub(super) fn asks(&mut self, who: &str, after: u64, now: Instant, watched: Duration) -> bool {
        let begun = *self.begun.get_or_insert(now);
        if now.duration_since(begun) > watched + REPORT_MAX {
            self.troubled("it has not said in time that it is well");
        }
        let is_asked = self.asked.is_some_and(|at| now.duration_since(at) < HEARTBEAT / 2);
        let asks = *who == *self.canary && after >= self.revision && !is_asked;
        if asks {
            self.asked = Some(now);
        }
        asks
    }

    /// The canary is well; whether it has been for as long as it is watched.
    pub(super) fn is_well(&mut self, now: Instant, watched: Duration) -> bool {
        now.duration_since(*self.well_since.get_or_insert(now)) >= watched
    }

    /// The canary does not come to it.
    pub(super) fn troubled(&mut self, why: &str) {
        self.well_since = None;
        if self.trouble.is_some() {
            return;
        }
        self.trouble = Some(why.to_owned());
        let (node, revision) = (&*self.canary, self.revision);
        tracing::error!(
            node,
            revision,
            "a large commit is held back from all agents but one, which has it first: {why}; fix: look at the log of the \
             agent of node {node}; then change what is wrong, which comes to it too, or let it go to all with `keyway node \
             release`"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_large_by_its_part_and_by_its_number() {
        assert!(!is_large(31, 100), "few");
        assert!(is_large(32, 100));
        assert!(!is_large(32, 3_200), "a hundredth, and not more");
        assert!(is_large(33, 3_200));
    }

    #[test]
    fn a_canary_is_asked_until_it_was_well_for_long_enough() {
        #[expect(clippy::disallowed_methods, reason = "a moment to count from")]
        let start = Instant::now();
        let (at, watched) = (|s| start + Duration::from_secs(s), Duration::from_secs(5));
        let mut stage = Stage::new("n1".into(), 11);
        assert!(!stage.asks("n2", 11, at(0), watched) && !stage.asks("n1", 10, at(0), watched));
        assert!(stage.asks("n1", 11, at(0), watched));
        assert!(!stage.asks("n1", 11, at(0), watched), "it was just asked");
        assert!(!stage.is_well(at(1), watched) && !stage.is_well(at(5), watched));
        assert!(stage.is_well(at(6), watched));
        stage.troubled("gone");
        assert!(!stage.is_well(at(7), watched) && stage.is_well(at(12), watched));
        assert!(stage.trouble.is_some());
        // So does one that says nothing.
        stage.again(12);
        assert!(!stage.asks("n2", 0, at(20), watched) && stage.trouble.is_none());
        assert!(!stage.asks("n2", 0, at(36), watched) && stage.trouble.is_some());
    }
}
