//! Host keys that VMs show at their first use go into the registry, and from there into the routing map.

use std::sync::{OnceLock, Weak};

use crate::edge::shared::{FirstUse, Shown};
use crate::registry::command::Dialled;
use crate::registry::refusal::Refusal;
use crate::registry::service::{Actor, Failed, Mode, Order};
use crate::registry::{Command, Options, Service};
use crate::route::Vm;
use crate::ssh::publickey::PublicKey;

/// The registry, once it is open, and for as long as this process has it.
#[derive(Default)]
pub(super) struct InRegistry(pub(super) OnceLock<Weak<Service>>);

impl FirstUse for InRegistry {
    fn shown(&self, vm: &Vm, key: &PublicKey) -> Shown {
        let Some(service) = self.0.get().and_then(Weak::upgrade) else {
            return Shown::Failed { why: "the registry is not open".to_owned() };
        };
        let dialled = Dialled { owner: vm.owner.clone(), endpoint: vm.endpoint.clone() };
        let order = Order {
            command: Command::VmPin { id: vm.id.clone(), key: key.to_line(), dialled },
            options: Options::default(),
            expected: None,
            actor: Actor { name: "keyway".to_owned(), from: "first use".to_owned() },
        };
        match service.carry_out(order, Mode::Real) {
            Ok(_) => Shown::Pinned,
            Err(Failed::Refused(Refusal::HostKeyTaken { of, .. })) => {
                Shown::OfOtherOwner { vm: of.to_string() }
            }
            Err(Failed::Refused(Refusal::HostKeyOther { .. })) => Shown::Other,
            Err(failed) => Shown::Failed { why: failed.to_string() },
        }
    }
}
