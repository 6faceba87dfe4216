//! Tests of `fixed`: every key of `keyway.toml` is renewed by a reload, or is named as one that
//! takes a restart.

use std::fmt::Write as _;
use std::process::Command;

use super::*;
use crate::config;
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::private_key::PrivateKey;
use crate::testing::scratch::Scratch;

/// What a change of a key takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Takes {
    Reload,
    Restart,
}
use Takes::{Reload, Restart};

/// Every key of the reference in docs/configuration.md, with another value than its default or than
/// that of [`WHOLE`].
const KEYS: &[(&str, &str, Takes)] = &[
    ("state_dir", "\"elsewhere\"", Restart),
    ("edge.listen", "[\"127.0.0.1:2222\"]", Restart),
    ("edge.shards", "1", Restart),
    ("edge.host_keys", "[\"key\"]", Reload),
    ("edge.login_grace_s", "31", Restart),
    ("edge.drain_s", "1", Restart),
    ("edge.proxy_protocol_from", "[\"192.0.2.1\"]", Restart),
    ("edge.sessions_max", "9", Restart),
    ("edge.sessions_max_per_user", "9", Restart),
    ("edge.sessions_max_per_vm", "9", Restart),
    ("edge.half_open_max", "9", Restart),
    ("edge.log", "\"json\"", Restart),
    ("edge.hide_keys", "true", Reload),
    ("edge.legacy_macs", "false", Reload),
    ("edge.legacy_kex", "false", Reload),
    ("edge.client_alive_interval_s", "9", Restart),
    ("edge.client_alive_count_max", "9", Restart),
    ("edge.prefer_gcm", "\"never\"", Restart),
    ("edge.original_dst", "true", Restart),
    ("edge.revoked_keys", "\"revoked\"", Reload),
    ("edge.trusted_user_cas", "[\"PUBLIC\"]", Reload),
    ("vm_leg.user_ca", "\"key\"", Reload),
    ("vm_leg.identity", "\"key\"", Reload),
    ("vm_leg.principals", "\"login\"", Reload),
    ("vm_leg.dial_timeout_s", "9", Restart),
    ("vm_leg.source_address", "\"none\"", Reload),
    ("vm_leg.networks", "[\"10.0.0.0/8\"]", Restart),
    ("fleet_file.removals_max", "9", Reload),
    ("registry.quarantine_s", "3601", Restart),
    ("registry.audit_keep_days", "9", Restart),
    ("nodes.health_s", "9", Restart),
    ("api.canary_s", "9", Restart),
    ("api.socket", "\"a.sock\"", Restart),
    ("api.peers", "{ deploy = \"reader\" }", Reload),
    ("api.listen", "\"127.0.0.1:4444\"", Restart),
    ("api.tls_cert", "\"other.pem\"", Reload),
    ("api.tls_key", "\"other.pem\"", Reload),
    ("dns.zone", "\"test\"", Restart),
    ("dns.listen", "\"127.0.0.1:54\"", Restart),
    ("dns.ns", "[\"ns.vm.test\", \"ns.other.test\"]", Restart),
    ("dns.ns_addresses", "{ \"ns.vm.test\" = [\"192.0.2.2\"] }", Restart),
    ("dns.ttl", "61", Restart),
    ("dns.secondaries", "[\"192.0.2.9\"]", Restart),
    ("dns.responses_per_second", "9", Restart),
    ("dns.dnssec_key", "\"zone\"", Restart),
    ("metrics.listen", "\"127.0.0.1:9999\"", Restart),
];

/// What keys need that stand in no file by default.
const WHOLE: &[(&str, &str)] = &[
    ("api.listen", "\"127.0.0.1:3333\""),
    ("api.tls_cert", "\"tls.pem\""),
    ("api.tls_key", "\"tls.pem\""),
    ("dns.zone", "\"vm.test\""),
    ("dns.listen", "\"127.0.0.1:53\""),
    ("dns.ns", "\"ns.vm.test\""),
    ("dns.ns_addresses", "{ \"ns.vm.test\" = [\"192.0.2.1\"] }"),
];

/// What a restart is needed for, with these values in the place of others.
#[track_caller]
fn fixed(scratch: &Scratch, values: &[(&str, &str)]) -> Fixed {
    let of = |key: &str| values.iter().rev().find(|(name, _)| *name == key);
    let mut keys: Vec<&str> = values.iter().map(|(key, _)| *key).collect();
    // Those without a section first, then section by section.
    keys.sort_unstable_by_key(|key| (key.contains('.'), *key));
    keys.dedup();
    let (mut text, mut section) = (String::new(), "");
    for key in keys {
        let (within, name) = key.split_once('.').unwrap_or(("", key));
        if within != section {
            let _ = writeln!(text, "[{within}]");
            section = within;
        }
        let _ = writeln!(text, "{name} = {}", of(key).unwrap().1);
    }
    scratch.secret("keyway.toml", &text);
    let loaded = config::load(Some(&scratch.0.join("keyway.toml")), None);
    Fixed::of(&loaded.unwrap_or_else(|report| panic!("{text}{:?}", report.faults)).config)
}

#[test]
fn every_key_that_no_reload_renews_is_named_with_both_values() {
    let scratch = Scratch::new();
    let mut entropy = SystemEntropy::default();
    let key = PrivateKey::generate_ed25519(&mut entropy);
    scratch.secret("key", &key.to_openssh("test", &mut entropy));
    scratch.secret("revoked", "SHA256:EWNWfi4QRhtIyd/LrwsN8b7MIEYiY4IlbWX96JAwH4A\n");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ecdsa", "-b", "256", "-N", "", "-f"])
        .arg(scratch.0.join("zone"))
        .status();
    assert!(made.unwrap().success());
    let pem = "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n";
    scratch.secret("tls.pem", pem);
    scratch.secret("other.pem", pem);
    let before = fixed(&scratch, WHOLE);
    assert!(before.unlike(&fixed(&scratch, WHOLE)).is_empty());
    let public = key.public().to_line();
    for (key, value, takes) in KEYS {
        let value = value.replace("PUBLIC", &public);
        let after = fixed(&scratch, &[WHOLE, &[(key, value.as_str())]].concat());
        let named: Vec<String> = before
            .unlike(&after)
            .into_iter()
            .map(|NeedsRestart { key, running, file }| {
                assert_ne!(running, file, "{key}");
                key
            })
            .collect();
        match takes {
            Reload => assert!(named.is_empty(), "{key}: {named:?}"),
            // The state directory holds the socket.
            Restart if *key == "state_dir" => assert_eq!(named, ["state_dir", "api.socket"]),
            Restart => assert!(named.contains(&(*key).to_owned()), "{key}: {named:?}"),
        }
    }
    // A section that goes, or comes.
    let without = fixed(&scratch, &[]);
    assert!(before.unlike(&without).iter().any(|key| key.key == "dns.zone" && key.file.is_empty()));
    assert!(
        without.unlike(&before).iter().any(|key| key.key == "dns.zone" && key.file == "vm.test")
    );
}

#[test]
fn every_key_of_the_reference_is_tried() {
    let reference = include_str!("../../docs/configuration.md");
    let reference = reference.split_once("Every key has a default").expect("the reference").1;
    let reference = reference.split_once("```toml\nstate_dir").expect("its beginning").1;
    let reference = reference.split_once("```").expect("its end").0;
    let (mut section, mut keys) = (String::new(), vec!["state_dir".to_owned()]);
    for line in reference.lines().skip(1) {
        let line = line.trim_start_matches("# ");
        if let Some((name, _)) = line.strip_prefix('[').and_then(|line| line.split_once(']')) {
            section = name.to_owned() + ".";
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        {
            keys.push(section.clone() + key);
        }
    }
    assert!(keys.len() > 30, "{keys:?}");
    for key in keys {
        assert!(KEYS.iter().any(|(tried, ..)| *tried == key), "{key} is not tried here");
    }
}

#[test]
fn of_an_agents_file_the_keys_of_the_door_are_named_without_a_section() {
    let scratch = Scratch::new();
    let key = PrivateKey::generate_ed25519(&mut SystemEntropy::default()).public().to_line();
    scratch.file("fleet.toml", "[[user]]\nname = \"alice\"\n");
    let fixed = |more: &str| {
        let text = format!(
            "edge_networks = [\"127.0.0.1\"]\nreplica = \"fleet.toml\"\nhost_keys = [\"{key}\"]\n{more}"
        );
        let config = scratch.file("agent.toml", &text).into();
        let files = config::AgentFiles { config, fleet: None };
        Fixed::of_agent(&config::load_agent(&files).unwrap().config)
    };
    let listen = "listen = \"127.0.0.1:7022\"\n";
    let before = fixed(&format!("{listen}edges = [\"{key}\"]\n"));
    let named = |more: &str| -> Vec<String> {
        before.unlike(&fixed(more)).into_iter().map(|unlike| unlike.key).collect()
    };
    assert_eq!(named(&format!("{listen}edges = []\n[vm_leg]\nprincipals = \"login\"\n")), [""; 0]);
    let other =
        "listen = \"127.0.0.1:7023\"\nshards = 1\nedges = []\n[vm_leg]\ndial_timeout_s = 9\n";
    assert_eq!(named(other), ["listen", "shards", "vm_leg.dial_timeout_s"]);
}
