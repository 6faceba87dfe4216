//! How the front door is, and its files read again.

use crate::control::api::condition::{Reload, Reloaded, Status};
use crate::control::api::context::Context;
use crate::control::api::dto;
use crate::control::api::problem::Problem;

pub(in super::super) fn status(context: &Context) -> Result<Status, Problem> {
    Ok(context.api.beside.status())
}

/// Returns when everything that can be renewed is.
pub(in super::super) fn reload(context: &Context, how: dto::Reload) -> Result<Reloaded, Problem> {
    let allowed = how.allow_mass_removal.as_deref().map(str::parse).transpose()?;
    let order = Reload { dry_run: context.query.dry_run, allow_mass_removal: allowed };
    context.api.beside.reload(order).ok_or_else(Problem::ending)
}
