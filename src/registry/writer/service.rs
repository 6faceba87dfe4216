//! The registry in service: its one writer's queue, and the model for whoever reads.

#![expect(clippy::disallowed_methods, reason = "one thread writes")]

use std::fmt;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use super::busy;
use super::load::{self, Unreadable};
use super::request::{
    CommandRequest, Committed, Job, LastOperatorRevision, Mode, RegistryError, ServiceError,
    StoreHealth, Subscriber,
};
use super::thread::Writer;
use crate::registry::audit::{self, Audit};
use crate::registry::model::{Limits, Model};
use crate::registry::refusal::Refusal;
use crate::registry::store::{self, Head, Revision, Store, Watch};
use crate::ssh::entropy::Entropy;

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

    /// Stands in for a registry whose store is away: shows `model`, and refuses everything else
    /// because of `why`.
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
        busy::must_not("a question to the store");
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

    /// Carries out orders one behind another, each by itself: one that is refused does not keep the
    /// next from being tried.
    pub fn carry_out_all(
        &self,
        orders: Vec<CommandRequest>,
        mode: Mode,
    ) -> Vec<Result<Committed, ServiceError>> {
        self.carry_out_at(None, orders, mode)
    }

    /// The same, if nobody has changed anything since this revision; else every answer is
    /// [`Refusal::Outdated`].
    pub fn carry_out_at(
        &self,
        at: Option<u64>,
        orders: Vec<CommandRequest>,
        mode: Mode,
    ) -> Vec<Result<Committed, ServiceError>> {
        busy::must_not("an order");
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

    /// Takes no more orders, and returns when the last one is answered: the store is not written
    /// from here any more. Gives the model, which is an empty one to whoever still reads it here;
    /// nothing if it may not be what the store says.
    pub fn retire(&self) -> Option<Model> {
        busy::must_not("the end of the writer");
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

    /// Looks at the model as it is now. Orders wait meanwhile: nothing is ordered in there, nor
    /// asked of the store, which panics.
    pub fn read<T>(&self, look: impl FnOnce(&Model) -> T) -> T {
        busy::must_not("a second look");
        let _reads = busy::reads();
        look(&self.model.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where the model stands.
    pub fn revision(&self) -> u64 {
        self.read(Model::revision)
    }

    /// Whether nobody has changed anything since revision `at`.
    ///
    /// # Errors
    /// [`Refusal::Outdated`].
    pub fn check_at(&self, at: Option<u64>) -> Result<(), Refusal> {
        self.read(|model| self.wanted.check(at, model))
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

    /// Up to `count` entries of the audit log with their keys, behind the key `after`: the oldest
    /// first, or the newest.
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

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::{OnceLock, Weak};

    use super::*;
    use crate::registry::store::StoreId;
    use crate::registry::store::testing::memory::Memory;
    use crate::registry::writer::Update;
    use crate::registry::{Command, Label};
    use crate::ssh::testing::Seeded;

    fn service(follow: Subscriber) -> Service {
        let store = Arc::new(Memory::new(StoreId([7; 16])));
        let (limits, entropy) = (Limits::default(), Box::new(Seeded(5)));
        Service::start(Start { store, limits, now_s: || 7, entropy, known: None, follow }).unwrap()
    }

    fn user(name: &str) -> CommandRequest {
        let name = Label::new(name).unwrap();
        CommandRequest::of_itself(Command::UserAdd { name, keys: Vec::new() })
    }

    fn said(act: impl FnOnce()) -> String {
        let fault = catch_unwind(AssertUnwindSafe(act)).expect_err("it was let");
        fault.downcast_ref::<String>().expect("words").clone()
    }

    #[test]
    fn whoever_looks_at_the_model_and_waits_for_its_writer_is_stopped_at_once() {
        let service = service(Box::new(|_| ()));
        let inside = |act: &dyn Fn()| said(|| service.read(|_| act()));
        let orders = inside(&|| drop(service.carry_out(user("u"), Mode::Real)));
        assert!(orders.contains("an order on the thread that reads the registry"), "{orders}");
        inside(&|| drop(service.carry_out(user("u"), Mode::DryRun)));
        inside(&|| drop(service.head()));
        inside(&|| drop(service.audit(None, true, 1)));
        inside(&|| drop(service.watch(0).map(|_| ())));
        inside(&|| drop(service.retire()));
        // With a writer that waits in between, the second look would wait for it.
        inside(&|| assert_eq!(service.revision(), 0));
        service.carry_out(user("u"), Mode::Real).expect("nobody looks any more");
        assert_eq!(service.read(|model| model.users().len()), 1);
    }

    #[test]
    fn who_is_told_of_a_change_cannot_order_another_and_wait_for_itself() {
        let here: Arc<OnceLock<Weak<Service>>> = Arc::default();
        let there = Arc::clone(&here);
        let service = Arc::new(service(Box::new(move |update| {
            let service = there.get().and_then(Weak::upgrade);
            if let (Some(service), Update::Written { .. }) = (service, update) {
                drop(service.carry_out(user("v"), Mode::Real));
            }
        })));
        here.set(Arc::downgrade(&service)).unwrap();
        let answer = service.carry_out(user("u"), Mode::Real);
        assert!(matches!(answer, Err(ServiceError::Ended)), "{answer:?}");
    }
}
