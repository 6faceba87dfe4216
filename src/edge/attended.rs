//! Connections of users that the door attends to itself: their VM is reached, or they visit the
//! lobby. Listed and ended like sessions.
//!
//! One list a shard. The door enters a connection and takes it out; every other thread may look,
//! and say of one that it has to end, which its task then hears. What is handed over to the pump is
//! always in one of the two, or in both.

use std::cell::Cell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use super::executor::Wake;
use super::report::Report;
use crate::ended::{Cause, Stage};
use crate::metrics::Counters;

/// How far somebody who proved a key has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Progress {
    /// At the lobby, where it stays.
    Lobby,
    /// The VM is dialled, or logged in to; or the user is told why not.
    Dialling,
    /// The session is on the pump.
    Established,
}

/// The list of one shard.
pub(super) struct Attended {
    all: Mutex<All>,
    /// The door's: it alone enters and takes out.
    counters: Arc<Counters>,
}

#[derive(Default)]
struct All {
    /// By a number of our own: a request's comes from the edge where an agent attends to it.
    entries: HashMap<u64, Entry>,
    last: u64,
    /// How many of them dial.
    dialling: u64,
}

struct Entry {
    report: Arc<Report>,
    progress: Progress,
    /// Why it has to end, if it has.
    eviction: Option<Cause>,
    wake: Wake,
}

/// One connection in the list, until this is dropped. Stays with the task that it was made for.
pub(super) struct Waiting {
    of: Arc<Attended>,
    number: u64,
    pub(super) report: Arc<Report>,
    /// How far it has come.
    pub(super) stage: Cell<Stage>,
}

impl Attended {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Self { all: Mutex::default(), counters }
    }

    /// Enters the connection that `report` tells of, whose task `wake` wakes, and which has
    /// come to `stage`.
    pub(super) fn enter(self: &Arc<Self>, report: Report, stage: Stage, wake: Wake) -> Waiting {
        let report = Arc::new(report);
        let progress = if stage == Stage::Lobby { Progress::Lobby } else { Progress::Dialling };
        let entry = Entry { report: Arc::clone(&report), progress, eviction: None, wake };
        let mut all = self.all();
        all.dialling += u64::from(progress == Progress::Dialling);
        all.last += 1;
        let number = all.last;
        all.entries.insert(number, entry);
        self.counters.dialling(all.dialling);
        drop(all);
        Waiting { of: Arc::clone(self), number, report, stage: Cell::new(stage) }
    }

    /// Shows every connection there is to `visit`, and has those ended that it has a cause
    /// for. Must be quick.
    pub(super) fn visit(&self, mut visit: impl FnMut(&Report, Progress) -> Option<Cause>) {
        for entry in self.all().entries.values_mut() {
            if let Some(cause) = visit(&entry.report, entry.progress) {
                entry.eviction = Some(cause);
                entry.wake.wake();
            }
        }
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Waits until somebody has it ended, and says why; once for each who does.
    pub(super) async fn eviction(&self) -> Cause {
        poll_fn(|_| match self.take_verdict(&mut self.of.all()) {
            Some(cause) => Poll::Ready(cause),
            None => Poll::Pending,
        })
        .await
    }

    fn take_verdict(&self, all: &mut All) -> Option<Cause> {
        all.entries.get_mut(&self.number)?.eviction.take()
    }

    /// Hands the connection over by `hand_over`, unless it has to end: nobody who looks here and
    /// then where it went to misses it.
    ///
    /// # Errors
    /// Why it has to end.
    pub(super) fn leave<T>(self, hand_over: impl FnOnce(&Report) -> T) -> Result<T, Cause> {
        let mut all = self.of.all();
        match self.take_verdict(&mut all) {
            Some(cause) => Err(cause),
            None => Ok(hand_over(&self.report)),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut all = self.of.all();
        let gone = all.entries.remove(&self.number);
        let dialled = gone.is_some_and(|entry| entry.progress == Progress::Dialling);
        all.dialling -= u64::from(dialled);
        self.of.counters.dialling(all.dialling);
    }
}

#[cfg(test)]
mod tests {
    use super::super::executor::tests::run;
    use super::*;
    use crate::edge::report::RequestId;

    /// Between the dial's end and the pump nobody waits for a verdict.
    #[test]
    fn a_kill_just_before_the_hand_over_is_honoured_and_of_that_one_only() {
        run(|tasks| async move {
            let attended = Arc::new(Attended::new(Arc::new(Counters::default())));
            let enter = |number| {
                let client = ([192, 0, 2, 1], 2222).into();
                let wake = tasks.wake_me().unwrap();
                attended.enter(Report::new(RequestId(number), client, 0), Stage::Dial, wake)
            };
            let (killed, other) = (enter(1), enter(2));
            attended.visit(|report, _| (report.request.0 == 1).then_some(Cause::Killed));
            let handed = killed.leave(|_| panic!("it was handed over"));
            assert_eq!(handed, Err::<(), _>(Cause::Killed));
            assert_eq!(other.leave(|report| report.request.0), Ok(2));
            assert!(attended.all().entries.is_empty());
        });
    }

    /// An edge that is wrong, or stolen, says what it likes.
    #[test]
    fn two_of_one_request_id_are_two() {
        run(|tasks| async move {
            let attended = Arc::new(Attended::new(Arc::new(Counters::default())));
            let enter = || {
                let report = Report::new(RequestId(7), ([192, 0, 2, 1], 2222).into(), 0);
                attended.enter(report, Stage::Dial, tasks.wake_me().unwrap())
            };
            let (one, other) = (enter(), enter());
            assert_eq!(attended.all().dialling, 2);
            attended.visit(|report, _| (report.request.0 == 7).then_some(Cause::Killed));
            assert_eq!(
                (one.eviction().await, other.eviction().await),
                (Cause::Killed, Cause::Killed)
            );
            drop((one, other));
            assert_eq!(attended.all().dialling, 0);
        });
    }
}
