//! Nodes over the API, and how a VM's sessions are carried.

use serde_json::{Value, json};

use super::testing::{World, key, user};
use crate::registry::document::Role;

const AGENT_KEY: &str = "SHA256:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";

fn trusted(name: &str) -> Value {
    json!({"name": name, "agent": "10.0.0.21:7022", "agent_key": AGENT_KEY, "trusted": true})
}

#[test]
fn a_node_is_made_shown_changed_and_removed() {
    let world = World::new();
    let made = world.must("POST", "/v1/nodes", &trusted("n1"))["item"].clone();
    assert_eq!(
        made,
        json!({
            "name": "n1", "agent": "10.0.0.21:7022", "agent_key": AGENT_KEY, "join": null, "trusted": true, "vms": 0,
            "origin": "command", "revision": made["revision"], "host": null, "port": null, "user": null, "key": null,
            "host_key": null, "networks": [], "local": false, "docker_socket": null, "labels": {}, "state": null,
            "reason": null, "cause": null, "since_s": null, "last_seen": null, "docker_version": null,
            "architecture": null, "via": null, "shown": null,
        })
    );
    assert_eq!(world.get("/v1/nodes/n1").json(), made);
    world.must("POST", "/v1/nodes", &json!({"name": "n0"}));
    let listed = world.get("/v1/nodes?limit=1").json();
    assert_eq!((&listed["items"][0]["name"], &listed["next"]), (&json!("n0"), &json!("n0")));
    assert_eq!(world.get("/v1/nodes?after=n0").json()["items"], json!([made]));
    let line = key();
    let set = world.must("PATCH", "/v1/nodes/n1", &json!({"agent_key": line, "trusted": false}));
    assert_eq!(set["item"]["trusted"], false);
    assert!(set["item"]["agent_key"].as_str().unwrap().starts_with("SHA256:"));
    let plain = world.must("PATCH", "/v1/nodes/n1", &json!({"agent": ""}))["item"].clone();
    assert_eq!((&plain["agent"], &plain["agent_key"]), (&Value::Null, &Value::Null));
    let refused = |body: &Value| world.refused("POST", "/v1/nodes", body);
    assert_eq!(refused(&trusted("n1")), (409, "name-taken".into()));
    assert_eq!(refused(&json!({"name": "n2", "agent": "h:1"})), (422, "invalid".into()));
    world.must("POST", "/v1/nodes", &trusted("n2"));
    assert_eq!(refused(&trusted("n3")), (409, "agent-key-taken".into()));
    world.must("DELETE", "/v1/nodes/n1", &Value::Null);
    assert_eq!(world.refused("GET", "/v1/nodes/n1", &Value::Null), (404, "not-found".into()));
    assert_eq!(world.refused("DELETE", "/v1/nodes/n1", &Value::Null), (404, "not-found".into()));
}

#[test]
fn links_are_listed_by_node_and_a_page_goes_on_where_the_last_one_ended() {
    let world = World::new();
    let of = |page: &Value| -> Vec<String> {
        let links = page["items"].as_array().unwrap().iter();
        links.map(|link| format!("{} {}", link["node"], link["state"])).collect()
    };
    let first = world.get("/v1/links?limit=2").json();
    assert_eq!(of(&first), ["\"n1\" \"leaving\"", "\"n1\" \"open\""]);
    let next = first["next"].as_str().unwrap();
    let second = world.get(&format!("/v1/links?limit=2&after={next}")).json();
    assert_eq!((of(&second), &second["next"]), (vec!["\"n2\" \"open\"".to_owned()], &Value::Null));
}

#[test]
fn a_vm_says_on_which_node_it_lies_and_what_carries_its_sessions() {
    let world = World::new();
    user(&world, "alice");
    world.must("POST", "/v1/nodes", &trusted("n1"));
    let vm = |more: Value| {
        let mut vm =
            json!({"name": "blue", "owner": "alice", "ssh": "127.0.0.1:22", "no_address": true});
        vm.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        vm
    };
    let refused = |more: Value| world.refused("POST", "/v1/vms", &vm(more));
    assert_eq!(refused(json!({"node": "n9"})), (404, "not-found".into()));
    assert_eq!(refused(json!({"carry": "handoff"})), (409, "no-handoff".into()));
    let carried = |item: &Value| {
        let words = ["node", "carry", "carried"].map(|field| item[field].as_str().unwrap_or("-"));
        words.join(" ")
    };
    let made = world.must("POST", "/v1/vms", &vm(json!({"node": "n1", "carry": "handoff"})));
    assert_eq!(carried(&made["item"]), "n1 handoff handoff");
    assert_eq!(world.get("/v1/nodes/n1").json()["vms"], 1);
    assert_eq!(world.get("/v1/vms?node=n1").json()["items"][0]["name"], "blue");
    assert_eq!(world.refused("GET", "/v1/vms?node=n9", &Value::Null), (404, "not-found".into()));
    let untrust = json!({"trusted": false});
    assert_eq!(world.refused("PATCH", "/v1/nodes/n1", &untrust), (409, "in-use".into()));
    let set = |set: Value| world.must("PATCH", "/v1/vms/blue", &set)["item"].clone();
    assert_eq!(carried(&set(json!({"carry": "relay"}))), "n1 relay relay");
    assert_eq!(carried(&set(json!({"carry": "auto"}))), "n1 auto handoff");
    world.must("PATCH", "/v1/nodes/n1", &untrust);
    assert_eq!(carried(&world.get("/v1/vms/blue").json()), "n1 auto relay");
    assert_eq!(world.refused("DELETE", "/v1/nodes/n1", &Value::Null), (409, "in-use".into()));
    assert_eq!(carried(&set(json!({"node": ""}))), "- auto relay");
    world.must("DELETE", "/v1/nodes/n1", &Value::Null);
}

#[test]
fn an_operator_cannot_change_nodes_by_a_fleet_but_may_put_vms_on_them() {
    let world = World::new();
    user(&world, "alice");
    world.must("POST", "/v1/nodes", &json!({"name": "n1"}));
    *world.role.lock().unwrap() = Some(Role::Operator);
    let apply = |fleet: Value| json!({ "fleet": fleet });
    let node = json!({"name": "n1", "agent": "10.0.0.21:7022", "agent_key": AGENT_KEY});
    let refused = world.refused("POST", "/v1/apply", &apply(json!({ "nodes": [node] })));
    assert_eq!(refused, (403, "forbidden".into()));
    let vm = json!({"name": "blue", "owner": "alice", "ssh": "127.0.0.1:22", "no_address": true, "node": "n1"});
    world.must("POST", "/v1/apply", &apply(json!({ "vms": [vm] })));
    assert_eq!(world.get("/v1/vms/blue").json()["node"], "n1");
}

#[test]
fn a_node_elsewhere_is_added_once_its_host_key_is_believed_and_its_docker_answers() {
    let world = World::new();
    let node = |more: Value| {
        let mut node = json!({"name": "n1", "ssh": "root@203.0.113.9"});
        node.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        node
    };
    // Who asks first sees the key, and nothing is kept.
    let shown = world.must("POST", "/v1/nodes/test", &json!({"ssh": "root@203.0.113.9"}));
    assert_eq!(shown["cause"], "host-key-unconfirmed");
    assert_eq!(world.get("/v1/nodes").json()["items"], json!([]));
    let other = AGENT_KEY;
    let refused = world.refused("POST", "/v1/nodes", &node(json!({"host_key": other})));
    assert_eq!(refused, (409, "node-not-reached".into()));
    let made = world.must("POST", "/v1/nodes", &node(json!({"host_key": shown["host_key"]})));
    assert_eq!(made["item"]["host_key"], shown["host_key"]);
    let known = world.get("/v1/nodes/n1").json();
    assert_eq!(
        [&known["state"], &known["host"], &known["port"], &known["user"]],
        [&json!("online"), &json!("203.0.113.9"), &json!(22), &json!("root")]
    );
    // A name that is taken is told before anybody is dialled.
    let again = node(json!({"host_key": other}));
    assert_eq!(world.refused("POST", "/v1/nodes", &again), (409, "name-taken".into()));
}

#[test]
fn a_node_that_nobody_has_confirmed_is_pending_until_somebody_does() {
    let world = World::new();
    let body = json!({"name": "n1", "ssh": "root@203.0.113.9", "labels": {"zone": "a"}});
    let made = world.must("POST", "/v1/nodes", &body)["item"].clone();
    assert_eq!((&made["state"], &made["host_key"]), (&json!("pending"), &Value::Null));
    assert_eq!(made["labels"], json!({"zone": "a"}));
    let test = |body: Value| world.must("POST", "/v1/nodes/n1/test", &body);
    let shown = test(json!({}));
    assert_eq!(shown["cause"], "host-key-unconfirmed");
    assert_eq!(test(json!({"host_key": AGENT_KEY}))["cause"], "host-key-changed");
    assert_eq!(world.get("/v1/nodes/n1").json()["host_key"], Value::Null, "nothing is kept");
    assert_eq!(test(json!({"host_key": shown["host_key"]}))["state"], "online");
    assert_eq!(world.get("/v1/nodes/n1").json()["host_key"], shown["host_key"]);
    // Whoever says `accept_new` later changes nothing.
    world.must("PATCH", "/v1/nodes/n1", &json!({"host_key": AGENT_KEY}));
    assert_eq!(test(json!({"accept_new": true}))["cause"], "host-key-changed");
    assert_eq!(world.get("/v1/nodes/n1").json()["host_key"], AGENT_KEY);
    let none = world.refused("POST", "/v1/nodes/n2/test", &json!({}));
    assert_eq!(none, (404, "not-found".into()));
}

#[test]
fn a_private_key_is_sealed_and_shown_to_nobody() {
    let world = World::new();
    let secret = "-----BEGIN OPENSSH PRIVATE KEY----- b3BlbnNzaC1rZXk";
    let body =
        json!({"name": "n1", "ssh": "root@203.0.113.9", "private_key": secret, "untested": true});
    let made = world.must("POST", "/v1/nodes", &body);
    assert!(made["item"]["key"].as_str().unwrap().starts_with("ssh-ed25519 "));
    let bad =
        json!({"name": "n2", "ssh": "root@203.0.113.9", "private_key": "x", "untested": true});
    assert_eq!(world.refused("POST", "/v1/nodes", &bad), (422, "invalid".into()));
    let alone = json!({"name": "n2", "ssh": "root@203.0.113.9", "passphrase": "x"});
    assert_eq!(world.refused("POST", "/v1/nodes", &alone), (422, "invalid".into()));
    let own = world.must("PATCH", "/v1/nodes/n1", &json!({"private_key": ""}));
    assert_eq!(own["item"]["key"], Value::Null);
    for path in ["/v1/nodes", "/v1/nodes/n1", "/v1/audit", "/v1/export"] {
        let page = world.get(path).json().to_string();
        assert!(!page.contains("PRIVATE KEY") && !page.contains("b3BlbnNz"), "{path}: {page}");
    }
}
