//! The files read again while a front door runs: each part by itself, so that a fault in one keeps
//! no other from being used.
//!
//! What takes access away is read twice: once with everything, and once alone. A missing
//! certificate or a misspelt VM must not keep a stolen key in.

use std::path::Path;

use super::document::{Document, Section};
use super::door::{self, Get};
use super::source::{Location, Source, config_source, source};
use super::{Config, Finding, Fleet, fleet, keys, keyway};
use crate::ssh::publickey::PublicKey;
use crate::ssh::revocation::Revocations;

/// What the files hold now.
#[derive(Debug)]
pub struct Reread {
    /// Who is let in no more, as far as that can be read whatever else is wrong.
    pub rights: Rights,
    /// `keyway.toml`, or everything that is wrong with it.
    pub config: Result<Config, Vec<Finding>>,
    /// The fleet file if one was named. Without faults of its own it is none if `keyway.toml` has
    /// any: one is held against the other.
    pub fleet: Option<Result<Fleet, Vec<Finding>>>,
    /// Not wrong, but the operator should know.
    pub warnings: Vec<Finding>,
    pub(super) counts: Location,
}

/// What `keyway.toml` says of who is let in no more.
#[derive(Debug, Default)]
pub struct Rights {
    /// `edge.revoked_keys`; nothing if it cannot be read.
    pub revocations: Option<Revocations>,
    /// `edge.trusted_user_cas`; nothing if that cannot be read.
    pub trusted_user_cas: Option<Vec<PublicKey>>,
}

/// Reads the files again. `revoked_keys`: the list that was used last, for when
/// `keyway.toml` no longer says.
pub fn reread(config: Option<&Path>, fleet: Option<&Path>, revoked_keys: Option<&Path>) -> Reread {
    let (config, fleet) = (config_source(config), fleet.map(|fleet| source(fleet, 1)));
    match config {
        Ok(config) => {
            let rights = rights_of(&config, revoked_keys);
            Reread { rights, ..sources(&config, fleet) }
        }
        Err(fault) => Reread {
            rights: Rights { revocations: last(revoked_keys), trusted_user_cas: None },
            config: Err(vec![fault]),
            fleet: fleet.map(|fleet| Err(fleet.err().into_iter().collect())),
            warnings: Vec::new(),
            counts: Location::default(),
        },
    }
}

/// Everything but [`Reread::rights`].
pub(super) fn sources(
    config_source: &Source,
    fleet_source: Option<Result<Source, Finding>>,
) -> Reread {
    let (findings, draft) = keyway::read(config_source);
    let (mut more, mut fleet) = (Vec::new(), None);
    if let Some(fleet_source) = fleet_source {
        fleet = Some(fleet_source.map_err(|fault| vec![fault]).and_then(|fleet_source| {
            let (findings, fleet) = fleet::read(&fleet_source, &findings, &draft);
            let (mut faults, warnings) = findings.into_findings();
            more = warnings;
            faults.sort();
            fleet.filter(|_| faults.is_empty()).ok_or(faults)
        }));
    }
    let (mut faults, mut warnings) = findings.into_findings();
    faults.sort();
    warnings.append(&mut more);
    warnings.sort();
    let Source { name, order, .. } = config_source;
    let counts = Location { file: name.as_str().into(), order: *order, line: draft.lines.counts };
    let config = if faults.is_empty() { Ok(draft.finish()) } else { Err(faults) };
    if config.is_err() {
        fleet = fleet.map(|fleet| Err(fleet.err().unwrap_or_default()));
    }
    Reread { rights: Rights::default(), config, fleet, warnings, counts }
}

/// The two keys of `keyway.toml` that take access away, and nothing else.
fn rights_of(source: &Source, revoked_keys: Option<&Path>) -> Rights {
    let document = Document::new(&source.name, source.order, &source.text);
    let table = document.parse(&source.text);
    let section = Section::root(&document, &table).section("edge");
    let get = |key| section.as_ref().and_then(|section| section.get(key));
    rights(&document, &get, &source.base, revoked_keys)
}

/// The same two, wherever they stand in a document of which nothing else was looked at.
pub(super) fn rights<'d, 'i: 'd>(
    document: &Document,
    get: Get<'_, 'd, 'i>,
    base: &Path,
    revoked_keys: Option<&Path>,
) -> Rights {
    if document.faults_found() > 0 {
        // Any key may be missing through no fault of its own: only what was named before is sure.
        return Rights { revocations: last(revoked_keys), trusted_user_cas: None };
    }
    let (_, revocations) = door::revocations(get, base);
    let faults = document.faults_found();
    let cas = door::trusted_user_cas(get);
    Rights {
        revocations: (faults == 0).then_some(revocations),
        trusted_user_cas: (document.faults_found() == faults).then_some(cas),
    }
}

pub(super) fn last(revoked_keys: Option<&Path>) -> Option<Revocations> {
    keys::read_revocations(revoked_keys?).ok()
}
