//! Nodes as an operator meets them: added over SSH, tried, watched, with Debian's Docker behind a
//! stock sshd.

use std::fs;

use serde_json::Value;

use crate::harness::dockerd::{self, Daemon};
use crate::harness::sshd::{self, Server, Vm};
use crate::harness::world::own_ip;
use crate::harness::{Key, Output, World, target, wait};
use crate::operations::{keyway, offline};

/// A front door, and a host with an sshd and a Docker that it may log in to.
struct Site {
    world: World,
    sshd: Vm,
    socket: String,
}

impl Site {
    /// Nothing without the peer.
    fn new(docker: &Daemon) -> Self {
        let world = World::usual();
        let own = offline(&world, &["node", "identity"]).ok().text();
        let sshd = sshd(&world, "node", &own);
        let socket = docker.socket().display().to_string();
        Self { world, sshd, socket }
    }

    fn keyway(&self, words: &[&str]) -> Output {
        keyway(&self.world, words)
    }

    /// `node add`, with more words.
    fn add(&self, name: &str, more: &[&str]) -> Output {
        let at = format!("{}@{}", target::login(), self.sshd.address);
        let mut words = vec!["node", "add", name, "--ssh", &at, "--networks", "127.0.0.0/8"];
        words.extend(["--docker-socket", &self.socket]);
        words.extend(more);
        self.keyway(&words)
    }

    fn node(&self, name: &str) -> Value {
        let list = self.keyway(&["node", "list", "--output", "json"]).ok().text();
        let list: Value = serde_json::from_str(&list).expect("JSON");
        let found = list.as_array().expect("a list").iter().find(|node| node["name"] == name);
        found.cloned().unwrap_or_default()
    }

    #[track_caller]
    fn becomes(&self, name: &str, state: &str) -> Value {
        wait::until(&format!("{name} {state}"), 2 * wait::SOON, || {
            self.node(name)["state"] == state
        });
        self.node(name)
    }
}

fn sshd(world: &World, name: &str, keys: &str) -> Vm {
    let ca = Key::ed25519(world.dir(), &format!("ca_of_{name}")).public();
    let trust = sshd::Trust { ca: &ca, principals: "nobody", keys };
    Vm::start(world.dir(), name, own_ip(), &trust, Server::OpenSsh, "")
}

#[test]
fn a_node_is_added_once_it_lets_in_and_is_watched_from_then_on() {
    let Some([docker, _]) = dockerd::pair() else { return };
    let mut site = Site::new(docker);
    // Nobody is here who could say that its key is right.
    let asked = site.add("n1", &[]).ends(2);
    assert!(asked.stderr.contains("--accept-new"), "{}", asked.stderr);
    let other = Key::ed25519(site.world.dir(), "another_key").fingerprint();
    let changed = site.add("n1", &["--host-key", &other]).ends(1);
    assert!(changed.stderr.contains(&other), "{}", changed.stderr);
    assert_eq!(site.node("n1"), Value::Null, "nothing is kept of a node that was not reached");

    let added = site.add("n1", &["--accept-new"]).ok();
    assert!(added.text().contains("added: Docker "), "{}", added.text());
    let node = site.becomes("n1", "online");
    assert_eq!(node["host_key"], site.sshd.host_key.fingerprint());
    let version = docker.client().args(["version", "-f", "{{.Server.Version}}"]).output();
    let version = String::from_utf8(version.expect("docker").stdout).expect("text");
    assert_eq!(node["docker_version"], version.trim());
    let tested = site.keyway(&["node", "test", "n1", "--output", "json"]).ok().text();
    let tested: Value = serde_json::from_str(&tested).expect("JSON");
    assert_eq!(
        (&tested["state"], &tested["architecture"]),
        (&node["state"], &node["architecture"])
    );
    assert!(site.world.page("/metrics").contains("keyway_node_online{node=\"n1\"} 1"));

    site.sshd.down();
    let gone = site.becomes("n1", "offline");
    assert!(gone["reason"].as_str().is_some_and(|why| why.contains("fix: ")), "{gone}");
    assert_eq!(gone["docker_version"], node["docker_version"], "what is known is known");
    // It is known over a restart that it was there.
    site.world.restart();
    assert_eq!(site.becomes("n1", "offline")["docker_version"], node["docker_version"]);
    site.sshd.up();
    site.becomes("n1", "online");

    site.sshd.down();
    let before = site.sshd.host_key.fingerprint();
    site.sshd.change_host_key();
    site.sshd.up();
    let shown = site.becomes("n1", "error");
    let now = site.sshd.host_key.fingerprint();
    assert_eq!((&shown["host_key"], &shown["shown"]), (&before.into(), &now.clone().into()));
    let refused = site.keyway(&["node", "test", "n1", "--accept-new"]).ends(1);
    assert!(refused.text().contains(&now), "{}", refused.text());
    site.keyway(&["node", "host-key", "forget", "n1"]).ok();
    site.keyway(&["node", "test", "n1"]).ends(1);
    assert_eq!(site.node("n1")["state"], "pending", "nobody has said that it is right");
    site.keyway(&["node", "test", "n1", "--host-key", &now]).ok();
    site.becomes("n1", "online");
    let audit = site.keyway(&["audit", "list", "--output", "json"]).ok().text();
    assert!(audit.contains("node-host-key-pin") && audit.contains("host-key-changed"), "{audit}");
    site.keyway(&["node", "rm", "n1"]).ok();
    assert!(!site.world.page("/metrics").contains("keyway_node_online"));
}

#[test]
fn a_private_key_lies_sealed_and_opens_the_node_after_a_restart_too() {
    let Some([docker, _]) = dockerd::pair() else { return };
    let mut site = Site::new(docker);
    let key = Key::ed25519(site.world.dir(), "given_key");
    let sshd = sshd(&site.world, "other", &key.public());
    let text = fs::read_to_string(key.path()).expect("a key");
    let secret = text.lines().nth(2).expect("lines of base64").to_owned();
    site.sshd = sshd;
    let refused = site.add("n1", &["--accept-new"]).ends(1);
    assert!(refused.stderr.contains("node identity"), "{}", refused.stderr);
    let file = key.path().display().to_string();
    site.add("n1", &["--accept-new", "--key", &file]).ok();
    let node = site.becomes("n1", "online");
    assert!(key.public().starts_with(node["key"].as_str().expect("its public half")), "{node}");

    site.world.restart();
    site.becomes("n1", "online");
    site.keyway(&["node", "test", "n1"]).ok();
    let answers = [
        site.keyway(&["export"]).ok().text(),
        site.keyway(&["audit", "list", "--output", "json"]).ok().text(),
        site.world.log(),
    ];
    for answer in &answers {
        assert!(!answer.contains(&secret), "{answer}");
    }
    let state = site.world.path("state");
    for entry in fs::read_dir(&state).expect("its state_dir").flatten() {
        let bytes = fs::read(entry.path()).unwrap_or_default();
        let found = bytes.windows(secret.len()).any(|it| it == secret.as_bytes());
        assert!(!found, "{} holds it", entry.path().display());
    }
    // Without what opens it nobody logs in, and it is said what to do.
    site.world.end();
    fs::remove_file(state.join("seal_key")).expect("a file");
    site.world.restart();
    let node = site.becomes("n1", "error");
    let reason = node["reason"].as_str().expect("a reason");
    assert!(reason.contains("keyway node set n1 --key FILE"), "{reason}");
}

#[test]
fn the_docker_of_this_machine_is_a_node_like_any_other() {
    let Some([docker, _]) = dockerd::pair() else { return };
    let site = Site::new(docker);
    site.keyway(&["node", "add", "local", "--docker-socket", &site.socket]).ok();
    let node = site.becomes("local", "online");
    assert_eq!(
        (&node["local"], &node["host"], &node["via"]),
        (&true.into(), &Value::Null, &"local".into())
    );
    let missing = site.world.path("none.sock").display().to_string();
    site.keyway(&["node", "set", "local", "--docker-socket", &missing]).ok();
    site.becomes("local", "error");
    let refused =
        site.keyway(&["node", "add", "other", "--local", "--docker-socket", &missing]).ends(1);
    assert!(refused.stderr.contains("node `other` is not added"), "{}", refused.stderr);
    // What is in a file says the same: export and apply change nothing.
    let file = site.world.path("export.toml");
    fs::write(&file, site.keyway(&["export"]).ok().text()).expect("a file");
    let plan = site.keyway(&["apply", "--dry-run", "-f", &file.display().to_string()]).ok().text();
    assert!(!plan.contains("node local"), "{plan}");
}
