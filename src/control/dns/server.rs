//! The loops: datagrams in, datagrams out; connections, and transfers over them.
//! Everything has a limit.

#![expect(clippy::disallowed_methods, reason = "answers are limited by the clock")]

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task;
use tokio::time::{sleep, timeout};

use super::counters::{Counters, Event, Transport};
use super::limit::{LimitVerdict, Limiter};
use super::responder::{Reply, Request, Responder};
use super::socket::Datagrams;
use super::transfer;
use super::zone::Zone;
use crate::control::places::{Place, Places, network_of};

/// No request is longer; what is cut off here was none (a question has at most 271 bytes,
/// options the rest).
const DATAGRAM_BYTES_MAX: usize = 4096;
/// Datagrams answered before other sockets and connections get their turn.
const BURST: usize = 64;
/// Connections at a time, of all peers together. One without a transfer makes room for a newcomer.
const CONNECTIONS_MAX: usize = 256;
/// Of one peer: a secondary needs two, a resolver one.
const CONNECTIONS_PER_PEER_MAX: usize = 16;
/// From one request to the next, and for the whole of one.
const REQUEST_WAIT: Duration = Duration::from_secs(10);
/// Requests on one connection. An honest resolver has a handful before it must make
/// a new connection.
const REQUESTS_MAX: usize = 1000;
/// For one message to be taken.
const WRITE_WAIT: Duration = Duration::from_secs(10);
/// Transfers at a time: each walks the whole zone on a thread of its own.
pub(super) const TRANSFERS_MAX: usize = 4;
/// Messages of a transfer that wait for the peer.
const TRANSFER_QUEUE: usize = 4;
/// Before the next accept when the process has no file descriptor left.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What all tasks share.
pub(super) struct Shared {
    pub(super) zone: Arc<Zone>,
    pub(super) counters: Arc<Counters>,
    connections: Places<IpAddr>,
    transfers: Semaphore,
    /// Connections of each peer, by address, or by network of 64 bits.
    peers: Mutex<HashMap<IpAddr, usize>>,
    /// Of all sockets together. They are served by one thread: nobody ever waits for it.
    limiter: Option<Mutex<Limiter>>,
    began: Instant,
}

impl Shared {
    pub(super) fn new(
        zone: Arc<Zone>,
        counters: Arc<Counters>,
        limiter: Option<Limiter>,
    ) -> Arc<Self> {
        Arc::new(Self {
            zone,
            counters,
            connections: Places::new("DNS over TCP", CONNECTIONS_MAX),
            transfers: Semaphore::new(TRANSFERS_MAX),
            peers: Mutex::default(),
            limiter: limiter.map(Mutex::new),
            began: Instant::now(),
        })
    }

    /// Whether a datagram is answered; `now_us` as [`Shared::now_us`] has it.
    fn judge_peer(&self, peer: IpAddr, now_us: u64) -> LimitVerdict {
        let Some(limiter) = &self.limiter else { return LimitVerdict::Answer };
        limiter.lock().unwrap_or_else(PoisonError::into_inner).judge_peer(peer, now_us)
    }

    /// Since the server began.
    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Answers into `out`; a panic costs the one question that caused it.
    fn respond(
        &self,
        responder: &mut Responder,
        request: &[u8],
        peer: IpAddr,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Reply {
        self.guarded(responder, transport, |responder| {
            responder.respond(request, peer, transport, out)
        })
    }

    fn guarded(
        &self,
        responder: &mut Responder,
        transport: Transport,
        respond: impl FnOnce(&mut Responder) -> Reply,
    ) -> Reply {
        let answered = catch_unwind(AssertUnwindSafe(|| respond(responder)));
        let Ok(reply) = answered else {
            *responder = Responder::new(Arc::clone(&self.zone));
            self.counters.happened(Event::Panicked);
            return Reply::Nothing;
        };
        match &reply {
            Reply::Nothing => self.counters.happened(Event::Ignored),
            Reply::Message(said) => self.counters.answered(transport, *said),
            Reply::Transfer(_) => {}
        }
        reply
    }
}

/// Answers the datagrams of one socket, until the runtime ends.
pub(super) async fn datagrams(mut socket: Datagrams, shared: Arc<Shared>) {
    let mut responder = Responder::new(Arc::clone(&shared.zone));
    let (mut buffer, mut out) = (vec![0; DATAGRAM_BYTES_MAX], Vec::new());
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        if burst(&mut socket, &mut responder, &mut buffer, &mut out, &shared) == BURST {
            task::yield_now().await;
        }
    }
}

/// Answers what waits, up to [`BURST`]; how many there were.
fn burst(
    socket: &mut Datagrams,
    responder: &mut Responder,
    buffer: &mut [u8],
    out: &mut Vec<u8>,
    shared: &Shared,
) -> usize {
    let now_us = shared.now_us();
    for done in 0..BURST {
        match socket.receive(buffer) {
            Ok((len, Some(asker))) if asker.peer.port() != 0 => {
                let request = buffer.get(..len).unwrap_or_default();
                let peer = asker.peer.ip();
                let reply = match shared.judge_peer(peer, now_us) {
                    LimitVerdict::Answer => {
                        shared.respond(responder, request, peer, Transport::Udp, out)
                    }
                    LimitVerdict::Slip => {
                        shared.counters.happened(Event::Slipped);
                        let truncated = |it: &mut Responder| it.truncated(request, out);
                        shared.guarded(responder, Transport::Udp, truncated)
                    }
                    LimitVerdict::Drop => {
                        shared.counters.happened(Event::Limited);
                        continue;
                    }
                };
                if matches!(reply, Reply::Message(_)) && socket.send(out, &asker).is_err() {
                    shared.counters.happened(Event::Unsent);
                }
            }
            Ok(_) => shared.counters.happened(Event::Ignored),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return done,
            // An error of an earlier datagram is told once and concerns nobody any more.
            Err(_) => {}
        }
    }
    BURST
}

/// Takes the connections of one listener, until the runtime ends.
pub(super) async fn connections(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            sleep(ACCEPT_REST).await;
            continue;
        };
        let Some(entered) = Entered::new(&shared, peer) else {
            shared.counters.happened(Event::Crowded);
            continue;
        };
        shared.counters.happened(Event::Connected);
        let (place, shown_out) = shared.connections.take(network_of(peer.ip())).await;
        let shared = Arc::clone(&shared);
        task::spawn(async move {
            // Whatever ended it, the peer has gone or is to go.
            tokio::select! {
                _over = connection(stream, peer.ip(), &shared, &place) => {}
                () = shown_out => {}
            }
            drop((entered, place));
        });
    }
}

/// A connection's share in its peer's count.
struct Entered(Arc<Shared>, IpAddr);

impl Entered {
    fn new(shared: &Arc<Shared>, peer: SocketAddr) -> Option<Self> {
        let peer = network_of(peer.ip());
        let mut peers = shared.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let count = peers.entry(peer).or_default();
        if *count >= CONNECTIONS_PER_PEER_MAX {
            return None;
        }
        *count += 1;
        Some(Self(Arc::clone(shared), peer))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut peers = self.0.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = peers.get_mut(&self.1) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                peers.remove(&self.1);
            }
        }
    }
}

async fn connection(
    mut stream: TcpStream,
    peer: IpAddr,
    shared: &Arc<Shared>,
    place: &Place<IpAddr>,
) -> io::Result<()> {
    // An answer is one write; waiting for more would only be late.
    stream.set_nodelay(true)?;
    let mut responder = Responder::new(Arc::clone(&shared.zone));
    let (mut request, mut out) = (Vec::new(), Vec::new());
    for _ in 0..REQUESTS_MAX {
        timeout(REQUEST_WAIT, read(&mut stream, &mut request)).await??;
        match shared.respond(&mut responder, &request, peer, Transport::Tcp, &mut out) {
            Reply::Nothing => return Ok(()),
            Reply::Message(_) => {
                let framed = transfer::framed(&out).ok_or(io::ErrorKind::InvalidData)?;
                timeout(WRITE_WAIT, stream.write_all(&framed)).await??;
            }
            Reply::Transfer(request) => {
                // It is listed, or there would be none.
                place.asks(&peer.to_string());
                let sent = send_zone(&mut stream, request, shared).await;
                place.rests();
                let event = if sent.is_ok() { Event::Transferred } else { Event::TransferFailed };
                shared.counters.happened(event);
                sent?;
            }
        }
    }
    Ok(())
}

/// One message behind its length. The length is the peer's word, but only what
/// arrives takes memory.
async fn read(stream: &mut TcpStream, into: &mut Vec<u8>) -> io::Result<()> {
    let len = stream.read_u16().await?;
    into.clear();
    let read = (&mut *stream).take(len.into()).read_to_end(into).await?;
    if read == usize::from(len) { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// The walk runs on a thread of its own and waits there while the peer is slow.
async fn send_zone(
    stream: &mut TcpStream,
    request: Box<Request>,
    shared: &Arc<Shared>,
) -> io::Result<()> {
    let _place = shared.transfers.acquire().await.map_err(io::Error::other)?;
    let (messages, mut waiting) = mpsc::channel::<Vec<u8>>(TRANSFER_QUEUE);
    let zone = Arc::clone(&shared.zone);
    let walk = task::spawn_blocking(move || {
        transfer::stream(&zone, &request, &mut |message| match messages.blocking_send(message) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        })
    });
    while let Some(message) = waiting.recv().await {
        timeout(WRITE_WAIT, stream.write_all(&message)).await??;
    }
    // A walk that broke off must not look like the end of a zone.
    if walk.await.unwrap_or(false) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
}
