//! A change under way: written into the model at once, so that the next step sees it, and taken
//! back unless it is kept.

use std::collections::BTreeMap;

use serde::Serialize;

use super::document::{Document, Key, Serial};
use super::model::{CommandContext, Model};
use super::name::{Label, Principal};
use super::opened::Opened;

/// A VM that was given another address on the way.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Move {
    /// The VM, by name.
    pub vm: Label,
    /// Where it was.
    pub from: Label,
    /// Where it is.
    pub to: Label,
    /// For whom the old address leads there for a while.
    pub old_for: Vec<Principal>,
}

/// Documents after which a part of a large change ends: with what its last step adds, they fit into
/// one transaction.
pub const PART_DOCUMENTS: usize = 64;

/// How far a command came.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Progress {
    /// To its end.
    #[default]
    Done,
    /// There was no room for all of it: the same command, carried out again, goes on.
    Begun,
}

/// What a command did.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Report {
    /// VMs that were given another address.
    pub moves: Vec<Move>,
    /// The VM that the command made or was about.
    #[serde(skip)]
    pub vm: Option<Serial>,
    /// How far it came.
    #[serde(skip)]
    pub progress: Progress,
    /// About how many more documents it will write.
    #[serde(skip)]
    pub left: usize,
}

/// One document of a finished draft.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Written {
    /// The key that was written.
    pub key: Key,
    /// What stands there now.
    pub now: Option<Document>,
    /// What stood there, with its revision.
    pub before: Option<(Document, u64)>,
}

/// A change of a model that is not kept yet. Dropped, it takes everything back.
pub struct Draft<'m> {
    model: &'m mut Model,
    stamp: CommandContext,
    by: String,
    revision: u64,
    before: BTreeMap<Key, Option<(Document, u64)>>,
    room: usize,
    pub(super) report: Report,
}

impl<'m> Draft<'m> {
    /// Begins a change that takes place at one moment, and will have the next revision.
    pub fn new(model: &'m mut Model, stamp: CommandContext) -> Self {
        Self::within(model, stamp, PART_DOCUMENTS)
    }

    /// As [`Draft::new`], for a part that ends after `room` documents, of which there
    /// is at least one.
    pub(super) fn within(model: &'m mut Model, stamp: CommandContext, room: usize) -> Self {
        let revision = model.revision() + 1;
        let (before, report) = (BTreeMap::new(), Report::default());
        let by = String::new();
        Self { model, stamp, by, revision, before, room: room.max(1), report }
    }

    /// As somebody's doing, as the audit log names them.
    #[must_use]
    pub(super) fn ordered_by(mut self, name: &str) -> Self {
        name.clone_into(&mut self.by);
        self
    }

    pub(super) fn by(&self) -> &str {
        &self.by
    }

    pub(super) const fn model(&self) -> &Model {
        self.model
    }

    pub(super) const fn stamp(&self) -> CommandContext {
        self.stamp
    }

    /// Writes a document; what this takes from somebody is quarantined.
    pub(super) fn put(&mut self, key: &Key, document: Option<Document>) {
        let opened = Opened::by(document.as_ref());
        if let Some(before) = self.write(key, document) {
            self.quarantine_lost(key, &before, opened);
        }
    }

    /// How many more documents it should write.
    pub(super) fn room(&self) -> usize {
        self.room.saturating_sub(self.before.len())
    }

    /// What stood under `key` when the draft began, if the draft has written there;
    /// else what stands.
    pub(super) fn first(&self, key: &Key) -> Option<Document> {
        match self.before.get(key) {
            Some(before) => before.as_ref().map(|(document, _)| document.clone()),
            None => self.model.get(key).map(|(document, _)| document),
        }
    }

    /// What stood under a key that the draft has written when it began.
    pub(super) fn began_with(&self, key: &Key) -> Option<&Document> {
        self.before.get(key)?.as_ref().map(|(document, _)| document)
    }

    /// Where the draft has written, with what stood there when it began.
    pub(super) fn written(&self) -> impl Iterator<Item = (&Key, Option<&Document>)> {
        self.before.iter().map(|(key, before)| {
            let before = before.as_ref().map(|(document, _)| document);
            (key, before)
        })
    }

    /// As [`Draft::put`], for what is in quarantine itself.
    pub(super) fn write(&mut self, key: &Key, document: Option<Document>) -> Option<Document> {
        let before = self.model.put(key, document, self.revision);
        let document = before.as_ref().map(|(document, _)| document.clone());
        self.before.entry(key.clone()).or_insert(before);
        document
    }

    /// Keeps the change: what it wrote, in the order of keys, and what it did.
    #[must_use]
    pub fn keep(mut self) -> (Vec<Written>, Report) {
        let all = std::mem::take(&mut self.before);
        let written = all.into_iter().filter_map(|(key, before)| {
            let now = self.model.get(&key).map(|(document, _)| document);
            let same = before.as_ref().map(|(document, _)| document) == now.as_ref();
            if same {
                // Written, and written back: for the store nothing has happened.
                if let Some((document, revision)) = before {
                    self.model.put(&key, Some(document), revision);
                    self.model.at_revision(self.revision);
                }
                return None;
            }
            Some(Written { key, now, before })
        });
        let written: Vec<Written> = written.collect();
        if written.is_empty() {
            self.model.at_revision(self.revision.saturating_sub(1));
        }
        (written, std::mem::take(&mut self.report))
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if self.before.is_empty() {
            return;
        }
        for (key, before) in std::mem::take(&mut self.before) {
            let (document, revision) = before.map_or((None, 0), |(it, at)| (Some(it), at));
            self.model.put(&key, document, revision);
        }
        self.model.at_revision(self.revision.saturating_sub(1));
    }
}

/// Puts back what stood before a change.
pub(super) fn rollback(model: &mut Model, written: Vec<Written>) {
    if written.is_empty() {
        return;
    }
    let revision = model.revision();
    for Written { key, before, .. } in written.into_iter().rev() {
        let (document, at) = before.map_or((None, 0), |(document, at)| (Some(document), at));
        model.put(&key, document, at);
    }
    model.at_revision(revision.saturating_sub(1));
}

/// Writes what the store took, at the revision that the store gave it.
pub(super) fn stamp(model: &mut Model, written: &[Written], revision: u64) {
    for Written { key, now, .. } in written {
        model.put(key, now.clone(), revision);
    }
    model.at_revision(revision);
}
