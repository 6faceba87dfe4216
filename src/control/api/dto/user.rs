//! Users and their keys.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pattern::NAME;
use crate::registry::document::{self, Origin, UserKey};
use crate::registry::{Label, Model, Principal};

/// A key that nobody has: the private half was thrown away.
const LINE: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIARw/HeTwZikcRO/nQLk+tDE0vudcQT2npuHC4s5TE/m laptop";

/// A user.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct User {
    /// A DNS label.
    pub name: String,
    /// In the order they were added.
    pub keys: Vec<Key>,
    /// By name.
    pub teams: Vec<String>,
    /// How many VMs the user may enter, through whatever opens a way.
    pub vms: usize,
    /// Whose it is: what is the served fleet file's goes when that no longer names it. None while
    /// the registry is away.
    pub origin: Option<Origin>,
    /// Set while it is being removed. Whoever finds it so after a removal that was cut short
    /// removes it again.
    pub going: bool,
    /// Goes up with every change.
    pub revision: u64,
}

impl User {
    /// As the registry has it.
    pub(in super::super) fn of(
        model: &Model,
        name: &Label,
        user: &document::User,
        revision: u64,
    ) -> Self {
        Self {
            name: name.to_string(),
            keys: user.keys.iter().map(|key| Key::new(key, None)).collect(),
            teams: model.teams_of(name).keys().map(ToString::to_string).collect(),
            vms: model.visible_to(&Principal::User(name.clone())).len(),
            origin: model.known(user.origin),
            going: user.going,
            revision,
        }
    }
}

/// A public key of a user.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Key {
    /// `SHA256:...`
    pub fingerprint: String,
    /// `ssh-ed25519` and its like.
    #[serde(rename = "type")]
    pub key_type: String,
    /// What stands behind the key.
    pub comment: String,
    /// What stands before it.
    pub options: String,
    /// All of it, as in `authorized_keys`.
    pub line: String,
    /// Whose it is, in a list of everybody's keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

impl Key {
    pub(in super::super) fn new(key: &UserKey, user: Option<&Label>) -> Self {
        Self {
            fingerprint: key.fingerprint.clone(),
            key_type: key.key.split(' ').next().unwrap_or_default().to_owned(),
            comment: key.comment.clone(),
            options: key.options.clone(),
            line: key.line(),
            user: user.map(ToString::to_string),
        }
    }
}

/// A new user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct NewUser {
    #[schemars(regex(pattern = NAME))]
    pub(in super::super) name: String,
    /// `authorized_keys` lines.
    #[serde(default)]
    #[schemars(example = [LINE])]
    pub(in super::super) keys: Vec<String>,
}

/// A key for a user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct NewKey {
    /// An `authorized_keys` line.
    #[schemars(example = LINE)]
    pub(in super::super) line: String,
}
