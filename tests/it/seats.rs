//! Seats for sessions: nobody keeps everybody else out, and who waits for a VM is seen,
//! heard and let go.

use std::io::Read;
use std::net::TcpListener;

use crate::audit::scrape;
use crate::harness::{Process, World, wait};
use crate::operations::keyway;

/// Two users with a VM each behind one address, with one seat for each of them.
fn narrow() -> World {
    World::usual_plan()
        .user("bob")
        .vm("green", "bob", "s001")
        .edge("sessions_max = 4\nsessions_max_per_user = 1")
        .start()
}

/// Something that takes connections in `vm`'s place and says nothing.
fn mute(world: &mut World, vm: &str) -> TcpListener {
    let vm = world.vm(vm);
    vm.down();
    TcpListener::bind(vm.address).expect("the VM's address")
}

fn sessions(world: &World) -> Vec<serde_json::Value> {
    let text = keyway(world, &["session", "list", "--output", "json"]).ok().stdout;
    let all: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    all.as_array().expect("a list").clone()
}

/// `ssh` of alice that waits for her VM; the client, and her session as the list has it.
fn waiting(world: &World) -> (Process, String) {
    let target = world.target("alice", "s001");
    let mut ssh = target.openssh("ssh");
    let client = Process::start("alice-waits", world.dir(), ssh.args(["door", "true"]));
    let mut id = None;
    wait::until("she is in the list", wait::SOON, || {
        let all = sessions(world);
        id = all.first().and_then(|session| session["id"].as_str()).map(str::to_owned);
        id.is_some()
    });
    let all = sessions(world);
    assert_eq!((all[0]["state"].as_str(), all[0]["vm"].as_str()), (Some("dialling"), Some("blue")));
    (client, id.expect("just seen"))
}

fn has(world: &World, line: &str) -> bool {
    scrape(world).lines().any(|one| one == line)
}

#[test]
fn a_client_that_gives_up_on_a_vm_frees_its_seat_at_once() {
    if World::is_passed_by() {
        return;
    }
    let mut world = narrow();
    let silence = mute(&mut world, "blue");
    let (client, _) = waiting(&world);
    assert!(has(&world, "keyway_sessions_dialling 1") && has(&world, "keyway_seats_taken 1"));
    assert!(has(&world, "keyway_seats_max 4"));
    // Her seat is hers, and so is what it costs.
    let refused = world.target("alice", "s001").ssh(&[], "true").ends(255);
    assert!(refused.stderr.contains("you have 1 session open"), "{}", refused.stderr);
    world.target("bob", "s001").ssh(&[], "true").ok();
    drop(client);
    // Far sooner than the login's deadline.
    wait::until("the seat is free", wait::SOON, || has(&world, "keyway_seats_taken 0"));
    assert!(sessions(&world).is_empty() && has(&world, "keyway_sessions_dialling 0"));
    // The VM's side was let go too.
    let (mut dialled, _) = silence.accept().expect("it was dialled");
    let mut heard = Vec::new();
    dialled.read_to_end(&mut heard).expect("our version line, and the end");
    assert!(heard.starts_with(b"SSH-2.0-"), "{}", String::from_utf8_lossy(&heard));
    drop(silence);
    world.vm("blue").up();
    world.target("alice", "s001").ssh(&[], "true").ok();
}

#[test]
fn whoever_waits_for_a_vm_is_ended_by_name_and_reads_why() {
    if World::is_passed_by() {
        return;
    }
    let mut world = narrow();
    let _silence = mute(&mut world, "blue");
    let (mut client, id) = waiting(&world);
    keyway(&world, &["session", "kill", &id]).ok();
    wait::until("the client ends", wait::SOON, || client.has_ended());
    assert!(client.log().contains("an operator ended this session with blue"), "{}", client.log());
    wait::until("the seat is free", wait::SOON, || has(&world, "keyway_seats_taken 0"));
    keyway(&world, &["session", "kill", &id]).ends(1);
    let ends = "keyway_connections_ended_total{side=\"operator\",stage=\"vm_exchange\",cause=\"killed\"} 1";
    assert!(has(&world, ends), "{}", scrape(&world));
}

#[test]
fn what_a_client_says_while_its_vm_is_slow_reaches_the_vm() {
    if World::is_passed_by() {
        return;
    }
    let mut world = narrow();
    let silence = mute(&mut world, "blue");
    let target = world.target("alice", "s001");
    let mut ssh = target.openssh("ssh");
    // A forward asks for a reply before the session does, and signs of life are wanted meanwhile.
    let forward = ["-R", "127.0.0.1:0:127.0.0.1:9", "-o", "ServerAliveInterval=1"];
    let client = Process::start(
        "alice-waits",
        world.dir(),
        ssh.args(forward).args(["-o", "ServerAliveCountMax=1", "door", "echo $KEYWAY_VM"]),
    );
    let (dialled, _) = silence.accept().expect("it is dialled");
    // Her login's own exchange goes on with the VM that comes up now: this connection is
    // passed on to it.
    drop(silence);
    world.vm("blue").up();
    let passed = passed_on(&dialled, world.vm("blue").address);
    wait::until("she is served", wait::SOON, || client.log().contains("blue"));
    drop((client, passed));
}

/// Carries bytes between a connection that was accepted and one that is made now.
fn passed_on(
    near: &std::net::TcpStream,
    to: std::net::SocketAddr,
) -> [std::thread::JoinHandle<()>; 2] {
    // One that says nothing is what was there before: a program started meanwhile can hold it
    // a moment longer.
    let speaks = |far: &std::net::TcpStream| {
        let patience = far.set_read_timeout(Some(std::time::Duration::from_millis(100)));
        patience.is_ok() && far.peek(&mut [0]).is_ok_and(|count| count == 1)
    };
    let mut far = None;
    wait::until("the VM speaks", wait::SOON, || {
        far = std::net::TcpStream::connect(to).ok().filter(speaks);
        far.is_some()
    });
    let far = far.expect("it was there");
    far.set_read_timeout(None).expect("as before");
    let one_way = |from: &std::net::TcpStream, to: &std::net::TcpStream| {
        let (mut from, mut to) =
            (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"));
        std::thread::spawn(move || {
            let _ends = std::io::copy(&mut from, &mut to);
            let _gone = to.shutdown(std::net::Shutdown::Write);
        })
    };
    [one_way(near, &far), one_way(&far, near)]
}
