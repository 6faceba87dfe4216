//! Crowds: connections that do nothing must not keep people out, and must leave nothing behind.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::harness::client::{self, Client};
use crate::harness::{Target, World, full, wait};

const GRACE: Duration = Duration::from_secs(8);

/// Resident memory of a process, in bytes.
fn rss_bytes(id: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{id}/smaps_rollup")).expect("a live process");
    let figure = text.lines().find_map(|line| line.strip_prefix("Rss:")?.split_whitespace().next());
    figure.expect("a figure").parse::<u64>().expect("a number") * 1024
}

/// Whether the other side has closed; bytes that it sent before are read and forgotten.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut block = [0; 4096];
    loop {
        match stream.read(&mut block) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(why) => return why.kind() != ErrorKind::WouldBlock,
        }
    }
}

fn silent_connections_keep_nobody_waiting(count: usize) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit");
    let mut world =
        World::usual_plan().edge(&format!("login_grace_s = {}", GRACE.as_secs())).start();
    let target = world.target("alice", "s001");
    target.ssh(&[], "true").ok();
    let edge = world.edge().id();
    let before = rss_bytes(edge);
    let first = crowd_comes_and_goes(&target, edge, count);
    let second = crowd_comes_and_goes(&target, edge, count);
    println!("resident bytes: {before} before, {first} after one crowd, {second} after two");
    // What an allocator keeps for the next crowd is bounded; what a leak keeps grows with each.
    assert!(first < before + (32 << 20), "{before} -> {first} bytes stay after the crowd");
    assert!(second < first + (4 << 20), "{first} -> {second} bytes: each crowd leaves some");
}

/// One crowd; the edge's resident memory once all of it is gone.
fn crowd_comes_and_goes(target: &Target, edge: u32, count: usize) -> u64 {
    let mut crowd: Vec<TcpStream> = (0..count)
        .map(|_| {
            let stream = TcpStream::connect((target.host.as_str(), target.port)).expect("accepted");
            stream.set_nonblocking(true).expect("a setting");
            stream
        })
        .collect();
    // Each has its banner, or was turned away: the crowd stands inside, not in the kernel's queue.
    let filled = Instant::now();
    wait::until("every connection hears something", wait::SOON, || {
        !crowd.iter().any(|stream| {
            stream.peek(&mut [0]).is_err_and(|why| why.kind() == ErrorKind::WouldBlock)
        })
    });
    let settled = filled.elapsed();
    let asked = Instant::now();
    target.ssh(&[], "true").ok();
    let login = asked.elapsed();
    assert!(
        login < Duration::from_secs(3),
        "a login took {login:?} beside {count} silent connections"
    );
    crowd.retain_mut(|stream| !is_closed(stream));
    println!(
        "{count} connections, settled in {settled:?}, {} held at the login, which took {login:?}",
        crowd.len()
    );
    wait::until("all silent connections are closed", GRACE + wait::SOON, || {
        crowd.retain_mut(|stream| !is_closed(stream));
        crowd.is_empty()
    });
    target.ssh(&[], "true").ok();
    rss_bytes(edge)
}

/// How many descriptors a process has.
fn descriptors(id: u32) -> usize {
    std::fs::read_dir(format!("/proc/{id}/fd")).expect("a live process").count()
}

/// At the agent's port: such that say nothing, such that name a data connection nobody announced,
/// and such that begin a control link.
#[test]
fn half_open_connections_at_an_agents_port_keep_no_session_out_and_leave_nothing() {
    if World::is_passed_by() {
        return;
    }
    let count = if full("10,000 half-open connections at an agent") { 10_000 } else { 1_000 };
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit");
    let mut world = World::usual_plan().handed().start();
    let target = world.target("alice", "s001");
    let mut lives = Client::logs_in(&target);
    client::exec(&mut lives, "cat");
    target.ssh(&[], "true").ok();
    let (at, agent) = (world.agent_at(), world.agent().id());
    let before = descriptors(agent);
    let begins: [&[u8]; 3] = [b"", &[0; 16], b"SSH-2.0-edge\r\n"];
    let crowd: Vec<TcpStream> = (0..count)
        .map(|number| {
            let mut stream = TcpStream::connect(at).expect("accepted");
            // Whoever was turned away already hears nothing more.
            let _gone = stream.write_all(begins[number % begins.len()]);
            stream
        })
        .collect();
    wait::until("the crowd stands inside", wait::SOON, || descriptors(agent) > before + 100);
    assert_eq!(target.ssh(&[], "echo $KEYWAY_VM").ok().text(), "blue");
    client::input(&mut lives, b"still here");
    client::end_of_input(&mut lives);
    assert_eq!(client::output(&mut lives), b"still here");
    drop((crowd, lives));
    wait::until("all are gone", wait::SOON, || descriptors(agent) <= before);
    target.ssh(&[], "true").ok();
}

/// How many ends of pipes a process has.
fn pipe_ends(id: u32) -> usize {
    let all = std::fs::read_dir(format!("/proc/{id}/fd")).expect("a live process").flatten();
    let targets = all.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("pipe:")).count()
}

/// What they do not read lies in the kernel, and in no pipe of the edge's. (Each of these
/// is an sshd: the pump's own test has thousands.)
#[test]
fn clients_that_do_not_read_what_their_vm_sends_hold_no_pipe_and_keep_nobody_waiting() {
    if World::is_passed_by() {
        return;
    }
    let count = if full("500 clients of VMs that do not read") { 500 } else { 30 };
    let mut world = World::usual_plan().handed().start();
    let target = world.target("alice", "s001");
    target.ssh(&[], "head -c 1000000 /dev/zero").ok();
    let (edge, agent) = (world.edge().id(), world.agent().id());
    let before = [edge, agent].map(descriptors);
    let pipes = pipe_ends(edge);
    let mut deaf: Vec<Client> = (0..count)
        .map(|_| {
            let mut client = Client::logs_in(&target);
            client.await_rekeyed();
            client::exec(&mut client, "yes");
            client
        })
        .collect();
    for client in &mut deaf {
        client.hear().expect("something comes");
    }
    let output = target.ssh(&[], "head -c 3000000 /dev/zero").ok();
    assert_eq!(output.stdout.len(), 3_000_000);
    assert!(pipe_ends(edge) <= pipes, "{} and {pipes} before", pipe_ends(edge));
    drop(deaf);
    wait::until("all are gone", wait::SOON, || {
        [edge, agent].iter().zip(before).all(|(id, before)| descriptors(*id) <= before)
    });
    target.ssh(&[], "true").ok();
}

#[test]
fn a_thousand_silent_connections_keep_nobody_waiting_and_leave_nothing() {
    if World::is_passed_by() {
        return;
    }
    silent_connections_keep_nobody_waiting(1_000);
}

#[test]
fn ten_thousand_silent_connections_keep_nobody_waiting_and_leave_nothing() {
    if World::is_direct() || !full("10,000 silent connections") {
        return;
    }
    silent_connections_keep_nobody_waiting(10_000);
}
