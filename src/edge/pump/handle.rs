//! The way into a pump from other threads: a queue and a wake.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::epoll::Waker;
use super::super::relay::Want;
use super::super::slab::Key;
use super::{Ask, Check, Session, Visit};

/// What a pump is told.
pub(super) enum Command<I> {
    Session(Box<Session<I>>),
    Visit(Visit<I>),
    /// Whom to ask for what sessions want.
    AskWith(Ask<I>),
    /// What a session wanted; `None`: there is none.
    Answered(Key, Want, Option<Vec<u8>>),
    EndAll,
    Stop,
}

/// What the handles and the thread share.
pub(super) struct Shared<I> {
    queue: Mutex<Queue<I>>,
    waker: Waker,
    pub(super) sessions: AtomicUsize,
}

/// Commands on their way.
pub(super) enum Queue<I> {
    Open {
        commands: VecDeque<Command<I>>,
        /// The last recheck that was asked for and has not begun. It stands for all before it:
        /// whatever they were about is true by now.
        recheck: Option<Check<I>>,
    },
    /// The thread is gone.
    Closed,
}

impl<I> Shared<I> {
    pub(super) fn new(waker: Waker) -> Self {
        let queue = Mutex::new(Queue::Open { commands: VecDeque::new(), recheck: None });
        Self { queue, waker, sessions: AtomicUsize::new(0) }
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue<I>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reaches a pump from any thread.
pub struct PumpHandle<I> {
    shared: Arc<Shared<I>>,
}

impl<I> Clone for PumpHandle<I> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<I> PumpHandle<I> {
    pub(super) const fn new(shared: Arc<Shared<I>>) -> Self {
        Self { shared }
    }

    /// Hands a session over. From here on the pump ends it and says so.
    ///
    /// # Errors
    /// Gives the session back if the pump has stopped.
    pub fn carry(&self, session: Session<I>) -> Result<(), Box<Session<I>>> {
        self.shared.sessions.fetch_add(1, Ordering::Relaxed);
        self.push(Command::Session(Box::new(session))).map_err(|command| {
            self.shared.sessions.fetch_sub(1, Ordering::Relaxed);
            match command {
                Command::Session(session) => session,
                Command::Visit(_)
                | Command::AskWith(_)
                | Command::Answered(..)
                | Command::EndAll
                | Command::Stop => {
                    unreachable!("the command pushed is the command that comes back")
                }
            }
        })
    }

    /// Ends the sessions that `check` says no to, with a word to their users. It also holds for the
    /// sessions that come in later: they may have been admitted before what made this call
    /// necessary. However often this is called, one recheck at most waits while another runs.
    pub fn request_recheck(&self, check: Check<I>) {
        let first = match &mut *self.shared.queue() {
            Queue::Closed => return,
            Queue::Open { recheck, .. } => recheck.replace(check).is_none(),
        };
        if first {
            self.shared.waker.wake();
        }
    }

    /// Shows every session there is to `visit`, on the pump's thread, and ends those that it says
    /// no to. It is dropped when all were shown, or when the pump has stopped.
    pub fn visit(&self, visit: Visit<I>) {
        let _ = self.push(Command::Visit(visit));
    }

    /// Has what sessions want of the holder of the host keys asked of `ask`.
    pub fn ask_with(&self, ask: Ask<I>) {
        let _ = self.push(Command::AskWith(ask));
    }

    /// What a session wanted is here, or will not come.
    pub(super) fn answered(&self, key: Key, want: Want, answer: Option<Vec<u8>>) {
        let _ = self.push(Command::Answered(key, want, answer));
    }

    /// Ends all sessions, those that come in later too, with a word to their users.
    pub fn end_all(&self) {
        let _ = self.push(Command::EndAll);
    }

    /// Ends the thread, and with it what sessions it has, without a word.
    pub fn stop(&self) {
        let _ = self.push(Command::Stop);
    }

    /// Sessions handed over and not yet ended.
    pub fn sessions(&self) -> usize {
        self.shared.sessions.load(Ordering::Relaxed)
    }

    fn push(&self, command: Command<I>) -> Result<(), Command<I>> {
        let first = match &mut *self.shared.queue() {
            Queue::Closed => return Err(command),
            Queue::Open { commands, .. } => {
                commands.push_back(command);
                commands.len() == 1
            }
        };
        // Otherwise the wake of the first one is still to be seen.
        if first {
            self.shared.waker.wake();
        }
        Ok(())
    }
}
