//! Whether the VMs were prepared for the CA in use: a registry that came without its CA looks well
//! and lets nobody in.

use crate::control::api::condition::PartState;
use crate::edge::settings::VmCredential;
use crate::edge::shared::Shared;
use crate::registry::writer::{CommandRequest, Mode};
use crate::registry::{Command, Service};
use crate::ssh::publickey::Fingerprint;

/// The CA in use, if there is one.
pub(super) fn in_use(shared: &Shared) -> Option<Fingerprint> {
    match &shared.live.load().credential {
        VmCredential::Authority { ca, .. } => Some(ca.public().fingerprint()),
        VmCredential::Identity(_) => None,
    }
}

/// How it is: the CA in use, or what is wrong if the VMs were prepared for another one.
pub(super) fn is(service: &Service, shared: &Shared) -> (PartState, String) {
    let Some(in_use) = in_use(shared).map(|ca| ca.to_string()) else {
        return (PartState::Off, String::new());
    };
    service.read(|model| match model.registry().other_ca(&in_use, !model.vm_names().is_empty()) {
        Some(what) => (PartState::Down, what),
        None => (PartState::Up, in_use),
    })
}

/// Notes the CA that is used first, and says so when it is another later.
pub(super) fn check(service: &Service, shared: &Shared) {
    match is(service, shared) {
        (PartState::Off, _) => {}
        (PartState::Down, mismatch) => tracing::warn!("{mismatch}"),
        (PartState::Up, in_use) => {
            if service.read(|model| model.registry().ca.as_ref() == Some(&in_use)) {
                return;
            }
            let order = CommandRequest::of_itself(Command::CaConfirm { fingerprint: in_use });
            if let Err(failed) = service.carry_out(order, Mode::Real) {
                tracing::warn!("the CA in use is not noted in the registry: {failed}");
            }
        }
    }
}
