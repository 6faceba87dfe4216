//! Tests of what needs files: a fleet applied and exported, the store and the host key beside a
//! service that is stopped.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::testing::{ALICE, Fake, Said, Scratch, Sitting, refusing, say_with};
use super::*;
use crate::registry::store::{Sqlite, Store as _, StoreId, Transaction};
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::private_key::PrivateKey;
use crate::state::State;

const PLAN: &str = r#"{"planned_at":3,"revision":4,"dry_run":true,"plan":[
    {"command":"user-add","subject":"alice","text":"with 1 key","result":"ok","detail":null},
    {"command":"vm-add","subject":"blue","text":"at s001, for alice","result":"ok","detail":null}],"moves":[]}"#;
const MADE: &str = r#"{"revision":6,"dry_run":false,"plan":[
    {"command":"user-add","subject":"alice","text":"with 1 key","result":"ok","detail":null}],"moves":[]}"#;
const REFUSED: &str = r#"{"revision":6,"dry_run":false,"plan":[
    {"command":"user-add","subject":"alice","text":"with 1 key","result":"ok","detail":null},
    {"command":"vm-rm","subject":"red","text":"","result":"refused","detail":"in use"}],
    "moves":[{"vm":"blue","from":"s1","to":"s2","old_for":["alice"]}]}"#;
const NOTHING: &str = r#"{"revision":6,"dry_run":true,"plan":[],"moves":[]}"#;

const STORE: &str = r#"{"store_id":"a","revision":4}"#;

fn fleet() -> String {
    format!(
        "[[user]]\nname = \"alice\"\nkeys = [\"{ALICE}\"]\n[[team]]\nname = \"ops\"\nmembers = [\"alice\"]\n\
         [[vm]]\nname = \"blue\"\nowner = \"alice\"\nssh = \"10.0.0.5:22\"\nshare = [\"team:ops\"]\n"
    )
}

/// What is sent of it.
fn sent(prune: bool) -> String {
    format!(
        r#"{{"fleet":{{"teams":[{{"members":["alice"],"name":"ops"}}],"users":[{{"keys":["{ALICE}"],"name":"alice"}}],"vms":[{{"name":"blue","owner":"alice","share":["team:ops"],"ssh":"10.0.0.5:22"}}]}},"prune":{prune}}}"#
    )
}

#[test]
fn a_fleet_is_applied_once_somebody_agrees_to_its_plan() {
    let fake = Fake::new(&[(200, PLAN), (200, STORE), (200, MADE)]);
    let file = fake.scratch.file("fleet.toml", &fleet());
    let said = fake.say_sitting(&["apply", "-f", &file], "y\n", Sitting::Somebody);
    assert_eq!(said.code, DONE, "{said:?}");
    assert_eq!(
        said.err,
        "comparing 3 things...\n\
         WHAT      OF     HOW                 RESULT  WHY\n\
         user-add  alice  with 1 key          ok      -\n\
         vm-add    blue   at s001, for alice  ok      -\n\
         carry out 2 changes? [y/N] carrying it out...\n"
    );
    assert!(said.out.ends_with("1 change made\n"), "{said:?}");
    let (plan, made) = (sent(false), sent(false));
    let asked = [
        format!("POST /v1/apply?dry_run=true {plan}"),
        "GET /v1/store".to_owned(),
        format!("POST /v1/apply {made} if 3"),
    ];
    assert_eq!(fake.asked(), asked);

    for (stdin, sitting, why) in [
        ("n\n", Sitting::Somebody, "nothing was changed"),
        ("", Sitting::Somebody, "nothing was changed"),
        ("y\n", Sitting::Nobody, "nobody is there to ask"),
    ] {
        let fake = Fake::new(&[(200, PLAN)]);
        let file = fake.scratch.file("fleet.toml", &fleet());
        let said = fake.say_sitting(&["apply", "-f", &file], stdin, sitting);
        assert_eq!((said.code, said.out.as_str()), (FAULTS, ""), "{said:?}");
        assert!(said.err.contains(why), "{said:?}");
        assert_eq!(fake.asked().len(), 1);
    }
}

#[test]
fn whoever_looks_on_is_told_how_far_a_long_change_has_come() {
    let later = STORE.replace('4', "5");
    let fake = Fake::slow(&[PLAN, STORE], &[STORE, &later, &STORE.replace('4', "900")], MADE);
    let file = fake.scratch.file("fleet.toml", &fleet());
    let said = fake.say_sitting(&["apply", "-f", &file], "y\n", Sitting::Somebody);
    let told = "carrying it out...\n\r\u{1b}[Kcarrying it out: 1 of 2\r\u{1b}[Kcarrying it out: 2 of 2\r\u{1b}[K";
    assert!(said.err.ends_with(told), "{said:?}");
    assert_eq!(fake.asked()[3..], ["GET /v1/store"; 3]);

    let drained = r#"{"revision":9,"dry_run":false,"moves":[],"warnings":[],"item":{}}"#;
    let fake = Fake::slow(&[STORE], &[&later], drained);
    let said = fake.say_sitting(&["address", "drain", "s1"], "", Sitting::Somebody);
    let told = "moving the VMs of s1...\n\r\u{1b}[Kmoving the VMs of s1: 1\r\u{1b}[K";
    assert_eq!(said.err, told);
    // Nobody looks on: nothing is asked but what has to be.
    let fake = Fake::new(&[(200, drained)]);
    assert_eq!(fake.say(&["address", "drain", "s1"]).err, "");
    assert_eq!(fake.asked(), ["POST /v1/addresses/s1/drain"]);
}

#[test]
fn a_registry_that_changed_behind_a_plan_is_left_alone() {
    let changed = r#"{"code":"changed","detail":"the registry changed meanwhile (it is at revision 4, not 3); look at the plan again"}"#;
    let fake = Fake::new(&[(200, PLAN), (412, changed)]);
    let file = fake.scratch.file("fleet.toml", &fleet());
    let said = fake.say_sitting(&["apply", "-f", &file], "y\n", Sitting::Somebody);
    assert_eq!((said.code, said.out.as_str()), (4, ""), "{said:?}");
    assert!(said.err.contains("changed meanwhile") && said.err.contains("plan again"), "{said:?}");
}

#[test]
fn a_fleet_is_applied_unasked_or_only_tried() {
    // A part of it would be refused, and nothing of it is begun.
    let tried = REFUSED.replace("\"dry_run\":false", "\"dry_run\":true");
    let fake = Fake::new(&[(200, &tried)]);
    let file = fake.scratch.file("fleet.toml", &fleet());
    let said = fake.say(&["apply", "-f", &file, "--yes", "--prune"]);
    let out = "WHAT      OF     HOW         RESULT   WHY\n\
               user-add  alice  with 1 key  ok       -\n\
               vm-rm     red    -           refused  in use\n\
               vm blue moved from s1 to s2; s1 leads there for a while for alice\n\
               1 change to make; nothing was changed\n";
    let err = "keyway: 1 change refused\n";
    assert_eq!(said, Said { code: FAULTS, out: out.to_owned(), err: err.to_owned() });
    assert_eq!(fake.asked(), [format!("POST /v1/apply?dry_run=true {}", sent(true))]);

    let fake = Fake::new(&[(200, PLAN), (200, MADE)]);
    let file = fake.scratch.file("fleet.toml", &fleet());
    let said = fake.say(&["apply", "-f", &file, "--yes", "--renumber"]);
    assert_eq!(said.code, DONE, "{said:?}");
    let asked = ["dry_run=true&renumber=true", "renumber=true"];
    let asked = asked.map(|query| format!("POST /v1/apply?{query} {}", sent(false)));
    assert_eq!(fake.asked(), [asked[0].clone(), format!("{} if 3", asked[1])]);

    let fake = Fake::new(&[(200, PLAN), (200, NOTHING), (200, PLAN)]);
    let file = fake.scratch.file("fleet.toml", &fleet());
    let said = fake.say(&["apply", "-f", &file, "--dry-run"]);
    assert!(said.code == DONE && said.out.ends_with("2 changes to make\n"), "{said:?}");
    let said = fake.say(&["apply", "-f", &file]);
    assert_eq!((said.code, said.out.as_str()), (DONE, "nothing to do: all is as the file says\n"));
    let said = fake.say(&["apply", "-f", &file, "--dry-run", "--output", "json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&said.out).unwrap()["revision"], 4);
    assert!(fake.asked().iter().all(|asked| asked.contains("dry_run=true")));
}

#[test]
fn faults_of_a_fleet_file_are_told_with_their_lines_and_nothing_is_sent() {
    let fake = Fake::new(&[]);
    let file =
        fake.scratch.file("fleet.toml", "[[vm]]\nname = \"Blue\"\nowner = \"alice\"\nssh = 3\n");
    let said = fake.say(&["apply", "-f", &file, "--yes"]);
    assert_eq!((said.code, said.out.as_str()), (FAULTS, ""));
    for line in [
        "fleet.toml:2: `vm.name` is \"Blue\"",
        "fleet.toml:4: `vm.ssh` is an integer",
        "keyway: 2 faults",
    ] {
        assert!(said.err.contains(line), "{said:?}");
    }
    let missing = fake.scratch.path("missing.toml");
    assert_eq!(fake.say(&["apply", "-f", &missing, "--yes"]).code, FAULTS);
    assert_eq!(fake.asked(), Vec::<String>::new());
}

#[test]
fn an_export_is_a_fleet_file_or_json() {
    let answer = format!(
        r#"{{"fleet":{{"addresses":[{{"name":"s1","public":"1.2.3.4","public6":null,"private":null,"lobby":false}}],
        "users":[{{"name":"alice","keys":["{ALICE}"]}}],"teams":[],"vms":[]}}}}"#
    );
    let fake = Fake::new(&[(200, &answer), (200, &answer), (200, r#"{"fleet":{"hosts":[]}}"#)]);
    let said = fake.say(&["export"]);
    let out = format!(
        "[[address]]\nname = \"s1\"\npublic = \"1.2.3.4\"\n[[user]]\nname = \"alice\"\nkeys = [\"{ALICE}\"]\n"
    );
    assert_eq!(said, Said { code: DONE, out, err: String::new() });
    let json = fake.say(&["export", "--output", "json"]).out;
    assert!(json.starts_with(r#"{"addresses":[{"lobby":false,"#), "{json}");
    // What this program does not know it does not leave out in silence.
    let said = fake.say(&["export"]);
    assert!(said.code == FAULTS && said.err.contains("unknown field `hosts`"), "{said:?}");
    assert_eq!(fake.asked(), ["GET /v1/export"; 3]);
}

#[test]
fn a_zone_is_printed_as_it_is_but_for_controls() {
    let fake = Fake::new(&[(200, "$ORIGIN vm.test.\nblue\tIN\tCNAME\ts001\n; \u{1b}[2J\n")]);
    let said = fake.say(&["zone", "export"]);
    assert_eq!(said.out, "$ORIGIN vm.test.\nblue\tIN\tCNAME\ts001\n; \\u{1b}[2J\n");
    assert_eq!(fake.asked(), ["GET /v1/zone"]);
}

#[test]
fn the_audit_log_is_told_oldest_first_and_followed_without_a_gap() {
    let entry = |key: &str, at_s: u64| {
        format!(
            r#"{{"key":"{key}","at_s":{at_s},"actor":{{"name":"uid 0","from":"socket"}},
            "command":{{"command":"user-rm","name":"{key}"}},"moves":[]}}"#
        )
    };
    let page = |entries: &[String]| {
        format!(r#"{{"items":[{}],"next":null,"revision":5}}"#, entries.join(","))
    };
    let [first, second, same, unseen, last] =
        [("a", 10), ("b", 20), ("c", 20), ("z", 20), ("d", 21)].map(|(key, at_s)| entry(key, at_s));
    let newest = page(&[second.clone(), first.clone()]);
    let fake = Fake::new(&[(200, &newest)]);
    let said = fake.say(&["audit", "list", "--limit", "1"]);
    let out = "AT                    WHO    FROM    WHAT     RESULT  PARAMETERS  MOVES\n\
               1970-01-01T00:00:20Z  uid 0  socket  user-rm  done    name=b      -\n";
    assert_eq!(said.out, out);
    assert_eq!(fake.asked(), ["GET /v1/audit?newest=true&limit=1000"]);

    // `z` is as old as `b` and was not to be shown; `c` comes later in the same second and
    // stands behind `b`.
    let more = page(&[last, second.clone(), same, unseen.clone(), first.clone()]);
    let two = page(&[second, unseen, first.clone()]);
    let stream = "{\"revision\":6}\n{\"revision\":7}\n";
    let head = page(&[first]);
    let fake = Fake::new(&[(200, &head), (200, &two), (200, stream), (200, &more), (200, &more)]);
    let said = fake.say(&["audit", "list", "--limit", "1", "--follow"]);
    let keys: Vec<_> = said.out.lines().map(|line| line.rsplit('=').next().unwrap()).collect();
    assert_eq!(keys, ["b", "c", "d"], "{said:?}");
    assert_eq!(said.code, FAULTS, "the stream ended");
    assert_eq!(fake.asked()[2], "GET /v1/watch?after=5");
}

/// A state directory with its configuration.
fn state() -> (Scratch, State, String) {
    let scratch = Scratch::new();
    let config = scratch.file("keyway.toml", "state_dir = \"state\"\n");
    let state = State::open(&scratch.0.join("state")).unwrap();
    (scratch, state, config)
}

fn say(arguments: &[&str]) -> Said {
    say_with(arguments, &refusing(), &[], "", Sitting::Nobody)
}

#[test]
fn a_store_is_restored_while_nobody_serves_and_adopted() {
    let (scratch, state, config) = state();
    let said = say(&["store", "adopt", "--config", &config]);
    assert!(said.code == FAULTS && said.err.contains("there is no store"), "{said:?}");

    let store = Sqlite::open(&state.store(), StoreId([1; 16])).unwrap();
    store.transact(&Transaction::new().put("user/alice", "{}")).unwrap();
    let backup = scratch.path("backup.db");
    store.backup(Path::new(&backup)).unwrap();
    drop(store);
    let restore = ["store", "restore", &backup, "--config", &config];
    let lock = state.lock().unwrap();
    let said = say(&restore);
    assert!(said.code == FAULTS && said.err.contains("in use by another keyway"), "{said:?}");
    drop(lock);

    let said = say(&restore);
    assert_eq!((said.code, said.err.as_str()), (DONE, ""), "{said:?}");
    assert!(said.out.contains("; the store before it is kept as "), "{said:?}");
    assert!(
        said.out.ends_with("revision 1); next: keyway serve\n"),
        "no routes are saved: {said:?}"
    );
    assert_eq!(state.adopted().unwrap(), None);
    let said = say(&["store", "adopt", "--config", &config, "--output", "json"]);
    let adopted = state.adopted().unwrap().unwrap();
    let id = adopted.store_id;
    assert_eq!(said.out, format!("{{\"revision\":1,\"store_id\":\"{id}\"}}\n"));
    assert_ne!(id, "01".repeat(16), "a restored store is another history");
    assert_eq!((adopted.revision, adopted.nothing_lost), (1, false));
    let restored = state.restored().unwrap();
    assert_eq!((restored.len(), &restored[0].store_id, &restored[0].from), (1, &id, &backup));

    // Somebody uses it who holds neither the directory nor, were it damaged, a lock of SQLite's.
    let used = state.use_store().unwrap();
    let said = say(&restore);
    assert!(said.code == FAULTS && said.err.contains("maybe by a keyway that drains"), "{said:?}");
    drop(used);

    let missing = scratch.path("missing.db");
    assert_eq!(say(&["store", "restore", &missing, "--config", &config]).code, FAULTS);
    let no_store = scratch.file("no.db", "x");
    assert_eq!(say(&["store", "restore", &no_store, "--config", &config]).code, FAULTS);
}

#[test]
fn a_store_that_goes_on_where_the_routes_ended_is_not_adopted() {
    let (scratch, state, config) = state();
    let store = Sqlite::open(&state.store(), StoreId([1; 16])).unwrap();
    store.transact(&Transaction::new().put("user/alice", "{}")).unwrap();
    let backup = scratch.path("backup.db");
    store.backup(Path::new(&backup)).unwrap();
    let adopt = ["store", "adopt", "--config", &config];
    let save = |revision| {
        let head = crate::route::saved_routes::Head { store: [1; 16], program: [0; 8], revision };
        state.routes().write(head, &crate::route::Contents::default()).unwrap();
    };
    for saved in [None, Some(0), Some(1)] {
        saved.map(save);
        let said = say(&adopt);
        assert!(said.code == FAULTS && said.err.contains("there is nothing to adopt"), "{said:?}");
        assert_eq!(state.adopted().unwrap(), None);
    }
    // An old copy was put back by hand.
    save(2);
    assert_eq!(say(&adopt).code, DONE);
    assert!(state.adopted().unwrap().is_some());
    state.settle().unwrap();
    drop(store);
    let said = say(&["store", "restore", &backup, "--config", &config]);
    assert!(said.out.ends_with("; next: keyway store adopt, then keyway serve\n"), "{said:?}");
    assert_eq!(say(&["store", "adopt", "--nothing-lost", "--config", &config]).code, DONE);
    assert!(state.adopted().unwrap().unwrap().nothing_lost);
}

#[test]
fn a_host_key_goes_from_one_edge_to_another_and_replaces_none() {
    let (scratch, state, config) = state();
    let file = scratch.path("key");
    let export = ["hostkey", "export", &file, "--config", &config];
    let said = say(&export);
    assert_eq!((said.code, said.err.as_str()), (DONE, ""), "{said:?}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(say(&export).out.contains("is already in"), "the same again");

    let (_other_scratch, other, other_config) = self::state();
    let import = ["hostkey", "import", &file, "--config", &other_config];
    assert!(say(&import).out.contains("counts from the next start on"));
    assert!(say(&import).out.contains("in place already"));
    let entropy = &mut SystemEntropy::default();
    let [one, two] = [&state, &other]
        .map(|state| state.host_key(&mut SystemEntropy::default()).unwrap().public().to_line());
    assert_eq!(one, two);

    let third = PrivateKey::generate_ed25519(entropy).to_openssh("", entropy);
    let third = scratch.file("third", &third);
    let said = say(&["hostkey", "import", &third, "--config", &other_config]);
    assert!(said.code == FAULTS && said.err.contains("holds another key"), "{said:?}");
    let said = say(&["hostkey", "export", &third, "--config", &config]);
    assert!(said.code == FAULTS && said.err.contains("holds another key"), "{said:?}");
    let given =
        scratch.file("given.toml", "state_dir = \"state\"\n[edge]\nhost_keys = [\"key\"]\n");
    let said = say(&["hostkey", "import", &file, "--config", &given]);
    assert!(said.code == FAULTS && said.err.contains("edge.host_keys names"), "{said:?}");
    let public = scratch.file("key.pub", ALICE);
    let said = say(&["hostkey", "import", &public, "--config", &other_config]);
    assert_eq!((said.code, said.out.as_str()), (FAULTS, ""), "{said:?}");
    let said = say(&["hostkey", "export", &public, "--config", &config]);
    assert_eq!(said.code, FAULTS);
    assert_eq!(fs::read_to_string(&public).unwrap(), ALICE, "a file that was there is as it was");
}
