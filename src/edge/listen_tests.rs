//! Tests of `listen`.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::*;
use crate::edge::testing;

fn local(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), 0)
}

/// CPUs this process may run on.
fn cpus() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).expect("affinity");
    (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).expect("in range")).collect()
}

#[test]
fn every_shard_gets_one_listener_per_address_on_one_port() {
    let listeners = bind(&[local("127.0.77.1"), local("127.0.77.2"), local("::1")], &[0, 1, 2])
        .expect("listens");
    assert_eq!(listeners.shards.len(), 3);
    for (position, ip) in ["127.0.77.1", "127.0.77.2", "::1"].iter().enumerate() {
        let bound: BTreeSet<SocketAddr> =
            listeners.shards.iter().map(|shard| shard[position].address).collect();
        assert_eq!(bound.len(), 1, "{bound:?}");
        let address = *bound.first().expect("one");
        assert_eq!(address.ip().to_string(), *ip);
        assert_ne!(address.port(), 0);
        for shard in &listeners.shards {
            let real = shard[position].socket.local_addr().expect("name").as_socket();
            assert_eq!(real, Some(address));
        }
    }
}

#[test]
fn accepted_sockets_inherit_the_options_of_a_connection() {
    for ip in ["127.0.77.1", "::1"] {
        let listeners = bind(&[local(ip)], &[0]).expect("listens");
        let listener = &listeners.shards[0][0];
        let _client = TcpStream::connect(listener.address).expect("connects");
        let (accepted, _) = listener.socket.accept().expect("accepts");
        assert!(accepted.tcp_nodelay().expect("option"), "{ip}");
        let flags = fcntl(&listener.socket, FcntlArg::F_GETFD).expect("flags");
        assert!(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC), "{ip}");
        assert!(listener.socket.nonblocking().expect("flags"), "{ip}");
        assert!(accepted.keepalive().expect("option"), "{ip}");
        let idle = accepted.tcp_keepalive_time().expect("option");
        assert_eq!(idle, listener.socket.tcp_keepalive_time().expect("option"));
        assert_eq!(accepted.tcp_keepalive_interval().expect("option").as_secs(), 30, "{ip}");
        let patience = accepted.tcp_user_timeout().expect("option").expect("set");
        assert_eq!(patience.as_secs(), 3600, "{ip}");
    }
}

/// Without a limit of its own a connection lasts as long as that of a program that sets
/// nothing: two hours.
#[test]
fn accepted_sockets_have_the_patience_that_was_asked_for() {
    let listeners = bind(&[local("127.0.77.1")], &[0]).expect("listens");
    let listener = &listeners.shards[0][0];
    for (patience, probes) in [(Some(Duration::from_secs(45)), None), (None, Some(127))] {
        listeners.be_patient(patience).expect("option");
        let _client = TcpStream::connect(listener.address).expect("connects");
        let (accepted, _) = listener.socket.accept().expect("accepts");
        assert_eq!(accepted.tcp_user_timeout().expect("option"), patience);
        let retries = accepted.tcp_keepalive_retries().expect("option");
        assert!(probes.is_none_or(|probes| probes == retries), "{retries}");
        assert_eq!(accepted.tcp_keepalive_time().expect("option").as_secs(), 120);
    }
}

#[test]
fn an_ipv6_wildcard_leaves_ipv4_to_its_own_listener() {
    let v6 = bind(&[local("::")], &[0]).expect("listens on v6");
    let port = v6.shards[0][0].address.port();
    let both = bind(&[SocketAddr::new(local("0.0.0.0").ip(), port)], &[0]).expect("and on v4");
    assert!(v6.shards[0][0].socket.only_v6().expect("option"));
    drop(both);
    let refused = TcpStream::connect(("127.0.0.1", port)).expect_err("no v4 on a v6 listener");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_wildcard_and_a_named_address_on_one_port_go_together() {
    let first = bind(&[local("127.0.77.9")], &[0]).expect("finds a port");
    let named = first.shards[0][0].address;
    drop(first);
    let all = SocketAddr::new(local("0.0.0.0").ip(), named.port());
    let listeners = bind(&[all, named], &[0, 1]).expect("both at once");
    assert_eq!(listeners.shards[1].len(), 2);
}

#[test]
fn an_address_in_use_is_refused_even_when_the_other_would_share_it() {
    // A second process of the same user would silently get every second connection otherwise.
    let first = bind(&[local("127.0.77.3")], &[0, 1]).expect("listens");
    let address = first.shards[0][0].address;
    let fault = bind(&[address], &[0, 1]).expect_err("in use");
    assert!(matches!(fault, ListenError::InUse { .. }), "{fault:?}");
    let text = fault.to_string();
    assert!(text.contains(&address.to_string()) && text.contains("ss -ltnp"), "{text}");
    drop(first);
    bind(&[address], &[0, 1]).expect("free again");
}

#[test]
fn sessions_of_an_earlier_process_do_not_keep_a_new_one_from_listening() {
    let first = bind(&[local("127.0.77.4")], &[0]).expect("listens");
    let address = first.shards[0][0].address;
    let _client = TcpStream::connect(address).expect("connects");
    let (_session, _) = first.shards[0][0].socket.accept().expect("accepts");
    drop(first);
    bind(&[address], &[0]).expect("beside a live session");
}

#[test]
fn a_low_port_without_the_right_says_how_to_get_it() {
    let fault = testing::in_own_network(|| {
        // The raw call changes this thread alone; glibc's wrapper would change every
        // thread of the tests.
        // SAFETY: three plain numbers; the thread ends with this closure.
        let answer = unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) };
        assert_eq!(answer, 0);
        bind(&[SocketAddr::new(local("0.0.0.0").ip(), 22)], &[0]).expect_err("no right to it")
    });
    let Some(fault) = fault else { return };
    assert!(matches!(fault, ListenError::Denied { .. }), "{fault:?}");
    let text = fault.to_string();
    assert!(text.contains("0.0.0.0:22") && text.contains("setcap"), "{text}");
}

#[test]
fn an_address_that_is_not_here_yet_is_listened_on_with_a_warning() {
    for ip in ["203.0.113.77", "2001:db8::77"] {
        let address = SocketAddr::new(ip.parse().expect("an address"), 2222);
        let listeners = bind(&[address], &[0]).expect("free bind");
        assert!(
            matches!(listeners.warnings[..], [Warning::NotHere { address: a }] if a == address),
            "{:?}",
            listeners.warnings
        );
        assert!(listeners.warnings[0].to_string().contains(ip));
    }
}

#[test]
fn what_no_host_can_listen_on_is_named() {
    let asked = |text: &str| text.parse::<SocketAddr>().expect("an address");
    let fault = bind(&[asked("[fe80::1]:2222")], &[0]).expect_err("link-local without interface");
    assert!(matches!(fault, ListenError::Unknown { .. }), "{fault:?}");
    let fault = bind(&[asked("[::ffff:127.0.0.1]:2222")], &[0]).expect_err("IPv4 in disguise");
    assert!(matches!(fault, ListenError::Mapped { .. }), "{fault:?}");
    let twice = [asked("127.0.77.1:2222"), asked("127.0.77.1:2222")];
    let fault = bind(&twice, &[0]).expect_err("listed twice");
    assert!(matches!(fault, ListenError::Twice { .. }), "{fault:?}");
}

#[test]
fn the_kernel_takes_the_steering_program_and_says_so_when_it_does_not() {
    let listeners = bind(&[local("127.0.77.1")], &[0, 1]).expect("listens");
    assert!(listeners.warnings.is_empty(), "{:?}", listeners.warnings);
    let listener = &listeners.shards[0][0];
    // The table for 3,000 shards has more instructions than the kernel takes (BPF_MAXINSNS, 4096).
    let far: Vec<usize> = (1..=3_000).collect();
    let warning = steered(listener, &far, 0).expect("refused");
    assert!(matches!(warning, Warning::Unsteered { .. }), "{warning:?}");
    assert!(warning.to_string().contains("not steered"), "{warning}");
    TcpStream::connect(listener.address).expect("it listens all the same");
}

#[test]
fn the_program_sends_each_cpu_to_its_own_shard() {
    // Run by hand: this machine need not have the CPUs.
    let run_behind = |cpus: &[usize], before: usize, on: u32| {
        let program = steering(cpus, before).expect("a program");
        let mut at = 0;
        let mut value = 0;
        loop {
            let step = program[at];
            at += 1;
            match u32::from(step.code) {
                code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => value = on,
                code if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => {
                    at += usize::from(if value == step.k { step.jt } else { step.jf });
                }
                code if code == libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K => value %= step.k,
                code if code == libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K => value += step.k,
                code if code == libc::BPF_RET | libc::BPF_K => return step.k,
                code if code == libc::BPF_RET | libc::BPF_A => return value,
                code => panic!("unknown instruction {code:#x}"),
            }
        }
    };
    let run = |cpus: &[usize], on| run_behind(cpus, 0, on);
    for on in 0..4 {
        assert_eq!(run(&[0, 1, 2, 3], on), on);
        // Behind the listeners of another process, of which there may be more or fewer.
        assert_eq!(run_behind(&[0, 1, 2, 3], 3, on), 3 + on);
        assert_eq!(run_behind(&[5, 9], 3, on), 3 + on % 2);
    }
    let apart = [2, 3, 8, 9];
    for (shard, &cpu) in (0..).zip(&apart) {
        assert_eq!(run(&apart, u32::try_from(cpu).expect("small")), shard);
    }
    for on in [0, 1, 4, 5, 100] {
        assert!(run(&apart, on) < 4, "a CPU without a shard still finds one");
    }
}

#[test]
fn a_connection_goes_to_the_listener_of_the_cpu_that_received_it() {
    let cpus = cpus();
    // On one CPU there is nothing to steer: every connection reaches the one listener.
    let listeners = bind(&[local("127.0.77.1")], &cpus).expect("listens");
    let address = listeners.shards[0][0].address;
    for shard in &listeners.shards {
        shard[0].socket.set_nonblocking(true).expect("nonblocking");
    }
    let arrived: Vec<AtomicUsize> = cpus.iter().map(|_| AtomicUsize::new(0)).collect();
    for (expected, &cpu) in cpus.iter().enumerate() {
        // Loopback delivers on the CPU that sends.
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut only = CpuSet::new();
                only.set(cpu).expect("in range");
                sched_setaffinity(Pid::from_raw(0), &only).expect("pinned");
                for _ in 0..20 {
                    TcpStream::connect_timeout(&address, Duration::from_secs(5)).expect("connects");
                }
            });
        });
        for (shard, count) in listeners.shards.iter().zip(&arrived) {
            while shard[0].socket.accept().is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        let counts: Vec<usize> =
            arrived.iter().map(|count| count.swap(0, Ordering::Relaxed)).collect();
        assert_eq!(counts[expected], 20, "from CPU {cpu}: {counts:?}");
    }
}
