//! `keyway edge`: the front doors that agents take sessions from, by their identities.

use clap::Subcommand;
use serde_json::{Value, json};

use super::api_path::path;
use super::change::{Change, ChangeArgs};
use super::error::Outcome;
use super::keyfile::{self, seconds};
use super::remote::Remote;
use super::table::{Column, cell};
use super::terminal::Terminal;
use crate::registry::Label;

pub(super) const EXAMPLES: &str = "\
Examples:
  keyway edge list
  ssh edge2 keyway identity | keyway edge add edge2 --identity -
  keyway edge rm edge2";

#[derive(Debug, Subcommand)]
pub(super) enum Edge {
    /// All edges, with those that were removed
    #[command(after_help = LIST_HELP)]
    List,
    /// One edge; if none of that name is admitted, the one that was removed last
    Show {
        /// Which
        name: Label,
    },
    /// Have agents take sessions from an edge, one that was removed too
    #[command(
        visible_alias = "create",
        after_help = "\
Examples:
  keyway edge add edge2 --identity 'ssh-ed25519 AAAA...'       the line that `keyway identity` prints on edge2
  keyway edge add edge2 --identity edge2.pub
  ssh edge2 keyway identity | keyway edge add edge2 --identity -

An edge whose state_dir was lost has another identity: add that one, and remove the one before."
    )]
    Add {
        /// A DNS label, unique among edges that are admitted
        name: Label,
        /// Its identity: a public key line, a file that holds it, or `-` for stdin
        #[arg(long, value_name = "KEY")]
        identity: String,
        #[command(flatten)]
        edit: ChangeArgs,
    },
    /// Have agents take no more sessions from an edge: those that it handed over end, within a
    /// second at agents that follow this registry, and it signs no more
    #[command(
        visible_alias = "remove",
        after_help = "\
Examples:
  keyway edge rm edge2 --dry-run
  keyway edge rm edge2

An agent with `edges` in agent.toml has that list changed by hand, and a SIGHUP; one that is cut off hears of it when it comes
back, and believes until then what it heard last (keyway_feed_age_seconds at its metrics).

A removed identity is remembered and never registers itself again: `keyway edge add` of the same key brings it back."
    )]
    Rm {
        /// Which
        name: Label,
        #[command(flatten)]
        edit: ChangeArgs,
    },
}

const LIST_HELP: &str = "\
A front door that serves this registry registers its own identity at its start, unless that was removed. `keyway status`
says at each whether its own is admitted.

An agent that logs `is none of agent's edges`, or an edge `it does not know this edge's key`: compare the fingerprint with
this list. An identity that is not here: `keyway edge add NAME --identity LINE`, where LINE is what `keyway identity`
prints on that edge. One that is removed here, and should not be: the same. One that is admitted here: the agent does not
follow this registry (keyway_feed_connected at its metrics), or has a list of its own (`edges` in agent.toml).";

const COLUMNS: &[Column] = &[
    ("NAME", |edge| cell(edge, "name")),
    ("STATE", |edge| cell(edge, "state")),
    ("FINGERPRINT", |edge| cell(edge, "fingerprint")),
    ("SINCE", |edge| seconds(edge, "since_s")),
    ("BY", |edge| cell(edge, "by")),
];

/// What one edge shows beside these.
const MORE: &[Column] = &[
    ("IDENTITY", |edge| cell(edge, "identity")),
    ("ORIGIN", |edge| cell(edge, "origin")),
    ("REVISION", |edge| cell(edge, "revision")),
];

pub(super) fn run(command: Edge, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    let one = |name: &Label| path(["edges", name.as_str()]);
    match command {
        Edge::List => remote.talk(terminal)?.list(&path(["edges"]), &[], COLUMNS, &|_| true),
        Edge::Show { name } => {
            let mut talk = remote.talk(terminal)?;
            let edge = talk.get(one(&name))?;
            talk.show(&edge, &[COLUMNS, MORE].concat())
        }
        Edge::Add { name, identity, edit } => {
            let identity = keyfile::edge_identity(&identity, terminal)?;
            let fingerprint = identity.fingerprint();
            let body = json!({ "name": name, "identity": identity.to_line() });
            let line = |_: &Value| format!("edge {name} added ({fingerprint})");
            remote.talk(terminal)?.change(Change::post(path(["edges"]), body), edit, &line)
        }
        Edge::Rm { name, edit } => {
            let line = |_: &Value| format!("edge {name} removed; its sessions at agents end");
            remote.talk(terminal)?.change(Change::delete(one(&name)), edit, &line)
        }
    }
}
