//! The changes of a delta, by kind and name.

use std::collections::BTreeMap;

use super::{AddressEntry, Change, Delta, NodeEntry, TeamEntry, UserEntry, VmEntry};

/// The changes to the entries of one kind, by name, with their indexes in the delta; `None`
/// takes the entry out.
pub(super) type Changes<T> = BTreeMap<String, (usize, Option<T>)>;

/// A delta by kind. Of two changes to one entry the later one is left.
#[derive(Default)]
pub(super) struct Sorted {
    pub(super) addresses: Changes<AddressEntry>,
    pub(super) users: Changes<UserEntry>,
    pub(super) teams: Changes<TeamEntry>,
    pub(super) nodes: Changes<NodeEntry>,
    pub(super) vms: Changes<VmEntry>,
}

impl Sorted {
    pub(super) fn new(delta: Delta) -> Self {
        let mut sorted = Self::default();
        for (index, change) in delta.changes.into_iter().enumerate() {
            match change {
                Change::PutAddress(mut entry) => {
                    entry.make_canonical();
                    sorted.addresses.insert(entry.name.clone(), (index, Some(entry)));
                }
                Change::RemoveAddress(name) => {
                    sorted.addresses.insert(name, (index, None));
                }
                Change::PutUser(entry) => {
                    sorted.users.insert(entry.name.clone(), (index, Some(entry)));
                }
                Change::RemoveUser(name) => {
                    sorted.users.insert(name, (index, None));
                }
                Change::PutTeam(entry) => {
                    sorted.teams.insert(entry.name.clone(), (index, Some(entry)));
                }
                Change::RemoveTeam(name) => {
                    sorted.teams.insert(name, (index, None));
                }
                Change::PutNode(entry) => {
                    sorted.nodes.insert(entry.name.clone(), (index, Some(entry)));
                }
                Change::RemoveNode(name) => {
                    sorted.nodes.insert(name, (index, None));
                }
                Change::PutVm(entry) => {
                    sorted.vms.insert(entry.vm.name.clone(), (index, Some(entry)));
                }
                Change::RemoveVm(name) => {
                    sorted.vms.insert(name, (index, None));
                }
            }
        }
        sorted
    }
}
