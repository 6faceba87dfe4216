//! What the whole process is told to do: a backup, a reload.

use schemars::JsonSchema;
use serde::Deserialize;

/// Where a backup goes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Backup {
    /// An absolute path on the host that keyway runs on; nothing may be there.
    pub(in super::super) path: String,
}

/// How the files are read again.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Reload {
    /// `plan` of an answer whose fleet file was held back: that one is carried out, however
    /// much it removes.
    pub(in super::super) allow_mass_removal: Option<String>,
}
