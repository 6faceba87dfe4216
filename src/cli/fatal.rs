//! What keeps `serve` or `agent` from running, told as its log is: in lines for people, or in JSON
//! for whoever collects them. Of all lines these are the ones that nobody may fail to understand.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::{check, table};
use crate::config::{self, AgentFiles, Files, Finding, Log, Report};
use crate::plural::count;
use crate::registry::refusal::utc;
use crate::serve::Failure;
use crate::unix_time::unix_s;

/// How it is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// For people.
    Readable,
    /// An object a line.
    Json,
}

impl Form {
    /// As the log of these files is, whatever else is wrong with them. `seen`:
    /// stderr is a terminal.
    pub(super) fn of(files: &Files, seen: bool) -> Self {
        Self::like(config::log(files.config.as_deref()), seen)
    }

    /// The same, of an agent.
    pub(super) fn of_agent(files: &AgentFiles, seen: bool) -> Self {
        Self::like(config::agent_log(&files.config), seen)
    }

    const fn like(log: Log, seen: bool) -> Self {
        let json = match log {
            Log::Json => true,
            Log::Readable => false,
            Log::Auto => !seen,
        };
        if json { Self::Json } else { Self::Readable }
    }

    /// Why it ended.
    pub(super) fn failure(self, failure: &Failure, stderr: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Readable => tell(failure, stderr),
            Self::Json => line(stderr, "ERROR", &failure.to_string(), json!({})),
        }
    }

    /// Why it did not begin.
    pub(super) fn report(self, report: &Report, stderr: &mut dyn Write) -> io::Result<()> {
        if self == Self::Readable {
            return check::tell_faults(report, stderr);
        }
        let mut each = |level, findings: &[Finding]| {
            findings.iter().try_for_each(|finding| {
                let Finding { file, line: at, what, fix, .. } = finding;
                line(stderr, level, what, json!({ "file": &**file, "line": at, "fix": fix }))
            })
        };
        each("ERROR", &report.faults)?;
        each("WARN", &report.warnings)?;
        let faults = count(report.faults.len(), "fault");
        line(stderr, "ERROR", &format!("keyway does not start: {faults} in its files"), json!({}))
    }
}

/// Why it ended, for people: it may name files, and what they hold.
pub(super) fn tell(failure: &Failure, stderr: &mut dyn Write) -> io::Result<()> {
    let text = failure.to_string();
    let lines: Vec<String> = text.lines().map(table::plain).collect();
    writeln!(stderr, "keyway: {}", lines.join("\n"))
}

fn line(stderr: &mut dyn Write, level: &str, message: &str, mut line: Value) -> io::Result<()> {
    if let Some(fields) = line.as_object_mut() {
        fields.insert("timestamp".to_owned(), utc(unix_s()).into());
        fields.insert("level".to_owned(), level.into());
        fields.insert("message".to_owned(), message.into());
    }
    writeln!(stderr, "{}", table::json(&line))
}
