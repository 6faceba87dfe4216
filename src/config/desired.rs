//! What a fleet file asks for, in plain values: what `keyway apply` sends, and what an export is written as.
//!
//! The walk knows no `keyway.toml` and no registry: whom an owner or a member names may stand there already. What can be
//! wrong with the file by itself is told with its line.

use std::{collections::HashMap, fmt::Write as _, path::Path};

use serde::{Deserialize, Serialize};

use super::{
    Finding, Report, Source,
    document::{Document, Section, Value},
    fleet, keys, source,
};
use crate::{
    route::{TEAM_PREFIX, is_label},
    ssh::publickey::Fingerprint,
};

/// Everything a fleet file says, in its order.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Desired {
    /// `[[address]]`
    #[serde(default)]
    pub addresses: Vec<Address>,
    /// `[[user]]`
    #[serde(default)]
    pub users: Vec<User>,
    /// `[[team]]`
    #[serde(default)]
    pub teams: Vec<Team>,
    /// `[[vm]]`
    #[serde(default)]
    pub vms: Vec<Vm>,
}

/// A pool address.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// A DNS label.
    pub name: String,
    /// What clients dial: an IP.
    pub public: String,
    /// What clients dial over IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public6: Option<String>,
    /// What the host sees behind a NAT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private: Option<String>,
    /// Whether every registered key gets the list of its VMs here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lobby: bool,
}

/// A user.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// A DNS label.
    pub name: String,
    /// `authorized_keys` lines.
    #[serde(default)]
    pub keys: Vec<String>,
}

/// A team.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Team {
    /// A DNS label.
    pub name: String,
    /// Users who see the team's VMs at their addresses.
    #[serde(default)]
    pub members: Vec<String>,
    /// Users who enter the team's VMs by name only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members_by_name: Vec<String>,
}

/// A VM.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Vm {
    /// A DNS label.
    pub name: String,
    /// A user, or `team:` and a team.
    pub owner: String,
    /// `host:port` of its sshd.
    pub ssh: String,
    /// The pool address. Without one the allocator chooses, or leaves it where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// It has no address: it is entered by name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_address: bool,
    /// The login to use whatever name the user asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// Its host key: a public key line or `SHA256:...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// Principals who enter it at its address too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub share: Vec<String>,
    /// Principals who enter it by name only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub share_by_name: Vec<String>,
}

/// Reads a fleet file by itself.
///
/// # Errors
/// Everything that is wrong with it.
pub fn desired(file: &Path) -> Result<(Desired, Vec<Finding>), Report> {
    let source =
        source(file, 0).map_err(|fault| Report { faults: vec![fault], warnings: Vec::new() })?;
    read(&source)
}

/// As [`desired`], from text.
pub(super) fn read(source: &Source) -> Result<(Desired, Vec<Finding>), Report> {
    let document = Document::new(&source.name, source.order, &source.text);
    let table = document.parse(&source.text);
    let root = Section::root(&document, &table);
    let mut walk = Walk { document: &document, taken: HashMap::new(), keys: HashMap::new() };
    let desired = Desired {
        addresses: walk.all(&root, "address", Walk::address),
        users: walk.all(&root, "user", Walk::user),
        teams: walk.all(&root, "team", Walk::team),
        vms: walk.all(&root, "vm", Walk::vm),
    };
    root.finish();
    drop(table);
    let (mut faults, mut warnings) = document.into_findings();
    faults.sort();
    warnings.sort();
    if faults.is_empty() { Ok((desired, warnings)) } else { Err(Report { faults, warnings }) }
}

struct Walk<'d> {
    document: &'d Document,
    /// Kind of name and name -> the line that has it.
    taken: HashMap<(&'static str, String), usize>,
    keys: HashMap<Fingerprint, usize>,
}

impl<'d> Walk<'d> {
    fn all<'i, T>(
        &mut self,
        root: &Section<'d, 'i>,
        key: &'static str,
        read: fn(&mut Self, &Section<'d, 'i>) -> Option<T>,
    ) -> Vec<T> {
        let each = root.sections(key).into_iter().filter_map(|section| {
            let item = read(self, &section);
            section.finish();
            item
        });
        each.collect()
    }

    fn address(&mut self, section: &Section<'_, '_>) -> Option<Address> {
        let ip = |value: Value<'_, '_>| fleet::parse_ip(&value).map(|ip| ip.to_string());
        let public = section.require("public", "\"192.0.2.1\"").and_then(ip);
        let public6 = section.get("public6").and_then(ip);
        let private = section.get("private").and_then(ip);
        let lobby = section.get("lobby").and_then(|value| value.boolean()).unwrap_or(false);
        // VMs and addresses are names of one zone.
        let name = self.name(section, "VM or address", "\"s001\"");
        Some(Address { name: name?, public: public?, public6, private, lobby })
    }

    fn user(&mut self, section: &Section<'_, '_>) -> Option<User> {
        let name = self.name(section, "user", "\"alice\"");
        let items = section.get("keys").and_then(|value| value.strings()).unwrap_or_default();
        let mut lines = Vec::new();
        for (item, line) in items {
            let Some(key) = keys::user_line(&item, line) else { continue };
            let fingerprint = key.key.fingerprint();
            if let Some(first) = self.keys.insert(fingerprint, item.line) {
                let what = format!("holds key {fingerprint}, which stands in line {first} too");
                item.fault(what, "remove it here or there: a key names one user");
            }
            lines.push(line.trim().to_owned());
        }
        Some(User { name: name?, keys: lines })
    }

    fn team(&mut self, section: &Section<'_, '_>) -> Option<Team> {
        let name = self.name(section, "team", "\"ops\"");
        let Members { members, by_name } = members(section);
        let names = |members: Vec<(String, usize)>| members.into_iter().map(|(name, _)| name);
        let (members, members_by_name) = (names(members).collect(), names(by_name).collect());
        Some(Team { name: name?, members, members_by_name })
    }

    fn vm(&mut self, section: &Section<'_, '_>) -> Option<Vm> {
        let name = self.name(section, "VM or address", "\"blue\"");
        let owner = section.require("owner", "\"alice\"").and_then(|value| principal(&value));
        let address = section.get("address").and_then(|value| label(&value));
        let no_address = no_address(section);
        let ssh = section.require("ssh", "\"10.0.0.5:22\"").and_then(|value| {
            let text = value.string()?;
            if let Err(fix) = fleet::check_endpoint(text) {
                value.fault(format_args!("is \"{text}\", which is no host:port"), fix);
            }
            Some(text.to_owned())
        });
        let login = section.get("login").and_then(|value| fleet::login(&value));
        let host_key = section.get("host_key").and_then(|value| {
            let text = value.string()?;
            keys::pin(&value, text).map(|_| text.trim().to_owned())
        });
        let Shares { share, by_name } = shares(section);
        let names = |shares: Vec<(String, usize)>| shares.into_iter().map(|(name, _)| name);
        let (share, share_by_name) = (names(share).collect(), names(by_name).collect());
        let (name, owner, ssh) = (name?, owner?, ssh?);
        Some(Vm { name, owner, ssh, address, no_address, login, host_key, share, share_by_name })
    }

    /// The name of an entry, which no other of its kind has.
    fn name(
        &mut self,
        section: &Section<'_, '_>,
        kind: &'static str,
        example: &str,
    ) -> Option<String> {
        let value = section.require("name", example)?;
        let name = label(&value)?;
        if let Some(first) = self.taken.insert((kind, name.clone()), value.line) {
            let what = format!("`{}` is \"{name}\", as in line {first}", value.label);
            self.document.fault(value.line, what, format_args!("a {kind} has a name of its own"));
        }
        Some(name)
    }
}

/// Who is in a team, with lines.
pub(super) struct Members {
    pub(super) members: Vec<(String, usize)>,
    pub(super) by_name: Vec<(String, usize)>,
}

/// `members` and `members_by_name` of a `[[team]]`.
pub(super) fn members(section: &Section<'_, '_>) -> Members {
    let [members, by_name] = ["members", "members_by_name"].map(|key| named(section, key, label));
    twice(section, &members, &by_name);
    Members { members, by_name }
}

/// Who else may enter a VM, with lines.
pub(super) struct Shares {
    pub(super) share: Vec<(String, usize)>,
    pub(super) by_name: Vec<(String, usize)>,
}

/// `share` and `share_by_name` of a `[[vm]]`.
pub(super) fn shares(section: &Section<'_, '_>) -> Shares {
    let [share, by_name] = ["share", "share_by_name"].map(|key| named(section, key, principal));
    twice(section, &share, &by_name);
    Shares { share, by_name }
}

/// `no_address` of a `[[vm]]`.
pub(super) fn no_address(section: &Section<'_, '_>) -> bool {
    let Some(value) = section.get("no_address") else { return false };
    let without = value.boolean().unwrap_or(false);
    if without && section.get("address").is_some() {
        value.fault("and `vm.address` are both given", "keep one of the two");
    }
    without
}

fn named(
    section: &Section<'_, '_>,
    key: &'static str,
    read: fn(&Value<'_, '_>) -> Option<String>,
) -> Vec<(String, usize)> {
    let items = section.get(key).and_then(|value| value.strings()).unwrap_or_default();
    items.iter().filter_map(|(item, _)| Some((read(item)?, item.line))).collect()
}

/// Tells who is named more than once: in which way they are meant nobody knows.
fn twice(section: &Section<'_, '_>, one: &[(String, usize)], other: &[(String, usize)]) {
    let mut seen = HashMap::new();
    for (name, line) in one.iter().chain(other) {
        if let Some(first) = seen.insert(name, line) {
            let what = format!("`{name}` is named in line {first} already");
            section.document.fault(*line, what, "name each once");
        }
    }
}

fn label(value: &Value<'_, '_>) -> Option<String> {
    let text = value.string()?;
    named_so(value, text, text)
}

fn principal(value: &Value<'_, '_>) -> Option<String> {
    let text = value.string()?;
    named_so(value, text, text.strip_prefix(TEAM_PREFIX).unwrap_or(text))
}

fn named_so(value: &Value<'_, '_>, text: &str, name: &str) -> Option<String> {
    if is_label(name) {
        return Some(text.to_owned());
    }
    value.fault(
        format_args!("is \"{text}\", which is no name"),
        "write 1 to 63 of a-z, 0-9 and -, with no - at either end",
    );
    None
}

impl Desired {
    /// How many things there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.addresses.len() + self.users.len() + self.teams.len() + self.vms.len()
    }

    /// Whether there is nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As a fleet file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut file = String::new();
        for Address { name, public, public6, private, lobby } in &self.addresses {
            file.push_str("[[address]]\n");
            put_text(&mut file, "name", name);
            put_text(&mut file, "public", public);
            put_some(&mut file, "public6", public6.as_ref());
            put_some(&mut file, "private", private.as_ref());
            put_flag(&mut file, "lobby", *lobby);
        }
        for User { name, keys } in &self.users {
            file.push_str("[[user]]\n");
            put_text(&mut file, "name", name);
            put_list(&mut file, "keys", keys);
        }
        for Team { name, members, members_by_name } in &self.teams {
            file.push_str("[[team]]\n");
            put_text(&mut file, "name", name);
            put_list(&mut file, "members", members);
            put_list(&mut file, "members_by_name", members_by_name);
        }
        for vm in &self.vms {
            file.push_str("[[vm]]\n");
            put_text(&mut file, "name", &vm.name);
            put_text(&mut file, "owner", &vm.owner);
            put_some(&mut file, "address", vm.address.as_ref());
            put_flag(&mut file, "no_address", vm.no_address);
            put_text(&mut file, "ssh", &vm.ssh);
            put_some(&mut file, "login", vm.login.as_ref());
            put_some(&mut file, "host_key", vm.host_key.as_ref());
            put_list(&mut file, "share", &vm.share);
            put_list(&mut file, "share_by_name", &vm.share_by_name);
        }
        file
    }
}

/// A basic string: its escapes are those of JSON, with DEL and C1 escaped too (TOML 1.0, "String").
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn put_text(file: &mut String, key: &str, text: &str) {
    let _ = writeln!(file, "{key} = {}", quoted(text));
}

fn put_some(file: &mut String, key: &str, text: Option<&String>) {
    if let Some(text) = text {
        put_text(file, key, text);
    }
}

fn put_flag(file: &mut String, key: &str, flag: bool) {
    if flag {
        let _ = writeln!(file, "{key} = true");
    }
}

fn put_list(file: &mut String, key: &str, texts: &[String]) {
    match texts {
        [] => {}
        [one] => {
            let _ = writeln!(file, "{key} = [{}]", quoted(one));
        }
        more => {
            let _ = writeln!(file, "{key} = [");
            for text in more {
                let _ = writeln!(file, "    {},", quoted(text));
            }
            file.push_str("]\n");
        }
    }
}

#[cfg(test)]
#[path = "desired_tests.rs"]
mod tests;
