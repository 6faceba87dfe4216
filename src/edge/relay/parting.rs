//! How a session ends: by a half-close that passes, by a leg that cannot go on, or from our side.

use nix::errno::Errno;

use super::leg::{Party, PumpContext, Read, Reading, Stop, Writing};
use super::{Phase, READS_MAX, Relay, Turn};
use crate::ended::{Cause, Detail, Ended, Stage};
use crate::ssh::fault::Fault;
use crate::ssh::message::Reason;

/// How long a session that is over may take to get its last words out and see the peers close,
/// in milliseconds.
pub(in super::super) const LINGER_MS_MAX: u64 = 2_000;

/// How long one direction may outlive the other without moving a byte, in milliseconds.
pub(in super::super) const HALF_CLOSED_MS_MAX: u64 = 60_000;

impl Relay {
    /// The deadline may have passed.
    pub(in super::super) fn expire(&mut self, tools: &mut PumpContext) -> Turn {
        let carried = self.client.carried() + self.vm.carried();
        match &mut self.phase {
            Phase::HalfClosed { ended, until, moved_max } if *until <= tools.now.0 => {
                // Never less than a minute ago: what has come of a packet counts until it is
                // known to be idle.
                if carried <= *moved_max {
                    return Turn::Over(*ended);
                }
                *until = tools.now.0 + HALF_CLOSED_MS_MAX;
                *moved_max = carried;
                Turn::Wait
            }
            Phase::Closing { ended, until } if *until <= tools.now.0 => Turn::Over(*ended),
            Phase::Open => self.mind_client(tools),
            Phase::HalfClosed { .. } | Phase::Closing { .. } => Turn::Wait,
        }
    }

    /// Ends the session from our side; `text` is for the client's user.
    pub(in super::super) fn evict(&mut self, cause: Cause, text: &str, tools: &mut PumpContext) {
        let ended = Ended::evicted(Stage::Session, cause);
        if self.close(ended, tools) {
            let cx = &mut tools.context();
            self.client.transport.disconnect(Reason::ByApplication, text, cx);
            self.vm.transport.disconnect(Reason::ByApplication, "session ended", cx);
        }
    }

    /// The peer's FIN was read.
    pub(super) fn end_of(&mut self, party: Party, tools: &PumpContext) {
        if self.phase == Phase::Open {
            self.phase = Phase::HalfClosed {
                ended: Ended { side: party.side(), stage: Stage::Session, cause: Cause::Closed },
                until: tools.now.0 + HALF_CLOSED_MS_MAX,
                moved_max: self.client.carried() + self.vm.carried(),
            };
        }
    }

    /// Passes a FIN on once everything before it is written.
    pub(super) fn half_close(&mut self, tools: &PumpContext) {
        for party in [Party::Client, Party::Vm] {
            let (from, to) = self.lines(party);
            // With the other leg ready, what is still unopened is a packet that
            // will never be whole.
            if from.reading == Reading::Finished
                && to.takes()
                && from.inbox.run().is_empty()
                && to.transport.output().is_empty()
            {
                to.finish();
            }
            if to.writing == Writing::Ready && to.is_left_in_exchange() {
                to.finish();
            }
            // Nothing more can be told to this peer: it is as if its last word were said.
            if to.writing == Writing::Finished {
                self.end_of(party.other(), tools);
            }
        }
    }

    /// Ends the session because one leg cannot go on, and tells the other leg.
    pub(super) fn stop(&mut self, stop: Stop, tools: &mut PumpContext) {
        let (party, cause) = match stop {
            Stop::Fault(party, fault) => (party, Cause::from(&fault)),
            Stop::Lost(party, Errno::ETIMEDOUT) => (party, Cause::Deadline),
            Stop::Lost(party, _) => (party, Cause::Reset),
        };
        let ended = Ended { side: party.side(), stage: Stage::Session, cause };
        if !self.close(ended, tools) {
            return;
        }
        self.detail = match stop {
            Stop::Fault(_, Fault::Disconnected { .. }) => self.last_words(party),
            Stop::Fault(_, fault) => Some(Detail::found(fault)),
            Stop::Lost(..) => None,
        };
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

    /// Leaves the phases in which data flows; false if that was done before. The
    /// first reason stands.
    pub(super) fn close(&mut self, ended: Ended, tools: &PumpContext) -> bool {
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
    pub(super) fn linger(&mut self, tools: &mut PumpContext) -> Turn {
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
