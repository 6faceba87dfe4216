//! What handlers answer with: one thing, a page of a list, or what a change came to.

use schemars::JsonSchema;
use serde::Serialize;

use super::problem::Problem;
use super::query::Queries;
use super::response::Answer;
use crate::plural::count;
use crate::registry::document::{Address, Document, Key, Node, Origin, Vm};
use crate::registry::draft::Progress;
use crate::registry::writer::Committed;
use crate::registry::{Label, Model, Move, Written};

/// What a handler answers, with its type, for the API's description.
pub(super) struct Reply<T> {
    pub(super) body: T,
    /// The revision of the one thing it shows.
    pub(super) tag: Option<u64>,
}

impl<T> From<T> for Reply<T> {
    fn from(body: T) -> Self {
        Self { body, tag: None }
    }
}

impl<T: Serialize> Reply<T> {
    pub(super) fn finish(self) -> Result<Answer, Problem> {
        let body = serde_json::to_vec(&self.body).map_err(|fault| {
            Problem::store_failed(format!("the answer cannot be written: {fault}"))
        })?;
        Ok(Answer::Json { body, tag: self.tag })
    }
}

/// What a change answers.
#[derive(Debug, JsonSchema, Serialize)]
pub(super) struct Changed<T> {
    /// The registry's revision from then on.
    pub(super) revision: u64,
    /// Whether this only says what would happen.
    pub(super) dry_run: bool,
    /// VMs that were given another address.
    pub(super) moves: Vec<Moved>,
    /// What was not done, and why.
    pub(super) warnings: Vec<String>,
    /// What was changed; absent if it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) item: Option<T>,
}

/// Of a change that leaves nothing to show.
#[derive(Debug, JsonSchema, Serialize)]
pub(super) enum Gone {}

impl<T> Changed<T> {
    /// After a command: what it moved, what it left undone, and what it was about.
    pub(super) fn by(
        done: &Committed,
        model: &Model,
        dry_run: bool,
        item: impl FnOnce(&Seen<'_>) -> Option<T>,
    ) -> Self {
        let begun = (done.report.progress == Progress::Begun).then(|| {
            format!(
                "only the beginning was tried; about {} more documents follow",
                done.report.left
            )
        });
        let file = files(&done.written);
        Self {
            revision: done.revision,
            dry_run,
            moves: done.report.moves.iter().map(Moved::from).collect(),
            warnings: begun.into_iter().chain(file).collect(),
            item: item(&Seen { model, done }),
        }
    }
}

impl Changed<Gone> {
    /// After something that is no command: the registry stands where it did.
    pub(super) fn of_nothing(revision: u64, dry_run: bool) -> Self {
        Self { revision, dry_run, moves: Vec::new(), warnings: Vec::new(), item: None }
    }
}

/// The registry as a command left it, or would have.
pub(super) struct Seen<'a> {
    pub(super) model: &'a Model,
    done: &'a Committed,
}

impl Seen<'_> {
    /// What the command wrote under `key`, else what stands there.
    pub(super) fn get(&self, key: &Key) -> Option<(Document, u64)> {
        let written = self.done.written.iter().find(|written| written.key == *key);
        match written {
            Some(Written { now, .. }) => now.clone().map(|now| (now, self.done.revision)),
            None => self.model.get(key),
        }
    }

    /// The VM of this name.
    pub(super) fn vm(&self, name: &Label) -> Option<(Document, u64)> {
        let named =
            |written: &&Written| matches!(&written.now, Some(Document::Vm(vm)) if vm.name == *name);
        let written = self.done.written.iter().find(named).map(|written| written.key.clone());
        let key = written.or_else(|| Some(Key::Vm(*self.model.vm_names().get(name)?)));
        self.get(&key?)
    }
}

/// What somebody has to know who changes by a command what a fleet file says. States, host keys
/// that were seen and tokens to join with are changed by commands even so: a file rarely says them.
fn files(written: &[Written]) -> Option<String> {
    let mut all = written.iter().filter_map(|Written { key, now, before }| {
        let (before, _) = before.as_ref()?;
        match (key, before, now) {
            (Key::User(name), Document::User(it), _) if it.origin == Origin::Fleet => {
                Some(format!("user {name}"))
            }
            (Key::Team(name), Document::Team(it), _) if it.origin == Origin::Fleet => {
                Some(format!("team {name}"))
            }
            (Key::Address(name), Document::Address(it), now) if it.origin == Origin::Fleet => {
                let same = matches!(now, Some(Document::Address(now))
                    if *now == Address { state: now.state, ..it.clone() });
                (!same).then(|| format!("address {name}"))
            }
            (Key::Node(name), Document::Node(it), now) if it.origin == Origin::Fleet => {
                let same = matches!(now, Some(Document::Node(now))
                    if **now == Node { join: now.join.clone(), ..(**it).clone() });
                (!same).then(|| format!("node {name}"))
            }
            (Key::Vm(_), Document::Vm(it), now) if it.origin == Origin::Fleet => {
                let same = matches!(now, Some(Document::Vm(now))
                    if **now == Vm { state: now.state, pin: now.pin.clone(), ..(**it).clone() });
                (!same).then(|| format!("VM {}", it.name))
            }
            (_, _, _) => None,
        }
    });
    let first = all.next()?;
    let what = match all.count() {
        0 => format!("{first} is"),
        more => format!("{first} and {} are", count(more, "thing")),
    };
    Some(format!(
        "{what} the fleet file's, which puts back at the next start or reload what it says; change it there too"
    ))
}

/// A VM that was given another address.
#[derive(Debug, JsonSchema, Serialize)]
pub(super) struct Moved {
    vm: String,
    from: String,
    to: String,
    /// For whom the old address leads there for a while.
    old_for: Vec<String>,
}

impl From<&Move> for Moved {
    fn from(moved: &Move) -> Self {
        let Move { vm, from, to, old_for } = moved;
        Self {
            vm: vm.to_string(),
            from: from.to_string(),
            to: to.to_string(),
            old_for: old_for.iter().map(ToString::to_string).collect(),
        }
    }
}

/// A page of a list.
#[derive(Debug, JsonSchema, Serialize)]
pub(super) struct List<T> {
    pub(super) items: Vec<T>,
    /// What `after` has to be for the next page; none: this was the last.
    next: Option<String>,
    /// The registry's revision that it shows.
    revision: u64,
}

impl<T> List<T> {
    /// The first items, each with its cursor, of as many as there are.
    pub(super) fn page(
        query: &Queries,
        revision: u64,
        mut items: impl Iterator<Item = (String, T)>,
    ) -> Self {
        let mut last = None;
        let mut page = Vec::with_capacity(query.limit());
        for (cursor, item) in items.by_ref().take(query.limit()) {
            page.push(item);
            last = Some(cursor);
        }
        let next = if items.next().is_some() { last } else { None };
        Self { items: page, next, revision }
    }
}
