//! Whether as much as a file would remove can be meant.

use super::doings::{Doings, What, number};
use super::tally::Kind;
use crate::plural::count;
use crate::registry::document::{EdgeState, Origin};
use crate::registry::model::Model;
use crate::registry::name::Label;

/// Things that may always be removed together: so few are looked at by whoever takes them out.
const REMOVED_FEW: u64 = 10;
/// One in so many of its kind may be removed with whatever else.
const REMOVED_SHARE: u64 = 10;

/// How much a file may remove at once.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum RemovalsMax {
    /// Ten things; or more, where they are at most a tenth of each kind.
    #[default]
    Usual,
    /// So many things.
    Things(u32),
}

/// Why a file is not carried out.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HeldBack {
    /// It says nothing.
    #[error(
        "the fleet file is empty, which would remove all that it named: nothing is changed; put back what it held, or \
         serve without --fleet"
    )]
    Empty,
    /// It would remove too much to be meant.
    #[error(
        "the fleet file would remove {what}, which is more than {most}: nothing is changed; if it is meant, run \
         `keyway reload --allow-mass-removal`, or set [fleet_file] removals_max in keyway.toml"
    )]
    Removals {
        /// `40 of 40 users`, and each other kind.
        what: String,
        /// What would be carried out.
        most: String,
    },
}

/// Whether so much can be meant. What a file cannot remove makes it no less, and a key for which
/// its user gets another one is not lost. `edges_gone`: by silence; what a file says is removed is
/// an order.
pub(super) fn held(
    doings: &Doings,
    edges_gone: u64,
    model: &Model,
    most: RemovalsMax,
) -> Option<HeldBack> {
    let ours = |origin: Origin| origin == Origin::Fleet;
    // Keys and rights of what is named go with a file that takes it over, too.
    let named = |kind, name: &Label, origin| {
        ours(origin) || doings.has(kind, What::TakenOver, name.as_str())
    };
    let lost = doings
        .keys
        .iter()
        .filter(|(user, net)| **net < 0 && !doings.has(Kind::User, What::Removed, user.as_str()));
    let lost: u64 = lost.map(|(_, net)| net.unsigned_abs()).sum();
    let (mut users, mut keys) = (0, 0);
    for (name, stored) in model.users() {
        users += usize::from(ours(stored.document.origin));
        if named(Kind::User, name, stored.document.origin) {
            keys += stored.document.keys.len();
        }
    }
    let (mut teams, mut memberships) = (0, 0);
    for (name, stored) in model.teams() {
        teams += usize::from(ours(stored.document.origin));
        if named(Kind::Team, name, stored.document.origin) {
            memberships += stored.document.members.len();
        }
    }
    let (mut vms, mut shares) = (0, 0);
    for (name, serial) in model.vm_names() {
        let Some(stored) = model.vm(*serial) else { continue };
        vms += usize::from(ours(stored.document.origin));
        if named(Kind::Vm, name, stored.document.origin) {
            shares += stored.document.shares.len();
        }
    }
    let addresses = model.addresses().filter(|(_, stored, _)| ours(stored.document.origin)).count();
    let nodes = model.nodes().values().filter(|stored| ours(stored.document.origin)).count();
    let edges = model.edges().values().map(|stored| &stored.document);
    let edges = edges.filter(|edge| edge.state == EdgeState::Admitted && ours(edge.origin)).count();
    let removed = |kind| doings.count(kind, What::Removed);
    let all = [
        (removed(Kind::Address), number(addresses), Kind::Address),
        (removed(Kind::User), number(users), Kind::User),
        (lost, number(keys), Kind::Key),
        (removed(Kind::Team), number(teams), Kind::Team),
        (removed(Kind::Membership), number(memberships), Kind::Membership),
        (removed(Kind::Node), number(nodes), Kind::Node),
        (edges_gone, number(edges), Kind::Edge),
        (removed(Kind::Vm), number(vms), Kind::Vm),
        (removed(Kind::Share), number(shares), Kind::Share),
    ];
    let removed: u64 = all.iter().map(|(removed, ..)| removed).sum();
    let much = |(removed, of, _): &(u64, u64, Kind)| removed * REMOVED_SHARE > *of;
    let (held, most) = match most {
        RemovalsMax::Usual => {
            let much = removed > REMOVED_FEW && all.iter().any(much);
            (much, format!("{REMOVED_FEW} things and more than a tenth of a kind"))
        }
        RemovalsMax::Things(most) => {
            (removed > u64::from(most), format!("the {most} of removals_max"))
        }
    };
    let some = all.iter().filter(|(removed, ..)| *removed > 0);
    let told = some.map(|(removed, of, kind)| format!("{removed} of {}", count(of, kind.word())));
    held.then(|| HeldBack::Removals { what: told.collect::<Vec<_>>().join(", "), most })
}
