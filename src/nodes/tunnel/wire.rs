//! The byte stream under a connection: it can be cut from outside, and carries little before login.
//!
//! The SSH library's task cannot be stopped while it waits for a peer that never finishes a key
//! exchange or never reads; its byte stream can.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Most that a node may send before the login stands: a KEXINIT, a host key and a banner take a
/// few kilobytes.
const BEFORE_LOGIN_BYTES_MAX: usize = 256 << 10;
/// How much of the beginning is kept, to tell what answered if it was no SSH server.
const FIRST_BYTES_MAX: usize = 128;

/// What is known of a connection's bytes, and the way to end it.
#[derive(Debug, Default)]
pub(super) struct Line(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    cut: bool,
    logged_in: bool,
    read_bytes: usize,
    first: Vec<u8>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection, whatever its task waits for.
    pub(super) fn cut(&self) {
        let mut state = self.state();
        state.cut = true;
        let wakers = [state.reader.take(), state.writer.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// From here on the peer may send as much as it likes.
    pub(super) fn logged_in(&self) {
        let mut state = self.state();
        state.logged_in = true;
        state.first = Vec::new();
    }

    /// The first line that came, if it is not that of an SSH server.
    pub(super) fn first_line(&self) -> Option<String> {
        let state = self.state();
        let line = state.first.split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
        let is_other = !line.is_empty() && !line.starts_with(b"SSH-");
        is_other.then(|| String::from_utf8_lossy(line).into_owned())
    }
}

/// The connections that end with a node: cut together, and none is begun after that.
#[derive(Clone, Debug, Default)]
pub struct Lifeline(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    ended: bool,
    lines: Vec<Weak<Line>>,
}

impl Lifeline {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more connection; nothing if they have all ended.
    pub(super) fn attach(&self) -> Option<Arc<Line>> {
        let mut lines = self.lines();
        if lines.ended {
            return None;
        }
        let line = Arc::new(Line::default());
        lines.lines.retain(|line| line.strong_count() > 0);
        lines.lines.push(Arc::downgrade(&line));
        Some(line)
    }

    /// Ends them all, and those that are just being opened.
    pub fn end(&self) {
        let mut lines = self.lines();
        lines.ended = true;
        let cut = std::mem::take(&mut lines.lines);
        drop(lines);
        cut.iter().filter_map(Weak::upgrade).for_each(|line| line.cut());
    }
}

/// A byte stream on a [`Line`].
///
/// It also ends a connection whose peer takes nothing for too long: while the library writes, it
/// asks for no sign of life.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    line: Arc<Line>,
    stalled_max: Duration,
    /// Until when the write that waits must have gone on.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Wire<S> {
    pub(super) const fn new(stream: S, line: Arc<Line>, stalled_max: Duration) -> Self {
        Self { stream, line, stalled_max, stalled: None }
    }
}

fn was_cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was ended here")
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        {
            let mut state = self.line.state();
            if state.cut {
                return Poll::Ready(Err(was_cut()));
            }
            state.reader = Some(context.waker().clone());
        }
        let done = Pin::new(&mut self.stream).poll_read(context, into);
        if done.is_ready() {
            let mut state = self.line.state();
            if !state.logged_in {
                let came = into.filled().get(before..).unwrap_or_default();
                state.read_bytes = state.read_bytes.saturating_add(came.len());
                let room = FIRST_BYTES_MAX.saturating_sub(state.first.len());
                state.first.extend(came.iter().take(room));
                if state.read_bytes > BEFORE_LOGIN_BYTES_MAX {
                    let said = "it sends without end before the login";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, said)));
                }
            }
        }
        done
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        {
            let mut state = self.line.state();
            if state.cut {
                return Poll::Ready(Err(was_cut()));
            }
            state.writer = Some(context.waker().clone());
        }
        let done = Pin::new(&mut self.stream).poll_write(context, bytes);
        if done.is_ready() {
            self.stalled = None;
            return done;
        }
        let most = self.stalled_max;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(most)));
        stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.line.state().cut {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
