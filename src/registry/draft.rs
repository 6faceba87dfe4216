//! A change under way: written into the model at once, so that the next step sees it, and taken back unless it is kept.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use super::document::{Access, Document, Key, OldSlot, QuarantinedSlot, Serial, Vm};
use super::model::{CommandContext, Model, Quarantined};
use super::name::{Label, Principal};
use super::refusal::Refusal;

/// A VM that was given another address on the way.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Move {
    /// Which.
    pub vm: Label,
    /// Where it was.
    pub from: Label,
    /// Where it is.
    pub to: Label,
    /// For whom the old address leads there for a while.
    pub old_for: Vec<Principal>,
}

/// Documents after which a part of a large change ends: with what its last step adds, they fit into one transaction.
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
    /// Where.
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
    revision: u64,
    before: BTreeMap<Key, Option<(Document, u64)>>,
    room: usize,
    pub(super) report: Report,
}

/// A principal's way to an address.
type Way = (Principal, Label);

impl<'m> Draft<'m> {
    /// Begins a change that takes place at one moment, and will have the next revision.
    pub fn new(model: &'m mut Model, stamp: CommandContext) -> Self {
        Self::within(model, stamp, PART_DOCUMENTS)
    }

    /// As [`Draft::new`], for a part that ends after `room` documents, of which there is at least one.
    pub(super) fn within(model: &'m mut Model, stamp: CommandContext, room: usize) -> Self {
        let revision = model.revision() + 1;
        let (before, report) = (BTreeMap::new(), Report::default());
        Self { model, stamp, revision, before, room: room.max(1), report }
    }

    pub(super) const fn model(&self) -> &Model {
        self.model
    }

    pub(super) const fn stamp(&self) -> CommandContext {
        self.stamp
    }

    /// Writes a document, and down what this takes from whom: nobody may meet another VM there soon.
    pub(super) fn put(&mut self, key: &Key, document: Option<Document>) {
        let now = match &document {
            Some(Document::Vm(vm)) => Some(ways(vm)),
            _ => None,
        };
        let goes = document.is_none();
        let team = match &document {
            Some(Document::Team(team)) => Some(team.members.clone()),
            _ => None,
        };
        let before = self.write(key, document);
        let until_s = self.stamp.now_s.saturating_add(self.model.limits().quarantine_s);
        match (key, &before) {
            (Key::Vm(serial), Some(Document::Vm(vm))) => {
                // A way that this same draft had opened was never used by anybody.
                let first = match self.before.get(key) {
                    Some(Some((Document::Vm(vm), _))) => ways(vm),
                    _ => HashSet::new(),
                };
                let now = now.unwrap_or_default();
                let mut lost: Vec<Way> =
                    first.into_iter().filter(|way| !now.contains(way)).collect();
                lost.sort();
                for (principal, address) in lost {
                    let endpoint = (goes && principal == vm.owner).then(|| vm.ssh.clone());
                    self.quarantine(
                        &principal,
                        QuarantinedSlot { address, vm: *serial, until_s, endpoint },
                    );
                }
            }
            (Key::Team(name), Some(Document::Team(_))) => {
                let first = match self.before.get(key) {
                    Some(Some((Document::Team(team), _))) => team.members.clone(),
                    _ => BTreeMap::new(),
                };
                let now = team.unwrap_or_default();
                let saw = |(_, access): &(&Label, &Access)| **access == Access::Slot;
                let left = first.iter().filter(saw).map(|(user, _)| user);
                let left: Vec<Label> =
                    left.filter(|user| now.get(*user) != Some(&Access::Slot)).cloned().collect();
                for user in left {
                    self.leave(&Principal::Team(name.clone()), &user, until_s);
                }
            }
            _ => {}
        }
    }

    /// Who leaves a team loses its slots, and takes along what the team must not meet yet.
    fn leave(&mut self, team: &Principal, user: &Label, until_s: u64) {
        let Some(reach) = self.model.principal_ix(team).and_then(|ix| self.model.reach(ix)) else {
            return;
        };
        let name = |address| self.model.site(address).map(|site| site.name.clone());
        let quarantine = |address, vm, until_s| {
            Some(QuarantinedSlot { address: name(address)?, vm, until_s, endpoint: None })
        };
        let slots =
            reach.slots.iter().filter_map(|slot| quarantine(slot.address, slot.vm, until_s));
        let over = |held: &&Quarantined| held.until_s > self.stamp.now_s;
        let quarantined = reach.quarantined.iter().filter(over);
        let quarantined =
            quarantined.filter_map(|held| quarantine(held.address, held.vm, held.until_s));
        let all: Vec<QuarantinedSlot> = slots.chain(quarantined).collect();
        self.quarantine_all(&Principal::User(user.clone()), all);
    }

    pub(super) fn quarantine(&mut self, principal: &Principal, quarantine: QuarantinedSlot) {
        self.quarantine_all(principal, vec![quarantine]);
    }

    /// Takes the time of what the principal holds and of `more`, not of one times the other.
    fn quarantine_all(&mut self, principal: &Principal, more: Vec<QuarantinedSlot>) {
        if more.is_empty() {
            return;
        }
        let key = Key::Quarantine(principal.clone());
        let mut quarantined = match self.model.get(&key) {
            Some((Document::Quarantine(quarantined), _)) => quarantined,
            _ => Vec::new(),
        };
        // What is over takes no room.
        quarantined.retain(|other| other.until_s > self.stamp.now_s);
        let way = |quarantine: &QuarantinedSlot| (quarantine.address.clone(), quarantine.vm);
        let mut places: HashMap<(Label, Serial), usize> =
            quarantined.iter().map(way).zip(0..).collect();
        for quarantine in more {
            if let Some(other) =
                places.get(&way(&quarantine)).and_then(|at| quarantined.get_mut(*at))
            {
                other.until_s = other.until_s.max(quarantine.until_s);
                other.endpoint = quarantine.endpoint.or(other.endpoint.take());
            } else {
                places.insert(way(&quarantine), quarantined.len());
                quarantined.push(quarantine);
            }
        }
        self.write(&key, Some(Document::Quarantine(quarantined)));
    }

    /// How many more documents it should write.
    pub(super) fn room(&self) -> usize {
        self.room.saturating_sub(self.before.len())
    }

    /// What stood under `key` when the draft began, if the draft has written there; else what stands.
    pub(super) fn first(&self, key: &Key) -> Option<Document> {
        match self.before.get(key) {
            Some(before) => before.as_ref().map(|(document, _)| document.clone()),
            None => self.model.get(key).map(|(document, _)| document),
        }
    }

    /// While too little is known of a registry that was lost, nobody is given a way that they had not when the draft
    /// began.
    ///
    /// # Errors
    /// [`Refusal::Closed`].
    pub(super) fn open_no_new_way(&self) -> Result<(), Refusal> {
        let Some(until_s) = self.model.closed_until_s(self.stamp.now_s) else { return Ok(()) };
        let refused = |principal: &Principal, address: &Label| {
            let (principal, address) = (principal.clone(), address.clone());
            Err(Refusal::Closed { principal, address, until_s })
        };
        for (key, before) in &self.before {
            let before = before.as_ref().map(|(document, _)| document);
            match (key, self.model.get(key).map(|(document, _)| document)) {
                (Key::Vm(_), Some(Document::Vm(vm))) => {
                    let had = match before {
                        Some(Document::Vm(before)) => ways(before),
                        _ => HashSet::new(),
                    };
                    let new = ways(&vm).into_iter().filter(|way| !had.contains(way)).min();
                    if let Some((principal, address)) = new {
                        return refused(&principal, &address);
                    }
                }
                (Key::Team(name), Some(Document::Team(team))) => {
                    let had = |user: &Label| match before {
                        Some(Document::Team(before)) => {
                            before.members.get(user) == Some(&Access::Slot)
                        }
                        _ => false,
                    };
                    let ix = self.model.principal_ix(&Principal::Team(name.clone()));
                    let slot = ix.and_then(|ix| self.model.reach(ix)?.slots.first());
                    let Some(site) = slot.and_then(|slot| self.model.site(slot.address)) else {
                        continue;
                    };
                    let mut members = team.members.iter();
                    let new = members.find(|(user, access)| **access == Access::Slot && !had(user));
                    if let Some((user, _)) = new {
                        return refused(&Principal::User(user.clone()), &site.name);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Drops the holds that are over.
    pub(super) fn release_quarantined(&mut self, principal: &Principal) {
        let key = Key::Quarantine(principal.clone());
        let Some((Document::Quarantine(mut quarantined), _)) = self.model.get(&key) else { return };
        let count = quarantined.len();
        quarantined.retain(|quarantine| quarantine.until_s > self.stamp.now_s);
        if quarantined.is_empty() {
            self.write(&key, None);
        } else if quarantined.len() < count {
            self.write(&key, Some(Document::Quarantine(quarantined)));
        }
    }

    fn write(&mut self, key: &Key, document: Option<Document>) -> Option<Document> {
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

/// All ways that a VM's document opens.
fn ways(vm: &Vm) -> HashSet<Way> {
    let mut ways = HashSet::new();
    if let Some(address) = &vm.address {
        ways.extend(vm.entitled().map(|principal| (principal.clone(), address.clone())));
    }
    for OldSlot { address, principals, .. } in &vm.old {
        ways.extend(principals.iter().map(|principal| (principal.clone(), address.clone())));
    }
    ways
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
