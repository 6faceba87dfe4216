//! `keyway key`: the keys that users log in with.

use clap::Subcommand;
use serde_json::{Value, json};

use super::api_path::path;
use super::api_session::ApiSession;
use super::change::{Change, ChangeArgs};
use super::error::{CliError, Outcome};
use super::remote::Remote;
use super::table::{Column, cell};
use super::terminal::Terminal;
use super::{DONE, keyfile};
use crate::registry::Label;

#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// All keys, or those of one user
    List {
        /// Whose
        #[arg(long, value_name = "USER")]
        user: Option<Label>,
    },
    /// One key and whose it is
    Show {
        /// SHA256:..., or a file that holds the key
        key: String,
    },
    /// More keys for a user
    #[command(
        visible_alias = "create",
        after_help = "\
Examples:
  keyway key add alice second.pub
  ssh-add -L | keyway key add alice -"
    )]
    Add {
        /// Whose
        user: Label,
        /// A file of authorized_keys lines, `-` for stdin
        file: String,
        #[command(flatten)]
        edit: ChangeArgs,
    },
    /// Another comment or other options for keys that a user has; sessions that may do less now end
    #[command(after_help = "\
Examples:
  keyway key set alice alice.pub
  echo \"from=\\\"10.0.0.0/8\\\" $(cat alice.pub)\" | keyway key set alice -")]
    Set {
        /// Whose
        user: Label,
        /// A file of authorized_keys lines, `-` for stdin
        file: String,
        #[command(flatten)]
        edit: ChangeArgs,
    },
    /// Remove a key; sessions that it opened end
    #[command(
        visible_alias = "remove",
        after_help = "\
Examples:
  keyway key rm alice SHA256:Rp3F5dUjTo4JLpkpVsqBHmxPcNjZkWRbDWaEDuyBo3o
  keyway key rm alice second.pub"
    )]
    Rm {
        /// Whose
        user: Label,
        /// SHA256:..., or a file that holds the key
        key: String,
        #[command(flatten)]
        edit: ChangeArgs,
    },
}

const COLUMNS: &[Column] = &[
    ("USER", |key| cell(key, "user")),
    ("FINGERPRINT", |key| cell(key, "fingerprint")),
    ("TYPE", |key| cell(key, "type")),
    ("OPTIONS", |key| cell(key, "options")),
    ("COMMENT", |key| cell(key, "comment")),
];

const FIELDS: &[Column] = &[
    ("USER", |key| cell(key, "user")),
    ("FINGERPRINT", |key| cell(key, "fingerprint")),
    ("LINE", |key| cell(key, "line")),
];

pub(super) fn run(command: Key, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    match command {
        Key::List { user: None } => {
            remote.talk(terminal)?.list(&path(["keys"]), &[], COLUMNS, &|_| true)
        }
        Key::List { user: Some(user) } => {
            let mut talk = remote.talk(terminal)?;
            // Whether there is such a user at all is told, where an empty list would not.
            talk.get(path(["users", user.as_str()]))?;
            let its = |key: &Value| key.get("user").and_then(Value::as_str) == Some(user.as_str());
            talk.list(&path(["keys"]), &[], COLUMNS, &its)
        }
        Key::Show { key } => {
            let fingerprint = keyfile::fingerprint(&key, terminal)?.to_string();
            let mut talk = remote.talk(terminal)?;
            let it = |key: &Value| cell(key, "fingerprint") == fingerprint;
            match talk.find(&path(["keys"]), &it)? {
                Some(key) => talk.show(&key, FIELDS),
                None => Err(CliError::Refused {
                    code: "not-found".to_owned(),
                    detail: format!("no user has key {fingerprint}; `keyway key list` shows all"),
                }),
            }
        }
        Key::Add { user, file, edit } => {
            let keys = keyfile::keys(&file, terminal)?;
            let mut talk = remote.talk(terminal)?;
            for key in keys {
                add(&mut talk, &user, &key, edit)?;
            }
            Ok(DONE)
        }
        Key::Set { user, file, edit } => {
            let keys = keyfile::keys(&file, terminal)?;
            let mut talk = remote.talk(terminal)?;
            for keyfile::KeyLine { line, fingerprint } in keys {
                let shown = fingerprint.to_string();
                let its = path(["users", user.as_str(), "keys", &shown]);
                let change = Change::put(its, json!({ "line": line }));
                talk.change(change, edit, &|_| format!("key {shown} of {user} changed"))?;
            }
            Ok(DONE)
        }
        Key::Rm { user, key, edit } => {
            let fingerprint = keyfile::fingerprint(&key, terminal)?.to_string();
            let change = Change::delete(path(["users", user.as_str(), "keys", &fingerprint]));
            let line = |_: &Value| format!("key {fingerprint} of {user} removed");
            remote.talk(terminal)?.change(change, edit, &line)
        }
    }
}

/// One more key for a user.
pub(super) fn add(
    talk: &mut ApiSession<'_, '_>,
    user: &Label,
    key: &keyfile::KeyLine,
    edit: ChangeArgs,
) -> Outcome {
    let change = Change::post(path(["users", user.as_str(), "keys"]), json!({ "line": key.line }));
    talk.change(change, edit, &|_| format!("key {} added to {user}", key.fingerprint))
}
