//! The files of a front door that runs, read again: what takes access away first and by itself, then each part as a whole
//! or not at all. SIGHUP and `keyway reload` do the same.

use std::path::Path;

use crate::config::{self, Config, Files, Finding, Fleet, Reread, Rights};
use crate::control::api::condition::{
    NeedsRestart, PartReloaded, Reload, Reloaded, Renewal, Renewed,
};
use crate::edge::Edge;
use crate::edge::settings::Live;
use crate::edge::shared::Shared;
use crate::ssh::publickey::PublicKey;
use crate::ssh::revocation::Revocations;
use crate::ssh::userauth::Policy;
use crate::state::State;

use super::fixed::Fixed;
use super::{Failure, Running, live};

/// Why a part is left as it is that has no faults of its own.
const FAULTS: &str = "keyway.toml has faults";

/// What came of a part: what was done, or why it was not.
pub(super) type Told = Result<Vec<String>, Vec<String>>;

impl Running {
    /// Reads the files again and renews what can be renewed.
    pub(super) fn reload(&mut self, order: Reload) -> Reloaded {
        let Files { config, fleet } = &self.files;
        let last = self.revoked_keys.as_deref();
        let read = config::reread(config.as_deref(), fleet.as_deref(), last);
        let Reread { rights, config, fleet, warnings, .. } = read;
        let mut reloaded = Reloaded {
            done: true,
            dry_run: order.dry_run,
            parts: Vec::new(),
            plan: None,
            restart: Vec::new(),
            warnings: warnings.iter().map(ToString::to_string).collect(),
        };
        let dry = order.dry_run;
        let most = config.as_ref().map(|it| it.fleet_file.removals_max).unwrap_or_default();
        if !dry {
            let told = withdraw_rights(&self.edge, &self.shared, rights, config.as_ref().ok());
            reloaded.part(Renewed::Revocations, told);
        }
        match config {
            Ok(config) => {
                reloaded.part(Renewed::Config, Ok(Vec::new()));
                reloaded.restart = self.fixed.unlike(&Fixed::of(&config));
                if !dry {
                    self.revoked_keys.clone_from(&config.edge.revoked_keys);
                    let api = self.plane.renew(&config.api);
                    reloaded.part(Renewed::Door, told(self.renew_door(config)));
                    reloaded.part(Renewed::Api, told(api));
                    reloaded.part(Renewed::Dns, told(self.plane.renew_names()));
                }
            }
            Err(faults) => {
                let faults = faults.iter().map(ToString::to_string).collect();
                reloaded.part(Renewed::Config, Err(faults));
                for part in [Renewed::Door, Renewed::Api, Renewed::Dns].into_iter().filter(|_| !dry)
                {
                    reloaded.skipped(part, FAULTS);
                }
            }
        }
        match fleet {
            None => {}
            Some(Ok(fleet)) => {
                let (applied, held) = self.plane.apply(&fleet.desired, most, order);
                reloaded.plan = held.map(|plan| plan.to_string());
                if !dry {
                    self.health.fleet_file_is(Some(applied.clone()));
                }
                let lines = |text: String| text.lines().map(str::to_owned).collect();
                reloaded.part(Renewed::FleetFile, applied.map(lines).map_err(lines));
            }
            Some(Err(faults)) if faults.is_empty() => {
                reloaded.skipped(Renewed::FleetFile, FAULTS);
            }
            Some(Err(faults)) => {
                let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                if !dry {
                    self.health.fleet_file_is(Some(Err(faults.join("\n"))));
                }
                reloaded.part(Renewed::FleetFile, Err(faults));
            }
        }
        if !dry {
            // Whoever drains takes away the same.
            follow_files(&self.state, &self.files);
        }
        reloaded.log();
        reloaded
    }

    fn renew_door(&self, config: Config) -> Result<(), Failure> {
        self.edge.renew(live(config, &self.shared.table, &self.state)?);
        self.plane.check_ca();
        Ok(())
    }
}

/// Says which files are in force, for a predecessor that still drains.
pub(super) fn follow_files(state: &State, files: &Files) {
    let config = files.config.as_deref().or_else(config::usual).unwrap_or(Path::new(""));
    let whole = std::path::absolute(config).unwrap_or_default();
    if let Err(fault) = state.follow_files(&whole) {
        tracing::warn!("a keyway that drains on this directory is not told of the files: {fault}");
    }
}

/// What a process that drains reads again: who is let in no more, of its own files or those of its successor.
pub(super) fn follow(edge: &Edge, shared: &Shared, config: &Path, last: Option<&Path>) {
    let Reread { rights, config, .. } = config::reread(Some(config), None, last);
    match withdraw_rights(edge, shared, rights, config.as_ref().ok()) {
        Ok(_) => tracing::info!("reloaded while draining: revocations"),
        Err(why) => {
            for why in why {
                tracing::error!("not reloaded: {why}");
            }
        }
    }
}

/// Takes away what the file takes away, whatever else is wrong with it: without a `whole` file nothing comes back, and
/// nobody new is let in.
pub(super) fn withdraw_rights(
    edge: &Edge,
    shared: &Shared,
    rights: Rights,
    whole: Option<&Config>,
) -> Told {
    let mut unknown = Vec::new();
    if rights.revocations.is_none() {
        let what = "edge.revoked_keys cannot be read: what was revoked before stays revoked, and no more is";
        unknown.push(what.to_owned());
    }
    if rights.trusted_user_cas.is_none() {
        let what =
            "edge.trusted_user_cas cannot be read: those that were trusted before stay trusted";
        unknown.push(what.to_owned());
    }
    let before = shared.live.load_full();
    let mut policy = Policy::clone(&before.policy);
    if let Some(whole) = whole {
        policy.revocations.clone_from(&whole.edge.revocations);
        policy.cas.clone_from(&whole.edge.trusted_user_cas);
    } else {
        narrow(&mut policy.revocations, &mut policy.cas, rights);
    }
    edge.renew(Live {
        server: before.server.clone(),
        policy: policy.into(),
        credential: before.credential.clone(),
        source_address: before.source_address.clone(),
    });
    if unknown.is_empty() { Ok(Vec::new()) } else { Err(unknown) }
}

/// What is revoked is so from now on, whatever was before; a CA that is not named is trusted no more.
fn narrow(revocations: &mut Revocations, cas: &mut Vec<PublicKey>, rights: Rights) {
    let Rights { revocations: more, trusted_user_cas } = rights;
    revocations.extend(more.unwrap_or_default());
    if let Some(named) = trusted_user_cas {
        cas.retain(|ca| named.contains(ca));
    }
}

/// What a start works with.
pub(super) struct StartsFrom {
    pub(super) config: Config,
    /// Why the fleet file is not applied, if it is not.
    pub(super) fleet: Option<Result<Fleet, String>>,
}

impl StartsFrom {
    /// The files as they are now, for a start that had to wait since it read them: what was taken away meanwhile must not
    /// come back. As at a reload, a `keyway.toml` with faults leaves all as it was but what is revoked, and a fleet file with
    /// faults leaves the registry as it is. What was taken before the wait stays until a restart.
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
                Fixed::of(&config).unlike(&file).iter().for_each(takes_a_restart);
                config
            }
            Err(faults) => {
                for fault in faults {
                    tracing::error!("changed while this keyway waited, and not taken: {fault}");
                }
                let mut config = before;
                let edge = &mut config.edge;
                narrow(&mut edge.revocations, &mut edge.trusted_user_cas, rights);
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

fn takes_a_restart(key: &NeedsRestart) {
    let NeedsRestart { key, running, file } = key;
    tracing::warn!(
        "{key} takes a restart: \"{running}\" stays in force, and the file says \"{file}\""
    );
}

fn told(result: Result<(), Failure>) -> Told {
    result.map(|()| Vec::new()).map_err(|failure| vec![failure.to_string()])
}

impl Reloaded {
    fn part(&mut self, part: Renewed, told: Told) {
        let (result, details) = match told {
            Ok(details) => (Renewal::Done, details),
            Err(details) => (Renewal::Failed, details),
        };
        self.done &= result == Renewal::Done;
        self.parts.push(PartReloaded { part, result, details });
    }

    fn skipped(&mut self, part: Renewed, why: &str) {
        let details = vec![why.to_owned()];
        self.parts.push(PartReloaded { part, result: Renewal::Skipped, details });
    }

    /// One line for each thing that is not as the files say, and one for the whole.
    fn log(&self) {
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
        if self.dry_run {
            return;
        }
        for part in &self.parts {
            for detail in &part.details {
                let name = part.part.as_str();
                match part.result {
                    Renewal::Done => tracing::info!("{name}: {detail}"),
                    Renewal::Failed => tracing::error!("not reloaded: {name}: {detail}"),
                    Renewal::Skipped => tracing::warn!("not reloaded: {name}: {detail}"),
                }
            }
        }
        self.restart.iter().for_each(takes_a_restart);
        let done = self.parts.iter().filter(|part| part.result == Renewal::Done);
        let done: Vec<&str> = done.map(|part| part.part.as_str()).collect();
        let done = done.join(", ");
        if self.done && self.restart.is_empty() {
            tracing::info!("reloaded: {done}");
        } else {
            tracing::warn!("reloaded in part: {done}; see the lines above for the rest");
        }
    }
}
