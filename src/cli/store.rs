//! `keyway store`: where the registry is kept, copies of it, and which history is believed.

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::api_path::path;
use super::change::{Change, ChangeArgs};
use super::error::{CliError, Outcome};
use super::remote::Remote;
use super::table::{self, Column, cell, plain};
use super::terminal::Terminal;
use super::{DONE, Output};
use crate::registry::refusal::utc;
use crate::registry::store::sqlite::Restored;
use crate::registry::store::{Head, Sqlite, Store as _, StoreId, sqlite};
use crate::ssh::entropy::{Entropy as _, SystemEntropy};
use crate::state::routes::differs;
use crate::state::{self, Adopted, State, StoreUse};
use crate::unix_time::unix_s;

#[derive(Debug, Subcommand)]
pub(super) enum Store {
    /// Which store the server has, and its revision
    Show,
    /// Have the server write a copy to a new file (mode 0600), while everything goes on
    #[command(after_help = "\
Example:
  keyway store backup /var/backups/keyway/2026-07-28.db")]
    Backup {
        /// The new file, on the server's host
        path: PathBuf,
    },
    /// Put a backup in the store's place, with keyway stopped; what was there is kept beside it
    #[command(after_help = "\
Examples:
  keyway store restore /var/backups/keyway/2026-07-28.db
  keyway store restore --config /etc/keyway/keyway.toml /var/backups/keyway/2026-07-28.db

What was there is kept beside it, with the time in its name. A restored store is another history: it is served once
`keyway store adopt` says that it is to be believed. Where it is not known which slots led to other VMs meanwhile (the
store was damaged, or is new on this host), new slots are refused until registry.quarantine_s is over.")]
    Restore {
        /// The backup
        path: PathBuf,
    },
    /// Believe the store that is there now, after a restore
    #[command(after_help = "\
Examples:
  keyway store adopt
  keyway store adopt --config /etc/keyway/keyway.toml
  keyway store adopt --nothing-lost            nobody has changed anything since the backup: no slot has to wait

It holds for the store exactly as it is now, once. A store that goes on where the routes ended is no such store.")]
    Adopt {
        /// Nothing was changed after the backup was taken: slots are given to VMs at once
        #[arg(long)]
        nothing_lost: bool,
    },
}

const FIELDS: &[Column] =
    &[("STORE ID", |store| cell(store, "store_id")), ("REVISION", |store| cell(store, "revision"))];

pub(super) fn run(command: Store, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    match command {
        Store::Show => {
            let mut talk = remote.talk(terminal)?;
            let store = talk.get(path(["store"]))?;
            talk.show(&store, FIELDS)
        }
        Store::Backup { path: to } => {
            // The server's working directory is not ours.
            let whole = std::path::absolute(&to)
                .map_err(|error| CliError::failed(format!("{}: {error}", to.display())))?;
            let name = whole.to_str().ok_or_else(|| {
                CliError::failed(format!("{}: the name is not UTF-8", whole.display()))
            })?;
            let change = Change::post(path(["store", "backup"]), json!({ "path": name }));
            let mut talk = remote.talk(terminal)?;
            talk.progress(&format!("copying the store to {name}..."))?;
            talk.change(change, ChangeArgs::default(), &|_| {
                format!("the store is copied to {name}")
            })
        }
        Store::Restore { path } => {
            let state = remote.state()?;
            // Whoever serves holds it; the store itself would be found locked too, but
            // not say by whom.
            let _nobody_serves = state.lock().map_err(failed)?;
            let nobody_drains = state.have_store().map_err(failed)?;
            let Restored { head, replaced } = put_back(&state, &nobody_drains, &path, &path)?;
            let shown = state.store();
            let mut what = format!("{} is restored from {}", shown.display(), path.display());
            if let Some(replaced) = replaced {
                let _ = write!(what, "; the store before it is kept as {}", replaced.display());
            }
            say(&what, head, next(&state, head), remote, terminal)
        }
        Store::Adopt { nothing_lost } => {
            let state = remote.kept_state()?;
            let head = head(&state.store())?;
            if !is_to_be_adopted(&state, head)? {
                let shown = state.store();
                return Err(CliError::failed(format!(
                    "{} goes on where this front door's routes ended: there is nothing to adopt; keyway serve takes it as \
                     it is",
                    shown.display()
                )));
            }
            let Head { store_id, revision } = head;
            let (store_id, revision) = (store_id.to_string(), revision.0);
            let adopted = Adopted { store_id, revision, nothing_lost, uid: uid()? };
            state.adopt(&adopted).map_err(failed)?;
            say("the store is adopted", head, "; next: keyway serve", remote, terminal)
        }
    }
}

fn failed(fault: impl std::fmt::Display) -> CliError {
    CliError::failed(fault.to_string())
}

/// Puts the backup `from`, which the operator calls `named`, in the place of the store. Nobody may
/// serve, nor drain.
pub(super) fn put_back(
    state: &State,
    _nobody_drains: &StoreUse,
    from: &Path,
    named: &Path,
) -> Result<Restored, CliError> {
    let (id, at_s) = (fresh(), unix_s());
    // Before it takes place: no store that was restored is taken for one that was always there.
    let (store_id, from_where) = (id.to_string(), named.display().to_string());
    let note = state::Restored { store_id, at_s, from: from_where, uid: uid()? };
    state.note_restored(note).map_err(failed)?;
    let stamp = utc(at_s).replace(['-', ':'], "");
    sqlite::restore(from, &state.store(), id, &stamp).map_err(failed)
}

/// What comes after a restore.
pub(super) fn next(state: &State, head: Head) -> &'static str {
    let other = state.routes().last().is_some_and(|last| differs(last, head));
    if other { "; next: keyway store adopt, then keyway serve" } else { "; next: keyway serve" }
}

/// Whether serving begins with an adoption.
fn is_to_be_adopted(state: &State, head: Head) -> Result<bool, CliError> {
    let other = state.routes().last().is_some_and(|last| differs(last, head));
    let restored = state.restored().map_err(failed)?;
    let restored = restored.iter().any(|it| it.store_id == head.store_id.to_string());
    Ok(other || restored || state.routes_before_adoption().last().is_some())
}

/// Who this is, for the audit log.
fn uid() -> Result<u32, CliError> {
    let myself = std::fs::metadata("/proc/self");
    myself.map(|about| about.uid()).map_err(|error| failed(format!("/proc/self: {error}")))
}

/// Where a store that is there stands. A process may use it.
fn head(path: &Path) -> Result<Head, CliError> {
    if !path.exists() {
        let fix = "keyway serve makes one, keyway store restore puts a backup there";
        return Err(failed(format!("{}: there is no store; {fix}", path.display())));
    }
    Sqlite::open_kept(path).and_then(|store| store.head()).map_err(failed)
}

fn fresh() -> StoreId {
    let mut id = [0; 16];
    SystemEntropy::default().fill(&mut id);
    StoreId(id)
}

fn say(
    what: &str,
    head: Head,
    next: &str,
    remote: &Remote,
    terminal: &mut Terminal<'_>,
) -> Outcome {
    let Head { store_id, revision } = head;
    match remote.output {
        Output::Table => writeln!(
            terminal.stdout,
            "{} (store {store_id}, revision {revision}){next}",
            plain(what)
        )?,
        Output::Json => {
            let item = json!({ "store_id": store_id.to_string(), "revision": revision.0 });
            writeln!(terminal.stdout, "{}", table::json(&item))?;
        }
    }
    Ok(DONE)
}
