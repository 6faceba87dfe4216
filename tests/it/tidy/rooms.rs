//! Which room of the crate may name which.

use super::{File, Finding, is_test, line_of, paths_out};

/// Every room, and the others that it may name. What stands in no row is no arrow, and a
/// new room has none.
const ROOMS: &[(&str, &[&str])] = &[
    (
        "cli",
        &[
            "config",
            "durable",
            "host",
            "plain_text",
            "plural",
            "registry",
            "route",
            "serve",
            "ssh",
            "state",
            "trust",
            "unix_time",
        ],
    ),
    ("config", &["durable", "plain_text", "plural", "registry", "route", "ssh", "trust"]),
    (
        "control",
        &[
            "config",
            "log_limiter",
            "plain_text",
            "plural",
            "registry",
            "route",
            "ssh",
            "trust",
            "unix_time",
        ],
    ),
    ("demo", &["config", "edge", "host", "metrics", "route", "serve", "ssh", "state"]),
    ("durable", &[]),
    ("edge", &["ended", "log_limiter", "metrics", "plural", "route", "ssh", "unix_time"]),
    ("ended", &["plural", "ssh"]),
    ("host", &["config", "plural"]),
    ("log", &[]),
    ("log_limiter", &["log"]),
    ("main", &["cli", "demo", "serve"]),
    ("metrics", &["ended", "log"]),
    ("nodes", &["log_limiter", "plain_text", "plural", "ssh", "unix_time"]),
    ("plain_text", &[]),
    ("plural", &[]),
    ("registry", &["durable", "plain_text", "plural", "route", "ssh"]),
    ("route", &["plain_text"]),
    (
        "serve",
        &[
            "config",
            "control",
            "edge",
            "host",
            "log",
            "metrics",
            "nodes",
            "plain_text",
            "registry",
            "route",
            "ssh",
            "state",
            "unix_time",
        ],
    ),
    ("ssh", &[]),
    ("state", &["durable", "plain_text", "registry", "route", "ssh", "unix_time"]),
    ("testing", &["config", "control", "edge", "ssh"]),
    ("trust", &[]),
    ("unix_time", &[]),
];

/// What tests may name besides: a directory of their own, and what the host allows.
const OF_TESTS: &[&str] = &["host", "testing"];

/// The room of a source file; nothing for the crate's map, which names all of them.
fn room_of(path: &str) -> Option<&str> {
    let path = path.strip_prefix("src/")?;
    let first = path.split('/').next()?;
    let room = first.strip_suffix(".rs").unwrap_or(first);
    (room != "lib").then(|| room.strip_suffix("_tests").unwrap_or(room))
}

pub(super) fn rooms_named(file: &File) -> Vec<Finding> {
    let Some(room) = room_of(&file.path) else { return vec![] };
    let Some((_, may)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![Finding(1, format!("`{room}` is no room that is known here"))];
    };
    let is_room = |name: &str| ROOMS.iter().any(|(room, _)| *room == name);
    // What tests take along stands in files of theirs, or behind the code of a file.
    let tests_from =
        file.code.find("#[cfg(test)]").map_or(usize::MAX, |at| line_of(&file.code, at));
    let mut found = vec![];
    for (line, name) in paths_out(&file.code) {
        let in_test = is_test(&file.path) || line > tests_from;
        let may = may.contains(&name.as_str()) || in_test && OF_TESTS.contains(&name.as_str());
        if is_room(&name) && name != room && !may {
            found.push(Finding(line, format!("`{room}` names `{name}`")));
        }
    }
    found
}
