//! What an agent's files say now: what takes access away, and what a start begins with
//! that had to wait.

use super::super::rights::{self, Told};
use crate::config::{
    AgentConfig, AgentFiles, AgentReread, AgentRights, Finding, Fleet, reread_agent,
};
use crate::edge::Edge;
use crate::edge::handoff::{Part, Trusted};
use crate::edge::shared::Shared;

/// Takes away what the file takes away, whatever else is wrong with it: without a `whole` file
/// nothing comes back, and nobody new is believed.
pub(super) fn withdraw(
    edge: &Edge,
    shared: &Shared,
    rights: AgentRights,
    whole: Option<&AgentConfig>,
) -> Told {
    let AgentRights { users, edges, host_keys } = rights;
    let mut unknown = Vec::new();
    if let Part::Agent(agent) = &shared.part {
        let before = agent.trusted();
        let trusted = match whole {
            Some(AgentConfig { edges, host_keys, .. }) => {
                Trusted { edges: edges.iter().copied().collect(), host_keys: host_keys.clone() }
            }
            None => Trusted {
                edges: narrowed("edges", &before.edges, edges.as_deref(), &mut unknown),
                host_keys: narrowed(
                    "host_keys",
                    &before.host_keys,
                    host_keys.as_deref(),
                    &mut unknown,
                ),
            },
        };
        agent.trust(trusted);
    }
    let told = rights::withdraw(edge, shared, users, whole.map(|config| &config.edge));
    unknown.extend(told.err().unwrap_or_default());
    if unknown.is_empty() { Ok(Vec::new()) } else { Err(unknown) }
}

/// Those of `before` that are `named` still. Whether they are cannot be known of a list that cannot
/// be read.
fn narrowed<'b, T: Clone + PartialEq + 'b, All: FromIterator<T>>(
    what: &str,
    before: impl IntoIterator<Item = &'b T>,
    named: Option<&[T]>,
    unknown: &mut Vec<String>,
) -> All {
    if named.is_none() {
        unknown.push(format!("{what} cannot be read: those that were believed stay so"));
    }
    let stays = |one: &&T| named.is_none_or(|named| named.contains(one));
    before.into_iter().filter(stays).cloned().collect()
}

/// The files as they are now, for a start that had to wait since it read them: what was taken away
/// meanwhile must not come back. What was taken before the wait stays until a restart.
pub(super) fn read_again(
    files: &AgentFiles,
    before: AgentConfig,
    fleet: Option<Fleet>,
) -> (AgentConfig, Option<Fleet>) {
    let AgentReread { rights, config, fleet: now, warnings, .. } =
        reread_agent(files, before.edge.revoked_keys.as_deref());
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let not_taken = |faults: &[Finding]| {
        for fault in faults {
            tracing::error!("changed while this agent waited, and not taken: {fault}");
        }
    };
    let config = match config {
        // What it was told to judge by was looked at with the rest.
        Ok(config) if config.replica != before.replica => {
            tracing::error!("changed while this agent waited, and not taken: what it judges by");
            before
        }
        Ok(mut config) => {
            config.state_dir = before.state_dir;
            config.edge.listen = before.edge.listen;
            config.edge.shards = before.edge.shards;
            config
        }
        Err(faults) => {
            not_taken(&faults);
            let mut config = before;
            let AgentRights { users, edges, host_keys } = rights;
            let edge = &mut config.edge;
            rights::narrow(&mut edge.revocations, &mut edge.trusted_user_cas, users);
            if let Some(named) = edges {
                config.edges.retain(|key| named.contains(key));
            }
            if let Some(named) = host_keys {
                config.host_keys.retain(|key| named.contains(key));
            }
            config
        }
    };
    let fleet = match now {
        Some(Ok(now)) => Some(now),
        Some(Err(faults)) => {
            not_taken(&faults);
            fleet
        }
        None => fleet,
    };
    (config, fleet)
}
