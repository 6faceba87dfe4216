//! Notices message by message, without packets.

use super::*;
use crate::ssh::message;
use crate::ssh::wire::{Put, Reader};

type Sent = Vec<Vec<u8>>;

const TEXT: &str = "keyway: vm blue does not answer\nrequest 7\x1b";

fn open(kind: &str, peer: u32, window: u32) -> Vec<u8> {
    let mut message = vec![message::CHANNEL_OPEN];
    message.put_string(kind.as_bytes());
    message.put_u32(peer);
    message.put_u32(window);
    message.put_u32(32768);
    message
}

fn ask(channel: u32, name: &str, body: &[u8]) -> Vec<u8> {
    let mut message = vec![message::CHANNEL_REQUEST];
    message.put_u32(channel);
    message.put_string(name.as_bytes());
    message.put_bool(true);
    message.put_bytes(body);
    message
}

fn on(number: u8, channel: u32) -> Vec<u8> {
    let mut message = vec![number];
    message.put_u32(channel);
    message
}

fn pty() -> Vec<u8> {
    let mut body = Vec::new();
    body.put_string(b"vt100");
    body.put_bytes(&[0; 16]);
    body.put_string(&[0]);
    body
}

fn command(text: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_string(text);
    body
}

fn numbers(sent: &Sent) -> Vec<u8> {
    sent.iter().map(|message| message[0]).collect()
}

/// All that went to standard error of the peer's channel.
fn stderr(sent: &Sent, peer: u32) -> String {
    let mut text = String::new();
    for message in sent {
        let mut reader = Reader::new(&message[1..]);
        if message[0] == message::CHANNEL_EXTENDED_DATA && reader.u32().unwrap() == peer {
            assert_eq!(reader.u32().unwrap(), 1);
            text.push_str(reader.text().unwrap());
        }
        assert_ne!(message[0], message::CHANNEL_DATA, "stdout stays empty");
    }
    text
}

fn status(sent: &Sent) -> u32 {
    let request = sent.iter().find(|message| message[0] == message::CHANNEL_REQUEST).unwrap();
    let mut reader = Reader::new(&request[5..]);
    assert_eq!(reader.text().unwrap(), "exit-status");
    assert!(!reader.bool().unwrap());
    reader.u32().unwrap()
}

/// Trap 13: a correct key whose VM is down is let in and told so; FAILURE would burn the
/// client's other keys.
#[test]
fn a_command_gets_the_text_on_stderr_and_255() {
    for (name, body) in [
        ("exec", command(b"scp -f x")),
        ("exec", command(b"\xff")),
        ("subsystem", command(b"sftp")),
        ("shell", vec![]),
    ] {
        let mut notice = Notice::new(TEXT);
        let mut sent = Sent::new();
        assert_eq!(notice.take(&open("session", 9, 1 << 20), &mut sent), Ok(Progress::Waiting));
        assert_eq!(notice.take(&ask(0, name, &body), &mut sent), Ok(Progress::Waiting));
        assert_eq!(
            numbers(&sent),
            [
                message::CHANNEL_OPEN_CONFIRMATION,
                message::CHANNEL_SUCCESS,
                message::CHANNEL_EXTENDED_DATA,
                message::CHANNEL_REQUEST,
                message::CHANNEL_EOF,
                message::CHANNEL_CLOSE,
            ]
        );
        assert_eq!(stderr(&sent, 9), "keyway: vm blue does not answer\nrequest 7\\x1b\n");
        assert_eq!(status(&sent), 255);
        assert_eq!(notice.take(&on(message::CHANNEL_EOF, 0), &mut sent), Ok(Progress::Waiting));
        assert_eq!(notice.take(&on(message::CHANNEL_CLOSE, 0), &mut sent), Ok(Progress::Done));
    }
}

#[test]
fn what_the_vm_said_stands_before_the_text_and_drives_no_terminal() {
    let mut notice = Notice::new("keyway: no").after("Closed for\r\n\x1b[2Jinventory\n\n");
    let mut sent = Sent::new();
    notice.take(&open("session", 9, 1 << 20), &mut sent).unwrap();
    notice.take(&ask(0, "shell", b""), &mut sent).unwrap();
    assert_eq!(stderr(&sent, 9), "Closed for\n\\x1b[2Jinventory\nkeyway: no\n");
}

#[test]
fn a_terminal_gets_carriage_returns() {
    let mut notice = Notice::new(TEXT);
    let mut sent = Sent::new();
    notice.take(&open("session", 9, 1 << 20), &mut sent).unwrap();
    notice.take(&ask(0, "pty-req", &pty()), &mut sent).unwrap();
    notice.take(&ask(0, "shell", b""), &mut sent).unwrap();
    assert_eq!(stderr(&sent, 9), "keyway: vm blue does not answer\r\nrequest 7\\x1b\r\n");
}

#[test]
fn a_forward_opened_first_gets_the_text_in_its_refusal() {
    let mut notice = Notice::new("keyway: vm blue\nis down");
    let mut sent = Sent::new();
    assert_eq!(notice.take(&open("direct-tcpip", 9, 1), &mut sent), Ok(Progress::Waiting));
    let mut reader = Reader::new(&sent[0]);
    assert_eq!(reader.u8().unwrap(), message::CHANNEL_OPEN_FAILURE);
    assert_eq!(reader.u32().unwrap(), 9);
    assert_eq!(reader.u32().unwrap(), 1);
    assert_eq!(reader.text().unwrap(), "keyway: vm blue is down");
}

#[test]
fn every_channel_gets_the_text_and_the_first_to_close_ends_it() {
    let mut notice = Notice::new(TEXT);
    let mut sent = Sent::new();
    for peer in 0..10 {
        notice.take(&open("session", 100 + peer, 1 << 20), &mut sent).unwrap();
    }
    notice.take(&open("session", 200, 1 << 20), &mut sent).unwrap();
    assert_eq!(sent[10][0], message::CHANNEL_OPEN_FAILURE);
    for channel in (0..10).rev() {
        assert_eq!(notice.take(&ask(channel, "shell", b""), &mut sent), Ok(Progress::Waiting));
        assert!(stderr(&sent, 100 + channel).ends_with("7\\x1b\n"));
    }
    assert_eq!(notice.take(&on(message::CHANNEL_CLOSE, 4), &mut sent), Ok(Progress::Done));
}

#[test]
fn a_small_window_gets_the_text_piece_by_piece() {
    let mut notice = Notice::new("abcdef");
    let mut sent = Sent::new();
    notice.take(&open("session", 9, 0), &mut sent).unwrap();
    notice.take(&ask(0, "exec", &command(b"true")), &mut sent).unwrap();
    assert_eq!(stderr(&sent, 9), "");
    for expected in ["abc", "abcdef", "abcdef\n"] {
        assert!(!numbers(&sent).contains(&message::CHANNEL_CLOSE));
        let mut adjust = on(message::CHANNEL_WINDOW_ADJUST, 0);
        adjust.put_u32(3);
        assert_eq!(notice.take(&adjust, &mut sent), Ok(Progress::Waiting));
        assert_eq!(stderr(&sent, 9), expected);
    }
    assert_eq!(sent.last().unwrap()[0], message::CHANNEL_CLOSE);
}

#[test]
fn a_second_command_on_a_channel_is_refused() {
    let mut notice = Notice::new("abcdef");
    let mut sent = Sent::new();
    notice.take(&open("session", 9, 0), &mut sent).unwrap();
    notice.take(&ask(0, "shell", b""), &mut sent).unwrap();
    notice.take(&ask(0, "shell", b""), &mut sent).unwrap();
    assert_eq!(numbers(&sent)[1..], [message::CHANNEL_SUCCESS, message::CHANNEL_FAILURE]);
}

#[test]
fn environment_is_granted_and_agent_forwarding_is_not() {
    let mut notice = Notice::new(TEXT);
    let mut sent = Sent::new();
    notice.take(&open("session", 9, 1 << 20), &mut sent).unwrap();
    let variable = [command(b"LANG"), command(b"C")].concat();
    notice.take(&ask(0, "env", &variable), &mut sent).unwrap();
    notice.take(&ask(0, "auth-agent-req@openssh.com", b""), &mut sent).unwrap();
    assert_eq!(numbers(&sent)[1..], [message::CHANNEL_SUCCESS, message::CHANNEL_FAILURE]);
}

#[test]
fn a_channel_closed_before_it_asked_does_not_end_the_notice() {
    let mut notice = Notice::new(TEXT);
    let mut sent = Sent::new();
    notice.take(&open("session", 9, 1 << 20), &mut sent).unwrap();
    assert_eq!(notice.take(&on(message::CHANNEL_CLOSE, 0), &mut sent), Ok(Progress::Waiting));
}

#[test]
fn input_is_swallowed_without_end() {
    let mut notice = Notice::new(TEXT);
    let mut sent = Sent::new();
    notice.take(&open("session", 9, 1 << 20), &mut sent).unwrap();
    let mut data = on(message::CHANNEL_DATA, 0);
    data.put_string(&vec![0; 32768]);
    for _ in 0..20 {
        notice.take(&data, &mut sent).unwrap();
    }
    assert_eq!(numbers(&sent)[1..], [message::CHANNEL_WINDOW_ADJUST; 20]);
}
