//! Host names of VMs' endpoints, looked up by the system's resolver on threads of their own.
//!
//! The resolver gives no time to live, so an answer is good for [`FRESH_MS`]. While lookups fail
//! or hang, the last good answer goes on for an hour: an outage of DNS is none of VMs that stay
//! where they are. That a name did not resolve is believed for [`FAILED_MS`]. A name is looked up
//! once at a time, however many wait for it. Names come from the operator alone, and how many are
//! kept is bounded.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use super::clock;
use super::executor::{Executor, Wake};
use super::workers::Workers;

/// How long an answer is taken for true.
const FRESH_MS: u64 = 30_000;
/// How long a good answer serves while there is no newer one.
const GOOD_MS: u64 = 3_600_000;
/// How long a failure is taken for true.
const FAILED_MS: u64 = 5_000;
/// How long a lookup may take before an earlier answer is taken in its place.
const PATIENCE_MS: u64 = 1_000;
/// Names that are kept; for a further one others are forgotten. Some 300 bytes each.
const NAMES_MAX: usize = 16_384;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// Lookups at a time, of all shards together.
const LOOKUPS_MAX: usize = 8;
/// Lookups that wait for a thread.
const WAITING_MAX: usize = 4096;

type Resolve = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// What names were last found to be.
pub(super) struct Names {
    known: Arc<Mutex<HashMap<String, Known>>>,
    resolve: Arc<Resolve>,
    workers: Workers,
}

/// Whether an answer will do that could not be confirmed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stale {
    /// It will: whoever answers there has to prove that it is the VM.
    Will,
    /// It will not: whoever answers there is believed.
    Not,
}

/// The name has no address, as far as is known; why.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("its name could not be looked up: {0}")]
pub(super) struct Unresolved(Arc<str>);

impl Unresolved {
    fn because(why: &(impl ToString + ?Sized)) -> Self {
        Self(why.to_string().into())
    }
}

/// One name.
#[derive(Default)]
struct Known {
    /// The last answer with an address in it, and when it came.
    good: Option<(Arc<[SocketAddr]>, u64)>,
    /// How and when a lookup failed, if none has succeeded since.
    failed: Option<(Unresolved, u64)>,
    lookup: Option<Lookup>,
}

/// A lookup that has not ended.
struct Lookup {
    since_ms: u64,
    waiting: Vec<Wake>,
}

impl Known {
    fn good(&self, now_ms: u64, age_ms_max: u64) -> Option<Arc<[SocketAddr]>> {
        let (addresses, at) = self.good.as_ref()?;
        (now_ms.saturating_sub(*at) < age_ms_max).then(|| Arc::clone(addresses))
    }

    fn failed_lately(&self, now_ms: u64) -> Option<&Unresolved> {
        let (why, at) = self.failed.as_ref()?;
        (now_ms.saturating_sub(*at) < FAILED_MS).then_some(why)
    }

    /// Nothing of it is of use any more.
    fn is_spent(&self, now_ms: u64) -> bool {
        self.lookup.is_none()
            && self.good(now_ms, GOOD_MS).is_none()
            && self.failed_lately(now_ms).is_none()
    }

    /// A lookup has ended: keeps its answer.
    fn learn(&mut self, found: Result<Vec<SocketAddr>, Unresolved>, now_ms: u64) -> Vec<Wake> {
        match found {
            Ok(addresses) => {
                self.good = Some((addresses.into(), now_ms));
                self.failed = None;
            }
            Err(why) => self.failed = Some((why, now_ms)),
        }
        self.lookup.take().map(|lookup| lookup.waiting).unwrap_or_default()
    }

    /// The answer that needs no waiting, if there is one.
    fn answer(&self, now_ms: u64, stale: Stale) -> Option<Result<Arc<[SocketAddr]>, Unresolved>> {
        if let Some(fresh) = self.good(now_ms, FRESH_MS) {
            return Some(Ok(fresh));
        }
        let hangs = self
            .lookup
            .as_ref()
            .is_some_and(|lookup| now_ms.saturating_sub(lookup.since_ms) >= PATIENCE_MS);
        let failed = self.failed_lately(now_ms);
        let last = match stale {
            Stale::Will => self.good(now_ms, GOOD_MS),
            Stale::Not => None,
        };
        match last {
            Some(last) => (failed.is_some() || hangs).then_some(Ok(last)),
            None => failed.cloned().map(Err),
        }
    }
}

impl Default for Names {
    /// Asks the system.
    fn default() -> Self {
        Self::new(|name: &str| Ok(name.to_socket_addrs()?.take(ADDRESSES_MAX).collect()))
    }
}

impl Names {
    pub(super) fn new(
        resolve: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        let workers = Workers::new("names", LOOKUPS_MAX, WAITING_MAX);
        Self { known: Arc::default(), resolve: Arc::new(resolve), workers }
    }

    /// The addresses of `name` (`host:port`), within `limit`.
    ///
    /// # Errors
    /// [`Unresolved`].
    pub(super) async fn find(
        &self,
        tasks: &Executor,
        name: &str,
        limit: Duration,
        stale: Stale,
    ) -> Result<Arc<[SocketAddr]>, Unresolved> {
        let patience = Duration::from_millis(PATIENCE_MS);
        // Twice, because an earlier answer is taken only when there was some patience.
        let limits = [patience.min(limit), limit.saturating_sub(patience)];
        for limit in limits {
            let found = poll_fn(|_| self.poll(tasks, name, stale));
            if let Some(found) = tasks.timeout(limit, Box::pin(found)).await {
                return found;
            }
        }
        Err(Unresolved::because("no answer in time"))
    }

    fn poll(
        &self,
        tasks: &Executor,
        name: &str,
        stale: Stale,
    ) -> Poll<Result<Arc<[SocketAddr]>, Unresolved>> {
        let now_ms = clock::monotonic_ms();
        let mut all = self.known();
        if !all.contains_key(name) {
            make_room(&mut all, now_ms);
            all.insert(name.to_owned(), Known::default());
        }
        let busy = || Unresolved::because("too many names are looked up");
        let Some(known) = all.get_mut(name) else { return Poll::Ready(Err(busy())) };
        if let Some(answer) = known.answer(now_ms, stale) {
            return Poll::Ready(answer);
        }
        let Some(wake) = tasks.wake_me() else { return Poll::Ready(Err(busy())) };
        if let Some(lookup) = &mut known.lookup {
            if !lookup.waiting.contains(&wake) {
                lookup.waiting.push(wake);
            }
            return Poll::Pending;
        }
        known.lookup = Some(Lookup { since_ms: now_ms, waiting: vec![wake] });
        if !self.look_up(name) {
            known.learn(Err(busy()), now_ms);
            return Poll::Ready(known.answer(now_ms, stale).unwrap_or_else(|| Err(busy())));
        }
        Poll::Pending
    }

    /// False if too many wait to be looked up.
    fn look_up(&self, name: &str) -> bool {
        let (all, resolve, name) =
            (Arc::clone(&self.known), Arc::clone(&self.resolve), name.to_owned());
        self.workers.run(move || {
            // A resolver that panics has found nothing.
            let found = catch_unwind(AssertUnwindSafe(|| resolve(&name)));
            let found = match found {
                Ok(Ok(found)) if found.is_empty() => Err(Unresolved::because("it has no address")),
                Ok(found) => found.map_err(|error| Unresolved::because(&error)),
                Err(_panic) => Err(Unresolved::because("the resolver failed")),
            };
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            let known = all.entry(name).or_default();
            let waiting = known.learn(found, clock::monotonic_ms());
            drop(all);
            for one in waiting {
                one.wake();
            }
        })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets what is of no use any more if there is no room, and any eighth if that was nothing: not
/// every newcomer shall have to look through all of them.
fn make_room(all: &mut HashMap<String, Known>, now_ms: u64) {
    if all.len() < NAMES_MAX {
        return;
    }
    all.retain(|_, known| !known.is_spent(now_ms));
    if all.len() < NAMES_MAX {
        return;
    }
    let mut room = 0;
    all.retain(|_, known| {
        let goes = room < NAMES_MAX / 8 && known.lookup.is_none();
        room += usize::from(goes);
        !goes
    });
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
