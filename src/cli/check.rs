//! `keyway check`: what both files hold, or everything that is wrong with them.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use super::{DONE, FAULTS, Files, Output};
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
            let mut sizes = String::new();
            // The list itself takes the last name.
            for (name, number) in
                counts(&loaded).into_iter().filter(|(name, _)| *name != "warnings")
            {
                let _ = write!(sizes, "\"{name}\":{number},");
            }
            let warnings = json_list(&loaded.warnings);
            writeln!(stdout, "{{\"ok\":true,{sizes}\"faults\":[],\"warnings\":{warnings}}}")?;
            Ok(DONE)
        }
        (Err(report), output) => {
            tell_faults(&report, stderr)?;
            if output == Output::Json {
                let (faults, warnings) = (json_list(&report.faults), json_list(&report.warnings));
                writeln!(stdout, "{{\"ok\":false,\"faults\":{faults},\"warnings\":{warnings}}}")?;
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

fn json_list(findings: &[Finding]) -> String {
    let each = findings.iter().map(|finding| {
        let Finding { file, line, what, fix, .. } = finding;
        let [file, what, fix] = [file, what.as_str(), fix.as_str()].map(json_string);
        format!("{{\"file\":{file},\"line\":{line},\"what\":{what},\"fix\":{fix}}}")
    });
    format!("[{}]", each.collect::<Vec<_>>().join(","))
}

/// RFC 8259 §7.
fn json_string(text: &str) -> String {
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
