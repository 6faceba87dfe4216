//! The last line of a connection that did not become a session: counted always, logged unless
//! strangers flood the log.

use std::cell::RefCell;

use super::super::clock;
use super::super::report::{Carried, Report};
use crate::ended::{Cause, Ended, Side, Stage};
use crate::log_limiter::{LogLimiter, Network};
use crate::metrics::Counters;

/// The end of a connection whose task was dropped with the whole door.
pub(super) const KILLED: Ended =
    Ended { side: Side::Operator, stage: Stage::Authentication, cause: Cause::Killed };

/// Counts and logs the end of a connection, however its task ends. `None`: that is the
/// pump's to do now.
pub(super) struct LastLine<'a> {
    pub(super) counters: &'a Counters,
    pub(super) strangers: &'a StrangerLines,
    pub(super) report: &'a RefCell<Report>,
    pub(super) ended: Option<Ended>,
}

impl Drop for LastLine<'_> {
    fn drop(&mut self) {
        let Some(ended) = self.ended else { return };
        self.counters.ended(ended);
        let report = self.report.borrow();
        let now_ms = clock::monotonic_ms();
        let lasted_ms = now_ms.saturating_sub(report.accepted_ms);
        if report.who.is_some() || self.strangers.allows(&report, now_ms) {
            report.write(ended, Carried { lasted_ms, ..Carried::default() });
        }
    }
}

/// The lines of connections on which nobody proved a key: a flood of them must not drown the log.
/// The metrics count all of them.
#[derive(Default)]
pub(super) struct StrangerLines(RefCell<LogLimiter<Network>>);

impl StrangerLines {
    /// Whether such a connection may have its line.
    fn allows(&self, report: &Report, now_ms: u64) -> bool {
        let mut lines = self.0.borrow_mut();
        let (allowed, kept_back) = lines.allow_line(Network::of(report.source()), now_ms);
        if let Some(lines) = kept_back {
            tracing::warn!(lines, "connections without a proved key ended; not logged one by one");
        }
        allowed
    }
}
