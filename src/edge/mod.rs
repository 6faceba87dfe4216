//! THE DATA PLANE: accepts, authenticates, routes, dials and carries. The only room with
//! epoll and unsafe.
//!
//! Fed by the kernel and by `route`; it never parses SSH itself (that is `ssh`), never says who may
//! go where (that is `route`), and never names `control`. In reading order: [`Edge`] (`running`),
//! then `shard`, `door`, `gate`, `vm_leg`, `pump`, `relay`.

#![allow(unsafe_code, reason = "descriptors, socket options and epoll; one operation a block")]

pub mod admission;
mod attended;
mod banner;
#[doc(hidden)]
pub mod bare_flow;
mod buffers;
pub mod clock;
pub mod denied;
mod door;
mod early;
mod epoll;
mod executor;
mod failed;
pub mod first_use;
pub mod gate;
mod global_requests;
pub mod handoff;
pub mod listen;
mod lobby;
pub mod local_address;
mod login_leg;
mod names;
mod packet_size;
mod presence;
pub mod proxy_header;
pub mod pump;
pub mod relay;
pub mod report;
pub mod revocation;
pub mod route_gate;
mod running;
pub mod seats;
mod sequence;
pub mod settings;
mod shard;
pub mod shared;
mod slab;
mod socket_options;
mod stream;
#[cfg(test)]
mod testing;
mod vm_leg;
mod workers;

pub use self::attended::Progress;
pub use self::running::{Edge, Present, Start, StartFault};
