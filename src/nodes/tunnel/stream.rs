//! One channel of a tunnel, as bytes.
//!
//! A task reads the channel, always, and hands over to an [`Inbox`]: so the SSH library never
//! waits for a reader on a shared connection. The library forgets to tell a writer that waits for
//! a window when its connection ends, and an end of input from an end of the connection: both are
//! told here. A channel that this side closes first stays in the library's tables until its
//! connection ends, so the peer is given time to close.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::link::Link;
use super::said::shown;
use super::unread::Inbox;

/// For the peer to close a channel after the end of our input.
const PARTING: Duration = Duration::from_secs(2);
/// What is kept of a program's complaints.
const COMPLAINT_BYTES_MAX: usize = 512;

/// A channel to something on a node. Dropping it ends the channel.
pub struct Stream {
    inbox: Arc<Inbox>,
    writer: Pin<Box<dyn AsyncWrite + Send>>,
}

/// What a stream holds while it lasts: its seat on the connection, and a connection's
/// seat on the node if it has one of its own.
#[derive(Debug, Default)]
pub(super) struct Seats(pub(super) Vec<OwnedSemaphorePermit>);

impl Stream {
    /// `link`: what must live as long as the channel.
    pub(super) fn begin(of: Kind, channel: Channel<Msg>, link: Arc<Link>, seats: Seats) -> Self {
        let inbox = link.unread.inbox();
        let (from, to) = channel.split();
        let writer = Box::pin(to.make_writer());
        let pumped = Pump { of, from, to, inbox: Arc::clone(&inbox), link };
        tokio::spawn(async move {
            pumped.run().await;
            drop(seats);
        });
        Self { inbox, writer }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.inbox.release();
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stream")
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.inbox.poll_read(context, into)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inbox.may_write(context)?;
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.writer.as_mut().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.inbox.may_write(context).is_err() {
            return Poll::Ready(Ok(()));
        }
        self.writer.as_mut().poll_shutdown(context)
    }
}

/// What is at the far end of a channel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// A socket or an address.
    Forward,
    /// A program: its end of output is told together with how it ended.
    Program,
}

/// Carries a channel's bytes to its inbox.
struct Pump {
    of: Kind,
    from: ChannelReadHalf,
    to: ChannelWriteHalf<Msg>,
    inbox: Arc<Inbox>,
    link: Arc<Link>,
}

impl Pump {
    async fn run(mut self) {
        let mut complaint = Vec::new();
        loop {
            let inbox = Arc::clone(&self.inbox);
            let next = tokio::select! {
                biased;
                () = inbox.released.notified() => break,
                next = self.from.wait() => next,
            };
            match next {
                Some(ChannelMsg::Data { data }) => {
                    tokio::select! {
                        biased;
                        () = inbox.put(&data) => {}
                        () = inbox.released.notified() => break,
                    }
                }
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    let room = COMPLAINT_BYTES_MAX.saturating_sub(complaint.len());
                    complaint.extend(data.iter().take(room));
                }
                Some(ChannelMsg::ExitStatus { exit_status }) if exit_status != 0 => {
                    let said = shown(&String::from_utf8_lossy(&complaint));
                    let said = format!("the program on the node ended with {exit_status}: {said}");
                    self.inbox.failed(io::ErrorKind::ConnectionAborted, said);
                }
                Some(ChannelMsg::Eof) if self.of == Kind::Forward => self.inbox.sent(),
                Some(ChannelMsg::Close) => return self.inbox.closed(),
                None => {
                    let why = self.link.why_ended().to_string();
                    return self.inbox.failed(io::ErrorKind::ConnectionReset, why);
                }
                Some(_) => {}
            }
        }
        self.part().await;
    }

    /// Ends the channel, if the peer still knows it.
    async fn part(mut self) {
        if !self.inbox.is_overrun() {
            let parting = async { self.to.eof().await.is_err() || self.is_closed().await };
            if timeout(PARTING, parting).await.is_ok() {
                return;
            }
        }
        self.link.wear();
        // The library tells nothing of a channel that this side has closed: there is no answer
        // to wait for.
        let _ = self.to.close().await;
    }

    /// Reads until the peer closes the channel, or the connection ends.
    async fn is_closed(&mut self) -> bool {
        loop {
            match self.from.wait().await {
                None | Some(ChannelMsg::Close) => return true,
                Some(_) => {}
            }
        }
    }
}
