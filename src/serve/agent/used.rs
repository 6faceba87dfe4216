//! Sessions that this agent has taken, for the one that comes after it: a proof is good once,
//! whatever was restarted meanwhile. Written behind the logins, by a thread: none waits for a disk.

#![expect(clippy::disallowed_methods, reason = "whoever waits for a disk is a thread of its own")]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use super::super::start::Failure;
use crate::edge::clock;
use crate::edge::handoff::{Part, SEEN_S_MIN};
use crate::edge::shared::Shared;
use crate::state::{State, UsedProof, UsedProofs};

/// Sessions that wait to be written down. A disk that stands still costs what is more.
const WAITING_MAX: usize = 1 << 16;
/// How often it is made sure that a crash of the host leaves what was written, and looked what a
/// process that drains has taken.
const SYNC_AFTER: Duration = Duration::from_secs(1);
/// For how long that one may take something: until we listen, and what was on its way then.
const BESIDE: Duration = Duration::from_mins(5);

/// Has an agent know what was taken before, and keeps what it takes.
///
/// # Errors
/// What was taken before cannot be read.
pub(super) fn keep(state: &State, shared: &Arc<Shared>) -> Result<(), Failure> {
    let Part::Agent(agent) = &shared.part else { return Ok(()) };
    let mut file = state.used_proofs(SEEN_S_MIN);
    agent.were_taken(file.add(&[], clock::unix_s())?.into_iter().map(|(id, _)| id));
    let (sender, taken) = sync_channel(WAITING_MAX);
    agent.keep_taken_with(move |id, now_s| {
        let _full = sender.try_send((id, now_s));
    });
    let shared = Arc::downgrade(shared);
    let mut tell = move |others: Vec<UsedProof>| {
        if let Some(shared) = shared.upgrade()
            && let Part::Agent(agent) = &shared.part
        {
            agent.were_taken(others.into_iter().map(|(id, _)| id));
        }
    };
    // Ends with the agent, which holds the other end.
    std::thread::Builder::new()
        .name("used-proofs".to_owned())
        .spawn(move || write(&mut file, &taken, &mut tell))?;
    Ok(())
}

fn write(file: &mut UsedProofs, taken: &Receiver<UsedProof>, tell: &mut dyn FnMut(Vec<UsedProof>)) {
    let begun = Instant::now();
    let (mut synced, mut is_synced, mut works) = (begun, true, true);
    loop {
        let looks = !is_synced || begun.elapsed() < BESIDE;
        let next = if looks {
            taken.recv_timeout(SYNC_AFTER)
        } else {
            taken.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        let mut more: Vec<UsedProof> = match next {
            Ok(first) => vec![first],
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        more.extend(taken.try_iter());
        is_synced &= more.is_empty();
        let mut written = file.add(&more, clock::unix_s()).map(&mut *tell);
        if !is_synced && synced.elapsed() >= SYNC_AFTER {
            written = written.and_then(|()| file.sync());
            (synced, is_synced) = (Instant::now(), true);
        }
        // Said once, until it works again.
        if let Err(fault) = &written
            && works
        {
            tracing::warn!("a restart will not know which sessions were taken: {fault}");
        }
        works = written.is_ok();
    }
}
