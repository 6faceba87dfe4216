//! `keyway apply`, `keyway export`, `keyway import-authorized-keys`, `keyway zone`: much at once,
//! from files and to files.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};

use super::api_path::path;
use super::api_session::{ApiSession, each, told_move};
use super::change::{Change, ChangeArgs};
use super::client::Request;
use super::error::{CliError, Outcome};
use super::remote::Remote;
use super::table::{self, Column, Table, cell, plain};
use super::terminal::Terminal;
use super::{DONE, FAULTS, Output, check, key, keyfile};
use crate::config::read_fleet;
use crate::plural::count;
use crate::registry::Label;
use crate::registry::fleet::Fleet;

/// VMs of an export that are written together.
const TOGETHER: usize = 1000;

#[derive(Args, Debug)]
#[group(skip)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Apply {
    /// What there should be
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Carry it out without asking
    #[arg(long, short)]
    yes: bool,
    /// Remove what the file does not name
    #[arg(long)]
    prune: bool,
    /// Give VMs other addresses where the plan needs it; the old ones lead to them for a while
    #[arg(long)]
    renumber: bool,
    /// Show the plan, change nothing; exit code 1 if a part of it would be refused
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
}

const PLAN: &[Column] = &[
    ("WHAT", |step| cell(step, "command")),
    ("OF", |step| cell(step, "subject")),
    ("HOW", |step| cell(step, "text")),
    ("RESULT", |step| cell(step, "result")),
    ("WHY", |step| cell(step, "detail")),
];

pub(super) fn apply(apply: &Apply, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    let Apply { file, yes, prune, renumber, dry_run } = apply;
    let renumber = *renumber;
    let fleet = match read_fleet(file) {
        Ok((fleet, warnings)) => {
            check::tell("warning", &warnings, terminal.stderr)?;
            fleet
        }
        Err(report) => {
            check::tell_faults(&report, terminal.stderr)?;
            return Ok(FAULTS);
        }
    };
    let body = json!({ "fleet": fleet, "prune": prune });
    let mut talk = remote.talk(terminal)?;
    let change = || Change::post(path(["apply"]), body.clone());
    talk.progress(&format!("comparing {}...", count(fleet.len(), "thing")))?;
    let plan =
        talk.make(change(), ChangeArgs { dry_run: true, renumber, ..ChangeArgs::default() })?;
    let steps = each(&plan, "plan").count();
    // A plan with a part that is refused is not begun, nor asked about.
    if *dry_run || steps == 0 || each(&plan, "plan").any(refused) {
        return told(&mut talk, &plan);
    }
    // What was shown, or nothing.
    let edit = ChangeArgs {
        if_revision: revision(&plan, "planned_at"),
        renumber,
        ..ChangeArgs::default()
    };
    if *yes {
        let answer = talk.make_many(change(), edit, "carrying it out", Some(steps))?;
        return told(&mut talk, &answer);
    }
    if !talk.terminal.can_ask() {
        let what = "nobody is there to ask; --dry-run shows the plan, --yes carries it out";
        return Err(CliError::failed(what));
    }
    let would = told_plan(&plan);
    let question = format!("{would}carry out {}?", count(steps, "change"));
    if !talk.terminal.agrees(&question)? {
        return Err(CliError::failed("nothing was changed"));
    }
    let answer = talk.make_many(change(), edit, "carrying it out", Some(steps))?;
    told(&mut talk, &answer)
}

fn refused(step: &Value) -> bool {
    cell(step, "result") == "refused"
}

fn revision(answer: &Value, key: &str) -> Option<u64> {
    answer.get(key).and_then(Value::as_u64)
}

/// The steps as a table, and the moves.
fn told_plan(answer: &Value) -> String {
    let mut table = Table::new(PLAN);
    for step in each(answer, "plan") {
        table.row(PLAN.iter().map(|(_, cell)| cell(step)));
    }
    let mut text = Vec::new();
    // A vector takes all that is written.
    let _ = table.write(&mut text);
    let mut text = String::from_utf8(text).unwrap_or_default();
    for moved in each(answer, "moves") {
        text.push_str(&plain(&told_move(moved)));
        text.push('\n');
    }
    text
}

/// What came of a plan. A part that is refused is a failure.
fn told(talk: &mut ApiSession<'_, '_>, answer: &Value) -> Outcome {
    let steps = each(answer, "plan").count();
    let refused = each(answer, "plan").filter(|step| refused(step)).count();
    let dry = answer.get("dry_run") == Some(&Value::Bool(true));
    let Terminal { stdout, stderr, .. } = &mut *talk.terminal;
    match talk.output {
        Output::Json => writeln!(stdout, "{}", table::json(answer))?,
        Output::Table if steps == 0 => writeln!(stdout, "nothing to do: all is as the file says")?,
        Output::Table => {
            write!(stdout, "{}", told_plan(answer))?;
            let (done, made) =
                (count(steps - refused, "change"), if dry { "to make" } else { "made" });
            let none = if dry && refused > 0 { "; nothing was changed" } else { "" };
            writeln!(stdout, "{done} {made}{none}")?;
        }
    }
    for warning in each(answer, "warnings").filter_map(Value::as_str) {
        writeln!(stderr, "warning: {}", plain(warning))?;
    }
    if refused == 0 {
        return Ok(DONE);
    }
    writeln!(stderr, "keyway: {} refused", count(refused, "change"))?;
    Ok(FAULTS)
}

/// How an export looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Format {
    /// A fleet file
    Toml,
    /// What `keyway apply` sends
    Json,
}

pub(super) fn export(format: Format, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    /// Read at once: a value for each word of it would take ten times its bytes.
    #[derive(Deserialize)]
    struct Export {
        fleet: Fleet,
    }

    let talk = remote.talk(terminal)?;
    let request = Request::get(path(["export"]));
    match format {
        Format::Json => {
            let mut answer = talk.client.ask_json(&request)?;
            let fleet = answer.get_mut("fleet").map(Value::take).unwrap_or_default();
            writeln!(talk.terminal.stdout, "{}", table::json(&fleet))?;
        }
        Format::Toml => {
            let answer = talk.client.ask(&request)?;
            let Export { fleet } = serde_json::from_slice(&answer)
                .map_err(|error| talk.client.strange(&format!("no fleet: {error}")))?;
            drop(answer);
            let Fleet { addresses, users, teams, nodes, edges, vms } = fleet;
            let others = Fleet { addresses, users, teams, nodes, edges, vms: Vec::new() };
            talk.terminal.stdout.write_all(others.to_toml().as_bytes())?;
            // The text of a million VMs need not be here at once.
            let mut vms = vms.into_iter();
            while vms.len() > 0 {
                let some = Fleet { vms: vms.by_ref().take(TOGETHER).collect(), ..Fleet::default() };
                talk.terminal.stdout.write_all(some.to_toml().as_bytes())?;
            }
        }
    }
    Ok(DONE)
}

#[derive(Args, Debug)]
#[group(skip)]
pub(super) struct Import {
    /// Whose; the user is made if there is none
    user: Label,
    /// As sshd has it, `-` for stdin
    file: String,
    #[command(flatten)]
    edit: ChangeArgs,
}

pub(super) fn import(import: &Import, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    let Import { user, file, edit } = import;
    let keys = keyfile::keys(file, terminal)?;
    let mut talk = remote.talk(terminal)?;
    let there = match talk.get(path(["users", user.as_str()])) {
        Ok(there) => there,
        Err(CliError::Refused { code, .. }) if code == "not-found" => {
            let lines: Vec<&str> = keys.iter().map(|key| key.line.as_str()).collect();
            let body = json!({ "name": user, "keys": lines });
            let count = count(keys.len(), "key");
            let line = move |_: &Value| format!("user {user} added with {count}");
            return talk.change(Change::post(path(["users"]), body), *edit, &line);
        }
        Err(trouble) => return Err(trouble),
    };
    let mut had = 0;
    for key in &keys {
        let fingerprint = key.fingerprint.to_string();
        if each(&there, "keys").any(|there| cell(there, "fingerprint") == fingerprint) {
            had += 1;
        } else {
            key::add(&mut talk, user, key, *edit)?;
        }
    }
    if had > 0 {
        writeln!(talk.terminal.stderr, "{user} has {} of these already", count(had, "key"))?;
    }
    Ok(DONE)
}

#[derive(Debug, Subcommand)]
pub(super) enum Zone {
    /// Print the zone file, for DNS servers of your own
    #[command(after_help = "\
Example:
  keyway zone export > vm.example.test.zone")]
    Export,
}

pub(super) fn zone(command: &Zone, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    let Zone::Export = command;
    let talk = remote.talk(terminal)?;
    let zone = talk.client.ask(&Request::get(path(["zone"])))?;
    for line in String::from_utf8_lossy(&zone).lines() {
        let columns: Vec<String> = line.split('\t').map(plain).collect();
        writeln!(talk.terminal.stdout, "{}", columns.join("\t"))?;
    }
    Ok(DONE)
}
