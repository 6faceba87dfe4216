//! The thread that writes: a batch of orders at a time, each carried out by itself, in parts if
//! need be, all made durable together, told to the subscriber, and answered then. Of an order
//! of many parts a batch takes a few: nobody waits for the whole of it, neither other orders
//! nor those who read.

#![expect(clippy::disallowed_methods, reason = "sweeps and forgetting come round by the clock")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::batch::{Batch, Before, Carried, Continuation, PARTS_TOGETHER, Pending, Removal, Task};
use super::busy;
use super::load::{self, Unreadable};
use super::request::{
    CommandRequest, Committed, Job, LastOperatorRevision, Mode, ServiceError, StoreHealth,
    Subscriber, Update,
};
use crate::registry::audit::{self, Audit, Forget, Moved};
use crate::registry::command::{Command, Noted};
use crate::registry::document::{Document, Key, PREFIXES};
use crate::registry::draft::{Draft, PART_DOCUMENTS, Progress, Report, Written, rollback, stamp};
use crate::registry::model::{CommandContext, Model};
use crate::registry::refusal::{Kind, Refusal};
use crate::registry::store::{
    Expected, OPERATIONS_MAX, Revision, Store, TRANSACTION_BYTES_MAX, TransactFault, Transaction,
};
use crate::registry::subject::Subject;
use crate::ssh::entropy::Entropy;

/// Orders made durable together. Readers wait for a batch: more of them would be felt.
const BATCH_MAX: usize = 64;
/// How long those who wait for the model are let in between two batches of what is under way.
const BREATH: Duration = Duration::from_millis(1);
/// How often time alone is given the chance to change something: quarantines and second
/// ways last an hour.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Commits that the store keeps for those who watch; who is later takes a snapshot.
const HISTORY_KEPT: u64 = 100_000;
/// How often the audit log is looked through for what is too old.
const FORGET_EVERY: Duration = Duration::from_hours(1);

pub(super) struct Writer {
    model: Arc<RwLock<Model>>,
    store: Arc<dyn Store>,
    follow: Subscriber,
    entropy: Box<dyn Entropy + Send>,
    now_s: fn() -> u64,
    commits: u64,
    standing: Standing,
    wanted: LastOperatorRevision,
    health: StoreHealth,
    forget: Forget,
    forget_at: Instant,
    /// What takes more than one batch.
    under_way: Vec<Task>,
}

/// Whether the model is what the store holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Standing {
    Sound,
    /// A change may have been made that was taken back here: it is so if the store is not at the
    /// model's revision.
    Doubted,
    /// All must be read.
    Lost,
}

impl Writer {
    pub(super) fn new(
        model: Arc<RwLock<Model>>,
        store: Arc<dyn Store>,
        follow: Subscriber,
        entropy: Box<dyn Entropy + Send>,
        now_s: fn() -> u64,
        wanted: LastOperatorRevision,
        health: StoreHealth,
    ) -> Self {
        Self {
            model,
            store,
            follow,
            entropy,
            now_s,
            commits: 0,
            standing: Standing::Sound,
            wanted,
            health,
            forget: Forget::default(),
            forget_at: Instant::now(),
            under_way: Vec::new(),
        }
    }

    /// Takes orders until nobody can give any; whether the model may not be what the
    /// store says then.
    pub(super) fn run(&mut self, queue: &Receiver<Job>) -> bool {
        let _writes = busy::writes();
        let mut sweep_at = Instant::now();
        loop {
            let until_sweep = sweep_at.saturating_duration_since(Instant::now());
            let wait =
                if self.under_way.is_empty() { until_sweep } else { BREATH.min(until_sweep) };
            let mut batch = Vec::new();
            match queue.recv_timeout(wait) {
                Ok(first) => {
                    let more = queue.try_iter().take(BATCH_MAX - 1);
                    batch.extend(std::iter::once(first).chain(more).map(Task::new));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                // What is under way goes on when it is asked for again.
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return self.standing != Standing::Sound;
                }
            }
            // What is new goes first: what is under way has waited already, and has ended all
            // access it is to end.
            batch.append(&mut self.under_way);
            if !batch.is_empty() {
                self.guarded(|writer| writer.serve(batch));
            }
            if Instant::now() >= sweep_at {
                let mut more = false;
                self.guarded(|writer| {
                    more = writer.works() && (writer.sweep() | writer.forget());
                });
                sweep_at = Instant::now() + if more { Duration::ZERO } else { SWEEP_EVERY };
            }
        }
    }

    /// Whoever waits gets no answer if this panics, which is one. What was half done is forgotten.
    fn guarded(&mut self, act: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| act(self))).is_err() {
            self.standing = Standing::Lost;
        }
    }

    fn stamp(&mut self) -> CommandContext {
        let mut nonce = [0; 8];
        self.entropy.fill(&mut nonce);
        CommandContext { now_s: (self.now_s)(), nonce: u64::from_le_bytes(nonce) }
    }

    /// Carries out an order of its own.
    fn order(&mut self, command: Command) -> Option<Result<Committed, ServiceError>> {
        let (answer, answered) = mpsc::sync_channel(1);
        let orders = vec![CommandRequest::of_itself(command)];
        self.serve(vec![Task::new(Job { at: None, orders, mode: Mode::Real, answer })]);
        answered.try_recv().ok().and_then(|mut answers| answers.pop())
    }

    /// Whether the store takes changes. One that failed is tried with the audit log's entry of its
    /// fault: it is there once, when it could be written.
    fn works(&mut self) -> bool {
        let Some(about) = self.health.fault() else { return true };
        self.order(Command::Note { what: Noted::StoreFault, about });
        self.health.fault().is_none()
    }

    /// Lets time change what it changes; true if there may be more.
    fn sweep(&mut self) -> bool {
        let idle = self.model.read().unwrap_or_else(PoisonError::into_inner).aging.is_empty();
        if idle {
            return false;
        }
        match self.order(Command::Sweep) {
            Some(Ok(done)) => !done.written.is_empty(),
            Some(Err(failed)) => {
                tracing::error!("slots whose quarantine is over are not free yet: {failed}");
                false
            }
            None => false,
        }
    }

    /// Removes a part of the audit log that is too old; true if there may be more.
    fn forget(&mut self) -> bool {
        let shared = Arc::clone(&self.model);
        let mut model = shared.write().unwrap_or_else(PoisonError::into_inner);
        let keep_s = model.limits().audit_keep_s;
        if keep_s == 0 || self.standing != Standing::Sound || Instant::now() < self.forget_at {
            return false;
        }
        let before = self.before(&model);
        let revision = model.revision() + 1;
        match self.forget.next(&*self.store, keep_s, (self.now_s)(), revision) {
            Ok(Some(part)) => {
                model.at_revision(revision);
                let done = Committed { revision, report: Report::default(), written: Vec::new() };
                let pending = vec![Pending { task: 0, place: 0, wanted: false, done }];
                self.commit(&mut model, before, pending, &[part]);
                return true;
            }
            Ok(None) => {}
            Err(fault) => tracing::warn!("old entries of the audit log are not removed: {fault}"),
        }
        self.forget_at = Instant::now() + FORGET_EVERY;
        false
    }

    /// Where the model stands while nothing is pending.
    fn before(&self, model: &Model) -> Before {
        Before { revision: model.revision(), wanted: self.wanted.is() }
    }

    /// Carries out a batch: every order by itself, or a few parts of it, all made durable together.
    fn serve(&mut self, mut tasks: Vec<Task>) {
        let shared = Arc::clone(&self.model);
        let mut model = shared.write().unwrap_or_else(PoisonError::into_inner);
        self.settle(&mut model);
        if self.standing != Standing::Sound {
            drop(model);
            let why = self.health.fault().unwrap_or_else(|| "it cannot be read".to_owned());
            for task in tasks {
                task.give_up(&ServiceError::Store(why.clone()));
            }
            return;
        }
        let before = self.before(&model);
        let mut batch = Batch::default();
        for (index, task) in tasks.iter_mut().enumerate() {
            batch.task = index;
            self.advance(&mut model, task, &mut batch);
        }
        let Batch { pending, transactions, .. } = batch;
        if !pending.is_empty() {
            for (task, place, answer) in self.commit(&mut model, before, pending, &transactions) {
                if let Some(task) = tasks.get_mut(task) {
                    task.take(place, answer);
                }
            }
        }
        drop(model);
        for task in tasks {
            if let Some(task) = task.answered() {
                self.under_way.push(task);
            }
        }
        self.compact();
    }

    /// Carries out the orders of one request, up to the one that needs another batch.
    fn advance(&mut self, model: &mut Model, task: &mut Task, batch: &mut Batch) {
        let outdated = self.wanted.check(task.at, model).err();
        let mut thrown_away: Vec<Vec<Written>> = Vec::new();
        while let Some((place, order, rest)) = task.next() {
            if rest.is_none()
                && let Some(outdated) = &outdated
            {
                task.take(place, Err(outdated.clone().into()));
                continue;
            }
            let mut alone = PARTS_TOGETHER;
            let dry = task.mode == Mode::DryRun;
            let room = if dry { &mut alone } else { &mut batch.parts };
            let Carried { parts, rest } = match self.carry_out(model, &order, rest, room) {
                Ok(carried) => carried,
                Err(failed) => {
                    task.take(place, Err(failed));
                    continue;
                }
            };
            if parts.is_empty() {
                task.was_ended(place);
            }
            for (done, transaction) in parts {
                if dry {
                    thrown_away.push(done.written.clone());
                    task.take(place, Ok(done));
                } else if transaction.puts.is_empty() && done.written.is_empty() {
                    task.take(place, Ok(done));
                } else {
                    let wanted = order.command.is_wanted();
                    if wanted {
                        self.wanted.set(done.revision);
                    }
                    batch.pending.push(Pending { task: batch.task, place, wanted, done });
                    batch.transactions.push(transaction);
                }
            }
            if let Some(rest) = rest.filter(|_| !dry) {
                task.at = task.at.map(|_| model.revision());
                task.pause(order, rest);
                return;
            }
        }
        for written in thrown_away.into_iter().rev() {
            rollback(model, written);
        }
    }

    /// Makes a batch durable and tells the follower of what was. What was not is taken back.
    fn commit(
        &mut self,
        model: &mut Model,
        before: Before,
        pending: Vec<Pending>,
        transactions: &[Transaction],
    ) -> Vec<(usize, usize, Result<Committed, ServiceError>)> {
        let results = self.store.transact_all(transactions);
        self.health.is(results.iter().find_map(|result| match result {
            Err(TransactFault::Store(fault)) => Some(fault.to_string()),
            Ok(_) | Err(TransactFault::Refused(_)) => None,
        }));
        let failed = results.len() != pending.len() || results.iter().any(Result::is_err);
        if failed {
            for Pending { done, .. } in pending.iter().rev() {
                rollback(model, done.written.clone());
            }
            model.at_revision(before.revision);
            self.wanted.set(before.wanted);
            self.standing = Standing::Doubted;
            let first = results.iter().find_map(|result| result.as_ref().err());
            if matches!(first, None | Some(TransactFault::Refused(_))) {
                // The store is well and has something else than the model: only
                // reading can tell what.
                self.standing = Standing::Lost;
            }
        }
        let mut told = Vec::new();
        let mut answers = Vec::with_capacity(pending.len());
        for (Pending { task, place, wanted, mut done }, result) in pending.into_iter().zip(results)
        {
            let answer = match result {
                Ok(Revision(revision)) => {
                    if failed || revision != done.revision {
                        stamp(model, &done.written, revision);
                    }
                    if failed && wanted {
                        self.wanted.set(revision);
                    }
                    done.revision = revision;
                    told.extend(done.written.iter().cloned());
                    self.commits += 1;
                    Ok(done)
                }
                Err(why) => {
                    if wanted {
                        tracing::error!("a change of the registry was not made: {why}");
                    }
                    Err(ServiceError::Store(why.to_string()))
                }
            };
            answers.push((task, place, answer));
        }
        if !failed || !told.is_empty() {
            (self.follow)(Update::Written { model, written: &told });
        }
        self.settle(model);
        answers
    }

    /// Sees to it that the model is what the store holds, if that can be read. Where only the
    /// outcome of changes that were taken back is in doubt, the store's revision tells: a million
    /// documents are not read for a disk that is full.
    fn settle(&mut self, model: &mut Model) {
        if self.standing == Standing::Doubted {
            match self.store.head() {
                Ok(head) if head.revision.0 == model.revision() => self.standing = Standing::Sound,
                Ok(_) => self.standing = Standing::Lost,
                Err(fault) => self.health.is(Some(fault.to_string())),
            }
        }
        if self.standing == Standing::Lost {
            self.read_anew(model);
        }
    }

    fn read_anew(&mut self, model: &mut Model) {
        match load::load(
            &*self.store,
            &model.limits().clone(),
            None,
            Unreadable::Refused,
            &mut self.follow,
        ) {
            Ok(fresh) => {
                self.standing = Standing::Sound;
                *model = fresh;
            }
            // The edge goes on with what it has; nothing is carried out on what may not be so.
            Err(fault) => self.health.is(Some(fault.to_string())),
        }
    }

    /// Carries an order out, or goes on with one: at once, or in parts, each of them with its
    /// transaction, as long as there are `parts` left. Nothing has changed if it fails.
    fn carry_out(
        &mut self,
        model: &mut Model,
        order: &CommandRequest,
        rest: Option<Continuation>,
        parts: &mut usize,
    ) -> Result<Carried, ServiceError> {
        let going_on = rest.is_some();
        let (mut room, subject) = match rest {
            Some(Continuation { subject, .. }) if !subject.is_going(model) => {
                // Somebody else has brought it to its end, and what has the name
                // now is another one.
                return Ok(Carried { parts: Vec::new(), rest: None });
            }
            Some(Continuation { room, subject }) => (room, Some(subject)),
            None => {
                check_revision(model, order)?;
                (PART_DOCUMENTS, Removal::of(&order.command, model))
            }
        };
        let mut all: Vec<(Committed, Transaction)> = Vec::new();
        loop {
            match self.carry_out_part(model, order, room, all.is_empty() && !going_on) {
                Ok(part) => {
                    let begun = part.0.report.progress == Progress::Begun;
                    let stuck = part.0.written.is_empty();
                    all.push(part);
                    if !begun || stuck {
                        return Ok(Carried { parts: all, rest: None });
                    }
                    let Some(left) = parts.checked_sub(1) else {
                        let rest = subject.map(|subject| Continuation { room, subject });
                        return Ok(Carried { parts: all, rest });
                    };
                    *parts = left;
                }
                // Few documents can be long ones.
                Err(ServiceError::Refused(Refusal::TooMany { .. }))
                    if room > 1 && order.command.in_parts() =>
                {
                    room /= 2;
                }
                Err(failed) => {
                    for (done, _) in all.into_iter().rev() {
                        rollback(model, done.written);
                    }
                    return Err(failed);
                }
            }
        }
    }

    fn carry_out_part(
        &mut self,
        model: &mut Model,
        order: &CommandRequest,
        room: usize,
        first: bool,
    ) -> Result<(Committed, Transaction), ServiceError> {
        let stamp = self.stamp();
        let mut draft = Draft::within(model, stamp, room).ordered_by(&order.actor.name);
        draft.carry_out(&order.command, order.options)?;
        let (written, report) = draft.keep();
        let mut transaction = Transaction::new();
        if !written.is_empty() {
            for Written { key, now, before } in &written {
                let key = key.to_string();
                // What no start would read again is lost at the next one.
                debug_assert!(PREFIXES.iter().any(|prefix| key.starts_with(prefix)), "{key}");
                let expected = before.as_ref().map_or(Expected::Absent, |(_, revision)| {
                    Expected::Modified(Revision(*revision))
                });
                transaction = transaction.when(key.clone(), expected);
                transaction = match now {
                    Some(document) => transaction.put(key, document.to_json()),
                    None => transaction.delete(key),
                };
            }
            if written.len() >= OPERATIONS_MAX {
                let count = written.len();
                rollback(model, written);
                let what = format!("the change touches documents: {count}");
                return Err(Refusal::TooMany { what, limit: OPERATIONS_MAX - 1 }.into());
            }
        }
        let is_note = order.command.is_note();
        if is_note {
            model.at_revision(model.revision() + 1);
        }
        // An order is one entry, with what ends access.
        if is_note || (first && !written.is_empty() && order.command != Command::Sweep) {
            let moves = report.moves.iter().map(Moved::from).collect();
            let (actor, command) = (order.actor.clone(), order.command.clone());
            let audit = Audit { at_s: stamp.now_s, actor, command, moves };
            let value = serde_json::to_vec(&audit).unwrap_or_default();
            // In the order of what was done, whatever the clock says.
            transaction = transaction.put(audit::key(model.revision()), value);
        }
        if let Err(refusal) = transaction.check() {
            rollback(model, written);
            let what =
                format!("the change is too large ({refusal}); make it in parts, it has bytes");
            return Err(Refusal::TooMany { what, limit: TRANSACTION_BYTES_MAX }.into());
        }
        Ok((Committed { revision: model.revision(), report, written }, transaction))
    }

    /// Forgets old commits now and then, so that the store does not grow with every change.
    fn compact(&mut self) {
        if self.commits < HISTORY_KEPT {
            return;
        }
        self.commits /= 2;
        let revision = self.model.read().unwrap_or_else(PoisonError::into_inner).revision();
        let up_to = Revision(revision.saturating_sub(HISTORY_KEPT / 2));
        if let Err(fault) = self.store.compact(up_to) {
            tracing::warn!("the registry's history was not compacted: {fault}");
        }
    }
}

fn check_revision(model: &Model, order: &CommandRequest) -> Result<(), Refusal> {
    let (Some(expected), Some(subject)) = (order.expected, order.command.subject()) else {
        return Ok(());
    };
    let key = match subject {
        Subject::Key(key) => Some(key),
        Subject::Vm(name) => model.vm_named(name).map(|(serial, _)| Key::Vm(serial)),
        Subject::Edge(name) => model.edge_named(name).map(|(key, _)| Key::Edge(key)),
    };
    // What is not there is refused by the command itself, in its own words.
    let Some((key, (document, is))) = key.and_then(|key| model.get(&key).map(|it| (key, it)))
    else {
        return Ok(());
    };
    if is == expected {
        return Ok(());
    }
    let (kind, name) = match (&key, &document) {
        (Key::User(name), _) => (Kind::User, name.to_string()),
        (Key::Team(name), _) => (Kind::Team, name.to_string()),
        (Key::Node(name), _) => (Kind::Node, name.to_string()),
        (Key::Token(name), _) => (Kind::Token, name.to_string()),
        (Key::Vm(_), Document::Vm(vm)) => (Kind::Vm, vm.name.to_string()),
        (Key::Edge(_), Document::Edge(edge)) => (Kind::Edge, edge.name.to_string()),
        (_, _) => (Kind::Address, key.to_string().replace("address/", "")),
    };
    Err(Refusal::Changed { kind, name, is, expected })
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
