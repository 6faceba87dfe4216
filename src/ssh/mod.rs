//! THE PROTOCOL, both roles: SSH transport, authentication and the connection messages we
//! answer ourselves.
//!
//! Sans-IO: no socket, no clock, no log. Bytes, time and randomness are arguments; bytes and events
//! come back (`entropy` alone knows the system's source, for whoever passes it in). Fed by the door
//! and the pump. It never panics on peer bytes and never allocates by their say-so.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

pub mod authorized_keys;
pub mod certificate;
pub mod cipher;
pub mod connection;
pub mod digest;
pub mod entropy;
pub mod fault;
pub mod handoff;
pub mod host_key;
pub mod ident;
pub mod kex;
pub mod keytype;
pub mod message;
pub mod negotiate;
pub mod notice;
mod outlet;
pub mod packet;
pub mod private_key;
mod protection;
pub mod publickey;
mod restrictions;
pub mod revocation;
pub mod role;
pub mod source_address;
#[cfg(any(test, fuzzing))]
pub(crate) mod testing;
pub mod text;
pub mod transport;
pub mod userauth;
pub mod wire;
