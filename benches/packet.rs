//! What packet protection costs: nanoseconds of CPU per packet and GB/s of payload, per suite and
//! size, and what one idle direction holds in memory. `cargo bench --bench packet`.
//!
//! CPU time of this thread alone, by the kernel's own account, so that a busy machine moves the
//! figures little. Each figure is the minimum and the median of [`ROUNDS`] rounds, taken suite
//! by suite in turn.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]
#![expect(clippy::expect_used, reason = "a benchmark that cannot measure must end")]
#![expect(clippy::cast_precision_loss, reason = "figures are printed with three digits")]

use std::hint::black_box;

use keyway::ssh::cipher::{Cipher, Keys, Mac, Suite};
use keyway::ssh::entropy::{Entropy, SystemEntropy};
use keyway::ssh::packet::{Opener, Sealer};

const ROUNDS: usize = 25;
const PAYLOADS: [usize; 3] = [32, 1024, 32 * 1024];
/// Packets of one round together carry about this much, so that a round is far above the
/// clock's resolution.
const ROUND_BYTES: usize = 1 << 20;
const ROUND_PACKETS_MAX: usize = 2048;
const LIMIT: u32 = 1 << 20;

/// CPU nanoseconds of this thread so far (`Documentation/scheduler/sched-stats.rst`). The
/// kernel brings the figure up to date at every tick and whenever the thread lets go of its
/// CPU: so it lets go.
fn cpu_ns() -> u64 {
    std::thread::yield_now();
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|line| line.split(' ').next().and_then(|first| first.parse().ok()))
        .expect("a kernel with CONFIG_SCHED_INFO")
}

fn suites() -> Vec<Suite> {
    let pairs = [
        (Cipher::Aes128Gcm, None),
        (Cipher::Aes256Gcm, None),
        (Cipher::Chacha20Poly1305, None),
        (Cipher::Aes128Ctr, Some(Mac::Sha256Etm)),
        (Cipher::Aes192Ctr, Some(Mac::Sha256Etm)),
        (Cipher::Aes256Ctr, Some(Mac::Sha256Etm)),
        (Cipher::Aes128Ctr, Some(Mac::Sha512Etm)),
        (Cipher::Aes256Ctr, Some(Mac::Sha512Etm)),
        (Cipher::Aes128Ctr, Some(Mac::Sha256)),
        (Cipher::Aes256Ctr, Some(Mac::Sha256)),
        (Cipher::Aes256Ctr, Some(Mac::Sha512)),
    ];
    pairs.into_iter().filter_map(|(cipher, mac)| Suite::new(cipher, mac)).collect()
}

fn name(suite: Suite) -> String {
    let cipher = suite.cipher.name().trim_end_matches("@openssh.com");
    match suite.mac {
        None => cipher.to_owned(),
        Some(mac) => format!("{cipher}+{}", mac.name().trim_end_matches("@openssh.com")),
    }
}

fn keys(suite: Suite) -> Keys {
    let mut keys = Keys::zero(suite);
    for (part, byte) in keys.parts_mut().into_iter().zip([0, 7, 9]) {
        part.fill(byte);
    }
    keys
}

/// What two readings of the clock with nothing between them are apart.
fn clock_ns() -> u64 {
    let apart = || {
        let start = cpu_ns();
        cpu_ns().saturating_sub(start)
    };
    std::iter::repeat_with(apart).take(200).min().unwrap_or(0)
}

/// One round of each measurement, in CPU ns per packet.
struct Round {
    seal: f64,
    open: f64,
    relay_in_place: f64,
    relay_copy: f64,
}

fn round(suite: Suite, len: usize, clock: u64, entropy: &mut dyn Entropy) -> Round {
    let payload = vec![0x61; len];
    let packets = (ROUND_BYTES / len).min(ROUND_PACKETS_MAX);
    let per_packet = |from: u64, to: u64| to.saturating_sub(from + clock) as f64 / packets as f64;

    let mut sealer = Sealer::from_keys(keys(suite), 0);
    let mut wire = Vec::with_capacity(packets * (len + 128));
    // The first packet expands the keys; no round pays for it.
    let mut ends = vec![0];
    for _ in 0..packets {
        sealer.seal(&payload, entropy, &mut wire).expect("seal");
        ends.push(wire.len());
    }
    // Its pages are there already: a page fault costs more than a packet.
    let mut again = wire.clone();
    again.clear();
    let start = cpu_ns();
    for _ in 0..packets {
        sealer.seal(black_box(&payload), entropy, &mut again).expect("seal");
    }
    let seal = per_packet(start, cpu_ns());

    let open = {
        let mut input = wire.clone();
        let mut opener = Opener::from_keys(keys(suite), 0);
        let start = cpu_ns();
        for bounds in ends.windows(2) {
            let packet = &mut input[bounds[0]..bounds[1]];
            black_box(opener.open(packet, LIMIT).expect("open"));
        }
        per_packet(start, cpu_ns())
    };
    let relay_in_place = {
        let mut input = wire.clone();
        let (mut opener, mut onward) =
            (Opener::from_keys(keys(suite), 0), Sealer::from_keys(keys(suite), 0));
        let start = cpu_ns();
        for bounds in ends.windows(2) {
            let packet = &mut input[bounds[0]..bounds[1]];
            opener.open(packet, LIMIT).expect("open");
            assert!(onward.reseal(packet).expect("reseal"), "in place");
        }
        per_packet(start, cpu_ns())
    };
    let relay_copy = {
        let mut input = wire.clone();
        again.clear();
        let (mut opener, mut onward) =
            (Opener::from_keys(keys(suite), 0), Sealer::from_keys(keys(suite), 0));
        let start = cpu_ns();
        for bounds in ends.windows(2) {
            let packet = &mut input[bounds[0]..bounds[1]];
            let found = opener.open(packet, LIMIT).expect("open").expect("a whole packet");
            onward.seal(&packet[found.payload], entropy, &mut again).expect("seal");
        }
        per_packet(start, cpu_ns())
    };
    Round { seal, open, relay_in_place, relay_copy }
}

fn main() {
    // Under `cargo test --benches` only whether it runs matters.
    let rounds = if std::env::args().any(|arg| arg == "--bench") { ROUNDS } else { 1 };
    let mut entropy = SystemEntropy::default();
    let clock = clock_ns();
    println!(
        "{:<28} {:>6}  {:>21}  {:>21}  {:>21}  {:>21}",
        "suite", "bytes", "seal", "open", "open+reseal in place", "open+seal copied"
    );
    println!("{:36}  {}", "", "ns min   med   GB/s  ".repeat(4));
    for suite in suites() {
        for len in PAYLOADS {
            let done: Vec<Round> =
                (0..rounds).map(|_| round(suite, len, clock, &mut entropy)).collect();
            let column = |pick: fn(&Round) -> f64| {
                let mut ns: Vec<f64> = done.iter().map(pick).collect();
                ns.sort_by(f64::total_cmp);
                let (min, median) = (ns[0], ns[ns.len() / 2]);
                format!("{min:>7.0} {median:>6.0} {:>6.2}", len as f64 / min)
            };
            println!(
                "{:<28} {len:>6}  {}  {}  {}  {}",
                name(suite),
                column(|round| round.seal),
                column(|round| round.open),
                column(|round| round.relay_in_place),
                column(|round| round.relay_copy),
            );
        }
    }
    println!();
    memory(&mut entropy);
}

/// Growth of the resident set per direction, the struct itself included: awake, with expanded
/// keys after a packet, and resting. Nothing is freed in between, so that no figure profits
/// from the one before.
fn memory(entropy: &mut dyn Entropy) {
    let (opener, sealer) = (size_of::<Opener>(), size_of::<Sealer>());
    println!("size_of: Opener {opener} bytes, Sealer {sealer} bytes; bytes held per direction:");
    println!("{:<28} {:>14} {:>14} {:>8}", "suite", "sealer", "opener", "resting");
    for suite in suites() {
        let mut wire = Vec::with_capacity(1 << 10);
        let (awake_sealer, sealers) = growth(|| {
            let mut sealer = Sealer::from_keys(keys(suite), 0);
            wire.clear();
            sealer.seal(b"x", entropy, &mut wire).expect("seal");
            sealer
        });
        let mut packet = Vec::with_capacity(1 << 10);
        let (awake_opener, openers) = growth(|| {
            let mut opener = Opener::from_keys(keys(suite), 0);
            packet.clone_from(&wire);
            opener.open(&mut packet, LIMIT).expect("open");
            opener
        });
        let (resting, rested) = growth(|| Sealer::from_keys(keys(suite), 0));
        println!("{:<28} {awake_sealer:>14} {awake_opener:>14} {resting:>8}", name(suite));
        std::mem::forget((sealers, openers, rested));
    }
}

fn growth<T>(make: impl FnMut() -> T) -> (usize, Vec<T>) {
    const COUNT: usize = 2_000;
    let base = resident();
    let held: Vec<T> = std::iter::repeat_with(make).take(COUNT).collect();
    (resident().saturating_sub(base) / COUNT, held)
}

/// Bytes of the resident set.
fn resident() -> usize {
    std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|line| line.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()))
        .expect("statm")
        * 4096
}
