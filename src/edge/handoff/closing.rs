//! Sessions that an edge ends and that this agent words to their users: the edge has no key.

use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::super::clock;
use super::signers::Of;
use crate::ended::Cause;

/// How long an end is remembered at least, in milliseconds: longer than the edge waits for the
/// words, after which it closes.
const KNOWN_MS_MIN: u64 = 2_000;
/// Ends remembered of so many milliseconds. Those that are more come without a word.
const KNOWN_MAX: usize = 1 << 16;
/// Why an edge ends a session that is established.
const CAUSES: [Cause; 7] = [
    Cause::RightLost,
    Cause::RightNarrowed,
    Cause::RightExpired,
    Cause::VmMaintenance,
    Cause::AddressMaintenance,
    Cause::Drained,
    Cause::Killed,
];

/// Has sessions looked at for which an end is known.
type Look = Box<dyn Fn(Of, Cause) + Send + Sync>;

/// The ends that edges have told of.
#[derive(Default)]
pub(in crate::edge) struct Closing {
    known: Mutex<Known>,
    look: OnceLock<Look>,
}

/// What was told last: of the two the earlier is dropped as a whole.
#[derive(Default)]
struct Known {
    began_ms: u64,
    young: HashMap<Of, Cause>,
    old: HashMap<Of, Cause>,
}

impl Closing {
    /// `look` finds a session wherever it is. It stays the first.
    pub(in crate::edge) fn look_with(&self, look: Look) {
        let _first = self.look.set(look);
    }

    /// An edge ends a session of its own, for a reason in its words.
    pub(in crate::edge) fn told(&self, of: Of, reason: &str) {
        let known = CAUSES.into_iter().find(|cause| cause.as_str() == reason);
        // An edge that is newer has a reason that is not known here.
        let cause = known.unwrap_or(Cause::Killed);
        if self.known().add(of, cause, clock::monotonic_ms())
            && let Some(look) = self.look.get()
        {
            look(of, cause);
        }
    }

    /// Why a session ends, if its edge has said so.
    pub(in crate::edge) fn cause(&self, of: Of) -> Option<Cause> {
        let known = self.known();
        known.young.get(&of).or_else(|| known.old.get(&of)).copied()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// False if there are too many.
    fn add(&mut self, of: Of, cause: Cause, now_ms: u64) -> bool {
        if now_ms.saturating_sub(self.began_ms) >= KNOWN_MS_MIN {
            self.old = mem::take(&mut self.young);
            self.began_ms = now_ms;
        }
        let has_room = self.young.len() < KNOWN_MAX;
        if has_room {
            self.young.insert(of, cause);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;
    use crate::ssh::publickey::Fingerprint;

    const EDGE: Fingerprint = Fingerprint([1; 32]);

    #[test]
    fn a_reason_is_one_of_a_closed_set_whatever_is_said_and_the_edges_own_session_is_meant() {
        let closing = Arc::new(Closing::default());
        let (looks, looked) = mpsc::channel();
        closing.look_with(Box::new(move |of, cause| looks.send((of, cause)).unwrap()));
        let said = [
            ("drained", Cause::Drained),
            ("right_lost", Cause::RightLost),
            ("closed", Cause::Killed),
            ("\u{1b}[2J", Cause::Killed),
        ];
        for (session, (reason, cause)) in (0..).zip(said) {
            closing.told((EDGE, session), reason);
            assert_eq!(looked.recv().unwrap(), ((EDGE, session), cause));
            assert_eq!(closing.cause((EDGE, session)), Some(cause));
            assert_eq!(closing.cause((Fingerprint([2; 32]), session)), None, "another edge's");
        }
    }

    #[test]
    fn an_end_is_remembered_for_two_seconds_and_then_forgotten_and_no_more_than_there_is_room_for()
    {
        let mut known = Known::default();
        assert!(known.add((EDGE, 1), Cause::Killed, 10_000));
        assert!(known.add((EDGE, 2), Cause::Killed, 10_000 + KNOWN_MS_MIN));
        assert!(known.old.contains_key(&(EDGE, 1)) && known.young.len() == 1);
        assert!(known.add((EDGE, 3), Cause::Killed, 10_000 + 2 * KNOWN_MS_MIN));
        assert!(!known.old.contains_key(&(EDGE, 1)));
        let now_ms = 10_000 + 2 * KNOWN_MS_MIN;
        let added = (0..).take_while(|of| known.add((EDGE, 10 + of), Cause::Killed, now_ms));
        assert_eq!(added.count(), KNOWN_MAX - 1);
    }
}
