//! What a pump carries, is asked about it, and says of it when it is over.

use std::sync::Arc;
use std::time::Duration;

use super::super::relay::Wanted;
use super::{Carriage, Carry};
use crate::ended::{Cause, Detail, Ended};

/// An established session. `I` says who and where: for the log line and for checking
/// the right again.
pub struct Session<I> {
    /// How its bytes get across.
    pub carriage: Carriage,
    /// Given back, unread, to the checks and to `on_end`.
    pub info: I,
    /// When the connection was accepted, on the clock of [`crate::edge::clock`].
    pub started_ms: u64,
}

/// What a session's principal may do where it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stay {
    /// Go on; asked again at a moment on the clock of [`crate::edge::clock`], if the
    /// right has an end.
    Until(Option<u64>),
    /// No more.
    End(Cause),
}

/// Takes to the session what it wanted; `None`: there will be none.
pub type Deliver = Box<dyn FnOnce(Option<Vec<u8>>) + Send>;

/// Asks whoever holds the host keys for what a session wants. False: nobody can be asked.
pub type Ask<I> = Arc<dyn Fn(&I, Wanted<'_>, Deliver) -> bool + Send + Sync>;

/// Says whether a session's principal may still be where it is.
pub type Check<I> = Arc<dyn Fn(&I) -> Stay + Send + Sync>;

/// What a visit finds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seen {
    /// How its bytes get across.
    pub carry: Carry,
    /// Bytes read from the client so far.
    pub up: u64,
    /// Bytes read from the VM so far.
    pub down: u64,
}

/// Looks at a session; says whether it may stay. Must be quick.
pub type Visit<I> = Box<dyn FnMut(&I, Seen) -> bool + Send>;

/// What is known of a session when it is over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// Who ended it and why.
    pub ended: Ended,
    /// How its bytes got across.
    pub carry: Carry,
    /// What is known beyond that.
    pub detail: Option<Detail>,
    /// Bytes read from the client.
    pub up: u64,
    /// Bytes read from the VM.
    pub down: u64,
    /// Since [`Session::started_ms`].
    pub lasted: Duration,
}
