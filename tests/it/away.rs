//! The registry is away, or its disk is full: people get in, operators see, and nothing says
//! that all is well.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::audit::scrape;
use crate::harness::network::may_miss;
use crate::harness::{Process, World, run, wait};
use crate::operations::{Held, keyway, neighbours};

/// `keyway_registry_up`, as it is scraped.
fn is_up(world: &World) -> bool {
    let page = scrape(world);
    let value = page.lines().find_map(|line| line.strip_prefix("keyway_registry_up "));
    value.expect("the gauge") == "1"
}

/// What is said of the registry by `status`, which ends with `code`, and by `/readyz`.
#[track_caller]
fn told(world: &World, code: i32) -> [String; 2] {
    let status = keyway(world, &["status", "--output", "json"]).ends(code).stdout;
    let status: serde_json::Value = serde_json::from_slice(&status).expect("JSON");
    let parts = status["parts"].as_array().expect("parts");
    let part = parts.iter().find(|part| part["part"] == "registry").expect("the registry");
    let ready = world.page("/readyz");
    assert!(ready.starts_with("HTTP/1.1 200 "), "people get in: {ready}");
    assert!(world.page("/healthz").ends_with("\r\nok\n"), "the process works");
    let state = part["state"].as_str().expect("a word").to_owned();
    [state, ready.split_once("\r\n\r\n").expect("a body").1.to_owned()]
}

/// The id of the one session there is: one whose client has left stands there for a moment more.
pub(crate) fn session(world: &World) -> String {
    let mut list = serde_json::Value::Null;
    wait::until("one session", wait::SOON, || {
        let said = keyway(world, &["session", "list", "--output", "json"]).ok();
        list = serde_json::from_slice(&said.stdout).expect("JSON");
        list.as_array().map(Vec::len) == Some(1)
    });
    list[0]["id"].as_str().expect("an id").to_owned()
}

#[test]
fn with_a_damaged_store_people_get_in_and_operators_see_what_is_known() {
    if World::is_passed_by() {
        return;
    }
    let mut world = neighbours().start();
    let target = world.target("alice", "s001");
    target.ssh(&[], "true").ok();
    let known = keyway(&world, &["vm", "list", "--output", "json"]).ok().text();
    assert!(is_up(&world));
    assert_eq!(told(&world, 0), ["up", "ok\n"]);
    world.end();
    let store = world.path("state").join("registry.db");
    let files = ["", "-wal", "-shm"].map(|end| format!("{}{end}", store.display()));
    let sound = files.map(|file| (fs::read(&file).unwrap_or_default(), file));
    for (_, file) in &sound {
        fs::write(file, b"this is no store any more").expect("a damage");
    }
    world.restart();

    assert_eq!(target.ssh(&[], "echo $KEYWAY_VM").ok().text(), "blue");
    let held = Held::start(&world, &target, "alice");
    assert!(!is_up(&world));
    let [state, ready] = told(&world, 1);
    assert!(state == "down" && ready.contains("Registry: ") && ready.contains("registry.db"));

    // All of a list but what only the registry knows.
    let list = keyway(&world, &["vm", "list"]).ok();
    assert!(list.text().contains("blue") && list.text().contains("green"), "{}", list.text());
    let warned = |text: &str| text.matches("warning: the registry is away: ").count();
    assert_eq!(warned(&list.stderr), 1, "{}", list.stderr);
    assert!(list.stderr.contains("registry.db") && list.stderr.contains("restarted"));
    let fields = |text: &str| {
        let mut list: serde_json::Value = serde_json::from_str(text).expect("JSON");
        for vm in list.as_array_mut().expect("a list") {
            vm["revision"].take();
            vm["origin"].take();
            vm["pinned"]["at_s"].take();
        }
        list
    };
    let shown = keyway(&world, &["vm", "list", "--output", "json"]).ok().text();
    assert_eq!(fields(&shown), fields(&known));
    assert!(known.contains(r#""origin":"fleet""#) && shown.contains(r#""origin":null"#), "{shown}");
    let show = keyway(&world, &["vm", "show", "blue"]).ok();
    assert!(warned(&show.stderr) == 1 && show.text().contains("alice"), "{}", show.stderr);
    let key = world.key("alice").public_path();
    let explain = ["explain", "--name", "blue", "--key", key.to_str().expect("a path")];
    assert!(keyway(&world, &explain).ok().text().contains("blue"));

    let id = session(&world);
    let kill = keyway(&world, &["session", "kill", &id]).ok();
    assert!(kill.stderr.contains("warning: it is not in the audit log: "), "{}", kill.stderr);
    let mut held = held;
    assert_eq!(held.ended(), Some(255));
    assert!(held.said().contains("an operator ended this session"), "{}", held.said());

    for words in [&["user", "add", "dora"][..], &["vm", "rm", "blue"], &["audit", "list"]] {
        let refused = keyway(&world, words).ends(1);
        let said = &refused.stderr;
        assert!(said.contains("the registry is away: ") && said.contains("registry.db"), "{said}");
        assert!(said.trim_end().ends_with("[registry-away]"), "{said}");
    }
    // The files can be read again all the same, but for the fleet's.
    let reload = keyway(&world, &["reload"]).ends(1);
    assert!(reload.text().contains("the registry is not open"), "{}", reload.text());

    world.end();
    for (bytes, file) in sound {
        fs::write(file, bytes).expect("the store is mended");
    }
    world.restart();
    assert!(is_up(&world));
    assert_eq!(told(&world, 0), ["up", "ok\n"]);
    let add = keyway(&world, &["user", "add", "dora"]).ok();
    assert_eq!(add.stderr, "");
    assert_eq!(target.ssh(&[], "echo $KEYWAY_VM").ok().text(), "blue");
}

#[test]
fn a_document_that_cannot_be_read_is_met_behind_an_open_door() {
    if World::is_passed_by() {
        return;
    }
    let mut world = World::usual();
    let target = world.target("alice", "s001");
    target.ssh(&[], "true").ok();
    world.end();
    let store = world.path("state").join("registry.db");
    let store = rusqlite::Connection::open(store).expect("the store");
    let damage = "UPDATE kv SET value = x'7b' WHERE key = 'user/alice'";
    assert_eq!(store.execute(damage, ()).expect("a damage"), 1);
    drop(store);
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyway"));
    command.arg("serve").arg("--config").arg(world.path("keyway.toml"));
    let mut process = Process::start("damaged", world.dir(), &mut command);
    wait::listens(&mut process, world.metrics());
    let at_once = || process.log().contains("the routes are those saved last");
    wait::until("it opens at once", wait::SOON, at_once);
    assert_eq!(target.ssh(&[], "echo $KEYWAY_VM").ok().text(), "blue");
    assert!(!is_up(&world));
    let [state, ready] = told(&world, 1);
    assert!(state == "down" && ready.contains("user/alice"), "{state}: {ready}");
    let list = keyway(&world, &["vm", "list"]).ok();
    assert!(list.text().contains("blue") && list.stderr.contains("user/alice"), "{}", list.stderr);
    let refused = keyway(&world, &["user", "add", "dora"]).ends(1).stderr;
    assert!(refused.contains("user/alice") && refused.contains("[registry-away]"), "{refused}");
}

/// A small disk of its own.
struct Disk(PathBuf);

impl Disk {
    /// `None` where nothing can be mounted, and that may be.
    fn mount(at: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs"]).arg(at);
        let mounted = run(&mut mount);
        if mounted.status != 0 {
            may_miss("mount", &format!("mount: {}; it takes root", mounted.stderr));
            return None;
        }
        Some(Self(at.to_owned()))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    fn fill(&self) {
        let mut ballast = fs::File::create(self.ballast()).expect("a file");
        while ballast.write(&[0; 4096]).is_ok_and(|count| count > 0) {}
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).expect("room");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still has it open keeps it until it ends.
        let _unmounted = run(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

#[test]
fn a_full_disk_is_told_of_until_there_is_room_again() {
    if World::is_passed_by() {
        return;
    }
    let mut world = World::usual();
    let target = world.target("alice", "s001");
    world.end();
    let Some(disk) = Disk::mount(&world.path("state")) else { return };
    world.restart();
    target.ssh(&[], "true").ok();
    assert!(is_up(&world));

    disk.fill();
    let mut number = 0;
    let mut refused = None;
    wait::until("the disk is full", wait::SOON, || {
        number += 1;
        let add = keyway(&world, &["user", "add", &format!("u{number}")]);
        refused = Some(add).filter(|add| add.status != 0);
        refused.is_some()
    });
    let refused = refused.expect("just seen").ends(1).stderr;
    assert!(refused.contains("no space left; fix: make room"), "{refused}");
    assert!(refused.trim_end().ends_with("[registry-away]"), "{refused}");
    assert!(!is_up(&world));
    let [state, ready] = told(&world, 1);
    assert!(state == "down" && ready.contains("make room"), "{state}: {ready}");
    // What is known is as it was, and said without a word of doubt.
    let list = keyway(&world, &["vm", "list"]).ok();
    assert!(list.text().contains("blue") && list.stderr.is_empty(), "{}", list.stderr);
    assert_eq!(target.ssh(&[], "echo $KEYWAY_VM").ok().text(), "blue");

    disk.make_room();
    wait::until("it is tried again", wait::SOON, || is_up(&world));
    assert_eq!(told(&world, 0), ["up", "ok\n"]);
    keyway(&world, &["user", "add", &format!("u{number}")]).ok();
    let audit = keyway(&world, &["audit", "list"]).ok().text();
    assert_eq!(audit.matches("store-fault").count(), 1, "{audit}");
}
