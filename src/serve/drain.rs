//! The end of a front door: it goes on letting people in until its successor does, if there is one; then it gives up all that
//! it listens at, and lets sessions end by themselves.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::cli::Files;
use crate::config;
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
        let files = Followed { files, revoked_keys, seen: state.followed().map(|(_, seen)| seen) };
        let waited = wait_until(&events, SUCCESSOR_COMES, &mut || state.has_successor());
        if waited != Waited::Came {
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
        let mut ended = waited == Waited::Ended;
        if waited == Waited::Came {
            tracing::info!("a successor takes over: people are let in until it does so");
            let opened = wait_until(&events, SUCCESSOR_OPENS, &mut || !state.has_successor());
            if opened == Waited::Came {
                ended = wait_until(&events, UNDER_WAY, &mut || false) == Waited::Ended;
            }
            ended |= opened == Waited::Ended;
            told.begins("nobody more is let in here");
        }
        health.drains();
        edge.stop_accepting();
        doors.close();
        drop(dns);
        if ended {
            shared.stop_waiting();
        }
        let (watched, present) = (Arc::clone(&edge), Arc::clone(&shared));
        // The process ends with this drain, and this thread with it.
        std::thread::spawn(move || files.follow(&events, &watched, &present, &state));
        edge.drain(drain, || told.is_over());
        told.end();
    }
}

/// Waits until something is so. Signals are heard meanwhile: one more of them means now.
fn wait_until(events: &Events, patience: Duration, so: &mut dyn FnMut() -> bool) -> Waited {
    let end = Instant::now() + patience;
    loop {
        if so() {
            return Waited::Came;
        }
        if Instant::now() >= end {
            return Waited::InVain;
        }
        if let Some(Event::Drain | Event::End) = events.next_within(LOOK) {
            tracing::info!("ending now");
            return Waited::Ended;
        }
    }
}

/// The files that say who is let in no more.
struct Followed {
    files: Files,
    revoked_keys: Option<PathBuf>,
    /// Which reading of them by whoever serves was seen.
    seen: Option<(u64, i64)>,
}

impl Followed {
    /// Ends sessions whose right is gone, by SIGHUP or when the successor reads its files; until a second signal ends it all.
    fn follow(mut self, events: &Events, edge: &Edge, shared: &Shared, state: &State) {
        // A SIGHUP may have come while the doors were handed over.
        self.read(self.files.config.clone(), edge, shared);
        loop {
            let config = match events.next_within(LOOK_AT_FILES) {
                Some(Event::Drain | Event::End) => {
                    tracing::info!("ending now");
                    shared.stop_waiting();
                    return;
                }
                Some(Event::Reload(..)) => self.files.config.clone(),
                None => match state.followed() {
                    Some((config, reading)) if self.seen != Some(reading) => {
                        self.seen = Some(reading);
                        Some(config)
                    }
                    Some(_) | None => continue,
                },
            };
            self.read(config, edge, shared);
        }
    }

    fn read(&self, config: Option<PathBuf>, edge: &Edge, shared: &Shared) {
        // Without a file there is nothing that could have changed.
        if let Some(config) = config.or_else(|| config::usual().map(PathBuf::from)) {
            reload::follow(edge, shared, &config, self.revoked_keys.as_deref());
        }
    }
}
