//! The rules of this code base that no tool knows, as one table. Each row carries a planted
//! violation, and a canary shows that the row catches it.

mod circles;
mod comments;
mod dead;
mod imports;
mod long_functions;
mod rooms;
mod source;
mod testing;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use keyway::ended::{Cause, Side, Stage};

use self::source::{blank, has_word, is_word_char, line_of, words};

/// Which room (a path prefix under `src/`) may name which crate.
const CRATES: &[(&str, &[&str])] = &[
    (
        "nix",
        &[
            "src/host.rs",
            "src/edge/",
            "src/demo",
            "src/control/dns/socket.rs",
            "src/log.rs",
            "src/unix_time.rs",
        ],
    ),
    ("libc", &["src/edge/", "src/demo/terminal.rs", "src/control/dns/socket.rs"]),
    (
        "socket2",
        &["src/edge/", "src/demo", "src/control/api/over_tls.rs", "src/control/dns/socket.rs"],
    ),
    ("papaya", &["src/route/versioned.rs"]),
    // Beyond `ssh` only as the provider that rustls is told to take.
    (
        "aws_lc_rs",
        &["src/ssh/", "src/state/seal.rs", "src/trust.rs", "src/control/api/over_tls.rs"],
    ),
    ("tokio", &["src/control/", "src/fleet/", "src/registry/", "src/nodes/", "src/cli/"]),
    ("rusqlite", &["src/registry/store/"]),
    ("age", &["src/cli/archive.rs", "src/cli/backup"]),
    ("tar", &["src/cli/archive.rs"]),
    ("hickory_proto", &["src/control/dns/"]),
    (
        "hyper",
        &[
            "src/cli/",
            "src/control/http.rs",
            "src/control/api/body.rs",
            "src/control/feed/",
            "src/nodes/docker/",
            "src/trust.rs",
        ],
    ),
    ("tokio_rustls", &["src/cli/", "src/control/", "src/trust.rs"]),
    ("axum", &["src/control/", "src/fleet/", "src/registry/", "src/cli/"]),
];

/// About 500 lines is a room; beyond this a file stands here with its reason.
const LINES_USUAL: usize = 600;
/// No reason is good enough for more.
const LINES_MAX: usize = 1_000;
const LONG_FILES: &[(&str, &str)] = &[
    ("src/config/config_tests.rs", "one table of faulty files, each with the faults it must show"),
    ("src/ssh/certificate_tests.rs", "one forge of certificates serves all of its tests"),
];

/// Files whose tests may wait by the clock, and why.
const SLEEPERS: &[(&str, &str)] = &[
    ("tests/it/harness/wait.rs", "the one place that polls, with a deadline"),
    ("src/edge/executor_tests.rs", "an executor's deadlines are what it tests"),
    ("src/control/http_tests.rs", "its time is tokio's paused one, which nobody waits for"),
    ("src/nodes/docker/testing/mod.rs", "the same, in which a daemon takes its time"),
    ("src/nodes/docker/hostile_tests.rs", "its time is tokio's paused one, which nobody waits for"),
    ("tests/it/tidy.rs", "names what it looks for"),
];

/// One rule: what it is called, the files it looks at, how it looks, and a violation it must catch.
struct Rule {
    name: &'static str,
    applies: fn(&str) -> bool,
    find: fn(&File) -> Vec<Finding>,
    plant: (&'static str, &'static str),
}

const RULES: &[Rule] = &[
    Rule {
        name: "a crate is named only in its room",
        applies: |path| path.starts_with("src/"),
        find: crates_out_of_room,
        plant: ("src/route/mod.rs", "//! x\nuse nix::unistd::Pid;\n"),
    },
    Rule {
        name: "papaya stays behind the table",
        applies: |path| path.starts_with("src/"),
        find: crates_out_of_room,
        plant: ("src/route/mod.rs", "//! x\nfn f(m: &papaya::HashMap<u8, u8>) {}\n"),
    },
    Rule {
        name: "no room names one above it",
        applies: |path| path.starts_with("src/"),
        find: rooms::rooms_named,
        plant: ("src/ssh/wire.rs", "//! x\nuse crate::{ssh::wire, route::Vm};\n"),
    },
    Rule {
        name: "a room names nothing before somebody has said that it may",
        applies: |path| path.starts_with("src/"),
        find: rooms::rooms_named,
        plant: ("src/unknown/mod.rs", "//! x\n"),
    },
    Rule {
        name: "edge and control never meet",
        applies: |path| path.starts_with("src/"),
        find: rooms::rooms_named,
        plant: ("src/edge/door.rs", "//! x\nfn f() { crate::control::g() }\n"),
    },
    Rule {
        name: "unsafe stands only in edge",
        applies: is_rust,
        find: |file| {
            if may_be_unsafe(&file.path) {
                return unsafe_without_reason(file);
            }
            file.code_lines_with(|line| has_word(line, "unsafe"))
        },
        plant: ("src/ssh/wire.rs", "//! x\nfn f() { unsafe { g() } }\n"),
    },
    Rule {
        name: "unsafe says why it is sound",
        applies: may_be_unsafe,
        find: unsafe_without_reason,
        plant: ("src/edge/pump.rs", "//! x\nfn f() { unsafe { g() } }\n"),
    },
    Rule {
        name: "a file opens with what it is",
        applies: is_rust,
        find: |file| {
            if file.text.starts_with("//!") {
                return vec![];
            }
            vec![Finding(1, "does not open with `//!`".into())]
        },
        plant: ("src/ssh/wire.rs", "use std::fmt;\n"),
    },
    Rule {
        name: "no doc is a question word",
        applies: is_rust,
        find: |file| {
            let words = ["Which", "Who", "How", "What", "Where", "When", "Why"];
            file.lines_with(|line| {
                let doc = line.trim().strip_prefix("/// ").and_then(|doc| doc.strip_suffix('.'));
                doc.is_some_and(|doc| words.contains(&doc))
            })
        },
        plant: ("src/ssh/wire.rs", "//! x\n/// Which.\nfn f() {}\n"),
    },
    Rule {
        name: "a file is about 500 lines",
        applies: is_rust,
        find: too_long,
        plant: ("src/ssh/wire.rs", LONG),
    },
    Rule {
        name: "nothing is left for later",
        applies: |path| ["rs", "toml", "py", "js", "c"].contains(&extension(path)),
        find: left_for_later,
        plant: ("src/ssh/wire.rs", concat!("//! x\n// TO", "DO: later\n")),
    },
    Rule {
        name: "no test is ignored",
        applies: is_rust,
        find: |file| file.code_lines_with(|line| squeezed(line).contains("#[ignore")),
        plant: ("tests/it/x.rs", "//! x\n#[ignore]\nfn f() {}\n"),
    },
    Rule {
        name: "what only tests have lies in `testing`, or is the tests of a file",
        applies: |path| is_rust(path) && path.starts_with("src/"),
        find: testing::elsewhere,
        plant: ("src/ssh/mod.rs", "//! x\n#[cfg(test)]\npub(crate) mod hunt;\n"),
    },
    Rule {
        name: "imports have one style",
        applies: is_rust,
        find: imports::out_of_style,
        plant: ("src/ssh/wire.rs", "//! x\nuse std::{fmt, path::Path};\n"),
    },
    Rule {
        name: "a comment ends at 100 columns",
        applies: is_rust,
        find: comments::too_wide,
        plant: (
            "src/ssh/wire.rs",
            "//! It is a line that goes on and on, beyond the last column that any screen of code ever has to show.\n",
        ),
    },
    Rule {
        name: "no test waits by the clock",
        applies: |path| !SLEEPERS.iter().any(|(name, _)| *name == path),
        find: sleeps,
        plant: ("src/ssh/wire_tests.rs", "//! x\nfn f() { std::thread::sleep(x) }\n"),
    },
    Rule {
        name: "no line ends in blanks",
        applies: |_| true,
        find: |file| file.lines_with(|line| line.ends_with([' ', '\t', '\r'])),
        plant: ("README.md", "a \n"),
    },
    Rule {
        name: "no path of somebody's machine",
        applies: |path| extension(path) != "lock",
        find: machine_paths,
        plant: ("README.md", concat!("see /ro", "ot/keyway\n")),
    },
    Rule {
        name: "no package registry is named",
        applies: |path| extension(path) != "lock",
        find: |file| file.lines_with(|line| REGISTRIES.iter().any(|host| line.contains(host))),
        plant: ("README.md", concat!("from crates", ".io\n")),
    },
    Rule {
        name: "every lint exception has a reason",
        applies: is_rust,
        find: |file| {
            file.code_lines_with(|line| {
                let line = squeezed(line);
                line.contains("allow(clippy::all") || line.contains("allow(warnings")
            })
        },
        plant: ("src/ssh/wire.rs", "//! x\n#![allow(warnings)]\n"),
    },
];

const LONG: &str = {
    const LINES: [u8; 2 * (LINES_USUAL + 1)] = {
        let mut lines = [b'\n'; 2 * (LINES_USUAL + 1)];
        let mut at = 0;
        while at < lines.len() {
            lines[at] = b'/';
            at += 2;
        }
        lines
    };
    match std::str::from_utf8(&LINES) {
        Ok(text) => text,
        Err(_) => "",
    }
};

const REGISTRIES: &[&str] = &[
    concat!("crates", ".io"),
    concat!("py", "pi.org"),
    concat!("npm", "js.org"),
    concat!("npm", "js.com"),
    concat!("deb.", "debian.org"),
    concat!("proxy.", "golang.org"),
];

/// A line number and what is wrong there.
struct Finding(usize, String);

/// One file of the repository, and the same with comments and literals blanked.
struct File {
    path: String,
    text: String,
    code: String,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        let code = if is_rust(path) { blank(text) } else { text.to_owned() };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }

    fn lines_with(&self, bad: impl Fn(&str) -> bool) -> Vec<Finding> {
        findings(&self.text, &self.text, bad)
    }

    fn code_lines_with(&self, bad: impl Fn(&str) -> bool) -> Vec<Finding> {
        findings(&self.code, &self.text, bad)
    }
}

fn findings(looked_at: &str, shown: &str, bad: impl Fn(&str) -> bool) -> Vec<Finding> {
    // `split`, not `lines`: a carriage return must stay visible.
    std::iter::zip(looked_at.split('\n'), shown.split('\n'))
        .enumerate()
        .filter(|(_, (looked_at, _))| bad(looked_at))
        .map(|(at, (_, shown))| Finding(at + 1, shown.trim_end().to_owned()))
        .collect()
}

fn extension(path: &str) -> &str {
    Path::new(path).extension().and_then(OsStr::to_str).unwrap_or_default()
}

fn is_rust(path: &str) -> bool {
    extension(path) == "rs"
}

fn is_test(path: &str) -> bool {
    path.starts_with("tests/")
        || ["/tests/", "/testing/"].iter().any(|part| path.contains(part))
        || ["_tests.rs", "/tests.rs"].iter().any(|end| path.ends_with(end))
}

fn squeezed(line: &str) -> String {
    line.chars().filter(|c| !c.is_whitespace()).collect()
}

fn crates_out_of_room(file: &File) -> Vec<Finding> {
    let mut found = vec![];
    for (name, rooms) in CRATES {
        if rooms.iter().any(|room| file.path.starts_with(room)) {
            continue;
        }
        for at in words(&file.code, name) {
            let before = file.code[..at].trim_end();
            let after = file.code[at + name.len()..].trim_start();
            let is_path = after.starts_with("::") && !before.ends_with("::");
            let is_import = before.ends_with("use") || before.ends_with("crate");
            if is_path || is_import {
                found.push(Finding(line_of(&file.code, at), format!("names `{name}`")));
            }
        }
    }
    found
}

/// The first names of the paths behind `crate::` and `super::`, groups included.
fn paths_out(code: &str) -> Vec<(usize, String)> {
    let mut out = vec![];
    for keyword in ["crate", "super"] {
        for at in words(code, keyword) {
            let Some(rest) = code[at + keyword.len()..].trim_start().strip_prefix("::") else {
                continue;
            };
            let rest = rest.trim_start();
            let names: Vec<String> = match rest.strip_prefix('{') {
                None => vec![rest.chars().take_while(|c| is_word_char(*c)).collect()],
                Some(group) => heads_of_group(group),
            };
            out.extend(names.into_iter().map(|name| (line_of(code, at), name)));
        }
    }
    out
}

/// `a::b, c::{d, e}, f}` -> a, c, f.
fn heads_of_group(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut head) = (0, vec![], Some(String::new()));
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.extend(head.replace(String::new())),
            c if is_word_char(c) && depth == 0 => {
                if let Some(head) = &mut head {
                    head.push(c);
                }
            }
            ':' => heads.extend(head.take()),
            _ => {}
        }
    }
    heads.extend(head);
    heads.retain(|head| !head.is_empty());
    heads
}

/// The data plane, and the one file of the demonstration that gives a child its terminal.
fn may_be_unsafe(path: &str) -> bool {
    path.starts_with("src/edge/") || path == "src/demo/terminal.rs"
}

fn unsafe_without_reason(file: &File) -> Vec<Finding> {
    let text: Vec<&str> = file.text.split('\n').collect();
    let mut found = vec![];
    for (at, line) in file.code.split('\n').enumerate() {
        if !has_word(line, "unsafe") {
            continue;
        }
        // The comment stands right above the statement, whose head may take a few lines.
        let above = &text[at.saturating_sub(6)..=at];
        if !above.iter().any(|line| line.contains("// SAFETY:") || line.contains("# Safety")) {
            found.push(Finding(at + 1, "unsafe without `// SAFETY:`".into()));
        }
    }
    found
}

fn too_long(file: &File) -> Vec<Finding> {
    let lines = file.text.lines().count();
    let excused = LONG_FILES.iter().any(|(path, _)| *path == file.path);
    if lines > LINES_MAX || lines > LINES_USUAL && !excused {
        return vec![Finding(lines, format!("{lines} lines: split it"))];
    }
    if lines <= LINES_USUAL && excused {
        return vec![Finding(lines, format!("{lines} lines: no longer long, leave LONG_FILES"))];
    }
    vec![]
}

fn left_for_later(file: &File) -> Vec<Finding> {
    let marks =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX:"), concat!("// st", "ub")];
    let mut found = file.lines_with(|line| marks.iter().any(|mark| line.contains(mark)));
    found.extend(file.code_lines_with(|line| {
        ["todo", "unimplemented"].iter().any(|name| squeezed(line).contains(&format!("{name}!(")))
    }));
    found
}

fn sleeps(file: &File) -> Vec<Finding> {
    let from = if is_test(&file.path) {
        0
    } else if is_rust(&file.path) {
        // The tests of a file stand at its end.
        match file.code.find("mod tests {") {
            Some(at) => line_of(&file.code, at),
            None => return vec![],
        }
    } else {
        return vec![];
    };
    let mut found = file.code_lines_with(|line| {
        line.match_indices("sleep").any(|(at, _)| line[at + 5..].trim_start().starts_with('('))
    });
    found.retain(|Finding(line, _)| *line >= from);
    found
}

fn machine_paths(file: &File) -> Vec<Finding> {
    let places = [
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/wo", "rk/"),
        concat!("/tmp/", "wt"),
    ];
    file.lines_with(|line| {
        places.iter().any(|place| {
            line.match_indices(place).any(|(at, _)| {
                !line[..at].ends_with(|c: char| is_word_char(c) || "~.}/".contains(c))
            })
        })
    })
}

/// The repository's files: tracked, and new ones that git does not ignore.
fn repository() -> Vec<File> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(&root)
        .output()
        .expect("git runs");
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).expect("paths are UTF-8");
    let files: Vec<File> = names
        .split_terminator('\0')
        // Deleted but not yet committed, or not text: nothing to read.
        .filter_map(|path| Some(File::new(path, &std::fs::read_to_string(root.join(path)).ok()?)))
        .collect();
    assert!(files.iter().any(|file| file.path == "src/lib.rs"), "the listing lacks src/lib.rs");
    files
}

#[test]
fn the_repository_keeps_every_rule() {
    let files = repository();
    let mut broken = vec![];
    for rule in RULES {
        for file in files.iter().filter(|file| (rule.applies)(&file.path)) {
            for Finding(line, what) in (rule.find)(file) {
                broken.push(format!("{}:{line}: {}: {what}", file.path, rule.name));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

/// A label that nothing gives is a line on a dashboard that stays at zero, and a text
/// that nobody reads.
#[test]
fn every_label_of_an_end_is_given_by_some_code() {
    let files = repository();
    let given = |name: &str| {
        let sources = files.iter().filter(|file| {
            let path = &file.path;
            let elsewhere = ["src/ssh/", "src/ended.rs"].iter().any(|no| path.starts_with(no));
            path.starts_with("src/") && !elsewhere && !is_test(path)
        });
        sources.flat_map(|file| file.code_lines_with(|line| has_word(line, name))).count() > 0
    };
    let ended = files.iter().find(|file| file.path == "src/ended.rs").expect("the labels");
    let (_, from_fault) = ended.code.split_once("for Cause {").expect("what a fault becomes");
    let (from_fault, _) = from_fault.split_once("\npub struct").expect("its end");
    // Also by the constructor of its name.
    let sides = Side::ALL.iter().filter(|side| !given(&format!("Ended::{}", side.as_str())));
    let sides = sides.map(|side| format!("Side::{side:?}"));
    let stages = Stage::ALL.iter().map(|stage| format!("Stage::{stage:?}"));
    let causes =
        Cause::ALL.iter().filter(|cause| !has_word(from_fault, &format!("Self::{cause:?}")));
    let causes = causes.map(|cause| format!("Cause::{cause:?}"));
    let never: Vec<_> = sides.chain(stages).chain(causes).filter(|name| !given(name)).collect();
    assert!(never.is_empty(), "{never:?}");
}

#[test]
fn every_rule_catches_its_planted_violation() {
    for rule in RULES {
        let (path, text) = rule.plant;
        assert!((rule.applies)(path), "`{}` does not look at its own plant", rule.name);
        let found = (rule.find)(&File::new(path, text));
        assert!(!found.is_empty(), "`{}` misses its planted violation", rule.name);
    }
}

#[test]
fn no_rule_minds_code_that_keeps_it() {
    let clean = "//! Talks of papaya and of unsafe things, sleep( and all.\n\
        use crate::ssh::{fault, wire};\n\
        /* #[ignore] /* nested */ todo!() */\n\
        fn f<'a>(x: &'a str) -> char { let _ = (r#\"unsafe \"nix::\" \"#, \"\\\"libc::x\"); '\"' }\n\
        fn unsafe_free() { self.tokio_free(); super::fault::f() }\n";
    for path in ["src/ssh/packet.rs", "src/ssh/packet_tests.rs"] {
        let file = File::new(path, clean);
        for rule in RULES.iter().filter(|rule| (rule.applies)(path)) {
            let found: Vec<String> = (rule.find)(&file)
                .into_iter()
                .map(|Finding(line, what)| format!("{line}: {what}"))
                .collect();
            assert!(found.is_empty(), "`{}` minds {found:?}", rule.name);
        }
    }
}
