//! What the files take away while a process runs or drains: who is let in no more, whatever else is
//! wrong with them.

use std::path::Path;

use crate::config::{self, Reread, Rights};
use crate::edge::Edge;
use crate::edge::settings::Live;
use crate::edge::shared::Shared;
use crate::ssh::publickey::PublicKey;
use crate::ssh::revocation::Revocations;
use crate::ssh::userauth::Policy;
use crate::state::State;

/// What came of a part: what was done, or why it was not.
pub(super) type Told = Result<Vec<String>, Vec<String>>;

/// Says which files are in force, for a predecessor that still drains.
pub(super) fn follow_files(state: &State, config: Option<&Path>) {
    let whole = std::path::absolute(config.unwrap_or(Path::new(""))).unwrap_or_default();
    if let Err(fault) = state.follow_files(&whole) {
        tracing::warn!("a keyway that drains on this directory is not told of the files: {fault}");
    }
}

/// What a process that drains reads again: who is let in no more, of its own files or those
/// of its successor.
pub(super) fn follow(edge: &Edge, shared: &Shared, config: &Path, last: Option<&Path>) {
    let Reread { rights, config, .. } = config::reread(Some(config), None, last);
    let whole = config.as_ref().ok().map(|config| &config.edge);
    log(withdraw(edge, shared, rights, whole));
}

/// What the log says of that.
pub(super) fn log(told: Told) {
    match told {
        Ok(_) => tracing::info!("reloaded while draining: revocations"),
        Err(why) => {
            for why in why {
                tracing::error!("not reloaded: {why}");
            }
        }
    }
}

/// Takes away what the file takes away, whatever else is wrong with it: without a `whole` file
/// nothing comes back, and nobody new is let in.
pub(super) fn withdraw(
    edge: &Edge,
    shared: &Shared,
    rights: Rights,
    whole: Option<&config::Edge>,
) -> Told {
    let mut unknown = Vec::new();
    if rights.revocations.is_none() {
        let what =
            "revoked_keys cannot be read: what was revoked before stays revoked, and no more is";
        unknown.push(what.to_owned());
    }
    if rights.trusted_user_cas.is_none() {
        let what = "trusted_user_cas cannot be read: those that were trusted before stay trusted";
        unknown.push(what.to_owned());
    }
    let before = shared.live.load_full();
    let mut policy = Policy::clone(&before.policy);
    if let Some(whole) = whole {
        policy.revocations.clone_from(&whole.revocations);
        policy.cas.clone_from(&whole.trusted_user_cas);
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

/// What is revoked is so from now on, whatever was before; a CA that is not named is
/// trusted no more.
pub(super) fn narrow(revocations: &mut Revocations, cas: &mut Vec<PublicKey>, rights: Rights) {
    let Rights { revocations: more, trusted_user_cas } = rights;
    revocations.extend(more.unwrap_or_default());
    if let Some(named) = trusted_user_cas {
        cas.retain(|ca| named.contains(ca));
    }
}
