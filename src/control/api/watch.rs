//! The stream of commits: each watcher has a thread of its own, which waits for the store and
//! for nobody else.

#![expect(clippy::disallowed_methods, reason = "a watch is fed by a thread of its own")]

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::mpsc;

use super::auth::Proof;
use super::body::Lines;
use super::context::Context;
use super::problem::Problem;
use super::shared::WATCHERS_MAX;
use crate::registry::Key;
use crate::registry::document::{Edge, Vm};
use crate::registry::store::{Commit, StoreError, Watch};

/// Lines that wait for a slow reader; then the store's history waits for it.
const LINES_WAITING: usize = 64;
/// How often a watcher is looked after: it may have gone, or its token.
const TICK: Duration = Duration::from_secs(1);
/// Ticks without a commit until an empty line shows whether anybody still reads.
const HEARTBEAT_TICKS: u32 = 15;

/// One commit. An empty line is none: it shows that both sides are there.
#[derive(Debug, JsonSchema, Serialize)]
pub(super) struct Line<'a> {
    revision: u64,
    changes: Vec<Changed<'a>>,
}

/// What became of one thing. Never what it says.
#[derive(Debug, JsonSchema, Serialize)]
struct Changed<'a> {
    kind: Kind,
    /// Its name; of a VM its serial, which outlives its name, and of an edge its identity.
    key: &'a str,
    removed: bool,
    /// Of a VM that stands, and of an edge.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

/// Kinds of things.
#[derive(Debug, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    User,
    Team,
    Vm,
    Address,
    Node,
    NodeState,
    Edge,
    Token,
    Hold,
    Registry,
}

/// Begins to watch.
pub(super) fn start(context: &Context) -> Result<Lines, Problem> {
    let api = &context.api;
    let place = Arc::clone(&api.watchers).try_acquire_owned().map_err(|_| {
        let detail = format!("{WATCHERS_MAX} watch already; try again when one has gone");
        Problem::new(StatusCode::CONFLICT, "too-many", detail)
    })?;
    let after = context.query.revision.unwrap_or_else(|| api.service.revision());
    let mut watch = api.service.watch(after).map_err(told)?;
    // What is compacted already is told with a status.
    let first = watch.next(Duration::ZERO).map_err(told)?;
    let (sender, receiver) = mpsc::channel(LINES_WAITING);
    let proof = context.caller.proof.clone();
    // The watcher's thread must not keep alive what it looks at.
    let api = Arc::downgrade(api);
    let still = move || match (&proof, api.upgrade()) {
        (Proof::Socket(process), Some(api)) => api.role(*process).is_some(),
        (Proof::Token(token), Some(api)) => {
            let now_s = api.service.now_s();
            api.service.read(|model| token.find(model, now_s).is_ok())
        }
        (_, None) => false,
    };
    let thread = std::thread::Builder::new().name("api-watch".to_owned());
    let run = move || watch_on(&mut *watch, first, &sender, &still);
    let started = thread.spawn(run);
    started.map_err(|error| Problem::store_failed(format!("no thread to watch on: {error}")))?;
    Ok(Lines { receiver, _place: place })
}

fn told(fault: StoreError) -> Problem {
    if let StoreError::Compacted { .. } = fault {
        return Problem::new(StatusCode::GONE, "compacted", fault.to_string());
    }
    if let StoreError::Future { current, .. } = fault {
        let detail = format!("query parameter `after` is to come; the store stands at {current}");
        return Problem::bad(detail);
    }
    fault.into()
}

/// Sends lines until nobody reads, nobody may, or the store says no more.
fn watch_on(
    watch: &mut dyn Watch,
    first: Option<Commit>,
    sender: &mpsc::Sender<Bytes>,
    still: &dyn Fn() -> bool,
) {
    let (mut ticks, mut found) = (0, first);
    loop {
        if sender.is_closed() || !still() {
            return;
        }
        let bytes = match &found {
            Some(commit) => line(commit),
            None if ticks >= HEARTBEAT_TICKS => Some(Bytes::from_static(b"\n")),
            None => None,
        };
        if let Some(bytes) = bytes {
            ticks = 0;
            if sender.blocking_send(bytes).is_err() {
                return;
            }
        }
        found = match watch.next(TICK) {
            Ok(found) => found,
            Err(_) => return,
        };
        if found.is_none() {
            ticks += 1;
        }
    }
}

/// The line of a commit; nothing if none of it is anybody's business.
fn line(commit: &Commit) -> Option<Bytes> {
    let changes = commit.changes.iter().filter_map(|change| {
        let kind = match change.key.parse::<Key>().ok()? {
            Key::User(_) => Kind::User,
            Key::Team(_) => Kind::Team,
            Key::Vm(_) => Kind::Vm,
            Key::Address(_) => Kind::Address,
            Key::Node(_) => Kind::Node,
            Key::NodeState(_) => Kind::NodeState,
            Key::Edge(_) => Kind::Edge,
            Key::Token(_) => Kind::Token,
            Key::Quarantine(_) => Kind::Hold,
            Key::Registry => Kind::Registry,
        };
        let name = match (&kind, &change.value) {
            (Kind::Vm, Some(value)) => serde_json::from_slice(value).ok().map(|it: Vm| it.name),
            (Kind::Edge, Some(value)) => serde_json::from_slice(value).ok().map(|it: Edge| it.name),
            (_, _) => None,
        };
        let (_, key) = change.key.split_once('/')?;
        let name = name.map(|name| name.to_string());
        Some(Changed { kind, key, removed: change.value.is_none(), name })
    });
    let changes: Vec<Changed<'_>> = changes.collect();
    if changes.is_empty() {
        return None;
    }
    let mut text = serde_json::to_vec(&Line { revision: commit.revision.0, changes }).ok()?;
    text.push(b'\n');
    Some(Bytes::from(text))
}
