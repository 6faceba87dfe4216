//! Host keys that a reload changes: what the zone says from then on, and what those hear who
//! were half way in.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::harness::{Key, Process, World, run, wait};
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

#[test]
fn after_a_reload_the_zone_has_the_new_host_keys_and_who_was_half_way_in_hears_of_the_old() {
    if World::is_passed_by() {
        return;
    }
    // Worlds end below 254, and count from 0.
    let net = std::process::id() % 150 + 80;
    let dns = format!("[dns]\nzone = \"vm.test\"\nlisten = \"127.{net}.254.1:5353\"");
    let world = neighbours().vm_leg(&dns).start();
    let (config, first) = (world.path("keyway.toml"), Key::at(world.path("edge_host_key")));
    let second = Key::generate(world.dir(), "second", &["-t", "ecdsa", "-b", "256"]);
    let third = Key::ed25519(world.dir(), "third");
    let [one, two, three] =
        [&first, &second, &third].map(|key| format!("\"{}\"", key.path().display()));
    let (serial, records) = zone(&world);
    assert_eq!(records, fingerprints(&[&first]));
    replace(&config, &one, &format!("{one}, {two}"));
    keyway(&world, &["reload"]).ok();
    let (both_serial, records) = zone(&world);
    assert_eq!(records, fingerprints(&[&first, &second]));
    assert!(both_serial > serial, "{both_serial} after {serial}");
    // The same keys again are no news.
    keyway(&world, &["reload"]).ok();
    assert_eq!(zone(&world).0, both_serial);

    // Alice's client has exchanged keys, and waits for her passphrase.
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
    replace(&config, &format!("{one}, {two}"), &three);
    keyway(&world, &["reload"]).ok();
    let (serial, records) = zone(&world);
    assert_eq!(records, fingerprints(&[&third]));
    assert!(serial > both_serial, "{serial} after {both_serial}");
    fs::write(&go, "slow fingers\n").expect("a passphrase");
    wait::until("it ends", wait::SOON, || half_way.has_ended());
    assert!(half_way.log().contains("\nblue\n"), "{}", half_way.log());
    // A client believes a key told once the server has proved it.
    let file = fs::read_to_string(&target.known_hosts).expect("known_hosts");
    let knows = |key: &Key| file.contains(&key.public());
    assert!(knows(&first) && knows(&second) && !knows(&third), "{}\n{file}", half_way.log());

    // Who comes now meets the third alone.
    let bob = world.target("bob", "s001");
    assert!(bob.ssh(&[], "true").ends(255).stderr.contains("Host key verification failed"));
    let line = format!("[{}]:{} {}\n", bob.host, bob.port, third.public());
    fs::write(&bob.known_hosts, line).expect("known_hosts");
    assert_eq!(bob.ssh(&[], "echo $KEYWAY_VM").ok().text(), "green");

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
