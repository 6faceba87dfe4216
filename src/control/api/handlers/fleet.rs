//! The registry as a whole: a fleet carried out or written down, the audit log, the store,
//! and who watches.

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::control::api::body::Lines;
use crate::control::api::context::Context;
use crate::control::api::problem::Problem;
use crate::control::api::reply::{List, Moved, Reply};
use crate::control::api::{dto, openapi, watch};
use crate::registry::apply::served_file::{self, RemovalsMax, Tally};
use crate::registry::apply::{self, Prune};
use crate::registry::document::Role;
use crate::registry::draft::Progress;
use crate::registry::fleet::Fleet;
use crate::registry::writer::{self, Mode};
use crate::registry::{Command, object};

type Answer<T> = Result<T, Problem>;

/// A fleet to be.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Apply {
    #[serde(deserialize_with = "object::one")]
    fleet: Fleet,
    /// What the fleet does not name goes.
    #[serde(default)]
    prune: bool,
}

/// What it took.
#[derive(Debug, JsonSchema, Serialize)]
pub(in super::super) struct Applied {
    /// The registry's revision from then on.
    revision: u64,
    /// The registry's revision that the plan was made at: with it in `If-Match`, exactly this
    /// plan is carried out.
    planned_at: u64,
    /// Whether this only says what would happen.
    dry_run: bool,
    /// In the order in which it is carried out; nothing if all is as it should be.
    plan: Vec<Step>,
    /// VMs that were given another address.
    moves: Vec<Moved>,
}

/// One command of a plan.
#[derive(Debug, JsonSchema, Serialize)]
pub(in super::super) struct Step {
    /// `user-add` and its like.
    command: &'static str,
    /// What it is about.
    subject: String,
    /// For people.
    text: String,
    /// A refused one keeps none of the others from being tried.
    result: Outcome,
    /// Why it was refused.
    detail: Option<String>,
}

/// Whether a command was carried out.
#[derive(Clone, Copy, Debug, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in super::super) enum Outcome {
    /// It was, or would be.
    Ok,
    /// It was not, or would not be.
    Refused,
    /// It would be refused as things stand, but a removal before it takes more parts than
    /// a dry run tries.
    Untried,
}

pub(in super::super) fn apply(context: &Context, wanted: Apply) -> Answer<Applied> {
    let prune = if wanted.prune { Prune::Everything } else { Prune::Nothing };
    if wanted.prune && wanted.fleet.is_empty() {
        let what = "the fleet is empty, and with `prune` everything would go; name what is to stay";
        return Err(Problem::invalid(what));
    }
    context.api.service.check_at(context.expected)?;
    let (planned_at, plan) = context.api.service.read(|model| {
        apply::plan(&wanted.fleet, model, prune).map(|plan| (model.revision(), plan))
    })?;
    // A fleet must not be a way around what addresses, nodes and edges take by themselves.
    let admins = plan.iter().find(|step| step.command.is_for_admins());
    if let Some(step) = admins.filter(|_| context.caller.role < Role::Admin) {
        let text = &step.text;
        return Err(Problem::forbidden(format!(
            "to {text} takes the role admin; yours is operator"
        )));
    }
    let (actor, mode) = (&context.caller.actor, context.mode());
    let (service, at) = (&context.api.service, context.expected);
    let renumber = context.query.renumber;
    if mode == Mode::Real {
        let dry = Mode::DryRun;
        let tried = apply::apply(service, at, plan.clone(), renumber, actor, dry)?;
        begins(context, &tried)?;
    }
    let applied = apply::apply(service, at, plan, renumber, actor, mode)?;
    let mut answer = Applied {
        revision: applied.revision,
        planned_at,
        dry_run: context.query.dry_run,
        plan: Vec::with_capacity(applied.steps.len()),
        moves: Vec::new(),
    };
    let mut refused = Outcome::Refused;
    for (step, result) in applied.steps {
        let (command, subject) = (step.command.word(), step.subject());
        let (result, detail) = match result {
            Ok(done) => {
                if mode == Mode::DryRun && done.report.progress == Progress::Begun {
                    refused = Outcome::Untried;
                }
                answer.moves.extend(done.report.moves.iter().map(Moved::from));
                (Outcome::Ok, None)
            }
            Err(refusal) => {
                context.was_refused(step.command, &refusal);
                (refused, Some(refusal.to_string()))
            }
        };
        answer.plan.push(Step { command, subject, text: step.text, result, detail });
    }
    Ok(answer)
}

/// Refused steps that a refused plan names.
const REFUSED_TOLD: usize = 3;

/// A plan of which it is known that a part would be refused is not begun.
fn begins(context: &Context, tried: &apply::Applied) -> Answer<()> {
    let mut refused = tried.would_be_refused();
    let first: Vec<String> = refused
        .by_ref()
        .take(REFUSED_TOLD)
        .map(|(step, refusal)| {
            context.was_refused(step.command.clone(), refusal);
            format!("{}: {refusal}", step.text)
        })
        .collect();
    if first.is_empty() {
        return Ok(());
    }
    let (count, of) = (first.len() + refused.count(), tried.steps.len());
    let detail = format!(
        "{count} of {of} changes would be refused, and none was made (dry_run shows all): {}",
        first.join("; ")
    );
    Err(Problem::new(StatusCode::CONFLICT, "plan-refused", detail))
}

/// A served fleet file, held against what stands.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct File {
    #[serde(deserialize_with = "object::one")]
    fleet: Fleet,
    /// `[fleet_file] removals_max` of its `keyway.toml`.
    removals_max: Option<u32>,
}

/// What it would do at the next start or reload.
#[derive(Debug, JsonSchema, Serialize)]
pub(in super::super) struct FilePlan {
    /// The registry's revision that the plan was made at.
    planned_at: u64,
    /// How many things of each kind.
    counts: Tally,
    /// Why it would not be carried out.
    held: Option<String>,
}

pub(in super::super) fn file_plan(context: &Context, file: File) -> Answer<FilePlan> {
    let most = file.removals_max.map_or(RemovalsMax::Usual, RemovalsMax::Things);
    let planned = context.api.service.read(|model| served_file::plan(&file.fleet, model, most))?;
    let held = planned.held.map(|held| held.to_string());
    Ok(FilePlan { planned_at: planned.at.revision, counts: planned.tally, held })
}

/// A fleet that is.
#[derive(Debug, JsonSchema, Serialize)]
pub(in super::super) struct Export {
    fleet: Fleet,
}

pub(in super::super) fn export(context: &Context) -> Answer<Export> {
    Ok(Export { fleet: context.api.service.read(Fleet::of) })
}

/// Entries of the audit log, by key: the oldest first, or the newest.
pub(in super::super) fn audit(context: &Context) -> Answer<List<dto::Audit>> {
    let (newest, after) = (context.query.newest, context.query.after.as_deref());
    // One more than asked for, to know whether there is one.
    let page = context.api.service.audit(after, newest, context.query.limit() + 1)?;
    let revision = context.api.service.revision();
    let items = page.into_iter().map(|(key, entry)| {
        let item = shown(&key, &entry);
        (key, item)
    });
    Ok(List::page(&context.query, revision, items))
}

fn shown(key: &str, entry: &writer::Audit) -> dto::Audit {
    let writer::Audit { at_s, actor, command, moves } = entry;
    let (of, refused) = if let Command::Refused { of, code } = command {
        (&**of, Some(code.clone()))
    } else {
        (command, None)
    };
    let mut command = serde_json::to_value(of).unwrap_or_default();
    if let Some(fields) = command.as_object_mut() {
        // Good for nothing, but it has no place in a log that is passed around.
        fields.remove("hash");
        // The words of plans, of the command line and of this log are the same; how it is stored
        // is another matter.
        fields.insert("command".to_owned(), of.word().into());
        if matches!(of, Command::Note { .. }) {
            fields.remove("what");
        }
    }
    dto::Audit {
        key: key.to_owned(),
        at_s: *at_s,
        actor: dto::Actor { name: actor.name.clone(), from: actor.from.clone() },
        command,
        refused,
        moves: serde_json::to_value(moves).unwrap_or_default(),
    }
}

pub(in super::super) fn watch(context: &Context) -> Answer<Lines> {
    watch::start(context)
}

/// Which store it is.
#[derive(Debug, JsonSchema, Serialize)]
pub(in super::super) struct Store {
    /// Another one after a backup was restored.
    store_id: String,
    revision: u64,
}

pub(in super::super) fn store(context: &Context) -> Answer<Store> {
    let head = context.api.service.head()?;
    Ok(Store { store_id: head.store_id.to_string(), revision: head.revision.0 })
}

/// That it is there.
#[derive(Debug, JsonSchema, Serialize)]
pub(in super::super) struct Health {
    /// Always `ok`.
    status: &'static str,
    /// Of keyway.
    version: &'static str,
}

pub(in super::super) fn health(_call: &Context) -> Answer<Health> {
    Ok(Health { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

/// The API's own description.
#[derive(Debug, JsonSchema, Serialize)]
#[serde(transparent)]
pub(in super::super) struct OpenApi(
    #[schemars(with = "std::collections::BTreeMap<String, serde_json::Value>")] serde_json::Value,
);

pub(in super::super) fn openapi(_call: &Context) -> Answer<Reply<OpenApi>> {
    Ok(OpenApi(openapi::describe()).into())
}
