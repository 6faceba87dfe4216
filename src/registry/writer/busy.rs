//! What this thread is about with the model. Whoever reads it lends nothing to the writer, so it
//! must not wait for the writer, nor for a disk while all others wait for it: that is a fault of
//! ours, and a deadlock of the whole registry if it is not told at once.

use std::cell::Cell;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Busy {
    Not,
    /// It holds the model's lock for reading.
    Reads,
    /// It is the one that orders wait for.
    Writes,
}

thread_local! {
    static BUSY: Cell<Busy> = const { Cell::new(Busy::Not) };
}

/// From now on this thread is busy, until this is dropped: behind the guard it stands for.
#[must_use]
pub(super) struct Mark(());

/// This thread reads the model.
pub(super) fn reads() -> Mark {
    begins(Busy::Reads)
}

/// This thread is the writer.
pub(super) fn writes() -> Mark {
    begins(Busy::Writes)
}

fn begins(now: Busy) -> Mark {
    BUSY.set(now);
    Mark(())
}

impl Drop for Mark {
    fn drop(&mut self) {
        BUSY.set(Busy::Not);
    }
}

/// What is about to be done may wait for the writer.
///
/// # Panics
/// If this thread reads the model, or is the writer: a request that fails is less than a registry
/// that hangs.
#[track_caller]
pub(super) fn must_not(what: &str) {
    let does = match BUSY.get() {
        Busy::Not => return,
        Busy::Reads => "reads",
        Busy::Writes => "writes",
    };
    unreachable!("{what} on the thread that {does} the registry: nobody could go on any more");
}
