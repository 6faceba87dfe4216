//! Tests of `config`.

use std::fs;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ipnet::IpNet;

use super::*;
use crate::route::{Admission, KeyLine, Pin, Table, Who};
use crate::ssh::authorized_keys::KeyOptions;
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::PublicKey;

pub(super) const ALICE: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINILzCr80scSuAcnYpxLu4nnirz6xztusEayvak/vj9f laptop";
pub(super) const BOB: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJiGKW31e/f/pM9LAePugLw0T83dnV2peX4a+Sb2+9Dr bob";
pub(super) const THIRD: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIARw/HeTwZikcRO/nQLk+tDE0vudcQT2npuHC4s5TE/m";
const THIRD_PRINT: &str = "SHA256:EWNWfi4QRhtIyd/LrwsN8b7MIEYiY4IlbWX96JAwH4A";
const RSA_1024: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC/+nyo0yMcO1HFlshB+BCkBGT7leSXD/8vAwm3EuV/5YaLYG3XKs/+NqiEeBSdgGTNFveCk7iSxL/UPgKxWXl/utCdolhpS0MNxnDKpSrO7aDPJitkjWWU5AQdBvUvVdPTlK+YVKwPLxAxSeRkInKDLGRhcpHp+lrIo1nAsRawzw== weak";

/// A directory of one test.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("keyway-config-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(super) fn put(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Makes an Ed25519 key; returns the public line.
    fn key(&self, name: &str) -> String {
        let mut entropy = SystemEntropy::default();
        let key = PrivateKey::generate_ed25519(&mut entropy);
        self.put(name, key.to_openssh("test", &mut entropy).as_bytes());
        key.public().to_line()
    }

    fn load(&self, keyway: &str, fleet: &str) -> Result<Loaded, Report> {
        load(Some(&self.put("keyway.toml", keyway)), Some(&self.put("fleet.toml", fleet)))
    }

    /// Findings without this directory's path.
    pub(super) fn told(&self, findings: &[Finding]) -> Vec<String> {
        let prefix = format!("{}/", self.0.display());
        findings.iter().map(|finding| finding.to_string().replace(&prefix, "")).collect()
    }

    fn faults(&self, keyway: &str, fleet: &str) -> Vec<String> {
        match self.load(keyway, fleet) {
            Ok(_) => Vec::new(),
            Err(report) => self.told(&report.faults),
        }
    }

    pub(super) fn warnings(&self, keyway: &str, fleet: &str) -> Vec<String> {
        let loaded = self.load(keyway, fleet).unwrap_or_else(|report| panic!("{report:?}"));
        self.told(&loaded.warnings)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn fleet() -> String {
    format!(
        r#"[[address]]
name = "s001"
public = "127.0.77.1"

[[user]]
name = "alice"
keys = ["{ALICE}"]

[[vm]]
name = "blue"
owner = "alice"
address = "s001"
ssh = "127.0.0.1:2201"
"#
    )
}

#[test]
fn an_empty_keyway_toml_has_the_documented_defaults() {
    let scratch = Scratch::new();
    let Loaded { config, fleet, warnings, .. } = scratch.load("", &fleet()).unwrap();
    assert_eq!(config.state_dir, Path::new("/var/lib/keyway"));
    assert_eq!(config.edge.listen, ["0.0.0.0:22".parse().unwrap(), "[::]:22".parse().unwrap()]);
    assert_eq!(config.edge.shards, Count::Automatic);
    assert!(matches!(config.edge.host_keys, HostKeys::InState));
    assert_eq!(config.edge.login_grace, Duration::from_secs(30));
    assert_eq!(config.edge.drain, Duration::from_hours(1));
    assert!(config.edge.proxy_protocol_from.is_empty());
    assert_eq!(config.edge.sessions_max, Count::Automatic);
    assert_eq!(config.edge.sessions_max_per_user, Count::Automatic);
    assert_eq!(config.edge.sessions_max_per_vm, Count::Automatic);
    assert_eq!(config.edge.half_open_max, Count::Automatic);
    assert_eq!(config.edge.log, Log::Auto);
    assert!(!config.edge.hide_keys && config.edge.legacy_macs && !config.edge.original_dst);
    assert!(config.edge.legacy_kex);
    assert_eq!(config.edge.prefer_gcm, PreferGcm::Bulk);
    assert_eq!(config.edge.client_alive_interval, Duration::from_mins(5));
    assert_eq!(config.edge.client_alive_count_max, 12);
    assert!(config.edge.trusted_user_cas.is_empty());
    assert!(matches!(
        config.vm_leg.credential,
        VmCredential::Certificates { ca: UserCa::InState, principals: Principals::Vm }
    ));
    assert_eq!(config.vm_leg.dial_timeout, Duration::from_secs(10));
    let networks: Vec<String> = config.vm_leg.networks.iter().map(ToString::to_string).collect();
    let documented = ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];
    assert_eq!(networks, documented);
    assert_eq!(config.metrics.listen, "127.0.0.1:9644".parse().unwrap());
    let fleet = fleet.unwrap();
    assert_eq!(fleet.snapshot.users().map(|user| user.keys.len()).sum::<usize>(), 1);
    assert_eq!(warnings, []);
}

#[test]
fn every_documented_key_is_read() {
    let scratch = Scratch::new();
    scratch.key("host");
    scratch.key("ca");
    scratch.put("revoked", THIRD);
    let keyway = format!(
        r#"
state_dir = "state"
[edge]
listen = ["127.0.0.1:2222", "[::1]:2222"]
shards = 2
host_keys = ["host"]
login_grace_s = 0x10
drain_s = 6_0
proxy_protocol_from = ["192.0.2.0/24", "2001:db8::1"]
sessions_max = 100
sessions_max_per_user = 10
sessions_max_per_vm = 20
half_open_max = 50
log = "json"
hide_keys = true
legacy_macs = false
legacy_kex = false
prefer_gcm = "never"
client_alive_interval_s = 15
client_alive_count_max = 0
original_dst = true
revoked_keys = "revoked"
trusted_user_cas = ["{BOB}"]
[vm_leg]
user_ca = "ca"
identity = ""
principals = "vm"
dial_timeout_s = 3
networks = ["127.0.0.0/8"]
[metrics]
listen = "127.0.0.1:9999"
"#
    );
    let Loaded { config, warnings, .. } = scratch.load(&keyway, &fleet()).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.state_dir, scratch.0.join("state"));
    assert_eq!(config.edge.listen.len(), 2);
    assert_eq!(config.edge.shards, Count::Exactly(NonZeroU32::new(2).unwrap()));
    assert!(matches!(&config.edge.host_keys, HostKeys::Given(keys) if keys.len() == 1));
    assert_eq!(config.edge.login_grace, Duration::from_secs(16));
    assert_eq!(config.edge.drain, Duration::from_mins(1));
    let from: Vec<String> = config.edge.proxy_protocol_from.iter().map(IpNet::to_string).collect();
    assert_eq!(from, ["192.0.2.0/24", "2001:db8::1/128"]);
    let exactly = |number| Count::Exactly(NonZeroU32::new(number).unwrap());
    assert_eq!(config.edge.sessions_max, exactly(100));
    assert_eq!(config.edge.sessions_max_per_user, exactly(10));
    assert_eq!(config.edge.sessions_max_per_vm, exactly(20));
    assert_eq!(config.edge.half_open_max, Count::Exactly(NonZeroU32::new(50).unwrap()));
    assert_eq!(config.edge.log, Log::Json);
    assert!(config.edge.hide_keys && !config.edge.legacy_macs && config.edge.original_dst);
    assert!(!config.edge.legacy_kex);
    assert_eq!(config.edge.prefer_gcm, PreferGcm::Never);
    assert_eq!(config.edge.client_alive_interval, Duration::from_secs(15));
    assert_eq!(config.edge.client_alive_count_max, 0);
    let revoked = PublicKey::parse_line(THIRD).unwrap().0;
    assert!(config.edge.revocations.revokes_key(&revoked));
    assert_eq!(config.edge.trusted_user_cas, [PublicKey::parse_line(BOB).unwrap().0]);
    assert!(matches!(
        config.vm_leg.credential,
        VmCredential::Certificates { ca: UserCa::Given(_), principals: Principals::Vm }
    ));
    assert_eq!(config.vm_leg.dial_timeout, Duration::from_secs(3));
    assert_eq!(config.metrics.listen.port(), 9999);
}

#[test]
fn a_fleet_becomes_routes_and_key_options() {
    let scratch = Scratch::new();
    let fleet = format!(
        r#"
[[address]]
name = "s001"
public = "127.0.77.1"
public6 = "2001:db8::1"
private = "10.0.0.7"
[[address]]
name = "lobby"
public = "127.0.77.9"
lobby = true
[[user]]
name = "alice"
keys = ['from="192.0.2.0/24",no-pty {ALICE}']
[[vm]]
name = "blue"
owner = "alice"
address = "s001"
ssh = "vm-blue.internal:2201"
login = "root"
host_key = "{THIRD_PRINT}"
"#
    );
    let Loaded { fleet, .. } = scratch.load("", &fleet).unwrap();
    let table = Table::new();
    table.apply(fleet.unwrap().snapshot);
    let address = table.address("10.0.0.7".parse().unwrap()).unwrap();
    let alice = PublicKey::parse_line(ALICE).unwrap().0;
    let admission = table.admit(Who::Key(alice.fingerprint().0), &address, "me");
    let Some(Admission::Vm(admitted)) = admission else { panic!("{admission:?}") };
    assert_eq!(
        (admitted.login.as_str(), admitted.vm.endpoint.as_str()),
        ("root", "vm-blue.internal:2201")
    );
    let third = PublicKey::parse_line(THIRD).unwrap().0;
    assert_eq!(admitted.vm.host_key, Some(Pin::Fingerprint(third.fingerprint().0)));
    assert!(table.address("127.0.77.9".parse().unwrap()).unwrap().lobby);
    assert_eq!((admitted.vm.id.as_str(), admitted.vm.address.as_deref()), ("blue", Some("s001")));
    let line = table.key_options(&alice.fingerprint().0);
    let KeyLine::Options(text) = line else { panic!("{line:?}") };
    let options = KeyOptions::parse(&text).unwrap();
    assert!(options.restrictions.no_pty && !options.restrictions.no_port_forwarding);
    assert!(options.admit("192.0.2.5".parse().ok(), 0).is_ok());
    assert!(options.admit("198.51.100.5".parse().ok(), 0).is_err());
    assert_eq!(table.key_options(&third.fingerprint().0), KeyLine::Unknown);
}

#[test]
fn a_host_key_may_be_a_public_key_line() {
    let scratch = Scratch::new();
    let fleet = fleet() + &format!("host_key = \"{THIRD} root@blue\"\n");
    let Loaded { fleet, .. } = scratch.load("", &fleet).unwrap();
    let blob = PublicKey::parse_line(THIRD).unwrap().0.blob().to_vec();
    assert_eq!(fleet.unwrap().snapshot.vms().next().unwrap().host_key, Some(Pin::of_key(&blob)));
}

#[test]
fn all_faults_of_both_files_are_told_together_in_the_order_of_their_lines() {
    let scratch = Scratch::new();
    let keyway = r#"state_dri = "/var/lib/keyway"
[edge]
lisen = ["0.0.0.0:22"]
shards = "two"
login_grace_s = 0
drain_s = -1
proxy_protocol_from = ["10.0.0.1/8",
  "example.org"]
log = "yes"
hide_keys = 1
prefer_gcm = "always"
trusted_user_cas = ["ssh-ed25519 AAAA"]
[vm_leg]
principals = "all"
dial_timeout_s = 301
networks = []
[metrics]
listen = "localhost:9644"
[tls]
"#;
    let fleet = r#"[[address]]
name = "s001"
public = "127.0.77.1"
private = "127.0.77.2"
[[address]]
name = "s002"
public = "127.0.77.2"
pubic6 = "::1"
[[user]]
name = "Alice"
keys = "ssh-ed25519"
[[vm]]
name = "blue"
owner = "bob"
address = "s003"
ssh = "127.0.0.1"
login = ""
host_key = "MD5:00"
"#;
    assert_eq!(
        scratch.faults(keyway, fleet),
        [
            "keyway.toml:1: unknown key `state_dri`; fix: did you mean `state_dir`?",
            "keyway.toml:3: unknown key `edge.lisen`; fix: did you mean `listen`?",
            "keyway.toml:4: `edge.shards` is a string, not an integer; fix: write an integer from 0 to 1024 (cores; 0 for all)",
            "keyway.toml:5: `edge.login_grace_s` is 0, out of range; fix: write an integer from 1 to 600 (seconds)",
            "keyway.toml:6: `edge.drain_s` is -1, out of range; fix: write an integer from 0 to 604800 (seconds)",
            "keyway.toml:7: `edge.proxy_protocol_from` holds 10.0.0.1/8, which has bits set beyond its prefix; fix: write \"10.0.0.0/8\"",
            "keyway.toml:8: `edge.proxy_protocol_from` holds \"example.org\", which is no network; fix: write \"10.0.0.0/8\" or \"fd00::/8\"",
            "keyway.toml:9: `edge.log` is \"yes\"; fix: write \"auto\" or \"json\" or \"readable\"",
            "keyway.toml:10: `edge.hide_keys` is an integer, not a boolean; fix: write true or false, without quotes",
            "keyway.toml:11: `edge.prefer_gcm` is \"always\"; fix: write \"bulk\" or \"never\"",
            "keyway.toml:12: `edge.trusted_user_cas` holds a line that is no public key: malformed key; fix: paste the one line of the .pub file: type, base64, comment",
            "keyway.toml:14: `vm_leg.principals` is \"all\"; fix: write \"vm\" or \"login\"",
            "keyway.toml:15: `vm_leg.dial_timeout_s` is 301, out of range; fix: write an integer from 1 to 300 (seconds)",
            "keyway.toml:16: `vm_leg.networks` is empty: no VM could be reached; fix: write the networks of your VMs",
            "keyway.toml:18: `metrics.listen` holds \"localhost:9644\", which is no address and port; fix: write \"192.0.2.1:22\" or \"[2001:db8::1]:22\"; host names are not looked up",
            "keyway.toml:19: unknown key `tls`; fix: remove it; known here: state_dir, edge, vm_leg, metrics, api, registry, nodes, fleet_file, dns",
            "fleet.toml:7: public 127.0.77.2 is already private of address `s001`; fix: write every IP address once, in one column",
            "fleet.toml:8: unknown key `address.pubic6`; fix: did you mean `public6`?",
            "fleet.toml:10: `user.name` is \"Alice\", which is no name; fix: write 1 to 63 of a-z, 0-9 and -, with no - at either end",
            "fleet.toml:11: `user.keys` is a string, not a list; fix: write it as [\"...\", \"...\"]",
            "fleet.toml:14: owner `bob` is not known; fix: name a [[user]] of this file, or team: and a [[team]]",
            "fleet.toml:15: address `s003` is not known; fix: name an [[address]] of this file",
            "fleet.toml:16: `vm.ssh` is \"127.0.0.1\", which is no host:port; fix: add the port: \"host:22\"",
            "fleet.toml:17: `vm.login` is \"\", which is no login name; fix: write the name of an account in the VM, or leave the key out",
            "fleet.toml:18: `vm.host_key` is no host key: malformed key; fix: write SHA256:... as `ssh-keygen -l` prints it, or the line of the VM's ssh_host_*_key.pub",
        ]
    );
}

#[test]
fn a_source_address_is_own_none_or_networks_in_both_files_and_none_is_warned_about() {
    let scratch = Scratch::new();
    let configured = |keyway: &str| {
        let loaded = scratch.load(keyway, &fleet()).unwrap_or_else(|report| panic!("{report:?}"));
        loaded.config.vm_leg.source_address.to_string()
    };
    assert_eq!(configured(""), "own");
    assert_eq!(configured("[vm_leg]\nsource_address = \"own\""), "own");
    let networks = "[vm_leg]\nsource_address = [\"10.0.2.2\",\n\"fd00::/8\"]";
    assert_eq!(configured(networks), "10.0.2.2/32,fd00::/8");
    let open = "[vm_leg]\nsource_address = \"none\"";
    assert_eq!(configured(open), "none");
    let warned = scratch.warnings(open, &fleet());
    assert!(
        warned.iter().any(|it| it.contains("`vm_leg.source_address` is \"none\"")),
        "{warned:?}"
    );

    let of_vm = fleet() + "source_address = \"10.0.2.2,10.0.3.0/24\"\n";
    let loaded = scratch.load("", &of_vm).unwrap_or_else(|report| panic!("{report:?}"));
    let vm = loaded.fleet.unwrap().snapshot.vms().next().unwrap().clone();
    assert_eq!(vm.source_address.unwrap().to_string(), "10.0.2.2/32,10.0.3.0/24");
    let warned = scratch.warnings("", &(fleet() + "source_address = \"none\"\n"));
    assert!(warned.iter().any(|it| it.contains("`vm.source_address` is \"none\"")), "{warned:?}");
    let faults = scratch.faults("[vm_leg]\nsource_address = [\"10.0.2.2/8\"]", &fleet());
    assert_eq!(
        faults,
        [
            "keyway.toml:2: `vm_leg.source_address` is no source address: 10.0.2.2/8 has bits set beyond its prefix; \
             write \"10.0.0.0/8\"; fix: write \"own\", or the networks from which VMs see this server come, as \
             [\"10.0.2.2\"]"
        ]
    );
}

/// Each row: what is added to a sound `keyway.toml`, and the one fault that follows.
#[test]
fn each_fault_of_keyway_toml_has_its_line_and_fix() {
    let scratch = Scratch::new();
    for (keyway, fault) in [
        (
            "[edge]\nlisten = []",
            "2: `edge.listen` is empty: nothing would listen; fix: write at least one \"address:port\"",
        ),
        (
            "[edge]\nlisten = [\n\"[::]:22\",\n\"0.0.0.0:22\",\n\"[::]:22\"]",
            "5: `edge.listen` names [::]:22 twice; fix: write it once",
        ),
        (
            "[edge]\nlisten = [\"0.0.0.0\"]",
            "2: `edge.listen` holds \"0.0.0.0\", which is no address and port; fix: write \"192.0.2.1:22\" or \"[2001:db8::1]:22\"; host names are not looked up",
        ),
        (
            "[edge]\nlisten = [\"0.0.0.0:0\"]",
            "2: `edge.listen` has no port in \"0.0.0.0:0\"; fix: write a port from 1 to 65535",
        ),
        (
            "[edge]\nlisten = [\"[::ffff:10.0.0.1]:22\"]",
            "2: `edge.listen` holds an IPv4-mapped IPv6 address, \"[::ffff:10.0.0.1]:22\"; fix: write \"10.0.0.1:22\"",
        ),
        (
            "edge = 1",
            "1: `edge` is an integer, not a table; fix: write it as `[edge]` and its keys below",
        ),
        (
            "[edge]\nhost_keys = [\"\"]",
            "2: `edge.host_keys` holds an empty path; fix: name a private key file, or write [] for a key made once",
        ),
        (
            "[edge]\nhost_keys = [\"none\"]",
            "2: `edge.host_keys` names none: no such file; fix: correct the path, or make one: ssh-keygen -t ed25519 -N '' -f none",
        ),
        (
            "[edge]\nrevoked_keys = \"none\"",
            "2: `edge.revoked_keys` names none: no such file; fix: give an OpenSSH KRL or one public key or SHA256 fingerprint a line, or \"\"",
        ),
        ("state_dir = \"\"", "1: `state_dir` is not a path; fix: write a path in double quotes"),
        (
            "[vm_leg]\nnetworks = [\"::ffff:0:0/96\"]",
            "2: `vm_leg.networks` holds ::ffff:0:0/96, an IPv4-mapped IPv6 network; fix: write the IPv4 network",
        ),
        (
            "[metrics]\nlisten = \"0.0.0.0:9644\"",
            "2: `metrics.listen` is 0.0.0.0:9644, which includes every pool address; fix: write an address of the management network, or 127.0.0.1",
        ),
        (
            "[metrics]\nlisten = \"127.0.77.1:9644\"",
            "2: `metrics.listen` is 127.0.77.1:9644, which is pool address `s001`; fix: write an address that is not in the pool, for example 127.0.0.1",
        ),
        (
            "[metrics]\nlisten = \"127.0.0.1:22\"",
            "2: `metrics.listen` is 127.0.0.1:22, where `edge.listen` has 0.0.0.0:22; fix: write another port",
        ),
        (
            "[edge]\nlog = json",
            "2: not TOML: string values must be quoted, expected literal string; fix: correct the syntax",
        ),
    ] {
        assert_eq!(scratch.faults(keyway, &fleet()), [format!("keyway.toml:{fault}")], "{keyway}");
    }
}

#[test]
fn each_fault_of_fleet_toml_has_its_line_and_fix() {
    let scratch = Scratch::new();
    let second = |key: &str| format!("[[user]]\nname = \"bob\"\nkeys = ['{key}']\n");
    let vm = |lines: &str| {
        format!(
            "[[vm]]\nname = \"red\"\nowner = \"alice\"\naddress = \"s002\"\n{lines}\n[[address]]\nname = \"s002\"\npublic = \"127.0.77.2\"\n"
        )
    };
    for (more, line, fault) in [
        (second(RSA_1024), 16, "`user.keys` holds a line that is no key: RSA key too short; fix: use an Ed25519 key, or RSA from 2048 bits".to_owned()),
        (second(ALICE), 16, format!("`user.keys` holds key {}, which stands in line 7 too; fix: remove it here or there: a key names one user", PublicKey::parse_line(ALICE).unwrap().0.fingerprint())),
        (second(&format!("permitopen=\"a:1\" {BOB}")), 16, "`user.keys` holds a line that is no key: option permitopen cannot be honoured: forwards are allowed or forbidden as a whole; fix: remove the option: it cannot be enforced here".to_owned()),
        (second("-----BEGIN OPENSSH PRIVATE KEY-----"), 16, "`user.keys` holds a private key; fix: paste the one line of the .pub file: type, base64, comment, and make a new key".to_owned()),
        ("[[user]]\nkeys = []\n".to_owned(), 14, "`user.name` is missing; fix: add `name = \"alice\"`".to_owned()),
        ("[[user]]\nname = \"alice\"\nkeys = []\n".to_owned(), 15, "`user.name` is \"alice\", as in line 6; fix: a user has a name of its own".to_owned()),
        ("[[address]]\nname = \"blue\"\npublic = \"127.0.77.2\"\n".to_owned(), 10, "`vm.name` is \"blue\", as in line 15; fix: a VM or address has a name of its own".to_owned()),
        ("[[address]]\nname = \"ns\"\npublic = \"127.0.77.2\"\n".to_owned(), 15, "name `ns` is reserved; fix: give the address another name".to_owned()),
        ("[[address]]\nname = \"s002\"\npublic = \"127.0.77.1\"\n".to_owned(), 16, "public 127.0.77.1 is already public of address `s001`; fix: write every IP address once, in one column".to_owned()),
        ("[[address]]\nname = \"s002\"\npublic = \"127.0.77.2/32\"\n".to_owned(), 16, "`address.public` is \"127.0.77.2/32\", which is no IP address; fix: write one address, without a port or prefix".to_owned()),
        ("[[address]]\nname = \"s002\"\npublic = \"127.0.77.2\"\npublic6 = \"10.0.0.1\"\n".to_owned(), 17, "public6 10.0.0.1 is not an IPv6 address; fix: write an IPv6 address, or leave the key out".to_owned()),
        ("[[address]]\nname = \"s002\"\npublic = \"224.0.0.1\"\n".to_owned(), 16, "public 224.0.0.1 cannot be a pool address; fix: write an address that clients can dial".to_owned()),
        ("[[vm]]\nname = \"red\"\nowner = \"alice\"\naddress = \"s001\"\nssh = \"10.0.0.5:22\"\n".to_owned(), 17, "VM `blue` already answers to `alice` at address `s001`; fix: put one of the two VMs at another address".to_owned()),
        (vm("ssh = \"8.8.8.8:22\""), 18, "`vm.ssh` is 8.8.8.8:22, which is in none of vm_leg.networks; fix: correct the address, or add its network to vm_leg.networks in keyway.toml".to_owned()),
        (vm("ssh = \"[::ffff:8.8.8.8]:22\""), 18, "`vm.ssh` is [::ffff:8.8.8.8]:22, which is in none of vm_leg.networks; fix: correct the address, or add its network to vm_leg.networks in keyway.toml".to_owned()),
        (vm("ssh = \"127.0.77.1:22\""), 18, "`vm.ssh` is 127.0.77.1:22, which is this front door at `s001`; fix: write the address of the VM itself".to_owned()),
        (vm("ssh = \"fd00::5\""), 18, "`vm.ssh` is \"fd00::5\", which is no host:port; fix: put the IPv6 address in brackets and add the port: \"[fd00::5]:22\"".to_owned()),
        (vm("ssh = \"host:0\""), 18, "`vm.ssh` is \"host:0\", which is no host:port; fix: write a port from 1 to 65535".to_owned()),
        (vm("ssh = \"10.1:22\""), 18, "`vm.ssh` is \"10.1:22\", which is no host:port; fix: write \"10.0.0.5:22\", \"[fd00::5]:22\" or \"host.example:22\"".to_owned()),
        (vm("ssh = \"user@host:22\""), 18, "`vm.ssh` is \"user@host:22\", which is no host:port; fix: write \"10.0.0.5:22\", \"[fd00::5]:22\" or \"host.example:22\"".to_owned()),
        (vm(""), 14, "`vm.ssh` is missing; fix: add `ssh = \"10.0.0.5:22\"`".to_owned()),
        (vm("ssh = \"10.0.0.5:22\"\nlogin = \"a b\""), 19, "`vm.login` is \"a b\", which is no login name; fix: write the name of an account in the VM, or leave the key out".to_owned()),
        (vm("ssh = \"10.0.0.5:22\"\nhostkey = \"\""), 19, "unknown key `vm.hostkey`; fix: did you mean `host_key`?".to_owned()),
        ("[[host]]\nname = \"ops\"\n".to_owned(), 14, "unknown key `host`; fix: remove it; known here: address, user, team, node, edge, vm".to_owned()),
        ("[[vm]\n".to_owned(), 14, "not TOML: unclosed array table, expected `]`; fix: correct the syntax".to_owned()),
    ] {
        let text = fleet() + &more;
        assert_eq!(scratch.faults("", &text), [format!("fleet.toml:{line}: {fault}")], "{more}");
    }
}

#[test]
fn a_vm_at_an_address_that_is_faulty_itself_is_not_told_twice() {
    let scratch = Scratch::new();
    let faulty = fleet().replace("127.0.77.1", "127.0.77");
    assert_eq!(
        scratch.faults("", &faulty),
        [
            "fleet.toml:3: `address.public` is \"127.0.77\", which is no IP address; fix: write one address, without a port or prefix"
        ]
    );
}

#[test]
fn syntax_errors_hide_no_other_fault_of_the_file() {
    let scratch = Scratch::new();
    let keyway = "[edge]\nlog = \nshards = -1\nlisten = [\"x\"]\nlisten = []\n";
    let told = scratch.faults(keyway, &fleet());
    let lines: Vec<&str> = told.iter().map(|fault| fault.split(' ').next().unwrap()).collect();
    assert_eq!(
        lines,
        ["keyway.toml:2:", "keyway.toml:3:", "keyway.toml:4:", "keyway.toml:5:"],
        "{told:#?}"
    );
}

#[test]
fn a_private_key_that_others_may_read_is_refused() {
    let scratch = Scratch::new();
    scratch.key("host");
    let path = scratch.0.join("host");
    let keyway = "[edge]\nhost_keys = [\"host\"]";
    assert_eq!(scratch.faults(keyway, &fleet()), [""; 0]);
    for mode in [0o640, 0o604, 0o620] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(
            scratch.faults(keyway, &fleet()),
            [format!(
                "keyway.toml:2: `edge.host_keys` names host, which others may read (mode {mode:04o}); fix: chmod 600 host"
            )]
        );
    }
}

#[test]
fn key_files_of_the_wrong_kind_are_told_apart() {
    let scratch = Scratch::new();
    let keygen = |name: &str, more: &[&str]| {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-f"])
            .arg(scratch.0.join(name))
            .args(more)
            .status()
            .unwrap();
        assert!(made.success());
    };
    keygen("p384", &["-t", "ecdsa", "-b", "384", "-N", ""]);
    keygen("locked", &["-t", "ed25519", "-N", "secret"]);
    keygen("pem", &["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", ""]);
    scratch.key("one");
    scratch.key("two");
    let keyway = "[edge]\nhost_keys = [\n\"one\",\n\"two\",\n\"p384\",\n\"p384.pub\",\n\"locked\",\n\"pem\",\n\".\"]";
    assert_eq!(
        scratch.faults(keyway, &fleet()),
        [
            "keyway.toml:4: `edge.host_keys` names two keys of one type, one and two; fix: keep one: a client asks for a type, not for a key",
            "keyway.toml:5: `edge.host_keys` names p384: this type is not offered as a host key; fix: use Ed25519, ECDSA P-256 or RSA",
            "keyway.toml:6: `edge.host_keys` names p384.pub, which is a public key; fix: name the private key beside it, p384",
            "keyway.toml:7: `edge.host_keys` names locked: encrypted private key; fix: take the passphrase off: ssh-keygen -p -N '' -f locked",
            "keyway.toml:8: `edge.host_keys` names pem: unsupported key type; fix: convert it to OpenSSH's format: ssh-keygen -p -N '' -f pem",
            "keyway.toml:9: `edge.host_keys` names .: not a file; fix: correct the path or its permissions",
        ]
    );
}

#[test]
fn a_host_certificate_beside_its_key_must_fit_it() {
    let scratch = Scratch::new();
    scratch.key("ca");
    let sign = |name: &str, host: bool| {
        let public = scratch.key(name);
        scratch.put(&format!("{name}.pub"), public);
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-s"]).arg(scratch.0.join("ca")).args(["-I", "id", "-n", "edge"]);
        if host {
            command.arg("-h");
        }
        assert!(command.arg(scratch.0.join(format!("{name}.pub"))).status().unwrap().success());
    };
    sign("good", true);
    let keyway = "[edge]\nhost_keys = [\"good\"]";
    let Loaded { config, .. } = scratch.load(keyway, &fleet()).unwrap();
    let HostKeys::Given(keys) = config.edge.host_keys else { panic!("a key was given") };
    assert!(keys[0].certificate.is_some());

    sign("user", false);
    scratch.key("other");
    fs::copy(scratch.0.join("good-cert.pub"), scratch.0.join("other-cert.pub")).unwrap();
    for name in ["user", "other"] {
        let told = scratch.faults(&format!("[edge]\nhost_keys = [\"{name}\"]"), &fleet());
        let start = format!(
            "keyway.toml:2: `edge.host_keys` has a certificate beside it, {name}-cert.pub: "
        );
        assert!(told.len() == 1 && told[0].starts_with(&start), "{told:?}");
    }
}

#[test]
fn a_plain_key_and_a_ca_for_the_vm_leg_exclude_each_other() {
    let scratch = Scratch::new();
    let identity = scratch.key("identity");
    scratch.key("ca");
    assert_eq!(
        scratch.faults("[vm_leg]\nuser_ca = \"ca\"\nidentity = \"identity\"", &fleet()),
        [
            "keyway.toml:3: `vm_leg.identity` and `vm_leg.user_ca` are both given; fix: keep user_ca for certificates, or identity for one plain key"
        ]
    );
    let Loaded { config, .. } =
        scratch.load("[vm_leg]\nidentity = \"identity\"", &fleet()).unwrap();
    let VmCredential::Key(key) = config.vm_leg.credential else { panic!("a plain key was given") };
    assert_eq!(key.public().to_line(), identity);
}

#[test]
fn what_is_only_unwise_is_a_warning() {
    let scratch = Scratch::new();
    scratch.put("revoked", ALICE);
    let keyway = r#"[edge]
listen = ["127.0.77.2:22"]
revoked_keys = "revoked"
[vm_leg]
principals = "login"
[metrics]
listen = "10.0.0.1:9644"
"#;
    let print = PublicKey::parse_line(ALICE).unwrap().0.fingerprint();
    let fleet = fleet() + "[[user]]\nname = \"carol\"\n";
    assert_eq!(
        scratch.warnings(keyway, &fleet),
        [
            "keyway.toml:5: `vm_leg.principals` is \"login\": a login minted for one VM is good for every VM that trusts the CA; fix: write \"vm\", and give each VM its AuthorizedPrincipalsFile (keyway ca show --drop-in)".to_owned(),
            "keyway.toml:7: `metrics.listen` is 10.0.0.1:9644, where others than this host can read it; fix: write 127.0.0.1, or make sure that a firewall stands before it".to_owned(),
            "fleet.toml:3: nothing listens at 127.0.77.1 of address `s001`; fix: add it to edge.listen (keyway.toml, line 2)".to_owned(),
            format!("fleet.toml:7: `user.keys` holds {print}, which edge.revoked_keys lists; fix: remove the key"),
            "fleet.toml:14: user `carol` has no way to log in; fix: add a key, or a CA to edge.trusted_user_cas".to_owned(),
        ]
    );
}

#[test]
fn behind_nat_it_is_the_private_address_that_must_be_listened_at() {
    let scratch = Scratch::new();
    let fleet = fleet().replace("public = ", "private = \"10.0.0.7\"\npublic = ");
    assert_eq!(scratch.warnings("[edge]\nlisten = [\"10.0.0.7:22\"]", &fleet), [""; 0]);
    let told = scratch.warnings("[edge]\nlisten = [\"127.0.77.1:22\"]", &fleet);
    assert!(told.len() == 1 && told[0].contains("nothing listens at 10.0.0.7"), "{told:?}");
    // A load balancer's header, not the socket, says what was dialled.
    let behind = "[edge]\nlisten = [\"127.0.77.1:22\"]\nproxy_protocol_from = [\"192.0.2.1\"]";
    assert_eq!(scratch.warnings(behind, &fleet), [""; 0]);
}

#[test]
fn files_that_cannot_be_read_are_told_both() {
    let scratch = Scratch::new();
    let report = load(Some(&scratch.0.join("keyway.toml")), Some(&scratch.0.join("fleet.toml")))
        .unwrap_err();
    assert_eq!(
        scratch.told(&report.faults),
        [
            "keyway.toml:1: cannot be read: no such file; fix: correct the path or its permissions",
            "fleet.toml:1: cannot be read: no such file; fix: correct the path or its permissions",
        ]
    );
    scratch.put("fleet.toml", b"# one\n# two\n\xff\n");
    let report = load(Some(&scratch.put("keyway.toml", "")), Some(&scratch.0.join("fleet.toml")))
        .unwrap_err();
    assert_eq!(
        scratch.told(&report.faults),
        ["fleet.toml:3: not TOML: not UTF-8 text; fix: save the file as UTF-8"]
    );
}

#[test]
fn control_characters_of_a_file_do_not_reach_the_terminal() {
    let scratch = Scratch::new();
    let keyway = "[edge]\nlog = \"\\u001b[2J\\u202e\"\n\"a\\u0007b\" = 1\n";
    let told = scratch.faults(keyway, &fleet());
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|fault| !fault.contains(crate::plain_text::is_unsafe)), "{told:?}");
    let hostile = fleet()
        .replace("owner = \"alice\"", "owner = \"\\u001b[2J\"")
        .replace("name = \"blue\"", "name = \"\\u001b[2J\"");
    let told = scratch.faults("", &hostile);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|fault| !fault.contains(crate::plain_text::is_unsafe)), "{told:?}");
}

#[test]
fn keyway_toml_alone_is_enough_for_what_needs_no_fleet() {
    let scratch = Scratch::new();
    let (config, warnings) = load_config(&scratch.put("keyway.toml", "state_dir = \"s\"")).unwrap();
    assert_eq!((config.state_dir, warnings.len()), (scratch.0.join("s"), 0));
    let report = load_config(&scratch.put("keyway.toml", "x = 1")).unwrap_err();
    assert_eq!(report.to_string(), "1 fault in the configuration");
}

fn dns(scratch: &Scratch, text: &str) -> Dns {
    let path = scratch.put("keyway.toml", text);
    load_config(&path)
        .unwrap_or_else(|report| panic!("{:?}", scratch.told(&report.faults)))
        .0
        .dns
        .unwrap()
}

#[test]
fn without_a_dns_section_there_is_no_dns_and_a_short_one_is_enough() {
    let scratch = Scratch::new();
    assert!(load_config(&scratch.put("keyway.toml", "")).unwrap().0.dns.is_none());
    let read = dns(&scratch, "[dns]\nzone = \"VM.test.\"\nlisten = \"127.0.0.1:5353\"\n");
    assert_eq!(read.zone.as_str(), "vm.test");
    assert_eq!(read.listen, ["127.0.0.1:5353".parse().unwrap()]);
    let ns = NameServer {
        name: DomainName::new("ns.vm.test").unwrap(),
        addresses: vec!["127.0.0.1".parse().unwrap()],
    };
    assert_eq!(read.ns, [ns]);
    assert_eq!((read.ttl_s, read.secondaries.len(), read.dnssec_key.is_some()), (60, 0, false));
}

#[test]
fn a_full_dns_section_is_read() {
    let scratch = Scratch::new();
    let read = dns(
        &scratch,
        r#"[dns]
zone = "vm.test"
listen = ["0.0.0.0:53", "[::]:53"]
ns = ["ns1.vm.test", "ns.example.net"]
ns_addresses = { "ns1.vm.test" = ["192.0.2.1", "2001:db8::1"] }
ttl = 30
secondaries = ["192.0.2.53", "[2001:db8::53]:5353", "10.0.0.0/8"]
"#,
    );
    assert_eq!(read.listen.len(), 2);
    assert_eq!(read.ns[0].addresses.len(), 2);
    assert_eq!((read.ns[1].name.as_str(), read.ns[1].addresses.len()), ("ns.example.net", 0));
    assert_eq!(read.ttl_s, 30);
    let notify: Vec<_> = read.secondaries.iter().map(|secondary| secondary.notify).collect();
    let port = |text: &str| Some(text.parse::<SocketAddr>().unwrap());
    assert_eq!(notify, [port("192.0.2.53:53"), port("[2001:db8::53]:5353"), None]);
}

#[test]
fn a_secondary_drops_an_old_copy_before_a_slot_leads_elsewhere() {
    let scratch = Scratch::new();
    let text = |quarantine_s: u32| {
        format!(
            "[dns]\nzone = \"vm.test\"\nlisten = \"127.0.0.1:5353\"\nttl = 100\nsecondaries = [\"192.0.2.53\"]\n\
             [registry]\nquarantine_s = {quarantine_s}\n"
        )
    };
    for (quarantine_s, expire_s) in
        [(3600, 3500), (190, 90), (189, 90), (100, 90), (2_592_000, 604_800)]
    {
        let path = scratch.put("keyway.toml", text(quarantine_s));
        let (config, warnings) = load_config(&path).unwrap();
        assert_eq!(config.dns.unwrap().expire_s, expire_s, "{quarantine_s}");
        let warned = warnings.iter().any(|it| it.to_string().contains("lost touch"));
        assert_eq!(warned, quarantine_s < 190, "{warnings:?}");
    }
}

#[test]
fn every_fault_of_a_dns_section_is_told() {
    let scratch = Scratch::new();
    scratch.key("ed25519");
    let keyway = r#"[dns]
zone = "vm_test"
listen = ["127.0.0.1:53", "127.0.0.1:53", "0.0.0.0:53", "here"]
ns = ["-bad-", "a.example", "a.example"]
ns_addresses = { "b.example" = "0.0.0.0" }
ttl = 0
secondaries = ["10.0.0.1/8", "nobody"]
dnssec_key = "ed25519"
seconds = 1
"#;
    assert_eq!(
        scratch.faults(keyway, &fleet()),
        [
            "keyway.toml:2: `dns.zone` is \"vm_test\", which is no domain name; fix: write one such as \"vm.example.net\"",
            "keyway.toml:3: `dns.listen` holds \"here\", which is no address and port; fix: write \"192.0.2.1:22\" or \"[2001:db8::1]:22\"; host names are not looked up",
            "keyway.toml:3: `dns.listen` names 0.0.0.0:53 and 127.0.0.1:53, one of which includes the other; fix: keep one of them",
            "keyway.toml:3: `dns.listen` names 127.0.0.1:53 twice; fix: write it once",
            "keyway.toml:4: `dns.ns` holds \"-bad-\", which is no host name; fix: write one such as \"ns1.example.net\"",
            "keyway.toml:4: `dns.ns` names a.example twice; fix: write it once",
            "keyway.toml:5: `dns.ns_addresses` holds \"0.0.0.0\", which is no address to publish; fix: write \"192.0.2.1\" or \"2001:db8::1\"",
            "keyway.toml:6: `dns.ttl` is 0, out of range; fix: write an integer from 1 to 3600 (seconds)",
            "keyway.toml:7: `dns.secondaries` holds \"nobody\", which is no network; fix: write \"10.0.0.0/8\" or \"fd00::/8\"",
            "keyway.toml:7: `dns.secondaries` holds 10.0.0.1/8, which has bits set beyond its prefix; fix: write \"10.0.0.0/8\"",
            "keyway.toml:8: `dns.dnssec_key` is a key of type ssh-ed25519; fix: make one with: ssh-keygen -t ecdsa -b 256 -N '' -f FILE",
            "keyway.toml:9: unknown key `dns.seconds`; fix: did you mean `secondaries`?",
        ]
    );
    assert_eq!(
        scratch.faults("[dns]\nttl = 1\n", &fleet()),
        [
            "keyway.toml:1: `listen` is missing; fix: add `listen = \"192.0.2.53:53\"`",
            "keyway.toml:1: `zone` is missing; fix: add `zone = \"vm.example.net\"`",
        ]
        .map(|text| text
            .replace("`listen` is", "`dns.listen` is")
            .replace("`zone` is", "`dns.zone` is"))
    );
    let together = r#"[dns]
zone = "vm.test"
listen = "0.0.0.0:53"
ns = ["vm.test", "ns.example.net"]
ns_addresses = { "ns.example.net" = ["192.0.2.1"], "ns2.vm.test" = ["192.0.2.2"] }
"#;
    assert_eq!(
        scratch.faults(together, &fleet()),
        [
            "keyway.toml:4: `dns.ns` holds vm.test, the zone itself; fix: write a name below it, such as \"ns.vm.test\"",
            "keyway.toml:5: `dns.ns_addresses` names ns.example.net, which is not in vm.test; fix: remove it: its own zone publishes its addresses",
            "keyway.toml:5: `dns.ns_addresses` names ns2.vm.test, which is not in dns.ns; fix: add it to dns.ns",
        ]
    );
}

#[test]
fn a_signed_zone_has_no_secondaries() {
    let scratch = Scratch::new();
    scratch.put("dnssec", include_str!("../control/dns/testdata/ecdsa_p256"));
    let keyway = "[dns]\nzone = \"vm.test\"\nlisten = \"127.0.0.1:53\"\ndnssec_key = \"dnssec\"\n";
    assert!(dns(&scratch, keyway).dnssec_key.is_some());
    let missing = scratch.faults(&keyway.replace("\"dnssec\"", "\"none\""), &fleet());
    let advice = "names none: no such file; fix: correct the path, or make one: ssh-keygen -t ecdsa -b 256 -N '' -f none";
    assert!(missing.len() == 1 && missing[0].contains(advice), "{missing:?}");
    let told = scratch.faults(&(keyway.to_owned() + "secondaries = \"192.0.2.1\"\n"), &fleet());
    assert!(
        told.len() == 1
            && told[0].contains("`dns.secondaries` and `dns.dnssec_key` are both given"),
        "{told:?}"
    );
}

#[test]
fn a_vm_is_not_called_as_a_name_server_is() {
    let scratch = Scratch::new();
    let keyway = "[dns]\nzone = \"vm.test\"\nlisten = \"127.0.0.1:53\"\nns = \"blue.vm.test\"\n";
    assert_eq!(
        scratch.faults(keyway, &fleet()),
        ["fleet.toml:10: name `blue` belongs to blue.vm.test of dns.ns; fix: choose another name"]
    );
}

#[test]
fn a_name_server_that_nobody_would_find_is_warned_of() {
    let scratch = Scratch::new();
    let keyway =
        "[dns]\nzone = \"vm.test\"\nlisten = \"0.0.0.0:53\"\n[edge]\nlisten = [\"127.0.77.1:22\"]";
    assert_eq!(
        scratch.warnings(keyway, &fleet()),
        [
            "keyway.toml:3: `dns.listen` names no address to publish for ns.vm.test, so that nobody finds it; fix: write dns.ns_addresses = { \"ns.vm.test\" = [\"192.0.2.53\"] }"
        ]
    );
}

#[path = "api_tests.rs"]
mod api_tests;
#[path = "dns_tests.rs"]
mod dns_tests;
