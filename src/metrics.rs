//! What the data plane counts, and how a scrape reads it.
//!
//! Every thread of the data plane (the door and the pump of each shard) owns one [`Counters`]: it
//! alone writes, by a relaxed load and a relaxed store, so counting is two plain moves with no
//! locked instruction and no cache line that another writer touches. [`Registry::render`] reads
//! them all and adds them up, as text format 0.0.4. A scrape sees each number whole but not all at
//! one instant; sums and counts of one histogram are made to agree.
//!
//! Labels are our own closed sets, never peer text. Combinations that never happened are left out.
//!
//! Source: Prometheus exposition formats, text 0.0.4; "Metric and label naming".

use std::fmt::{self, Write as _};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use hdrhistogram::Histogram;

use crate::ended::{Cause, Ended, Side, Stage, labelled};
use crate::log;

mod process;

/// One writer thread's counters. Aligned to two cache lines, because processors
/// fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    accepted: Tally,
    sessions_started: Tally,
    sessions_ended: Tally,
    half_open: Tally,
    dialling: Tally,
    panics: Tally,
    rekeys: Tally,
    bytes_up: Tally,
    bytes_down: Tally,
    passed: [Tally; Passage::ALL.len()],
    ends: Ends,
    stages: [Timings; LoginStage::ALL.len()],
}

/// A login's stages, timed by the door.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LoginStage {
    /// From the accept to the end of the client's key exchange.
    Exchange,
    /// From there to a proved key.
    Authentication,
    /// Connecting to the VM.
    Dial,
    /// The VM leg's key exchange.
    VmExchange,
    /// From there to the VM's yes.
    VmLogin,
    /// From the accept to the session on the pump.
    Total,
}

impl LoginStage {
    /// Every stage, in the order of declaration.
    pub const ALL: [Self; 6] = [
        Self::Exchange,
        Self::Authentication,
        Self::Dial,
        Self::VmExchange,
        Self::VmLogin,
        Self::Total,
    ];

    /// The metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exchange => "exchange",
            Self::Authentication => "authentication",
            Self::Dial => "dial",
            Self::VmExchange => "vm_exchange",
            Self::VmLogin => "vm_login",
            Self::Total => "total",
        }
    }
}

/// Which way relayed bytes went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// From the client to the VM.
    Up,
    /// From the VM to the client.
    Down,
}

labelled! {
    /// How bytes got across in sessions whose keys are elsewhere.
    pub enum Passage {
        /// From socket to socket, without a copy.
        Spliced = "spliced",
        /// Copied: the outgoing socket took less of a splice than it had room for.
        Stuck = "stuck",
        /// Copied: there was no pipe.
        NoPipe = "no_pipe",
    }
}

impl Counters {
    /// A connection was accepted.
    pub fn accepted(&self) {
        self.accepted.add(1);
    }

    /// A session went to the pump.
    pub fn session_started(&self) {
        self.sessions_started.add(1);
    }

    /// A session left the pump.
    pub fn session_ended(&self) {
        self.sessions_ended.add(1);
    }

    /// A connection ended. Each connection says so exactly once, on whichever thread had it last.
    pub fn ended(&self, ended: Ended) {
        self.ends.at(ended).add(1);
    }

    /// `count` bytes of SSH packets were carried.
    pub fn bytes(&self, direction: Direction, count: u64) {
        match direction {
            Direction::Up => self.bytes_up.add(count),
            Direction::Down => self.bytes_down.add(count),
        }
    }

    /// `count` bytes of a session whose keys are elsewhere got across like this.
    pub fn passed(&self, passage: Passage, count: u64) {
        self.passed[passage as usize].add(count);
    }

    /// A login took `micros` microseconds for `stage`.
    pub fn stage(&self, stage: LoginStage, micros: u64) {
        self.stages[stage as usize].record(micros);
    }

    /// A panic was contained to the connection that caused it.
    pub fn panicked(&self) {
        self.panics.add(1);
    }

    /// A key exchange after the first was completed, on either leg.
    pub fn rekeyed(&self) {
        self.rekeys.add(1);
    }

    /// Now so many connections with a seat have no session yet here.
    pub fn dialling(&self, now: u64) {
        self.dialling.set(now);
    }

    /// Now so many connections are half-open here.
    pub fn half_open(&self, now: u64) {
        self.half_open.set(now);
    }
}

/// A number with one writer and any number of readers.
#[derive(Debug)]
struct Tally(AtomicU64);

impl Tally {
    const fn zero() -> Self {
        Self(AtomicU64::new(0))
    }

    fn add(&self, count: u64) {
        // Not `fetch_add`: with one writer nothing can come between, and a locked one costs
        // 15 times as much.
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    fn set(&self, now: u64) {
        self.0.store(now, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::zero()
    }
}

/// A tally for every combination of side, stage and cause: 8 kB.
#[derive(Debug)]
struct Ends([Tally; Side::ALL.len() * Stage::ALL.len() * Cause::ALL.len()]);

impl Default for Ends {
    fn default() -> Self {
        Self([const { Tally::zero() }; _])
    }
}

impl Ends {
    fn at(&self, ended: Ended) -> &Tally {
        let row = ended.side as usize * Stage::ALL.len() + ended.stage as usize;
        &self.0[row * Cause::ALL.len() + ended.cause as usize]
    }
}

/// Bits of a duration that are kept: two durations in one bucket differ by less than 1/16.
const KEPT_BITS: u32 = 4;

/// Durations from 2^27 us on (134 s, above every deadline of a login) count as that.
const CEILING_BITS: u32 = 27;

/// One bucket for each microsecond below 16, then 16 for each doubling.
const BUCKETS: usize = ((CEILING_BITS - KEPT_BITS + 1) as usize) << KEPT_BITS;

/// Durations of one stage, in log-linear buckets, 3 kB. Recording is a shift and two tallies (7
/// ns); the `hdrhistogram` is made of it at the scrape, because its own recorder is neither
/// lock-free for a reader nor as cheap.
#[derive(Debug)]
struct Timings {
    buckets: [Tally; BUCKETS],
    sum_us: Tally,
}

impl Default for Timings {
    fn default() -> Self {
        Self { buckets: [const { Tally::zero() }; _], sum_us: Tally::zero() }
    }
}

impl Timings {
    fn record(&self, micros: u64) {
        let micros = micros.min((1 << CEILING_BITS) - 1);
        self.buckets[bucket_of(micros)].add(1);
        self.sum_us.add(micros);
    }
}

/// The bucket of a duration below the ceiling.
fn bucket_of(micros: u64) -> usize {
    let doublings = (u64::BITS - micros.leading_zeros()).saturating_sub(KEPT_BITS + 1);
    // Above 16 the kept bits still have their top bit set, which is what moves on by one row
    // for each doubling.
    ((doublings as usize) << KEPT_BITS)
        + usize::try_from(micros >> doublings).unwrap_or(BUCKETS - 1)
}

/// The largest duration in a bucket, in microseconds.
fn upper_us(bucket: usize) -> u64 {
    let row = (bucket >> KEPT_BITS).saturating_sub(1);
    let kept = (bucket - (row << KEPT_BITS)) as u64;
    ((kept + 1) << row) - 1
}

/// What the routing table holds, for the gauges.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Inventory {
    /// Users.
    pub users: u64,
    /// Keys of users.
    pub keys: u64,
    /// VMs.
    pub vms: u64,
    /// Pool addresses.
    pub addresses: u64,
    /// {principal, address} pairs that lead to a VM.
    pub routes: u64,
}

/// All counters of this process, and how to write them down.
pub struct Registry {
    counters: Mutex<Vec<Arc<Counters>>>,
    inventory: Box<dyn Fn() -> Inventory + Send + Sync>,
    started_unix_s: u64,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("started_unix_s", &self.started_unix_s)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// `inventory` is called at each scrape, on the scraping thread; `started_unix_s` is when
    /// this process began.
    pub fn new(
        started_unix_s: u64,
        inventory: impl Fn() -> Inventory + Send + Sync + 'static,
    ) -> Self {
        Self { counters: Mutex::default(), inventory: Box::new(inventory), started_unix_s }
    }

    /// Counters for one more writer thread. They count in every later scrape, also when
    /// the thread is gone.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        let counters = Arc::new(Counters::default());
        self.all().push(Arc::clone(&counters));
        counters
    }

    /// Sessions carried to a VM now.
    pub fn sessions(&self) -> u64 {
        live_sessions(&self.all())
    }

    /// Connections accepted and not authenticated yet.
    pub fn half_open(&self) -> u64 {
        sum(&self.all(), |c| &c.half_open)
    }

    /// What the routing table holds.
    pub fn inventory(&self) -> Inventory {
        (self.inventory)()
    }

    /// The scrape: text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let all = self.all().clone();
        let mut page = Page::default();
        page.process(self.started_unix_s);
        page.connections(&all);
        page.sessions(&all);
        page.stages(&all);
        page.inventory(self.inventory());
        page.log();
        page.text
    }

    fn all(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Counters>>> {
        // Nothing panics while it is held, and a list of counters cannot be half pushed.
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The text of a scrape as it grows.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    /// Opens a metric family.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.text.write_fmt(line);
        self.text.push('\n');
    }

    /// A family of one number.
    fn single(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.family(name, kind, help);
        self.line(format_args!("{name} {value}"));
    }

    fn process(&mut self, started_unix_s: u64) {
        self.family("keyway_build_info", "gauge", "Always 1; the labels say what runs.");
        self.line(format_args!("keyway_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")));
        self.single(
            "process_start_time_seconds",
            "gauge",
            "When this process began, in seconds since 1970.",
            started_unix_s,
        );
        if let Some(bytes) = process::resident_bytes() {
            self.single("process_resident_memory_bytes", "gauge", "Memory in RAM.", bytes);
        }
        if let Some(count) = process::open_fds() {
            self.single("process_open_fds", "gauge", "Open file descriptors.", count);
        }
        if let Some(count) = process::fds_max() {
            self.single("process_max_fds", "gauge", "Most file descriptors it may open.", count);
        }
    }

    fn connections(&mut self, all: &[Arc<Counters>]) {
        self.single(
            "keyway_connections_accepted_total",
            "counter",
            "Connections accepted.",
            sum(all, |c| &c.accepted),
        );
        self.single(
            "keyway_connections_half_open",
            "gauge",
            "Connections accepted and not authenticated yet.",
            sum(all, |c| &c.half_open),
        );
        let name = "keyway_connections_ended_total";
        self.family(name, "counter", "Connections ended: by whom, how far they had come, and why.");
        for &side in Side::ALL {
            for &stage in Stage::ALL {
                for &cause in Cause::ALL {
                    let count = sum(all, |c| c.ends.at(Ended { side, stage, cause }));
                    if count > 0 {
                        self.line(format_args!(
                            "{name}{{side=\"{side}\",stage=\"{stage}\",cause=\"{cause}\"}} {count}"
                        ));
                    }
                }
            }
        }
        self.single(
            "keyway_panics_total",
            "counter",
            "Bugs that ended one connection each. Should stay 0.",
            sum(all, |c| &c.panics),
        );
    }

    fn sessions(&mut self, all: &[Arc<Counters>]) {
        let live = live_sessions(all);
        let started = sum(all, |c| &c.sessions_started);
        self.single(
            "keyway_sessions_started_total",
            "counter",
            "Sessions carried to a VM since the start.",
            started,
        );
        self.single("keyway_sessions", "gauge", "Sessions carried to a VM now.", live);
        self.single(
            "keyway_sessions_dialling",
            "gauge",
            "Connections with a seat whose VM is being reached, or whose user is told why it is not.",
            sum(all, |c| &c.dialling),
        );
        let name = "keyway_relayed_bytes_total";
        self.family(name, "counter", "Bytes of SSH packets carried, client to VM (up) and back.");
        self.line(format_args!("{name}{{direction=\"up\"}} {}", sum(all, |c| &c.bytes_up)));
        self.line(format_args!("{name}{{direction=\"down\"}} {}", sum(all, |c| &c.bytes_down)));
        let name = "keyway_spliced_session_bytes_total";
        self.family(
            name,
            "counter",
            "Of these, bytes of sessions whose keys are elsewhere: spliced, or copied because a peer or the system was short.",
        );
        for &passage in Passage::ALL {
            let count = sum(all, |c| &c.passed[passage as usize]);
            self.line(format_args!("{name}{{passage=\"{passage}\"}} {count}"));
        }
        self.single(
            "keyway_rekeys_total",
            "counter",
            "Key exchanges after the first of their leg.",
            sum(all, |c| &c.rekeys),
        );
    }

    fn stages(&mut self, all: &[Arc<Counters>]) {
        let merged = LoginStage::ALL.map(|stage| (stage.as_str(), Merged::of(all, stage)));
        let name = "keyway_login_stage_seconds";
        self.family(name, "histogram", "Time that each stage of a login took.");
        for (stage, merged) in &merged {
            for bits in LE_BITS {
                let bound = Seconds(1 << bits);
                let count = merged.below(bits);
                self.line(format_args!(
                    "{name}_bucket{{stage=\"{stage}\",le=\"{bound}\"}} {count}"
                ));
            }
            let Merged { count, sum_us, .. } = *merged;
            self.line(format_args!("{name}_bucket{{stage=\"{stage}\",le=\"+Inf\"}} {count}"));
            self.line(format_args!("{name}_sum{{stage=\"{stage}\"}} {}", Seconds(sum_us)));
            self.line(format_args!("{name}_count{{stage=\"{stage}\"}} {count}"));
        }
        let name = "keyway_login_stage_overall_seconds";
        self.family(
            name,
            "summary",
            "Time that each stage of a login took, as quantiles since the start, at most 8 % too high.",
        );
        for (stage, merged) in &merged {
            let Some(quantiles) = merged.quantiles() else { continue };
            for quantile in [0.5, 0.9, 0.99, 0.999] {
                let value = Seconds(quantiles.value_at_quantile(quantile));
                self.line(format_args!(
                    "{name}{{stage=\"{stage}\",quantile=\"{quantile}\"}} {value}"
                ));
            }
            let Merged { count, sum_us, .. } = *merged;
            self.line(format_args!("{name}_sum{{stage=\"{stage}\"}} {}", Seconds(sum_us)));
            self.line(format_args!("{name}_count{{stage=\"{stage}\"}} {count}"));
        }
    }

    fn log(&mut self) {
        self.single(
            "keyway_log_lines_lost_total",
            "counter",
            "Log lines never written: stderr was too slow, or failed. Should stay 0.",
            log::lines_lost(),
        );
        self.single(
            "keyway_log_lines_kept_back_total",
            "counter",
            "Log lines about refusals not written, because their source network had caused many.",
            log::lines_kept_back(),
        );
    }

    fn inventory(&mut self, inventory: Inventory) {
        let Inventory { users, keys, vms, addresses, routes } = inventory;
        self.single("keyway_users", "gauge", "Users known.", users);
        self.single("keyway_user_keys", "gauge", "Public keys of users known.", keys);
        self.single("keyway_vms", "gauge", "VMs known.", vms);
        self.single("keyway_pool_addresses", "gauge", "Addresses in the pool.", addresses);
        self.single(
            "keyway_routes",
            "gauge",
            "Pairs of principal and pool address that lead to a VM.",
            routes,
        );
    }
}

/// The exponents of the histogram's bounds, in microseconds: 128 us to 34 s. Powers of two, so they
/// are bounds of our own buckets too and the counts are exact.
const LE_BITS: std::ops::RangeInclusive<u32> = 7..=25;

/// One stage, added up over all writers.
struct Merged {
    buckets: [u64; BUCKETS],
    count: u64,
    sum_us: u64,
}

impl Merged {
    fn of(all: &[Arc<Counters>], stage: LoginStage) -> Self {
        let mut buckets = [0; BUCKETS];
        let mut sum_us = 0;
        for counters in all {
            let timings = &counters.stages[stage as usize];
            sum_us += timings.sum_us.get();
            for (total, part) in buckets.iter_mut().zip(&timings.buckets) {
                *total += part.get();
            }
        }
        // Counted from the buckets rather than apart: then the last bucket and the
        // count always agree.
        Self { buckets, count: buckets.iter().sum(), sum_us }
    }

    /// How many took less than 2^`bits` us.
    fn below(&self, bits: u32) -> u64 {
        self.buckets[..bucket_of(1 << bits)].iter().sum()
    }

    /// Every duration at the upper end of its bucket; none if the histogram cannot be made.
    fn quantiles(&self) -> Option<Histogram<u64>> {
        // Two digits, so it adds under 1 % to the 1/16 that the buckets cost.
        let mut histogram = Histogram::new_with_bounds(1, 1 << CEILING_BITS, 2).ok()?;
        for (bucket, &count) in self.buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
            histogram.record_n(upper_us(bucket).max(1), count).ok()?;
        }
        Some(histogram)
    }
}

/// Microseconds, written as seconds without rounding.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

fn live_sessions(all: &[Arc<Counters>]) -> u64 {
    // Ends first: a session that starts and ends between the two reads must not make the
    // difference negative.
    let ended = sum(all, |c| &c.sessions_ended);
    sum(all, |c| &c.sessions_started).saturating_sub(ended)
}

fn sum(all: &[Arc<Counters>], tally: impl Fn(&Counters) -> &Tally) -> u64 {
    all.iter().map(|counters| tally(counters).get()).fold(0, u64::wrapping_add)
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
