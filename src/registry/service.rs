//! The one writer: takes orders, carries them out on the model, makes them durable, and tells whoever follows.
//!
//! Orders that wait together are made durable together: a commit costs some milliseconds, and its price is shared. An
//! order is answered when it is durable and followed, so that whoever has the answer can log in. Readers read the model
//! between batches. What the store did not take is taken back; if the store and the model ever disagree, the model is read
//! anew.

use std::fmt;
use std::sync::mpsc::{self, Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;

use super::audit;
pub use super::audit::{Actor, Audit, Moved};
use super::command::{Command, Options};
use super::document::StrangeKey;
use super::draft::{Report, Written};
use super::load::{self, Unreadable};
use super::model::{Limits, Model};
use super::refusal::Refusal;
use super::store::{self, Head, Revision, Store, Watch};
use super::writer::{LastOperatorRevision, Writer};
use crate::route::Contents;
use crate::ssh::entropy::Entropy;

/// A command with all that says how it is meant.
#[derive(Clone, Debug)]
pub struct CommandRequest {
    /// What.
    pub command: Command,
    /// How.
    pub options: Options,
    /// The revision that the subject must have.
    pub expected: Option<u64>,
    /// Who.
    pub actor: Actor,
}

impl CommandRequest {
    /// What keyway does of its own accord.
    #[must_use]
    pub fn of_itself(command: Command) -> Self {
        let (options, actor) = (Options::default(), Actor::itself());
        Self { command, options, expected: None, actor }
    }
}

/// What came of an order.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The store's revision from then on.
    pub revision: u64,
    /// What was done, or would be.
    pub report: Report,
    /// Every document written, or that would be; of an order that took several batches those of the last one.
    pub written: Vec<Written>,
}

/// Why nothing came of an order.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ServiceError {
    /// It is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store failed.
    #[error("the store failed, nothing was changed that was acknowledged: {0}")]
    Store(String),
    /// There is no store to carry it out on.
    #[error("{0}")]
    Away(String),
    /// Parts of it were carried out and are durable.
    #[error("it was begun and did not come to its end, run the same command again: {0}")]
    Begun(Box<ServiceError>),
    /// The service has ended.
    #[error("keyway is ending; try again when it is back")]
    Ended,
}

/// Why the registry cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::StoreError),
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
pub type Subscriber = Box<dyn FnMut(Update<'_>) + Send>;

/// What a follower is told.
#[derive(Debug)]
pub enum Update<'a> {
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
    /// The revision of which whoever keeps up has everything already.
    pub known: Option<u64>,
    /// Whoever keeps up, told of everything once before this starts.
    pub follow: Subscriber,
}

/// The registry in service.
pub struct Service {
    model: Arc<RwLock<Model>>,
    kept: Kept,
    orders: RwLock<Option<Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<bool>>>,
    now_s: fn() -> u64,
    wanted: LastOperatorRevision,
    health: StoreHealth,
}

/// Where the model is from.
enum Kept {
    /// The store, which takes changes.
    Store(Arc<dyn Store>),
    /// The store is away, and this says why: the model is what was known of it beside.
    Away(String),
}

/// Whether the store takes what is written, as the writer found last.
#[derive(Clone, Debug, Default)]
pub struct StoreHealth(Arc<Mutex<Option<String>>>);

impl StoreHealth {
    /// Why it does not, if it does not.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Each fault is told once, however long it lasts.
    pub(super) fn is(&self, now: Option<String>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != now {
            if let Some(why) = &now {
                tracing::error!("the registry cannot be changed: {why}");
            } else {
                tracing::info!("the registry can be changed again");
            }
            *known = now;
        }
    }
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
pub(super) struct Job {
    /// Only if nobody has changed anything since this revision.
    pub(super) at: Option<u64>,
    pub(super) orders: Vec<CommandRequest>,
    pub(super) mode: Mode,
    pub(super) answer: SyncSender<Vec<Result<Committed, ServiceError>>>,
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
    /// [`RegistryError`].
    pub fn start(start: Start) -> Result<Self, RegistryError> {
        let Start { store, limits, now_s, entropy, known, mut follow } = start;
        let model = load::load(&*store, &limits, known, Unreadable::Refused, &mut follow)?;
        let wanted = LastOperatorRevision::at(model.revision());
        let model = Arc::new(RwLock::new(model));
        let (orders, queue) = mpsc::channel();
        let (kept_in, on) = (Arc::clone(&store), Arc::clone(&model));
        let health = StoreHealth::default();
        let (again, told) = (wanted.clone(), health.clone());
        let mut writer = Writer::new(on, kept_in, follow, entropy, now_s, again, told);
        let thread = std::thread::Builder::new().name("registry".to_owned());
        let writer = Mutex::new(Some(thread.spawn(move || writer.run(&queue))?));
        let (kept, orders) = (Kept::Store(store), RwLock::new(Some(orders)));
        Ok(Self { model, kept, orders, writer, now_s, wanted, health })
    }

    /// Stands in for a registry whose store is away: shows `model`, and refuses everything else because of `why`.
    #[must_use]
    pub fn stand_in(model: Model, why: String, now_s: fn() -> u64) -> Self {
        Self {
            wanted: LastOperatorRevision::at(model.revision()),
            model: Arc::new(RwLock::new(model)),
            kept: Kept::Away(why),
            orders: RwLock::default(),
            writer: Mutex::default(),
            now_s,
            health: StoreHealth::default(),
        }
    }

    /// Why there is no store, if there is none.
    pub fn away(&self) -> Option<&str> {
        match &self.kept {
            Kept::Store(_) => None,
            Kept::Away(why) => Some(why),
        }
    }

    /// How the store is from now on.
    pub const fn store_health(&self) -> &StoreHealth {
        &self.health
    }

    fn store(&self) -> Result<&dyn Store, store::StoreError> {
        match &self.kept {
            Kept::Store(store) => Ok(&**store),
            Kept::Away(why) => Err(store::StoreError::Away { why: why.clone() }),
        }
    }

    /// Carries out one order; returns when it is durable and followed.
    ///
    /// # Errors
    /// [`ServiceError`]; nothing has changed then, unless it says so.
    pub fn carry_out(&self, order: CommandRequest, mode: Mode) -> Result<Committed, ServiceError> {
        self.carry_out_all(vec![order], mode).pop().unwrap_or(Err(ServiceError::Ended))
    }

    /// Carries out orders one behind another, each by itself: one that is refused does not keep the next from being tried.
    pub fn carry_out_all(
        &self,
        orders: Vec<CommandRequest>,
        mode: Mode,
    ) -> Vec<Result<Committed, ServiceError>> {
        self.carry_out_at(None, orders, mode)
    }

    /// The same, if nobody has changed anything since this revision; else every answer is [`Refusal::Outdated`].
    pub fn carry_out_at(
        &self,
        at: Option<u64>,
        orders: Vec<CommandRequest>,
        mode: Mode,
    ) -> Vec<Result<Committed, ServiceError>> {
        let count = orders.len();
        if let Kept::Away(why) = &self.kept {
            return vec![Err(ServiceError::Away(why.clone())); count];
        }
        let (answer, answered) = mpsc::sync_channel(1);
        let request = Job { at, orders, mode, answer };
        let queue = self.orders.read().unwrap_or_else(PoisonError::into_inner).clone();
        let sent = queue.map(|queue| queue.send(request));
        let answers = match sent {
            Some(Ok(())) => answered.recv().unwrap_or_default(),
            Some(Err(_)) | None => Vec::new(),
        };
        if answers.len() == count { answers } else { vec![Err(ServiceError::Ended); count] }
    }

    /// Takes no more orders, and returns when the last one is answered: the store is not written from here any more. Gives
    /// the model, which is an empty one to whoever still reads it here; nothing if it may not be what the store says.
    pub fn retire(&self) -> Option<Model> {
        if self.end() {
            return None;
        }
        Some(std::mem::take(&mut *self.model.write().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Ends the writer; whether its model may not be what the store says.
    fn end(&self) -> bool {
        *self.orders.write().unwrap_or_else(PoisonError::into_inner) = None;
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A panic over there was reported by its hook.
        writer.is_none_or(|writer| writer.join().unwrap_or(true))
    }

    /// The model as it is now. Orders wait while this is held.
    pub fn model(&self) -> RwLockReadGuard<'_, Model> {
        self.model.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody has changed anything since revision `at`.
    ///
    /// # Errors
    /// [`Refusal::Outdated`].
    pub fn check_at(&self, at: Option<u64>) -> Result<(), Refusal> {
        self.wanted.check(at, &self.model())
    }

    /// Which store it is, and where it stands.
    ///
    /// # Errors
    /// What the store says.
    pub fn head(&self) -> Result<Head, store::StoreError> {
        self.store()?.head()
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
    ) -> Result<Vec<(String, Audit)>, store::StoreError> {
        let order = if newest { store::Order::Down } else { store::Order::Up };
        audit::page(self.store()?, after, order, count)
    }

    /// Every commit after a revision.
    ///
    /// # Errors
    /// What the store says; `Compacted` if that is too long ago.
    pub fn watch(&self, after: u64) -> Result<Box<dyn Watch>, store::StoreError> {
        self.store()?.watch(Revision(after))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _stale = self.end();
    }
}

/// Reads all documents of a store.
///
/// # Errors
/// What the store says, and what cannot be read in it.
pub fn load(store: &dyn Store, limits: &Limits) -> Result<Model, RegistryError> {
    let mut nobody: Subscriber = Box::new(|_| ());
    load::load(store, limits, None, Unreadable::Refused, &mut nobody)
}
