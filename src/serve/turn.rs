//! Two processes on one state directory: the later one takes its turn, and listens beside the other
//! until that has closed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::door::cpus;
use super::events::{Event, Events};
use super::notify::{self, State as Told};
use super::start::Failure;
use crate::config;
use crate::edge::{Edge, listen};
use crate::state::{Doors, Lock, State, StateFault, Turn};

/// How long a successor waits for its turn. Whoever was started by mistake is told then.
const TURN_COMES: Duration = Duration::from_mins(1);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(10);

/// What a process has once its turn has come.
pub(super) struct Taken {
    pub(super) state: State,
    pub(super) doors: Arc<Doors>,
    pub(super) cpus: Vec<usize>,
    pub(super) reserved: listen::Reserved,
    pub(super) lock: Lock,
    pub(super) turn: Turn,
}

impl Taken {
    /// Takes the addresses of `edge`, and its turn at `state`.
    pub(super) fn take(
        state: State,
        edge: &config::Edge,
        events: &Events,
    ) -> Result<Self, Failure> {
        let cpus = cpus(edge.shards)?;
        let doors = Arc::new(state.doors()?);
        let is_beside = doors.others()?.is_some();
        // What is in use by others is known before a predecessor is asked to go.
        let reserved = listen::reserve(&edge.listen, &cpus, is_beside)?;
        let (lock, turn) = take_turn(&state, events)?;
        Ok(Self { state, doors, cpus, reserved, lock, turn })
    }
}

/// Takes the state directory, once a predecessor has been told to go.
#[expect(clippy::disallowed_methods, reason = "the wait for the turn is measured by the clock")]
fn take_turn(state: &State, events: &Events) -> Result<(Lock, Turn), Failure> {
    let says = |taken: &StateFault| {
        tracing::info!("waiting until it hands over, which SIGTERM tells it to: {taken}");
        notify::tell(Told::Status("waiting for the keyway that serves to hand over"));
    };
    let end = Instant::now() + TURN_COMES;
    let mut waits = || {
        // What a reload would read is read behind the turn.
        let told = events.next_within(LOOK);
        !matches!(told, Some(Event::Drain | Event::End)) && Instant::now() < end
    };
    Ok(state.lock_in_turn(&says, &mut waits)?)
}

/// Says that this process listens: at once, or when the one that listens beside it has
/// closed its doors.
#[expect(clippy::disallowed_methods, reason = "a thread waits until the predecessor is gone")]
pub(super) fn follow_at_the_doors(
    doors: &Arc<Doors>,
    beside: Option<usize>,
    shards: usize,
    edge: &Arc<Edge>,
) -> Result<(), Failure> {
    if beside.is_none() {
        edge.is_alone();
        return Ok(doors.open(shards)?);
    }
    let (doors, edge) = (Arc::clone(doors), Arc::downgrade(edge));
    let alone = move || {
        let said = doors.wait().and_then(|()| doors.open(shards));
        if let Err(fault) = said {
            tracing::warn!("a successor will not know that this keyway listens: {fault}");
        }
        if let Some(edge) = edge.upgrade() {
            edge.is_alone();
        }
    };
    std::thread::Builder::new().name("predecessor".to_owned()).spawn(alone)?;
    Ok(())
}
