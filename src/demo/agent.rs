//! The agent of the demonstration: what `keyway agent` is, on one shard and loopback, beside the VM
//! that lies on a node.

use std::time::Duration;

use super::agent_identity::{Identity, STATE};
use super::directory::Directory;
use super::door::{SESSIONS_MAX, open, read};
use crate::config::{AgentFiles, LoadedAgent, load_agent};
use crate::edge::Edge;
use crate::serve;
use crate::serve::Failure;
use crate::ssh::publickey::PublicKey;

/// Its configuration file, as written.
pub(super) const FILE: &str = "agent.toml";

/// A running agent.
pub(super) struct Agent(Edge);

impl Agent {
    /// Starts it, for the front door whose identity is `edge` and that shows `host_key`. Who may go
    /// where is the front door's own fleet file.
    pub(super) fn start(
        identity: &Identity,
        directory: &Directory,
        (edge, host_key): (&PublicKey, &PublicKey),
        fleet: &str,
    ) -> Result<Self, Failure> {
        let Identity { state, address, .. } = identity;
        let config = format!(
            "# The agent of this demonstration, beside the VM on the node.\n\
             state_dir = \"{STATE}\"\nlisten = \"{address}\"\nedge_networks = [\"127.0.0.0/8\"]\n\
             edges = [\"{}\"]      # keyway identity\nhost_keys = [\"{}\"]  # keyway hostkey list\n\
             replica = \"{fleet}\"\nshards = 1\n\n[vm_leg]\ndial_timeout_s = 5\n\
             networks = [\"127.0.0.0/8\"]\n",
            edge.to_line(),
            host_key.to_line()
        );
        let config = directory.file(FILE, &config)?;
        let loaded = read(load_agent(&AgentFiles { config, fleet: None }))?;
        let LoadedAgent { config, fleet, .. } = loaded;
        let addresses = config.edge.listen.clone();
        let shared = serve::shared_by_agent(config, fleet, state, SESSIONS_MAX)?;
        let (edge, _counted) = open(&addresses, shared)?;
        Ok(Self(edge))
    }

    /// Ends all sessions.
    pub(super) fn close(self) {
        self.0.drain(Duration::ZERO, || ());
    }
}
