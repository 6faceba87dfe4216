//! What has come for the streams of a connection and was not read yet: bounded for all of them
//! together.
//!
//! On a shared connection nobody may wait for a reader: when the bytes of all streams exceed what
//! the connection may hold, the stream that holds the most is ended, by name. On a stream's own
//! connection the sender waits instead.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use tokio::io::ReadBuf;
use tokio::sync::Notify;

/// What all streams of a shared connection may hold: a reader that pauses for 50 ms does not
/// lose a stream that brings 300 MB a second.
const SHARED_BYTES_MAX: usize = 16 << 20;
/// What a stream on a connection of its own may hold before its sender waits.
const OWN_BYTES_MAX: usize = 256 << 10;
/// An empty buffer keeps no more than this.
const IDLE_BYTES_MAX: usize = 4 << 10;

/// Who else is on a stream's connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Company {
    /// Other streams, which must not wait for this one's reader.
    Shared,
    /// Nobody.
    Own,
}

/// What the streams of one connection hold.
#[derive(Debug)]
pub(super) struct Unread {
    company: Company,
    inboxes: Mutex<Inboxes>,
}

#[derive(Debug, Default)]
struct Inboxes {
    bytes: usize,
    all: Vec<Weak<Inbox>>,
}

/// What one stream holds.
#[derive(Debug)]
pub(super) struct Inbox {
    of: Arc<Unread>,
    state: Mutex<State>,
    /// Its reader has gone, or it was ended here.
    pub(super) released: Notify,
    overrun: AtomicBool,
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    bytes: VecDeque<u8>,
    end: Option<End>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// How a stream ended.
#[derive(Clone, Debug)]
enum End {
    /// The peer sends no more.
    Sent,
    /// The peer takes no more either.
    Closed,
    Failed(io::ErrorKind, String),
}

impl Unread {
    pub(super) fn new(company: Company) -> Arc<Self> {
        Arc::new(Self { company, inboxes: Mutex::default() })
    }

    fn inboxes(&self) -> MutexGuard<'_, Inboxes> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn inbox(self: &Arc<Self>) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox {
            of: Arc::clone(self),
            state: Mutex::default(),
            released: Notify::new(),
            overrun: AtomicBool::new(false),
            room: Notify::new(),
        });
        let mut inboxes = self.inboxes();
        inboxes.all.retain(|inbox| inbox.strong_count() > 0);
        inboxes.all.push(Arc::downgrade(&inbox));
        inbox
    }

    fn taken(&self, bytes: usize) {
        let mut inboxes = self.inboxes();
        inboxes.bytes = inboxes.bytes.saturating_sub(bytes);
    }

    /// The stream that holds the most, if all together hold more than they may.
    fn guilty(&self) -> Option<Arc<Inbox>> {
        let inboxes = self.inboxes();
        if inboxes.bytes <= SHARED_BYTES_MAX {
            return None;
        }
        let all: Vec<_> = inboxes.all.iter().filter_map(Weak::upgrade).collect();
        drop(inboxes);
        all.into_iter().max_by_key(|inbox| inbox.state().bytes.len())
    }
}

impl Inbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what came. On a stream's own connection it waits for room.
    pub(super) async fn put(&self, bytes: &[u8]) {
        while self.of.company == Company::Own && self.state().bytes.len() >= OWN_BYTES_MAX {
            self.room.notified().await;
        }
        let mut state = self.state();
        if state.end.is_some() {
            return;
        }
        state.bytes.extend(bytes);
        let reader = state.reader.take();
        drop(state);
        {
            let mut inboxes = self.of.inboxes();
            inboxes.bytes = inboxes.bytes.saturating_add(bytes.len());
        }
        reader.into_iter().for_each(Waker::wake);
        if self.of.company == Company::Shared {
            while let Some(guilty) = self.of.guilty() {
                guilty.overrun();
            }
        }
    }

    /// Nobody read it in time.
    fn overrun(&self) {
        self.overrun.store(true, Ordering::Relaxed);
        let held = self.forget();
        let said = format!("nobody read this stream: {held} bytes waited");
        self.end(End::Failed(io::ErrorKind::ConnectionAborted, said));
        self.released.notify_one();
    }

    /// Whether it was ended because nobody read it: then the peer gets no time to end by itself.
    pub(super) fn is_overrun(&self) -> bool {
        self.overrun.load(Ordering::Relaxed)
    }

    /// Lets go of what is held; returns how much it was.
    fn forget(&self) -> usize {
        let held = std::mem::take(&mut self.state().bytes).len();
        self.of.taken(held);
        self.room.notify_one();
        held
    }

    fn end(&self, how: End) {
        let mut state = self.state();
        let is_final = matches!(state.end, Some(End::Closed | End::Failed(..)));
        if !is_final {
            state.end = Some(how);
        }
        let wakers = [state.reader.take(), state.writer.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// The peer sends no more.
    pub(super) fn sent(&self) {
        self.end(End::Sent);
    }

    /// The peer has closed the channel.
    pub(super) fn closed(&self) {
        self.end(End::Closed);
    }

    /// Something went wrong: told when what came before has been read.
    pub(super) fn failed(&self, kind: io::ErrorKind, said: String) {
        let mut state = self.state();
        // An end of input that nobody has read yet was none.
        if matches!(state.end, Some(End::Sent)) {
            state.end = None;
        }
        drop(state);
        self.end(End::Failed(kind, said));
    }

    /// Nobody reads it any more.
    pub(super) fn release(&self) {
        self.end(End::Closed);
        self.forget();
        self.released.notify_one();
    }

    pub(super) fn poll_read(
        &self,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.state();
        if state.bytes.is_empty() {
            return match state.end.clone() {
                None => {
                    state.reader = Some(context.waker().clone());
                    Poll::Pending
                }
                Some(End::Sent | End::Closed) => Poll::Ready(Ok(())),
                Some(End::Failed(kind, said)) => Poll::Ready(Err(io::Error::new(kind, said))),
            };
        }
        let (first, _) = state.bytes.as_slices();
        let take = first.len().min(into.remaining());
        into.put_slice(first.get(..take).unwrap_or_default());
        state.bytes.drain(..take);
        if state.bytes.is_empty() && state.bytes.capacity() > IDLE_BYTES_MAX {
            state.bytes = VecDeque::new();
        }
        drop(state);
        self.of.taken(take);
        self.room.notify_one();
        Poll::Ready(Ok(()))
    }

    /// Whether the peer still takes something; if so, the writer is woken when it does no more.
    pub(super) fn may_write(&self, context: &mut Context<'_>) -> io::Result<()> {
        let mut state = self.state();
        match state.end.clone() {
            None | Some(End::Sent) => {
                state.writer = Some(context.waker().clone());
                Ok(())
            }
            Some(End::Closed) => Err(io::ErrorKind::BrokenPipe.into()),
            Some(End::Failed(kind, said)) => Err(io::Error::new(kind, said)),
        }
    }
}
