//! `keyway audit`: who did what, when, from where.

use std::collections::HashSet;

use clap::Subcommand;
use serde_json::Value;

use super::Output;
use super::api_path::path;
use super::api_session::{ApiSession, each, told_move};
use super::client::Request;
use super::error::{CliError, Outcome};
use super::remote::Remote;
use super::table::{Column, cell, json, plain};
use super::terminal::Terminal;
use crate::registry::refusal::utc;

/// Entries asked for at a time.
const PAGE: usize = 1000;

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// The newest entries, the oldest of them first
    #[command(after_help = "\
Examples:
  keyway audit list
  keyway audit list --limit 20 --follow
  keyway audit list --all --output json | jq '.[] | select(.actor.name == \"uid 0\")'")]
    List {
        /// How many
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// From the first one on
        #[arg(long, conflicts_with_all = ["limit", "follow"])]
        all: bool,
        /// Go on with what happens from now on, until Ctrl-C; JSON has one object a line then
        #[arg(long)]
        follow: bool,
    },
    /// One entry with all of its parameters
    #[command(after_help = "\
Example:
  keyway audit show 00000000000004d2")]
    Show {
        /// As the list has it in JSON
        key: String,
    },
}

const COLUMNS: &[Column] = &[
    ("AT", |entry| at(entry)),
    ("WHO", |entry| cell(actor(entry), "name")),
    ("FROM", |entry| cell(actor(entry), "from")),
    ("WHAT", |entry| cell(command(entry), "command")),
    ("RESULT", |entry| result(entry)),
    ("PARAMETERS", |entry| parameters(entry)),
    ("MOVES", |entry| moves(entry)),
];

const KEY: Column = ("KEY", |entry| cell(entry, "key"));

fn at(entry: &Value) -> String {
    entry.get("at_s").and_then(Value::as_u64).map(utc).unwrap_or_default()
}

fn actor(entry: &Value) -> &Value {
    entry.get("actor").unwrap_or(&Value::Null)
}

fn command(entry: &Value) -> &Value {
    entry.get("command").unwrap_or(&Value::Null)
}

/// Whether it was done; refused, by which code.
fn result(entry: &Value) -> String {
    match cell(entry, "refused").as_str() {
        "" => "done".to_owned(),
        code => format!("refused: {code}"),
    }
}

/// What a command was given, `name=value` by `name=value`.
fn parameters(entry: &Value) -> String {
    let fields = command(entry).as_object().into_iter().flatten();
    let given = fields.filter(|(name, value)| *name != "command" && !value.is_null());
    let each = given.map(|(name, _)| format!("{name}={}", cell(command(entry), name)));
    each.collect::<Vec<_>>().join(" ")
}

fn moves(entry: &Value) -> String {
    each(entry, "moves").map(told_move).collect::<Vec<_>>().join(", ")
}

pub(super) fn run(command: Audit, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    // A stream fills its own connection.
    let second = remote.client(terminal)?;
    let mut talk = remote.talk(terminal)?;
    match command {
        Audit::List { all: true, .. } => talk.list(&path(["audit"]), &[], COLUMNS, &|_| true),
        Audit::List { limit, follow: false, .. } => {
            let entries = newest(&talk, &mut |_, so_far| so_far < limit as usize)?;
            talk.items(entries, COLUMNS)
        }
        Audit::List { limit, follow: true, .. } => {
            // Where the stream begins is asked first, so that nothing falls between the
            // list and the stream.
            let head = talk.get(path(["audit"]) + "?limit=1")?;
            let revision = cell(&head, "revision");
            let mut seen = Seen::default();
            // Others of the last second are no news either when the stream tells of more.
            let (limit, mut last_s) = (limit as usize, None);
            let mut entries = newest(&talk, &mut |entry, so_far| {
                let last_s = *last_s.get_or_insert(at_s(entry));
                so_far < limit || at_s(entry) == last_s
            })?;
            let shown = entries.split_off(entries.len().saturating_sub(limit));
            seen.note(&entries);
            seen.print(shown, &mut talk)?;
            let mut stream =
                second.lines(&Request::get(path(["watch"]) + "?after=" + &revision))?;
            while stream.next()?.is_some() {
                let since_s = seen.last_s;
                let more = newest(&talk, &mut |entry, _| at_s(entry) >= since_s)?;
                seen.print(more, &mut talk)?;
            }
            Err(CliError::failed("the server ended the stream; is it stopping?"))
        }
        Audit::Show { key } => {
            // Keys are numbers: what comes behind the one before is the entry, if there is one.
            let before =
                u64::from_str_radix(&key, 16).ok().and_then(|number| number.checked_sub(1));
            let found = match before {
                Some(before) if key.len() == 16 => {
                    let query = [("limit", "1".to_owned())];
                    let cursor = format!("{before:016x}");
                    talk.page(&path(["audit"]), &query, Some(&cursor))?.0.pop()
                }
                _ => talk.find(&path(["audit"]), &|entry| cell(entry, "key") == key)?,
            };
            match found.filter(|entry| cell(entry, "key") == key) {
                Some(entry) => talk.show(&entry, &[&[KEY], COLUMNS].concat()),
                None => Err(CliError::Refused {
                    code: "not-found".to_owned(),
                    detail: format!("there is no entry {key}; `keyway audit list` shows which are"),
                }),
            }
        }
    }
}

fn at_s(entry: &Value) -> u64 {
    entry.get("at_s").and_then(Value::as_u64).unwrap_or_default()
}

/// The newest entries as long as they are `wanted`, which is told how many there are already;
/// the oldest first.
fn newest(
    talk: &ApiSession<'_, '_>,
    wanted: &mut dyn FnMut(&Value, usize) -> bool,
) -> Result<Vec<Value>, CliError> {
    let query = [("newest", "true".to_owned()), ("limit", PAGE.to_string())];
    let mut entries: Vec<Value> = Vec::new();
    let mut cursor = None;
    'pages: loop {
        let (items, next) = talk.page(&path(["audit"]), &query, cursor.as_deref())?;
        for item in items {
            if !wanted(&item, entries.len()) {
                break 'pages;
            }
            entries.push(item);
        }
        if next.is_none() {
            break;
        }
        cursor = next;
    }
    entries.reverse();
    Ok(entries)
}

/// What was printed. Keys of one second come in any order, so those of the last
/// second are remembered.
#[derive(Default)]
struct Seen {
    last_s: u64,
    keys: HashSet<String>,
}

impl Seen {
    /// Takes note of an entry; whether it is news.
    fn is_news(&mut self, entry: &Value) -> bool {
        let (at_s, key) = (at_s(entry), cell(entry, "key"));
        if at_s > self.last_s {
            self.last_s = at_s;
            self.keys.clear();
        }
        at_s == self.last_s && self.keys.insert(key)
    }

    fn note(&mut self, entries: &[Value]) {
        for entry in entries {
            self.is_news(entry);
        }
    }

    fn print(&mut self, entries: Vec<Value>, talk: &mut ApiSession<'_, '_>) -> std::io::Result<()> {
        let out = &mut talk.terminal.stdout;
        for entry in entries {
            if !self.is_news(&entry) {
                continue;
            }
            match talk.output {
                Output::Json => writeln!(out, "{}", json(&entry))?,
                Output::Table => {
                    let cells = COLUMNS.iter().map(|(_, cell)| plain(&cell(&entry)));
                    let cells: Vec<_> = cells.filter(|cell| !cell.is_empty()).collect();
                    writeln!(out, "{}", cells.join("  "))?;
                }
            }
            out.flush()?;
        }
        Ok(())
    }
}
