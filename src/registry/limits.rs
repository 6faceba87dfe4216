//! What an operator chose about the registry.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What an operator chose.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Where VM endpoints may lie.
    pub networks: Vec<IpNet>,
    /// The zone of the VMs' names, if this front door answers DNS.
    pub zone: Option<String>,
    /// Labels of the zone that are neither VMs nor addresses: name servers.
    pub reserved: Vec<String>,
    /// Seconds for which a slot points at no other VM after its last use: the TTL in
    /// DNS and a margin.
    pub quarantine_s: u64,
    /// How long the audit log remembers, in seconds; 0: for ever.
    pub audit_keep_s: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let anywhere = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        Self {
            networks: anywhere.into(),
            zone: None,
            reserved: Vec::new(),
            quarantine_s: 3600,
            audit_keep_s: 0,
        }
    }
}
