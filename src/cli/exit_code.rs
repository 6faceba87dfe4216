//! What the process says to whoever started it. The help of `keyway` lists the same.

/// All that could be done was done.
pub(super) const DONE: u8 = 0;
/// Something is wrong, and was told on stderr.
pub(super) const FAULTS: u8 = 1;
/// The arguments make no sense.
pub(super) const USAGE: u8 = 2;
/// No server answers.
pub(super) const UNREACHABLE: u8 = 3;
/// What was to be changed is not at the revision that was named.
pub(super) const CHANGED: u8 = 4;
