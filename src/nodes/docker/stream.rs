//! Byte streams to a daemon: where they come from, and what is noted of one while HTTP is spoken.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What is on its way.
type Dialling<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + 'a>>;

/// Makes streams to one daemon: to its unix socket, or a channel of a tunnel that leads there.
pub trait Dial: Send + Sync {
    /// A new stream. Its errors are shown as they are.
    fn dial(&self) -> Dialling<'_>;
}

impl<D, F, S> Dial for D
where
    D: Fn() -> F + Send + Sync,
    F: Future<Output = io::Result<S>> + Send + 'static,
    S: Stream + 'static,
{
    fn dial(&self) -> Dialling<'_> {
        let stream = self();
        Box::pin(async { Ok(Box::new(stream.await?) as Box<dyn Stream>) })
    }
}

/// What both ends of an exchange need to know of its stream.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// Bytes that the stream took.
    written: AtomicU64,
    /// Whether what is sent waits for whoever provides it.
    source_waits: AtomicBool,
    source_fault: Mutex<Option<String>>,
    write_fault: Mutex<Option<String>>,
}

impl Noted {
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub(super) fn source_waits(&self) -> bool {
        self.source_waits.load(Ordering::Relaxed)
    }

    pub(super) fn source_is_waited_for(&self, waits: bool) {
        self.source_waits.store(waits, Ordering::Relaxed);
    }

    pub(super) fn source_failed(&self, error: &io::Error) {
        put(&self.source_fault, error);
    }

    /// Why the source of what is sent failed, if it did.
    pub(super) fn source_fault(&self) -> Option<String> {
        self.source_fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the stream takes nothing more, if it said so.
    pub(super) fn write_fault(&self) -> Option<String> {
        self.write_fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn put(into: &Mutex<Option<String>>, error: &io::Error) {
    *into.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
}

/// A stream on which one request is sent and answered.
///
/// A daemon that refuses an upload may answer and close while more is sent to it. So an error of
/// a write is noted and no more is written: what can still be read says more than it.
pub(super) struct Watched {
    stream: Box<dyn Stream>,
    noted: Arc<Noted>,
    broken: bool,
}

impl Watched {
    pub(super) fn new(stream: Box<dyn Stream>, noted: Arc<Noted>) -> Self {
        Self { stream, noted, broken: false }
    }

    pub(super) fn into_stream(self) -> Box<dyn Stream> {
        self.stream
    }

    fn breaks(&mut self, error: &io::Error) {
        put(&self.noted.write_fault, error);
        self.broken = true;
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.broken {
            return Poll::Pending;
        }
        match ready!(Pin::new(&mut self.stream).poll_write(cx, bytes)) {
            Ok(count) => {
                let count_u64 = u64::try_from(count).unwrap_or(u64::MAX);
                self.noted.written.fetch_add(count_u64, Ordering::Relaxed);
                Poll::Ready(Ok(count))
            }
            Err(error) => {
                self.breaks(&error);
                Poll::Pending
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.broken
            && let Err(error) = ready!(Pin::new(&mut self.stream).poll_flush(cx))
        {
            self.breaks(&error);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A stream of which the first bytes have been read already.
pub(super) struct Resumed {
    pub(super) before: hyper::body::Bytes,
    pub(super) stream: Box<dyn Stream>,
}

impl AsyncRead for Resumed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.before.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        take_from(&mut self.before, buffer);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Resumed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Moves what fits.
pub(super) fn take_from(bytes: &mut hyper::body::Bytes, buffer: &mut ReadBuf<'_>) {
    let part = bytes.split_to(bytes.len().min(buffer.remaining()));
    buffer.put_slice(&part);
}
