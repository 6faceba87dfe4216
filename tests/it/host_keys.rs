//! Host keys that a reload changes: what the zone says from then on, and what those hear who
//! were half way in.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::{Key, Process, Target, World, process, run, wait};
use crate::operations::{keyway, neighbours, replace};

/// The serial of the zone, and what its SSHFP records say.
#[track_caller]
fn zone(world: &World) -> (u32, Vec<String>) {
    let text = keyway(world, &["zone", "export"]).ok().text();
    let of = |kind: &str| {
        let kind = format!(" {kind} ");
        let lines = text.lines().map(|line| line.replace('\t', " "));
        let data = lines.filter_map(|line| Some(line.split_once(&kind)?.1.to_lowercase()));
        data.collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    let [soa] = &*of("SOA") else { panic!("{text}") };
    let serial = soa.split(' ').find_map(|word| word.parse().ok());
    (serial.unwrap_or_else(|| panic!("{soa}")), of("SSHFP"))
}

/// The SSHFP data of keys, as ssh-keygen has it.
fn fingerprints(keys: &[&Key]) -> Vec<String> {
    let mut all = Vec::new();
    for key in keys {
        let mut command = Command::new("ssh-keygen");
        let said = run(command.args(["-r", "it", "-f"]).arg(key.public_path())).ok().text();
        let sha256 = said.lines().find(|line| line.contains(" 2 ")).expect("SHA-256");
        all.push(sha256.split_once("SSHFP ").expect("a record").1.to_lowercase());
    }
    all.sort();
    all
}

/// The host keys of a world: its own and two more.
struct Keys {
    first: Key,
    second: Key,
    third: Key,
}

impl Keys {
    fn of(world: &World) -> Self {
        Self {
            first: Key::at(world.path("edge_host_key")),
            second: Key::generate(world.dir(), "second", &["-t", "ecdsa", "-b", "256"]),
            third: Key::ed25519(world.dir(), "third"),
        }
    }

    /// As `keyway.toml` names them.
    fn named(&self) -> [String; 3] {
        [&self.first, &self.second, &self.third].map(|key| format!("\"{}\"", key.path().display()))
    }
}

#[test]
fn after_a_reload_the_zone_has_the_new_host_keys_and_who_was_half_way_in_hears_of_the_old() {
    if World::is_passed_by() {
        return;
    }
    // Worlds end below 254, and count from 0.
    let net = std::process::id() % 150 + 80;
    let dns = format!("[dns]\nzone = \"vm.test\"\nlisten = \"127.{net}.254.1:5353\"");
    let world = neighbours().vm_leg(&dns).start();
    let (config, keys) = (world.path("keyway.toml"), Keys::of(&world));
    let Keys { first, second, third } = &keys;
    let [one, two, three] = keys.named();
    let (serial, records) = zone(&world);
    assert_eq!(records, fingerprints(&[first]));
    replace(&config, &one, &format!("{one}, {two}"));
    keyway(&world, &["reload"]).ok();
    let (both_serial, records) = zone(&world);
    assert_eq!(records, fingerprints(&[first, second]));
    assert!(both_serial > serial, "{both_serial} after {serial}");
    // The same keys again are no news.
    keyway(&world, &["reload"]).ok();
    assert_eq!(zone(&world).0, both_serial);

    who_is_half_way_in_learns_the_keys_of_its_start(&world, &keys, || {
        replace(&config, &format!("{one}, {two}"), &three);
        keyway(&world, &["reload"]).ok();
        let (serial, records) = zone(&world);
        assert_eq!(records, fingerprints(&[third]));
        assert!(serial > both_serial, "{serial} after {both_serial}");
    });
    let bob = who_comes_now_meets_this_key_alone(&world, third);

    // Another CA than the VMs were prepared for is told of until somebody says that they trust it.
    let warning = "were prepared for another CA";
    let (old, other) = (world.path("operator_ca"), Key::ed25519(world.dir(), "other_ca"));
    assert!(!world.log().contains(warning), "{}", world.log());
    replace(&config, &old.display().to_string(), &other.path().display().to_string());
    keyway(&world, &["reload"]).ok();
    wait::until("a word about the CA", wait::SOON, || world.log().contains(warning));
    assert!(bob.ssh(&[], "true").ends(255).stderr.contains("green"), "the VM lets nobody in");
    let said = keyway(&world, &["ca", "confirm"]).ok().text();
    assert!(said.contains(&format!("trust the CA {}", other.fingerprint())), "{said}");
    keyway(&world, &["reload"]).ok();
    let reloads = || world.log().matches("\"reloaded: ").count();
    wait::until("the last reload", wait::SOON, || reloads() == 5);
    assert_eq!(world.log().matches(warning).count(), 1, "{}", world.log());
}

/// The same through a handoff: the agent has the edge prove them, which knows the session.
#[test]
fn host_keys_are_learnt_through_a_handoff_as_without_one() {
    if World::is_passed_by() {
        return;
    }
    let mut world = neighbours().handed().start();
    let keys = Keys::of(&world);
    let Keys { first, second, third } = &keys;
    let [one, two, three] = keys.named();
    let all = [first, second, third].map(Key::public_line).join("\", \"");
    replace(&world.path("agent.toml"), &first.public_line(), &all);
    process::signal(world.agent().id(), Signal::SIGHUP);
    wait::until("the agent's reload", wait::SOON, || world.agent().log().contains("reloaded"));
    let config = world.path("keyway.toml");
    replace(&config, &one, &format!("{one}, {two}"));
    keyway(&world, &["reload"]).ok();
    who_is_half_way_in_learns_the_keys_of_its_start(&world, &keys, || {
        replace(&config, &format!("{one}, {two}"), &three);
        keyway(&world, &["reload"]).ok();
    });
    wait::until("its line", wait::SOON, || world.log().contains("\"signatures\":2,"));
    who_comes_now_meets_this_key_alone(&world, third);
}

/// Alice's client, which has exchanged keys and waits for her passphrase while
/// `another_reload` runs, learns of the second key.
fn who_is_half_way_in_learns_the_keys_of_its_start(
    world: &World,
    Keys { first, second, third }: &Keys,
    another_reload: impl FnOnce(),
) {
    let target = world.target("alice", "s001");
    let (asks, asked, go) = (world.path("ask"), world.path("asked"), world.path("go"));
    run(Command::new("mkfifo").arg(&go)).ok();
    let text = format!("#!/bin/sh\ntouch {}\ncat {}\n", asked.display(), go.display());
    fs::write(&asks, text).expect("a program");
    fs::set_permissions(&asks, fs::Permissions::from_mode(0o700)).expect("permissions");
    run(Command::new("ssh-keygen")
        .args(["-q", "-p", "-P", "", "-N", "slow fingers", "-f"])
        .arg(target.key.path()))
    .ok();
    let learns = ["-o", "BatchMode=no", "-o", "UpdateHostKeys=yes", "-v"];
    // One that stands there by another name too is not added to.
    let line = format!("[{}]:{} {}\n", target.host, target.port, first.public());
    fs::write(&target.known_hosts, line).expect("known_hosts");
    let mut ssh = target.openssh("ssh");
    ssh.env("SSH_ASKPASS", &asks).env("SSH_ASKPASS_REQUIRE", "force").args(learns);
    let mut half_way =
        Process::start("half-way", world.dir(), ssh.args(["door", "echo $KEYWAY_VM"]));
    wait::until("the passphrase is asked for", wait::SOON, || asked.exists());
    another_reload();
    fs::write(&go, "slow fingers\n").expect("a passphrase");
    wait::until("it ends", wait::SOON, || half_way.has_ended());
    assert!(half_way.log().contains("\nblue\n"), "{}", half_way.log());
    // A client believes a key told once the server has proved it.
    let file = fs::read_to_string(&target.known_hosts).expect("known_hosts");
    let knows = |key: &Key| file.contains(&key.public());
    assert!(knows(first) && knows(second) && !knows(third), "{}\n{file}", half_way.log());
}

fn who_comes_now_meets_this_key_alone(world: &World, key: &Key) -> Target {
    let bob = world.target("bob", "s001");
    assert!(bob.ssh(&[], "true").ends(255).stderr.contains("Host key verification failed"));
    let line = format!("[{}]:{} {}\n", bob.host, bob.port, key.public());
    fs::write(&bob.known_hosts, line).expect("known_hosts");
    assert_eq!(bob.ssh(&[], "echo $KEYWAY_VM").ok().text(), "green");
    bob
}
