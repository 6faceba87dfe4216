//! The files of a front door read whole, for a start and for what only looks at them.

use std::path::{Path, PathBuf};

use super::finding::{Finding, Report};
use super::fleet::Fleet;
use super::reread::{self, Reread};
use super::source::{Location, Source, config_source, source, usual};
use super::{Config, Log, keyway};

/// The files of a front door.
#[derive(clap::Args, Clone, Debug, Eq, PartialEq)]
pub struct Files {
    /// How the front door runs [default: keyway.toml or /etc/keyway/keyway.toml, if there,
    /// else all defaults]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Who may go where: applied to the registry at start and at SIGHUP
    #[arg(long, value_name = "FILE")]
    pub fleet: Option<PathBuf>,
}

/// Both files, and what is worth a word in them.
#[derive(Debug)]
pub struct Loaded {
    /// From `keyway.toml`.
    pub config: Config,
    /// From `fleet.toml`, if one was named.
    pub fleet: Option<Fleet>,
    /// Not wrong, but the operator should know.
    pub warnings: Vec<Finding>,
    counts: Location,
}

impl Loaded {
    /// Adds a warning about `sessions_max` and `half_open_max`: what this host
    /// carries no file knows.
    pub fn warn_of_counts(&mut self, odd: (String, String)) {
        self.counts.warn(odd, &mut self.warnings);
    }
}

/// Reads `keyway.toml`, and a fleet file if one is named. Where no configuration is named, the
/// [`usual`] one is read if there is one; without it everything has its default.
///
/// # Errors
/// Everything that is wrong with either.
pub fn load(config: Option<&Path>, fleet: Option<&Path>) -> Result<Loaded, Report> {
    let config = config_source(config);
    let fleet = fleet.map(|fleet| source(fleet, 1)).transpose();
    match (config, fleet) {
        (Ok(config), Ok(fleet)) => load_sources(&config, fleet),
        (config, fleet) => {
            let faults = config.err().into_iter().chain(fleet.err()).collect();
            Err(Report { faults, warnings: Vec::new() })
        }
    }
}

pub(super) fn load_sources(
    config_source: &Source,
    fleet_source: Option<Source>,
) -> Result<Loaded, Report> {
    let reread = reread::sources(config_source, fleet_source.map(Ok));
    let Reread { config, fleet, warnings, counts, .. } = reread;
    match (config, fleet.transpose()) {
        (Ok(config), Ok(fleet)) => Ok(Loaded { config, fleet, warnings, counts }),
        (config, fleet) => {
            let mut faults = config.err().unwrap_or_default();
            faults.extend(fleet.err().unwrap_or_default());
            Err(Report { faults, warnings })
        }
    }
}

/// Reads `keyway.toml` alone, for what needs no fleet.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_config(config: &Path) -> Result<(Config, Vec<Finding>), Report> {
    let source =
        source(config, 0).map_err(|fault| Report { faults: vec![fault], warnings: Vec::new() })?;
    let (findings, draft) = keyway::read(&source);
    let (mut faults, mut warnings) = findings.into_findings();
    faults.sort();
    warnings.sort();
    if faults.is_empty() {
        Ok((draft.finish(), warnings))
    } else {
        Err(Report { faults, warnings })
    }
}

/// How the log of the front door of this `keyway.toml` looks, or of the usual one: what is said
/// about its faults is to look the same. Whatever cannot be read is as if it were not there.
#[must_use]
pub fn log(config: Option<&Path>) -> Log {
    let source = config.or_else(usual).and_then(|config| source(config, 0).ok());
    source.map_or(Log::Auto, |source| keyway::read_log(&source))
}

/// Reads both texts as [`load`] reads files.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(config: &[u8], fleet: &[u8]) {
    let source = |text: &[u8], order| Source {
        name: "fuzz.toml".to_owned(),
        order,
        base: PathBuf::new(),
        text: String::from_utf8_lossy(text).into_owned(),
    };
    let _read_or_faults = load_sources(&source(config, 0), Some(source(fleet, 1)));
}
