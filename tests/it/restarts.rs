//! Starts, reloads and hand-overs of a front door, while people come in.

use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use nix::sys::signal::Signal;

use crate::harness::{Key, Process, World, process, run, wait};
use crate::operations::{Held, keyway, neighbours, replace, revoke, serve, with_key};

/// How often a front door is followed by another one: what a busy machine bears, or
/// what was asked for.
fn restarts() -> u32 {
    if std::env::var_os("KEYWAY_FULL").is_some() { 50 } else { 4 }
}

#[test]
fn a_reload_renews_what_is_sound_and_names_what_is_not_and_what_takes_a_restart() {
    if World::is_passed_by() {
        return;
    }
    let world = neighbours().start();
    let (config, fleet) = (world.path("keyway.toml"), world.path("fleet.toml"));
    let reload = || keyway(&world, &["reload", "--output", "json"]);
    assert!(reload().ok().text().contains("\"done\":true"));
    replace(&config, "shards = 1", "shards = 1\nlogin_grace_s = 7");
    let said = keyway(&world, &["reload"]).ok();
    assert!(said.stderr.contains("edge.login_grace_s is \"30\" until then"), "{}", said.stderr);
    let logged = || world.log().contains("edge.login_grace_s takes a restart");
    wait::until("the same in the log", wait::SOON, logged);

    // A key is revoked, and something else in either file is wrong.
    let sound = fs::read_to_string(&config).expect("keyway.toml");
    let whole = fs::read_to_string(&fleet).expect("fleet.toml");
    let target = world.target("alice", "s001");
    let mut bob = Held::start(&world, &world.target("bob", "s001"), "bob");
    for (file, from, to) in [
        (&fleet, "name = \"green\"", "name = \"_green\""),
        (&config, "shards = 1", "shards = -1"),
        (&config, "[edge]", "[api]\nlisten = \"127.0.0.1:1\"\ntls_cert = \"none\"\n[edge]"),
    ] {
        println!("{to}");
        let mut alice = Held::start(&world, &target, "alice");
        revoke(&world, &world.key("alice").public_path());
        replace(file, from, to);
        let said = reload().ends(1);
        assert!(
            said.text().contains("\"part\":\"revocations\",\"result\":\"done\""),
            "{}",
            said.text()
        );
        assert!(said.text().contains("\"result\":\"failed\""), "{}", said.text());
        assert_eq!(alice.ended(), Some(255));
        target.ssh(&[], "true").ends(255);
        assert!(bob.goes_on(), "bob's session was touched");
        fs::write(&config, &sound).expect("keyway.toml");
        fs::write(&fleet, &whole).expect("fleet.toml");
        reload().ok();
    }
    bob.let_go();
}

#[test]
fn a_signal_that_means_nothing_ends_nothing() {
    if World::is_passed_by() {
        return;
    }
    let mut world = World::usual();
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2] {
        let before = world.log().len();
        process::signal(world.edge().id(), signal);
        let told = || world.log()[before..].contains("mean nothing here");
        wait::until("a word about it", wait::SOON, told);
    }
    let status = keyway(&world, &["status"]).ok().text();
    assert!(status.starts_with("state      up\n"), "{status}");
    assert!(status.contains("fleet-file  up"), "{status}");
    world.target("alice", "s001").ssh(&[], "true").ok();
}

/// Has `address` an answer for whoever connects: the identification line.
fn answers(address: SocketAddr) -> Result<(), String> {
    let mut stream =
        TcpStream::connect_timeout(&address, wait::SOON).map_err(|why| why.to_string())?;
    stream.set_read_timeout(Some(wait::SOON)).map_err(|why| why.to_string())?;
    let mut line = [0; 8];
    stream.read_exact(&mut line).map_err(|why| format!("connected, then: {why}"))?;
    if &line == b"SSH-2.0-" { Ok(()) } else { Err(format!("{line:?}")) }
}

#[test]
fn front_doors_that_follow_one_another_refuse_nobody_in_either_order() {
    if World::is_passed_by() {
        return;
    }
    let mut world = World::usual();
    let target = world.target("alice", "s001");
    let address = SocketAddr::new(target.host.parse().expect("an address"), target.port);
    let config = world.path("keyway.toml");
    let (over, came) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let knocking: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut refused = Vec::new();
                    while !over.load(Ordering::Relaxed) {
                        came.fetch_add(1, Ordering::Relaxed);
                        refused.extend(answers(address).err());
                    }
                    refused
                })
            })
            .collect();
        let (mut last, mut gone): (Option<Process>, Vec<Process>) = (None, Vec::new());
        for round in 0..restarts() {
            let id = last.as_ref().map_or_else(|| world.edge().id(), Process::id);
            let name = format!("successor-{round}");
            let start = || Process::start(&name, world.dir(), &mut serve(&world, &config));
            let next = if round % 2 == 0 {
                let next = start();
                let waits = || next.log().contains("waiting until it hands over");
                wait::until("it waits for its turn", wait::SOON, waits);
                process::signal(id, Signal::SIGTERM);
                next
            } else {
                process::signal(id, Signal::SIGTERM);
                start()
            };
            wait::until("the successor is up", wait::SOON, || next.log().contains(" is up"));
            // Somebody logs in, whoever of the two it is that lets them in.
            assert_eq!(target.ssh(&[], "echo $KEYWAY_VM").ok().text(), "blue");
            // The next one comes while this one's predecessor may not be gone yet.
            gone.extend(last.replace(next));
        }
        for gone in &mut gone {
            assert!(wait::happens(wait::SOON, || gone.has_ended()), "{} goes on", gone.name());
        }
        assert!(wait::happens(wait::SOON, || world.edge().has_ended()), "the first goes on");
        over.store(true, Ordering::Relaxed);
        for refused in knocking {
            assert_eq!(refused.join().expect("it knocks"), Vec::<String>::new());
        }
        assert!(came.load(Ordering::Relaxed) > 10 * restarts(), "nobody came in all this time");
    });
}

#[test]
fn what_is_taken_away_while_a_successor_waits_does_not_come_back_with_it() {
    if World::is_passed_by() {
        return;
    }
    let mut world = neighbours().start();
    let first = world.edge().id();
    let (config, fleet) = (world.path("keyway.toml"), world.path("fleet.toml"));
    let (alice, bob) = (world.target("alice", "s001"), world.target("bob", "s001"));
    let hand_over = |from: u32, name: &str, change: &dyn Fn()| {
        let next = Process::start(name, world.dir(), &mut serve(&world, &config));
        let waits = || next.log().contains("waiting until it hands over");
        wait::until("it waits for its turn", wait::SOON, waits);
        change();
        process::signal(from, Signal::SIGTERM);
        wait::until("the successor is up", wait::SOON, || next.log().contains(" is up"));
        next
    };
    alice.ssh(&[], "true").ok();
    bob.ssh(&[], "true").ok();
    let stranger = Key::ed25519(world.dir(), "stranger");
    let key = world.key("bob").public();
    let second = hand_over(first, "second", &|| replace(&fleet, &key, &stranger.public()));
    bob.ssh(&[], "true").ends(255);
    alice.ssh(&[], "true").ok();
    // Whatever else is wrong with it.
    let third = hand_over(second.id(), "third", &|| {
        revoke(&world, &world.key("alice").public_path());
        replace(&config, "shards = 1", "shards = -1");
    });
    assert!(third.log().contains("edge.shards"), "{}", third.log());
    alice.ssh(&[], "true").ends(255);
    with_key(&world, &bob, stranger).ssh(&[], "true").ok();
}

#[test]
fn a_successor_that_fails_on_its_way_is_not_taken_for_one_that_came() {
    if World::is_passed_by() {
        return;
    }
    let mut world = World::usual();
    let target = world.target("alice", "s001");
    target.ssh(&[], "true").ok();
    let (config, metrics) = (world.path("taken.toml"), world.spare(0));
    let _taken = std::net::TcpListener::bind(metrics).expect("an address");
    let text = fs::read_to_string(world.path("keyway.toml")).expect("keyway.toml");
    fs::write(&config, text.replace(&world.metrics().to_string(), &metrics.to_string()))
        .expect("a config");
    let mut failing = Process::start("failing", world.dir(), &mut serve(&world, &config));
    let waits = || failing.log().contains("waiting until it hands over");
    wait::until("it waits for its turn", wait::SOON, waits);
    process::signal(world.edge().id(), Signal::SIGTERM);
    wait::until("the successor's end", wait::SOON, || failing.has_ended());
    assert!(failing.log().contains("in use"), "{}", failing.log());
    for _ in 0..3 {
        target.ssh(&[], "true").ok();
    }
    assert!(!world.log().contains("draining: nobody more is let in"), "{}", world.log());
    let next = Process::start("next", world.dir(), &mut serve(&world, &world.path("keyway.toml")));
    wait::until("the successor is up", wait::SOON, || next.log().contains(" is up"));
    wait::until("the predecessor's end", wait::SOON, || world.edge().has_ended());
    target.ssh(&[], "true").ok();
}

#[test]
fn a_process_that_drains_takes_away_what_its_files_and_its_successors_take_away() {
    if World::is_passed_by() {
        return;
    }
    let mut world = neighbours().start();
    let target = world.target("alice", "s001");
    let mut alice = Held::start(&world, &target, "alice");
    let mut bob = Held::start(&world, &world.target("bob", "s001"), "bob");
    world.drain(&target);
    revoke(&world, &world.key("alice").public_path());
    // Something else is wrong with it.
    replace(&world.path("keyway.toml"), "shards = 1", "shards = -1");
    process::signal(world.edge().id(), Signal::SIGHUP);
    assert_eq!(alice.ended(), Some(255));
    assert!(alice.said().contains("was taken away"), "{}", alice.said());
    assert!(bob.goes_on(), "bob's session was touched");

    // A successor with files of its own is followed, from its start on.
    let text = fs::read_to_string(world.path("keyway.toml")).expect("keyway.toml");
    let config = world.path("other.toml");
    run(std::process::Command::new("ssh-keygen")
        .args(["-q", "-k", "-f"])
        .arg(world.path("more"))
        .arg(world.key("bob").public_path()))
    .ok();
    fs::write(&config, text.replace("shards = -1", "shards = 1")).expect("a config");
    let mut successor = Process::start("successor", world.dir(), &mut serve(&world, &config));
    wait::listens(&mut successor, world.metrics());
    assert!(bob.goes_on(), "bob's session was touched");
    replace(&config, "\"krl\"", "\"more\"");
    keyway(&world, &["reload"]).ok();
    assert_eq!(bob.ended(), Some(255));
    assert!(bob.said().contains("was taken away"), "{}", bob.said());
}

#[test]
fn a_start_that_cannot_have_an_address_lets_nobody_in_and_leaves_its_predecessor_alone() {
    if World::is_passed_by() {
        return;
    }
    let mut world = World::usual();
    let target = world.target("alice", "s001");
    let (config, metrics) = (world.path("taken.toml"), world.spare(0));
    let _taken = std::net::TcpListener::bind(metrics).expect("an address");
    let text = fs::read_to_string(world.path("keyway.toml")).expect("keyway.toml");
    let door = format!("\"{}:{}\"", target.host, target.port);
    fs::write(&config, text.replace(&door, &format!("\"{metrics}\""))).expect("a config");
    let said = run(&mut serve(&world, &config));
    assert!(said.status != 0 && said.stderr.contains("in use"), "{}", said.stderr);
    assert!(!world.edge().has_ended());
    target.ssh(&[], "true").ok();
}

#[test]
fn health_and_readiness_are_told_apart_and_told_to_systemd() {
    if World::is_passed_by() {
        return;
    }
    let mut world = World::usual();
    for path in ["/healthz", "/readyz"] {
        let answer = world.page(path);
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"), "{answer}");
    }
    // The successor says that it is the service now.
    let heard = std::os::unix::net::UnixDatagram::bind(world.path("notify")).expect("a socket");
    heard.set_read_timeout(Some(wait::SOON)).expect("a deadline");
    let mut command = serve(&world, &world.path("keyway.toml"));
    command.env("NOTIFY_SOCKET", world.path("notify"));
    let successor = Process::start("successor", world.dir(), &mut command);
    process::signal(world.edge().id(), Signal::SIGTERM);
    let hear = || {
        let mut bytes = [0; 512];
        let count = heard.recv(&mut bytes).expect("a word in time");
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    let until = |wanted: &str| while !hear().contains(wanted) {};
    until(&format!("READY=1\nMAINPID={}\n", successor.id()));
    process::signal(successor.id(), Signal::SIGHUP);
    until("RELOADING=1\nMONOTONIC_USEC=");
    until("READY=1");
    process::signal(successor.id(), Signal::SIGTERM);
    until("STOPPING=1");
}
