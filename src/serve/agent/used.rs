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
    // What could not be written: tried again for as long as it could be used again.
    let mut kept: Vec<UsedProof> = Vec::new();
    loop {
        let looks = !is_synced || !kept.is_empty() || begun.elapsed() < BESIDE;
        let next = if looks {
            taken.recv_timeout(SYNC_AFTER)
        } else {
            taken.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        match next {
            Ok(first) => kept.push(first),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        kept.extend(taken.try_iter());
        is_synced &= kept.is_empty();
        let now_s = clock::unix_s();
        let mut written = file.add(&kept, now_s).map(&mut *tell);
        if written.is_ok() {
            kept.clear();
        } else {
            kept.retain(|(_, used_s)| now_s.saturating_sub(*used_s) < SEEN_S_MIN);
            kept.drain(..kept.len().saturating_sub(WAITING_MAX));
        }
        if !is_synced && synced.elapsed() >= SYNC_AFTER {
            written = written.and_then(|()| file.sync());
            (synced, is_synced) = (Instant::now(), true);
        }
        // Said once, until it works again.
        match &written {
            Err(fault) if works => tracing::error!(
                "a restart would not know which sessions were taken, and take them again until their proofs are too old: \
                 {fault}"
            ),
            Ok(()) if !works => tracing::info!("it is kept again which sessions were taken"),
            Ok(()) | Err(_) => {}
        }
        works = written.is_ok();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::scratch::Scratch;

    #[test]
    fn what_could_not_be_written_is_written_once_it_can_be() {
        let scratch = Scratch::new();
        let state = State::open(&scratch.0.join("state")).unwrap();
        let in_the_way = scratch.0.join("state").join("used_proofs");
        fs::create_dir(&in_the_way).unwrap();
        // The second is taken once the first could not be written.
        let (sender, taken) = sync_channel(0);
        let mut file = state.used_proofs(SEEN_S_MIN);
        let writer = std::thread::spawn(move || write(&mut file, &taken, &mut drop));
        let now_s = clock::unix_s();
        let proofs = [([1; 16], now_s), ([2; 16], now_s)];
        for proof in proofs {
            sender.send(proof).unwrap();
        }
        fs::remove_dir(&in_the_way).unwrap();
        let end = Instant::now() + Duration::from_mins(1);
        while fs::metadata(&in_the_way).map_or(0, |about| about.len()) < 48 {
            assert!(Instant::now() < end, "it is lost");
            std::thread::yield_now();
        }
        drop(sender);
        writer.join().unwrap();
        assert_eq!(state.used_proofs(SEEN_S_MIN).add(&[], now_s).unwrap(), proofs);
    }
}
