//! The API while the registry is away, and while its store fails.

use serde_json::{Value, json};

use super::routes::{ROUTES, Source};
use super::testing::{Reply, World};
use super::walk_tests::{example, prepare};
use crate::registry::document::Role;

const WHY: &str = "the registry is away: registry.db is damaged; fix: keyway store restore";

/// A prepared world, and one that has nothing of it but its routes.
fn away() -> (World, World) {
    let world = World::new();
    prepare(&world);
    let away = world.away(WHY);
    *away.fake.sessions.lock().unwrap() = world.fake.sessions.lock().unwrap().clone();
    away.fake.zone.lock().unwrap().clone_from(&world.fake.zone.lock().unwrap());
    (world, away)
}

#[track_caller]
fn is_away(reply: &Reply, what: &str) {
    assert_eq!((reply.status, reply.code().as_deref()), (503, Some("registry-away")), "{what}");
    let detail = reply.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.starts_with(WHY), "{what}: {detail}");
    assert_eq!(reply.header("warning"), None, "{what}");
}

#[test]
fn every_route_shows_what_is_known_and_says_so_or_says_why_it_cannot() {
    let (_world, away) = away();
    for route in ROUTES {
        let (path, body) = example(route);
        let what = format!("{} {path}", route.method);
        let reply = away.ask(route.method.as_str(), &path, &body);
        if route.source == Source::Registry {
            is_away(&reply, &what);
            continue;
        }
        assert_eq!(reply.status, 200, "{what}: {}", String::from_utf8_lossy(&reply.body));
        let said = reply.header("warning");
        let wanted = format!("110 keyway \"{WHY}\"");
        assert_eq!(said, (route.source == Source::Known).then_some(wanted.as_str()), "{what}");
    }
}

#[test]
fn what_is_not_known_may_be_there_all_the_same() {
    let (world, away) = away();
    let reply = away.get("/v1/vms/green");
    assert_eq!((reply.status, reply.header("warning").is_some()), (404, true));
    assert_eq!(world.get("/v1/vms/green").header("warning"), None);
}

#[test]
fn who_may_not_is_told_so_first() {
    let (_world, away) = away();
    for (role, status) in [(None, 403), (Some(Role::Reader), 403), (Some(Role::Operator), 503)] {
        *away.role.lock().unwrap() = role;
        let reply = away.ask("POST", "/v1/users", &json!({"name": "dora"}));
        assert_eq!(reply.status, status, "{role:?}");
    }
}

#[test]
fn no_token_can_be_checked() {
    let (_world, away) = away();
    let token = format!("kw_{}", "A".repeat(43));
    for path in ["/v1/vms", "/v1/status", "/nowhere"] {
        is_away(&away.send_tls(Some(&token), "GET", path, &Value::Null), path);
        let nobody = away.send_tls(None, "GET", path, &Value::Null);
        assert_eq!(nobody.code().as_deref(), Some("unauthenticated"), "{path}");
    }
}

#[test]
fn what_is_known_of_vms_is_what_the_registry_would_show() {
    let (world, away) = away();
    let mut shown = away.get("/v1/vms/blue").json();
    let mut registered = world.get("/v1/vms/blue").json();
    // Routes do not say whose a thing is.
    assert_eq!((&shown["origin"], &registered["origin"].take()), (&Value::Null, &"command".into()));
    for one in [&mut shown, &mut registered] {
        one["revision"].take();
        one["pinned"]["at_s"].take();
    }
    assert_eq!(shown, registered);
    let names = |world: &World, path: &str| {
        let items = world.get(path).json()["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for path in ["/v1/vms?owner=alice", "/v1/users", "/v1/teams", "/v1/addresses"] {
        let known = names(&world, path);
        assert!(!known.is_empty() && names(&away, path) == known, "{path}: {known:?}");
    }
}

#[test]
fn sessions_are_ended_and_the_answer_says_that_it_is_not_noted() {
    let (world, away) = away();
    world.store.is_full(true);
    for (world, why) in [(&away, WHY), (&world, "make room")] {
        let reply = world.ask("DELETE", "/v1/sessions/7", &Value::Null);
        assert_eq!(reply.status, 200);
        let warning = reply.json()["warnings"][0].as_str().unwrap().to_owned();
        assert!(warning.contains("not in the audit log") && warning.contains(why), "{warning}");
        assert!(world.fake.sessions.lock().unwrap().is_empty());
    }
}

#[test]
fn while_the_store_is_full_changes_are_refused_and_what_is_known_is_shown() {
    let world = World::new();
    prepare(&world);
    world.store.is_full(true);
    let add = || world.ask("POST", "/v1/users", &json!({"name": "dora"}));
    let reply = add();
    assert_eq!((reply.status, reply.code().as_deref()), (503, Some("registry-away")));
    let detail = reply.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("no space left; fix: make room"), "{detail}");
    assert!(world.service.store_health().fault().unwrap().contains("no space left"));
    let shown = world.get("/v1/vms/blue");
    assert_eq!((shown.status, shown.header("warning")), (200, None), "it is as the registry is");
    world.store.is_full(false);
    assert_eq!(add().status, 201);
    assert_eq!(world.service.store_health().fault(), None);
}
