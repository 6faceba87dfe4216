//! What is wrong in a file, where, and what to do about it.

use std::fmt;
use std::sync::Arc;

use crate::plural::count;

/// One fault or warning, at a line of a file.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Finding {
    /// Faults of one file stay together, in the order in which the files were read.
    pub(super) order: usize,
    /// From 1.
    pub line: usize,
    /// The file, as it was named on the command line.
    pub file: Arc<str>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub fix: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}; fix: {}", self.file, self.line, self.what, self.fix)
    }
}

/// Why nothing was loaded: everything found, in the order of the files and lines.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{} in the configuration", count(.faults.len(), "fault"))]
pub struct Report {
    /// At least one.
    pub faults: Vec<Finding>,
    /// What would have been worth a word beside.
    pub warnings: Vec<Finding>,
}
