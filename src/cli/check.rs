//! `keyway check`: what the files of a front door or of an agent hold, or everything that is wrong
//! with them.

use std::io::{self, Write};

use hyper::Method;
use serde_json::{Value, json};

use super::api_path::path;
use super::client::{Client, Request, ServerAt};
use super::error::CliError;
use super::table::{Column, Table, cell, json, plain};
use super::{DONE, FAULTS, Output};
use crate::config::{
    self, AgentFiles, Config, Edge, Files, Finding, Fleet, Loaded, LoadedAgent, Replica, Report,
    UserCa, VmCredential,
};
use crate::host;
use crate::plural::count;
use crate::registry::apply::served_file::RemovalsMax;
use crate::registry::document::Registry;
use crate::registry::store::{Sqlite, Store as _};
use crate::registry::{Document, Key};
use crate::state::{IDENTITY, STORE, State, USER_CA};

pub(super) fn run(
    files: &Files,
    output: Output,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> io::Result<u8> {
    let found = match files.config.as_deref().filter(|config| config::is_agents(config)) {
        Some(config) => {
            of_agent(&AgentFiles { config: config.to_owned(), fleet: files.fleet.clone() })
        }
        None => of_front_door(files)?,
    };
    match found {
        Ok(found) => found.tell(output, stdout, stderr),
        Err(report) => {
            tell_faults(&report, stderr)?;
            if output == Output::Json {
                writeln!(stdout, "{}", json(&told(&report)))?;
            }
            Ok(FAULTS)
        }
    }
}

/// What files without a fault hold.
struct Found {
    sizes: Vec<(&'static str, usize)>,
    warnings: Vec<Finding>,
    /// Warnings that are about no line of the files, by their names in JSON.
    others: Vec<(&'static str, String)>,
    against: Option<Against>,
}

fn of_front_door(files: &Files) -> io::Result<Result<Found, Report>> {
    let loaded = config::load(files.config.as_deref(), files.fleet.as_deref());
    let loaded = loaded.and_then(|loaded| match loaded.fleet.as_ref().and_then(Fleet::fault) {
        Some(fault) => Err(Report { faults: vec![fault], warnings: loaded.warnings }),
        None => Ok(loaded),
    });
    let mut loaded = match loaded {
        Ok(loaded) => loaded,
        Err(report) => return Ok(Err(report)),
    };
    if let Some(odd) = odd_counts(&loaded.config.edge) {
        loaded.warn_of_counts(odd);
    }
    let other_ca = other_ca(&loaded.config).map(|told| ("other_ca", told));
    let removed = removed(&loaded.config).map(|told| ("identity_removed", told));
    let against = against(&loaded)?;
    let Loaded { fleet, warnings, .. } = loaded;
    let sizes = fleet.as_ref().map(sizes).unwrap_or_default();
    let others = other_ca.into_iter().chain(removed).collect();
    Ok(Ok(Found { sizes, warnings, others, against }))
}

/// The same of an agent, which has no registry: its fleet file is held against nothing.
fn of_agent(files: &AgentFiles) -> Result<Found, Report> {
    let mut loaded = config::load_agent(files)?;
    if let Some(odd) = odd_counts(&loaded.config.edge) {
        loaded.warn_of_counts(odd);
    }
    let LoadedAgent { config, fleet, warnings, .. } = loaded;
    let mut sizes = fleet.as_ref().map(sizes).unwrap_or_default();
    if let Replica::File(_) = config.replica {
        sizes.extend([("edges", config.edges.len()), ("host_keys", config.host_keys.len())]);
    }
    Ok(Found { sizes, warnings, others: Vec::new(), against: None })
}

/// Nobody is told anything wrong where the system does not say.
fn odd_counts(edge: &Edge) -> Option<(String, String)> {
    host::check(edge, host::descriptors().ok()?)
}

impl Found {
    fn tell(
        self,
        output: Output,
        stdout: &mut dyn Write,
        stderr: &mut dyn Write,
    ) -> io::Result<u8> {
        let Self { sizes, warnings, others, against } = self;
        match output {
            Output::Table => {
                let all = warnings.len() + others.len();
                for (name, number) in sizes.into_iter().chain([("warnings", all)]) {
                    writeln!(stdout, "{name:<10}{number:>8}")?;
                }
                tell("warning", &warnings, stdout)?;
                for (_, warning) in others {
                    writeln!(stdout, "warning: {}", plain(&warning))?;
                }
                against.map_or(Ok(DONE), |against| against.tell(stdout, stderr))
            }
            Output::Json => {
                let mut all = told(&Report { faults: Vec::new(), warnings });
                let code = against.as_ref().map_or(DONE, Against::code);
                if let Value::Object(fields) = &mut all {
                    let number = |(name, number): (&str, usize)| (name.to_owned(), number.into());
                    fields.extend(sizes.into_iter().map(number));
                    let text = |(name, told): (&str, String)| (name.to_owned(), told.into());
                    fields.extend(others.into_iter().map(text));
                    fields.extend(against.map(|plan| ("plan".to_owned(), plan.into_json())));
                }
                writeln!(stdout, "{}", json(&all))?;
                Ok(code)
            }
        }
    }
}

/// What is wrong if the VMs were prepared for another CA than the one that this configuration has,
/// as far as somebody says: the keyway that serves, or the store that is there.
fn other_ca(config: &Config) -> Option<String> {
    let in_use = match &config.vm_leg.credential {
        VmCredential::Key(_) => return None,
        VmCredential::Certificates { ca: UserCa::Given(key), .. } => Some(key.public().clone()),
        VmCredential::Certificates { ca: UserCa::InState, .. } => {
            let state = State::open_kept(&config.state_dir).ok()?;
            state.kept_key(USER_CA).ok()?.map(|key| key.public().clone())
        }
    };
    let in_use = in_use
        .map_or_else(|| "one that the start makes".to_owned(), |key| key.fingerprint().to_string());
    let (registry, has_vms) = asked(config).or_else(|| kept(config))?;
    registry.other_ca(&in_use, has_vms)
}

/// What is wrong if this front door's own identity was removed as an edge, as is kept there.
fn removed(config: &Config) -> Option<String> {
    let state = State::open_kept(&config.state_dir).ok()?;
    let own = state.kept_key(IDENTITY).ok()??.public().to_line();
    let all = state.removed_edges().ok()?;
    let edge = all.iter().find(|edge| edge.identity == own)?;
    Some(format!(
        "the identity of this front door, edge {name}, was removed: no session is handed to an agent; if it is to be an \
         edge again: `keyway edge add {name} --identity '{own}'`",
        name = edge.name
    ))
}

/// What the keyway that serves says of its registry, and whether there are VMs.
fn asked(config: &Config) -> Option<(Registry, bool)> {
    let client = Client::new(ServerAt::Socket(config.api.socket.clone())).ok()?;
    let ask = |what| client.ask_json(&Request::get(path([what]))).ok();
    let ca = ask("ca")?.get("prepared_for").and_then(Value::as_str).map(str::to_owned);
    let registry = Registry { ca, ..Registry::default() };
    let vms = || ask("status")?.pointer("/counts/vms")?.as_u64();
    let has_vms = registry.ca.is_some() && vms().is_some_and(|vms| vms > 0);
    Some((registry, has_vms))
}

/// The same of a store, as it lies.
fn kept(config: &Config) -> Option<(Registry, bool)> {
    let store = Sqlite::open_kept(&config.state_dir.join(STORE)).ok()?;
    let key = Key::Registry;
    let found = store.snapshot(&key.to_string()).ok()?.entries.pop()?;
    let Ok(Document::Registry(registry)) = Document::from_json(&key, &found.value) else {
        return None;
    };
    let mut has_vms = false;
    store.snapshot_each("vm/", &mut |_| has_vms = true).ok()?;
    Some((registry, has_vms))
}

/// What the fleet file would do to the registry of the keyway that serves with this configuration.
enum Against {
    /// As its API says.
    Plan(Value),
    /// Nobody says.
    Nobody(String),
}

/// Nothing if there is no fleet file.
fn against(loaded: &Loaded) -> io::Result<Option<Against>> {
    let Some(fleet) = &loaded.fleet else { return Ok(None) };
    let most = match loaded.config.fleet_file.removals_max {
        RemovalsMax::Usual => None,
        RemovalsMax::Things(most) => Some(most),
    };
    let request = Request {
        method: Method::POST,
        path: path(["fleet-file", "plan"]),
        body: Some(json!({ "fleet": fleet.desired, "removals_max": most })),
        if_match: None,
    };
    let client = Client::new(ServerAt::Socket(loaded.config.api.socket.clone()));
    match client.and_then(|client| client.ask_json(&request)) {
        Ok(plan) => Ok(Some(Against::Plan(plan))),
        Err(CliError::Output(error)) => Err(error),
        Err(CliError::Unreachable(_)) => {
            let socket = loaded.config.api.socket.display().to_string();
            Ok(Some(Against::Nobody(format!("no keyway answers at {}", plain(&socket)))))
        }
        Err(trouble) => Ok(Some(Against::Nobody(plain(&trouble.to_string())))),
    }
}

impl Against {
    /// A plan that would not be carried out is a fault of the file.
    fn code(&self) -> u8 {
        match self {
            Self::Plan(plan) if plan.get("held").is_some_and(Value::is_string) => FAULTS,
            Self::Plan(_) | Self::Nobody(_) => DONE,
        }
    }

    fn tell(&self, stdout: &mut dyn Write, stderr: &mut dyn Write) -> io::Result<u8> {
        let plan = match self {
            Self::Plan(plan) => plan,
            Self::Nobody(why) => {
                writeln!(stderr, "not held against a registry: {why}")?;
                return Ok(self.code());
            }
        };
        writeln!(stdout, "at the next start or reload:")?;
        let mut table = Table::new(PLAN);
        for kind in KINDS {
            let counts = plan.pointer(&format!("/counts/{kind}")).unwrap_or(&Value::Null);
            let row = json!({ "kind": kind, "counts": counts });
            table.row(PLAN.iter().map(|(_, cell)| cell(&row)));
        }
        table.write(stdout)?;
        if let Some(held) = plan.get("held").and_then(Value::as_str) {
            writeln!(stderr, "keyway: {}", plain(held))?;
        }
        Ok(self.code())
    }

    fn into_json(self) -> Value {
        match self {
            Self::Plan(plan) => plan,
            Self::Nobody(why) => json!({ "unknown": why }),
        }
    }
}

const KINDS: [&str; 9] =
    ["addresses", "users", "keys", "teams", "memberships", "nodes", "edges", "vms", "shares"];

const PLAN: &[Column] = &[
    ("KIND", |row| cell(row, "kind")),
    ("ADDED", |row| counted(row, "added")),
    ("CHANGED", |row| counted(row, "changed")),
    ("REMOVED", |row| counted(row, "removed")),
    ("TAKEN OVER", |row| counted(row, "taken_over")),
];

fn counted(row: &Value, what: &str) -> String {
    row.get("counts").map(|counts| cell(counts, what)).unwrap_or_default()
}

/// Every fault and warning on its line, and how many there are.
pub(super) fn tell_faults(report: &Report, stderr: &mut dyn Write) -> io::Result<()> {
    for fault in &report.faults {
        writeln!(stderr, "{fault}")?;
    }
    tell("warning", &report.warnings, stderr)?;
    writeln!(stderr, "keyway: {}", count(report.faults.len(), "fault"))
}

/// One line each, with what kind it is.
pub(super) fn tell(kind: &str, findings: &[Finding], out: &mut dyn Write) -> io::Result<()> {
    for finding in findings {
        writeln!(out, "{kind}: {finding}")?;
    }
    Ok(())
}

fn sizes(Fleet { snapshot, .. }: &Fleet) -> Vec<(&'static str, usize)> {
    vec![
        ("addresses", snapshot.addresses().len()),
        ("users", snapshot.users().len()),
        ("keys", snapshot.users().map(|user| user.keys.len()).sum()),
        ("nodes", snapshot.nodes().len()),
        ("vms", snapshot.vms().len()),
    ]
}

fn told(Report { faults, warnings }: &Report) -> Value {
    let each = |findings: &[Finding]| {
        let one = |Finding { file, line, what, fix, .. }: &Finding| json!({ "file": &**file, "line": line, "what": what, "fix": fix });
        findings.iter().map(one).collect::<Vec<_>>()
    };
    json!({ "ok": faults.is_empty(), "faults": each(faults), "warnings": each(warnings) })
}
