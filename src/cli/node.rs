//! `keyway node`: the hosts that hold VMs.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::DONE;
use super::api_path::path;
use super::api_session::ApiSession;
use super::change::{Change, ChangeArgs};
use super::error::Outcome;
use super::keyfile::{seconds, time};
use super::remote::Remote;
use super::table::{Column, cell, plain};
use super::terminal::Terminal;
use super::token::{parse_seconds, show_once};
use super::vm::put;
use crate::registry::{self, Label};
use crate::unix_time::unix_s;

pub(super) const EXAMPLES: &str = "\
Examples:
  keyway node add n1 --agent 10.0.0.21:7022 --agent-key SHA256:Rp3F5dUjTo4JLpkpVsqBHmxPcNjZkWRbDWaEDuyBo3o --trusted
  keyway node list
  keyway vm list --node n1
  keyway node rm n1";

#[derive(Debug, Subcommand)]
pub(super) enum Node {
    /// All nodes
    List,
    /// One node
    Show {
        /// Which
        name: Label,
    },
    /// Control links to agents: how each is, since when, and why it was not there last
    #[command(after_help = "\
Examples:
  keyway node links
  keyway node links --output json | jq '.[] | select(.state == \"broken\") | .error'

A link opens with a session that is handed over, and closes 5 minutes after the last one.")]
    Links,
    /// The large commit that one agent has first, while the others wait for how that is with it
    #[command(after_help = "\
Examples:
  keyway node staged
  keyway node staged --output json | jq '.[].error'

A commit that touches more than 1 % of what an agent has, and 32 entries at least, goes to one agent first, and to the others when that
one has been well with it for `api.canary_s`. What is taken away meanwhile is refused everywhere at once.")]
    Staged,
    /// Let the large commit that waits go to all agents now
    #[command(after_help = "\
Examples:
  keyway node staged && keyway node release

A later change that puts right what was wrong goes to the first agent too, and with it all when that is well.")]
    Release,
    /// A new node, with the agent that takes sessions over there
    #[command(
        visible_alias = "create",
        after_help = "\
Examples:
  keyway node add n1 --agent 10.0.0.21:7022 --agent-key SHA256:Rp3F5dUjTo4JLpkpVsqBHmxPcNjZkWRbDWaEDuyBo3o --trusted
  keyway node add n1 --agent 10.0.0.21:7022 --trusted      whose agent joins: see `keyway node token`
  keyway node add n2                                       without an agent: sessions with its VMs are relayed

Trust only hosts of your own: an agent that is trusted can present itself as this front door."
    )]
    Add(Add),
    /// Other properties; what is not given stays
    #[command(after_help = "\
Examples:
  keyway node set n1 --agent 10.0.0.22:7022
  keyway node set n1 --trusted false          sessions are handed to it no more
  keyway node set n1 --agent-key ''           that agent is known no more; another one may join
  keyway node set n1 --agent ''               nor has it an agent any more")]
    Set(Set),
    /// A token that the node's agent joins with, once: stdout gets it and nothing else; a file that
    /// stdout is, is made yours alone (0600)
    #[command(after_help = "\
Examples:
  keyway node token n1
  keyway node token n1 --expires 15m > n1.token

The one before is good for nothing any more. `node show` says until when there is one.")]
    Token(Token),
    /// Remove a node on which no VM lies
    #[command(visible_alias = "remove")]
    Rm {
        /// Which
        name: Label,
        #[command(flatten)]
        edit: ChangeArgs,
    },
}

#[derive(Args, Debug)]
pub(super) struct Add {
    /// A DNS label, unique among nodes
    name: Label,
    /// Where its agent listens
    #[arg(long, value_name = "IP:PORT", value_parser = parse_agent)]
    agent: Option<String>,
    /// The agent's identity: SHA256:..., or the line that `keyway identity` prints there
    /// [default: that of the agent that joins]
    #[arg(long, value_name = "KEY", value_parser = parse_agent_key, requires = "agent")]
    agent_key: Option<String>,
    /// Sessions may be handed to it, and its agent may have digests signed with this front
    /// door's host keys
    #[arg(long)]
    trusted: bool,
    #[command(flatten)]
    edit: ChangeArgs,
}

#[derive(Args, Debug)]
pub(super) struct Set {
    /// Which
    name: Label,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    edit: ChangeArgs,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
struct Settings {
    /// Where its agent listens; '': it has none
    #[arg(long, value_name = "IP:PORT", value_parser = parse_agent_or_none)]
    agent: Option<String>,
    /// The agent's identity: SHA256:..., or the line that `keyway identity` prints there; '':
    /// nobody's, until an agent joins
    #[arg(long, value_name = "KEY", value_parser = parse_agent_key_or_none)]
    agent_key: Option<String>,
    /// Whether sessions may be handed to it
    #[arg(long, value_name = "true|false")]
    trusted: Option<bool>,
}

#[derive(Args, Debug)]
pub(super) struct Token {
    /// Whose agent joins
    name: Label,
    /// For how long: 15m, 12h, 2d [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    expires: Option<u64>,
    #[command(flatten)]
    edit: ChangeArgs,
}

fn parse_agent(text: &str) -> Result<String, String> {
    registry::agent_address(text).map(|at| at.to_string()).map_err(str::to_owned)
}

fn parse_agent_or_none(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { parse_agent(text) }
}

fn parse_agent_key(text: &str) -> Result<String, String> {
    registry::agent_key(text).map(|key| key.to_string()).map_err(str::to_owned)
}

fn parse_agent_key_or_none(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { parse_agent_key(text) }
}

const COLUMNS: &[Column] = &[
    ("NAME", |node| cell(node, "name")),
    ("AGENT", |node| cell(node, "agent")),
    ("TRUSTED", |node| cell(node, "trusted")),
    ("VMS", |node| cell(node, "vms")),
    ("AGENT KEY", |node| cell(node, "agent_key")),
];

fn joins_until(node: &Value) -> String {
    time(node.pointer("/join/expires_s").and_then(Value::as_u64))
}

/// What one node shows beside these.
const MORE: &[Column] = &[
    ("JOINS UNTIL", joins_until),
    ("ORIGIN", |node| cell(node, "origin")),
    ("REVISION", |node| cell(node, "revision")),
];

const LINKS: &[Column] = &[
    ("NODE", |link| cell(link, "node")),
    ("AGENT", |link| cell(link, "agent")),
    ("STATE", |link| cell(link, "state")),
    ("SINCE", |link| seconds(link, "since_s")),
    ("SESSIONS", |link| cell(link, "sessions")),
    ("LAST ERROR", |link| seconds(link, "error_s")),
    ("ERROR", |link| cell(link, "error")),
];

const STAGED: &[Column] = &[
    ("REVISION", |it| cell(it, "revision")),
    ("FIRST", |it| cell(it, "canary")),
    ("STATE", |it| cell(it, "state")),
    ("WAITING", |it| cell(it, "waiting")),
    ("ERROR", |it| cell(it, "error")),
];

pub(super) fn run(command: Node, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    let mut talk = remote.talk(terminal)?;
    let one = |name: &Label| path(["nodes", name.as_str()]);
    match command {
        Node::List => talk.list(&path(["nodes"]), &[], COLUMNS, &|_| true),
        Node::Links => talk.list(&path(["links"]), &[], LINKS, &|_| true),
        Node::Staged => talk.list(&path(["staged"]), &[], STAGED, &|_| true),
        Node::Release => {
            let line = |answer: &Value| {
                let warned = answer["warnings"].as_array().is_some_and(|all| !all.is_empty());
                let said = if warned { "see below" } else { "what waited goes to all agents" };
                said.to_owned()
            };
            let order = Change::act(path(["staged", "release"]));
            talk.change(order, ChangeArgs::default(), &line)
        }
        Node::Show { name } => {
            let node = talk.get(one(&name))?;
            talk.show(&node, &[COLUMNS, MORE].concat())
        }
        Node::Add(Add { name, agent, agent_key, trusted, edit }) => {
            let mut body = json!({ "name": name });
            let joins = if agent_key.is_none() {
                format!(", which has to join: `keyway node token {name}`")
            } else {
                String::new()
            };
            let at =
                agent.as_ref().map_or_else(String::new, |at| format!(" (agent at {at}{joins})"));
            let optional = [
                ("agent", agent.map(Value::from)),
                ("agent_key", agent_key.map(Value::from)),
                ("trusted", trusted.then_some(Value::Bool(true))),
            ];
            put(&mut body, optional);
            let line = |_: &Value| format!("node {name} added{at}");
            talk.change(Change::post(path(["nodes"]), body), edit, &line)
        }
        Node::Set(Set { name, settings, edit }) => {
            let mut body = Value::Object(Map::new());
            let Settings { agent, agent_key, trusted } = settings;
            let given = [
                ("agent", agent.map(Value::from)),
                ("agent_key", agent_key.map(Value::from)),
                ("trusted", trusted.map(Value::Bool)),
            ];
            put(&mut body, given);
            let change = Change::patch(one(&name), body);
            talk.change(change, edit, &|_| format!("node {name} changed"))
        }
        Node::Token(asked) => token(&asked, remote, &mut talk),
        Node::Rm { name, edit } => {
            let change = Change::delete(one(&name));
            talk.change(change, edit, &|_| format!("node {name} removed"))
        }
    }
}

fn token(asked: &Token, remote: &Remote, talk: &mut ApiSession<'_, '_>) -> Outcome {
    let Token { name, expires, edit } = asked;
    let mut body = json!({});
    let ends_s = expires.map(|seconds| unix_s().saturating_add(seconds));
    put(&mut body, [("expires_s", ends_s.map(Value::from))]);
    let change = Change::post(path(["nodes", name.as_str(), "token"]), body);
    let line = |node: &Value| {
        format!("token for the agent of node {name} made (until {})", joins_until(node))
    };
    if show_once(talk, change, *edit, "/item/join/token", &line)? {
        let Terminal { stderr, .. } = &mut *talk.terminal;
        match remote.api_url() {
            Some(at) => writeln!(
                stderr,
                "on its host, where that asks for the token:\n  \
                 keyway agent join --config /etc/keyway/agent.toml --url {}",
                plain(&at)
            )?,
            None => writeln!(
                stderr,
                "warning: agents join over TLS, and this front door does not serve its API there; see [api] listen in its keyway.toml"
            )?,
        }
    }
    Ok(DONE)
}
