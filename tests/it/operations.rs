//! What operators do to a front door that runs: they edit its files, send it
//! signals, start it twice.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::world::Plan;
use crate::harness::{Key, Leashed, Output, Process, Target, World, process, run, wait};

/// A session that lasts until it is let go, or is ended.
pub(crate) struct Held {
    child: Leashed,
    gate: PathBuf,
}

impl Held {
    #[track_caller]
    pub(crate) fn start(world: &World, target: &Target, name: &str) -> Self {
        let gate = world.path(&format!("{name}-gate"));
        let command = format!("touch {0}; while [ -e {0} ]; do sleep 0.1; done", gate.display());
        let said = fs::File::create(gate.with_extension("stderr")).expect("a file");
        let mut ssh = target.openssh("ssh");
        let child = Leashed::start(ssh.arg("door").arg(&command).stderr(said));
        let held = Self { child, gate };
        wait::until("the session runs", wait::SOON, || held.gate.exists());
        held
    }

    fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn goes_on(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_none()
    }

    /// The exit status of a session that ends now.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> Option<i32> {
        wait::until("the session ends", wait::SOON, || !self.goes_on());
        self.child.wait().expect("a child of ours").code()
    }

    /// Lets the session end by itself.
    #[track_caller]
    pub(crate) fn let_go(mut self) {
        fs::remove_file(&self.gate).expect("the gate opens");
        assert_eq!(self.ended(), Some(0));
    }

    /// What its user read.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.gate.with_extension("stderr")).expect("stderr")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _opens = fs::remove_file(&self.gate);
    }
}

/// Sends SIGHUP and waits until the log tells what came of it.
#[track_caller]
pub(crate) fn reload(world: &mut World) -> String {
    let before = world.log().len();
    process::signal(world.edge().id(), Signal::SIGHUP);
    wait::until("the reload", wait::SOON, || world.log()[before..].contains("reloaded"));
    world.log()[before..].to_owned()
}

/// A VM of each of two users, at one address.
pub(crate) fn neighbours() -> Plan {
    World::usual_plan().user("bob").vm("green", "bob", "s001")
}

/// The same, by its configuration: also where nobody serves.
pub(crate) fn offline(world: &World, words: &[&str]) -> Output {
    let config = world.path("keyway.toml");
    run(Command::new(env!("CARGO_BIN_EXE_keyway")).args(words).arg("--config").arg(config))
}

/// Runs a command about the front door of `world`.
pub(crate) fn keyway(world: &World, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyway"));
    run(command.args(words).env("KEYWAY_SOCKET", world.path("state").join("keyway.sock")))
}

#[test]
fn a_rebuilt_vm_is_entered_once_its_host_key_is_forgotten() {
    if World::is_passed_by() {
        return;
    }
    let mut world = World::usual();
    let target = world.target("alice", "s001");
    let show = ["vm", "host-key", "show", "blue", "--output", "json"];
    assert!(keyway(&world, &show).ok().text().contains("\"pinned\":null"), "nobody was there yet");
    target.ssh(&[], "true").ok();
    let first = world.vm("blue").host_key.fingerprint();
    assert!(keyway(&world, &show).ok().text().contains(&first));
    let shown = keyway(&world, &["vm", "show", "blue"]).ok().text();
    let of = |field: &str| {
        let line = shown.lines().find(|line| line.starts_with(&format!("{field}  ")));
        line.map(|line| line[field.len()..].trim_start().to_owned()).expect("a field")
    };
    assert!(shown.contains(&format!("pinned key      {first}\n")), "{shown}");
    assert!(of("pinned").starts_with("20"), "{shown}");
    let line = "the host key of a VM is pinned at its first use";
    wait::until("the log tells", wait::SOON, || !told(&world.log(), line).is_empty());
    let line = &told(&world.log(), line)[0];
    assert_eq!((&line["vm"], &line["fingerprint"]), (&"blue".into(), &first.clone().into()));

    world.vm("blue").change_host_key();
    assert!(target.ssh(&[], "true").ends(255).stderr.contains("host key"), "another is pinned");
    reload(&mut world);
    assert!(target.ssh(&[], "true").ends(255).stderr.contains("host key"), "and stays it");
    keyway(&world, &["vm", "host-key", "forget", "blue"]).ok();
    assert_eq!(target.ssh(&[], "echo $KEYWAY_VM").ok().text(), "blue");
    let second = world.vm("blue").host_key.fingerprint();
    assert!(keyway(&world, &show).ok().text().contains(&second), "pinned anew");
    let audit = keyway(&world, &["audit", "list", "--output", "json"]).ok();
    let text = audit.text();
    let count = |word: &str| text.matches(&format!("\"{word}\"")).count();
    assert_eq!((count("vm-host-key-pin"), count("vm-host-key-forget")), (2, 1));
}

#[test]
fn what_left_the_fleet_file_while_nobody_served_never_comes_in_again() {
    if World::is_passed_by() {
        return;
    }
    let mut world = World::usual();
    let target = world.target("alice", "s001");
    target.ssh(&[], "true").ok();
    world.end();
    let fleet = world.path("fleet.toml");
    let text = fs::read_to_string(&fleet).expect("the fleet");
    let keys = text.lines().find(|line| line.starts_with("keys")).expect("keys of alice");
    fs::write(&fleet, text.replace(keys, "keys = []")).expect("the fleet");
    let config = world.path("keyway.toml");
    let again = Process::start("again", world.dir(), &mut serve(&world, &config));
    wait::until("the front door", wait::SOON, || again.log().contains("is up"));
    assert!(!again.log().contains("the routes are those saved last"), "{}", again.log());
    assert!(target.ssh(&[], "true").ends(255).stderr.contains("Permission denied"));
}

/// `keyway serve` on the files of `world`, with `config` as the first.
pub(crate) fn serve(world: &World, config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyway"));
    command.arg("serve").arg("--config").arg(config);
    command.arg("--fleet").arg(world.path("fleet.toml"));
    command
}

#[test]
fn a_second_process_on_one_state_directory_is_told_who_has_it() {
    if World::is_passed_by() {
        return;
    }
    let mut world = World::usual();
    let config = world.path("keyway.toml");
    let mut second = Process::start("second", world.dir(), &mut serve(&world, &config));
    let told = format!("(process {})", world.edge().id());
    wait::until("a word about it", wait::SOON, || second.log().contains(&told));
    // A third one would have to wait for both.
    let third = run(&mut serve(&world, &config));
    assert!(third.status != 0 && third.stderr.contains(&told), "{}", third.stderr);
    process::signal(second.id(), Signal::SIGTERM);
    wait::until("its end", wait::SOON, || second.has_ended());
    world.target("alice", "s001").ssh(&[], "true").ok();
}

#[test]
fn a_successor_opens_while_the_sessions_of_its_predecessor_go_on() {
    if World::is_passed_by() {
        return;
    }
    let mut world = neighbours().start();
    let target = world.target("alice", "s001");
    let mut held = Held::start(&world, &target, "alice");
    let mut other = Held::start(&world, &world.target("bob", "s001"), "bob");
    world.drain(&target);
    let config = world.path("keyway.toml");
    let mut successor = Process::start("successor", world.dir(), &mut serve(&world, &config));
    wait::listens(&mut successor, world.metrics());
    assert_eq!(target.ssh(&[], "echo $KEYWAY_VM").ok().text(), "blue");
    assert!(held.goes_on(), "the session was cut");
    // What the successor takes away ends sessions of its predecessor too.
    let key = world.key("alice").fingerprint();
    keyway(&world, &["key", "rm", "alice", &key]).ok();
    assert_eq!(held.ended(), Some(255));
    assert!(held.said().contains("was taken away"), "{}", held.said());
    assert!(other.goes_on(), "the session of somebody else was cut");
    other.let_go();
}

/// The log's lines that begin with `message`.
fn told(log: &str, message: &str) -> Vec<serde_json::Value> {
    let all = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    all.filter(|line| line["message"].as_str().is_some_and(|it| it.starts_with(message))).collect()
}

#[test]
fn the_log_says_what_a_start_is_from_and_what_a_drain_waits_for() {
    if World::is_passed_by() {
        return;
    }
    let mut world = neighbours().start();
    let begun = told(&world.log(), concat!("keyway ", env!("CARGO_PKG_VERSION"), " starts"));
    let [start] = &*begun else { panic!("{}", world.log()) };
    for (key, file) in [("config", "keyway.toml"), ("fleet", "fleet.toml"), ("state_dir", "state")]
    {
        assert_eq!(start[key], world.path(file).display().to_string(), "{key}");
    }
    assert!(!world.log().contains("the pool is empty"), "{}", world.log());
    let target = world.target("alice", "s001");
    let held = Held::start(&world, &target, "alice");
    world.drain(&target);
    wait::until("the line", wait::SOON, || !told(&world.log(), "draining").is_empty());
    assert_eq!(told(&world.log(), "draining")[0]["sessions"], 1, "{}", world.log());
    held.let_go();
    wait::until("the end", wait::SOON, || world.edge().has_ended());
    assert_eq!(told(&world.log(), "drained")[0]["sessions"], 0, "{}", world.log());

    let config = world.path("empty.toml");
    let text = fs::read_to_string(world.path("keyway.toml")).expect("keyway.toml");
    let state = world.path("state").display().to_string();
    fs::write(&config, text.replace(&state, &format!("{state}2"))).expect("a config");
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyway"));
    let empty =
        Process::start("empty", world.dir(), command.arg("serve").arg("--config").arg(&config));
    wait::until("the front door", wait::SOON, || empty.log().contains("is up"));
    assert_eq!(told(&empty.log(), "the pool is empty").len(), 1, "{}", empty.log());
}

#[test]
fn pins_of_an_installation_without_a_registry_bind_after_an_upgrade() {
    if World::is_passed_by() {
        return;
    }
    let mut world = neighbours().start();
    let (alice, bob) = (world.target("alice", "s001"), world.target("bob", "s001"));
    world.drain(&alice);
    wait::until("it ends", wait::SOON, || TcpStream::connect(world.metrics()).is_err());
    let state = world.path("state");
    for entry in fs::read_dir(&state).expect("the state directory").flatten() {
        fs::remove_file(entry.path()).expect("a file goes");
    }
    let pins = state.join("pins");
    let (own, other) = (world.vm("blue").host_key.public(), world.key("alice").public());
    let text = format!("blue {own} alice\ngreen {other} bob\n");
    fs::write(&pins, text.replace("green ", "green x")).expect("the pins");
    fs::set_permissions(&pins, fs::Permissions::from_mode(0o600)).expect("their mode");
    let config = world.path("keyway.toml");
    let output = run(&mut serve(&world, &config));
    assert!(output.status != 0 && output.stderr.contains("pins:2: "), "{}", output.stderr);

    fs::write(&pins, text).expect("the pins");
    let mut upgraded = Process::start("upgraded", world.dir(), &mut serve(&world, &config));
    wait::listens(&mut upgraded, world.metrics());
    assert!(state.join("pins.imported").exists() && !pins.exists());
    assert_eq!(alice.ssh(&[], "echo $KEYWAY_VM").ok().text(), "blue");
    assert!(bob.ssh(&[], "true").ends(255).stderr.contains("host key"), "another is pinned");
}

#[test]
fn more_sessions_than_the_descriptor_limit_carries_are_warned_of_at_start() {
    if World::is_passed_by() {
        return;
    }
    let plan = World::usual_plan();
    let world = plan.edge("sessions_max = 536870912").start();
    let line = || {
        let log = world.log();
        log.lines().find(|line| line.contains("536870912 sessions")).map(str::to_owned)
    };
    wait::until("the warning", wait::SOON, || line().is_some());
    let line = line().expect("just seen");
    assert!(line.contains("WARN") && line.contains("; fix: "), "{line}");
}

/// `target` with another key, and the certificate beside it.
pub(crate) fn with_key(world: &World, target: &Target, key: Key) -> Target {
    let text = fs::read_to_string(&target.config).expect("a config");
    let config = world.path("other_key_config");
    let (own, other) = (target.key.path().display().to_string(), key.path().display().to_string());
    fs::write(&config, text.replace(&own, &other)).expect("a config");
    Target { key, config, ..target.clone() }
}

/// Something that takes a right away.
type Change<'a> = Box<dyn Fn(&World) + 'a>;

/// Lets `krl` revoke what `of` holds: a public key, a CA's, or a certificate.
pub(crate) fn revoke(world: &World, of: &Path) {
    let krl = world.path("krl");
    run(Command::new("ssh-keygen").args(["-q", "-k", "-f"]).arg(&krl).arg(of)).ok();
    let config = fs::read_to_string(world.path("keyway.toml")).expect("keyway.toml");
    let config = config.replace("[edge]\n", "[edge]\nrevoked_keys = \"krl\"\n");
    fs::write(world.path("keyway.toml"), config).expect("keyway.toml");
}

pub(crate) fn replace(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).expect("a file");
    assert!(text.contains(from), "{from} is not in {text}");
    fs::write(file, text.replace(from, to)).expect("a file");
}

#[test]
fn sighup_ends_the_sessions_whose_right_is_gone_and_no_other() {
    if World::is_passed_by() {
        return;
    }
    let mut world = neighbours().user_ca().start();
    let (keyway, fleet) = (world.path("keyway.toml"), world.path("fleet.toml"));
    let laptop = Key::ed25519(world.dir(), "laptop");
    let certificate = laptop.certify(world.user_ca(), "alice", &["-V", "-5m:+1h", "-z", "7"]);
    let plain = world.target("alice", "s001");
    let certified = with_key(&world, &plain, laptop);
    let stranger = Key::ed25519(world.dir(), "stranger");
    let ca = world.user_ca().clone();
    let key = world.key("alice");

    let changes: [(&str, &Target, Change<'_>); 5] = [
        ("her key", &plain, Box::new(|_| replace(&fleet, &key.public(), &stranger.public()))),
        ("her key, in a KRL", &plain, Box::new(|world| revoke(world, &key.public_path()))),
        ("her certificate, in a KRL", &certified, Box::new(|world| revoke(world, &certificate))),
        ("its CA, in a KRL", &certified, Box::new(|world| revoke(world, &ca.public_path()))),
        ("its CA", &certified, Box::new(|_| replace(&keyway, "trusted_user_cas", "#"))),
    ];
    let mut bob = Held::start(&world, &world.target("bob", "s001"), "bob");
    let original = [&keyway, &fleet].map(|file| fs::read_to_string(file).expect("a file"));
    for (what, target, change) in changes {
        println!("{what}");
        let mut alice = Held::start(&world, target, "alice");
        change(&world);
        assert!(!reload(&mut world).contains("not reloaded"), "{}", world.log());
        assert_eq!(alice.ended(), Some(255), "{what}");
        let said = alice.said();
        assert!(said.contains("your access to blue was taken away"), "{what}: {said}");
        target.ssh(&[], "true").ends(255);
        assert!(bob.goes_on(), "bob's session was touched with {what}");
        for (file, text) in [&keyway, &fleet].into_iter().zip(&original) {
            fs::write(file, text).expect("a file");
        }
        assert!(!reload(&mut world).contains("not reloaded"), "{}", world.log());
    }
    bob.let_go();
}

/// The stopped one owes its answer for longer than the other has been idle.
#[test]
fn a_client_that_answers_nothing_is_given_up_and_an_idle_one_is_not() {
    if World::is_passed_by() {
        return;
    }
    let keys = "client_alive_interval_s = 1\nclient_alive_count_max = 2\n";
    let world = neighbours().edge(keys).start();
    let mut idle = Held::start(&world, &world.target("alice", "s001"), "alice");
    let stopped = Held::start(&world, &world.target("bob", "s001"), "bob");
    process::signal(stopped.id(), Signal::SIGSTOP);
    let end = || told(&world.log(), "connection ended").into_iter().find(|it| it["user"] == "bob");
    wait::until("its line", wait::SOON, || end().is_some());
    let end = end().expect("it was there");
    assert_eq!((&end["side"], &end["cause"]), (&"client".into(), &"deadline".into()), "{end}");
    assert!(idle.goes_on(), "{}", world.log());
    idle.let_go();
    drop(stopped);
}

#[test]
fn nine_first_logins_at_once_get_in_while_a_thousand_vms_are_made() {
    if World::is_passed_by() {
        return;
    }
    let mut plan = World::plan().user("alice").user("bob");
    for number in 1..=9 {
        let (vm, address) = (format!("vm{number}"), format!("s00{number}"));
        plan = plan.address(&address).vm(&vm, "alice", &address);
    }
    let world = plan.start();
    let vm = |number| {
        format!(
            "[[vm]]\nname = \"more{number}\"\nowner = \"bob\"\nssh = \"127.0.0.1:9\"\nno_address = true\n"
        )
    };
    let many = world.path("many.toml");
    fs::write(&many, (0..1000).map(vm).collect::<String>()).expect("a fleet");
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyway"));
    command.args(["apply", "--yes", "-f"]).arg(&many);
    command.env("KEYWAY_SOCKET", world.path("state").join("keyway.sock"));
    let mut apply = Process::start("apply", world.dir(), &mut command);
    let mut logins: Vec<Process> = (1..=9)
        .map(|number| {
            let target = world.target("alice", &format!("s00{number}"));
            let mut ssh = target.openssh("ssh");
            ssh.args(["door", "echo in $KEYWAY_VM"]);
            Process::start(&format!("login-{number}"), world.dir(), &mut ssh)
        })
        .collect();
    for (login, number) in logins.iter_mut().zip(1..) {
        wait::until("a login ends", wait::SOON, || login.has_ended());
        assert_eq!(login.log(), format!("in vm{number}\n"));
    }
    wait::until("the plan is carried out", wait::SOON, || apply.has_ended());
    assert!(apply.log().contains("1000 changes made"), "{}", apply.log());
}
