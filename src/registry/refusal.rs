//! Why a command is not carried out: what is in the way, and what to do about it.
//! Nothing has changed.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use super::name::{Label, Principal};
use crate::plural::count;
use crate::route::{NoHandoff, TEAMS_MAX};

/// Kinds of things that have names.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A user.
    User,
    /// A key of a user.
    Key,
    /// A team.
    Team,
    /// A VM.
    Vm,
    /// A pool address.
    Address,
    /// A host that holds VMs.
    Node,
    /// An edge, by its identity.
    Edge,
    /// An API token.
    Token,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Key => "key",
            Self::Team => "team",
            Self::Vm => "VM",
            Self::Address => "address",
            Self::Node => "node",
            Self::Edge => "edge",
            Self::Token => "token",
        })
    }
}

/// What stands at an address where a VM cannot go, for somebody who would see both.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Collision {
    /// Who would see both.
    pub principal: Principal,
    /// The VM that the command is about.
    pub vm: Label,
    /// The address, by name.
    pub address: Label,
    /// The other VM, or nothing if it is gone.
    pub other: Option<Label>,
    /// Set if the other one is there no more, but must not be followed by another before this Unix
    /// time. Called by its name in the API.
    #[serde(rename = "held_until_s")]
    pub quarantined_until_s: Option<u64>,
}

impl fmt::Display for Collision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { principal, vm, address, other, quarantined_until_s } = self;
        match (other, quarantined_until_s) {
            (Some(other), None) => {
                write!(f, "{principal} would see {vm} and {other} at {address}")
            }
            (Some(other), Some(until_s)) => write!(
                f,
                "{principal} could reach {other} at {address} until not long ago, which must not lead to {vm} before {}",
                utc(*until_s)
            ),
            (None, _) => write!(
                f,
                "{principal} could reach a VM at {address} that is gone, which must not lead to {vm} before {}",
                utc(quarantined_until_s.unwrap_or_default())
            ),
        }
    }
}

/// What helps where somebody would see two VMs at one address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WayOut {
    /// The VM can move, if that is allowed.
    Renumber,
    /// It would have to move, and there is nowhere to.
    MoreAddresses,
    /// The address was named.
    AnotherAddress,
    /// A served file cannot allow anything.
    InTheFile,
}

impl fmt::Display for WayOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_name =
            "or grant by name (`keyway vm share --by-name`, `keyway team join --by-name`)";
        match self {
            Self::Renumber => {
                write!(f, "ask for a renumbering (--renumber; --dry-run shows it), {by_name}")
            }
            Self::MoreAddresses => {
                write!(f, "no other address is free for it: add one (`keyway address add`), {by_name}")
            }
            Self::AnotherAddress => f.write_str("name another address, or none to have one chosen"),
            Self::InTheFile => f.write_str(
                "give it another `address` in the file, or grant by name (`share_by_name`, `members_by_name`)",
            ),
        }
    }
}

/// Why not.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// A name that cannot be one, or another value that makes no sense.
    #[error("{what}; {fix}")]
    Invalid {
        /// The value and what is wrong with it.
        what: String,
        /// What to write.
        fix: String,
    },
    /// There is no such thing.
    #[error("there is no {kind} `{name}`; `keyway {noun} list` shows what there is", noun = noun(*.kind))]
    Unknown {
        /// Of which kind.
        kind: Kind,
        /// As given.
        name: String,
    },
    /// The name is taken.
    #[error("the name `{name}` is taken by {by}; choose another")]
    Taken {
        /// As given.
        name: String,
        /// By what.
        by: String,
    },
    /// The name means something else in the zone.
    #[error("the name `{name}` is reserved; choose another")]
    Reserved {
        /// As given.
        name: String,
    },
    /// A key is somebody's already.
    #[error(
        "key {fingerprint} is already a key of user `{of}`; a key names one user: remove it there first"
    )]
    KeyTaken {
        /// The key.
        fingerprint: String,
        /// Whose.
        of: Label,
    },
    /// An IP address is in use in the pool.
    #[error("{ip} is already an IP of address `{of}`; write every IP once, in one column")]
    IpTaken {
        /// The IP.
        ip: IpAddr,
        /// Whose.
        of: Label,
    },
    /// An identity is another agent's already.
    #[error(
        "agent key {key} is already that of node `{of}`; every agent has an identity of its own"
    )]
    AgentKeyTaken {
        /// Its fingerprint.
        key: String,
        /// The node that has it.
        of: Label,
    },
    /// An identity is that of somebody else already.
    #[error(
        "identity {key} is already that of {of}; every edge and every agent has one of its own"
    )]
    IdentityTaken {
        /// Its fingerprint.
        key: String,
        /// Whose it is: `edge` or `the agent of node`, and a name.
        of: String,
    },
    /// An identity was removed, and only a command of an administrator brings it back.
    #[error(
        "edge `{name}` was removed at {} by {by}, and no fleet brings it back; if it is meant: \
         `keyway edge add {name} --identity LINE`; else say `removed = true` there", utc(*.since_s)
    )]
    EdgeRemoved {
        /// Its name.
        name: Label,
        /// Unix time.
        since_s: u64,
        /// Who removed it.
        by: String,
    },
    /// A front door has a new identity, and the last one of its host was removed.
    #[error(
        "edge `{last}`, the last of this host, was removed at {} by {by}, and a new identity is admitted by nobody but you; \
         if it is meant: `keyway edge add {name} --identity '{identity}'`", utc(*.since_s)
    )]
    EdgeOfHostRemoved {
        /// What it would be called.
        name: Label,
        /// The line of its public key.
        identity: String,
        /// What the last one was called.
        last: Label,
        /// Unix time.
        since_s: u64,
        /// Who removed it.
        by: String,
    },
    /// An agent joins where another one is known.
    #[error(
        "node `{node}` has an agent with the key {key}, and no other takes its place by itself; if it is gone: \
         `keyway node set {node} --agent-key ''`, then `keyway node token {node}`"
    )]
    AgentKeyOther {
        /// The node.
        node: Label,
        /// The fingerprint of the one that is known.
        key: String,
    },
    /// An agent joins whose node was removed.
    #[error(
        "{key} was the identity of an agent whose node was removed, and joins no more; fix: stop the agent and move \
         `identity` out of its state_dir: the next join makes a new one; or, if it is to be trusted again, `keyway node \
         set {node} --agent-key {key}`"
    )]
    AgentRemoved {
        /// Its fingerprint.
        key: String,
        /// The node that it would have joined.
        node: Label,
    },
    /// A token has done what it was for.
    #[error("the token for node `{node}` was used; a new one: `keyway node token {node}`")]
    JoinTokenUsed {
        /// The node.
        node: Label,
    },
    /// A token is too old.
    #[error(
        "the token for node `{node}` has expired at {}; a new one: `keyway node token {node}`",
        utc(*at_s)
    )]
    JoinTokenExpired {
        /// The node.
        node: Label,
        /// Unix time.
        at_s: u64,
    },
    /// A token is none, or none any more.
    #[error(
        "the token is unknown: it was mistyped, or a newer one was made for its node, or the node is gone; a new one: \
         `keyway node token NODE`"
    )]
    JoinTokenUnknown,
    /// A VM is to be handed off where there is nobody to hand it to.
    #[error("{}", not_handed_off(.vm, .node.as_ref(), *.why))]
    NoHandoff {
        /// The VM, by name.
        vm: Label,
        /// Its node.
        node: Option<Label>,
        /// What keeps it from that.
        why: NoHandoff,
    },
    /// Something else still needs it.
    #[error("{kind} `{name}` is in use: {by}; {fix}")]
    InUse {
        /// What is in use.
        kind: Kind,
        /// Its name.
        name: String,
        /// By what.
        by: String,
        /// What to do first.
        fix: String,
    },
    /// Its removal has begun, and nothing is given to it any more.
    #[error("{kind} `{name}` is being removed; run `keyway {noun} rm {name}` again", noun = noun(*.kind))]
    Going {
        /// Of which kind.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// Somebody would see two VMs at one address.
    #[error("{}; {way_out}", list(.collisions))]
    Conflict {
        /// Who, and where.
        collisions: Vec<Collision>,
        /// What would help.
        way_out: WayOut,
    },
    /// There is no address left for a VM.
    #[error(
        "pool exhausted for {principal}: sees {}{}, the pool has {}; add an address \
         (`keyway address add`), or grant by name (`keyway vm add --no-address`, `keyway vm share --by-name`, `keyway team join \
         --by-name`)",
        count(sees, "VM"),
        until_lately(*.quarantined),
        count(ready, "ready address")
    )]
    Exhausted {
        /// Who sees the most.
        principal: Principal,
        /// How many VMs that principal sees.
        sees: usize,
        /// How many more addresses led the principal to a VM not long ago.
        quarantined: usize,
        /// How many addresses are ready.
        ready: usize,
    },
    /// A backup was restored, and what the registry before it knew of slots is lost.
    #[error(
        "{principal} would be given {address}, which may lead elsewhere for whoever remembers the registry that was lost: \
         new slots are given from {} on; until then put VMs nowhere (--no-address) and grant by name (--by-name)",
        utc(*until_s)
    )]
    Closed {
        /// The user or team.
        principal: Principal,
        /// The address, by name.
        address: Label,
        /// Unix time.
        until_s: u64,
    },
    /// The address takes no VMs.
    #[error(
        "address `{address}` takes no VMs: it is {why}; name another, or none to have one chosen"
    )]
    NotReady {
        /// The address, by name.
        address: Label,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A limit of ours.
    #[error("{what}, the limit is {limit}")]
    TooMany {
        /// What there would be, with its number.
        what: String,
        /// How many there may be.
        limit: usize,
    },
    /// A VM shows another host key than it has to.
    #[error(
        "VM `{vm}` must show another host key than {shown}; if it was made anew: `keyway vm host-key forget {vm}`"
    )]
    HostKeyOther {
        /// The VM, by name.
        vm: Label,
        /// The fingerprint of what it showed.
        shown: String,
    },
    /// A node shows another host key than it has to.
    #[error(
        "node `{node}` must show the host key {pinned}, and shows {shown}; if it was made anew: `keyway node host-key \
         forget {node}`, then `keyway node test {node}`"
    )]
    NodeHostKeyOther {
        /// The node, by name.
        node: Label,
        /// The fingerprint of the one that was confirmed.
        pinned: String,
        /// The fingerprint of what it showed.
        shown: String,
    },
    /// A VM of another owner has the host key.
    #[error(
        "the host key of VM `{vm}` is that of `{of}`, which is somebody else's; if images are cloned, give it: \
         `keyway vm host-key set {vm} KEY`"
    )]
    HostKeyTaken {
        /// The VM, by name.
        vm: Label,
        /// The other.
        of: Label,
    },
    /// A host key is of what a VM's id meant when it was dialled, and it means
    /// something else by now.
    #[error(
        "VM `{vm}` has another owner or endpoint than the one that showed the host key; connect again"
    )]
    HostKeyElsewhere {
        /// The VM, by name.
        vm: Label,
    },
    /// There is nothing to forget.
    #[error("no host key of VM `{name}` is pinned: the next that it shows will be")]
    NotPinned {
        /// The name that was meant.
        name: Label,
    },
    /// Somebody changed it meanwhile.
    #[error(
        "{kind} `{name}` is at revision {is}, not {expected}: it was changed meanwhile; look at it and try again"
    )]
    Changed {
        /// Of which kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// Its revision.
        is: u64,
        /// The revision the change was meant for.
        expected: u64,
    },
    /// The registry is not at the revision that a plan was made at.
    #[error("the registry changed meanwhile (it is at revision {is}, not {expected}){}; look at the plan again", before(*done))]
    Outdated {
        /// The registry's revision.
        is: u64,
        /// The revision of the plan.
        expected: u64,
        /// Steps of the plan that were carried out before.
        done: usize,
    },
    /// It is so already, and the command cannot be meant.
    #[error("{0}")]
    Already(String),
}

impl Refusal {
    /// A word for programs, which stays the same.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid",
            Self::Unknown { .. } | Self::NotPinned { .. } => "not-found",
            Self::Taken { .. } => "name-taken",
            Self::Reserved { .. } => "name-reserved",
            Self::KeyTaken { .. } => "key-taken",
            Self::IpTaken { .. } => "ip-taken",
            Self::AgentKeyTaken { .. } => "agent-key-taken",
            Self::IdentityTaken { .. } => "identity-taken",
            Self::EdgeRemoved { .. } => "edge-removed",
            Self::EdgeOfHostRemoved { .. } => "edge-of-host-removed",
            Self::AgentKeyOther { .. } => "agent-key-other",
            Self::AgentRemoved { .. } => "agent-removed",
            Self::JoinTokenUsed { .. } => "join-token-used",
            Self::JoinTokenExpired { .. } => "join-token-expired",
            Self::JoinTokenUnknown => "join-token-unknown",
            Self::NoHandoff { .. } => "no-handoff",
            Self::InUse { .. } => "in-use",
            Self::Going { .. } => "being-removed",
            Self::Conflict { .. } => "conflict",
            Self::Exhausted { .. } => "pool-exhausted",
            Self::Closed { .. } => "slots-closed",
            Self::NotReady { .. } => "address-not-ready",
            Self::TooMany { .. } => "too-many",
            Self::HostKeyOther { .. } | Self::NodeHostKeyOther { .. } => "host-key-changed",
            Self::HostKeyTaken { .. } => "host-key-taken",
            Self::HostKeyElsewhere { .. } => "host-key-elsewhere",
            Self::Changed { .. } | Self::Outdated { .. } => "changed",
            Self::Already(_) => "already",
        }
    }

    pub(super) fn invalid(what: impl fmt::Display, fix: impl Into<String>) -> Self {
        Self::Invalid { what: what.to_string(), fix: fix.into() }
    }

    pub(super) fn unknown(kind: Kind, name: impl fmt::Display) -> Self {
        Self::Unknown { kind, name: name.to_string() }
    }

    /// As a served file, which can allow nothing, is told.
    pub(super) fn in_a_file(mut self) -> Self {
        if let Self::Conflict { way_out, .. } = &mut self
            && *way_out == WayOut::Renumber
        {
            *way_out = WayOut::InTheFile;
        }
        self
    }

    pub(super) fn too_many_teams(user: &Label, teams: usize) -> Self {
        Self::TooMany { what: format!("user `{user}` would be in {teams} teams"), limit: TEAMS_MAX }
    }
}

impl From<super::name::NotALabel> for Refusal {
    fn from(fault: super::name::NotALabel) -> Self {
        Self::Invalid {
            what: format!("`{}` is no name", fault.name),
            fix: "write 1 to 63 of a-z, 0-9 and -, with no - at either end".to_owned(),
        }
    }
}

const fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::User => "user",
        Kind::Key => "key",
        Kind::Team => "team",
        Kind::Vm => "vm",
        Kind::Address => "address",
        Kind::Node => "node",
        Kind::Edge => "edge",
        Kind::Token => "token",
    }
}

fn not_handed_off(vm: &Label, node: Option<&Label>, why: NoHandoff) -> String {
    let node = node.map_or("NODE", Label::as_str);
    let way_out = match why {
        NoHandoff::NoNode => format!("put it on one (`keyway vm set {vm} --node NODE`)"),
        NoHandoff::NoAgent => {
            format!("give it one (`keyway node set {node} --agent IP:PORT --agent-key KEY`)")
        }
        NoHandoff::NotJoined => format!("have it join (`keyway node token {node}`)"),
        NoHandoff::Untrusted => format!("trust it (`keyway node set {node} --trusted true`)"),
    };
    format!(
        "VM `{vm}` cannot be handed off: {}; {way_out}, or leave carry at auto",
        why.to_string().replace("the node", &format!("node `{node}`"))
    )
}

fn until_lately(quarantined: usize) -> String {
    if quarantined == 0 {
        String::new()
    } else {
        format!(" (and {quarantined} more until not long ago)")
    }
}

/// Collisions that are named one by one.
const COLLISIONS_SHOWN: usize = 5;

fn list(collisions: &[Collision]) -> String {
    let mut text = String::new();
    for (index, collision) in collisions.iter().take(COLLISIONS_SHOWN).enumerate() {
        if index > 0 {
            text.push_str("; ");
        }
        text.push_str(&collision.to_string());
    }
    if let Some(more) = collisions.len().checked_sub(COLLISIONS_SHOWN).filter(|more| *more > 0) {
        text.push_str("; and ");
        text.push_str(&more.to_string());
        text.push_str(" more");
    }
    text
}

/// Seconds of a day.
const DAY_S: u64 = 86_400;

fn before(done: usize) -> String {
    if done == 0 { String::new() } else { format!("; steps carried out before that: {done}") }
}

/// A Unix time as RFC 3339 writes it.
#[must_use]
pub fn utc(unix_s: u64) -> String {
    let (days, rest) = (unix_s / DAY_S, unix_s % DAY_S);
    // From days to a date of the proleptic Gregorian calendar, by years that begin in March and
    // eras of 400 years.
    let z = days + 719_468;
    let era = z / 146_097;
    let of_era = z % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}
