//! One request and its answer, on a stream of their own.
//!
//! A stream carries one request: over SSH a channel costs one round trip and 0.35 ms of both hosts,
//! while a connection that is kept would make calls wait for each other (a stop takes as long as
//! the container does), hold a channel of every idle node, and leave open whether a request that
//! met its end was carried out. Nothing is sent twice.
//!
//! No task is started: whoever waits for the answer moves the connection, and drops it with it.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body as _, Bytes, Incoming};
use hyper::client::conn::http1::{self, Connection};
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::timeout;

use super::deadline::Deadline;
use super::fault::{Fault, Refusal, Stage, cleaned, error_in};
use super::payload::Payload;
use super::stream::{Dial, Noted, Resumed, Watched, take_from};

/// Bytes of an answer's head, and of what is read ahead of whoever takes the body.
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 64;
/// Bytes of a refusal's body.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
/// Largest answer that is read as a whole, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// For the whole of it: 140 kB a second.
const ANSWER_MAX: Duration = Duration::from_mins(2);
/// For a stream: a tunnel may have to be made first.
const CONNECT_MAX: Duration = Duration::from_secs(20);

/// How long what may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the head of the answer, since the daemon last took something of the request.
    /// Nothing: as long as it takes.
    pub(super) head: Option<Duration>,
    /// For each next part of the body. Nothing: as long as it takes.
    pub(super) body: Option<Duration>,
}

impl Patience {
    /// For what a daemon does at once.
    pub(super) const USUAL: Self = Self::of(Duration::from_secs(30));

    pub(super) const fn of(each: Duration) -> Self {
        Self { head: Some(each), body: Some(each) }
    }

    /// As it is, but the body may be silent.
    pub(super) const fn with_silence(self) -> Self {
        Self { body: None, ..self }
    }
}

/// A daemon's answer: its head has been read, its body is still to come.
pub(super) struct Answer {
    wire: Wire,
    response: Response<Incoming>,
    body: Deadline,
    /// Bytes of the body so far.
    far: u64,
    /// Of the body, and not yet taken.
    left: Bytes,
}

/// Asks, and waits for the head of the answer, whatever that says.
pub(super) async fn ask(
    dial: &dyn Dial,
    request: Request<()>,
    what: What,
    patience: Patience,
) -> Result<Answer, Fault> {
    let silent = |_| Fault::Silent { stage: Stage::Connect, limit: CONNECT_MAX };
    let stream = timeout(CONNECT_MAX, dial.dial()).await.map_err(silent)?;
    let stream = stream.map_err(|error| Fault::Unreachable(cleaned(&error.to_string())))?;
    let noted = Arc::new(Noted::default());
    let payload = match what {
        What::Nothing => Payload::Whole(Bytes::new()),
        What::Json(json) => Payload::Whole(json.into()),
        What::Source(source) => Payload::Source(source, Arc::clone(&noted)),
    };
    let request = request.map(|()| payload);
    let stream = TokioIo::new(Watched::new(stream, Arc::clone(&noted)));
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
    let (mut sender, connection) =
        builder.handshake(stream).await.map_err(|error| fault_of(&error, &noted))?;
    let mut wire = Wire { connection, end: None, noted };
    let stage = if request.headers().contains_key(header::UPGRADE) {
        Stage::Upgrade
    } else {
        Stage::Answer
    };
    let mut head = Deadline::new(patience.head);
    let mut sending = pin!(sender.send_request(request));
    let response = std::future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(answer) = sending.as_mut().poll(cx) {
                return Poll::Ready(answer.map_err(|error| fault_of(&error, &wire.noted)));
            }
            if !wire.ends(cx) {
                break;
            }
        }
        wire.fault()?;
        let limit = ready!(head.poll(cx, wire.noted.written()));
        Poll::Ready(Err(wire.silent(stage, limit)))
    });
    let response = response.await?;
    Ok(Answer { wire, response, body: Deadline::new(patience.body), far: 0, left: Bytes::new() })
}

/// What goes with a request.
pub(super) enum What {
    Nothing,
    Json(Vec<u8>),
    Source(Box<dyn AsyncRead + Send + Unpin>),
}

impl Answer {
    /// The answer, if the daemon does what it was asked for.
    ///
    /// # Errors
    /// [`Fault::Refused`] with the daemon's words, which have to come.
    pub(super) async fn accepted(mut self, removes: bool) -> Result<Self, Fault> {
        let status = self.response.status();
        if status.is_success() {
            return if self.is_delimited() { Ok(self) } else { Err(undelimited()) };
        }
        // The refusal stands, whatever becomes of its words.
        let body = self.whole(REFUSAL_BYTES_MAX).await.unwrap_or_default();
        let message = match error_in(&body) {
            Some(words) => words,
            None if body.is_empty() => status.canonical_reason().unwrap_or("no reason").to_owned(),
            None => String::from_utf8_lossy(&body).into_owned(),
        };
        let why = Refusal::of(status.as_u16(), removes);
        let message = format!("{} (status {})", cleaned(&message), status.as_u16());
        Err(Fault::Refused { why, message })
    }

    /// Whether the end of the body can be told from a stream that was cut.
    fn is_delimited(&self) -> bool {
        let headers = self.response.headers();
        let known = headers.contains_key(header::CONTENT_LENGTH)
            || headers.contains_key(header::TRANSFER_ENCODING);
        known || self.response.body().is_end_stream()
    }

    /// What a daemon says of itself in a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The stream in both directions that the connection has become.
    pub(super) async fn upgraded(mut self) -> Result<Resumed, Fault> {
        let status = self.response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            self.accepted(false).await?;
            return Err(Fault::NotUpgraded(status.as_u16()));
        }
        let mut deadline = Deadline::new(Patience::USUAL.head);
        std::future::poll_fn(|cx| {
            if self.wire.ends(cx) || self.wire.end.is_some() {
                return Poll::Ready(self.wire.fault());
            }
            deadline.poll(cx, 0).map(|limit| Err(self.wire.silent(Stage::Upgrade, limit)))
        })
        .await?;
        let parts = self.wire.connection.into_parts();
        Ok(Resumed { before: parts.read_buf, stream: parts.io.into_inner().into_stream() })
    }

    /// All of the body.
    pub(super) async fn json(mut self) -> Result<Vec<u8>, Fault> {
        self.whole(ANSWER_BYTES_MAX).await
    }

    /// Its body is of no interest, but has to come to its end.
    pub(super) async fn done(mut self) -> Result<(), Fault> {
        self.whole(REFUSAL_BYTES_MAX).await.map(|_| ())
    }

    async fn whole(&mut self, bytes_max: usize) -> Result<Vec<u8>, Fault> {
        let collected = timeout(ANSWER_MAX, async {
            let mut all = vec![];
            while let Some(bytes) = std::future::poll_fn(|cx| self.poll_bytes(cx)).await? {
                if all.len() + bytes.len() > bytes_max {
                    return Err(Fault::TooLarge { what: "answer", bytes_max });
                }
                all.extend_from_slice(&bytes);
            }
            Ok(all)
        });
        let silent = |_| Fault::Silent { stage: Stage::Body, limit: ANSWER_MAX };
        collected.await.map_err(silent)?
    }

    /// The next bytes of the body; nothing at its end.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Fault>> {
        loop {
            while let Poll::Ready(frame) = Pin::new(self.response.body_mut()).poll_frame(cx) {
                let Some(frame) = frame else { return Poll::Ready(Ok(None)) };
                let frame = frame.map_err(|error| fault_of(&error, &self.wire.noted))?;
                // Trailers are of no interest.
                if let Ok(bytes) = frame.into_data() {
                    self.far = self.far.saturating_add(u64::try_from(bytes.len()).unwrap_or(0));
                    self.body.moved();
                    return Poll::Ready(Ok(Some(bytes)));
                }
            }
            if !self.wire.ends(cx) {
                break;
            }
        }
        self.wire.fault()?;
        let limit = ready!(self.body.poll(cx, self.far));
        Poll::Ready(Err(self.wire.silent(Stage::Body, limit)))
    }
}

/// The body as a stream; its errors hold a [`Fault`].
impl AsyncRead for Answer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.left.is_empty() {
            match ready!(self.poll_bytes(cx))? {
                Some(bytes) => self.left = bytes,
                None => return Poll::Ready(Ok(())),
            }
        }
        take_from(&mut self.left, buffer);
        Poll::Ready(Ok(()))
    }
}

/// The connection under an exchange.
struct Wire {
    connection: Connection<TokioIo<Watched>, Payload>,
    /// How it ended, once it has.
    end: Option<Result<(), Fault>>,
    noted: Arc<Noted>,
}

impl Wire {
    /// Moves the connection as far as it goes; whether it came to its end by that. Whoever waits
    /// for something of it looks once more then, before it believes in a fault: a daemon that
    /// answers and closes while it is sent something has answered.
    fn ends(&mut self, cx: &mut Context<'_>) -> bool {
        if self.end.is_some() {
            return false;
        }
        let Poll::Ready(end) = self.connection.poll_without_shutdown(cx) else { return false };
        self.end = Some(end.map_err(|error| fault_of(&error, &self.noted)));
        true
    }

    /// # Errors
    /// Why the connection ended, if that was no good end.
    fn fault(&self) -> Result<(), Fault> {
        self.end.clone().unwrap_or(Ok(()))
    }

    fn silent(&self, stage: Stage, limit: Duration) -> Fault {
        let stage = if self.noted.source_waits() { Stage::Source } else { stage };
        Fault::Silent { stage, limit }
    }
}

fn fault_of(error: &hyper::Error, noted: &Noted) -> Fault {
    if let Some(why) = noted.source_fault() {
        return Fault::Source(cleaned(&why));
    }
    if error.is_parse_too_large() {
        return Fault::TooLarge { what: "head of an answer", bytes_max: HEAD_BYTES_MAX };
    }
    let cause =
        std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    let kind = cause.map(io::Error::kind);
    let garbled = matches!(kind, Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData));
    let words = cause.map_or_else(|| error.to_string(), ToString::to_string);
    if error.is_parse() || garbled {
        return Fault::not_docker(&words);
    }
    Fault::Closed(cleaned(&noted.write_fault().unwrap_or(words)))
}

fn undelimited() -> Fault {
    Fault::not_docker("its answer does not say where it ends")
}
