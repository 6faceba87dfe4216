//! Where the keys stand that checks of the whole file, or of two files, refer back to.

/// Lines of a `keyway.toml` or `agent.toml`.
pub(super) struct Lines {
    pub(super) listen: usize,
    pub(super) metrics: usize,
    /// Of `api.listen`.
    pub(super) api: usize,
    /// Of `api.socket`.
    pub(super) socket: usize,
    /// Of `api.peers`.
    pub(super) peers: usize,
    /// Of `dns.listen`.
    pub(super) dns: usize,
    /// Of `dns.ttl`, if it is given.
    pub(super) ttl: Option<usize>,
    /// Of `registry.quarantine_s`.
    pub(super) quarantine: usize,
    /// Of `sessions_max` or `half_open_max`.
    pub(super) counts: usize,
    /// Whether `networks` could be read, so that VM endpoints can be held against it.
    pub(super) networks_sound: bool,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            listen: 1,
            metrics: 1,
            api: 1,
            socket: 1,
            peers: 1,
            dns: 1,
            ttl: None,
            quarantine: 1,
            counts: 1,
            networks_sound: true,
        }
    }
}
