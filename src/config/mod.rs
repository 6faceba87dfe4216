//! Files -> a [`Config`] and a [`Fleet`], which cannot be wrong; or everything that is
//! wrong with them.
//!
//! `keyway.toml` says how this front door runs, `agent.toml` how an agent does, `fleet.toml` who
//! may go where. Each is walked once, all faults are told together with their lines, and what comes
//! out needs no further check: key files are read and parsed, numbers are in range, names and
//! addresses do not contradict each other. A reload is the same walk again. Nothing here creates a
//! file; see [`crate::state`] for what is made once.
//!
//! Paths in a file are meant from the file's own directory.

mod agent;
mod api;
mod dns;
mod document;
mod domain_name;
mod door;
mod finding;
mod fleet;
mod fleet_values;
mod found;
mod keys;
mod keyway;
mod lines;
mod load;
mod reread;
mod sections;
mod source;
mod values;

pub use self::agent::{
    AgentConfig, AgentFiles, AgentReread, AgentRights, Control, Joining, LoadedAgent, Logins, Of,
    Replica, agent_log, is_agents, load_agent, load_joining, load_logins, reread_agent,
};
pub use self::domain_name::DomainName;
pub use self::finding::{Finding, Report};
pub use self::fleet::{Fleet, read_fleet};
pub use self::found::{Found, find};
pub(crate) use self::keyway::{SOCKET, STATE_DIR};
#[cfg(any(test, fuzzing))]
pub(crate) use self::load::fuzz;
pub use self::load::{Files, Loaded, load, load_config, log};
pub use self::reread::{Reread, Rights, reread};
pub use self::sections::{
    Api, ApiTls, Config, Count, Dns, Edge, FleetFile, HostKeys, Log, Metrics, NameServer, Nodes,
    Peer, PreferGcm, Principals, Registry, Secondary, UserCa, VmCredential, VmLeg,
};
pub use self::source::usual;

#[cfg(test)]
mod reread_tests;
#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
