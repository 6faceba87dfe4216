//! The files of a front door that runs, read again: what takes access away first and by itself,
//! then each part as a whole or not at all. SIGHUP and `keyway reload` do the same.

use super::door::live;
use super::fixed::Fixed;
use super::rights::{self, Told};
use super::start::{FAULTS, Failure};
use super::{Running, told};
use crate::config::{self, Config, Files, Reread};
use crate::control::api::condition::{PartReloaded, Reload, Reloaded, Renewal, Renewed};

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
            let whole = config.as_ref().ok().map(|config| &config.edge);
            let told = rights::withdraw(&self.edge, &self.shared, rights, whole);
            reloaded.part(Renewed::Revocations, told);
        }
        match config {
            Ok(config) => {
                reloaded.part(Renewed::Config, Ok(Vec::new()));
                reloaded.restart = self.fixed.unlike(&Fixed::of(&config));
                if !dry {
                    self.revoked_keys.clone_from(&config.edge.revoked_keys);
                    let api = self.plane.renew(&config.api);
                    reloaded.part(Renewed::Door, words(self.renew_door(config)));
                    reloaded.part(Renewed::Api, words(api));
                    reloaded.part(Renewed::Dns, words(self.plane.renew_names()));
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
            // Whoever follows, or drains, takes away the same.
            self.plane.tell_front_door();
            rights::follow_files(&self.state, self.files.config.as_deref().or_else(config::usual));
        }
        reloaded.log();
        reloaded
    }

    fn renew_door(&self, config: Config) -> Result<(), Failure> {
        let Config { edge, vm_leg, .. } = config;
        self.edge.renew(live(edge, vm_leg, &self.shared.table, &self.state)?);
        self.plane.check_ca();
        Ok(())
    }
}

fn words(result: Result<(), Failure>) -> Told {
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
        if self.dry_run {
            return self.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        }
        let parts = self.parts.iter().map(|it| (it.part.as_str(), it.result, &*it.details));
        let parts: Vec<_> = parts.collect();
        told::reloaded(&self.warnings, &parts, &self.restart);
    }
}
