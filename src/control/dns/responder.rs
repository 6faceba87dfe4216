//! Answers queries: the bytes of a request -> the bytes of its answer. No socket, no log; what a
//! peer sends is at most counted.
//!
//! hickory reads names and writes messages. Its own reader of whole requests is not used: it
//! reserves room for as many questions as a header claims (65,535 make 8 MB), and logs what it
//! finds in options. Here a request has exactly one question and at most [`RECORDS_MAX`] records,
//! which are stepped over.

use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::{
    Edns, Header, MessageType, Metadata, OpCode, Query, ResponseCode, emit_message_parts,
};
use hickory_proto::rr::{Name, Record, RecordType};
use hickory_proto::serialize::binary::{
    BinDecodable, BinDecoder, BinEncodable, BinEncoder, DecodeError,
};

use super::counters::{ResponseKind, Transport};
use super::sign;
use super::zone::{Answer, Outcome, Zone};
use crate::unix_time::unix_s;

/// Most bytes of a UDP answer, whatever the asker can take: fits every path without fragments
/// (DNS flag day 2020).
const UDP_BYTES_MAX: u16 = 1232;
/// What an asker takes that says nothing (RFC 1035 §4.2.1).
const UDP_BYTES_PLAIN: u16 = 512;
/// Records in a request beside its question. An OPT, a signature and the SOA of an IXFR are three.
const RECORDS_MAX: u32 = 16;

/// What becomes of a request.
#[derive(Debug)]
pub enum Reply {
    /// Nothing is sent: too short for a header, or an answer itself.
    Nothing,
    /// The answer stands in the buffer.
    Message(ResponseKind),
    /// The whole zone is to be sent, over this TCP connection.
    Transfer(Box<Request>),
}

/// A readable request.
#[derive(Debug)]
pub struct Request {
    metadata: Metadata,
    question: Query,
    edns: Option<Asked>,
    /// Of the SOA in an IXFR: what the asker has.
    serial: Option<u32>,
}

/// What an OPT record says (RFC 6891 §6.1.3).
#[derive(Clone, Copy, Debug)]
struct Asked {
    payload: u16,
    version: u8,
    dnssec_ok: bool,
    /// Takes NXDOMAIN beside a proof that says NODATA (RFC 9824 §5).
    compact_ok: bool,
}

/// Why there is no [`Request`].
enum Unreadable {
    /// Not even a header, or a header that says it is an answer: answering could go on forever.
    Silence,
    /// Gets this code and its own id.
    Refusal(Metadata, ResponseKind),
}

/// Answers requests one after another, with buffers that it keeps.
#[derive(Debug)]
pub struct Responder {
    zone: Arc<Zone>,
    answer: Answer,
}

impl Responder {
    /// One for each task that answers.
    pub fn new(zone: Arc<Zone>) -> Self {
        Self { zone, answer: Answer::default() }
    }

    /// Answers `request` from `peer` into `out`, which is emptied first.
    pub fn respond(
        &mut self,
        request: &[u8],
        peer: IpAddr,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Reply {
        out.clear();
        let request = match read(request) {
            Ok(request) => request,
            Err(Unreadable::Silence) => return Reply::Nothing,
            Err(Unreadable::Refusal(mut metadata, said)) => {
                metadata.response_code = code(said);
                return headless(metadata, said, out);
            }
        };
        if request.edns.is_some_and(|edns| edns.version > 0) {
            return self.say(&request, ResponseKind::BadVersion, transport, out);
        }
        if request.question.query_type() == sign::nxname() {
            return self.say(&request, ResponseKind::Malformed, transport, out);
        }
        if matches!(request.question.query_type(), RecordType::AXFR | RecordType::IXFR) {
            return self.transfer(request, peer, transport, out);
        }
        self.zone.answer(&request.question, &mut self.answer);
        let asked = request.question.query_type();
        if request.edns.is_some_and(|edns| edns.dnssec_ok)
            && self.zone.sign(asked, &mut self.answer, unix_s()).is_err()
        {
            return self.say(&request, ResponseKind::Failure, transport, out);
        }
        let said = match self.answer.outcome {
            Outcome::Found => ResponseKind::Found,
            Outcome::NoData => ResponseKind::NoData,
            Outcome::NxDomain => ResponseKind::NxDomain,
            Outcome::Refused => ResponseKind::Refused,
            Outcome::NotImplemented => ResponseKind::NotImplemented,
        };
        self.emit(&request, said, transport, out)
    }

    /// Says into `out`, which is emptied first, that the answer to `request` is to be had over TCP;
    /// nothing is looked up.
    pub fn truncated(&mut self, request: &[u8], out: &mut Vec<u8>) -> Reply {
        out.clear();
        let Ok(request) = read(request) else { return Reply::Nothing };
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.truncation = true;
        let mut nothing = std::iter::empty::<&Record>();
        let emitted = emit_message_parts(
            &metadata,
            &mut std::iter::once(&request.question),
            &mut nothing,
            &mut std::iter::empty::<&Record>(),
            &mut std::iter::empty::<&Record>(),
            request.edns.map(reply_edns).as_ref(),
            None,
            &mut BinEncoder::new(out),
        );
        if emitted.is_ok() { Reply::Message(ResponseKind::Truncated) } else { Reply::Nothing }
    }

    /// RFC 5936, RFC 1995. There is no history of changes: a secondary that is behind
    /// gets the whole zone.
    fn transfer(
        &mut self,
        request: Request,
        peer: IpAddr,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Reply {
        let incremental = request.question.query_type() == RecordType::IXFR;
        if !self.zone.copies(peer) || transport == Transport::Udp && !incremental {
            return self.say(&request, ResponseKind::Refused, transport, out);
        }
        if request.question.name() != self.zone.apex() {
            return self.say(&request, ResponseKind::NotAuthoritative, transport, out);
        }
        let soa = self.zone.soa();
        let ours = self.zone.serial();
        let current = request.serial.is_some_and(|theirs| ours == theirs || newer(theirs, ours));
        if incremental && (current || transport == Transport::Udp) {
            self.answer = Answer { answers: vec![soa], ..Answer::default() };
            return self.emit(&request, ResponseKind::Found, transport, out);
        }
        Reply::Transfer(Box::new(request))
    }

    /// An answer without records.
    fn say(
        &mut self,
        request: &Request,
        said: ResponseKind,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Reply {
        self.answer = Answer::default();
        self.emit(request, said, transport, out)
    }

    fn emit(
        &mut self,
        request: &Request,
        said: ResponseKind,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Reply {
        let Answer { answers, authority, additional, .. } = &self.answer;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        // The proof that a name does not exist says that nothing is there (RFC 9824 §3.2); the
        // code must agree.
        let agrees = !self.answer.denied || request.edns.is_some_and(|edns| edns.compact_ok);
        metadata.response_code = if agrees { code(said) } else { ResponseCode::NoError };
        metadata.authoritative =
            matches!(said, ResponseKind::Found | ResponseKind::NoData | ResponseKind::NxDomain);
        let max = match (transport, request.edns) {
            (Transport::Tcp, _) => u16::MAX,
            (Transport::Udp, None) => UDP_BYTES_PLAIN,
            (Transport::Udp, Some(edns)) => edns.payload.clamp(UDP_BYTES_PLAIN, UDP_BYTES_MAX),
        };
        let edns = request.edns.map(reply_edns);
        let mut fits = |metadata: &Metadata, sections: [&[Record]; 3]| {
            out.clear();
            let mut encoder = BinEncoder::new(out);
            encoder.set_max_size(max);
            let [answers, authority, additional] = sections.map(|section| section.iter());
            emit_message_parts(
                metadata,
                &mut std::iter::once(&request.question),
                &mut { answers },
                &mut { authority },
                &mut { additional },
                edns.as_ref(),
                None,
                &mut encoder,
            )
            .is_ok_and(|header| header.truncation == metadata.truncation)
        };
        if fits(&metadata, [answers, authority, additional]) {
            return Reply::Message(said);
        }
        // Addresses of name servers may be left out; what was asked for may not (RFC 2181 §9):
        // all of it over TCP.
        if !additional.is_empty() && fits(&metadata, [answers, authority, &[]]) {
            return Reply::Message(said);
        }
        metadata.truncation = true;
        if fits(&metadata, [&[], &[], &[]]) {
            return Reply::Message(ResponseKind::Truncated);
        }
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = code(ResponseKind::Failure);
        headless(metadata, ResponseKind::Failure, out)
    }
}

impl Request {
    /// A message of a transfer: `answers` in the answer section, the question in the first one only
    /// (RFC 5936 §2.2). False if that is too much for one message.
    pub fn message(&self, first: bool, answers: &[Record], out: &mut Vec<u8>) -> bool {
        out.clear();
        let mut metadata = Metadata::response_from_request(&self.metadata);
        metadata.authoritative = true;
        let edns = self.edns.map(reply_edns);
        let mut nothing = std::iter::empty::<&Record>();
        emit_message_parts(
            &metadata,
            &mut first.then_some(&self.question).into_iter(),
            &mut answers.iter(),
            &mut nothing,
            &mut std::iter::empty::<&Record>(),
            edns.as_ref(),
            None,
            &mut BinEncoder::new(out),
        )
        .is_ok_and(|header| !header.truncation)
    }
}

/// Whether serial `one` comes after `other` (RFC 1982 §3.2).
pub(super) fn newer(one: u32, other: u32) -> bool {
    let ahead = one.wrapping_sub(other);
    ahead != 0 && ahead < 1 << 31
}

fn reply_edns(asked: Asked) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_BYTES_MAX).set_dnssec_ok(asked.dnssec_ok);
    edns
}

fn code(said: ResponseKind) -> ResponseCode {
    match said {
        ResponseKind::Found | ResponseKind::NoData | ResponseKind::Truncated => {
            ResponseCode::NoError
        }
        ResponseKind::NxDomain => ResponseCode::NXDomain,
        ResponseKind::Malformed => ResponseCode::FormErr,
        ResponseKind::Failure => ResponseCode::ServFail,
        ResponseKind::NotImplemented => ResponseCode::NotImp,
        ResponseKind::Refused => ResponseCode::Refused,
        ResponseKind::NotAuthoritative => ResponseCode::NotAuth,
        ResponseKind::BadVersion => ResponseCode::BADVERS,
    }
}

/// A header alone: the question could not be read, or there is no room for it.
fn headless(metadata: Metadata, said: ResponseKind, out: &mut Vec<u8>) -> Reply {
    out.clear();
    let header = Header { metadata, counts: hickory_proto::op::HeaderCounts::default() };
    match header.emit(&mut BinEncoder::new(out)) {
        Ok(()) => Reply::Message(said),
        Err(_) => Reply::Nothing,
    }
}

fn read(bytes: &[u8]) -> Result<Request, Unreadable> {
    let mut decoder = BinDecoder::new(bytes);
    let header = Header::read(&mut decoder).map_err(|_| Unreadable::Silence)?;
    if header.metadata.message_type == MessageType::Response {
        return Err(Unreadable::Silence);
    }
    let refusal = Metadata::response_from_request(&header.metadata);
    match header.metadata.op_code {
        OpCode::Query => {}
        // We are the primary, and the registry's API is the only way to change the zone.
        OpCode::Notify | OpCode::Update => {
            return Err(Unreadable::Refusal(refusal, ResponseKind::Refused));
        }
        OpCode::Status | OpCode::Unknown(_) => {
            return Err(Unreadable::Refusal(refusal, ResponseKind::NotImplemented));
        }
    }
    rest(&mut decoder, &header).map_err(|_| Unreadable::Refusal(refusal, ResponseKind::Malformed))
}

/// Why what follows a header cannot be read does not matter to anybody.
struct Broken;

impl From<DecodeError> for Broken {
    fn from(_: DecodeError) -> Self {
        Self
    }
}

/// What follows a header.
fn rest(decoder: &mut BinDecoder<'_>, header: &Header) -> Result<Request, Broken> {
    let counts = &header.counts;
    let before = u32::from(counts.answers) + u32::from(counts.authorities);
    let records = before + u32::from(counts.additionals);
    if counts.queries != 1 || records > RECORDS_MAX {
        return Err(Broken);
    }
    let question = Query::read(decoder)?;
    let (mut edns, mut serial) = (None, None);
    for at in 0..records {
        let owner = Name::read(decoder)?;
        let record_type = decoder.read_u16()?.unverified();
        let class = decoder.read_u16()?.unverified();
        let ttl = decoder.read_u32()?.unverified();
        let len = usize::from(decoder.read_u16()?.unverified());
        if record_type == u16::from(RecordType::SOA) && at < before && serial.is_none() {
            // Of the whole message, because its names may point back.
            let mut inside = decoder.clone(u16::try_from(decoder.index()).unwrap_or(u16::MAX));
            Name::read(&mut inside)?;
            Name::read(&mut inside)?;
            serial = Some(inside.read_u32()?.unverified());
        }
        decoder.read_slice(len)?;
        if record_type == u16::from(RecordType::OPT) {
            if at < before || edns.is_some() || !owner.is_root() {
                return Err(Broken);
            }
            let [_, version, flags, _] = ttl.to_be_bytes();
            let (dnssec_ok, compact_ok) = (flags & 0x80 != 0, flags & 0x40 != 0);
            edns = Some(Asked { payload: class, version, dnssec_ok, compact_ok });
        }
    }
    Ok(Request { metadata: header.metadata, question, edns, serial })
}

#[cfg(test)]
#[path = "responder_tests.rs"]
mod tests;
