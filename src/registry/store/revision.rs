//! Which history a store has, and the points in it.

use std::fmt;

/// A point in the history of one store; later is greater.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Revision(pub u64);

impl Revision {
    /// Where a store begins: empty, nothing committed.
    pub const ZERO: Self = Self(0);
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which history the revisions belong to: random, drawn by the caller for a new store and again
/// for a restored one.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct StoreId(pub [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Where a store stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// Which store it is.
    pub store_id: StoreId,
    /// The revision of its last commit.
    pub revision: Revision,
}
