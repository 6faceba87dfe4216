//! Keeps up with a store that another process writes: an edge that drains ends the sessions whose
//! right its successor takes.
//!
//! Where it is not sure, it takes rights away: a document that cannot be read, written by a newer
//! program perhaps, is none.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::load::{self, Unreadable};
use super::request::{RegistryError, Subscriber, Update};
use crate::registry::document::{Document, Key};
use crate::registry::draft::Written;
use crate::registry::model::{Limits, Model};
use crate::registry::store::{self, Commit, Revision, Store};

/// How long a commit of another process may stay unseen.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After a fault of the store.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// A model that follows its store.
pub struct Follower {
    store: Arc<dyn Store>,
    limits: Limits,
    /// None if it has to be read.
    model: Option<Model>,
    follow: Subscriber,
}

impl Follower {
    /// From the store's state that `model` is, if there is one.
    pub fn new(
        store: Arc<dyn Store>,
        limits: Limits,
        model: Option<Model>,
        follow: Subscriber,
    ) -> Self {
        Self { store, limits, model, follow }
    }

    /// Tells the follower of every commit, until `stop` is set.
    pub fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            // A bug here must not leave sessions with rights that are gone: what is known
            // then is read anew.
            let kept_up = catch_unwind(AssertUnwindSafe(|| self.keep_up(stop)));
            match kept_up {
                Ok(Ok(())) => return,
                Ok(Err(RegistryError::Store(store::StoreError::Compacted { .. }))) => {}
                Ok(Err(fault)) => {
                    tracing::warn!("what others change in the registry is not seen: {fault}");
                    std::thread::sleep(TRY_AGAIN);
                }
                // Its hook has told of it.
                Err(_) => std::thread::sleep(TRY_AGAIN),
            }
            self.model = None;
        }
    }

    fn keep_up(&mut self, stop: &AtomicBool) -> Result<(), RegistryError> {
        let Self { store, limits, model, follow } = self;
        let model = if let Some(model) = model {
            model
        } else {
            let lenient = Unreadable::LeftOut;
            model.insert(load::load(&**store, limits, None, lenient, follow)?)
        };
        let mut watch = store.watch(Revision(model.revision()))?;
        while !stop.load(Ordering::Relaxed) {
            if let Some(commit) = watch.next(LOOK_EVERY)? {
                let written = take(model, commit);
                follow(Update::Written { model, written: &written });
            }
        }
        Ok(())
    }
}

/// Makes a commit's changes.
fn take(model: &mut Model, commit: Commit) -> Vec<Written> {
    let mut written = Vec::new();
    for store::Change { key, value } in commit.changes {
        // The audit log is no document.
        let Ok(key) = key.parse::<Key>() else { continue };
        let now = value.and_then(|json| match Document::from_json(&key, &json) {
            Ok(document) => Some(document),
            Err(why) => {
                tracing::warn!("{key} cannot be read and leads nowhere from now on: {why}");
                None
            }
        });
        let before = model.put(&key, now.clone(), commit.revision.0);
        written.push(Written { key, now, before });
    }
    model.at_revision(commit.revision.0);
    written
}

#[cfg(test)]
#[path = "follower_tests.rs"]
mod tests;
