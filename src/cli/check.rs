//! `keyway check`: what both files hold, or everything that is wrong with them.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::{DONE, FAULTS, Files, Output, table::json};
use crate::config::{self, Finding, Fleet, Loaded, Report};
use crate::edge::limits;
use crate::words::count;

pub(super) fn run(
    files: &Files,
    output: Output,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> io::Result<u8> {
    let loaded = config::load(files.config.as_deref(), files.fleet.as_deref()).map(|mut loaded| {
        // Nobody is told anything wrong where the system does not say.
        if let Ok(descriptors) = limits::descriptors() {
            limits::check(&mut loaded, descriptors);
        }
        loaded
    });
    match (loaded, output) {
        (Ok(loaded), Output::Table) => {
            for (name, number) in counts(&loaded) {
                writeln!(stdout, "{name:<10}{number:>8}")?;
            }
            tell("warning", &loaded.warnings, stdout)?;
            Ok(DONE)
        }
        (Ok(loaded), Output::Json) => {
            let mut all = told(&Report { faults: Vec::new(), warnings: loaded.warnings.clone() });
            // The list itself takes the last name.
            let sizes = counts(&loaded).into_iter().filter(|(name, _)| *name != "warnings");
            if let Value::Object(fields) = &mut all {
                fields.extend(sizes.map(|(name, number)| (name.to_owned(), number.into())));
            }
            writeln!(stdout, "{}", json(&all))?;
            Ok(DONE)
        }
        (Err(report), output) => {
            tell_faults(&report, stderr)?;
            if output == Output::Json {
                writeln!(stdout, "{}", json(&told(&report)))?;
            }
            Ok(FAULTS)
        }
    }
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

fn counts(loaded: &Loaded) -> Vec<(&'static str, usize)> {
    let mut sizes = Vec::new();
    if let Some(Fleet { snapshot, .. }) = &loaded.fleet {
        sizes.extend([
            ("addresses", snapshot.addresses().len()),
            ("users", snapshot.users().len()),
            ("keys", snapshot.users().map(|user| user.keys.len()).sum()),
            ("vms", snapshot.vms().len()),
        ]);
    }
    sizes.push(("warnings", loaded.warnings.len()));
    sizes
}

fn told(Report { faults, warnings }: &Report) -> Value {
    let each = |findings: &[Finding]| {
        let one = |Finding { file, line, what, fix, .. }: &Finding| json!({ "file": &**file, "line": line, "what": what, "fix": fix });
        findings.iter().map(one).collect::<Vec<_>>()
    };
    json!({ "ok": faults.is_empty(), "faults": each(faults), "warnings": each(warnings) })
}
