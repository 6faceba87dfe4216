//! `keyway vm`: the machines, whose they are and who else may enter.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::api_path::path;
use super::api_session::{ApiSession, each};
use super::change::{Change, ChangeArgs};
use super::error::{CliError, Outcome};
use super::keyfile::{self, time};
use super::remote::Remote;
use super::table::{Column, cell, cells};
use super::team::{access, grants};
use super::terminal::Terminal;
use crate::registry::refusal::utc;
use crate::registry::{self, Label, Principal, is_login};
use crate::route::{Carry, SourceAddress};

#[derive(Debug, Subcommand)]
pub(super) enum Vm {
    /// All VMs, or some
    #[command(after_help = "\
Examples:
  keyway vm list --output json | jq -r '.[].name'
  keyway vm list --visible-to bob --output json
  keyway vm list --owner team:ops --address s003")]
    List {
        /// Whose
        #[arg(long, value_name = "WHO")]
        owner: Option<Principal>,
        /// Where
        #[arg(long, value_name = "NAME")]
        address: Option<Label>,
        /// On which node
        #[arg(long, value_name = "NAME")]
        node: Option<Label>,
        /// Who may enter: a user, team:NAME
        #[arg(long, value_name = "WHO")]
        visible_to: Option<Principal>,
    },
    /// One VM with all that is known of it
    Show {
        /// Which
        name: Label,
    },
    /// A new VM, at the least loaded address where nobody who may enter sees another one
    #[command(
        visible_alias = "create",
        after_help = "\
Examples:
  keyway vm add blue --owner alice --ssh 127.0.0.1:2201 --login root
  keyway vm add shared --owner team:ops --ssh 127.0.0.1:2202
  keyway vm add red --owner bob --ssh 10.1.0.9:22 --address s003 --host-key /srv/red/ssh_host_ed25519_key.pub
  keyway vm add green --owner alice --ssh 10.1.0.11:22 --node n1
  keyway vm add builder --owner ci --ssh 10.1.0.10:22 --no-address    entered as login+builder@ only"
    )]
    Add(Add),
    /// Remove a VM; its sessions end
    #[command(visible_alias = "remove")]
    Rm {
        /// Which
        name: Label,
        #[command(flatten)]
        edit: ChangeArgs,
    },
    /// Let somebody else in too
    #[command(after_help = "\
Examples:
  keyway vm share blue --with bob
  keyway vm share blue --with team:ops --renumber --dry-run
  keyway vm share blue --with team:support --by-name           as login+blue@ only: takes no address")]
    Share {
        /// Which
        name: Label,
        /// A user, team:NAME
        #[arg(long, value_name = "WHO")]
        with: Principal,
        /// It is entered as login+vm@ only, which takes no address
        #[arg(long)]
        by_name: bool,
        #[command(flatten)]
        edit: ChangeArgs,
    },
    /// Let somebody in no more; sessions that the share gave end
    #[command(after_help = "\
Example:
  keyway vm unshare blue --with bob")]
    Unshare {
        /// Which
        name: Label,
        /// A user, team:NAME
        #[arg(long, value_name = "WHO")]
        with: Principal,
        #[command(flatten)]
        edit: ChangeArgs,
    },
    /// Another name; whoever is inside stays there
    #[command(after_help = "\
Example:
  keyway vm rename blue navy")]
    Rename {
        /// Which
        name: Label,
        /// The new name
        to: Label,
        #[command(flatten)]
        edit: ChangeArgs,
    },
    /// Another owner
    #[command(after_help = "\
Example:
  keyway vm transfer blue --to team:ops
  keyway vm transfer blue --to bob --keep slot    whose it was goes on entering it

A host key that was seen first is forgotten if a VM of somebody else has the same, such as a clone that stays behind.")]
    Transfer {
        /// Which
        name: Label,
        /// A user, team:NAME
        #[arg(long, value_name = "WHO")]
        to: Principal,
        /// How the owner before goes on entering it; without this, not
        #[arg(long, value_name = "HOW", value_parser = ["slot", "by-name"])]
        keep: Option<String>,
        #[command(flatten)]
        edit: ChangeArgs,
    },
    /// Other properties; what is not given stays
    #[command(after_help = "\
Examples:
  keyway vm set blue --ssh 10.1.0.6:22
  keyway vm set blue --state maint
  keyway vm set blue --login ''           whoever logs in says as whom
  keyway vm set blue --node n1 --carry handoff
  keyway vm set blue --source-address 10.0.2.2     behind a port forward, which the VM sees")]
    Set(Set),
    /// Another address; the old one leads there for a while
    #[command(after_help = "\
Examples:
  keyway vm renumber blue
  keyway vm renumber blue --address s004")]
    Renumber {
        /// Which
        name: Label,
        /// Where [default: the least loaded one]
        #[arg(long, value_name = "NAME")]
        address: Option<Label>,
        #[command(flatten)]
        edit: ChangeArgs,
    },
    /// The host key that a VM must show
    #[command(arg_required_else_help = true)]
    HostKey {
        #[command(subcommand)]
        command: HostKey,
    },
}

#[derive(Args, Debug)]
pub(super) struct Add {
    /// A DNS label, unique among VMs and addresses
    name: Label,
    /// A user, team:NAME
    #[arg(long, value_name = "WHO")]
    owner: Principal,
    /// Where its sshd listens
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_endpoint)]
    ssh: String,
    /// The account in the VM, whatever name is asked for
    #[arg(long, value_name = "NAME", value_parser = parse_login)]
    login: Option<String>,
    /// Its host key: SHA256:..., a public key line, or a file [default: the first one it shows]
    #[arg(long, value_name = "KEY")]
    host_key: Option<String>,
    /// From where this server comes, as the VM sees it: own, none, or NETWORK,NETWORK [default:
    /// vm_leg.source_address]
    #[arg(long, value_name = "WHERE", value_parser = parse_source)]
    source_address: Option<String>,
    /// The pool address [default: the least loaded one]
    #[arg(long, value_name = "NAME", conflicts_with = "no_address")]
    address: Option<Label>,
    /// No pool address: it is entered as login+vm@
    #[arg(long)]
    no_address: bool,
    /// The node that it lies on
    #[arg(long, value_name = "NAME")]
    node: Option<Label>,
    /// How its sessions are carried: auto (handed off where the node has an agent and is
    /// trusted), relay, handoff
    #[arg(long, value_name = "HOW", value_parser = carries(), hide_possible_values = true)]
    carry: Option<String>,
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
    /// Where its sshd listens
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_endpoint)]
    ssh: Option<String>,
    /// The account in the VM; '': the name that was asked for
    #[arg(long, value_name = "NAME", value_parser = parse_login_or_none)]
    login: Option<String>,
    /// Its host key: SHA256:..., a public key line, or a file; '': the first one it shows
    #[arg(long, value_name = "KEY")]
    host_key: Option<String>,
    /// From where this server comes, as the VM sees it: own, none, or NETWORK,NETWORK; '':
    /// vm_leg.source_address
    #[arg(long, value_name = "WHERE", value_parser = parse_source_or_none)]
    source_address: Option<String>,
    /// Whether it can be entered
    #[arg(long)]
    state: Option<State>,
    /// The node that it lies on; '': none
    #[arg(long, value_name = "NAME", value_parser = parse_name_or_none)]
    node: Option<String>,
    /// How its sessions are carried: auto (handed off where the node has an agent and is
    /// trusted), relay, handoff
    #[arg(long, value_name = "HOW", value_parser = carries(), hide_possible_values = true)]
    carry: Option<String>,
}

/// Whether a VM can be entered.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    Ready,
    Maint,
}

#[derive(Debug, Subcommand)]
pub(super) enum HostKey {
    /// The key that was given, or the one that was seen first
    Show {
        /// Which
        vm: Label,
    },
    /// Give the key
    #[command(after_help = "\
Examples:
  keyway vm host-key set blue SHA256:Rp3F5dUjTo4JLpkpVsqBHmxPcNjZkWRbDWaEDuyBo3o
  keyway vm host-key set blue /srv/blue/ssh_host_ed25519_key.pub")]
    Set {
        /// Which
        vm: Label,
        /// SHA256:..., a public key line, or a file
        key: String,
        #[command(flatten)]
        edit: ChangeArgs,
    },
    /// Forget the key that was seen first: the next one shown is taken
    #[command(after_help = "\
Example:
  keyway vm host-key forget blue")]
    Forget {
        /// Which
        vm: Label,
        #[command(flatten)]
        edit: ChangeArgs,
    },
}

fn parse_endpoint(text: &str) -> Result<String, String> {
    registry::endpoint(text).map(|_| text.to_owned()).map_err(str::to_owned)
}

fn parse_login(text: &str) -> Result<String, String> {
    if is_login(text) { Ok(text.to_owned()) } else { Err("that is no login name".to_owned()) }
}

fn parse_login_or_none(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { parse_login(text) }
}

fn parse_name_or_none(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    text.parse::<Label>().map(|name| name.to_string()).map_err(|fault| fault.to_string())
}

fn carries() -> [&'static str; 3] {
    Carry::ALL.map(Carry::word)
}

fn parse_source(text: &str) -> Result<String, String> {
    let source = text.parse::<SourceAddress>().map_err(|fault| fault.to_string())?;
    Ok(source.to_string())
}

fn parse_source_or_none(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { parse_source(text) }
}

const COLUMNS: &[Column] = &[
    ("NAME", |vm| cell(vm, "name")),
    ("OWNER", |vm| cell(vm, "owner")),
    ("ADDRESS", |vm| cell(vm, "address")),
    ("PUBLIC", |vm| cell(vm, "public")),
    ("HOST", |vm| cell(vm, "host")),
    ("STATE", |vm| cell(vm, "state")),
    ("SSH", |vm| cell(vm, "ssh")),
    ("LOGIN", |vm| cell(vm, "login")),
    ("SHARES", |vm| grants(vm, "shares", "principal")),
];

const FIELDS: &[Column] = &[
    ("NAME", |vm| cell(vm, "name")),
    ("ID", |vm| cell(vm, "id")),
    ("OWNER", |vm| cell(vm, "owner")),
    ("SHARES", |vm| grants(vm, "shares", "principal")),
    ("ADDRESS", |vm| cell(vm, "address")),
    ("PUBLIC", |vm| cell(vm, "public")),
    ("PUBLIC6", |vm| cell(vm, "public6")),
    ("OLD ADDRESSES", |vm| {
        let old = each(vm, "old_addresses").map(|old| {
            let until = old.get("until_s").and_then(Value::as_u64).map(utc).unwrap_or_default();
            format!("{} for {} until {until}", cell(old, "address"), cells(old, "principals"))
        });
        old.collect::<Vec<_>>().join(", ")
    }),
    ("STATE", |vm| cell(vm, "state")),
    ("SSH", |vm| cell(vm, "ssh")),
    ("LOGIN", |vm| cell(vm, "login")),
    ("HOST KEY", |vm| cell(vm, "host_key")),
    ("SOURCE ADDRESS", |vm| cell(vm, "source_address")),
    ("NODE", |vm| cell(vm, "node")),
    ("CARRY", |vm| cell(vm, "carry")),
    ("CARRIED", |vm| cell(vm, "carried")),
    ("PINNED KEY", |vm| cell(vm.get("pinned").unwrap_or(&Value::Null), "fingerprint")),
    ("PINNED", |vm| time(vm.get("pinned").and_then(|pinned| pinned.get("at_s")?.as_u64()))),
    ("ORIGIN", |vm| cell(vm, "origin")),
    ("REVISION", |vm| cell(vm, "revision")),
];

const HOST_KEY_FIELDS: &[Column] = &[
    ("VM", |it| cell(it, "vm")),
    ("GIVEN", |it| cell(it, "given")),
    ("SEEN FIRST", |it| {
        let pinned = it.get("pinned").unwrap_or(&Value::Null);
        cell(pinned, "fingerprint")
    }),
    ("AT", |it| time(it.get("pinned").and_then(|pinned| pinned.get("at_s")?.as_u64()))),
];

/// Where a VM is, for the line about a change.
fn at(vm: &Value) -> String {
    let [address, public, name] = ["address", "public", "name"].map(|key| cell(vm, key));
    if address.is_empty() {
        return format!("without an address; ssh LOGIN+{name}@ any address");
    }
    let host = cell(vm, "host");
    let ssh = if host.is_empty() { String::new() } else { format!("; ssh {host}") };
    format!("at {address} ({public}){ssh}")
}

pub(super) fn run(command: Vm, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    let mut talk = remote.talk(terminal)?;
    let vm = |name: &Label| path(["vms", name.as_str()]);
    let about = |name: &Label, what: &str| path(["vms", name.as_str(), what]);
    match command {
        Vm::List { owner, address, node, visible_to } => {
            let query = [
                ("owner", owner.map(|owner| owner.to_string())),
                ("address", address.map(|address| address.to_string())),
                ("node", node.map(|node| node.to_string())),
                ("visible_to", visible_to.map(|principal| principal.to_string())),
            ];
            let query: Vec<_> =
                query.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            talk.list(&path(["vms"]), &query, COLUMNS, &|_| true)
        }
        Vm::Show { name } => {
            let vm = talk.get(vm(&name))?;
            talk.show(&vm, FIELDS)
        }
        Vm::Add(add) => {
            let edit = add.edit;
            let line = |vm: &Value| format!("vm {} added {}", cell(vm, "name"), at(vm));
            talk.change(Change::post(path(["vms"]), added(add)?), edit, &line)
        }
        Vm::Rm { name, edit } => {
            talk.change(Change::delete(vm(&name)), edit, &|_| format!("vm {name} removed"))
        }
        Vm::Share { name, with, by_name, edit } => {
            let path = path(["vms", name.as_str(), "shares", &with.to_string()]);
            let change = Change::put(path, json!({ "access": access(by_name) }));
            let how = if by_name { ", by name" } else { "" };
            talk.change(change, edit, &|vm| {
                format!("vm {name} shared with {with}{how}, {}", at(vm))
            })
        }
        Vm::Unshare { name, with, edit } => {
            let change = Change::delete(path(["vms", name.as_str(), "shares", &with.to_string()]));
            talk.change(change, edit, &|_| format!("vm {name} shared with {with} no more"))
        }
        Vm::Rename { name, to, edit } => {
            let change = Change::post(about(&name, "rename"), json!({ "to": to }));
            talk.change(change, edit, &|vm| format!("vm {name} is now {to}, {}", at(vm)))
        }
        Vm::Transfer { name, to, keep, edit } => {
            let mut body = json!({ "to": to });
            put(&mut body, [("keep", keep.map(Value::from))]);
            let change = Change::post(about(&name, "transfer"), body);
            talk.change(change, edit, &|vm| format!("vm {name} belongs to {to}, {}", at(vm)))
        }
        Vm::Set(Set { name, settings, edit }) => {
            let change = Change::patch(vm(&name), changed(settings)?);
            talk.change(change, edit, &|_| format!("vm {name} changed"))
        }
        Vm::Renumber { name, address, edit } => {
            let body = address.map_or_else(|| json!({}), |address| json!({ "address": address }));
            let change = Change::post(about(&name, "renumber"), body);
            talk.change(change, edit, &|vm| format!("vm {name} is {}", at(vm)))
        }
        Vm::HostKey { command } => host_key(command, &mut talk),
    }
}

fn host_key(command: HostKey, talk: &mut ApiSession<'_, '_>) -> Outcome {
    let of = |vm: &Label| path(["vms", vm.as_str(), "host-key"]);
    match command {
        HostKey::Show { vm } => {
            let keys = talk.get(of(&vm))?;
            talk.show(&keys, HOST_KEY_FIELDS)
        }
        HostKey::Set { vm, key, edit } => {
            let key = keyfile::host_key(&key)?;
            let change = Change::patch(path(["vms", vm.as_str()]), json!({ "host_key": key }));
            talk.change(change, edit, &|_| format!("vm {vm} must show the host key given"))
        }
        HostKey::Forget { vm, edit } => {
            let line =
                |_: &Value| format!("the host key of vm {vm} is forgotten: the next is taken");
            talk.change(Change::delete(of(&vm)), edit, &line)
        }
    }
}

/// The body for a new VM.
fn added(add: Add) -> Result<Value, CliError> {
    let Add { name, owner, ssh, login, host_key, source_address, address, no_address, .. } = add;
    let host_key = host_key.map(|key| keyfile::host_key(&key)).transpose()?;
    let mut body = json!({ "name": name, "owner": owner, "ssh": ssh });
    let optional = [
        ("login", login.map(Value::from)),
        ("host_key", host_key.map(Value::from)),
        ("source_address", source_address.map(Value::from)),
        ("address", address.map(|address| Value::from(address.as_str()))),
        ("no_address", no_address.then_some(Value::Bool(true))),
        ("node", add.node.map(|node| Value::from(node.as_str()))),
        ("carry", add.carry.map(Value::from)),
    ];
    put(&mut body, optional);
    Ok(body)
}

/// The body for other properties.
fn changed(settings: Settings) -> Result<Value, CliError> {
    let Settings { ssh, login, host_key, source_address, state, node, carry } = settings;
    let host_key = match host_key {
        Some(none) if none.is_empty() => Some(none),
        Some(key) => Some(keyfile::host_key(&key)?),
        None => None,
    };
    let state = state.map(|state| match state {
        State::Ready => Value::from("ready"),
        State::Maint => Value::from("maint"),
    });
    let mut body = Value::Object(Map::new());
    let optional = [
        ("ssh", ssh.map(Value::from)),
        ("login", login.map(Value::from)),
        ("host_key", host_key.map(Value::from)),
        ("source_address", source_address.map(Value::from)),
        ("state", state),
        ("node", node.map(Value::from)),
        ("carry", carry.map(Value::from)),
    ];
    put(&mut body, optional);
    Ok(body)
}

/// Adds what is given.
pub(super) fn put(
    body: &mut Value,
    optional: impl IntoIterator<Item = (&'static str, Option<Value>)>,
) {
    let Value::Object(fields) = body else { return };
    for (name, value) in optional {
        fields.extend(value.map(|value| (name.to_owned(), value)));
    }
}
