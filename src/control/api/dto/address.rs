//! Pool addresses.

use std::net::{AddrParseError, IpAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pattern::NAME;
use crate::registry::document::{self, AddressState, Origin};
use crate::registry::{Label, Model};

/// A pool address.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Address {
    /// A DNS label.
    pub name: String,
    /// What clients dial.
    pub public: IpAddr,
    /// What clients dial over IPv6.
    pub public6: Option<IpAddr>,
    /// What the host sees behind a NAT.
    pub private: Option<IpAddr>,
    /// Whether VMs are put here.
    pub state: AddressState,
    /// Whether registered keys get the list of their VMs here.
    pub lobby: bool,
    /// How many VMs answer here.
    pub vms: usize,
    /// Whose it is: what is the served fleet file's goes when that no longer names it. None while
    /// the registry is away.
    pub origin: Option<Origin>,
    /// Goes up with every change.
    pub revision: u64,
}

impl Address {
    /// As the registry has it.
    pub(in super::super) fn of(
        model: &Model,
        name: &Label,
        address: &document::Address,
        revision: u64,
    ) -> Self {
        let document::Address { public, public6, private, lobby, state, origin } = *address;
        let origin = model.known(origin);
        let vms = model.vms_at(name).map_or(0, std::collections::BTreeSet::len);
        Self {
            name: name.to_string(),
            public,
            public6,
            private,
            state,
            lobby,
            vms,
            origin,
            revision,
        }
    }
}

/// A new pool address.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct NewAddress {
    #[schemars(regex(pattern = NAME))]
    pub(in super::super) name: String,
    /// What clients dial.
    #[schemars(example = "127.0.77.1")]
    pub(in super::super) public: IpAddr,
    /// What clients dial over IPv6.
    pub(in super::super) public6: Option<IpAddr>,
    /// What the host sees behind a NAT.
    pub(in super::super) private: Option<IpAddr>,
    /// Registered keys get the list of their VMs here.
    #[serde(default)]
    pub(in super::super) lobby: bool,
}

/// What is to be another way in an address; what is left out stays.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct AddressPatch {
    pub(in super::super) public: Option<IpAddr>,
    /// Empty: none.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(in super::super) public6: IpPatch,
    /// Empty: none.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(in super::super) private: IpPatch,
    pub(in super::super) lobby: Option<bool>,
}

/// An IP that need not be there.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Option<String>")]
pub(in super::super) enum IpPatch {
    /// Left out, or null.
    #[default]
    Same,
    /// Empty.
    None,
    /// An address.
    Is(IpAddr),
}

impl IpPatch {
    pub(in super::super) const fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Is(ip) => Some(ip),
            Self::Same | Self::None => None,
        }
    }
}

impl TryFrom<Option<String>> for IpPatch {
    type Error = AddrParseError;

    fn try_from(text: Option<String>) -> Result<Self, AddrParseError> {
        Ok(match text.as_deref() {
            None => Self::Same,
            Some("") => Self::None,
            Some(text) => Self::Is(text.parse()?),
        })
    }
}
