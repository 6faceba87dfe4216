//! An agent and a front door come to know each other by a token: neither has anything of the other
//! before.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::handoff::{ends, stays};
use crate::harness::{Output, World, run, run_into, run_with_input, wait};
use crate::operations::reload;

fn world() -> Option<World> {
    (!World::is_passed_by()).then(|| World::usual_plan().unjoined().start())
}

fn keyway(world: &World, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyway"));
    command.args(arguments).current_dir(world.dir());
    command
}

/// Has a token made, into a file.
#[track_caller]
fn token(world: &World, file: &str) -> Output {
    let mut command = keyway(world, &["node", "token", "n1", "--config", "keyway.toml"]);
    run_into(&mut command, &world.path(file)).ok()
}

/// The arguments of a join that says where control is.
fn join(world: &World, more: &[&str]) -> Command {
    let url = format!("https://{}", world.api());
    let mut command =
        keyway(world, &["agent", "join", "--config", "agent.toml", "--ca", "cert.pem"]);
    command.args(["--url", &url]).args(more);
    command
}

fn node(world: &World) -> serde_json::Value {
    let show = ["node", "show", "n1", "--config", "keyway.toml", "--output", "json"];
    serde_json::from_str(&run(&mut keyway(world, &show)).ok().text()).expect("a node")
}

fn text(file: &Path) -> String {
    fs::read_to_string(file).expect("a file")
}

#[test]
fn an_agent_joins_by_a_token_and_needs_nothing_else() {
    let Some(mut world) = world() else { return };
    let before = text(&world.path("agent.toml"));
    let said = token(&world, "n1.token").stderr;
    let line =
        format!("keyway agent join --config /etc/keyway/agent.toml --url https://{}", world.api());
    let quiet = !said.contains("kwj_") && !said.contains("warning");
    assert!(said.contains(&line) && quiet, "{said}");
    let mode = fs::metadata(world.path("n1.token")).expect("a token").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut command = join(&world, &["--yes", "--token-file", "-"]);
    let said = run_with_input(&mut command, &world.path("n1.token")).ok();
    let identity = world.identity("agent.toml", &["--fingerprint"]);
    assert_eq!(said.text(), format!("{identity} is the agent of node n1"));
    // What somebody has to compare is shown before.
    let edge = world.identity("keyway.toml", &["--fingerprint"]);
    let host_key = world.key("edge_host_key").fingerprint();
    for key in [&identity, &edge, &host_key] {
        assert!(said.stderr.contains(key.as_str()), "{key}: {}", said.stderr);
    }
    assert_eq!(node(&world)["agent_key"], identity.as_str());
    let after = text(&world.path("agent.toml"));
    let section = after.strip_prefix(&before).expect("what was there is there");
    assert!(section.contains("[control]\nurl = \"https://"), "{section}");
    assert!(world.path("agent_state/front_door.known").exists());
    world.start_agent("agent");
    let follows = |world: &World| world.agent_page().contains("keyway_vms 1\n");
    wait::until("the feed", wait::SOON, || follows(&world));
    let target = world.target("alice", "s001");
    assert_eq!(target.ssh(&[], "echo \"$KEYWAY_VM\"").ok().text(), "blue");
    wait::until("the line", wait::SOON, || world.log().contains("\"carry\":\"splice\""));
    // The fleet file, which is served, has no key of the agent: the one that joined stays.
    let (mut ssh, _) = stays(&world);
    reload(&mut world);
    assert_eq!(node(&world)["agent_key"], identity.as_str());
    assert_eq!(target.ssh(&[], "echo again").ok().text(), "again");
    assert!(ssh.try_wait().expect("ssh").is_none(), "{}", world.agent_log());
    ssh.kill().expect("ssh");
    ends(&mut ssh);
    // An admin forgets it, and it comes again beside the agent that runs, and is refused meanwhile.
    let set = |arguments: &[&str]| {
        let all = [&["node", "set", "n1", "--config", "keyway.toml"], arguments].concat();
        run(&mut keyway(&world, &all)).ok()
    };
    set(&["--agent-key", ""]);
    let told = || world.log().contains(r#""path":"/v1/feed","dry_run":false,"status":403"#);
    wait::until("a refusal", wait::SOON, told);
    token(&world, "n1.token");
    let again = ["agent", "join", "--config", "agent.toml", "--yes", "--token-file", "n1.token"];
    let said = run(&mut keyway(&world, &again)).ok().stderr;
    assert!(said.contains("the agent that runs here follows within half a minute"), "{said}");
    let connected = || world.agent_page().contains("keyway_feed_connected 1\n");
    wait::until("the feed", wait::SOON, connected);
    assert_eq!(target.ssh(&[], "echo anew").ok().text(), "anew");
    // Another one comes too late, with another identity.
    let other = after.replace("agent_state", "other_state");
    fs::write(world.path("agent.toml"), other).expect("agent.toml");
    let said = run(&mut keyway(&world, &again)).ends(1).stderr;
    assert!(
        said.contains("was used; a new one: `keyway node token n1` [join-token-used]"),
        "{said}"
    );
    assert_eq!(node(&world)["agent_key"], identity.as_str());
    assert!(!world.path("other_state/front_door.known").exists());
}

#[test]
fn who_does_not_join_is_told_why_and_nothing_has_changed() {
    let Some(world) = world() else { return };
    let before = text(&world.path("agent.toml"));
    token(&world, "old.token");
    token(&world, "n1.token");
    let by = |file: &'static str| ["--yes", "--token-file", file];
    // Nobody sits here whom it could ask, and somebody else's certificate is believed by nobody.
    let said = run(&mut join(&world, &["--token-file", "n1.token"])).ends(1).stderr;
    assert!(said.contains("--yes believes what control shows"), "{said}");
    let said = run(&mut join(&world, &by("old.token"))).ends(1).stderr;
    assert!(said.contains("[join-token-unknown]") && said.contains("keyway node token"), "{said}");
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
    let other = params.self_signed(&key).expect("a certificate").pem();
    fs::write(world.path("other.pem"), other).expect("a certificate");
    let url = format!("https://{}", world.api());
    let others = ["agent", "join", "--config", "agent.toml", "--ca", "other.pem", "--url", &url];
    let said = run(keyway(&world, &others).args(by("n1.token"))).ends(3).stderr;
    assert!(said.contains("no TLS: ") && said.contains("this host's clock"), "{said}");
    let nobody = ["agent", "join", "--config", "agent.toml", "--ca", "cert.pem", "--url"];
    let nowhere = format!("https://{}", world.spare(43));
    let said = run(keyway(&world, &nobody).arg(nowhere).args(by("n1.token"))).ends(3).stderr;
    assert!(said.contains("cannot be reached"), "{said}");
    assert_eq!(node(&world)["agent_key"], serde_json::Value::Null);
    assert_eq!(text(&world.path("agent.toml")), before);
    assert!(!world.path("agent_state/front_door.known").exists());
    let refused = || world.log().contains("\"code\":\"join-token-unknown\"");
    wait::until("the line", wait::SOON, refused);
    // The token is as good as it was.
    run(&mut join(&world, &by("n1.token"))).ok();
    assert!(node(&world)["agent_key"].is_string());
}
