//! Where a login would lead, and why: the question and its explanation.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::node::Carried;

/// A login that somebody wonders about: a key or a certificate, and an address or a name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Explain {
    /// An `authorized_keys` line, or
    pub(in super::super) key: Option<String>,
    /// `SHA256:...`, or
    pub(in super::super) fingerprint: Option<String>,
    /// the line of a user certificate, as in `id-cert.pub`.
    pub(in super::super) cert: Option<String>,
    /// The name or an IP of a pool address, or
    pub(in super::super) address: Option<String>,
    /// a VM's name, with the zone or without.
    pub(in super::super) name: Option<String>,
    /// What stands before the @.
    pub(in super::super) login: Option<String>,
    /// The address that the client comes from. Without it, `depends` says that it matters.
    pub(in super::super) from: Option<IpAddr>,
}

/// Where a key at an address leads, and why.
#[derive(Clone, Debug, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Explanation {
    /// What would happen.
    pub decision: Decision,
    /// Whose key it is.
    pub principal: Option<String>,
    /// Where it leads.
    pub vm: Option<String>,
    /// Which address was meant.
    pub address: Option<String>,
    /// As whom in the VM.
    pub login: Option<String>,
    /// Whether `login+vm` decided.
    pub by_name: bool,
    /// What would carry the session.
    pub carried: Option<Carried>,
    /// For people.
    pub reason: String,
    /// The same for programs.
    pub code: String,
    /// What was asked on the way, up to what decided.
    pub steps: Vec<Step>,
}

/// What would happen to a login.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It enters a VM.
    Vm,
    /// It gets the list of its VMs.
    Lobby,
    /// It depends on what the question does not say: where the client comes from, or more of the
    /// key than its fingerprint.
    Depends,
    /// It is not let in.
    Refused,
}

/// One question on the way to a decision.
#[derive(Clone, Debug, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Step {
    /// What was asked.
    pub step: String,
    /// What came of it.
    pub answer: String,
}
