//! The whole zone as messages: SOA, every record, SOA again (RFC 5936 §2.2).

use std::ops::ControlFlow;

use hickory_proto::rr::Record;

use super::responder::Request;
use super::zone::Zone;

/// Records of a message. Names of the longest kind on both sides make 52 kB of them, which is below
/// the 64 kB of a message; usual ones 4 kB.
const RECORDS_PER_MESSAGE: usize = 100;

/// Hands every message to `send`, each with its length before it, until `send` breaks. One message
/// is built at a time. Returns whether all were taken.
pub fn stream(
    zone: &Zone,
    request: &Request,
    send: &mut dyn FnMut(Vec<u8>) -> ControlFlow<()>,
) -> bool {
    // Of the beginning, at both ends: whatever changes meanwhile makes a newer one, and the
    // next copy has it.
    let soa = zone.soa();
    let mut messages = Messages { request, first: true, records: Vec::new(), send };
    let mut flow = messages.push(&soa);
    if flow.is_continue() {
        zone.walk(&mut |record| {
            flow = messages.push(record);
            flow
        });
    }
    flow.is_continue() && messages.push(&soa).is_continue() && messages.flush().is_continue()
}

struct Messages<'a> {
    request: &'a Request,
    first: bool,
    records: Vec<Record>,
    send: &'a mut dyn FnMut(Vec<u8>) -> ControlFlow<()>,
}

impl Messages<'_> {
    fn push(&mut self, record: &Record) -> ControlFlow<()> {
        self.records.push(record.clone());
        if self.records.len() < RECORDS_PER_MESSAGE {
            ControlFlow::Continue(())
        } else {
            self.flush()
        }
    }

    fn flush(&mut self) -> ControlFlow<()> {
        if self.records.is_empty() {
            return ControlFlow::Continue(());
        }
        let mut message = Vec::new();
        if !self.request.message(self.first, &self.records, &mut message) {
            return ControlFlow::Break(());
        }
        self.first = false;
        self.records.clear();
        match framed(&message) {
            Some(framed) => (self.send)(framed),
            None => ControlFlow::Break(()),
        }
    }
}

/// A message behind its length, as TCP carries it (RFC 1035 §4.2.2); `None` beyond 64 kB.
pub(super) fn framed(message: &[u8]) -> Option<Vec<u8>> {
    let len = u16::try_from(message.len()).ok()?;
    Some([&len.to_be_bytes(), message].concat())
}
