//! `keyway node`: the hosts that hold VMs.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::api_path::path;
use super::change::{Change, ChangeArgs};
use super::error::Outcome;
use super::remote::Remote;
use super::table::{Column, cell};
use super::terminal::Terminal;
use super::vm::put;
use crate::registry::{self, Label};

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
    /// A new node, with the agent that takes sessions over there
    #[command(
        visible_alias = "create",
        after_help = "\
Examples:
  keyway node add n1 --agent 10.0.0.21:7022 --agent-key SHA256:Rp3F5dUjTo4JLpkpVsqBHmxPcNjZkWRbDWaEDuyBo3o --trusted
  keyway node add n2                          without an agent: sessions with its VMs are relayed

Trust only hosts of your own: an agent that is trusted can present itself as this front door."
    )]
    Add(Add),
    /// Other properties; what is not given stays
    #[command(after_help = "\
Examples:
  keyway node set n1 --agent 10.0.0.22:7022
  keyway node set n1 --trusted false          sessions are handed to it no more
  keyway node set n1 --agent ''               nor has it an agent any more")]
    Set(Set),
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
    #[arg(long, value_name = "IP:PORT", value_parser = parse_agent, requires = "agent_key")]
    agent: Option<String>,
    /// The agent's identity: SHA256:..., or the line that `keyway identity` prints there
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
    /// The agent's identity: SHA256:..., or the line that `keyway identity` prints there
    #[arg(long, value_name = "KEY", value_parser = parse_agent_key)]
    agent_key: Option<String>,
    /// Whether sessions may be handed to it
    #[arg(long, value_name = "true|false")]
    trusted: Option<bool>,
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

const COLUMNS: &[Column] = &[
    ("NAME", |node| cell(node, "name")),
    ("AGENT", |node| cell(node, "agent")),
    ("TRUSTED", |node| cell(node, "trusted")),
    ("VMS", |node| cell(node, "vms")),
];

/// What one node shows beside these.
const MORE: &[Column] = &[
    ("AGENT KEY", |node| cell(node, "agent_key")),
    ("ORIGIN", |node| cell(node, "origin")),
    ("REVISION", |node| cell(node, "revision")),
];

pub(super) fn run(command: Node, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    let mut talk = remote.talk(terminal)?;
    let one = |name: &Label| path(["nodes", name.as_str()]);
    match command {
        Node::List => talk.list(&path(["nodes"]), &[], COLUMNS, &|_| true),
        Node::Show { name } => {
            let node = talk.get(one(&name))?;
            talk.show(&node, &[COLUMNS, MORE].concat())
        }
        Node::Add(Add { name, agent, agent_key, trusted, edit }) => {
            let mut body = json!({ "name": name });
            let at = agent.as_ref().map_or_else(String::new, |at| format!(" (agent at {at})"));
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
        Node::Rm { name, edit } => {
            let change = Change::delete(one(&name));
            talk.change(change, edit, &|_| format!("node {name} removed"))
        }
    }
}
