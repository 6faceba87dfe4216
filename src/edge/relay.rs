//! One relayed session: opens the packets of each leg and seals them for the other.
//!
//! Channel numbers, windows and payloads pass as they are, but for a maximum packet size over ours and room for a
//! banner. What belongs to one leg alone stays there: key
//! exchange, EXT_INFO, PING, IGNORE and DEBUG inside the transport, host keys in `global_requests`.
//!
//! # Order
//! A packet is sealed when it is relayed and must reach the socket in that order. Sealed packets for a leg lie
//! in two places: resealed in the *other* leg's inbox (the run), or in the transport's output. The transport
//! reseals in place only while its output is empty, so the run is always the older part and is written first.
//!
//! # Back-pressure
//! A packet is opened only when the other leg can take its payload: its socket is not full and its transport
//! not held by a key exchange. What is not opened stays in the inbox, a full inbox stays in the kernel, and the
//! peer's window does the rest. So each direction holds at most one inbox and one filled output.
//!
//! # Why two key exchanges cannot wait for each other
//! While a leg is held, the other leg's packets are not opened. That could lock up if both legs were held, each
//! with the peer's part of its exchange behind data for the other. It cannot happen:
//! - A peer sends nothing but key exchange after its KEXINIT (RFC 4253 §7.1; what comes late all the same is bounded by
//!   the transport, and a held leg can store all of it). So once an exchange was started by the *peer*, that leg's packets are opened whatever the other leg does: none of them needs it, and the exchange
//!   completes by that peer alone. After its NEWKEYS the leg waits like any other.
//! - An exchange that *we* start may have any amount of the peer's data before the peer's KEXINIT. That data needs
//!   the other leg, so we start one only while no exchange runs there. One that the other peer starts meanwhile
//!   completes by itself, as above, and then the data flows.
//!
//! A leg's exchange that we started waits for a full socket on the other leg like data does. That is
//! the peers' own back-pressure: it ends when they read.

use super::announced;
use super::banner::Banner;
use super::buffers::Pool;
use super::epoll::Readiness;
use super::global_requests::{self as requests, Request};
use super::line::{Exchange, Line, Party, Read, Reading, Stop, Tools, Writing, forward};
use crate::ended::{Cause, Ended, Side, Stage};
use crate::ssh::fault::Fault;
use crate::ssh::message::{
    CHANNEL_OPEN, CHANNEL_OPEN_CONFIRMATION, CHANNEL_REQUEST, GLOBAL_REQUEST, REQUEST_FAILURE,
    REQUEST_SUCCESS, Reason,
};
use crate::ssh::transport::{Event, ServerConfig};
use nix::errno::Errno;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use self::alive::Alive;
pub use super::line::Leg;

#[path = "alive.rs"]
mod alive;
#[path = "rekey.rs"]
mod rekey;
#[path = "resume.rs"]
mod resume;

pub use alive::ClientAlive;

/// Reads a turn. A session with more to read waits until the others had their turn.
const READS_MAX: u32 = 4;

/// Output of a transport that is written before more is sealed, in bytes. The bound on what a leg's transport
/// holds for a peer that does not read, beside one packet.
const OUTPUT_MAX: usize = 64 << 10;

/// How long a session that is over may take to get its last words out and see the peers close, in milliseconds.
const LINGER_MS_MAX: u64 = 2_000;

/// How long one direction may outlive the other without moving a byte, in milliseconds.
const HALF_CLOSED_MS_MAX: u64 = 60_000;

/// Whether we re-key a bulky client to a cipher that costs us a tenth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PreferGcm {
    /// Once, after the first 4 MiB, if the client offered AES-GCM too.
    Bulk,
    /// Not at all.
    Never,
}

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
    HalfClosed { ended: Ended, until: u64, moved: u64 },
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
    client: Line,
    vm: Line,
    /// Our host keys, as this client saw them.
    server: Arc<ServerConfig>,
    phase: Phase,
    upgrade: Upgrade,
    proof: Proof,
    /// What the VM has to say to its user, until a terminal has it.
    banner: Option<Box<Banner>>,
    alive: Alive,
    /// Bytes received on both legs when the pump last looked.
    received_before: u64,
    /// Since when the pump has found a leg in a key exchange each time it looked, in milliseconds.
    exchanging_since: Option<u64>,
}

/// Whether the client had its proof of our host keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Proof {
    Open,
    Given,
}

impl Relay {
    /// Joins two legs. `server` is the configuration with which the client leg was made.
    pub fn new(client: Leg, vm: Leg, server: Arc<ServerConfig>) -> Self {
        Self {
            client: Line::new(client),
            vm: Line::new(vm),
            server,
            phase: Phase::Open,
            upgrade: Upgrade::Pending,
            proof: Proof::Open,
            banner: None,
            alive: Alive::default(),
            received_before: 0,
            exchanging_since: None,
        }
    }

    /// Shows `banner`, what the VM said before it let the user in, on the first terminal. As received.
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

    /// Which sockets take nothing until an event says otherwise: client, VM.
    pub(super) fn is_full(&self) -> [bool; 2] {
        [&self.client, &self.vm].map(|line| line.writing == Writing::Full)
    }

    /// Counts what the door has read; from now on silence counts.
    pub(super) fn begin(&mut self, tools: &mut Tools) {
        tools.tally.up += self.client.received;
        tools.tally.down += self.vm.received;
        for line in [&mut self.client, &mut self.vm] {
            line.heard = tools.now;
        }
        self.alive.begin(tools);
    }

    /// Takes what epoll said about one socket.
    pub(super) fn ready(&mut self, party: Party, readiness: Readiness) {
        let line = self.line(party);
        if line.reading != Reading::Finished {
            if readiness.hangup {
                line.reading = Reading::HungUp;
            } else if readiness.readable && line.reading == Reading::Drained {
                line.reading = Reading::Ready;
            }
        }
        if readiness.writable && line.writing == Writing::Full {
            line.writing = Writing::Ready;
        }
    }

    /// Does what can be done without waiting, within bounds.
    pub(super) fn turn(&mut self, tools: &mut Tools) -> Turn {
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

    /// When [`Self::expire`] wants to be called, on the clock of [`Tools::now`].
    pub(super) const fn deadline(&self) -> Option<u64> {
        match self.phase {
            Phase::Open => self.alive.due_ms,
            Phase::HalfClosed { until, .. } | Phase::Closing { until, .. } => Some(until),
        }
    }

    /// The deadline may have passed.
    pub(super) fn expire(&mut self, tools: &mut Tools) -> Turn {
        let received = self.client.received + self.vm.received;
        match &mut self.phase {
            Phase::HalfClosed { ended, until, moved } if *until <= tools.now.0 => {
                if *moved == received {
                    return Turn::Over(*ended);
                }
                *until = tools.now.0 + HALF_CLOSED_MS_MAX;
                *moved = received;
                Turn::Wait
            }
            Phase::Closing { ended, until } if *until <= tools.now.0 => Turn::Over(*ended),
            Phase::Open => self.mind_client(tools),
            Phase::HalfClosed { .. } | Phase::Closing { .. } => Turn::Wait,
        }
    }

    /// Ends the session from our side; `text` is for the client's user.
    pub(super) fn evict(&mut self, cause: Cause, text: &str, tools: &mut Tools) {
        // A time that passes is a rule; everything else is somebody's doing.
        let side = if cause == Cause::RightExpired { Side::Edge } else { Side::Operator };
        let ended = Ended { side, stage: Stage::Session, cause };
        if self.close(ended, tools) {
            let cx = &mut tools.context();
            self.client.transport.disconnect(Reason::ByApplication, text, cx);
            self.vm.transport.disconnect(Reason::ByApplication, "session ended", cx);
        }
    }

    /// Gives the buffers back.
    pub(super) fn release(&mut self, pool: &mut Pool) {
        self.client.inbox.release(pool);
        self.vm.inbox.release(pool);
    }

    const fn line(&mut self, party: Party) -> &mut Line {
        match party {
            Party::Client => &mut self.client,
            Party::Vm => &mut self.vm,
        }
    }

    /// The line that `from` is on, and the other one.
    const fn lines(&mut self, from: Party) -> (&mut Line, &mut Line) {
        match from {
            Party::Client => (&mut self.client, &mut self.vm),
            Party::Vm => (&mut self.vm, &mut self.client),
        }
    }

    fn work(&mut self, tools: &mut Tools) -> Result<Turn, Stop> {
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

    /// Moves one direction on, by at most one read. True if anything moved that another round could follow up.
    fn carry(&mut self, party: Party, reads: &mut u32, tools: &mut Tools) -> Result<bool, Stop> {
        let (from, to) = self.lines(party);
        let mut broke = to.flush(&mut from.inbox);
        let mut moved = self.open(party, tools)?;
        // What is read behind a run pushes both towards the buffer's end: a run goes out first, if it can.
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
    fn open(&mut self, party: Party, tools: &mut Tools) -> Result<bool, Stop> {
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
                    from.inbox.skip(received.used);
                    if !was_held && from.transport.is_held() {
                        from.exchange = Exchange::Peers;
                    }
                }
                Event::Rekeyed => {
                    from.inbox.skip(received.used);
                    from.exchange = Exchange::None;
                    tools.tally.rekeys += 1;
                    self.exchanging_since = None;
                }
                Event::Unimplemented(sent) => {
                    from.inbox.skip(received.used);
                    if let Some(origin) = from.origins.find(sent) {
                        to.unimplemented(origin, tools)
                            .map_err(|fault| Stop::Fault(party.other(), fault))?;
                    } else if party == Party::Client {
                        self.alive.question.is_unknown(sent);
                    }
                }
            }
            moved = true;
            let (from, to) = self.lines(party);
            if to.transport.output().len() >= OUTPUT_MAX {
                to.flush(&mut from.inbox);
            }
        }
    }

    /// Deals with one message that lies opened at the front of the inbox.
    fn relay(
        &mut self,
        party: Party,
        used: usize,
        payload: Range<usize>,
        tools: &mut Tools,
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
                        from.inbox.skip(used);
                        if wants_reply {
                            from.answer(requests::failure(), tools)
                                .map_err(|fault| Stop::Fault(party, fault))?;
                        }
                        Ok(())
                    }
                    (Party::Client, Request::Prove(asked)) => {
                        let reply = match (*proof, from.transport.session_id()) {
                            (Proof::Open, Some(id)) => {
                                let rsa = from.transport.rsa_proofs();
                                requests::prove(asked, server.host_keys(), id, rsa)
                            }
                            (Proof::Open | Proof::Given, _) => requests::failure(),
                        };
                        *proof = Proof::Given;
                        from.inbox.skip(used);
                        from.answer(reply, tools).map_err(|fault| Stop::Fault(party, fault))
                    }
                    (
                        _,
                        Request::Prove(_)
                        | Request::Other { wants_reply: true }
                        | Request::HostKeys { wants_reply: true },
                    ) => {
                        from.replies.relayed();
                        forward(party, from, to, used, payload, tools)
                    }
                    (_, Request::Other { .. } | Request::HostKeys { .. }) => {
                        forward(party, from, to, used, payload, tools)
                    }
                }
            }
            REQUEST_SUCCESS | REQUEST_FAILURE
                if party == Party::Client && alive.question.takes_reply() =>
            {
                from.inbox.skip(used);
                // A quiet client stays as small as it was.
                from.transport.rest();
                Ok(())
            }
            REQUEST_SUCCESS | REQUEST_FAILURE => {
                forward(party, from, to, used, payload, tools)?;
                for reply in to.replies.passed() {
                    to.transport
                        .send(&reply, &mut tools.context())
                        .map_err(|fault| Stop::Fault(party.other(), fault))?;
                }
                Ok(())
            }
            CHANNEL_OPEN | CHANNEL_OPEN_CONFIRMATION => {
                let message = &mut from.inbox.unopened()[payload.clone()];
                announced::hold(message);
                match (banner, party) {
                    (Some(banner), Party::Client) => banner.opens(message),
                    (Some(banner), Party::Vm) => banner.confirmed(message),
                    (None, _) => {}
                }
                forward(party, from, to, used, payload, tools)
            }
            CHANNEL_REQUEST if banner.is_some() && party == Party::Client => {
                let shown = banner.as_ref().and_then(|banner| banner.requested(message));
                if let Some(shown) = shown {
                    *banner = None;
                    from.transport
                        .send(&shown, &mut tools.context())
                        .map_err(|fault| Stop::Fault(party, fault))?;
                }
                forward(party, from, to, used, payload, tools)
            }
            _ => forward(party, from, to, used, payload, tools),
        }
    }

    /// The peer's FIN was read.
    fn end_of(&mut self, party: Party, tools: &Tools) {
        if self.phase == Phase::Open {
            self.phase = Phase::HalfClosed {
                ended: Ended { side: party.side(), stage: Stage::Session, cause: Cause::Closed },
                until: tools.now.0 + HALF_CLOSED_MS_MAX,
                moved: self.client.received + self.vm.received,
            };
        }
    }

    /// Passes a FIN on once everything before it is written.
    fn half_close(&mut self, tools: &Tools) {
        for party in [Party::Client, Party::Vm] {
            let (from, to) = self.lines(party);
            // With the other leg ready, what is still unopened is a packet that will never be whole.
            if from.reading == Reading::Finished
                && to.takes()
                && from.inbox.run().is_empty()
                && to.transport.output().is_empty()
            {
                to.finish();
            }
            // Nothing more can be told to this peer: it is as if its last word were said.
            if to.writing == Writing::Finished {
                self.end_of(party.other(), tools);
            }
        }
    }

    /// Ends the session because one leg cannot go on, and tells the other leg.
    fn stop(&mut self, stop: Stop, tools: &mut Tools) {
        let (party, cause) = match stop {
            Stop::Fault(party, fault) => (party, Cause::from(&fault)),
            Stop::Lost(party, Errno::ETIMEDOUT) => (party, Cause::Deadline),
            Stop::Lost(party, _) => (party, Cause::Reset),
        };
        let ended = Ended { side: party.side(), stage: Stage::Session, cause };
        if !self.close(ended, tools) {
            return;
        }
        let (line, other) = self.lines(party);
        match stop {
            Stop::Fault(_, Fault::Disconnected { .. }) => {
                let (reason, text) = line.transport.farewell().unwrap_or_default();
                other.farewell(reason, text, tools);
            }
            Stop::Fault(..) => {
                let text = match party {
                    Party::Client => "the client broke the SSH protocol",
                    Party::Vm => "the VM broke the SSH protocol",
                };
                other.transport.disconnect(Reason::ConnectionLost, text, &mut tools.context());
            }
            Stop::Lost(..) => {
                line.reading = Reading::Finished;
                line.writing = Writing::Finished;
                let text = match party {
                    Party::Client => "the connection to the client was lost",
                    Party::Vm => "the connection to the VM was lost",
                };
                other.transport.disconnect(Reason::ConnectionLost, text, &mut tools.context());
            }
        }
    }

    /// Leaves the phases in which data flows; false if that was done before. The first reason stands.
    fn close(&mut self, ended: Ended, tools: &Tools) -> bool {
        let until = tools.now.0 + LINGER_MS_MAX;
        self.phase = match self.phase {
            Phase::Open => Phase::Closing { ended, until },
            Phase::HalfClosed { ended, .. } => Phase::Closing { ended, until },
            Phase::Closing { .. } => return false,
        };
        self.client.inbox.forget_unopened();
        self.vm.inbox.forget_unopened();
        true
    }

    /// Writes what is sealed, says FIN, and reads on until the peers do: closing with bytes unread
    /// would reset the connection, and the peer would never see our last words.
    fn linger(&mut self, tools: &mut Tools) -> Turn {
        let Phase::Closing { ended, .. } = self.phase else {
            return Turn::Wait;
        };
        let mut turn = Turn::Over(ended);
        for party in [Party::Client, Party::Vm] {
            let (from, to) = self.lines(party);
            to.flush(&mut from.inbox);
            if to.writing == Writing::Ready {
                to.finish();
            }
            if to.writing != Writing::Finished {
                turn = Turn::Wait;
            }
        }
        for party in [Party::Client, Party::Vm] {
            let line = self.line(party);
            for _ in 0..READS_MAX {
                if !line.may_read() {
                    break;
                }
                match line.discard(party, tools) {
                    Ok(Read::Bytes(_) | Read::Nothing) => {}
                    Ok(Read::End) | Err(_) => line.reading = Reading::Finished,
                }
            }
            turn = match (line.reading, turn) {
                (Reading::Finished, turn) => turn,
                (Reading::Drained, Turn::Over(_) | Turn::Wait) => Turn::Wait,
                (Reading::Drained | Reading::Ready | Reading::HungUp, _) => Turn::Again,
            };
        }
        turn
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
