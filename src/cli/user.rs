//! `keyway user`: people and programs that log in.

use clap::Subcommand;
use serde_json::{Value, json};

use super::api_path::path;
use super::api_session::named;
use super::change::{Change, ChangeArgs};
use super::error::Outcome;
use super::keyfile;
use super::remote::Remote;
use super::table::{Column, cell, cells};
use super::terminal::Terminal;
use crate::registry::Label;

#[derive(Debug, Subcommand)]
pub(super) enum User {
    /// All users
    List,
    /// One user with keys and teams
    Show {
        /// Who
        name: Label,
    },
    /// A new user
    #[command(
        visible_alias = "create",
        after_help = "\
Examples:
  keyway user add alice --key alice.pub
  keyway user add carol --key laptop.pub --key backup.pub
  ssh-add -L | keyway user add bob --key -"
    )]
    Add {
        /// A DNS label
        name: Label,
        /// A file of authorized_keys lines, `-` for stdin (may be repeated)
        #[arg(long = "key", value_name = "FILE")]
        keys: Vec<String>,
        #[command(flatten)]
        edit: ChangeArgs,
    },
    /// Remove a user, out of all teams and shares; live sessions end
    #[command(visible_alias = "remove")]
    Rm {
        /// Who
        name: Label,
        #[command(flatten)]
        edit: ChangeArgs,
    },
}

const COLUMNS: &[Column] = &[
    ("NAME", named),
    ("KEYS", |user| count(user, "keys")),
    ("TEAMS", |user| cells(user, "teams")),
    ("VMS", |user| cell(user, "vms")),
];

const FIELDS: &[Column] = &[
    ("NAME", named),
    ("TEAMS", |user| cells(user, "teams")),
    ("VMS", |user| cell(user, "vms")),
    ("ORIGIN", |user| cell(user, "origin")),
    ("REVISION", |user| cell(user, "revision")),
    ("KEYS", |user| {
        let keys = user.get("keys").and_then(Value::as_array);
        let each = keys.into_iter().flatten().map(|key| {
            let shown = ["fingerprint", "type", "options", "comment"].map(|part| cell(key, part));
            shown.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
        });
        each.collect::<Vec<_>>().join(", ")
    }),
];

/// How many there are under `key`.
pub(super) fn count(item: &Value, key: &str) -> String {
    item.get(key).and_then(Value::as_array).map_or(0, Vec::len).to_string()
}

pub(super) fn run(command: User, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    match command {
        User::List => remote.talk(terminal)?.list(&path(["users"]), &[], COLUMNS, &|_| true),
        User::Show { name } => {
            let mut talk = remote.talk(terminal)?;
            let user = talk.get(path(["users", name.as_str()]))?;
            talk.show(&user, FIELDS)
        }
        User::Add { name, keys, edit } => {
            let mut lines = Vec::new();
            for file in &keys {
                let keys = keyfile::keys(file, terminal)?;
                lines.extend(keys.into_iter().map(|key| key.line));
            }
            let body = json!({ "name": name, "keys": lines });
            let count = crate::plural::count(lines.len(), "key");
            let line = move |_: &Value| format!("user {name} added with {count}");
            remote.talk(terminal)?.change(Change::post(path(["users"]), body), edit, &line)
        }
        User::Rm { name, edit } => {
            let change = Change::delete(path(["users", name.as_str()]));
            remote.talk(terminal)?.change(change, edit, &|_| format!("user {name} removed"))
        }
    }
}
