//! Names: what users, teams, VMs and addresses are called, and whom a right is given to.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::route::{TEAM_PREFIX, is_label};

/// One label of a DNS name: 1 to 63 of `a-z 0-9 -`, no hyphen at either end (RFC 1035 §2.3.1, lower case only).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(Arc<str>);

/// What is wrong with a name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{name}` is no name; write 1 to 63 of a-z, 0-9 and -, with no - at either end")]
pub struct NotALabel {
    /// As given, shortened and without control characters.
    pub name: String,
}

/// Characters of a wrong name that are repeated to whoever wrote it.
const SHOWN_CHARS: usize = 80;

impl Label {
    /// Reads a name.
    ///
    /// # Errors
    /// [`NotALabel`].
    pub fn new(name: &str) -> Result<Self, NotALabel> {
        if is_label(name) {
            return Ok(Self(name.into()));
        }
        let shown = name.chars().take(SHOWN_CHARS).map(|c| if c.is_control() { '?' } else { c });
        Err(NotALabel { name: shown.collect() })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = NotALabel;

    fn from_str(name: &str) -> Result<Self, NotALabel> {
        Self::new(name)
    }
}

impl TryFrom<String> for Label {
    type Error = NotALabel;

    fn try_from(name: String) -> Result<Self, NotALabel> {
        Self::new(&name)
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.as_str().to_owned()
    }
}

impl Borrow<str> for Label {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who can own a VM or be let into one: `alice`, or `team:ops`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Principal {
    /// A user.
    User(Label),
    /// A team.
    Team(Label),
}

impl Principal {
    /// The name without its prefix.
    #[must_use]
    pub const fn label(&self) -> &Label {
        match self {
            Self::User(label) | Self::Team(label) => label,
        }
    }
}

impl FromStr for Principal {
    type Err = NotALabel;

    fn from_str(text: &str) -> Result<Self, NotALabel> {
        match text.strip_prefix(TEAM_PREFIX) {
            Some(team) => Ok(Self::Team(Label::new(team)?)),
            None => Ok(Self::User(Label::new(text)?)),
        }
    }
}

impl TryFrom<String> for Principal {
    type Error = NotALabel;

    fn try_from(text: String) -> Result<Self, NotALabel> {
        text.parse()
    }
}

impl From<Principal> for String {
    fn from(principal: Principal) -> Self {
        principal.to_string()
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(label) => label.fmt(f),
            Self::Team(label) => write!(f, "{TEAM_PREFIX}{label}"),
        }
    }
}
