//! A few threads for work that blocks, and a queue before them: how many wait is not how many
//! threads there are.
//!
//! One pool a kind of work, so that what hangs keeps nothing else waiting. Threads come with the
//! first work, as many as there is work for, and stay.

#![expect(
    clippy::disallowed_methods,
    reason = "what would block a door is done by threads beside it"
)]

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

type Job = Box<dyn FnOnce() + Send>;

/// Takes work from any thread. What still waits when this is dropped is dropped too.
pub(super) struct Workers(Arc<Pool>);

struct Pool {
    /// Of its threads; at most 15 bytes are shown.
    name: &'static str,
    threads_max: usize,
    waiting_max: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    threads: usize,
    idle: usize,
    is_over: bool,
}

impl Workers {
    /// No thread yet.
    pub(super) fn new(name: &'static str, threads_max: usize, waiting_max: usize) -> Self {
        let state = Mutex::default();
        let changed = Condvar::new();
        Self(Arc::new(Pool { name, threads_max, waiting_max, state, changed }))
    }

    /// Has `job` done in its turn. False, and it is dropped: too much waits already, or no
    /// thread can be had.
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) -> bool {
        let pool = &self.0;
        let mut state = pool.state();
        if state.waiting.len() >= pool.waiting_max {
            return false;
        }
        state.waiting.push_back(Box::new(job));
        if state.waiting.len() > state.idle && state.threads < pool.threads_max {
            let theirs = Arc::clone(pool);
            match thread::Builder::new().name(pool.name.into()).spawn(move || theirs.work()) {
                Ok(_) => state.threads += 1,
                // The others take it in their turn.
                Err(_) if state.threads > 0 => {}
                Err(_) => return state.waiting.pop_back().is_none(),
            }
        }
        pool.changed.notify_one();
        true
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_over = true;
        let unbegun = std::mem::take(&mut state.waiting);
        drop(state);
        self.0.changed.notify_all();
        // Not under the lock, whatever they own.
        drop(unbegun);
    }
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            if state.is_over {
                return;
            }
            let Some(job) = state.waiting.pop_front() else {
                state.idle += 1;
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
                continue;
            };
            drop(state);
            // Whoever waits for it sees that there is no answer.
            let _panicked = catch_unwind(AssertUnwindSafe(job));
            state = self.state();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn work_waits_for_a_thread_and_is_refused_only_when_too_much_waits() {
        let workers = Workers::new("test", 2, 3);
        let (go, gate) = mpsc::channel::<()>();
        let (gate, (done, all)) = (Arc::new(Mutex::new(gate)), mpsc::channel());
        let (begun, started) = mpsc::channel();
        let job = |number: u32| {
            let (gate, done, begun) = (Arc::clone(&gate), done.clone(), begun.clone());
            move || {
                begun.send(()).unwrap();
                let _ended = gate.lock().unwrap().recv();
                done.send(number).unwrap();
                assert!(number != 0, "a panic costs its own work");
            }
        };
        for number in 0..2 {
            assert!(workers.run(job(number)));
            started.recv().unwrap();
        }
        for number in 2..5 {
            assert!(workers.run(job(number)));
        }
        assert!(!workers.run(job(5)));
        drop(go);
        let mut numbers: Vec<u32> = all.iter().take(5).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2, 3, 4]);
        assert!(workers.run(job(6)));
        assert_eq!(all.recv(), Ok(6));
        assert!(workers.0.state().threads <= 2);
    }

    #[test]
    fn threads_end_with_the_pool() {
        let workers = Workers::new("test", 1, 1);
        assert!(workers.run(|| {}));
        let pool = Arc::downgrade(&workers.0);
        drop(workers);
        while pool.strong_count() > 0 {
            thread::yield_now();
        }
    }
}
