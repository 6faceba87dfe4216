//! Agents join over TLS, with the client that they have.

use std::sync::Arc;

use serde_json::{Value, json};

use super::testing::{World, key, now_s};
use crate::control::feed::client::{self, JoinFault, Met};
use crate::route::FrontDoor;
use crate::route::saved_routes::Head;
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::PublicKey;

fn identity() -> Arc<PrivateKey> {
    Arc::new(PrivateKey::generate_ed25519(&mut SystemEntropy::default()))
}

/// An API over TLS, and a node whose agent has not joined.
fn world() -> World {
    let world = World::over_tls();
    let node = json!({"name": "n1", "agent": "10.0.0.21:7022", "trusted": true});
    world.must("POST", "/v1/nodes", &node);
    world.hub.begin(Head { store: [7; 16], program: [8; 8], revision: 1 });
    tell(&world, front_door(3));
    world
}

/// Edges are told by themselves.
fn tell(world: &World, now: FrontDoor) {
    world.hub.edges(now.edges.clone());
    world.hub.front_door(now);
}

fn front_door(edge: u8) -> FrontDoor {
    let (host_key, _) = PublicKey::parse_line(KEY).unwrap();
    FrontDoor {
        host_keys: vec![host_key.blob().to_vec()],
        edges: vec![[edge; 32]],
        ..FrontDoor::default()
    }
}

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINILzCr80scSuAcnYpxLu4nnirz6xztusEayvak/vj9f";

fn token(world: &World) -> String {
    let made = world.must("POST", "/v1/nodes/n1/token", &Value::Null);
    made["item"]["join"]["token"].as_str().unwrap().to_owned()
}

fn ask(
    world: &World,
    identity: &Arc<PrivateKey>,
    token: &str,
    believes: Option<&FrontDoor>,
) -> Result<Met, JoinFault> {
    let url = format!("https://localhost:{}", world.handle.address().unwrap().port());
    let ca = world.scratch.0.join("one.crt");
    client::join((&url, Some(&ca)), Arc::clone(identity), token, believes)
}

#[track_caller]
fn refused(asked: Result<Met, JoinFault>) -> String {
    match asked {
        Err(JoinFault::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

fn pinned(world: &World) -> Value {
    world.get("/v1/nodes/n1").json()["agent_key"].clone()
}

/// Who did what, and what was refused.
fn noted(world: &World) -> Vec<String> {
    let all = world.get("/v1/audit?limit=1000").json();
    let line = |entry: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or("done").to_owned();
        let (by, what) = (text(&entry["actor"]["name"]), text(&entry["command"]["command"]));
        format!("{by} {what} {}", text(&entry["refused"]))
    };
    all["items"].as_array().unwrap().iter().map(line).collect()
}

#[test]
fn an_agent_looks_believes_and_is_pinned_and_the_token_is_used_up() {
    let (world, identity) = (world(), identity());
    let token = token(&world);
    assert!(token.starts_with("kwj_") && token.len() == 4 + 43, "{token}");
    let node = world.get("/v1/nodes/n1");
    let join = &node.json()["join"];
    assert_eq!(join["expires_s"], now_s() + 3600);
    assert_eq!(join.get("token"), None, "it is shown once");
    let met = ask(&world, &identity, &token, None).unwrap();
    assert_eq!((met.node.as_str(), met.trusted), ("n1", true));
    assert_eq!(met.agent, "10.0.0.21:7022".parse().unwrap());
    assert_eq!((met.head.store, &met.front_door), ([7; 16], &front_door(3)));
    assert_eq!(pinned(&world), Value::Null, "to look changes nothing");
    // What is shown to somebody who decides is what counts.
    tell(&world, front_door(4));
    let other = refused(ask(&world, &identity, &token, Some(&met.front_door)));
    assert_eq!((other.as_str(), pinned(&world)), ("front-door-changed", Value::Null));
    ask(&world, &identity, &token, Some(&front_door(4))).unwrap();
    let print = identity.public().fingerprint().to_string();
    assert_eq!(pinned(&world), print);
    assert_eq!(world.get("/v1/nodes/n1").json()["join"], Value::Null);
    // It may be asked again by the same agent alone.
    ask(&world, &identity, &token, Some(&front_door(4))).unwrap();
    let late = refused(ask(&world, &self::identity(), &token, None));
    assert_eq!((late.as_str(), pinned(&world)), ("join-token-used", json!(print)));
    let noted = noted(&world);
    assert!(noted.contains(&format!("agent {print} node-join done")), "{noted:?}");
    assert!(noted.iter().any(|it| it.ends_with(" node-join join-token-used")), "{noted:?}");
}

#[test]
fn tokens_of_others_and_of_the_api_are_good_for_nothing_here_nor_this_one_there() {
    let (world, identity) = (world(), identity());
    let (before, token) = (token(&world), token(&world));
    let api = world.token("ops", "admin");
    for wrong in ["", "kwj_", "x", &before, &api, &token[..46], &format!("{token}A")] {
        let code = refused(ask(&world, &identity, wrong, Some(&front_door(3))));
        assert_eq!(code, "join-token-unknown", "{wrong}");
    }
    let reply = world.send_tls(Some(&token), "GET", "/v1/nodes", &Value::Null);
    assert_eq!((reply.status, reply.code().as_deref()), (401, Some("unauthenticated")));
    // Without a proof of the key nobody is heard.
    let reply = world.send_tls(Some(&api), "POST", "/v1/feed/join", &json!({"token": token}));
    assert_eq!((reply.status, reply.code().as_deref()), (401, Some("unauthenticated")));
    world.must("DELETE", "/v1/nodes/n1", &Value::Null);
    assert_eq!(refused(ask(&world, &identity, &token, None)), "join-token-unknown");
}

#[test]
fn whom_an_admin_has_pinned_nobody_takes_the_place_of() {
    let (world, identity) = (world(), identity());
    let token = token(&world);
    world.must("PATCH", "/v1/nodes/n1", &json!({"agent_key": key()}));
    let before = pinned(&world);
    assert_eq!(refused(ask(&world, &identity, &token, Some(&front_door(3)))), "agent-key-other");
    assert_eq!(pinned(&world), before);
    let again = world.refused("POST", "/v1/nodes/n1/token", &Value::Null);
    assert_eq!(again, (409, "agent-key-other".into()));
    // Nobody joins where there is nobody to believe.
    tell(&world, FrontDoor { host_keys: Vec::new(), ..front_door(3) });
    assert_eq!(refused(ask(&world, &identity, &token, None)), "registry-away");
    let past = world.refused("POST", "/v1/nodes/n1/token", &json!({"expires_s": 1}));
    assert_eq!(past, (422, "invalid".into()));
}

#[test]
fn who_fails_too_often_is_not_heard_for_a_while() {
    let (world, identity) = (world(), identity());
    let token = token(&world);
    let failed = |_| refused(ask(&world, &identity, "kwj_x", None));
    let codes: Vec<String> = (0..25).map(failed).collect();
    assert_eq!(codes[0], "join-token-unknown");
    assert_eq!(codes[24], "too-many-tries");
    // Not even who would be right: nobody can try tokens, nor fill the log.
    assert_eq!(refused(ask(&world, &identity, &token, None)), "too-many-tries");
    assert_eq!(pinned(&world), Value::Null);
}

#[test]
fn of_many_who_come_at_once_with_one_token_one_joins() {
    let world = world();
    let token = token(&world);
    let codes: Vec<Option<String>> = std::thread::scope(|scope| {
        let come = || match ask(&world, &identity(), &token, Some(&front_door(3))) {
            Ok(_) => None,
            refused => Some(self::refused(refused)),
        };
        let all: Vec<_> = (0..8).map(|_| scope.spawn(come)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let refused: Vec<_> = codes.iter().flatten().collect();
    assert_eq!(refused, ["join-token-used"; 7], "{codes:?}");
}
