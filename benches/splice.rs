//! What it costs to carry a session whose keys are elsewhere: the pump's splice beside a bare
//! splice loop and a plain copy loop. `cargo bench --bench splice`.
//!
//! CPU time of the carrying thread alone, by the kernel's own account: seconds a GB in bulk, and
//! microseconds for a small message there and back. The loops block and know one direction each;
//! the pump waits with epoll and is fair. All three take turns in every round, between the same two
//! peers on loopback; minimum and median of [`ROUNDS`] rounds.
#![expect(clippy::disallowed_methods, reason = "it measures, by threads and clocks")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]
#![expect(clippy::expect_used, reason = "a benchmark that cannot measure must end")]
#![expect(clippy::cast_precision_loss, reason = "figures are printed with three digits")]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, thread};

use keyway::edge::clock;
use keyway::edge::pump::{
    self, Carriage, ClientAlive, PreferGcm, Session, Settings, Splice, SplicedLeg,
};
use keyway::metrics::Counters;
use nix::fcntl::{SpliceFFlags, splice};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, gettid, pipe};

const ROUNDS: usize = 9;
/// Bytes of a round in bulk.
const BULK: usize = 1 << 30;
/// Messages there and back of a round.
const ECHOES: u32 = 20_000;
/// Of a message: a key that was pressed, as SSH packs it.
const MESSAGE: usize = 36;
/// Bytes a loop takes at a time, and the pump too.
const BITE: usize = 128 << 10;
/// CPU of whoever carries, and of the peers.
const CPUS: [usize; 2] = [0, 1];

/// Who carries.
#[derive(Clone, Copy)]
enum Way {
    Pump,
    Splice,
    Copy,
}

const WAYS: [(&str, Way); 3] =
    [("pump", Way::Pump), ("bare splice", Way::Splice), ("bare copy", Way::Copy)];

fn main() {
    pin(CPUS[1]);
    let mut figures = WAYS.map(|_| (Vec::new(), Vec::new()));
    for _ in 0..ROUNDS {
        for ((_, way), (bulks, echoes)) in WAYS.iter().zip(&mut figures) {
            bulks.push(carried(*way, bulk) * 1e9 / BULK as f64);
            echoes.push(carried(*way, echo) * 1e6 / f64::from(ECHOES));
        }
    }
    println!("{:<12} {:>22} {:>22}", "", "CPU s/GB min/median", "CPU us/echo min/median");
    for ((name, _), (bulks, echoes)) in WAYS.iter().zip(&mut figures) {
        let [bulk, echo] = [bulks, echoes].map(|all| {
            all.sort_by(f64::total_cmp);
            format!("{:.3} / {:.3}", all[0], all[all.len() / 2])
        });
        println!("{name:<12} {bulk:>22} {echo:>22}");
    }
}

/// Sends in bulk from the second peer to the first.
fn bulk(client: TcpStream, vm: TcpStream) {
    let source = thread::spawn(move || {
        let bytes = vec![7; BITE];
        for _ in 0..BULK / BITE {
            (&vm).write_all(&bytes).expect("carried");
        }
        vm.shutdown(Shutdown::Write).expect("shutdown");
        vm
    });
    let (mut room, mut got) = (vec![0; 2 * BITE], 0);
    loop {
        match (&client).read(&mut room).expect("carried") {
            0 => break,
            count => got += count,
        }
    }
    assert_eq!(got, BULK);
    drop((client, source.join()));
}

fn echo(client: TcpStream, vm: TcpStream) {
    let far = thread::spawn(move || {
        let mut message = [0; MESSAGE];
        while (&vm).read_exact(&mut message).is_ok() {
            (&vm).write_all(&message).expect("carried");
        }
    });
    let mut message = [1; MESSAGE];
    for _ in 0..ECHOES {
        (&client).write_all(&message).expect("carried");
        (&client).read_exact(&mut message).expect("carried");
    }
    drop(client);
    far.join().expect("an echo");
}

/// Has `traffic` carried; the CPU seconds of whoever did.
fn carried(way: Way, traffic: fn(TcpStream, TcpStream)) -> f64 {
    let (client, near) = pair();
    let (vm, far) = pair();
    match way {
        Way::Pump => {
            let settings = Settings {
                cpu: Some(CPUS[0]),
                prefer_gcm: PreferGcm::Never,
                client_alive: ClientAlive { interval: Duration::from_mins(5), count_max: 12 },
            };
            let counters = Arc::new(Counters::default());
            let (handle, thread) = pump::spawn(
                "carrier".into(),
                settings,
                counters,
                |(), cause| cause.to_string(),
                |(), _| {},
            )
            .expect("a pump");
            let leg = |socket: TcpStream| {
                socket.set_nonblocking(true).expect("option");
                SplicedLeg { fd: socket.into(), leftover: Vec::new() }
            };
            let carriage = Carriage::Splice(Box::new(Splice::new(leg(near), leg(far))));
            let session = Session { carriage, info: (), started_ms: clock::monotonic_ms() };
            assert!(handle.carry(session).is_ok(), "a pump that runs");
            traffic(client, vm);
            let cpu = cpu_of_carriers();
            handle.stop();
            thread.join().expect("a pump");
            cpu
        }
        Way::Splice => bare(traffic, [client, vm], [near, far], splice_all),
        Way::Copy => bare(traffic, [client, vm], [near, far], copy_all),
    }
}

/// Has two threads carry, one for each direction.
fn bare(
    traffic: fn(TcpStream, TcpStream),
    [client, vm]: [TcpStream; 2],
    [near, far]: [TcpStream; 2],
    carry: fn(&TcpStream, &TcpStream),
) -> f64 {
    let carrier = |from: &TcpStream, to: &TcpStream| {
        let (from, to) = (from.try_clone().expect("a clone"), to.try_clone().expect("a clone"));
        let run = move || {
            pin(CPUS[0]);
            carry(&from, &to);
            let _gone = to.shutdown(Shutdown::Write);
            cpu_of(&format!("/proc/self/task/{}", gettid()))
        };
        thread::Builder::new().name("carrier".into()).spawn(run).expect("a thread")
    };
    let carriers = [carrier(&near, &far), carrier(&far, &near)];
    drop((near, far));
    traffic(client, vm);
    carriers.into_iter().map(|carrier| carrier.join().expect("a carrier")).sum()
}

fn splice_all(from: &TcpStream, to: &TcpStream) {
    let (out, into) = pipe().expect("a pipe");
    let flags = SpliceFFlags::empty();
    loop {
        let mut left = match splice(from.as_fd(), None, &into, None, BITE, flags) {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        while left > 0 {
            match splice(&out, None, to.as_fd(), None, left, flags) {
                Ok(count) => left -= count,
                Err(_) => return,
            }
        }
    }
}

fn copy_all(mut from: &TcpStream, mut to: &TcpStream) {
    let mut room = vec![0; BITE];
    while let Ok(count @ 1..) = from.read(&mut room) {
        if to.write_all(&room[..count]).is_err() {
            return;
        }
    }
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let near = TcpStream::connect(listener.local_addr().expect("an address")).expect("connects");
    let (far, _) = listener.accept().expect("accepts");
    for socket in [&near, &far] {
        socket.set_nodelay(true).expect("option");
    }
    (near, far)
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)).expect("two CPUs");
}

/// CPU seconds of all threads called so.
fn cpu_of_carriers() -> f64 {
    let threads = fs::read_dir("/proc/self/task").expect("Linux");
    let paths = threads.map(|thread| thread.expect("Linux").path().display().to_string());
    let is_carrier = |path: &String| {
        fs::read_to_string(format!("{path}/comm")).is_ok_and(|name| name.trim() == "carrier")
    };
    paths.filter(is_carrier).map(|path| cpu_of(&path)).sum()
}

/// CPU seconds of a thread (`Documentation/scheduler/sched-stats.rst`). The kernel brings the
/// figure up to date at every tick and whenever the thread lets go of its CPU.
fn cpu_of(path: &str) -> f64 {
    thread::yield_now();
    let line = fs::read_to_string(format!("{path}/schedstat")).expect("CONFIG_SCHED_INFO");
    let first = line.split(' ').next().and_then(|first| first.parse::<u64>().ok());
    first.expect("a number") as f64 / 1e9
}
