//! How much a table holds.

/// Sizes, for the metrics.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Users.
    pub users: usize,
    /// Keys of all users.
    pub keys: usize,
    /// VMs.
    pub vms: usize,
    /// Pool addresses.
    pub addresses: usize,
    /// Filled slots.
    pub slots: usize,
}
