//! How the bytes of a session get from leg to leg: what the pump asks of it, whichever way that is.

use std::os::fd::OwnedFd;

use super::super::buffers::Pool;
use super::super::epoll::Readiness;
use super::super::relay::leg::{Party, PumpContext};
use super::super::relay::{Relay, Turn, Want, Wanted};
use super::Splice;
use crate::ended::{Cause, Detail, labelled};

/// How the bytes of a session get from leg to leg.
pub enum Carriage {
    /// Both legs have keys of ours: packets are opened and sealed again.
    Reseal(Box<Relay>),
    /// The keys are the client's and the agent's: bytes pass as they are.
    Splice(Box<Splice>),
}

labelled! {
    /// Which [`Carriage`] a session has.
    pub enum Carry {
        /// [`Carriage::Reseal`].
        Relay = "relay",
        /// [`Carriage::Splice`].
        Splice = "splice",
    }
}

impl Carriage {
    /// The sockets: client, VM.
    pub(super) const fn sockets(&self) -> [&OwnedFd; 2] {
        match self {
            Self::Reseal(relay) => relay.sockets(),
            Self::Splice(splice) => splice.sockets(),
        }
    }

    /// Which it is.
    pub(super) const fn carry(&self) -> Carry {
        match self {
            Self::Reseal(_) => Carry::Relay,
            Self::Splice(_) => Carry::Splice,
        }
    }

    /// Bytes read from the client and from the VM.
    pub(super) const fn received(&self) -> (u64, u64) {
        match self {
            Self::Reseal(relay) => relay.received(),
            Self::Splice(splice) => splice.received(),
        }
    }

    /// Which sockets take nothing until an event says otherwise: client, VM.
    pub(super) fn is_full(&self) -> [bool; 2] {
        match self {
            Self::Reseal(relay) => relay.is_full(),
            Self::Splice(splice) => splice.is_full(),
        }
    }

    /// When [`Self::expire`] wants to be called, on the clock of [`PumpContext::now`].
    pub(super) fn deadline(&self) -> Option<u64> {
        match self {
            Self::Reseal(relay) => relay.deadline(),
            Self::Splice(splice) => splice.deadline(),
        }
    }

    /// What is known of its end beyond the cause.
    pub(super) fn detail(&mut self) -> Option<Detail> {
        match self {
            Self::Reseal(relay) => relay.detail(),
            Self::Splice(_) => None,
        }
    }

    /// The pump has it from now on.
    pub(super) fn begin(&mut self, tools: &mut PumpContext) {
        match self {
            Self::Reseal(relay) => relay.begin(tools),
            Self::Splice(splice) => splice.begin(tools),
        }
    }

    /// Takes what epoll said about one socket.
    pub(super) fn ready(&mut self, party: Party, readiness: Readiness) {
        match self {
            Self::Reseal(relay) => relay.ready(party, readiness),
            Self::Splice(splice) => splice.ready(party, readiness),
        }
    }

    /// Does what can be done without waiting, within bounds.
    pub(super) fn turn(&mut self, tools: &mut PumpContext) -> Turn {
        match self {
            Self::Reseal(relay) => relay.turn(tools),
            Self::Splice(splice) => splice.turn(tools),
        }
    }

    /// What is needed of whoever holds the host keys: said once.
    pub(super) fn wanted(&mut self) -> Option<Wanted<'_>> {
        match self {
            Self::Reseal(relay) => relay.wanted(),
            Self::Splice(_) => None,
        }
    }

    /// Goes on with what was [wanted](Self::wanted), or without.
    pub(super) fn answered(
        &mut self,
        want: Want,
        answer: Option<&[u8]>,
        tools: &mut PumpContext,
    ) -> Turn {
        match self {
            Self::Reseal(relay) => relay.answered(want, answer, tools),
            Self::Splice(_) => Turn::Wait,
        }
    }

    /// The deadline may have passed.
    pub(super) fn expire(&mut self, tools: &mut PumpContext) -> Turn {
        match self {
            Self::Reseal(relay) => relay.expire(tools),
            Self::Splice(splice) => splice.expire(tools),
        }
    }

    /// Looked at now and then.
    pub(super) fn look(&mut self, tools: &mut PumpContext) -> Turn {
        match self {
            Self::Reseal(relay) => relay.look(tools),
            Self::Splice(_) => Turn::Wait,
        }
    }

    /// Ends the session from our side; `text` is for the client's user, where we can tell it.
    pub(super) fn evict(&mut self, cause: Cause, text: &str, tools: &mut PumpContext) {
        match self {
            Self::Reseal(relay) => relay.evict(cause, text, tools),
            Self::Splice(splice) => splice.evict(cause, tools),
        }
    }

    /// Gives the buffers back.
    pub(super) fn release(&mut self, pool: &mut Pool) {
        match self {
            Self::Reseal(relay) => relay.release(pool),
            Self::Splice(splice) => splice.release(pool),
        }
    }
}
