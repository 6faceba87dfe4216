//! What operators read of people who were not let in: one line each, with what they offered and why
//! not, in words that `docs/fail2ban.md` bans by.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::keys::Agent;
use crate::harness::{Key, Output, Target, World, peers, run, wait};

/// The log's lines that hold `message`.
fn lines(world: &World, message: &str) -> Vec<Value> {
    let log = world.log();
    let all = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    all.filter(|line| line["message"] == message).collect()
}

/// `ssh` to `target` of somebody with these keys and no other, whoever the target was made for.
fn offer_as(world: &World, target: &Target, keys: &[&Key], login: &str) -> Output {
    let agent = Agent::with(world.dir(), keys);
    let output = run(Command::new("ssh")
        .env("SSH_AUTH_SOCK", agent.socket())
        .args(["-F", "none", "-o", "IdentityFile=none", "-o", "IdentityAgent=SSH_AUTH_SOCK"])
        .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
        .args(["-l", login, "-p", &target.port.to_string(), &target.host, "true"]));
    fs::remove_file(agent.socket()).expect("the agent's socket goes");
    output
}

/// The same, and how it ended.
fn offer(world: &World, target: &Target, keys: &[&Key]) -> i32 {
    offer_as(world, target, keys, &target.login).status
}

fn keys(world: &World, count: u32) -> Vec<Key> {
    (0..count).map(|at| Key::ed25519(world.dir(), &format!("wrong{at}"))).collect()
}

fn plan() -> World {
    let plan = World::plan().address("s001").address("s002").user("alice").user("bob");
    plan.vm("blue", "alice", "s001").vm("green", "bob", "s001").start()
}

#[test]
fn a_denied_login_is_one_line_with_what_was_offered_where_to_and_why_not() {
    if World::is_passed_by() {
        return;
    }
    let world = plan();
    let target = world.target("alice", "s002");
    let wrong = keys(&world, 8);
    assert_eq!(offer(&world, &target, &[&world.key("alice"), &wrong[0]]), 255);
    wait::until("the line", wait::SOON, || !lines(&world, "login denied").is_empty());
    let all = lines(&world, "login denied");
    let [line] = &*all else { panic!("{all:?}") };
    let text = |key: &str| line[key].as_str().unwrap_or_default();
    assert_eq!(text("address"), "s002");
    assert_eq!(text("dialled"), target.host);
    assert_eq!(text("login"), target.login);
    assert_eq!(line["stranger"], false, "one of the keys is somebody's");
    let (alice, other) = (world.key("alice").fingerprint(), wrong[0].fingerprint());
    assert_eq!(text("denied"), format!("{alice} no_vm_here, {other} not_registered"));
    assert_eq!((text("side"), text("stage")), ("client", "authentication"));
    assert!(lines(&world, "connection ended").iter().all(|line| line["client"] != text("client")));

    assert_eq!(offer(&world, &target, &wrong.iter().collect::<Vec<_>>()), 255);
    wait::until("the line", wait::SOON, || lines(&world, "login denied").len() == 2);
    let line = lines(&world, "login denied").pop().expect("just seen");
    let denied = line["denied"].as_str().unwrap_or_default();
    assert_eq!(denied.matches("not_registered").count(), 6, "{denied}");
    assert!(denied.ends_with(", 2 more"), "{denied}");
    assert_eq!(line["stranger"], true);
}

/// Anybody can write one: only its CA could say that it is alice's, and nobody asked.
#[test]
fn what_an_unverified_certificate_says_is_marked_and_counts_as_a_strangers() {
    if World::is_passed_by() {
        return;
    }
    let plan = World::usual_plan();
    let world = plan.user_ca().start();
    let (key, target) = (Key::ed25519(world.dir(), "ghost"), world.target("alice", "s001"));
    let expired = key.certify(world.user_ca(), "alice", &["-V", "20200101:20200102"]);
    let own = target.key.path().display().to_string();
    let text = fs::read_to_string(&target.config).expect("a config");
    let text = text.replace(&own, &key.path().display().to_string());
    let config = world.path("ghost_config");
    fs::write(&config, format!("CertificateFile {}\n{text}", expired.display())).expect("a config");
    run(Command::new("ssh").arg("-F").arg(&config).args(["door", "true"])).ends(255);
    wait::until("the line", wait::SOON, || !lines(&world, "login denied").is_empty());
    let all = lines(&world, "login denied");
    let denied = all[0]["denied"].as_str().unwrap_or_default();
    let key = key.fingerprint();
    assert!(denied.contains(&format!("{key} certificate_expired (unverified)")), "{denied}");
    assert!(denied.contains(&format!("{key} not_registered")), "{denied}");
    assert_eq!(all[0]["stranger"], true);
}

/// Trap 5: a ban by such lines must not hit people whose agents hold many keys.
#[test]
fn trap_5_whoever_gets_in_is_not_denied_whatever_was_offered_before() {
    if World::is_passed_by() {
        return;
    }
    let world = plan();
    let wrong = keys(&world, 5);
    let alice = world.key("alice");
    let all: Vec<&Key> = wrong.iter().chain([&alice]).collect();
    assert_eq!(offer(&world, &world.target("alice", "s001"), &all), 0);
    wait::until("the end", wait::SOON, || {
        lines(&world, "connection ended").iter().any(|line| line["user"] == "alice")
    });
    assert_eq!(lines(&world, "login denied"), Vec::<Value>::new());
    for line in lines(&world, "connection ended") {
        assert!(!line.to_string().contains(&wrong[0].fingerprint()), "{line}");
    }
}

#[test]
fn a_login_name_and_a_flood_of_them_do_no_harm_to_the_log() {
    if World::is_passed_by() {
        return;
    }
    let world = plan();
    let target = world.target("alice", "s002");
    let wrong = keys(&world, 1);
    let forged = "x stranger=true client=203.0.113.9:1";
    for _ in 0..25 {
        assert_eq!(offer_as(&world, &target, &[&wrong[0]], forged).status, 255);
    }
    wait::until("a line that says how many", wait::SOON, || {
        !lines(&world, "connections without a proved key ended; not logged one by one").is_empty()
    });
    let all = lines(&world, "login denied");
    assert!((20..25).contains(&all.len()), "{}", all.len());
    for line in &all {
        assert!(line["client"].as_str().is_some_and(|it| it.starts_with("127.")), "{line}");
        assert!(line["login"].as_str().is_some_and(|it| it == forged), "{line}");
    }
}

#[test]
fn an_address_that_is_not_in_the_pool_is_named() {
    if World::is_passed_by() {
        return;
    }
    let plan = World::usual_plan();
    let other = "127.99.99.99";
    let world = plan.listen(other.parse().expect("an address")).start();
    let to = std::net::SocketAddr::new(
        other.parse().expect("an address"),
        world.target("alice", "s001").port,
    );
    drop(std::net::TcpStream::connect(to).expect("it listens"));
    wait::until("the line", wait::SOON, || {
        lines(&world, "connection ended")
            .iter()
            .any(|line| line["cause"] == "not_in_pool" && line["dialled"] == other)
    });
}

/// The expressions of the filter in `docs/fail2ban.md`.
fn expressions() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/fail2ban.md");
    let text = fs::read_to_string(path).expect("the document");
    let (_, filter) = text.split_once("failregex = ").expect("a filter");
    let all = filter.lines().take_while(|line| !line.contains("journalmatch"));
    all.map(|line| line.trim().to_owned()).collect()
}

#[test]
fn the_filter_for_fail2ban_finds_strangers_and_nobody_else() {
    if World::is_passed_by() {
        return;
    }
    let Some(python) = peers::python("python") else { return };
    // As fail2ban reads a line: what it took for the time is cut out.
    let script = r#"
import re, sys
found = []
for line in open(sys.argv[1]):
    line = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", "", line, count=1)
    for regex in sys.argv[2:]:
        regex = regex.replace("<ADDR>", r"(?P<ip>[0-9a-fA-F:.]+)")
        match = re.search(regex, line)
        if match:
            found.append(match.group("ip").rstrip("]"))
print(" ".join(found))
"#;
    for form in ["json", "readable"] {
        let plan = World::plan().address("s001").address("s002").user("alice");
        let mut world = plan.vm("blue", "alice", "s001").start();
        if form == "readable" {
            let config = world.path("keyway.toml");
            let text = fs::read_to_string(&config).expect("a config");
            fs::write(&config, text.replace("log = \"json\"", "log = \"readable\""))
                .expect("a config");
            world.restart();
        }
        let target = world.target("alice", "s002");
        let wrong = keys(&world, 1);
        for keys in [&[&wrong[0]][..], &[&world.key("alice")]] {
            assert_eq!(offer(&world, &target, keys), 255);
        }
        wait::until("the lines", wait::SOON, || world.log().matches("login denied").count() == 2);
        let log = world.path("log");
        fs::write(&log, world.log()).expect("a file");
        let mut command = Command::new(&python);
        let found = run(command.args(["-c", script]).arg(&log).args(expressions())).ok().text();
        assert_eq!(found.split_whitespace().count(), 1, "{form}: {found:?}\n{}", world.log());
        assert!(found.starts_with("127."), "{found}");
    }
}

#[test]
fn maintenance_is_told_to_those_it_concerns_and_in_constant_words_to_others() {
    if World::is_passed_by() {
        return;
    }
    let world = plan();
    let keyway = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyway"));
        run(command.args(words).env("KEYWAY_SOCKET", world.path("state/keyway.sock"))).ok();
    };
    let told = |cause: &str| {
        wait::until("the line", wait::SOON, || {
            lines(&world, "connection ended").iter().any(|line| line["cause"] == cause)
        });
    };
    let target = world.target("alice", "s001");
    keyway(&["vm", "set", "blue", "--state", "maint"]);
    let said = target.ssh(&[], "true").ends(255).stderr;
    assert!(said.contains("blue is in maintenance"), "{said}");
    told("vm_maintenance");
    let bob = world.target("bob", "s001");
    assert_eq!(bob.ssh(&[], "echo $KEYWAY_VM").ok().text(), "green", "nobody else is concerned");

    keyway(&["address", "maint", "s001"]);
    let said = target.ssh(&[], "true").ends(255).stderr;
    assert!(said.contains("the address you dialled is in maintenance"), "{said}");
    told("address_maintenance");
    let heard: Vec<String> = keys(&world, 2)
        .iter()
        .map(|key| offer_as(&world, &target, &[key], "root").ends(255).stderr)
        .collect();
    assert!(heard[0].contains("the address you connected to is in maintenance"), "{heard:?}");
    assert_eq!(heard[0], heard[1]);
}
