//! Authentication (RFC 4252), both roles, by public key only.
//!
//! `keyboard-interactive` is listed to people whose keys are refused, and lets nobody in:
//! see `LastWords`.
//!
//! The server side answers offers through a [`Gate`], verifies signatures and hands out
//! [`ProvedKey`]s; it decides nothing about routes, dials nothing and counts nothing beyond its own
//! connection. The client side logs in to a VM with one signed request. Both are fed by whoever
//! drives the transport.

mod client;
mod messages;
mod policy;
mod presented;
mod proof;
mod server;
mod standing;

pub use self::client::{Credential, Login, LoginStep};
pub use self::messages::{LOGIN_BYTES_MAX, Method, is_login};
pub use self::policy::Policy;
pub use self::presented::{Identity, Presented};
pub use self::proof::{Gate, ProvedKey};
pub use self::server::{Authenticator, OFFERS_MAX, Step};
pub use self::standing::{Offer, Pass, Subject};
