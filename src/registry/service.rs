//! The one writer: takes orders, carries them out on the model, makes them durable, and tells whoever follows.
//!
//! Orders that wait together are made durable together: a commit costs some milliseconds, and its price is shared. An
//! order is answered when it is durable and followed, so that whoever has the answer can log in. Readers read the model
//! between batches. If the store and the model ever disagree, the model is read anew.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::audit::{self, Forget};
pub use super::audit::{Actor, Audit, Moved};
use super::command::{Command, Options, Subject};
use super::document::{Document, Key, StrangeKey};
use super::draft::{Draft, Report, Written, stamp, take_back};
use super::load;
use super::model::{Limits, Model, Stamp};
use super::refusal::{Kind, Refusal};
use super::store::{
    self, Expected, Head, OPERATIONS_MAX, Revision, Store, TRANSACTION_BYTES_MAX, Transaction,
    Watch,
};
use crate::route::Contents;
use crate::ssh::entropy::Entropy;

/// Orders made durable together. Readers wait for a batch: more of them would be felt.
const BATCH_MAX: usize = 64;
/// How often time alone is given the chance to change something: holds and second ways last an hour.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Commits that the store keeps for those who watch; who is later takes a snapshot.
const HISTORY_KEPT: u64 = 100_000;
/// How often the audit log is looked through for what is too old.
const FORGET_EVERY: Duration = Duration::from_hours(1);

/// A command with all that says how it is meant.
#[derive(Clone, Debug)]
pub struct Order {
    /// What.
    pub command: Command,
    /// How.
    pub options: Options,
    /// The revision that the subject must have.
    pub expected: Option<u64>,
    /// Who.
    pub actor: Actor,
}

/// What came of an order.
#[derive(Clone, Debug)]
pub struct Done {
    /// The store's revision from then on.
    pub revision: u64,
    /// What was done, or would be.
    pub report: Report,
    /// Every document written, or that would be.
    pub written: Vec<Written>,
}

/// Why nothing came of an order.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failed {
    /// It is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store failed.
    #[error("the store failed, nothing was changed that was acknowledged: {0}")]
    Store(String),
    /// The service has ended.
    #[error("keyway is ending; try again when it is back")]
    Ended,
}

/// Why the registry cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Fault),
    /// Something in the store is none of ours.
    #[error(transparent)]
    Strange(#[from] StrangeKey),
    /// Something in the store cannot be read.
    #[error("{key} in the store cannot be read: {why}; restore a backup")]
    Unreadable {
        /// Where.
        key: String,
        /// What is wrong.
        why: serde_json::Error,
    },
    /// No thread for it.
    #[error("the registry cannot be served: {0}")]
    Thread(#[from] std::io::Error),
}

/// Whoever keeps up with the registry. Called after every batch, before it is answered.
pub type Follow = Box<dyn FnMut(News<'_>) + Send>;

/// What a follower is told.
#[derive(Debug)]
pub enum News<'a> {
    /// Documents were written.
    Written {
        /// As it is now.
        model: &'a Model,
        /// All that was written, in order.
        written: &'a [Written],
    },
    /// The store was read, at a start or anew: everything may differ.
    Everything {
        /// The store's.
        revision: u64,
        /// All there is.
        contents: Contents,
    },
}

/// What a service is made from.
pub struct Start {
    /// Where it is kept.
    pub store: Arc<dyn Store>,
    /// What the operator chose.
    pub limits: Limits,
    /// Unix time in seconds.
    pub now_s: fn() -> u64,
    /// For serials.
    pub entropy: Box<dyn Entropy + Send>,
    /// Whoever keeps up, told of everything once before this starts.
    pub follow: Follow,
}

/// The registry in service.
pub struct Service {
    model: Arc<RwLock<Model>>,
    store: Arc<dyn Store>,
    orders: Option<Sender<Request>>,
    writer: Option<JoinHandle<()>>,
    now_s: fn() -> u64,
}

/// Whether orders are meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// They are.
    Real,
    /// Say what they would do, one behind another, and do nothing.
    DryRun,
}

/// Orders, one behind another, and where their answers go.
struct Request {
    /// Only on this revision.
    at: Option<u64>,
    orders: Vec<Order>,
    mode: Mode,
    answer: SyncSender<Vec<Result<Done, Failed>>>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

impl Service {
    /// Reads everything from the store, tells the follower, and takes orders from then on.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn start(start: Start) -> Result<Self, Fault> {
        let Start { store, limits, now_s, entropy, mut follow } = start;
        let model = load::load(&*store, &limits, &mut follow)?;
        let model = Arc::new(RwLock::new(model));
        let (orders, queue) = mpsc::channel();
        let mut writer = Writer {
            model: Arc::clone(&model),
            store: Arc::clone(&store),
            follow,
            entropy,
            now_s,
            commits: 0,
            stale: false,
            forget: Forget::default(),
            forget_at: Instant::now(),
        };
        let writer = std::thread::Builder::new()
            .name("registry".to_owned())
            .spawn(move || writer.run(&queue))?;
        Ok(Self { model, store, orders: Some(orders), writer: Some(writer), now_s })
    }

    /// Carries out one order; returns when it is durable and followed.
    ///
    /// # Errors
    /// [`Failed`]; nothing has changed then.
    pub fn carry_out(&self, order: Order, mode: Mode) -> Result<Done, Failed> {
        self.carry_out_all(vec![order], mode).pop().unwrap_or(Err(Failed::Ended))
    }

    /// Carries out orders one behind another, each by itself: one that is refused does not keep the next from being tried.
    pub fn carry_out_all(&self, orders: Vec<Order>, mode: Mode) -> Vec<Result<Done, Failed>> {
        self.carry_out_at(None, orders, mode)
    }

    /// The same, if the registry is at this revision by then; if not, every answer is [`Refusal::Outdated`].
    pub fn carry_out_at(
        &self,
        at: Option<u64>,
        orders: Vec<Order>,
        mode: Mode,
    ) -> Vec<Result<Done, Failed>> {
        let count = orders.len();
        let (answer, answered) = mpsc::sync_channel(1);
        let request = Request { at, orders, mode, answer };
        let sent = self.orders.as_ref().map(|queue| queue.send(request));
        let answers = match sent {
            Some(Ok(())) => answered.recv().unwrap_or_default(),
            Some(Err(_)) | None => Vec::new(),
        };
        if answers.len() == count { answers } else { vec![Err(Failed::Ended); count] }
    }

    /// The model as it is now. Orders wait while this is held.
    pub fn model(&self) -> RwLockReadGuard<'_, Model> {
        self.model.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which store it is, and where it stands.
    ///
    /// # Errors
    /// What the store says.
    pub fn head(&self) -> Result<Head, store::Fault> {
        // No key begins so: only the head is read.
        self.store.snapshot_each("~", &mut |_| ())
    }

    /// Unix time in seconds, as this service sees it.
    pub fn now_s(&self) -> u64 {
        (self.now_s)()
    }

    /// Up to `count` entries of the audit log with their keys, behind the key `after`: the oldest first, or the newest.
    ///
    /// # Errors
    /// What the store says.
    pub fn audit(
        &self,
        after: Option<&str>,
        newest: bool,
        count: usize,
    ) -> Result<Vec<(String, Audit)>, store::Fault> {
        let order = if newest { store::Order::Down } else { store::Order::Up };
        audit::page(&*self.store, after, order, count)
    }

    /// Every commit after a revision.
    ///
    /// # Errors
    /// What the store says; `Compacted` if that is too long ago.
    pub fn watch(&self, after: u64) -> Result<Box<dyn Watch>, store::Fault> {
        self.store.watch(Revision(after))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(writer) = self.writer.take() {
            // A panic over there was reported by its hook.
            let _ended = writer.join();
        }
    }
}

/// Reads all documents of a store.
///
/// # Errors
/// What the store says, and what cannot be read in it.
pub fn load(store: &dyn Store, limits: &Limits) -> Result<Model, Fault> {
    let mut nobody: Follow = Box::new(|_| ());
    load::load(store, limits, &mut nobody)
}

struct Writer {
    model: Arc<RwLock<Model>>,
    store: Arc<dyn Store>,
    follow: Follow,
    entropy: Box<dyn Entropy + Send>,
    now_s: fn() -> u64,
    commits: u64,
    /// The model may say what the store does not.
    stale: bool,
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
    fn run(&mut self, queue: &Receiver<Request>) {
        let mut sweep_at = Instant::now();
        loop {
            match queue.recv_timeout(sweep_at.saturating_duration_since(Instant::now())) {
                Ok(first) => {
                    let more = queue.try_iter().take(BATCH_MAX - 1);
                    let batch: Vec<Request> = std::iter::once(first).chain(more).collect();
                    self.guarded(|writer| writer.serve(batch));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
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
            let is = model.revision();
            if let Some(expected) = at.filter(|at| *at != is) {
                let outdated = Refusal::Outdated { is, expected, done: 0 };
                answers.push(vec![Some(Err(outdated.into())); orders.len()]);
                requests.push(answer);
                continue;
            }
            let mut own = Vec::with_capacity(orders.len());
            let mut thrown_away: Vec<Vec<Written>> = Vec::new();
            for order in &orders {
                match self.carry_out(&mut model, order) {
                    Err(failed) => own.push(Some(Err(failed))),
                    Ok((done, _)) if mode == Mode::DryRun => {
                        thrown_away.push(done.written.clone());
                        own.push(Some(Ok(done)));
                    }
                    Ok((done, transaction))
                        if transaction.puts.is_empty() && done.written.is_empty() =>
                    {
                        own.push(Some(Ok(done)));
                    }
                    Ok((done, transaction)) => {
                        pending.push(Pending { request: answers.len(), place: own.len(), done });
                        transactions.push(transaction);
                        own.push(None);
                    }
                }
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
                *slot = Some(answer);
            }
        }
        if !failed {
            (self.follow)(News::Written { model, written: &written });
        }
        failed
    }

    fn read_anew(&mut self, model: &mut Model) {
        match load::load(&*self.store, &model.limits().clone(), &mut self.follow) {
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

    fn carry_out(
        &mut self,
        model: &mut Model,
        order: &Order,
    ) -> Result<(Done, Transaction), Failed> {
        check_revision(model, order)?;
        let stamp = self.stamp();
        let mut draft = Draft::new(model, stamp);
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
        if is_note || (!written.is_empty() && order.command != Command::Sweep) {
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
