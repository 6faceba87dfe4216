//! What every long-running role begins with, and how it is told what to do: its log, its
//! signals, systemd.

use std::io;

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use super::Failure;
use super::events::{Event, Events};
use super::notify::{self, State as Told};
use crate::config::Log;
use crate::control::api::condition::{Reload, Reloaded};
use crate::{host, log};

/// What a process is while it runs.
pub(super) trait Role {
    /// How it is, for systemd.
    fn status(&self) -> String;

    /// Reads its files again; tells what came of it where somebody can ask for that.
    fn reload(&mut self, order: Reload) -> Option<Reloaded>;

    /// Ends once nobody needs it any more.
    fn drain(self, events: Events);
}

/// Starts a role and runs it until a signal ends it.
///
/// # Errors
/// What kept it from starting.
pub(super) fn run<R: Role>(
    log: Log,
    start: impl FnOnce(&Events) -> Result<R, Failure>,
) -> Result<(), Failure> {
    let _writes_the_rest_when_dropped = log_to_stderr(log)?;
    // Not to stderr itself: a reader that has stopped would stop the thread that panicked.
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(at, "a bug in keyway: {:?}", panic.payload_as_str().unwrap_or_default());
    }));
    host::keep_secrets_in_memory()?;
    host::use_small_pages();
    let events = Events::start()?;
    let mut running = start(&events)?;
    notify::tell(Told::Ready);
    notify::tell(Told::Status(&running.status()));
    loop {
        match events.next() {
            Event::Reload(order, answer) => {
                notify::tell(Told::Reloading);
                let reloaded = running.reload(order);
                notify::tell(Told::Ready);
                let _nobody_waits = answer.zip(reloaded).map(|(answer, it)| answer.send(it));
            }
            Event::Drain => {
                running.drain(events);
                return Ok(());
            }
            Event::End => break,
        }
    }
    tracing::info!("ending now");
    Ok(())
}

/// One line per event on stderr: JSON for machines, readable for people.
fn log_to_stderr(format: Log) -> io::Result<log::Written> {
    use std::io::IsTerminal;
    let readable = match format {
        Log::Readable => true,
        Log::Json => false,
        Log::Auto => io::stderr().is_terminal(),
    };
    let lost = if readable { lost_readable } else { lost_json };
    let (lines, written) = log::start(io::stderr(), lost)?;
    let subscriber = tracing_subscriber::fmt()
        .with_writer(lines)
        .log_internal_errors(false)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal());
    // A subscriber that stands already (tests, the demonstration) is as good.
    let _stands = if readable {
        subscriber.try_init()
    } else {
        subscriber.json().flatten_event(true).try_init()
    };
    Ok(written)
}

/// The line that tells of lines that were never written, among those for people.
fn lost_readable(lines: u64) -> String {
    format!("{} WARN {LOST} lines={lines}\n", now())
}

/// The same, among those for machines.
fn lost_json(lines: u64) -> String {
    format!(
        "{{\"timestamp\":\"{}\",\"level\":\"WARN\",\"message\":\"{LOST}\",\"lines\":{lines}}}\n",
        now()
    )
}

const LOST: &str = "log lines were lost: stderr was too slow, or failed";

/// As the other lines have it.
fn now() -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}
