//! What an agent remembers: data connections that were announced, and sessions that it
//! was asked to take.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use zeroize::Zeroizing;

use super::super::clock;
use super::super::executor::{Executor, Wake};
use crate::ssh::handoff::{Claim, ClaimId, SAID_AGO_S_MAX};
use crate::ssh::publickey::Fingerprint;

/// How long an announced data connection may take to come, in milliseconds.
const COMES_MS_MAX: u64 = 30_000;
/// How long a data connection waits for its announcement, which takes another way.
const ANNOUNCED_WAIT: Duration = Duration::from_secs(2);
/// Announcements that wait, of one edge: as many logins as it can have under way,
/// and 200 bytes each.
const CLAIMS_MAX: usize = 8192;
/// Data connections that wait for an announcement; who is one too many is told to go.
const WAITING_MAX: usize = 8192;
/// Sessions remembered, so that none comes twice: 15 minutes of 290 a second.
const SEEN_MAX: usize = 1 << 18;

/// Data connections that were announced and have not come, and those that have come and
/// are not announced.
#[derive(Default)]
pub(in crate::edge) struct Claims(Mutex<All>);

#[derive(Default)]
struct All {
    announced: HashMap<ClaimId, Announced>,
    /// When each may be forgotten, the earliest first; some have come already.
    order: VecDeque<(u64, ClaimId)>,
    waiting: HashMap<ClaimId, Wake>,
}

struct Announced {
    /// Kept as bytes: every try to open what came makes keys of its own.
    claim: Zeroizing<Vec<u8>>,
    edge: Fingerprint,
    until_ms: u64,
}

impl Claims {
    /// `edge` announces a data connection. False: it has too many that have not come, or
    /// `claim` is none.
    pub(in crate::edge) fn announce(&self, edge: Fingerprint, claim: &[u8]) -> bool {
        let Ok(Claim { id, .. }) = Claim::parse(claim) else { return false };
        let now_ms = clock::monotonic_ms();
        let mut all = self.all();
        all.forget(now_ms);
        // Few: those that have come are gone, and those that did not come in time.
        if all.announced.values().filter(|one| one.edge == edge).count() >= CLAIMS_MAX {
            return false;
        }
        let claim = Zeroizing::new(claim.to_vec());
        let until_ms = now_ms.saturating_add(COMES_MS_MAX);
        if let Entry::Vacant(vacant) = all.announced.entry(id) {
            vacant.insert(Announced { claim, edge, until_ms });
            all.order.push_back((until_ms, id));
        }
        if let Some(wake) = all.waiting.remove(&id) {
            wake.wake();
        }
        true
    }

    /// The keys of a data connection, once it is announced, and who announced it. It stays
    /// announced: a false first packet uses up nothing.
    pub(in crate::edge) async fn announced(
        &self,
        tasks: &Executor,
        id: ClaimId,
    ) -> Option<(Claim, Fingerprint)> {
        let waiting = Box::pin(poll_fn(|_| {
            let mut all = self.all();
            if let Some(found) = all.announced.get(&id) {
                let found = found.parsed();
                all.waiting.remove(&id);
                return Poll::Ready(found);
            }
            match tasks.wake_me() {
                Some(wake) if all.waiting.len() < WAITING_MAX => {
                    all.waiting.insert(id, wake);
                    Poll::Pending
                }
                Some(_) | None => Poll::Ready(None),
            }
        }));
        let found = tasks.timeout(ANNOUNCED_WAIT, waiting).await;
        self.all().waiting.remove(&id);
        found.flatten()
    }

    /// The data connection has come; false if another one has, under the same id.
    pub(in crate::edge) fn come(&self, id: ClaimId) -> bool {
        self.all().announced.remove(&id).is_some()
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    /// Drops the keys of data connections that did not come in time.
    fn forget(&mut self, now_ms: u64) {
        while let Some((until_ms, id)) = self.order.front().copied() {
            if until_ms > now_ms {
                break;
            }
            self.order.pop_front();
            self.announced.remove(&id);
        }
    }
}

impl Announced {
    fn parsed(&self) -> Option<(Claim, Fingerprint)> {
        let claim = Claim::parse(&self.claim).ok()?;
        (self.until_ms > clock::monotonic_ms()).then_some((claim, self.edge))
    }
}

/// Sessions that an agent was asked to take, by their ids, for as long as their proof is fresh.
#[derive(Default)]
pub(in crate::edge) struct Seen(Mutex<HashMap<Box<[u8]>, u64>>);

impl Seen {
    /// Takes note of a session whose first KEXINIT was sent at `said_s`. False: it was seen before,
    /// or there is no room.
    pub(in crate::edge) fn is_first(&self, session_id: &[u8], said_s: u64, unix_s: u64) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= SEEN_MAX {
            all.retain(|_, until_s| *until_s >= unix_s);
        }
        let until_s = said_s.saturating_add(SAID_AGO_S_MAX);
        all.len() < SEEN_MAX && all.insert(session_id.into(), until_s).is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::executor::tests::run;
    use super::*;
    use crate::ssh::testing::Seeded;

    const EDGE: Fingerprint = Fingerprint([1; 32]);

    #[test]
    fn a_data_connection_may_come_before_and_after_its_announcement_and_only_once() {
        run(|tasks| async move {
            let claims = Arc::new(Claims::default());
            let claim = Claim::generate(&mut Seeded(1));
            let id = claim.id;
            let (theirs, encoded) = (Arc::clone(&claims), claim.encoded());
            std::thread::spawn(move || assert!(theirs.announce(EDGE, &encoded)));
            let (found, edge) = claims.announced(&tasks, id).await.unwrap();
            assert_eq!((found.id, edge), (id, EDGE));
            // Whoever says something false first uses up nothing.
            assert!(claims.announced(&tasks, id).await.is_some());
            assert!(claims.come(id));
            assert!(!claims.come(id));
            assert!(claims.all().waiting.is_empty());
        });
    }

    #[test]
    fn an_edge_announces_no_more_than_its_share() {
        let claims = Claims::default();
        let mut random = Seeded(2);
        for _ in 0..CLAIMS_MAX {
            assert!(claims.announce(EDGE, &Claim::generate(&mut random).encoded()));
        }
        let one_more = Claim::generate(&mut random).encoded();
        assert!(!claims.announce(EDGE, &one_more));
        assert!(claims.announce(Fingerprint([2; 32]), &one_more), "another edge has its own");
    }

    #[test]
    fn a_session_is_taken_once_however_often_it_is_offered() {
        let seen = Seen::default();
        assert!(seen.is_first(&[1; 32], 1000, 1000));
        assert!(!seen.is_first(&[1; 32], 1000, 1000));
        assert!(seen.is_first(&[2; 32], 1000, 1000));
    }
}
