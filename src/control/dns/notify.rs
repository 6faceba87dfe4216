//! NOTIFY (RFC 1996): tells the secondaries that the zone has changed, a second after it did
//! at the earliest.
//!
//! A change is looked for once a second, so that a thousand changes are one NOTIFY. It is repeated
//! until the secondary answers, a few times; whoever misses them all looks at the SOA by itself.

#![expect(clippy::disallowed_methods, reason = "when to tell again is measured by the clock")]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::counters::Event;
use super::server::Shared;

/// How often the serial is looked at, and the least between two NOTIFYs to one secondary.
const TICK: Duration = Duration::from_secs(1);
/// Ticks before the first repetition; each later one waits twice as long: 2 + 4 + 8 + 16 s.
const PATIENCE_TICKS: u32 = 2;
/// How often one serial is told to a secondary that does not answer.
const TRIES_MAX: u32 = 5;
/// An answer is a header and one question.
const ANSWER_BYTES_MAX: usize = 512;

/// One secondary, and what it has not answered yet.
struct Secondary {
    address: SocketAddr,
    pending: Option<Pending>,
}

struct Pending {
    id: u16,
    tries: u32,
    ticks_left: u32,
}

/// Tells `secondaries`, until the runtime ends. `listen` is where the zone is served: NOTIFY leaves
/// from there, so that a secondary knows whom it hears.
pub(super) async fn run(
    secondaries: Vec<SocketAddr>,
    listen: Vec<SocketAddr>,
    shared: Arc<Shared>,
) {
    let mut sockets = Vec::new();
    for v4 in [true, false] {
        let wanted = |address: &&SocketAddr| address.is_ipv4() == v4;
        if let Some(first) = secondaries.iter().find(wanted)
            && let Ok(socket) = bind(first, listen.iter().find(wanted)).await
        {
            sockets.push((v4, socket));
        }
    }
    let mut all: Vec<_> =
        secondaries.into_iter().map(|address| Secondary { address, pending: None }).collect();
    let (mut told, mut next_id, mut next) = (None, 0_u16, Instant::now());
    loop {
        let serial = shared.zone.serial();
        if told != Some(serial) {
            told = Some(serial);
            for secondary in &mut all {
                next_id = next_id.wrapping_add(1);
                let pending = Pending { id: next_id, tries: 0, ticks_left: 0 };
                secondary.pending = Some(pending);
            }
        }
        for secondary in &mut all {
            if let Some(id) = secondary.due() {
                let message = message(shared.zone.apex(), id);
                let v4 = secondary.address.is_ipv4();
                let socket = sockets.iter().find(|(family, _)| *family == v4);
                if let (Ok(message), Some((_, socket))) = (message.to_vec(), socket)
                    && socket.send_to(&message, secondary.address).await.is_ok()
                {
                    shared.counters.happened(Event::Notified);
                }
            }
        }
        next += TICK;
        match sockets.as_slice() {
            [(_, one)] => hear_until(next, one, &mut all).await,
            [(_, one), (_, other)] => {
                // Either's answers wait in its socket while the other is heard.
                hear_until(next - TICK / 2, one, &mut all).await;
                hear_until(next, other, &mut all).await;
            }
            _ => sleep_until(next).await,
        }
    }
}

impl Secondary {
    /// One tick has passed: the id to send, if it is time.
    fn due(&mut self) -> Option<u16> {
        let pending = self.pending.as_mut()?;
        if pending.ticks_left > 0 {
            pending.ticks_left -= 1;
            return None;
        }
        if pending.tries == TRIES_MAX {
            self.pending = None;
            return None;
        }
        pending.ticks_left = PATIENCE_TICKS << pending.tries;
        pending.tries += 1;
        Some(pending.id)
    }
}

async fn bind(to: &SocketAddr, listen: Option<&SocketAddr>) -> io::Result<UdpSocket> {
    let any = match to {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    // A server on loopback only may still have secondaries elsewhere.
    let from = listen.map(SocketAddr::ip).filter(|ip| ip.is_loopback() == to.ip().is_loopback());
    UdpSocket::bind((from.unwrap_or(any), 0)).await
}

fn message(apex: &Name, id: u16) -> Message {
    let mut message = Message::new(id, MessageType::Query, OpCode::Notify);
    message.metadata.authoritative = true;
    message.add_query(Query::query(apex.clone(), RecordType::SOA));
    message
}

/// Takes answers until `end`. Any code but a refusal of the kind counts: the secondary has heard.
async fn hear_until(end: Instant, socket: &UdpSocket, all: &mut [Secondary]) {
    let mut buffer = [0; ANSWER_BYTES_MAX];
    while let Ok(heard) = timeout_at(end, socket.recv_from(&mut buffer)).await {
        let Ok((len, from)) = heard else { continue };
        let mut decoder = BinDecoder::new(buffer.get(..len).unwrap_or_default());
        let Ok(header) = Header::read(&mut decoder) else { continue };
        let is_answer = header.metadata.message_type == MessageType::Response
            && header.metadata.op_code == OpCode::Notify
            && header.metadata.response_code != ResponseCode::ServFail;
        for secondary in all.iter_mut().filter(|secondary| secondary.address == from) {
            if is_answer && secondary.pending.as_ref().is_some_and(|it| it.id == header.metadata.id)
            {
                secondary.pending = None;
            }
        }
    }
}
