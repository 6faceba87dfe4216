//! How the front door is, and its files read again.

use crate::control::api::{
    call::Call,
    condition::{Reload, Reloaded, Status},
    problem::Problem,
    request as ask,
};

pub(in super::super) fn status(call: &Call) -> Result<Status, Problem> {
    Ok(call.api.beside.status())
}

/// Returns when everything that can be renewed is.
pub(in super::super) fn reload(call: &Call, how: ask::Reload) -> Result<Reloaded, Problem> {
    let allowed = how.allow_mass_removal.as_deref().map(str::parse).transpose()?;
    let order = Reload { dry_run: call.query.dry_run, allow_mass_removal: allowed };
    call.api.beside.reload(order).ok_or_else(Problem::ending)
}
