//! One label of a name below the zone, by value.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::route::{LABEL_BYTES_MAX, is_label};

/// A VM's or an address' name: 1 to 63 of `a-z 0-9 -`, as [`is_label`] has it. Lives on the stack,
/// so that a question costs no allocation before it is known that the name exists.
#[derive(Clone, Copy)]
pub struct Label {
    bytes: [u8; LABEL_BYTES_MAX],
    len: u8,
}

impl Label {
    /// From a label of a question; upper case becomes lower case. `None` for what no
    /// VM can be called.
    #[must_use]
    pub fn new(label: &[u8]) -> Option<Self> {
        let mut bytes = [0; LABEL_BYTES_MAX];
        let lower = bytes.get_mut(..label.len())?;
        lower.copy_from_slice(label);
        lower.make_ascii_lowercase();
        let len = u8::try_from(label.len()).ok()?;
        str::from_utf8(lower).is_ok_and(is_label).then_some(Self { bytes, len })
    }

    /// In lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only ASCII is let in.
        str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl PartialEq for Label {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Label {}

impl Hash for Label {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
