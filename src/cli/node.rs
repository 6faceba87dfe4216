//! `keyway node`: the hosts that hold VMs.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::DONE;
use super::api_path::path;
use super::api_session::ApiSession;
use super::change::{Change, ChangeArgs};
use super::error::{CliError, Outcome};
use super::identity::{self, Identity};
use super::keyfile::{self, seconds, time};
use super::node_trial::{self, Belief, Reach};
use super::remote::{Remote, secret};
use super::table::{Column, cell, cells, plain};
use super::terminal::Terminal;
use super::token::{parse_seconds, show_once};
use super::vm::put;
use crate::registry::{self, Label};
use crate::unix_time::unix_s;

pub(super) const EXAMPLES: &str = "\
Examples:
  keyway node identity                     the line for authorized_keys of a node
  keyway node add n1 --ssh root@203.0.113.9
  keyway node add n2 --agent 10.0.0.21:7022 --agent-key SHA256:Rp3F5dUjTo4JLpkpVsqBHmxPcNjZkWRbDWaEDuyBo3o --trusted
  keyway node list
  keyway node test n1
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
    /// What this front door logs in to nodes with, made at the first call: a line for their
    /// authorized_keys
    #[command(after_help = "\
Example:
  keyway node identity | ssh root@203.0.113.9 'cat >> .ssh/authorized_keys'")]
    Identity(Identity),
    /// A new node: where its Docker is, the agent that takes sessions over there, or both
    #[command(
        visible_alias = "create",
        after_help = "\
Examples:
  keyway node add n1 --agent 10.0.0.21:7022 --agent-key SHA256:Rp3F5dUjTo4JLpkpVsqBHmxPcNjZkWRbDWaEDuyBo3o --trusted
  keyway node add n1 --agent 10.0.0.21:7022 --trusted      whose agent joins: see `keyway node token`
  keyway node add n2                                       without an agent: sessions with its VMs are relayed
  keyway node add n3 --ssh root@203.0.113.9                shows its host key, and asks
  keyway node add n3 --ssh root@203.0.113.9 --host-key SHA256:Rp3F5dUjTo4JLpkpVsqBHmxPcNjZkWRbDWaEDuyBo3o
  keyway node add n4 --ssh root@127.0.0.1:2301 --accept-new --networks 127.0.0.0/8 --docker-socket /run/a.sock
  keyway node add local --docker-socket /var/run/docker.sock

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
    /// Try a node: log in, look for its Docker, and say what is in the way; exit code 1 if it is
    /// not online
    #[command(after_help = "\
Examples:
  keyway node test n1
  keyway node test n1 --accept-new --output json

A node whose host key nobody has confirmed is not logged in to before somebody has.")]
    Test {
        /// Which
        name: Label,
        #[command(flatten)]
        belief: Belief,
    },
    /// The host key that a node has to show
    #[command(arg_required_else_help = true)]
    HostKey {
        #[command(subcommand)]
        command: HostKey,
    },
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
    reach: Reach,
    #[command(flatten)]
    belief: Belief,
    /// Keep it without trying it: it is pending until `keyway node test`
    #[arg(long)]
    untested: bool,
    /// What to say of it
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_node_label)]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    edit: ChangeArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum HostKey {
    /// The key that it has to show, and another one that it showed
    Show {
        /// Which
        name: Label,
    },
    /// Give the key
    #[command(after_help = "\
Examples:
  keyway node host-key set n1 SHA256:Rp3F5dUjTo4JLpkpVsqBHmxPcNjZkWRbDWaEDuyBo3o
  keyway node host-key set n1 ssh_host_ed25519_key.pub")]
    Set {
        /// Which
        name: Label,
        /// SHA256:..., a public key line, or a file
        key: String,
        #[command(flatten)]
        edit: ChangeArgs,
    },
    /// Forget the key: the node is logged in to no more before somebody has confirmed another one
    #[command(after_help = "\
Example:
  keyway node host-key forget n1 && keyway node test n1")]
    Forget {
        /// Which
        name: Label,
        #[command(flatten)]
        edit: ChangeArgs,
    },
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
    /// Where its sshd is; '': its Docker is not reached over SSH any more
    #[arg(long, value_name = "USER@HOST[:PORT]")]
    ssh: Option<String>,
    /// The socket of its Docker there; '': the usual one
    #[arg(long, value_name = "PATH")]
    docker_socket: Option<String>,
    /// What its address has to lie in; '': anywhere that is not special
    #[arg(long, value_name = "NETWORK,NETWORK", value_delimiter = ',')]
    networks: Option<Vec<String>>,
    /// A private key to log in with; '': the front door's own node key
    #[arg(long, value_name = "FILE")]
    key: Option<String>,
    /// A file that says in its first line what opens the key
    #[arg(long, value_name = "FILE", requires = "key")]
    passphrase_file: Option<PathBuf>,
    /// What to say of it, all of it; '': nothing
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_node_label)]
    labels: Vec<(String, String)>,
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

/// One that is empty clears what there is.
#[expect(clippy::unnecessary_wraps, reason = "as arguments are read")]
fn parse_node_label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    Ok((name.to_owned(), value.to_owned()))
}

fn labels(given: Vec<(String, String)>) -> Option<Value> {
    if given.is_empty() {
        return None;
    }
    let all = given.into_iter().filter(|(name, _)| !name.is_empty());
    Some(all.map(|(name, value)| (name, Value::from(value))).collect())
}

fn host(node: &Value) -> String {
    if node.get("local").and_then(Value::as_bool) == Some(true) {
        return "local".to_owned();
    }
    let (host, user) = (cell(node, "host"), cell(node, "user"));
    match node.get("port").and_then(Value::as_u64) {
        None => host,
        Some(22) => format!("{user}@{host}"),
        Some(port) if host.contains(':') => format!("{user}@[{host}]:{port}"),
        Some(port) => format!("{user}@{host}:{port}"),
    }
}

const COLUMNS: &[Column] = &[
    ("NAME", |node| cell(node, "name")),
    ("HOST", host),
    ("STATE", |node| cell(node, "state")),
    ("DOCKER", |node| cell(node, "docker_version")),
    ("ARCH", |node| cell(node, "architecture")),
    ("LAST SEEN", |node| seconds(node, "last_seen")),
    ("AGENT", |node| cell(node, "agent")),
    ("TRUSTED", |node| cell(node, "trusted")),
    ("VMS", |node| cell(node, "vms")),
    ("AGENT KEY", |node| cell(node, "agent_key")),
    ("REASON", |node| cell(node, "reason")),
];

const HOST_KEY: &[Column] = &[
    ("NODE", |node| cell(node, "name")),
    ("HOST KEY", |node| cell(node, "host_key")),
    ("SHOWN", |node| cell(node, "shown")),
];

fn joins_until(node: &Value) -> String {
    time(node.pointer("/join/expires_s").and_then(Value::as_u64))
}

/// What one node shows beside these.
const MORE: &[Column] = &[
    ("SINCE", |node| seconds(node, "since_s")),
    ("HOST KEY", |node| cell(node, "host_key")),
    ("SHOWN", |node| cell(node, "shown")),
    ("LOGGED IN WITH", |node| cell(node, "key")),
    ("NETWORKS", |node| cells(node, "networks")),
    ("DOCKER SOCKET", |node| cell(node, "docker_socket")),
    ("VIA", |node| cell(node, "via")),
    ("LABELS", shown_labels),
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

fn shown_labels(node: &Value) -> String {
    let all = node.get("labels").and_then(Value::as_object);
    let pairs = all
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()));
    plain(&pairs.collect::<Vec<_>>().join(" "))
}

pub(super) fn run(command: Node, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    if let Node::Identity(asked) = &command {
        return identity::of_nodes(asked, remote, terminal);
    }
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
        Node::Identity(_) => Ok(DONE),
        Node::Add(asked) => add(asked, &mut talk),
        Node::Set(Set { name, settings, edit }) => {
            let change = Change::patch(one(&name), changed(settings)?);
            talk.change(change, edit, &|_| format!("node {name} changed"))
        }
        Node::Test { name, belief } => node_trial::test(&name, &belief, &mut talk),
        Node::HostKey { command } => host_key(command, &mut talk),
        Node::Token(asked) => token(&asked, remote, &mut talk),
        Node::Rm { name, edit } => {
            let change = Change::delete(one(&name));
            talk.change(change, edit, &|_| format!("node {name} removed"))
        }
    }
}

fn add(asked: Add, talk: &mut ApiSession<'_, '_>) -> Outcome {
    let Add { name, agent, agent_key, trusted, reach, belief, untested, edit, .. } = asked;
    let joins = if agent_key.is_none() {
        format!(", which has to join: `keyway node token {name}`")
    } else {
        String::new()
    };
    let agent_at = agent.as_ref().map_or_else(String::new, |at| format!(" (agent at {at}{joins})"));
    let mut body = reach.body(&name)?;
    if reach.is_elsewhere() && !untested && !edit.dry_run {
        belief.complete(&name, &mut body, talk)?;
    }
    let optional = [
        ("name", Some(Value::from(name.as_str()))),
        ("agent", agent.map(Value::from)),
        ("agent_key", agent_key.map(Value::from)),
        ("trusted", trusted.then_some(Value::Bool(true))),
        ("untested", untested.then_some(Value::Bool(true))),
        ("labels", labels(asked.labels)),
    ];
    put(&mut body, optional);
    if reach.is_given() && !untested {
        talk.progress(&format!("logging in to node {name}..."))?;
    }
    let line = |node: &Value| {
        let docker = match node.get("docker_version").and_then(Value::as_str) {
            Some(version) => format!(": Docker {}", plain(version)),
            None => String::new(),
        };
        format!("node {name}{} added{docker}{agent_at}", reach.shown())
    };
    talk.change(Change::post(path(["nodes"]), body), edit, &line)
}

/// The body for other properties.
fn changed(settings: Settings) -> Result<Value, CliError> {
    let Settings { agent, agent_key, trusted, ssh, docker_socket, networks, key, .. } = settings;
    let key = match key {
        Some(none) if none.is_empty() => Some(none.into()),
        Some(file) => Some(secret(file.as_ref())?),
        None => None,
    };
    let passphrase = settings.passphrase_file.as_deref().map(secret).transpose()?;
    let first = passphrase.as_ref().map(|text| text.lines().next().unwrap_or_default());
    let networks = networks.map(|all| all.into_iter().filter(|it| !it.is_empty()).collect());
    let mut body = Value::Object(Map::new());
    let given = [
        ("agent", agent.map(Value::from)),
        ("agent_key", agent_key.map(Value::from)),
        ("trusted", trusted.map(Value::Bool)),
        ("ssh", ssh.map(Value::from)),
        ("docker_socket", docker_socket.map(Value::from)),
        ("networks", networks.map(|all: Vec<String>| Value::from(all))),
        ("private_key", key.as_ref().map(|text| Value::from(text.as_str()))),
        ("passphrase", first.map(Value::from)),
        ("labels", labels(settings.labels)),
    ];
    put(&mut body, given);
    Ok(body)
}

fn host_key(command: HostKey, talk: &mut ApiSession<'_, '_>) -> Outcome {
    let of = |name: &Label| path(["nodes", name.as_str()]);
    match command {
        HostKey::Show { name } => {
            let node = talk.get(of(&name))?;
            let key = |field: &str| node.get(field).cloned().unwrap_or_default();
            let shown = json!({ "name": name, "host_key": key("host_key"), "shown": key("shown") });
            talk.show(&shown, HOST_KEY)
        }
        HostKey::Set { name, key, edit } => {
            let body = json!({ "host_key": keyfile::host_key(&key)? });
            let line = |_: &Value| format!("node {name} must show the host key given");
            talk.change(Change::patch(of(&name), body), edit, &line)
        }
        HostKey::Forget { name, edit } => {
            let line = |_: &Value| {
                format!(
                    "the host key of node {name} is forgotten: `keyway node test {name}` confirms another"
                )
            };
            talk.change(Change::patch(of(&name), json!({ "host_key": "" })), edit, &line)
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
