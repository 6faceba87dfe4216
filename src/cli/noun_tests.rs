//! Tests of the nouns: what each command asks for, and what it says of the answer.

use super::testing::{ALICE, ALICE_PRINT, CERTIFICATE, Fake, Said};
use super::*;

/// A change that went well, of a VM.
const VM: &str = r#"{"revision":7,"dry_run":false,"moves":[],"warnings":[],"item":{"name":"blue","owner":"alice",
    "address":"s003","public":"127.0.77.3"}}"#;
/// A change that went well, of anything else.
const DONE_ANSWER: &str =
    r#"{"revision":7,"dry_run":false,"moves":[],"warnings":[],"item":{"name":"it"}}"#;
/// A removal that went well.
const GONE: &str = r#"{"revision":8,"dry_run":false,"moves":[],"warnings":[]}"#;

/// A command line, what the server answers, what it was asked, what stdout gets.
type Case<'c> = (&'c [&'c str], &'c str, &'c str, &'c str);

#[track_caller]
fn each(cases: &[Case<'_>]) {
    for (arguments, answer, request, out) in cases {
        let fake = Fake::new(&[(200, answer)]);
        let said = fake.say(arguments);
        let wanted = Said { code: DONE, out: format!("{out}\n"), err: String::new() };
        assert_eq!(said, wanted, "{arguments:?}");
        assert_eq!(fake.asked(), [*request], "{arguments:?}");
    }
}

#[test]
fn changes_of_users_and_teams_are_asked_for_and_told() {
    each(&[
        (
            &["user", "add", "alice"],
            DONE_ANSWER,
            r#"POST /v1/users {"keys":[],"name":"alice"}"#,
            "user alice added with 0 keys",
        ),
        (
            &["user", "rm", "alice", "--if-revision", "4"],
            GONE,
            "DELETE /v1/users/alice if 4",
            "user alice removed",
        ),
        (
            &["team", "add", "ops", "--member", "alice", "--member", "bob"],
            DONE_ANSWER,
            r#"POST /v1/teams {"members":["alice","bob"],"name":"ops"}"#,
            "team ops added with 2 members",
        ),
        (
            &["team", "create", "ops"],
            DONE_ANSWER,
            r#"POST /v1/teams {"members":[],"name":"ops"}"#,
            "team ops added with 0 members",
        ),
        (
            &["team", "join", "ops", "carol"],
            DONE_ANSWER,
            r#"PUT /v1/teams/ops/members/carol {"access":"slot"}"#,
            "carol joined team ops",
        ),
        (
            &["team", "join", "ops", "carol", "--by-name"],
            DONE_ANSWER,
            r#"PUT /v1/teams/ops/members/carol {"access":"by-name"}"#,
            "carol joined team ops, by name",
        ),
        (
            &["team", "leave", "ops", "carol"],
            DONE_ANSWER,
            "DELETE /v1/teams/ops/members/carol",
            "carol left team ops",
        ),
        (&["team", "rm", "ops"], GONE, "DELETE /v1/teams/ops", "team ops removed"),
        (
            &["key", "rm", "alice", ALICE_PRINT],
            DONE_ANSWER,
            "DELETE /v1/users/alice/keys/SHA256%3A8co1HLjPv%2FAoEpWQDCZC%2FaWYJUq%2B4alhNtRBvyoP1%2BY",
            &format!("key {ALICE_PRINT} of alice removed"),
        ),
        (&["token", "rm", "ci"], GONE, "DELETE /v1/tokens/ci", "token ci ended"),
        (&["session", "kill", "a/b"], "", "DELETE /v1/sessions/a%2Fb", "session a/b ended"),
    ]);
}

#[test]
fn changes_of_vms_are_asked_for_and_told() {
    let key = &ALICE[..ALICE.len() - " alice@laptop".len()];
    each(&[
        (
            &[
                "vm",
                "add",
                "blue",
                "--owner",
                "alice",
                "--ssh",
                "127.0.0.1:2201",
                "--login",
                "root",
            ],
            VM,
            r#"POST /v1/vms {"login":"root","name":"blue","owner":"alice","ssh":"127.0.0.1:2201"}"#,
            "vm blue added at s003 (127.0.77.3)",
        ),
        (
            &[
                "vm",
                "add",
                "blue",
                "--owner",
                "team:ops",
                "--ssh",
                "h:22",
                "--address",
                "s003",
                "--host-key",
                key,
            ],
            VM,
            &format!(
                r#"POST /v1/vms {{"address":"s003","host_key":"{key}","name":"blue","owner":"team:ops","ssh":"h:22"}}"#
            ),
            "vm blue added at s003 (127.0.77.3)",
        ),
        (
            &["vm", "add", "blue", "--owner", "alice", "--ssh", "h:22", "--no-address"],
            r#"{"revision":7,"item":{"name":"blue","address":null,"public":null}}"#,
            r#"POST /v1/vms {"name":"blue","no_address":true,"owner":"alice","ssh":"h:22"}"#,
            "vm blue added without an address; ssh LOGIN+blue@ any address",
        ),
        (
            &[
                "vm", "add", "blue", "--owner", "alice", "--ssh", "h:22", "--node", "n1",
                "--carry", "relay",
            ],
            VM,
            r#"POST /v1/vms {"carry":"relay","name":"blue","node":"n1","owner":"alice","ssh":"h:22"}"#,
            "vm blue added at s003 (127.0.77.3)",
        ),
        (&["vm", "rm", "blue"], GONE, "DELETE /v1/vms/blue", "vm blue removed"),
    ]);
}

#[test]
fn changes_of_who_enters_a_vm_and_how_are_asked_for_and_told() {
    each(&[
        (
            &["vm", "share", "blue", "--with", "bob"],
            VM,
            r#"PUT /v1/vms/blue/shares/bob {"access":"slot"}"#,
            "vm blue shared with bob, at s003 (127.0.77.3)",
        ),
        (
            &["vm", "share", "blue", "--with", "team:ops", "--by-name", "--renumber"],
            VM,
            r#"PUT /v1/vms/blue/shares/team%3Aops?renumber=true {"access":"by-name"}"#,
            "vm blue shared with team:ops, by name, at s003 (127.0.77.3)",
        ),
        (
            &["vm", "unshare", "blue", "--with", "team:ops"],
            VM,
            "DELETE /v1/vms/blue/shares/team%3Aops",
            "vm blue shared with team:ops no more",
        ),
        (
            &["vm", "rename", "blue", "navy"],
            VM,
            r#"POST /v1/vms/blue/rename {"to":"navy"}"#,
            "vm blue is now navy, at s003 (127.0.77.3)",
        ),
        (
            &["vm", "transfer", "blue", "--to", "bob"],
            VM,
            r#"POST /v1/vms/blue/transfer {"to":"bob"}"#,
            "vm blue belongs to bob, at s003 (127.0.77.3)",
        ),
        (
            &["vm", "set", "blue", "--login", "", "--host-key", "", "--state", "maint"],
            VM,
            r#"PATCH /v1/vms/blue {"host_key":"","login":"","state":"maint"}"#,
            "vm blue changed",
        ),
        (
            &["vm", "set", "blue", "--source-address", "10.0.2.2, 10.1.0.0/16"],
            VM,
            r#"PATCH /v1/vms/blue {"source_address":"10.0.2.2/32,10.1.0.0/16"}"#,
            "vm blue changed",
        ),
        (
            &["vm", "renumber", "blue"],
            VM,
            "POST /v1/vms/blue/renumber {}",
            "vm blue is at s003 (127.0.77.3)",
        ),
        (
            &["vm", "renumber", "blue", "--address", "s003"],
            VM,
            r#"POST /v1/vms/blue/renumber {"address":"s003"}"#,
            "vm blue is at s003 (127.0.77.3)",
        ),
        (
            &["vm", "host-key", "set", "blue", ALICE_PRINT],
            VM,
            &format!(r#"PATCH /v1/vms/blue {{"host_key":"{ALICE_PRINT}"}}"#),
            "vm blue must show the host key given",
        ),
        (
            &["vm", "host-key", "forget", "blue"],
            GONE,
            "DELETE /v1/vms/blue/host-key",
            "the host key of vm blue is forgotten: the next is taken",
        ),
    ]);
}

#[test]
fn changes_of_addresses_are_asked_for_and_told() {
    each(&[
        (
            &["address", "add", "s001", "127.0.77.1"],
            DONE_ANSWER,
            r#"POST /v1/addresses {"name":"s001","public":"127.0.77.1"}"#,
            "address s001 added (127.0.77.1)",
        ),
        (
            &[
                "address",
                "add",
                "s2",
                "1.2.3.4",
                "--private",
                "10.0.0.8",
                "--public6",
                "2001:db8::8",
                "--lobby",
            ],
            DONE_ANSWER,
            r#"POST /v1/addresses {"lobby":true,"name":"s2","private":"10.0.0.8","public":"1.2.3.4","public6":"2001:db8::8"}"#,
            "address s2 added (1.2.3.4)",
        ),
        (
            &["address", "set", "s2", "--private", "", "--lobby", "false"],
            DONE_ANSWER,
            r#"PATCH /v1/addresses/s2 {"lobby":false,"private":""}"#,
            "address s2 changed",
        ),
        (&["address", "rm", "s2"], GONE, "DELETE /v1/addresses/s2", "address s2 removed"),
        (
            &["address", "undrain", "s2"],
            DONE_ANSWER,
            "POST /v1/addresses/s2/undrain",
            "address s2 takes VMs again",
        ),
        (
            &["address", "maint", "s2", "--dry-run"],
            r#"{"revision":7,"dry_run":true,"moves":[],"warnings":[],"item":{}}"#,
            "POST /v1/addresses/s2/maint?dry_run=true",
            "dry run, nothing changed: address s2 refuses connections",
        ),
    ]);
}

#[test]
fn changes_of_nodes_are_asked_for_and_told() {
    let key = "SHA256:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
    each(&[
        (
            &["node", "add", "n1", "--agent", "10.0.0.21:7022", "--agent-key", key, "--trusted"],
            DONE_ANSWER,
            &format!(
                r#"POST /v1/nodes {{"agent":"10.0.0.21:7022","agent_key":"{key}","name":"n1","trusted":true}}"#
            ),
            "node n1 added (agent at 10.0.0.21:7022)",
        ),
        (
            &["node", "add", "n1", "--agent", "10.0.0.21:7022"],
            DONE_ANSWER,
            r#"POST /v1/nodes {"agent":"10.0.0.21:7022","name":"n1"}"#,
            "node n1 added (agent at 10.0.0.21:7022, which has to join: `keyway node token n1`)",
        ),
        (
            &["node", "create", "n2"],
            DONE_ANSWER,
            r#"POST /v1/nodes {"name":"n2"}"#,
            "node n2 added",
        ),
        (
            &["node", "set", "n1", "--agent-key", ALICE, "--trusted", "false"],
            DONE_ANSWER,
            &format!(r#"PATCH /v1/nodes/n1 {{"agent_key":"{ALICE_PRINT}","trusted":false}}"#),
            "node n1 changed",
        ),
        (
            &["node", "set", "n1", "--agent-key", ""],
            DONE_ANSWER,
            r#"PATCH /v1/nodes/n1 {"agent_key":""}"#,
            "node n1 changed",
        ),
        (
            &["node", "set", "n1", "--agent", ""],
            DONE_ANSWER,
            r#"PATCH /v1/nodes/n1 {"agent":""}"#,
            "node n1 changed",
        ),
        (
            &["vm", "set", "blue", "--node", "", "--carry", "auto"],
            VM,
            r#"PATCH /v1/vms/blue {"carry":"auto","node":""}"#,
            "vm blue changed",
        ),
        (&["node", "rm", "n1"], GONE, "DELETE /v1/nodes/n1", "node n1 removed"),
    ]);
}

#[test]
fn changes_of_edges_are_asked_for_and_told() {
    let line = ALICE.rsplit_once(' ').unwrap().0;
    let asked = format!(r#"POST /v1/edges {{"identity":"{line}","name":"e1"}}"#);
    let told = format!("edge e1 added ({ALICE_PRINT})");
    each(&[
        (&["edge", "add", "e1", "--identity", ALICE], DONE_ANSWER, &asked, &told),
        (
            &["edge", "rm", "e1"],
            DONE_ANSWER,
            "DELETE /v1/edges/e1",
            "edge e1 removed; its sessions at agents end",
        ),
    ]);
    let fake = Fake::new(&[(200, DONE_ANSWER), (200, DONE_ANSWER)]);
    let file = fake.scratch.file("e1.pub", &format!("# of edge 1\n{ALICE}\n"));
    assert_eq!(fake.say(&["edge", "add", "e1", "--identity", &file]).out, format!("{told}\n"));
    let stdin = &["edge", "add", "e1", "--identity", "-"];
    let said = fake.say_sitting(stdin, ALICE, testing::Sitting::Nobody);
    assert_eq!(said.out, format!("{told}\n"));
    assert_eq!(fake.asked(), [asked.as_str(), asked.as_str()]);
    let fake = Fake::new(&[]);
    for wrong in ["ssh-ed25519 AAAA", "ecdsa-sha2-nistp256 AAAA", "nofile", ALICE_PRINT] {
        let said = fake.say(&["edge", "add", "e1", "--identity", wrong]);
        assert_eq!((said.code, said.out.as_str()), (FAULTS, ""), "{wrong}: {said:?}");
    }
    assert_eq!(fake.asked(), Vec::<String>::new());
}

#[test]
fn edges_are_listed_with_those_that_were_removed() {
    let list = r#"{"items":[{"name":"e1","state":"admitted","fingerprint":"SHA256:x","identity":"ssh-ed25519 A","since_s":60,
        "by":"keyway","origin":"command","revision":4},{"name":"e1","state":"removed","fingerprint":"SHA256:y",
        "identity":"ssh-ed25519 B","since_s":0,"by":"uid 0","origin":"command","revision":3}],"next":null,"revision":5}"#;
    let fake = Fake::new(&[(200, list)]);
    let out = "NAME  STATE     FINGERPRINT  SINCE                 BY\n\
               e1    admitted  SHA256:x     1970-01-01T00:01:00Z  keyway\n\
               e1    removed   SHA256:y     1970-01-01T00:00:00Z  uid 0\n";
    assert_eq!(
        fake.say(&["edges", "list"]),
        Said { code: DONE, out: out.to_owned(), err: String::new() }
    );
}

#[test]
fn nodes_and_what_lies_on_them_are_listed() {
    let list = r#"{"items":[{"name":"n1","agent":"10.0.0.21:7022","agent_key":"SHA256:x","trusted":true,"vms":2,
        "origin":"command","revision":4},{"name":"n2","agent":null,"agent_key":null,"trusted":false,"vms":0,
        "origin":"command","revision":5,"host":"203.0.113.9","port":22,"user":"root","state":"offline","last_seen":1000000,
        "reason":"no answer in time","docker_version":"29.1","architecture":"x86_64"}],"next":null,"revision":5}"#;
    let none = r#"{"items":[],"next":null,"revision":5}"#;
    let fake = Fake::new(&[(200, list), (200, none)]);
    let said = fake.say(&["node", "list"]);
    let out = "\
        NAME  HOST              STATE    DOCKER  ARCH    LAST SEEN             AGENT           TRUSTED  VMS  AGENT KEY  REASON\n\
        n1    -                 -        -       -       -                     10.0.0.21:7022  yes      2    SHA256:x   -\n\
        n2    root@203.0.113.9  offline  29.1    x86_64  1970-01-12T13:46:40Z  -               no       0    -          no answer in time\n";
    assert_eq!(said, Said { code: DONE, out: out.to_owned(), err: String::new() });
    assert_eq!(fake.say(&["vm", "list", "--node", "n1"]).code, DONE);
    let asked = fake.asked();
    assert!(asked[0].starts_with("GET /v1/nodes?"), "{asked:?}");
    assert!(asked[1].starts_with("GET /v1/vms?") && asked[1].contains("node=n1"), "{asked:?}");
}

#[test]
fn a_drain_tells_what_moved_and_fails_if_something_stays() {
    const MOVED: &str =
        r#""moves":[{"vm":"red","from":"s1","to":"s2","old_for":["bob","team:ops"]}]"#;
    let all = format!(r#"{{"revision":9,"dry_run":false,{MOVED},"warnings":[],"item":{{}}}}"#);
    let fake = Fake::new(&[(200, &all)]);
    let said = fake.say(&["address", "drain", "s1"]);
    let out = "address s1 takes no more VMs, 1 VM moved\n\
               vm red moved from s1 to s2; s1 leads there for a while for bob, team:ops\n";
    assert_eq!(said, Said { code: DONE, out: out.to_owned(), err: String::new() });
    assert_eq!(fake.asked(), ["POST /v1/addresses/s1/drain"]);

    let some = format!(
        r#"{{"revision":9,"dry_run":false,{MOVED},"warnings":["blue: pool exhausted"],"item":{{}}}}"#
    );
    let fake = Fake::new(&[(200, &some)]);
    let said = fake.say(&["address", "drain", "s1"]);
    assert_eq!(said.code, FAULTS);
    assert!(said.out.starts_with("address s1 takes no more VMs, 1 VM moved, 1 left\n"), "{said:?}");
    assert_eq!(said.err, "warning: blue: pool exhausted\n");
}

#[test]
fn keys_come_from_files_and_stdin_with_all_their_lines() {
    let two = format!("# mine\n{ALICE}\n\nrestrict,pty {}\n", other_key());
    let fake = Fake::new(&[(201, DONE_ANSWER)]);
    let file = fake.scratch.file("alice.pub", &two);
    let said = fake.say(&["user", "add", "alice", "--key", &file]);
    assert_eq!(said.out, "user alice added with 2 keys\n", "{said:?}");
    let lines = format!(r#"{{"keys":["{ALICE}","restrict,pty {}"],"name":"alice"}}"#, other_key());
    assert_eq!(fake.asked(), [format!("POST /v1/users {lines}")]);

    let fake = Fake::new(&[(201, DONE_ANSWER)]);
    let said = fake.say_sitting(&["key", "add", "alice", "-"], ALICE, testing::Sitting::Nobody);
    assert_eq!(said.out, format!("key {ALICE_PRINT} added to alice\n"), "{said:?}");
    assert_eq!(fake.asked(), [format!(r#"POST /v1/users/alice/keys {{"line":"{ALICE}"}}"#)]);

    // A file of two is one request each, and of a removal no guess which one is meant.
    let fake = Fake::new(&[(201, DONE_ANSWER), (201, DONE_ANSWER)]);
    let file = fake.scratch.file("alice.pub", &two);
    assert_eq!(fake.say(&["key", "add", "alice", &file]).out.lines().count(), 2);
    let said = fake.say(&["key", "rm", "alice", &file]);
    assert_eq!(said.code, FAULTS);
    assert!(said.err.contains("holds 2 keys; name a file with one"), "{said:?}");
    assert_eq!(fake.asked().len(), 2);
}

fn other_key() -> String {
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKZ4OKVDwhc8rgp0Am0kQ0GiUdVUB4fDN8AuKC8zvZ2B".to_owned()
}

#[test]
fn an_authorized_keys_file_makes_a_user_or_adds_what_is_missing() {
    const NOT_FOUND: &str =
        r#"{"status":404,"code":"not-found","detail":"there is no user `alice`"}"#;
    let fake = Fake::new(&[(404, NOT_FOUND), (201, DONE_ANSWER)]);
    let file = fake.scratch.file("authorized_keys", ALICE);
    let said = fake.say(&["import-authorized-keys", "alice", &file]);
    assert_eq!(said.out, "user alice added with 1 key\n", "{said:?}");
    let add = format!(r#"POST /v1/users {{"keys":["{ALICE}"],"name":"alice"}}"#);
    assert_eq!(fake.asked(), ["GET /v1/users/alice".to_owned(), add]);

    let there = format!(r#"{{"name":"alice","keys":[{{"fingerprint":"{ALICE_PRINT}"}}]}}"#);
    let fake = Fake::new(&[(200, &there), (201, DONE_ANSWER)]);
    let file = fake.scratch.file("authorized_keys", &format!("{ALICE}\n{}\n", other_key()));
    let said = fake.say(&["import-authorized-keys", "alice", &file]);
    assert_eq!((said.code, said.err.as_str()), (DONE, "alice has 1 key of these already\n"));
    let asked = fake.asked();
    let line = format!(r#"POST /v1/users/alice/keys {{"line":"{}"}}"#, other_key());
    assert_eq!(asked, ["GET /v1/users/alice".to_owned(), line]);
}

#[test]
fn a_file_that_is_no_key_is_told_by_its_line_and_nothing_is_sent() {
    let fake = Fake::new(&[]);
    let private = fake.scratch.file("id", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n");
    let broken = fake.scratch.file("broken.pub", "# x\nssh-ed25519 AAAA\n");
    let option = fake.scratch.file("option", &format!("tunnel=\"0\" {ALICE}"));
    let empty = fake.scratch.file("empty", "\n");
    let missing = fake.scratch.path("missing");
    for (file, what) in [
        (&private, "holds a private key"),
        (&broken, "broken.pub:2: "),
        (&option, "option tunnel cannot be honoured"),
        (&empty, "holds no key"),
        (&missing, "No such file"),
    ] {
        for command in [
            &["user", "add", "alice", "--key", file][..],
            &["key", "add", "alice", file],
            &["key", "rm", "alice", file],
            &["import-authorized-keys", "alice", file],
            &["explain", "--key", file, "--address", "s001"],
        ] {
            let said = fake.say(command);
            assert_eq!((said.code, said.out.as_str()), (FAULTS, ""), "{command:?}: {said:?}");
            assert!(said.err.contains(what), "{command:?}: {said:?}");
        }
        let said = fake.say(&["vm", "host-key", "set", "blue", file]);
        assert_eq!(said.code, FAULTS, "{said:?}");
    }
    assert_eq!(fake.asked(), Vec::<String>::new());
}

#[test]
fn a_token_is_all_that_stdout_gets() {
    let answer =
        r#"{"revision":7,"dry_run":false,"item":{"name":"ci","role":"operator","token":"kw_abc"}}"#;
    let fake = Fake::new(&[(201, answer)]);
    let said = fake.say(&["token", "add", "ci", "--role", "operator"]);
    let err = "token ci added (operator, for ever); it is shown this once\n";
    assert_eq!(said, Said { code: DONE, out: "kw_abc\n".to_owned(), err: err.to_owned() });
    assert_eq!(fake.asked(), [r#"POST /v1/tokens {"name":"ci","role":"operator"}"#]);

    let fake = Fake::new(&[(201, answer)]);
    let said = fake.say(&["token", "add", "ci", "--role", "reader", "--expires", "1d"]);
    assert_eq!((said.code, said.out.as_str()), (DONE, "kw_abc\n"));
    let asked = fake.asked().pop().unwrap();
    let ends: u64 =
        asked.split("\"expires_s\":").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    // Some moment of this decade or the next, a day from now.
    assert!((1_700_000_000..2_400_000_000).contains(&ends), "{asked}");
}

#[test]
fn a_token_for_a_nodes_agent_comes_with_what_to_do_with_it() {
    let answer = r#"{"revision":7,"dry_run":false,"item":{"name":"n1","join":
        {"created_s":0,"expires_s":3600,"token":"kwj_abc"}}}"#;
    let fake = Fake::new(&[(200, answer), (200, answer)]);
    let said = fake.say(&["node", "token", "n1"]);
    let err = "token for the agent of node n1 made (until 1970-01-01T01:00:00Z); it is shown this once\n\
               on its host, where that asks for the token:\n  \
               keyway agent join --config /etc/keyway/agent.toml --url https://HOST:PORT\n";
    assert_eq!(said, Said { code: DONE, out: "kwj_abc\n".to_owned(), err: err.to_owned() });
    assert_eq!(fake.say(&["node", "token", "n1", "--expires", "15m"]).code, DONE);
    let asked = fake.asked();
    assert_eq!(asked[0], "POST /v1/nodes/n1/token {}");
    assert!(asked[1].starts_with(r#"POST /v1/nodes/n1/token {"expires_s":1"#), "{asked:?}");
}

#[test]
fn a_login_is_explained_step_by_step() {
    let answer = r#"{"decision":"vm","principal":"alice","vm":"blue","address":"s001","login":"root","by_name":false,
        "carried":"handoff",
        "reason":"alice has blue at s001","code":"vm","steps":[{"step":"whose key","answer":"alice"}]}"#;
    let fake = Fake::new(&[(200, answer), (200, answer)]);
    let file = fake.scratch.file("alice.pub", ALICE);
    let said = fake.say(&["explain", "--key", &file, "--address", "127.0.77.1"]);
    let out = "decision   vm\nreason     alice has blue at s001 [vm]\nprincipal  alice\nvm         blue\n\
               address    s001\nlogin      root\nby name    no\ncarried    handoff\n  whose key: alice\n";
    assert_eq!(said, Said { code: DONE, out: out.to_owned(), err: String::new() });
    let named =
        ["explain", "--fingerprint", ALICE_PRINT, "--name", "blue.vm.test", "--login", "root+blue"];
    let said = fake.say(&[&named[..], &["--output", "json"]].concat());
    assert!(
        said.out
            .starts_with(r#"{"address":"s001","by_name":false,"carried":"handoff","code":"vm","#)
    );
    let asked = fake.asked();
    assert_eq!(asked[0], format!(r#"POST /v1/explain {{"address":"127.0.77.1","key":"{ALICE}"}}"#));
    let named = r#""login":"root+blue","name":"blue.vm.test""#;
    assert_eq!(asked[1], format!(r#"POST /v1/explain {{"fingerprint":"{ALICE_PRINT}",{named}}}"#));
}

#[test]
fn a_certificate_is_explained_from_its_file_and_from_an_address() {
    let answer = r#"{"decision":"refused","reason":"no","code":"ca-unknown","steps":[]}"#;
    let fake = Fake::new(&[(200, answer)]);
    let file = fake.scratch.file("id-cert.pub", &format!("{CERTIFICATE}\n"));
    let said = fake.say(&["explain", "--cert", &file, "--name", "blue", "--from", "192.0.2.7"]);
    assert_eq!(said.code, DONE, "{said:?}");
    assert!(said.out.contains("no [ca-unknown]"), "{said:?}");
    let asked =
        format!(r#"POST /v1/explain {{"cert":"{CERTIFICATE}","from":"192.0.2.7","name":"blue"}}"#);
    // A plain key is no certificate, and a name no address.
    let plain = fake.scratch.file("id.pub", ALICE);
    let said = fake.say(&["explain", "--cert", &plain, "--name", "blue"]);
    assert!(said.code != DONE && said.err.contains("-cert.pub"), "{said:?}");
    let said = fake.say(&["explain", "--key", &plain, "--name", "blue", "--from", "home"]);
    assert!(said.code != DONE && said.err.contains("--from"), "{said:?}");
    assert_eq!(fake.asked(), [asked]);
}

#[test]
fn a_backup_is_asked_for_by_its_whole_path() {
    let fake = Fake::new(&[(200, r#"{"revision":7}"#)]);
    let said = fake.say(&["store", "backup", "copy.db"]);
    let path = std::env::current_dir().unwrap().join("copy.db").display().to_string();
    assert_eq!(said.out, format!("the store is copied to {path}\n"));
    assert_eq!(fake.asked(), [format!(r#"POST /v1/store/backup {{"path":"{path}"}}"#)]);
}

#[test]
fn whose_a_thing_is_stands_where_it_is_shown() {
    for noun in ["vm", "user", "team", "address", "node"] {
        let fake = Fake::new(&[(200, r#"{"name":"it","origin":"fleet","revision":4}"#)]);
        let said = fake.say(&[noun, "show", "it"]);
        let shown = said.out.lines().find(|line| line.starts_with("origin "));
        assert!(shown.is_some_and(|line| line.ends_with(" fleet")), "{noun}: {said:?}");
    }
}

#[test]
fn who_is_being_removed_is_shown_so() {
    let answer = r#"{"name":"alice","keys":[],"teams":[],"vms":3,"going":true,"revision":4}"#;
    let said = Fake::new(&[(200, answer)]).say(&["user", "show", "alice"]);
    assert!(said.out.contains("alice (being removed)"), "{said:?}");
    let answer = r#"{"name":"ops","members":[],"vms":3,"going":false,"revision":4}"#;
    let said = Fake::new(&[(200, answer)]).say(&["team", "show", "ops"]);
    assert!(said.out.contains("ops") && !said.out.contains("removed"), "{said:?}");
}
