//! An agent as its operator meets it: it starts from two files, knows edges by their keys, reads
//! its files again, and drains.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::world::page_at;
use crate::harness::{Output, Process, World, process, run, wait};

/// An agent beside a front door whose edge it knows.
struct Agent {
    world: World,
    process: Process,
}

impl Agent {
    #[track_caller]
    fn start() -> Self {
        let world = World::usual();
        fs::write(world.path("agent.toml"), agent_toml(&world, &line(&world, "keyway.toml")))
            .expect("agent.toml");
        let process = spawn(&world, "agent");
        Self { world, process }
    }

    /// Replaces something in `agent.toml`, sends SIGHUP and waits until the log tells
    /// what came of it.
    #[track_caller]
    fn reload(&self, text: &str) -> String {
        fs::write(self.world.path("agent.toml"), text).expect("agent.toml");
        let before = self.process.log().len();
        process::signal(self.process.id(), Signal::SIGHUP);
        let since = || self.process.log()[before..].to_owned();
        wait::until("the reload", wait::SOON, || since().contains("reloaded"));
        since()
    }

    /// What a stock client is told that logs in as an edge with the key `identity`.
    #[track_caller]
    fn link(&self, identity: &str) -> Output {
        let at = door(&self.world);
        let known = self.world.path("agent_known_hosts");
        let key = line(&self.world, "agent.toml");
        fs::write(&known, format!("[{}]:{} {key}\n", at.ip(), at.port())).expect("known_hosts");
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]);
        ssh.args(["-o", "StrictHostKeyChecking=yes"]);
        ssh.arg("-o").arg(format!("UserKnownHostsFile={}", known.display()));
        ssh.arg("-i").arg(self.world.path(identity));
        ssh.args(["-p", &at.port().to_string()]);
        run(ssh.arg(format!("keyway-edge@{}", at.ip())).arg("true")).ends(255)
    }

    /// How many edges were let in.
    fn links(&self) -> usize {
        self.process.log().matches("control link open").count()
    }
}

/// Where the agent listens.
fn door(world: &World) -> SocketAddr {
    world.spare(1)
}

fn metrics(world: &World) -> SocketAddr {
    world.spare(2)
}

fn agent_toml(world: &World, edge: &str) -> String {
    format!(
        "state_dir = \"{state}\"\nlisten = \"{listen}\"\nedge_networks = [\"127.0.0.0/8\"]\nedges = [\"{edge}\"]\n\
         host_keys = [\"{host_key}\"]\nreplica = \"fleet.toml\"\nshards = 1\nlog = \"json\"\n\
         [metrics]\nlisten = \"{metrics}\"\n",
        state = world.path("agent_state").display(),
        listen = door(world),
        host_key = world.key("edge_host_key").public_line(),
        metrics = metrics(world),
    )
}

/// What `keyway identity` prints for one of the files of `world`.
#[track_caller]
fn line(world: &World, config: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyway"));
    run(command.arg("identity").arg("--config").arg(world.path(config))).ok().text()
}

#[track_caller]
fn spawn(world: &World, name: &str) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyway"));
    command.arg("agent").arg("--config").arg(world.path("agent.toml"));
    let mut process = Process::start(name, world.dir(), &mut command);
    // Comes up behind the door.
    wait::until("the agent", wait::SOON, || process.has_ended() || process.log().contains("is up"));
    assert!(process.log().contains("is up"), "{}", process.log());
    process
}

#[test]
fn an_agent_lets_in_the_edges_that_it_knows_and_is_known_by_its_own_key() {
    if World::is_passed_by() {
        return;
    }
    let agent = Agent::start();
    let answer = page_at(metrics(&agent.world), "/healthz");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.trim_end().ends_with("ok"), "{answer}");
    assert!(page_at(metrics(&agent.world), "/metrics").contains("keyway_seats_taken 0\n"));
    // The edge's identity lets in, its host key and a user's key do not.
    for stranger in ["alice", "edge_host_key"] {
        let said = agent.link(stranger).stderr;
        assert!(said.contains("Permission denied"), "{said}");
    }
    assert_eq!(agent.links(), 0);
    let said = agent.link("state/identity").stderr;
    assert!(!said.contains("Permission denied"), "{said}");
    assert_eq!(agent.links(), 1, "{}", agent.process.log());
    let names = fs::read_dir(agent.world.path("agent_state")).expect("its state_dir").flatten();
    let names: Vec<PathBuf> = names.map(|entry| entry.file_name().into()).collect();
    assert!(names.contains(&"user_ca".into()) && names.contains(&"identity".into()), "{names:?}");
    assert!(!names.contains(&"ssh_host_ed25519_key".into()), "{names:?}");
}

#[test]
fn an_edge_that_is_named_no_more_is_let_in_no_more_whatever_else_is_wrong() {
    if World::is_passed_by() {
        return;
    }
    let agent = Agent::start();
    let edge = line(&agent.world, "keyway.toml");
    let sound = agent_toml(&agent.world, &edge);
    let log = agent.reload(&sound.replace("\"127.0.0.0/8\"", "\"127.0.0.0/8\", \"10.0.0.0/8\""));
    assert!(log.contains("edge_networks takes a restart"), "{log}");
    let fleet = agent.world.path("fleet.toml");
    let text = fs::read_to_string(&fleet).expect("the fleet");
    fs::write(&fleet, "[[vm]]\nname = \"_\"\n").expect("the fleet");
    let log = agent.reload(&sound);
    assert!(log.contains("not reloaded: replica: ") && log.contains("fleet.toml:1: "), "{log}");
    let users = |what: &str| page_at(metrics(&agent.world), "/metrics").contains(what);
    assert!(users("keyway_users 1\n"), "the map stays as it was");
    fs::write(&fleet, text + "[[user]]\nname = \"zoe\"\n").expect("the fleet");
    let log = agent.reload(&sound);
    assert!(
        log.contains("\"reloaded: revocations, edges and host keys, agent.toml, replica\""),
        "{log}"
    );
    assert!(users("keyway_users 2\n"));
    agent.link("state/identity");
    assert_eq!(agent.links(), 1);
    let alice = agent.world.key("alice").public_line();
    let log = agent.reload(&agent_toml(&agent.world, &alice).replace("shards = 1", "shards = -1"));
    assert!(log.contains("not reloaded: agent.toml: ") && log.contains("`shards`"), "{log}");
    for stranger in ["state/identity", "alice"] {
        let said = agent.link(stranger).stderr;
        assert!(said.contains("Permission denied"), "{stranger}: {said}");
    }
    agent.reload(&agent_toml(&agent.world, &alice));
    agent.link("alice");
    assert_eq!(agent.links(), 2);
}

#[test]
fn an_agent_drains_and_its_successor_listens_meanwhile() {
    if World::is_passed_by() {
        return;
    }
    let mut agent = Agent::start();
    process::signal(agent.process.id(), Signal::SIGTERM);
    let successor = spawn(&agent.world, "successor");
    wait::until("its end", wait::SOON, || agent.process.has_ended());
    assert!(agent.process.log().contains("\"drained\""), "{}", agent.process.log());
    assert!(TcpStream::connect(door(&agent.world)).is_ok());
    agent.process = successor;
    agent.link("state/identity");
    assert_eq!(agent.links(), 1);
    process::signal(agent.process.id(), Signal::SIGINT);
    wait::until("its end", wait::SOON, || agent.process.has_ended());
    assert!(agent.process.log().contains("\"ending now\""), "{}", agent.process.log());
}

#[test]
fn an_agent_has_no_state_directory_in_common_with_a_front_door() {
    if World::is_passed_by() {
        return;
    }
    let mut world = World::usual();
    world.end();
    let text = agent_toml(&world, &line(&world, "keyway.toml")).replace("agent_state", "state");
    fs::write(world.path("agent.toml"), text).expect("agent.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyway"));
    let said = run(command.arg("agent").arg("--config").arg(world.path("agent.toml"))).ends(1);
    assert!(said.stderr.contains("is the state_dir of a front door; fix: "), "{}", said.stderr);
}
