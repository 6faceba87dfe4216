//! What the registry is judged by: the oracle of its histories.

pub(crate) mod dice;
pub(crate) mod history;
