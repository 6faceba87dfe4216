//! What of `keyway.toml` or `agent.toml` takes a restart: every key that a reload does not renew,
//! with its value in words.
//!
//! The configuration is taken apart whole, so that a new key does not compile before somebody has
//! said here whether a reload renews it.

use std::fmt::Display;
use std::time::Duration;

use crate::config::{
    AgentConfig, Api, ApiTls, Config, Count, Dns, Edge, Log, Metrics, PreferGcm, Registry, Replica,
    VmLeg,
};
use crate::control::api::condition::NeedsRestart;

/// Keys and the values that are in force until a restart.
#[derive(Debug)]
pub(super) struct Fixed(Vec<(&'static str, String)>);

impl Fixed {
    pub(super) fn of(config: &Config) -> Self {
        // Whatever is `_` here, a reload renews it.
        let Config { state_dir, edge, vm_leg, metrics, api, registry, nodes, dns, fleet_file: _ } =
            config;
        let Api { socket, tls, peers: _, canary } = api;
        let tls = tls.as_ref().map(|ApiTls { listen, cert: _, key: _ }| listen);
        let Registry { quarantine_s, audit_keep_s } = *registry;
        let mut all = vec![
            ("state_dir", state_dir.display().to_string()),
            ("api.socket", socket.display().to_string()),
            ("api.listen", tls.map(ToString::to_string).unwrap_or_default()),
            ("api.canary_s", canary.as_secs().to_string()),
            ("registry.quarantine_s", quarantine_s.to_string()),
            ("registry.audit_keep_days", (audit_keep_s / DAY_S).to_string()),
            ("nodes.health_s", nodes.health.as_secs().to_string()),
        ];
        all.extend(door(edge, vm_leg, metrics));
        if let Some(dns) = dns {
            all.extend(names(dns));
        }
        Self(all)
    }

    pub(super) fn of_agent(config: &AgentConfig) -> Self {
        // Whatever is `_` here, a reload renews it.
        let AgentConfig {
            state_dir,
            edge,
            vm_leg,
            metrics,
            edge_networks,
            edges: _,
            host_keys: _,
            replica,
        } = config;
        let control = match replica {
            Replica::File(_) => None,
            Replica::Feed(control) => Some(control),
        };
        let ca = control.and_then(|control| control.ca.as_ref());
        let mut all = vec![
            ("control.url", control.map(|control| control.url.clone()).unwrap_or_default()),
            ("control.ca", ca.map(|ca| ca.display().to_string()).unwrap_or_default()),
            ("state_dir", state_dir.display().to_string()),
            ("edge_networks", list(edge_networks)),
        ];
        // They stand without a section there.
        let door = door(edge, vm_leg, metrics).into_iter();
        all.extend(door.map(|(key, value)| (key.strip_prefix("edge.").unwrap_or(key), value)));
        Self(all)
    }

    /// What `file` says otherwise. A key that is in one of them only is empty in the other.
    pub(super) fn unlike(&self, file: &Self) -> Vec<NeedsRestart> {
        let value = |all: &Self, key: &str| {
            let found = all.0.iter().find(|(name, _)| *name == key);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let new = file.0.iter().filter(|(key, _)| self.0.iter().all(|(name, _)| name != key));
        let all = self.0.iter().chain(new);
        let unlike = all.filter_map(|(key, _)| {
            let (running, file) = (value(self, key), value(file, key));
            (running != file).then(|| NeedsRestart { key: (*key).to_owned(), running, file })
        });
        unlike.collect()
    }
}

const DAY_S: u64 = 86_400;

/// What a front door and an agent have alike.
fn door(edge: &Edge, vm_leg: &VmLeg, metrics: &Metrics) -> Vec<(&'static str, String)> {
    let Edge {
        listen,
        shards,
        host_keys: _,
        login_grace,
        drain,
        proxy_protocol_from,
        sessions_max,
        sessions_max_per_user,
        sessions_max_per_vm,
        half_open_max,
        log,
        hide_keys: _,
        legacy_macs: _,
        legacy_kex: _,
        prefer_gcm,
        client_alive_interval,
        client_alive_count_max,
        original_dst,
        revoked_keys: _,
        revocations: _,
        trusted_user_cas: _,
    } = edge;
    let VmLeg { credential: _, dial_timeout, networks, source_address: _ } = vm_leg;
    let Metrics { listen: metrics_listen } = metrics;
    vec![
        ("edge.listen", list(listen)),
        ("edge.shards", count(*shards)),
        ("edge.login_grace_s", seconds(*login_grace)),
        ("edge.drain_s", seconds(*drain)),
        ("edge.proxy_protocol_from", list(proxy_protocol_from)),
        ("edge.sessions_max", count(*sessions_max)),
        ("edge.sessions_max_per_user", count(*sessions_max_per_user)),
        ("edge.sessions_max_per_vm", count(*sessions_max_per_vm)),
        ("edge.half_open_max", count(*half_open_max)),
        ("edge.log", log_word(*log).to_owned()),
        ("edge.prefer_gcm", gcm_word(*prefer_gcm).to_owned()),
        ("edge.client_alive_interval_s", seconds(*client_alive_interval)),
        ("edge.client_alive_count_max", client_alive_count_max.to_string()),
        ("edge.original_dst", original_dst.to_string()),
        ("vm_leg.dial_timeout_s", seconds(*dial_timeout)),
        ("vm_leg.networks", list(networks)),
        ("metrics.listen", metrics_listen.to_string()),
    ]
}

/// The `[dns]` section. Its secret is told apart by its public half.
fn names(dns: &Dns) -> Vec<(&'static str, String)> {
    // `expire_s` follows from `registry.quarantine_s`.
    let Dns { zone, listen, ns, ttl_s, secondaries, dnssec_key, responses_per_second, expire_s: _ } =
        dns;
    let addresses: Vec<String> =
        ns.iter().map(|ns| format!("{}: {}", ns.name, list(&ns.addresses))).collect();
    let secondaries = secondaries.iter().map(|secondary| match secondary.notify {
        Some(notify) => format!("{} ({notify})", secondary.network),
        None => secondary.network.to_string(),
    });
    let key = dnssec_key.as_ref().map(|key| key.public().fingerprint().to_string());
    vec![
        ("dns.zone", zone.to_string()),
        ("dns.listen", list(listen)),
        ("dns.ns", list(ns.iter().map(|ns| &ns.name))),
        ("dns.ns_addresses", list(addresses)),
        ("dns.ttl", ttl_s.to_string()),
        ("dns.secondaries", list(secondaries)),
        ("dns.dnssec_key", key.unwrap_or_default()),
        ("dns.responses_per_second", responses_per_second.map_or(0, Into::into).to_string()),
    ]
}

fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(", ")
}

fn seconds(duration: Duration) -> String {
    duration.as_secs().to_string()
}

fn count(count: Count) -> String {
    match count {
        Count::Automatic => "0".to_owned(),
        Count::Exactly(number) => number.to_string(),
    }
}

const fn log_word(log: Log) -> &'static str {
    match log {
        Log::Auto => "auto",
        Log::Json => "json",
        Log::Readable => "readable",
    }
}

const fn gcm_word(prefer: PreferGcm) -> &'static str {
    match prefer {
        PreferGcm::Bulk => "bulk",
        PreferGcm::Never => "never",
    }
}

#[cfg(test)]
#[path = "fixed_tests.rs"]
mod tests;
