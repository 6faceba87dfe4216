//! What outside checkers say: `ssh-audit` about the algorithms, `promtool` about the metrics.

use std::fs;
use std::process::Command;

use crate::harness::{World, peers, run, run_with_input};

/// The only algorithms that `ssh-audit` may warn about: plain HMAC for old libssh2, and an exchange
/// that no quantum computer must ever record.
const WARNED: &[&str] =
    &["hmac-sha2-256", "hmac-sha2-512", "curve25519-sha256", "curve25519-sha256@libssh.org"];

/// The only ones that it may fail: last in the list, for those who have nothing
/// else (`legacy_kex`).
const FAILED: &[&str] = &["ecdh-sha2-nistp256", "ecdh-sha2-nistp384"];

/// The algorithms of `ssh-audit`'s lines at `level`, comments dropped.
fn audited(world: &World, level: &str) -> Option<Vec<String>> {
    let target = world.target("alice", "s001");
    let output = run(Command::new(peers::python("ssh-audit")?)
        .args(["--no-colors", "--skip-rate-test", "--level", level])
        .args(["--port", &target.port.to_string(), &target.host]));
    let text = output.text();
    let lines = text.lines().filter(|line| {
        ["(kex) ", "(key) ", "(enc) ", "(mac) "].iter().any(|kind| line.starts_with(kind))
    });
    let mut names: Vec<String> =
        lines.filter_map(|line| Some(line.split_whitespace().nth(1)?.to_owned())).collect();
    names.dedup();
    println!("{text}");
    assert!(
        text.contains("# general") || text.contains("banner") || level != "info",
        "no audit: {}",
        output.stderr
    );
    Some(names)
}

#[test]
fn ssh_audit_fails_and_warns_only_of_what_we_chose() {
    if World::is_passed_by() {
        return;
    }
    let world = World::usual();
    let Some(all) = audited(&world, "info") else { return };
    assert!(all.iter().any(|name| name == "aes128-gcm@openssh.com"), "{all:?}");
    let failed = audited(&world, "fail").expect("it ran before");
    assert_eq!(failed, FAILED);
    let warned = audited(&world, "warn").expect("it ran before");
    let chosen = |name: &String| [WARNED, FAILED].concat().contains(&name.as_str());
    let others: Vec<_> = warned.iter().filter(|name| !chosen(name)).collect();
    assert!(others.is_empty(), "warned: {others:?}");
}

#[test]
fn without_what_is_legacy_ssh_audit_fails_nothing_and_warns_of_no_mac() {
    if World::is_passed_by() {
        return;
    }
    let plan = World::usual_plan();
    let world = plan.edge("legacy_macs = false\nlegacy_kex = false").start();
    let Some(warned) = audited(&world, "warn") else { return };
    assert_eq!(audited(&world, "fail").expect("it ran before"), Vec::<String>::new());
    assert!(warned.iter().all(|name| name.starts_with("curve25519-")), "warned: {warned:?}");
}

/// The metrics page's body.
pub(crate) fn scrape(world: &World) -> String {
    let answer = world.page("/metrics");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    assert!(head.to_lowercase().contains("content-length"), "read as it stands: {head}");
    body.to_owned()
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    if World::is_passed_by() {
        return;
    }
    let Some(promtool) = peers::program("promtool", "promtool") else { return };
    let world = World::usual();
    world.target("alice", "s001").ssh(&[], "true").ok();
    let page = world.path("metrics");
    fs::write(&page, scrape(&world)).expect("a file");
    run_with_input(Command::new(promtool).args(["check", "metrics"]), &page).ok();
}

#[test]
fn no_text_of_a_peer_becomes_a_label() {
    if World::is_passed_by() {
        return;
    }
    let world = World::usual();
    let target = world.target("alice", "s001");
    run(target.openssh("ssh").args(["-l", "forged-login", "door", "true"]));
    let page = scrape(&world);
    for text in ["forged", "OpenSSH", "alice", "SHA256:"] {
        assert!(!page.contains(text), "{text} in\n{page}");
    }
}
