//! Bodies of answers, and connections whose reader may stop reading.

use std::{
    future::Future,
    io::{self, Write},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{
        OwnedSemaphorePermit,
        mpsc::{self, Receiver, Sender},
    },
    time::{Sleep, sleep},
};

/// How long a peer may take to take the next [`STALL_BYTES`] of what is written to it, or what is left.
const STALL_MAX: Duration = Duration::from_secs(30);
/// 35 kB a second: slower than any line that somebody administers a fleet by, and a large answer is over some time.
const STALL_BYTES: usize = 1 << 20;
/// Bytes of one piece of a long text.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces that wait for a slow reader; then whoever writes them waits for it.
const PIECES_WAITING: usize = 4;

/// The body of an answer.
pub(super) enum Body {
    /// All of it, once.
    Whole(Option<Bytes>),
    /// It goes on.
    Lines(Lines),
    /// A long one, piece by piece.
    Text(Text),
}

impl Body {
    /// All of it, and the place among the few that it takes until the last byte of it is gone.
    pub(super) fn whole(bytes: Vec<u8>, place: Option<OwnedSemaphorePermit>) -> Self {
        Self::Whole(Some(match place {
            Some(place) => Bytes::from_owner(Placed { bytes, _place: place }),
            None => Bytes::from(bytes),
        }))
    }
}

struct Placed {
    bytes: Vec<u8>,
    _place: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Placed {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Lines from a thread of their own.
pub(super) struct Lines {
    pub(super) receiver: Receiver<Bytes>,
    /// The watcher's place among the few.
    pub(super) _place: OwnedSemaphorePermit,
}

/// A text from a thread of its own. An empty piece ends it: without one it was cut off.
pub(super) struct Text {
    receiver: Receiver<Bytes>,
    ended: bool,
    /// Its place among the few.
    _place: Option<OwnedSemaphorePermit>,
}

impl Text {
    /// Has `write` write it as it is taken; that fails when nobody takes it any more.
    pub(super) fn start(
        write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(PIECES_WAITING);
        let run = move || {
            let mut pieces = io::BufWriter::with_capacity(PIECE_BYTES, Pieces(sender));
            if write(&mut pieces).and_then(|()| pieces.flush()).is_ok() {
                // Whoever read may have gone.
                let _gone = pieces.get_ref().0.blocking_send(Bytes::new());
            }
        };
        std::thread::Builder::new().name("api-text".to_owned()).spawn(run)?;
        Ok(Self { receiver, ended: false, _place: None })
    }

    pub(super) fn at(self, place: Option<OwnedSemaphorePermit>) -> Self {
        Self { _place: place, ..self }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.receiver.poll_recv(cx).map(|piece| match piece {
            Some(piece) if piece.is_empty() => {
                self.ended = true;
                None
            }
            Some(piece) => Some(Ok(piece)),
            None => Some(Err(io::ErrorKind::UnexpectedEof.into())),
        })
    }
}

/// What is written goes to the reader, who may keep the writer waiting.
struct Pieces(Sender<Bytes>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let piece = Bytes::copy_from_slice(bytes);
        self.0.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(whole) => Poll::Ready(whole.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Lines(lines) => {
                lines.receiver.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line))))
            }
            Self::Text(text) => text.poll(cx).map(|piece| piece.map(|it| it.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.as_ref().is_none_or(Bytes::is_empty),
            Self::Lines(_) => false,
            Self::Text(text) => text.ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => {
                let bytes = whole.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(u64::try_from(bytes).unwrap_or(u64::MAX))
            }
            Self::Lines(_) | Self::Text(_) => SizeHint::default(),
        }
    }
}

/// A connection that fails when its peer stops to take what is written, or takes it by the drop.
pub(super) struct Patient<S> {
    stream: S,
    stalled: Option<Pin<Box<Sleep>>>,
    /// Bytes since `stalled` began.
    taken: usize,
}

impl<S> Patient<S> {
    pub(super) const fn new(stream: S) -> Self {
        Self { stream, stalled: None, taken: 0 }
    }

    /// So many bytes were taken.
    fn took(&mut self, bytes: usize) {
        self.taken = self.taken.saturating_add(bytes);
        if self.taken >= STALL_BYTES {
            (self.stalled, self.taken) = (None, 0);
        }
    }

    /// Passes on what a write came to, unless too little could be written for too long. `took` says how much of it was
    /// taken; all there was, if everything was flushed.
    fn bounded<T>(
        &mut self,
        cx: &mut Context<'_>,
        answer: Poll<io::Result<T>>,
        took: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(answer) = answer {
            self.took(answer.as_ref().map_or(0, took));
            return Poll::Ready(answer);
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALL_MAX)));
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let answer = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.bounded(cx, answer, |count| *count)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let answer = Pin::new(&mut self.stream).poll_flush(cx);
        self.bounded(cx, answer, |()| usize::MAX)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let answer = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.bounded(cx, answer, |()| usize::MAX)
    }
}
