//! Time, memory and CPU.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::time::{ClockId, clock_gettime};

/// By the clock that all processes of this machine share.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    u64::try_from(Duration::from(now).as_nanos()).unwrap()
}

/// CPU time of this process, in its threads that have ended too.
fn cpu_us() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
    u64::try_from(Duration::from(now).as_micros()).unwrap()
}

pub(crate) fn resident_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// CPU time of the threads that run now, by their names.
fn threads_us() -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).ok();
        let (Some(name), Some(stat)) = (read("comm"), read("schedstat")) else { continue };
        let ns: u64 = stat.split(' ').next().unwrap().parse().unwrap();
        *all.entry(name.trim().to_owned()).or_default() += ns / 1000;
    }
    all
}

/// What something costs this process.
pub(crate) struct Measure {
    began: Instant,
    cpu_us: u64,
    threads: BTreeMap<String, u64>,
}

impl Measure {
    pub(crate) fn begin() -> Self {
        Self { began: Instant::now(), cpu_us: cpu_us(), threads: threads_us() }
    }

    /// In milliseconds of CPU, and those a second.
    pub(crate) fn end(&self) -> String {
        let cpu_ms = (cpu_us() - self.cpu_us) / 1000;
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap().max(1);
        let now = threads_us();
        let of = |name: &str| {
            let at = |all: &BTreeMap<String, u64>| all.get(name).copied().unwrap_or_default();
            at(&now).saturating_sub(at(&self.threads)) / ms
        };
        let (api, registry, wait) = (of("api"), of("registry"), of("api-wait"));
        let a_second = cpu_ms * 1000 / ms;
        format!(
            "CPU {cpu_ms} ms, {a_second} ms/s (api {api}, its waiting threads {wait}, writer {registry})"
        )
    }
}

pub(crate) struct Times(Histogram<u64>);

impl Times {
    pub(crate) fn new() -> Self {
        Self(Histogram::new(3).unwrap())
    }

    pub(crate) fn add_ns(&mut self, took: u64) {
        self.0.record((took / 1000).max(1)).unwrap();
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |us: u64| f64::from(u32::try_from(us).unwrap()) / 1e3;
        let at = |quantile| ms(self.0.value_at_quantile(quantile));
        let (p50, p99, max) = (at(0.5), at(0.99), ms(self.0.max()));
        write!(f, "p50 {p50:.1} ms, p99 {p99:.1}, max {max:.1}, {} changes", self.0.len())
    }
}
