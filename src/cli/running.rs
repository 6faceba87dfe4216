//! `keyway status` and `keyway reload`: a front door that runs, as a whole.

#![expect(clippy::disallowed_methods, reason = "`--wait` is measured by the clock")]

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::api_path::path;
use super::api_session::{ApiSession, each, tell_warnings};
use super::change::{Change, ChangeArgs};
use super::client::Request;
use super::error::{CliError, Outcome};
use super::keyfile::seconds;
use super::remote::Remote;
use super::table::{self, Column, Table, cell, plain, write_fields};
use super::terminal::Terminal;
use super::{DONE, FAULTS, Output, UNREACHABLE};

/// Between two looks at a front door that is not up yet.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// A day: whoever waits longer does not wait for this.
const WAIT_S_MAX: i64 = 86_400;

/// How `keyway status` is asked.
#[derive(Args, Debug)]
pub(super) struct StatusAsked {
    /// Wait until people get in, at most so many seconds
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "60",
        value_parser = clap::value_parser!(u64).range(0..=WAIT_S_MAX.unsigned_abs())
    )]
    wait: Option<u64>,
}

/// How `keyway reload` is asked.
#[derive(Args, Debug)]
pub(super) struct ReloadAsked {
    /// Say what would come of it, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Carry out a fleet file that is held back because it removes much, if it is still what
    /// --dry-run shows now
    #[arg(long, conflicts_with = "dry_run")]
    allow_mass_removal: bool,
}

const FIELDS: &[Column] = &[
    ("STATE", |status| cell(status, "state")),
    ("VERSION", |status| cell(status, "version")),
    ("PROCESS", |status| cell(status, "pid")),
    ("SINCE", |status| seconds(status, "since_s")),
    ("REVISION", |status| cell(status, "revision")),
    ("SESSIONS", |status| of(status, "sessions", "sessions_max")),
    ("HALF OPEN", |status| of(status, "half_open", "half_open_max")),
    ("USERS", |status| count(status, "users")),
    ("KEYS", |status| count(status, "keys")),
    ("VMS", |status| count(status, "vms")),
    ("ADDRESSES", |status| count(status, "addresses")),
];

const PARTS: &[Column] = &[
    ("PART", |part| cell(part, "part")),
    ("STATE", |part| cell(part, "state")),
    ("DETAIL", |part| cell(part, "detail")),
];

const RENEWED: &[Column] = &[
    ("PART", |part| cell(part, "part")),
    ("RESULT", |part| cell(part, "result")),
    ("DETAIL", |part| cell(part, "detail")),
];

fn count(status: &Value, key: &str) -> String {
    status.get("counts").map(|counts| cell(counts, key)).unwrap_or_default()
}

fn of(status: &Value, key: &str, max: &str) -> String {
    format!("{} of {}", count(status, key), count(status, max))
}

pub(super) fn status(asked: &StatusAsked, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    let end = asked.wait.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut talk = remote.talk(terminal)?;
    loop {
        let answer = talk.client.ask_json(&Request::get(path(["status"])));
        let comes = match &answer {
            Ok(status) => code(status) == UNREACHABLE,
            Err(CliError::Unreachable(_)) => true,
            // Of a server that ends while another one comes.
            Err(CliError::Refused { code, .. }) => code == "ending",
            Err(CliError::Usage(_) | CliError::Failed(_) | CliError::Output(_)) => false,
        };
        if comes && end.is_some_and(|end| Instant::now() < end) {
            std::thread::sleep(LOOK_AGAIN);
            continue;
        }
        let status = answer?;
        show(&mut talk, &status)?;
        return Ok(code(&status));
    }
}

fn code(status: &Value) -> u8 {
    match status.get("state").and_then(Value::as_str) {
        Some("up") => DONE,
        Some("degraded") => FAULTS,
        Some(_) | None => UNREACHABLE,
    }
}

fn show(talk: &mut ApiSession<'_, '_>, status: &Value) -> Result<(), CliError> {
    let out = &mut talk.terminal.stdout;
    match talk.output {
        Output::Json => writeln!(out, "{}", table::json(status))?,
        Output::Table => {
            write_fields(status, FIELDS, out)?;
            writeln!(out)?;
            let mut parts = Table::new(PARTS);
            for part in each(status, "parts") {
                parts.row(PARTS.iter().map(|(_, cell)| cell(part)));
            }
            parts.write(out)?;
        }
    }
    Ok(())
}

pub(super) fn reload(asked: &ReloadAsked, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    let mut talk = remote.talk(terminal)?;
    let reload = |body: Value| Change::post(path(["reload"]), body);
    let mut body = json!({});
    if asked.allow_mass_removal {
        // What is said here is what is meant: the server does that, or nothing.
        let shown =
            talk.make(reload(json!({})), ChangeArgs { dry_run: true, ..ChangeArgs::default() })?;
        if let Some(plan) = shown.get("plan").and_then(Value::as_str) {
            let file = each(&shown, "parts").filter(|part| cell(part, "part") == "fleet-file");
            for held in file.flat_map(|part| each(part, "details")).filter_map(Value::as_str) {
                writeln!(talk.terminal.stderr, "allowed: {}", plain(held))?;
            }
            body = json!({ "allow_mass_removal": plan });
        }
    }
    talk.progress("reloading...")?;
    let edit = ChangeArgs { dry_run: asked.dry_run, ..ChangeArgs::default() };
    let answer = talk.make(reload(body), edit)?;
    let Terminal { stdout, stderr, .. } = &mut *talk.terminal;
    match talk.output {
        Output::Json => writeln!(stdout, "{}", table::json(&answer))?,
        Output::Table => {
            let mut parts = Table::new(RENEWED);
            for part in each(&answer, "parts") {
                // Each detail is a line of its own, the first beside its part.
                let mut details = each(part, "details").filter_map(Value::as_str);
                let first = details.next().unwrap_or_default();
                parts.row([cell(part, "part"), cell(part, "result"), first.to_owned()]);
                for detail in details {
                    parts.row([cell(part, "part"), cell(part, "result"), detail.to_owned()]);
                }
            }
            parts.write(stdout)?;
        }
    }
    tell_warnings(&answer, *stderr)?;
    for key in each(&answer, "restart") {
        let [key, running, file] = ["key", "running", "file"].map(|field| plain(&cell(key, field)));
        writeln!(
            stderr,
            "needs a restart: {key} is \"{running}\" until then, and the file says \"{file}\""
        )?;
    }
    let done = answer.get("done") == Some(&Value::Bool(true));
    Ok(if done { DONE } else { FAULTS })
}
