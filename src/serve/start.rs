//! What a front door starts from, and why it ends.

use super::fixed::Fixed;
use super::{rights, told};
use crate::config::{self, Config, Files, Finding, Fleet, Loaded, Reread};

/// Why a part is left as it is that has no faults of its own.
pub(super) const FAULTS: &str = "keyway.toml has faults";

/// What `serve` starts from.
#[derive(Debug)]
pub struct Start {
    /// Read again at SIGHUP, with [`crate::config::load`].
    pub files: Files,
    /// What they hold now. Its warnings are to be logged.
    pub loaded: Loaded,
}

/// Why a role ended other than as it should: one line for stderr.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a start works with.
pub(super) struct StartsFrom {
    pub(super) config: Config,
    /// Why the fleet file is not applied, if it is not.
    pub(super) fleet: Option<Result<Fleet, String>>,
}

impl StartsFrom {
    /// The files as they are now, for a start that had to wait since it read them: what was taken
    /// away meanwhile must not come back. As at a reload, a `keyway.toml` with faults leaves all as
    /// it was but what is revoked, and a fleet file with faults leaves the registry as it is. What
    /// was taken before the wait stays until a restart.
    pub(super) fn read_again(files: &Files, before: Config) -> Self {
        let last = before.edge.revoked_keys.as_deref();
        let read = config::reread(files.config.as_deref(), files.fleet.as_deref(), last);
        let Reread { rights, config, fleet, warnings, .. } = read;
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        let config = match config {
            Ok(mut config) => {
                let file = Fixed::of(&config);
                config.state_dir = before.state_dir;
                config.edge.listen = before.edge.listen;
                config.edge.shards = before.edge.shards;
                Fixed::of(&config).unlike(&file).iter().for_each(told::takes_a_restart);
                config
            }
            Err(faults) => {
                for fault in faults {
                    tracing::error!("changed while this keyway waited, and not taken: {fault}");
                }
                let mut config = before;
                let edge = &mut config.edge;
                rights::narrow(&mut edge.revocations, &mut edge.trusted_user_cas, rights);
                config
            }
        };
        let lines = |faults: Vec<Finding>| {
            let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
            if lines.is_empty() { FAULTS.to_owned() } else { lines.join("\n") }
        };
        Self { config, fleet: fleet.map(|fleet| fleet.map_err(lines)) }
    }
}
