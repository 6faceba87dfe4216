//! What the host allows a process: CPUs and file descriptors, and what it keeps to itself.

use std::io;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

use crate::config::{Count, Edge};
use crate::plural;

/// Descriptors kept for everything that is not a connection: executors, listeners,
/// pipes, files, scrapes.
const RESERVE: u64 = 512;

/// Descriptors for connections where the limit leaves none.
const LEAST: u64 = 8;

/// How many connections the descriptor limit allows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Budget {
    /// Established sessions: two descriptors each.
    pub sessions: u32,
    /// Half-open connections: one descriptor each, a second while the VM is dialled.
    pub half_open: u32,
}

/// Raises the soft descriptor limit to the hard one and divides what it allows: a quarter for
/// half-open connections, the rest for sessions.
///
/// # Errors
/// What the system said.
pub fn raise_descriptors() -> io::Result<Budget> {
    let hard = descriptors()?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(divide(hard))
}

/// How many descriptors [`raise_descriptors`] can get.
///
/// # Errors
/// What the system said.
pub fn descriptors() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(hard)
}

/// What is wrong and what to do about it if what is configured needs more than `descriptors`:
/// people would then be refused, without a word to those who are not yet accepted, before
/// `sessions_max` is reached.
#[must_use]
pub fn check(edge: &Edge, descriptors: u64) -> Option<(String, String)> {
    let budget = divide(descriptors);
    let sessions = count(edge.sessions_max, budget.sessions);
    let half_open = count(edge.half_open_max, budget.half_open);
    let needed = u64::from(sessions) * 2 + u64::from(half_open) + RESERVE;
    if needed <= descriptors {
        return None;
    }
    let what = format!(
        "{} (`sessions_max`) and {} (`half_open_max`) need {needed} file descriptors, and a process may have \
         {descriptors} here",
        plural::count(sessions, "session"),
        plural::count(half_open, "half-open connection")
    );
    let Budget { sessions, half_open } = budget;
    if descriptors < RESERVE + LEAST {
        // Nothing that could be written into the file would help.
        let raised = needed.max(RESERVE + LEAST).next_multiple_of(1024);
        let what = format!(
            "a process may have {descriptors} file descriptors here, and {RESERVE} are kept for what is no connection"
        );
        let fix = format!("raise the hard limit (LimitNOFILE={raised}, ulimit -Hn {raised})");
        return Some((what, fix));
    }
    let fix = format!(
        "raise the hard limit (LimitNOFILE={needed}, ulimit -Hn), or write at most sessions_max = {sessions} and \
         half_open_max = {half_open}"
    );
    Some((what, fix))
}

/// A number as configured, or the host's own.
pub const fn count(wish: Count, automatic: u32) -> u32 {
    match wish {
        Count::Automatic => automatic,
        Count::Exactly(number) => number.get(),
    }
}

fn divide(descriptors: u64) -> Budget {
    let free = descriptors.saturating_sub(RESERVE).max(LEAST);
    let half_open = free / 4;
    let number = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    Budget { sessions: number((free - half_open) / 2), half_open: number(half_open) }
}

/// No core dumps and no debugger of other users: host keys and session keys stay in this process.
///
/// # Errors
/// What the system said.
pub fn keep_secrets_in_memory() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    nix::sys::prctl::set_dumpable(false)?;
    Ok(())
}

/// No huge pages. Half-open connections are small and come and go in crowds: in pages of 2 MiB they
/// took more than twice the memory and gave little of it back (7.0 against 2.7 kB each), while
/// lookups in a map of a million routes cost the same.
pub fn use_small_pages() {
    // A kernel without huge pages has nothing to switch off.
    let _unsupported = nix::sys::prctl::set_thp_disable(true);
}

/// The CPUs this process may run on, by the kernel's numbers.
///
/// # Errors
/// What the system said.
pub fn cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}

#[cfg(test)]
mod tests {
    use super::{Budget, divide};

    #[test]
    fn sessions_and_half_open_connections_fit_into_the_limit_together() {
        for limit in [0, 100, 1024, 20_000, 1 << 20, u64::MAX] {
            let Budget { sessions, half_open } = divide(limit);
            assert!(sessions > 0 && half_open > 0);
            if limit > 1024 {
                let used = u64::from(sessions) * 2 + u64::from(half_open);
                assert!(used <= limit - super::RESERVE);
            }
        }
    }
}
