//! What tests and fuzzing have in common with no single room: fuzz bodies, and directories
//! of a test's own.

pub mod fuzz;
#[cfg(test)]
pub(crate) mod scratch;
