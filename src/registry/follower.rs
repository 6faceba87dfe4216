//! Keeps up with a store that another process writes: an edge that drains ends the sessions whose right its successor takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::document::{Document, Key};
use super::draft::Written;
use super::load;
use super::model::Model;
use super::service::{Fault, Follow, News};
use super::store::{self, Commit, Revision, Store};

/// How long a commit of another process may stay unseen.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After a fault of the store.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// A model that follows its store.
pub struct Follower {
    store: Arc<dyn Store>,
    model: Model,
    follow: Follow,
}

impl Follower {
    /// From the store's state that `model` is.
    pub fn new(store: Arc<dyn Store>, model: Model, follow: Follow) -> Self {
        Self { store, model, follow }
    }

    /// Tells the follower of every commit, until `stop` is set.
    pub fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let Err(fault) = self.keep_up(stop) else { return };
            if !matches!(fault, Fault::Store(store::Fault::Compacted { .. })) {
                tracing::warn!("what others change in the registry is not seen: {fault}");
                std::thread::sleep(TRY_AGAIN);
            }
            if let Err(fault) = self.read_anew() {
                tracing::warn!("the registry cannot be read: {fault}");
                std::thread::sleep(TRY_AGAIN);
            }
        }
    }

    fn keep_up(&mut self, stop: &AtomicBool) -> Result<(), Fault> {
        let mut watch = self.store.watch(Revision(self.model.revision()))?;
        while !stop.load(Ordering::Relaxed) {
            if let Some(commit) = watch.next(LOOK_EVERY)? {
                self.take(commit)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, commit: Commit) -> Result<(), Fault> {
        let mut written = Vec::new();
        for store::Change { key, value } in commit.changes {
            // The audit log is no document.
            let Ok(key) = key.parse::<Key>() else { continue };
            let now = match value {
                Some(json) => Some(
                    Document::from_json(&key, &json)
                        .map_err(|why| Fault::Unreadable { key: key.to_string(), why })?,
                ),
                None => None,
            };
            let before = self.model.put(&key, now.clone(), commit.revision.0);
            written.push(Written { key, now, before });
        }
        self.model.at_revision(commit.revision.0);
        (self.follow)(News::Written { model: &self.model, written: &written });
        Ok(())
    }

    fn read_anew(&mut self) -> Result<(), Fault> {
        let limits = self.model.limits().clone();
        self.model = load::load(&*self.store, &limits, None, &mut self.follow)?;
        Ok(())
    }
}

#[cfg(test)]
#[path = "follower_tests.rs"]
mod tests;
