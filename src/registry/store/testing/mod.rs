//! What every engine is judged by: the suite that holds it to the rules, and the reference.

pub(crate) mod conformance;
pub(crate) mod memory;
