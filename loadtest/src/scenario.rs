//! What the clients do, and what is measured meanwhile.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use keyway::ssh::userauth::Credential;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::engine::{self, Client, Happened};
use crate::report::Row;
use crate::{Result, account};

/// Whom the load goes to.
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) login: String,
    pub(crate) credential: Arc<Credential>,
    /// Roots of the process trees whose cost counts.
    pub(crate) pids: Vec<u32>,
}

#[derive(Args, Clone)]
pub(crate) struct Logins {
    /// Logins in all
    #[arg(long, default_value_t = 500)]
    pub(crate) count: u32,
    /// Logins under way at a time
    #[arg(long, default_value_t = 8)]
    pub(crate) parallel: u32,
    /// Only this cipher
    #[arg(long)]
    pub(crate) cipher: Option<String>,
}

#[derive(Args, Clone)]
pub(crate) struct Bulk {
    /// Bytes to move
    #[arg(long, default_value_t = 1_000_000_000)]
    pub(crate) bytes: u64,
    /// From the VM, or to it
    #[arg(long, value_enum, default_value_t = Direction::Down)]
    pub(crate) direction: Direction,
    /// Only this cipher
    #[arg(long, default_value = "aes128-gcm@openssh.com")]
    pub(crate) cipher: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Direction {
    Down,
    Up,
}

#[derive(Args, Clone)]
pub(crate) struct Echo {
    /// Round trips
    #[arg(long, default_value_t = 5000)]
    pub(crate) count: u32,
    /// Key exchanges a second beside them
    #[arg(long, default_value_t = 0)]
    pub(crate) handshakes_per_s: u32,
    /// Only this cipher
    #[arg(long)]
    pub(crate) cipher: Option<String>,
}

#[derive(Args, Clone)]
pub(crate) struct Hold {
    /// Connections to hold
    #[arg(long, default_value_t = 500)]
    pub(crate) count: u32,
    /// Connections being set up at a time
    #[arg(long, default_value_t = 8)]
    pub(crate) parallel: u32,
    /// How long they are held while the target's idle CPU is measured, in seconds
    #[arg(long, default_value_t = 5)]
    pub(crate) seconds: u32,
}

/// How far a half-open connection goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Stop {
    /// Connected, the target's identification line read
    Banner,
    /// Keys exchanged, nobody authenticated
    KeyExchange,
}

/// Every held connection is a file descriptor of ours, too.
pub(crate) fn raise_fd_limit() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// Latencies in microseconds, three digits exact, up to two minutes.
fn latencies() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 120_000_000, 3)?)
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// A latency as a figure.
#[expect(clippy::cast_precision_loss, reason = "at most two minutes in microseconds")]
fn ms(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn per(bytes_before: u64, bytes_after: u64, count: u32) -> f64 {
    (bytes_after as f64 - bytes_before as f64) / f64::from(count) / 1000.0
}

/// Runs `work` `count` times on `parallel` threads; the first failure ends all.
fn on_threads<T: Send>(
    count: u32,
    parallel: u32,
    work: impl Fn() -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicU32::new(0);
    let done = Mutex::new(Vec::new());
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..parallel.clamp(1, 512) {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < count {
                    match work() {
                        Ok(one) => done.lock().unwrap_or_else(PoisonError::into_inner).push(one),
                        Err(why) => {
                            next.store(count, Ordering::Relaxed);
                            failed
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .get_or_insert(why);
                        }
                    }
                }
            });
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(why) => Err(why),
        None => Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// Logs in, runs `true`, logs out.
pub(crate) fn logins(target: &Target, shape: &Logins) -> Result<Row> {
    let config = engine::config(shape.cipher.as_deref())?;
    let before = account::read(&target.pids)?;
    let began = Instant::now();
    let all = on_threads(shape.count, shape.parallel, || {
        let began = Instant::now();
        let mut client = Client::connect(target.address, config.clone())?;
        client.secure()?;
        let exchanged = micros(began);
        client.login(&target.login, &target.credential)?;
        let logged_in = micros(began);
        let mut channel = client.exec("true")?;
        client.finish(&mut channel)?;
        Ok((exchanged, logged_in, micros(began)))
    })?;
    let took_s = began.elapsed().as_secs_f64();
    let after = account::read(&target.pids)?;
    let (mut exchange, mut login, mut whole) = (latencies()?, latencies()?, latencies()?);
    for (exchanged, logged_in, ended) in all {
        exchange.saturating_record(exchanged);
        login.saturating_record(logged_in);
        whole.saturating_record(ended);
    }
    let wakes = f64::from(u32::try_from(after.wakes.saturating_sub(before.wakes))?);
    Ok(Row {
        scenario: format!("logins, {} at a time", shape.parallel),
        target: target.name.clone(),
        figures: vec![
            ("cpu_ms_each", (after.cpu_s - before.cpu_s) * 1000.0 / f64::from(shape.count)),
            (
                "system_ms_each",
                (after.system_s - before.system_s) * 1000.0 / f64::from(shape.count),
            ),
            ("wakes_each", wakes / f64::from(shape.count)),
            ("per_s", f64::from(shape.count) / took_s),
            ("kex_p50_ms", ms(&exchange, 0.5)),
            ("login_p50_ms", ms(&login, 0.5)),
            ("login_p99_ms", ms(&login, 0.99)),
            ("exec_p50_ms", ms(&whole, 0.5)),
            ("exec_p99_ms", ms(&whole, 0.99)),
        ],
    })
}

/// Moves bytes through one session.
pub(crate) fn bulk(target: &Target, shape: &Bulk) -> Result<Row> {
    let mut client = Client::connect(target.address, engine::config(Some(&shape.cipher))?)?;
    client.secure()?;
    client.login(&target.login, &target.credential)?;
    let before = account::read(&target.pids)?;
    let began = Instant::now();
    match shape.direction {
        Direction::Down => {
            let mut channel = client.exec(&format!("head -c {} /dev/zero", shape.bytes))?;
            let came = client.finish(&mut channel)?;
            if came != shape.bytes {
                return Err(format!("{came} bytes came instead of {}", shape.bytes).into());
            }
        }
        Direction::Up => {
            let mut channel = client.exec(&format!("test $(wc -c) -eq {}", shape.bytes))?;
            let block = vec![0; 32 << 10];
            let mut left = shape.bytes;
            while left > 0 {
                let now = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
                client.write(&mut channel, block.get(..now).unwrap_or_default())?;
                left -= u64::try_from(now)?;
            }
            client.end_of_input(&channel)?;
            client.finish(&mut channel)?;
        }
    }
    let took_s = began.elapsed().as_secs_f64();
    let after = account::read(&target.pids)?;
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let gb = shape.bytes as f64 / 1e9;
    Ok(Row {
        scenario: format!("bulk {:?} {}", shape.direction, shape.cipher).to_lowercase(),
        target: target.name.clone(),
        figures: vec![
            ("cpu_s_per_gb", (after.cpu_s - before.cpu_s) / gb),
            ("mb_per_s", gb * 1000.0 / took_s),
            ("rss_growth_kb", per(before.rss_bytes, after.rss_bytes, 1)),
        ],
    })
}

/// One byte there and back, many times.
pub(crate) fn echo(target: &Target, shape: &Echo) -> Result<Row> {
    let config = engine::config(shape.cipher.as_deref())?;
    let mut client = Client::connect(target.address, config.clone())?;
    client.secure()?;
    client.login(&target.login, &target.credential)?;
    let mut channel = client.exec("exec cat")?;
    let round_trip = |client: &mut Client, channel: &mut engine::Channel| -> Result<u64> {
        let began = Instant::now();
        client.write(channel, b"x")?;
        loop {
            match client.channel_event(channel)? {
                Happened::Data(_) => return Ok(micros(began)),
                Happened::Other => {}
                Happened::Closed => return Err("the channel closed".into()),
            }
        }
    };
    for _ in 0..100 {
        round_trip(&mut client, &mut channel)?;
    }
    let mut times = latencies()?;
    let (over, handshakes, failed) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    let (cpu_s, took_s) = std::thread::scope(|scope| -> Result<(f64, f64)> {
        // However the round trips end, the handshakes end with them.
        let _ends = Ends(&over);
        if shape.handshakes_per_s > 0 {
            let (start, due) = mpsc::sync_channel::<()>(shape.handshakes_per_s as usize);
            let due = Arc::new(Mutex::new(due));
            for _ in 0..8 {
                let (due, config) = (due.clone(), config.clone());
                let (handshakes, failed) = (&handshakes, &failed);
                scope.spawn(move || {
                    while due.lock().unwrap_or_else(PoisonError::into_inner).recv().is_ok() {
                        let secured = Client::connect(target.address, config.clone())
                            .and_then(|mut client| client.secure());
                        let count = if secured.is_ok() { handshakes } else { failed };
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let (over, rate) = (&over, f64::from(shape.handshakes_per_s));
            scope.spawn(move || pace(rate, over, &start));
        }
        let before = account::read(&target.pids)?;
        let began = Instant::now();
        for _ in 0..shape.count {
            times.saturating_record(round_trip(&mut client, &mut channel)?);
        }
        let took_s = began.elapsed().as_secs_f64();
        Ok((account::read(&target.pids)?.cpu_s - before.cpu_s, took_s))
    })?;
    let mut figures = vec![
        ("p50_us", ms(&times, 0.5) * 1000.0),
        ("p99_us", ms(&times, 0.99) * 1000.0),
        ("p999_us", ms(&times, 0.999) * 1000.0),
    ];
    let mut scenario = "echo, 1 byte".to_owned();
    if shape.handshakes_per_s > 0 {
        scenario = format!("echo, 1 byte, beside {} handshakes/s", shape.handshakes_per_s);
        figures.push(("handshakes_per_s", f64::from(handshakes.into_inner()) / took_s));
        figures.push(("refused", f64::from(failed.into_inner())));
        figures.push(("cpu_share", cpu_s / took_s));
    } else {
        figures.push(("cpu_us_each", cpu_s * 1e6 / f64::from(shape.count)));
    }
    Ok(Row { scenario, target: target.name.clone(), figures })
}

/// Says that it is over when dropped.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Lets one start `rate` times a second until it is over; what the starters cannot take in time is
/// not made up for.
fn pace(rate: f64, over: &AtomicBool, start: &mpsc::SyncSender<()>) {
    let began = Instant::now();
    let mut started = 0.0;
    while !over.load(Ordering::Relaxed) {
        while started < began.elapsed().as_secs_f64() * rate {
            let _ = start.try_send(());
            started += 1.0;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Holds what `open` makes; memory before and while, CPU while nothing happens, memory
/// when all are gone.
fn hold<T: Send>(
    target: &Target,
    scenario: String,
    shape: &Hold,
    open: impl Fn() -> Result<T> + Sync,
) -> Result<Row> {
    /// Time for what the target does after the last connection: timers, freed buffers.
    const SETTLE: Duration = Duration::from_secs(2);
    // The first connections fill caches that belong to no connection.
    drop(on_threads(shape.parallel.max(16), shape.parallel, &open)?);
    std::thread::sleep(SETTLE);
    let before = account::read(&target.pids)?;
    let held = on_threads(shape.count, shape.parallel, &open)?;
    std::thread::sleep(SETTLE);
    let full = account::read(&target.pids)?;
    std::thread::sleep(Duration::from_secs(shape.seconds.into()));
    let idle = account::read(&target.pids)?;
    drop(held);
    std::thread::sleep(SETTLE);
    let after = account::read(&target.pids)?;
    Ok(Row {
        scenario,
        target: target.name.clone(),
        figures: vec![
            ("count", f64::from(shape.count)),
            ("rss_kb_each", per(before.rss_bytes, full.rss_bytes, shape.count)),
            ("kernel_kb_each", per(before.socket_bytes, full.socket_bytes, shape.count)),
            (
                "idle_cpu_ms_per_s",
                (idle.cpu_s - full.cpu_s) * 1000.0 / f64::from(shape.seconds.max(1)),
            ),
            ("kept_kb_each", per(before.rss_bytes, after.rss_bytes, shape.count)),
            #[expect(clippy::cast_precision_loss, reason = "a number of processes")]
            ("processes", full.processes as f64),
        ],
    })
}

/// Established sessions, a command running in each, that do nothing.
pub(crate) fn idle_hold(target: &Target, shape: &Hold) -> Result<Row> {
    let config = engine::config(None)?;
    hold(target, "idle sessions".into(), shape, || {
        let mut client = Client::connect(target.address, config.clone())?;
        client.secure()?;
        client.login(&target.login, &target.credential)?;
        let mut channel = client.exec("echo ready; exec sleep 600")?;
        while !matches!(client.channel_event(&mut channel)?, Happened::Data(_)) {}
        client.rest();
        Ok(client)
    })
}

/// Connections that stop before authentication.
pub(crate) fn half_open_hold(target: &Target, shape: &Hold, stop: Stop) -> Result<Row> {
    let config = engine::config(None)?;
    let name = match stop {
        Stop::Banner => "half-open after the banner",
        Stop::KeyExchange => "half-open after key exchange",
    };
    hold(target, name.into(), shape, || {
        let mut client = Client::connect(target.address, config.clone())?;
        match stop {
            Stop::Banner => client.await_banner()?,
            Stop::KeyExchange => client.secure()?,
        }
        client.rest();
        Ok(client)
    })
}
