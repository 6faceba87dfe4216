//! The fleet file that is served: what it would add, change and remove, whether so much can be
//! meant, and what came of it.
//!
//! A file is read again and again without anybody looking, so its silence is no order by itself:
//! an empty one is never carried out, and one that would remove much is not unless somebody says
//! so of this very plan.

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::str::FromStr;

use super::doings::{Doing, Doings, Reader, number};
pub use super::removals::{HeldBack, RemovalsMax};
pub use super::tally::{Counts, Tally};
use super::{Prune, Step, removals};
use crate::plural::count;
use crate::registry::command::Command;
use crate::registry::fleet::Fleet;
use crate::registry::model::Model;
use crate::registry::refusal::Refusal;
use crate::registry::writer::{Actor, Mode, Service, ServiceError};

/// Refused steps that are told one by one.
const REFUSED_MAX: usize = 20;

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

/// What a file would do.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Names the plan.
    pub at: PlannedRevision,
    /// How much it is.
    pub tally: Tally,
    /// Why it is not carried out unless somebody says so of this plan;
    /// [`HeldBack::Empty`] never is.
    pub held: Option<HeldBack>,
    steps: Vec<Step>,
    /// What each step does.
    doings: Vec<Option<Doing>>,
}

/// Plans what makes the registry say what the file says.
///
/// # Errors
/// [`Refusal::Invalid`]: the fleet contradicts itself.
pub fn plan(fleet: &Fleet, model: &Model, most: RemovalsMax) -> Result<Planned, Refusal> {
    let revision = model.revision();
    if fleet.is_empty() {
        let (at, tally) = (PlannedRevision::of(revision, &[]), Tally::default());
        let (steps, doings) = (Vec::new(), Vec::new());
        return Ok(Planned { at, tally, held: Some(HeldBack::Empty), steps, doings });
    }
    let steps = super::plan(fleet, model, Prune::FromFleet)?;
    let doings = Reader::new(model, &steps).read(&steps);
    let all = Doings::of(&doings);
    let named: HashSet<&str> = fleet.edges.iter().map(|edge| edge.identity.as_str()).collect();
    let by_silence = |step: &&Step| {
        let Command::EdgeRemove { identity, .. } = &step.command else { return false };
        identity.as_ref().is_some_and(|identity| !named.contains(&**identity))
    };
    let edges_gone = number(steps.iter().filter(by_silence).count());
    let held = removals::held(&all, edges_gone, model, most);
    let (at, tally) = (PlannedRevision::of(revision, &steps), all.tally());
    Ok(Planned { at, tally, held, steps, doings })
}

/// What came of a file.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The plan that was made.
    pub planned: PlannedRevision,
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
    HeldBack(HeldBack),
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
        matches!(self.ended, Ended::HeldBack(HeldBack::Removals { .. })).then_some(self.planned)
    }

    /// What is wrong, if anything is.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        match &self.ended {
            Ended::Applied => None,
            Ended::HeldBack(held) => Some(held.to_string()),
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

/// Makes the registry say what the file says, and logs what that took. `allowed` is a plan that
/// somebody has seen: it is carried out whatever it removes, if it is still the one.
///
/// # Errors
/// [`ServiceError`]. [`Refusal::Outdated`]: `allowed` is not what would be done now.
pub fn carry_out(
    service: &Service,
    fleet: &Fleet,
    most: RemovalsMax,
    allowed: Option<PlannedRevision>,
    actor: &Actor,
    mode: Mode,
) -> Result<Outcome, ServiceError> {
    let planned = service.read(|model| plan(fleet, model, most))?;
    let Planned { at, tally, held, steps, doings } = planned;
    if let Some(allowed) = allowed {
        service.check_at(Some(allowed.revision))?;
        if allowed.steps != at.steps {
            let what = "the fleet file says something else than when the plan was shown";
            return Err(Refusal::invalid(what, "look at the plan again").into());
        }
    }
    match held {
        Some(held) if allowed.is_none() || held == HeldBack::Empty => {
            return Ok(Outcome { planned: at, tally, ended: Ended::HeldBack(held) });
        }
        Some(_) | None => {}
    }
    let bound = allowed.map(|allowed| allowed.revision);
    let applied = super::apply(service, bound, steps, false, actor, mode)?;
    let (mut done, mut refused, mut unnamed) = (Doings::default(), Vec::new(), 0);
    for ((step, result), doing) in applied.steps.iter().zip(&doings) {
        match result {
            Ok(_) => done.add(doing.as_ref()),
            Err(refusal) if refused.len() < REFUSED_MAX => {
                refused.push(format!("{}: {}", step.text, refusal.clone().in_a_file()));
            }
            Err(_) => unnamed += 1,
        }
    }
    for line in done.lines().filter(|_| mode == Mode::Real) {
        tracing::info!("fleet file: {line}");
    }
    let ended =
        if refused.is_empty() { Ended::Applied } else { Ended::Partly { refused, more: unnamed } };
    Ok(Outcome { planned: at, tally: done.tally(), ended })
}

#[cfg(test)]
#[path = "served_file_tests.rs"]
mod tests;
