//! Tests of `[api]` and `[registry]`.

use super::*;
use crate::registry::apply::served_file::RemovalsMax;
use crate::registry::document::Role;

const CERT: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n";

fn with_pem() -> Scratch {
    let scratch = Scratch::new();
    scratch.put("cert.pem", CERT);
    scratch.put("key.pem", KEY);
    scratch
}

#[test]
fn without_api_there_is_the_socket_in_the_state_directory_and_nothing_on_tcp() {
    let scratch = Scratch::new();
    let Loaded { config, .. } = scratch.load("state_dir = \"state\"", &fleet()).unwrap();
    let socket = scratch.0.join("state/keyway.sock");
    let canary = Duration::from_secs(5);
    assert_eq!(config.api, Api { socket: socket.clone(), tls: None, peers: vec![], canary });
    assert_eq!(config.registry, Registry { quarantine_s: 3600, audit_keep_s: 400 * 86_400 });
    let empty = "state_dir = \"state\"\n[api]\nsocket = \"\"\nlisten = \"\"\n[registry]\n";
    let Loaded { config, .. } = scratch.load(empty, &fleet()).unwrap();
    assert_eq!(config.api, Api { socket, tls: None, peers: vec![], canary });
}

#[test]
fn every_key_of_api_and_registry_is_read() {
    let scratch = with_pem();
    let keyway = r#"
[api]
socket = "run/api.sock"
listen = "127.0.0.1:9643"
tls_cert = "cert.pem"
tls_key = "key.pem"
peers = { deploy = "operator", "uid:1000" = "reader", "group:ops" = "admin" }
[registry]
quarantine_s = 7200
audit_keep_days = 30
"#;
    let Loaded { config, warnings, .. } = scratch.load(keyway, &fleet()).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.registry, Registry { quarantine_s: 7200, audit_keep_s: 30 * 86_400 });
    let path = |name: &str| scratch.0.join(name);
    assert_eq!(config.api.socket, path("run/api.sock"));
    let listen = "127.0.0.1:9643".parse().unwrap();
    assert_eq!(
        config.api.tls,
        Some(ApiTls { listen, cert: path("cert.pem"), key: path("key.pem") })
    );
    let mut peers = config.api.peers;
    peers.sort_by_key(|(_, role)| *role);
    assert_eq!(
        peers,
        [
            (Peer::Uid(1000), Role::Reader),
            (Peer::User("deploy".into()), Role::Operator),
            (Peer::Group("ops".into()), Role::Admin),
        ]
    );
}

/// Faults without the names of the file and of this directory.
fn told(scratch: &Scratch, keyway: &str) -> Vec<String> {
    let prefix = format!("{}/", scratch.0.display());
    let faults = scratch.faults(keyway, &fleet());
    faults.iter().map(|fault| fault.replace("keyway.toml:", "").replace(&prefix, "")).collect()
}

#[test]
fn nothing_is_served_on_tcp_without_a_certificate_and_its_key() {
    let scratch = with_pem();
    let open = scratch.put("open.pem", KEY);
    fs::set_permissions(open, fs::Permissions::from_mode(0o640)).unwrap();
    let listen = "[api]\nlisten = \"127.0.0.1:9643\"\n";
    let fix =
        "name the PEM files of a certificate and its key: nothing is served on TCP without TLS";
    for (more, fault) in [
        ("", format!("2: `api.listen` is set without `api.tls_cert` and `api.tls_key`; fix: {fix}")),
        ("tls_cert = \"cert.pem\"", format!("2: `api.listen` is set without `api.tls_key`; fix: {fix}")),
        (
            "tls_cert = \"none.pem\"\ntls_key = \"key.pem\"",
            "3: `api.tls_cert` names none.pem: no such file; fix: correct the path or its permissions".into(),
        ),
        (
            "tls_cert = \"cert.pem\"\ntls_key = \"cert.pem\"",
            "4: `api.tls_key` names cert.pem, which holds no PEM block of a private key; fix: name a file with -----BEGIN lines, as every CA gives it".into(),
        ),
        (
            "tls_cert = \"cert.pem\"\ntls_key = \"open.pem\"",
            "4: `api.tls_key` names open.pem, which others may read (mode 0640); fix: chmod 600 open.pem".into(),
        ),
    ] {
        assert_eq!(told(&scratch, &format!("{listen}{more}\n")), [fault]);
    }
}

#[test]
fn the_api_meets_neither_the_clients_nor_the_metrics() {
    let scratch = with_pem();
    for (listen, fault) in [
        (
            "9643",
            "holds \"9643\", which is no address and port; fix: write \"192.0.2.1:22\" or \"[2001:db8::1]:22\"; host names are not looked up",
        ),
        (
            "0.0.0.0:9643",
            "is 0.0.0.0:9643, which includes every pool address; fix: write an address of the management network, or 127.0.0.1",
        ),
        (
            "127.0.77.1:9643",
            "is 127.0.77.1:9643, which is pool address `s001`; fix: write an address that is not in the pool, for example 127.0.0.1",
        ),
        (
            "127.0.0.1:22",
            "is 127.0.0.1:22, where `edge.listen` has 0.0.0.0:22; fix: write another port",
        ),
        (
            "127.0.0.1:9644",
            "is 127.0.0.1:9644, where `metrics.listen` has 127.0.0.1:9644; fix: write another port",
        ),
    ] {
        let keyway = format!(
            "[api]\nlisten = \"{listen}\"\ntls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\n"
        );
        assert_eq!(told(&scratch, &keyway), [format!("2: `api.listen` {fault}")]);
    }
}

#[test]
fn what_else_is_wrong_in_api_and_registry_is_told_with_its_line() {
    let scratch = Scratch::new();
    let no_account = "names no account; fix: write the name of a user, \"1000\" or \"uid:1000\" for a number, or \"group:\" and the name of a group";
    assert_eq!(
        told(
            &scratch,
            "[api.peers]\n\"uid:x\" = \"reader\"\n\"user:x\" = \"reader\"\ndeploy = \"root\"\n\"group:\" = 7\n"
        ),
        [
            format!("2: `api.peers.uid:x` {no_account}"),
            format!("3: `api.peers.user:x` {no_account}"),
            "4: `api.peers.deploy` is \"root\"; fix: write \"reader\" or \"operator\" or \"admin\""
                .into(),
            "5: `api.peers.group:` is an integer, not a string; fix: put it in double quotes"
                .into(),
            format!("5: `api.peers.group:` {no_account}"),
        ]
    );
    assert_eq!(
        told(&scratch, "[api]\npeers = [\"deploy\"]\ncolour = 1\n"),
        [
            "2: `api.peers` is a list, not a table; fix: write it as `[api.peers]` and its keys below",
            "3: unknown key `api.colour`; fix: remove it; known here: socket, listen, tls_cert, tls_key, canary_s, peers",
        ]
    );
    assert_eq!(
        told(&scratch, "[registry]\nquarantine_s = -1\nquarantine = 1\n"),
        [
            "2: `registry.quarantine_s` is -1, out of range; fix: write an integer from 0 to 2592000 (seconds)",
            "3: unknown key `registry.quarantine`; fix: did you mean `quarantine_s`?",
        ]
    );
    let long = format!("/{}", "x".repeat(120));
    assert_eq!(
        told(&scratch, &format!("[api]\nsocket = \"{long}\"\n")),
        [format!(
            "2: the API's socket would be {long} (121 bytes); fix: write an api.socket of at most 107 bytes"
        )]
    );
}

#[test]
fn peers_who_cannot_reach_the_socket_are_told_of() {
    let scratch = Scratch::new();
    let peers = "[api.peers]\ndeploy = \"operator\"\n";
    let keyway = format!("state_dir = \"state\"\n{peers}");
    let warning = "keyway.toml:2: `api.peers` names others, who cannot reach state/keyway.sock: nobody else may enter state_dir (0700); fix: write an api.socket in a directory of a group that they are in: install -d -m 2750 -g GROUP /run/keyway";
    assert_eq!(scratch.warnings(&keyway, &fleet()), [warning]);
    let inside = format!("state_dir = \"state\"\n[api]\nsocket = \"state/api.sock\"\n{peers}");
    assert_eq!(scratch.warnings(&inside, &fleet()).len(), 1);
    let elsewhere = format!("state_dir = \"state\"\n[api]\nsocket = \"run/api.sock\"\n{peers}");
    assert_eq!(scratch.warnings(&elsewhere, &fleet()), [""; 0]);
}

#[test]
fn what_is_odd_in_api_is_a_warning() {
    let scratch = with_pem();
    let keyway = "[api]\ntls_cert = \"cert.pem\"\n[registry]\nquarantine_s = 5\n";
    assert_eq!(
        scratch.warnings(keyway, &fleet()),
        [
            "keyway.toml:2: `api.tls_cert` has no use; fix: add api.listen, or remove it",
            "keyway.toml:4: `registry.quarantine_s` is 5: a name that somebody's resolver remembers may lead to another VM; fix: write at least the time to live in DNS and a margin; 3600 is usual",
        ]
    );
}

#[test]
fn a_number_is_a_peer_by_number_and_a_file_may_remove_so_many_things() {
    let scratch = Scratch::new();
    let keyway =
        "[fleet_file]\nremovals_max = 25\n[api.peers]\n\"1234\" = \"reader\"\n\"0\" = \"admin\"\n";
    let (config, _) = load_config(&scratch.put("keyway.toml", keyway)).unwrap();
    let mut peers = config.api.peers;
    peers.sort_by_key(|(_, role)| *role);
    assert_eq!(peers, [(Peer::Uid(1234), Role::Reader), (Peer::Uid(0), Role::Admin)]);
    assert_eq!(config.fleet_file.removals_max, RemovalsMax::Things(25));
    let wrong = "[fleet_file]\nremovals_max = \"all\"\n[api.peers]\n\"4294967296\" = \"reader\"\n";
    let told = told(&scratch, wrong);
    assert!(told[0].starts_with("2: `fleet_file.removals_max` is a string"), "{told:?}");
    assert!(told[1].starts_with("4: `api.peers.4294967296` names no account"), "{told:?}");
}
