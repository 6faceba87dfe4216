//! What the API does, over its socket.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::problem::Problem;
use super::testing::{World, key, now_s, user};
use crate::registry::document::Role;
use crate::registry::writer::{Actor, CommandRequest, Mode, ServiceError};
use crate::registry::{Command, Label, Options};

fn address(world: &World, name: &str, public: &str) {
    world.must("POST", "/v1/addresses", &json!({"name": name, "public": public}));
}

fn vm(world: &World, name: &str, owner: &str, at: &str) {
    let vm = json!({"name": name, "owner": owner, "ssh": "127.0.0.1:22", "address": at});
    world.must("POST", "/v1/vms", &vm);
}

#[test]
fn users_teams_and_vms_are_made_shown_and_removed() {
    let world = World::new();
    let line = format!("restrict,pty {} a laptop", key());
    let made = world.ask("POST", "/v1/users", &json!({"name": "alice", "keys": [line]}));
    assert_eq!(made.status, 201);
    let made = made.json();
    assert_eq!(made["dry_run"], false);
    let shown = &made["item"]["keys"][0];
    assert_eq!(shown["line"], line.as_str());
    assert_eq!(shown["type"], "ssh-ed25519");
    assert_eq!(
        (&shown["options"], &shown["comment"]),
        (&json!("restrict,pty"), &json!("a laptop"))
    );
    assert_eq!(shown.get("user"), None);
    world.must("POST", "/v1/teams", &json!({"name": "ops", "members": ["alice"]}));
    let shown = world.get("/v1/users/alice");
    assert_eq!(shown.status, 200);
    assert_eq!(shown.json()["teams"], json!(["ops"]));
    let tag = format!("\"{}\"", shown.json()["revision"]);
    assert_eq!(shown.header("etag"), Some(tag.as_str()));
    assert_eq!(shown.header("cache-control"), Some("no-store"));
    let vm =
        json!({"name": "blue", "owner": "team:ops", "ssh": "127.0.0.1:22", "no_address": true});
    let vm = world.must("POST", "/v1/vms", &vm);
    assert_eq!(vm["item"]["address"], Value::Null);
    let listed = world.get("/v1/vms?visible_to=alice").json();
    assert_eq!(listed["items"][0]["name"], "blue");
    assert_eq!(world.get("/v1/vms?owner=alice").json()["items"], json!([]));
    assert_eq!(world.get("/v1/vms?owner=team%3Aops").json()["items"][0]["name"], "blue");
    assert_eq!(world.get("/v1/users/alice").json()["vms"], 1);
    assert_eq!(world.refused("GET", "/v1/vms?visible_to=eve", &Value::Null).0, 404);
    assert_eq!(world.refused("GET", "/v1/vms?address=s001", &Value::Null).0, 404);
    let renamed = world.must("POST", "/v1/vms/blue/rename", &json!({"to": "green"}));
    assert_eq!(
        (&renamed["item"]["name"], &renamed["item"]["id"]),
        (&json!("green"), &json!("blue"))
    );
    let gone = world.must("DELETE", "/v1/vms/green", &Value::Null);
    assert_eq!(gone.get("item"), None);
    assert_eq!(world.refused("GET", "/v1/vms/green", &Value::Null), (404, "not-found".into()));
}

#[test]
fn a_vm_is_shared_set_and_moved() {
    let world = World::new();
    for name in ["alice", "bob"] {
        user(&world, name);
    }
    address(&world, "s001", "127.0.77.1");
    address(&world, "s002", "127.0.77.2");
    vm(&world, "blue", "alice", "s001");
    let shared = world.must("PUT", "/v1/vms/blue/shares/bob", &json!({}));
    assert_eq!(shared["item"]["shares"], json!([{"principal": "bob", "access": "slot"}]));
    assert_eq!(shared["item"]["public"], "127.0.77.1");
    let set = json!({"login": "root", "state": "maint", "ssh": "127.0.0.2:22"});
    let set = world.must("PATCH", "/v1/vms/blue", &set)["item"].clone();
    assert_eq!(
        (&set["login"], &set["state"], &set["ssh"]),
        (&json!("root"), &json!("maint"), &json!("127.0.0.2:22"))
    );
    let cleared = world.must("PATCH", "/v1/vms/blue", &json!({"login": ""}));
    assert_eq!(cleared["item"]["login"], Value::Null);
    assert_eq!(cleared["item"]["state"], "maint");
    let moved = world.must("POST", "/v1/vms/blue/renumber", &Value::Null);
    assert_eq!(
        moved["moves"],
        json!([{"vm": "blue", "from": "s001", "to": "s002", "old_for": ["alice", "bob"]}])
    );
    let old = &moved["item"]["old_addresses"][0];
    assert_eq!((&old["address"], &old["principals"]), (&json!("s001"), &json!(["alice", "bob"])));
    world.must("DELETE", "/v1/vms/blue/shares/bob", &Value::Null);
    let given = world.must("POST", "/v1/vms/blue/transfer", &json!({"to": "bob"}));
    assert_eq!(given["item"]["owner"], "bob");
}

#[test]
fn a_dry_run_says_the_same_and_changes_nothing() {
    let world = World::new();
    user(&world, "alice");
    address(&world, "s001", "127.0.77.1");
    let before = world.service.revision();
    let vm = json!({"name": "blue", "owner": "alice", "ssh": "127.0.0.1:22"});
    let dry = world.ask("POST", "/v1/vms?dry_run=true", &vm);
    assert_eq!(dry.status, 200, "nothing was created");
    let dry = dry.json();
    assert_eq!((&dry["dry_run"], &dry["item"]["address"]), (&json!(true), &json!("s001")));
    assert_eq!(world.service.revision(), before);
    assert_eq!(world.refused("GET", "/v1/vms/blue", &Value::Null).0, 404);
    let real = world.must("POST", "/v1/vms", &vm);
    assert_eq!(real["item"], dry["item"]);
    let refused = world.refused("POST", "/v1/vms?dry_run=true", &vm);
    assert_eq!(refused, (409, "name-taken".into()));
    let token = json!({"name": "ci", "role": "reader"});
    let token = world.must("POST", "/v1/tokens?dry_run=true", &token);
    assert_eq!(token["item"].get("token"), None, "a token that was not made is not shown");
}

#[test]
fn every_refusal_of_the_registry_has_its_status_and_code() {
    let world = World::new();
    let mut seen = BTreeSet::new();
    let mut refused = |method: &str, path: &str, body: &Value, status: u16, code: &str| {
        assert_eq!(world.refused(method, path, body), (status, code.to_owned()), "{method} {path}");
        seen.insert(code.to_owned());
    };
    let (one, none) = (key(), Value::Null);
    user(&world, "alice");
    user(&world, "bob");
    world.must("POST", "/v1/users/alice/keys", &json!({"line": one}));
    address(&world, "s001", "127.0.77.1");
    vm(&world, "blue", "alice", "s001");
    vm(&world, "green", "bob", "s001");
    let new_vm =
        |name: &str, owner: &str| json!({"name": name, "owner": owner, "ssh": "127.0.0.1:22"});
    refused("GET", "/v1/users/carol", &none, 404, "not-found");
    refused("POST", "/v1/users", &json!({"name": "alice"}), 409, "name-taken");
    refused("POST", "/v1/users", &json!({"name": "Alice!"}), 422, "invalid");
    refused("GET", "/v1/users/Alice", &none, 422, "invalid");
    refused("POST", "/v1/vms", &new_vm("ns", "alice"), 422, "name-reserved");
    refused("POST", "/v1/users/bob/keys", &json!({"line": one}), 409, "key-taken");
    refused(
        "POST",
        "/v1/addresses",
        &json!({"name": "s002", "public": "127.0.77.1"}),
        409,
        "ip-taken",
    );
    refused("DELETE", "/v1/users/alice", &none, 409, "in-use");
    refused("PUT", "/v1/vms/blue/shares/bob", &json!({}), 409, "conflict");
    refused("DELETE", "/v1/vms/blue/shares/bob", &none, 409, "already");
    refused("POST", "/v1/vms", &new_vm("red", "alice"), 409, "pool-exhausted");
    let keys: Vec<String> = (0..257).map(|_| key()).collect();
    refused("POST", "/v1/users", &json!({"name": "carol", "keys": keys}), 409, "too-many");
    let reply = world.send("DELETE", "/v1/users/bob", &["if-match: \"1\""], b"");
    assert_eq!((reply.status, reply.code().as_deref()), (412, Some("changed")));
    address(&world, "s002", "127.0.77.2");
    world.must("POST", "/v1/addresses/s002/maint", &none);
    let mut there = new_vm("red", "bob");
    there["address"] = json!("s002");
    refused("POST", "/v1/vms", &there, 409, "address-not-ready");
    let both = json!({"name": "x", "owner": "bob", "ssh": "127.0.0.1:22", "address": "s001", "no_address": true});
    refused("POST", "/v1/vms", &both, 422, "invalid");
    seen.insert("changed".to_owned());
    let all = [
        "address-not-ready",
        "already",
        "changed",
        "conflict",
        "in-use",
        "invalid",
        "ip-taken",
        "key-taken",
        "name-reserved",
        "name-taken",
        "not-found",
        "pool-exhausted",
        "too-many",
    ];
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), all);
}

#[test]
fn a_store_that_fails_and_a_service_that_ends_are_503() {
    for (failed, code) in [
        (ServiceError::Store("disk full".into()), "registry-away"),
        (ServiceError::Ended, "ending"),
    ] {
        let problem = Problem::from(failed);
        assert_eq!((problem.status.as_u16(), problem.code), (503, code));
    }
}

#[test]
fn a_change_meant_for_another_revision_is_not_made() {
    let world = World::new();
    user(&world, "alice");
    let tag = world.get("/v1/users/alice").header("etag").unwrap().to_owned();
    let add = |tag: &str| {
        let header = format!("if-match: {tag}");
        let body = json!({"line": key()}).to_string();
        let headers = ["content-type: application/json", &header];
        world.send("POST", "/v1/users/alice/keys", &headers, body.as_bytes())
    };
    assert_eq!(add(&tag).status, 201);
    let stale = add(&tag);
    assert_eq!((stale.status, stale.code().as_deref()), (412, Some("changed")));
    assert_eq!(add("*").status, 201);
    assert_eq!(add("\"0\"").status, 412);
    assert_eq!(world.get("/v1/users/alice").json()["keys"].as_array().unwrap().len(), 2);
}

/// All pages of a list.
fn pages(world: &World, path: &str, limit: usize) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let mark = if path.contains('?') { '&' } else { '?' };
        let page = world.get(&format!("{path}{mark}limit={limit}{cursor}")).json();
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= limit);
        all.extend(items.iter().cloned());
        let Some(next) = page["next"].as_str() else { return all };
        assert_eq!(items.len(), limit, "a page that is not the last is full");
        let next = next.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        cursor = format!("&after={next}");
    }
}

#[test]
fn pages_of_250_things_hold_each_once_and_in_order() {
    let world = World::new();
    let actor = || Actor { name: "test".into(), from: "test".into() };
    let order = |command| CommandRequest {
        command,
        options: Options::default(),
        expected: None,
        actor: actor(),
    };
    let add = |n: usize| {
        let keys = if n.is_multiple_of(5) { vec![key(), key(), key()] } else { vec![] };
        order(Command::UserAdd { name: Label::new(&format!("u{n:03}")).unwrap(), keys })
    };
    let answers = world.service.carry_out_all((0..250).map(add).collect(), Mode::Real);
    assert!(answers.iter().all(Result::is_ok));
    let names: Vec<String> = (0..250).map(|n| format!("u{n:03}")).collect();
    let default = world.get("/v1/users").json();
    assert_eq!(
        (default["items"].as_array().unwrap().len(), &default["next"]),
        (100, &json!("u099"))
    );
    for limit in [1, 7, 100, 125, 250, 1000] {
        let listed = pages(&world, "/v1/users", limit);
        let listed: Vec<&str> = listed.iter().map(|user| user["name"].as_str().unwrap()).collect();
        assert_eq!(listed, names, "limit {limit}");
    }
    let name = |key: &Value| {
        (key["user"].as_str().unwrap().to_owned(), key["fingerprint"].clone().to_string())
    };
    for limit in [1, 2, 4, 100, 1000] {
        let keys: Vec<_> = pages(&world, "/v1/keys", limit).iter().map(name).collect();
        assert_eq!(keys.len(), 150, "limit {limit}");
        assert!(keys.is_sorted() && keys.iter().collect::<BTreeSet<_>>().len() == 150);
    }
    let audit = pages(&world, "/v1/audit", 33);
    assert_eq!(audit.len(), 250);
    let mut newest = pages(&world, "/v1/audit?newest=true", 33);
    newest.reverse();
    assert_eq!(newest, audit);
    // A cursor of something that is gone stands where it was.
    world.must("DELETE", "/v1/users/u099", &Value::Null);
    assert_eq!(world.get("/v1/users?after=u099&limit=1").json()["items"][0]["name"], "u100");
}

#[test]
fn draining_moves_what_can_be_moved_and_says_what_cannot() {
    let world = World::new();
    for name in ["alice", "bob"] {
        user(&world, name);
    }
    address(&world, "s001", "127.0.77.1");
    address(&world, "s002", "127.0.77.2");
    vm(&world, "blue", "alice", "s001");
    vm(&world, "grey", "alice", "s002");
    vm(&world, "green", "bob", "s001");
    let dry = world.must("POST", "/v1/addresses/s001/drain?dry_run=true", &Value::Null);
    assert_eq!(world.get("/v1/addresses/s001").json()["state"], "ready");
    let done = world.must("POST", "/v1/addresses/s001/drain", &Value::Null);
    for answer in [&dry, &done] {
        assert_eq!(
            answer["moves"],
            json!([{"vm": "green", "from": "s001", "to": "s002", "old_for": ["bob"]}])
        );
        let warnings = answer["warnings"].as_array().unwrap();
        assert_eq!(warnings.len(), 1);
        let warning = warnings[0].as_str().unwrap();
        assert!(
            warning.starts_with("VM blue stays at s001: pool exhausted for alice"),
            "{warning}"
        );
        assert_eq!(answer["item"]["state"], "drain");
    }
    assert_eq!(done["item"]["vms"], 1);
    assert_eq!(done["revision"], world.service.revision());
    let back = world.must("POST", "/v1/addresses/s001/undrain", &Value::Null);
    assert_eq!(back["item"]["state"], "ready");
    assert_eq!(world.refused("POST", "/v1/addresses/s009/drain", &Value::Null).0, 404);
}

#[test]
fn an_address_gets_and_loses_what_it_need_not_have() {
    let world = World::new();
    address(&world, "s001", "127.0.77.1");
    let set = |patch: Value| world.must("PATCH", "/v1/addresses/s001", &patch)["item"].clone();
    let both = set(json!({"public6": "fd00::1", "private": "10.0.0.1"}));
    assert_eq!((&both["public6"], &both["private"]), (&json!("fd00::1"), &json!("10.0.0.1")));
    let kept = set(json!({"public6": null, "lobby": true}));
    assert_eq!((&kept["public6"], &kept["lobby"]), (&json!("fd00::1"), &json!(true)));
    let none = set(json!({"public6": "", "private": ""}));
    assert_eq!((&none["public6"], &none["private"]), (&Value::Null, &Value::Null));
    assert_eq!(world.refused("PATCH", "/v1/addresses/s001", &json!({"private": "x"})).0, 400);
}

#[test]
fn a_token_is_shown_once_and_never_again() {
    let world = World::new();
    let token = world.token("ci", "operator");
    let random = token.strip_prefix("kw_").unwrap();
    assert_eq!(random.len(), 43);
    let listed = world.get("/v1/tokens");
    assert_eq!(listed.json()["items"][0]["role"], "operator");
    for path in ["/v1/tokens", "/v1/audit", "/v1/export"] {
        let text = String::from_utf8(world.get(path).body).unwrap();
        assert!(!text.contains(random) && !text.contains("hash"), "{path}: {text}");
    }
    let past = json!({"name": "old", "role": "reader", "expires_s": now_s()});
    assert_eq!(world.refused("POST", "/v1/tokens", &past), (422, "invalid".into()));
    assert_ne!(token, world.token("cd", "operator"));
}

#[test]
fn the_audit_log_says_who_did_what_from_where() {
    let world = World::new();
    user(&world, "alice");
    let log = world.get("/v1/audit").json();
    assert_eq!(log["items"].as_array().unwrap().len(), 1);
    let entry = &log["items"][0];
    assert_eq!(entry["command"], json!({"command": "user-add", "name": "alice", "keys": []}));
    assert!(entry["actor"]["name"].as_str().unwrap().starts_with("uid "), "{entry}");
    assert!(entry["actor"]["from"].as_str().unwrap().starts_with("socket pid "), "{entry}");
    assert_eq!(entry["at_s"], now_s());
    assert_eq!(entry.get("refused"), None);
}

/// The audit log without what was done: the command's word, and why it was refused.
fn refused_entries(world: &World) -> Vec<(String, String)> {
    let log = world.get("/v1/audit?limit=1000").json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = log["items"].as_array().unwrap().iter();
    all.filter(|entry| entry.get("refused").is_some())
        .map(|entry| (text(&entry["command"]["command"]), text(&entry["refused"])))
        .collect()
}

#[test]
fn the_audit_log_names_what_somebody_known_wanted_and_was_refused() {
    let world = World::new();
    user(&world, "alice");
    assert_eq!(world.refused("POST", "/v1/users", &json!({"name": "alice"})).0, 409);
    assert_eq!(world.refused("DELETE", "/v1/users/bob", &json!(null)).0, 404);
    let trying = world.ask("POST", "/v1/users?dry_run=true", &json!({"name": "alice"}));
    assert_eq!(trying.status, 409);
    assert_eq!(world.refused("POST", "/v1/users", &json!({"title": "x"})).0, 400);
    world.get("/v1/users/bob");
    let seen = refused_entries(&world);
    let expected = [("user-add", "name-taken"), ("user-rm", "not-found")];
    assert_eq!(seen, expected.map(|(what, why)| (what.to_owned(), why.to_owned())));
    let log = world.get("/v1/audit?newest=true&limit=1").json();
    assert_eq!(log["items"][0]["command"], json!({"command": "user-rm", "name": "bob"}));
}

#[test]
fn a_script_in_a_loop_fills_no_audit_log() {
    let world = World::new();
    user(&world, "alice");
    for _ in 0..100 {
        assert_eq!(world.refused("POST", "/v1/users", &json!({"name": "alice"})).0, 409);
    }
    let count = refused_entries(&world).len();
    assert!((20..40).contains(&count), "{count}");
    let long = json!({"name": "alice", "keys": vec!["x".repeat(1000); 100]});
    let status = world.refused("POST", "/v1/users", &long).0;
    assert!(status == 409 || status == 422, "{status}");
    assert!(world.get("/v1/audit?limit=1000").body.len() < 100_000);
}

#[test]
fn audit_log_and_plans_use_the_words_of_the_command_line() {
    let world = World::new();
    user(&world, "alice");
    address(&world, "s001", "127.0.77.1");
    for action in ["drain", "maint", "undrain"] {
        world.must("POST", &format!("/v1/addresses/s001/{action}"), &Value::Null);
    }
    world.must("DELETE", "/v1/users/alice", &Value::Null);
    let log = world.get("/v1/audit").json();
    let words: Vec<&str> = log["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["command"]["command"].as_str().unwrap())
        .collect();
    let expected =
        ["user-add", "address-add", "address-drain", "address-maint", "address-undrain", "user-rm"];
    assert_eq!(words, expected);
}

#[test]
fn what_somebody_has_no_role_for_is_in_the_audit_log_and_a_try_of_it_is_not() {
    let world = World::new();
    *world.role.lock().unwrap() = Some(Role::Reader);
    let new = json!({"name": "mallory"});
    assert_eq!(world.refused("POST", "/v1/users", &new).0, 403);
    assert_eq!(world.refused("POST", "/v1/users?dry_run=true", &new).0, 403);
    assert_eq!(world.refused("GET", "/v1/audit", &Value::Null).0, 403);
    *world.role.lock().unwrap() = None;
    assert_eq!(world.refused("DELETE", "/v1/users/alice", &Value::Null).0, 403);
    *world.role.lock().unwrap() = Some(Role::Admin);
    let log = world.get("/v1/audit").json();
    let [entry] = &*log["items"].as_array().unwrap().clone() else { panic!("{log}") };
    assert_eq!(entry["command"], json!({"command": "request", "about": "POST /v1/users"}));
    assert_eq!(entry["refused"], "forbidden");
}
