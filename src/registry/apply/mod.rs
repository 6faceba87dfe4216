//! From what is to what a fleet says: what is desired, the plan of commands that leads there,
//! and its execution.
//!
//! - `desired`: a fleet, looked up by name. `identity`: which VM that stands each of its VMs is.
//! - `plan`: the commands, in order; in `nodes` and `edges` those of these. `transition`: what they
//!   must not take away in between. Both are pure.
//! - `execute`: a plan through the service. `served_file`: a served file's, if it may be carried
//!   out at all: its `doings`, their `tally`, and whether so many `removals` can be meant.

mod desired;
mod doings;
mod edges;
mod execute;
mod identity;
mod nodes;
mod plan;
mod removals;
pub mod served_file;
mod tally;
mod transition;

pub use self::desired::Prune;
pub use self::execute::{Applied, apply};
pub use self::plan::{Step, plan};
