//! Sessions that an agent carries: the edge hands them over once the key is proved, and only
//! splices from then on.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, mem, thread};

use nix::sys::signal::Signal;

use crate::harness::{Key, Leashed, Process, World, process, wait};

pub(crate) fn world() -> Option<World> {
    (!World::is_passed_by()).then(|| World::usual_plan().handed().start())
}

/// A session that stays, once it stands, and the file with what `ssh` says of it.
pub(crate) fn stays(world: &World) -> (Leashed, PathBuf) {
    stays_at(world, "s001")
}

/// The same, at another address.
pub(crate) fn stays_at(world: &World, address: &str) -> (Leashed, PathBuf) {
    let (came, said) =
        (world.path(&format!("came-{address}")), world.path(&format!("said-{address}")));
    let file = |path| fs::File::create(path).expect("a file");
    let mut ssh = world.target("alice", address).openssh("ssh");
    ssh.arg("door").arg("echo in; sleep 600").stdin(Stdio::null());
    let ssh = Leashed::start(ssh.stdout(file(&came)).stderr(file(&said)));
    let stands = || fs::read_to_string(&came).is_ok_and(|text| text.contains("in"));
    wait::until("the session", wait::SOON, stands);
    (ssh, said)
}

/// Waits until it has ended.
#[track_caller]
pub(crate) fn ends(ssh: &mut Leashed) {
    wait::until("its end", wait::SOON, || ssh.try_wait().is_ok_and(|ended| ended.is_some()));
}

/// Has the fleet file name another key in the place of alice's, for whoever reads it next.
pub(crate) fn take_alices_key(world: &World) {
    let fleet = fs::read_to_string(world.path("fleet.toml")).expect("the fleet");
    let alice = world.key("alice").public_line();
    let other = Key::ed25519(world.dir(), "other").public_line();
    fs::write(world.path("fleet.toml"), fleet.replace(&alice, &other)).expect("the fleet");
}

/// Somebody who asks for the VM's name, once the edge has asked the agent.
pub(crate) fn asks(world: &World) -> Process {
    let mut ssh = world.target("alice", "s001").openssh("ssh");
    let ssh = ssh.args(["door", "echo $KEYWAY_VM"]);
    let asking = Process::start("asking", world.dir(), ssh);
    wait::until("the agent is asked", wait::SOON, || {
        world.page("/metrics").contains("keyway_sessions_dialling 1\n")
    });
    asking
}

/// What it says until its end.
pub(crate) fn run_to_end(mut asking: Process) -> String {
    wait::until("its end", wait::SOON, || asking.has_ended());
    asking.log()
}

/// The last line about a connection that ended, in the log of edge or agent.
pub(crate) fn last_line(log: &str) -> &str {
    log.lines().rfind(|line| line.contains("connection ended")).unwrap_or_default()
}

#[test]
fn a_session_is_handed_over_and_the_edge_splices_it() {
    let Some(mut world) = world() else { return };
    let target = world.target("alice", "s001");
    assert_eq!(target.ssh(&[], "echo \"$KEYWAY_VM\"").ok().text(), "blue");
    wait::until("its lines", wait::SOON, || {
        !last_line(&world.log()).is_empty() && !last_line(&world.agent().log()).is_empty()
    });
    let edge = world.log();
    let (edge, agent) = (last_line(&edge).to_owned(), last_line(&world.agent().log()).to_owned());
    assert!(edge.contains("\"carry\":\"splice\"") && edge.contains("\"user\":\"alice\""), "{edge}");
    assert!(edge.contains(&format!("\"endpoint\":\"{}\"", world.agent_at())), "{edge}");
    assert!(edge.contains("\"signatures\":1,"), "{edge}");
    assert!(agent.contains("\"carry\":\"relay\"") && agent.contains("\"vm\":\"blue\""), "{agent}");
    let request = |line: &str| {
        let at = line.find("\"request\":").expect("a request id");
        line[at..].split(',').next().expect("a field").to_owned()
    };
    assert_eq!(request(&edge), request(&agent), "one name for both ends");
    assert!(agent.contains("\"client\":\"127.0.0.1:"), "the client, not the edge: {agent}");
}

/// Only the agent has a credential that opens the VM: the edge's CA is none that it trusts.
#[test]
fn an_agent_that_is_away_is_an_upstream_failure_and_nothing_takes_its_place() {
    let Some(mut world) = world() else { return };
    let target = world.target("alice", "s001");
    assert_eq!(target.ssh(&[], "true").ok().text(), "");
    process::signal(world.agent().id(), Signal::SIGKILL);
    wait::until("its end", wait::SOON, || world.agent().has_ended());
    let said = target.ssh(&[], "true").ends(255).stderr;
    assert!(said.contains("blue is not reachable right now"), "{said}");
    let line = || last_line(&world.log()).contains("\"cause\":\"agent_unreachable\"");
    wait::until("the line", wait::SOON, line);
}

#[test]
fn an_agent_takes_nobody_whom_its_own_map_does_not_let_in() {
    let Some(mut world) = world() else { return };
    let target = world.target("alice", "s001");
    take_alices_key(&world);
    process::signal(world.agent().id(), Signal::SIGHUP);
    wait::until("the reload", wait::SOON, || world.agent().log().contains("reloaded"));
    let said = target.ssh(&[], "true").ends(255).stderr;
    assert!(said.contains("blue is not reachable right now"), "{said}");
    let refused = || last_line(&world.log()).contains("\"cause\":\"agent_refused\"");
    wait::until("the line", wait::SOON, refused);
    wait::until("the agent's line", wait::SOON, || {
        let agent = world.agent().log();
        agent.contains("not_registered") && agent.contains("handoff_refused")
    });
}

/// Has the agent read its files again, while somebody waits for it.
fn agent_rereads(world: &mut World) {
    let before = world.agent().log().matches("reloaded").count();
    process::signal(world.agent().id(), Signal::SIGHUP);
    let reread = || world.agent().log().matches("reloaded").count() > before;
    wait::until("the reload", wait::SOON, reread);
}

/// What is news to edges is news to agents a moment later: who comes in between is not sent away.
#[test]
fn an_agent_whose_map_is_behind_waits_for_it_and_then_decides_by_it() {
    let Some(mut world) = world() else { return };
    let fleet = fs::read_to_string(world.path("fleet.toml")).expect("the fleet");
    let endpoint = world.vms[0].address.to_string();
    let alice = world.key("alice").public_line();
    let other = Key::ed25519(world.dir(), "other").public_line();
    // Two lags: it knows the user's key not yet, and the VM at the place where it was before.
    for (now, before) in [(&alice, &other), (&endpoint, &world.spare(50).to_string())] {
        fs::write(world.path("fleet.toml"), fleet.replace(now, before)).expect("the fleet");
        agent_rereads(&mut world);
        fs::write(world.path("fleet.toml"), &fleet).expect("the fleet");
        let asking = asks(&world);
        agent_rereads(&mut world);
        assert_eq!(run_to_end(asking), "blue\n");
    }
    // One that stays behind goes by what it knows, and the log says that there is more.
    let before = fleet.replace(&endpoint, &world.spare(50).to_string());
    fs::write(world.path("fleet.toml"), before).expect("the fleet");
    agent_rereads(&mut world);
    let said = world.target("alice", "s001").ssh(&[], "true").ends(255).stderr;
    assert!(said.contains("blue is not reachable right now (connection refused)"), "{said}");
    let line = || last_line(&world.agent().log()).contains("\"cause\":\"dial_refused\"");
    wait::until("the agent's line", wait::SOON, line);
}

/// Re-keys that the client starts: the agent asks the edge to sign each of them.
#[test]
fn later_key_exchanges_are_signed_by_the_edge() {
    let Some(world) = world() else { return };
    let target = world.target("alice", "s001");
    let output = target.ssh(&["-v", "-o", "RekeyLimit=1M"], "head -c 12000000 /dev/zero").ok();
    assert_eq!(output.stdout.len(), 12_000_000);
    let rekeys = output.stderr.matches("SSH2_MSG_NEWKEYS received").count();
    assert!(rekeys > 5, "{rekeys}: {}", output.stderr);
}

#[test]
fn a_session_ends_at_once_when_its_right_is_taken_away_at_the_agent() {
    let Some(mut world) = world() else { return };
    let (mut ssh, said) = stays(&world);
    take_alices_key(&world);
    process::signal(world.agent().id(), Signal::SIGHUP);
    ends(&mut ssh);
    let said = fs::read_to_string(said).expect("what ssh said");
    assert!(said.contains("your access to blue was taken away"), "{said}");
}

/// What an operator takes away from a node is gone within a moment: its sessions,
/// and its signatures.
#[test]
fn a_node_that_is_trusted_no_more_loses_its_sessions_and_its_link() {
    let Some(mut world) = world() else { return };
    let (mut ssh, said) = stays(&world);
    let fleet = fs::read_to_string(world.path("fleet.toml")).expect("the fleet");
    let less = fleet.replace("trusted = true", "trusted = false");
    fs::write(world.path("fleet.toml"), less).expect("the fleet");
    process::signal(world.edge().id(), Signal::SIGHUP);
    ends(&mut ssh);
    drop(said);
    let line = || last_line(&world.log()).contains("\"cause\":\"agent_unreachable\"");
    wait::until("the line", wait::SOON, line);
    let closed = || world.log().contains("\"why\":\"trusted no more\"");
    wait::until("the link's end", wait::SOON, closed);
}

/// The same at the agent, of an edge.
#[test]
fn an_edge_that_an_agent_knows_no_more_loses_its_sessions_there() {
    let Some(mut world) = world() else { return };
    let (mut ssh, said) = stays(&world);
    let text = fs::read_to_string(world.path("agent.toml")).expect("agent.toml");
    let edge = world.identity("keyway.toml", &[]);
    let alice = world.key("alice").public_line();
    fs::write(world.path("agent.toml"), text.replace(&edge, &alice)).expect("agent.toml");
    process::signal(world.agent().id(), Signal::SIGHUP);
    ends(&mut ssh);
    drop(said);
}

/// The edge's death is its sessions' death: the agent leaves the VM at once.
#[test]
fn with_the_edge_its_sessions_end_at_the_agent() {
    let Some(mut world) = world() else { return };
    let (mut ssh, said) = stays(&world);
    process::signal(world.edge().id(), Signal::SIGKILL);
    ends(&mut ssh);
    wait::until("the agent's line", wait::SOON, || !last_line(&world.agent().log()).is_empty());
    drop(said);
}

/// Traps 54 and 55: the successor takes what comes, and the one that drains keeps what it has
/// and has it signed.
#[test]
fn an_agent_is_replaced_under_its_sessions_and_nobody_notices() {
    let Some(mut world) = world() else { return };
    let target = world.target("alice", "s001");
    let (came, mut ssh) = (world.path("bytes"), target.openssh("ssh"));
    ssh.args(["-o", "RekeyLimit=1M", "door"]);
    ssh.arg("echo in >&2; read go; head -c 5000000 /dev/zero").stdin(Stdio::piped());
    ssh.stdout(fs::File::create(&came).expect("a file"));
    ssh.stderr(fs::File::create(world.path("said")).expect("a file"));
    let mut ssh = Leashed::start(&mut ssh);
    let stands = || fs::read_to_string(world.path("said")).is_ok_and(|text| text.contains("in"));
    wait::until("the session", wait::SOON, stands);
    let before = world.replace_agent();
    for _ in 0..3 {
        assert_eq!(target.ssh(&[], "echo new").ok().text(), "new");
    }
    ssh.stdin.take().expect("a pipe").write_all(b"go\n").expect("a line");
    let ended = || ssh.try_wait().expect("ssh").is_some();
    wait::until("its end", wait::SOON, ended);
    assert_eq!(fs::metadata(&came).expect("what came").len(), 5_000_000);
    wait::until("its line", wait::SOON, || before.log().contains("connection ended"));
}

/// Has another agent take the place of the one there is, which waits for its turn beside it from
/// the start; returns the one that drains.
fn replace_agent_beside(world: &mut World) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyway"));
    command.arg("agent").arg("--config").arg(world.path("agent.toml"));
    let successor = Process::start("successor", world.dir(), &mut command);
    let waits = || successor.log().contains("waiting until it hands over");
    wait::until("the successor", wait::SOON, waits);
    process::signal(world.agent().id(), Signal::SIGTERM);
    let is_up = || successor.log().contains(" is up");
    wait::until("its turn", wait::SOON, is_up);
    let before = mem::replace(world.agent(), successor);
    let drains = || before.log().contains("draining");
    wait::until("the drain", wait::SOON, drains);
    before
}

/// The order that the documentation tells: whatever comes while one agent follows another is taken,
/// by the one or by the other.
#[test]
fn logins_go_on_while_an_agent_is_replaced() {
    let Some(mut world) = world() else { return };
    let target = world.target("alice", "s001");
    target.ssh(&[], "true").ok();
    let is_over = AtomicBool::new(false);
    let log_in = || {
        let mut logins = 0;
        while !is_over.load(Ordering::Relaxed) {
            target.ssh(&[], "true").ok();
            logins += 1;
        }
        logins
    };
    let logins: usize = thread::scope(|scope| {
        let all = [(); 3].map(|()| scope.spawn(log_in));
        let _before = replace_agent_beside(&mut world);
        for _ in 0..3 {
            target.ssh(&[], "true").ok();
        }
        is_over.store(true, Ordering::Relaxed);
        all.into_iter().map(|one| one.join().expect("each of them came in")).sum()
    });
    assert!(logins > 3, "{logins}");
}
