//! API tokens.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pattern::NAME;
use crate::registry::Label;
use crate::registry::document::{self, Role};

/// An API token, of which only a hash is kept.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Token {
    /// A DNS label.
    pub name: String,
    /// What its bearer may do.
    pub role: Role,
    /// Unix time.
    pub created_s: u64,
    /// Unix time from which on it is refused.
    pub expires_s: Option<u64>,
    /// Goes up with every change.
    pub revision: u64,
    /// Shown once, to whoever made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl Token {
    /// As the registry has it; the token itself is not known.
    pub(in super::super) fn of(name: &Label, token: &document::Token, revision: u64) -> Self {
        Self {
            name: name.to_string(),
            role: token.role,
            created_s: token.created_s,
            expires_s: token.expires_s,
            revision,
            token: None,
        }
    }
}

/// A new API token.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct NewToken {
    #[schemars(regex(pattern = NAME))]
    pub(in super::super) name: String,
    pub(in super::super) role: Role,
    /// Unix time from which on it is refused.
    pub(in super::super) expires_s: Option<u64>,
}
