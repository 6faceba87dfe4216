//! What a container uses.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::model::map;

/// One measurement. Counts since the container's start, but for `memory_bytes` and `processes`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(from = "StatsTold")]
pub struct Stats {
    /// Of all processors.
    pub cpu_ns: u64,
    /// What all processors of the host did meanwhile; nothing if the daemon does not say.
    pub host_ns: Option<u64>,
    /// Processors of the host.
    pub cpus: u32,
    /// Without pages of files that can be dropped.
    pub memory_bytes: u64,
    /// Its limit, or the host's.
    pub memory_bytes_max: u64,
    /// Processes and threads.
    pub processes: u64,
    /// Over all of its networks.
    pub received_bytes: u64,
    /// Over all of its networks.
    pub sent_bytes: u64,
}

#[derive(Deserialize)]
struct StatsTold {
    cpu_stats: Cpu,
    #[serde(default)]
    memory_stats: Memory,
    #[serde(default)]
    pids_stats: Processes,
    #[serde(default, deserialize_with = "map")]
    networks: BTreeMap<String, Net>,
}

#[derive(Deserialize)]
struct Cpu {
    #[serde(rename = "cpu_usage")]
    usage: CpuUsage,
    #[serde(rename = "system_cpu_usage")]
    host: Option<u64>,
    #[serde(rename = "online_cpus")]
    online: Option<u32>,
}

#[derive(Deserialize)]
struct CpuUsage {
    total_usage: u64,
}

#[derive(Default, Deserialize)]
struct Memory {
    usage: Option<u64>,
    limit: Option<u64>,
    stats: Option<MemoryKinds>,
}

#[derive(Deserialize)]
struct MemoryKinds {
    /// cgroup v1.
    total_inactive_file: Option<u64>,
    /// cgroup v2.
    inactive_file: Option<u64>,
}

#[derive(Default, Deserialize)]
struct Processes {
    current: Option<u64>,
}

#[derive(Deserialize)]
struct Net {
    #[serde(default)]
    rx_bytes: u64,
    #[serde(default)]
    tx_bytes: u64,
}

impl From<StatsTold> for Stats {
    fn from(told: StatsTold) -> Self {
        let nets = || told.networks.values();
        let sum = |of: fn(&Net) -> u64| nets().map(of).fold(0, u64::saturating_add);
        let kinds = told.memory_stats.stats.as_ref();
        let files = kinds.and_then(|kinds| kinds.total_inactive_file.or(kinds.inactive_file));
        let memory = told.memory_stats.usage.unwrap_or(0);
        Self {
            cpu_ns: told.cpu_stats.usage.total_usage,
            host_ns: told.cpu_stats.host,
            cpus: told.cpu_stats.online.unwrap_or(0),
            memory_bytes: memory.saturating_sub(files.unwrap_or(0)),
            memory_bytes_max: told.memory_stats.limit.unwrap_or(0),
            processes: told.pids_stats.current.unwrap_or(0),
            received_bytes: sum(|net| net.rx_bytes),
            sent_bytes: sum(|net| net.tx_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_is_read_from_both_kinds_of_cgroups() {
        let stats: Stats = serde_json::from_str(
            r#"{"cpu_stats":{"cpu_usage":{"total_usage":7},"system_cpu_usage":70,"online_cpus":2},
                "memory_stats":{"usage":100,"limit":500,"stats":{"inactive_file":30}},
                "pids_stats":{"current":3},
                "networks":{"a":{"rx_bytes":1,"tx_bytes":2},"b":{"rx_bytes":18446744073709551615}}}"#,
        )
        .unwrap();
        let expected = Stats {
            cpu_ns: 7,
            host_ns: Some(70),
            cpus: 2,
            memory_bytes: 70,
            memory_bytes_max: 500,
            processes: 3,
            received_bytes: u64::MAX,
            sent_bytes: 2,
        };
        assert_eq!(stats, expected);
        // As it is said of a container that does not run.
        let stopped: Stats = serde_json::from_str(
            r#"{"cpu_stats":{"cpu_usage":{"total_usage":0}},"memory_stats":{},"pids_stats":{}}"#,
        )
        .unwrap();
        assert_eq!(stopped, Stats::default());
    }
}
