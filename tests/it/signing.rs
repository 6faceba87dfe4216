//! Later key exchanges of sessions that an agent carries: an edge signs for them, and the session
//! waits for one that does.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use keyway::config::{AgentFiles, load_agent};
use keyway::edge::first_use::{FirstUse, Shown};
use keyway::edge::handoff::{Agent, Part, Trusted};
use keyway::edge::local_address::Destination;
use keyway::edge::proxy_header::Senders;
use keyway::edge::relay::{ClientAlive, PreferGcm};
use keyway::edge::seats::Most;
use keyway::edge::settings::{Live, Principal, Settings, VmCredential};
use keyway::edge::shared::Shared;
use keyway::edge::{Edge, Start, listen};
use keyway::host;
use keyway::metrics::{Inventory, Registry};
use keyway::route::{Snapshot, SourceAddress, Table, Vm};
use keyway::ssh::entropy::SystemEntropy;
use keyway::ssh::host_key::HostKey;
use keyway::ssh::private_key::PrivateKey;
use keyway::ssh::publickey::PublicKey;
use keyway::ssh::transport::{Algorithms, RekeyLimits, ServerConfig};
use keyway::ssh::userauth::Policy;
use keyway::state::State;
use nix::sys::signal::Signal;

use crate::harness::wire::{Kind, Passing, To, Wire};
use crate::harness::{
    Key, Leashed, Process, Target, World, assert_same_file, process, run_with_input, wait,
    write_noise,
};
use crate::operations::{reload, replace};

/// A session that says as many bytes as it is asked for.
struct Talk {
    ssh: Leashed,
    out: PathBuf,
    said: PathBuf,
    total: u64,
}

impl Talk {
    #[track_caller]
    fn start(world: &World, target: &Target, rekey_limit: &str) -> Self {
        let (out, said) = (world.path("talk-out"), world.path("talk-said"));
        let file = |path| fs::File::create(path).expect("a file");
        let limit = format!("RekeyLimit={rekey_limit}");
        let mut ssh = target.openssh("ssh");
        ssh.args(["-v", "-o", &limit, "door"]);
        ssh.arg("echo begun >&2; while read count; do head -c $count /dev/zero; done");
        let ssh = ssh.stdin(Stdio::piped()).stdout(file(&out)).stderr(file(&said));
        let talk = Self { ssh: Leashed::start(ssh), out, said, total: 0 };
        wait::until("the session", wait::SOON, || talk.said().contains("begun"));
        talk
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.said).unwrap_or_default()).into_owned()
    }

    fn ask(&mut self, count: u64) {
        self.total += count;
        let stdin = self.ssh.stdin.as_mut().expect("a pipe");
        stdin.write_all(format!("{count}\n").as_bytes()).expect("a line");
    }

    fn has_come(&self) -> bool {
        fs::metadata(&self.out).expect("what came").len() == self.total
    }

    #[track_caller]
    fn comes(&self) {
        wait::until("all that was asked for", wait::SOON, || self.has_come());
    }

    fn rekeys(&self) -> usize {
        self.said().matches("SSH2_MSG_NEWKEYS received").count()
    }

    #[track_caller]
    fn ends(&mut self) {
        crate::handoff::ends(&mut self.ssh);
    }
}

/// Key exchanges of a session that stands: its first and the handoff's.
const AT_START: usize = 2;

const SIGNED: &str = "\"signed for an agent\"";

/// Alice's blue and red, each behind an address of its own, and all on a node.
fn two_addresses() -> World {
    let plan = World::plan().address("s001").address("s002").user("alice");
    plan.vm("blue", "alice", "s001").vm("red", "alice", "s002").handed().start()
}

/// Ends the control links there are, and lets none come. Data connections go on.
pub(crate) fn cut_links(wire: &Wire) {
    wire.let_pass(Kind::Link, false);
    wire.tear(Kind::Link);
}

/// Has the front door reach the agent through a wire.
pub(crate) fn wired(world: &mut World) -> Wire {
    let at = world.spare(41);
    let wire = Wire::lay(at, To::Agent(world.agent_at()), Passing::Whole);
    replace(&world.path("fleet.toml"), &world.agent_at().to_string(), &at.to_string());
    reload(world);
    wire
}

#[track_caller]
pub(crate) fn hup_agent(world: &mut World) {
    let before = world.agent().log().len();
    process::signal(world.agent().id(), Signal::SIGHUP);
    wait::until("the reload", wait::SOON, || world.agent().log()[before..].contains("reloaded"));
}

/// A front door with the same host keys, at `s002` alone; the one there is keeps `s001`.
fn second_edge(world: &mut World) -> Process {
    beside(world, |world, second| {
        let first = world.identity("keyway.toml", &[]);
        replace(&world.path("agent.toml"), &first, &format!("{first}\", \"{second}"));
        hup_agent(world);
    })
}

/// The same; `known` makes its identity known to the agent, or not.
pub(crate) fn beside(world: &mut World, known: impl FnOnce(&mut World, &str)) -> Process {
    let fleet = fs::read_to_string(world.path("fleet.toml")).expect("the fleet");
    fs::write(world.path("fleet2.toml"), fleet).expect("a fleet");
    let text = fs::read_to_string(world.path("keyway.toml")).expect("keyway.toml");
    let [one, two] = ["s001", "s002"].map(|name| {
        let target = world.target("alice", name);
        format!("\"{}:{}\"", target.host, target.port)
    });
    let both = format!("{one}, {two}");
    let [metrics, api] = [42, 43].map(|number| world.spare(number).to_string());
    let state = |name| format!("state_dir = \"{}\"", world.path(name).display());
    let theirs = text.replace(&both, &two).replace(&state("state"), &state("state2"));
    let theirs = theirs.replace(&world.metrics().to_string(), &metrics);
    let theirs = theirs.replace(&world.api().to_string(), &api);
    fs::write(world.path("keyway2.toml"), theirs).expect("keyway2.toml");
    replace(&world.path("keyway.toml"), &both, &one);
    world.restart();
    let second = world.identity("keyway2.toml", &[]);
    known(world, &second);
    let mut process = serve(world, "second", "keyway2.toml", "fleet2.toml");
    wait::listens(&mut process, world.spare(42));
    process
}

fn serve(world: &World, name: &str, config: &str, fleet: &str) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyway"));
    command.args(["serve", "--config"]).arg(world.path(config));
    Process::start(name, world.dir(), command.arg("--fleet").arg(world.path(fleet)))
}

/// The first edge's process splices on while its link is cut.
#[test]
fn another_edge_with_the_same_host_keys_signs_for_a_session_whose_own_edge_has_no_link() {
    if World::is_passed_by() {
        return;
    }
    let mut world = two_addresses();
    let second = second_edge(&mut world);
    let wire = wired(&mut world);
    let [blue, red] = ["s001", "s002"].map(|address| world.target("alice", address));
    let mut talk = Talk::start(&world, &blue, "1M");
    talk.ask(3_000_000);
    talk.comes();
    cut_links(&wire);
    wait::until("the link's end", wait::SOON, || world.log().contains("\"no control link\""));
    let signed = world.log().matches(SIGNED).count();
    talk.ask(5_000_000);
    assert_eq!(red.ssh(&[], "echo \"$KEYWAY_VM\"").ok().text(), "red");
    talk.comes();
    wait::until("its lines", wait::SOON, || second.log().contains(SIGNED));
    assert_eq!(world.log().matches(SIGNED).count(), signed);

    // Its own signs again once it can.
    let links = world.log().matches("\"control link open\"").count();
    wire.let_pass(Kind::Link, true);
    let opens = || world.log().matches("\"control link open\"").count() > links;
    wait::until("a link, by itself", wait::SOON, opens);
    let before = second.log().matches(SIGNED).count();
    talk.ask(5_000_000);
    talk.comes();
    wait::until("its lines", wait::SOON, || world.log().matches(SIGNED).count() > signed);
    assert_eq!(second.log().matches(SIGNED).count(), before);
}

#[test]
fn without_an_edge_a_key_exchange_waits_and_its_link_opens_itself_again() {
    if World::is_passed_by() {
        return;
    }
    let mut world = World::usual_plan().handed().start();
    let wire = wired(&mut world);
    let mut talk = Talk::start(&world, &world.target("alice", "s001"), "1M");
    cut_links(&wire);
    wait::until("the link's end", wait::SOON, || world.log().contains("\"no control link\""));
    talk.ask(5_000_000);
    let exchanges = || talk.said().matches("SSH2_MSG_KEXINIT sent").count();
    wait::until("a key exchange", wait::SOON, || exchanges() > AT_START);
    let troubles = || world.log().matches("\"no control link\"").count();
    wait::until("a link is tried again and again", wait::SOON, || troubles() > 3);
    assert!(!talk.has_come() && talk.rekeys() == AT_START, "{}", talk.said());
    wire.let_pass(Kind::Link, true);
    talk.comes();
    assert!(talk.rekeys() > AT_START, "{}", talk.said());
}

/// Both are the same edge to the agent; either signs for what the one that drains has.
#[test]
fn a_front_door_is_replaced_and_its_sessions_are_signed_for() {
    if World::is_passed_by() {
        return;
    }
    let mut world = World::usual_plan().handed().start();
    let target = world.target("alice", "s001");
    let mut talk = Talk::start(&world, &target, "1M");
    process::signal(world.edge().id(), Signal::SIGTERM);
    let next = serve(&world, "successor", "keyway.toml", "fleet.toml");
    wait::until("the successor is up", wait::SOON, || next.log().contains(" is up"));
    assert_eq!(target.ssh(&[], "echo $KEYWAY_VM").ok().text(), "blue");
    for _ in 0..4 {
        talk.ask(3_000_000);
        talk.comes();
    }
    assert!(talk.rekeys() > AT_START, "{}", talk.said());
    let signed = || world.log().contains(SIGNED) || next.log().contains(SIGNED);
    wait::until("its lines", wait::SOON, signed);
}

/// Waits until a session's questions are over the rate: from then on some wait at the edge.
fn over_the_rate(world: &World) -> Talk {
    let mut talk = Talk::start(world, &world.target("alice", "s001"), "64K");
    talk.ask(500_000_000);
    wait::until("its burst", wait::SOON, || world.log().matches(SIGNED).count() > 33);
    talk
}

/// Nothing is signed any more once the link is cut, though somebody asks.
#[test]
fn a_node_that_is_removed_or_trusted_no_more_is_signed_for_no_more() {
    if World::is_passed_by() {
        return;
    }
    for removed in [false, true] {
        let mut world = World::usual_plan().handed().start();
        let mut talk = over_the_rate(&world);
        let fleet = fs::read_to_string(world.path("fleet.toml")).expect("the fleet");
        let less = if removed {
            let (start, end) =
                (fleet.find("[[node]]").expect("a node"), fleet.find("[[vm]]").expect("a VM"));
            (fleet[..start].to_owned() + &fleet[end..]).replace("node = \"n1\"\n", "")
        } else {
            fleet.replace("trusted = true", "trusted = false")
        };
        fs::write(world.path("fleet.toml"), less).expect("the fleet");
        process::signal(world.edge().id(), Signal::SIGHUP);
        let closed = || world.log().contains("\"why\":\"trusted no more\"");
        wait::until("the link's end", wait::SOON, closed);
        talk.ends();
        wait::until("the line", wait::SOON, || world.log().contains("\"connection ended\""));
        let log = world.log();
        let (_, after) = log.split_once("\"why\":\"trusted no more\"").expect("the link's end");
        assert!(!after.contains(SIGNED), "{after}");
        let signatures = log.matches(SIGNED).count() + 1;
        assert!(log.contains(&format!("\"signatures\":{signatures},")), "{log}");
    }
}

/// The agent asks it nothing more, and hears nothing that it says.
#[test]
fn an_edge_that_is_removed_at_an_agent_loses_its_link_at_once() {
    if World::is_passed_by() {
        return;
    }
    let mut world = World::usual_plan().handed().start();
    let mut talk = over_the_rate(&world);
    let (edge, alice) = (world.identity("keyway.toml", &[]), world.key("alice").public_line());
    replace(&world.path("agent.toml"), &edge, &alice);
    hup_agent(&mut world);
    let closed = || world.agent().log().contains("\"detail\":\"trusted no more\"");
    wait::until("the link's end", wait::SOON, closed);
    talk.ends();
}

#[test]
fn a_host_key_that_was_replaced_signs_for_the_sessions_that_it_began() {
    if World::is_passed_by() {
        return;
    }
    let mut world = World::usual_plan().handed().start();
    let mut talk = Talk::start(&world, &world.target("alice", "s001"), "1M");
    let (first, second) = (Key::at(world.path("edge_host_key")), Key::ed25519(world.dir(), "next"));
    let path = |key: &Key| format!("\"{}\"", key.path().display());
    replace(&world.path("keyway.toml"), &path(&first), &path(&second));
    reload(&mut world);
    replace(&world.path("agent.toml"), &first.public_line(), &second.public_line());
    hup_agent(&mut world);
    talk.ask(5_000_000);
    talk.comes();
    assert!(talk.rekeys() > AT_START, "{}", talk.said());
    let target = world.target("alice", "s001");
    let line = format!("[{}]:{} {}\n", target.host, target.port, second.public());
    fs::write(&target.known_hosts, line).expect("known_hosts");
    assert_eq!(target.ssh(&[], "echo $KEYWAY_VM").ok().text(), "blue");
}

/// The VMs of a test are who they say.
struct AllPinned;

impl FirstUse for AllPinned {
    fn shown(&self, _: &Vm, _: &PublicKey) -> Shown {
        Shown::Pinned
    }
}

/// Has an agent in this process take the place of the world's, which starts key
/// exchanges by `limits`.
fn agent_here(world: &mut World, limits: RekeyLimits) -> Edge {
    let at: SocketAddr = world.agent_at();
    let config = world.path("agent.toml");
    let loaded = load_agent(&AgentFiles { config, fleet: None }).expect("agent.toml");
    let identity = State::open(&world.path("agent_state")).expect("a state");
    let identity = identity.identity(&mut SystemEntropy::default()).expect("an identity");
    process::signal(world.agent().id(), Signal::SIGKILL);
    wait::until("the agent's end", wait::SOON, || world.agent().has_ended());
    let settings = Settings {
        login_grace: Duration::from_secs(30),
        senders: Senders::new(Vec::new()),
        destination: Destination::Socket,
        seats: Most { sessions: 8, per_user: 8, per_vm: 8 },
        dial_timeout: Duration::from_secs(10),
        networks: vec!["127.0.0.0/8".parse().expect("a network")],
        prefer_gcm: PreferGcm::Bulk,
        client_alive: ClientAlive { interval: Duration::ZERO, count_max: 0 },
        zone: None,
    };
    let key = |name: &str| {
        let text = fs::read_to_string(world.path(name)).expect("a key");
        PrivateKey::from_openssh(&text).expect("a key").0
    };
    let host_key = HostKey { key: identity, certificate: None };
    let server = Arc::new(ServerConfig::new(vec![host_key], Algorithms::default(), limits));
    let live = Live {
        server: Arc::clone(&server),
        policy: Arc::new(Policy { attempts_max: 6, ..Policy::default() }),
        credential: VmCredential::Authority {
            ca: Arc::new(key("operator_ca")),
            principal: Principal::Vm,
        },
        source_address: SourceAddress::Own,
    };
    let table = Table::new();
    table.apply(
        Snapshot::new(loaded.fleet.expect("a fleet file").desired.contents()).expect("sound"),
    );
    let trusted = Trusted {
        edges: loaded.config.edges.into_iter().collect(),
        host_keys: loaded.config.host_keys,
    };
    let agent = Agent::new(loaded.config.edge_networks, server, trusted);
    let shared = Shared::new(settings, live, table, Arc::new(AllPinned));
    let cpus = host::cpus().expect("CPUs")[..1].to_vec();
    let start = Start {
        doors: listen::reserve(&[at], &cpus, false).expect("the agent's address"),
        beside: 0,
        cpus,
        half_open_max: NonZeroU32::new(64).expect("not 0"),
        shared: Arc::new(shared.playing(Part::Agent(Box::new(agent)))),
    };
    Edge::start(start, &Registry::new(0, Inventory::default)).expect("an agent")
}

/// By itself, and at about the same bytes as the client does.
#[test]
fn key_exchanges_that_the_agent_starts_lose_nothing_and_cross_with_the_clients() {
    if World::is_passed_by() {
        return;
    }
    let mut world = World::usual_plan().handed().start();
    // The link's keys are old whenever a signature is asked for.
    let limits = RekeyLimits { bytes: 1 << 20, age_ms: 500, ..RekeyLimits::default() };
    let agent = agent_here(&mut world, limits);
    let target = world.target("alice", "s001");
    let (sent, came) = (world.path("noise"), world.path("came"));
    write_noise(&sent, 8_000_000, 11);
    for limit in ["default none", "1M", "700K"] {
        let mut ssh = target.openssh("ssh");
        ssh.args(["-v", "-o", &format!("RekeyLimit={limit}"), "door", "cat"]);
        let output = run_with_input(&mut ssh, &sent).ok();
        fs::write(&came, &output.stdout).expect("a file");
        assert_same_file(&sent, &came);
        let rekeys = output.stderr.matches("SSH2_MSG_NEWKEYS received").count();
        assert!(rekeys > 6, "{limit}: {rekeys}: {}", output.stderr);
    }
    let links = world.log().matches("control link open").count();
    assert_eq!(links, 1, "it was never broken: {}", world.log());
    drop(agent);
}
