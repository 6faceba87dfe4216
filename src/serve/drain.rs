//! The end of a front door or an agent: it goes on letting people in until its successor does, if
//! there is one; then it gives up all that it listens at, and lets sessions end by themselves.

#![expect(
    clippy::disallowed_methods,
    reason = "waits are measured by the clock; who leaves goes on hearing in threads"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::events::{Event, Events};
use super::notify::{self, State as Told};
use super::told;
use crate::edge::Edge;
use crate::edge::shared::Shared;
use crate::metrics::Registry;
use crate::state::{Doors, State};

/// For a successor that is started right after the end of this one was asked for, to say
/// that it is there.
const SUCCESSOR_COMES: Duration = Duration::from_secs(2);
/// For a successor to read the registry and to listen.
const SUCCESSOR_OPENS: Duration = Duration::from_secs(30);
/// For connections that were on their way to our listeners when the successor's took over: SYN
/// and ACK, once lost.
const UNDER_WAY: Duration = Duration::from_secs(1);
/// How often a successor is looked for.
const LOOK: Duration = Duration::from_millis(10);
/// How often a process that drains looks whether its successor has read its files again.
const LOOK_AT_FILES: Duration = Duration::from_millis(250);

/// What came of waiting for a successor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Waited {
    /// What was waited for is so.
    Came,
    /// It did not come in time.
    InVain,
    /// Somebody wants this to end now.
    Ended,
}

/// Takes away what the file takes away that is named, or that the process was started with.
pub(super) type Withdraw = Box<dyn Fn(Option<PathBuf>) + Send>;

/// Whoever drains.
pub(super) struct Leaves {
    pub(super) edge: Arc<Edge>,
    pub(super) shared: Arc<Shared>,
    pub(super) state: State,
    pub(super) doors: Arc<Doors>,
    /// How long sessions may go on.
    pub(super) patience: Duration,
    pub(super) counted: Arc<Registry>,
    pub(super) withdraw: Withdraw,
}

impl Leaves {
    /// Lets sessions end by themselves for a while; a second signal ends the wait. `hand_over`
    /// gives up what a successor needs before it can let anybody in; what comes of it is given up
    /// when the successor does, or there is none.
    pub(super) fn drain<Kept>(self, events: Events, hand_over: impl FnOnce() -> Kept) {
        let Self { edge, shared, state, doors, patience, counted, withdraw } = self;
        let told = told::Drain::of(counted);
        events.close();
        let seen = state.followed().map(|(_, seen)| seen);
        let mut leaving = Leaving { events, withdraw, seen, state, shared: Arc::clone(&shared) };
        let waited = leaving.wait_until(SUCCESSOR_COMES, State::has_successor);
        let mut ended = waited == Waited::Ended;
        if waited == Waited::Came {
            // Connections on their way to three processes at once could not be told apart.
            ended = leaving.wait_until(2 * UNDER_WAY, |_| doors.are_open()) == Waited::Ended;
        } else {
            told.begins("nobody more is let in");
            notify::tell(Told::Stopping);
        }
        let kept = hand_over();
        if waited == Waited::Came {
            if !ended {
                tracing::info!("a successor takes over: people are let in until it does so");
                // Another one may come for one that failed on its way.
                match leaving.wait_until(SUCCESSOR_OPENS, State::is_succeeded) {
                    Waited::Came => {
                        shared.leave();
                        ended = leaving.wait_until(UNDER_WAY, |_| false) == Waited::Ended;
                    }
                    Waited::InVain => tracing::error!("no successor lets people in"),
                    Waited::Ended => ended = true,
                }
            }
            told.begins("nobody more is let in here");
        }
        edge.stop_accepting();
        doors.close();
        drop(kept);
        if ended {
            shared.stop_waiting();
        }
        // The process ends with this drain, and this thread with it.
        std::thread::spawn(move || leaving.follow());
        edge.drain(patience, || told.is_over());
        told.end();
    }
}

/// A process on its way out: it hears signals, and takes away what its own files and those of its
/// successor take away.
struct Leaving {
    events: Events,
    withdraw: Withdraw,
    /// Which reading of the files by whoever serves was seen.
    seen: Option<(u64, i64)>,
    state: State,
    shared: Arc<Shared>,
}

impl Leaving {
    /// Waits until something is so. One more signal means now.
    fn wait_until(&mut self, patience: Duration, mut so: impl FnMut(&State) -> bool) -> Waited {
        let end = Instant::now() + patience;
        loop {
            if so(&self.state) {
                return Waited::Came;
            }
            if Instant::now() >= end {
                return Waited::InVain;
            }
            if self.is_ended_within(LOOK) {
                return Waited::Ended;
            }
        }
    }

    /// Until a second signal ends it all.
    fn follow(mut self) {
        while !self.is_ended_within(LOOK_AT_FILES) {}
        self.shared.stop_waiting();
    }

    /// Whether all ends now. Ends sessions whose right is gone, by SIGHUP or when the successor
    /// reads its files.
    fn is_ended_within(&mut self, patience: Duration) -> bool {
        match self.events.next_within(patience) {
            Some(Event::Drain | Event::End) => {
                tracing::info!("ending now");
                return true;
            }
            Some(Event::Reload(..)) => (self.withdraw)(None),
            None => match self.state.followed() {
                Some((config, reading)) if self.seen != Some(reading) => {
                    self.seen = Some(reading);
                    (self.withdraw)(Some(config));
                }
                Some(_) | None => {}
            },
        }
        false
    }
}
