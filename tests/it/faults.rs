//! What goes wrong around a handoff: at every moment somebody dies, stands still, is torn off or
//! answers late, and whoever is left hears why, or goes on as if nothing had been.

use std::io::{Read as _, Write as _};
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::handoff::{asks, ends, last_line, run_to_end, stays};
use crate::harness::client::{self, Client};
use crate::harness::wire::Kind;
use crate::harness::{Key, Leashed, World, full, process, run, wait};
use crate::operations::{reload, replace};
use crate::signing::hup_agent;

/// Of the agent's node, for whoever wanted in.
const NOT_REACHABLE: &str = "blue is not reachable right now (its host does not take sessions)";

/// With a wire between edge and agent.
fn world() -> Option<World> {
    (!World::is_passed_by()).then(|| World::usual_plan().handed().wired().start())
}

#[track_caller]
fn assert_logged(world: &World, what: &str) {
    wait::until(what, wait::SOON, || last_line(&world.log()).contains(what));
}

/// Trap 31's sister: who is slow is not dead, and who is too slow is told so.
#[test]
fn an_agent_that_stands_still_is_waited_for_and_its_late_answer_is_nobodys() {
    let Some(mut world) = world() else { return };
    let target = world.target("alice", "s001");
    process::signal(world.agent().id(), Signal::SIGSTOP);
    let asking = asks(&world);
    process::signal(world.agent().id(), Signal::SIGCONT);
    assert_eq!(run_to_end(asking), "blue\n");
    assert_logged(&world, "\"carry\":\"splice\"");

    process::signal(world.agent().id(), Signal::SIGSTOP);
    let said = target.ssh(&[], "true").ends(255).stderr;
    assert!(said.contains(NOT_REACHABLE), "{said}");
    assert_logged(&world, "\"cause\":\"agent_unreachable\",\"detail\":\"no answer\"");
    process::signal(world.agent().id(), Signal::SIGCONT);
    assert_eq!(target.ssh(&[], "echo $KEYWAY_VM").ok().text(), "blue");
}

#[test]
fn an_agent_that_dies_while_it_is_asked_is_an_upstream_failure() {
    let Some(mut world) = world() else { return };
    process::signal(world.agent().id(), Signal::SIGSTOP);
    let asking = asks(&world);
    process::signal(world.agent().id(), Signal::SIGKILL);
    let said = run_to_end(asking);
    assert!(said.contains(NOT_REACHABLE), "{said}");
    assert_logged(&world, "\"cause\":\"agent_unreachable\"");
    // Another one, and all is well.
    world.start_agent("another");
    assert_eq!(world.target("alice", "s001").ssh(&[], "echo new").ok().text(), "new");
}

/// The edge holds the old send key until the agent's reply: so long there is a word to say.
#[test]
fn an_agent_that_dies_between_its_yes_and_the_switch_leaves_the_client_a_word() {
    let Some(mut world) = world() else { return };
    let mut client = Client::logs_in(&world.target("alice", "s001"));
    let is_ready = || world.vms[0].log().contains("Accepted publickey");
    wait::until("the agent logs in to the VM", wait::SOON, is_ready);
    process::signal(world.agent().id(), Signal::SIGKILL);
    assert_logged(&world, "\"side\":\"agent\",\"stage\":\"handoff\"");
    let why = loop {
        if let Err(why) = client.hear() {
            break why;
        }
    };
    assert!(why.contains("keyway: blue closed the connection"), "{why}");
}

#[test]
fn an_agent_that_dies_ends_its_sessions_and_the_next_one_takes_new_ones() {
    let Some(mut world) = world() else { return };
    let (mut ssh, _said) = stays(&world);
    process::signal(world.agent().id(), Signal::SIGKILL);
    ends(&mut ssh);
    assert_logged(&world, "\"stage\":\"session\"");
    let left = || world.vms[0].log().contains("Closing connection");
    wait::until("the VM's end", wait::SOON, left);
    world.start_agent("another");
    assert_eq!(world.target("alice", "s001").ssh(&[], "echo new").ok().text(), "new");
}

#[test]
fn a_session_whose_agent_stands_still_for_a_while_loses_nothing() {
    let Some(mut world) = world() else { return };
    let mut ssh = world.target("alice", "s001").openssh("ssh");
    let ssh = ssh.args(["door", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut ssh = Leashed::start(ssh);
    let (mut to, mut from) = (ssh.stdin.take().expect("piped"), ssh.stdout.take().expect("piped"));
    let block: Vec<u8> = (0..=250).cycle().take(100_000).collect();
    for number in 0..10_u8 {
        // Taken and given again somewhere in the middle.
        if number == 3 {
            process::signal(world.agent().id(), Signal::SIGSTOP);
        }
        to.write_all(&[number]).expect("the session lives");
        to.write_all(&block).expect("the session lives");
        if number == 6 {
            process::signal(world.agent().id(), Signal::SIGCONT);
        }
        if !(3..6).contains(&number) {
            let before = if number == 6 { 4 } else { 1 };
            let mut back = vec![0; before * (1 + block.len())];
            from.read_exact(&mut back).expect("the session lives");
            for (at, part) in back.chunks(1 + block.len()).enumerate() {
                let sent = usize::from(number) + 1 + at - before;
                assert!(usize::from(part[0]) == sent && part[1..] == block, "{sent}");
            }
        }
    }
    drop(to);
    assert!(ssh.wait().expect("ssh").success());
}

/// Sessions do not need the link; what needs it waits for it.
#[test]
fn sessions_live_on_without_their_control_link_and_their_key_exchanges_wait_for_the_next() {
    let Some(world) = world() else { return };
    let count = if full("1,000 sessions whose control link is cut") { 1_000 } else { 100 };
    let target = world.target("alice", "s001");
    let mut clients: Vec<Client> = (0..count)
        .map(|_| {
            let mut client = Client::logs_in(&target);
            client.await_rekeyed();
            client
        })
        .collect();
    let wire = world.inner.as_ref().expect("a wire");
    wire.let_pass(Kind::Link, false);
    assert_eq!(wire.tear(Kind::Link), 1);
    wait::until("the edge knows", wait::SOON, || world.log().contains("no control link"));
    // What they say passes as before.
    for client in &mut clients {
        client::exec(client, "echo $KEYWAY_VM");
        assert_eq!(client::output(client), b"blue\n");
        client.rekey();
    }
    wire.let_pass(Kind::Link, true);
    for client in &mut clients {
        client.await_rekeyed();
    }
    assert_eq!(wire.tear(Kind::Data), count);
    assert_eq!(world.log().matches("\"carry\":\"splice\"").count(), 0, "nobody had ended before");
}

/// The client is told by the agent, under keys that the edge does not have.
#[test]
fn a_vm_whose_sshd_dies_ends_its_sessions_and_the_agent_says_why_there_are_no_new_ones() {
    let Some(mut world) = world() else { return };
    let (mut ssh, _said) = stays(&world);
    world.vm("blue").down();
    ends(&mut ssh);
    let line = "\"side\":\"vm\",\"stage\":\"session\"";
    wait::until("the agent's line", wait::SOON, || last_line(&world.agent().log()).contains(line));
    let said = world.target("alice", "s001").ssh(&[], "true").ends(255).stderr;
    assert!(said.contains("blue is not reachable right now (connection refused)"), "{said}");
    let line = "\"cause\":\"dial_refused\"";
    wait::until("the agent's line", wait::SOON, || last_line(&world.agent().log()).contains(line));
    world.vm("blue").up();
    assert_eq!(world.target("alice", "s001").ssh(&[], "echo new").ok().text(), "new");
}

#[test]
fn a_data_connection_that_is_torn_ends_its_session_at_both_ends_and_no_other() {
    let Some(mut world) = world() else { return };
    let (mut ssh, _said) = stays(&world);
    let wire = world.inner.clone().expect("a wire");
    assert_eq!(wire.tear(Kind::Data), 1);
    ends(&mut ssh);
    assert_logged(&world, "\"stage\":\"session\"");
    let log = |world: &mut World| last_line(&world.agent().log()).contains("\"vm\":\"blue\"");
    wait::until("the agent's line", wait::SOON, || log(&mut world));
    let left = || world.vms[0].log().contains("Closing connection");
    wait::until("the VM's end", wait::SOON, left);
    assert_eq!(world.target("alice", "s001").ssh(&[], "echo new").ok().text(), "new");
}

/// What a client says under the old keys, while keys are exchanged, and under the new ones; and
/// the same if it begins an exchange of its own in the very moment.
#[test]
fn what_is_said_before_during_and_after_the_moment_arrives_once_and_in_order() {
    let Some(world) = world() else { return };
    let target = world.target("alice", "s001");
    for crosses in [false, true, true, false] {
        let mut client = Client::logs_in(&target);
        let line = |number: u32| format!("line {number} {}\n", "x".repeat(500));
        // The server's KEXINIT lies in the input and is not looked at.
        client::exec(&mut client, "cat; echo over");
        for number in 0..100 {
            client::input(&mut client, line(number).as_bytes());
            if crosses && number == 50 {
                client.rekey();
            }
        }
        // Whatever stands in the input is dealt with: the exchange is under way.
        client.await_rekeyed();
        for number in 100..200 {
            client::input(&mut client, line(number).as_bytes());
            if crosses && number == 150 {
                client.rekey();
            }
        }
        client::end_of_input(&mut client);
        let came = String::from_utf8(client::output(&mut client)).expect("text");
        let expected: String = (0..200).map(line).collect();
        assert_eq!(came, expected + "over\n");
    }
}

/// `ssh` asks for it by itself, as often as it can.
#[test]
fn a_session_that_is_given_up_while_the_agent_is_asked_leaves_nothing() {
    let Some(mut world) = world() else { return };
    process::signal(world.agent().id(), Signal::SIGSTOP);
    drop(asks(&world));
    assert_logged(&world, "\"side\":\"client\",\"stage\":\"handoff\"");
    process::signal(world.agent().id(), Signal::SIGCONT);
    let ended = || last_line(&world.agent().log()).contains("connection ended");
    wait::until("the agent's line", wait::SOON, ended);
    let target = world.target("alice", "s001");
    assert_eq!(run(target.openssh("ssh").args(["door", "echo new"])).ok().text(), "new");
}

/// A client that has been let in and has not answered the key exchange that hands it over, once the
/// agent has said yes and logs in to the VM.
fn in_the_middle(world: &mut World) -> Client {
    let client = Client::logs_in(&world.target("alice", "s001"));
    let said_yes = || world.agent_log().contains("the host key of a VM is pinned");
    wait::until("the agent's yes", wait::SOON, said_yes);
    client
}

/// Between its yes and the first signature.
#[test]
fn a_node_that_loses_trust_in_the_middle_of_a_handoff_gets_no_signature() {
    let Some(mut world) = world() else { return };
    let mut client = in_the_middle(&mut world);
    replace(&world.path("fleet.toml"), "trusted = true", "trusted = false");
    reload(&mut world);
    assert_logged(&world, "\"stage\":\"handoff\",\"cause\":\"agent_unreachable\"");
    let line = world.log();
    assert!(last_line(&line).contains("\"signatures\":0,"), "{line}");
    // The edge has the old keys still, and says why.
    let why = loop {
        if let Err(why) = client.hear() {
            break why;
        }
    };
    assert!(!why.is_empty());
    wait::until("the agent's line", wait::SOON, || !last_line(&world.agent_log()).is_empty());
    let line = world.agent_log();
    assert!(!last_line(&line).contains("\"cause\":\"killed\""), "{line}");
}

/// Both the one that has begun, with the key that its client was shown, and one that the agent is
/// asked about before it knows the new key.
#[test]
fn host_keys_that_are_rotated_under_handoffs_cost_none_of_them() {
    let Some(mut world) = world() else { return };
    let mut begun = in_the_middle(&mut world);
    let (first, second) = (Key::at(world.path("edge_host_key")), Key::ed25519(world.dir(), "next"));
    let path = |key: &Key| format!("\"{}\"", key.path().display());
    replace(&world.path("keyway.toml"), &path(&first), &path(&second));
    reload(&mut world);
    let target = world.target("alice", "s001");
    let asking = std::thread::spawn(move || {
        let mut client = Client::logs_in(&target);
        client::exec(&mut client, "echo $KEYWAY_VM");
        client::output(&mut client)
    });
    let asked = || world.page("/metrics").contains("keyway_sessions_dialling 2\n");
    wait::until("the agent is asked", wait::SOON, asked);
    replace(&world.path("agent.toml"), &first.public_line(), &second.public_line());
    hup_agent(&mut world);
    assert_eq!(asking.join().expect("it came in"), b"blue\n");
    client::exec(&mut begun, "echo $KEYWAY_VM");
    assert_eq!(client::output(&mut begun), b"blue\n");
}
