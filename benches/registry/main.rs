//! The registry at the size of a large edge host, 1M VMs of 200k users and 20k teams at 1,000
//! addresses: a start from the store and from the saved map, what it takes in memory, and how long
//! a change takes to be a route and a DNS answer.
//!
//! `cargo bench --bench registry`. Each part runs in a process of its own, so that none finds the
//! memory of another. The state directory stands in the temporary directory (`TMPDIR=...` for
//! another disk) and is removed; `-- --keep DIR` makes it there and leaves it, `-- --use DIR` takes
//! what an earlier run left. A word behind that runs one part only: `split`, `store`, `saved`,
//! `changes` or `served`. Wall-clock time: a commit waits for the disk, whose share is printed.

#![expect(clippy::disallowed_methods, reason = "it measures, by threads and clocks")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on may end")]
#![expect(clippy::print_stdout, reason = "its figures are its product")]

mod change;
mod made;
mod served;
mod start;

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hdrhistogram::Histogram;
use nix::time::{ClockId, clock_gettime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const VMS: u64 = 1_000_000;
const STORE: &str = "registry.db";
const SAVED: &str = "routes.snapshot";
const PARTS: [&str; 5] = ["split", "store", "saved", "changes", "served"];

fn main() {
    // Cargo adds `--bench`.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["--part", part, dir] => run(part, Path::new(dir)),
        ["--keep", dir] => all(&made(Path::new(dir)), &PARTS),
        ["--use", dir] => all(Path::new(dir), &PARTS),
        ["--use", dir, part] => all(Path::new(dir), &[part]),
        _ => {
            let name = format!("keyway-bench-registry-{}", std::process::id());
            let scratch = Scratch(std::env::temp_dir().join(name));
            all(&made(&scratch.0), &PARTS);
        }
    }
}

fn made(dir: &Path) -> PathBuf {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).unwrap();
    part("fill", dir);
    dir.to_owned()
}

fn all(dir: &Path, parts: &[&str]) {
    for name in parts {
        part(name, dir);
    }
}

/// Runs a part in a process of its own.
fn part(name: &str, dir: &Path) {
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    println!("-- {name}; load {}", load.split_whitespace().next().unwrap_or_default());
    let this = std::env::current_exe().unwrap();
    let ended = Command::new(this).args(["--part", name]).arg(dir).status().unwrap();
    assert!(ended.success(), "{name}: {ended}");
}

fn run(part: &str, dir: &Path) {
    match part {
        "fill" => made::fill(&dir.join(STORE), VMS, 0),
        "split" => start::split(&dir.join(STORE)),
        "store" => start::from_store(dir),
        "saved" => start::from_saved(&dir.join(SAVED)),
        "changes" => change::changes(dir),
        _ => served::served(dir),
    }
}

/// A figure of `/proc/self/status`.
fn status_kb(key: &str) -> u64 {
    kb_in(&fs::read_to_string("/proc/self/status").unwrap(), key)
}

fn kb_in(status: &str, key: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// CPU time of this process, in its threads that have ended too.
fn cpu_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
    u64::try_from(Duration::from(now).as_millis()).unwrap()
}

fn resident_kb() -> u64 {
    status_kb("VmRSS:")
}

struct Times(Histogram<u64>);

impl Times {
    fn new() -> Self {
        Self(Histogram::new(3).unwrap())
    }

    fn add(&mut self, took: Duration) {
        self.0.record(u64::try_from(took.as_micros()).unwrap().max(1)).unwrap();
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |us: u64| f64::from(u32::try_from(us).unwrap()) / 1e3;
        let at = |quantile| ms(self.0.value_at_quantile(quantile));
        let (p50, p99, max) = (at(0.5), at(0.99), ms(self.0.max()));
        write!(f, "p50 {p50:.2} ms, p99 {p99:.2}, max {max:.2}, {} times", self.0.len())
    }
}

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
