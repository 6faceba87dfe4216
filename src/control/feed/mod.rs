//! THE FEED: how routes leave the process. Whoever judges elsewhere follows the registry: a
//! snapshot, then what changes, in the frames of [`crate::route::saved_routes`], each behind its
//! length in four bytes, as an answer over TLS that does not end.
//!
//! - `hub`: what each audience is sent, from the registry's commits, kept in its `ring`. `send`: to
//!   one follower. `seats`: how many of them do at once what costs others something.
//! - `stage`: a large commit, and who has it before the others.
//! - `proof`: who follows: the holder of a node's key, at this very connection. `version`: which
//!   frames both ends know.
//! - `known`: what a follower that comes has already.
//! - `join`: how a key becomes a node's. `client`: the other end.
//!
//! A follower says how far it has come; what is missing is in the audience's ring, or it begins
//! anew. What is encoded is encoded once an audience; a slow follower holds nothing but its place.

pub mod client;
mod hub;
mod join;
mod known;
mod pins;
pub(super) mod proof;
mod ring;
mod seats;
mod send;
mod stage;
pub(super) mod version;

use std::time::Duration;

use axum::body::Bytes;

pub(super) use self::hub::Follower;
pub use self::hub::{Counts, Gauges, Hub, Staged};
pub(super) use self::join::{JoinAnswer, JoinQuestion, believed};
pub(super) use self::known::Known;
pub use self::known::{PROGRAM, digest};
pub use self::pins::PinAnswer;
pub(super) use self::pins::PinQuestion;
pub(super) use self::seats::{PINS_MAX, READS_MAX, Seats};
pub(super) use self::send::send;
pub(super) use self::stage::Report;
use crate::route::Contents;
use crate::route::saved_routes::{self, Head};

/// What followers say they speak (ALPN, RFC 7301): they have seats of their own.
pub(super) const ALPN: &[u8] = b"keyway-feed";
/// Where the feed is, at the API's TLS listener.
pub(super) const PATH: &str = "/v1/feed";
/// Where VMs' host keys are sent to at their first use.
pub(super) const PINS_PATH: &str = "/v1/feed/pins";
/// Where a canary says how it is.
pub(super) const REPORT_PATH: &str = "/v1/feed/report";
/// Where an agent becomes a node's.
pub(super) const JOIN_PATH: &str = "/v1/feed/join";
/// How often a follower hears at least that it has everything.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(2);

/// Everything, as it is sent.
pub(super) fn whole((head, contents): (Head, Contents)) -> Bytes {
    ring::framed(&saved_routes::encode(head, &contents).collect::<Vec<_>>())
}
