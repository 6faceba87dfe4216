//! What the zone says: {name, type} -> records. Pure: no socket, no clock, no packet.
//!
//! ```text
//! vm.test        SOA NS            the apex
//! ns.vm.test     A AAAA            name servers that lie in the zone
//! s003.vm.test   A AAAA SSHFP      a pool address; the host keys of the edge are the same at each
//! blue.vm.test   CNAME s003        a VM; nothing else may stand beside a CNAME (RFC 1034 §3.6.2)
//! ```
//! A VM that has no address is entered by name only, through any address. **Its name does not exist
//! here**: a name without records is none in DNS (RFC 8020 §2), and a secondary, which gets records
//! only, could say nothing else. A NODATA answer would differ from what the secondaries say, and
//! tell strangers about a VM that no resolver can reach.
//!
//! Negative answers carry the SOA with its own TTL = MINIMUM = 60 s (RFC 2308 §3 takes the smaller,
//! some resolvers take the SOA's): a new VM is found a minute later by whoever asked too early.
//! Nothing matches a wildcard.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::ControlFlow;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hickory_proto::op::Query;
use hickory_proto::rr::rdata::sshfp::{Algorithm, FingerprintType};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, SOA, SSHFP};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::label::Label;
use super::sign::{self, Keep, Signer};
use crate::config::{Dns, Secondary};
use crate::ssh::keytype::KeyType;
use crate::ssh::publickey::PublicKey;

/// How long a resolver may believe that a name does not exist; also the SOA's own TTL.
pub const NEGATIVE_TTL_S: u32 = 60;
/// How often a secondary looks, if NOTIFY does not reach it.
const REFRESH_S: i32 = 60;
/// How often it looks again when nobody answered.
const RETRY_S: i32 = 30;

/// The live names below the zone. One lookup is one question to it, on the thread that answers.
pub trait Names: Send + Sync {
    /// Where a VM is found; `None` if there is no VM of that name, or none that has an address.
    fn vm(&self, name: &Label) -> Option<PointsAt>;

    /// The addresses behind a pool address' name.
    fn address(&self, name: &Label) -> Option<Addresses>;

    /// Grows with every change of what the other functions say, modulo 2^32 (RFC 1982).
    fn serial(&self) -> u32;

    /// Visits every VM that has an address, and every address, in any order, until told to stop.
    /// Runs on a thread of its own and as slowly as a secondary reads: an implementation holds
    /// nothing that others wait for.
    fn walk(&self, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>);
}

/// What a VM's name leads to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PointsAt {
    /// The pool address' name.
    pub name: Label,
    /// What [`Names::address`] says of it at the same moment.
    pub addresses: Addresses,
}

/// What clients dial; at least one of the two.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Addresses {
    /// Over IPv4.
    pub v4: Option<Ipv4Addr>,
    /// Over IPv6. Published only if it answers: OpenSSH tries it first.
    pub v6: Option<Ipv6Addr>,
}

/// One name of [`Names::walk`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Entry {
    /// A VM, and the name of its pool address.
    Vm(Label, Label),
    /// A pool address.
    Address(Label, Addresses),
}

/// What an answer says beside its records.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Outcome {
    /// Records of the type asked for.
    #[default]
    Found,
    /// The name exists, the type does not.
    NoData,
    /// The name does not exist.
    NxDomain,
    /// Not ours to answer.
    Refused,
    /// A question that this server never answers.
    NotImplemented,
}

/// An answer's sections.
#[derive(Debug, Default)]
pub struct Answer {
    /// What it says.
    pub outcome: Outcome,
    /// What was asked for, from the name asked for on.
    pub answers: Vec<Record>,
    /// The SOA of a negative answer.
    pub authority: Vec<Record>,
    /// Addresses of the name servers.
    pub additional: Vec<Record>,
    /// Where the chain ended: what does not exist, or lacks the type. For proofs of that.
    pub last: Option<Name>,
    /// Whether the signed proof is there that the name does not exist.
    pub denied: bool,
}

impl Answer {
    fn clear(&mut self) {
        self.outcome = Outcome::Found;
        self.answers.clear();
        self.authority.clear();
        self.additional.clear();
        self.last = None;
        self.denied = false;
    }
}

/// The zone: what is fixed while the server runs, and the live names.
pub struct Zone {
    apex: Name,
    ttl_s: u32,
    expire_s: i32,
    primary: Name,
    mailbox: Name,
    ns: Vec<Record>,
    hosts: Vec<Host>,
    /// Of the host keys that clients see now.
    sshfp: ArcSwap<Vec<RData>>,
    secondaries: Vec<Secondary>,
    signer: Option<Signer>,
    names: Arc<dyn Names>,
}

/// A name server in the zone.
struct Host {
    name: Name,
    addresses: Vec<IpAddr>,
}

/// What a name in the zone is.
enum Node<'z> {
    Apex,
    Host(&'z Host),
    /// An empty non-terminal: nothing here, something below (RFC 4592 §2.2.2).
    Between,
    Address(Addresses),
    Vm(PointsAt),
    Nothing,
    Outside,
}

impl Zone {
    /// The zone of `settings` over `names`; `host_keys` are those that clients see at
    /// every pool address.
    ///
    /// # Errors
    /// A name does not fit the wire, or the key is of another type; never for settings that were
    /// read from a file.
    pub fn new(
        settings: &Dns,
        host_keys: &[PublicKey],
        names: Arc<dyn Names>,
    ) -> Result<Self, sign::SigningError> {
        let absolute = |name: &str| Name::from_ascii(format!("{name}."));
        let apex = absolute(settings.zone.as_str())?;
        let signer =
            settings.dnssec_key.as_ref().map(|key| Signer::new(Arc::clone(key), apex.clone()));
        let (mut ns, mut hosts) = (Vec::new(), Vec::new());
        for server in &settings.ns {
            let name = absolute(server.name.as_str())?;
            if server.name.below(&settings.zone).is_some() {
                hosts.push(Host { name: name.clone(), addresses: server.addresses.clone() });
            }
            ns.push(Record::from_rdata(apex.clone(), settings.ttl_s, RData::NS(NS(name))));
        }
        let primary = settings.ns.first().map_or(settings.zone.as_str(), |ns| ns.name.as_str());
        Ok(Self {
            primary: absolute(primary)?,
            mailbox: apex.prepend_label("hostmaster")?,
            ttl_s: settings.ttl_s,
            expire_s: i32::try_from(settings.expire_s).unwrap_or(i32::MAX),
            ns,
            hosts,
            sshfp: ArcSwap::from_pointee(fingerprints(host_keys)),
            secondaries: settings.secondaries.clone(),
            signer: signer.transpose()?,
            names,
            apex,
        })
    }

    /// The zone's own name.
    pub fn apex(&self) -> &Name {
        &self.apex
    }

    /// Clients see these host keys from now on; true if they saw others before. The serial has to
    /// grow after this.
    pub fn renew_host_keys(&self, host_keys: &[PublicKey]) -> bool {
        let now = fingerprints(host_keys);
        let before = self.sshfp.swap(Arc::new(now));
        **self.sshfp.load() != *before
    }

    /// Grows with every change.
    pub fn serial(&self) -> u32 {
        self.names.serial()
    }

    /// Whether `ip` may copy the zone.
    pub fn copies(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.secondaries.iter().any(|secondary| secondary.network.contains(&ip))
    }

    /// Answers one question of class IN or another, of a type that asks for records. Names compare
    /// without case, and an answer's owner is the name as it was asked for.
    pub fn answer(&self, question: &Query, into: &mut Answer) {
        into.clear();
        if question.query_class() != DNSClass::IN {
            into.outcome = Outcome::Refused;
            return;
        }
        let wanted = question.query_type();
        if is_meta(wanted) {
            into.outcome = Outcome::NotImplemented;
            return;
        }
        let (mut node, mut owner) = (self.find(question.name()), question.name().clone());
        if self.signer.is_some() && matches!(wanted, RecordType::NSEC | RecordType::RRSIG) {
            self.proof(&node, owner, wanted, into);
            return;
        }
        if let Node::Vm(points) = &node {
            let Ok(target) = self.apex.prepend_label(points.name.as_str()) else {
                into.outcome = Outcome::Refused;
                return;
            };
            let alias = RData::CNAME(CNAME(target.clone()));
            into.answers.push(Record::from_rdata(owner, self.ttl_s, alias));
            // ANY gets a subset of what is there (RFC 8482 §4.1); of an alias there is only one.
            if matches!(wanted, RecordType::CNAME | RecordType::ANY) {
                return;
            }
            owner = target;
            node = Node::Address(points.addresses);
        }
        match node {
            Node::Outside => into.outcome = Outcome::Refused,
            Node::Nothing => self.negative(Outcome::NxDomain, owner, into),
            Node::Apex | Node::Host(_) | Node::Between | Node::Address(_) | Node::Vm(_) => {
                let before = into.answers.len();
                let wanted = if wanted == RecordType::ANY {
                    self.types(&node).into_iter().flatten().next()
                } else {
                    Some(wanted)
                };
                if let Some(wanted) = wanted {
                    self.records(&node, &owner, wanted, &mut into.answers);
                }
                if into.answers.len() == before {
                    self.negative(Outcome::NoData, owner, into);
                } else if wanted == Some(RecordType::NS) {
                    self.glue(&mut into.additional);
                }
            }
        }
    }

    /// Records that exist because the zone is signed: an alias has its own. RRSIG alone is of no
    /// use to anybody, and large.
    fn proof(&self, node: &Node<'_>, owner: Name, wanted: RecordType, into: &mut Answer) {
        match node {
            Node::Outside => into.outcome = Outcome::Refused,
            Node::Nothing => self.negative(Outcome::NxDomain, owner, into),
            Node::Apex | Node::Host(_) | Node::Between | Node::Address(_) | Node::Vm(_) => {
                let types = self.types(node).into_iter().flatten();
                match sign::nsec(&owner, &self.apex, types, NEGATIVE_TTL_S) {
                    Ok(nsec) if wanted == RecordType::NSEC => into.answers.push(nsec),
                    Ok(_) | Err(_) => into.outcome = Outcome::NotImplemented,
                }
            }
        }
    }

    /// Adds the signatures to an answer, and the proof to a negative one. Nothing happens in a zone
    /// that has no key.
    ///
    /// # Errors
    /// The key failed.
    pub fn sign(
        &self,
        asked: RecordType,
        answer: &mut Answer,
        unix_s: u64,
    ) -> Result<(), sign::SigningError> {
        let Some(signer) = &self.signer else { return Ok(()) };
        signer.section(&mut answer.answers, Keep::Yes, unix_s)?;
        signer.section(&mut answer.authority, Keep::Yes, unix_s)?;
        let Some(name) = &answer.last else { return Ok(()) };
        let mut proof = if answer.outcome == Outcome::NxDomain {
            answer.denied = true;
            vec![sign::nsec(name, &self.apex, [sign::nxname()], NEGATIVE_TTL_S)?]
        } else {
            // What came between this and the answer must not make them contradict each other.
            let types = self.types(&self.find(name)).into_iter().flatten();
            vec![sign::nsec(name, &self.apex, types.filter(|it| *it != asked), NEGATIVE_TTL_S)?]
        };
        let keep = if answer.denied { Keep::No } else { Keep::Yes };
        signer.section(&mut proof, keep, unix_s)?;
        answer.authority.append(&mut proof);
        Ok(())
    }

    /// The DS line for the parent zone, if answers are signed.
    ///
    /// # Errors
    /// Never for a key that was taken.
    pub fn ds(&self) -> Result<Option<String>, sign::SigningError> {
        self.signer.as_ref().map(Signer::ds).transpose()
    }

    fn negative(&self, outcome: Outcome, last: Name, into: &mut Answer) {
        into.outcome = outcome;
        into.authority.push(self.soa());
        into.last = Some(last);
    }

    fn find(&self, name: &Name) -> Node<'_> {
        if !self.apex.zone_of(name) {
            return Node::Outside;
        }
        let mut labels = name.iter();
        let depth = labels.len().saturating_sub(self.apex.iter().len());
        let first = labels.next().unwrap_or_default();
        if depth == 0 {
            return Node::Apex;
        }
        if let Some(host) = self.hosts.iter().find(|host| host.name == *name) {
            return Node::Host(host);
        }
        let label = Label::new(first).filter(|_| depth == 1);
        // VMs first: they are asked for, and their addresses come along.
        if let Some(points) = label.and_then(|label| self.names.vm(&label)) {
            return Node::Vm(points);
        }
        if let Some(addresses) = label.and_then(|label| self.names.address(&label)) {
            return Node::Address(addresses);
        }
        if self.hosts.iter().any(|host| name.zone_of(&host.name)) {
            return Node::Between;
        }
        Node::Nothing
    }

    /// The types that exist at a name, as records of the zone (a signed zone has more). The order
    /// is that in which ANY picks one.
    fn types(&self, node: &Node<'_>) -> [Option<RecordType>; 3] {
        match node {
            Node::Apex => [
                Some(RecordType::SOA),
                Some(RecordType::NS),
                self.signer.as_ref().map(|_| RecordType::DNSKEY),
            ],
            Node::Host(host) => {
                let has = |v4: bool| host.addresses.iter().any(|ip| ip.is_ipv4() == v4);
                [has(true).then_some(RecordType::A), has(false).then_some(RecordType::AAAA), None]
            }
            Node::Address(Addresses { v4, v6 }) => [
                v4.map(|_| RecordType::A),
                v6.map(|_| RecordType::AAAA),
                (!self.sshfp.load().is_empty()).then_some(RecordType::SSHFP),
            ],
            Node::Vm(_) => [Some(RecordType::CNAME), None, None],
            Node::Between | Node::Nothing | Node::Outside => [None; 3],
        }
    }

    fn records(&self, node: &Node<'_>, owner: &Name, wanted: RecordType, into: &mut Vec<Record>) {
        let record = |data| Record::from_rdata(owner.clone(), self.ttl_s, data);
        match (node, wanted) {
            (Node::Apex, RecordType::SOA) => {
                let mut soa = self.soa();
                soa.name = owner.clone();
                into.push(soa);
            }
            (Node::Apex, RecordType::NS) => {
                into.extend(self.ns.iter().map(|ns| record(ns.data.clone())));
            }
            (Node::Apex, RecordType::DNSKEY) => {
                into.extend(self.signer.as_ref().map(|signer| record(signer.dnskey())));
            }
            (Node::Host(host), RecordType::A | RecordType::AAAA) => {
                let v4 = wanted == RecordType::A;
                let some = host.addresses.iter().filter(|ip| ip.is_ipv4() == v4);
                into.extend(some.map(|ip| record(address(*ip))));
            }
            (Node::Address(addresses), RecordType::A) => {
                into.extend(addresses.v4.map(|ip| record(RData::A(A(ip)))));
            }
            (Node::Address(addresses), RecordType::AAAA) => {
                into.extend(addresses.v6.map(|ip| record(RData::AAAA(AAAA(ip)))));
            }
            (Node::Address(_), RecordType::SSHFP) => {
                into.extend(self.sshfp.load().iter().map(|data| record(data.clone())));
            }
            (_, _) => {}
        }
    }

    fn glue(&self, into: &mut Vec<Record>) {
        for host in &self.hosts {
            let record = |ip| Record::from_rdata(host.name.clone(), self.ttl_s, address(ip));
            into.extend(host.addresses.iter().copied().map(record));
        }
    }

    /// The start of authority as it is now.
    pub fn soa(&self) -> Record {
        self.soa_of(self.serial())
    }

    /// The start of authority of a given moment.
    pub fn soa_of(&self, serial: u32) -> Record {
        let soa = SOA::new(
            self.primary.clone(),
            self.mailbox.clone(),
            serial,
            REFRESH_S,
            RETRY_S,
            self.expire_s,
            NEGATIVE_TTL_S,
        );
        Record::from_rdata(self.apex.clone(), NEGATIVE_TTL_S, RData::SOA(soa))
    }

    /// Every record but the SOA, one after another; nothing is built beside the one at hand. What
    /// is added or removed meanwhile may or may not be seen: the serial has grown by then, and the
    /// next copy has it.
    pub fn walk(&self, visit: &mut dyn FnMut(&Record) -> ControlFlow<()>) {
        let mut fixed = self.ns.clone();
        self.glue(&mut fixed);
        if fixed.iter().try_for_each(&mut *visit).is_break() {
            return;
        }
        let mut records = Vec::new();
        self.names.walk(&mut |entry| {
            let (Entry::Vm(label, _) | Entry::Address(label, _)) = entry;
            // A name that does not fit below the zone is answered by nobody either.
            let Ok(owner) = self.apex.prepend_label(label.as_str()) else {
                return ControlFlow::Continue(());
            };
            if self.hosts.iter().any(|host| host.name == owner) {
                return ControlFlow::Continue(());
            }
            records.clear();
            match entry {
                Entry::Vm(_, at) => {
                    if let Ok(target) = self.apex.prepend_label(at.as_str()) {
                        let alias = RData::CNAME(CNAME(target));
                        records.push(Record::from_rdata(owner, self.ttl_s, alias));
                    }
                }
                Entry::Address(_, addresses) => {
                    let node = Node::Address(addresses);
                    for wanted in self.types(&node).into_iter().flatten() {
                        self.records(&node, &owner, wanted, &mut records);
                    }
                }
            }
            records.iter().try_for_each(&mut *visit)
        });
    }
}

impl std::fmt::Debug for Zone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Zone").field("apex", &self.apex).finish_non_exhaustive()
    }
}

fn address(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}

/// Types that are no records: transfers, what hickory calls by none of its names in 128..=255 but
/// ANY (RFC 6895 §3.1), and OPT.
fn is_meta(wanted: RecordType) -> bool {
    let number = u16::from(wanted);
    wanted != RecordType::ANY && (wanted == RecordType::OPT || (128..=255).contains(&number))
}

fn fingerprints(host_keys: &[PublicKey]) -> Vec<RData> {
    host_keys.iter().filter_map(fingerprint).collect()
}

/// RFC 4255, 6594, 7479: SHA-256 of the key blob. Host keys in security keys do not exist.
fn fingerprint(key: &PublicKey) -> Option<RData> {
    let algorithm = match key.key_type() {
        KeyType::Rsa => Algorithm::RSA,
        KeyType::EcdsaP256 | KeyType::EcdsaP384 | KeyType::EcdsaP521 => Algorithm::ECDSA,
        KeyType::Ed25519 => Algorithm::Ed25519,
        KeyType::SkEd25519 | KeyType::SkEcdsaP256 => return None,
    };
    let print = key.fingerprint().0.to_vec();
    Some(RData::SSHFP(SSHFP::new(algorithm, FingerprintType::SHA256, print)))
}

#[cfg(test)]
#[path = "zone_tests.rs"]
mod tests;
