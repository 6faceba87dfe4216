//! Tests of `keyway status` and `keyway reload`: what is asked, what is said, and with
//! which exit code.

use super::testing::{Fake, Said, Sitting, refusing, say_with};
use super::*;

fn status(state: &str) -> String {
    format!(
        r#"{{"state":"{state}","version":"1.2.3","pid":77,"since_s":0,"revision":5,
        "counts":{{"sessions":2,"sessions_max":9,"half_open":1,"half_open_max":4,"users":3,"keys":4,"vms":5,"addresses":6}},
        "parts":[{{"part":"door","state":"up","detail":"127.0.0.1:22"}},
                 {{"part":"fleet-file","state":"off","detail":""}}]}}"#
    )
}

#[test]
fn a_status_shows_counts_and_every_part_and_says_by_its_exit_code_how_it_is() {
    for (state, code) in [("up", DONE), ("degraded", FAULTS), ("down", UNREACHABLE)] {
        let fake = Fake::new(&[(200, &status(state))]);
        let said = fake.say(&["status"]);
        assert_eq!((said.code, said.err.as_str()), (code, ""));
        assert_eq!(fake.asked(), ["GET /v1/status"]);
        assert!(said.out.starts_with(&format!("state      {state}\n")), "{}", said.out);
        assert!(said.out.contains("sessions   2 of 9\n"), "{}", said.out);
        let parts =
            "PART        STATE  DETAIL\ndoor        up     127.0.0.1:22\nfleet-file  off    -\n";
        assert!(said.out.ends_with(parts), "{}", said.out);
    }
    let fake = Fake::new(&[(200, &status("up"))]);
    let said = fake.say(&["status", "--output", "json"]);
    let told: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(told["counts"]["vms"], 5);
}

#[test]
fn who_waits_is_told_when_people_get_in() {
    let ending = r#"{"code":"ending","detail":"keyway is ending"}"#;
    let answers = [(503, ending), (200, &status("down")), (200, &status("up"))];
    let fake = Fake::new(&answers);
    let said = fake.say(&["status", "--wait"]);
    assert_eq!(said.code, DONE, "{said:?}");
    assert_eq!(fake.asked().len(), 3);
    // Not for ever.
    let fake = Fake::new(&[(200, &status("down"))]);
    assert_eq!(fake.say(&["status", "--wait=0"]).code, UNREACHABLE);
    let nobody = ["status", "--wait=0", "--socket", "/nowhere/keyway.sock"];
    let said = say_with(&nobody, &refusing(), &[], "", Sitting::Nobody);
    assert_eq!(said.code, UNREACHABLE);
    assert!(said.err.contains("no keyway serves at /nowhere/keyway.sock"), "{said:?}");
}

#[test]
fn a_reload_tells_what_came_of_each_part_and_what_takes_a_restart() {
    let whole = r#"{"done":true,"dry_run":false,"warnings":["unwise"],"restart":[],"parts":[
        {"part":"revocations","result":"done","details":[]},{"part":"fleet-file","result":"done","details":["2 changes"]}]}"#;
    let fake = Fake::new(&[(200, whole)]);
    let out = "\
PART         RESULT  DETAIL
revocations  done    -
fleet-file   done    2 changes
";
    let said = fake.say(&["reload"]);
    let err = "warning: unwise\n".to_owned();
    assert_eq!(said, Said { code: DONE, out: out.to_owned(), err });
    assert_eq!(fake.asked(), ["POST /v1/reload {}"]);

    let part = r#"{"done":false,"dry_run":true,"warnings":[],
        "restart":[{"key":"edge.listen","running":"a:1","file":"a:2"}],
        "parts":[{"part":"config","result":"failed","details":["one","two"]},
                 {"part":"door","result":"skipped","details":["why"]}]}"#;
    let fake = Fake::new(&[(200, part)]);
    let out = "\
PART    RESULT   DETAIL
config  failed   one
config  failed   two
door    skipped  why
";
    let said = fake.say(&["reload", "--dry-run"]);
    let err = "needs a restart: edge.listen is \"a:1\" until then, and the file says \"a:2\"\n";
    assert_eq!(said, Said { code: FAULTS, out: out.to_owned(), err: err.to_owned() });
    assert_eq!(fake.asked(), ["POST /v1/reload?dry_run=true {}"]);
}
