//! What the target's processes cost, from `/proc`: CPU of a process tree, its resident memory, and
//! the kernel's socket memory.

use std::collections::HashMap;
use std::fs;

use crate::Result;

/// `USER_HZ`, which Linux shows to programs as 100 on every architecture that we build for.
const TICKS_PER_S: f64 = 100.0;
/// Pages of `/proc/net/sockstat`.
const PAGE_BYTES: u64 = 4096;

/// A reading. Subtract two.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reading {
    /// CPU seconds of the tree, those of children that were waited for included.
    pub(crate) cpu_s: f64,
    /// Those of them spent in system calls, as the kernel's ticks sample it.
    pub(crate) system_s: f64,
    /// How often a thread of the tree went to sleep and was woken; ended threads and processes
    /// are not counted.
    pub(crate) wakes: u64,
    /// Resident bytes of the tree.
    pub(crate) rss_bytes: u64,
    /// Kernel memory of all TCP sockets of this machine: the clients' own ends count too.
    pub(crate) socket_bytes: u64,
    /// Live processes of the tree.
    pub(crate) processes: usize,
}

/// One process, as `/proc/PID/stat` tells it.
struct Stat {
    parent: u32,
    ticks: u64,
    system_ticks: u64,
}

/// Reads the trees below `roots`.
pub(crate) fn read(roots: &[u32]) -> Result<Reading> {
    let mut stats = HashMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process that has just ended has been waited for by its parent, or will be.
        if let Some(stat) =
            fs::read_to_string(entry.path().join("stat")).ok().and_then(|text| parse(&text))
        {
            stats.insert(id, stat);
        }
    }
    let mut tree: Vec<u32> = roots.to_vec();
    let mut at = 0;
    while let Some(&parent) = tree.get(at) {
        let children: Vec<u32> = stats
            .iter()
            .filter(|(id, stat)| stat.parent == parent && !tree.contains(id))
            .map(|(id, _)| *id)
            .collect();
        tree.extend(children);
        at += 1;
    }
    let mut reading = Reading { socket_bytes: socket_bytes()?, ..Reading::default() };
    let (mut ticks, mut system_ticks) = (0, 0);
    for root in roots {
        if !stats.contains_key(root) {
            return Err(format!("process {root} of the target is gone").into());
        }
    }
    for stat in tree.iter().filter_map(|id| stats.get(id)) {
        ticks += stat.ticks;
        system_ticks += stat.system_ticks;
        reading.processes += 1;
    }
    for id in &tree {
        reading.rss_bytes += rss_bytes(*id);
        reading.wakes += wakes(*id);
    }
    reading.cpu_s = f64::from(u32::try_from(ticks)?) / TICKS_PER_S;
    reading.system_s = f64::from(u32::try_from(system_ticks)?) / TICKS_PER_S;
    Ok(reading)
}

fn parse(stat: &str) -> Option<Stat> {
    // The name stands in brackets and may hold anything: fields count from behind it, the
    // state being field 3.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    // utime, stime, and the same of children that were waited for.
    let system_ticks = number(15)? + number(17)?;
    let ticks = number(14)? + number(16)? + system_ticks;
    Some(Stat { parent: u32::try_from(number(4)?).ok()?, ticks, system_ticks })
}

/// The figure of `stat` is late by up to 64 pages for each thread; this one is counted
/// when it is read.
fn rss_bytes(id: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
    let figure = text.lines().find_map(|line| line.strip_prefix("Rss:")?.split_whitespace().next());
    figure.and_then(|figure| figure.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Voluntary context switches of all threads of a process.
fn wakes(id: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let of_thread = |thread: fs::DirEntry| {
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<u64>().ok()
    };
    threads.filter_map(of_thread).sum()
}

fn socket_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/sockstat")?;
    let line =
        text.lines().find(|line| line.starts_with("TCP:")).ok_or("no TCP line in sockstat")?;
    let words: Vec<&str> = line.split(' ').collect();
    let at = words.iter().position(|word| *word == "mem").ok_or("no mem in sockstat")?;
    Ok(words.get(at + 1).ok_or("no figure in sockstat")?.parse::<u64>()? * PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_brackets_and_spaces_shifts_no_field() {
        let text = "7 (a) b) S 3 7 7 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 99 1000 55 18446744073709551615";
        let stat = parse(text).expect("a stat line");
        assert_eq!((stat.parent, stat.ticks, stat.system_ticks), (3, 100, 60));
    }

    #[test]
    fn this_process_uses_memory_and_a_missing_one_is_an_error() {
        let reading = read(&[std::process::id()]).expect("our own process");
        assert!(reading.rss_bytes > 100_000 && reading.processes >= 1, "{reading:?}");
        assert!(read(&[u32::MAX]).is_err());
    }

    #[test]
    fn cpu_of_a_child_that_ended_still_counts() {
        let before = read(&[std::process::id()]).expect("our own process").cpu_s;
        let busy = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let status = std::process::Command::new("sh").args(["-c", busy]).status().expect("a shell");
        assert!(status.success());
        let after = read(&[std::process::id()]).expect("our own process").cpu_s;
        assert!(after > before, "{before} -> {after}");
    }
}
