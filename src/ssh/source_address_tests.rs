//! Tests of `source`.

use proptest::prelude::*;

use super::*;

fn admits(list: &str, source: &str) -> bool {
    SourcePatterns::parse(list).unwrap().admits(source.parse().unwrap())
}

#[test]
fn lists_of_addresses_networks_and_patterns_match_as_in_sshd() {
    for (list, source, expected) in [
        ("192.0.2.7", "192.0.2.7", true),
        ("192.0.2.7", "192.0.2.8", false),
        ("192.0.2.0/24", "192.0.2.255", true),
        ("192.0.2.0/24", "192.0.3.0", false),
        ("0.0.0.0/0", "203.0.113.9", true),
        ("0.0.0.0/0", "2001:db8::1", false),
        ("::/0", "203.0.113.9", false),
        ("2001:db8::/32", "2001:db8:1::1", true),
        ("10.0.0.1,192.0.2.0/24", "192.0.2.1", true),
        ("10.0.0.1, 192.0.2.0/24", "192.0.2.1", true),
        ("192.0.2.*", "192.0.2.77", true),
        ("192.0.2.*", "192.0.21.7", false),
        ("192.0.?.1", "192.0.9.1", true),
        ("192.0.?.1", "192.0.10.1", false),
        ("*", "2001:db8::1", true),
        ("2001:DB8:*", "2001:db8::1", true),
        ("192.0.2.0/24,!192.0.2.7", "192.0.2.7", false),
        ("!192.0.2.7,192.0.2.0/24", "192.0.2.8", true),
        ("!192.0.2.7", "192.0.2.8", false),
        ("*,!10.*", "10.1.2.3", false),
        ("*,!10.*", "11.1.2.3", true),
    ] {
        assert_eq!(admits(list, source), expected, "{list} {source}");
    }
}

/// Trap 41: v4-mapped v6 addresses.
#[test]
fn a_mapped_address_is_its_ipv4_address_on_both_sides() {
    assert!(admits("192.0.2.0/24", "::ffff:192.0.2.7"));
    assert!(admits("192.0.2.*", "::ffff:192.0.2.7"));
    assert!(admits("::ffff:192.0.2.0/120", "192.0.2.7"));
    assert!(admits("::ffff:192.0.2.7", "::ffff:192.0.2.7"));
    assert!(!admits("::ffff:192.0.2.0/120", "192.0.3.7"));
    assert!(!admits("*,!192.0.2.7", "::ffff:192.0.2.7"));
    assert_eq!(is_in_networks("192.0.2.0/24", "::ffff:192.0.2.7".parse().unwrap()), Some(true));
}

#[test]
fn what_is_no_address_is_refused_by_name() {
    for entry in
        ["host.example.test", "*.example.test", "!*.example.test", "db*", "", "!", "be*.ad"]
    {
        let fault = SourcePatterns::parse(&format!("10.0.0.1,{entry}")).unwrap_err();
        assert_eq!(fault, SourceFault::Name(entry.to_owned()));
    }
    for entry in ["10.0.0.1/24", "10.0.0.0/33", "2001:db8::1/32", "10.0.0.*/24", "a/b", "10.0.0.0/"]
    {
        let fault = SourcePatterns::parse(entry).unwrap_err();
        assert_eq!(fault, SourceFault::Network(entry.to_owned()));
    }
    let many = vec!["10.0.0.1"; PATTERNS_MAX];
    assert!(SourcePatterns::parse(&many.join(",")).is_ok());
    assert_eq!(SourcePatterns::parse(&(many.join(",") + ",10.0.0.1")), Err(SourceFault::Many));
}

#[test]
fn certificate_networks_know_no_patterns_and_every_entry_must_parse() {
    let source = "192.0.2.7".parse().unwrap();
    for (list, expected) in [
        ("192.0.2.7", Some(true)),
        ("10.0.0.0/8,192.0.2.0/24", Some(true)),
        ("10.0.0.0/8", Some(false)),
        ("", None),
        ("192.0.2.7,", None),
        ("192.0.2.7,nonsense", None),
        ("192.0.2.*", None),
        ("!10.0.0.1,192.0.2.7", None),
        ("192.0.2.7/24", None),
        ("192.0.2.7, 10.0.0.1", None),
    ] {
        assert_eq!(is_in_networks(list, source), expected, "{list:?}");
    }
}

#[test]
fn a_pattern_of_many_stars_costs_little() {
    let glob = "*1".repeat(2000);
    let text = "1".repeat(1999);
    assert!(!matches_glob(glob.as_bytes(), text.as_bytes()));
    assert!(matches_glob(glob.as_bytes(), "1".repeat(2000).as_bytes()));
}

/// The obvious recursive definition.
fn matches_slowly(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|skip| matches_slowly(rest, &text[skip..])),
        ([want, rest @ ..], [have, left @ ..]) => {
            (*want == b'?' || want == have) && matches_slowly(rest, left)
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn globs_match_as_defined(pattern in "[12*?]{0,8}", text in "[12]{0,8}") {
        let fast = matches_glob(pattern.as_bytes(), text.as_bytes());
        prop_assert_eq!(fast, matches_slowly(pattern.as_bytes(), text.as_bytes()));
    }

    #[test]
    fn arbitrary_lists_do_not_panic(list in ".{0,100}", source in any::<[u8; 16]>()) {
        if let Ok(patterns) = SourcePatterns::parse(&list) {
            let _ = patterns.admits(source.into());
        }
        let _ = is_in_networks(&list, source.into());
    }
}
