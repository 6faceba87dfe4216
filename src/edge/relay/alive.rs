//! Whether a client that says nothing is still there: `ClientAliveInterval` and
//! `ClientAliveCountMax` of sshd_config(5), asked through the protocol, so that neither a proxy nor
//! a kernel can answer for it.
//!
//! Costs an idle session one wake an interval, and no memory that stays.

use std::time::Duration;

use nix::errno::Errno;

use super::super::global_requests::{Question, keep_alive};
use super::leg::{Party, PumpContext, Stop};
use super::{Relay, Turn};

/// Longest `TCP_USER_TIMEOUT` the kernel takes (it reads a signed int), in milliseconds.
const USER_TIMEOUT_MS_MAX: u64 = 0x7fff_ffff;

/// How long a client may be silent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientAlive {
    /// Silence before each question; 0: none is asked.
    pub interval: Duration,
    /// Questions that may go unanswered before the session ends; 0: any number.
    pub count_max: u32,
}

impl ClientAlive {
    /// How long the kernel may wait for a client's acknowledgement; `None`: the system decides.
    #[must_use]
    pub fn patience(self) -> Option<Duration> {
        let ms = self.interval_ms().saturating_mul(self.count_max.into());
        (ms > 0).then(|| Duration::from_millis(ms.min(USER_TIMEOUT_MS_MAX)))
    }

    fn interval_ms(self) -> u64 {
        u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX)
    }
}

/// What is known of a client's silence.
#[derive(Debug, Default)]
pub(super) struct Alive {
    /// When to look again; `None`: never.
    pub(super) due_ms: Option<u64>,
    /// When it was last found silent.
    found_ms: u64,
    /// How often it was found silent since it was heard.
    unanswered: u32,
    pub(super) question: Question,
}

impl Alive {
    pub(super) fn begin(&mut self, tools: &PumpContext) {
        let interval = tools.client_alive.interval_ms();
        self.due_ms = (interval > 0).then(|| tools.now.0.saturating_add(interval));
    }
}

impl Relay {
    /// Asks a client that was silent for an interval, or gives it up.
    pub(super) fn mind_client(&mut self, tools: &mut PumpContext) -> Turn {
        let (now, settings) = (tools.now.0, tools.client_alive);
        let interval = settings.interval_ms();
        if self.alive.due_ms.is_none_or(|due| due > now) {
            return Turn::Wait;
        }
        let heard = self.client.heard.0;
        if heard >= self.alive.found_ms {
            self.alive.unanswered = 0;
        }
        let due = heard.saturating_add(interval);
        if due > now {
            self.alive.due_ms = Some(due);
            return Turn::Wait;
        }
        // What it may have answered is not read: whether it is there the kernel finds out
        // by our question.
        if !self.client.is_kept_waiting(&self.vm) {
            self.alive.unanswered = self.alive.unanswered.saturating_add(1);
        }
        if settings.count_max > 0 && self.alive.unanswered > settings.count_max {
            self.stop(Stop::Lost(Party::Client, Errno::ETIMEDOUT), tools);
            return self.linger(tools);
        }
        self.alive.found_ms = now;
        self.alive.due_ms = Some(now.saturating_add(interval));
        // One that owes an answer already is not asked for another: whatever it says next is one.
        if self.alive.question.is_open() || self.client.transport.is_held() {
            return Turn::Wait;
        }
        self.ask_client(tools)
    }

    fn ask_client(&mut self, tools: &mut PumpContext) -> Turn {
        let Self { client, vm, alive, .. } = self;
        alive.question.ask(vm.replies.owed(), client.transport.send_seq());
        if let Err(fault) = client.transport.send(&keep_alive(), &mut tools.context()) {
            self.stop(Stop::Fault(Party::Client, fault), tools);
            return self.linger(tools);
        }
        let broke = client.flush(&mut vm.inbox);
        client.transport.rest();
        if broke { Turn::Again } else { Turn::Wait }
    }
}
