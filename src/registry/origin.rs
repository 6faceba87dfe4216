//! Whose things are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whose a thing is: what a served fleet file names is the file's, however it was made, and goes
/// when the file no longer names it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Nobody's but those who made it: commands, by hand or by a program.
    #[default]
    Command,
    /// The fleet file's that is served.
    Fleet,
}

impl Origin {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Fleet => "fleet",
        }
    }
}
