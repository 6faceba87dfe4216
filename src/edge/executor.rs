//! The door's executor: one thread, one epoll set, futures that wait for sockets and deadlines.
//!
//! A task is polled when one of its sockets changed, its deadline passed, its blocking work is
//! done, or it asked for another turn, and at no other time: the futures of this room are the only
//! leaves, and none of them uses a [`Waker`](std::task::Waker). Spurious polls are allowed
//! everywhere. A thread that has nothing to do sleeps without a timeout. One wake is one
//! `epoll_wait`, whatever it brings, and costs nothing per idle task.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker as NoWaker};
use std::time::Duration;

use nix::sys::epoll::EpollTimeout;

use super::clock;
use super::epoll::{Event, Interest, Poller, Readiness, Target, Waker};
use super::slab::{Key, Slab};
use super::workers::Workers;

type Future = Pin<Box<dyn std::future::Future<Output = ()>>>;

/// Runs tasks on the thread that made it. Cloning is cheap; all clones are the same executor.
#[derive(Clone)]
pub(super) struct Executor(Rc<Core>);

struct Core {
    poller: RefCell<Poller>,
    tasks: RefCell<Slab<Task>>,
    sources: RefCell<Slab<Source>>,
    /// Tasks to poll in this round: those that were due when it began, and new ones.
    round: RefCell<VecDeque<Key>>,
    /// Tasks to poll in the next, after a look at epoll.
    next: RefCell<VecDeque<Key>>,
    /// How many rounds there were.
    rounds: Cell<u64>,
    /// At most one deadline a task.
    deadlines: RefCell<BTreeSet<(u64, Key)>>,
    /// The task being polled.
    current: Cell<Option<Key>>,
    remote: Arc<Remote>,
}

/// What other threads reach.
struct Remote {
    waker: Waker,
    mail: Mutex<Vec<Mail>>,
}

/// What other threads say.
enum Mail {
    Poll(Key),
    Order(Order),
}

/// What the owner of the shard tells its door.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Order {
    /// Accept nothing more.
    Drain,
    /// End.
    Stop,
}

struct Task {
    /// Taken out while it is polled.
    future: Option<Future>,
    is_queued: bool,
    deadline_ms: Option<u64>,
}

/// One watched socket.
struct Source {
    task: Option<Key>,
    readiness: Readiness,
    interest: Interest,
}

/// Has one task polled, from any thread; nothing happens if it is over. Two are equal if they
/// are of one task.
#[derive(Clone)]
pub(super) struct Wake {
    remote: Arc<Remote>,
    task: Key,
}

impl Wake {
    pub(super) fn wake(&self) {
        self.remote.send(Mail::Poll(self.task));
    }
}

impl PartialEq for Wake {
    fn eq(&self, other: &Self) -> bool {
        self.task == other.task && Arc::ptr_eq(&self.remote, &other.remote)
    }
}

/// Gives orders to a door from any thread.
pub(super) struct Control(Arc<Remote>);

/// What an executor is made of, on its way to its thread.
pub(super) struct Parts {
    poller: Poller,
    remote: Arc<Remote>,
}

impl Control {
    /// The parts of an executor, and the control over it.
    ///
    /// # Errors
    /// Out of file descriptors or kernel memory.
    pub(super) fn new() -> io::Result<(Self, Parts)> {
        let (poller, waker) = Poller::new()?;
        let remote = Remote { waker, mail: Mutex::new(Vec::new()) };
        let remote = Arc::new(remote);
        Ok((Self(Arc::clone(&remote)), Parts { poller, remote }))
    }

    /// The door hears of it with its next wake, which this causes.
    pub(super) fn order(&self, order: Order) {
        self.0.send(Mail::Order(order));
    }
}

impl Remote {
    fn mail(&self) -> MutexGuard<'_, Vec<Mail>> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<Mail> {
        std::mem::take(&mut self.mail())
    }

    fn send(&self, mail: Mail) {
        let first = {
            let mut waiting = self.mail();
            waiting.push(mail);
            waiting.len() == 1
        };
        if first {
            self.waker.wake();
        }
    }
}

impl Executor {
    /// An executor with nothing to do, for this thread.
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { poller, remote } = parts;
        Self(Rc::new(Core {
            poller: RefCell::new(poller),
            tasks: RefCell::new(Slab::new()),
            sources: RefCell::new(Slab::new()),
            round: RefCell::default(),
            next: RefCell::default(),
            rounds: Cell::new(0),
            deadlines: RefCell::default(),
            current: Cell::new(None),
            remote,
        }))
    }

    /// Starts a task; it is polled in this round. With 2^30 tasks already, it is dropped.
    pub(super) fn spawn(
        &self,
        future: impl std::future::Future<Output = ()> + 'static,
    ) -> Option<Key> {
        let task = Task { future: Some(Box::pin(future)), is_queued: true, deadline_ms: None };
        let key = self.0.tasks.borrow_mut().insert(task).ok()?;
        self.0.round.borrow_mut().push_back(key);
        Some(key)
    }

    /// Which round this is: between two of them epoll is asked, and deadlines are.
    pub(super) fn round(&self) -> u64 {
        self.0.rounds.get()
    }

    /// Has a task polled that may find that something has changed.
    pub(super) fn wake(&self, task: Key) {
        self.0.enqueue(task);
    }

    /// Runs until [`Order::Stop`] comes; `drain` is called at [`Order::Drain`]. Tasks that are
    /// left are dropped.
    ///
    /// # Errors
    /// A broken epoll descriptor, which is our own bug.
    pub(super) fn run(&self, mut drain: impl FnMut()) -> io::Result<()> {
        let core = &*self.0;
        let mut batch = Vec::new();
        loop {
            let timeout = core.timeout();
            batch.extend(core.poller.borrow_mut().wait(timeout)?);
            for event in batch.drain(..) {
                match event {
                    Event::Ready(target, readiness) => core.ready(target.key, readiness),
                    Event::Woken => {
                        for mail in core.remote.take() {
                            match mail {
                                Mail::Poll(key) => core.enqueue(key),
                                Mail::Order(Order::Drain) => drain(),
                                Mail::Order(Order::Stop) => {
                                    core.end();
                                    return Ok(());
                                }
                            }
                        }
                    }
                }
            }
            core.pass_deadlines();
            core.rounds.set(core.rounds.get().wrapping_add(1));
            core.round.borrow_mut().append(&mut core.next.borrow_mut());
            loop {
                let first = core.round.borrow_mut().pop_front();
                let Some(key) = first else { break };
                core.poll(key);
            }
        }
    }

    /// Lets all others have a turn.
    pub(super) async fn yield_now(&self) {
        let mut yielded = false;
        poll_fn(|_| {
            if yielded {
                return Poll::Ready(());
            }
            yielded = true;
            if let Some(key) = self.0.current.get() {
                self.0.enqueue(key);
            }
            Poll::Pending
        })
        .await;
    }

    /// Waits.
    pub(super) async fn sleep(&self, time: Duration) {
        let deadline_ms = deadline_in(time);
        poll_fn(|_| self.0.reached(deadline_ms)).await;
    }

    /// Runs `phase` for at most `limit`; `None` when the time is up.
    ///
    /// The phase is boxed: a connection then takes the memory of the phase it is in and not that of
    /// its largest one.
    pub(super) async fn timeout<T>(
        &self,
        limit: Duration,
        mut phase: Pin<Box<dyn std::future::Future<Output = T> + '_>>,
    ) -> Option<T> {
        let deadline_ms = deadline_in(limit);
        poll_fn(move |cx| match phase.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => self.0.reached(deadline_ms).map(|()| None),
        })
        .await
    }

    /// Wakes the task that is polled now; `None` outside of one.
    pub(super) fn wake_me(&self) -> Option<Wake> {
        let task = self.0.current.get()?;
        Some(Wake { remote: Arc::clone(&self.0.remote), task })
    }

    /// Has `work` done by `workers`; `None` if it panicked or they took it not. It is not begun
    /// once nobody waits for it.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        workers: &Workers,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let wake = self.wake_me()?;
        let slot = Arc::new(Mutex::new(Answer::Waiting));
        let theirs = Arc::clone(&slot);
        let taken = workers.run(move || {
            if Arc::strong_count(&theirs) == 1 {
                return;
            }
            let answer = catch_unwind(AssertUnwindSafe(work)).map_or(Answer::None, Answer::Some);
            *theirs.lock().unwrap_or_else(PoisonError::into_inner) = answer;
            wake.wake();
        });
        if !taken {
            return None;
        }
        poll_fn(|_| {
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            match std::mem::replace(&mut *slot, Answer::Waiting) {
                Answer::Waiting => Poll::Pending,
                Answer::None => Poll::Ready(None),
                Answer::Some(answer) => Poll::Ready(Some(answer)),
            }
        })
        .await
    }

    /// Watches a socket; its changes are told to whichever task waits for it.
    ///
    /// # Errors
    /// Out of kernel memory or of `fs.epoll.max_user_watches`.
    pub(super) fn watch(&self, fd: impl AsFd, interest: Interest) -> io::Result<Watch> {
        let source = Source { task: None, readiness: Readiness::default(), interest };
        let key =
            self.0.sources.borrow_mut().insert(source).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let watch = Watch { tasks: self.clone(), key };
        self.0.poller.borrow().watch(fd, Target { key, second: false }, interest)?;
        Ok(watch)
    }
}

/// The result of blocking work.
enum Answer<T> {
    Waiting,
    /// It panicked.
    None,
    Some(T),
}

/// One socket's place among those that are watched. Dropping it forgets what was seen; the kernel
/// stops watching when the socket is closed, or by [`Watch::end`].
pub(super) struct Watch {
    tasks: Executor,
    key: Key,
}

impl Watch {
    /// The executor this socket belongs to.
    pub(super) const fn tasks(&self) -> &Executor {
        &self.tasks
    }

    /// Waits until `direction` may go on.
    pub(super) async fn ready(&self, fd: impl AsFd, direction: Direction) -> io::Result<()> {
        poll_fn(|_| self.poll(&fd, direction)).await
    }

    /// As [`Watch::ready`], for futures that wait for more than this.
    pub(super) fn poll(&self, fd: impl AsFd, direction: Direction) -> Poll<io::Result<()>> {
        let core = &*self.tasks.0;
        let mut sources = core.sources.borrow_mut();
        let Some(source) = sources.get_mut(self.key) else { return Poll::Pending };
        source.task = core.current.get();
        let readiness = source.readiness;
        let is_ready = match direction {
            Direction::Read => readiness.readable,
            Direction::Write => readiness.writable,
        };
        if is_ready {
            return Poll::Ready(Ok(()));
        }
        // Most sockets never wait to write: only one that does pays for hearing of it.
        if direction == Direction::Write && source.interest == Interest::Read {
            source.interest = Interest::Both;
            let target = Target { key: self.key, second: false };
            core.poller.borrow().change(fd, target, Interest::Both)?;
        }
        Poll::Pending
    }

    /// Has the peer's FIN or RST come?
    pub(super) fn poll_hangup(&self) -> Poll<()> {
        let core = &*self.tasks.0;
        let mut sources = core.sources.borrow_mut();
        let Some(source) = sources.get_mut(self.key) else { return Poll::Pending };
        source.task = core.current.get();
        if source.readiness.hangup { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The socket has nothing more for now: the next wait ends with the next event.
    pub(super) fn exhausted(&self, direction: Direction) {
        if let Some(source) = self.tasks.0.sources.borrow_mut().get_mut(self.key) {
            match direction {
                // After a FIN or RST no further event would come.
                Direction::Read => source.readiness.readable = source.readiness.hangup,
                Direction::Write => source.readiness.writable = false,
            }
        }
    }

    /// Stops watching a socket that stays open.
    pub(super) fn end(self, fd: impl AsFd) {
        self.tasks.0.poller.borrow().forget(fd);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.tasks.0.sources.borrow_mut().remove(self.key);
    }
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Direction {
    Read,
    Write,
}

impl Core {
    fn timeout(&self) -> EpollTimeout {
        if !(self.round.borrow().is_empty() && self.next.borrow().is_empty()) {
            return EpollTimeout::ZERO;
        }
        match self.deadlines.borrow().first() {
            None => EpollTimeout::NONE,
            Some((at, _)) => {
                // The coarse clock lags by up to a tick: a millisecond more and the deadline has
                // passed when we look.
                let wait = at.saturating_sub(clock::monotonic_ms()).saturating_add(1);
                EpollTimeout::try_from(Duration::from_millis(wait)).unwrap_or(EpollTimeout::MAX)
            }
        }
    }

    fn ready(&self, source: Key, readiness: Readiness) {
        let mut sources = self.sources.borrow_mut();
        let Some(source) = sources.get_mut(source) else { return };
        source.readiness.readable |= readiness.readable;
        source.readiness.writable |= readiness.writable;
        source.readiness.hangup |= readiness.hangup;
        if let Some(task) = source.task {
            self.enqueue(task);
        }
    }

    fn enqueue(&self, key: Key) {
        if let Some(task) = self.tasks.borrow_mut().get_mut(key)
            && !task.is_queued
        {
            task.is_queued = true;
            self.next.borrow_mut().push_back(key);
        }
    }

    /// Gives a task its turn. A panic ends it and no more.
    fn poll(&self, key: Key) {
        let future = match self.tasks.borrow_mut().get_mut(key) {
            Some(task) => {
                task.is_queued = false;
                task.future.take()
            }
            None => None,
        };
        let Some(mut future) = future else { return };
        self.current.set(Some(key));
        let mut cx = Context::from_waker(NoWaker::noop());
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut cx)));
        if matches!(polled, Ok(Poll::Pending)) {
            if let Some(task) = self.tasks.borrow_mut().get_mut(key) {
                task.future = Some(future);
            }
            self.current.set(None);
            return;
        }
        // What the future drops may still use the executor, but the task is over.
        drop(future);
        self.current.set(None);
        let task = self.tasks.borrow_mut().remove(key);
        if let Some(Task { deadline_ms: Some(at), .. }) = task {
            self.deadlines.borrow_mut().remove(&(at, key));
        }
    }

    /// Has the moment come? If not, the current task is polled when it comes, or earlier.
    fn reached(&self, deadline_ms: u64) -> Poll<()> {
        if clock::monotonic_ms() >= deadline_ms {
            return Poll::Ready(());
        }
        if let Some(key) = self.current.get()
            && let Some(task) = self.tasks.borrow_mut().get_mut(key)
            && task.deadline_ms.is_none_or(|armed| deadline_ms < armed)
        {
            let mut deadlines = self.deadlines.borrow_mut();
            if let Some(later) = task.deadline_ms.replace(deadline_ms) {
                deadlines.remove(&(later, key));
            }
            deadlines.insert((deadline_ms, key));
        }
        Poll::Pending
    }

    fn pass_deadlines(&self) {
        let mut deadlines = self.deadlines.borrow_mut();
        if deadlines.is_empty() {
            return;
        }
        let now_ms = clock::monotonic_ms();
        while let Some(&(at, key)) = deadlines.first()
            && at <= now_ms
        {
            deadlines.pop_first();
            if let Some(task) = self.tasks.borrow_mut().get_mut(key) {
                task.deadline_ms = None;
            }
            self.enqueue(key);
        }
    }

    /// Drops all tasks. What they drop may use the executor.
    fn end(&self) {
        let keys = self.tasks.borrow().keys();
        for key in keys {
            let task = self.tasks.borrow_mut().remove(key);
            drop(task);
        }
    }
}

fn deadline_in(time: Duration) -> u64 {
    let time_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    clock::monotonic_ms().saturating_add(time_ms)
}

#[cfg(test)]
#[path = "executor_tests.rs"]
pub(super) mod tests;
