//! What is asked of the writer, what comes of it, and what whoever keeps up is told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};

use crate::registry::audit::Actor;
use crate::registry::command::{Command, Options};
use crate::registry::document::{Edge, StrangeKey};
use crate::registry::draft::{Report, Written};
use crate::registry::model::Model;
use crate::registry::refusal::Refusal;
use crate::registry::store;
use crate::route::Contents;

/// A command with all that says how it is meant.
#[derive(Clone, Debug)]
pub struct CommandRequest {
    /// What is to be done.
    pub command: Command,
    /// How it is meant.
    pub options: Options,
    /// The revision that the subject must have.
    pub expected: Option<u64>,
    /// Who asks.
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
    /// Every document written, or that would be; of an order that took several batches those
    /// of the last one.
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
        /// The key in the store.
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
        /// All edges, which are none of the map's.
        edges: Vec<Edge>,
    },
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

/// The last revision that an operator's request made. Neither time makes one, nor the edge's own
/// work, as pinning a host key.
#[derive(Clone, Debug)]
pub(super) struct LastOperatorRevision(Arc<AtomicU64>);

impl LastOperatorRevision {
    pub(super) fn at(revision: u64) -> Self {
        Self(Arc::new(AtomicU64::new(revision)))
    }

    /// Whether no operator's request was carried out since somebody looked at revision `at`.
    pub(super) fn check(&self, at: Option<u64>, model: &Model) -> Result<(), Refusal> {
        let is = self.is();
        match at {
            Some(expected) if expected < is || expected > model.revision() => {
                Err(Refusal::Outdated { is, expected, done: 0 })
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn is(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, revision: u64) {
        self.0.store(revision, Ordering::Relaxed);
    }
}
