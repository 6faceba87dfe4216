//! What the API does with the registry as a whole, and beside it.

use std::io::{BufRead, BufReader, Write};

use serde_json::{Value, json};

use super::dto::Session;
use super::routes::ROUTES;
use super::shared::WATCHERS_MAX;
use super::testing::{World, head, key, read_head, user};
use super::walk_tests::prepare;
use super::{Asked, Question, Target};
use crate::registry::document::Role;
use crate::registry::store::{Revision, Store};
use crate::ssh::publickey::{Fingerprint, PublicKey};

#[test]
fn a_watcher_hears_of_every_commit_and_of_nobodys_secrets() {
    let world = World::new();
    let from = world.service.revision();
    let stream = world.connect();
    let request = head("GET", &format!("/v1/watch?after={from}"), &[], b"");
    (&stream).write_all(request.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let (status, headers) = read_head(&mut reader);
    assert_eq!(status, 200);
    assert!(headers.contains(&("transfer-encoding".into(), "chunked".into())));
    let mut next = || loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0, "it ended");
        if line.starts_with('{') {
            let line: Value = serde_json::from_str(&line).unwrap();
            return line;
        }
    };
    user(&world, "alice");
    let change = json!([{"kind": "user", "key": "alice", "removed": false}]);
    assert_eq!(next(), json!({"revision": from + 1, "changes": change}));
    world.token("ci", "reader");
    let change = json!([{"kind": "token", "key": "ci", "removed": false}]);
    assert_eq!(next()["changes"], change);
    let vm = json!({"name": "blue", "owner": "alice", "ssh": "127.0.0.1:22", "no_address": true});
    world.must("POST", "/v1/vms", &vm);
    let change = next()["changes"][0].clone();
    assert_eq!((&change["kind"], &change["name"]), (&json!("vm"), &json!("blue")));
    world.must("DELETE", "/v1/vms/blue", &Value::Null);
    let gone = next()["changes"][0].clone();
    assert_eq!((&gone["key"], &gone["removed"]), (&change["key"], &json!(true)));
    // Those before it can be had again.
    assert_eq!(
        world.refused("GET", "/v1/watch?after=99999", &Value::Null),
        (400, "bad-request".into())
    );
    world.store.compact(Revision(from + 2)).unwrap();
    let late = format!("/v1/watch?after={from}");
    assert_eq!(world.refused("GET", &late, &Value::Null), (410, "compacted".into()));
}

#[test]
fn watchers_are_few_and_their_places_are_given_back() {
    let world = World::new();
    let begin = || {
        let stream = world.connect();
        (&stream).write_all(head("GET", "/v1/watch", &[], b"").as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        (read_head(&mut reader).0, reader)
    };
    let mut all: Vec<_> = (0..WATCHERS_MAX).map(|_| begin()).collect();
    assert!(all.iter().all(|(status, _)| *status == 200));
    assert_eq!(world.refused("GET", "/v1/watch", &Value::Null), (409, "too-many".into()));
    all.pop();
    // Whether anybody still reads shows when something is written.
    loop {
        world.must("POST", "/v1/users", &json!({"name": "alice"}));
        let (status, _watcher) = begin();
        if status == 200 {
            return;
        }
        assert_eq!(status, 409);
        world.must("DELETE", "/v1/users/alice", &Value::Null);
    }
}

#[test]
fn a_fleet_is_applied_once_and_exported_as_it_was() {
    let world = World::new();
    let fleet = json!({
        "addresses": [{"name": "s001", "public": "127.0.77.1"}],
        "users": [{"name": "alice", "keys": [key()]}, {"name": "bob"}],
        "teams": [{"name": "ops", "members": ["alice"]}],
        "vms": [{"name": "blue", "owner": "team:ops", "ssh": "127.0.0.1:22", "address": "s001", "share_by_name": ["bob"]}]
    });
    let apply = |path: &str, fleet: &Value, prune: bool| {
        world.must("POST", path, &json!({"fleet": fleet, "prune": prune}))
    };
    let dry = apply("/v1/apply?dry_run=true", &fleet, false);
    assert_eq!(world.get("/v1/export").json(), json!({"fleet": {}}));
    let done = apply("/v1/apply", &fleet, false);
    assert_eq!(dry["plan"], done["plan"], "later steps are tried behind earlier ones");
    let words: Vec<&str> =
        done["plan"].as_array().unwrap().iter().map(|it| it["command"].as_str().unwrap()).collect();
    assert_eq!(words, ["address-add", "user-add", "user-add", "team-add", "vm-add", "vm-share"]);
    let step = &done["plan"][4];
    let wanted = json!({"command": "vm-add", "subject": "blue", "text": "add VM blue of team:ops", "result": "ok", "detail": null});
    assert_eq!(*step, wanted);
    assert_eq!(apply("/v1/apply", &fleet, true)["plan"], json!([]));
    let exported = world.get("/v1/export").json()["fleet"].clone();
    assert_eq!(exported, fleet);
    let mut less = fleet.clone();
    less["users"] = json!([less["users"][0]]);
    less["vms"][0]["share_by_name"] = json!(["carol"]);
    let refused = world.ask("POST", "/v1/apply", &json!({"fleet": less, "prune": true}));
    assert_eq!((refused.status, refused.code().as_deref()), (409, Some("plan-refused")));
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    let told = "1 of 3 changes would be refused, and none was made (dry_run shows all): share VM blue with carol by \
                name: there is no user `carol`";
    assert!(detail.starts_with(told), "{detail}");
    assert_eq!(world.get("/v1/export").json()["fleet"], fleet, "not even a part of it");
    let done = apply("/v1/apply?dry_run=true", &less, true);
    let results: Vec<_> =
        done["plan"].as_array().unwrap().iter().map(|it| (&it["text"], &it["result"])).collect();
    let text = |text: &str| json!(text);
    assert_eq!(
        results,
        [
            (&text("take VM blue from bob"), &text("ok")),
            (&text("share VM blue with carol by name"), &text("refused")),
            (&text("remove user bob"), &text("ok")),
        ]
    );
    assert!(done["plan"][1]["detail"].as_str().unwrap().starts_with("there is no user `carol`"));
    let twice = json!({"fleet": {"users": [{"name": "x"}, {"name": "x"}]}});
    assert_eq!(world.refused("POST", "/v1/apply", &twice), (422, "invalid".into()));
}

#[test]
fn an_operator_cannot_change_the_pool_by_a_fleet() {
    let world = World::new();
    *world.role.lock().unwrap() = Some(Role::Operator);
    let fleet = json!({"fleet": {"users": [{"name": "alice"}], "addresses": [{"name": "s001", "public": "127.0.77.1"}]}});
    assert_eq!(world.refused("POST", "/v1/apply", &fleet), (403, "forbidden".into()));
    assert_eq!(world.refused("POST", "/v1/apply?dry_run=true", &fleet), (403, "forbidden".into()));
    assert_eq!(world.service.read(|model| model.users().len()), 0, "not even a part of it");
    world.must("POST", "/v1/apply", &json!({"fleet": {"users": [{"name": "alice"}]}}));
}

#[test]
fn a_large_fleet_is_taken() {
    let world = World::new();
    let users: Vec<Value> =
        (0..20_000).map(|n| json!({"name": format!("{n:05}-{}", "x".repeat(50))})).collect();
    let body = json!({"fleet": {"users": users}});
    assert!(body.to_string().len() > 1 << 20);
    let done = world.must("POST", "/v1/apply", &body);
    assert_eq!(done["plan"].as_array().unwrap().len(), 20_000);
    assert_eq!(world.service.read(|model| model.users().len()), 20_000);
}

#[test]
fn a_plan_that_was_shown_is_carried_out_or_nothing_is() {
    let world = World::new();
    let body = json!({"fleet": {"users": [{"name": "alice"}, {"name": "bob"}]}}).to_string();
    let apply = |path: &str, at: u64| {
        let expected = format!("if-match: \"{at}\"");
        let headers = ["content-type: application/json", &expected];
        world.send("POST", path, &headers, body.as_bytes())
    };
    user(&world, "carol");
    let plan = world.must("POST", "/v1/apply?dry_run=true", &serde_json::from_str(&body).unwrap());
    let at = plan["planned_at"].as_u64().unwrap();
    assert_eq!(at, world.service.revision());
    user(&world, "dora");
    for path in ["/v1/apply", "/v1/apply?dry_run=true"] {
        let reply = apply(path, at);
        assert_eq!((reply.status, reply.code().as_deref()), (412, Some("changed")));
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.ends_with("look at the plan again"), "{detail}");
    }
    assert_eq!(world.service.read(|model| model.users().len()), 2);
    let done = apply("/v1/apply", at + 1);
    assert_eq!((done.status, done.json()["planned_at"].as_u64()), (200, Some(at + 1)));
    assert_eq!(world.service.read(|model| model.users().len()), 4);
    // What time changes, or an edge, is no change of anybody's.
    let key = key();
    world.must(
        "POST",
        "/v1/vms",
        &json!({"name": "blue", "owner": "alice", "ssh": "127.0.0.1:22", "no_address": true}),
    );
    let before = world.service.revision();
    world.shows("blue", &key);
    assert_eq!((world.service.revision(), apply("/v1/apply", before).status), (before + 1, 200));
    // Also where there is nothing to do, and never where what is expected is no revision.
    assert_eq!(apply("/v1/apply", at + 1).status, 412);
    assert_eq!(apply("/v1/apply", world.service.revision()).status, 200);
}

#[test]
fn a_plan_of_many_steps_is_carried_out_on_what_it_left_itself() {
    let world = World::new();
    let users: Vec<Value> = (0..700).map(|n| json!({"name": format!("user-{n}")})).collect();
    let body = json!({"fleet": {"users": users}}).to_string();
    let expected = format!("if-match: \"{}\"", world.service.revision());
    let headers = ["content-type: application/json", &expected];
    let reply = world.send("POST", "/v1/apply", &headers, body.as_bytes());
    assert_eq!(reply.status, 200);
    assert_eq!(world.service.read(|model| model.users().len()), 700);
}

#[test]
fn a_question_is_passed_on_once_it_can_be_one() {
    let world = World::new();
    let line = key();
    let answer =
        world.must("POST", "/v1/explain", &json!({"key": line, "name": "blue", "login": "root"}));
    assert_eq!((&answer["decision"], &answer["login"]), (&json!("refused"), &json!("root")));
    let asked = world.fake.asked.lock().unwrap().pop().unwrap();
    let (public, _) = PublicKey::parse_line(&line).unwrap();
    let fingerprint = public.fingerprint();
    let blue = Target::Name("blue".into());
    let login = Some("root".into());
    assert_eq!(asked, Question { asked: Asked::Key(public), target: blue, login, from: None });
    world.must(
        "POST",
        "/v1/explain",
        &json!({"fingerprint": fingerprint.to_string(), "address": "127.0.77.1", "from": "10.0.0.1"}),
    );
    let again = world.fake.asked.lock().unwrap().pop().unwrap();
    assert_eq!(
        (again.asked, again.target, again.from),
        (
            Asked::Fingerprint(fingerprint),
            Target::Address("127.0.77.1".into()),
            "10.0.0.1".parse().ok()
        )
    );
    // A key that somebody has is known in full.
    let plain = format!("restrict {line} of alice");
    world.must("POST", "/v1/users", &json!({"name": "alice", "keys": [plain]}));
    for known in [
        json!({"fingerprint": fingerprint.to_string(), "address": "s001"}),
        json!({"key": plain, "address": "s001"}),
    ] {
        world.must("POST", "/v1/explain", &known);
        let asked = world.fake.asked.lock().unwrap().pop().unwrap().asked;
        assert!(matches!(asked, Asked::Key(key) if key.fingerprint() == fingerprint));
    }
    for wrong in [
        json!({"key": line}),
        json!({"address": "s001"}),
        json!({"cert": line, "address": "s001"}),
        json!({"cert": "rubbish", "address": "s001"}),
        json!({"cert": line, "key": line, "address": "s001"}),
        json!({"key": line, "fingerprint": fingerprint.to_string(), "address": "s001"}),
        json!({"key": line, "address": "s001", "name": "blue"}),
        json!({"key": "rubbish", "address": "s001"}),
        json!({"fingerprint": "SHA256:short", "address": "s001"}),
    ] {
        assert_eq!(
            world.refused("POST", "/v1/explain", &wrong),
            (422, "invalid".into()),
            "{wrong}"
        );
    }
}

#[test]
fn what_is_beside_the_registry_is_reached_and_left_alone_in_a_dry_run() {
    let world = World::new();
    let zone = world.refused("GET", "/v1/zone", &Value::Null);
    assert_eq!(zone, (404, "not-found".into()));
    *world.fake.zone.lock().unwrap() = Some("$ORIGIN vm.test.\n".into());
    let zone = world.get("/v1/zone");
    assert_eq!(zone.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(zone.body, b"$ORIGIN vm.test.\n");
    let path = json!({"path": "/var/backups/k.db"});
    world.must("POST", "/v1/store/backup?dry_run=true", &path);
    assert_eq!(world.fake.backups.lock().unwrap().len(), 0);
    world.must("POST", "/v1/store/backup", &path);
    assert_eq!(world.fake.backups.lock().unwrap().len(), 1);
    let relative = json!({"path": "k.db"});
    assert_eq!(world.refused("POST", "/v1/store/backup", &relative), (422, "invalid".into()));
    let full = json!({"path": "/full"});
    assert_eq!(world.refused("POST", "/v1/store/backup", &full), (503, "store-failed".into()));
    let there = json!({"path": "/there"});
    assert_eq!(world.refused("POST", "/v1/store/backup", &there), (409, "file-exists".into()));
    assert_eq!(world.refused("DELETE", "/v1/sessions/9", &Value::Null), (404, "not-found".into()));
    user(&world, "alice");
    let vm = json!({"name": "blue", "owner": "alice", "ssh": "127.0.0.1:22", "no_address": true});
    world.must("POST", "/v1/vms", &vm);
    let held = world.get("/v1/vms/blue/host-key").json();
    assert_eq!(held, json!({"vm": "blue", "given": null, "pinned": null}));
    let none = world.refused("DELETE", "/v1/vms/blue/host-key", &Value::Null);
    assert_eq!(none, (404, "not-found".into()));
    let store = world.get("/v1/store").json();
    assert_eq!(store["store_id"], "07".repeat(16));
    assert_eq!(store["revision"], world.service.revision());
}

#[test]
fn the_description_names_every_route_and_only_schemas_that_it_holds() {
    let world = World::new();
    let document = world.get("/v1/openapi.json").json();
    assert_eq!(document["openapi"], "3.1.0");
    for route in ROUTES {
        let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
        assert!(operation["responses"]["200"].is_object(), "{} {}", route.method, route.path);
        assert_eq!(operation.get("requestBody").is_some(), route.run.takes.is_some());
        for place in route.path.split('/').filter(|part| part.starts_with('{')) {
            let name = place.trim_matches(['{', '}']);
            let parameters = operation["parameters"].as_array().unwrap();
            assert!(parameters.iter().any(|it| it["name"] == name && it["in"] == "path"));
        }
    }
    let schemas = &document["components"]["schemas"];
    let mut count = 0;
    let mut todo = vec![&document];
    while let Some(value) = todo.pop() {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            let name = reference.strip_prefix("#/components/schemas/").unwrap();
            assert!(schemas[name].is_object(), "{reference}");
            count += 1;
        }
        todo.extend(value.as_object().into_iter().flat_map(|map| map.values()));
        todo.extend(value.as_array().into_iter().flatten());
    }
    assert!(count > 100);
    let ids = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|path| path.as_object().unwrap().values());
    let ids: std::collections::BTreeSet<&str> =
        ids.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), ROUTES.len(), "every one has a name of its own");
    assert!(ids.contains("delete-users-name-keys-fingerprint"));
}

#[test]
fn a_plan_that_needs_vms_moved_is_begun_only_if_they_may_be() {
    let world = World::new();
    let of = |name: &str, shares: Value| json!({"name": name, "owner": name, "ssh": "127.0.0.1:22", "address": "s001", "share": shares});
    let fleet = |shares: Value| {
        json!({
            "addresses": [{"name": "s001", "public": "127.0.77.1"}, {"name": "s002", "public": "127.0.77.2"}],
            "users": [{"name": "alice"}, {"name": "bob"}, {"name": "carol"}],
            "teams": [{"name": "all", "members": ["carol"]}],
            "vms": [of("alice", json!([])), of("bob", shares)]
        })
    };
    world.must("POST", "/v1/apply", &json!({"fleet": fleet(json!([]))}));
    let mut shared = fleet(json!(["alice"]));
    shared["vms"][0].as_object_mut().unwrap().remove("address");
    shared["vms"][1].as_object_mut().unwrap().remove("address");
    shared["users"].as_array_mut().unwrap().push(json!({"name": "dora"}));
    let body = json!({"fleet": shared});
    assert_eq!(world.refused("POST", "/v1/apply", &body), (409, "plan-refused".into()));
    assert!(world.service.read(|model| model.users().len()) == 3, "nothing was begun");
    let done = world.must("POST", "/v1/apply?renumber=true", &body);
    assert_eq!(done["moves"][0]["vm"], "bob");
    assert_eq!(world.service.read(|model| model.users().len()), 4);
}

#[test]
fn an_empty_fleet_prunes_nothing() {
    let world = World::new();
    user(&world, "alice");
    let body = json!({"fleet": {}, "prune": true});
    assert_eq!(world.refused("POST", "/v1/apply", &body), (422, "invalid".into()));
    world.must("POST", "/v1/apply", &json!({"fleet": {}}));
    assert_eq!(world.service.read(|model| model.users().len()), 1);
}

#[test]
fn a_member_who_is_nobody_keeps_a_whole_fleet_from_being_begun() {
    let world = World::new();
    let fleet = json!({"users": [{"name": "alice"}], "teams": [{"name": "ops", "members": ["alice", "bob"]}]});
    let refused = world.ask("POST", "/v1/apply", &json!({"fleet": fleet}));
    assert_eq!(refused.status, 409);
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("add team ops with members: 2: there is no user `bob`"), "{detail}");
    assert!(world.service.read(|model| model.users().is_empty()));
}

#[test]
fn what_a_served_file_would_do_is_told_and_not_done() {
    let world = World::new();
    user(&world, "alice");
    let ask = |fleet: Value, most: Value| {
        world.must("POST", "/v1/fleet-file/plan", &json!({"fleet": fleet, "removals_max": most}))
    };
    let before = world.service.revision();
    let told = ask(json!({"users": [{"name": "alice"}, {"name": "bob"}]}), Value::Null);
    assert_eq!(told["planned_at"], before);
    let counts = json!({"added": 1, "changed": 0, "removed": 0, "taken_over": 1});
    assert_eq!((&told["counts"]["users"], &told["held"]), (&counts, &Value::Null));
    assert!(ask(json!({}), json!(7))["held"].as_str().unwrap().contains("empty"));
    assert_eq!(world.service.revision(), before);
}

#[test]
fn whoever_changes_by_a_command_what_a_file_says_is_told() {
    let world = World::new();
    let fleet = json!({
        "addresses": [{"name": "s001", "public": "127.0.77.1", "origin": "fleet"}],
        "users": [{"name": "alice", "origin": "fleet"}, {"name": "bob"}],
        "teams": [{"name": "ops", "origin": "fleet"}],
        "vms": [{"name": "blue", "owner": "alice", "ssh": "127.0.0.1:22", "origin": "fleet", "share": ["bob"]}]
    });
    world.must("POST", "/v1/apply", &json!({"fleet": fleet}));
    assert_eq!(world.get("/v1/export").json()["fleet"]["vms"][0]["origin"], "fleet");
    for one in ["addresses/s001", "users/alice", "teams/ops", "vms/blue"] {
        assert_eq!(world.get(&format!("/v1/{one}")).json()["origin"], "fleet", "{one}");
    }
    assert_eq!(world.get("/v1/users/bob").json()["origin"], "command");
    let warned = |method: &str, path: &str, body: Value| {
        let done = world.must(method, path, &body);
        let all = done["warnings"].as_array().unwrap().clone();
        assert!(all.len() <= 1, "{all:?}");
        all.first().map(|text| {
            text.as_str().unwrap().split(" the fleet file's").next().unwrap().to_owned()
        })
    };
    let said = |text: &str| Some(text.to_owned());
    assert_eq!(
        warned("PATCH", "/v1/vms/blue?dry_run=true", json!({"login": "root"})),
        said("VM blue is")
    );
    assert_eq!(warned("PATCH", "/v1/vms/blue", json!({"state": "maint"})), None);
    assert_eq!(warned("PATCH", "/v1/vms/blue", json!({"login": "root"})), said("VM blue is"));
    assert_eq!(
        warned("POST", "/v1/users/alice/keys", json!({"line": key()})),
        said("user alice is")
    );
    assert_eq!(warned("PUT", "/v1/teams/ops/members/bob", json!({})), said("team ops is"));
    assert_eq!(warned("POST", "/v1/addresses/s001/maint", Value::Null), None);
    assert_eq!(
        warned("PATCH", "/v1/addresses/s001", json!({"private": "10.0.0.1"})),
        said("address s001 is")
    );
    // Bob is nobody's, and what he leaves is the file's.
    assert_eq!(warned("POST", "/v1/users/bob/keys", json!({"line": key()})), None);
    assert_eq!(warned("DELETE", "/v1/users/bob", Value::Null), said("team ops and 1 thing are"));
    assert_eq!(warned("DELETE", "/v1/vms/blue", Value::Null), said("VM blue is"));
    assert_eq!(warned("POST", "/v1/users", json!({"name": "dora"})), None);
}

#[test]
fn a_session_is_ended_by_the_beginning_of_its_id_if_no_other_begins_so() {
    let world = World::new();
    prepare(&world);
    let is = |ids: &[&str]| {
        let mut sessions = world.fake.sessions.lock().unwrap();
        let one = sessions[0].clone();
        *sessions = ids.iter().map(|id| Session { id: (*id).to_owned(), ..one.clone() }).collect();
    };
    let left = || -> Vec<String> {
        world.fake.sessions.lock().unwrap().iter().map(|one| one.id.clone()).collect()
    };
    let end = |id: &str| world.ask("DELETE", &format!("/v1/sessions/{id}"), &Value::Null);
    is(&["3f2a", "3f2b", "3f", "77aa"]);
    let reply = end("3");
    assert_eq!((reply.status, reply.code().as_deref()), (409, Some("ambiguous")));
    let detail = reply.json()["detail"].as_str().unwrap().to_owned();
    assert_eq!(detail, "3 sessions begin with `3`: 3f, 3f2a, 3f2b; write more of it");
    assert_eq!(left().len(), 4, "none of them");
    assert_eq!(end("7").status, 200);
    assert_eq!(left(), ["3f2a", "3f2b", "3f"]);
    // A whole id is that session, whatever others begin with it.
    assert_eq!(end("3f").status, 200);
    assert_eq!(left(), ["3f2a", "3f2b"]);
    assert_eq!(end("3f2b").status, 200);
    assert_eq!(end("9").status, 404);
    assert_eq!(left(), ["3f2a"]);
    is(&["a1", "a2", "a3", "a4", "a5", "a6", "a7"]);
    let detail = end("a").json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("a5, ...; write"), "{detail}");
}

#[test]
fn a_ca_that_is_confirmed_is_the_one_that_vms_were_prepared_for() {
    let world = World::new();
    let in_use = Fingerprint([7; 32]).to_string();
    let ca = || world.get("/v1/ca").json();
    assert_eq!(ca(), json!({"in_use": in_use, "prepared_for": null}));
    world.must("POST", "/v1/ca/confirm?dry_run=true", &json!({}));
    assert_eq!(ca()["prepared_for"], Value::Null);
    let both = json!({"in_use": in_use, "prepared_for": in_use});
    assert_eq!(world.must("POST", "/v1/ca/confirm", &json!({}))["item"], both);
    assert_eq!(ca(), both);
}

#[test]
fn what_only_the_rest_of_a_large_removal_allows_is_untried_in_a_dry_run_and_done_in_earnest() {
    let world = World::new();
    // More than a dry run goes through: a VM in the hands of many.
    let names: Vec<String> = (0..700).map(|number| format!("user-{number}")).collect();
    let users: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
    let vm = json!({"name": "big", "owner": "alice", "ssh": "127.0.0.1:22", "no_address": true, "share_by_name": names});
    let mut all = json!({"users": users, "vms": [vm]});
    all["users"].as_array_mut().unwrap().push(json!({"name": "alice"}));
    world.must("POST", "/v1/apply", &json!({"fleet": all}));
    let less = json!({"fleet": {"users": users}, "prune": true});
    for (path, last) in [("/v1/apply?dry_run=true", "untried"), ("/v1/apply", "ok")] {
        let answer = world.must("POST", path, &less);
        let steps = answer["plan"].as_array().unwrap();
        let told: Vec<_> = steps.iter().map(|step| (&step["text"], &step["result"])).collect();
        let [vm, alice] = &*told else { panic!("{told:?}") };
        assert_eq!(*vm, (&json!("remove VM big"), &json!("ok")));
        // She still owns it as far as was tried.
        assert_eq!(*alice, (&json!("remove user alice"), &json!(last)));
        let left = if last == "ok" { 700 } else { 701 };
        assert_eq!(world.service.read(|model| model.users().len()), left);
    }
}
