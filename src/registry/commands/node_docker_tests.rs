//! Tests of how nodes are reached, and of their host keys.

use std::collections::BTreeMap;

use crate::registry::command::{Command, NodeSettings, Options};
use crate::registry::document::{Node, NodeState, Reached, SealedKey};
use crate::registry::draft::Draft;
use crate::registry::model::{CommandContext, Limits, Model};
use crate::registry::name::Label;
use crate::registry::refusal::Refusal;
use crate::ssh::publickey::Fingerprint;

const LINE: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINkR3vqdVwKDaepdXSXYYZEndkjXA7+HiTyqvgUJfVL+";

struct World(Model);

impl World {
    fn run(&mut self, command: &Command) -> Result<(), Refusal> {
        let nonce = self.0.revision();
        let mut draft = Draft::new(&mut self.0, CommandContext { now_s: 1_000, nonce });
        draft.carry_out(command, Options::default())?;
        let _written = draft.keep();
        Ok(())
    }

    fn must(&mut self, command: &Command) {
        self.run(command).unwrap_or_else(|refusal| panic!("{command:?}: {refusal}"));
    }

    fn refused(&mut self, command: &Command) -> String {
        self.run(command).unwrap_err().to_string()
    }

    fn node(&self) -> &Node {
        &self.0.nodes()[&name()].document
    }
}

fn name() -> Label {
    Label::new("n1").unwrap()
}

fn set(set: NodeSettings) -> Command {
    Command::NodeSet { name: name(), set }
}

fn ssh(text: &str) -> NodeSettings {
    NodeSettings { ssh: Some(text.to_owned()), ..NodeSettings::default() }
}

fn host_key(text: &str) -> NodeSettings {
    NodeSettings { host_key: Some(text.to_owned()), ..NodeSettings::default() }
}

fn pin(key: &str) -> Command {
    Command::NodePin { name: name(), key: key.to_owned() }
}

/// A node at an address, and how it was found.
fn world() -> World {
    let mut world = World(Model::new(Limits::default()));
    world.must(&Command::NodeAdd { name: name(), set: ssh("root@203.0.113.9") });
    world
}

fn found(reached: Reached) -> Command {
    let state = NodeState { reached, since_s: 7, ..NodeState::default() };
    Command::NodeFound { name: name(), state }
}

#[test]
fn a_node_moves_and_its_pin_and_what_it_is_logged_in_with_move_along() {
    let mut world = world();
    let docker = world.node().docker.clone().unwrap();
    assert_eq!(docker.socket, "/var/run/docker.sock");
    assert_eq!(docker.ssh.unwrap().endpoint.to_string(), "root@203.0.113.9:22");
    world.must(&pin(LINE));
    let sealed = SealedKey { public: LINE.to_owned(), sealed: "AAAA".to_owned() };
    world.must(&set(NodeSettings { credential: Some(sealed.clone()), ..ssh("root@203.0.113.10") }));
    let moved = world.node().ssh().unwrap();
    assert_eq!((moved.host_key.as_deref(), &moved.credential), (Some(LINE), &Some(sealed)));
    let own = NodeSettings { own_credential: true, ..NodeSettings::default() };
    world.must(&set(own));
    assert_eq!(world.node().ssh().unwrap().credential, None);
    world.must(&set(ssh("")));
    assert_eq!(world.node().docker, None);
}

#[test]
fn the_first_host_key_is_pinned_and_no_other_takes_its_place_by_itself() {
    let mut world = world();
    world.must(&pin(LINE));
    world.must(&pin(LINE));
    let other = Fingerprint([9; 32]).to_string();
    let told = world.refused(&pin(&other));
    assert!(told.contains(&other) && told.contains("keyway node host-key forget n1"), "{told}");
    assert_eq!(world.node().ssh().unwrap().host_key.as_deref(), Some(LINE));
    // Given in advance as a fingerprint: the key itself says more.
    world.must(&set(host_key("")));
    let known = crate::registry::document::fingerprint_of(LINE);
    world.must(&set(host_key(&known)));
    world.must(&pin(LINE));
    assert_eq!(world.node().ssh().unwrap().host_key.as_deref(), Some(LINE));
}

#[test]
fn what_was_found_is_forgotten_with_where_it_was_found() {
    let mut world = world();
    world.must(&found(Reached::Online));
    world.must(&set(NodeSettings { trusted: Some(false), ..NodeSettings::default() }));
    assert_eq!(world.0.node_state(&name()).unwrap().reached, Reached::Online);
    world.must(&set(ssh("root@203.0.113.10")));
    assert!(world.0.node_state(&name()).is_none());
    world.must(&found(Reached::Offline));
    world.must(&Command::NodeRemove { name: name() });
    assert!(world.0.node_state(&name()).is_none());
    assert!(world.refused(&found(Reached::Online)).contains("n1"), "nobody made it again");
}

#[test]
fn what_cannot_be_meant_is_refused_with_what_to_write() {
    let mut world = world();
    let networks = |text: &str| NodeSettings {
        networks: Some(vec![text.to_owned()]),
        ..NodeSettings::default()
    };
    let labels = |name: &str, value: &str| NodeSettings {
        labels: Some(BTreeMap::from([(name.to_owned(), value.to_owned())])),
        ..NodeSettings::default()
    };
    let socket = |path: &str| NodeSettings {
        docker_socket: Some(path.to_owned()),
        ..NodeSettings::default()
    };
    let here = NodeSettings { local: Some(true), ..ssh("root@203.0.113.9") };
    for (settings, says) in [
        (ssh("203.0.113.9"), "root@10.0.0.5"),
        (ssh("root@1.2.3"), "write"),
        (host_key("x"), "SHA256:..."),
        (networks("10.0.0.0/33"), "10.0.0.0/8"),
        (labels("a b", "x"), "letters, digits"),
        (labels("", "x"), "letters, digits"),
        (socket("docker.sock"), "an absolute path"),
        (socket(&format!("/{}", "x".repeat(107))), "107 bytes"),
        (here, "give `local`, or `ssh`"),
    ] {
        let told = world.refused(&set(settings.clone()));
        assert!(told.contains(says), "{settings:?}: {told}");
    }
    world.must(&set(ssh("")));
    for settings in [host_key(LINE), networks("10.0.0.0/8"), socket("/run/a.sock")] {
        let told = world.refused(&set(settings.clone()));
        assert!(told.contains("keyway node set n1 --ssh") || told.contains("--local"), "{told}");
    }
    world.must(&set(NodeSettings { local: Some(true), ..socket("/run/a.sock") }));
    assert!(world.refused(&pin(LINE)).contains("not reached over SSH"));
    world.must(&set(NodeSettings { local: Some(false), ..NodeSettings::default() }));
    assert_eq!(world.node().docker, None);
}
