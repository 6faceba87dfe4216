//! Copies of a front door: what `keyway backup` holds lets people in on another host.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::harness::{Output, Process, World, run, wait};

/// Runs a command that needs no server.
#[track_caller]
fn keyway(words: &[&str]) -> Output {
    run(Command::new(env!("CARGO_BIN_EXE_keyway")).args(words)).ok()
}

#[test]
fn whoever_had_a_login_has_it_on_the_host_that_a_backup_is_restored_on() {
    if World::is_passed_by() {
        return;
    }
    let mut world = World::usual();
    let target = world.target("alice", "s001");
    target.ssh(&[], "true").ok();
    world.end();

    // As it is usual: host key and CA lie in the state directory.
    let text = fs::read_to_string(world.path("keyway.toml")).expect("keyway.toml");
    let value = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).expect("a line of ours");
        line.split('"').nth(1).expect("a path").to_owned()
    };
    let (host_key, ca) = (value("host_keys"), value("user_ca"));
    let keys = |line: &&str| !line.starts_with("host_keys") && !line.starts_with("user_ca");
    let usual: Vec<&str> = text.lines().filter(keys).collect();
    let usual = usual.join("\n") + "\n";
    let [here, there] = ["here.toml", "there.toml"].map(|name| world.path(name));
    fs::write(&here, &usual).expect("a configuration");
    let (state, other) = (world.path("state"), world.path("other-state"));
    let moved = usual.replace(state.to_str().expect("UTF-8"), other.to_str().expect("UTF-8"));
    fs::write(&there, moved).expect("a configuration");
    let path = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let (here, there) = (path(&here), path(&there));
    keyway(&["hostkey", "import", &host_key, "--config", &here]);
    keyway(&["ca", "import", &ca, "--config", &here]);

    let (passphrase, file) = (path(&world.path("passphrase")), path(&world.path("keyway.age")));
    fs::write(&passphrase, "a passphrase of six words or so\n").expect("a passphrase");
    fs::set_permissions(&passphrase, fs::Permissions::from_mode(0o600)).expect("its mode");
    keyway(&["backup", &file, "--passphrase-file", &passphrase, "--config", &here]);
    fs::remove_dir_all(&state).expect("the host is gone");
    keyway(&["restore", &file, "--passphrase-file", &passphrase, "--config", &there]);
    let serve = |name| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyway"));
        let mut process =
            Process::start(name, world.dir(), command.args(["serve", "--config", &there]));
        wait::listens(&mut process, world.metrics());
        process
    };
    let elsewhere = serve("elsewhere");
    assert_eq!(target.ssh(&[], "echo $KEYWAY_VM").ok().text(), "blue");
    assert!(elsewhere.log().contains("no new slots until"), "{}", elsewhere.log());
    assert!(!elsewhere.log().contains("were prepared for another CA"), "{}", elsewhere.log());

    // Without the CA that the VMs know all looks well, but for what is said of it.
    let status =
        || run(Command::new(env!("CARGO_BIN_EXE_keyway")).args(["status", "--config", &there]));
    wait::until("the API", wait::SOON, || status().status == 0);
    drop(elsewhere);
    fs::remove_file(other.join("user_ca")).expect("the CA");
    let elsewhere = serve("without-ca");
    wait::until("the status", wait::SOON, || status().status == 1);
    let said = status().text();
    assert!(said.contains("vm-ca") && said.contains("were prepared for another CA"), "{said}");
    wait::until("the line", wait::SOON, || {
        elsewhere.log().contains("were prepared for another CA")
    });
    keyway(&["ca", "confirm", "--config", &there]);
    assert_eq!(status().status, 0, "{}", status().text());
}
