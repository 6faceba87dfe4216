//! Requests on their way through the writer: what was carried out of each, what came of it, and
//! where it goes on.

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;

use super::request::{CommandRequest, Committed, Job, Mode, ServiceError};
use crate::registry::command::Command;
use crate::registry::document::Serial;
use crate::registry::draft::Progress;
use crate::registry::model::Model;
use crate::registry::name::{Label, Principal};
use crate::registry::store::Transaction;

/// Parts of large orders in one batch: as many documents as some dozen usual orders write, for
/// which readers wait.
pub(super) const PARTS_TOGETHER: usize = 8;

/// A request.
pub(super) struct Task {
    /// Only if nobody else has changed anything since this revision.
    pub(super) at: Option<u64>,
    pub(super) mode: Mode,
    /// Where the last order that was begun goes on.
    pub(super) rest: Option<Continuation>,
    /// The one that is under way, if one is, and those behind it.
    orders: VecDeque<CommandRequest>,
    /// Of the orders that were begun.
    answers: Vec<Option<Result<Committed, ServiceError>>>,
    answer: SyncSender<Vec<Result<Committed, ServiceError>>>,
}

/// What is left of an order.
#[derive(Debug)]
pub(super) struct Continuation {
    /// Documents of a part, as far as that is known to fit.
    pub(super) room: usize,
    pub(super) subject: Removal,
}

/// What is removed in parts, known by what no later thing of the same name has.
#[derive(Clone, Debug)]
pub(super) enum Removal {
    Principal(Principal),
    Vm(Serial, Label),
}

/// What was carried out of an order in one batch.
pub(super) struct Carried {
    pub(super) parts: Vec<(Committed, Transaction)>,
    /// None: it is at its end.
    pub(super) rest: Option<Continuation>,
}

/// What was carried out on the model and is to be made durable.
pub(super) struct Pending {
    pub(super) task: usize,
    pub(super) place: usize,
    /// Whether an operator asked for it, rather than time or the edge's own work.
    pub(super) wanted: bool,
    pub(super) done: Committed,
}

/// All that is made durable together.
pub(super) struct Batch {
    /// The index of the one that is being carried out.
    pub(super) task: usize,
    /// Parts that large orders may still take.
    pub(super) parts: usize,
    pub(super) pending: Vec<Pending>,
    pub(super) transactions: Vec<Transaction>,
}

/// Where the model stood when nothing was pending.
#[derive(Clone, Copy)]
pub(super) struct Before {
    pub(super) revision: u64,
    pub(super) wanted: u64,
}

impl Default for Batch {
    fn default() -> Self {
        let (pending, transactions) = (Vec::new(), Vec::new());
        Self { task: 0, parts: PARTS_TOGETHER, pending, transactions }
    }
}

impl Removal {
    pub(super) fn of(command: &Command, model: &Model) -> Option<Self> {
        if let Command::UserRemove { name } = command {
            Some(Self::Principal(Principal::User(name.clone())))
        } else if let Command::TeamRemove { name } = command {
            Some(Self::Principal(Principal::Team(name.clone())))
        } else if let Command::VmRemove { name } = command {
            model.vm_named(name).map(|(serial, _)| Self::Vm(serial, name.clone()))
        } else {
            None
        }
    }

    /// Whether it is still there and still going.
    pub(super) fn is_going(&self, model: &Model) -> bool {
        match self {
            Self::Principal(principal) => model.is_going(principal),
            Self::Vm(serial, name) => model.vm_named(name).is_some_and(|(is, _)| is == *serial),
        }
    }
}

impl Task {
    pub(super) fn new(request: Job) -> Self {
        let Job { at, orders, mode, answer } = request;
        let answers = Vec::with_capacity(orders.len());
        Self { at, mode, rest: None, orders: orders.into(), answers, answer }
    }

    /// The place of the next order, the order, and where it goes on if it was begun.
    pub(super) fn next(&mut self) -> Option<(usize, CommandRequest, Option<Continuation>)> {
        let order = self.orders.pop_front()?;
        let rest = self.rest.take();
        if rest.is_none() {
            self.answers.push(None);
        }
        Some((self.answers.len().saturating_sub(1), order, rest))
    }

    /// The order just taken goes on in another batch.
    pub(super) fn pause(&mut self, order: CommandRequest, rest: Continuation) {
        self.orders.push_front(order);
        self.rest = Some(rest);
    }

    /// An order that was begun was brought to its end by another one.
    pub(super) fn was_ended(&mut self, place: usize) {
        if let Some(Some(Ok(done))) = self.answers.get_mut(place) {
            (done.report.progress, done.report.left) = (Progress::Done, 0);
        }
    }

    /// Adds what came of a part of an order to what came of those before it.
    pub(super) fn take(&mut self, place: usize, part: Result<Committed, ServiceError>) {
        let Some(answer) = self.answers.get_mut(place) else { return };
        match (answer, part) {
            (Some(Ok(all)), Ok(part)) => {
                all.revision = part.revision;
                all.report.moves.extend(part.report.moves);
                all.report.progress = part.report.progress;
                all.report.left = part.report.left;
                all.written.extend(part.written);
            }
            // What was begun stays so, and is not tried again.
            (answer @ Some(Ok(_)), Err(why)) => {
                *answer = Some(Err(ServiceError::Begun(Box::new(why))));
            }
            (Some(Err(_)), _) => {}
            (answer, part) => *answer = Some(part),
        }
        if self.answers.get(place).is_some_and(|answer| matches!(answer, Some(Err(_))))
            && place + 1 == self.answers.len()
            && self.rest.take().is_some()
        {
            self.orders.pop_front();
        }
    }

    /// Answers, unless something is left to do: then it is the task that is left.
    pub(super) fn answered(mut self) -> Option<Self> {
        if self.orders.is_empty() {
            let answers = self.answers.into_iter();
            let answers = answers.map(|answer| answer.unwrap_or(Err(ServiceError::Ended)));
            // Whoever asked may have gone.
            let _gone = self.answer.send(answers.collect());
            return None;
        }
        // Of a million documents only those of one batch are held at a time.
        if let Some(Some(Ok(done))) = self.answers.last_mut() {
            done.written.clear();
        }
        Some(self)
    }

    /// Answers that nothing more can be done.
    pub(super) fn give_up(mut self, why: &ServiceError) {
        if self.rest.is_some() {
            self.take(self.answers.len().saturating_sub(1), Err(why.clone()));
        }
        let left = self.orders.drain(..).map(|_| Some(Err(why.clone())));
        self.answers.extend(left);
        self.answered();
    }
}
