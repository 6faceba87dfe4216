//! What becomes of people when the fleet file loses what it held: nothing, until somebody has
//! seen it and says so.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{World, process, wait};
use crate::operations::{Held, keyway, neighbours, reload};

/// More than may go unasked.
const MANY: usize = 12;

/// What the API answers to a reload.
#[track_caller]
fn reloaded(world: &World, query: &str, body: &Value) -> Value {
    let mut stream =
        UnixStream::connect(world.path("state").join("keyway.sock")).expect("the socket");
    let body = body.to_string();
    let request = format!(
        "POST /v1/reload{query} HTTP/1.1\r\nhost: it\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    serde_json::from_str(body).expect("JSON")
}

/// What came of the fleet file.
fn file_part(answer: &Value) -> &Value {
    let parts = answer["parts"].as_array().expect("parts");
    parts.iter().find(|part| part["part"] == "fleet-file").expect("the file's")
}

/// Whether `user` is registered.
fn is_known(world: &World, user: &str) -> bool {
    keyway(world, &["user", "show", user]).status == 0
}

#[test]
fn an_emptied_or_truncated_fleet_file_takes_nothing_from_anybody_at_a_reload_or_a_start() {
    if World::is_passed_by() {
        return;
    }
    let mut world = neighbours().start();
    let fleet = world.path("fleet.toml");
    let less = fs::read_to_string(&fleet).expect("the fleet");
    let mut whole = less.clone();
    for number in 0..MANY {
        let _ = write!(whole, "[[user]]\nname = \"more{number}\"\nkeys = []\n");
    }
    fs::write(&fleet, &whole).expect("the fleet");
    keyway(&world, &["reload"]).ok();
    assert!(is_known(&world, "more0"));
    let target = world.target("alice", "s001");

    let cut = "would remove 12 of 14 users";
    for (text, words) in [("", "the fleet file is empty"), (&less, cut)] {
        let mut held = Held::start(&world, &target, "alice");
        fs::write(&fleet, text).expect("the fleet");
        assert!(reload(&mut world).contains(words), "{}", world.log());
        // The same file at a start.
        for again in [false, true] {
            if again {
                assert!(held.goes_on(), "the session was cut");
                process::signal(world.edge().id(), Signal::SIGKILL);
                wait::until("the end", wait::SOON, || world.edge().has_ended());
                world.restart();
            }
            let status = keyway(&world, &["status", "--wait"]).ends(1).text();
            assert!(status.starts_with("state      degraded\n"), "{status}");
            let file = status.lines().find(|line| line.starts_with("fleet-file")).expect("a part");
            assert!(file.contains("down") && file.contains(words), "{status}");
            assert_eq!(target.ssh(&[], "echo $KEYWAY_VM").ok().text(), "blue");
            assert!(is_known(&world, "more0") && is_known(&world, "bob"));
        }
    }

    // A plan that was shown stands for what was shown.
    let shown = reloaded(&world, "?dry_run=true", &json!({}));
    let plan = shown["plan"].as_str().expect("a plan").to_owned();
    assert_eq!(file_part(&shown)["result"], "failed");
    keyway(&world, &["user", "add", "dora"]).ok();
    let stale = reloaded(&world, "", &json!({ "allow_mass_removal": plan }));
    assert_eq!(file_part(&stale)["result"], "failed", "{stale}");
    assert!(stale.to_string().contains("look at the plan again"), "{stale}");
    assert!(is_known(&world, "more0"));

    // The command line looks and says in one go.
    assert_eq!(keyway(&world, &["reload"]).status, 1);
    let allowed = keyway(&world, &["reload", "--allow-mass-removal"]).ok();
    assert!(
        allowed.stderr.contains("allowed: ") && allowed.stderr.contains("remove 12 of 14 users"),
        "{}",
        allowed.stderr
    );
    assert!(!is_known(&world, "more0") && is_known(&world, "dora"));
    let status = keyway(&world, &["status"]).ok().text();
    assert!(status.starts_with("state      up\n"), "{status}");
    // For that plan alone: an empty file is never meant.
    fs::write(&fleet, "").expect("the fleet");
    keyway(&world, &["reload", "--allow-mass-removal"]).ends(1);
    assert_eq!(target.ssh(&[], "echo $KEYWAY_VM").ok().text(), "blue");
}
