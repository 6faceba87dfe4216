//! One relayed session: opens the packets of each leg and seals them for the other.
//!
//! Channel numbers, windows and payloads pass as they are, but for a maximum packet size over ours
//! and room for a banner. What belongs to one leg alone stays there: key
//! exchange, EXT_INFO, PING, IGNORE and DEBUG inside the transport, host keys in `global_requests`.
//!
//! # Order
//! A packet is sealed when it is relayed and must reach the socket in that order. Sealed packets
//! for a leg lie in two places: resealed in the *other* leg's inbox (the run), or in the
//! transport's output. The transport reseals in place only while its output is empty, so the run is
//! always the older part and is written first.
//!
//! # Back-pressure
//! A packet is opened only when the other leg can take its payload: its socket is not full and its
//! transport not held by a key exchange. What is not opened stays in the inbox, a full inbox stays
//! in the kernel, and the peer's window does the rest. So each direction holds at most one inbox
//! and one filled output.
//!
//! # Why two key exchanges cannot wait for each other
//! While a leg is held, the other leg's packets are not opened. That could lock up if
//! both legs were held, each with the peer's part of its exchange behind data for the
//! other. It cannot happen:
//! - A peer sends nothing but key exchange after its KEXINIT (RFC 4253 §7.1; what comes late all
//!   the same is bounded by the transport, and a held leg can store all of it). So once an
//!   exchange was started by the *peer*, that leg's packets are opened whatever the other leg
//!   does: none of them needs it, and the exchange completes by that peer alone. After its NEWKEYS
//!   the leg waits like any other.
//! - An exchange that *we* start may have any amount of the peer's data before the peer's KEXINIT.
//!   That data needs the other leg, so we start one only while no exchange runs there. One that the
//!   other peer starts meanwhile completes by itself, as above, and then the data flows.
//!
//! A leg's exchange that we started waits for a full socket on the other leg like data does. That
//! is the peers' own back-pressure: it ends when they read.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;

use self::alive::{Alive, Silence};
pub use self::leg::EstablishedLeg;
use self::leg::{
    Exchange, Party, PumpContext, Read, RelayLeg, Stop, Writing, reseal_for_other_leg,
};
use super::banner::Banner;
use super::buffers::Pool;
use super::epoll::Readiness;
use super::global_requests::{self as requests, Proof, Request};
use super::packet_size;
use crate::ended::{Detail, Ended};
use crate::ssh::fault::Fault;
use crate::ssh::message::{
    CHANNEL_OPEN, CHANNEL_OPEN_CONFIRMATION, CHANNEL_REQUEST, GLOBAL_REQUEST, REQUEST_FAILURE,
    REQUEST_SUCCESS,
};
use crate::ssh::transport::{Event, ServerConfig};

mod alive;
pub(super) mod gcm;
pub(super) mod leg;
mod parting;
mod rekey;
mod resume;
mod wanted;

pub use self::alive::ClientAlive;
pub use self::gcm::PreferGcm;
pub(super) use self::parting::{HALF_CLOSED_MS_MAX, LINGER_MS_MAX};
pub use self::wanted::{Want, Wanted};

/// Reads a turn. A session with more to read waits until the others had their turn.
pub(super) const READS_MAX: u32 = 4;

/// Output of a transport that is written before more is sealed, in bytes. The bound on what a leg's
/// transport holds for a peer that does not read, beside one packet.
const OUTPUT_MAX: usize = 64 << 10;

/// What a session wants after a turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Turn {
    /// An event of one of its sockets, or its deadline.
    Wait,
    /// Another turn, after the others had theirs.
    Again,
    /// Nothing any more.
    Over(Ended),
}

/// Where the session stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Both directions flow.
    Open,
    /// One party has said its last, the other may go on while it moves bytes.
    HalfClosed { ended: Ended, until: u64, moved_max: u64 },
    /// Only what is sealed goes out, what comes in is thrown away.
    Closing { ended: Ended, until: u64 },
}

/// The look at a client's cipher choice.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Upgrade {
    Pending,
    Settled,
}

/// A session whose two legs have their own keys.
pub struct Relay {
    client: RelayLeg,
    vm: RelayLeg,
    /// Our host keys, as this client saw them.
    server: Arc<ServerConfig>,
    phase: Phase,
    /// What is known of its end beyond the cause.
    detail: Option<Detail>,
    upgrade: Upgrade,
    proof: Proof,
    signature: Signature,
    /// What the VM has to say to its user, until a terminal has it.
    banner: Option<Box<Banner>>,
    alive: Alive,
    /// Bytes received on both legs when the pump last looked.
    received_before: u64,
    /// Since when the pump has found a leg in a key exchange each time it looked, in milliseconds.
    exchanging_since: Option<u64>,
}

/// Whether the client's key exchange waits for a signature that somebody else makes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Signature {
    NotDue,
    Due,
    AskedFor,
}

impl Relay {
    /// Joins two legs. `server` is the configuration with which the client leg was made.
    pub fn new(client: EstablishedLeg, vm: EstablishedLeg, server: Arc<ServerConfig>) -> Self {
        Self {
            client: RelayLeg::new(client),
            vm: RelayLeg::new(vm),
            server,
            phase: Phase::Open,
            detail: None,
            upgrade: Upgrade::Pending,
            proof: Proof::Open,
            signature: Signature::NotDue,
            banner: None,
            alive: Alive::default(),
            received_before: 0,
            exchanging_since: None,
        }
    }

    /// Shows `banner`, what the VM said before it let the user in, on the first
    /// terminal. As received.
    #[must_use]
    pub fn showing(mut self, banner: &str) -> Self {
        self.banner = Banner::new(banner);
        self
    }

    /// The sockets: client, VM.
    pub(super) const fn sockets(&self) -> [&OwnedFd; 2] {
        [&self.client.fd, &self.vm.fd]
    }

    /// Bytes read from the client and from the VM.
    pub(super) const fn received(&self) -> (u64, u64) {
        (self.client.received, self.vm.received)
    }

    /// What is known of its end beyond the cause.
    pub(super) fn detail(&mut self) -> Option<Detail> {
        self.detail.take()
    }

    /// What `party` said last.
    fn last_words(&self, party: Party) -> Option<Detail> {
        let line = match party {
            Party::Client => &self.client,
            Party::Vm => &self.vm,
        };
        line.transport.last_words(Detail::BYTES_MAX).map(|words| Detail::said(&words))
    }

    /// Which sockets take nothing until an event says otherwise: client, VM.
    pub(super) fn is_full(&self) -> [bool; 2] {
        [&self.client, &self.vm].map(|line| line.writing == Writing::Full)
    }

    /// Counts what the door has read; from now on silence counts.
    pub(super) fn begin(&mut self, tools: &mut PumpContext) {
        tools.tally.up += self.client.received;
        tools.tally.down += self.vm.received;
        for line in [&mut self.client, &mut self.vm] {
            line.heard = tools.now;
        }
        self.alive.begin(tools.client_alive, tools.now);
        self.may_need_signature();
    }

    /// Takes note of it if the client's key exchange waits for a signature.
    fn may_need_signature(&mut self) {
        if self.signature == Signature::NotDue && self.client.transport.unsigned().is_some() {
            self.signature = Signature::Due;
        }
    }

    /// What is needed of whoever holds the host keys: said once.
    pub(super) fn wanted(&mut self) -> Option<Wanted<'_>> {
        if let Some(asked) = self.proof.due() {
            return Some(Wanted::Proof(asked));
        }
        if self.signature != Signature::Due {
            return None;
        }
        self.signature = Signature::AskedFor;
        let (algorithm, host_key, hash) = self.client.transport.unsigned()?;
        Some(Wanted::Signature { algorithm, host_key, hash: hash.as_bytes().into() })
    }

    /// Goes on with what was [wanted](Self::wanted), or without; without a signature the
    /// session ends.
    pub(super) fn answered(
        &mut self,
        want: Want,
        answer: Option<&[u8]>,
        tools: &mut PumpContext,
    ) -> Turn {
        let went_on = match (want, answer) {
            (Want::Proof, signatures) => {
                self.proof = Proof::Given;
                self.client.answer_came(requests::proof(signatures), tools)
            }
            (Want::Signature, Some(signature)) => {
                self.signature = Signature::NotDue;
                self.client.transport.signed(signature, &mut tools.context())
            }
            (Want::Signature, None) => Err(Fault::HostKey),
        };
        match went_on {
            Ok(()) => Turn::Again,
            Err(fault) => {
                self.stop(Stop::Fault(Party::Client, fault), tools);
                self.linger(tools)
            }
        }
    }

    /// Takes what epoll said about one socket.
    pub(super) fn ready(&mut self, party: Party, readiness: Readiness) {
        let line = self.line(party);
        line.reading = line.reading.after(readiness);
        line.writing = line.writing.after(readiness);
    }

    /// Does what can be done without waiting, within bounds.
    pub(super) fn turn(&mut self, tools: &mut PumpContext) -> Turn {
        let turn = match self.phase {
            Phase::Open | Phase::HalfClosed { .. } => match self.work(tools) {
                Ok(turn) => turn,
                Err(stop) => {
                    self.stop(stop, tools);
                    self.linger(tools)
                }
            },
            Phase::Closing { .. } => self.linger(tools),
        };
        self.client.inbox.settle(&mut tools.pool);
        self.vm.inbox.settle(&mut tools.pool);
        turn
    }

    /// When [`Self::expire`] wants to be called, on the clock of [`PumpContext::now`].
    pub(super) const fn deadline(&self) -> Option<u64> {
        match self.phase {
            Phase::Open => self.alive.due_ms,
            Phase::HalfClosed { until, .. } | Phase::Closing { until, .. } => Some(until),
        }
    }

    /// Asks a client that was silent for an interval, or gives it up.
    fn mind_client(&mut self, tools: &mut PumpContext) -> Turn {
        // What it may have answered is not read: whether it is there the kernel finds out
        // by our question. Whoever waits for our signature may say nothing.
        let excused = self.client.is_kept_waiting(&self.vm) || self.signature != Signature::NotDue;
        let heard = self.client.heard;
        match self.alive.look(tools.client_alive, tools.now, heard, excused) {
            Silence::Short => Turn::Wait,
            Silence::TooLong => {
                self.stop(Stop::Lost(Party::Client, Errno::ETIMEDOUT), tools);
                self.linger(tools)
            }
            // One that owes an answer already is not asked for another: whatever it says next is
            // one.
            Silence::Interval
                if self.alive.question.is_open() || self.client.transport.is_held() =>
            {
                Turn::Wait
            }
            Silence::Interval => self.ask_client(tools),
        }
    }

    fn ask_client(&mut self, tools: &mut PumpContext) -> Turn {
        let Self { client, vm, alive, .. } = self;
        alive.question.ask(vm.replies.owed(), client.transport.send_seq());
        if let Err(fault) = client.transport.send(&requests::keep_alive(), &mut tools.context()) {
            self.stop(Stop::Fault(Party::Client, fault), tools);
            return self.linger(tools);
        }
        let broke = client.flush(&mut vm.inbox);
        client.transport.rest();
        if broke { Turn::Again } else { Turn::Wait }
    }

    /// Gives the buffers back.
    pub(super) fn release(&mut self, pool: &mut Pool) {
        self.client.inbox.release(pool);
        self.vm.inbox.release(pool);
    }

    const fn line(&mut self, party: Party) -> &mut RelayLeg {
        match party {
            Party::Client => &mut self.client,
            Party::Vm => &mut self.vm,
        }
    }

    /// The line that `from` is on, and the other one.
    const fn lines(&mut self, from: Party) -> (&mut RelayLeg, &mut RelayLeg) {
        match from {
            Party::Client => (&mut self.client, &mut self.vm),
            Party::Vm => (&mut self.vm, &mut self.client),
        }
    }

    fn work(&mut self, tools: &mut PumpContext) -> Result<Turn, Stop> {
        let mut reads = READS_MAX;
        // One direction may set the other free: a key exchange completes, an answer goes out.
        loop {
            let up = self.carry(Party::Client, &mut reads, tools)?;
            let down = self.carry(Party::Vm, &mut reads, tools)?;
            if !(up || down || self.start_exchange(tools)?) {
                break;
            }
        }
        self.half_close(tools);
        if let Phase::HalfClosed { ended, .. } = self.phase
            && self.client.writing == Writing::Finished
            && self.vm.writing == Writing::Finished
        {
            self.close(ended, tools);
            return Ok(self.linger(tools));
        }
        let more = reads == 0 && (self.wants_read(Party::Client) || self.wants_read(Party::Vm));
        Ok(if more { Turn::Again } else { Turn::Wait })
    }

    /// A read could bring `from` on.
    fn wants_read(&mut self, from: Party) -> bool {
        let (from, to) = self.lines(from);
        from.may_read() && from.may_open(to)
    }

    /// Moves one direction on, by at most one read. True if anything moved that another round
    /// could follow up.
    fn carry(
        &mut self,
        party: Party,
        reads: &mut u32,
        tools: &mut PumpContext,
    ) -> Result<bool, Stop> {
        let (from, to) = self.lines(party);
        let mut broke = to.flush(&mut from.inbox);
        let mut moved = self.open(party, tools)?;
        // What is read behind a run pushes both towards the buffer's end: a run goes out
        // first, if it can.
        let (from, to) = self.lines(party);
        broke |= to.flush(&mut from.inbox);
        if *reads > 0 && self.wants_read(party) {
            let (from, _) = self.lines(party);
            *reads -= 1;
            match from.read(party, tools)? {
                Read::Nothing => {}
                Read::Bytes(_) => {
                    self.open(party, tools)?;
                    moved = true;
                }
                Read::End => {
                    self.end_of(party, tools);
                    moved = true;
                }
            }
        }
        let (from, to) = self.lines(party);
        broke |= to.flush(&mut from.inbox);
        broke |= from.flush(&mut to.inbox);
        Ok(moved || broke)
    }

    /// Opens what lies in the inbox, as far as the other leg takes it.
    fn open(&mut self, party: Party, tools: &mut PumpContext) -> Result<bool, Stop> {
        let mut moved = false;
        loop {
            let (from, to) = self.lines(party);
            if !from.inbox.has_unopened() || !from.may_open(to) {
                return Ok(moved);
            }
            let was_held = from.transport.is_held();
            let received = from
                .transport
                .receive(from.inbox.unopened(), &mut tools.context())
                .map_err(|fault| Stop::Fault(party, fault))?;
            match received.event {
                Event::Payload(payload) => {
                    self.relay(party, received.used, payload, tools)?;
                }
                Event::Starved => {
                    from.inbox.skip(received.used);
                    return Ok(moved);
                }
                Event::Handled | Event::Secured => {
                    from.drop_idle(received.used);
                    if !was_held && from.transport.is_held() {
                        from.exchange = Exchange::Peers;
                    }
                    if party == Party::Client {
                        self.may_need_signature();
                    }
                }
                Event::Rekeyed => {
                    from.drop_idle(received.used);
                    from.exchange = Exchange::None;
                    tools.tally.rekeys += 1;
                    self.exchanging_since = None;
                }
                Event::Unimplemented(sent) => {
                    from.drop_idle(received.used);
                    self.unimplemented(party, sent, tools)?;
                }
            }
            moved = true;
            let (from, to) = self.lines(party);
            if to.transport.output().len() >= OUTPUT_MAX {
                to.flush(&mut from.inbox);
            }
        }
    }

    /// `party` does not know the packet that went to it as `sent`.
    fn unimplemented(
        &mut self,
        party: Party,
        sent: u32,
        tools: &mut PumpContext,
    ) -> Result<(), Stop> {
        let Self { client, vm, alive, .. } = self;
        let (from, to) = match party {
            Party::Client => (client, vm),
            Party::Vm => (vm, client),
        };
        let request = from.origins.takes_request(sent);
        match (party, request) {
            (Party::Client, true) => alive.question.skips_reply(sent),
            (Party::Client, false) => alive.question.is_unknown(sent),
            (Party::Vm, _) => {}
        }
        let told = if request {
            // Replies are counted, so whoever asked gets one.
            to.reply(requests::failure(), tools)
        } else if let Some(origin) = from.origins.find(sent) {
            to.unimplemented(origin, tools)
        } else {
            Ok(())
        };
        told.map_err(|fault| Stop::Fault(party.other(), fault))
    }

    /// Deals with one message that lies opened at the front of the inbox.
    fn relay(
        &mut self,
        party: Party,
        used: usize,
        payload: Range<usize>,
        tools: &mut PumpContext,
    ) -> Result<(), Stop> {
        let Self { client, vm, server, proof, banner, alive, .. } = self;
        let (from, to) = match party {
            Party::Client => (client, vm),
            Party::Vm => (vm, client),
        };
        let message = &from.inbox.unopened()[payload.clone()];
        let number = message.first().copied().unwrap_or_default();
        match number {
            GLOBAL_REQUEST => {
                let request = Request::read(message)
                    .map_err(|malformed| Stop::Fault(party, malformed.into()))?;
                match (party, request) {
                    (Party::Vm, Request::HostKeys { wants_reply }) => {
                        from.drop_idle(used);
                        if wants_reply {
                            from.answer(requests::failure(), tools)
                                .map_err(|fault| Stop::Fault(party, fault))?;
                        }
                        Ok(())
                    }
                    (Party::Client, Request::Prove(asked)) => {
                        let reply = proof.requested(asked, server, &from.transport);
                        from.drop_idle(used);
                        from.answer_or_wait(reply, tools).map_err(|fault| Stop::Fault(party, fault))
                    }
                    (
                        _,
                        Request::Prove(_)
                        | Request::Other { wants_reply: true }
                        | Request::HostKeys { wants_reply: true },
                    ) => {
                        from.replies.relayed();
                        let sent = to.transport.send_seq();
                        reseal_for_other_leg(party, from, to, used, payload, tools)?;
                        to.origins.wants_reply(sent);
                        Ok(())
                    }
                    (_, Request::Other { .. } | Request::HostKeys { .. }) => {
                        reseal_for_other_leg(party, from, to, used, payload, tools)
                    }
                }
            }
            REQUEST_SUCCESS | REQUEST_FAILURE
                if party == Party::Client && alive.question.takes_reply() =>
            {
                from.drop_idle(used);
                // A quiet client stays as small as it was.
                from.transport.rest();
                Ok(())
            }
            REQUEST_SUCCESS | REQUEST_FAILURE if to.replies.must_wait() => {
                let reply = message.to_vec();
                from.inbox.skip(used);
                to.reply(reply, tools).map_err(|fault| Stop::Fault(party, fault))
            }
            REQUEST_SUCCESS | REQUEST_FAILURE => {
                reseal_for_other_leg(party, from, to, used, payload, tools)?;
                to.reply_passed(tools).map_err(|fault| Stop::Fault(party.other(), fault))
            }
            CHANNEL_OPEN | CHANNEL_OPEN_CONFIRMATION => {
                let message = &mut from.inbox.unopened()[payload.clone()];
                packet_size::lower(message);
                match (banner, party) {
                    (Some(banner), Party::Client) => banner.opens(message),
                    (Some(banner), Party::Vm) => banner.confirmed(message),
                    (None, _) => {}
                }
                reseal_for_other_leg(party, from, to, used, payload, tools)
            }
            CHANNEL_REQUEST if banner.is_some() && party == Party::Client => {
                let shown = banner.as_ref().and_then(|banner| banner.requested(message));
                if let Some(shown) = shown {
                    *banner = None;
                    from.transport
                        .send(&shown, &mut tools.context())
                        .map_err(|fault| Stop::Fault(party, fault))?;
                }
                reseal_for_other_leg(party, from, to, used, payload, tools)
            }
            _ => reseal_for_other_leg(party, from, to, used, payload, tools),
        }
    }
}

#[cfg(test)]
mod tests;
