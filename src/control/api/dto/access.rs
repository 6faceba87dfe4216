//! How somebody enters VMs, in a team or by a share.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::registry::document::Access;

/// How somebody is let in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct NewAccess {
    #[serde(default)]
    pub(in super::super) access: Access,
}
