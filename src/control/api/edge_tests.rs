//! Edges over the API.

use serde_json::{Value, json};

use super::testing::{World, key};
use crate::registry::document::Role;

#[test]
fn an_edge_is_added_shown_removed_and_remembered() {
    let world = World::new();
    let (first, second) = (key(), key());
    let edge = |name: &str, line: &str| json!({"name": name, "identity": line});
    let made = world.must("POST", "/v1/edges", &edge("e1", &first))["item"].clone();
    let parts: Vec<&str> = first.split(' ').take(2).collect();
    assert_eq!(made["identity"], parts.join(" "));
    assert_eq!(
        (&made["name"], &made["state"], &made["origin"]),
        (&json!("e1"), &json!("admitted"), &json!("command"))
    );
    assert!(made["fingerprint"].as_str().unwrap().starts_with("SHA256:"));
    assert_eq!(world.get("/v1/edges/e1").json(), made);
    let refused = |name: &str, line: &str| world.refused("POST", "/v1/edges", &edge(name, line));
    assert_eq!(refused("e2", &first), (409, "identity-taken".into()));
    assert_eq!(refused("e1", &second), (409, "name-taken".into()));
    assert_eq!(refused("e2", "x"), (422, "invalid".into()));
    let gone = world.must("DELETE", "/v1/edges/e1", &Value::Null)["item"].clone();
    assert_eq!((&gone["state"], &gone["name"]), (&json!("removed"), &json!("e1")));
    assert_eq!(world.get("/v1/edges/e1").json(), gone);
    assert_eq!(world.refused("DELETE", "/v1/edges/e1", &Value::Null), (409, "already".into()));
    let made = world.must("POST", "/v1/edges", &edge("e1", &second))["item"].clone();
    // One that is admitted stands before one of the same name that is not.
    assert_eq!(world.get("/v1/edges/e1").json(), made);
    let page = world.get("/v1/edges?limit=1").json();
    assert_eq!(page["items"], json!([made]));
    let after = page["next"].as_str().unwrap().replace(' ', "%20").replace('+', "%2B");
    assert_eq!(world.get(&format!("/v1/edges?after={after}")).json()["items"], json!([gone]));
}

/// Neither by the noun nor by a fleet.
#[test]
fn an_operator_sees_edges_and_changes_none() {
    let world = World::new();
    world.must("POST", "/v1/edges", &json!({"name": "e1", "identity": key()}));
    *world.role.lock().unwrap() = Some(Role::Operator);
    assert_eq!(world.get("/v1/edges/e1").json()["name"], "e1");
    let edge = json!({"name": "e2", "identity": key()});
    assert_eq!(world.refused("POST", "/v1/edges", &edge), (403, "forbidden".into()));
    assert_eq!(world.refused("DELETE", "/v1/edges/e1", &Value::Null), (403, "forbidden".into()));
    let apply = json!({"fleet": {"edges": [edge]}});
    assert_eq!(world.refused("POST", "/v1/apply", &apply), (403, "forbidden".into()));
}
