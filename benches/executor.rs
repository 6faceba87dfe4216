//! The door's executor beside glommio 0.9 (`benches/glommio`): one flow of accept, read, write and
//! connect on both, in processes of their own. `cargo bench --bench executor`.
//!
//! For each: system calls a flow (counted with ptrace, in a short run of its own), CPU a flow of
//! the child alone, and flows that stood still for [`STALL`] and more: a wake that was lost until
//! something else came along. A flow is what a login waits for, without its cryptography: see
//! `keyway::edge::bare_flow`. The choice is explained in docs/choices.md.

#![expect(clippy::disallowed_methods, reason = "it measures, by threads and clocks")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]
#![expect(clippy::expect_used, reason = "a benchmark that cannot measure must end")]
#![expect(clippy::panic, reason = "a benchmark that cannot measure must end")]
#![expect(clippy::cast_precision_loss, reason = "figures are printed with one digit")]

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use keyway::edge::bare_flow::{self, CLIENT_TURNS, MESSAGE_BYTES, VM_TURNS};
use nix::sys::ptrace;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Rounds; the executors take turns, and the figures are medians.
const ROUNDS: usize = 5;
/// Flows of a round.
const FLOWS: usize = 4_000;
/// Flows under way at a time.
const PARALLEL: usize = 8;
/// Flows of the run in which system calls are counted: ptrace makes each of them slow.
const TRACED_FLOWS: usize = 400;
/// A flow of microseconds that takes this long has been forgotten and found again.
const STALL: Duration = Duration::from_millis(200);
/// And one that takes this long has been lost.
const LOST: Duration = Duration::from_secs(5);
/// The CPU of the executor, as a shard has one.
const CPU: usize = 0;

const GLOMMIO: &str = "glommio";
const EXECUTORS: [&str; 2] = ["keyway", GLOMMIO];

/// Where the program on glommio is built: a package of its own, so that no other build of this
/// repository has its crates.
const PEER_TARGET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/glommio");

fn peer() -> String {
    format!("{PEER_TARGET}/release/keyway-glommio-front")
}

fn build_peer() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--release", "--quiet", "--target-dir", PEER_TARGET, "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/glommio/Cargo.toml"))
        .status();
    assert!(built.is_ok_and(|status| status.success()), "benches/glommio does not build");
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, executor, listen, vm] = arguments.as_slice()
        && role == "front"
    {
        front(executor, listen, vm);
        return;
    }
    build_peer();
    let vm = backend();
    let mut figures = EXECUTORS.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (executor, figures) in EXECUTORS.iter().zip(&mut figures) {
            figures.push(run(executor, vm));
        }
    }
    println!(
        "{:<10} {:>12} {:>14} {:>10} {:>8}",
        "executor", "CPU us/flow", "calls/flow", "stalled", "lost"
    );
    for (executor, figures) in EXECUTORS.iter().zip(&figures) {
        let calls = traced(executor, vm);
        let all = calls.values().sum::<u64>() as f64 / TRACED_FLOWS as f64;
        let mut cpu: Vec<f64> = figures.iter().map(|figure| figure.cpu_us).collect();
        cpu.sort_by(f64::total_cmp);
        let stalled: usize = figures.iter().map(|figure| figure.stalled).sum();
        let lost: usize = figures.iter().map(|figure| figure.lost).sum();
        println!("{executor:<10} {:>12.1} {all:>14.1} {stalled:>10} {lost:>8}", cpu[cpu.len() / 2]);
        let mut most: Vec<_> = calls.into_iter().collect();
        most.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let shares = most.iter().take(8).map(|&(number, count)| {
            format!("{} {:.1}", call_name(number), count as f64 / TRACED_FLOWS as f64)
        });
        println!("{:<10}   {}", "", shares.collect::<Vec<_>>().join(", "));
    }
    let all = ROUNDS * FLOWS;
    println!(
        "stalled: over {} ms, lost: over {} s, both of {all} flows",
        STALL.as_millis(),
        LOST.as_secs()
    );
}

/// What one round has shown.
struct Figures {
    cpu_us: f64,
    stalled: usize,
    lost: usize,
}

/// A front in a process of its own.
struct Front {
    child: Child,
    address: SocketAddr,
}

impl Front {
    fn start(executor: &str, vm: SocketAddr, is_traced: bool) -> Self {
        // A port that was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let address = address.expect("a free port");
        let child = Command::new(std::env::current_exe().expect("its own path"))
            .args(["front", executor, &address.to_string(), &vm.to_string()])
            .env("KEYWAY_TRACED", if is_traced { "1" } else { "" })
            .stdin(Stdio::null())
            .spawn()
            .expect("a child");
        Self { child, address }
    }

    fn is_up(&self) -> bool {
        TcpStream::connect(self.address).is_ok()
    }
}

fn run(executor: &str, vm: SocketAddr) -> Figures {
    let before = children_cpu();
    let mut front = Front::start(executor, vm, false);
    while !front.is_up() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (stalled, lost) = flows(front.address, FLOWS);
    front.child.kill().expect("it is ours");
    front.child.wait().expect("it is ours");
    let cpu_us = children_cpu().saturating_sub(before).as_secs_f64() * 1e6 / FLOWS as f64;
    Figures { cpu_us, stalled, lost }
}

fn children_cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("it cannot fail");
    let micros = [usage.user_time(), usage.system_time()].map(|time| {
        u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).expect("time that was used")
    });
    Duration::from_micros(micros.iter().sum())
}

/// Runs `count` flows through `front`; how many stalled, and how many were lost.
fn flows(front: SocketAddr, count: usize) -> (usize, usize) {
    let (next, stalled, lost) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|threads| {
        for _ in 0..PARALLEL {
            threads.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < count {
                    let began = Instant::now();
                    match one_flow(front) {
                        Ok(()) if began.elapsed() >= STALL => {
                            stalled.fetch_add(1, Ordering::Relaxed)
                        }
                        Ok(()) => 0,
                        Err(_) => lost.fetch_add(1, Ordering::Relaxed),
                    };
                }
            });
        }
    });
    (stalled.into_inner(), lost.into_inner())
}

fn one_flow(front: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(front)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LOST))?;
    let mut message = [7; MESSAGE_BYTES];
    for _ in 0..CLIENT_TURNS {
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
    }
    stream.read_exact(&mut message)
}

/// Stands for all VMs: answers every message with itself.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let listener = std::sync::Arc::new(listener);
    for _ in 0..PARALLEL {
        let listener = std::sync::Arc::clone(&listener);
        std::thread::spawn(move || {
            let mut message = [0; MESSAGE_BYTES];
            while let Ok((mut stream, _)) = listener.accept() {
                while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok()
                {
                }
            }
        });
    }
    address
}

/// The child: serves flows until it is killed.
fn front(executor: &str, listen: &str, vm: &str) {
    let (listen, vm): (SocketAddr, SocketAddr) =
        (listen.parse().expect("an address"), vm.parse().expect("an address"));
    if std::env::var_os("KEYWAY_TRACED").is_some_and(|traced| !traced.is_empty()) {
        ptrace::traceme().expect("nobody else traces it");
        raise(Signal::SIGSTOP).expect("its own signal");
    }
    if executor == GLOMMIO {
        // The same process goes on as that program, traced as it is.
        let turns = [CLIENT_TURNS, VM_TURNS, MESSAGE_BYTES, CPU].map(|number| number.to_string());
        let addresses = [listen.to_string(), vm.to_string()];
        panic!("{}", Command::new(peer()).args(addresses).args(turns).exec());
    }
    bare_flow::serve(listen, vm, CPU).expect("a port that was free");
}

/// System calls of all threads of a front while it serves [`TRACED_FLOWS`] flows, by number.
fn traced(executor: &str, vm: SocketAddr) -> BTreeMap<u64, u64> {
    let front = Front::start(executor, vm, true);
    let child = Pid::from_raw(i32::try_from(front.child.id()).expect("a pid"));
    waitpid(child, None).expect("it stops itself");
    let options = ptrace::Options::PTRACE_O_TRACESYSGOOD
        | ptrace::Options::PTRACE_O_TRACECLONE
        | ptrace::Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(child, options).expect("it is ours");
    ptrace::syscall(child, None).expect("it is ours");
    let address = front.address;
    let load = std::thread::spawn(move || {
        while TcpStream::connect(address).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        // What a start asks for is not counted: this connection parts it from the flows.
        let before = COUNTED.load(Ordering::Relaxed);
        let _figures = flows(address, TRACED_FLOWS);
        before
    });
    let mut calls: Vec<u64> = Vec::new();
    let mut inside = BTreeMap::new();
    while !load.is_finished() {
        // Without a stop to wait for there is a moment to look whether the load is over.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
        let (pid, signal) = match waitpid(Pid::from_raw(-1), Some(flags)) {
            Ok(WaitStatus::PtraceSyscall(pid)) => {
                let is_entry = inside.entry(pid).or_insert(false);
                *is_entry = !*is_entry;
                if *is_entry && let Ok(registers) = ptrace::getregs(pid) {
                    calls.push(call_number(&registers));
                    COUNTED.store(calls.len(), Ordering::Relaxed);
                }
                (pid, None)
            }
            Ok(
                WaitStatus::Stopped(pid, Signal::SIGSTOP | Signal::SIGTRAP)
                | WaitStatus::PtraceEvent(pid, ..),
            ) => (pid, None),
            Ok(WaitStatus::Stopped(pid, signal)) => (pid, Some(signal)),
            Ok(WaitStatus::StillAlive | _) | Err(_) => {
                std::hint::spin_loop();
                continue;
            }
        };
        let _gone = ptrace::syscall(pid, signal);
    }
    let before = load.join().expect("a load that ends");
    let _gone = nix::sys::signal::kill(child, Signal::SIGKILL);
    while waitpid(Pid::from_raw(-1), Some(WaitPidFlag::__WALL)).is_ok() {}
    let mut by_number = BTreeMap::new();
    for number in calls.into_iter().skip(before) {
        *by_number.entry(number).or_default() += 1;
    }
    by_number
}

/// System calls counted so far.
static COUNTED: AtomicUsize = AtomicUsize::new(0);

#[cfg(target_arch = "x86_64")]
fn call_number(registers: &libc::user_regs_struct) -> u64 {
    registers.orig_rax
}

#[cfg(target_arch = "aarch64")]
fn call_number(registers: &libc::user_regs_struct) -> u64 {
    registers.regs[8]
}

fn call_name(number: u64) -> String {
    let known = [
        (libc::SYS_read, "read"),
        (libc::SYS_write, "write"),
        (libc::SYS_close, "close"),
        (libc::SYS_mprotect, "mprotect"),
        (libc::SYS_socket, "socket"),
        (libc::SYS_connect, "connect"),
        (libc::SYS_sendto, "sendto"),
        (libc::SYS_recvfrom, "recvfrom"),
        (libc::SYS_shutdown, "shutdown"),
        (libc::SYS_getsockname, "getsockname"),
        (libc::SYS_setsockopt, "setsockopt"),
        (libc::SYS_getsockopt, "getsockopt"),
        (libc::SYS_fcntl, "fcntl"),
        (libc::SYS_futex, "futex"),
        (libc::SYS_epoll_wait, "epoll_wait"),
        (libc::SYS_epoll_pwait, "epoll_pwait"),
        (libc::SYS_epoll_ctl, "epoll_ctl"),
        (libc::SYS_accept4, "accept4"),
        (libc::SYS_membarrier, "membarrier"),
        (libc::SYS_io_uring_enter, "io_uring_enter"),
        (libc::SYS_timerfd_settime, "timerfd_settime"),
        (libc::SYS_madvise, "madvise"),
    ];
    let found = known.iter().find(|(call, _)| u64::try_from(*call) == Ok(number));
    found.map_or_else(|| format!("call {number}"), |(_, name)| (*name).to_owned())
}
