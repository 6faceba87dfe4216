//! Walks `agent.toml`: whom an agent believes, and who may go where by its own reading.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use ipnet::IpNet;

use super::api::pem;
use super::document::{Document, Section, Value};
use super::door::{check_metrics, door, log, read_listen, read_metrics, read_vm_leg, state_dir};
use super::lines::Lines;
use super::source::{Location, Source, source};
use super::values::{path, read_networks};
use super::{Edge, Finding, Fleet, Log, Metrics, Report, Rights, VmLeg, fleet, keys, reread};
use crate::ssh::publickey::{Fingerprint, KeyType, PublicKey};
use crate::trust;

/// The state directory of an agent if nothing says otherwise.
pub(super) const STATE_DIR: &str = "/var/lib/keyway-agent";
const METRICS_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9645);
/// Keys that an `agent.toml` has without a section, and a `keyway.toml` has not.
const ITS_OWN: [&str; 6] = ["listen", "edge_networks", "edges", "host_keys", "replica", "control"];

/// Keys whose values come with the feed.
const WITH_THE_FEED: [&str; 5] =
    ["replica", "edges", "host_keys", "trusted_user_cas", "revoked_keys"];

/// The files of an agent.
#[derive(Args, Clone, Debug, Eq, PartialEq)]
pub struct AgentFiles {
    /// How the agent runs: its agent.toml
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Who may go where, in the place of what `replica` names; read again at SIGHUP
    #[arg(long, value_name = "FILE")]
    pub fleet: Option<PathBuf>,
}

/// How an agent runs: `agent.toml`.
#[derive(Debug)]
pub struct AgentConfig {
    /// Where its identity, its CA and the host keys of the VMs are kept. May not exist yet.
    pub state_dir: PathBuf,
    /// Towards the edges. What `agent.toml` has no key for is as an empty `keyway.toml` has it.
    pub edge: Edge,
    /// Towards the VMs.
    pub vm_leg: VmLeg,
    /// For the operator.
    pub metrics: Metrics,
    /// From where edges may come; at least one.
    pub edge_networks: Vec<IpNet>,
    /// Edges that may hand sessions over; none where that comes with the feed.
    pub edges: Vec<Fingerprint>,
    /// The front door's host keys; at least one, but where they come with the feed.
    pub host_keys: Vec<PublicKey>,
    /// What says who may go where.
    pub replica: Replica,
}

/// What an agent judges by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Replica {
    /// A fleet file.
    File(PathBuf),
    /// What a control plane sends, whom to believe included.
    Feed(Control),
}

/// Where the feed is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Control {
    /// `https://HOST:PORT`
    pub url: String,
    /// PEM of those who speak for it; none: whoever the system trusts.
    pub ca: Option<PathBuf>,
}

impl Control {
    /// As it stands in an `agent.toml`.
    #[must_use]
    pub fn section(&self) -> String {
        let line = |key: &str, text: &str| format!("{key} = {}\n", toml::Value::from(text));
        let ca = self.ca.as_ref().map(|ca| line("ca", &ca.to_string_lossy()));
        format!("[control]\n{}{}", line("url", &self.url), ca.unwrap_or_default())
    }
}

/// An agent's files, and what is worth a word in them.
#[derive(Debug)]
pub struct LoadedAgent {
    /// From `agent.toml`.
    pub config: AgentConfig,
    /// From the fleet file, if it judges by one.
    pub fleet: Option<Fleet>,
    /// Not wrong, but the operator should know.
    pub warnings: Vec<Finding>,
    counts: Location,
}

impl LoadedAgent {
    /// As [`super::Loaded::warn_of_counts`].
    pub fn warn_of_counts(&mut self, odd: (String, String)) {
        self.counts.warn(odd, &mut self.warnings);
    }
}

/// What an agent's files hold now.
#[derive(Debug)]
pub struct AgentReread {
    /// Who is let in no more, as far as that can be read whatever else is wrong.
    pub rights: AgentRights,
    /// `agent.toml`, or everything that is wrong with it.
    pub config: Result<AgentConfig, Vec<Finding>>,
    /// The fleet file, or everything that is wrong with it; nothing where `agent.toml`
    /// does not say which, or names a feed.
    pub fleet: Option<Result<Fleet, Vec<Finding>>>,
    /// Not wrong, but the operator should know.
    pub warnings: Vec<Finding>,
    counts: Location,
}

/// What `agent.toml` says of who is believed no more.
#[derive(Debug, Default)]
pub struct AgentRights {
    /// Of the users.
    pub users: Rights,
    /// `edges`; nothing if they cannot be read.
    pub edges: Option<Vec<Fingerprint>>,
    /// `host_keys`; nothing if they cannot be read.
    pub host_keys: Option<Vec<PublicKey>>,
}

/// Reads an agent's files.
///
/// # Errors
/// Everything that is wrong with either.
pub fn load_agent(files: &AgentFiles) -> Result<LoadedAgent, Report> {
    let AgentReread { config, fleet, warnings, counts, .. } = reread_agent(files, None);
    match (config, fleet.transpose()) {
        (Ok(config), Ok(fleet)) => Ok(LoadedAgent { config, fleet, warnings, counts }),
        (config, fleet) => {
            let mut faults = config.err().unwrap_or_default();
            faults.extend(fleet.err().unwrap_or_default());
            Err(Report { faults, warnings })
        }
    }
}

/// An agent's file, for a join.
#[derive(Debug)]
pub struct Joining {
    /// From `agent.toml`, as it is once it follows.
    pub config: AgentConfig,
    /// Where it joins.
    pub control: Control,
    /// Whether the file says so itself.
    pub is_written: bool,
    /// Not wrong, but the operator should know.
    pub warnings: Vec<Finding>,
}

/// Reads an `agent.toml` for a join. `given` is where control is, where the file does not say;
/// a section that is there counts.
///
/// # Errors
/// Everything that is wrong with it; nothing else, if nobody says where control is.
pub fn load_joining(config: &Path, given: Option<Control>) -> Result<Option<Joining>, Report> {
    let none = |fault| Report { faults: vec![fault], warnings: Vec::new() };
    let read = source(config, 0).map_err(none)?;
    let is_written = {
        let document = Document::new(&read.name, read.order, &read.text);
        let table = document.parse(&read.text);
        Section::root(&document, &table).get("control").is_some()
    };
    if !is_written && given.is_none() {
        return Ok(None);
    }
    let (document, config, ..) = walk(&read, None, given);
    let (mut faults, mut warnings) = document.into_findings();
    faults.sort();
    warnings.sort();
    match config.replica.clone() {
        Replica::Feed(control) if faults.is_empty() => {
            Ok(Some(Joining { config, control, is_written, warnings }))
        }
        Replica::Feed(_) | Replica::File(_) => Err(Report { faults, warnings }),
    }
}

/// Reads an agent's files again. `revoked_keys`: the list that was used last, for when
/// `agent.toml` no longer says.
pub fn reread_agent(files: &AgentFiles, revoked_keys: Option<&Path>) -> AgentReread {
    let read = match source(&files.config, 0) {
        Ok(read) => read,
        Err(fault) => {
            let users = Rights { revocations: reread::last(revoked_keys), trusted_user_cas: None };
            return AgentReread {
                rights: AgentRights { users, ..AgentRights::default() },
                config: Err(vec![fault]),
                fleet: None,
                warnings: Vec::new(),
                counts: Location::default(),
            };
        }
    };
    let (document, config, replica, lines) = walk(&read, files.fleet.as_deref(), None);
    let (mut faults, mut warnings) = document.into_findings();
    faults.sort();
    let fleet = replica.map(|replica| {
        let (findings, fleet) = fleet::read_alone(&source(&replica, 1).map_err(|it| vec![it])?);
        let (mut faults, mut more) = findings.into_findings();
        faults.sort();
        warnings.append(&mut more);
        fleet.filter(|_| faults.is_empty()).ok_or(faults)
    });
    warnings.sort();
    AgentReread {
        rights: rights(&read, revoked_keys),
        config: if faults.is_empty() { Ok(config) } else { Err(faults) },
        fleet,
        warnings,
        counts: Location { file: read.name.as_str().into(), order: read.order, line: lines.counts },
    }
}

/// Walks the whole file. Beside what it found: the fleet file, as far as somebody says which.
/// `named`: one that stands in for `replica`; `joined`: for [control].
fn walk(
    read: &Source,
    named: Option<&Path>,
    joined: Option<Control>,
) -> (Document, AgentConfig, Option<PathBuf>, Lines) {
    let document = Document::new(&read.name, read.order, &read.text);
    let table = document.parse(&read.text);
    let root = Section::root(&document, &table);
    let base = &read.base;
    let mut lines = Lines::default();
    let mut edge = door(&|key| root.get(key), base, &mut lines);
    let listen = root.require("listen", "\"10.0.0.21:7022\"");
    let listen = listen.and_then(|it| read_listen(&it, it.one_or_more()?, &mut lines));
    edge.listen = listen.unwrap_or_default();
    let control = match root.get("control") {
        Some(value) => read_control(&root, &value, base, named),
        None => joined.inspect(|_| comes_with_the_feed(&root, "")),
    };
    // As it is before the agent has joined.
    let said = WITH_THE_FEED.iter().any(|key| root.get(key).is_some());
    let is_bare = control.is_none() && named.is_none() && !said && document.is_whole();
    let replica = match (&control, named) {
        (Some(_), _) => None,
        (None, Some(named)) => {
            let _replaced = root.get("replica");
            Some(named.to_owned())
        }
        (None, None) if is_bare => {
            let fix = "`keyway agent join` adds `[control]`; or add `replica = \"fleet.toml\"`, `edges` and \
                       `host_keys`";
            document.fault(1, "nothing says who may go where, nor whom to believe", fix);
            None
        }
        (None, None) => {
            root.require("replica", "\"fleet.toml\"").and_then(|value| path(&value, base))
        }
    };
    let pinned = control.is_none() && !is_bare;
    let config = AgentConfig {
        state_dir: state_dir(&root, base, STATE_DIR),
        edge,
        vm_leg: read_vm_leg(&root, base, &mut lines),
        metrics: read_metrics(&root, METRICS_LISTEN, &mut lines),
        edge_networks: require_edge_networks(&root),
        edges: if pinned { require_edges(&root) } else { Vec::new() },
        host_keys: if pinned { require_host_keys(&root) } else { Vec::new() },
        replica: match control {
            Some(control) => Replica::Feed(control),
            None => Replica::File(replica.clone().unwrap_or_default()),
        },
    };
    root.finish();
    let at = ("listen", "the address that VMs and their tenants may reach");
    check_metrics(&document, config.metrics, at, &config.edge.listen, &lines);
    drop(table);
    (document, config, replica, lines)
}

/// What comes with the feed must not be written too: one of the two would not count, and nobody
/// could tell which.
fn comes_with_the_feed(root: &Section<'_, '_>, or: &str) {
    for key in WITH_THE_FEED {
        if let Some(value) = root.get(key) {
            value.fault("comes with the feed of control", format!("remove `{key}`{or}"));
        }
    }
}

/// `[control]`.
fn read_control(
    root: &Section<'_, '_>,
    value: &Value<'_, '_>,
    base: &Path,
    named: Option<&Path>,
) -> Option<Control> {
    comes_with_the_feed(root, ", or the section [control]");
    if named.is_some_and(|named| named != Path::new("")) {
        value.fault("names a feed beside --fleet", "leave --fleet out, or remove the section");
    }
    let section = root.section("control")?;
    let url = section.require("url", "\"https://control.example:9643\"");
    let url = url.and_then(|url| {
        let text = url.string()?;
        if trust::server(text).is_none() {
            url.fault("is no server", "write https://HOST or https://HOST:PORT, no more");
        }
        Some(text.to_owned())
    });
    let ca = section.get("ca").and_then(|ca| pem(&ca, base, "CERTIFICATE"));
    section.finish();
    // Whatever is wrong with it, nothing else is meant.
    Some(Control { url: url.unwrap_or_default(), ca })
}

fn require_edge_networks(root: &Section<'_, '_>) -> Vec<IpNet> {
    let networks = root.require("edge_networks", "[\"10.0.0.0/24\"]").and_then(|value| {
        let networks = read_networks(&value)?;
        if networks.is_empty() {
            value.fault("is empty: no edge could come", "write the networks of your edges");
        }
        Some(networks)
    });
    networks.unwrap_or_default()
}

/// None is no fault: the last edge may have been taken away.
fn require_edges(root: &Section<'_, '_>) -> Vec<Fingerprint> {
    let edges = root.require("edges", "[\"ssh-ed25519 AAAA... edge1\"]").and_then(|value| {
        let edges = edges_of(&value)?;
        if value.strings()?.is_empty() {
            let fix = "write what `keyway identity` prints at each edge";
            value.warn("is empty: nobody may hand sessions over", fix);
        }
        Some(edges)
    });
    edges.unwrap_or_default()
}

fn require_host_keys(root: &Section<'_, '_>) -> Vec<PublicKey> {
    let host_keys = root.require("host_keys", "[\"ssh-ed25519 AAAA...\"]").and_then(|value| {
        let host_keys = host_keys_of(&value)?;
        if value.strings()?.is_empty() {
            let fix = "write the public host keys of the front door (keyway hostkey list)";
            value.fault("is empty: no session would be believed", fix);
        }
        Some(host_keys)
    });
    host_keys.unwrap_or_default()
}

/// What takes access away, and nothing else.
fn rights(read: &Source, revoked_keys: Option<&Path>) -> AgentRights {
    let document = Document::new(&read.name, read.order, &read.text);
    let table = document.parse(&read.text);
    let root = Section::root(&document, &table);
    let get = |key| root.get(key);
    let users = reread::rights(&document, &get, &read.base, revoked_keys);
    // In a file that is no TOML any key may be missing through no fault of its own.
    let of = |key| users.trusted_user_cas.as_ref().and(get(key));
    let edges = whole(&document, || edges_of(&of("edges")?));
    let host_keys = whole(&document, || host_keys_of(&of("host_keys")?));
    AgentRights { users, edges, host_keys }
}

/// What `read` reads, if it finds no fault on the way.
fn whole<T>(document: &Document, read: impl FnOnce() -> Option<T>) -> Option<T> {
    let faults = document.faults_found();
    read().filter(|_| document.faults_found() == faults)
}

/// The identities of edges.
fn edges_of(value: &Value<'_, '_>) -> Option<Vec<Fingerprint>> {
    let keys = keys_of(value, |key_type| match key_type {
        KeyType::Ed25519 => None,
        KeyType::EcdsaP256
        | KeyType::EcdsaP384
        | KeyType::EcdsaP521
        | KeyType::Rsa
        | KeyType::SkEd25519
        | KeyType::SkEcdsaP256 => Some((
            "holds a key that is no identity of an edge: those are Ed25519",
            "write what `keyway identity` prints at the edge",
        )),
    });
    keys.map(|keys| keys.iter().map(PublicKey::fingerprint).collect())
}

fn host_keys_of(value: &Value<'_, '_>) -> Option<Vec<PublicKey>> {
    keys_of(value, |key_type| match key_type {
        KeyType::Ed25519 | KeyType::EcdsaP256 | KeyType::Rsa => None,
        KeyType::EcdsaP384 | KeyType::EcdsaP521 | KeyType::SkEd25519 | KeyType::SkEcdsaP256 => {
            Some((
                "holds a key of a type that no front door has",
                "write what `keyway hostkey list` prints there",
            ))
        }
    })
}

/// Public keys, one an item; `refuses` says what is wrong with a type.
fn keys_of(
    value: &Value<'_, '_>,
    refuses: fn(KeyType) -> Option<(&'static str, &'static str)>,
) -> Option<Vec<PublicKey>> {
    let mut sound = Vec::new();
    for (item, line) in value.strings()? {
        let Some(key) = keys::ca_line(&item, line) else { continue };
        match refuses(key.key_type()) {
            Some((what, fix)) => item.fault(what, fix),
            None => sound.push(key),
        }
    }
    Some(sound)
}

/// Which of the two files somebody names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Of {
    /// A `keyway.toml`.
    FrontDoor,
    /// An `agent.toml`.
    Agent,
}

/// How whoever a file describes logs in to VMs.
#[derive(Debug)]
pub struct Logins {
    /// Whose they are.
    pub of: Of,
    /// Where a CA of its own is kept.
    pub state_dir: PathBuf,
    /// The rest.
    pub vm_leg: VmLeg,
    /// Not wrong, but the operator should know.
    pub warnings: Vec<Finding>,
}

/// Reads how a front door or an agent logs in to VMs, whichever the file describes; an agent's
/// fleet is not looked at. Where no file is named it is a front door's, as [`super::load`] has it.
///
/// # Errors
/// Everything that is wrong with the file.
pub fn load_logins(config: Option<&Path>) -> Result<Logins, Report> {
    let Some(read) = config.and_then(|config| source(config, 0).ok()).filter(is_agent) else {
        let super::Loaded { config, warnings, .. } = super::load(config, None)?;
        let super::Config { state_dir, vm_leg, .. } = config;
        return Ok(Logins { of: Of::FrontDoor, state_dir, vm_leg, warnings });
    };
    let (document, config, ..) = walk(&read, Some(Path::new("")), None);
    let (mut faults, mut warnings) = document.into_findings();
    faults.sort();
    warnings.sort();
    if !faults.is_empty() {
        return Err(Report { faults, warnings });
    }
    let AgentConfig { state_dir, vm_leg, .. } = config;
    Ok(Logins { of: Of::Agent, state_dir, vm_leg, warnings })
}

/// Whether a file describes an agent, as far as it can be read.
pub(super) fn is_agent(read: &Source) -> bool {
    let document = Document::new(&read.name, read.order, &read.text);
    let table = document.parse(&read.text);
    let root = Section::root(&document, &table);
    ITS_OWN.iter().any(|key| root.get(key).is_some())
}

/// Whether this file describes an agent, as far as it can be read.
#[must_use]
pub fn is_agents(config: &Path) -> bool {
    source(config, 0).is_ok_and(|read| is_agent(&read))
}

/// How the log of the agent of this `agent.toml` looks, whatever else is wrong with it.
#[must_use]
pub fn agent_log(config: &Path) -> Log {
    let Ok(read) = source(config, 0) else { return Log::Auto };
    let document = Document::new(&read.name, read.order, &read.text);
    let table = document.parse(&read.text);
    let given = Section::root(&document, &table).get("log").and_then(|value| log(&value));
    given.unwrap_or(Log::Auto)
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
