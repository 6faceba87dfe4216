//! Where a front door answers, and where it or an agent keeps what is made once.

use std::path::{Path, PathBuf};

use super::document::{Document, Section};
use super::door::state_dir;
use super::keyway::{SOCKET, STATE_DIR};
use super::source::{Source, source};
use super::values::path_or_none;
use super::{Report, agent};

/// Where a running front door is found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// Its state directory.
    pub state_dir: PathBuf,
    /// The API's socket.
    pub socket: PathBuf,
}

/// Where the front door of this `keyway.toml` is found, or the agent of this `agent.toml`. Nothing
/// else of the file is read, nor has to be right: whoever asks a running front door for something
/// may not be able to read its keys.
///
/// # Errors
/// That there is no such file, that it is not TOML, or what is wrong with `state_dir`
/// or `api.socket`.
pub fn find(config: &Path) -> Result<Found, Report> {
    let source =
        source(config, 0).map_err(|fault| Report { faults: vec![fault], warnings: Vec::new() })?;
    let (findings, found) = read(&source);
    match findings.into_findings() {
        (faults, _) if faults.is_empty() => Ok(found),
        (faults, warnings) => Err(Report { faults, warnings }),
    }
}

fn read(read: &Source) -> (Document, Found) {
    let usual = if agent::is_agent(read) { agent::STATE_DIR } else { STATE_DIR };
    let document = Document::new(&read.name, read.order, &read.text);
    let table = document.parse(&read.text);
    let root = Section::root(&document, &table);
    let state_dir = state_dir(&root, &read.base, usual);
    let socket = root.section("api").and_then(|section| section.get("socket"));
    let socket = socket.and_then(|value| path_or_none(&value, &read.base));
    // An agent answers at none, and whoever asks there is told so.
    let socket = socket.unwrap_or_else(|| state_dir.join(SOCKET));
    drop(table);
    (document, Found { state_dir, socket })
}
