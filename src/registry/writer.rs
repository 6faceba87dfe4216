//! The thread that writes: a batch of orders at a time, each carried out by itself, in parts if need be, all made durable
//! together, told to the follower, and answered then.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::audit::{self, Actor, Audit, Forget, Moved};
use super::command::{Command, Options, Subject};
use super::document::{Document, Key};
use super::draft::{Draft, PART_DOCUMENTS, Progress, Report, Written, stamp, take_back};
use super::load::{self, Unreadable};
use super::model::{Model, Stamp};
use super::refusal::{Kind, Refusal};
use super::service::{Done, Failed, Follow, Mode, News, Order, Request};
use super::store::{Expected, OPERATIONS_MAX, Revision, Store, TRANSACTION_BYTES_MAX, Transaction};
use crate::ssh::entropy::Entropy;

/// Orders made durable together. Readers wait for a batch: more of them would be felt.
const BATCH_MAX: usize = 64;
/// How often time alone is given the chance to change something: holds and second ways last an hour.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Commits that the store keeps for those who watch; who is later takes a snapshot.
const HISTORY_KEPT: u64 = 100_000;
/// How often the audit log is looked through for what is too old.
const FORGET_EVERY: Duration = Duration::from_hours(1);

/// The last revision that somebody wanted: made neither by time, nor by an edge that goes on with its work.
#[derive(Clone, Debug)]
pub(super) struct Wanted(Arc<AtomicU64>);

impl Wanted {
    pub(super) fn at(revision: u64) -> Self {
        Self(Arc::new(AtomicU64::new(revision)))
    }

    /// Whether all is still as somebody wanted it who looked at revision `at`.
    pub(super) fn check(&self, at: Option<u64>, model: &Model) -> Result<(), Refusal> {
        let is = self.0.load(Ordering::Relaxed);
        match at {
            Some(expected) if expected < is || expected > model.revision() => {
                Err(Refusal::Outdated { is, expected, done: 0 })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn raise(&self, revision: u64) {
        self.0.store(revision, Ordering::Relaxed);
    }
}

pub(super) struct Writer {
    model: Arc<RwLock<Model>>,
    store: Arc<dyn Store>,
    follow: Follow,
    entropy: Box<dyn Entropy + Send>,
    now_s: fn() -> u64,
    commits: u64,
    /// The model may say what the store does not.
    stale: bool,
    wanted: Wanted,
    forget: Forget,
    forget_at: Instant,
}

/// What was carried out on the model and is to be made durable.
struct Pending {
    request: usize,
    place: usize,
    done: Done,
}

impl Writer {
    pub(super) fn new(
        model: Arc<RwLock<Model>>,
        store: Arc<dyn Store>,
        follow: Follow,
        entropy: Box<dyn Entropy + Send>,
        now_s: fn() -> u64,
        wanted: Wanted,
    ) -> Self {
        let (forget, forget_at) = (Forget::default(), Instant::now());
        let (commits, stale) = (0, false);
        Self { model, store, follow, entropy, now_s, commits, stale, wanted, forget, forget_at }
    }

    /// Takes orders until nobody can give any; whether the model may not be what the store says then.
    pub(super) fn run(&mut self, queue: &Receiver<Request>) -> bool {
        let mut sweep_at = Instant::now();
        loop {
            match queue.recv_timeout(sweep_at.saturating_duration_since(Instant::now())) {
                Ok(first) => {
                    let more = queue.try_iter().take(BATCH_MAX - 1);
                    let batch: Vec<Request> = std::iter::once(first).chain(more).collect();
                    self.guarded(|writer| writer.serve(batch));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return self.stale,
            }
            if Instant::now() >= sweep_at {
                let mut more = false;
                self.guarded(|writer| more = writer.sweep() | writer.forget());
                sweep_at = Instant::now() + if more { Duration::ZERO } else { SWEEP_EVERY };
            }
        }
    }

    /// Whoever waits gets no answer if this panics, which is one. What was half done is forgotten.
    fn guarded(&mut self, act: impl FnOnce(&mut Self)) {
        self.stale |= catch_unwind(AssertUnwindSafe(|| act(self))).is_err();
    }

    fn stamp(&mut self) -> Stamp {
        let mut nonce = [0; 8];
        self.entropy.fill(&mut nonce);
        Stamp { now_s: (self.now_s)(), nonce: u64::from_le_bytes(nonce) }
    }

    /// Lets time change what it changes; true if there may be more.
    fn sweep(&mut self) -> bool {
        let idle = self.model.read().unwrap_or_else(PoisonError::into_inner).aging.is_empty();
        if idle {
            return false;
        }
        let (answer, answered) = mpsc::sync_channel(1);
        let actor = Actor { name: "keyway".to_owned(), from: "itself".to_owned() };
        let (command, options) = (Command::Sweep, Options::default());
        let orders = vec![Order { command, options, expected: None, actor }];
        self.serve(vec![Request { at: None, orders, mode: Mode::Real, answer }]);
        match answered.try_recv().ok().and_then(|mut answers| answers.pop()) {
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
        if keep_s == 0 || self.stale || Instant::now() < self.forget_at {
            return false;
        }
        let revision = model.revision() + 1;
        match self.forget.next(&*self.store, keep_s, (self.now_s)(), revision) {
            Ok(Some(part)) => {
                model.at_revision(revision);
                let done = Done { revision, report: Report::default(), written: Vec::new() };
                let pending = vec![Pending { request: 0, place: 0, done }];
                if self.commit(&mut model, &mut [], pending, &[part]) {
                    self.read_anew(&mut model);
                }
                return true;
            }
            Ok(None) => {}
            Err(fault) => tracing::warn!("old entries of the audit log are not removed: {fault}"),
        }
        self.forget_at = Instant::now() + FORGET_EVERY;
        false
    }

    /// Carries out a batch: every order by itself, all made durable together.
    fn serve(&mut self, batch: Vec<Request>) {
        let shared = Arc::clone(&self.model);
        let mut model = shared.write().unwrap_or_else(PoisonError::into_inner);
        if self.stale {
            self.read_anew(&mut model);
        }
        if self.stale {
            drop(model);
            for Request { orders, answer, .. } in batch {
                let failed = Err(Failed::Store("it cannot be read".to_owned()));
                let _gone = answer.send(vec![failed; orders.len()]);
            }
            return;
        }
        let mut answers: Vec<Vec<Option<Result<Done, Failed>>>> = Vec::new();
        let mut pending: Vec<Pending> = Vec::new();
        let mut transactions: Vec<Transaction> = Vec::new();
        let mut requests = Vec::with_capacity(batch.len());
        for Request { at, orders, mode, answer } in batch {
            if let Err(outdated) = self.wanted.check(at, &model) {
                answers.push(vec![Some(Err(outdated.into())); orders.len()]);
                requests.push(answer);
                continue;
            }
            let mut own = Vec::with_capacity(orders.len());
            let mut thrown_away: Vec<Vec<Written>> = Vec::new();
            for order in &orders {
                let mut answer = None;
                match self.carry_out(&mut model, order) {
                    Err(failed) => answer = Some(Err(failed)),
                    Ok(parts) => {
                        for (done, transaction) in parts {
                            if mode == Mode::DryRun {
                                thrown_away.push(done.written.clone());
                                join(&mut answer, Ok(done));
                            } else if transaction.puts.is_empty() && done.written.is_empty() {
                                join(&mut answer, Ok(done));
                            } else {
                                if order.command.is_wanted() {
                                    self.wanted.raise(done.revision);
                                }
                                let (request, place) = (answers.len(), own.len());
                                pending.push(Pending { request, place, done });
                                transactions.push(transaction);
                            }
                        }
                    }
                }
                own.push(answer);
            }
            for written in thrown_away.into_iter().rev() {
                take_back(&mut model, written);
            }
            answers.push(own);
            requests.push(answer);
        }
        if !pending.is_empty() {
            let failed = self.commit(&mut model, &mut answers, pending, &transactions);
            if failed {
                self.read_anew(&mut model);
            }
        }
        drop(model);
        for (answer, own) in requests.into_iter().zip(answers) {
            let own = own.into_iter().map(|answer| answer.unwrap_or(Err(Failed::Ended)));
            // Whoever asked may have gone.
            let _gone = answer.send(own.collect());
        }
        self.compact();
    }

    /// Makes a batch durable and tells the follower. True if anything failed: the model is ahead of the store then.
    fn commit(
        &mut self,
        model: &mut Model,
        answers: &mut [Vec<Option<Result<Done, Failed>>>],
        pending: Vec<Pending>,
        transactions: &[Transaction],
    ) -> bool {
        let results = self.store.transact_all(transactions);
        let mut failed = results.len() != pending.len();
        let mut written = Vec::new();
        for (Pending { request, place, mut done }, result) in pending.into_iter().zip(results) {
            let answer = match result {
                Ok(revision) => {
                    if revision.0 != done.revision {
                        stamp(model, &done.written, revision.0);
                        done.revision = revision.0;
                    }
                    written.extend(done.written.iter().cloned());
                    self.commits += 1;
                    Ok(done)
                }
                Err(why) => {
                    failed = true;
                    tracing::error!("a change of the registry was not made: {why}");
                    Err(Failed::Store(why.to_string()))
                }
            };
            if let Some(slot) = answers.get_mut(request).and_then(|own| own.get_mut(place)) {
                join(slot, answer);
            }
        }
        if !failed {
            (self.follow)(News::Written { model, written: &written });
        }
        failed
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
                self.stale = false;
                *model = fresh;
            }
            // The edge goes on with what it has; nothing is carried out on what may not be so.
            Err(fault) => {
                self.stale = true;
                tracing::error!("the registry cannot be read: {fault}");
            }
        }
    }

    /// Carries an order out: at once, or in parts, each of them with its transaction. Nothing has changed if it fails.
    fn carry_out(
        &mut self,
        model: &mut Model,
        order: &Order,
    ) -> Result<Vec<(Done, Transaction)>, Failed> {
        check_revision(model, order)?;
        let mut parts: Vec<(Done, Transaction)> = Vec::new();
        let mut room = PART_DOCUMENTS;
        loop {
            match self.carry_out_part(model, order, room, parts.is_empty()) {
                Ok(part) => {
                    let progress = part.0.report.progress;
                    parts.push(part);
                    if progress == Progress::Done {
                        return Ok(parts);
                    }
                }
                // Few documents can be long ones.
                Err(Failed::Refused(Refusal::TooMany { .. }))
                    if room > 1 && order.command.in_parts() =>
                {
                    room /= 2;
                }
                Err(failed) => {
                    for (done, _) in parts.into_iter().rev() {
                        take_back(model, done.written);
                    }
                    return Err(failed);
                }
            }
        }
    }

    fn carry_out_part(
        &mut self,
        model: &mut Model,
        order: &Order,
        room: usize,
        first: bool,
    ) -> Result<(Done, Transaction), Failed> {
        let stamp = self.stamp();
        let mut draft = Draft::within(model, stamp, room);
        draft.carry_out(&order.command, order.options)?;
        let (written, report) = draft.keep();
        let mut transaction = Transaction::new();
        if !written.is_empty() {
            for Written { key, now, before } in &written {
                let key = key.to_string();
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
                take_back(model, written);
                let what = format!("the change touches documents: {count}");
                return Err(Refusal::TooMany { what, limit: OPERATIONS_MAX - 1 }.into());
            }
        }
        let is_note = matches!(order.command, Command::Note { .. });
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
            take_back(model, written);
            let what =
                format!("the change is too large ({refusal}); make it in parts, it has bytes");
            return Err(Refusal::TooMany { what, limit: TRANSACTION_BYTES_MAX }.into());
        }
        Ok((Done { revision: model.revision(), report, written }, transaction))
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

/// Adds what came of a part of an order to what came of those before it.
fn join(answer: &mut Option<Result<Done, Failed>>, part: Result<Done, Failed>) {
    match (answer, part) {
        (Some(Ok(all)), Ok(part)) => {
            all.revision = part.revision;
            all.report.moves.extend(part.report.moves);
            all.report.progress = part.report.progress;
            all.written.extend(part.written);
        }
        (Some(Err(_)), _) => {}
        (answer, part) => *answer = Some(part),
    }
}

fn check_revision(model: &Model, order: &Order) -> Result<(), Refusal> {
    let (Some(expected), Some(subject)) = (order.expected, order.command.subject()) else {
        return Ok(());
    };
    let key = match subject {
        Subject::Key(key) => Some(key),
        Subject::Vm(name) => model.vm_named(name).map(|(serial, _)| Key::Vm(serial)),
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
        (Key::Token(name), _) => (Kind::Token, name.to_string()),
        (Key::Vm(_), Document::Vm(vm)) => (Kind::Vm, vm.name.to_string()),
        (_, _) => (Kind::Address, key.to_string().replace("address/", "")),
    };
    Err(Refusal::Changed { kind, name, is, expected })
}
