//! The end of a front door: it goes on letting people in until its successor does, if there is one; then it gives up all that
//! it listens at, and lets sessions end by themselves.

#![expect(
    clippy::disallowed_methods,
    reason = "waits are measured by the clock; who leaves goes on hearing in threads"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::config;
use crate::config::Files;
use crate::edge::Edge;
use crate::edge::shared::Shared;
use crate::state::State;

use super::events::{Event, Events};
use super::notify::{self, State as Told};
use super::{Running, reload, told};

/// For a successor that is started right after the end of this one was asked for, to say that it is there.
const SUCCESSOR_COMES: Duration = Duration::from_secs(2);
/// For a successor to read the registry and to listen.
const SUCCESSOR_OPENS: Duration = Duration::from_secs(30);
/// For connections that were on their way to our listeners when the successor's took over: SYN and ACK, once lost.
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

impl Running {
    /// Lets sessions end by themselves for a while; a second signal ends the wait.
    pub(super) fn drain(self, events: Events) {
        let Self { plane, edge, shared, state, lock, doors, files, revoked_keys, .. } = self;
        let Self { health, drain, metrics, counted, .. } = self;
        let told = told::Drain::of(counted);
        events.close();
        let seen = state.followed().map(|(_, seen)| seen);
        let (edge_too, shared_too) = (Arc::clone(&edge), Arc::clone(&shared));
        let mut leaving = Leaving {
            events,
            files,
            revoked_keys,
            seen,
            state,
            edge: edge_too,
            shared: shared_too,
        };
        let waited = leaving.wait_until(SUCCESSOR_COMES, State::has_successor);
        let mut ended = waited == Waited::Ended;
        if waited == Waited::Came {
            // Connections on their way to three processes at once could not be told apart.
            ended = leaving.wait_until(2 * UNDER_WAY, |_| doors.are_open()) == Waited::Ended;
        } else {
            told.begins("nobody more is let in");
            notify::tell(Told::Stopping);
        }
        // The successor needs them before it can let anybody in.
        drop(metrics);
        let (follower, dns) = plane.hand_over();
        drop(lock);
        if let Some(follower) = follower {
            // The process ends with this drain, and this thread with it.
            let thread = std::thread::Builder::new().name("registry-follower".to_owned());
            if let Err(error) = thread.spawn(move || follower.run(&AtomicBool::new(false))) {
                tracing::error!(
                    "sessions go on without being told what is taken from them: {error}"
                );
            }
        }
        if waited == Waited::Came {
            if !ended {
                tracing::info!("a successor takes over: people are let in until it does so");
                // Another one may come for one that failed on its way.
                match leaving.wait_until(SUCCESSOR_OPENS, State::is_succeeded) {
                    Waited::Came => {
                        ended = leaving.wait_until(UNDER_WAY, |_| false) == Waited::Ended;
                    }
                    Waited::InVain => tracing::error!("no successor lets people in"),
                    Waited::Ended => ended = true,
                }
            }
            told.begins("nobody more is let in here");
        }
        health.drains();
        edge.stop_accepting();
        doors.close();
        drop(dns);
        if ended {
            shared.stop_waiting();
        }
        // The process ends with this drain, and this thread with it.
        std::thread::spawn(move || leaving.follow());
        edge.drain(drain, || told.is_over());
        told.end();
    }
}

/// A front door on its way out: it hears signals, and takes away what its own files and those of its successor take away.
struct Leaving {
    events: Events,
    files: Files,
    /// The list of what is revoked that was named last.
    revoked_keys: Option<PathBuf>,
    /// Which reading of the files by whoever serves was seen.
    seen: Option<(u64, i64)>,
    state: State,
    edge: Arc<Edge>,
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

    /// Whether all ends now. Ends sessions whose right is gone, by SIGHUP or when the successor reads its files.
    fn is_ended_within(&mut self, patience: Duration) -> bool {
        match self.events.next_within(patience) {
            Some(Event::Drain | Event::End) => {
                tracing::info!("ending now");
                return true;
            }
            Some(Event::Reload(..)) => self.read(self.files.config.clone()),
            None => match self.state.followed() {
                Some((config, reading)) if self.seen != Some(reading) => {
                    self.seen = Some(reading);
                    self.read(Some(config));
                }
                Some(_) | None => {}
            },
        }
        false
    }

    fn read(&self, config: Option<PathBuf>) {
        // Without a file there is nothing that could have changed.
        if let Some(config) = config.or_else(|| config::usual().map(PathBuf::from)) {
            reload::follow(&self.edge, &self.shared, &config, self.revoked_keys.as_deref());
        }
    }
}
