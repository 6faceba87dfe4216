//! What the API does, over its socket.

use serde_json::{Value, json};

use super::testing::World;

#[test]
fn users_teams_and_vms_are_made_shown_and_removed() {
    let world = World::new();
    let made = world.ask("POST", "/v1/users", &json!({"name": "alice", "keys": []}));
    assert_eq!(made.status, 201);
    assert_eq!(made.json()["item"]["name"], "alice");
    assert_eq!(made.json()["dry_run"], false);
    world.must("POST", "/v1/teams", &json!({"name": "ops", "members": ["alice"]}));
    let shown = world.get("/v1/users/alice");
    assert_eq!(shown.status, 200);
    assert_eq!(shown.json()["teams"], json!(["ops"]));
    let tag = format!("\"{}\"", shown.json()["revision"]);
    assert_eq!(shown.header("etag"), Some(tag.as_str()));
    let vm =
        json!({"name": "blue", "owner": "team:ops", "ssh": "127.0.0.1:22", "no_address": true});
    let vm = world.must("POST", "/v1/vms", &vm);
    assert_eq!(vm["item"]["address"], Value::Null);
    let listed = world.get("/v1/vms?visible_to=alice").json();
    assert_eq!(listed["items"][0]["name"], "blue");
    let gone = world.must("DELETE", "/v1/vms/blue", &Value::Null);
    assert_eq!(gone.get("item"), None);
    assert_eq!(world.refused("GET", "/v1/vms/blue", &Value::Null), (404, "not-found".into()));
}
