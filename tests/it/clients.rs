//! Every other client that people use, each with its own view of the protocol.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::sshd::Server;
use crate::harness::{
    Output, Target, World, assert_same_file, peers, run, run_with_input, write_noise,
};

const MB: u64 = 1_000_000;

/// Runs one of our peer programs: it checks an exit status itself and copies a file both ways.
#[track_caller]
fn peer_copies(command: &mut Command, with_sftp: bool, known_hosts: bool, len: u64) {
    let world = World::usual();
    let target = world.target("alice", "s001");
    let (source, uploaded, downloaded) =
        (world.path("source"), world.path("uploaded"), world.path("downloaded"));
    write_noise(&source, len, 5);
    let host_key = target.host_key.public();
    command
        .arg(&target.host)
        .arg(target.port.to_string())
        .arg(&target.login)
        .arg(target.key.path());
    if known_hosts {
        command.arg(&target.known_hosts);
    } else {
        command.arg(host_key);
    }
    let output = run(command.arg(&source).arg(&uploaded).arg(&downloaded)).ok();
    assert_eq!(output.text(), "done", "{}", output.stderr);
    assert_same_file(&source, &uploaded);
    assert_same_file(&source, &downloaded);
    if with_sftp {
        assert_same_file(&source, &world.path("uploaded.sftp"));
        assert_same_file(&source, &world.path("downloaded.sftp"));
    }
}

#[test]
fn paramiko_logs_in_and_copies() {
    let Some(python) = peers::python("python") else { return };
    peer_copies(Command::new(python).arg(peers::script("paramiko_peer.py")), true, false, 10 * MB);
}

#[test]
fn libssh2_1_11_logs_in_and_copies() {
    let Some(python) = peers::python("python") else { return };
    peer_copies(Command::new(python).arg(peers::script("ssh2_peer.py")), true, false, 10 * MB);
}

#[test]
fn node_ssh2_logs_in_and_copies() {
    let (Some(node), Some(modules)) = (peers::program("node", "node"), peers::node_modules())
    else {
        return;
    };
    let mut command = Command::new(node);
    command.arg(peers::script("node_peer.js")).env("NODE_PATH", modules);
    peer_copies(&mut command, true, false, 10 * MB);
}

#[test]
fn libssh_logs_in_and_copies() {
    let Some(_) = peers::program("libssh", "/usr/include/libssh/libssh.h") else { return };
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libssh_peer");
    run(Command::new("gcc")
        .args(["-O1", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&program)
        .arg(peers::script("libssh_peer.c"))
        .arg("-lssh"))
    .ok();
    peer_copies(&mut Command::new(program), false, true, 10 * MB);
}

/// asyncssh has several parts to play.
fn asyncssh(target: &Target, what: &str, more: &[&dyn AsRef<OsStr>]) -> Option<Output> {
    let mut command = Command::new(peers::python("python")?);
    command
        .arg(peers::script("asyncssh_peer.py"))
        .arg(what)
        .arg(&target.host)
        .arg(target.port.to_string())
        .arg(&target.login)
        .arg(target.key.path())
        .arg(target.host_key.public())
        .args(more);
    Some(run(&mut command).ok())
}

#[test]
fn asyncssh_logs_in_and_copies() {
    let world = World::usual();
    let target = world.target("alice", "s001");
    let (source, uploaded, downloaded) =
        (world.path("source"), world.path("uploaded"), world.path("downloaded"));
    write_noise(&source, 10 * MB, 6);
    if asyncssh(&target, "basic", &[&source, &uploaded, &downloaded]).is_none() {
        return;
    }
    for copy in ["uploaded", "downloaded", "uploaded.sftp", "downloaded.sftp"] {
        assert_same_file(&source, &world.path(copy));
    }
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
    let (Some(dbclient), Some(convert)) =
        (peers::program("dropbear", "dbclient"), peers::program("dropbear", "dropbearconvert"))
    else {
        return;
    };
    let world = World::usual();
    let target = world.target("alice", "s001");
    let key = world.path("dropbear_key");
    run(Command::new(convert).args(["openssh", "dropbear"]).arg(target.key.path()).arg(&key)).ok();
    let home = world.path("home");
    fs::create_dir_all(home.join(".ssh")).expect("a home");
    fs::copy(&target.known_hosts, home.join(".ssh/known_hosts")).expect("known_hosts");
    let client = |command: &str| {
        let mut client = Command::new(&dbclient);
        client.env("HOME", &home).arg("-i").arg(&key).args([
            "-p",
            &target.port.to_string(),
            "-l",
            &target.login,
            &target.host,
            command,
        ]);
        client
    };
    let output = run(&mut client("echo $KEYWAY_VM; exit 7")).ends(7);
    assert_eq!(output.text(), "blue");
    let (source, uploaded) = (world.path("source"), world.path("uploaded"));
    write_noise(&source, 10 * MB, 7);
    run_with_input(&mut client(&format!("cat > {}", uploaded.display())), &source).ok();
    assert_same_file(&source, &uploaded);
    let output = run(&mut client(&format!("cat {}", source.display()))).ok();
    fs::write(world.path("downloaded"), output.stdout).expect("a file");
    assert_same_file(&source, &world.path("downloaded"));
}

#[test]
fn putty_logs_in_and_copies() {
    let (Some(plink), Some(pscp), Some(puttygen)) = (
        peers::program("putty", "plink"),
        peers::program("putty", "pscp"),
        peers::program("putty", "puttygen"),
    ) else {
        return;
    };
    let world = World::usual();
    let target = world.target("alice", "s001");
    let key = world.path("key.ppk");
    run(Command::new(puttygen).arg(target.key.path()).arg("-o").arg(&key)).ok();
    let fingerprint = target.host_key.fingerprint();
    let putty = |program: &Path| {
        let mut command = Command::new(program);
        command
            .env("HOME", world.dir())
            .args(["-batch", "-noagent", "-P", &target.port.to_string(), "-l", &target.login])
            .args(["-hostkey", &fingerprint, "-i"])
            .arg(&key);
        command
    };
    let output = run(putty(&plink).args([&target.host, "echo $KEYWAY_VM; exit 7"])).ends(7);
    assert_eq!(output.text(), "blue");
    let (source, there, back) = (world.path("source"), world.path("there"), world.path("back"));
    write_noise(&source, 100 * MB, 8);
    run_with_input(
        putty(&plink).args([&target.host, &format!("cat > {}", there.display())]),
        &source,
    )
    .ok();
    assert_same_file(&source, &there);
    let output = run(putty(&plink).args([&target.host, &format!("cat {}", source.display())])).ok();
    fs::write(&back, output.stdout).expect("a file");
    assert_same_file(&source, &back);

    write_noise(&source, 10 * MB, 9);
    for protocol in ["-scp", "-sftp"] {
        let (there, back) =
            (world.path(&format!("there{protocol}")), world.path(&format!("back{protocol}")));
        let remote = format!("{}:{}", target.host, there.display());
        run(putty(&pscp).args([protocol, "-q"]).arg(&source).arg(&remote)).ok();
        run(putty(&pscp).args([protocol, "-q"]).arg(&remote).arg(&back)).ok();
        assert_same_file(&source, &there);
        assert_same_file(&source, &back);
    }
}

#[test]
fn people_whose_key_opens_nothing_read_why_and_are_asked_for_nothing() {
    let (Some(dbclient), Some(convert)) =
        (peers::program("dropbear", "dbclient"), peers::program("dropbear", "dropbearconvert"))
    else {
        return;
    };
    let (Some(plink), Some(puttygen)) =
        (peers::program("putty", "plink"), peers::program("putty", "puttygen"))
    else {
        return;
    };
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
    let port = target.port.to_string();

    let key = world.path("dropbear_key");
    run(Command::new(convert).args(["openssh", "dropbear"]).arg(target.key.path()).arg(&key)).ok();
    let home = world.path("home");
    fs::create_dir_all(home.join(".ssh")).expect("a home");
    fs::copy(&target.known_hosts, home.join(".ssh/known_hosts")).expect("known_hosts");
    let dropbear = run(Command::new(&dbclient).env("HOME", &home).arg("-i").arg(&key).args([
        "-p",
        &port,
        "-l",
        &target.login,
        &target.host,
        "true",
    ]));

    let key = world.path("key.ppk");
    run(Command::new(puttygen).arg(target.key.path()).arg("-o").arg(&key)).ok();
    let putty = run(Command::new(&plink)
        .env("HOME", world.dir())
        .args(["-batch", "-noagent", "-P", &port, "-l", &target.login])
        .args(["-hostkey", &target.host_key.fingerprint(), "-i"])
        .arg(&key)
        // No command: PuTTY shows no banner of any server to somebody who does not sit before it.
        .arg(&target.host));

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
