//! The connection under a tunnel and its streams, which lasts as long as any of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use russh::Channel;
use russh::client::{Handle, Msg};
use tokio::sync::{Semaphore, watch};

use super::fault::{Stage, Unreached};
use super::guard::Guard;
use super::unread::Unread;
use super::wire::Line;

/// The connection itself, which its channels hold on to.
pub(super) struct Link {
    pub(super) handle: Handle<Guard>,
    pub(super) line: Arc<Line>,
    pub(super) ended: watch::Receiver<Option<Unreached>>,
    pub(super) unread: Arc<Unread>,
    pub(super) seats: Arc<Semaphore>,
    pub(super) sessions: Arc<Semaphore>,
    pub(super) worn: AtomicUsize,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.line.cut();
    }
}

impl Link {
    /// Why the connection has ended.
    pub(super) fn why_ended(&self) -> Unreached {
        let closed = || Unreached::Closed { stage: Stage::Standing, said: String::new() };
        self.ended.borrow().clone().unwrap_or_else(closed)
    }

    /// One more channel left something behind.
    pub(super) fn wear(&self) {
        self.worn.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a channel leads to.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Session,
    Socket(String),
    Address(SocketAddr),
}

impl Link {
    pub(super) async fn open_channel(&self, to: Target) -> Result<Channel<Msg>, russh::Error> {
        match to {
            Target::Session => self.handle.channel_open_session().await,
            Target::Socket(path) => self.handle.channel_open_direct_streamlocal(path).await,
            Target::Address(to) => {
                let (host, port) = (to.ip().to_string(), u32::from(to.port()));
                self.handle.channel_open_direct_tcpip(host, port, "127.0.0.1", 0).await
            }
        }
    }
}
