//! Whether the VMs were prepared for the CA in use: a registry that came without its CA looks well and lets nobody in.

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

/// Notes the CA that is used first, and says so when it is another later.
pub(super) fn check(service: &Service, shared: &Shared) {
    let Some(in_use) = in_use(shared).map(|ca| ca.to_string()) else { return };
    let (prepared_for, vms) = {
        let model = service.model();
        (model.registry().ca, model.vm_names().len())
    };
    match prepared_for {
        Some(prepared_for) if prepared_for == in_use => {}
        Some(prepared_for) if vms > 0 => tracing::warn!(
            in_use,
            prepared_for,
            "the VMs of this registry were prepared for another CA and may let nobody in; fix: bring that CA back (keyway \
             restore, keyway ca import, vm_leg.user_ca), or give the VMs the one in use (keyway ca show --drop-in) and run \
             `keyway ca confirm`"
        ),
        Some(_) | None => {
            let actor = Actor { name: "keyway".to_owned(), from: "itself".to_owned() };
            let command = Command::CaConfirm { fingerprint: in_use };
            let order = Order { command, options: Options::default(), expected: None, actor };
            if let Err(failed) = service.carry_out(order, Mode::Real) {
                tracing::warn!("the CA in use is not noted in the registry: {failed}");
            }
        }
    }
}
