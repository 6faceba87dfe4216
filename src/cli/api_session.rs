//! A talk with a server: what is asked, how its answers are said, how a change is made.

#![expect(clippy::disallowed_methods, reason = "a thread reads on while the answer is printed")]

use std::io::{self, Write as _};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use hyper::body::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::api_path::with_query;
use super::change::{Change, ChangeArgs};
use super::client::{Client, Request};
use super::error::{CliError, Outcome};
use super::table::{Column, Table, cell, json, plain, write_fields};
use super::terminal::Terminal;
use super::{DONE, Output};

/// Items asked for at a time: what the server gives at most.
const PAGE: usize = 1000;
/// Clears the rest of a terminal's line (ECMA-48, "EL").
const CLEAR: &str = "\x1b[K";
/// Bytes of a long list that go to stdout at once; by itself that takes line by line.
const WRITTEN_AT_ONCE: usize = 64 << 10;

fn page_path(path: &str, query: &[(&'static str, String)], after: Option<&str>) -> String {
    let mut all = query.to_vec();
    if !all.iter().any(|(name, _)| *name == "limit") {
        all.push(("limit", PAGE.to_string()));
    }
    all.extend(after.map(|after| ("after", after.to_owned())));
    with_query(path, all)
}

/// Hands over every page of a list as it came, as long as somebody takes them.
fn ask_pages(
    client: &Client,
    path: &str,
    query: &[(&'static str, String)],
    hand: &SyncSender<Result<Bytes, CliError>>,
) {
    /// What is looked at before the next one is asked for.
    #[derive(Deserialize)]
    struct Page {
        next: Option<String>,
    }

    let mut after = None;
    loop {
        let page = client.ask(&Request::get(page_path(path, query, after.as_deref())));
        let read = page.as_ref().ok().and_then(|page| serde_json::from_slice::<Page>(page).ok());
        let next = read.and_then(|page| page.next);
        let ends = next.is_none() || next == after;
        if hand.send(page).is_err() || ends {
            return;
        }
        after = next;
    }
}

/// The items of a page, and where the next one begins.
fn read_page(
    client: &Client,
    page: &[u8],
    after: Option<&str>,
) -> Result<(Vec<Value>, Option<String>), CliError> {
    let mut answer: Value = serde_json::from_slice(page)
        .map_err(|error| client.strange(&format!("not JSON: {error}")))?;
    let next = answer.get("next").and_then(Value::as_str).map(str::to_owned);
    let Some(Value::Array(items)) = answer.get_mut("items").map(Value::take) else {
        return Err(client.strange("a list without items"));
    };
    if next.is_some() && next.as_deref() == after {
        return Err(client.strange("a list without an end"));
    }
    Ok((items, next))
}

/// A conversation with a server.
pub(super) struct ApiSession<'t, 'a> {
    pub(super) client: Client,
    pub(super) output: Output,
    pub(super) terminal: &'t mut Terminal<'a>,
}

/// Whatever was shown: whoever reads it has to know how old it is.
impl Drop for ApiSession<'_, '_> {
    fn drop(&mut self) {
        if let Some(why) = self.client.stale() {
            let _nobody_reads = writeln!(self.terminal.stderr, "warning: {}", plain(why));
        }
    }
}

impl ApiSession<'_, '_> {
    pub(super) fn get(&self, path: impl Into<String>) -> Result<Value, CliError> {
        self.client.ask_json(&Request::get(path))
    }

    /// Tells something while it takes its time, if somebody looks on.
    pub(super) fn progress(&mut self, what: &str) -> io::Result<()> {
        if self.terminal.seen {
            writeln!(self.terminal.stderr, "{}", plain(what))?;
        }
        Ok(())
    }

    /// Prints one thing.
    pub(super) fn show(&mut self, item: &Value, fields: &[Column]) -> Outcome {
        match self.output {
            Output::Table => write_fields(item, fields, self.terminal.stdout)?,
            Output::Json => writeln!(self.terminal.stdout, "{}", json(item))?,
        }
        Ok(DONE)
    }

    /// Prints things that are here.
    pub(super) fn items(&mut self, items: Vec<Value>, columns: &[Column]) -> Outcome {
        match self.output {
            Output::Table => {
                let mut table = Table::new(columns);
                for item in &items {
                    table.row(columns.iter().map(|(_, cell)| cell(item)));
                }
                table.write(self.terminal.stdout)?;
            }
            Output::Json => writeln!(self.terminal.stdout, "{}", json(&Value::Array(items)))?,
        }
        Ok(DONE)
    }

    /// Prints the items of a list that `keep` keeps. While a page is written the next one is asked
    /// for: of a list of a million things both sides have as much to do.
    pub(super) fn list(
        &mut self,
        path: &str,
        query: &[(&'static str, String)],
        columns: &[Column],
        keep: &dyn Fn(&Value) -> bool,
    ) -> Outcome {
        let Self { client, output, terminal } = self;
        let client = &*client;
        let mut out = io::BufWriter::with_capacity(WRITTEN_AT_ONCE, &mut *terminal.stdout);
        let mut table = Table::new(columns);
        // JSON goes out page by page: a million items need not be here at once.
        let mut separator = "[";
        thread::scope(|scope| {
            let (hand, pages) = sync_channel(1);
            scope.spawn(move || ask_pages(client, path, query, &hand));
            let mut after = None;
            for page in pages {
                let (items, next) = read_page(client, &page?, after.as_deref())?;
                for item in items.iter().filter(|item| keep(item)) {
                    match output {
                        Output::Table => table.row(columns.iter().map(|(_, cell)| cell(item))),
                        Output::Json => {
                            write!(out, "{separator}{}", json(item))?;
                            separator = ",";
                        }
                    }
                }
                after = next;
            }
            Ok::<_, CliError>(())
        })?;
        match output {
            Output::Table => table.write(&mut out)?,
            Output::Json if separator == "[" => writeln!(out, "[]")?,
            Output::Json => writeln!(out, "]")?,
        }
        out.flush()?;
        Ok(DONE)
    }

    /// The first item of a list that is wanted.
    pub(super) fn find(
        &self,
        path: &str,
        wanted: &dyn Fn(&Value) -> bool,
    ) -> Result<Option<Value>, CliError> {
        let mut cursor = None;
        loop {
            let (items, next) = self.page(path, &[], cursor.as_deref())?;
            let found = items.into_iter().find(|item| wanted(item));
            if found.is_some() || next.is_none() {
                return Ok(found);
            }
            cursor = next;
        }
    }

    /// Some items of a list, and where the next ones begin.
    pub(super) fn page(
        &self,
        path: &str,
        query: &[(&'static str, String)],
        after: Option<&str>,
    ) -> Result<(Vec<Value>, Option<String>), CliError> {
        let answer = self.client.ask(&Request::get(page_path(path, query, after)))?;
        read_page(&self.client, &answer, after)
    }

    /// Makes a change and says what came of it in the words of `line`, which is given
    /// what was changed.
    pub(super) fn change(
        &mut self,
        change: Change,
        edit: ChangeArgs,
        line: &dyn Fn(&Value) -> String,
    ) -> Outcome {
        let answer = self.make(change, edit)?;
        self.say(&answer, line)
    }

    /// Makes a change.
    pub(super) fn make(&self, change: Change, edit: ChangeArgs) -> Result<Value, CliError> {
        self.client.ask_json(&change.request(edit))
    }

    /// Makes a change of many steps. Whoever looks on is told what is done and how many of the
    /// steps have been, once it takes more than a moment: each step is a revision of the registry.
    pub(super) fn make_many(
        &mut self,
        change: Change,
        edit: ChangeArgs,
        what: &str,
        steps: Option<usize>,
    ) -> Result<Value, CliError> {
        self.progress(&format!("{what}..."))?;
        if !self.terminal.seen {
            return self.make(change, edit);
        }
        let before = self.client.get_revision()?;
        let stderr = &mut *self.terminal.stderr;
        let mut shown = false;
        let answer = self.client.ask_long(&change.request(edit), &mut |revision| {
            let done = revision.saturating_sub(before);
            // Others may make changes too.
            let done = steps.map_or(done, |steps| done.min(steps as u64));
            if done > 0 {
                let of = steps.map_or_else(String::new, |steps| format!(" of {steps}"));
                // The change goes on whoever looks.
                let _shown = write!(stderr, "\r{CLEAR}{what}: {done}{of}");
                let _shown = stderr.flush();
                shown = true;
            }
        });
        if shown {
            write!(stderr, "\r{CLEAR}")?;
        }
        answer
    }

    /// Says what came of a change.
    pub(super) fn say(&mut self, answer: &Value, line: &dyn Fn(&Value) -> String) -> Outcome {
        let Terminal { stdout, stderr, .. } = &mut *self.terminal;
        match self.output {
            Output::Json => writeln!(stdout, "{}", json(answer))?,
            Output::Table => {
                let dry = answer.get("dry_run") == Some(&Value::Bool(true));
                let prefix = if dry { "dry run, nothing changed: " } else { "" };
                let line = line(answer.get("item").unwrap_or(&Value::Null));
                writeln!(stdout, "{prefix}{}", plain(&line))?;
                for moved in each(answer, "moves") {
                    writeln!(stdout, "{}", plain(&told_move(moved)))?;
                }
            }
        }
        tell_warnings(answer, *stderr)?;
        Ok(DONE)
    }
}

/// Tells what was not done beside what was.
pub(super) fn tell_warnings(answer: &Value, stderr: &mut dyn io::Write) -> io::Result<()> {
    for warning in each(answer, "warnings").filter_map(Value::as_str) {
        writeln!(stderr, "warning: {}", plain(warning))?;
    }
    Ok(())
}

/// The items of a list in an answer.
pub(super) fn each<'v>(answer: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    answer.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// A user or a team, by name.
pub(super) fn named(item: &Value) -> String {
    let name = cell(item, "name");
    let going = item.get("going").is_some_and(|going| *going == Value::Bool(true));
    if going { name + " (being removed)" } else { name }
}

/// A VM that was given another address.
pub(super) fn told_move(moved: &Value) -> String {
    let [vm, from, to] = ["vm", "from", "to"].map(|key| cell(moved, key));
    let old: Vec<&str> = each(moved, "old_for").filter_map(Value::as_str).collect();
    let old = match old.as_slice() {
        [] => String::new(),
        some => format!("; {from} leads there for a while for {}", some.join(", ")),
    };
    format!("vm {vm} moved from {from} to {to}{old}")
}
