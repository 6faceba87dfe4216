//! The live routing map as the names of the DNS zone.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::control::dns::{Addresses, Entry, Label, Names, PointsAt};
use crate::edge::shared::Shared;
use crate::route::{Address, Table};

/// Names from the map that the shards route by.
pub(super) struct LiveNames {
    pub(super) shared: Arc<Shared>,
    /// The registry's revision: the map's own begins anew with every start, and a serial
    /// must not go back.
    pub(super) revision: Arc<AtomicU64>,
}

impl Names for LiveNames {
    fn vm(&self, name: &Label) -> Option<PointsAt> {
        points_at(&self.shared.table, name)
    }

    fn address(&self, name: &Label) -> Option<Addresses> {
        self.shared.table.address_named(name.as_str()).map(|address| addresses(&address))
    }

    fn serial(&self) -> u32 {
        // RFC 1982: modulo 2^32.
        u32::try_from(self.revision.load(Ordering::Relaxed) & u64::from(u32::MAX)).unwrap_or(0)
    }

    fn walk(&self, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) {
        for address in self.shared.table.addresses() {
            let entry = label(&address.name).map(|name| Entry::Address(name, addresses(&address)));
            if entry.is_some_and(|entry| visit(entry).is_break()) {
                return;
            }
        }
        let mut all = Vec::new();
        self.shared.table.zone(&mut |vm| {
            all.extend(label(&vm.name).zip(vm.address.as_deref().and_then(label)));
        });
        for (vm, address) in all {
            if visit(Entry::Vm(vm, address)).is_break() {
                return;
            }
        }
    }
}

/// A VM in maintenance has its name and address as before: whoever resolves it is told at the door,
/// and not that there is no such name.
fn points_at(table: &Table, name: &Label) -> Option<PointsAt> {
    let vm = table.vm(name.as_str())?;
    let address = table.address_named(vm.address.as_deref()?)?;
    Some(PointsAt { name: label(&address.name)?, addresses: addresses(&address) })
}

fn label(name: &str) -> Option<Label> {
    Label::new(name.as_bytes())
}

fn addresses(address: &Address) -> Addresses {
    let mut addresses = Addresses::default();
    for ip in [Some(address.public), address.public6].into_iter().flatten() {
        match ip {
            IpAddr::V4(v4) => addresses.v4 = Some(v4),
            IpAddr::V6(v6) => addresses.v6 = Some(v6),
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::document::{AddressState, VmState};
    use crate::registry::fleet::Fleet;
    use crate::route::Snapshot;

    #[test]
    fn what_is_in_maintenance_keeps_its_name() {
        let fleet = |state: &str| {
            let text = format!(
                "[[address]]\nname='s001'\npublic='192.0.2.1'\npublic6='2001:db8::1'\n[[user]]\nname='alice'\n\
                 [[vm]]\nname='blue'\nowner='alice'\nssh='10.0.0.5:22'\naddress='s001'\nstate='{state}'\n"
            );
            toml::from_str::<Fleet>(&text).unwrap()
        };
        let found = |fleet: &Fleet| {
            let table = Table::new();
            table.apply(Snapshot::new(fleet.contents()).unwrap());
            points_at(&table, &label("blue").unwrap())
        };
        let ready = found(&fleet(VmState::Ready.word())).unwrap();
        assert_eq!(ready.addresses.v4, Some("192.0.2.1".parse().unwrap()));
        assert_eq!(found(&fleet(VmState::Maint.word())), Some(ready));
        let mut closed = fleet(VmState::Ready.word());
        closed.addresses[0].state = Some(AddressState::Maint);
        assert_eq!(found(&closed), Some(ready));
    }
}
