//! Every other client that people use, each with its own view of the protocol.

use std::path::Path;
use std::process::Command;

use crate::copying::{Client, MB, asyncssh, dropbear_of, putty_of};
use crate::harness::sshd::Server;
use crate::harness::{World, assert_same_file, peers, run, write_noise};

#[test]
fn paramiko_logs_in_and_copies() {
    Client::Paramiko.copies(&World::usual(), 10 * MB);
}

#[test]
fn libssh2_1_11_logs_in_and_copies() {
    Client::Libssh2.copies(&World::usual(), 10 * MB);
}

#[test]
fn node_ssh2_logs_in_and_copies() {
    Client::NodeSsh2.copies(&World::usual(), 10 * MB);
}

#[test]
fn libssh_logs_in_and_copies() {
    Client::Libssh.copies(&World::usual(), 10 * MB);
}

#[test]
fn asyncssh_logs_in_and_copies() {
    Client::Asyncssh.copies(&World::usual(), 10 * MB);
}

#[test]
fn signals_and_breaks_reach_the_command_and_its_death_reaches_the_client() {
    let Some(_) = peers::python("python") else { return };
    let plan = World::usual_plan();
    let world = plan.server(Server::AsyncSsh).start();
    asyncssh(&world.target("alice", "s001"), "signals", &[]);
}

#[test]
fn asyncssh_gets_a_terminal_and_the_signal_that_ended_a_command() {
    let world = World::usual();
    asyncssh(&world.target("alice", "s001"), "terminal", &[]);
}

#[test]
fn a_hundred_and_fifty_channels_at_once_do_not_mix() {
    let world = World::usual();
    asyncssh(&world.target("alice", "s001"), "channels", &[&"50"]);
}

#[test]
fn a_key_that_was_only_offered_never_decides_where_a_session_goes() {
    // Alice's key is offered and accepted, the signature is bob's: CVE-2024-45337.
    let world = World::usual_plan().user("bob").vm("green", "bob", "s001").start();
    let target = world.target("alice", "s001");
    let bob = world.key("bob");
    let Some(claimed) = asyncssh(&target, "liar", &[&"claim", &bob.path()]) else { return };
    if World::is_direct() {
        assert_eq!(claimed.text(), "reached blue", "this sshd knows both keys");
    } else {
        assert!(
            ["reached green", "refused"].contains(&claimed.text().as_str()),
            "{}",
            claimed.text()
        );
    }
    let forged = asyncssh(&target, "liar", &[&"forge", &bob.path()]).expect("it ran before");
    assert_eq!(forged.text(), "refused");
}

#[test]
fn dropbear_logs_in_and_copies() {
    Client::Dropbear.copies(&World::usual(), 10 * MB);
}

#[test]
fn putty_logs_in_and_copies() {
    let world = World::usual();
    Client::Putty.copies(&world, 100 * MB);
    let target = world.target("alice", "s001");
    let Some(putty) = putty_of(&world, &target) else { return };
    let source = world.path("source");
    write_noise(&source, 10 * MB, 9);
    for protocol in ["-scp", "-sftp"] {
        let (there, back) =
            (world.path(&format!("there{protocol}")), world.path(&format!("back{protocol}")));
        let remote = format!("{}:{}", target.host, there.display());
        run(putty("pscp").args([protocol, "-q"]).arg(&source).arg(&remote)).ok();
        run(putty("pscp").args([protocol, "-q"]).arg(&remote).arg(&back)).ok();
        assert_same_file(&source, &there);
        assert_same_file(&source, &back);
    }
}

#[test]
fn people_whose_key_opens_nothing_read_why_and_are_asked_for_nothing() {
    if World::is_passed_by() {
        return;
    }
    let world = World::plan()
        .address("s001")
        .address("s002")
        .user("alice")
        .user("bob")
        .vm("blue", "alice", "s001")
        .vm("green", "bob", "s002")
        .start();
    let target = world.target("bob", "s001");
    let (Some(dropbear), Some(putty)) = (dropbear_of(&world, &target), putty_of(&world, &target))
    else {
        return;
    };
    let dropbear = run(&mut dropbear("true"));
    // No command: PuTTY shows no banner of any server to somebody who does not sit before it.
    let putty = run(putty("plink").arg(&target.host));
    for output in [dropbear, putty] {
        assert_ne!(output.status, 0);
        let said = output.text() + &output.stderr;
        println!("{said}");
        assert_eq!(said.matches("no VM answers here for the keys").count(), 1, "{said}");
        for asked in ["assword:", "prompt", "INFO_REQUEST"] {
            assert!(!said.contains(asked), "{said}");
        }
    }
}

#[test]
fn curl_fetches_and_stores_over_sftp_with_plain_hmac() {
    let Some(curl) = peers::program("curl", "curl") else { return };
    let world = World::usual();
    let target = world.target("alice", "s001");
    let (source, there, back) = (world.path("source"), world.path("there"), world.path("back"));
    write_noise(&source, 10 * MB, 10);
    let pin = target.host_key.fingerprint().replace("SHA256:", "");
    let client = || {
        let mut command = Command::new(&curl);
        command
            .args(["-sS", "--max-time", "120", "--hostpubsha256", &pin])
            .arg("--user")
            .arg(format!("{}:", target.login))
            .arg("--key")
            .arg(target.key.path())
            .arg("--pubkey")
            .arg(target.key.public_path());
        command
    };
    let url = |path: &Path| format!("sftp://{}:{}{}", target.host, target.port, path.display());
    run(client().arg("-T").arg(&source).arg(url(&there))).ok();
    assert_same_file(&source, &there);
    run(client().arg("-o").arg(&back).arg(url(&there))).ok();
    assert_same_file(&source, &back);
}
