//! Tests of what `[dns]` has to do with other sections, and of its limits.

use std::num::NonZeroU32;

use super::*;

const ZONE: &str = "[dns]\nzone = \"vm.test\"\n";

#[test]
fn dns_meets_no_other_listener() {
    let scratch = Scratch::new();
    let fix = "; fix: write another port; DNS takes TCP too";
    for (listen, more, faults) in [
        ("127.0.0.1:9644", "", vec!["127.0.0.1:9644, where `metrics.listen` has 127.0.0.1:9644"]),
        (
            "127.0.0.1:53",
            "[edge]\nlisten = [\"0.0.0.0:53\", \"[::]:53\"]\n",
            vec!["127.0.0.1:53, where `edge.listen` has 0.0.0.0:53"],
        ),
        (
            "0.0.0.0:9644",
            "[edge]\nlisten = [\"127.0.77.1:9644\"]\n",
            vec![
                "0.0.0.0:9644, where `edge.listen` has 127.0.77.1:9644",
                "0.0.0.0:9644, where `metrics.listen` has 127.0.0.1:9644",
            ],
        ),
        ("127.0.0.2:9644", "", vec![]),
        ("[::1]:9644", "", vec![]),
        ("[::]:9644", "", vec![]),
    ] {
        let keyway = format!("{ZONE}listen = \"{listen}\"\n{more}");
        let wanted: Vec<String> =
            faults.iter().map(|it| format!("keyway.toml:3: `dns.listen` is {it}{fix}")).collect();
        let path = scratch.put("keyway.toml", &keyway);
        let told = match load_config(&path) {
            Ok(_) => vec![],
            Err(report) => report.faults.iter().map(ToString::to_string).collect(),
        };
        let prefix = format!("{}/", scratch.0.display());
        let told: Vec<String> = told.iter().map(|fault| fault.replace(&prefix, "")).collect();
        assert_eq!(told, wanted, "{keyway}");
    }
}

#[test]
fn answers_are_limited_unless_somebody_says_that_they_are_not() {
    let scratch = Scratch::new();
    let read = |more: &str| {
        let keyway = format!("{ZONE}listen = \"127.0.0.1:5353\"\n{more}");
        let config = load_config(&scratch.put("keyway.toml", &keyway)).unwrap().0;
        config.dns.unwrap().responses_per_second
    };
    assert_eq!(read(""), NonZeroU32::new(200));
    assert_eq!(read("responses_per_second = 5\n"), NonZeroU32::new(5));
    assert_eq!(read("responses_per_second = 0\n"), None);
    let wrong = format!("{ZONE}listen = \"127.0.0.1:5353\"\nresponses_per_second = -1\n");
    assert_eq!(
        scratch.faults(&wrong, &fleet()),
        [
            "keyway.toml:4: `dns.responses_per_second` is -1, out of range; fix: write an integer from 0 to 1000000 (to each network; 0 for no limit)"
        ]
    );
}

#[test]
fn a_name_is_remembered_no_longer_than_its_slot_is_kept_free() {
    let scratch = Scratch::new();
    let told = |dns: &str, registry: &str| {
        let keyway = format!("{ZONE}listen = \"127.0.0.1:5353\"\n{dns}[registry]\n{registry}\n");
        let told = scratch.faults(&keyway, &fleet());
        told.iter()
            .map(|it| it.rsplit_once("keyway.toml:").unwrap().1.to_owned())
            .collect::<Vec<_>>()
    };
    let fault = |line: u8, ttl: u16, quarantine: u16| {
        format!(
            "{line}: `dns.ttl` is {ttl} and `registry.quarantine_s` {quarantine}: a name that a resolver remembers may \
             lead to another VM; fix: write a quarantine_s of at least {ttl} and a margin, or a smaller ttl"
        )
    };
    assert_eq!(told("ttl = 301\n", "quarantine_s = 300"), [fault(4, 301, 300)]);
    // Nobody wrote the TTL.
    assert_eq!(told("", "quarantine_s = 59"), [fault(5, 60, 59)]);
    let good =
        format!("{ZONE}listen = \"127.0.0.1:5353\"\nttl = 300\n[registry]\nquarantine_s = 300\n");
    assert!(load_config(&scratch.put("keyway.toml", &good)).is_ok());
}
