//! The one writer: takes orders, carries them out on the model, makes them durable, and tells
//! whoever follows.
//!
//! Orders that wait together are made durable together: a commit costs some milliseconds, and its
//! price is shared. An order is answered when it is durable and followed, so that whoever has the
//! answer can log in. Readers read the model between batches. What the store did not take is taken
//! back; if the store and the model ever disagree, the model is read anew.
//!
//! - `request`: what is asked, and what comes of it. `service`: who takes it. `thread`: who does
//!   it, a `batch` at a time.
//! - `load`: from a store to a model, at a start. `follower`: the same for a store that
//!   another process writes.
//! - `busy`: that nobody waits for the writer who keeps it waiting.

mod batch;
mod busy;
mod follower;
mod load;
mod request;
mod service;
mod thread;

pub use self::follower::Follower;
pub use self::request::{
    CommandRequest, Committed, Mode, RegistryError, ServiceError, StoreHealth, Subscriber, Update,
};
pub use self::service::{Service, Start, load};
pub use super::audit::{Actor, Audit, Moved};
