//! What the log says of the front door as a whole: what it begins from, that it is of no use to
//! anybody yet, and what a drain waits for.

#![expect(clippy::disallowed_methods, reason = "a drain tells how long it took")]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::control::api::condition::{NeedsRestart, Renewal};
use crate::metrics::Registry;
use crate::route::Table;

/// Which files are meant: whoever edits others wonders for long.
pub(super) fn begins(role: &str, config: Option<&Path>, fleet: Option<&Path>, state_dir: &Path) {
    let name = |path: Option<&Path>| path.map_or_else(|| "none".to_owned(), whole);
    let (config, fleet, state_dir) = (name(config), name(fleet), whole(state_dir));
    tracing::info!(config, fleet, state_dir, "{role} {} starts", env!("CARGO_PKG_VERSION"));
}

fn whole(path: &Path) -> String {
    std::path::absolute(path)
        .map_or_else(|_| path.display().to_string(), |it| it.display().to_string())
}

/// That nobody gets in, where nobody can.
pub(super) fn empty_pool(table: &Table) {
    if table.counts().addresses == 0 {
        tracing::warn!(
            "the pool is empty, so every connection is refused; fix: `keyway address add NAME IP`, or an [[address]] in a \
             fleet file"
        );
    }
}

/// Says what came of a reload: of each part, its name and lines of words.
pub(super) fn reloaded(
    warnings: &[String],
    parts: &[(&str, Renewal, &[String])],
    restart: &[NeedsRestart],
) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    for (name, result, details) in parts {
        for detail in *details {
            match result {
                Renewal::Done => tracing::info!("{name}: {detail}"),
                Renewal::Failed => tracing::error!("not reloaded: {name}: {detail}"),
                Renewal::Skipped => tracing::warn!("not reloaded: {name}: {detail}"),
            }
        }
    }
    restart.iter().for_each(takes_a_restart);
    let done = parts.iter().filter(|(_, result, _)| *result == Renewal::Done);
    let done: Vec<&str> = done.map(|(name, ..)| *name).collect();
    let done = done.join(", ");
    // What was skipped was told as the failure of another part.
    let has_failed = parts.iter().any(|(_, result, _)| *result == Renewal::Failed);
    if has_failed || !restart.is_empty() {
        tracing::warn!("reloaded in part: {done}; see the lines above for the rest");
    } else {
        tracing::info!("reloaded: {done}");
    }
}

pub(super) fn takes_a_restart(key: &NeedsRestart) {
    let NeedsRestart { key, running, file } = key;
    tracing::warn!(
        "{key} takes a restart: \"{running}\" stays in force, and the file says \"{file}\""
    );
}

/// A drain, from its beginning to its end.
pub(super) struct Drain {
    counted: Arc<Registry>,
    since: Instant,
}

impl Drain {
    pub(super) fn of(counted: Arc<Registry>) -> Self {
        Self { counted, since: Instant::now() }
    }

    /// Nobody more comes, in these words.
    pub(super) fn begins(&self, words: &str) {
        let (sessions, half_open) = (self.counted.sessions(), self.counted.half_open());
        tracing::info!(sessions, half_open, "draining: {words}, sessions go on");
    }

    /// The time is over, and some are still here.
    pub(super) fn is_over(&self) {
        let (sessions, half_open) = (self.counted.sessions(), self.counted.half_open());
        tracing::warn!(sessions, half_open, "the drain is over: whoever is left is sent away");
    }

    pub(super) fn end(&self) {
        let seconds = self.since.elapsed().as_secs();
        tracing::info!(seconds, sessions = self.counted.sessions(), "drained");
    }
}
