//! Programs of other people that the tests run against. A missing one fails its test, unless
//! `KEYWAY_ALLOW_MISSING` names its peer: then `tests/run` lists it last.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Where `program` of `peer` is: a name to look up in PATH, or a path.
#[track_caller]
pub(crate) fn program(peer: &str, program: &str) -> Option<PathBuf> {
    let mut places = vec![PathBuf::from(program)];
    if !program.contains('/') {
        let path = env::var_os("PATH").unwrap_or_default();
        places = env::split_paths(&path)
            .chain(["/usr/sbin".into()])
            .map(|dir| dir.join(program))
            .collect();
    }
    let found = places.into_iter().find(|place| place.exists());
    if found.is_none() {
        let allowed = env::var("KEYWAY_ALLOW_MISSING").unwrap_or_default();
        assert!(
            allowed.split(',').any(|name| name == peer),
            "missing peer `{peer}`: no {program}. `tests/run` installs it; KEYWAY_ALLOW_MISSING={peer} goes without"
        );
        skipped(&format!("peer {peer}: no {program}"));
    }
    found
}

/// A program of the Python packages that `tests/run` installs.
#[track_caller]
pub(crate) fn python(name: &str) -> Option<PathBuf> {
    program("python", &dir().join("venv/bin").join(name).to_string_lossy())
}

/// The node packages that `tests/run` installs.
#[track_caller]
pub(crate) fn node_modules() -> Option<PathBuf> {
    program("node", &dir().join("node/node_modules/ssh2").to_string_lossy())
        .and_then(|path| path.parent().map(Path::to_owned))
}

/// A script of ours that drives a peer.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name)
}

/// What `tests/run` lists at its end.
pub(crate) fn skipped(what: &str) {
    eprintln!("skipped: {what}");
    if let Some(list) = env::var_os("KEYWAY_SKIPPED_FILE") {
        let mut list =
            fs::OpenOptions::new().append(true).create(true).open(list).expect("the list of skips");
        writeln!(list, "{what}").expect("the list of skips");
    }
}

fn dir() -> PathBuf {
    env::var_os("KEYWAY_PEERS_DIR").map_or_else(
        // target/tmp -> target/peers
        || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peers"),
        PathBuf::from,
    )
}
