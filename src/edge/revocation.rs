//! What a revocation ends: whether somebody who is in still may be, as everything stands now. Asked
//! of the one judge ([`gate::judge`]) with what is known of the connection.

use super::gate::{self, Case, CasePlace, Refusal};
use super::report::Report;
use super::shared::Shared;
use super::{clock, pump};

/// How long a right that ends may go unjudged, in seconds.
const LOOK_AGAIN_S: u64 = 60;

/// Whether a login that waits for its VM, a live session or a visit of the lobby may go on, and
/// until when if its right has an end: the first second of Unix time in which it may not.
///
/// # Errors
/// How it ends.
pub fn recheck(shared: &Shared, report: &Report, unix_s: u64) -> Result<Option<u64>, Refusal> {
    let Some(proved) = &report.who else { return Err(Refusal::NotRegistered) };
    let there;
    let place = match (&report.admitted, &report.user) {
        (Some(admitted), _) => CasePlace::Held(admitted),
        (None, Some(user)) => {
            there = report.dialled.and_then(|local| shared.table.dialled(local));
            CasePlace::Visited { address: there.as_ref().ok_or(Refusal::NoVmHere)?, user }
        }
        (None, None) => return Err(Refusal::NotRegistered),
    };
    let live = shared.live.load();
    let case = Case {
        table: &shared.table,
        policy: &live.policy,
        subject: (&*proved.presented).into(),
        source: Some(report.source()),
        unix_s,
        place,
    };
    if let Some(why) = report.far_end.as_deref().and_then(|far_end| shared.refuses(far_end)) {
        return Err(why);
    }
    let right = gate::judge(&case, |_, _| ())?;
    right.covers(&proved.grant)?;
    Ok(right.until_s)
}

/// Whether a session, or a visit of the lobby, may go on, and until when.
pub(super) fn may_stay(shared: &Shared, report: &Report) -> pump::Stay {
    if let Some(cause) = shared.is_ended_by_edge(report) {
        return pump::Stay::End(cause);
    }
    let unix_s = clock::unix_s();
    match recheck(shared, report, unix_s) {
        // Looked at again every minute: while a host sleeps, or when its time is set, the
        // two clocks part.
        Ok(until_s) => pump::Stay::Until(
            until_s.map(|until_s| clock::at_ms(until_s.min(unix_s.saturating_add(LOOK_AGAIN_S)))),
        ),
        Err(why) => pump::Stay::End(why.cause()),
    }
}
