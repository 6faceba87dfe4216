//! One request that is let in: who, what, and what was sent along, read once before a handler sees it.

use std::sync::Arc;

use hyper::body::Bytes;
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Api, auth::Caller, pipeline::note_refused, problem::Problem, query::Queries, response::Answer,
    trace,
};
use crate::plural::count;
use crate::registry::{
    Command, Label, Model, Move, Options, Principal, Refusal, Written,
    command::Noted,
    document::{Address, Document, Key, Origin, Vm},
    draft::Progress,
    object::Object,
    writer::{CommandRequest, Committed, Mode, ServiceError},
};

/// A request on its way through a handler.
pub(super) struct Call {
    pub(super) api: Arc<Api>,
    pub(super) caller: Caller,
    /// What stands in the path's places, in order.
    pub(super) params: Vec<String>,
    pub(super) query: Queries,
    /// The revision that the subject must have.
    pub(super) expected: Option<u64>,
    /// At most what the route takes.
    pub(super) body: Bytes,
}

impl Call {
    /// The text in a place of the path.
    pub(super) fn param(&self, place: usize) -> &str {
        self.params.get(place).map_or("", String::as_str)
    }

    /// The name in a place of the path.
    pub(super) fn name(&self, place: usize) -> Result<Label, Problem> {
        Ok(Label::new(self.param(place))?)
    }

    /// The user or team in a place of the path.
    pub(super) fn principal(&self, place: usize) -> Result<Principal, Problem> {
        Ok(self.param(place).parse::<Principal>()?)
    }

    /// The body; none at all is an empty object.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let body: &[u8] = if self.body.trim_ascii().is_empty() { b"{}" } else { &self.body };
        serde_json::from_slice(body).map(|Object(it)| it).map_err(|fault| {
            let what = if fault.is_data() { "does not fit" } else { "is not JSON" };
            Problem::bad(format!("the body {what}: {}", long_plain(&fault.to_string())))
        })
    }

    pub(super) const fn mode(&self) -> Mode {
        if self.query.dry_run { Mode::DryRun } else { Mode::Real }
    }

    pub(super) const fn options(&self) -> Options {
        Options { renumber: self.query.renumber, origin: Origin::Command }
    }

    pub(super) fn order(&self, command: Command) -> CommandRequest {
        let actor = self.caller.actor.clone();
        CommandRequest { command, options: self.options(), expected: None, actor }
    }

    /// Carries out one command, on the revision that was asked for.
    pub(super) fn carry_out(&self, command: Command) -> Result<Committed, Problem> {
        let order = CommandRequest { expected: self.expected, ..self.order(command) };
        let tried = order.command.clone();
        self.api.service.carry_out(order, self.mode()).map_err(|failed| {
            if let ServiceError::Refused(refusal) = &failed {
                self.was_refused(tried, refusal);
            }
            failed.into()
        })
    }

    /// Writes into the audit log what the caller wanted and did not get.
    pub(super) fn was_refused(&self, command: Command, why: &Refusal) {
        if self.mode() == Mode::Real {
            let command = trace::refused(command, why.code());
            note_refused(&self.api, &self.caller.actor, command);
        }
    }

    /// Writes into the audit log what was done beside the registry, and answers so: it is done, whether or not it can be
    /// written down.
    pub(super) fn noted(&self, what: Noted, about: impl Into<String>) -> Changed<Gone> {
        let about = about.into();
        let order = self.order(Command::Note { what, about });
        let noted = self.api.service.carry_out(order, Mode::Real);
        let missing = noted.err().map(|failed| format!("it is not in the audit log: {failed}"));
        Changed { warnings: missing.into_iter().collect(), ..self.acted() }
    }

    /// What to answer after a command.
    pub(super) fn changed<T>(
        &self,
        done: &Committed,
        item: impl FnOnce(&Seen<'_>) -> Option<T>,
    ) -> Changed<T> {
        let begun = (done.report.progress == Progress::Begun).then(|| {
            format!(
                "only the beginning was tried; about {} more documents follow",
                done.report.left
            )
        });
        let model = self.api.service.model();
        let file = files(&done.written);
        Changed {
            revision: done.revision,
            dry_run: self.query.dry_run,
            moves: done.report.moves.iter().map(Moved::from).collect(),
            warnings: begun.into_iter().chain(file).collect(),
            item: item(&Seen { model: &model, done }),
        }
    }

    /// What to answer after something that is no command.
    pub(super) fn acted(&self) -> Changed<Gone> {
        Changed {
            revision: self.api.service.model().revision(),
            dry_run: self.query.dry_run,
            moves: Vec::new(),
            warnings: Vec::new(),
            item: None,
        }
    }
}

/// What somebody has to know who changes by a command what a fleet file says. States and host keys that were seen are
/// changed by commands even so: a file rarely says them.
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

fn long_plain(text: &str) -> String {
    text.chars().take(300).map(|c| if c.is_control() { '?' } else { c }).collect()
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
        call: &Call,
        revision: u64,
        mut items: impl Iterator<Item = (String, T)>,
    ) -> Self {
        let mut last = None;
        let mut page = Vec::with_capacity(call.query.limit());
        for (cursor, item) in items.by_ref().take(call.query.limit()) {
            page.push(item);
            last = Some(cursor);
        }
        let next = if items.next().is_some() { last } else { None };
        Self { items: page, next, revision }
    }
}

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
