//! Tests of `authorized`.

use proptest::prelude::*;

use super::super::private_key::PrivateKey;
use super::super::testing::keygen::Counter;
use super::*;

fn key_line() -> String {
    PrivateKey::generate_ed25519(&mut Counter(1)).public().to_line()
}

fn parse(options: &str) -> Result<AuthorizedKey, LineFault> {
    AuthorizedKey::parse(&format!("{options} {} laptop of alice", key_line()))
}

fn restrictions(options: &str) -> Restrictions {
    parse(options).unwrap().options.restrictions
}

#[test]
fn a_line_without_options_is_a_key_and_its_comment() {
    let line = AuthorizedKey::parse(&format!("{} laptop of alice\n", key_line())).unwrap();
    assert_eq!(line.key.to_line(), key_line());
    assert_eq!(line.comment, "laptop of alice");
    assert_eq!((line.options, line.options_text), (KeyOptions::default(), None));
}

#[test]
fn options_apply_in_the_order_written_and_in_any_case() {
    let none = Restrictions::default();
    let all = Restrictions {
        no_pty: true,
        no_port_forwarding: true,
        no_agent_forwarding: true,
        no_x11_forwarding: true,
        no_user_rc: true,
        ..none.clone()
    };
    for (options, expected) in [
        ("restrict", all.clone()),
        ("RESTRICT", all.clone()),
        ("restrict,pty", Restrictions { no_pty: false, ..all.clone() }),
        ("restrict,port-forwarding", Restrictions { no_port_forwarding: false, ..all.clone() }),
        ("restrict,agent-forwarding", Restrictions { no_agent_forwarding: false, ..all.clone() }),
        ("restrict,X11-forwarding", Restrictions { no_x11_forwarding: false, ..all.clone() }),
        ("restrict,user-rc", Restrictions { no_user_rc: false, ..all.clone() }),
        ("pty,restrict", all.clone()),
        ("no-pty", Restrictions { no_pty: true, ..none.clone() }),
        ("no-port-forwarding", Restrictions { no_port_forwarding: true, ..none.clone() }),
        ("no-agent-forwarding", Restrictions { no_agent_forwarding: true, ..none.clone() }),
        ("no-X11-forwarding", Restrictions { no_x11_forwarding: true, ..none.clone() }),
        ("no-user-rc", Restrictions { no_user_rc: true, ..none.clone() }),
        ("verify-required", Restrictions { verify_required: true, ..none.clone() }),
        ("verify-required,no-verify-required", none.clone()),
        ("touch-required", none.clone()),
        (
            "command=\"git-shell -c \\\"$SSH_ORIGINAL_COMMAND\\\", a\\b\",no-pty",
            Restrictions {
                force_command: Some("git-shell -c \"$SSH_ORIGINAL_COMMAND\", a\\b".to_owned()),
                no_pty: true,
                ..none.clone()
            },
        ),
        ("command=\"\"", Restrictions { force_command: Some(String::new()), ..none.clone() }),
    ] {
        assert_eq!(restrictions(options), expected, "{options}");
    }
}

#[test]
fn what_cannot_be_honoured_refuses_the_line_by_name() {
    for (options, name) in [
        ("cert-authority", "cert-authority"),
        ("cert-authority,principals=\"a\"", "cert-authority"),
        ("principals=\"a\"", "principals"),
        ("no-pty,environment=\"A=b\"", "environment"),
        ("tunnel=\"0\"", "tunnel"),
        // Accepted once and never honoured: the touch was demanded all the same.
        ("no-touch-required", "no-touch-required"),
        ("touch-required,no-touch-required", "no-touch-required"),
        ("permitopen=\"host:22\"", "permitopen"),
        ("restrict,permitlisten=\"8080\"", "permitlisten"),
        ("zos-key-ring-label=\"a\"", "zos-key-ring-label"),
    ] {
        let fault = parse(options).unwrap_err();
        assert!(matches!(fault, LineFault::Refused { option, .. } if option == name), "{options}");
        assert!(fault.to_string().contains(name));
    }
    assert_eq!(parse("no-such").unwrap_err(), LineFault::Unknown("no-such".to_owned()));
    assert_eq!(parse("no-restrict").unwrap_err(), LineFault::Unknown("no-restrict".to_owned()));
    let fault = parse("from=\"*.example.test\"").unwrap_err();
    assert_eq!(fault, LineFault::Source(SourceFault::Name("*.example.test".to_owned())));
}

#[test]
fn malformed_options_are_refused() {
    for (options, fault) in [
        ("command=true", LineFault::Value("command")),
        ("command", LineFault::Value("command")),
        ("from", LineFault::Value("from")),
        ("command=\"a\0b\"", LineFault::Value("command")),
        ("command=\"true\"x", LineFault::Quotes),
        ("command=\"a\",command=\"b\"", LineFault::Twice("command")),
        ("from=\"10.0.0.1\",from=\"10.0.0.2\"", LineFault::Twice("from")),
        ("unknown=x", LineFault::Quotes),
        ("no-pty,,no-user-rc", LineFault::Unknown(String::new())),
        ("no-pty,", LineFault::Unknown(String::new())),
        ("pty=\"yes\"", LineFault::Unknown("pty".to_owned())),
    ] {
        assert_eq!(parse(options).unwrap_err(), fault, "{options}");
    }
    // The quote swallows the key.
    assert_eq!(parse("command=\"true").unwrap_err(), LineFault::Value("command"));
    for (line, fault) in [
        ("", KeyFault::Malformed),
        ("restrict", KeyFault::Malformed),
        ("restrict ", KeyFault::Malformed),
        ("ssh-dss AAAAB3NzaC1kc3MAAAA=", KeyFault::Unsupported),
        ("restrict ssh-dss AAAAB3NzaC1kc3MAAAA=", KeyFault::Unsupported),
    ] {
        assert_eq!(AuthorizedKey::parse(line), Err(LineFault::Key(fault)), "{line}");
    }
    let long = "a".repeat(LINE_BYTES_MAX);
    assert_eq!(parse(&format!("command=\"{long}\"")), Err(LineFault::Key(KeyFault::Malformed)));
}

#[test]
fn from_and_expiry_time_decide_at_login() {
    let line = parse("from=\"192.0.2.0/24,!192.0.2.9\",expiry-time=\"20270115080000Z\"").unwrap();
    let expires_s = 1_800_000_000;
    assert_eq!(line.options.expires_s, Some(expires_s));
    let admit = |source: &str, unix_s| line.options.admit(Some(source.parse().unwrap()), unix_s);
    assert_eq!(admit("192.0.2.7", expires_s - 1), Ok(()));
    assert_eq!(admit("::ffff:192.0.2.7", expires_s - 1), Ok(()));
    assert_eq!(admit("192.0.2.7", expires_s), Err(CertificateFault::Expired));
    assert_eq!(admit("192.0.2.9", 0), Err(CertificateFault::Source));
    assert_eq!(admit("198.51.100.1", 0), Err(CertificateFault::Source));
    assert_eq!(
        parse("restrict").unwrap().options.admit("192.0.2.7".parse().ok(), u64::MAX),
        Ok(())
    );
}

#[test]
fn times_are_read_as_sshd_reads_them_in_utc() {
    for (text, expected) in [
        ("19700101", Some(0)),
        ("19700101Z", Some(0)),
        ("197001010001", Some(60)),
        ("19700101000001Z", Some(1)),
        ("20000229", Some(951_782_400)),
        ("20240229", Some(1_709_164_800)),
        ("20270115", Some(1_799_971_200)),
        ("99991231235959Z", Some(253_402_300_799)),
        ("20230229", None),
        ("21000229", None),
        ("20231301", None),
        ("20230001", None),
        ("20230100", None),
        ("20230132", None),
        ("202301012400", None),
        ("202301010060", None),
        ("20230101000060", None),
        ("19691231", None),
        ("2023010", None),
        ("2023010101", None),
        ("+2023010", None),
        ("20230101ZZ", None),
        ("", None),
        ("Z", None),
        ("２０２３0101", None),
    ] {
        assert_eq!(parse_time(text), expected, "{text:?}");
    }
    let fault = parse("expiry-time=\"tomorrow\"").unwrap_err();
    assert_eq!(fault, LineFault::Value("expiry-time"));
}

proptest! {
    #[test]
    fn arbitrary_lines_do_not_panic(line in ".{0,200}", options in "[a-z,=\"\\\\ -]{0,60}") {
        let _ = AuthorizedKey::parse(&line);
        let _ = parse(&options);
    }

    #[test]
    fn quoting_and_unquoting_agree(value in "[^\\\\]{0,40}") {
        let quoted = format!("\"{}\",rest", value.replace('"', "\\\""));
        prop_assert_eq!(unquote(&quoted), Ok((value, ",rest")));
    }
}

#[test]
fn the_options_of_a_line_say_the_same_without_it() {
    for text in [
        "restrict,pty",
        "from=\"192.0.2.0/24,!192.0.2.9\",command=\"echo \\\"a, b\\\" c\",expiry-time=\"20300101\"",
        "no-pty",
    ] {
        let line = parse(&format!("  {text}  ")).unwrap();
        assert_eq!(line.options_text.as_deref(), Some(text));
        assert_eq!(KeyOptions::parse(text), Ok(line.options));
    }
    assert_eq!(KeyOptions::parse(" "), Ok(KeyOptions::default()));
    for text in
        ["restrict,", "restrict pty", "command=\"a\" ssh-ed25519", "no-such", "cert-authority"]
    {
        assert!(KeyOptions::parse(text).is_err(), "{text}");
    }
}
