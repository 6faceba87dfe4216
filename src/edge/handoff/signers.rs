//! The agent's way to whoever holds the front door's host keys.
//!
//! A signature for a later key exchange is any edge's to make that has the key: the one that handed
//! the session over is asked first, what is asked for while there is none waits, and what
//! was asked of a link that broke, or of an edge that does not have the key, is asked of another
//! one. Nobody says which keys it has: whoever is asked knows, and is asked again after a while,
//! for keys come and go. A proof of host keys is that one edge's alone, and fails without it.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use zeroize::Zeroizing;

use super::super::clock;
use super::super::executor::Wake;
use super::super::pump::Deliver;
use super::super::relay::{Want, Wanted};
use crate::ssh::handoff::Said;
use crate::ssh::publickey::Fingerprint;

/// Questions that are not answered, of all sessions together: as many as can be in a key exchange.
const ASKED_MAX: usize = 1 << 16;
/// Messages that wait for a link's task.
const OUTBOX_MAX: usize = 1 << 16;

/// A session: which edge handed it over, and its request id there.
pub(in crate::edge) type Of = (Fingerprint, u64);

/// The links there are, and what is asked.
#[derive(Default)]
pub(in crate::edge) struct Signers(Mutex<All>);

#[derive(Default)]
struct All {
    links: Vec<Link>,
    next_link: u64,
    asked: HashMap<u64, Asked>,
    /// The same by who asks.
    tickets: HashMap<(Of, Want), u64>,
    next_ticket: u64,
    /// This agent takes nothing more.
    is_leaving: bool,
}

struct Link {
    number: u64,
    seen: LinkSeen,
    outbox: Arc<Outbox>,
}

/// A control link at an agent, as it is shown.
#[derive(Clone, Copy, Debug)]
pub struct LinkSeen {
    /// Whose it is.
    pub edge: Fingerprint,
    /// Where it comes from.
    pub from: SocketAddr,
    /// Since when it is open, in Unix seconds.
    pub since_s: u64,
}

struct Asked {
    of: Of,
    question: Question,
    /// The link that was asked.
    link: Option<u64>,
    /// Links that said no.
    refused: Vec<u64>,
    deliver: Deliver,
}

enum Question {
    Signature { algorithm: &'static str, host_key: Box<[u8]>, hash: Box<[u8]> },
    Proof(Box<[u8]>),
}

impl Question {
    const fn want(&self) -> Want {
        match self {
            Self::Signature { .. } => Want::Signature,
            Self::Proof(_) => Want::Proof,
        }
    }

    fn message(&self, ticket: u64, session: u64) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Signature { algorithm, host_key, hash } => {
                Said::Sign { ticket, session, algorithm, host_key, hash }.message()
            }
            Self::Proof(asked) => Said::Prove { ticket, session, asked }.message(),
        }
    }
}

impl From<Wanted<'_>> for Question {
    fn from(wanted: Wanted<'_>) -> Self {
        match wanted {
            Wanted::Signature { algorithm, host_key, hash } => {
                Self::Signature { algorithm, host_key: host_key.into(), hash }
            }
            Wanted::Proof(asked) => Self::Proof(asked),
        }
    }
}

/// What a link's task is to say.
pub(in crate::edge) struct Outbox {
    waiting: Mutex<Vec<Zeroizing<Vec<u8>>>>,
    /// The edge is trusted no more.
    is_cut: AtomicBool,
    wake: Wake,
}

impl Outbox {
    /// What is to be said; `None`: nothing ever again.
    pub(in crate::edge) fn take(&self) -> Option<Vec<Zeroizing<Vec<u8>>>> {
        let all = std::mem::take(&mut *self.waiting());
        (!self.is_cut()).then_some(all)
    }

    /// Waits until there is something. For the task that has the link.
    pub(in crate::edge) async fn filled(&self) {
        poll_fn(|_| {
            let nothing = self.waiting().is_empty() && !self.is_cut();
            if nothing { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Zeroizing<Vec<u8>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A link that signs, until this is dropped.
pub(in crate::edge) struct SigningLink<'a> {
    of: &'a Signers,
    number: u64,
    pub(in crate::edge) outbox: Arc<Outbox>,
}

impl Signers {
    /// Asks for what a session wants. False, and nobody will hear of it: too much
    /// is asked already.
    pub(in crate::edge) fn ask(&self, of: Of, wanted: Wanted<'_>, deliver: Deliver) -> bool {
        let failed = {
            let mut all = self.all();
            if all.asked.len() >= ASKED_MAX {
                return false;
            }
            let ticket = all.next_ticket;
            all.next_ticket = ticket.wrapping_add(1);
            let question = Question::from(wanted);
            all.tickets.insert((of, question.want()), ticket);
            let asked = Asked { of, question, link: None, refused: Vec::new(), deliver };
            all.asked.insert(ticket, asked);
            all.pass_on(ticket)
        };
        deliver_none(failed);
        true
    }

    /// An edge has a link, whose task `wake` wakes: it is asked all that nobody was.
    pub(in crate::edge) fn open(
        &self,
        edge: Fingerprint,
        from: SocketAddr,
        wake: Wake,
    ) -> SigningLink<'_> {
        let seen = LinkSeen { edge, from, since_s: clock::unix_s() };
        let (waiting, is_cut) = (Mutex::default(), AtomicBool::new(false));
        let outbox = Arc::new(Outbox { waiting, is_cut, wake });
        let mut all = self.all();
        let number = all.next_link;
        all.next_link = number.wrapping_add(1);
        if all.is_leaving {
            outbox.waiting().push(Said::Leaving.message());
        }
        all.links.push(Link { number, seen, outbox: Arc::clone(&outbox) });
        let failed = all.pass_all_on();
        drop(all);
        deliver_none(failed);
        SigningLink { of: self, number, outbox }
    }

    /// Ends the links of edges that are trusted no more, and asks others what they were asked.
    pub(super) fn cut(&self, is_distrusted: impl Fn(&Fingerprint) -> bool) {
        let mut all = self.all();
        let cut: Vec<_> = all.links.extract_if(.., |link| is_distrusted(&link.seen.edge)).collect();
        for Link { number, outbox, .. } in cut {
            outbox.is_cut.store(true, Ordering::Release);
            outbox.waiting().clear();
            outbox.wake.wake();
            all.forget_link(number);
        }
        let failed = all.pass_all_on();
        drop(all);
        deliver_none(failed);
    }

    /// Tells all edges that this agent takes nothing more.
    pub(in crate::edge) fn leave(&self) {
        let mut all = self.all();
        all.is_leaving = true;
        for Link { outbox, .. } in &all.links {
            outbox.waiting().push(Said::Leaving.message());
            outbox.wake.wake();
        }
    }

    /// All that are open.
    pub(super) fn links(&self) -> Vec<LinkSeen> {
        self.all().links.iter().map(|link| link.seen).collect()
    }

    /// A session is over, and waits for nothing.
    pub(in crate::edge) fn forget(&self, of: Of) {
        let mut all = self.all();
        for want in [Want::Signature, Want::Proof] {
            if let Some(ticket) = all.tickets.remove(&(of, want)) {
                all.asked.remove(&ticket);
            }
        }
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SigningLink<'_> {
    /// Asks the edge again what it said no to and nobody else has answered: it may have the
    /// key by now.
    pub(in crate::edge) fn ask_again(&self) {
        let mut all = self.of.all();
        for asked in all.asked.values_mut() {
            asked.refused.retain(|link| *link != self.number);
        }
        let failed = all.pass_all_on();
        drop(all);
        deliver_none(failed);
    }

    /// The edge has answered, what it was asked and no other one.
    pub(in crate::edge) fn answered(&self, ticket: u64, answer: &[u8]) {
        let mut all = self.of.all();
        let Some(asked) = all.asked.get_mut(&ticket).filter(|it| it.link == Some(self.number))
        else {
            return;
        };
        if answer.is_empty() {
            asked.refused.push(self.number);
            asked.link = None;
            let failed = all.pass_on(ticket);
            drop(all);
            return deliver_none(failed);
        }
        let deliver = all.remove(ticket);
        drop(all);
        if let Some(deliver) = deliver {
            deliver(Some(answer.to_vec()));
        }
    }
}

/// Not under the lock: whoever hears of it may ask again.
fn deliver_none(failed: impl IntoIterator<Item = Deliver>) {
    failed.into_iter().for_each(|deliver| deliver(None));
}

impl All {
    /// Asks all that nobody was asked; returns who has to hear that there is no answer.
    fn pass_all_on(&mut self) -> Vec<Deliver> {
        let unasked: Vec<u64> = self
            .asked
            .iter()
            .filter_map(|(ticket, asked)| asked.link.is_none().then_some(*ticket))
            .collect();
        unasked.into_iter().filter_map(|ticket| self.pass_on(ticket)).collect()
    }

    /// Asks one of the links that may know, each in its turn; returns who has to hear that
    /// none ever will.
    fn pass_on(&mut self, ticket: u64) -> Option<Deliver> {
        let asked = self.asked.get_mut(&ticket)?;
        let may_know = |link: &&Link| !asked.refused.contains(&link.number);
        let own: Vec<_> = self
            .links
            .iter()
            .filter(|link| link.seen.edge == asked.of.0)
            .filter(may_know)
            .collect();
        let links = match asked.question.want() {
            Want::Proof if own.is_empty() => return self.remove(ticket),
            Want::Signature if own.is_empty() => self.links.iter().filter(may_know).collect(),
            Want::Proof | Want::Signature => own,
        };
        let count = u64::try_from(links.len()).unwrap_or(u64::MAX).max(1);
        let turn = usize::try_from(ticket % count).unwrap_or_default();
        let Link { number, outbox, .. } = links.get(turn)?;
        let mut waiting = outbox.waiting();
        if waiting.len() < OUTBOX_MAX {
            waiting.push(asked.question.message(ticket, asked.of.1));
            asked.link = Some(*number);
            outbox.wake.wake();
        }
        None
    }

    fn remove(&mut self, ticket: u64) -> Option<Deliver> {
        let Asked { of, question, deliver, .. } = self.asked.remove(&ticket)?;
        self.tickets.remove(&(of, question.want()));
        Some(deliver)
    }

    /// What this link was asked nobody was.
    fn forget_link(&mut self, number: u64) {
        for asked in self.asked.values_mut() {
            asked.refused.retain(|link| *link != number);
            if asked.link == Some(number) {
                asked.link = None;
            }
        }
    }
}

impl Drop for SigningLink<'_> {
    fn drop(&mut self) {
        let mut all = self.of.all();
        all.links.retain(|link| link.number != self.number);
        all.forget_link(self.number);
        let failed = all.pass_all_on();
        drop(all);
        deliver_none(failed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender};

    use super::super::super::executor::Executor;
    use super::super::super::executor::tests::run;
    use super::*;

    const EDGES: [Fingerprint; 2] = [Fingerprint([1; 32]), Fingerprint([2; 32])];

    /// What sessions of the first edge ask, and hear.
    struct Asking {
        signers: Signers,
        told: Sender<Option<Vec<u8>>>,
        heard: Receiver<Option<Vec<u8>>>,
    }

    impl Asking {
        fn new() -> Self {
            let (told, heard) = mpsc::channel();
            Self { signers: Signers::default(), told, heard }
        }

        fn ask(&self, session: u64, wanted: Wanted<'_>) {
            let told = self.told.clone();
            let deliver = Box::new(move |answer| told.send(answer).unwrap());
            assert!(self.signers.ask((EDGES[0], session), wanted, deliver));
        }

        fn ask_signature(&self, session: u64) {
            let (algorithm, host_key, hash) = ("ssh-ed25519", &b"key"[..], [5; 32].into());
            self.ask(session, Wanted::Signature { algorithm, host_key, hash });
        }

        fn ask_proof(&self, session: u64) {
            self.ask(session, Wanted::Proof(b"keys"[..].into()));
        }

        fn open(&self, edge: usize, tasks: &Executor) -> SigningLink<'_> {
            let from = ([192, 0, 2, 1], 4711).into();
            self.signers.open(EDGES[edge], from, tasks.wake_me().unwrap())
        }

        fn heard(&self) -> Vec<Option<Vec<u8>>> {
            self.heard.try_iter().collect()
        }
    }

    /// What a link is asked: tickets and sessions.
    fn asked(link: &SigningLink<'_>) -> Vec<(u64, u64)> {
        let all = link.outbox.take().unwrap();
        let ticket = |message: &Zeroizing<Vec<u8>>| match Said::parse(message).unwrap() {
            Said::Sign { ticket, session, algorithm: "ssh-ed25519", host_key: b"key", hash }
                if hash == [5; 32] =>
            {
                (ticket, session)
            }
            Said::Prove { ticket, session, asked: b"keys" } => (ticket, session),
            other @ (Said::Claim(_)
            | Said::Sign { .. }
            | Said::Prove { .. }
            | Said::Signed { .. }
            | Said::Close { .. }
            | Said::Leaving) => panic!("{other:?}"),
        };
        let mut all: Vec<_> = all.iter().map(ticket).collect();
        all.sort_unstable();
        all
    }

    const NOTHING: [(u64, u64); 0] = [];

    #[test]
    fn a_signature_waits_for_a_link_and_goes_to_another_one_when_that_breaks() {
        run(|tasks| async move {
            let all = Asking::new();
            all.ask_signature(9);
            let first = all.open(0, &tasks);
            assert_eq!(asked(&first), [(0, 9)]);
            // Of the same edge, or of the process that takes its place.
            let second = all.open(0, &tasks);
            assert_eq!(asked(&second), NOTHING);
            all.ask_signature(8);
            all.ask_signature(7);
            assert_eq!([asked(&first), asked(&second)], [[(2, 7)], [(1, 8)]]);
            drop(first);
            assert_eq!(asked(&second), [(0, 9), (2, 7)]);
            second.answered(0, b"signature");
            // Of a link that was slow.
            second.answered(0, b"another");
            assert_eq!(all.heard(), [Some(b"signature".to_vec())]);
            drop(second);
            let third = all.open(1, &tasks);
            assert_eq!(asked(&third), [(1, 8), (2, 7)], "any edge signs");
            third.answered(1, b"its");
            third.answered(2, b"its");
            assert_eq!(all.heard().len(), 2);
            assert!(all.signers.all().asked.is_empty() && all.signers.all().tickets.is_empty());
        });
    }

    #[test]
    fn a_session_asks_its_own_edge_first_and_another_one_if_that_says_no_and_then_waits() {
        run(|tasks| async move {
            let all = Asking::new();
            let [own, other] = [0, 1].map(|edge| all.open(edge, &tasks));
            for session in 0..4 {
                all.ask_signature(session);
            }
            assert_eq!(asked(&other), NOTHING);
            assert_eq!(asked(&own).len(), 4);
            // Whoever was not asked has nothing to say.
            other.answered(0, b"signature");
            other.answered(0, b"");
            assert_eq!(all.heard(), []);
            own.answered(0, b"");
            assert_eq!(asked(&other), [(0, 0)]);
            other.answered(0, b"");
            assert_eq!([asked(&own), asked(&other)], [NOTHING, NOTHING]);
            assert_eq!(all.heard(), []);
            // It may have the key by now.
            other.ask_again();
            assert_eq!([asked(&own), asked(&other)], [vec![], vec![(0, 0)]]);
            other.answered(0, b"");
            drop(other);
            let again = all.open(1, &tasks);
            assert_eq!(asked(&again), [(0, 0)]);
            again.answered(0, b"signature");
            assert_eq!(all.heard(), [Some(b"signature".to_vec())]);
        });
    }

    #[test]
    fn a_proof_is_asked_of_the_sessions_own_edge_alone_and_fails_without_it() {
        run(|tasks| async move {
            let all = Asking::new();
            let other = all.open(1, &tasks);
            all.ask_proof(9);
            assert_eq!(all.heard(), [None]);
            let [old, new] = [0, 0].map(|edge| all.open(edge, &tasks));
            for _ in 0..2 {
                all.ask_proof(9);
                let tickets = [asked(&old), asked(&new)].concat();
                let [(ticket, 9)] = tickets[..] else { panic!("{tickets:?}") };
                // Two processes of one edge: one of them has the session.
                old.answered(ticket, b"");
                new.answered(ticket, b"");
                let (first, second) = (asked(&old), asked(&new));
                assert!(first.len() + second.len() == 1 || !all.heard().is_empty());
                old.answered(ticket, b"signatures");
                new.answered(ticket, b"signatures");
            }
            all.ask_proof(9);
            let (ticket, _) = [asked(&old), asked(&new)].concat()[0];
            drop((old, new));
            assert_eq!(all.heard().last(), Some(&None), "both have gone");
            other.answered(ticket, b"signatures");
            assert_eq!(all.heard(), []);
            assert_eq!(asked(&other), NOTHING);
        });
    }

    #[test]
    fn an_edge_that_is_trusted_no_more_is_asked_nothing_and_others_are_in_its_place() {
        run(|tasks| async move {
            let all = Asking::new();
            let [own, other] = [0, 1].map(|edge| all.open(edge, &tasks));
            all.ask_signature(9);
            all.ask_proof(9);
            all.signers.cut(|edge| *edge == EDGES[0]);
            assert!(own.outbox.take().is_none());
            own.outbox.filled().await;
            own.answered(0, b"signature");
            assert_eq!(all.heard(), [None], "the proof");
            assert_eq!(asked(&other), [(0, 9)]);
            other.answered(0, b"signature");
            assert_eq!(all.heard(), [Some(b"signature".to_vec())]);
        });
    }

    #[test]
    fn a_session_that_is_over_waits_for_nothing() {
        run(|tasks| async move {
            let all = Asking::new();
            all.ask_signature(9);
            all.ask_signature(8);
            all.signers.forget((EDGES[0], 9));
            all.signers.forget((EDGES[1], 8));
            let link = all.open(0, &tasks);
            assert_eq!(asked(&link), [(1, 8)]);
            all.signers.forget((EDGES[0], 8));
            link.answered(1, b"signature");
            assert_eq!(all.heard(), []);
            assert!(all.signers.all().asked.is_empty() && all.signers.all().tickets.is_empty());
        });
    }
}
