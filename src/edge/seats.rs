//! Seats: who may have a session, and how many of them. All together, and for each user and each VM
//! a share, so that nobody keeps everybody else out, whether with idle sessions or with logins to a
//! VM that says nothing.
//!
//! A seat is taken before a VM is dialled and given back when the connection is over: two short
//! locks a session, each on one of a few maps.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ended::Cause;

/// Maps that names are spread over, so that shards seldom meet at one.
const STRIPES: usize = 16;

/// How many seats there are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Most {
    /// All shards together.
    pub sessions: usize,
    /// For one user.
    pub per_user: usize,
    /// In one VM.
    pub per_vm: usize,
}

/// Why there is no seat.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Full {
    /// All are taken.
    All,
    /// The user has so many.
    User(usize),
    /// The VM has so many.
    Vm(usize),
}

impl Full {
    /// As a cause, and how many sessions stand in the way.
    pub(super) const fn cause(self) -> (Cause, usize) {
        match self {
            Self::All => (Cause::SessionsFull, 0),
            Self::User(others) => (Cause::UserSessionsFull, others),
            Self::Vm(others) => (Cause::VmSessionsFull, others),
        }
    }
}

/// All seats of one process.
pub(super) struct Seats {
    most: Most,
    taken: Arc<AtomicUsize>,
    users: Arc<Shares>,
    vms: Arc<Shares>,
}

impl Seats {
    pub(super) fn new(most: Most) -> Self {
        Self { most, taken: Arc::default(), users: Arc::default(), vms: Arc::default() }
    }

    /// A seat for `user` in the VM whose id is `vm`.
    ///
    /// # Errors
    /// [`Full`]; nothing is taken.
    pub(super) fn take(&self, user: &Arc<str>, vm: &str) -> Result<SessionPermit, Full> {
        let all = Taken(Arc::clone(&self.taken));
        if self.taken.fetch_add(1, Ordering::Relaxed) >= self.most.sessions {
            return Err(Full::All);
        }
        let user = Shares::take(&self.users, user, self.most.per_user).map_err(Full::User)?;
        let vm = Shares::take(&self.vms, &Arc::from(vm), self.most.per_vm).map_err(Full::Vm)?;
        Ok(SessionPermit { _all: all, _user: user, _vm: vm })
    }

    pub(super) fn taken(&self) -> &Arc<AtomicUsize> {
        &self.taken
    }
}

/// One of the places for sessions; free again when this is dropped.
pub struct SessionPermit {
    _all: Taken,
    _user: Share,
    _vm: Share,
}

/// One of all.
struct Taken(Arc<AtomicUsize>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many of something each name holds. Names that hold none are not kept.
#[derive(Default)]
pub(super) struct Shares {
    hasher: RandomState,
    stripes: [Mutex<HashMap<Arc<str>, usize>>; STRIPES],
}

/// One of those that a name holds; given back when this is dropped.
pub(super) struct Share {
    of: Arc<Shares>,
    name: Arc<str>,
}

impl Shares {
    /// One more for `name`.
    ///
    /// # Errors
    /// How many it holds, if that is `most`.
    pub(super) fn take(shares: &Arc<Self>, name: &Arc<str>, most: usize) -> Result<Share, usize> {
        let mut held = shares.held(name);
        let count = held.get(&**name).copied().unwrap_or(0);
        if count >= most {
            return Err(count);
        }
        held.insert(Arc::clone(name), count + 1);
        drop(held);
        Ok(Share { of: Arc::clone(shares), name: Arc::clone(name) })
    }

    fn held(&self, name: &str) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        // The low bits are the hash's best, and there are few stripes.
        let at = usize::try_from(self.hasher.hash_one(name) % STRIPES as u64).unwrap_or(0);
        self.stripes[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.of.held(&self.name);
        match held.get_mut(&*self.name) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => {
                held.remove(&*self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names<const N: usize>(names: [&str; N]) -> [Arc<str>; N] {
        names.map(Arc::from)
    }

    #[test]
    fn one_user_and_one_vm_leave_seats_to_others() {
        let seats = Seats::new(Most { sessions: 4, per_user: 2, per_vm: 3 });
        let [alice, bob, carol] = names(["alice", "bob", "carol"]);
        let first = seats.take(&alice, "1").unwrap();
        let _second = seats.take(&alice, "1").unwrap();
        assert_eq!(seats.take(&alice, "2").err(), Some(Full::User(2)));
        let _third = seats.take(&bob, "1").unwrap();
        assert_eq!(seats.take(&bob, "1").err(), Some(Full::Vm(3)));
        assert_eq!(seats.taken().load(Ordering::Relaxed), 3, "who is refused holds nothing");
        let _fourth = seats.take(&bob, "2").unwrap();
        assert_eq!(seats.take(&carol, "2").err(), Some(Full::All));
        drop(first);
        let _again = seats.take(&carol, "1").unwrap();
    }

    #[test]
    fn names_that_hold_nothing_are_forgotten() {
        let shares = Arc::<Shares>::default();
        let held: Vec<_> = (0..1000)
            .map(|number| Shares::take(&shares, &Arc::from(number.to_string()), 1).ok().unwrap())
            .collect();
        drop(held);
        assert!(shares.stripes.iter().all(|stripe| stripe.lock().unwrap().is_empty()));
    }

    #[test]
    fn seats_that_are_taken_and_given_back_at_once_are_never_too_many() {
        let seats = Seats::new(Most { sessions: 6, per_user: 3, per_vm: 6 });
        let [alice, bob] = names(["alice", "bob"]);
        std::thread::scope(|scope| {
            for user in [&alice, &bob, &alice, &bob] {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let held: Vec<_> =
                            (0..4).map_while(|_| seats.take(user, "1").ok()).collect();
                        assert!(held.len() <= 3);
                    }
                });
            }
        });
        assert_eq!(seats.taken().load(Ordering::Relaxed), 0);
    }
}
