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
            "origin": "command", "revision": made["revision"],
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
