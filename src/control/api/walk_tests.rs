//! Every route, walked: by every role over both transports, and with everything wrong
//! that can be sent.

use axum::http::Method;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::dto::Session;
use super::query::Query;
use super::routes::{Kind, ROUTES, Route};
use super::testing::{Reply, World, read_head};
use crate::registry::document::Role;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINILzCr80scSuAcnYpxLu4nnirz6xztusEayvak/vj9f";
const AGENT: &str = "[fd00::21]:7022";
const FINGERPRINT: &str = "SHA256:EWNWfi4QRhtIyd/LrwsN8b7MIEYiY4IlbWX96JAwH4A";
const OTHER_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIARw/HeTwZikcRO/nQLk+tDE0vudcQT2npuHC4s5TE/m";
/// Of an edge alone: no agent has an edge's.
const EDGE_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAgc9/laWMdnQPmK4NAw7IT9jI5wx6mecgF8I6RhGtyW";

/// What the examples are about.
pub(super) fn prepare(world: &World) {
    for last in 1..=3 {
        let address = json!({"name": format!("s00{last}"), "public": format!("127.0.77.{last}")});
        world.must("POST", "/v1/addresses", &address);
    }
    world.must("POST", "/v1/users", &json!({"name": "alice", "keys": [OTHER_KEY]}));
    world.must("POST", "/v1/users", &json!({"name": "bob"}));
    world.must("POST", "/v1/users", &json!({"name": "idle"}));
    world.must("POST", "/v1/teams", &json!({"name": "ops", "members": ["bob"]}));
    let vm = json!({"name": "blue", "owner": "alice", "ssh": "127.0.0.1:22", "address": "s001"});
    world.must("POST", "/v1/vms", &vm);
    world.must("PUT", "/v1/vms/blue/shares/team%3Aops", &json!({"access": "by-name"}));
    world.must("POST", "/v1/nodes", &json!({"name": "n1", "agent": "10.0.0.20:7022"}));
    world.must("POST", "/v1/nodes", &json!({"name": "n9", "ssh": "root@203.0.113.9"}));
    world.must("POST", "/v1/edges", &json!({"name": "e1", "identity": EDGE_KEY}));
    world.must("POST", "/v1/tokens", &json!({"name": "ci", "role": "reader"}));
    let text = |text: &str| text.to_owned();
    world.fake.sessions.lock().unwrap().push(Session {
        state: super::dto::SessionState::Established,
        id: text("7"),
        user: text("alice"),
        fingerprint: text("SHA256:x"),
        vm: text("blue"),
        address: text("s001"),
        login: text("root"),
        client: text("192.0.2.1:5"),
        carry: text("relay"),
        since_s: 1,
        up_bytes: 2,
        down_bytes: 3,
    });
    world.shows("blue", OTHER_KEY);
    *world.fake.zone.lock().unwrap() = Some(text("$ORIGIN vm.test.\n"));
}

/// As [`example`], of routes about what VMs lie on and are dialled at.
fn of_places(route: &Route) -> Option<(String, Value)> {
    let path = route.path.replace("{name}", "blue");
    let none = Value::Null;
    Some(match (route.method.as_str(), route.path) {
        ("POST", "/v1/addresses") => (path, json!({"name": "s009", "public": "127.0.77.9"})),
        ("GET", "/v1/addresses/{name}") => ("/v1/addresses/s001".into(), none),
        ("DELETE", "/v1/addresses/{name}") => ("/v1/addresses/s003".into(), none),
        ("PATCH", "/v1/addresses/{name}") => {
            ("/v1/addresses/s003".into(), json!({"private": "10.0.0.3"}))
        }
        (
            "POST",
            "/v1/addresses/{name}/drain"
            | "/v1/addresses/{name}/undrain"
            | "/v1/addresses/{name}/maint",
        ) => (path.replace("blue", "s001"), none),
        ("POST", "/v1/nodes") => (path, json!({"name": "n2", "agent": AGENT, "trusted": true})),
        ("GET" | "DELETE", "/v1/nodes/{name}") => ("/v1/nodes/n1".into(), none),
        ("PATCH", "/v1/nodes/{name}") => {
            ("/v1/nodes/n1".into(), json!({"agent": AGENT, "agent_key": FINGERPRINT}))
        }
        ("GET", "/v1/edges" | "/v1/links" | "/v1/staged") | ("POST", "/v1/staged/release") => {
            (path, none)
        }
        ("POST", "/v1/edges") => (path, json!({"name": "e2", "identity": KEY})),
        ("GET" | "DELETE", "/v1/edges/{name}") => ("/v1/edges/e1".into(), none),
        ("POST", "/v1/nodes/test") => (path, json!({"ssh": "root@203.0.113.9"})),
        ("POST", "/v1/nodes/{name}/test") => ("/v1/nodes/n9/test".into(), json!({})),
        ("POST", "/v1/nodes/{name}/token") => {
            ("/v1/nodes/n1/token".into(), json!({"expires_s": 4_000_000_000_u64}))
        }
        (_, _) => return None,
    })
}

/// A request that each route answers with 200 in a prepared world. Whoever adds a route
/// adds its example.
pub(super) fn example(route: &Route) -> (String, Value) {
    let path = route.path.replace("{name}", "blue");
    let none = Value::Null;
    let (path, body) = match (route.method.as_str(), route.path) {
        ("POST", "/v1/users") => (path, json!({"name": "carol", "keys": [KEY]})),
        ("GET", "/v1/users/{name}") => ("/v1/users/alice".into(), none),
        ("DELETE", "/v1/users/{name}") => ("/v1/users/idle".into(), none),
        ("POST", "/v1/users/{name}/keys") => ("/v1/users/bob/keys".into(), json!({"line": KEY})),
        ("PUT", "/v1/users/{name}/keys/{fingerprint}") => {
            let path = format!("/v1/users/alice/keys/{}", FINGERPRINT.replace('/', "%2F"));
            (path, json!({"line": format!("restrict {OTHER_KEY} laptop")}))
        }
        ("DELETE", "/v1/users/{name}/keys/{fingerprint}") => {
            (format!("/v1/users/alice/keys/{}", FINGERPRINT.replace('/', "%2F")), none)
        }
        ("POST", "/v1/teams") => (path, json!({"name": "devs", "members": ["alice"]})),
        ("GET" | "DELETE", "/v1/teams/{name}") => ("/v1/teams/ops".into(), none),
        ("PUT", "/v1/teams/{name}/members/{user}") => {
            ("/v1/teams/ops/members/alice".into(), json!({"access": "slot"}))
        }
        ("DELETE", "/v1/teams/{name}/members/{user}") => ("/v1/teams/ops/members/bob".into(), none),
        ("POST", "/v1/vms") => {
            (path, json!({"name": "green", "owner": "bob", "ssh": "127.0.0.1:22"}))
        }
        ("PATCH", "/v1/vms/{name}") => (path, json!({"login": "root", "state": "maint"})),
        ("PUT", "/v1/vms/{name}/shares/{principal}") => {
            ("/v1/vms/blue/shares/bob".into(), json!({"access": "slot"}))
        }
        ("DELETE", "/v1/vms/{name}/shares/{principal}") => {
            ("/v1/vms/blue/shares/team%3Aops".into(), none)
        }
        ("POST", "/v1/vms/{name}/rename") => (path, json!({"to": "green"})),
        ("POST", "/v1/vms/{name}/transfer") => (path, json!({"to": "bob"})),
        ("POST", "/v1/vms/{name}/renumber") => (path, json!({"address": "s002"})),
        ("POST", "/v1/tokens") => {
            (path, json!({"name": "deploy", "role": "operator", "expires_s": 4_000_000_000_u64}))
        }
        ("DELETE", "/v1/tokens/{name}") => ("/v1/tokens/ci".into(), none),
        ("DELETE", "/v1/sessions/{id}") => ("/v1/sessions/7".into(), none),
        ("POST", "/v1/explain") => (path, json!({"key": KEY, "address": "s001", "login": "root"})),
        ("POST", "/v1/apply") => {
            (path, json!({"fleet": {"users": [{"name": "dora"}]}, "prune": false}))
        }
        ("POST", "/v1/reload") => (path, json!({})),
        ("POST", "/v1/fleet-file/plan") => {
            (path, json!({"fleet": {"users": [{"name": "dora"}]}, "removals_max": 5}))
        }
        ("POST", "/v1/store/backup") => (path, json!({"path": "/var/backups/keyway.db"})),
        (
            "GET",
            "/v1/users"
            | "/v1/keys"
            | "/v1/teams"
            | "/v1/vms"
            | "/v1/vms/{name}"
            | "/v1/vms/{name}/host-key"
            | "/v1/addresses"
            | "/v1/nodes"
            | "/v1/tokens"
            | "/v1/sessions"
            | "/v1/audit"
            | "/v1/watch"
            | "/v1/export"
            | "/v1/zone"
            | "/v1/store"
            | "/v1/ca"
            | "/v1/hostkeys"
            | "/v1/openapi.json"
            | "/v1/status"
            | "/v1/health",
        )
        | ("DELETE", "/v1/vms/{name}" | "/v1/vms/{name}/host-key")
        | ("POST", "/v1/ca/confirm") => (path, none),
        (_, path) => of_places(route).unwrap_or_else(|| panic!("{path} has no example")),
    };
    // Nothing is changed on the walk.
    let changes = route.kind.queries().contains(&Query::DryRun);
    (if changes { format!("{path}?dry_run=true") } else { path }, body)
}

/// The status, and the code of a problem. A stream is left when its head is read.
fn outcome(reply: &Reply) -> (u16, Option<String>) {
    (reply.status, reply.code())
}

const ROLES: [(Role, &str); 3] =
    [(Role::Reader, "reader"), (Role::Operator, "operator"), (Role::Admin, "admin")];

#[test]
fn every_route_answers_every_role_at_the_socket_as_the_table_says() {
    let world = World::new();
    prepare(&world);
    let before = world.service.revision();
    for route in ROUTES {
        let (path, body) = example(route);
        let method = route.method.as_str();
        for role in [None, Some(Role::Reader), Some(Role::Operator), Some(Role::Admin)] {
            *world.role.lock().unwrap() = role;
            let allowed = role.is_some_and(|role| role >= route.role);
            if route.path == "/v1/watch" && allowed {
                let stream = world.connect();
                let head = super::testing::head(method, &path, &[], b"");
                std::io::Write::write_all(&mut &stream, head.as_bytes()).unwrap();
                let (status, headers) = read_head(&mut std::io::BufReader::new(stream));
                let lines = ("content-type".to_owned(), "application/x-ndjson".to_owned());
                assert_eq!((status, headers.contains(&lines)), (200, true));
                continue;
            }
            let is = outcome(&world.ask(method, &path, &body));
            let wanted = if allowed { (200, None) } else { (403, Some("forbidden".to_owned())) };
            assert_eq!(is, wanted, "{method} {path} as {role:?}");
        }
    }
    assert_eq!(world.service.revision(), before, "the walk changed something");
}

#[test]
fn every_route_answers_every_token_as_the_table_says() {
    let world = World::over_tls();
    prepare(&world);
    let tokens = ROLES.map(|(role, word)| (role, world.token(&format!("a-{word}"), word)));
    let forged = format!("kw_{}", "A".repeat(43));
    for route in ROUTES.iter().filter(|route| route.path != "/v1/watch") {
        let (path, body) = example(route);
        let method = route.method.as_str();
        for (role, token) in &tokens {
            let is = outcome(&world.send_tls(Some(token), method, &path, &body));
            let allowed = *role >= route.role;
            let wanted = if allowed { (200, None) } else { (403, Some("forbidden".to_owned())) };
            assert_eq!(is, wanted, "{method} {path} as {role:?}");
        }
        for token in [None, Some(forged.as_str()), Some("rubbish")] {
            let reply = world.send_tls(token, method, &path, &body);
            let wanted = (401, Some("unauthenticated".to_owned()));
            assert_eq!(outcome(&reply), wanted, "{method} {path} with {token:?}");
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        }
    }
}

#[test]
fn what_is_no_route_is_404_and_other_methods_are_405_with_those_allowed() {
    let world = World::new();
    for path in [
        "/",
        "/v1",
        "/v2/users",
        "/v1/users/",
        "/v1/users//keys",
        "/v1/users/a/b",
        "/v1/vms/a/shares/b/c",
    ] {
        assert_eq!(
            world.refused("GET", path, &Value::Null),
            (404, "no-route".to_owned()),
            "{path}"
        );
    }
    for route in ROUTES.iter().filter(|route| route.path != "/v1/nodes/test") {
        let (path, _) = example(route);
        let mut allowed: Vec<&str> =
            ROUTES.iter().filter(|it| it.path == route.path).map(|it| it.method.as_str()).collect();
        allowed.sort_unstable();
        for method in
            [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS]
        {
            if allowed.contains(&method.as_str()) {
                continue;
            }
            let reply = world.send(method.as_str(), &path, &[], b"");
            assert_eq!(outcome(&reply), (405, Some("method-not-allowed".to_owned())));
            assert_eq!(reply.header("allow"), Some(allowed.join(", ").as_str()));
        }
    }
}

#[test]
fn nobody_without_a_role_learns_which_routes_there_are() {
    let world = World::over_tls();
    *world.role.lock().unwrap() = None;
    for path in ["/v1/users", "/v1/nothing"] {
        assert_eq!(world.refused("GET", path, &Value::Null).0, 403);
        assert_eq!(world.send_tls(None, "GET", path, &Value::Null).status, 401);
        assert_eq!(world.send_tls(None, "BREW", path, &Value::Null).status, 401);
    }
}

#[test]
fn what_a_route_does_not_take_is_refused_before_anything_is_done() {
    let world = World::new();
    prepare(&world);
    let before = world.service.revision();
    for route in ROUTES {
        let (path, body) = example(route);
        let path = path.replace("?dry_run=true", "");
        let method = route.method.as_str();
        let about = format!("{method} {path}");
        let bad = (400, Some("bad-request".to_owned()));
        let json = ["content-type: application/json"];
        let send = |path: &str, headers: &[&str], body: &[u8]| {
            outcome(&world.send(method, path, headers, body))
        };
        for query in [
            "colour=red",
            "limit=",
            "limit=0",
            "limit=1001",
            "limit=x",
            "dry_run=yes",
            "newest=1",
            "%zz=1",
        ] {
            assert_eq!(send(&format!("{path}?{query}"), &json, b""), bad, "{about}?{query}");
        }
        if let Some(query) = route.kind.queries().first() {
            let value = if *query == Query::Limit { "5" } else { "true" };
            let twice = format!("{path}?{name}={value}&{name}={value}", name = query.name());
            assert_eq!(send(&twice, &json, b""), bad, "{about} twice");
        }
        if route.path.contains('{') {
            for wrong in ["%", "%2", "%zz", "%ff"] {
                let path = route.path.replace("{name}", wrong).replace("{id}", wrong);
                assert_eq!(send(&path, &json, b""), bad, "{method} {path}");
            }
        }
        if let Some((_, bytes_max)) = route.run.takes {
            assert_eq!(send(&path, &json, b"{"), bad, "{about} half a body");
            assert_eq!(send(&path, &json, b"[1]"), bad, "{about} a list");
            assert_eq!(send(&path, &json, b"{\"colour\":\"red\"}"), bad, "{about} unknown field");
            let mut more = body.clone();
            more["colour"] = json!("red");
            let reply = world.ask(method, &path, &more);
            assert_eq!(outcome(&reply), bad, "{about} unknown field beside known ones");
            assert!(reply.json()["detail"].as_str().unwrap().contains("colour"));
            let media = (415, Some("unsupported-media-type".to_owned()));
            let text = body.to_string();
            assert_eq!(send(&path, &[], text.as_bytes()), media, "{about} no content type");
            assert_eq!(
                send(&path, &["content-type: text/plain"], text.as_bytes()),
                media,
                "{about}"
            );
            let large = (413, Some("too-large".to_owned()));
            let spaces = vec![b' '; bytes_max + 1];
            assert_eq!(send(&path, &json, &spaces), large, "{about} too large by its length");
            let chunked = [json[0], "transfer-encoding: chunked"];
            let wrong = chunk(bytes_max + 1);
            let stream = world.connect();
            let head = super::testing::head(method, &path, &chunked, b"");
            let writer = stream.try_clone().unwrap();
            let reply = std::thread::scope(|scope| {
                scope.spawn(move || {
                    use std::io::Write;
                    let _refused = (&writer).write_all(head.as_bytes());
                    let _refused = (&writer).write_all(&wrong);
                });
                super::testing::read_reply(stream)
            });
            assert_eq!(outcome(&reply), large, "{about} too large without a length");
        } else {
            assert_eq!(send(&path, &json, b"{\"name\":\"x\"}"), bad, "{about} takes no body");
        }
        for tag in ["17", "\"x\"", "\"\"", "W/\"17\"", "\"1\", \"2\""] {
            if !route.kind.only_shows() {
                let headers = [json[0], &format!("if-match: {tag}")];
                assert_eq!(
                    send(&path, &headers, body.to_string().as_bytes()),
                    bad,
                    "{about} {tag}"
                );
            }
        }
    }
    assert_eq!(world.service.revision(), before, "something was changed");
}

fn chunk(bytes: usize) -> Vec<u8> {
    let mut chunk = format!("{bytes:x}\r\n").into_bytes();
    chunk.resize(chunk.len() + bytes, b' ');
    chunk.extend_from_slice(b"\r\n0\r\n\r\n");
    chunk
}

/// Our own words.
const WORDS: &[&str] = &[
    "name",
    "keys",
    "line",
    "members",
    "access",
    "slot",
    "by-name",
    "owner",
    "ssh",
    "login",
    "host_key",
    "address",
    "no_address",
    "node",
    "agent",
    "agent_key",
    "trusted",
    "carry",
    "handoff",
    "state",
    "to",
    "public",
    "public6",
    "private",
    "lobby",
    "role",
    "admin",
    "expires_s",
    "key",
    "fingerprint",
    "fleet",
    "users",
    "teams",
    "vms",
    "addresses",
    "prune",
    "path",
    "alice",
    "bob",
    "team:ops",
    "blue",
    "s001",
    "127.0.0.1:22",
    "127.0.77.9",
    "",
    "/tmp/x",
    "ready",
    KEY,
    FINGERPRINT,
    "maint",
    "shares",
    "members_by_name",
    "shares_by_name",
];

/// Any JSON, with our own words in it so that some of it makes sense.
fn any_json() -> impl Strategy<Value = Value> {
    let word =
        prop_oneof![4 => prop::sample::select(WORDS).prop_map(str::to_owned), 1 => ".{0,12}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(word.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

#[test]
fn nothing_that_is_sent_is_answered_with_a_bug() {
    let world = World::new();
    prepare(&world);
    let route = 0..ROUTES.len();
    let place = prop_oneof![
        4 => prop::sample::select(&["alice", "bob", "blue", "ops", "s001", "team%3Aops", "7", "ci"][..])
            .prop_map(str::to_owned),
        // What no URL may hold is refused by hyper, with no word about it.
        1 => "[!$%&'()*+,.0-9:;=@A-Z_a-z~-]{1,9}",
        1 => "(%[0-9a-f]{2}){1,4}",
    ];
    let query = prop_oneof![
        3 => Just(String::new()),
        1 => "(dry_run=true|renumber=true|limit=[0-9]{1,5}|after=[a-z0-9/%+]{0,9}|newest=true|owner=alice|x=y)",
    ];
    let config =
        ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let strategy = (route, place.clone(), place, query, any_json(), any::<u8>());
    let counted = std::cell::RefCell::new(0_u32);
    runner
        .run(&strategy, |(route, one, other, query, mut body, dice)| {
            let route = &ROUTES[route];
            if route.path == "/v1/watch" {
                return Ok(());
            }
            let mut path = String::new();
            for (at, part) in route.path.split('/').skip(1).enumerate() {
                let place = if at < 3 { &one } else { &other };
                path.push('/');
                path.push_str(if part.starts_with('{') { place } else { part });
            }
            // Half of the bodies are good ones with something else in one place.
            let (_, example) = example(route);
            if dice % 2 == 0
                && let Some(fields) = example.as_object()
                && !fields.is_empty()
            {
                let mut fields = fields.clone();
                let at = usize::from(dice / 2) % fields.len();
                let name = fields.keys().nth(at).unwrap().clone();
                if dice % 8 != 0 {
                    fields.insert(name, body);
                }
                body = Value::Object(fields);
            }
            if route.run.takes.is_none() && dice % 4 > 0 {
                body = Value::Null;
            }
            let path = if query.is_empty() { path } else { format!("{path}?{query}") };
            let reply = world.ask(route.method.as_str(), &path, &body);
            let known = [200, 201, 400, 404, 405, 409, 412, 413, 415, 422, 503];
            prop_assert!(
                known.contains(&reply.status),
                "{} {}: {}",
                route.method,
                path,
                reply.status
            );
            if reply.status < 300 {
                *counted.borrow_mut() += 1;
            } else {
                prop_assert!(reply.code().is_some(), "{} {}", route.method, path);
            }
            Ok(())
        })
        .unwrap();
    let good = *counted.borrow();
    assert!(good > 300, "only {good} of the requests made sense");
}

/// The same with one object written as an array of its values, for each object in it.
fn positional(body: &Value) -> Vec<Value> {
    match body {
        Value::Object(fields) => {
            let all = Value::Array(fields.values().cloned().collect());
            let inner = fields.iter().flat_map(|(key, value)| {
                let with = |other| {
                    let mut fields = fields.clone();
                    fields.insert(key.clone(), other);
                    Value::Object(fields)
                };
                positional(value).into_iter().map(with)
            });
            std::iter::once(all).chain(inner).collect()
        }
        Value::Array(items) => {
            let inner = items.iter().enumerate().flat_map(|(at, item)| {
                let with = move |other| {
                    let mut items = items.clone();
                    items[at] = other;
                    Value::Array(items)
                };
                positional(item).into_iter().map(with)
            });
            inner.collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

#[test]
fn an_array_is_taken_for_no_object_however_deep() {
    let world = World::new();
    prepare(&world);
    let mut tried = 0;
    for route in ROUTES {
        let (path, body) = example(route);
        let mut bodies = positional(&body);
        if route.path == "/v1/apply" {
            let address = json!({"name": "s009", "public": "127.0.77.9"});
            let vm = json!({"name": "red", "owner": "bob", "ssh": "127.0.0.1:22"});
            let team = json!({"name": "qa", "members": ["bob"]});
            let fleet = json!({"addresses": [address], "teams": [team], "vms": [vm]});
            bodies.extend(positional(&json!({"fleet": fleet})));
        }
        for body in bodies {
            let is = outcome(&world.ask(route.method.as_str(), &path, &body));
            assert_eq!(is, (400, Some("bad-request".to_owned())), "{} {body}", route.path);
            tried += 1;
        }
    }
    assert!(tried > 20, "{tried}");
}

#[test]
fn what_is_made_has_no_revision_that_could_match() {
    let world = World::new();
    prepare(&world);
    for route in ROUTES.iter().filter(|route| matches!(route.kind, Kind::Create)) {
        let (path, body) = example(route);
        for value in ["\"1\"", "*"] {
            let header = format!("if-match: {value}");
            let headers = ["content-type: application/json", &header];
            let reply = world.send("POST", &path, &headers, body.to_string().as_bytes());
            let makes = !route.path.contains('{');
            // A key is added to a user, who has one.
            let status = if makes || value != "*" { 412 } else { 200 };
            assert_eq!(reply.status, status, "{} {value}", route.path);
        }
    }
}
