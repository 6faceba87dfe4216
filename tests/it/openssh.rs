//! OpenSSH through the front door: all that people do with it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use crate::harness::keys::Agent;
use crate::harness::{
    Key, Output, Process, Target, World, assert_echoes, assert_same_file, echo_server, full, peers,
    run, run_into, run_with_input, wait, write_noise,
};

const MB: u64 = 1_000_000;

/// What Keyway offers (design.md); each that this OpenSSH knows is tried.
const CIPHERS: &[&str] = &[
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
    "chacha20-poly1305@openssh.com",
];
const EXCHANGES: &[&str] =
    &["mlkem768x25519-sha256", "curve25519-sha256", "curve25519-sha256@libssh.org"];
const MACS: &[&str] = &[
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
];

/// Sends a file to the VM and fetches it again; both copies must be the same.
#[track_caller]
pub(crate) fn both_ways(world: &World, target: &Target, options: &[&str], len: u64) {
    let (source, uploaded, downloaded) =
        (world.path("source"), world.path("uploaded"), world.path("downloaded"));
    write_noise(&source, len, len);
    let up = format!("cat > {}", uploaded.display());
    run_with_input(target.openssh("ssh").args(options).arg("door").arg(up), &source).ok();
    assert_same_file(&source, &uploaded);
    let mut down = target.openssh("ssh");
    down.args(options).arg("door").arg(format!("cat {}", source.display()));
    run_into(&mut down, &downloaded).ok();
    assert_same_file(&source, &downloaded);
}

/// The names of `ssh -Q what` that Keyway offers too.
fn known(target: &Target, what: &str, ours: &[&'static str]) -> Vec<&'static str> {
    let listed = run(target.openssh("ssh").args(["-Q", what])).ok().text();
    let mut both: Vec<_> =
        ours.iter().copied().filter(|name| listed.lines().any(|l| l == *name)).collect();
    both.dedup();
    assert!(!both.is_empty(), "ssh -Q {what} lists none of {ours:?}");
    both
}

#[test]
fn a_command_ends_with_its_own_status_and_keeps_its_streams_apart() {
    let world = World::usual();
    let target = world.target("alice", "s001");
    let output = target.ssh(&[], "echo out; echo err >&2; echo $KEYWAY_VM; exit 42").ends(42);
    assert_eq!(output.text(), "out\nblue");
    assert_eq!(output.stderr.trim_end(), "err");
}

#[test]
fn a_hundred_megabytes_arrive_unchanged_both_ways() {
    let world = World::usual();
    let target = world.target("alice", "s001");
    both_ways(&world, &target, &["-c", "aes128-gcm@openssh.com"], 100 * MB);
    both_ways(&world, &target, &["-c", "chacha20-poly1305@openssh.com"], 100 * MB);
}

#[test]
fn five_gibibytes_arrive_unchanged_both_ways() {
    if !full("5 GiB both ways") {
        return;
    }
    // Four legs of a gibibyte and more: past OpenSSH's own re-key limit and 2^32
    // bytes in one session.
    let world = World::usual();
    both_ways(&world, &world.target("alice", "s001"), &[], 5 << 30);
}

#[test]
fn every_cipher_that_both_know_carries_data() {
    let world = World::usual();
    let target = world.target("alice", "s001");
    for cipher in known(&target, "cipher", CIPHERS) {
        println!("{cipher}");
        both_ways(&world, &target, &["-c", cipher], 3 * MB);
    }
}

#[test]
fn every_key_exchange_that_both_know_works() {
    let world = World::usual();
    let target = world.target("alice", "s001");
    for exchange in known(&target, "kex", EXCHANGES) {
        println!("{exchange}");
        target.ssh(&["-o", &format!("KexAlgorithms={exchange}")], "true").ok();
    }
}

#[test]
fn every_mac_that_both_know_carries_data() {
    let world = World::usual();
    let target = world.target("alice", "s001");
    for mac in known(&target, "mac", MACS) {
        println!("{mac}");
        both_ways(&world, &target, &["-c", "aes128-ctr", "-m", mac], 3 * MB);
    }
}

#[test]
fn nothing_weaker_is_offered() {
    if World::is_passed_by() {
        return;
    }
    let world = World::usual();
    let target = world.target("alice", "s001");
    for options in [
        "Ciphers=aes256-cbc",
        "Ciphers=3des-cbc",
        "KexAlgorithms=diffie-hellman-group14-sha256",
        "KexAlgorithms=diffie-hellman-group14-sha1",
        "KexAlgorithms=ecdh-sha2-nistp521",
        "HostKeyAlgorithms=ssh-rsa",
    ] {
        let output = target.ssh(&["-o", options], "true").ends(255);
        assert!(output.stderr.contains("no matching"), "{options}: {}", output.stderr);
    }
    let output = target.ssh(&["-c", "aes128-ctr", "-m", "hmac-sha1"], "true").ends(255);
    assert!(output.stderr.contains("no matching MAC"), "{}", output.stderr);
}

#[test]
fn plain_hmac_goes_when_legacy_macs_is_false() {
    if World::is_passed_by() {
        return;
    }
    let world = World::usual_plan().edge("legacy_macs = false").start();
    let target = world.target("alice", "s001");
    target.ssh(&["-c", "aes128-ctr", "-m", "hmac-sha2-256"], "true").ends(255);
    target.ssh(&["-c", "aes128-ctr", "-m", "hmac-sha2-256-etm@openssh.com"], "true").ok();
}

#[test]
fn compression_asked_for_is_declined_and_everything_works() {
    let world = World::usual();
    let target = world.target("alice", "s001");
    both_ways(&world, &target, &["-C"], 3 * MB);
}

#[test]
fn a_client_that_rekeys_every_megabyte_keeps_its_data() {
    let world = World::usual();
    let target = world.target("alice", "s001");
    both_ways(&world, &target, &["-o", "RekeyLimit=1M"], 20 * MB);
}

#[test]
fn a_vm_that_rekeys_every_megabyte_keeps_its_data() {
    let world = World::usual_plan().sshd("RekeyLimit 1M").start();
    let target = world.target("alice", "s001");
    both_ways(&world, &target, &[], 20 * MB);
    both_ways(&world, &target, &["-o", "RekeyLimit=1M"], 20 * MB);
}

#[test]
fn scp_copies_both_ways_in_its_old_and_its_new_protocol() {
    let world = World::usual();
    let target = world.target("alice", "s001");
    let source = world.path("source");
    write_noise(&source, 10 * MB, 1);
    for (name, protocol) in [("old", &["-O"][..]), ("new", &[][..])] {
        let (there, back) =
            (world.path(&format!("there-{name}")), world.path(&format!("back-{name}")));
        let remote = format!("door:{}", there.display());
        run(target.openssh("scp").args(protocol).args(["-p", "-q"]).arg(&source).arg(&remote)).ok();
        run(target.openssh("scp").args(protocol).args(["-p", "-q"]).arg(&remote).arg(&back)).ok();
        assert_same_file(&source, &there);
        assert_same_file(&source, &back);
    }
}

#[test]
fn scp_of_a_missing_file_says_so() {
    let world = World::usual();
    let target = world.target("alice", "s001");
    let output = run(target.openssh("scp").arg("door:/nowhere/at/all").arg(world.path("back")));
    assert_ne!(output.status, 0);
    assert!(output.stderr.contains("No such file"), "{}", output.stderr);
}

#[test]
fn sftp_puts_lists_and_gets() {
    let world = World::usual();
    let target = world.target("alice", "s001");
    let (source, there, back) = (world.path("source"), world.path("there"), world.path("back"));
    write_noise(&source, 10 * MB, 2);
    let batch = world.path("batch");
    let text = format!(
        "put {} {there}\nls -l {there}\nget {there} {}\nrename {there} {there}.moved\n",
        source.display(),
        back.display(),
        there = there.display()
    );
    fs::write(&batch, text).expect("a batch");
    let output = run(target.openssh("sftp").arg("-b").arg(&batch).arg("door")).ok();
    assert!(output.text().contains("10000000"), "{}", output.text());
    assert_same_file(&source, &back);
    assert_same_file(&source, Path::new(&format!("{}.moved", there.display())));
}

#[test]
fn rsync_copies_a_tree_and_then_only_what_changed() {
    let Some(rsync) = peers::program("rsync", "rsync") else { return };
    let world = World::usual();
    let target = world.target("alice", "s001");
    let (tree, there) = (world.path("tree"), world.path("there"));
    fs::create_dir_all(tree.join("deep/er")).expect("a tree");
    for at in 0..50 {
        write_noise(&tree.join(format!("deep/er/{at}")), 20_000 + at, at);
    }
    let shell = format!("ssh -F {}", target.config.display());
    let copy = || -> Output {
        run(Command::new(&rsync)
            .args(["-a", "--stats", "-e", &shell])
            .arg(format!("{}/", tree.display()))
            .arg(format!("door:{}/", there.display())))
        .ok()
    };
    copy();
    for at in 0..50 {
        let name = format!("deep/er/{at}");
        assert_same_file(&tree.join(&name), &there.join(&name));
    }
    let again = copy().text();
    assert!(again.contains("regular files transferred: 0"), "{again}");
}

#[test]
fn git_pushes_and_clones() {
    let Some(git) = peers::program("git", "git") else { return };
    let world = World::usual();
    let target = world.target("alice", "s001");
    let (bare, work, clone) = (world.path("bare.git"), world.path("work"), world.path("clone"));
    let git = |dir: &Path, arguments: &[&str]| {
        run(Command::new(&git)
            .current_dir(dir)
            .args([
                "-c",
                "user.name=a",
                "-c",
                "user.email=a@example.test",
                "-c",
                "init.defaultBranch=main",
            ])
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_SSH_COMMAND", format!("ssh -F {}", target.config.display())))
        .ok()
    };
    let url = format!("door:{}", bare.display());
    let (bare, work, clone) = (bare.display().to_string(), work, clone.display().to_string());
    git(world.dir(), &["init", "-q", "--bare", &bare]);
    git(world.dir(), &["init", "-q", &work.display().to_string()]);
    write_noise(&work.join("file"), 3 * MB, 3);
    git(&work, &["add", "file"]);
    git(&work, &["commit", "-q", "-m", "one"]);
    git(&work, &["push", "-q", &url, "HEAD:refs/heads/main"]);
    git(world.dir(), &["clone", "-q", "-b", "main", &url, &clone]);
    assert_same_file(&work.join("file"), &Path::new(&clone).join("file"));
}

#[test]
fn one_master_connection_serves_many_sessions() {
    let world = World::usual();
    let target = world.target("alice", "s001");
    let socket = world.path("master").display().to_string();
    let mut master = Process::start(
        "master",
        world.dir(),
        target.openssh("ssh").args(["-M", "-N", "-S", &socket, "door"]),
    );
    wait::until("the master's socket", wait::SOON, || Path::new(&socket).exists());
    for status in [0, 3, 200] {
        let output = target.ssh(&["-S", &socket], &format!("echo $SSH_CONNECTION; exit {status}"));
        let first = output.ends(status).text();
        let second = target.ssh(&["-S", &socket], "echo $SSH_CONNECTION").ok().text();
        assert_eq!(first, second, "another connection");
    }
    both_ways(&world, &target, &["-S", &socket], 10 * MB);
    run(target.openssh("ssh").args(["-S", &socket, "-O", "exit", "door"])).ok();
    wait::until("the master ends", wait::SOON, || master.has_ended());
}

/// A background `ssh -N` with a forward.
fn forwarding(world: &World, target: &Target, arguments: &[&str]) -> Process {
    Process::start(
        "forward",
        world.dir(),
        target
            .openssh("ssh")
            .args(["-N", "-o", "ExitOnForwardFailure=yes"])
            .args(arguments)
            .arg("door"),
    )
}

#[test]
fn a_local_forward_reaches_a_service_behind_the_vm() {
    let world = World::usual();
    let target = world.target("alice", "s001");
    let local = world.spare(1);
    let mut ssh = forwarding(&world, &target, &["-L", &format!("{local}:{}", echo_server())]);
    wait::listens(&mut ssh, local);
    assert_echoes(TcpStream::connect(local).expect("the forward"));
    let several: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                assert_echoes(TcpStream::connect(local).expect("the forward"));
            })
        })
        .collect();
    for one in several {
        one.join().expect("all echo");
    }
}

#[test]
fn a_remote_forward_reaches_a_service_beside_the_client() {
    let world = World::usual();
    let target = world.target("alice", "s001");
    let remote = world.spare(2);
    let mut ssh = forwarding(&world, &target, &["-R", &format!("{remote}:{}", echo_server())]);
    wait::listens(&mut ssh, remote);
    assert_echoes(TcpStream::connect(remote).expect("the forward"));
}

#[test]
fn a_dynamic_forward_reaches_what_its_user_names() {
    let world = World::usual();
    let target = world.target("alice", "s001");
    let local = world.spare(3);
    let mut ssh = forwarding(&world, &target, &["-D", &local.to_string()]);
    wait::listens(&mut ssh, local);
    let SocketAddr::V4(echo) = echo_server() else { panic!("an IPv4 server") };
    let mut socks = TcpStream::connect(local).expect("the forward");
    // RFC 1928: no authentication, then CONNECT to an IPv4 address.
    socks.write_all(&[5, 1, 0]).expect("greeting");
    let mut answer = [0; 2];
    socks.read_exact(&mut answer).expect("method");
    assert_eq!(answer, [5, 0]);
    let mut request = vec![5, 1, 0, 1];
    request.extend(echo.ip().octets());
    request.extend(echo.port().to_be_bytes());
    socks.write_all(&request).expect("request");
    let mut answer = [0; 10];
    socks.read_exact(&mut answer).expect("reply");
    assert_eq!(answer[1], 0, "SOCKS refused");
    assert_echoes(socks);
}

#[test]
fn standard_input_and_output_can_be_the_forward() {
    let world = World::usual();
    let target = world.target("alice", "s001");
    let source = world.path("source");
    write_noise(&source, 5 * MB, 4);
    let echo = echo_server().to_string();
    let output = run_with_input(target.openssh("ssh").args(["-W", &echo, "door"]), &source).ok();
    fs::write(world.path("back"), output.stdout).expect("a file");
    assert_same_file(&source, &world.path("back"));
}

#[test]
fn a_forward_to_a_closed_port_is_refused_and_the_session_lives_on() {
    let world = World::usual();
    let target = world.target("alice", "s001");
    let output = target.ssh(&["-W", "127.0.0.1:1"], "").ends(255);
    assert!(output.stderr.contains("open failed"), "{}", output.stderr);
}

#[test]
fn a_vm_serves_as_a_jump_host() {
    let world = World::plan()
        .address("s001")
        .address("s002")
        .user("alice")
        .vm("blue", "alice", "s001")
        .vm("green", "alice", "s002")
        .start();
    let (first, second) = (world.target("alice", "s001"), world.target("alice", "s002"));
    let config = world.path("jump_config");
    let mut text = fs::read_to_string(&first.config).expect("a config");
    text = text.replace(
        "Host *\n",
        &format!(
            "Host far\n  HostName {}\n  Port {}\n  User {}\n  IdentityFile {}\n  ProxyJump door\nHost *\n",
            second.host,
            second.port,
            second.login,
            second.key.path().display()
        ),
    );
    let mut known = fs::read(&first.known_hosts).expect("known_hosts");
    known.extend(fs::read(&second.known_hosts).expect("known_hosts"));
    fs::write(&first.known_hosts, known).expect("known_hosts");
    fs::write(&config, text).expect("a config");
    let output =
        run(Command::new("ssh").arg("-F").arg(&config).args(["far", "echo $KEYWAY_VM"])).ok();
    assert_eq!(output.text(), "green");
    let output =
        run(Command::new("ssh").arg("-F").arg(&config).args(["-J", "door", "far", "exit 5"]))
            .ends(5);
    assert_eq!(output.text(), "");
}

#[test]
fn the_forwarded_agent_answers_in_the_vm() {
    let world = World::usual();
    let target = world.target("alice", "s001");
    let precious = Key::ed25519(world.dir(), "precious");
    let agent = Agent::with(world.dir(), &[&precious]);
    let output = run(target.openssh("ssh").env("SSH_AUTH_SOCK", agent.socket()).args([
        "-A",
        "-o",
        "IdentityAgent=SSH_AUTH_SOCK",
        "door",
        "ssh-add -l",
    ]))
    .ok();
    assert!(output.text().contains(&precious.fingerprint()), "{}", output.text());
}

#[test]
fn a_user_certificate_lets_its_user_in() {
    let world = World::usual_plan().user_ca().start();
    let target = world.target("alice", "s001");
    let fresh = Key::ed25519(world.dir(), "fresh");
    let identity = format!("IdentityFile={}", fresh.path().display());
    // Only the fresh key: the config's own would get in by itself.
    let config = world.path("certificate_config");
    let text = fs::read_to_string(&target.config).expect("a config");
    let own = format!("  IdentityFile {}\n", target.key.path().display());
    assert!(text.contains(&own));
    fs::write(&config, text.replace(&own, "")).expect("a config");
    let ssh = |command: &str| {
        run(Command::new("ssh").arg("-F").arg(&config).args(["-o", &identity, "door", command]))
    };
    ssh("true").ends(255);
    fresh.certify(world.user_ca(), "alice", &["-V", "-5m:+1h"]);
    assert_eq!(ssh("echo $KEYWAY_VM").ok().text(), "blue");
    fresh.certify(world.user_ca(), "mallory", &["-V", "-5m:+1h"]);
    ssh("true").ends(255);
    fresh.certify(world.user_ca(), "alice", &["-V", "-2h:-1h"]);
    ssh("true").ends(255);
    fresh.certify(world.user_ca(), "alice", &["-V", "-5m:+1h", "-O", "force-command=echo forced"]);
    assert_eq!(ssh("echo free").ok().text(), "forced");
    fresh.certify(
        world.user_ca(),
        "alice",
        &["-V", "-5m:+1h", "-O", "source-address=192.0.2.0/24"],
    );
    ssh("true").ends(255);
    fresh.certify(world.user_ca(), "alice", &["-V", "-5m:+1h", "-O", "source-address=127.0.0.0/8"]);
    ssh("true").ok();
}

#[test]
fn every_type_of_user_key_logs_in() {
    let kinds: &[(&str, &[&str])] = &[
        ("p256", &["-t", "ecdsa", "-b", "256"]),
        ("p384", &["-t", "ecdsa", "-b", "384"]),
        ("p521", &["-t", "ecdsa", "-b", "521"]),
        ("rsa2048", &["-t", "rsa", "-b", "2048"]),
        ("rsa4096", &["-t", "rsa", "-b", "4096"]),
    ];
    let plan = World::usual_plan();
    let plan = kinds.iter().fold(plan, |plan, (name, kind)| plan.extra_key("alice", name, kind));
    let world = plan.start();
    let target = world.target("alice", "s001");
    let text = fs::read_to_string(&target.config).expect("a config");
    let own = target.key.path().display().to_string();
    for (name, _) in kinds {
        let config = world.path("kind_config");
        let key = world.key(name).path().display().to_string();
        fs::write(
            &config,
            text.replace(&format!("IdentityFile {own}"), &format!("IdentityFile {key}")),
        )
        .expect("a config");
        let output =
            run(Command::new("ssh").arg("-F").arg(&config).args(["door", "echo $KEYWAY_VM"])).ok();
        assert_eq!(output.text(), "blue", "{name}");
    }
}

#[test]
fn a_terminal_follows_its_window_and_its_interrupt() {
    let Some(python) = peers::program("python", "python3") else { return };
    let world = World::usual();
    let target = world.target("alice", "s001");
    let ssh = target.openssh("ssh");
    let remote = format!("sh {}", peers::script("pty_remote.sh").display());
    let output = run(Command::new(python)
        .arg(peers::script("pty_peer.py"))
        .arg(ssh.get_program())
        .args(ssh.get_args())
        .args(["-tt", "door", &remote]))
    .ok();
    assert_eq!(output.text(), "done");
}

#[test]
fn an_x11_program_in_the_vm_reaches_the_users_display() {
    let (Some(_), Some(_)) =
        (peers::program("xauth", "xauth"), peers::program("python", "python3"))
    else {
        return;
    };
    let world = World::usual();
    let target = world.target("alice", "s001");
    // The user's display: takes a connection setup with the real cookie, answers, hangs up.
    let display = (0..200)
        .find_map(|number| TcpListener::bind(("127.0.0.1", 6100 + number)).ok())
        .expect("a display's port");
    let number = display.local_addr().expect("its address").port() - 6000;
    let cookie = "00112233445566778899aabbccddeeff";
    let authority = world.path("Xauthority");
    fs::write(&authority, "").expect("an authority file");
    let name = format!("127.0.0.1:{number}");
    run(Command::new("xauth").arg("-f").arg(&authority).args(["add", &name, ".", cookie])).ok();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = display.accept().expect("a program connects");
        let mut setup = [0; 12 + 20 + 16 + 13];
        stream.read_exact(&mut setup).expect("setup and greeting");
        stream.write_all(b"hello program").expect("an answer");
        setup
    });
    let script = format!("python3 {}", peers::script("x11_peer.py").display());
    let output = run(target
        .openssh("ssh")
        .env("DISPLAY", &name)
        .env("XAUTHORITY", &authority)
        .args(["-Y", "door", &script]))
    .ok();
    assert_eq!(output.text(), "hello program");
    let setup = served.join().expect("the display served");
    assert!(setup.ends_with(b"hello display"));
    let cookie_seen = u128::from_be_bytes(setup[32..48].try_into().expect("16 bytes"));
    assert_eq!(format!("{cookie_seen:032x}"), cookie, "the client puts the real cookie in");
}
