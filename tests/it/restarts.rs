//! Starts, reloads and hand-overs of a front door, while people come in.

use crate::{
    harness::{World, process, wait},
    operations::{Held, keyway, neighbours, replace, revoke},
};
use nix::sys::signal::Signal;
use std::fs;

#[test]
fn a_reload_renews_what_is_sound_and_names_what_is_not_and_what_takes_a_restart() {
    if World::is_direct() {
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
    if World::is_direct() {
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
