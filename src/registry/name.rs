//! Names: what users, teams, VMs and addresses are called, and whom a right is given to.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::plain_text::{SHOWN_CHARS_MAX, masked};
use crate::route::{TEAM_PREFIX, is_label};

/// One label of a DNS name: 1 to 63 of `a-z 0-9 -`, no hyphen at either end (RFC 1035 §2.3.1,
/// lower case only).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Label(Arc<str>);

/// What is wrong with a name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{name}` is no name; write 1 to 63 of a-z, 0-9 and -, with no - at either end")]
pub struct NotALabel {
    /// As given, shortened, with `?` for what is not safe to show.
    pub name: String,
}

impl Label {
    /// Reads a name.
    ///
    /// # Errors
    /// [`NotALabel`].
    pub fn new(name: &str) -> Result<Self, NotALabel> {
        if is_label(name) {
            return Ok(Self(name.into()));
        }
        Err(NotALabel { name: masked(name, SHOWN_CHARS_MAX) })
    }

    /// The text, which all copies of this share.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
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

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Read::<Self>(PhantomData))
    }
}

/// Reads a name where it stands: millions are read at a start.
struct Read<T>(PhantomData<T>);

impl<T: FromStr<Err = NotALabel>> Visitor<'_> for Read<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
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
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
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

impl Serialize for Principal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Principal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Read::<Self>(PhantomData))
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
