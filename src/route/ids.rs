//! What principals and pool addresses are called inside of one table.

use std::num::NonZeroU64;

/// Names one principal in one table. Given out once: a user removed and added again is
/// another principal.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct PrincipalId(pub(super) u64);

/// Names one pool address in one table. Given out once; it stays when the address gets
/// other IP addresses.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct AddressId(pub(super) NonZeroU64);

impl AddressId {
    /// The id in the four bytes that all have until a table has seen four billion addresses.
    pub(super) fn short(self) -> Option<u32> {
        u32::try_from(self.0.get()).ok()
    }

    /// The id that [`AddressId::short`] gave: never zero.
    pub(super) fn long(short: u32) -> Option<Self> {
        NonZeroU64::new(u64::from(short)).map(Self)
    }
}
