//! Tests of `splice`: real TCP connections; the peers are the test and its threads.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sys::epoll::EpollTimeout;
use socket2::SockRef;

use super::super::super::clock::monotonic_ms;
use super::super::super::epoll::Event;
use super::super::tests::{Ends, SETTINGS, ended, pump, start, tcp_pair};
use super::super::{Carriage, Carry, Pump, Seen, Session, Stay};
use super::leg::SPLICE_BYTES_MAX;
use super::*;
use crate::ended::Side;
use crate::metrics::{Inventory, Registry};
use crate::ssh::entropy::Entropy as _;
use crate::ssh::testing::Seeded;

/// Length of what is sent over and over; no power of two, so that nothing lost or
/// doubled fits in again.
const PATTERN: usize = 1_000_003;

/// A session called `info` and its two outer ends; what goes out first, up and down.
fn spliced_after(
    info: &'static str,
    up: &[u8],
    down: &[u8],
) -> (TcpStream, TcpStream, Session<&'static str>) {
    let leg = |leftover: &[u8]| {
        let (outer, inner) = tcp_pair();
        inner.set_nonblocking(true).unwrap();
        (outer, SplicedLeg { fd: inner.into(), leftover: leftover.to_vec() })
    };
    let (client, client_leg) = leg(up);
    let (vm, vm_leg) = leg(down);
    let carriage = Carriage::Splice(Box::new(Splice::new(client_leg, vm_leg)));
    (client, vm, Session { carriage, info, started_ms: monotonic_ms() })
}

fn spliced(info: &'static str) -> (TcpStream, TcpStream, Session<&'static str>) {
    spliced_after(info, b"", b"")
}

fn pattern(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; PATTERN];
    Seeded(seed).fill(&mut bytes);
    bytes
}

/// A length from 1 to `most`.
fn length(random: &mut Seeded, most: u64) -> usize {
    let mut bytes = [0; 8];
    random.fill(&mut bytes);
    usize::try_from(u64::from_le_bytes(bytes) % most).unwrap() + 1
}

/// Sends `count` bytes of the pattern of `seed`, at most `most` at a time.
fn send_all(mut to: &TcpStream, seed: u64, count: usize, most: u64) {
    let (pattern, mut random, mut sent) = (pattern(seed), Seeded(!seed), 0);
    while sent < count {
        let at = sent % PATTERN;
        let len = length(&mut random, most).min(PATTERN - at).min(count - sent);
        to.write_all(&pattern[at..at + len]).unwrap();
        sent += len;
    }
}

/// Reads until the end, at most `most` at a time: the pattern of `seed`, byte for byte. How
/// many there were.
fn receive_all(mut from: &TcpStream, seed: u64, most: u64) -> usize {
    let (pattern, mut random, mut got) = (pattern(seed), Seeded(seed ^ 7), 0);
    let mut room = vec![0; usize::try_from(most).unwrap()];
    loop {
        let len = length(&mut random, most).min(PATTERN - got % PATTERN);
        match from.read(&mut room[..len]).unwrap() {
            0 => return got,
            count => {
                let at = got % PATTERN;
                assert!(room[..count] == pattern[at..at + count], "wrong behind {got} bytes");
                got += count;
            }
        }
    }
}

/// All four ends of a session at once: `count` bytes each way, then both say FIN.
fn flow(client: &TcpStream, vm: &TcpStream, count: usize, most: u64) {
    thread::scope(|scope| {
        for (from, to, seed) in [(client, vm, 1), (vm, client, 2)] {
            scope.spawn(move || {
                send_all(from, seed, count, most);
                from.shutdown(Shutdown::Write).unwrap();
            });
            scope.spawn(move || assert_eq!(receive_all(to, seed, most), count));
        }
    });
}

/// Has a pump that is not started do all that there is to do now.
fn settle(pump: &mut Pump<&'static str>) {
    loop {
        let events: Vec<_> = pump.poller.wait(EpollTimeout::ZERO).unwrap().collect();
        if events.is_empty() && pump.ready.is_empty() {
            return;
        }
        for event in events {
            if let Event::Ready(target, readiness) = event {
                pump.ready(target, readiness);
            }
        }
        while let Some(key) = pump.ready.pop_front() {
            pump.turn(key);
            assert!(pump.tools.pipes.count() <= 1);
        }
    }
}

/// Lets `ms` pass.
fn later(pump: &mut Pump<&'static str>, ms: u64) {
    pump.tools.now.0 += ms;
    pump.pass_deadlines();
    settle(pump);
}

fn assert_end(stream: &mut TcpStream) {
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

/// Nothing to read, without a wait.
fn assert_nothing(stream: &mut TcpStream) {
    stream.set_nonblocking(true).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
}

fn assert_ended(ends: &Ends, side: Side, cause: Cause, carried: (u64, u64)) {
    let (_, report) = ends.recv().unwrap();
    assert_eq!((report.ended, (report.up, report.down)), (ended(side, cause), carried));
}

#[test]
fn a_hundred_megabytes_each_way_arrive_as_they_were_sent() {
    const COUNT: usize = 100_000_000;
    let (handle, thread, ends) = start();
    let (client, vm, session) = spliced("bulk");
    assert!(handle.carry(session).is_ok());
    flow(&client, &vm, COUNT, 20_000);
    let (_, report) = ends.recv().unwrap();
    assert_eq!((report.up, report.down), (COUNT as u64, COUNT as u64));
    assert_eq!(report.ended.cause, Cause::Closed);
    handle.stop();
    thread.join().unwrap();
}

#[test]
fn the_smallest_send_buffers_lose_nothing_and_never_stand_still() {
    const COUNT: usize = 3_000_000;
    let (handle, thread, ends) = start();
    let (client, vm, session) = spliced("small");
    for fd in session.carriage.sockets() {
        SockRef::from(fd).set_send_buffer_size(1).unwrap();
    }
    assert!(handle.carry(session).is_ok());
    flow(&client, &vm, COUNT, 3_000);
    let (_, report) = ends.recv().unwrap();
    assert_eq!((report.up, report.down), (COUNT as u64, COUNT as u64));
    handle.stop();
    thread.join().unwrap();
}

#[test]
fn each_side_may_say_its_last_and_hear_the_other_one_out() {
    let (handle, thread, ends) = start();
    for side in [Side::Client, Side::Vm] {
        let (client, vm, session) = spliced("half");
        assert!(handle.carry(session).is_ok());
        let (mut first, mut last) = if side == Side::Client { (client, vm) } else { (vm, client) };
        first.write_all(b"last words").unwrap();
        first.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        last.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"last words");
        thread::scope(|scope| {
            scope.spawn(|| assert_eq!(receive_all(&first, 3, 50_000), 3_000_000));
            send_all(&last, 3, 3_000_000, 100_000);
            last.shutdown(Shutdown::Write).unwrap();
        });
        let carried = if side == Side::Client { (10, 3_000_000) } else { (3_000_000, 10) };
        assert_ended(&ends, side, Cause::Closed, carried);
    }
    handle.stop();
    thread.join().unwrap();
}

#[test]
fn a_half_closed_session_lives_while_it_moves_bytes_and_a_minute_longer() {
    let (mut pump, _handle, ends) = pump();
    let (client, mut vm, session) = spliced("half");
    pump.register(session);
    client.shutdown(Shutdown::Write).unwrap();
    settle(&mut pump);
    assert_end(&mut vm);
    for _ in 0..3 {
        vm.write_all(b"more").unwrap();
        settle(&mut pump);
        later(&mut pump, HALF_CLOSED_MS_MAX);
    }
    assert_eq!(pump.entries.len(), 1);
    later(&mut pump, HALF_CLOSED_MS_MAX);
    assert_ended(&ends, Side::Client, Cause::Closed, (0, 12));
}

#[test]
fn what_was_read_before_goes_out_first_and_counts() {
    let (handle, thread, ends) = start();
    // More than one buffer, and more than a socket takes at once.
    let (up, down) = (pattern(4), pattern(5));
    let (client, vm, session) = spliced_after("early", &up, &down);
    (&client).write_all(b"and then up").unwrap();
    (&vm).write_all(b"and then down").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    vm.shutdown(Shutdown::Write).unwrap();
    assert!(handle.carry(session).is_ok());
    thread::scope(|scope| {
        for (mut end, bytes, words) in
            [(&vm, &up, &b"and then up"[..]), (&client, &down, b"and then down")]
        {
            scope.spawn(move || {
                let mut all = Vec::new();
                end.read_to_end(&mut all).unwrap();
                assert!(all == [bytes, words].concat());
            });
        }
    });
    let (_, report) = ends.recv().unwrap();
    assert_eq!(report.up, PATTERN as u64 + 11);
    assert_eq!(report.down, PATTERN as u64 + 13);
    handle.stop();
    thread.join().unwrap();
}

/// Writes until nothing more is taken; how many bytes that were.
fn stuff(pump: &mut Pump<&'static str>, mut from: &TcpStream, pattern: &[u8]) -> usize {
    from.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let mut stopped = 0;
    while stopped < 2 {
        match from.write(&pattern[sent % PATTERN..]) {
            Ok(count) => (sent, stopped) = (sent + count, 0),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                stopped += 1;
                settle(pump);
            }
        }
    }
    from.set_nonblocking(false).unwrap();
    sent
}

#[test]
fn peers_that_do_not_read_hold_no_pipe_and_keep_nobody_waiting() {
    /// Enough for the largest segment on this way, or the peers would wait for timers.
    const SMALL: usize = 64 << 10;
    // Four descriptors each.
    let count = if std::env::var_os("KEYWAY_FULL").is_some() { 4_000 } else { 300 };
    let (mut pump, handle, ends) = pump();
    let pattern = pattern(6);
    let mut stopped = Vec::new();
    for _ in 0..count {
        let (client, vm, session) = spliced("stopped");
        for fd in session
            .carriage
            .sockets()
            .map(AsFd::as_fd)
            .into_iter()
            .chain([client.as_fd(), vm.as_fd()])
        {
            SockRef::from(&fd).set_recv_buffer_size(SMALL).unwrap();
            SockRef::from(&fd).set_send_buffer_size(SMALL).unwrap();
        }
        pump.register(session);
        let sent = stuff(&mut pump, &vm, &pattern);
        assert!(sent > 0);
        stopped.push((client, vm, sent));
    }
    assert!(pump.tools.pipes.count() <= 1);
    for (_, entry) in pump.entries.iter() {
        assert_eq!(entry.carriage.is_full(), [true, false]);
    }
    let (mut client, mut vm, session) = spliced("moves");
    pump.register(session);
    for n in 0..50 {
        client.write_all(&[n]).unwrap();
        settle(&mut pump);
        let mut byte = [0];
        vm.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [n]);
    }
    drop((client, vm));
    settle(&mut pump);
    assert_ended(&ends, Side::Client, Cause::Closed, (50, 0));
    // And nothing of what was sent to the others is lost.
    let thread = thread::spawn(|| pump.run());
    for (client, vm, sent) in stopped {
        vm.shutdown(Shutdown::Write).unwrap();
        assert_eq!(receive_all(&client, 6, 60_000), sent);
        drop((client, vm));
        assert_ended(&ends, Side::Vm, Cause::Closed, (0, sent as u64));
    }
    handle.stop();
    thread.join().unwrap();
}

#[test]
fn what_is_stuck_in_a_pipe_is_copied_out_of_it_and_arrives_in_its_place() {
    let (mut pump, _handle, ends) = pump();
    let (mut client, vm, mut session) = spliced("stuck");
    let Carriage::Splice(splice) = &mut session.carriage else { panic!("another carriage") };
    SockRef::from(&splice.client.fd).set_send_buffer_size(4096).unwrap();
    // A socket that promises what it does not keep.
    splice.client.room = usize::MAX;
    pump.register(session);
    let sent = stuff(&mut pump, &vm, &pattern(8));
    let stuck = pump.tools.tally.stuck;
    assert!(stuck > 0 && stuck <= SPLICE_BYTES_MAX as u64, "{stuck}");
    assert_eq!(pump.tools.tally.spliced + stuck, pump.tools.tally.down);
    assert_eq!(pump.tools.pipes.count(), 1, "the pipe is free again");
    let held = |pump: &Pump<&'static str>| {
        let carriages = pump.entries.iter().map(|(_, entry)| match &entry.carriage {
            Carriage::Splice(splice) => splice.vm.inbox.capacity(),
            Carriage::Reseal(_) => 0,
        });
        carriages.sum::<usize>()
    };
    assert!(held(&pump) > 0 && held(&pump) <= SPLICE_BYTES_MAX);
    let (pattern, mut room, mut got) = (pattern(8), vec![0; PATTERN], 0);
    client.set_nonblocking(true).unwrap();
    while got < sent {
        settle(&mut pump);
        let at = got % PATTERN;
        match client.read(&mut room[at..]) {
            Ok(count) => {
                assert!(room[at..at + count] == pattern[at..at + count], "behind {got} bytes");
                got += count;
            }
            // An acknowledgement is on its way.
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    assert_eq!(held(&pump), 0, "an idle session holds no buffer");
    drop((client, vm));
    settle(&mut pump);
    assert_ended(&ends, Side::Client, Cause::Closed, (0, sent as u64));
}

#[test]
fn a_thousand_busy_sessions_share_one_pipe() {
    let (mut pump, _handle, _ends) = pump();
    let mut peers = Vec::new();
    for _ in 0..1_000 {
        let (client, vm, session) = spliced("busy");
        pump.register(session);
        peers.push((client, vm));
    }
    for round in 0..5_u8 {
        for (n, (client, vm)) in peers.iter_mut().enumerate() {
            let (up, down) = ([round, n.to_le_bytes()[0]], [!round, n.to_le_bytes()[1]]);
            client.write_all(&up.repeat(500)).unwrap();
            vm.write_all(&down.repeat(500)).unwrap();
        }
        settle(&mut pump);
        for (n, (client, vm)) in peers.iter_mut().enumerate() {
            let (up, down) = ([round, n.to_le_bytes()[0]], [!round, n.to_le_bytes()[1]]);
            for (end, words) in [(vm, up), (client, down)] {
                let mut room = [0; 1_000];
                end.read_exact(&mut room).unwrap();
                assert!(room == *words.repeat(500));
            }
        }
    }
    assert_eq!(pump.tools.pipes.count(), 1);
    assert_eq!(pump.tools.tally.spliced, 10_000_000);
}

#[test]
fn without_a_pipe_bytes_are_copied_and_counted() {
    let (mut pump, handle, ends) = pump();
    pump.tools.pipes.made_by(|| Err(Errno::EMFILE));
    let registry = Registry::new(0, Inventory::default);
    pump.counters = registry.counters();
    let thread = thread::spawn(|| pump.run());
    let (client, vm, session) = spliced("copied");
    assert!(handle.carry(session).is_ok());
    flow(&client, &vm, 5_000_000, 200_000);
    let (_, report) = ends.recv().unwrap();
    assert_eq!((report.up, report.down), (5_000_000, 5_000_000));
    handle.stop();
    thread.join().unwrap();
    let page = registry.render();
    for (passage, count) in [("spliced", 0), ("stuck", 0), ("no_pipe", 10_000_000)] {
        let line = format!("keyway_spliced_session_bytes_total{{passage=\"{passage}\"}} {count}\n");
        assert!(page.contains(&line), "{line} in\n{page}");
    }
}

#[test]
fn who_broke_the_connection_is_named_and_the_other_one_hears_an_end() {
    let (handle, thread, ends) = start();
    for side in [Side::Client, Side::Vm] {
        let (client, vm, session) = spliced("reset");
        assert!(handle.carry(session).is_ok());
        let (mut broken, mut other) =
            if side == Side::Client { (client, vm) } else { (vm, client) };
        broken.write_all(b"x").unwrap();
        other.read_exact(&mut [0]).unwrap();
        SockRef::from(&broken).set_linger(Some(Duration::ZERO)).unwrap();
        drop(broken);
        assert_end(&mut other);
        drop(other);
        let carried = if side == Side::Client { (1, 0) } else { (0, 1) };
        assert_ended(&ends, side, Cause::Reset, carried);
    }
    handle.stop();
    thread.join().unwrap();
}

#[test]
fn whoever_is_killed_is_not_heard_any_more_and_hears_the_agent_for_a_second() {
    let (mut pump, handle, ends) = pump();
    let (mut client, mut vm, session) = spliced("killed");
    pump.register(session);
    client.write_all(b"before").unwrap();
    settle(&mut pump);
    vm.read_exact(&mut [0; 6]).unwrap();
    handle.visit(Box::new(|_, seen| {
        assert_eq!(seen, Seen { carry: Carry::Splice, up: 6, down: 0 });
        false
    }));
    pump.obey();
    client.write_all(b"after").unwrap();
    vm.write_all(b"an operator ended this session").unwrap();
    settle(&mut pump);
    let mut words = [0; 30];
    client.read_exact(&mut words).unwrap();
    assert_eq!(&words, b"an operator ended this session");
    assert_nothing(&mut vm);
    later(&mut pump, PARTING_MS_MAX - 1);
    assert_nothing(&mut client);
    later(&mut pump, 1);
    assert_end(&mut client);
    assert_end(&mut vm);
    // They do not close.
    later(&mut pump, LINGER_MS_MAX);
    assert_ended(&ends, Side::Operator, Cause::Killed, (11, 30));
}

#[test]
fn a_right_that_is_lost_ends_a_session_as_soon_as_the_agent_has_ended_it() {
    let (handle, thread, ends) = start();
    let (mut lost, mut lost_vm, session_lost) = spliced("lost");
    let (mut kept, mut kept_vm, session_kept) = spliced("kept");
    assert!(handle.carry(session_lost).is_ok());
    assert!(handle.carry(session_kept).is_ok());
    handle.request_recheck(Arc::new(|info| match *info {
        "lost" => Stay::End(Cause::RightLost),
        _ => Stay::Until(None),
    }));
    lost_vm.write_all(b"bye").unwrap();
    lost_vm.shutdown(Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    lost.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"bye");
    drop((lost, lost_vm));
    let (info, report) = ends.recv().unwrap();
    assert_eq!((info, report.ended.cause), ("lost", Cause::RightLost));
    kept.write_all(b"on").unwrap();
    kept_vm.read_exact(&mut [0; 2]).unwrap();
    drop((kept, kept_vm));
    assert_ended(&ends, Side::Client, Cause::Closed, (2, 0));
    handle.stop();
    thread.join().unwrap();
}

#[test]
fn a_drain_ends_all_and_whoever_comes_in_later() {
    let (mut pump, handle, ends) = pump();
    let (client, vm, session) = spliced("old");
    pump.register(session);
    handle.end_all();
    pump.obey();
    let (new, new_vm, session) = spliced("new");
    pump.register(session);
    settle(&mut pump);
    later(&mut pump, PARTING_MS_MAX);
    for mut stream in [client, vm, new, new_vm] {
        assert_end(&mut stream);
    }
    settle(&mut pump);
    for _ in 0..2 {
        assert_ended(&ends, Side::Operator, Cause::Drained, (0, 0));
    }
}

#[test]
fn the_kernel_looks_after_silent_peers_as_long_as_the_protocol_would() {
    let (mut pump, _handle, _ends) = pump();
    let (_client, _vm, session) = spliced("silent");
    let sockets = session.carriage.sockets().map(|fd| fd.try_clone().unwrap());
    pump.register(session);
    for socket in &sockets {
        let socket = SockRef::from(socket);
        assert_eq!(socket.tcp_user_timeout().unwrap(), SETTINGS.client_alive.patience());
        assert!(socket.keepalive().unwrap());
        assert!(socket.tcp_nodelay().unwrap());
    }
    eprintln!("Splice: {} bytes", size_of::<Splice>());
}

/// Sends as much down as makes a flow a fast one, and reads it.
fn hurry(pump: &mut Pump<&'static str>, client: &mut TcpStream, mut vm: &TcpStream) {
    let mut room = vec![0; 64 << 10];
    for _ in 0..16 {
        vm.write_all(&room).unwrap();
        settle(pump);
        client.read_exact(&mut room).unwrap();
    }
}

#[test]
fn a_fast_flow_is_told_of_in_large_pieces_and_what_is_left_after_a_lull() {
    let (mut pump, _handle, ends) = pump();
    let (mut client, mut vm, session) = spliced("fast");
    pump.register(session);
    let (mut word, mut half) = ([0; 5], vec![0; 32 << 10]);
    let mut passes = |pump: &mut Pump<&'static str>, client: &mut TcpStream, vm: &mut TcpStream| {
        vm.write_all(b"typed").unwrap();
        settle(pump);
        client.read_exact(&mut word).unwrap();
    };
    hurry(&mut pump, &mut client, &vm);
    vm.write_all(b"typed").unwrap();
    settle(&mut pump);
    assert_nothing(&mut client);
    later(&mut pump, 2);
    client.read_exact(&mut [0; 5]).unwrap();
    // From there on all is told as it comes, and a slow flow stays one.
    passes(&mut pump, &mut client, &mut vm);
    for _ in 0..64 {
        later(&mut pump, 11);
        vm.write_all(&half).unwrap();
        settle(&mut pump);
        client.read_exact(&mut half).unwrap();
    }
    passes(&mut pump, &mut client, &mut vm);
    // An end waits for nothing.
    hurry(&mut pump, &mut client, &vm);
    vm.write_all(b"last").unwrap();
    vm.shutdown(Shutdown::Write).unwrap();
    settle(&mut pump);
    client.read_exact(&mut [0; 4]).unwrap();
    assert_end(&mut client);
    drop((client, vm));
    settle(&mut pump);
    assert_ended(&ends, Side::Vm, Cause::Closed, (0, (4 << 20) + 19));
}
