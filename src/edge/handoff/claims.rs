//! What an agent remembers: data connections that were announced, and sessions that it
//! was asked to take.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::future::poll_fn;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
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
/// Announcements kept of one edge, 200 bytes each: those of eight seconds of 2,000 logins.
const CLAIMS_MAX: usize = 16_384;
/// Data connections that wait for an announcement; who is one too many is told to go.
const WAITING_MAX: usize = 8192;
/// How long a session is remembered at least, in seconds: as long as its proof is fresh, for
/// whatever the edge's clock says.
pub const SEEN_S_MIN: u64 = 2 * SAID_AGO_S_MAX;
/// Sessions remembered of so many seconds: 2,300 a second, and 60 MB.
const SEEN_MAX: usize = 1 << 22;
/// And of one user: nobody takes the others' room.
const SEEN_OF_USER_MAX: usize = SEEN_MAX / 4;
/// Bytes that a session is remembered by.
const SEEN_BYTES: usize = 16;
/// A session's, for its next process.
pub type SeenId = [u8; SEEN_BYTES];
/// Keeps it, with when it came, in Unix seconds.
pub(super) type Keep = Box<dyn Fn(SeenId, u64) + Send + Sync>;

/// Data connections that were announced and have not come, and those that have come and
/// are not announced.
#[derive(Default)]
pub(in crate::edge) struct Claims(Mutex<All>);

#[derive(Default)]
struct All {
    announced: HashMap<ClaimId, Announced>,
    /// Of each edge, and when each may be forgotten, the earliest first; some have come already.
    order: HashMap<Fingerprint, VecDeque<(u64, ClaimId)>>,
    waiting: HashMap<ClaimId, Wake>,
}

struct Announced {
    /// Kept as bytes: every try to open what came makes keys of its own.
    claim: Zeroizing<Vec<u8>>,
    edge: Fingerprint,
    until_ms: u64,
}

impl Claims {
    /// `edge` announces a data connection. If it has too many, the oldest is forgotten: somebody
    /// who logs in and leaves at once, again and again, is nobody else's end. False: `claim`
    /// is none.
    pub(in crate::edge) fn announce(&self, edge: Fingerprint, claim: &[u8]) -> bool {
        let Ok(Claim { id, .. }) = Claim::parse(claim) else { return false };
        let now_ms = clock::monotonic_ms();
        let mut all = self.all();
        all.forget(now_ms);
        let claim = Zeroizing::new(claim.to_vec());
        let until_ms = now_ms.saturating_add(COMES_MS_MAX);
        if let Entry::Vacant(vacant) = all.announced.entry(id) {
            vacant.insert(Announced { claim, edge, until_ms });
            let order = all.order.entry(edge).or_default();
            order.push_back((until_ms, id));
            let oldest = if order.len() > CLAIMS_MAX { order.pop_front() } else { None };
            if let Some((_, oldest)) = oldest {
                all.announced.remove(&oldest);
            }
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

    /// Drops the keys of data connections that did not come in time.
    pub(in crate::edge) fn forget_late(&self) {
        self.all().forget(clock::monotonic_ms());
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    fn forget(&mut self, now_ms: u64) {
        let Self { announced, order, .. } = self;
        order.retain(|_, order| {
            while let Some((_, id)) = order.pop_front_if(|(until_ms, _)| *until_ms <= now_ms) {
                announced.remove(&id);
            }
            !order.is_empty()
        });
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
pub(in crate::edge) struct Seen(Mutex<[Generation; 2]>, OnceLock<Keep>);

/// What was seen within [`SEEN_S_MIN`]: of the two the earlier is dropped as a whole.
#[derive(Default)]
struct Generation {
    began_s: u64,
    ids: HashSet<SeenId>,
    users: HashMap<Arc<str>, usize>,
}

/// What a session that comes is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::edge) enum Sighting {
    /// It was not seen before, and is remembered now.
    First,
    /// It came before.
    Again,
    /// Too many have come, or too many of that user.
    NoRoom,
}

impl Seen {
    /// `keep` outlives this process. It stays the first.
    pub(super) fn keep_with(&self, keep: Keep) {
        let _first = self.1.set(keep);
    }

    /// Other processes have taken these at about `now_s`.
    pub(super) fn were_taken(&self, ids: impl IntoIterator<Item = SeenId>, now_s: u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all[0].began_s = all[0].began_s.max(now_s);
        let room = SEEN_MAX.saturating_sub(all[0].ids.len());
        all[0].ids.extend(ids.into_iter().take(room));
    }

    /// Takes note of a session whose proof is fresh at `now_s`, in Unix seconds.
    pub(in crate::edge) fn sight(
        &self,
        user: &Arc<str>,
        session_id: &[u8],
        now_s: u64,
    ) -> Sighting {
        let mut id = [0; SEEN_BYTES];
        id.iter_mut().zip(session_id).for_each(|(to, from)| *to = *from);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [young, old] = &mut *all;
        // A clock that was set back keeps what there is.
        if now_s.saturating_sub(young.began_s) >= SEEN_S_MIN {
            *old = mem::replace(young, Generation { began_s: now_s, ..Generation::default() });
            if now_s.saturating_sub(old.began_s) >= 2 * SEEN_S_MIN {
                *old = Generation::default();
            }
        }
        if young.ids.contains(&id) || old.ids.contains(&id) {
            return Sighting::Again;
        }
        let of_user = young.users.entry(Arc::clone(user)).or_default();
        if young.ids.len() >= SEEN_MAX || *of_user >= SEEN_OF_USER_MAX {
            return Sighting::NoRoom;
        }
        *of_user += 1;
        young.ids.insert(id);
        drop(all);
        if let Some(keep) = self.1.get() {
            keep(id, now_s);
        }
        Sighting::First
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

    /// Whoever logs in and hangs up at once costs the edge's oldest announcement and nobody's link.
    #[test]
    fn an_edge_that_announces_too_much_loses_its_oldest_announcement_and_no_other() {
        let claims = Claims::default();
        let mut random = Seeded(2);
        let other = Claim::generate(&mut random);
        assert!(claims.announce(Fingerprint([2; 32]), &other.encoded()));
        let all: Vec<_> = (0..=CLAIMS_MAX).map(|_| Claim::generate(&mut random)).collect();
        for claim in &all {
            assert!(claims.announce(EDGE, &claim.encoded()));
        }
        assert!(!claims.come(all[0].id), "the oldest");
        assert!(claims.come(all[1].id) && claims.come(all[CLAIMS_MAX].id));
        assert!(claims.come(other.id), "another edge has its own");
        assert!(claims.all().order[&EDGE].len() <= CLAIMS_MAX);
        assert!(!claims.announce(EDGE, b"none"));
    }

    #[test]
    fn what_did_not_come_in_time_is_forgotten() {
        let claims = Claims::default();
        assert!(claims.announce(EDGE, &Claim::generate(&mut Seeded(3)).encoded()));
        let mut all = claims.all();
        all.forget(clock::monotonic_ms());
        assert_eq!(all.announced.len(), 1);
        all.forget(clock::monotonic_ms() + COMES_MS_MAX);
        assert!(all.announced.is_empty() && all.order.is_empty());
    }

    #[test]
    fn a_session_is_taken_once_however_often_it_is_offered_while_its_proof_is_fresh() {
        let (seen, alice) = (Seen::default(), Arc::from("alice"));
        let now_s = 1_800_000_000;
        assert_eq!(seen.sight(&alice, &[1; 32], now_s), Sighting::First);
        for later_s in [0, 1, SAID_AGO_S_MAX, SEEN_S_MIN - 1, SEEN_S_MIN, 2 * SEEN_S_MIN - 1] {
            assert_eq!(seen.sight(&alice, &[1; 32], now_s + later_s), Sighting::Again, "{later_s}");
        }
        assert_eq!(seen.sight(&alice, &[2; 32], now_s + SEEN_S_MIN), Sighting::First);
        assert_eq!(seen.sight(&alice, &[1; 32], now_s + 9 * SEEN_S_MIN), Sighting::First);
    }

    #[test]
    fn one_user_leaves_room_for_the_others() {
        let (seen, alice) = (Seen::default(), Arc::from("alice"));
        seen.sight(&alice, &[0; 32], 7 * SEEN_S_MIN);
        seen.0.lock().unwrap()[0].users.insert(Arc::clone(&alice), SEEN_OF_USER_MAX);
        assert_eq!(seen.sight(&alice, &[1; 32], 7 * SEEN_S_MIN), Sighting::NoRoom);
        assert_eq!(seen.sight(&Arc::from("bob"), &[1; 32], 7 * SEEN_S_MIN), Sighting::First);
        assert_eq!(seen.sight(&alice, &[1; 32], 7 * SEEN_S_MIN), Sighting::Again);
    }
}
