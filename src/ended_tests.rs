//! Tests of `ended`: closed sets of labels, and what users read.

use super::*;
use crate::ssh::fault::Stage as Where;
use crate::ssh::wire;

fn labels_are_closed(labels: impl Iterator<Item = &'static str> + Clone) {
    let distinct: std::collections::BTreeSet<_> = labels.clone().collect();
    assert_eq!(distinct.len(), labels.clone().count(), "two values share a label");
    for label in labels {
        assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{label}");
    }
}

#[test]
fn every_value_has_a_snake_case_label_of_its_own_and_its_place_in_all() {
    labels_are_closed(Side::ALL.iter().map(|x| x.as_str()));
    labels_are_closed(Stage::ALL.iter().map(|x| x.as_str()));
    labels_are_closed(Cause::ALL.iter().map(|x| x.as_str()));
    for (index, &cause) in Cause::ALL.iter().enumerate() {
        assert_eq!(cause as usize, index);
    }
    for (index, &stage) in Stage::ALL.iter().enumerate() {
        assert_eq!(stage as usize, index);
    }
    for (index, &side) in Side::ALL.iter().enumerate() {
        assert_eq!(side as usize, index);
    }
}

#[test]
fn a_notice_is_one_printable_line_with_the_request_id_whatever_the_names_are() {
    let forged = "x\r\nkeyway: all is well\u{1b}[2J\u{7}\0é".repeat(40);
    for &cause in Cause::ALL {
        for detail in [None, Some(Detail::said(&forged)), Some(Detail::found(&forged))] {
            let request = "3f2a90c18f2a90c1";
            let about = About {
                vm: &forged,
                login: &forged,
                detail: detail.as_ref(),
                request,
                sessions: 7,
            };
            let text = notice(cause, &about);
            assert!(text.bytes().all(|b| (0x20..0x7f).contains(&b)), "{cause}: {text:?}");
            assert!(text.starts_with("keyway: "), "{text}");
            assert!(text.ends_with("[request 3f2a90c18f2a90c1]"), "{text}");
            // With the names that a VM and a login can have, as much as a DISCONNECT takes.
            assert!(text.len() < 650, "{cause}: {} bytes", text.len());
        }
    }
}

#[test]
fn the_peers_own_words_and_the_systems_stand_in_the_notice_and_an_operators_do_not() {
    let text = |cause, detail: Option<&Detail>| {
        notice(cause, &About { vm: "blue", login: "root", detail, request: "1", sessions: 2 })
    };
    let said = Detail::said("Exceeded MaxStartups");
    assert_eq!(
        text(Cause::TurnedAway, Some(&said)),
        "keyway: the SSH server of blue takes no connection right now. Your key is fine; try again in a moment. \
         It said: \"Exceeded MaxStartups\". [request 1]"
    );
    let found = Detail::found(std::io::Error::from_raw_os_error(113));
    let shown = text(Cause::DialFailed, Some(&found));
    assert!(shown.contains(" Reason: No route to host (os error 113). ["), "{shown}");
    let noted = Detail::noted("the certificate names vm:blue");
    assert_eq!(text(Cause::LoginRefused, Some(&noted)), text(Cause::LoginRefused, None));
    assert_eq!(noted.as_str(), "the certificate names vm:blue");
}

#[test]
fn another_login_name_is_advised_only_where_nothing_else_is_known() {
    let asks = Detail::found("it asks for: password");
    for cause in [Cause::LoginRefused, Cause::LoginRemembered] {
        for (detail, advised) in [(None, true), (Some(&asks), false)] {
            let about = About { vm: "blue", login: "root", detail, request: "1", sessions: 2 };
            let text = notice(cause, &about);
            assert_eq!(text.contains("another login name"), advised, "{text}");
            assert_eq!(text.contains("it asks for: password"), !advised, "{text}");
        }
    }
}

#[test]
fn what_users_can_act_on_names_the_vm_the_login_and_the_way_out() {
    let about = About { vm: "blue", login: "rooot", detail: None, request: "3f2a", sessions: 1 };
    assert_eq!(
        notice(Cause::DialRefused, &about),
        "keyway: blue is not reachable right now (connection refused). Your key is fine; \
         try again in a moment. [request 3f2a]"
    );
    assert!(notice(Cause::UserSessionsFull, &about).contains("you have 1 session open, "));
    for cause in [Cause::LoginRefused, Cause::LoginRemembered] {
        let text = notice(cause, &about);
        assert!(text.contains("blue") && text.contains("\"rooot\""), "{text}");
    }
    for cause in [Cause::PinMismatch, Cause::PinConflict, Cause::NetworkNotAllowed] {
        let text = notice(cause, &about);
        assert!(text.contains("blue") && text.contains("operator"), "{text}");
    }
}

#[test]
fn the_texts_that_people_compare_are_all_different() {
    let about = About { vm: "blue", login: "root", detail: None, request: "1", sessions: 2 };
    let visible = [
        Cause::DialFailed,
        Cause::DialRefused,
        Cause::TurnedAway,
        Cause::SecondFactor,
        Cause::NetworkNotAllowed,
        Cause::PinMismatch,
        Cause::PinConflict,
        Cause::PinUnwritten,
        Cause::LoginRefused,
        Cause::LoginRemembered,
        Cause::SessionsFull,
        Cause::UserSessionsFull,
        Cause::VmSessionsFull,
        Cause::Resources,
        Cause::RightLost,
        Cause::RightNarrowed,
        Cause::RightExpired,
        Cause::VmMaintenance,
        Cause::AddressMaintenance,
        Cause::Drained,
        Cause::Killed,
        Cause::Deadline,
    ];
    let texts: std::collections::BTreeSet<_> =
        visible.iter().map(|&cause| notice(cause, &about)).collect();
    assert_eq!(texts.len(), visible.len());
    let sentences: std::collections::BTreeSet<_> =
        Cause::ALL.iter().map(|cause| cause.sentence()).collect();
    assert_eq!(sentences.len(), Cause::ALL.len());
}

#[test]
fn a_fault_of_the_protocol_core_becomes_the_cause_that_names_it() {
    let cases = [
        (Fault::Corrupt, Cause::Corrupt),
        (Fault::NoCommon("cipher"), Cause::NoCommonAlgorithm),
        (Fault::Attempts, Cause::Attempts),
        (Fault::Disconnected { reason: 11 }, Cause::Closed),
        (Fault::HostKeyChanged, Cause::PinMismatch),
        (Fault::QueueFull, Cause::Resources),
        (Fault::Ident, Cause::Protocol),
        (Fault::Unexpected { number: 2, during: Where::FirstExchange }, Cause::Protocol),
        (Fault::Length { len: 40_000 }, Cause::Protocol),
        (Fault::Malformed(wire::Malformed::Short), Cause::Protocol),
    ];
    for (fault, cause) in cases {
        assert_eq!(Cause::from(&fault), cause, "{fault}");
    }
}

#[test]
fn an_end_reads_as_who_when_why() {
    let ended = Ended { side: Side::Vm, stage: Stage::VmLogin, cause: Cause::LoginRefused };
    assert_eq!(ended.to_string(), "vm during vm_login: the VM refused the login");
}
