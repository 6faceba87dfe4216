//! The fleet file that is served: what it would add, change and remove, whether so much can be meant, and what came of it.
//!
//! A file is read again and again without anybody looking, so its silence is no order by itself: an empty one is never
//! carried out, and one that would remove much is not unless somebody says so of this very plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::command::{Command, NewVm, Thing};
use super::fleet::Fleet;
use super::fleet_commands::{self, Prune, Step};
use super::model::Model;
use super::name::Label;
use super::refusal::Refusal;
use super::service::{Actor, Failed, Mode, Service};
use crate::words::count;

/// Things that may always be removed together: so few are looked at by whoever takes them out.
const REMOVED_FEW: u64 = 10;
/// One in so many of its kind may be removed with whatever else.
const REMOVED_SHARE: u64 = 10;
/// Names that a line of the log says.
const NAMES_MAX: usize = 20;
/// Refused steps that are told one by one.
const REFUSED_MAX: usize = 20;

/// How much a file may remove at once.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum RemovalsMax {
    /// Ten things; or more, where they are at most a tenth of each kind.
    #[default]
    Usual,
    /// So many things.
    Things(u32),
}

/// A plan as it was shown to somebody: where the registry stood, and what the plan would do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PlannedRevision {
    /// The registry's.
    pub revision: u64,
    steps: u64,
}

impl PlannedRevision {
    fn of(revision: u64, steps: &[Step]) -> Self {
        // The same in every process: no secret, and nobody gains by two plans that look alike.
        let mut hash = DefaultHasher::new();
        for step in steps {
            step.text.hash(&mut hash);
        }
        Self { revision, steps: hash.finish() }
    }
}

impl fmt::Display for PlannedRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.revision, self.steps)
    }
}

impl FromStr for PlannedRevision {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let read = || {
            let (revision, steps) = text.split_once('-')?;
            let steps = u64::from_str_radix(steps, 16).ok()?;
            Some(Self { revision: revision.parse().ok()?, steps })
        };
        read().ok_or_else(|| {
            Refusal::invalid("no plan is called so", "send back what the plan said of itself")
        })
    }
}

/// How many of one kind.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Counts {
    /// That are new.
    pub added: u64,
    /// That stay and become another way.
    pub changed: u64,
    /// That go.
    pub removed: u64,
    /// That were made by commands and become the file's.
    pub taken_over: u64,
}

/// How many of each kind.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Tally {
    /// Pool addresses.
    pub addresses: Counts,
    /// Users.
    pub users: Counts,
    /// Keys of users who stay.
    pub keys: Counts,
    /// Teams.
    pub teams: Counts,
    /// VMs.
    pub vms: Counts,
}

impl Tally {
    /// Each kind with its name.
    #[must_use]
    pub fn kinds(&self) -> [(&'static str, Counts); 5] {
        let Self { addresses, users, keys, teams, vms } = *self;
        [("address", addresses), ("user", users), ("key", keys), ("team", teams), ("VM", vms)]
    }
}

/// Why a file is not carried out.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Held {
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

/// What a file would do.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Names the plan.
    pub at: PlannedRevision,
    /// How much it is.
    pub tally: Tally,
    /// Why it is not carried out unless somebody says so of this plan; [`Held::Empty`] never is.
    pub held: Option<Held>,
    steps: Vec<Step>,
}

/// Plans what makes the registry say what the file says.
///
/// # Errors
/// [`Refusal::Invalid`]: the fleet contradicts itself.
pub fn plan(fleet: &Fleet, model: &Model, most: RemovalsMax) -> Result<Planned, Refusal> {
    let revision = model.revision();
    if fleet.is_empty() {
        let (at, tally) = (PlannedRevision::of(revision, &[]), Tally::default());
        return Ok(Planned { at, tally, held: Some(Held::Empty), steps: Vec::new() });
    }
    let steps = fleet_commands::plan(fleet, model, Prune::FromFleet)?;
    let done = Doings::of(&steps);
    let held = done.held(model, most);
    let (at, tally) = (PlannedRevision::of(revision, &steps), done.tally());
    Ok(Planned { at, tally, held, steps })
}

/// What came of a file.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The plan that was made.
    pub planned: PlannedRevision,
    /// Where the registry stands.
    pub revision: u64,
    /// What was done; of a plan that was held back, what would have been.
    pub tally: Tally,
    /// How it ended.
    pub ended: Ended,
}

/// How a file ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ended {
    /// All is as it says.
    Applied,
    /// All but these steps, each with why.
    Partly {
        /// The first of them.
        refused: Vec<String>,
        /// How many more there are.
        more: usize,
    },
    /// Nothing was changed.
    Held(Held),
}

impl Outcome {
    /// What was done in a line, or line by line what is wrong.
    ///
    /// # Errors
    /// [`Outcome::trouble`].
    pub fn told(&self) -> Result<String, String> {
        if let Some(trouble) = self.trouble() {
            return Err(trouble);
        }
        let kinds = self.tally.kinds();
        let all = kinds.iter().flat_map(|(kind, it)| {
            let parts = [
                (it.added, "added"),
                (it.changed, "changed"),
                (it.removed, "removed"),
                (it.taken_over, "taken over"),
            ];
            parts.map(|(number, what)| {
                (number > 0).then(|| format!("{} {what}", count(number, kind)))
            })
        });
        let all: Vec<String> = all.flatten().collect();
        Ok(if all.is_empty() { "all is as it says".to_owned() } else { all.join(", ") })
    }

    /// The plan, if it was held back and is carried out once somebody says so of it.
    #[must_use]
    pub fn may_be_allowed(&self) -> Option<PlannedRevision> {
        matches!(self.ended, Ended::Held(Held::Removals { .. })).then_some(self.planned)
    }

    /// What is wrong, if anything is.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        match &self.ended {
            Ended::Applied => None,
            Ended::Held(held) => Some(held.to_string()),
            Ended::Partly { refused, more } => {
                let more = match more {
                    0 => String::new(),
                    more => format!("\nand {} more", count(more, "change")),
                };
                let refused = refused.join("\n");
                Some(format!("the fleet file is not applied as a whole:\n{refused}{more}"))
            }
        }
    }
}

/// Makes the registry say what the file says, and logs what that took. `allowed` is a plan that somebody has seen: it is
/// carried out whatever it removes, if it is still the one.
///
/// # Errors
/// [`Failed`]. [`Refusal::Outdated`]: `allowed` is not what would be done now.
pub fn carry_out(
    service: &Service,
    fleet: &Fleet,
    most: RemovalsMax,
    allowed: Option<PlannedRevision>,
    actor: &Actor,
    mode: Mode,
) -> Result<Outcome, Failed> {
    let Planned { at, tally, held, steps } = plan(fleet, &service.model(), most)?;
    if let Some(allowed) = allowed {
        service.check_at(Some(allowed.revision))?;
        if allowed.steps != at.steps {
            let what = "the fleet file says something else than when the plan was shown";
            return Err(Refusal::invalid(what, "look at the plan again").into());
        }
    }
    let revision = service.model().revision();
    match held {
        Some(held) if allowed.is_none() || held == Held::Empty => {
            return Ok(Outcome { planned: at, revision, tally, ended: Ended::Held(held) });
        }
        Some(_) | None => {}
    }
    let bound = allowed.map(|allowed| allowed.revision);
    let applied = fleet_commands::apply(service, bound, steps, false, actor, mode)?;
    let (mut done, mut refused, mut unnamed) = (Doings::default(), Vec::new(), 0);
    for (step, result) in &applied.steps {
        match result {
            Ok(_) => done.add(step),
            Err(refusal) if refused.len() < REFUSED_MAX => {
                refused.push(format!("{}: {refusal}", step.text));
            }
            Err(_) => unnamed += 1,
        }
    }
    for line in done.lines().filter(|_| mode == Mode::Real) {
        tracing::info!("fleet file: {line}");
    }
    let ended =
        if refused.is_empty() { Ended::Applied } else { Ended::Partly { refused, more: unnamed } };
    Ok(Outcome { planned: at, revision: applied.revision, tally: done.tally(), ended })
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Kind {
    Address,
    User,
    Key,
    Team,
    Vm,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum What {
    Added,
    Changed,
    Removed,
    TakenOver,
}

/// What steps do to what, each thing once.
#[derive(Default)]
struct Doings {
    names: BTreeMap<(Kind, What), BTreeSet<String>>,
    /// By user: keys that come, less those that go.
    keys: BTreeMap<Label, i64>,
}

impl Doings {
    fn of(steps: &[Step]) -> Self {
        let mut all = Self::default();
        for step in steps {
            all.add(step);
        }
        all
    }

    fn add(&mut self, step: &Step) {
        let (kind, what, name) = match &step.command {
            Command::AddressAdd { name, .. } => (Kind::Address, What::Added, name),
            Command::AddressRemove { name } => (Kind::Address, What::Removed, name),
            Command::AddressSet { name, .. } | Command::AddressState { name, .. } => {
                (Kind::Address, What::Changed, name)
            }
            Command::UserAdd { name, .. } => (Kind::User, What::Added, name),
            Command::UserRemove { name } => (Kind::User, What::Removed, name),
            Command::TeamAdd { name, .. } => (Kind::Team, What::Added, name),
            Command::TeamRemove { name } => (Kind::Team, What::Removed, name),
            Command::TeamJoin { team, .. } | Command::TeamLeave { team, .. } => {
                (Kind::Team, What::Changed, team)
            }
            Command::VmAdd(NewVm { name, .. }) => (Kind::Vm, What::Added, name),
            Command::VmRemove { name } => (Kind::Vm, What::Removed, name),
            Command::VmRename { to, .. } => (Kind::Vm, What::Changed, to),
            Command::VmSet { name, .. }
            | Command::VmShare { name, .. }
            | Command::VmUnshare { name, .. }
            | Command::VmTransfer { name, .. }
            | Command::VmRenumber { name, .. }
            | Command::VmUnpin { name } => (Kind::Vm, What::Changed, name),
            Command::TakeOver { thing } => match thing {
                Thing::Address(name) => (Kind::Address, What::TakenOver, name),
                Thing::User(name) => (Kind::User, What::TakenOver, name),
                Thing::Team(name) => (Kind::Team, What::TakenOver, name),
                Thing::Vm(name) => (Kind::Vm, What::TakenOver, name),
            },
            Command::KeyAdd { user, line } => {
                *self.keys.entry(user.clone()).or_default() += 1;
                let name = super::values::parse_key(line).map(|key| key.fingerprint);
                return self.note(Kind::Key, What::Added, name.unwrap_or_default());
            }
            Command::KeySet { fingerprint, .. } => {
                return self.note(Kind::Key, What::Changed, fingerprint.clone());
            }
            Command::KeyRemove { user, fingerprint } => {
                *self.keys.entry(user.clone()).or_default() -= 1;
                return self.note(Kind::Key, What::Removed, fingerprint.clone());
            }
            // No fleet names these.
            Command::VmPin { .. }
            | Command::TokenAdd { .. }
            | Command::TokenRemove { .. }
            | Command::Sweep
            | Command::Remember { .. }
            | Command::Close { .. }
            | Command::CaConfirm { .. }
            | Command::Refused { .. }
            | Command::Note { .. } => return,
        };
        let new = self.names.get(&(kind, What::Added));
        if what == What::Changed && new.is_some_and(|new| new.contains(name.as_str())) {
            return;
        }
        self.note(kind, what, name.to_string());
    }

    fn note(&mut self, kind: Kind, what: What, name: String) {
        self.names.entry((kind, what)).or_default().insert(name);
    }

    fn count(&self, kind: Kind, what: What) -> u64 {
        let count = self.names.get(&(kind, what)).map_or(0, BTreeSet::len);
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    fn tally(&self) -> Tally {
        let counts = |kind| Counts {
            added: self.count(kind, What::Added),
            changed: self.count(kind, What::Changed),
            removed: self.count(kind, What::Removed),
            taken_over: self.count(kind, What::TakenOver),
        };
        Tally {
            addresses: counts(Kind::Address),
            users: counts(Kind::User),
            keys: counts(Kind::Key),
            teams: counts(Kind::Team),
            vms: counts(Kind::Vm),
        }
    }

    /// Whether so much can be meant. A key for which its user gets another one is not lost.
    fn held(&self, model: &Model, most: RemovalsMax) -> Option<Held> {
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let gone = self.names.get(&(Kind::User, What::Removed));
        let stays = |user: &Label| gone.is_none_or(|gone| !gone.contains(user.as_str()));
        let lost = self.keys.iter().filter(|(user, net)| **net < 0 && stays(user));
        let lost: u64 = lost.map(|(_, net)| net.unsigned_abs()).sum();
        let keys = || model.users().values().map(|it| it.document.keys.len()).sum();
        let all = [
            (
                self.count(Kind::Address, What::Removed),
                number(model.addresses().count()),
                "address",
            ),
            (self.count(Kind::User, What::Removed), number(model.users().len()), "user"),
            (lost, number(keys()), "key"),
            (self.count(Kind::Team, What::Removed), number(model.teams().len()), "team"),
            (self.count(Kind::Vm, What::Removed), number(model.vm_names().len()), "VM"),
        ];
        let removed: u64 = all.iter().map(|(removed, ..)| removed).sum();
        let much = |(removed, of, _): &(u64, u64, &str)| removed * REMOVED_SHARE > *of;
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
        let told = some.map(|(removed, of, kind)| format!("{removed} of {}", count(of, kind)));
        held.then(|| Held::Removals { what: told.collect::<Vec<_>>().join(", "), most })
    }

    /// One for each kind and what becomes of it, with the first names.
    fn lines(&self) -> impl Iterator<Item = String> {
        self.names.iter().map(|((kind, what), names)| {
            let kind = match kind {
                Kind::Address => "address",
                Kind::User => "user",
                Kind::Key => "key",
                Kind::Team => "team",
                Kind::Vm => "VM",
            };
            let what = match what {
                What::Added => "added",
                What::Changed => "changed",
                What::Removed => "removed",
                What::TakenOver => "taken over",
            };
            let first: Vec<&str> = names.iter().take(NAMES_MAX).map(String::as_str).collect();
            let more = names.len() - first.len();
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            format!("{} {what}: {}{more}", count(names.len(), kind), first.join(", "))
        })
    }
}

#[cfg(test)]
#[path = "fleet_file_tests.rs"]
mod tests;
