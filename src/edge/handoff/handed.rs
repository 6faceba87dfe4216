//! The sessions that one agent carries, as the edge knows them that handed them over.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::super::clock;
use super::super::global_requests::signatures;
use crate::ssh::publickey::SignatureAlgorithm;
use crate::ssh::transport::{ServerConfig, Transport};

/// How long a link stays open after its last session.
const IDLE: Duration = Duration::from_mins(5);

/// What signing for a session takes, and how often that was done.
pub(in crate::edge) struct Known {
    /// The first exchange hash.
    id: Box<[u8]>,
    rsa: Option<SignatureAlgorithm>,
    /// Whose host keys it was shown. They sign as long as it lives.
    server: Arc<ServerConfig>,
    is_proved: AtomicBool,
    signatures: AtomicU64,
}

impl Known {
    /// `None` before the first key exchange is over, and of no server.
    pub(in crate::edge) fn of(transport: &Transport) -> Option<Self> {
        Some(Self {
            id: transport.session_id()?.into(),
            rsa: transport.rsa_proofs(),
            server: Arc::clone(transport.server_config()?),
            is_proved: AtomicBool::new(false),
            // The handoff takes one.
            signatures: AtomicU64::new(1),
        })
    }
}

/// Sessions, each by its request id.
pub(super) struct Sessions(Mutex<All>);

struct All {
    live: HashMap<u64, Arc<Known>>,
    /// When the last one ended, on the clock of [`clock::monotonic_ms`].
    idle_since_ms: u64,
}

impl Default for Sessions {
    fn default() -> Self {
        let idle_since_ms = clock::monotonic_ms();
        Self(Mutex::new(All { live: HashMap::new(), idle_since_ms }))
    }
}

impl Sessions {
    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self) -> usize {
        self.all().live.len()
    }

    pub(super) fn are_there(&self) -> bool {
        !self.all().live.is_empty()
    }

    /// How long their link stays open at least.
    pub(super) fn idle_left(&self, now_ms: u64) -> Duration {
        let all = self.all();
        if !all.live.is_empty() {
            return IDLE;
        }
        IDLE.saturating_sub(Duration::from_millis(now_ms.saturating_sub(all.idle_since_ms)))
    }

    fn end(&self, request: u64, now_ms: u64) {
        let mut all = self.all();
        all.live.remove(&request);
        if all.live.is_empty() {
            all.idle_since_ms = now_ms;
        }
    }

    /// Takes note of a signature for a session, if it is one of these.
    pub(super) fn signed(&self, request: u64) {
        if let Some(known) = self.all().live.get(&request) {
            known.signatures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Signs what a session's client asks to have proved, once a session.
    pub(super) fn prove(&self, request: u64, asked: &[u8]) -> Option<Vec<u8>> {
        let known = self.all().live.get(&request).map(Arc::clone)?;
        if known.is_proved.swap(true, Ordering::Relaxed) {
            return None;
        }
        let made = signatures(asked, known.server.host_keys(), &known.id, known.rsa)?;
        known.signatures.fetch_add(1, Ordering::Relaxed);
        Some(made)
    }
}

/// A session that an agent carries: while it lives its agent has a link, and its host keys sign.
pub struct Handed {
    of: Arc<Sessions>,
    request: u64,
    known: Arc<Known>,
    ends: AtomicBool,
}

impl Handed {
    pub(super) fn new(of: &Arc<Sessions>, request: u64, known: Known) -> Self {
        let known = Arc::new(known);
        of.all().live.insert(request, Arc::clone(&known));
        Self { of: Arc::clone(of), request, known, ends: AtomicBool::new(false) }
    }

    /// What its agent knows it by, the first time that its end is to be told there.
    pub(super) fn ends(&self) -> Option<u64> {
        (!self.ends.swap(true, Ordering::Relaxed)).then_some(self.request)
    }

    /// How often its agent was signed for.
    pub(in crate::edge) fn signatures(&self) -> u64 {
        self.known.signatures.load(Ordering::Relaxed)
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        self.of.end(self.request, clock::monotonic_ms());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::testing::Pair;
    use crate::ssh::wire::{Put, Reader};

    #[test]
    fn host_keys_are_proved_once_a_session_over_its_own_id_and_only_while_it_lives() {
        let pair = Pair::connected(1);
        let transport = &pair.server.transport;
        let server = transport.server_config().unwrap();
        let key = server.host_keys()[0].key.public();
        let mut asked = Vec::new();
        asked.put_string(key.blob());
        let sessions = Arc::new(Sessions::default());
        assert_eq!(sessions.prove(7, &asked), None, "nobody knows it");
        let handed = Handed::new(&sessions, 7, Known::of(transport).unwrap());
        assert_eq!(sessions.prove(8, &asked), None, "another one's");
        let made = sessions.prove(7, &asked).unwrap();
        let mut signed = Vec::new();
        for field in [b"hostkeys-prove-00@openssh.com", transport.session_id().unwrap(), key.blob()]
        {
            signed.put_string(field);
        }
        let mut reader = Reader::new(&made);
        let algorithm = server.host_keys()[0].key.algorithms()[0];
        key.verify(algorithm, &signed, reader.string().unwrap()).unwrap();
        assert_eq!(sessions.prove(7, &asked), None, "twice");
        assert_eq!(handed.signatures(), 2);
        sessions.signed(7);
        sessions.signed(8);
        assert_eq!(handed.signatures(), 3);
        drop(handed);
        assert_eq!(sessions.prove(7, &asked), None);
        let again = Handed::new(&sessions, 7, Known::of(transport).unwrap());
        asked.put_string(b"somebody's key");
        assert_eq!(sessions.prove(7, &asked), None, "a key that is not ours");
        drop(again);
    }

    #[test]
    fn a_link_stays_open_for_five_minutes_after_its_last_session() {
        let pair = Pair::connected(2);
        let sessions = Arc::new(Sessions::default());
        let handed = [1, 2].map(|request| {
            Handed::new(&sessions, request, Known::of(&pair.server.transport).unwrap())
        });
        let left = |now_s: u64| sessions.idle_left(now_s * 1000).as_secs();
        assert!(sessions.are_there());
        assert_eq!(left(1_000_000), 300);
        sessions.end(1, 1_000_000_000);
        assert_eq!(left(2_000_000), 300);
        sessions.end(2, 2_000_000_000);
        assert!(!sessions.are_there());
        assert_eq!([2_000_000, 2_000_001, 2_000_299, 2_000_300].map(left), [300, 299, 1, 0]);
        assert_eq!(left(3_000_000), 0);
        drop(handed);
    }
}
