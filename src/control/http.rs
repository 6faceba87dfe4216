//! HTTP/1.1 as everything in this room serves it: axum's routes, behind connections that are few,
//! each with a deadline for all that it may wait for.
//!
//! Knows no listener, no route and no right. Whoever serves says how many connections there may be,
//! how long each may last, and who keeps its place (`places`).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep, timeout};

use super::places::{Peer, Place, Places};

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How long a peer may take to take the next [`STALL_BYTES`] of what is written to it,
/// or what is left.
const STALL_MAX: Duration = Duration::from_secs(30);
/// 35 kB a second: slower than any line that somebody administers a fleet by, and a large answer
/// is over some time.
const STALL_BYTES: usize = 1 << 20;
/// Before another try where the process has no descriptor left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// How long one connection may take for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Before the head of its first request is there.
    pub(super) silent: Duration,
    /// For the head of a request, and between two requests.
    pub(super) head: Duration,
    /// From then on it takes no further request.
    pub(super) age: Duration,
    /// For a request that was under way then, unless it lingers.
    pub(super) last_request: Duration,
}

/// Takes connections for as long as it is polled, and serves each by itself, in a place of
/// its own. `name` is what the log calls the listener; `accept` gives nothing for a peer that
/// is gone already.
pub(super) async fn serve_each<P, C, F>(
    name: &'static str,
    connections_max: usize,
    accept: impl AsyncFn() -> io::Result<Option<(P, C)>>,
    serve: impl Fn(C, Place<P>) -> F,
) where
    P: Peer + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let places = Places::new(name, connections_max);
    loop {
        let Ok(came) = accept().await else {
            sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let Some((peer, connection)) = came else { continue };
        let (place, shown_out) = places.take(peer).await;
        let served = serve(connection, place);
        tokio::spawn(async move {
            tokio::select! {
                () = served => {}
                () = shown_out => {}
            }
        });
    }
}

/// Serves one connection to its end. `lingers` says whether the request that is under way may
/// outlast every limit.
pub(super) async fn converse<S>(
    stream: S,
    routes: Router,
    limits: Limits,
    lingers: impl Fn() -> bool,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Limits { silent, head, age, last_request } = limits;
    let asked = Arc::new(AtomicBool::new(false));
    let has_asked = Arc::clone(&asked);
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        routes.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Patient::new(stream)), service);
    let mut connection = std::pin::pin!(connection);
    // Whatever went wrong is the peer's affair, and it is gone.
    let gone = timeout(silent, connection.as_mut()).await.is_ok();
    if gone || !has_asked.load(Ordering::Relaxed) {
        return;
    }
    if timeout(age.saturating_sub(silent), connection.as_mut()).await.is_ok() {
        return;
    }
    connection.as_mut().graceful_shutdown();
    while timeout(last_request, connection.as_mut()).await.is_err() {
        if !lingers() {
            return;
        }
    }
}

/// A connection that fails when its peer stops to take what is written, or takes it by the drop.
struct Patient<S> {
    stream: S,
    stalled: Option<Pin<Box<Sleep>>>,
    /// Bytes since `stalled` began.
    taken: usize,
}

impl<S> Patient<S> {
    const fn new(stream: S) -> Self {
        Self { stream, stalled: None, taken: 0 }
    }

    /// So many bytes were taken.
    fn took(&mut self, bytes: usize) {
        self.taken = self.taken.saturating_add(bytes);
        if self.taken >= STALL_BYTES {
            (self.stalled, self.taken) = (None, 0);
        }
    }

    /// Passes on what a write came to, unless too little could be written for too long. `took` says
    /// how much of it was taken; all there was, if everything was flushed.
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

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
