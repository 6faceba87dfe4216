//! A connection's place among those that have proved no key yet.

use std::cell::Cell;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::rc::Rc;

use nix::sys::socket::{Shutdown, shutdown};

use super::super::admission;
use super::super::stream::Stream;
use super::Door;

/// A place among the half-open connections, given back when the key is accepted or the
/// connection ends.
pub(in crate::edge) struct HalfOpenSlot {
    door: Rc<Door>,
    id: admission::Id,
    taken: Cell<bool>,
}

impl HalfOpenSlot {
    pub(in crate::edge) fn take(door: &Rc<Door>, stream: &Stream, source: IpAddr) -> Self {
        let admitted = door.admission.borrow_mut().admit(source);
        if let Some(evicted) = admitted.evict
            && let Some(fd) = door.half_open.borrow_mut().remove(&evicted)
        {
            // Its task wakes up to the end of its stream and finds that its place is gone.
            let _gone_already = shutdown(fd, Shutdown::Both);
        }
        door.half_open.borrow_mut().insert(admitted.id, stream.as_fd().as_raw_fd());
        let place = Self { door: Rc::clone(door), id: admitted.id, taken: Cell::new(true) };
        place.show();
        place
    }

    pub(in crate::edge) fn progressed(&self) {
        self.door.admission.borrow_mut().progressed(self.id);
    }

    pub(in crate::edge) fn sourced(&self, source: IpAddr) {
        self.door.admission.borrow_mut().sourced(self.id, source);
    }

    /// Somebody else has this place.
    pub(in crate::edge) fn evicted(&self) -> bool {
        self.taken.get() && !self.door.admission.borrow().holds(self.id)
    }

    pub(in crate::edge) fn leave(&self) {
        self.taken.set(false);
        self.door.half_open.borrow_mut().remove(&self.id);
        self.door.admission.borrow_mut().finished(self.id);
        self.show();
    }

    fn show(&self) {
        self.door.counters.half_open(u64::from(self.door.admission.borrow().len()));
    }
}

impl Drop for HalfOpenSlot {
    fn drop(&mut self) {
        self.leave();
    }
}
