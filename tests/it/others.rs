//! Clients, servers and load balancers of other people, in the corners where their habits
//! differ from ours.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;

use crate::harness::sshd::Server;
use crate::harness::{
    Key, Output, Process, Scratch, Target, World, assert_same_file, peers, run, wait, write_noise,
};

fn one() -> crate::harness::world::Plan {
    World::usual_plan()
}

/// A connection's line comes when it has ended, which may be after its client.
#[track_caller]
fn logged(world: &World, part: &str) {
    wait::until(part, wait::SOON, || world.log().contains(part));
}

/// `tests/peers/large_packets.py`; `more`: how many megabytes to echo, or what to fetch where.
#[track_caller]
fn large_packets(library: &str, target: &Target, more: &[&str]) -> Option<Output> {
    let mut command = Command::new(peers::python("python")?);
    command
        .arg(peers::script("large_packets.py"))
        .args([library, &target.host, &target.port.to_string(), &target.login])
        .arg(target.key.path())
        .arg(target.host_key.public())
        .args(more);
    let output = run(&mut command).ok();
    assert_eq!(output.text(), "done", "{}", output.stderr);
    Some(output)
}

/// Trap 64: what may be announced must be carried, header and all.
#[test]
fn packets_of_256_kib_pass_both_ways() {
    let echoes = one().server(Server::AsyncSsh).start();
    let world = World::usual();
    let (source, fetched) = (world.path("source"), world.path("fetched"));
    write_noise(&source, 20_000_000, 21);
    let files = [source.display().to_string(), fetched.display().to_string()];
    for library in ["paramiko", "asyncssh"] {
        if large_packets(library, &echoes.target("alice", "s001"), &["4"]).is_none() {
            return;
        }
        large_packets(library, &world.target("alice", "s001"), &["0", &files[0], &files[1]]);
        assert_same_file(&source, &fetched);
    }
}

/// Trap 66: a check that hears nothing takes the door, and every login through the balancer
/// with it, for dead.
#[test]
fn a_load_balancers_health_check_finds_ssh_here_and_is_no_connection() {
    let Some(haproxy) = peers::program("haproxy", "haproxy") else { return };
    if World::is_passed_by() {
        return;
    }
    let world = one().edge("proxy_protocol_from = [\"127.0.0.0/8\"]").start();
    let door = world.target("alice", "s001");
    let (socket, port) = (world.path("haproxy.sock"), door.port + 7);
    let config = world.path("haproxy.cfg");
    let host = &door.host;
    let text = format!(
        "global\n stats socket {}\n\
         defaults\n mode tcp\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n\
         frontend ssh\n bind {host}:{port}\n default_backend doors\n\
         backend doors\n option tcp-check\n tcp-check expect string SSH-2.0-\n \
         server door {host}:{} send-proxy-v2 check inter 50ms rise 1 fall 1\n",
        socket.display(),
        door.port
    );
    fs::write(&config, text).expect("a configuration");
    let _balancer = Process::start(
        "haproxy",
        world.dir(),
        Command::new(haproxy).arg("-db").arg("-f").arg(&config),
    );
    let passes = || {
        let mut said = String::new();
        if let Ok(mut stats) = UnixStream::connect(&socket) {
            let _gone = stats.write_all(b"show stat\n");
            let _gone = stats.read_to_string(&mut said);
        }
        let mut doors = said.lines().filter(|line| line.starts_with("doors,door,"));
        doors.any(|line| line.split(',').any(|field| field == "L7OK"))
    };
    wait::until("the check passes", wait::SOON, passes);
    // As the text form has it.
    let mut check = TcpStream::connect((&**host, door.port)).expect("a connection");
    check.write_all(b"PROXY UNKNOWN\r\n").expect("sent");
    let mut said = String::new();
    check.read_to_string(&mut said).expect("a line and an end");
    assert_eq!(said, format!("{}\r\n", keyway::ssh::ident::TO_CLIENTS));
    let through = Target { port, ..door.clone() };
    let balanced = through
        .ssh(&["-p", &port.to_string(), "-o", "StrictHostKeyChecking=no"], "echo $KEYWAY_VM");
    assert_eq!(balanced.ok().text(), "blue");
    assert!(passes());
    logged(&world, "connection ended");
    assert_eq!(world.log().matches("connection ended").count(), 1, "{}", world.log());
}

/// Trap 70: `login_grace_s` is for machines. Whoever was told that the key may enter is typing.
#[test]
fn a_passphrase_may_take_longer_than_the_grace_time_and_who_offers_nothing_hears_why_it_ends() {
    if World::is_passed_by() {
        return;
    }
    let world = one().edge("login_grace_s = 1").start();
    let target = world.target("alice", "s001");
    let key = world.path("sealed");
    fs::copy(target.key.path(), &key).expect("a key");
    fs::copy(target.key.public_path(), Key::at(key.clone()).public_path()).expect("a key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("permissions");
    run(Command::new("ssh-keygen")
        .args(["-q", "-p", "-P", "", "-N", "slow fingers", "-f"])
        .arg(&key))
    .ok();
    // Asked for the passphrase, it waits until somebody who came later and said
    // nothing was shown out.
    let (asks, heard) = (world.path("ask"), world.path("heard"));
    let text = format!(
        "#!/bin/bash\nexec 3<>/dev/tcp/{}/{}\ncat <&3 >{}\necho slow fingers\n",
        target.host,
        target.port,
        heard.display()
    );
    fs::write(&asks, text).expect("a program");
    fs::set_permissions(&asks, fs::Permissions::from_mode(0o700)).expect("permissions");
    let output = run(target
        .openssh("ssh")
        .env("SSH_ASKPASS", &asks)
        .env("SSH_ASKPASS_REQUIRE", "force")
        .args(["-o", "BatchMode=no", "-o", "IdentityFile=none", "-i"])
        .arg(&key)
        .args(["door", "echo $KEYWAY_VM"]))
    .ok();
    assert_eq!(output.text(), "blue");
    let heard = String::from_utf8_lossy(&fs::read(&heard).expect("what it heard")).into_owned();
    let why = "no key that may enter was offered within 1 second (login_grace_s)";
    assert!(heard.starts_with("SSH-2.0-OpenSSH_9.9 ") && heard.contains(why), "{heard:?}");
}

/// Trap 72.
#[test]
fn what_a_vm_says_before_it_hangs_up_reaches_its_user_and_the_log() {
    if World::is_passed_by() {
        return;
    }
    let world = one().sshd("PerSourceMaxStartups 1").start();
    // Held until the next one hears it.
    let mut held = Vec::new();
    loop {
        let mut socket = TcpStream::connect(world.vms[0].address).expect("a connection");
        let mut first = [0];
        socket.read_exact(&mut first).expect("a version or a refusal");
        if first == *b"E" {
            break;
        }
        held.push(socket);
        assert!(held.len() < 10, "PerSourceMaxStartups does not count");
    }
    let output = world.target("alice", "s001").ssh(&[], "true").ends(255);
    assert!(output.stderr.contains("It said: \"Exceeded MaxStartups\"."), "{}", output.stderr);
    logged(&world, "\"cause\":\"turned_away\"");
    logged(&world, "\"detail\":\"Exceeded MaxStartups\"");
}

/// Trap 71.
#[test]
fn a_vm_that_wants_a_password_too_is_not_mistaken_for_a_wrong_login_name() {
    if World::is_passed_by() {
        return;
    }
    let world =
        one().sshd("PasswordAuthentication yes\nAuthenticationMethods publickey,password").start();
    let target = world.target("alice", "s001");
    for _ in 0..2 {
        let said = target.ssh(&[], "true").ends(255).stderr;
        assert!(said.contains("it asks for password too"), "{said}");
        assert!(!said.contains("another login name"), "{said}");
    }
    logged(&world, "\"cause\":\"second_factor\"");
    logged(&world, "\"cause\":\"login_remembered\"");
    let said = target.ssh(&["-l", "nobody-of-that-name"], "true").ends(255).stderr;
    assert!(said.contains("another login name"), "{said}");
    logged(&world, "a certificate for vm:blue from 127.0.0.1");
}

/// Traps 68 and 69.
#[test]
fn a_vms_long_banner_shuts_nobody_out_and_is_read_on_a_terminal_and_in_refusals() {
    let scratch = Scratch::new();
    let banner = scratch.path().join("banner");
    let text =
        format!("Back at noon.\n{}", "The machine room is closed for inventory.\n".repeat(1500));
    fs::write(&banner, text).expect("a banner");
    if World::is_passed_by() {
        return;
    }
    let world = one().sshd(&format!("Banner {}", banner.display())).start();
    let target = world.target("alice", "s001");
    let output = target.ssh(&["-o", "LogLevel=ERROR", "-tt"], "echo $KEYWAY_VM");
    let said = output.stderr.clone() + &output.text();
    output.ok();
    assert!(said.contains("Back at noon.\r\nThe machine room"), "{said}");
    assert!(said.contains("blue") && said.len() < 5_000, "{said}");
    let output = target.ssh(&[], "echo $KEYWAY_VM").ok();
    assert_eq!((output.text().as_str(), output.stderr.as_str()), ("blue", ""));
    let said = target.ssh(&["-l", "nobody-of-that-name"], "true").ends(255).stderr;
    assert!(said.starts_with("Back at noon.") && said.contains("keyway: blue does not"), "{said}");
}

/// Trap 65: behind a port forward a VM sees another address than the one that we dial from.
#[test]
fn a_vm_is_told_from_which_address_the_edge_comes_as_that_vm_sees_it() {
    if World::is_passed_by() {
        return;
    }
    let world = World::plan()
        .address("s001")
        .address("s002")
        .user("alice")
        .vm_with("blue", "alice", "s001", "source_address = \"127.0.0.0/8,10.9.9.9\"")
        .vm("red", "alice", "s002")
        .vm_leg("source_address = [\"10.9.9.9\"]")
        .start();
    assert_eq!(world.target("alice", "s001").ssh(&[], "echo $KEYWAY_VM").ok().text(), "blue");
    world.target("alice", "s002").ssh(&[], "true").ends(255);
    logged(&world, "a certificate for vm:red from 10.9.9.9/32");
    assert!(
        world.vms[1].log().contains("Refused by certificate options"),
        "{}",
        world.vms[1].log()
    );
}

/// Old and FIPS clients and servers have these methods alone; RFC 5656 hashes the
/// second with SHA-384.
#[test]
fn nist_curves_serve_both_legs_first_exchange_and_re_key_unless_switched_off() {
    for method in ["ecdh-sha2-nistp256", "ecdh-sha2-nistp384"] {
        let world = one().sshd(&format!("KexAlgorithms {method}")).start();
        let target = world.target("alice", "s001");
        let only = format!("KexAlgorithms={method}");
        let options = ["-o", &only, "-o", "RekeyLimit=1M"];
        let output = target.ssh(&options, "head -c 5000000 /dev/zero").ok();
        assert_eq!(output.stdout.len(), 5_000_000, "{method}");
    }
    if World::is_passed_by() {
        return;
    }
    let world = one().edge("legacy_kex = false").start();
    let target = world.target("alice", "s001");
    let refused = target.ssh(&["-o", "KexAlgorithms=ecdh-sha2-nistp256"], "true").ends(255);
    assert!(refused.stderr.contains("no matching key exchange method"), "{}", refused.stderr);
    assert_eq!(target.ssh(&[], "echo $KEYWAY_VM").ok().text(), "blue");
}
