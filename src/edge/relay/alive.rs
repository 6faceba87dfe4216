//! Whether a client that says nothing is still there: `ClientAliveInterval` and
//! `ClientAliveCountMax` of sshd_config(5), asked through the protocol, so that neither a proxy nor
//! a kernel can answer for it.
//!
//! Costs an idle session one wake an interval, and no memory that stays.

use std::time::Duration;

use super::super::global_requests::Question;
use crate::ssh::transport::Instant;

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

/// How long a client has said nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Silence {
    /// Not for an interval.
    Short,
    /// For another interval: it is asked.
    Interval,
    /// As many questions went unanswered as may.
    TooLong,
}

impl Alive {
    pub(super) fn begin(&mut self, settings: ClientAlive, now: Instant) {
        let interval = settings.interval_ms();
        self.due_ms = (interval > 0).then(|| now.0.saturating_add(interval));
    }

    /// How long the client is silent that was `heard` last; `excused`: what it says is not read,
    /// or it may say nothing.
    pub(super) fn look(
        &mut self,
        settings: ClientAlive,
        Instant(now): Instant,
        Instant(heard): Instant,
        excused: bool,
    ) -> Silence {
        let interval = settings.interval_ms();
        if self.due_ms.is_none_or(|due| due > now) {
            return Silence::Short;
        }
        if heard >= self.found_ms {
            self.unanswered = 0;
        }
        let due = heard.saturating_add(interval);
        if due > now {
            self.due_ms = Some(due);
            return Silence::Short;
        }
        if !excused {
            self.unanswered = self.unanswered.saturating_add(1);
        }
        if settings.count_max > 0 && self.unanswered > settings.count_max {
            return Silence::TooLong;
        }
        self.found_ms = now;
        self.due_ms = Some(now.saturating_add(interval));
        Silence::Interval
    }
}
