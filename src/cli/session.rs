//! `keyway session`: who is inside.

use clap::Subcommand;
use serde_json::json;

use super::api_path::path;
use super::api_session::{ApiSession, tell_warnings};
use super::client::Request;
use super::error::{CliError, Outcome};
use super::keyfile::seconds;
use super::remote::Remote;
use super::table::{self, Column, cell, plain};
use super::terminal::Terminal;
use super::{DONE, Output};
use crate::registry::Label;

#[derive(Debug, Subcommand)]
pub(super) enum Session {
    /// Live sessions, those whose VM is being dialled, and visits of the lobby, or some
    #[command(after_help = "\
Examples:
  keyway session list
  keyway session list --vm blue --output json | jq -r '.[].client'")]
    List {
        /// Whose
        #[arg(long, value_name = "USER")]
        user: Option<Label>,
        /// In which VM
        #[arg(long, value_name = "NAME")]
        vm: Option<Label>,
    },
    /// One session
    Show {
        /// As the list has it
        id: String,
    },
    /// End sessions; their users are told
    #[command(visible_aliases = ["rm", "remove"], after_help = "\
Example:
  keyway session kill 3f2a91c4")]
    Kill {
        /// As the list has them
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
}

const COLUMNS: &[Column] = &[
    ("ID", |session| cell(session, "id")),
    ("STATE", |session| cell(session, "state")),
    ("USER", |session| cell(session, "user")),
    ("VM", |session| cell(session, "vm")),
    ("LOGIN", |session| cell(session, "login")),
    ("ADDRESS", |session| cell(session, "address")),
    ("CLIENT", |session| cell(session, "client")),
    ("CARRY", |session| cell(session, "carry")),
    ("SINCE", |session| seconds(session, "since_s")),
    ("UP", |session| cell(session, "up_bytes")),
    ("DOWN", |session| cell(session, "down_bytes")),
];

const FINGERPRINT: Column = ("FINGERPRINT", |session| cell(session, "fingerprint"));

pub(super) fn run(command: Session, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    let mut talk = remote.talk(terminal)?;
    match command {
        Session::List { user, vm } => {
            let query = [("user", user), ("vm", vm)];
            let query: Vec<_> = query
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?.to_string())))
                .collect();
            talk.list(&path(["sessions"]), &query, COLUMNS, &|_| true)
        }
        Session::Show { id } => {
            let found = talk.find(&path(["sessions"]), &|session| cell(session, "id") == id)?;
            let session = found.ok_or_else(|| CliError::Refused {
                code: "not-found".to_owned(),
                detail: format!("there is no session {id}; `keyway session list` shows all"),
            })?;
            talk.show(&session, &[COLUMNS, &[FINGERPRINT]].concat())
        }
        Session::Kill { ids } => {
            for id in ids {
                kill(&mut talk, &id)?;
            }
            Ok(DONE)
        }
    }
}

fn kill(talk: &mut ApiSession<'_, '_>, id: &str) -> Outcome {
    let method = hyper::Method::DELETE;
    let path = path(["sessions", id]);
    // No change of the registry: it may have nothing to say.
    let body = talk.client.ask(&Request { method, path, body: None, if_match: None })?;
    let answer = serde_json::from_slice(&body).unwrap_or_else(|_| json!({ "id": id }));
    let out = &mut talk.terminal.stdout;
    match talk.output {
        Output::Table => writeln!(out, "session {} ended", plain(id))?,
        Output::Json => writeln!(out, "{}", table::json(&answer))?,
    }
    tell_warnings(&answer, talk.terminal.stderr)?;
    Ok(DONE)
}
