//! One spliced session: moves the bytes of each leg to the other one as they are, through a pipe,
//! without a look at them.
//!
//! For a session whose keys are elsewhere: between its client and the agent beside its VM. What was
//! read before it came here goes out first. So there is nothing that this side could tell a user;
//! it can only close, once the agent had its time to.
//!
//! # Back-pressure
//! A splice takes no more than the outgoing socket has room for, and what is not taken stays in the
//! kernel. Should the socket take less all the same, what is stuck in the pipe is copied out of it,
//! and nothing is read for that direction before it is gone: so each direction holds one splice's
//! bytes at most, and no pipe. Without a pipe bytes are copied, within the same bounds.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use socket2::SockRef;

use self::leg::{Leg, Lost};
use super::super::buffers::Pool;
use super::super::epoll::Readiness;
use super::super::relay::leg::{Party, PumpContext, Read, Reading, Writing};
use super::super::relay::{HALF_CLOSED_MS_MAX, LINGER_MS_MAX, READS_MAX, Turn};
use super::super::socket_options;
use crate::ended::{Cause, Ended, Stage};

mod inflow;
mod leg;
pub use self::leg::SplicedLeg;

/// How long the agent may take for its last words once a session is to end, in milliseconds. What
/// comes from the client meanwhile goes nowhere.
pub(super) const PARTING_MS_MAX: u64 = 1_000;

/// A session whose bytes pass as they are.
pub struct Splice {
    client: Leg,
    vm: Leg,
    phase: Phase,
}

/// Where the session stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Both directions flow.
    Open,
    /// One party has said its last, the other may go on while it moves bytes.
    HalfClosed { ended: Ended, until: u64, moved_max: u64 },
    /// We end it. The agent may still say why; the client is not heard any more.
    Parting { ended: Ended, until: u64 },
    /// Both peers have our FIN, what comes in is thrown away.
    Closing { ended: Ended, until: u64 },
}

impl Splice {
    /// Joins two connections.
    pub fn new(client: SplicedLeg, vm: SplicedLeg) -> Self {
        Self { client: Leg::new(client), vm: Leg::new(vm), phase: Phase::Open }
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
        [&self.client, &self.vm].map(|leg| leg.writing == Writing::Full)
    }

    /// When [`Self::expire`] wants to be called, on the clock of [`PumpContext::now`].
    pub(super) fn deadline(&self) -> Option<u64> {
        let due = match self.phase {
            Phase::Open => None,
            Phase::HalfClosed { until, .. }
            | Phase::Parting { until, .. }
            | Phase::Closing { until, .. } => Some(until),
        };
        let inflows = [&self.client, &self.vm].map(|leg| leg.inflow.deadline());
        inflows.into_iter().flatten().chain(due).min()
    }

    /// Counts what goes out first. Whether the peers are there, the kernel alone finds
    /// out from now on.
    pub(super) fn begin(&mut self, tools: &mut PumpContext) {
        tools.tally.up += self.client.received;
        tools.tally.down += self.vm.received;
        for leg in [&self.client, &self.vm] {
            let socket = SockRef::from(&leg.fd);
            let patience = tools.client_alive.patience();
            // A socket that is gone already; the first splice says so.
            let _gone = socket_options::established(&socket)
                .and_then(|()| socket_options::be_patient(&socket, patience));
        }
    }

    /// Takes what epoll said about one socket.
    pub(super) fn ready(&mut self, party: Party, readiness: Readiness) {
        let (leg, _) = self.legs(party);
        leg.reading = leg.reading.after(readiness);
        leg.writing = leg.writing.after(readiness);
    }

    /// Does what can be done without waiting, within bounds.
    pub(super) fn turn(&mut self, tools: &mut PumpContext) -> Turn {
        let turn = match self.phase {
            Phase::Open | Phase::HalfClosed { .. } | Phase::Parting { .. } => {
                self.work(tools).unwrap_or_else(|lost| {
                    self.lost(&lost, tools);
                    self.linger(tools)
                })
            }
            Phase::Closing { .. } => self.linger(tools),
        };
        self.client.inbox.settle(&mut tools.pool);
        self.vm.inbox.settle(&mut tools.pool);
        turn
    }

    /// The deadline may have passed.
    pub(super) fn expire(&mut self, tools: &mut PumpContext) -> Turn {
        for leg in [&mut self.client, &mut self.vm] {
            leg.inflow.expire(tools.now.0, &leg.fd);
        }
        let moved = self.client.received + self.vm.received;
        match &mut self.phase {
            Phase::HalfClosed { ended, until, moved_max } if *until <= tools.now.0 => {
                if moved <= *moved_max {
                    return Turn::Over(*ended);
                }
                *until = tools.now.0 + HALF_CLOSED_MS_MAX;
                *moved_max = moved;
                Turn::Wait
            }
            Phase::Parting { ended, until } if *until <= tools.now.0 => {
                let ended = *ended;
                self.close(ended, tools);
                Turn::Again
            }
            Phase::Closing { ended, until } if *until <= tools.now.0 => Turn::Over(*ended),
            Phase::Open
            | Phase::HalfClosed { .. }
            | Phase::Parting { .. }
            | Phase::Closing { .. } => Turn::Wait,
        }
    }

    /// Ends the session from our side. The first reason stands.
    pub(super) fn evict(&mut self, cause: Cause, tools: &PumpContext) {
        let ended = match self.phase {
            Phase::Open => Ended::evicted(Stage::Session, cause),
            Phase::HalfClosed { ended, .. } => ended,
            Phase::Parting { .. } | Phase::Closing { .. } => return,
        };
        self.phase = Phase::Parting { ended, until: tools.now.0 + PARTING_MS_MAX };
        self.client.inbox.forget_run();
    }

    /// Gives the buffers back.
    pub(super) fn release(&mut self, pool: &mut Pool) {
        self.client.inbox.release(pool);
        self.vm.inbox.release(pool);
    }

    /// The leg of `from`, and the other one.
    const fn legs(&mut self, from: Party) -> (&mut Leg, &mut Leg) {
        match from {
            Party::Client => (&mut self.client, &mut self.vm),
            Party::Vm => (&mut self.vm, &mut self.client),
        }
    }

    fn work(&mut self, tools: &mut PumpContext) -> Result<Turn, Lost> {
        let mut reads = READS_MAX;
        let is_parting = matches!(self.phase, Phase::Parting { .. });
        if is_parting {
            self.client.ignore(Party::Client, &mut reads, tools);
        }
        loop {
            let up = !is_parting && self.carry(Party::Client, &mut reads, tools)?;
            let down = self.carry(Party::Vm, &mut reads, tools)?;
            if !(up || down) {
                break;
            }
        }
        self.half_close(tools);
        let is_over = match self.phase {
            Phase::HalfClosed { ended, .. } => {
                let [client, vm] = [&self.client, &self.vm].map(|leg| leg.writing);
                (client == Writing::Finished && vm == Writing::Finished).then_some(ended)
            }
            Phase::Parting { ended, .. } => (self.client.writing == Writing::Finished
                || self.client.reading == Reading::Finished)
                .then_some(ended),
            Phase::Open | Phase::Closing { .. } => None,
        };
        if let Some(ended) = is_over {
            self.close(ended, tools);
            return Ok(self.linger(tools));
        }
        let more = self.client.goes_on(&self.vm) || self.vm.goes_on(&self.client);
        Ok(if reads == 0 && more { Turn::Again } else { Turn::Wait })
    }

    /// Moves one direction on, by at most one read. True if anything moved that another round
    /// could follow up.
    fn carry(
        &mut self,
        party: Party,
        reads: &mut u32,
        tools: &mut PumpContext,
    ) -> Result<bool, Lost> {
        let (from, to) = self.legs(party);
        let broke = to.flush(&mut from.inbox);
        if *reads == 0 || !from.goes_on(to) {
            return Ok(broke);
        }
        debug_assert!(from.inbox.run().is_empty(), "a socket that takes bytes has taken these");
        let room = to.room();
        if room == 0 {
            return Ok(broke);
        }
        *reads -= 1;
        let read = match tools.pipes.lend(tools.now.0) {
            Some(pipe) => from.splice(party, to, pipe, room, tools)?,
            None => from.copy(party, to, tools)?,
        };
        match read {
            Read::Nothing => Ok(broke),
            Read::Bytes(_) => Ok(true),
            Read::End => {
                self.end_of(party, tools);
                Ok(true)
            }
        }
    }

    /// The peer's FIN was read.
    fn end_of(&mut self, party: Party, tools: &PumpContext) {
        if self.phase == Phase::Open {
            self.phase = Phase::HalfClosed {
                ended: Ended { side: party.side(), stage: Stage::Session, cause: Cause::Closed },
                until: tools.now.0 + HALF_CLOSED_MS_MAX,
                moved_max: self.client.received + self.vm.received,
            };
        }
    }

    /// Passes a FIN on once everything before it is written.
    fn half_close(&mut self, tools: &PumpContext) {
        for party in [Party::Client, Party::Vm] {
            let (from, to) = self.legs(party);
            if from.reading == Reading::Finished && from.inbox.run().is_empty() {
                to.finish();
            }
            // Nothing more can be told to this peer: it is as if its last word were said.
            if to.writing == Writing::Finished {
                self.end_of(party.other(), tools);
            }
        }
    }

    /// Ends the session because the socket of one leg failed.
    fn lost(&mut self, lost: &Lost, tools: &PumpContext) {
        let Lost(party, errno) = *lost;
        let cause = if errno == Errno::ETIMEDOUT { Cause::Deadline } else { Cause::Reset };
        let ended = Ended { side: party.side(), stage: Stage::Session, cause };
        self.close(ended, tools);
        let (leg, _) = self.legs(party);
        (leg.reading, leg.writing) = (Reading::Finished, Writing::Finished);
    }

    /// Leaves the phases in which data flows. The first reason stands.
    fn close(&mut self, ended: Ended, tools: &PumpContext) {
        let ended = match self.phase {
            Phase::Open => ended,
            Phase::HalfClosed { ended, .. }
            | Phase::Parting { ended, .. }
            | Phase::Closing { ended, .. } => ended,
        };
        self.phase = Phase::Closing { ended, until: tools.now.0 + LINGER_MS_MAX };
    }

    /// Writes what was read, says FIN, and reads on until the peers do: closing with bytes unread
    /// would reset the connection, and the peer might lose what is under way to it.
    fn linger(&mut self, tools: &mut PumpContext) -> Turn {
        let Phase::Closing { ended, .. } = self.phase else {
            return Turn::Wait;
        };
        let mut turn = Turn::Over(ended);
        for party in [Party::Client, Party::Vm] {
            let (from, to) = self.legs(party);
            to.flush(&mut from.inbox);
            if from.inbox.run().is_empty() {
                to.finish();
            }
            if to.writing != Writing::Finished {
                turn = Turn::Wait;
            }
        }
        for party in [Party::Client, Party::Vm] {
            let (leg, _) = self.legs(party);
            let mut reads = READS_MAX;
            leg.ignore(party, &mut reads, tools);
            turn = match (leg.reading, turn) {
                (Reading::Finished, turn) => turn,
                (Reading::Drained, Turn::Over(_) | Turn::Wait) => Turn::Wait,
                (Reading::Drained | Reading::Ready | Reading::HungUp, _) => Turn::Again,
            };
        }
        turn
    }
}

#[cfg(test)]
mod tests;
