//! No function is public for nobody. The compiler takes a library's public functions for called;
//! their names tell whether somebody but tests calls them.

use std::collections::HashMap;

use super::source::{functions, without_tests};
use super::{File, is_rust, is_test, is_word_char, repository};

/// Public functions that nobody but tests calls, or a directory of such, and what they wait for.
const WAITING: &[(&str, &str)] = &[
    ("signature", "a proof is kept for whoever verifies it again"),
    ("src/nodes/docker/", "all that is asked of a daemon, for the nodes' registry"),
    ("take_over_client", "a relay's VM leg after a hot restart"),
    ("take_over_server", "a session after a handoff or a hot restart"),
];

/// How a name occurs beyond its definitions.
#[derive(Default)]
struct Occurs {
    /// Behind a dot, and called.
    as_method: bool,
    /// Behind `::`.
    in_path: bool,
    alone: bool,
}

/// Blanks imports, which call nothing; a name that is given another one there counts as called.
fn without_imports(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut import = false;
    for statement in code.split_inclusive([';', '{', '}']) {
        let head = statement.trim_start();
        let head = head.rsplit(']').next().unwrap_or(head).trim_start();
        let head = head.strip_prefix("pub").map_or(head, |rest| {
            let rest = rest.trim_start();
            rest.strip_prefix('(')
                .and_then(|rest| rest.split_once(')'))
                .map_or(rest, |(_, rest)| rest)
        });
        import |= head.trim_start().starts_with("use ");
        if !import {
            kept.push_str(statement);
        } else if let Some((renamed, _)) = statement.split_once(" as ") {
            let name = renamed.rsplit(|c| !is_word_char(c)).next().unwrap_or_default();
            kept.extend(["(", name, ");"]);
        }
        import &= !statement.ends_with(';');
    }
    kept
}

fn occurrences(code: &str, into: &mut HashMap<String, Occurs>) {
    let mut rest = code;
    while let Some(from) = rest.find(is_word_char) {
        let word_len = rest[from..].find(|c| !is_word_char(c)).unwrap_or(rest.len() - from);
        let at = code.len() - rest.len() + from;
        let (before, after) = (code[..at].trim_end(), code[at + word_len..].trim_start());
        let is_definition =
            before.ends_with("fn") && !before[..before.len() - 2].ends_with(is_word_char);
        if !is_definition {
            let occurs = into.entry(code[at..at + word_len].to_owned()).or_default();
            if before.ends_with('.') && !before.ends_with("..") {
                occurs.as_method |= after.starts_with(['(', ':']);
            } else if before.ends_with("::") {
                occurs.in_path = true;
            } else {
                occurs.alone = true;
            }
        }
        rest = &rest[from + word_len..];
    }
}

/// The public functions of `src` that no code but tests calls.
fn dead(files: &[File]) -> Vec<(String, String)> {
    let sources = files.iter().filter(|file| is_rust(&file.path) && !is_test(&file.path));
    let sources: Vec<_> = sources.map(|file| (&file.path, without_tests(&file.code))).collect();
    let mut occurs = HashMap::new();
    for (_, code) in &sources {
        occurrences(&without_imports(code), &mut occurs);
    }
    let mut dead = vec![];
    for (path, code) in sources.iter().filter(|(path, _)| path.starts_with("src/")) {
        let lines: Vec<&str> = code.lines().collect();
        for function in functions(code) {
            let from = *function.lines.start();
            if !lines[from - 1].trim_start().starts_with("pub") {
                continue;
            }
            let head = lines[from - 1..*function.lines.end()].join(" ");
            let arguments = head.split_once('(').map_or("", |(before, rest)| {
                // `pub(crate) fn f(..)`: the second one.
                if before.trim() == "pub" {
                    rest.split_once('(').map_or("", |(_, rest)| rest)
                } else {
                    rest
                }
            });
            let first = arguments.split([',', ')', ':']).next().unwrap_or("");
            let takes_self = super::has_word(first, "self");
            let is_called = occurs.get(function.name).is_some_and(|occurs| {
                occurs.in_path || if takes_self { occurs.as_method } else { occurs.alone }
            });
            if !is_called {
                dead.push((format!("{path}:{from}"), function.name.to_owned()));
            }
        }
    }
    dead
}

fn waits(waiting: &str, place: &str, name: &str) -> bool {
    if waiting.ends_with('/') { place.starts_with(waiting) } else { name == waiting }
}

#[test]
fn nothing_is_public_for_nobody() {
    let dead = dead(&repository());
    let mut wrong: Vec<String> = vec![];
    for (place, name) in &dead {
        if !WAITING.iter().any(|(waiting, _)| waits(waiting, place, name)) {
            wrong.push(format!("{place}: nobody but tests calls `{name}`"));
        }
    }
    for (waiting, _) in WAITING {
        if !dead.iter().any(|(place, name)| waits(waiting, place, name)) {
            wrong.push(format!("`{waiting}` is called, or gone: it waits no more"));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn a_function_that_only_tests_call_is_found() {
    let room = "//! x
        pub use other::{lost, called as named};
        pub fn lost() { lost_too() }
        pub(crate) fn called<A, B>(a: A, b: B) { x.by_dot(); lost::<u8> }
        impl X {
            pub fn by_dot(&self) {}
            pub const fn gone(&self) -> bool { self.gone }
            pub(super) fn by_path(&mut self) {}
        }
        fn f() { named(); X::by_path }
        #[cfg(test)]
        mod tests { fn t() { x.gone(); lost_not() } }
        pub fn lost_not() {}
        ";
    let room = room.replace("lost::<u8>", "").replace("lost_too()", "");
    let tests = File::new("src/ssh/wire_tests.rs", "//! x\nfn t() { lost(); x.gone() }\n");
    let names: Vec<String> = dead(&[File::new("src/ssh/wire.rs", &room), tests])
        .into_iter()
        .map(|(_, name)| name)
        .collect();
    assert_eq!(names, ["lost", "gone", "lost_not"]);
}
