//! The feed at the size of a large fleet: 1M VMs on 1,000 nodes, whose agents follow. How long a
//! change takes from its commit to the follower, what that costs `control`, what followers that
//! take nothing cost it, and how long 1,000 that were cut off at once take to come back.
//!
//! `cargo bench --bench feed`; with `-- --quick` a fiftieth of it, to see that it runs;
//! `-- --keep DIR` leaves the registry there, `-- --use DIR` takes what an earlier run left. This
//! process is `control`: the registry, its writer, a routing table, the hub and the API over TLS.
//! It starts itself once more for the followers, which are the agents' own client, all of them on
//! two threads. Latency is taken by the one monotonic clock that both processes read: from when the
//! writer tells of what it made durable, until the follower has the change decoded.

#![expect(clippy::disallowed_methods, reason = "it measures, by threads and clocks")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on may end")]
#![expect(clippy::print_stdout, reason = "its figures are its product")]

mod changes;
mod control;
mod followers;
#[path = "../registry/made.rs"]
mod made;
mod measures;

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::changes::{Changer, latencies};
use crate::control::Control;
use crate::followers::Process;
use crate::measures::Measure;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How large everything is.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    vms: u64,
    nodes: u64,
    /// Changes a second.
    rate: u64,
    lasts: Duration,
    /// Followers that stop to read.
    stop: u64,
}

const WHOLE: Size =
    Size { vms: 1_000_000, nodes: 1_000, rate: 1_000, lasts: Duration::from_secs(20), stop: 50 };
const QUICK: Size =
    Size { vms: 20_000, nodes: 100, rate: 200, lasts: Duration::from_secs(3), stop: 5 };

fn main() {
    // Cargo adds `--bench`.
    let mut words: Vec<String> =
        std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let quick = words.first().is_some_and(|word| word == "--quick");
    words.drain(..usize::from(quick));
    let size = if quick { QUICK } else { WHOLE };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    match words[..] {
        ["--fill", dir] => made::fill(&Path::new(dir).join("registry.db"), size.vms, size.nodes),
        ["--follow", dir, port] => followers::run(Path::new(dir), port.parse().unwrap(), size),
        ["--use", dir] => all(Path::new(dir), size),
        ["--keep", dir] => all(&made(Path::new(dir), quick), size),
        _ => {
            let name = format!("keyway-bench-feed-{}", std::process::id());
            let scratch = Scratch(std::env::temp_dir().join(name));
            all(&made(&scratch.0, quick), size);
        }
    }
}

/// This program once more.
pub(crate) fn again(quick: bool) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    if quick {
        command.arg("--quick");
    }
    command
}

fn made(dir: &Path, quick: bool) -> PathBuf {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).unwrap();
    let ended = again(quick).arg("--fill").arg(dir).status().unwrap();
    assert!(ended.success(), "{ended}");
    dir.to_owned()
}

fn all(dir: &Path, size: Size) {
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    println!("load {}", load.split_whitespace().next().unwrap_or_default());
    let control = Control::start(dir);
    println!("in service: {} MB", measures::resident_kb() >> 10);
    let mut changer = Changer::new(&control, size);

    let before = Measure::begin();
    changer.run(size.rate, size.lasts / 2);
    println!("{} changes a second, nobody follows: {}", size.rate, before.end());

    let resident = measures::resident_kb();
    let cold = Measure::begin();
    let mut followers = Process::start(dir, control.port(), size);
    let took = followers.ready();
    println!("{} begin with everything: {took}; {}", size.nodes, cold.end());
    let grown = measures::resident_kb().saturating_sub(resident);
    println!("control has grown by {} MB: audiences of {} VMs", grown >> 10, size.vms);

    let resident = measures::resident_kb();
    let followed = Measure::begin();
    let made = changer.run(size.rate, size.lasts);
    let cost = followed.end();
    followers.reach(changer.once());
    let took = latencies(&made, &control.commits(), &followers.dump());
    println!("{} changes a second, {} follow: {cost}", size.rate, size.nodes);
    println!("from commit to follower: {took}");
    println!("resident {} MB before, {} after", resident >> 10, measures::resident_kb() >> 10);

    stopped(&control, &mut followers, &mut changer, size);
    for round in 1..=3 {
        storm(&control, &mut followers, &mut changer, (size, round));
    }
    let cold = Measure::begin();
    control.reread();
    let came = followers.reach(changer.once());
    println!("the registry is read anew, all begin anew: {came}; {}", cold.end());
    println!("resident {} MB at the end", measures::resident_kb() >> 10);
}

/// Followers that do not read while much of theirs changes.
fn stopped(control: &Control, followers: &mut Process, changer: &mut Changer<'_>, size: Size) {
    let resident = measures::resident_kb();
    let cost = Measure::begin();
    followers.pause();
    let (began, mut count, mut most) = (measures::now_ns(), 0, 0);
    let full = usize::try_from(size.nodes - size.stop).unwrap();
    while control.followers() > full && measures::now_ns() - began < 120_000_000_000 {
        count += changer.fat(size.stop);
        most = most.max(measures::resident_kb());
    }
    let seconds = (measures::now_ns() - began) / 1_000_000_000;
    println!(
        "{} do not read while {count} large changes come: {} follow after {seconds} s, {}",
        size.stop,
        control.followers(),
        cost.end()
    );
    println!(
        "resident {} MB before, {} at most, {} after",
        resident >> 10,
        most >> 10,
        measures::resident_kb() >> 10
    );
    followers.resume();
    println!("they read again: {}", followers.reach(changer.once()));
}

/// All connections are cut at once, while changes come.
fn storm(
    control: &Control,
    followers: &mut Process,
    changer: &mut Changer<'_>,
    (size, round): (Size, u32),
) {
    let cost = Measure::begin();
    followers.cut();
    let revision = changer.once();
    let (came, made) = std::thread::scope(|scope| {
        let came = scope.spawn(|| followers.reach(revision));
        let made = changer.run(size.rate, size.lasts / 4);
        (came.join().unwrap(), made)
    });
    let cost = cost.end();
    followers.reach(changer.once());
    let took = latencies(&made, &control.commits(), &followers.dump());
    println!("storm {round}: {came}; {cost}\n  from commit to follower meanwhile: {took}");
}

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
