//! What a node said, as it may be shown.

use crate::ssh::text::printable;

/// Most that is shown of it, in bytes.
const SAID_BYTES_MAX: usize = 200;

/// On one line, printable and short.
pub(super) fn shown(said: &str) -> String {
    printable(said.trim(), SAID_BYTES_MAX)
}
