//! What carries the routes out: each handler asks the registry or the data plane, and shows
//! what came of it.

#![expect(
    clippy::unnecessary_wraps,
    clippy::needless_pass_by_value,
    reason = "every handler has the shape that the table calls, whether or not it can fail or keeps what it is given"
)]

pub(super) mod addresses_tokens;
pub(super) mod condition;
pub(super) mod data_plane;
pub(super) mod edges;
pub(super) mod fleet;
pub(super) mod nodes;
pub(super) mod users_teams;
pub(super) mod vms;

use std::collections::BTreeMap;
use std::ops::Bound;

use super::problem::Problem;
use crate::registry::refusal::Kind;
use crate::registry::{Label, Refusal};

/// What comes behind a cursor, which is a name. A cursor that is no name stands where it would.
fn behind<'m, T>(
    map: &'m BTreeMap<Label, T>,
    after: Option<&str>,
) -> impl Iterator<Item = (&'m Label, &'m T)> + use<'m, T> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    map.range::<str, _>((from, Bound::Unbounded))
}

fn unknown(kind: Kind, name: &Label) -> Problem {
    Refusal::Unknown { kind, name: name.to_string() }.into()
}
