//! A connection's place among those that have proved no key yet.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::rc::Rc;
use std::sync::Arc;

use nix::sys::socket::{Shutdown, shutdown};

use super::super::admission::{self, Admission};
use super::super::stream::Stream;
use crate::metrics::Counters;

/// The half-open connections of one shard.
pub(super) struct HalfOpen {
    counters: Arc<Counters>,
    admission: RefCell<Admission>,
    /// Their descriptors, so that an evicted one can be woken to its end.
    descriptors: RefCell<HashMap<admission::Id, i32>>,
}

impl HalfOpen {
    pub(super) fn new(counters: Arc<Counters>, max: NonZeroU32) -> Self {
        let admission = RefCell::new(Admission::new(max));
        Self { counters, admission, descriptors: RefCell::default() }
    }
}

/// A place among the half-open connections, given back when the key is accepted or the
/// connection ends.
pub(in crate::edge) struct HalfOpenSlot {
    all: Rc<HalfOpen>,
    id: admission::Id,
    taken: Cell<bool>,
}

impl HalfOpenSlot {
    pub(super) fn take(all: &Rc<HalfOpen>, stream: &Stream, source: IpAddr) -> Self {
        let admitted = all.admission.borrow_mut().admit(source);
        if let Some(evicted) = admitted.evict
            && let Some(fd) = all.descriptors.borrow_mut().remove(&evicted)
        {
            // Its task wakes up to the end of its stream and finds that its place is gone.
            let _gone_already = shutdown(fd, Shutdown::Both);
        }
        all.descriptors.borrow_mut().insert(admitted.id, stream.as_fd().as_raw_fd());
        let place = Self { all: Rc::clone(all), id: admitted.id, taken: Cell::new(true) };
        place.show();
        place
    }

    pub(super) fn progressed(&self) {
        self.all.admission.borrow_mut().progressed(self.id);
    }

    pub(super) fn sourced(&self, source: IpAddr) {
        self.all.admission.borrow_mut().sourced(self.id, source);
    }

    /// Somebody else has this place.
    pub(super) fn evicted(&self) -> bool {
        self.taken.get() && !self.all.admission.borrow().holds(self.id)
    }

    pub(super) fn leave(&self) {
        self.taken.set(false);
        self.all.descriptors.borrow_mut().remove(&self.id);
        self.all.admission.borrow_mut().finished(self.id);
        self.show();
    }

    fn show(&self) {
        self.all.counters.half_open(u64::from(self.all.admission.borrow().len()));
    }
}

impl Drop for HalfOpenSlot {
    fn drop(&mut self) {
        self.leave();
    }
}
