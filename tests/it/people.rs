//! Who reaches which VM, and what people read when they reach none. Only Keyway does these things.

use std::fs;
use std::process::Command;

use keyway::ssh::userauth::OFFERS_MAX;

use crate::harness::keys::Agent;
use crate::harness::{Key, Leashed, Target, World, run, wait};

#[track_caller]
fn reaches(target: &Target) -> String {
    target.ssh(&[], "echo $KEYWAY_VM").ok().text()
}

/// `target` with another user name in its configuration.
fn as_login(world: &World, target: &Target, login: &str) -> Target {
    let config = world.path("login_config");
    let text = fs::read_to_string(&target.config).expect("a config");
    let usual = format!("User {}\n", target.login);
    assert!(text.contains(&usual));
    fs::write(&config, text.replace(&usual, &format!("User {login}\n"))).expect("a config");
    Target { config, login: login.to_owned(), ..target.clone() }
}

#[test]
fn the_key_and_the_address_together_choose_the_vm() {
    if World::is_passed_by() {
        return;
    }
    let world = World::two_users();
    assert_eq!(reaches(&world.target("alice", "s001")), "blue");
    assert_eq!(reaches(&world.target("alice", "s002")), "red");
    assert_eq!(reaches(&world.target("bob", "s001")), "green");
}

/// What `ssh` says to somebody who offers `keys` and hands over to nobody.
fn said_to(target: &Target, agent: &Agent, options: &[&str]) -> Vec<String> {
    let output =
        run(target.ssh_with_agent(agent).args(options).args(["door", "echo $KEYWAY_VM"])).ends(255);
    assert_eq!(output.text(), "");
    output.stderr.lines().map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn keys_without_a_vm_here_read_why_in_the_same_words_whoever_holds_them() {
    if World::is_passed_by() {
        return;
    }
    for edge in ["", "hide_keys = true"] {
        let world = World::two_users_plan().lobby("s003").edge(edge).start();
        // Bob has a VM, but none behind this address.
        let target = world.target("bob", "s002");
        let (bob, stranger) = (world.key("bob"), Key::ed25519(world.dir(), "stranger"));
        let lobby = world.target("bob", "s003").host;
        let mut all = vec![];
        for keys in [&[&bob][..], &[&stranger], &[&stranger, &bob]] {
            let agent = Agent::with(world.dir(), keys);
            let said = said_to(&target, &agent, &["-o", "BatchMode=no"]);
            let batch = said_to(&target, &agent, &[]);
            assert_eq!(batch.len(), 1, "{batch:?}");
            assert!(batch[0].contains("Permission denied (publickey"), "{batch:?}");
            fs::remove_file(agent.socket()).expect("the agent's socket goes");
            all.push(said);
        }
        let [first, others @ ..] = &*all else { panic!("three kinds of people") };
        assert!(others.iter().all(|said| said == first), "{all:?}");
        let [words, denied] = &**first else { panic!("words and the end: {first:?}") };
        assert!(words.contains("no VM answers here for the keys"), "{words}");
        assert!(words.contains(&format!("`ssh {lobby}`")), "{words}");
        assert!(denied.ends_with("Permission denied (publickey)."), "{denied}");
        assert!(world.vms.iter().all(|vm| !vm.log().contains("Accepted")), "some VM let bob in");
    }
}

#[test]
fn somebody_whose_second_key_is_right_reads_nothing_about_the_first() {
    if World::is_passed_by() {
        return;
    }
    let world = World::two_users();
    let (bob, alice) = (world.key("bob"), world.key("alice"));
    let agent = Agent::with(world.dir(), &[&bob, &alice]);
    let target = world.target("alice", "s002");
    let output =
        run(target.ssh_with_agent(&agent).args(["-o", "BatchMode=no", "door", "echo $KEYWAY_VM"]))
            .ok();
    assert_eq!((output.text().as_str(), output.stderr.as_str()), ("red", ""));
}

#[test]
fn somebody_out_of_attempts_reads_the_same_words_whatever_they_offered() {
    if World::is_passed_by() {
        return;
    }
    let world = World::two_users();
    let target = world.target("bob", "s002");
    let banner = |names: &[&str]| {
        let keys: Vec<Key> = names.iter().map(|name| Key::ed25519(world.dir(), name)).collect();
        let bob = world.key("bob");
        let agent = Agent::with(world.dir(), &keys.iter().chain([&bob]).collect::<Vec<_>>());
        let output = run(target.ssh_with_agent(&agent).args(["door", "true"])).ends(255);
        fs::remove_file(agent.socket()).expect("the agent's socket goes");
        output.stderr.lines().filter(|line| line.contains("VM")).collect::<Vec<_>>().join("\n")
    };
    let many: Vec<String> = (0..OFFERS_MAX).map(|n| format!("stranger{n}")).collect();
    let first = banner(&many.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(!first.is_empty(), "no words for somebody who ran out of attempts");
    let others: Vec<String> = (0..OFFERS_MAX).map(|n| format!("other{n}")).collect();
    assert_eq!(first, banner(&others.iter().map(String::as_str).collect::<Vec<_>>()));
}

#[test]
fn six_keys_of_which_the_fifth_is_right_get_in_again_and_again() {
    if World::is_passed_by() {
        return;
    }
    let world = World::two_users();
    let target = world.target("alice", "s001");
    let wrong: Vec<Key> =
        (0..5).map(|at| Key::ed25519(world.dir(), &format!("wrong{at}"))).collect();
    let (alice, bob) = (world.key("alice"), world.key("bob"));
    let agent =
        Agent::with(world.dir(), &[&wrong[0], &wrong[1], &wrong[2], &wrong[3], &alice, &wrong[4]]);
    for _ in 0..10 {
        let output = run(target.ssh_with_agent(&agent).args(["door", "echo $KEYWAY_VM"])).ok();
        assert_eq!(output.text(), "blue");
    }
    fs::remove_file(agent.socket()).expect("the agent's socket goes");
    drop(agent);
    let agent = Agent::with(world.dir(), &[&bob, &alice]);
    let output =
        run(world.target("alice", "s002").ssh_with_agent(&agent).args(["door", "echo $KEYWAY_VM"]))
            .ok();
    assert_eq!(output.text(), "red", "a key that is good elsewhere stands before the right one");
}

#[test]
fn a_vm_that_is_down_is_named_on_stderr_and_never_costs_another_key() {
    if World::is_passed_by() {
        return;
    }
    let mut world = World::two_users();
    world.vm("blue").down();
    let target = world.target("alice", "s001");
    let output = target.ssh(&["-v"], "echo never").ends(255);
    assert_eq!(output.text(), "", "stdout would break scp, sftp and git");
    let words = |stderr: &str| {
        stderr.lines().filter(|line| !line.starts_with("debug1:")).collect::<Vec<_>>().join("\n")
    };
    assert!(words(&output.stderr).contains("blue"), "{}", output.stderr);
    assert!(words(&output.stderr).contains("request"), "no request id: {}", output.stderr);
    assert!(
        output.stderr.contains("Authenticated to"),
        "answered as a failed login: {}",
        output.stderr
    );
    assert!(!output.stderr.contains("Permission denied"), "{}", output.stderr);
    // A request in a packet larger than most.
    let output = target.ssh(&[], &format!("echo never # {}", "x".repeat(100_000))).ends(255);
    assert!(output.stderr.contains("blue"), "a long command: {}", output.stderr);

    let output = run(target.openssh("scp").arg("door:/etc/hostname").arg(world.path("copy")));
    assert_ne!(output.status, 0);
    assert!(output.stderr.contains("blue"), "scp: {}", output.stderr);
    let output = target.ssh(&["-W", "127.0.0.1:1"], "").ends(255);
    assert!(output.stderr.contains("blue"), "a forward: {}", output.stderr);

    world.vm("blue").up();
    assert_eq!(reaches(&target), "blue", "the way back needs nobody's help");
}

#[test]
fn a_control_master_never_outlives_a_failed_session() {
    if World::is_passed_by() {
        return;
    }
    let mut world = World::two_users();
    world.vm("blue").down();
    let target = world.target("alice", "s001");
    let socket = world.path("master").display().to_string();
    let options = ["-o", "ControlMaster=auto", "-o", "ControlPersist=600", "-S", &socket];
    target.ssh(&options, "true").ends(255);
    world.vm("blue").up();
    let output = target.ssh(&options, "echo $KEYWAY_VM").ok();
    assert_eq!(output.text(), "blue");
    run(target.openssh("ssh").args(["-S", &socket, "-O", "exit", "door"])).ok();
}

#[test]
fn a_vm_with_another_host_key_is_refused_until_an_operator_says_so() {
    if World::is_passed_by() {
        return;
    }
    let mut world = World::two_users();
    let target = world.target("alice", "s001");
    assert_eq!(reaches(&target), "blue");
    world.vm("blue").change_host_key();
    for _ in 0..2 {
        let output = target.ssh(&[], "echo $KEYWAY_VM").ends(255);
        assert_eq!(output.text(), "");
        assert!(output.stderr.contains("blue"), "{}", output.stderr);
        assert!(output.stderr.contains("host key"), "{}", output.stderr);
    }
    assert_eq!(reaches(&world.target("bob", "s001")), "green", "others go on");
}

#[test]
fn a_given_pin_is_checked_before_the_first_login() {
    if World::is_passed_by() {
        return;
    }
    let other = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let world = World::plan()
        .address("s001")
        .user("alice")
        .vm_with("blue", "alice", "s001", &format!("host_key = \"{other}\"\n"))
        .start();
    let output = world.target("alice", "s001").ssh(&[], "true").ends(255);
    assert!(output.stderr.contains("host key"), "{}", output.stderr);
    assert!(!world.vms[0].log().contains("Accepted"), "a login before the host key was checked");
}

#[test]
fn a_login_with_a_vm_name_goes_there_from_any_address() {
    if World::is_passed_by() {
        return;
    }
    let world = World::two_users();
    let target = world.target("alice", "s001");
    let named = |name: &str| as_login(&world, &target, &format!("{}+{name}", target.login));
    assert_eq!(reaches(&named("red")), "red");
    assert_eq!(reaches(&named("blue")), "blue");
    for forbidden in ["green", "no-such-vm", ""] {
        let output = named(forbidden).ssh(&[], "echo $KEYWAY_VM").ends(255);
        assert_eq!(output.text(), "", "{forbidden}");
        assert!(output.stderr.contains("Permission denied"), "{forbidden}: {}", output.stderr);
    }
}

#[test]
fn certificates_can_name_the_login_for_vms_that_know_no_names() {
    if World::is_passed_by() {
        return;
    }
    let world = World::usual_plan()
        .vm_leg("principals = \"login\"")
        .sshd("AuthorizedPrincipalsFile none")
        .start();
    assert_eq!(reaches(&world.target("alice", "s001")), "blue");
}

#[test]
fn a_fixed_login_wins_over_the_name_the_user_asked_for() {
    if World::is_passed_by() {
        return;
    }
    let login = crate::harness::target::login();
    let world = World::plan()
        .address("s001")
        .user("alice")
        .vm_with("blue", "alice", "s001", &format!("login = \"{login}\"\n"))
        .start();
    let target = as_login(&world, &world.target("alice", "s001"), "whoever");
    assert_eq!(target.ssh(&[], "id -un").ok().text(), login);
}

#[test]
fn a_login_that_the_vm_refuses_is_told_and_spared_the_vm_for_a_while() {
    if World::is_passed_by() {
        return;
    }
    let world = World::two_users();
    let target = as_login(&world, &world.target("alice", "s001"), "no-such-login");
    for _ in 0..3 {
        let output = target.ssh(&[], "true").ends(255);
        assert!(output.stderr.contains("no-such-login"), "{}", output.stderr);
    }
    let tries = world.vms[0].log().matches("Invalid user no-such-login").count();
    assert_eq!(tries, 1, "the VM's sshd would punish every user of the edge");
    assert_eq!(reaches(&world.target("alice", "s001")), "blue");
}

#[test]
fn the_lobby_lists_the_vms_of_whoever_asks() {
    if World::is_passed_by() {
        return;
    }
    let world = World::plan()
        .address("s001")
        .lobby("lobby")
        .user("alice")
        .user("bob")
        .vm("blue", "alice", "s001")
        .vm("green", "bob", "s001")
        .start();
    let alice = world.target("alice", "lobby").ssh(&[], "").ends(0).text();
    assert!(alice.contains("blue") && alice.contains("s001"), "{alice}");
    assert!(!alice.contains("green"), "{alice}");
    let bob =
        run(world.target("bob", "lobby").openssh("ssh").args(["door", "--", "--json"])).ok().text();
    assert!(bob.trim_start().starts_with(['[', '{']) && bob.contains("\"green\""), "{bob}");
    let stranger = Key::ed25519(world.dir(), "stranger");
    let target = world.target("alice", "lobby");
    let text = fs::read_to_string(&target.config).expect("a config");
    let config = world.path("stranger_config");
    let own = target.key.path().display().to_string();
    fs::write(&config, text.replace(&own, &stranger.path().display().to_string()))
        .expect("a config");
    run(Command::new("ssh").arg("-F").arg(&config).args(["door", "true"])).ends(255);
}

#[test]
fn a_full_server_says_so() {
    if World::is_passed_by() {
        return;
    }
    let world = World::usual_plan().edge("sessions_max = 1").start();
    let target = world.target("alice", "s001");
    let gate = world.path("gate");
    let command = format!("touch {0}; while [ -e {0} ]; do sleep 0.1; done", gate.display());
    let held = crate::harness::Process::start(
        "held",
        world.dir(),
        target.openssh("ssh").arg("door").arg(&command),
    );
    wait::until("the first session runs", wait::SOON, || gate.exists());
    let output = target.ssh(&[], "true").ends(255);
    assert!(output.stderr.contains("sessions"), "{}", output.stderr);
    fs::remove_file(&gate).expect("the gate opens");
    drop(held);
    let again = wait::happens(wait::SOON, || target.ssh(&[], "true").status == 0);
    assert!(again, "the place of a session that ended is free again");
}

#[test]
fn an_ended_connection_leaves_one_line_with_who_and_where() {
    if World::is_passed_by() {
        return;
    }
    let world = World::two_users();
    let before = world.log().lines().count();
    let target = world.target("alice", "s001");
    target.ssh(&[], "sleep 1.2").ok();
    let lines = || {
        let log = world.log();
        log.lines()
            .skip(before)
            .filter(|line| line.contains("alice") && line.contains("blue"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    wait::until("the session's line", wait::SOON, || !lines().is_empty());
    let lines = lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with('{'), "{lines:?}");
    for part in [world.key("alice").fingerprint().as_str(), "\"s001\"", "\"client\""] {
        assert!(lines[0].contains(part), "{part} is not in {lines:?}");
    }
    let (_, rest) = lines[0].split_once("\"seconds\":").expect("how long it took");
    let seconds: f64 = rest.split([',', '}']).next().expect("a figure").parse().expect("a number");
    assert!((1.0..20.0).contains(&seconds), "a session of 1.2 s took {seconds}");
}

#[test]
fn sigterm_lets_sessions_end_and_takes_no_new_ones() {
    if World::is_passed_by() {
        return;
    }
    let mut world = World::two_users();
    let target = world.target("alice", "s001");
    let gate = world.path("gate");
    let command =
        format!("touch {0}; while [ -e {0} ]; do sleep 0.1; done; exit 6", gate.display());
    let mut held = Leashed::start(target.openssh("ssh").arg("door").arg(&command));
    wait::until("the session runs", wait::SOON, || gate.exists());
    world.drain(&target);
    assert!(held.try_wait().expect("a child of ours").is_none(), "the session was cut");
    assert!(!world.edge().has_ended(), "it waits for its sessions");
    fs::remove_file(&gate).expect("the gate opens");
    wait::until("the session ends", wait::SOON, || {
        held.try_wait().expect("a child of ours").is_some_and(|status| status.code() == Some(6))
    });
    wait::until("the drained process ends", wait::SOON, || world.edge().has_ended());
}
