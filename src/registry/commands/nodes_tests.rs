//! Tests of nodes, and of what VMs say of them.

use crate::registry::command::{Command, NewVm, NodeSettings, Options, VmSettings};
use crate::registry::document::{Document, Key, Registry};
use crate::registry::draft::Draft;
use crate::registry::model::{CommandContext, Limits, Model};
use crate::registry::name::{Label, Principal};
use crate::registry::refusal::Refusal;
use crate::route::Carry;
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::Fingerprint;

fn label(name: &str) -> Label {
    Label::new(name).unwrap()
}

fn key(of: u8) -> String {
    Fingerprint([of; 32]).to_string()
}

fn settings(agent: Option<&str>, key: Option<String>, trusted: Option<bool>) -> NodeSettings {
    let agent = agent.map(str::to_owned);
    NodeSettings { agent, agent_key: key, trusted, ..NodeSettings::default() }
}

fn add(name: &str, of: u8, trusted: bool) -> Command {
    let set = settings(Some(&format!("10.0.0.{of}:7022")), Some(key(of)), Some(trusted));
    Command::NodeAdd { name: label(name), set }
}

fn set(name: &str, agent: Option<&str>, key: Option<String>, trusted: Option<bool>) -> Command {
    Command::NodeSet { name: label(name), set: settings(agent, key, trusted) }
}

fn vm(name: &str, node: Option<&str>, carry: Carry) -> Command {
    let owner = Principal::User(label("alice"));
    let new = NewVm::new(label(name), owner, "10.9.9.9:22".to_owned());
    let placement = crate::registry::command::Placement::Nowhere;
    Command::VmAdd(NewVm { node: node.map(label), carry, placement, ..new })
}

fn put(name: &str, node: Option<&str>, carry: Option<Carry>) -> Command {
    let node = node.map(str::to_owned);
    Command::VmSet { name: label(name), set: VmSettings { node, carry, ..VmSettings::default() } }
}

struct World(Model);

impl World {
    /// Alice, a trusted node, one that is not trusted, and one without an agent.
    fn new() -> Self {
        let mut world = Self(Model::new(Limits::default()));
        world.must(&Command::UserAdd { name: label("alice"), keys: Vec::new() });
        world.must(&add("n1", 1, true));
        world.must(&add("n2", 2, false));
        world.must(&Command::NodeAdd { name: label("n3"), set: NodeSettings::default() });
        world
    }

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
        let revision = self.0.revision();
        let refusal = self.run(command).unwrap_err();
        assert_eq!(self.0.revision(), revision);
        format!("{}: {refusal}", refusal.code())
    }

    fn json(&self, name: &str) -> String {
        let document = self.0.get(&Key::Node(label(name))).map(|(document, _)| document).unwrap();
        let json = document.to_json();
        assert_eq!(Document::from_json(&Key::Node(label(name)), &json).unwrap(), document);
        String::from_utf8(json).unwrap()
    }
}

#[test]
fn a_node_comes_changes_and_goes() {
    let mut world = World::new();
    let agent = |at: &str, of| format!(r#""agent":{{"at":"{at}","key":"{}"}}"#, key(of));
    assert_eq!(world.json("n1"), format!(r#"{{{},"trusted":true}}"#, agent("10.0.0.1:7022", 1)));
    assert_eq!(world.json("n3"), "{}");
    world.must(&set("n2", Some("[::ffff:10.0.0.9]:7023"), None, None));
    assert_eq!(world.json("n2"), format!("{{{}}}", agent("10.0.0.9:7023", 2)));
    // Where the agent is and who it is go together.
    world.must(&set("n2", Some(""), None, None));
    assert_eq!(world.json("n2"), "{}");
    let line = PrivateKey::generate_ed25519(&mut SystemEntropy::default()).public().to_line();
    world.must(&set("n2", Some("10.0.0.2:1"), Some(line.clone()), Some(true)));
    assert!(!world.json("n2").contains(&line) && world.json("n2").contains("SHA256:"));
    world.must(&Command::NodeRemove { name: label("n2") });
    assert_eq!(
        world.refused(&Command::NodeRemove { name: label("n2") }),
        "not-found: there is no node `n2`; `keyway node list` shows what there is"
    );
    world.must(&add("n2", 2, false));
}

#[test]
fn what_cannot_be_an_agent_is_refused_with_what_to_write() {
    let mut world = World::new();
    assert_eq!(
        world.refused(&add("n1", 7, true)),
        "name-taken: the name `n1` is taken by another node; choose another"
    );
    assert_eq!(
        world.refused(&add("n4", 1, false)),
        format!(
            "agent-key-taken: agent key {} is already that of node `n1`; every agent has an identity of its own",
            key(1)
        )
    );
    for (agent, fix) in [
        ("n4.example:7022", "write an IP address and a port"),
        ("10.0.0.4", "write an IP address and a port"),
        ("10.0.0.4:0", "write a port from 1 to 65535"),
        ("0.0.0.0:7022", "write the address that the agent is dialled at"),
        ("[fe80::1]:7022", "write the address that the agent is dialled at"),
    ] {
        let told = world.refused(&set("n3", Some(agent), Some(key(4)), None));
        assert!(told.starts_with("invalid: ") && told.contains(fix), "{told}");
    }
    let rsa = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ==";
    for wrong in ["SHA256:short", "x\ny", rsa] {
        let told = world.refused(&set("n3", Some("10.0.0.4:1"), Some(wrong.to_owned()), None));
        assert!(told.contains("no key of an agent; write SHA256:..."), "{told}");
    }
    for set in [set("n3", None, Some(key(4)), None), set("n3", Some(""), Some(key(4)), None)] {
        let told = world.refused(&set);
        assert!(told.contains("and not where it listens; give both"), "{told}");
    }
}

#[test]
fn a_vm_lies_on_a_node_that_there_is_and_is_handed_off_where_that_can_be() {
    let mut world = World::new();
    assert_eq!(
        world.refused(&vm("blue", Some("n9"), Carry::Relay)),
        "not-found: there is no node `n9`; `keyway node list` shows what there is"
    );
    for (node, told) in [
        (
            None,
            "no-handoff: VM `blue` cannot be handed off: the VM has no node; put it on one \
             (`keyway vm set blue --node NODE`), or leave carry at auto",
        ),
        (
            Some("n2"),
            "no-handoff: VM `blue` cannot be handed off: node `n2` is not trusted; trust it \
             (`keyway node set n2 --trusted true`), or leave carry at auto",
        ),
        (
            Some("n3"),
            "no-handoff: VM `blue` cannot be handed off: node `n3` has no agent; give it one \
             (`keyway node set n3 --agent IP:PORT --agent-key KEY`), or leave carry at auto",
        ),
    ] {
        assert_eq!(world.refused(&vm("blue", node, Carry::Handoff)), told);
    }
    world.must(&vm("blue", Some("n2"), Carry::Auto));
    assert!(world.refused(&put("blue", None, Some(Carry::Handoff))).starts_with("no-handoff: "));
    world.must(&put("blue", Some("n1"), Some(Carry::Handoff)));
    assert_eq!(world.0.vms_on(&label("n1")).len(), 1);
    for node in ["n2", "n3", ""] {
        let told = world.refused(&put("blue", Some(node), None));
        assert!(told.starts_with("no-handoff: "), "{told}");
    }
    assert!(world.refused(&put("blue", Some("N"), None)).starts_with("invalid: "));
    world.must(&put("blue", Some(""), Some(Carry::Auto)));
    assert_eq!(world.0.vms_on(&label("n1")).len(), 0);
}

#[test]
fn a_node_stays_as_its_vms_need_it() {
    let mut world = World::new();
    for (name, carry) in [("a", Carry::Auto), ("b", Carry::Handoff), ("c", Carry::Handoff)] {
        world.must(&vm(name, Some("n1"), carry));
    }
    assert_eq!(
        world.refused(&Command::NodeRemove { name: label("n1") }),
        "in-use: node `n1` is in use: 3 VMs there; put them elsewhere first (`keyway vm set --node`)"
    );
    for ends in [set("n1", None, None, Some(false)), set("n1", Some(""), None, None)] {
        let told = world.refused(&ends);
        assert!(
            told.starts_with("in-use: node `n1` is in use: VM `")
                && told.ends_with(
                    "` and 1 more VM there must be handed off; set carry to auto or relay first \
                     (`keyway vm set --carry`)"
                ),
            "{told}"
        );
    }
    // Another agent is one too.
    world.must(&set("n1", Some("10.0.0.8:7022"), Some(key(8)), None));
    world.must(&put("b", None, Some(Carry::Relay)));
    world.must(&put("c", None, Some(Carry::Auto)));
    world.must(&set("n1", None, None, Some(false)));
    for name in ["a", "b", "c"] {
        world.must(&put(name, Some(""), None));
    }
    world.must(&Command::NodeRemove { name: label("n1") });
}

#[test]
fn commands_about_nodes_are_read_back_from_the_audit_log() {
    for command in [
        add("n1", 1, true),
        set("n1", Some(""), None, None),
        Command::NodeRemove { name: label("n1") },
        token("n1", "a", 7),
        join("n1", "a", 1),
        vm("blue", Some("n1"), Carry::Handoff),
        put("blue", Some(""), Some(Carry::Relay)),
    ] {
        let json = serde_json::to_string(&command).unwrap();
        assert_eq!(serde_json::from_str::<Command>(&json).unwrap(), command, "{json}");
    }
}

fn token(name: &str, hash: &str, expires_s: u64) -> Command {
    Command::NodeToken { name: label(name), hash: hash.to_owned(), expires_s }
}

fn join(name: &str, hash: &str, of: u8) -> Command {
    Command::NodeJoin { name: label(name), hash: hash.to_owned(), key: key(of) }
}

#[test]
fn an_agent_joins_once_with_the_last_token_of_its_node() {
    let mut world = World::new();
    let told = world.refused(&token("n3", "a", 4600));
    assert!(told.contains("no agent that could join; say where it is to listen"), "{told}");
    let told = world.refused(&token("n1", "a", 4600));
    assert!(told.starts_with("agent-key-other: ") && told.contains(&key(1)), "{told}");
    world.must(&set("n3", Some("10.0.0.3:7022"), None, Some(true)));
    assert_eq!(
        world.refused(&vm("blue", Some("n3"), Carry::Handoff)),
        "no-handoff: VM `blue` cannot be handed off: the agent of node `n3` has not joined; have it \
         join (`keyway node token n3`), or leave carry at auto"
    );
    world.must(&token("n3", "a", 4600));
    world.must(&token("n3", "b", 4600));
    let unknown = "join-token-unknown: the token is unknown: ";
    assert!(world.refused(&join("n3", "a", 3)).starts_with(unknown), "a newer one was made");
    assert!(world.refused(&join("n2", "b", 3)).starts_with(unknown), "another node's");
    assert!(world.refused(&join("n9", "b", 3)).starts_with(unknown));
    assert!(world.refused(&join("n3", "b", 1)).starts_with("agent-key-taken: "));
    world.must(&join("n3", "b", 3));
    assert!(world.json("n3").contains(&format!(r#""key":"{}""#, key(3))), "{}", world.json("n3"));
    world.must(&vm("blue", Some("n3"), Carry::Handoff));
    // Its answer may have been lost.
    world.must(&join("n3", "b", 3));
    assert_eq!(
        world.refused(&join("n3", "b", 4)),
        "join-token-used: the token for node `n3` was used; a new one: `keyway node token n3`"
    );
    assert!(world.refused(&set("n3", None, Some(String::new()), None)).starts_with("in-use: "));
}

#[test]
fn a_token_that_is_old_and_an_agent_that_is_another_change_nothing() {
    let mut world = World::new();
    let awaited = |world: &mut World, expires_s| {
        world.must(&set("n3", Some("10.0.0.3:7022"), Some(String::new()), None));
        world.must(&token("n3", "a", expires_s));
    };
    // It is 1,000 by the registry's clock.
    awaited(&mut world, 1000);
    let told = world.refused(&join("n3", "a", 3));
    assert!(told.starts_with("join-token-expired: the token for node `n3` has expired"), "{told}");
    awaited(&mut world, 1001);
    world.must(&set("n3", None, Some(key(4)), None));
    assert_eq!(
        world.refused(&join("n3", "a", 3)),
        format!(
            "agent-key-other: node `n3` has an agent with the key {}, and no other takes its place by itself; if it is \
             gone: `keyway node set n3 --agent-key ''`, then `keyway node token n3`",
            key(4)
        )
    );
    // Whom somebody has written down is who joins.
    world.must(&join("n3", "a", 4));
    awaited(&mut world, 4600);
    world.must(&set("n3", Some(""), None, None));
    world.must(&set("n3", Some("10.0.0.3:7022"), None, None));
    assert!(world.refused(&join("n3", "a", 3)).starts_with("join-token-unknown: "));
}

#[test]
fn the_agent_of_a_node_that_was_removed_comes_back_by_hand_alone() {
    let mut world = World::new();
    world.must(&Command::NodeRemove { name: label("n1") });
    let awaited = |world: &mut World, name, hash| {
        let set = settings(Some("10.0.0.5:7022"), None, None);
        world.must(&Command::NodeAdd { name: label(name), set });
        world.must(&token(name, hash, 4600));
    };
    awaited(&mut world, "n1", "a");
    let told = world.refused(&join("n1", "a", 1));
    assert!(told.starts_with("agent-removed: ") && told.contains("keyway node set n1"), "{told}");
    // Also under another name, and as one that nothing was pinned on.
    awaited(&mut world, "n5", "b");
    assert!(world.refused(&join("n5", "b", 1)).starts_with("agent-removed: "));
    world.must(&join("n5", "b", 5));
    world.must(&set("n1", None, Some(key(1)), None));
    world.must(&set("n1", None, Some(String::new()), None));
    world.must(&token("n1", "c", 4600));
    world.must(&join("n1", "c", 1));
}

#[test]
fn of_removed_agents_as_many_are_remembered_as_there_is_room_for() {
    let mut world = World::new();
    let removed: Vec<String> = (0..4096).map(|number| format!("SHA256:{number}")).collect();
    let registry = Registry { removed_agents: removed, ..Registry::default() };
    world.0.put(&Key::Registry, Some(Document::Registry(registry)), 9);
    for name in ["n1", "n2"] {
        world.must(&Command::NodeRemove { name: label(name) });
    }
    let removed = world.0.registry().removed_agents;
    assert_eq!((removed.len(), &*removed[0]), (4096, "SHA256:2"));
    assert_eq!(removed[4094..], [key(1), key(2)]);
}
