//! The files of an agent that runs, read again: what takes access away first and by itself, then
//! each file as a whole or not at all.

use super::super::door::{identity, live};
use super::super::fixed::Fixed;
use super::super::rights::{self, Told};
use super::super::start::Failure;
use super::super::told;
use super::pins::InFile;
use super::{Map, Running, again};
use crate::config::{AgentConfig, AgentReread, Finding, Fleet, Replica, reread_agent};
use crate::control::api::condition::Renewal;

/// Why a part is left as it is that has no faults of its own.
const FAULTS: &str = "agent.toml has faults";

impl Running {
    /// Reads the files again and renews what can be renewed.
    pub(super) fn read_again(&mut self) {
        let AgentReread { rights, config, fleet, warnings, .. } =
            reread_agent(&self.files, self.revoked_keys.as_deref());
        let follows = matches!(self.map, Map::Feed(_));
        let otherwise =
            |config: &&AgentConfig| matches!(config.replica, Replica::Feed(_)) != follows;
        if config.as_ref().is_ok_and(|config| otherwise(&config)) {
            tracing::error!(
                "not reloaded: what it judges by, replica or [control], takes a restart"
            );
            return;
        }
        let mut parts = Vec::new();
        if !follows {
            let told = again::withdraw(&self.edge, &self.shared, rights, config.as_ref().ok());
            parts.push(part("revocations, edges and host keys", told));
        }
        let mut restart = Vec::new();
        match config {
            Ok(config) => {
                restart = self.fixed.unlike(&Fixed::of_agent(&config));
                self.revoked_keys.clone_from(&config.edge.revoked_keys);
                parts.push(part("agent.toml", words(self.renew(config))));
            }
            Err(faults) => parts.push(part("agent.toml", Err(lines(&faults)))),
        }
        let replica = "replica";
        if let Map::File(pins) = &self.map {
            parts.push(match fleet {
                Some(Ok(fleet)) => part(replica, words(self.replace(pins, &fleet))),
                Some(Err(faults)) => part(replica, Err(lines(&faults))),
                None => (replica, Renewal::Skipped, vec![FAULTS.to_owned()]),
            });
        }
        // Whoever drains takes away the same.
        rights::follow_files(&self.state, Some(&self.files.config));
        let parts = parts.iter().map(|(name, result, details)| (*name, *result, &**details));
        let parts: Vec<_> = parts.collect();
        let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        told::reloaded(&warnings, &parts, &restart);
    }

    fn renew(&self, config: AgentConfig) -> Result<(), Failure> {
        let AgentConfig { mut edge, vm_leg, .. } = config;
        edge.host_keys = identity(&self.state)?;
        if let Map::Feed(_) = self.map {
            // They come with the feed.
            let policy = &self.shared.live.load().policy;
            edge.revocations = policy.revocations.clone();
            edge.trusted_user_cas.clone_from(&policy.cas);
        }
        self.edge.renew(live(edge, vm_leg, &self.shared.table, &self.state)?);
        Ok(())
    }

    fn replace(&self, pins: &InFile, fleet: &Fleet) -> Result<(), Failure> {
        pins.read_again(&self.state)?;
        self.edge.replace(pins.map_of(fleet)?);
        Ok(())
    }
}

fn part(name: &'static str, told: Told) -> (&'static str, Renewal, Vec<String>) {
    match told {
        Ok(details) => (name, Renewal::Done, details),
        Err(details) => (name, Renewal::Failed, details),
    }
}

fn words(result: Result<(), Failure>) -> Told {
    result.map(|()| Vec::new()).map_err(|failure| vec![failure.to_string()])
}

fn lines(faults: &[Finding]) -> Vec<String> {
    faults.iter().map(ToString::to_string).collect()
}
