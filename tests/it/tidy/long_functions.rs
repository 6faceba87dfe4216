//! Functions fit a screen; those that do not stand on a list that only shrinks.

use super::source::functions;
use super::{File, is_rust, repository};

/// What fits a screen. Lines that are nothing but a comment do not count.
const LINES_USUAL: usize = 70;

/// The longer ones: file, function, lines. Nothing is added here, and no number rises.
const LONG: &[(&str, &str, usize)] = &[
    ("src/cli/help_tests.rs", "wrong_arguments_are_refused_and_nothing_is_sent", 92),
    (
        "src/config/config_tests.rs",
        "all_faults_of_both_files_are_told_together_in_the_order_of_their_lines",
        72,
    ),
    ("src/config/fleet_tests.rs", "every_fault_of_a_file_is_told_with_its_line", 84),
    ("src/control/api/openapi.rs", "operation", 72),
    ("src/control/api/walk_tests.rs", "example", 78),
    (
        "src/control/api/walk_tests.rs",
        "what_a_route_does_not_take_is_refused_before_anything_is_done",
        87,
    ),
    ("src/edge/door/mod.rs", "authenticate", 86),
    ("src/edge/relay/mod.rs", "relay", 88),
    ("src/edge/vm_leg/mod.rs", "reach", 74),
    ("src/ended.rs", "notice", 97),
    ("src/registry/apply/plan_tests.rs", "fleet", 74),
    ("src/route/apply_snapshot.rs", "wanted", 75),
    ("src/route/delta_tests.rs", "contradictions_refuse_the_whole_delta_and_change_nothing", 85),
    ("src/serve/explain_tests.rs", "door_recheck_and_explain_agree", 117),
    ("src/serve/mod.rs", "in_turn", 76),
    ("src/ssh/transport/mod.rs", "dispatch", 84),
    ("tests/it/away.rs", "with_a_damaged_store_people_get_in_and_operators_see_what_is_known", 75),
];

fn found(files: &[File], listed: &[(&str, &str, usize)]) -> Vec<String> {
    let mut found = vec![];
    let mut seen = vec![];
    for file in files.iter().filter(|file| is_rust(&file.path)) {
        let text: Vec<&str> = file.text.lines().collect();
        for function in functions(&file.code) {
            let (from, to) = function.lines.into_inner();
            let lines = text[from - 1..to].iter();
            let lines = lines.filter(|line| !line.trim_start().starts_with("//")).count();
            if lines <= LINES_USUAL {
                continue;
            }
            let name = function.name;
            let is_it =
                |(path, long, _): &&(&str, &str, usize)| *path == file.path && *long == name;
            let may = listed.iter().find(is_it).map(|(.., may)| *may);
            if may != Some(lines) {
                let may =
                    may.map_or("it is not listed".to_owned(), |may| format!("{may} are listed"));
                found.push(format!("{}:{from}: `{name}` has {lines} lines, {may}", file.path));
            }
            seen.push((file.path.as_str(), name));
        }
    }
    let gone = listed.iter().filter(|(path, name, _)| !seen.contains(&(path, name)));
    found.extend(gone.map(|(path, name, _)| format!("{path}: `{name}` is short: strike it")));
    found
}

#[test]
fn no_function_becomes_longer_than_a_screen() {
    let found = found(&repository(), LONG);
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn a_function_that_is_new_on_the_list_or_grew_or_shrank_is_found() {
    let body = "    g();\n".repeat(LINES_USUAL - 2);
    let with = |more: &str| {
        let text = format!("//! x\nfn f<A, B>() -> [u8; 3] {{\n{body}{more}}}\nfn g() {{}}\n");
        [File::new("src/ssh/wire.rs", &text)]
    };
    let (short, long) = (with("    // A comment.\n"), with("    g(\"}\");\n"));
    let listed: &[_] = &[("src/ssh/wire.rs", "f", LINES_USUAL + 1)];
    assert!(found(&short, &[]).is_empty(), "one that fits a screen");
    assert_eq!(found(&long, &[]).len(), 1, "a new one");
    assert!(found(&long, listed).is_empty(), "one that is listed");
    assert_eq!(found(&with("    g();\n    g();\n"), listed).len(), 1, "one that grew");
    let was_longer: &[_] = &[("src/ssh/wire.rs", "f", LINES_USUAL + 2)];
    assert_eq!(found(&long, was_longer).len(), 1, "one that shrank");
    assert_eq!(found(&short, listed).len(), 1, "one that is short now");
}
