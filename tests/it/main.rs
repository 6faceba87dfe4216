//! The integration tests, one crate: the rules of the code base (`tidy`), then the product
//! as people meet it.

#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "every function here runs inside a test, helpers included, where failing loudly is the point"
)]

mod addresses;
mod agent;
mod agent_drain;
mod api;
mod audit;
mod away;
mod clients;
mod copies;
mod copying;
mod denied;
mod dns;
mod docker;
mod edges;
mod faults;
mod feed;
mod fleet_file;
mod flood;
mod handoff;
mod harness;
mod host_keys;
mod join;
mod lobby;
mod memory;
mod nodes;
mod openssh;
mod operations;
mod others;
mod parting;
mod people;
mod quickstart;
mod registry;
mod restarts;
mod russh_client;
mod seats;
mod shells;
mod signing;
mod staged;
mod stolen_edge;
mod store;
mod tidy;
mod tunnel;
mod wires;
