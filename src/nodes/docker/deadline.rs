//! How long something may take, counted anew whenever it moves.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// A limit on standing still.
pub(super) struct Deadline {
    /// Nothing where standing still is no fault: a log that is followed.
    limit: Option<Duration>,
    still: Option<Pin<Box<Sleep>>>,
    /// How far it had come when `still` began.
    far: u64,
}

impl Deadline {
    pub(super) const fn new(limit: Option<Duration>) -> Self {
        Self { limit, still: None, far: 0 }
    }

    /// It moves, or nobody waits for it.
    pub(super) fn moved(&mut self) {
        self.still = None;
    }

    /// For whoever has to wait: the limit, once it has come no further than `far` for so long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, far: u64) -> Poll<Duration> {
        let Some(limit) = self.limit else { return Poll::Pending };
        if far != self.far {
            (self.still, self.far) = (None, far);
        }
        let still = self.still.get_or_insert_with(|| Box::pin(sleep(limit)));
        still.as_mut().poll(cx).map(|()| limit)
    }
}
