//! A fleet, looked up by name: what is wanted of whom. Refuses a fleet that contradicts itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use super::identity::Identities;
use crate::registry::document::{Access, Origin, Serial, UserKey, Vm};
use crate::registry::fleet::{Fleet, FleetEdge, FleetTeam, FleetVm};
use crate::registry::model::Model;
use crate::registry::name::{Label, Principal};
use crate::registry::refusal::Refusal;
use crate::registry::values::{edge_identity, parse_key};
use crate::ssh::publickey::Fingerprint;

/// What becomes of what a fleet does not name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Prune {
    /// It stays.
    Nothing,
    /// The fleet is the served file: what it names becomes the file's, what was the file's goes,
    /// and what commands made stays.
    FromFleet,
    /// It goes.
    Everything,
}

impl Prune {
    pub(super) fn takes(self, origin: Origin) -> bool {
        match self {
            Self::Nothing => false,
            Self::FromFleet => origin == Origin::Fleet,
            Self::Everything => true,
        }
    }
}

/// A fleet, looked up by name.
pub(super) struct DesiredFleet<'f> {
    pub(super) addresses: HashSet<&'f Label>,
    pub(super) users: BTreeMap<&'f Label, Vec<UserKey>>,
    pub(super) teams: BTreeMap<&'f Label, BTreeMap<&'f Label, Access>>,
    pub(super) nodes: HashSet<&'f Label>,
    /// Identities of edges, whatever is said of them.
    pub(super) edges: HashSet<Fingerprint>,
    pub(super) vms: HashMap<&'f Label, &'f FleetVm>,
    pub(super) identities: Identities<'f>,
    /// Whose each key is.
    pub(super) keys: HashMap<String, &'f Label>,
}

impl<'f> DesiredFleet<'f> {
    pub(super) fn new(fleet: &'f Fleet, model: &'f Model, prune: Prune) -> Result<Self, Refusal> {
        let Fleet { addresses, users, teams, nodes, edges, vms } = fleet;
        let addresses = unique(addresses.iter().map(|it| (&it.name, ())), "address")?;
        let mut keys = HashMap::new();
        let mut read = Vec::with_capacity(users.len());
        for user in users {
            let parsed: Vec<UserKey> =
                user.keys.iter().map(|line| parse_key(line)).collect::<Result<_, _>>()?;
            for key in &parsed {
                if let Some(of) = keys.insert(key.fingerprint.clone(), &user.name) {
                    let what = format!("key {} stands at user `{of}` and again", key.fingerprint);
                    return Err(Refusal::invalid(
                        what,
                        format!("remove it there or at `{}`", user.name),
                    ));
                }
            }
            read.push((&user.name, parsed));
        }
        let users = unique(read, "user")?.into_iter().collect();
        let members = |team: &'f FleetTeam| {
            let FleetTeam { name, members, members_by_name, .. } = team;
            Ok((name, accesses(members, members_by_name, format_args!("in team `{name}`"))?))
        };
        let teams = teams.iter().map(members).collect::<Result<Vec<_>, Refusal>>()?;
        let teams = unique(teams, "team")?.into_iter().collect();
        let nodes = unique(nodes.iter().map(|it| (&it.name, ())), "node")?.into_keys().collect();
        let edges = identities(edges)?;
        let vms = unique(vms.iter().map(|vm| (&vm.name, vm)), "VM")?;
        for (name, vm) in &vms {
            let shares = shares(vm)?;
            if shares.contains_key(&vm.owner) {
                let what = format!("VM `{name}` is shared with `{}`, its owner", vm.owner);
                return Err(Refusal::invalid(what, "remove the share"));
            }
            if vm.address.is_some() && vm.no_address {
                let what = format!("VM `{name}` has an address and no_address");
                return Err(Refusal::invalid(what, "keep one of them"));
            }
        }
        let identities = Identities::new(model, &vms, |vm| prune.takes(vm.origin))?;
        let addresses = addresses.into_keys().collect();
        Ok(Self { addresses, users, teams, nodes, edges, vms, identities, keys })
    }

    /// The VM that stands and is this one.
    pub(super) fn standing<'m>(&self, model: &'m Model, name: &Label) -> Option<&'m Vm> {
        let serial = self.identities.standing(model, name)?;
        model.vm(serial).map(|stored| &*stored.document)
    }

    /// What is wanted of a VM that stands.
    pub(super) fn of(&self, serial: Serial, vm: &Vm) -> Option<&'f FleetVm> {
        self.identities.wanted(&self.vms, (serial, vm))
    }
}

/// What has names, by them.
fn unique<'f, T>(
    all: impl IntoIterator<Item = (&'f Label, T)>,
    kind: &str,
) -> Result<HashMap<&'f Label, T>, Refusal> {
    let mut named = HashMap::new();
    for (name, it) in all {
        if named.insert(name, it).is_some() {
            let what = format!("{kind} `{name}` stands there twice");
            return Err(Refusal::invalid(what, "keep one of them"));
        }
    }
    Ok(named)
}

/// Whose identities are named. Names are unique among those that are admitted.
fn identities(edges: &[FleetEdge]) -> Result<HashSet<Fingerprint>, Refusal> {
    unique(edges.iter().filter(|it| !it.removed).map(|it| (&it.name, ())), "edge")?;
    let mut all = HashSet::new();
    for FleetEdge { name, identity, .. } in edges {
        let key = edge_identity(identity).map_err(|fix| {
            let what = format!("the identity of edge `{name}` cannot be read");
            Refusal::invalid(what, fix)
        })?;
        if !all.insert(key.fingerprint()) {
            let what = format!("identity {} stands there twice", key.fingerprint());
            return Err(Refusal::invalid(what, "keep one of them"));
        }
    }
    Ok(all)
}

/// Who has which access.
pub(super) fn accesses<'f, T: fmt::Display + Ord>(
    slot: &'f [T],
    by_name: &'f [T],
    place: fmt::Arguments<'_>,
) -> Result<BTreeMap<&'f T, Access>, Refusal> {
    let mut all = BTreeMap::new();
    let slot = slot.iter().map(|name| (name, Access::Slot));
    for (name, access) in slot.chain(by_name.iter().map(|name| (name, Access::ByName))) {
        if all.insert(name, access).is_some() {
            return Err(Refusal::invalid(
                format!("`{name}` stands {place} twice"),
                "keep one of them",
            ));
        }
    }
    Ok(all)
}

pub(super) fn shares(vm: &FleetVm) -> Result<BTreeMap<&Principal, Access>, Refusal> {
    let FleetVm { name, shares, shares_by_name, .. } = vm;
    accesses(shares, shares_by_name, format_args!("in the shares of VM `{name}`"))
}
