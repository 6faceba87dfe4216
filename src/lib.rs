//! Keyway, an SSH front door for fleets of virtual machines.

pub mod cli;
pub mod config;
pub mod control;
pub mod edge;
pub mod ended;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod metrics;
pub mod route;
pub mod serve;
pub mod ssh;
pub mod state;
