//! The connection protocol message by message, without packets.

use proptest::prelude::*;

use super::request::{ENV_BYTES_MAX, MODES_MAX, modes};
use super::*;

type Sent = Vec<Vec<u8>>;

const PEER: u32 = 77;

fn open(kind: &str, window: u32, packet_max: u32) -> Vec<u8> {
    let mut message = vec![message::CHANNEL_OPEN];
    message.put_string(kind.as_bytes());
    message.put_u32(PEER);
    message.put_u32(window);
    message.put_u32(packet_max);
    message
}

fn on(number: u8, channel: ChannelId) -> Vec<u8> {
    channel_message(number, channel.0)
}

fn with_u32(mut message: Vec<u8>, value: u32) -> Vec<u8> {
    message.put_u32(value);
    message
}

fn with_string(mut message: Vec<u8>, bytes: &[u8]) -> Vec<u8> {
    message.put_string(bytes);
    message
}

fn data(channel: ChannelId, bytes: &[u8]) -> Vec<u8> {
    with_string(on(message::CHANNEL_DATA, channel), bytes)
}

fn ask(channel: ChannelId, name: &str, wants_reply: bool, body: &[u8]) -> Vec<u8> {
    let mut message = with_string(on(message::CHANNEL_REQUEST, channel), name.as_bytes());
    message.put_bool(wants_reply);
    message.put_bytes(body);
    message
}

fn pty(modes: &[u8]) -> Vec<u8> {
    let mut body = with_string(vec![], b"xterm");
    for value in [80, 24, 640, 480] {
        body.put_u32(value);
    }
    with_string(body, modes)
}

/// A connection with one session channel; what was sent so far is dropped.
fn opened(window: u32, packet_max: u32) -> (Connection, ChannelId) {
    let mut connection = Connection::new(2, "no\nforwards");
    let event = connection.take(&open("session", window, packet_max), &mut Sent::new()).unwrap();
    let ChannelEvent::Opened(channel) = event else { panic!("{event:?}") };
    (connection, channel)
}

fn fault(connection: &mut Connection, message: &[u8]) -> Fault {
    let fault = connection.take(message, &mut Sent::new()).unwrap_err();
    let again = [message::GLOBAL_REQUEST, 0, 0, 0, 0, 0];
    assert_eq!(connection.take(&again, &mut Sent::new()), Err(fault), "a fault sticks");
    fault
}

fn out_of_range() -> Fault {
    Malformed::Range.into()
}

#[test]
fn a_session_channel_is_confirmed_with_our_window() {
    let mut connection = Connection::new(1, "");
    let mut sent = Sent::new();
    let event = connection.take(&open("session", 1000, 100), &mut sent);
    assert_eq!(event, Ok(ChannelEvent::Opened(ChannelId(0))));
    let expected = [PEER, 0, WINDOW_BYTES, PACKET_BYTES]
        .into_iter()
        .fold(vec![message::CHANNEL_OPEN_CONFIRMATION], with_u32);
    assert_eq!(sent, [expected]);
    assert_eq!(connection.window(ChannelId(0)), Some(1000));
}

#[test]
fn every_other_kind_of_channel_is_refused_with_the_text() {
    for kind in ["direct-tcpip", "forwarded-tcpip", "x11", "auth-agent@openssh.com", "Session", ""]
    {
        let (mut connection, _) = opened(0, 1);
        let mut sent = Sent::new();
        let mut request = open(kind, 10, 10);
        request.extend(b"host and port");
        assert_eq!(connection.take(&request, &mut sent), Ok(ChannelEvent::None));
        assert_eq!(sent, [open_failure(PEER, ADMINISTRATIVELY_PROHIBITED, "no\\nforwards")]);
        assert_eq!(connection.channel_count(), 1);
    }
}

#[test]
fn trap_26_a_maximum_packet_of_0_is_refused() {
    let mut connection = Connection::new(1, "");
    let mut sent = Sent::new();
    assert_eq!(connection.take(&open("session", 10, 0), &mut sent), Ok(ChannelEvent::None));
    assert_eq!(sent[0][0], message::CHANNEL_OPEN_FAILURE);
    assert_eq!(connection.channel_count(), 0);
}

#[test]
fn trap_26_a_thousand_refused_opens_leave_nothing_behind() {
    let (mut connection, _) = opened(0, 1);
    connection.take(&open("session", 0, 1), &mut Sent::new()).unwrap();
    for _ in 0..1000 {
        let mut sent = Sent::new();
        assert_eq!(connection.take(&open("session", 0, 1), &mut sent), Ok(ChannelEvent::None));
        assert_eq!(sent, [open_failure(PEER, RESOURCE_SHORTAGE, "too many channels")]);
    }
    assert_eq!(connection.channel_count(), 2);
}

#[test]
fn trap_26_a_channel_never_opened_ends_the_connection() {
    let absent = ChannelId(5);
    for message in [
        data(absent, b"x"),
        with_u32(on(message::CHANNEL_WINDOW_ADJUST, absent), 1),
        with_string(with_u32(on(message::CHANNEL_EXTENDED_DATA, absent), 1), b"x"),
        on(message::CHANNEL_EOF, absent),
        on(message::CHANNEL_CLOSE, absent),
        ask(absent, "shell", true, b""),
    ] {
        let (mut connection, _) = opened(0, 1);
        assert_eq!(fault(&mut connection, &message), out_of_range());
    }
}

#[test]
fn trap_26_a_send_window_over_2_to_the_32_ends_the_connection() {
    let (mut connection, channel) = opened(u32::MAX, 1);
    let adjust = with_u32(on(message::CHANNEL_WINDOW_ADJUST, channel), 1);
    assert_eq!(fault(&mut connection, &adjust), out_of_range());
}

#[test]
fn trap_26_data_beyond_our_window_ends_the_connection() {
    let (mut connection, channel) = opened(0, 1);
    let full = vec![0; usize::try_from(PACKET_BYTES).unwrap()];
    for _ in 0..2 {
        let event = connection.take(&data(channel, &full), &mut Sent::new()).unwrap();
        assert_eq!(event, ChannelEvent::Data { channel, bytes: full.clone() });
    }
    assert_eq!(fault(&mut connection, &data(channel, b"x")), out_of_range());
}

#[test]
fn data_over_our_maximum_packet_ends_the_connection() {
    let (mut connection, channel) = opened(0, 1);
    let long = vec![0; usize::try_from(PACKET_BYTES).unwrap() + 1];
    assert_eq!(fault(&mut connection, &data(channel, &long)), out_of_range());
}

#[test]
fn trap_26_pty_modes_over_130_end_the_connection() {
    let modes = [1, 0, 0, 0, 7].repeat(MODES_MAX);
    let (mut connection, channel) = opened(0, 1);
    let event = connection.take(&ask(channel, "pty-req", true, &pty(&modes)), &mut Sent::new());
    let Ok(ChannelEvent::Request { asked: Asked::Pty(pty_asked), .. }) = event else {
        panic!("{event:?}")
    };
    assert_eq!(pty_asked.modes, vec![(1, 7); MODES_MAX]);
    let modes = [1, 0, 0, 0, 7].repeat(MODES_MAX + 1);
    assert_eq!(
        fault(&mut connection, &ask(channel, "pty-req", true, &pty(&modes))),
        out_of_range()
    );
}

#[test]
fn pty_modes_end_at_tty_op_end_or_an_undefined_opcode_or_the_string() {
    assert_eq!(modes(&[53, 0, 0, 0, 1, 0, 9, 9]), Ok(vec![(53, 1)]));
    assert_eq!(modes(&[53, 0, 0, 0, 1, 160, 9]), Ok(vec![(53, 1)]));
    assert_eq!(modes(&[53, 0, 0, 0, 1]), Ok(vec![(53, 1)]));
    assert_eq!(modes(&[]), Ok(vec![]));
    assert_eq!(modes(&[53, 0, 0]), Err(Malformed::Short));
}

#[test]
fn each_request_is_told_apart() {
    let command = |bytes: &[u8]| with_string(vec![], bytes);
    let size = |body| [80, 24, 640, 480].into_iter().fold(body, with_u32);
    let window = Asked::Window { columns: 80, rows: 24, width_px: 640, height_px: 480 };
    let terminal = Asked::Pty(Pty {
        term: "xterm".into(),
        columns: 80,
        rows: 24,
        width_px: 640,
        height_px: 480,
        modes: vec![(3, 127)],
    });
    let variable = Asked::Env { name: "LANG".into(), value: "C".into() };
    for (name, body, expected) in [
        ("shell", vec![], Asked::Shell),
        ("exec", command(b"ls -l"), Asked::Exec("ls -l".into())),
        ("exec", command(b"ls \xff"), Asked::Other("exec".into())),
        ("subsystem", command(b"sftp"), Asked::Subsystem("sftp".into())),
        ("signal", command(b"TERM"), Asked::Signal("TERM".into())),
        ("pty-req", pty(&[3, 0, 0, 0, 127, 0]), terminal),
        ("window-change", size(vec![]), window),
        ("env", with_string(command(b"LANG"), b"C"), variable),
        ("keepalive@openssh.com", vec![], Asked::Other("keepalive@openssh.com".into())),
        ("x11-req", vec![1, 2, 3], Asked::Other("x11-req".into())),
    ] {
        for wants_reply in [false, true] {
            let (mut connection, channel) = opened(0, 1);
            let mut sent = Sent::new();
            let event = connection.take(&ask(channel, name, wants_reply, &body), &mut sent);
            let asked = expected.clone();
            assert_eq!(event, Ok(ChannelEvent::Request { channel, asked, wants_reply }));
            connection.put_answer(channel, true, &mut sent).unwrap();
            connection.put_answer(channel, false, &mut sent).unwrap();
            let answer = channel_message(message::CHANNEL_SUCCESS, PEER);
            assert_eq!(sent, vec![answer; usize::from(wants_reply)], "one answer if one is due");
        }
    }
}

#[test]
fn requests_with_bytes_behind_them_are_malformed() {
    for (name, body) in
        [("shell", b"x".to_vec()), ("exec", [with_string(vec![], b"ls"), vec![0]].concat())]
    {
        let (mut connection, channel) = opened(0, 1);
        assert_eq!(
            fault(&mut connection, &ask(channel, name, true, &body)),
            Malformed::Trailing.into()
        );
    }
}

#[test]
fn an_exit_status_from_the_client_is_ignored() {
    let (mut connection, channel) = opened(0, 1);
    let mut sent = Sent::new();
    let status = ask(channel, "exit-status", false, &[0, 0, 0, 0]);
    assert_eq!(connection.take(&status, &mut sent), Ok(ChannelEvent::None));
    assert!(sent.is_empty());
}

#[test]
fn environment_variables_are_bounded_in_number_and_size() {
    let variable = |name: &[u8], value: &[u8]| with_string(with_string(vec![], name), value);
    let (mut connection, channel) = opened(0, 1);
    let mut unfit = |body: &[u8]| {
        let event = connection.take(&ask(channel, "env", false, body), &mut Sent::new());
        assert_eq!(event, Ok(ChannelEvent::None));
        let event = connection.take(&ask(channel, "env", true, body), &mut Sent::new());
        let asked = Asked::Other("env".into());
        assert_eq!(event, Ok(ChannelEvent::Request { channel, asked, wants_reply: true }));
        connection.put_answer(channel, false, &mut Sent::new()).unwrap();
    };
    unfit(&variable(b"A", &vec![b'x'; ENV_BYTES_MAX + 1]));
    unfit(&variable(&[b'A'; NAME_BYTES_MAX + 1], b""));
    unfit(&variable(b"A=B", b""));
    unfit(&variable(b"", b""));
    unfit(&variable(b"A", b"\0"));
    unfit(&variable(b"A", b"\xff"));
    for _ in 0..ENV_MAX {
        let event =
            connection.take(&ask(channel, "env", false, &variable(b"A", b"")), &mut Sent::new());
        assert!(matches!(event, Ok(ChannelEvent::Request { asked: Asked::Env { .. }, .. })));
    }
    let event =
        connection.take(&ask(channel, "env", false, &variable(b"A", b"")), &mut Sent::new());
    assert_eq!(event, Ok(ChannelEvent::None));
}

#[test]
fn more_than_64_requests_without_waiting_for_an_answer_are_a_flood() {
    let (mut connection, channel) = opened(0, 1);
    let shell = ask(channel, "shell", true, b"");
    for _ in 0..UNANSWERED_MAX {
        connection.take(&shell, &mut Sent::new()).unwrap();
    }
    assert_eq!(fault(&mut connection, &shell), Fault::Flood);
}

#[test]
fn global_requests_are_refused_and_answered_if_they_want_it() {
    let mut connection = Connection::new(1, "");
    let mut sent = Sent::new();
    for (name, wants_reply) in
        [("keepalive@openssh.com", true), ("tcpip-forward", true), ("x", false)]
    {
        let mut request = with_string(vec![message::GLOBAL_REQUEST], name.as_bytes());
        request.put_bool(wants_reply);
        request.extend(b"anything");
        assert_eq!(connection.take(&request, &mut sent), Ok(ChannelEvent::None));
    }
    assert_eq!(sent, [[message::REQUEST_FAILURE], [message::REQUEST_FAILURE]]);
}

#[test]
fn trap_24_answers_to_what_we_never_asked_end_the_connection() {
    for number in [
        message::REQUEST_SUCCESS,
        message::REQUEST_FAILURE,
        message::CHANNEL_OPEN_CONFIRMATION,
        message::CHANNEL_OPEN_FAILURE,
        message::CHANNEL_SUCCESS,
        message::CHANNEL_FAILURE,
        101,
        127,
    ] {
        let (mut connection, channel) = opened(0, 1);
        assert_eq!(fault(&mut connection, &on(number, channel)), unexpected(number));
    }
}

#[test]
fn data_is_cut_to_the_peers_maximum_packet_and_window() {
    let (mut connection, channel) = opened(5, 2);
    let mut sent = Sent::new();
    assert_eq!(connection.put_data(channel, false, b"abcdefg", &mut sent), Ok(5));
    let piece = |bytes: &[u8]| with_string(channel_message(message::CHANNEL_DATA, PEER), bytes);
    assert_eq!(sent, [piece(b"ab"), piece(b"cd"), piece(b"e")]);
    assert_eq!(connection.put_data(channel, false, b"fg", &mut sent), Ok(0));
    let adjust = with_u32(on(message::CHANNEL_WINDOW_ADJUST, channel), 9);
    assert_eq!(connection.take(&adjust, &mut sent), Ok(ChannelEvent::None));
    sent.clear();
    assert_eq!(connection.put_data(channel, true, b"fg", &mut sent), Ok(2));
    let stderr = with_u32(channel_message(message::CHANNEL_EXTENDED_DATA, PEER), STDERR);
    assert_eq!(sent, [with_string(stderr, b"fg")]);
    assert_eq!(connection.window(channel), Some(7));
}

#[test]
fn the_receive_window_opens_only_for_consumed_bytes() {
    let (mut connection, channel) = opened(0, 1);
    let mut sent = Sent::new();
    let half = vec![0; usize::try_from(WINDOW_STEP_BYTES).unwrap()];
    connection.take(&data(channel, &half), &mut sent).unwrap();
    connection.give_back(channel, half.len() - 1, &mut sent).unwrap();
    assert!(sent.is_empty());
    // More than was ever received opens no more than that.
    connection.give_back(channel, usize::MAX, &mut sent).unwrap();
    let adjust = channel_message(message::CHANNEL_WINDOW_ADJUST, PEER);
    assert_eq!(sent, [with_u32(adjust, WINDOW_STEP_BYTES)]);
}

#[test]
fn extended_data_is_dropped_but_counted() {
    let (mut connection, channel) = opened(0, 1);
    let mut sent = Sent::new();
    let full = vec![0; usize::try_from(PACKET_BYTES).unwrap()];
    let message = with_string(with_u32(on(message::CHANNEL_EXTENDED_DATA, channel), 1), &full);
    for _ in 0..10 {
        assert_eq!(connection.take(&message, &mut sent), Ok(ChannelEvent::None));
    }
    assert_eq!(sent.len(), 10, "given back each time");
    let long = with_string(
        with_u32(on(message::CHANNEL_EXTENDED_DATA, channel), 1),
        &[full, vec![0]].concat(),
    );
    assert_eq!(fault(&mut connection, &long), out_of_range());
}

#[test]
fn after_eof_only_data_is_over() {
    let (mut connection, channel) = opened(10, 10);
    let mut sent = Sent::new();
    let eof = on(message::CHANNEL_EOF, channel);
    assert_eq!(connection.take(&eof, &mut sent), Ok(ChannelEvent::Eof(channel)));
    let event =
        connection.take(&ask(channel, "signal", false, &with_string(vec![], b"INT")), &mut sent);
    assert!(matches!(event, Ok(ChannelEvent::Request { .. })));
    assert_eq!(connection.put_data(channel, false, b"out", &mut sent), Ok(3));
    let unexpected_eof = fault(&mut connection, &eof);
    assert_eq!(unexpected_eof, unexpected(message::CHANNEL_EOF));

    let (mut connection, channel) = opened(10, 10);
    connection.take(&on(message::CHANNEL_EOF, channel), &mut sent).unwrap();
    assert_eq!(fault(&mut connection, &data(channel, b"x")), unexpected(message::CHANNEL_DATA));
}

#[test]
fn finish_sends_status_eof_and_close_once() {
    let (mut connection, channel) = opened(10, 10);
    let mut sent = Sent::new();
    connection.put_end(channel, 3, &mut sent).unwrap();
    let status = with_string(channel_message(message::CHANNEL_REQUEST, PEER), b"exit-status");
    let expected = [
        with_u32([status, vec![0]].concat(), 3),
        channel_message(message::CHANNEL_EOF, PEER),
        channel_message(message::CHANNEL_CLOSE, PEER),
    ];
    assert_eq!(sent, expected);
    connection.put_end(channel, 4, &mut sent).unwrap();
    assert_eq!(connection.put_data(channel, false, b"late", &mut sent), Ok(4));
    connection.put_answer(channel, true, &mut sent).unwrap();
    assert_eq!(connection.window(channel), None);
    assert_eq!(sent, expected, "nothing follows CLOSE");
}

#[test]
fn what_the_client_sent_before_it_saw_our_close_is_taken_in_silence() {
    let (mut connection, channel) = opened(10, 10);
    connection.put_end(channel, 0, &mut Sent::new()).unwrap();
    let mut sent = Sent::new();
    for message in [
        data(channel, b"late"),
        ask(channel, "window-change", false, &[0; 16]),
        ask(channel, "keepalive@openssh.com", true, b""),
        with_u32(on(message::CHANNEL_WINDOW_ADJUST, channel), 1),
        on(message::CHANNEL_EOF, channel),
    ] {
        assert_eq!(connection.take(&message, &mut sent), Ok(ChannelEvent::None));
    }
    let close = on(message::CHANNEL_CLOSE, channel);
    assert_eq!(connection.take(&close, &mut sent), Ok(ChannelEvent::Closed(channel)));
    assert!(sent.is_empty());
    assert_eq!(connection.channel_count(), 0);
}

#[test]
fn a_close_of_the_client_is_answered_at_once() {
    let (mut connection, channel) = opened(10, 10);
    let mut sent = Sent::new();
    let close = on(message::CHANNEL_CLOSE, channel);
    assert_eq!(connection.take(&close, &mut sent), Ok(ChannelEvent::Closed(channel)));
    assert_eq!(sent, [channel_message(message::CHANNEL_CLOSE, PEER)]);
    assert_eq!(fault(&mut connection, &close), out_of_range());
}

#[test]
fn trap_3_a_late_answer_cannot_reach_a_later_channel() {
    let (mut connection, first) = opened(10, 10);
    connection.take(&ask(first, "shell", true, b""), &mut Sent::new()).unwrap();
    connection.take(&on(message::CHANNEL_CLOSE, first), &mut Sent::new()).unwrap();
    let event = connection.take(&open("session", 10, 10), &mut Sent::new()).unwrap();
    let ChannelEvent::Opened(second) = event else { panic!("{event:?}") };
    connection.take(&ask(second, "shell", true, b""), &mut Sent::new()).unwrap();
    assert_ne!(first, second);
    let mut sent = Sent::new();
    connection.put_answer(first, true, &mut sent).unwrap();
    connection.put_end(first, 0, &mut sent).unwrap();
    assert_eq!(connection.put_data(first, false, b"secret", &mut sent), Ok(6));
    assert!(sent.is_empty());
}

/// Messages that are whole, mostly about channels 0 to 2, with edge values in their numbers.
fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let channel = (0_u32..3).prop_map(ChannelId);
    let edge = prop_oneof![Just(0), Just(1), Just(u32::MAX), Just(WINDOW_BYTES), any::<u32>()];
    let bytes = proptest::collection::vec(any::<u8>(), 0..80);
    let name = prop_oneof![
        Just("shell"),
        Just("exec"),
        Just("pty-req"),
        Just("env"),
        Just("subsystem"),
        Just("signal"),
        Just("window-change"),
        Just("exit-status"),
        Just("odd")
    ];
    prop_oneof![
        4 => (edge.clone(), edge.clone()).prop_map(|(window, max)| open("session", window, max)),
        1 => bytes.clone().prop_map(|bytes| [open("x11", 1, 1), bytes].concat()),
        4 => (channel.clone(), bytes.clone()).prop_map(|(channel, bytes)| data(channel, &bytes)),
        2 => (channel.clone(), edge.clone(), bytes.clone()).prop_map(|(channel, kind, bytes)|
            with_string(with_u32(on(message::CHANNEL_EXTENDED_DATA, channel), kind), &bytes)),
        2 => (channel.clone(), edge).prop_map(|(channel, count)|
            with_u32(on(message::CHANNEL_WINDOW_ADJUST, channel), count)),
        1 => channel.clone().prop_map(|channel| on(message::CHANNEL_EOF, channel)),
        1 => channel.clone().prop_map(|channel| on(message::CHANNEL_CLOSE, channel)),
        6 => (channel, name, any::<bool>(), bytes.clone()).prop_map(|(channel, name, reply, body)|
            ask(channel, name, reply, &body)),
        1 => (80_u8..=127, bytes).prop_map(|(number, bytes)| [vec![number], bytes].concat()),
    ]
}

/// How many bytes of data the messages hold.
fn data_len(sent: &Sent) -> usize {
    let mut total = 0_usize;
    for message in sent {
        let mut reader = Reader::new(&message[1..]);
        reader.u32().unwrap();
        match message[0] {
            message::CHANNEL_DATA => {}
            message::CHANNEL_EXTENDED_DATA => assert_eq!(reader.u32(), Ok(STDERR)),
            other => panic!("message {other}"),
        }
        let bytes = reader.string().unwrap();
        assert!(!bytes.is_empty());
        total = total.saturating_add(bytes.len());
        reader.end().unwrap();
    }
    total
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_sequence_of_messages_breaks_the_limits(
        messages in proptest::collection::vec((any_message(), any::<u8>()), 0..40),
    ) {
        let mut connection = Connection::new(2, "refused");
        let mut sent = Sent::new();
        for (message, whim) in messages {
            let Ok(event) = connection.take(&message, &mut sent) else { break };
            if let ChannelEvent::Request { channel, wants_reply: true, .. } = event {
                connection.put_answer(channel, whim % 2 == 0, &mut sent).unwrap();
            }
            let channel = ChannelId(u32::from(whim % 4));
            let before = connection.window(channel);
            match whim / 4 % 4 {
                0 => {
                    let mut one = Sent::new();
                    let taken = connection.put_data(channel, whim > 128, b"0123456789", &mut one).unwrap();
                    let len = data_len(&one);
                    if let Some(before) = before {
                        let room = usize::try_from(before).unwrap();
                        prop_assert_eq!(len, room.min(10));
                        prop_assert_eq!(taken, len);
                    } else {
                        prop_assert_eq!(len, 0);
                    }
                }
                1 => connection.put_end(channel, 1, &mut sent).unwrap(),
                2 => connection.give_back(channel, 40, &mut sent).unwrap(),
                _ => {}
            }
            prop_assert!(connection.channel_count() <= 2);
            for channel in connection.channels.values() {
                prop_assert!(channel.receive_window.checked_add(channel.consumed).unwrap() <= WINDOW_BYTES);
                prop_assert!(channel.unanswered <= UNANSWERED_MAX);
            }
        }
        let count = |number| sent.iter().filter(|message| message[0] == number).count();
        let opened = count(message::CHANNEL_OPEN_CONFIRMATION);
        prop_assert!(count(message::CHANNEL_CLOSE) <= opened);
        prop_assert!(connection.channel_count() <= opened);
        prop_assert!(sent.iter().all(|message| message.len() < 100), "no answer grows with its question");
    }

    #[test]
    fn raw_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (mut connection, _) = opened(10, 10);
        let _ = connection.take(&bytes, &mut Sent::new());
    }
}
