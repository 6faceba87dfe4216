//! The DNS server as other people's programs see it: `dig`, `delv` and `named-checkzone` of
//! BIND, `kdig` of Knot.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use keyway::config::{Dns, DomainName, NameServer, Secondary};
use keyway::control::dns::{self, Addresses, Entry, Handle, Label, Names, PointsAt, Zone, export};
use keyway::ssh::private_key::PrivateKey;
use keyway::ssh::publickey::PublicKey;

use crate::harness::{Key, Scratch, peers, run};

const ED25519: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINILzCr80scSuAcnYpxLu4nnirz6xztusEayvak/vj9f edge";

/// Addresses by name, and VMs with their address' name.
struct Fleet {
    addresses: BTreeMap<&'static str, Addresses>,
    vms: BTreeMap<String, &'static str>,
}

fn fleet(vms: usize) -> Fleet {
    let both = Addresses {
        v4: Some([192, 0, 2, 1].into()),
        v6: Some("2001:db8::1".parse().expect("an address")),
    };
    let v4_only = Addresses { v4: Some([192, 0, 2, 2].into()), v6: None };
    let many = (0..vms).map(|n| (format!("vm-{n}"), "s002"));
    Fleet {
        addresses: [("s001", both), ("s002", v4_only)].into(),
        vms: many.chain([("blue".to_owned(), "s001"), ("green".to_owned(), "s002")]).collect(),
    }
}

fn label(text: &str) -> Label {
    Label::new(text.as_bytes()).expect("a label")
}

impl Names for Fleet {
    fn vm(&self, name: &Label) -> Option<PointsAt> {
        let name = label(self.vms.get(name.as_str())?);
        Some(PointsAt { name, addresses: self.address(&name)? })
    }

    fn address(&self, name: &Label) -> Option<Addresses> {
        self.addresses.get(name.as_str()).copied()
    }

    fn serial(&self) -> u32 {
        7
    }

    fn walk(&self, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) {
        let addresses = self.addresses.iter().map(|(name, at)| Entry::Address(label(name), *at));
        let vms = self.vms.iter().map(|(name, at)| Entry::Vm(label(name), label(at)));
        let _stopped = addresses.chain(vms).try_for_each(visit);
    }
}

fn domain(text: &str) -> DomainName {
    DomainName::new(text).expect("a name")
}

fn settings(copied_by: &[&str]) -> Dns {
    let secondary =
        |net: &&str| Secondary { network: net.parse().expect("a network"), notify: None };
    Dns {
        zone: domain("vm.test"),
        listen: vec!["127.0.0.1:0".parse().expect("an address")],
        ns: vec![NameServer {
            name: domain("ns1.vm.test"),
            addresses: vec!["127.0.0.1".parse().expect("an address")],
        }],
        ttl_s: 30,
        expire_s: 604_800,
        secondaries: copied_by.iter().map(secondary).collect(),
        dnssec_key: None,
        responses_per_second: None,
    }
}

fn zone(settings: &Dns, vms: usize) -> Arc<Zone> {
    let key = PublicKey::parse_line(ED25519).expect("a key").0;
    Arc::new(Zone::new(settings, &[key], Arc::new(fleet(vms))).expect("a zone"))
}

fn serve(settings: &Dns, vms: usize) -> Handle {
    dns::start(settings, zone(settings, vms)).expect("starts")
}

/// `None` if the program may be missing and is.
#[track_caller]
fn ask(program: &str, server: SocketAddr, words: &str) -> Option<String> {
    let mut command = Command::new(peers::program("dns", program)?);
    command.args([&format!("@{}", server.ip()), "-p", &server.port().to_string()]);
    // One try: what is lost shows.
    command.args(["+retry=0", "+timeout=10"]).args(words.split_whitespace());
    Some(run(&mut command).ok().text())
}

#[test]
fn dig_gets_a_vms_address_and_its_host_key_over_udp_and_tcp() {
    let handle = serve(&settings(&[]), 0);
    let server = handle.addresses()[0];
    for transport in ["+notcp", "+tcp"] {
        let words = format!("{transport} +short +norecurse BLUE.vm.TEST");
        let Some(told) = ask("dig", server, &format!("{words} A")) else { return };
        assert_eq!(told, "s001.vm.test.\n192.0.2.1");
        let told = ask("dig", server, &format!("{words} AAAA")).expect("it is there");
        assert_eq!(told, "s001.vm.test.\n2001:db8::1");
        let told = ask("dig", server, &format!("{words} SSHFP")).expect("it is there");
        assert!(told.starts_with("s001.vm.test.\n4 2 ") && told.lines().count() == 2, "{told}");
    }
}

#[test]
fn dig_tells_a_name_that_is_not_from_a_type_that_is_not() {
    let handle = serve(&settings(&[]), 0);
    let soa = "vm.test.\t\t60\tIN\tSOA\tns1.vm.test. hostmaster.vm.test. 7 60 30 604800 60";
    for (asked, status, answers) in [
        ("red.vm.test A", "NXDOMAIN", "ANSWER: 0"),
        ("a.blue.vm.test A", "NXDOMAIN", "ANSWER: 0"),
        ("s002.vm.test AAAA", "NOERROR", "ANSWER: 0"),
        ("green.vm.test AAAA", "NOERROR", "ANSWER: 1"),
    ] {
        let Some(told) = ask("dig", handle.addresses()[0], &format!("+norecurse {asked}")) else {
            return;
        };
        for part in [&format!("status: {status}"), "flags: qr aa;", answers, "AUTHORITY: 1", soa] {
            assert!(told.contains(part), "{asked}: no {part:?} in\n{told}");
        }
        assert!(!told.contains("WARNING"), "{told}");
    }
}

#[test]
fn dig_is_refused_what_is_not_ours() {
    let handle = serve(&settings(&[]), 0);
    for (asked, status) in [
        ("example.net A", "REFUSED"),
        ("-c CH version.bind TXT", "REFUSED"),
        ("+opcode=status vm.test SOA", "NOTIMP"),
        ("+opcode=notify vm.test SOA", "REFUSED"),
        ("+opcode=update vm.test SOA", "REFUSED"),
        ("+opcode=7 vm.test SOA", "NOTIMP"),
        ("+edns=1 +noednsneg vm.test SOA", "BADVERS"),
        ("vm.test ANY +notcp", "NOERROR"),
    ] {
        let Some(told) = ask("dig", handle.addresses()[0], asked) else { return };
        assert!(told.contains(&format!("status: {status}")), "{asked}:\n{told}");
    }
}

#[test]
fn dig_and_kdig_come_back_over_tcp_for_what_was_truncated() {
    let mut settings = settings(&[]);
    settings.ns = (0..40)
        .map(|n| NameServer {
            name: domain(&format!("a-name-server-{n}.site-{n}.vm.test")),
            addresses: vec![[192, 0, 2, 1].into()],
        })
        .collect();
    let handle = serve(&settings, 0);
    let server = handle.addresses()[0];
    for program in ["dig", "kdig"] {
        let Some(told) = ask(program, server, "+ignore vm.test NS") else {
            return;
        };
        assert!(told.contains(" tc") && told.contains("ANSWER: 0"), "{told}");
        let told = ask(program, server, "+short vm.test NS").expect("it is there");
        assert_eq!(told.lines().filter(|line| line.starts_with("a-name")).count(), 40, "{told}");
    }
}

#[test]
fn the_zone_is_copied_by_those_listed_and_by_nobody_else() {
    const VMS: usize = 3000;
    let (ours, others) =
        (serve(&settings(&["127.0.0.0/8"]), VMS), serve(&settings(&["192.0.2.1/32"]), VMS));
    for program in ["dig", "kdig"] {
        let copy = |server: &Handle, words: &str| ask(program, server.addresses()[0], words);
        let Some(told) = copy(&ours, "+noall +answer vm.test AXFR") else { return };
        let records = told.lines().filter(|line| line.contains("\tIN\t"));
        // NS and its address, s001 with three, s002 with two, the VMs, and the SOA at both ends.
        assert_eq!(records.count(), 2 + 3 + 2 + VMS + 2 + 2, "{program}");
        let told = copy(&ours, "+noall +answer vm.test IXFR=7").expect("it is there");
        assert_eq!(told.lines().filter(|line| line.contains("SOA")).count(), 1, "{told}");
        let told = copy(&ours, "+noall +answer vm.test IXFR=6").expect("it is there");
        assert!(told.lines().count() > VMS, "{program}");
    }
    let told = ask("dig", others.addresses()[0], "vm.test AXFR").expect("it is there");
    assert!(told.contains("Transfer failed"), "{told}");
}

/// What `named-checkzone` says of a file; `None` without it.
#[track_caller]
fn check_zone(file: &Path) -> Option<String> {
    let program = peers::program("dns", "named-checkzone")?;
    Some(run(Command::new(program).arg("vm.test").arg(file)).ok().text())
}

#[test]
fn bind_loads_an_exported_zone() {
    let scratch = Scratch::new();
    let path = scratch.path().join("vm.test.zone");
    let settings = settings(&[]);
    let mut text = Vec::new();
    export::write(&zone(&settings, 3000), &mut text).expect("writes");
    fs::write(&path, text).expect("writes");
    let Some(told) = check_zone(&path) else { return };
    assert!(told.contains("loaded serial 7") && told.ends_with("OK"), "{told}");
    assert_eq!(told.lines().count(), 2, "a warning: {told}");
}

#[test]
fn delv_validates_what_is_and_what_is_not() {
    let scratch = Scratch::new();
    let made = Key::generate(scratch.path(), "dnssec", &["-t", "ecdsa", "-b", "256"]);
    let text = fs::read_to_string(made.path()).expect("a key");
    let mut settings = settings(&[]);
    settings.dnssec_key = Some(Arc::new(PrivateKey::from_openssh(&text).expect("a key").0));
    let zone = zone(&settings, 0);
    let ds = zone.ds().expect("a digest").expect("a key");
    let handle = dns::start(&settings, zone).expect("starts");
    // vm.test. IN DS tag 13 2 digest
    let words: Vec<&str> = ds.split(' ').collect();
    let (tag, digest) = (words[3], words[6]);
    let anchors = scratch.path().join("anchors");
    let anchor = format!("trust-anchors {{ \"vm.test.\" static-ds {tag} 13 2 \"{digest}\"; }};\n");
    fs::write(&anchors, anchor).expect("writes");
    for (asked, told) in [
        ("blue.vm.test A", "; fully validated\nblue.vm.test."),
        ("blue.vm.test AAAA", "; fully validated\nblue.vm.test."),
        ("BLUE.vm.TEST SSHFP", "; fully validated\nBLUE.vm.TEST."),
        ("vm.test NS", "; fully validated\nvm.test."),
        ("vm.test SOA", "; fully validated\nvm.test."),
        ("red.vm.test A", "; negative response, fully validated\n"),
        ("deep.er.vm.test A", "; negative response, fully validated\n"),
        // The alias, then the proof; delv checks both and calls the end of the chain a failure.
        ("green.vm.test AAAA", "; fully validated\ngreen.vm.test."),
        ("s002.vm.test AAAA", "; negative response, fully validated\n"),
        ("vm.test A", "; negative response, fully validated\n"),
    ] {
        let Some(delv) = peers::program("dns", "delv") else { return };
        let server = handle.addresses()[0];
        let mut command = Command::new(delv);
        command.args([&format!("@{}", server.ip()), "-p", &server.port().to_string(), "-a"]);
        command.arg(&anchors).arg("+root=vm.test").args(asked.split(' '));
        let output = run(&mut command);
        let both = format!("{}\n{}", output.text(), output.stderr);
        assert!(both.contains(told), "{asked}: {both}");
    }
}
