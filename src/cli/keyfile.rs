//! Keys that arguments name: files of `authorized_keys` lines, stdin, fingerprints, host keys.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::error::CliError;
use super::remote::read;
use super::terminal::Terminal;
use crate::registry;
use crate::registry::refusal::utc;
use crate::ssh::authorized_keys::AuthorizedKey;
use crate::ssh::certificate::{Certificate, CertificateFault};
use crate::ssh::publickey::{Fingerprint, PublicKey};

/// Largest file of keys read, in bytes: a thousand keys of the longest kind.
const BYTES_MAX: u64 = 16 << 20;
/// Names stdin.
const STDIN: &str = "-";

/// A line of a file that is a key.
pub(super) struct KeyLine {
    pub(super) line: String,
    pub(super) fingerprint: Fingerprint,
}

/// The text of a file that holds nothing secret, or of stdin for `-`.
fn text(file: &str, terminal: &mut Terminal<'_>) -> Result<String, CliError> {
    let name = if file == STDIN { "stdin" } else { file };
    let mut bytes = Vec::new();
    if file == STDIN {
        let stdin = terminal.stdin.take(BYTES_MAX + 1).read_to_end(&mut bytes);
        stdin.map_err(|error| CliError::failed(format!("stdin: {error}")))?;
    } else {
        bytes = read(Path::new(file))?;
    }
    if bytes.len() as u64 > BYTES_MAX {
        return Err(CliError::failed(format!("{name} is too long for a file of keys")));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| CliError::failed(format!("{name} is not text; name the .pub file")))?;
    if text.contains("PRIVATE KEY") {
        return Err(CliError::failed(format!(
            "{name} holds a private key, which nobody else should ever get; name the .pub file"
        )));
    }
    Ok(text)
}

/// The line of the one certificate of a file, or of stdin for `-`.
pub(super) fn certificate(file: &str, terminal: &mut Terminal<'_>) -> Result<String, CliError> {
    let name = if file == STDIN { "stdin" } else { file };
    let text = text(file, terminal)?;
    let is_comment = |line: &&str| line.is_empty() || line.starts_with('#');
    let mut lines = text.lines().map(str::trim).filter(|line| !is_comment(line));
    match (lines.next(), lines.next()) {
        (Some(line), None) => match Certificate::parse_line(line) {
            // What is wrong with its signature is for the server to say.
            Ok(_) | Err(CertificateFault::Signature) => Ok(line.to_owned()),
            Err(fault) => Err(CliError::failed(format!(
                "{name}: {fault}; name the -cert.pub file that ssh-keygen -s made"
            ))),
        },
        (_, _) => Err(CliError::failed(format!("{name} does not hold one certificate"))),
    }
}

/// The keys of a file, or of stdin for `-`; at least one. Every line is read before any is used.
pub(super) fn keys(file: &str, terminal: &mut Terminal<'_>) -> Result<Vec<KeyLine>, CliError> {
    let name = if file == STDIN { "stdin" } else { file };
    let text = text(file, terminal)?;
    let mut keys = Vec::new();
    let mut faults = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match AuthorizedKey::parse(line) {
            Ok(key) => {
                let fingerprint = key.key.fingerprint();
                keys.push(KeyLine { line: line.to_owned(), fingerprint });
            }
            Err(fault) => faults.push(format!("{name}:{number}: {fault}")),
        }
    }
    if !faults.is_empty() {
        return Err(CliError::failed(faults.join("; ")));
    }
    if keys.is_empty() {
        let what = format!("{name} holds no key; ssh-keygen -t ed25519 makes one");
        return Err(CliError::failed(what));
    }
    Ok(keys)
}

/// The one key of a file, or of stdin for `-`.
pub(super) fn one_key(file: &str, terminal: &mut Terminal<'_>) -> Result<KeyLine, CliError> {
    let mut keys = keys(file, terminal)?;
    let count = keys.len();
    match keys.pop() {
        Some(key) if count == 1 => Ok(key),
        Some(_) | None => {
            Err(CliError::failed(format!("{file} holds {count} keys; name a file with one")))
        }
    }
}

/// A key by its fingerprint, or by a file that holds it.
pub(super) fn fingerprint(
    text: &str,
    terminal: &mut Terminal<'_>,
) -> Result<Fingerprint, CliError> {
    if text.starts_with("SHA256:") {
        return parse_fingerprint(text).map_err(CliError::Usage);
    }
    one_key(text, terminal).map(|key| key.fingerprint)
}

pub(super) fn parse_fingerprint(text: &str) -> Result<Fingerprint, String> {
    text.parse().map_err(|_| format!("`{text}` is no fingerprint; ssh-keygen -l -f FILE prints it"))
}

/// The identity of an edge: its line, a file that holds it, or stdin for `-`.
pub(super) fn edge_identity(
    text: &str,
    terminal: &mut Terminal<'_>,
) -> Result<PublicKey, CliError> {
    const FIX: &str = "write the ssh-ed25519 line that `keyway identity` prints there";
    let wrong = |what: &str, fix: &str| CliError::failed(format!("{what}; {fix}"));
    // A line has a space in it, which a file's name hardly has.
    if text.trim().starts_with("ssh-") && text.trim().contains(' ') {
        return registry::edge_identity(text).map_err(|fix| wrong("no identity of an edge", fix));
    }
    if parse_fingerprint(text).is_ok() {
        return Err(wrong("a fingerprint is no identity of an edge", FIX));
    }
    let KeyLine { line, .. } = one_key(text, terminal)?;
    let name = if text == STDIN { "stdin" } else { text };
    registry::edge_identity(&line).map_err(|fix| wrong(name, fix))
}

/// A host key: `SHA256:...`, a line, or a file that holds one.
pub(super) fn host_key(text: &str) -> Result<String, CliError> {
    if text.starts_with("SHA256:") {
        parse_fingerprint(text).map_err(CliError::Usage)?;
        return Ok(text.to_owned());
    }
    if PublicKey::parse_line(text).is_ok() {
        return Ok(text.trim().to_owned());
    }
    let fix = "give SHA256:..., the line of the VM's ssh_host_*_key.pub, or that file's name";
    let what = |why: &str| CliError::failed(format!("host key `{text}`: {why}; {fix}"));
    let file = std::fs::read_to_string(text).map_err(|error| what(&error.to_string()))?;
    let mut lines = file.lines().map(str::trim).filter(|line| !line.is_empty());
    match (lines.next(), lines.next()) {
        (Some(line), None) => match PublicKey::parse_line(line) {
            Ok(_) => Ok(line.to_owned()),
            Err(fault) => Err(what(&fault.to_string())),
        },
        (_, _) => Err(what("the file does not hold one line")),
    }
}

/// A field that is a Unix time, for people.
pub(super) fn seconds(item: &Value, key: &str) -> String {
    time(item.get(key).and_then(Value::as_u64))
}

/// A Unix time for people.
pub(super) fn time(value: Option<u64>) -> String {
    value.map_or_else(String::new, utc)
}
