//! Tests of the arguments: every example parses, and what makes no sense is refused before
//! anything is sent.

use clap::{Command as Clap, CommandFactory as _};

use super::testing::{ALICE_PRINT, Fake};
use super::*;

/// Every command with the names that lead to it.
fn commands() -> Vec<(Vec<String>, Clap)> {
    fn walk(path: &[String], command: &Clap, into: &mut Vec<(Vec<String>, Clap)>) {
        into.push((path.to_vec(), command.clone()));
        for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
            walk(&[path, &[below.get_name().to_owned()]].concat(), below, into);
        }
    }
    let mut command = Arguments::command();
    command.build();
    let mut all = Vec::new();
    walk(&[], &command, &mut all);
    all
}

/// The words of a command line as a shell splits them, up to the comment behind it, a pipe
/// or a redirection.
fn words(line: &str) -> Vec<String> {
    let line = line.trim_start();
    let end = line.match_indices("  ").map(|(at, _)| at).next().unwrap_or(line.len());
    let (mut words, mut quoted, mut open) = (vec![String::new()], false, false);
    for c in line[..end].chars() {
        match c {
            '\'' => (quoted, open) = (!quoted, true),
            ' ' if !quoted => {
                words.push(String::new());
                open = false;
            }
            c => words.last_mut().unwrap().push(c),
        }
    }
    let _ = open;
    let end = words.iter().position(|word| ["|", ">", "&&"].contains(&word.as_str()));
    words.truncate(end.unwrap_or(words.len()));
    words
}

#[test]
fn every_example_parses() {
    let mut parsed = 0;
    for (path, command) in commands() {
        let Some(help) = command.get_after_help() else { continue };
        for line in help.to_string().lines().filter(|line| line.starts_with("  ")) {
            // Behind a pipe the program stands in the middle.
            let Some(at) = line.find("keyway ") else { panic!("{path:?}: {line}") };
            let words = words(&line[at..]);
            if let Err(error) = Arguments::try_parse_from(&words) {
                panic!("{path:?}: {words:?}: {error}");
            }
            parsed += 1;
        }
    }
    assert!(parsed > 60, "{parsed}");
}

#[test]
fn every_noun_and_every_verb_with_arguments_of_its_own_has_an_example() {
    for (path, command) in commands() {
        let plain = ["list", "show", "rm", "adopt"];
        let name = path.last().map(String::as_str).unwrap_or_default();
        let group = ["ca", "host-key"].contains(&name);
        if plain.contains(&name) || group {
            continue;
        }
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("Example"), "{path:?}");
    }
}

#[test]
fn every_command_and_argument_says_what_it_is() {
    for (path, command) in commands() {
        assert!(command.get_about().is_some(), "{path:?}");
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{path:?} {}", argument.get_id());
        }
    }
}

#[test]
fn nouns_without_a_verb_show_their_verbs() {
    for (path, command) in commands() {
        // An agent runs without one.
        if command.get_subcommands().next().is_none() || path.is_empty() || path == ["agent"] {
            continue;
        }
        let mut arguments = vec!["keyway".to_owned()];
        arguments.extend(path);
        let error = Arguments::try_parse_from(arguments).unwrap_err();
        assert!(error.to_string().contains("Commands:"), "{error}");
    }
}

#[test]
fn nouns_are_understood_in_the_plural_and_behind_their_options() {
    let list = r#"{"items":[],"next":null,"revision":1}"#;
    for plural in [
        "users",
        "keys",
        "teams",
        "vms",
        "addresses",
        "nodes",
        "edges",
        "sessions",
        "tokens",
        "audits",
    ] {
        let fake = Fake::new(&[(200, list)]);
        let socket = fake.socket();
        let said = fake.say(&["--socket", &socket, "--output=json", plural, "list"]);
        assert_eq!((said.code, said.out.as_str()), (DONE, "[]\n"), "{plural}: {said:?}");
    }
    let fake = Fake::new(&[]);
    let said = fake.say(&["--dry-run", "vm", "rm", "blue"]);
    assert_eq!(said.code, USAGE, "{said:?}");
}

#[test]
fn changes_can_be_tried_and_tied_to_a_revision() {
    let changes = [
        "user add",
        "user rm",
        "key add",
        "key set",
        "key rm",
        "team add",
        "team rm",
        "team join",
        "team leave",
        "vm add",
        "vm rm",
        "vm share",
        "vm unshare",
        "vm rename",
        "vm transfer",
        "vm set",
        "vm renumber",
        "vm host-key set",
        "vm host-key forget",
        "address add",
        "address set",
        "address rm",
        "address drain",
        "address undrain",
        "address maint",
        "node add",
        "node set",
        "node rm",
        "edge add",
        "edge rm",
        "node token",
        "token add",
        "token rm",
        "import-authorized-keys",
    ];
    let all = commands();
    for change in changes {
        let (_, command) = all.iter().find(|(path, _)| path.join(" ") == change).unwrap();
        for flag in ["dry_run", "renumber", "if_revision", "output"] {
            assert!(
                command.get_arguments().any(|argument| argument.get_id() == flag),
                "{change} {flag}"
            );
        }
    }
}

#[test]
fn wrong_arguments_are_refused_and_nothing_is_sent() {
    let fake = Fake::new(&[]);
    let print = &ALICE_PRINT[..20];
    for wrong in [
        &["user", "add"][..],
        &["user", "add", "Alice"],
        &["user", "add", "a.b"],
        &["user", "add", "a", "--if-revision", "x"],
        &["user", "show"],
        &["user", "show", ".."],
        &["user", "rm", "a", "b"],
        &["user", "list", "x"],
        &["user", "list", "--output", "yaml"],
        &["key", "add", "alice"],
        &["key", "rm", "alice"],
        &["key", "rm", "alice", print],
        &["key", "show", print],
        &["key", "list", "--user", "A"],
        &["team", "add"],
        &["team", "add", "team:ops"],
        &["team", "add", "ops", "--member", "A"],
        &["team", "join", "ops"],
        &["team", "leave", "ops"],
        &["team", "rm"],
        &["vm", "add", "blue"],
        &["vm", "add", "blue", "--owner", "alice"],
        &["vm", "add", "blue", "--owner", "team:", "--ssh", "h:22"],
        &["vm", "add", "blue", "--owner", "alice", "--ssh", "h"],
        &["vm", "add", "blue", "--owner", "alice", "--ssh", "h:0"],
        &["vm", "add", "blue", "--owner", "alice", "--ssh", "h:22", "--login", "a b"],
        &["vm", "add", "blue", "--owner", "a", "--ssh", "h:22", "--address", "s1", "--no-address"],
        &["vm", "add", "blue", "--owner", "a", "--ssh", "h:22", "--host-key", "SHA256:x"],
        &["vm", "list", "--visible-to", "group:x"],
        &["vm", "share", "blue"],
        &["vm", "unshare", "blue"],
        &["vm", "rename", "blue"],
        &["vm", "rename", "blue", "Blue"],
        &["vm", "transfer", "blue"],
        &["vm", "set", "blue"],
        &["vm", "set", "blue", "--state", "off"],
        &["vm", "set", "blue", "--ssh", ""],
        &["vm", "renumber"],
        &["vm", "host-key", "set", "blue"],
        &["vm", "host-key", "set", "blue", "SHA256:x"],
        &["vm", "host-key", "forget"],
        &["address", "add", "s1"],
        &["address", "add", "s1", "host"],
        &["address", "add", "s1", "1.2.3.4:22"],
        &["address", "add", "s1", "1.2.3.4", "--public6", "1.2.3.4"],
        &["address", "set", "s1"],
        &["address", "set", "s1", "--lobby", "maybe"],
        &["address", "set", "s1", "--private", "x"],
        &["address", "rm"],
        &["address", "drain"],
        &["address", "undrain"],
        &["address", "maint"],
        &["session", "kill"],
        &["session", "list", "--user", "A"],
        &["session", "show"],
        &["token", "add", "ci"],
        &["token", "add", "ci", "--role", "root"],
        &["token", "add", "ci", "--role", "admin", "--expires", "soon"],
        &["token", "rm"],
        &["audit", "list", "--limit", "0"],
        &["audit", "list", "--all", "--follow"],
        &["audit", "show"],
        &["store", "backup"],
        &["store", "restore"],
        &["store", "adopt", "x"],
        &["hostkey", "export"],
        &["hostkey", "import"],
        &["zone"],
        &["zone", "import"],
        &["apply"],
        &["apply", "-f", "x", "--yes", "--dry-run"],
        &["export", "--output", "table"],
        &["import-authorized-keys", "alice"],
        &["explain", "--fingerprint", ALICE_PRINT],
        &["explain", "--address", "s001"],
        &["explain", "--fingerprint", "x", "--address", "s001"],
        &["explain", "--fingerprint", ALICE_PRINT, "--address", "s001", "--name", "blue"],
        &["explain", "--fingerprint", ALICE_PRINT, "--address", "S_1"],
        &["explain", "--fingerprint", ALICE_PRINT, "--name", "a..b"],
        &["completions", "tcsh"],
        &["man", "x"],
    ] {
        let said = fake.say(wrong);
        assert_eq!((said.code, said.out.as_str()), (USAGE, ""), "{wrong:?}: {said:?}");
        assert!(!said.err.is_empty(), "{wrong:?}");
    }
    assert_eq!(fake.asked(), Vec::<String>::new());
}

#[test]
fn wrong_arguments_about_nodes_are_refused_and_nothing_is_sent() {
    let fake = Fake::new(&[]);
    let print = &ALICE_PRINT[..20];
    for wrong in [
        &["node", "add"][..],
        &["node", "add", "n1", "--agent-key", ALICE_PRINT],
        &["node", "token"],
        &["node", "token", "n1", "--expires", "0m"],
        &["agent"],
        &["agent", "join"],
        &["agent", "join", "--config", "agent.toml", "--ca", "ca.pem"],
        &["agent", "join", "--config", "agent.toml", "--token", "kwj_x"],
        &["agent", "drain"],
        &["agent", "status", "--now"],
        &["node", "add", "n1", "--agent", "host:7022", "--agent-key", ALICE_PRINT],
        &["node", "add", "n1", "--agent", "10.0.0.1:7022", "--agent-key", print],
        &["node", "set", "n1"],
        &["node", "set", "n1", "--trusted"],
        &["node", "rm"],
        &["vm", "set", "blue", "--carry", "splice"],
        &["vm", "set", "blue", "--node", "N"],
    ] {
        let said = fake.say(wrong);
        assert_eq!((said.code, said.out.as_str()), (USAGE, ""), "{wrong:?}: {said:?}");
        assert!(!said.err.is_empty(), "{wrong:?}");
    }
    assert_eq!(fake.asked(), Vec::<String>::new());
}

#[test]
fn completions_and_pages_come_from_the_arguments() {
    let fake = Fake::new(&[]);
    for shell in ["bash", "zsh", "fish"] {
        let said = fake.say(&["completions", shell]);
        assert_eq!((said.code, said.err.as_str()), (DONE, ""));
        assert!(said.out.contains("import-authorized-keys"), "{shell}");
    }
    let page = fake.say(&["man"]).out;
    assert!(page.contains(".TH keyway 1") && page.contains("Exit codes"), "{page}");
    let pages = fake.scratch.path("man1");
    let said = fake.say(&["man", "--dir", &pages]);
    assert_eq!((said.code, said.out), (DONE, format!("the pages are in {pages}\n")));
    for page in ["keyway.1", "keyway-vm.1", "keyway-vm-host-key-forget.1", "keyway-apply.1"] {
        assert!(std::path::Path::new(&pages).join(page).exists(), "{page}");
    }
    let file = fake.scratch.file("file", "");
    assert_eq!(fake.say(&["man", "--dir", &file]).code, FAULTS);
}

#[test]
fn bash_accepts_its_completions() {
    let fake = Fake::new(&[]);
    let script = fake.scratch.file("keyway.bash", &fake.say(&["completions", "bash"]).out);
    let checked = std::process::Command::new("bash").args(["-n", &script]).status().unwrap();
    assert!(checked.success());
}
