//! `keyway store`: where the registry is kept, copies of it, and which history is believed.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::{
    DONE, Output,
    remote::{Edit, Remote, Terminal, path},
    table::{self, Column, cell, plain},
    talk::Change,
    trouble::{Outcome, Trouble},
};
use crate::{
    registry::store::{Head, Sqlite, Store as _, StoreId, sqlite},
    ssh::entropy::{Entropy as _, SystemEntropy},
};

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

A restored store is another history: edges refuse it until `keyway store adopt`.")]
    Restore {
        /// The backup
        path: PathBuf,
    },
    /// Believe the store that is there now, after a restore
    #[command(after_help = "\
Examples:
  keyway store adopt
  keyway store adopt --config /etc/keyway/keyway.toml")]
    Adopt,
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
                .map_err(|error| Trouble::failed(format!("{}: {error}", to.display())))?;
            let name = whole.to_str().ok_or_else(|| {
                Trouble::failed(format!("{}: the name is not UTF-8", whole.display()))
            })?;
            let change = Change::post(path(["store", "backup"]), json!({ "path": name }));
            let mut talk = remote.talk(terminal)?;
            talk.progress(&format!("copying the store to {name}..."))?;
            talk.change(change, Edit::default(), &|_| format!("the store is copied to {name}"))
        }
        Store::Restore { path } => {
            let state = remote.state()?;
            // Whoever serves holds it; the store itself would be found locked too, but not say by whom.
            let _nobody_serves =
                state.lock().map_err(|fault| Trouble::failed(fault.to_string()))?;
            let to = state.store();
            let head = sqlite::restore(&path, &to, fresh());
            let head = head.map_err(|fault| Trouble::failed(fault.to_string()))?;
            let what = format!("{} is restored from {}", to.display(), path.display());
            say(&what, head, "; next: keyway store adopt", remote, terminal)
        }
        Store::Adopt => {
            let state = remote.state()?;
            let head = head(&state.store())?;
            let adopted = state.adopt(&head.store_id.to_string());
            adopted.map_err(|fault| Trouble::failed(fault.to_string()))?;
            say("the store is adopted", head, "", remote, terminal)
        }
    }
}

/// Where a store that is there stands.
fn head(path: &Path) -> Result<Head, Trouble> {
    let failed = |what: String| Trouble::failed(what);
    if !path.exists() {
        let fix = "keyway serve makes one, keyway store restore puts a backup there";
        return Err(failed(format!("{}: there is no store; {fix}", path.display())));
    }
    let store = Sqlite::open(path, fresh()).map_err(|fault| failed(fault.to_string()))?;
    // No key begins so: only the head is read.
    store.head().map_err(|fault| failed(fault.to_string()))
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
