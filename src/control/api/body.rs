//! Bodies of answers: whole, line by line, or as long as they may be.

#![expect(
    clippy::disallowed_methods,
    reason = "a long text is made on a thread beside the one that sends it"
)]

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{self, Receiver, Sender};

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
    /// It goes on, in the feed's frames.
    Frames(Receiver<Bytes>),
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
            Self::Frames(frames) => {
                frames.poll_recv(cx).map(|frame| frame.map(|frame| Ok(Frame::data(frame))))
            }
            Self::Text(text) => text.poll(cx).map(|piece| piece.map(|it| it.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.as_ref().is_none_or(Bytes::is_empty),
            Self::Lines(_) | Self::Frames(_) => false,
            Self::Text(text) => text.ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => {
                let bytes = whole.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(u64::try_from(bytes).unwrap_or(u64::MAX))
            }
            Self::Lines(_) | Self::Text(_) | Self::Frames(_) => SizeHint::default(),
        }
    }
}
