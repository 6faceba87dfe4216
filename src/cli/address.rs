//! `keyway address`: the pool.

use std::net::{IpAddr, Ipv6Addr};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::FAULTS;
use super::api_path::path;
use super::api_session::each;
use super::change::{Change, ChangeArgs};
use super::error::Outcome;
use super::remote::Remote;
use super::table::{Column, cell};
use super::terminal::Terminal;
use super::vm::put;
use crate::registry::Label;

#[derive(Debug, Subcommand)]
pub(super) enum Address {
    /// All pool addresses
    List,
    /// One pool address
    Show {
        /// Which
        name: Label,
    },
    /// A new pool address
    #[command(
        visible_alias = "create",
        after_help = "\
Examples:
  keyway address add s001 127.0.77.1
  keyway address add s002 203.0.113.8 --private 10.0.0.8 --public6 2001:db8::8
  keyway address add home 203.0.113.1 --lobby          any registered key gets the list of its VMs here"
    )]
    Add(Add),
    /// Other properties; what is not given stays
    #[command(after_help = "\
Example:
  keyway address set s002 --private 10.0.0.9 --public6 ''")]
    Set(Set),
    /// Remove an address at which no VM is, or was not long ago
    #[command(visible_alias = "remove")]
    Rm {
        /// Which
        name: Label,
        #[command(flatten)]
        edit: ChangeArgs,
    },
    /// Take no more VMs and move those that are here; exit code 1 if some cannot be moved
    #[command(after_help = "\
Examples:
  keyway address drain s003 --dry-run     where its VMs would go
  keyway address drain s003")]
    Drain {
        /// Which
        name: Label,
        #[command(flatten)]
        edit: ChangeArgs,
    },
    /// Take VMs again, after drain or maint
    #[command(after_help = "\
Example:
  keyway address undrain s003")]
    Undrain {
        /// Which
        name: Label,
        #[command(flatten)]
        edit: ChangeArgs,
    },
    /// Take no VMs, refuse connections
    #[command(after_help = "\
Example:
  keyway address maint s003")]
    Maint {
        /// Which
        name: Label,
        #[command(flatten)]
        edit: ChangeArgs,
    },
}

#[derive(Args, Debug)]
pub(super) struct Add {
    /// A DNS label, unique among addresses and VMs
    name: Label,
    /// What clients dial
    #[arg(value_name = "IP")]
    public: IpAddr,
    /// What clients dial over IPv6
    #[arg(long, value_name = "IP")]
    public6: Option<Ipv6Addr>,
    /// What this host sees, behind a NAT
    #[arg(long, value_name = "IP")]
    private: Option<IpAddr>,
    /// Any registered key gets the list of its VMs here; no VM answers here
    #[arg(long)]
    lobby: bool,
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
    /// What clients dial
    #[arg(long, value_name = "IP")]
    public: Option<IpAddr>,
    /// What clients dial over IPv6; '': nothing
    #[arg(long, value_name = "IP", value_parser = parse_ip6_or_none)]
    public6: Option<String>,
    /// What this host sees, behind a NAT; '': the same
    #[arg(long, value_name = "IP", value_parser = parse_ip_or_none)]
    private: Option<String>,
    /// Whether any registered key gets the list of its VMs here
    #[arg(long, value_name = "true|false")]
    lobby: Option<bool>,
}

fn parse_ip_or_none(text: &str) -> Result<String, String> {
    if text.is_empty() || text.parse::<IpAddr>().is_ok() {
        Ok(text.to_owned())
    } else {
        Err("write an IP address, or '' for none".to_owned())
    }
}

fn parse_ip6_or_none(text: &str) -> Result<String, String> {
    if text.is_empty() || text.parse::<Ipv6Addr>().is_ok() {
        Ok(text.to_owned())
    } else {
        Err("write an IPv6 address, or '' for none".to_owned())
    }
}

const COLUMNS: &[Column] = &[
    ("NAME", |address| cell(address, "name")),
    ("PUBLIC", |address| cell(address, "public")),
    ("PUBLIC6", |address| cell(address, "public6")),
    ("PRIVATE", |address| cell(address, "private")),
    ("STATE", |address| cell(address, "state")),
    ("LOBBY", |address| cell(address, "lobby")),
    ("VMS", |address| cell(address, "vms")),
];

/// What one address shows beside these.
const MORE: &[Column] = &[
    ("ORIGIN", |address| cell(address, "origin")),
    ("REVISION", |address| cell(address, "revision")),
];

pub(super) fn run(command: Address, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    let mut talk = remote.talk(terminal)?;
    let one = |name: &Label| path(["addresses", name.as_str()]);
    let act = |name: &Label, what| Change::act(path(["addresses", name.as_str(), what]));
    match command {
        Address::List => talk.list(&path(["addresses"]), &[], COLUMNS, &|_| true),
        Address::Show { name } => {
            let address = talk.get(one(&name))?;
            talk.show(&address, &[COLUMNS, MORE].concat())
        }
        Address::Add(Add { name, public, public6, private, lobby, edit }) => {
            let mut body = json!({ "name": name, "public": public });
            let optional = [
                ("public6", public6.map(|ip| ip.to_string().into())),
                ("private", private.map(|ip| ip.to_string().into())),
                ("lobby", lobby.then_some(Value::Bool(true))),
            ];
            put(&mut body, optional);
            let line = |_: &Value| format!("address {name} added ({public})");
            talk.change(Change::post(path(["addresses"]), body), edit, &line)
        }
        Address::Set(Set { name, settings, edit }) => {
            let mut body = Value::Object(Map::new());
            let Settings { public, public6, private, lobby } = settings;
            let given = [
                ("public", public.map(|ip| ip.to_string().into())),
                ("public6", public6.map(Value::from)),
                ("private", private.map(Value::from)),
                ("lobby", lobby.map(Value::Bool)),
            ];
            put(&mut body, given);
            let change = Change::patch(one(&name), body);
            talk.change(change, edit, &|_| format!("address {name} changed"))
        }
        Address::Rm { name, edit } => {
            let change = Change::delete(one(&name));
            talk.change(change, edit, &|_| format!("address {name} removed"))
        }
        Address::Drain { name, edit } => {
            let what = format!("moving the VMs of {name}");
            let answer = talk.make_many(act(&name, "drain"), edit, &what, None)?;
            let count = |key| each(&answer, key).count();
            let (moved, left) = (count("moves"), count("warnings"));
            let moved = crate::plural::count(moved, "VM");
            let line = |_: &Value| {
                let left = if left > 0 { format!(", {left} left") } else { String::new() };
                format!("address {name} takes no more VMs, {moved} moved{left}")
            };
            let said = talk.say(&answer, &line)?;
            Ok(if left > 0 { FAULTS } else { said })
        }
        Address::Undrain { name, edit } => {
            talk.change(act(&name, "undrain"), edit, &|_| format!("address {name} takes VMs again"))
        }
        Address::Maint { name, edit } => {
            let line = |_: &Value| format!("address {name} refuses connections");
            talk.change(act(&name, "maint"), edit, &line)
        }
    }
}
