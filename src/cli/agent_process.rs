//! `keyway agent status` and `keyway agent drain`: agents that run on this host, asked at the
//! sockets in their state directory.

#![expect(clippy::disallowed_methods, reason = "a drain is followed by looking again")]

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::api_session::each;
use super::error::{CliError, Outcome};
use super::keyfile::seconds;
use super::remote;
use super::table::{self, Column, Table, cell, plain, write_fields};
use super::terminal::Terminal;
use super::{DONE, FAULTS, Output, UNREACHABLE};
use crate::plural;
use crate::state::{AGENT_DRAIN, AGENT_END, State, StateFault};

/// For the answer of an agent.
const ANSWER_COMES: Duration = Duration::from_secs(5);
/// Longest answer, in bytes: a line for each edge.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// Between two looks at an agent that drains.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// What is said to an agent that is only to tell how it is.
const ONLY_TELL: &str = "status";

/// Which agent, and how it is told.
#[derive(Args, Debug)]
pub(super) struct StatusAsked {
    /// The agent's agent.toml; its state_dir is looked at
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// How to say it
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Which agent, and how it ends.
#[derive(Args, Debug)]
pub(super) struct DrainAsked {
    /// The agent's agent.toml; its state_dir is looked at
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// End now, whoever is left: what drains already if anything does, else the agent
    #[arg(long)]
    now: bool,
}

const FIELDS: &[Column] = &[
    ("STATE", |agent| cell(agent, "state")),
    ("VERSION", |agent| cell(agent, "version")),
    ("PROCESS", |agent| cell(agent, "pid")),
    ("SINCE", |agent| seconds(agent, "since_s")),
    ("LISTEN", |agent| cell(agent, "listen")),
    ("IDENTITY", |agent| cell(agent, "identity")),
    ("SESSIONS", |agent| format!("{} of {}", cell(agent, "sessions"), cell(agent, "sessions_max"))),
    ("HALF OPEN", |agent| cell(agent, "half_open")),
    ("FEED", feed),
];

const EDGES: &[Column] = &[
    ("EDGE", |edge| cell(edge, "edge")),
    ("FROM", |edge| cell(edge, "from")),
    ("SINCE", |edge| seconds(edge, "since_s")),
    ("SESSIONS", |edge| cell(edge, "sessions")),
];

const DRAINING: &[Column] = &[
    ("PROCESS", |agent| cell(agent, "pid")),
    ("STATE", |agent| cell(agent, "state")),
    ("SESSIONS", |agent| cell(agent, "sessions")),
    ("UNTIL", |agent| seconds(agent, "until_s")),
];

fn feed(agent: &Value) -> String {
    let Some(feed) = agent.get("feed").filter(|feed| !feed.is_null()) else {
        return "none: a fleet file".to_owned();
    };
    let comes = feed.get("connected") == Some(&Value::Bool(true));
    let (comes, revision) = (if comes { "connected" } else { "away" }, cell(feed, "revision"));
    let kept =
        if feed.get("unsaved_s").is_some_and(Value::is_u64) { ", not on the disk" } else { "" };
    match feed.get("age_s").and_then(Value::as_u64) {
        Some(age_s) => format!("{comes}, revision {revision} known {age_s} s ago{kept}"),
        None => format!("{comes}, nothing is known yet"),
    }
}

/// Whether it takes sessions.
fn is_up(agent: &Value) -> bool {
    matches!(agent.get("state").and_then(Value::as_str), Some("up" | "fallen"))
}

/// The processes of one agent: of a state directory.
struct Processes {
    state: State,
    shown: String,
}

impl Processes {
    fn of(config: &Path) -> Result<Self, CliError> {
        let found = remote::find(config)?;
        let shown = found.state_dir.display().to_string();
        if !found.state_dir.exists() {
            return Err(nobody(&shown));
        }
        let state = State::open_kept(&found.state_dir).map_err(|fault| failed(&fault))?;
        Ok(Self { state, shown })
    }

    /// Each process that answers, the one that takes sessions first, then the youngest.
    fn all(&self) -> Result<Vec<(PathBuf, Value)>, CliError> {
        let sockets = self.state.agent_sockets().map_err(|fault| failed(&fault))?;
        let ask = |socket: PathBuf| match ask(&socket, ONLY_TELL) {
            Ok(told) => Some((socket, told)),
            // One that has gone.
            Err(_) => None,
        };
        let mut all: Vec<_> = sockets.into_iter().filter_map(ask).collect();
        all.sort_by_key(|(_, agent)| {
            let since_s = agent.get("since_s").and_then(Value::as_u64);
            (!is_up(agent), std::cmp::Reverse(since_s))
        });
        if all.is_empty() { Err(nobody(&self.shown)) } else { Ok(all) }
    }
}

fn nobody(shown: &str) -> CliError {
    CliError::Unreachable(format!("no agent runs with the state directory {shown}"))
}

fn failed(fault: &StateFault) -> CliError {
    CliError::failed(fault.to_string())
}

/// Says a word to a process, and returns how it is then.
fn ask(socket: &Path, word: &str) -> Result<Value, String> {
    let read = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER_COMES))?;
        stream.set_write_timeout(Some(ANSWER_COMES))?;
        stream.write_all(word.as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut text = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    let text = read().map_err(|error| format!("{}: {error}", socket.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", socket.display()))
}

pub(super) fn status(asked: &StatusAsked, terminal: &mut Terminal<'_>) -> Outcome {
    let all = Processes::of(&asked.config)?.all()?;
    let all: Vec<Value> = all.into_iter().map(|(_, agent)| agent).collect();
    let out = &mut terminal.stdout;
    match asked.output {
        Output::Json => writeln!(out, "{}", table::json(&Value::from(all.clone())))?,
        Output::Table => {
            let (up, draining): (Vec<_>, Vec<_>) = all.iter().partition(|agent| is_up(agent));
            let mut is_first = true;
            for agent in up {
                write_fields(agent, FIELDS, out)?;
                is_first = false;
                rows(EDGES, each(agent, "edges"), &mut is_first, *out)?;
            }
            rows(DRAINING, draining.into_iter(), &mut is_first, *out)?;
        }
    }
    Ok(match all.first() {
        Some(agent) if cell(agent, "state") == "fallen" => FAULTS,
        Some(agent) if !is_up(agent) => UNREACHABLE,
        Some(agent) if agent.pointer("/feed/connected") == Some(&Value::Bool(false)) => FAULTS,
        Some(_) => DONE,
        None => UNREACHABLE,
    })
}

/// A table, if there is anything in it.
fn rows<'v>(
    columns: &[Column],
    items: impl Iterator<Item = &'v Value>,
    is_first: &mut bool,
    out: &mut dyn std::io::Write,
) -> std::io::Result<()> {
    let mut items = items.peekable();
    if items.peek().is_none() {
        return Ok(());
    }
    if !std::mem::take(is_first) {
        writeln!(out)?;
    }
    let mut table = Table::new(columns);
    items.for_each(|item| table.row(columns.iter().map(|(_, cell)| cell(item))));
    table.write(out)
}

pub(super) fn drain(asked: &DrainAsked, terminal: &mut Terminal<'_>) -> Outcome {
    let begun = Instant::now();
    let mut all = Processes::of(&asked.config)?.all()?;
    // The one that takes sessions is told to go; one that goes already is followed, or ended.
    let [up, goes] = [true, false].map(|up| all.iter().any(|(_, agent)| is_up(agent) == up));
    let meant = if asked.now { !goes } else { up };
    all.retain(|(_, agent)| is_up(agent) == meant);
    let mut left = Vec::new();
    for (socket, _) in all {
        ask(&socket, AGENT_DRAIN).map_err(CliError::failed)?;
        if asked.now {
            // It may be gone before it has answered.
            let _gone = ask(&socket, AGENT_END);
        }
        left.push(socket);
    }
    let mut shown = String::new();
    while let Some(now) = progress(&mut left) {
        if terminal.seen && now != shown {
            writeln!(terminal.stderr, "{}", plain(&now))?;
            shown = now;
        }
        thread::sleep(LOOK_AGAIN);
    }
    writeln!(terminal.stdout, "agent drained in {} s", begun.elapsed().as_secs())?;
    Ok(DONE)
}

/// How far those are that drain, who are still there; nothing once nobody is.
fn progress(left: &mut Vec<PathBuf>) -> Option<String> {
    let (mut sessions, mut until) = (0, String::new());
    left.retain(|socket| {
        let Ok(agent) = ask(socket, ONLY_TELL) else { return false };
        let more = agent.get("sessions").and_then(Value::as_u64).unwrap_or_default();
        sessions += usize::try_from(more).unwrap_or(usize::MAX);
        let ends = seconds(&agent, "until_s");
        if !ends.is_empty() {
            until = format!(", until {ends} at most");
        }
        true
    });
    (!left.is_empty()).then(|| format!("draining: {}{until}", plural::count(sessions, "session")))
}
