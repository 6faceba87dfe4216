//! What goes with a request: nothing, a text, or a stream that is read as fast as it is sent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::io::{AsyncRead, ReadBuf};

use super::stream::Noted;

/// Bytes read from a source at a time.
const CHUNK_BYTES: usize = 32 << 10;

/// What is sent, and how long it is if that is known.
pub(super) enum Payload {
    /// All of it at once; empty for nothing.
    Whole(Bytes),
    /// Read only when the stream takes more.
    Source(Box<dyn AsyncRead + Send + Unpin>, Arc<Noted>),
}

impl Body for Payload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let bytes = match &mut *self {
            Self::Whole(bytes) => std::mem::take(bytes),
            Self::Source(source, noted) => {
                noted.source_is_waited_for(true);
                let read = ready!(read(source, cx));
                noted.source_is_waited_for(false);
                match read {
                    Ok(bytes) => bytes,
                    Err(error) => {
                        noted.source_failed(&error);
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
        };
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
            }
            Self::Source(..) => SizeHint::new(),
        }
    }
}

fn read(source: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut buffer = ReadBuf::new(&mut chunk);
    ready!(Pin::new(source).poll_read(cx, &mut buffer))?;
    let len = buffer.filled().len();
    chunk.truncate(len);
    Poll::Ready(Ok(Bytes::from(chunk)))
}
