//! Tests of `proxy_header`.

use proptest::prelude::*;

use super::*;

const SSH: &[u8] = b"SSH-2.0-OpenSSH_9.2\r\n";

fn origin(source: &str, destination: &str) -> Origin {
    Origin {
        source: source.parse().expect("an address"),
        destination: destination.parse().expect("an address"),
    }
}

fn field(kind: u8, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).expect("short").to_be_bytes();
    [&[kind], &len[..], value].concat()
}

fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).expect("short").to_be_bytes();
    [SIGNATURE, &[command, family], &len, body].concat()
}

fn endpoints_v4() -> Vec<u8> {
    vec![192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0, 22]
}

fn endpoints_v6() -> Vec<u8> {
    let [source, destination] = ["2001:db8::1", "2001:db8::2"]
        .map(|ip| ip.parse::<Ipv6Addr>().expect("an address").octets());
    [&source[..], &destination, &[0xdc, 0x04, 0, 22]].concat()
}

/// A header with its checksum behind `fields`, made by the shortest possible CRC-32C.
fn summed(fields: &[u8], after: &[u8]) -> Vec<u8> {
    let body = [&endpoints_v4()[..], fields, &field(TYPE_CRC32C, &[0; 4]), after].concat();
    let mut header = binary(0x21, 0x11, &body);
    let sum = crc32c(header.iter().copied()).to_be_bytes();
    let at = header.len() - after.len() - 4;
    header[at..at + 4].copy_from_slice(&sum);
    header
}

/// Every good header, with what it says.
fn good() -> Vec<(Vec<u8>, HeaderVerdict)> {
    let v4 = origin("192.0.2.1:56324", "198.51.100.2:22");
    let v6 = origin("[2001:db8::1]:56324", "[2001:db8::2]:22");
    let longest = "PROXY TCP6 2001:0db8:0000:0000:0000:0000:0000:0001 2001:0db8:0000:0000:0000:0000:0000:0002 56324 22\r\n";
    let more = field(0xea, &[7; 40]);
    let headers = [
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 22\r\n".to_vec(), v4),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 22\r\n".to_vec(), v6),
        (longest.as_bytes().to_vec(), v6),
        // IPv4 written as IPv6 is the IPv4 address it is.
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 56324 22\r\n".to_vec(), v4),
        (binary(0x21, 0x11, &endpoints_v4()), v4),
        (binary(0x21, 0x21, &endpoints_v6()), v6),
        (binary(0x21, 0x11, &[endpoints_v4(), more.clone()].concat()), v4),
        (binary(0x21, 0x11, &[endpoints_v4(), field(4, &[0; 4_000])].concat()), v4),
        (summed(&more, &[]), v4),
        (summed(&[], &field(4, &[1, 2, 3])), v4),
    ];
    headers
        .into_iter()
        .map(|(header, origin)| {
            let used = header.len();
            (header, HeaderVerdict::Proxied { origin, used })
        })
        .collect()
}

fn health_checks() -> Vec<Vec<u8>> {
    vec![
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ffff::1 what ever 0\r\n".to_vec(),
        binary(0x20, 0x00, &[]),
        binary(0x20, 0x11, &endpoints_v4()),
        binary(0x21, 0x00, &[]),
        binary(0x21, 0x00, &[9; 20]),
    ]
}

#[test]
fn every_header_split_at_every_byte_says_the_same_and_leaves_the_ssh_behind_it() {
    for (header, verdict) in good() {
        let stream = [&header[..], SSH].concat();
        for len in 0..=stream.len() {
            let found = inspect(Expected::Header, &stream[..len]).expect("a good header");
            if len < header.len() {
                let HeaderVerdict::More { at_least } = found else {
                    panic!("{found:?} after {len}")
                };
                assert!(at_least > len && at_least <= header.len(), "{at_least} after {len}");
            } else {
                assert_eq!(found, verdict, "after {len} of {}", header.len());
            }
        }
    }
}

#[test]
fn a_reader_that_reads_only_what_is_asked_for_ends_exactly_behind_the_header() {
    for (header, verdict) in good() {
        let mut have = 0;
        let found = loop {
            match inspect(Expected::Header, &header[..have]).expect("a good header") {
                HeaderVerdict::More { at_least } => have = at_least,
                found @ (HeaderVerdict::Plain
                | HeaderVerdict::Proxied { .. }
                | HeaderVerdict::HealthCheck) => {
                    break found;
                }
            }
        };
        assert_eq!((found, have), (verdict, header.len()));
    }
}

#[test]
fn local_unknown_and_unspec_are_health_checks() {
    for header in health_checks() {
        for len in 0..header.len() {
            let found = inspect(Expected::Header, &header[..len]).expect("a good header");
            assert!(matches!(found, HeaderVerdict::More { .. }), "{found:?} after {len}");
        }
        assert_eq!(inspect(Expected::Header, &header), Ok(HeaderVerdict::HealthCheck));
    }
}

/// CVE-2024-35175 (sshpiper): a header believed from anybody.
#[test]
fn a_header_from_an_unlisted_peer_is_refused_with_its_cause() {
    let headers = good().into_iter().map(|(header, _)| header).chain(health_checks());
    for header in headers {
        let start = if header.starts_with(SIGNATURE) { SIGNATURE.len() } else { TEXT_START.len() };
        for len in 0..=header.len() {
            let found = inspect(Expected::Plain, &header[..len]);
            if len < start {
                assert_eq!(found, Ok(HeaderVerdict::More { at_least: len + 1 }));
            } else {
                assert_eq!(found, Err(ProxyHeaderError::NotListed), "after {len}");
            }
        }
    }
}

#[test]
fn ssh_from_an_unlisted_peer_is_ssh_from_its_first_byte() {
    for len in 1..SSH.len() {
        assert_eq!(inspect(Expected::Plain, &SSH[..len]), Ok(HeaderVerdict::Plain));
    }
    for other in [&b"PROXYZ"[..], b"\r\n\r\nSSH", b"\0", b"PROX\0"] {
        assert_eq!(inspect(Expected::Plain, other), Ok(HeaderVerdict::Plain));
    }
}

#[test]
fn anything_but_a_header_from_a_listed_peer_is_refused() {
    for other in [SSH, b"S", b"PROXZ", b"proxy TCP4", b"\r\n\r\n\0\r\nQUIT\r", b"\0"] {
        assert_eq!(inspect(Expected::Header, other), Err(ProxyHeaderError::Missing));
    }
}

#[test]
fn malformed_text_headers_are_refused() {
    let long = format!("PROXY TCP4 192.0.2.1 198.51.100.2 {} 22\r\n", "0".repeat(80));
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(200));
    for header in [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP5 192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY  TCP4 192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n",
        "PROXY TCP4 192.0.2.1  198.51.100.2 1 2\r\n",
        "PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n",
        "PROXY TCP4 192.0.2 198.51.100.2 1 2\r\n",
        "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 2001:db8::2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 65536 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 -1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 \r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n\r\n",
        "PROXY TCP4 192.0.2.1\t198.51.100.2 1 2\r\n",
        &long,
        &endless,
    ] {
        assert_eq!(
            inspect(Expected::Header, header.as_bytes()),
            Err(ProxyHeaderError::Text),
            "{header:?}"
        );
    }
    let bytes = b"PROXY TCP4 \xff\r\n";
    assert_eq!(inspect(Expected::Header, bytes), Err(ProxyHeaderError::Text));
}

#[test]
fn a_text_header_may_have_107_bytes_and_not_108() {
    let fits = format!("PROXY UNKNOWN {}\r\n", "x".repeat(107 - 16));
    assert_eq!(fits.len(), 107);
    assert_eq!(inspect(Expected::Header, fits.as_bytes()), Ok(HeaderVerdict::HealthCheck));
    let over = format!("PROXY UNKNOWN {}\r\n", "x".repeat(108 - 16));
    assert_eq!(inspect(Expected::Header, over.as_bytes()), Err(ProxyHeaderError::Text));
}

#[test]
fn binary_headers_that_lie_about_what_they_hold_are_refused() {
    let v4 = endpoints_v4();
    let with = |fields: &[u8]| binary(0x21, 0x11, &[&v4[..], fields].concat());
    let cases = [
        (binary(0x11, 0x11, &v4), ProxyHeaderError::Version),
        (binary(0x22, 0x11, &v4), ProxyHeaderError::Version),
        (binary(0x21, 0x12, &v4), ProxyHeaderError::Transport),
        (binary(0x21, 0x22, &endpoints_v6()), ProxyHeaderError::Transport),
        (binary(0x21, 0x31, &[0; 216]), ProxyHeaderError::Transport),
        (binary(0x21, 0x41, &v4), ProxyHeaderError::Transport),
        (binary(0x21, 0x11, &v4[..11]), ProxyHeaderError::Binary),
        (binary(0x21, 0x11, &[]), ProxyHeaderError::Binary),
        (binary(0x21, 0x21, &v4), ProxyHeaderError::Binary),
        (with(&[4]), ProxyHeaderError::Binary),
        (with(&[4, 0]), ProxyHeaderError::Binary),
        (with(&[4, 0, 1]), ProxyHeaderError::Binary),
        (with(&[4, 0xff, 0xff, 1, 2, 3]), ProxyHeaderError::Binary),
        (with(&field(TYPE_CRC32C, &[0; 3])), ProxyHeaderError::Binary),
        (with(&field(TYPE_CRC32C, &[0; 4])), ProxyHeaderError::Checksum),
    ];
    for (header, fault) in cases {
        assert_eq!(inspect(Expected::Header, &header), Err(fault), "{header:02x?}");
    }
    let twice = summed(&field(TYPE_CRC32C, &[0; 4]), &[]);
    assert!(inspect(Expected::Header, &twice).is_err());
}

#[test]
fn a_length_over_the_limit_is_refused_before_anything_is_waited_for() {
    let mut header = binary(0x21, 0x11, &[]);
    let over = HEADER_BYTES_MAX - FIXED_BYTES + 1;
    header[14..16].copy_from_slice(&u16::try_from(over).expect("short").to_be_bytes());
    assert_eq!(
        inspect(Expected::Header, &header),
        Err(ProxyHeaderError::TooLong(HEADER_BYTES_MAX + 1))
    );
}

#[test]
fn one_flipped_bit_anywhere_breaks_the_checksum() {
    let header = summed(&field(0xea, b"vpce-1"), &field(4, &[0; 2]));
    for at in FIXED_BYTES..header.len() {
        for bit in 0..8 {
            let mut wrong = header.clone();
            wrong[at] ^= 1 << bit;
            let found = inspect(Expected::Header, &wrong);
            // A flip in a field's type or length may hide the checksum; it never makes
            // another origin pass.
            if at < FIXED_BYTES + 12 {
                assert_eq!(found, Err(ProxyHeaderError::Checksum), "byte {at} bit {bit}");
            }
        }
    }
}

/// RFC 3720 appendix B.4, and the check value of the CRC catalogue.
#[test]
fn crc32c_agrees_with_its_published_values() {
    assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
    assert_eq!(crc32c([0_u8; 32].into_iter()), 0x8a91_36aa);
    assert_eq!(crc32c([0xff_u8; 32].into_iter()), 0x62a8_ab43);
    assert_eq!(crc32c(0..32), 0x46dd_794e);
}

#[test]
fn only_listed_networks_owe_a_header() {
    let senders = Senders::new(vec![
        "10.0.0.0/8".parse().expect("a network"),
        "2001:db8:1::/48".parse().expect("a network"),
    ]);
    for (address, expected) in [
        ("10.1.2.3", Expected::Header),
        ("11.0.0.0", Expected::Plain),
        ("::ffff:10.1.2.3", Expected::Header),
        ("2001:db8:1::5", Expected::Header),
        ("2001:db8:2::5", Expected::Plain),
    ] {
        assert_eq!(senders.expect(address.parse().expect("an address")), expected, "{address}");
    }
    let nobody = Senders::default();
    assert_eq!(nobody.expect(Ipv4Addr::LOCALHOST.into()), Expected::Plain);
}

proptest! {
    /// Also the body of the fuzz target: any bytes, from either kind of peer.
    #[test]
    fn any_bytes_get_an_answer_that_asks_for_a_bounded_number_of_more(
        expected in prop_oneof![Just(Expected::Header), Just(Expected::Plain)],
        start in prop_oneof![
            Just(Vec::new()),
            Just(TEXT_START.to_vec()),
            Just(b"PROXY TCP4 ".to_vec()),
            Just(SIGNATURE.to_vec()),
            Just([SIGNATURE, &[0x21, 0x11, 0]].concat()),
            Just([SIGNATURE, &[0x21, 0x21, 0]].concat()),
        ],
        rest in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let input = [start, rest].concat();
        match inspect(expected, &input) {
            Ok(HeaderVerdict::More { at_least }) => {
                prop_assert!(at_least > input.len() && at_least <= HEADER_BYTES_MAX);
            }
            Ok(HeaderVerdict::Proxied { used, .. }) => {
                prop_assert!(expected == Expected::Header && used <= input.len());
                // A whole header is judged the same whatever follows it.
                prop_assert_eq!(inspect(expected, &input), inspect(expected, &input[..used]));
            }
            Ok(HeaderVerdict::HealthCheck) => prop_assert_eq!(expected, Expected::Header),
            Ok(HeaderVerdict::Plain) => prop_assert_eq!(expected, Expected::Plain),
            Err(_) => {}
        }
    }
}
