//! Tests of `remote`, `client` and `table`: how a server is found and asked, and how
//! its answers look.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;

use super::testing::{Fake, Said, Scratch, Sitting, refusing, say_with};
use super::*;

const ONE: &str = r#"{"items":[{"name":"blue","owner":"alice","address":"s001","public":"127.0.77.1","state":"ready",
    "ssh":"10.0.0.5:22","login":null,"shares":[{"principal":"bob","access":"slot"},{"principal":"team:ops","access":"by-name"}]}],
    "next":"blue","revision":3}"#;
const TWO: &str = r#"{"items":[{"name":"a-longer-name","owner":"team:ops","address":null,"public":null,"state":"maint",
    "ssh":"h:22","login":"root","shares":[]}],"next":null,"revision":3}"#;

fn say(arguments: &[&str]) -> Said {
    say_with(arguments, &refusing(), &[], "", Sitting::Nobody)
}

#[test]
fn a_list_is_a_table_of_all_pages() {
    let fake = Fake::new(&[(200, ONE), (200, TWO)]);
    let said = fake.say(&["vm", "list"]);
    let out = "\
NAME           OWNER     ADDRESS  PUBLIC      HOST  STATE  SSH          LOGIN  SHARES
blue           alice     s001     127.0.77.1  -     ready  10.0.0.5:22  -      bob,team:ops (by-name)
a-longer-name  team:ops  -        -           -     maint  h:22         root   -
";
    assert_eq!(said, Said { code: DONE, out: out.to_owned(), err: String::new() });
    assert_eq!(fake.asked(), ["GET /v1/vms?limit=1000", "GET /v1/vms?limit=1000&after=blue"]);
}

#[test]
fn a_list_in_json_is_one_array_over_all_pages() {
    let fake = Fake::new(&[(200, ONE), (200, TWO)]);
    let said = fake.say(&["vm", "list", "--visible-to", "team:ops", "--output", "json"]);
    let items: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let names: Vec<_> = items.as_array().unwrap().iter().map(|vm| vm["name"].clone()).collect();
    assert_eq!(names, ["blue", "a-longer-name"]);
    assert_eq!(fake.asked()[0], "GET /v1/vms?visible_to=team%3Aops&limit=1000");
    let fake = Fake::new(&[(200, r#"{"items":[],"next":null}"#)]);
    assert_eq!(fake.say(&["vm", "list", "--output", "json"]).out, "[]\n");
}

#[test]
fn a_list_that_never_ends_is_left() {
    let same = r#"{"items":[],"next":"a"}"#;
    let fake = Fake::new(&[(200, same), (200, same)]);
    let said = fake.say(&["user", "list"]);
    assert_eq!(said.code, FAULTS);
    assert!(said.err.contains("a list without an end"), "{said:?}");
}

#[test]
fn one_thing_is_a_line_for_each_of_its_fields() {
    let team = r#"{"name":"ops","members":[{"user":"alice","access":"slot"},{"user":"bob","access":"by-name"}],"vms":2,"origin":"command","revision":5}"#;
    let fake = Fake::new(&[(200, team), (200, team)]);
    let out = "name      ops\nmembers   alice,bob (by-name)\nvms       2\norigin    command\nrevision  5\n";
    assert_eq!(fake.say(&["team", "show", "ops"]).out, out);
    let json = fake.say(&["team", "show", "ops", "--output", "json"]).out;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["vms"], 2);
    assert_eq!(fake.asked(), ["GET /v1/teams/ops", "GET /v1/teams/ops"]);
}

#[test]
fn every_list_and_every_thing_can_be_shown() {
    let print = testing::ALICE_PRINT;
    let item = format!(
        r#"{{"name":"it","user":"it","id":"it","key":"it","fingerprint":"{print}","at_s":0}}"#
    );
    let list = format!(r#"{{"items":[{item}],"next":null,"revision":1}}"#);
    for (arguments, answer, asked) in [
        (&["user", "list"][..], &list, "GET /v1/users?limit=1000"),
        (&["user", "show", "it"], &item, "GET /v1/users/it"),
        (&["key", "list"], &list, "GET /v1/keys?limit=1000"),
        (&["key", "show", print], &list, "GET /v1/keys?limit=1000"),
        (&["team", "list"], &list, "GET /v1/teams?limit=1000"),
        (&["vm", "list", "--owner", "it"], &list, "GET /v1/vms?owner=it&limit=1000"),
        (&["vm", "list", "--address", "s1"], &list, "GET /v1/vms?address=s1&limit=1000"),
        (&["vm", "show", "it"], &item, "GET /v1/vms/it"),
        (&["vm", "host-key", "show", "it"], &item, "GET /v1/vms/it/host-key"),
        (&["address", "list"], &list, "GET /v1/addresses?limit=1000"),
        (&["address", "show", "it"], &item, "GET /v1/addresses/it"),
        (&["session", "list", "--vm", "it"], &list, "GET /v1/sessions?vm=it&limit=1000"),
        (&["session", "show", "it"], &list, "GET /v1/sessions?limit=1000"),
        (&["token", "list"], &list, "GET /v1/tokens?limit=1000"),
        (&["token", "show", "it"], &list, "GET /v1/tokens?limit=1000"),
        (&["audit", "list"], &list, "GET /v1/audit?newest=true&limit=1000"),
        (&["audit", "list", "--all"], &list, "GET /v1/audit?limit=1000"),
        (&["audit", "show", "it"], &list, "GET /v1/audit?limit=1000"),
        (&["store", "show"], &item, "GET /v1/store"),
        (&["hostkey", "list"], &list, "GET /v1/hostkeys"),
    ] {
        let fake = Fake::new(&[(200, answer), (200, answer)]);
        let table = fake.say(arguments);
        assert_eq!((table.code, table.err.as_str()), (DONE, ""), "{arguments:?}: {table:?}");
        assert!(!table.out.is_empty());
        let json = fake.say(&[arguments, &["--output", "json"]].concat());
        let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
        assert_eq!(json.is_array(), arguments.contains(&"list"), "{arguments:?}");
        assert_eq!(fake.asked(), [asked, asked], "{arguments:?}");
    }
}

#[test]
fn what_is_not_in_a_list_is_not_found() {
    for arguments in [
        &["key", "show", testing::ALICE_PRINT][..],
        &["session", "show", "x"],
        &["token", "show", "x"],
        &["audit", "show", "x"],
    ] {
        let fake = Fake::new(&[(200, r#"{"items":[],"next":null}"#)]);
        let said = fake.say(arguments);
        assert_eq!((said.code, said.out.as_str()), (FAULTS, ""), "{arguments:?}");
        assert!(said.err.ends_with(" [not-found]\n"), "{said:?}");
    }
}

#[test]
fn text_of_others_does_not_command_the_terminal() {
    let hostile = "{\"items\":[{\"name\":\"a\\u001b[31m\\u009b2J\\u202e\\u200b\\udb40\\udc41\\n\"}],\"next\":null}";
    let fake = Fake::new(&[(200, hostile), (200, hostile)]);
    let table = fake.say(&["user", "list"]).out;
    assert!(table.contains(r"a\u{1b}[31m\u{9b}2J\u{202e}\u{200b}\u{e0041}\n"), "{table}");
    let json = fake.say(&["user", "list", "--output", "json"]).out;
    assert_eq!(json, "[{\"name\":\"a\\u001b[31m\\u009b2J\\u202e\\u200b\\udb40\\udc41\\n\"}]\n");

    let fake = Fake::new(&[(409, "{\"code\":\"in-use\",\"detail\":\"\\u001b]0;x\\u0007\"}")]);
    assert_eq!(fake.say(&["user", "rm", "a"]).err, "keyway: \\u{1b}]0;x\\u{7} [in-use]\n");
}

#[test]
fn a_refusal_is_told_with_its_code_and_has_its_exit_code() {
    let problem = |status: u16, code: &str| {
        format!(
            r#"{{"type":"about:blank","title":"T","status":{status},"code":"{code}","detail":"why; what to do"}}"#
        )
    };
    for (status, code, exit) in [
        (404, "not-found", FAULTS),
        (409, "conflict", FAULTS),
        (403, "forbidden", FAULTS),
        (503, "registry-away", FAULTS),
        (412, "changed", CHANGED),
    ] {
        let fake = Fake::new(&[(status, &problem(status, code))]);
        let said = fake.say(&["vm", "rm", "blue", "--output", "json"]);
        let err = format!("keyway: why; what to do [{code}]\n");
        assert_eq!(said, Said { code: exit, out: String::new(), err });
    }
    for (status, body) in [(502, "<html>"), (404, "{}"), (200, "<html>")] {
        let fake = Fake::new(&[(status, body)]);
        let said = fake.say(&["vm", "show", "blue"]);
        assert_eq!((said.code, said.out.as_str()), (FAULTS, ""));
        assert!(said.err.contains("gave no answer of keyway's"), "{said:?}");
    }
}

#[test]
fn a_dry_run_says_so_and_warnings_go_to_stderr() {
    let answer = r#"{"revision":7,"dry_run":true,"moves":[{"vm":"red","from":"s1","to":"s2","old_for":[]}],
        "warnings":["it is late"],"item":{"name":"blue","address":"s1","public":"1.2.3.4","host":"blue.vm.test"}}"#;
    let fake = Fake::new(&[(200, answer), (200, answer)]);
    let share =
        ["vm", "share", "blue", "--with", "bob", "--dry-run", "--renumber", "--if-revision", "3"];
    let said = fake.say(&share);
    let out = "dry run, nothing changed: vm blue shared with bob, at s1 (1.2.3.4); ssh blue.vm.test\n\
               vm red moved from s1 to s2\n";
    let err = "warning: it is late\n";
    assert_eq!(said, Said { code: DONE, out: out.to_owned(), err: err.to_owned() });
    let said = fake.say(&[&share[..], &["--output", "json"]].concat());
    assert_eq!(serde_json::from_str::<serde_json::Value>(&said.out).unwrap()["revision"], 7);
    let asked = r#"PUT /v1/vms/blue/shares/bob?dry_run=true&renumber=true {"access":"slot"} if 3"#;
    assert_eq!(fake.asked(), [asked, asked]);
}

#[test]
fn the_socket_is_found_by_flag_variable_or_configuration() {
    let fake = Fake::new(&[(200, "{}"), (200, "{}"), (200, "{}"), (200, "{}"), (200, "{}")]);
    let socket = fake.socket();
    let config =
        fake.scratch.file("keyway.toml", "state_dir = \".\"\n[edge]\nshards = \"wrong\"\n");
    let named = fake.scratch.file("named.toml", "[api]\nsocket = \"keyway.sock\"\n");
    let show = ["store", "show"];
    let nowhere = [("KEYWAY_SOCKET", "/nonexistent")];
    for (arguments, variables) in [
        (&["--socket", socket.as_str()][..], &nowhere[..]),
        (&[], &[("KEYWAY_SOCKET", socket.as_str())]),
        // What is said beats what is set.
        (&["--config", &config], &nowhere),
        (&["--config", &config], &[("KEYWAY_SOCKET", "")]),
        (&["--config", &named], &[]),
    ] {
        let all = [&show[..], arguments].concat();
        let said = say_with(&all, &refusing(), variables, "", Sitting::Nobody);
        assert_eq!((said.code, said.err.as_str()), (DONE, ""), "{arguments:?}: {said:?}");
    }
    assert_eq!(fake.asked().len(), 5);
    // Options stand before the verb too.
    let said = say(&["store", "--socket", "/nonexistent", "show"]);
    assert_eq!(said.code, UNREACHABLE);
}

#[test]
fn no_server_is_told_with_what_to_do() {
    let scratch = Scratch::new();
    let path = scratch.path("keyway.sock");
    let said = say(&["user", "list", "--socket", &path]);
    let err = format!(
        "keyway: no keyway serves at {path}: start it with `keyway serve`, or name its socket with --socket or \
         KEYWAY_SOCKET\n"
    );
    assert_eq!(said, Said { code: UNREACHABLE, out: String::new(), err: err.clone() });
    // Left by one that was killed.
    drop(UnixListener::bind(&path).unwrap());
    assert_eq!(say(&["user", "list", "--socket", &path]).err, err);

    let long = format!("{path}{}", "x".repeat(200));
    let said = say(&["user", "list", "--socket", &long]);
    assert_eq!(said.code, UNREACHABLE);
    assert!(said.err.contains("no keyway serves at"), "{said:?}");

    let config = scratch.file("keyway.toml", "state_dir = 3");
    let said = say(&["user", "list", "--config", &config]);
    assert_eq!(said.code, FAULTS);
    assert!(said.err.contains("keyway.toml:1: `state_dir` is an integer"), "{said:?}");
}

#[test]
fn a_peer_that_does_not_speak_http_is_told_from_one_that_goes_away() {
    let scratch = Scratch::new();
    let path = scratch.path("keyway.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let served = std::thread::spawn(move || {
        let request = &mut [0; 4096];
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(request).unwrap() > 0);
        stream.write_all(b"SSH-2.0-x\r\n\r\n").unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(request).unwrap() > 0);
    });
    let said = say(&["user", "list", "--socket", &path]);
    assert_eq!(said.code, FAULTS);
    assert!(said.err.contains("gave no answer of keyway's (not HTTP)"), "{said:?}");
    let said = say(&["user", "rm", "a", "--socket", &path]);
    assert_eq!(said.code, FAULTS);
    assert!(said.err.contains("look whether it was done"), "{said:?}");
    served.join().unwrap();
}

#[test]
fn servers_that_contradict_each_other_are_wrong_arguments() {
    let scratch = Scratch::new();
    let token = scratch.file("token", "kw_abc\n");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    for (arguments, what) in [
        (&["--server", "https://x"][..], "needs --token-file"),
        (&["--server", "https://x", "--token-file", &token, "--socket", "s"], "two servers"),
        (&["--token-file", &token], "belong to --server"),
        (&["--server", "http://x", "--token-file", &token], "write https://HOST"),
        (&["--server", "https://x/api", "--token-file", &token], "write https://HOST"),
        (&["--server", "https://a@x", "--token-file", &token], "write https://HOST"),
        (&["--server", "x:443", "--token-file", &token], "write https://HOST"),
    ] {
        let said = say(&[&["user", "list"], arguments].concat());
        assert_eq!((said.code, said.out.as_str()), (USAGE, ""), "{arguments:?}: {said:?}");
        assert!(said.err.contains(what), "{arguments:?}: {said:?}");
    }
}
