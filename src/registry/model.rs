//! Everything at one revision, with the indexes that the allocator and the lists need.
//!
//! The documents are the truth; every index follows from them. [`Model::put`] is the one way to
//! change anything: it takes what the old document brought out of the indexes and puts what the new
//! one brings in, at a cost in proportion to the two. Names stand once; everything else refers to
//! them by small numbers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use super::document::{
    Access, Address, Document, Edge, Key, Node, NodeState, QuarantinedSlot, Registry, Serial,
    Stored, Team, Token, User, Vm,
};
pub use super::limits::Limits;
use super::name::{Label, Principal};
use super::reach::{AddressIx, PrincipalIx, Reach, Site, Slot};
use crate::ssh::publickey::Fingerprint;

/// When and by which chance a command is carried out.
#[derive(Clone, Copy, Debug)]
pub struct CommandContext {
    /// Unix time.
    pub now_s: u64,
    /// Random; becomes the serial of a VM that is made.
    pub nonce: u64,
}

/// Everything at one revision.
#[derive(Debug, Default)]
pub struct Model {
    revision: u64,
    limits: Limits,
    principals: HashMap<Principal, PrincipalIx>,
    reaches: Vec<Reach>,
    users: BTreeMap<Label, Stored<User>>,
    teams: BTreeMap<Label, Stored<Team>>,
    pub(super) quarantined: BTreeMap<Principal, Stored<Vec<QuarantinedSlot>>>,
    names: BTreeMap<Label, AddressIx>,
    pub(super) sites: Vec<Site>,
    ips: HashMap<IpAddr, AddressIx>,
    /// In the order of the store, which is that of memory after a start: who walks through all of
    /// them need not jump.
    vms: BTreeMap<Serial, Stored<Box<Vm>>>,
    vm_names: BTreeMap<Label, Serial>,
    /// Of those few that are not the name.
    ids: HashMap<String, Serial>,
    pub(super) nodes: BTreeMap<Label, Stored<Box<Node>>>,
    pub(super) node_states: BTreeMap<Label, Stored<NodeState>>,
    /// By the node that they lie on.
    pub(super) lying: BTreeMap<Label, BTreeSet<Serial>>,
    pub(super) edges: BTreeMap<Fingerprint, Stored<Edge>>,
    tokens: BTreeMap<Label, Stored<Token>>,
    pub(super) whole: Option<Stored<Registry>>,
    keys: HashMap<[u8; 32], Label>,
    /// Of those VMs that have one: part of its fingerprint.
    pub(super) host_keys: BTreeSet<(u64, Serial)>,
    /// VMs with second ways, and principals with quarantined slots: what time alone will change.
    pub(super) aging: BTreeSet<Key>,
    pub(super) of_routes: bool,
}

impl Model {
    /// Nothing yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// The store's revision of the last document put.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) const fn at_revision(&mut self, revision: u64) {
        self.revision = revision;
    }

    /// What the operator chose.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Makes `document` what stands under `key`, or nothing; returns what stood there before.
    pub fn put(
        &mut self,
        key: &Key,
        document: Option<Document>,
        revision: u64,
    ) -> Option<(Document, u64)> {
        self.revision = revision;
        match (key, document) {
            (Key::User(name), Some(Document::User(user))) => {
                self.put_user(name, Some(Stored { document: user, revision }))
            }
            (Key::User(name), _) => self.put_user(name, None),
            (Key::Team(name), Some(Document::Team(team))) => {
                self.put_team(name, Some(Stored { document: team, revision }))
            }
            (Key::Team(name), _) => self.put_team(name, None),
            (Key::Vm(serial), Some(Document::Vm(vm))) => {
                self.put_vm(*serial, Some(Stored { document: vm, revision }))
            }
            (Key::Vm(serial), _) => self.put_vm(*serial, None),
            (Key::Address(name), Some(Document::Address(address))) => {
                self.put_address(name, Some(Stored { document: address, revision }))
            }
            (Key::Address(name), _) => self.put_address(name, None),
            (Key::Quarantine(principal), Some(Document::Quarantine(quarantined))) => {
                self.put_quarantined(principal, Some(Stored { document: quarantined, revision }))
            }
            (Key::Quarantine(principal), _) => self.put_quarantined(principal, None),
            (Key::Node(name), document) => self.put_node(name, document, revision),
            (Key::NodeState(name), document) => self.put_node_state(name, document, revision),
            (Key::Edge(key), document) => self.put_edge(*key, document, revision),
            (Key::Registry, document) => {
                let new = match document {
                    Some(Document::Registry(document)) => Some(Stored { document, revision }),
                    _ => None,
                };
                let old = std::mem::replace(&mut self.whole, new);
                old.map(|old| (Document::Registry(old.document), old.revision))
            }
            (Key::Token(name), Some(Document::Token(token))) => {
                let stored = Stored { document: token, revision };
                let old = self.tokens.insert(name.clone(), stored);
                old.map(|old| (Document::Token(old.document), old.revision))
            }
            (Key::Token(name), _) => {
                let old = self.tokens.remove(name);
                old.map(|old| (Document::Token(old.document), old.revision))
            }
        }
    }

    /// What stands under `key`, with its revision.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<(Document, u64)> {
        match key {
            Key::Address(name) => self.address(name).map(|it| whole(it, Document::Address)),
            Key::Edge(key) => self.edges.get(key).map(|it| whole(it, Document::Edge)),
            Key::Quarantine(principal) => {
                self.quarantined.get(principal).map(|it| whole(it, Document::Quarantine))
            }
            Key::Node(name) => self.nodes.get(name).map(|it| whole(it, Document::Node)),
            Key::NodeState(name) => {
                self.node_states.get(name).map(|it| whole(it, Document::NodeState))
            }
            Key::Registry => self.whole.as_ref().map(|it| whole(it, Document::Registry)),
            Key::Team(name) => self.teams.get(name).map(|it| whole(it, Document::Team)),
            Key::Token(name) => self.tokens.get(name).map(|it| whole(it, Document::Token)),
            Key::User(name) => self.users.get(name).map(|it| whole(it, Document::User)),
            Key::Vm(serial) => self.vms.get(serial).map(|it| whole(it, Document::Vm)),
        }
    }

    /// All users by name.
    #[must_use]
    pub const fn users(&self) -> &BTreeMap<Label, Stored<User>> {
        &self.users
    }

    /// All teams by name.
    #[must_use]
    pub const fn teams(&self) -> &BTreeMap<Label, Stored<Team>> {
        &self.teams
    }

    /// All tokens by name.
    #[must_use]
    pub const fn tokens(&self) -> &BTreeMap<Label, Stored<Token>> {
        &self.tokens
    }

    /// All VMs by name.
    #[must_use]
    pub const fn vm_names(&self) -> &BTreeMap<Label, Serial> {
        &self.vm_names
    }

    /// All addresses that stand, by name, with how many VMs answer at each.
    pub fn addresses(&self) -> impl Iterator<Item = (&Label, &Stored<Address>, usize)> {
        self.names.values().filter_map(|ix| {
            let site = self.site(*ix)?;
            site.stored.as_ref().map(|stored| (&site.name, stored, site.vms.len()))
        })
    }

    /// An address.
    #[must_use]
    pub fn address(&self, name: &Label) -> Option<&Stored<Address>> {
        self.site(*self.names.get(name)?)?.stored.as_ref()
    }

    /// A VM.
    #[must_use]
    pub fn vm(&self, serial: Serial) -> Option<&Stored<Box<Vm>>> {
        self.vms.get(&serial)
    }

    /// All VMs, by serial.
    pub(super) fn vms(&self) -> impl Iterator<Item = &Stored<Box<Vm>>> {
        self.vms.values()
    }

    /// A VM by its name.
    #[must_use]
    pub fn vm_named(&self, name: &Label) -> Option<(Serial, &Stored<Box<Vm>>)> {
        let serial = *self.vm_names.get(name)?;
        Some((serial, self.vms.get(&serial)?))
    }

    /// The user a key belongs to.
    #[must_use]
    pub fn user_of(&self, fingerprint: &[u8; 32]) -> Option<&Label> {
        self.keys.get(fingerprint)
    }

    /// The address that has an IP in one of its columns.
    pub(super) fn address_of(&self, ip: IpAddr) -> Option<&Label> {
        self.site(*self.ips.get(&ip)?).map(|site| &site.name)
    }

    /// The VM of this id, or what stands for a VM that is no more and of which only the id is
    /// known: the same for the same id (FNV-1a), another VM's by chance only.
    #[must_use]
    pub fn serial_of(&self, id: &str) -> Serial {
        self.of_id(id).unwrap_or_else(|| {
            let prime = 0x0000_0100_0000_01b3_u64;
            Serial(id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(prime)
            }))
        })
    }

    /// The VM that has this id.
    #[must_use]
    pub fn of_id(&self, id: &str) -> Option<Serial> {
        let named = || {
            let serial = *self.vm_names.get(id)?;
            self.vms.get(&serial).is_some_and(|vm| vm.document.id == id).then_some(serial)
        };
        self.ids.get(id).copied().or_else(named)
    }

    /// Whether the user or team stands.
    #[must_use]
    pub fn exists(&self, principal: &Principal) -> bool {
        match principal {
            Principal::User(name) => self.users.contains_key(name),
            Principal::Team(name) => self.teams.contains_key(name),
        }
    }

    #[cfg(test)]
    pub(super) const fn principals(&self) -> &HashMap<Principal, PrincipalIx> {
        &self.principals
    }

    pub(super) fn principal_ix(&self, principal: &Principal) -> Option<PrincipalIx> {
        self.principals.get(principal).copied()
    }

    pub(super) fn address_ix(&self, name: &Label) -> Option<AddressIx> {
        self.names.get(name).copied()
    }

    pub(super) fn reach(&self, ix: PrincipalIx) -> Option<&Reach> {
        self.reaches.get(ix.index())
    }

    pub(super) const fn reaches(&self) -> &Vec<Reach> {
        &self.reaches
    }

    pub(super) fn site(&self, ix: AddressIx) -> Option<&Site> {
        self.sites.get(ix.index())
    }

    pub(super) const fn sites(&self) -> &Vec<Site> {
        &self.sites
    }

    fn put_user(&mut self, name: &Label, new: Option<Stored<User>>) -> Option<(Document, u64)> {
        let fingerprint = |key: &super::document::UserKey| key.fingerprint.parse::<Fingerprint>();
        let old = self.users.remove(name);
        for key in old.iter().flat_map(|old| &old.document.keys) {
            if let Ok(fingerprint) = fingerprint(key) {
                self.keys.remove(&fingerprint.0);
            }
        }
        self.intern_principal(&Principal::User(name.clone()));
        if let Some(new) = new {
            for key in &new.document.keys {
                if let Ok(fingerprint) = fingerprint(key) {
                    self.keys.insert(fingerprint.0, name.clone());
                }
            }
            self.users.insert(name.clone(), new);
        }
        old.map(|old| (Document::User(old.document), old.revision))
    }

    fn put_team(&mut self, name: &Label, new: Option<Stored<Team>>) -> Option<(Document, u64)> {
        let team = self.intern_principal(&Principal::Team(name.clone()));
        let old = self.teams.remove(name);
        let before = self.reach_mut(team).map(|reach| std::mem::take(&mut reach.members));
        let now: Vec<(PrincipalIx, Access)> = new
            .iter()
            .flat_map(|new| &new.document.members)
            .map(|(user, access)| (self.intern_principal(&Principal::User(user.clone())), *access))
            .collect();
        let before = before.unwrap_or_default();
        // Both are in the order of names, so in a team of thousands only those who
        // differ are touched.
        let after: HashMap<PrincipalIx, Access> = now.iter().copied().collect();
        for (user, access) in &before {
            if after.get(user) != Some(access)
                && let Some(reach) = self.reach_mut(*user)
            {
                reach.teams.retain(|(of, _)| *of != team);
            }
        }
        let before: HashMap<PrincipalIx, Access> = before.into_iter().collect();
        for (user, access) in &now {
            if before.get(user) != Some(access)
                && let Some(reach) = self.reach_mut(*user)
            {
                reach.teams.push((team, *access));
            }
        }
        if let Some(reach) = self.reach_mut(team) {
            reach.members = now;
        }
        if let Some(new) = new {
            self.teams.insert(name.clone(), new);
        }
        old.map(|old| (Document::Team(old.document), old.revision))
    }

    fn put_vm(&mut self, serial: Serial, new: Option<Stored<Box<Vm>>>) -> Option<(Document, u64)> {
        let old = self.vms.remove(&serial);
        let after = new.as_ref().map(|new| &*new.document);
        if let Some(old) = &old {
            self.vm_names.remove(&old.document.name);
            self.index_vm(serial, &old.document, false, after);
        }
        if let Some(new) = new {
            self.vm_names.insert(new.document.name.clone(), serial);
            self.enter_vm(serial, new, old.as_ref().map(|old| &*old.document));
        }
        old.map(|old| (Document::Vm(old.document), old.revision))
    }

    /// Puts a VM that is not here, without its name, for [`Model::fill_vm_names`]: a million names
    /// one by one, in the order of serials, are a million walks down a tree.
    pub(super) fn fill_vm(&mut self, serial: Serial, new: Stored<Box<Vm>>) {
        self.enter_vm(serial, new, None);
    }

    fn enter_vm(&mut self, serial: Serial, mut new: Stored<Box<Vm>>, before: Option<&Vm>) {
        self.index_vm(serial, &new.document, true, before);
        let Vm { owner, address, node, .. } = &mut *new.document;
        // One text for all that say it.
        if let Some(reach) = self.principal_ix(owner).and_then(|ix| self.reach(ix)) {
            owner.clone_from(&reach.name);
        }
        if let Some(address) = address
            && let Some((name, _)) = self.names.get_key_value(address)
        {
            address.clone_from(name);
        }
        if let Some(node) = node
            && let Some((name, _)) = self.nodes.get_key_value(node)
        {
            node.clone_from(name);
        }
        self.vms.insert(serial, new);
    }

    /// The names of all VMs.
    pub(super) fn fill_vm_names(&mut self, names: BTreeMap<Label, Serial>) {
        self.vm_names = names;
    }

    /// Brings what a VM's document means into the indexes but that of names, or takes it out. Who
    /// had the same by the document before, or has it by the one after, is left alone: to find one
    /// VM of a million takes a millisecond.
    fn index_vm(&mut self, serial: Serial, vm: &Vm, enter: bool, beside: Option<&Vm>) {
        if vm.id != vm.name.as_str() {
            if enter {
                self.ids.insert(vm.id.clone(), serial);
            } else {
                self.ids.remove(&vm.id);
            }
        }
        self.index_host_keys(serial, vm, enter);
        self.index_node(serial, vm, enter);
        let aging = Key::Vm(serial);
        if enter && !vm.old.is_empty() {
            self.aging.insert(aging);
        } else {
            self.aging.remove(&aging);
        }
        let at = vm.address.as_ref().map(|name| self.intern_address(name));
        if let Some(site) = at.and_then(|ix| self.sites.get_mut(ix.index())) {
            if enter {
                site.vms.insert(serial);
            } else {
                site.vms.remove(&serial);
            }
        }
        let owner = self.intern_principal(&vm.owner);
        if let Some(reach) = self.reach_mut(owner) {
            reach.owned = if enter { reach.owned + 1 } else { reach.owned.saturating_sub(1) };
        }
        let everybody = std::iter::once((&vm.owner, Access::Slot))
            .chain(vm.shares.iter().map(|(principal, access)| (principal, *access)));
        let beside = beside.filter(|beside| beside.address == vm.address);
        for (principal, access) in everybody {
            if beside.is_some_and(|beside| beside.access(principal) == Some(access)) {
                continue;
            }
            let ix = self.intern_principal(principal);
            let slot = at.filter(|_| access == Access::Slot).map(|address| Slot {
                address,
                vm: serial,
                until_s: None,
            });
            if let Some(reach) = self.reach_mut(ix) {
                match slot {
                    Some(slot) => change(&mut reach.slots, slot, enter),
                    None => change(&mut reach.by_name, serial, enter),
                }
            }
        }
        for old in &vm.old {
            let address = self.intern_address(&old.address);
            if let Some(site) = self.sites.get_mut(address.index()) {
                site.old = if enter { site.old + 1 } else { site.old.saturating_sub(1) };
            }
            for principal in &old.principals {
                let ix = self.intern_principal(principal);
                let slot = Slot { address, vm: serial, until_s: Some(old.until_s) };
                if let Some(reach) = self.reach_mut(ix) {
                    change(&mut reach.slots, slot, enter);
                }
            }
        }
    }

    fn put_address(
        &mut self,
        name: &Label,
        new: Option<Stored<Address>>,
    ) -> Option<(Document, u64)> {
        let ix = self.intern_address(name);
        let old = self.sites.get_mut(ix.index()).and_then(|site| site.stored.take());
        for ip in old.iter().flat_map(|old| ips(&old.document)) {
            self.ips.remove(&ip);
        }
        for ip in new.iter().flat_map(|new| ips(&new.document)) {
            self.ips.insert(ip, ix);
        }
        if let Some(site) = self.sites.get_mut(ix.index()) {
            site.stored = new;
        }
        old.map(|old| (Document::Address(old.document), old.revision))
    }

    /// What is true of the registry as a whole.
    #[must_use]
    pub fn registry(&self) -> Registry {
        self.whole.as_ref().map(|whole| whole.document.clone()).unwrap_or_default()
    }

    pub(super) fn reach_mut(&mut self, ix: PrincipalIx) -> Option<&mut Reach> {
        self.reaches.get_mut(ix.index())
    }

    pub(super) fn intern_principal(&mut self, name: &Principal) -> PrincipalIx {
        if let Some(ix) = self.principals.get(name) {
            return *ix;
        }
        let ix = PrincipalIx::at(self.reaches.len());
        self.reaches.push(Reach::of(name.clone()));
        self.principals.insert(name.clone(), ix);
        ix
    }

    pub(super) fn intern_address(&mut self, name: &Label) -> AddressIx {
        if let Some(ix) = self.names.get(name) {
            return *ix;
        }
        let ix = AddressIx::at(self.sites.len());
        self.sites.push(Site::of(name.clone()));
        self.names.insert(name.clone(), ix);
        ix
    }
}

fn whole<T: Clone>(stored: &Stored<T>, document: impl Fn(T) -> Document) -> (Document, u64) {
    (document(stored.document.clone()), stored.revision)
}

/// The IPs of all columns of an address.
pub(super) fn ips(address: &Address) -> impl Iterator<Item = IpAddr> + use<> {
    [Some(address.public), address.public6, address.private].into_iter().flatten()
}

fn change<T: PartialEq>(list: &mut Vec<T>, item: T, enter: bool) {
    if enter {
        list.push(item);
    } else if let Some(at) = list.iter().position(|other| *other == item) {
        list.swap_remove(at);
    }
}
