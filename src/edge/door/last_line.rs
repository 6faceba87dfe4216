//! The last line of a connection that did not become a session: counted always, logged unless
//! strangers flood the log.

use std::cell::RefCell;

use super::super::clock;
use super::super::report::{Carried, Report};
use super::Door;
use crate::ended::{Cause, Ended, Side, Stage};
use crate::log_limiter::Network;

/// The end of a connection whose task was dropped with the whole door.
pub(super) const KILLED: Ended =
    Ended { side: Side::Operator, stage: Stage::Authentication, cause: Cause::Killed };

/// Counts and logs the end of a connection, however its task ends. `None`: that is the
/// pump's to do now.
pub(super) struct LastLine<'a> {
    pub(super) door: &'a Door,
    pub(super) report: &'a RefCell<Report>,
    pub(super) ended: Option<Ended>,
}

impl Drop for LastLine<'_> {
    fn drop(&mut self) {
        let Some(ended) = self.ended else { return };
        self.door.counters.ended(ended);
        let report = self.report.borrow();
        let now_ms = clock::monotonic_ms();
        let lasted_ms = now_ms.saturating_sub(report.accepted_ms);
        if report.who.is_some() || self.door.allows_line(&report, now_ms) {
            report.write(ended, Carried { lasted_ms, ..Carried::default() });
        }
    }
}

impl Door {
    /// Whether a connection on which nobody proved a key may have its line: a flood of them must
    /// not drown the log. The metrics count all of them.
    fn allows_line(&self, report: &Report, now_ms: u64) -> bool {
        let mut lines = self.stranger_lines.borrow_mut();
        let (allowed, kept_back) = lines.allow_line(Network::of(report.source()), now_ms);
        if let Some(lines) = kept_back {
            tracing::warn!(lines, "connections without a proved key ended; not logged one by one");
        }
        allowed
    }
}
