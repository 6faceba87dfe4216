//! Whether the VMs were prepared for the CA in use: a registry that came without its CA looks well and lets nobody in.

use crate::control::api::condition::PartState;
use crate::edge::shared::{Shared, VmCredential};
use crate::registry::service::{Actor, Mode, Order};
use crate::registry::{Command, Options, Service};
use crate::ssh::publickey::Fingerprint;

/// The CA in use, if there is one.
pub(super) fn in_use(shared: &Shared) -> Option<Fingerprint> {
    match &shared.live.load().credential {
        VmCredential::Authority { ca, .. } => Some(ca.public().fingerprint()),
        VmCredential::Identity(_) => None,
    }
}

/// What is wrong if the VMs were prepared for another CA than the one in use.
pub(super) fn mismatch(service: &Service, shared: &Shared) -> Option<String> {
    let in_use = in_use(shared)?.to_string();
    let model = service.model();
    let prepared_for = model.registry().ca.filter(|ca| *ca != in_use)?;
    (!model.vm_names().is_empty()).then(|| {
        format!(
            "the VMs of this registry were prepared for another CA, {prepared_for}, than the one in use, {in_use}, and may \
             let nobody in; fix: bring that CA back (keyway restore, keyway ca import, vm_leg.user_ca), or give the VMs the \
             one in use (keyway ca show --drop-in) and run `keyway ca confirm`"
        )
    })
}

/// How it is, for `keyway status`.
pub(super) fn is(service: &Service, shared: &Shared) -> (PartState, String) {
    match (in_use(shared), mismatch(service, shared)) {
        (None, _) => (PartState::Off, String::new()),
        (Some(ca), None) => (PartState::Up, ca.to_string()),
        (Some(_), Some(mismatch)) => (PartState::Down, mismatch),
    }
}

/// Notes the CA that is used first, and says so when it is another later.
pub(super) fn check(service: &Service, shared: &Shared) {
    if let Some(mismatch) = mismatch(service, shared) {
        tracing::warn!("{mismatch}");
        return;
    }
    let Some(in_use) = in_use(shared).map(|ca| ca.to_string()) else { return };
    if service.model().registry().ca.as_ref() == Some(&in_use) {
        return;
    }
    let actor = Actor { name: "keyway".to_owned(), from: "itself".to_owned() };
    let command = Command::CaConfirm { fingerprint: in_use };
    let order = Order { command, options: Options::default(), expected: None, actor };
    if let Err(failed) = service.carry_out(order, Mode::Real) {
        tracing::warn!("the CA in use is not noted in the registry: {failed}");
    }
}
