//! Carries the commands of a plan out, in the order in which they stand.

use super::plan::Step;
use crate::registry::command::Options;
use crate::registry::draft::Progress;
use crate::registry::refusal::Refusal;
use crate::registry::writer::{Actor, CommandRequest, Committed, Mode, Service, ServiceError};

/// What came of a plan: each step's result, in order, and where the registry stands.
#[derive(Debug)]
pub struct Applied {
    /// The revision of the last change, or where the registry stood.
    pub revision: u64,
    /// A refused step kept none of the others from being tried.
    pub steps: Vec<(Step, Result<Committed, Refusal>)>,
}

/// Steps carried out together: others are served in between.
const TOGETHER: usize = 256;

/// Carries a plan out; one that was made at the revision `at`, only as long as nobody else
/// changes anything.
///
/// # Errors
/// [`ServiceError::Store`], [`ServiceError::Ended`] and [`Refusal::Outdated`]: what came before
/// was carried out.
pub fn apply(
    service: &Service,
    mut at: Option<u64>,
    plan: Vec<Step>,
    renumber: bool,
    actor: &Actor,
    mode: Mode,
) -> Result<Applied, ServiceError> {
    let mut applied =
        Applied { revision: service.revision(), steps: Vec::with_capacity(plan.len()) };
    // What a step would do shows only behind those before it, so a dry run goes in one piece.
    let together = if mode == Mode::DryRun { plan.len() } else { TOGETHER };
    let mut rest = plan.into_iter().peekable();
    while rest.peek().is_some() {
        let steps: Vec<Step> = rest.by_ref().take(together).collect();
        let order = |step: &Step| CommandRequest {
            command: step.command.clone(),
            options: Options { renumber, origin: step.origin, planned: true },
            expected: None,
            actor: actor.clone(),
        };
        let answers = service.carry_out_at(at, steps.iter().map(order).collect(), mode);
        for (step, answer) in steps.into_iter().zip(answers) {
            let result = match answer {
                Ok(done) => {
                    applied.revision = applied.revision.max(done.revision);
                    Ok(done)
                }
                Err(ServiceError::Refused(Refusal::Outdated { is, expected, .. })) => {
                    let done = applied.steps.len();
                    return Err(Refusal::Outdated { is, expected, done }.into());
                }
                Err(ServiceError::Refused(refusal)) => Err(refusal),
                Err(failed) => return Err(failed),
            };
            applied.steps.push((step, result));
        }
        at = at.map(|_| applied.revision);
    }
    Ok(applied)
}

impl Applied {
    /// The steps of a dry run that would be refused. What stands behind a removal of which only the
    /// beginning was tried may not be, and is none of them.
    pub fn would_be_refused(&self) -> impl Iterator<Item = (&Step, &Refusal)> {
        let tried = self.steps.iter().take_while(|(_, result)| {
            let begun = |done: &Committed| done.report.progress == Progress::Begun;
            !result.as_ref().is_ok_and(begun)
        });
        tried.filter_map(|(step, result)| Some((step, result.as_ref().err()?)))
    }
}
