//! Tests of `zone`: one table of questions and answers, then what a table cannot say.

use hickory_proto::rr::RecordType::{self, A, AAAA, ANY, CNAME, NS, SOA, SSHFP, TXT};

use super::super::export;
use super::super::testing::{host_keys, label, listing, name, query, settings, zone, zone_of};
use super::*;

const PRINT: &str = "SSHFP 4 2";
const SOA_LINE: &str = "vm.test. 60 IN SOA ns1.vm.test. hostmaster.vm.test. 7 60 30 604800 60";

fn ask(zone: &Zone, asked: &str, wanted: RecordType) -> Answer {
    let mut answer = Answer::default();
    zone.answer(&query(asked, wanted).queries[0], &mut answer);
    answer
}

fn lines(records: &[Record]) -> Vec<String> {
    records.iter().map(ToString::to_string).collect()
}

#[test]
fn each_question_has_its_answer() {
    use Outcome::{Found, NoData, NotImplemented, NxDomain, Refused};
    let alias = "blue.vm.test. 30 IN CNAME s001.vm.test.";
    let table: &[(&str, RecordType, Outcome, &[&str])] = &[
        // A VM is an alias, and its address is given along.
        ("blue.vm.test.", A, Found, &[alias, "s001.vm.test. 30 IN A 192.0.2.1"]),
        ("blue.vm.test.", AAAA, Found, &[alias, "s001.vm.test. 30 IN AAAA 2001:db8::1"]),
        ("blue.vm.test.", CNAME, Found, &[alias]),
        ("blue.vm.test.", ANY, Found, &[alias]),
        ("blue.vm.test.", TXT, NoData, &[alias]),
        ("blue.vm.test.", NS, NoData, &[alias]),
        ("green.vm.test.", AAAA, NoData, &["green.vm.test. 30 IN CNAME s002.vm.test."]),
        // A pool address.
        ("s001.vm.test.", A, Found, &["s001.vm.test. 30 IN A 192.0.2.1"]),
        ("s001.vm.test.", AAAA, Found, &["s001.vm.test. 30 IN AAAA 2001:db8::1"]),
        ("s002.vm.test.", AAAA, NoData, &[]),
        ("s001.vm.test.", CNAME, NoData, &[]),
        ("s001.vm.test.", ANY, Found, &["s001.vm.test. 30 IN A 192.0.2.1"]),
        // The apex.
        ("vm.test.", SOA, Found, &[SOA_LINE]),
        ("vm.test.", ANY, Found, &[SOA_LINE]),
        (
            "vm.test.",
            NS,
            Found,
            &[
                "vm.test. 30 IN NS ns1.vm.test.",
                "vm.test. 30 IN NS a.deep.vm.test.",
                "vm.test. 30 IN NS ns.example.net.",
            ],
        ),
        ("vm.test.", A, NoData, &[]),
        // Name servers in the zone, and what stands between.
        ("ns1.vm.test.", A, Found, &["ns1.vm.test. 30 IN A 192.0.2.53"]),
        ("ns1.vm.test.", AAAA, Found, &["ns1.vm.test. 30 IN AAAA 2001:db8::53"]),
        ("ns1.vm.test.", SSHFP, NoData, &[]),
        ("a.deep.vm.test.", AAAA, NoData, &[]),
        ("deep.vm.test.", A, NoData, &[]),
        // What does not exist: unknown, deeper, what no VM can be called, wildcards.
        ("red.vm.test.", A, NxDomain, &[]),
        ("a.blue.vm.test.", A, NxDomain, &[]),
        ("a.s001.vm.test.", A, NxDomain, &[]),
        ("b.deep.vm.test.", A, NxDomain, &[]),
        ("x.a.deep.vm.test.", A, NxDomain, &[]),
        ("*.vm.test.", A, NxDomain, &[]),
        ("_ssh.vm.test.", A, NxDomain, &[]),
        // Not ours.
        ("test.", SOA, Refused, &[]),
        (".", NS, Refused, &[]),
        ("xvm.test.", A, Refused, &[]),
        ("ns.example.net.", A, Refused, &[]),
        // Not asked of an authority.
        ("blue.vm.test.", RecordType::TSIG, NotImplemented, &[]),
        ("blue.vm.test.", RecordType::OPT, NotImplemented, &[]),
        ("blue.vm.test.", RecordType::Unknown(254), NotImplemented, &[]),
    ];
    let zone = zone();
    for (asked, wanted, outcome, answers) in table {
        let answer = ask(&zone, asked, *wanted);
        assert_eq!(answer.outcome, *outcome, "{asked} {wanted}");
        assert_eq!(lines(&answer.answers), *answers, "{asked} {wanted}");
        let negative = matches!(outcome, NoData | NxDomain);
        let authority: &[&str] = if negative { &[SOA_LINE] } else { &[] };
        assert_eq!(lines(&answer.authority), authority, "{asked} {wanted}");
    }
}

#[test]
fn a_host_key_is_found_by_the_vms_name() {
    let answer = ask(&zone(), "blue.vm.test.", SSHFP);
    let told = lines(&answer.answers);
    assert_eq!(told[0], "blue.vm.test. 30 IN CNAME s001.vm.test.");
    assert_eq!(told.len(), 2);
    let print = host_keys()[0].fingerprint().0;
    let hex = print.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let whole = format!("s001.vm.test. 30 in {} {hex}", PRINT.to_lowercase());
    assert_eq!(told[1].to_lowercase(), whole);
}

#[test]
fn every_type_of_host_key_has_its_number() {
    let rsa = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQDlJB7VKBRbsaFOA8fUkKwuWrZo573MeylrSzo38Gma6jFmdHZDsVfY68iEnNlMUT0Q7wLu1WaOJHvqOEoBfJ8uZ/OZc7CvCpBTk+683BDqygO9lNfJzzouBn8s74Me0PAfUjBd7zGfZYY+ROPQg3QOnNpJ6eShLoBN4/LoA11KXwPuzaHGyZWuxTRx1tQk38C9WSYjiHer5BEdZd07or5gx/Jpi6PFVecZE1GEYJDC1IkckZKrotJ4N6AlJBDKf+1/l1Ve1Qwp/oAshZYUVG14bvSqgDEuzoF1WujFA9PT3vE9MWWU1HoFgm6PkWdDhZa/kV2UsCs6buOGNBh4yoGt";
    let numbers = |line: &str| {
        let key = PublicKey::parse_line(line).unwrap().0;
        fingerprint(&key).map(|data| data.to_string()[..3].to_owned())
    };
    assert_eq!(numbers(rsa).as_deref(), Some("1 2"));
    let ecdsa = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBGsX0fLhLEJH+Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT+NC4v4af5uO5+tKfA+eFivOM1drMV7Oy7ZAaDe/UfU=";
    assert_eq!(numbers(ecdsa).as_deref(), Some("3 2"));
}

#[test]
fn names_compare_without_case_and_the_owner_is_as_asked() {
    let answer = ask(&zone(), "BluE.vM.Test.", A);
    assert_eq!(answer.outcome, Outcome::Found);
    let owner: Vec<&[u8]> = answer.answers[0].name.iter().collect();
    assert_eq!(owner, [&b"BluE"[..], b"vM", b"Test"]);
    assert_eq!(ask(&zone(), "S001.VM.TEST.", A).outcome, Outcome::Found);
}

#[test]
fn other_classes_are_refused() {
    let mut question = query("blue.vm.test.", A).queries.remove(0);
    for class in [DNSClass::CH, DNSClass::HS, DNSClass::ANY, DNSClass::NONE] {
        question.set_query_class(class);
        let mut answer = Answer::default();
        zone().answer(&question, &mut answer);
        assert_eq!(answer.outcome, Outcome::Refused, "{class}");
        assert!(answer.answers.is_empty() && answer.authority.is_empty());
    }
}

#[test]
fn name_servers_in_the_zone_come_with_their_addresses() {
    let answer = ask(&zone(), "vm.test.", NS);
    assert_eq!(
        lines(&answer.additional),
        [
            "ns1.vm.test. 30 IN A 192.0.2.53",
            "ns1.vm.test. 30 IN AAAA 2001:db8::53",
            "a.deep.vm.test. 30 IN A 192.0.2.54",
        ]
    );
}

#[test]
fn an_answer_leaves_nothing_to_the_next() {
    let (zone, mut answer) = (zone(), Answer::default());
    for (asked, wanted) in [("vm.test.", NS), ("red.vm.test.", A), ("blue.vm.test.", A)] {
        zone.answer(&query(asked, wanted).queries[0], &mut answer);
    }
    assert_eq!(answer.answers.len(), 2);
    assert!(answer.authority.is_empty() && answer.additional.is_empty());
    assert_eq!((answer.outcome, answer.last), (Outcome::Found, None));
}

#[test]
fn a_change_is_answered_at_once() {
    let names = listing();
    let zone = zone_of(&settings(), Arc::clone(&names));
    assert_eq!(ask(&zone, "red.vm.test.", A).outcome, Outcome::NxDomain);
    names.vms.lock().unwrap().insert(label("red"), label("s002"));
    assert_eq!(ask(&zone, "red.vm.test.", A).outcome, Outcome::Found);
    names.vms.lock().unwrap().remove(&label("red"));
    assert_eq!(ask(&zone, "red.vm.test.", A).outcome, Outcome::NxDomain);
}

#[test]
fn an_export_says_what_the_answers_say() {
    let zone = zone();
    let mut text = Vec::new();
    export::write(&zone, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let mut told: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(told.remove(0), SOA_LINE);
    let mut asked = Vec::new();
    let all = ["vm.test.", "ns1.vm.test.", "a.deep.vm.test.", "s001.vm.test.", "s002.vm.test."];
    for asked_name in all.into_iter().chain(["blue.vm.test.", "green.vm.test."]) {
        for wanted in [NS, A, AAAA, SSHFP, CNAME] {
            let answer = ask(&zone, asked_name, wanted);
            let owned = answer.answers.iter().filter(|it| it.name == name(asked_name));
            asked.extend(owned.map(ToString::to_string));
        }
    }
    told.sort_unstable();
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(told, asked);
}

#[test]
fn a_vm_cannot_take_a_name_servers_name() {
    let names = listing();
    names.vms.lock().unwrap().insert(label("ns1"), label("s002"));
    let zone = zone_of(&settings(), names);
    assert_eq!(lines(&ask(&zone, "ns1.vm.test.", A).answers), ["ns1.vm.test. 30 IN A 192.0.2.53"]);
    let mut owners = Vec::new();
    zone.walk(&mut |record| {
        owners.push(record.to_string());
        ControlFlow::Continue(())
    });
    assert!(!owners.iter().any(|line| line.starts_with("ns1.vm.test. 30 IN CNAME")), "{owners:?}");
}

#[test]
fn a_walk_stops_when_told() {
    let mut seen = 0;
    zone().walk(&mut |_| {
        seen += 1;
        if seen < 8 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert_eq!(seen, 8);
}
