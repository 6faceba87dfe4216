//! The agent's way to a signature for a later key exchange: any edge that has a link here
//! signs. What is asked for while none has waits, and what was asked of a link that broke is
//! asked of another one.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use zeroize::Zeroizing;

use super::super::executor::Wake;
use super::super::pump::Deliver;
use crate::ssh::handoff::Said;

/// Questions that are not answered, of all sessions together: as many as can be in a key exchange.
const ASKED_MAX: usize = 1 << 16;
/// Messages that wait for a link's task.
const OUTBOX_MAX: usize = 1 << 16;

/// The links there are, and what is asked.
#[derive(Default)]
pub(in crate::edge) struct Signers(Mutex<All>);

#[derive(Default)]
struct All {
    links: Vec<(u64, Arc<Outbox>)>,
    next_link: u64,
    asked: HashMap<u64, Asked>,
    next_ticket: u64,
    /// This agent takes nothing more.
    is_leaving: bool,
}

struct Asked {
    session: u64,
    algorithm: &'static str,
    host_key: Box<[u8]>,
    hash: Box<[u8]>,
    /// The link that was asked.
    link: Option<u64>,
    deliver: Deliver,
}

/// What a link's task is to say.
pub(in crate::edge) struct Outbox {
    waiting: Mutex<Vec<Zeroizing<Vec<u8>>>>,
    wake: Wake,
}

impl Outbox {
    pub(in crate::edge) fn take(&self) -> Vec<Zeroizing<Vec<u8>>> {
        std::mem::take(&mut self.waiting())
    }

    /// Waits until there is something. For the task that has the link.
    pub(in crate::edge) async fn filled(&self) {
        poll_fn(|_| if self.waiting().is_empty() { Poll::Pending } else { Poll::Ready(()) }).await;
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
    /// Asks for a signature over `hash`. False, and nobody will hear of it: too much
    /// is asked already.
    pub(in crate::edge) fn ask(
        &self,
        session: u64,
        (algorithm, host_key, hash): (&'static str, &[u8], &[u8]),
        deliver: Deliver,
    ) -> bool {
        let mut all = self.all();
        if all.asked.len() >= ASKED_MAX {
            return false;
        }
        let ticket = all.next_ticket;
        all.next_ticket = ticket.wrapping_add(1);
        let (host_key, hash) = (host_key.into(), hash.into());
        let asked = Asked { session, algorithm, host_key, hash, link: None, deliver };
        all.asked.insert(ticket, asked);
        all.pass_on(ticket);
        true
    }

    /// An edge has a link, whose task `wake` wakes: it is asked all that nobody was.
    pub(in crate::edge) fn open(&self, wake: Wake) -> SigningLink<'_> {
        let outbox = Arc::new(Outbox { waiting: Mutex::default(), wake });
        let mut all = self.all();
        let number = all.next_link;
        all.next_link = number.wrapping_add(1);
        if all.is_leaving {
            outbox.waiting().push(Said::Leaving.message());
        }
        all.links.push((number, Arc::clone(&outbox)));
        all.pass_all_on();
        drop(all);
        SigningLink { of: self, number, outbox }
    }

    /// Tells all edges that this agent takes nothing more.
    pub(in crate::edge) fn leave(&self) {
        let mut all = self.all();
        all.is_leaving = true;
        for (_, outbox) in &all.links {
            outbox.waiting().push(Said::Leaving.message());
            outbox.wake.wake();
        }
    }

    /// An edge has answered.
    pub(in crate::edge) fn answered(&self, ticket: u64, signature: &[u8]) {
        let asked = self.all().asked.remove(&ticket);
        // Not under the lock: whoever hears of it may ask again.
        if let Some(asked) = asked {
            (asked.deliver)((!signature.is_empty()).then(|| signature.to_vec()));
        }
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    fn pass_all_on(&mut self) {
        let unasked: Vec<u64> = self
            .asked
            .iter()
            .filter_map(|(ticket, asked)| asked.link.is_none().then_some(*ticket))
            .collect();
        for ticket in unasked {
            self.pass_on(ticket);
        }
    }

    /// Asks one of the links, each in its turn.
    fn pass_on(&mut self, ticket: u64) {
        let Some(asked) = self.asked.get_mut(&ticket) else { return };
        let count = u64::try_from(self.links.len()).unwrap_or(u64::MAX).max(1);
        let turn = usize::try_from(ticket % count).unwrap_or_default();
        let Some((number, outbox)) = self.links.get(turn) else { return };
        let mut waiting = outbox.waiting();
        if waiting.len() >= OUTBOX_MAX {
            return;
        }
        let Asked { session, algorithm, host_key, hash, .. } = asked;
        let session = *session;
        waiting.push(Said::Sign { ticket, session, algorithm, host_key, hash }.message());
        asked.link = Some(*number);
        outbox.wake.wake();
    }
}

impl Drop for SigningLink<'_> {
    fn drop(&mut self) {
        let mut all = self.of.all();
        all.links.retain(|(number, _)| *number != self.number);
        for asked in all.asked.values_mut() {
            if asked.link == Some(self.number) {
                asked.link = None;
            }
        }
        all.pass_all_on();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::super::super::executor::tests::run;
    use super::*;

    const HASH: [u8; 32] = [5; 32];

    fn tickets(link: &SigningLink<'_>) -> Vec<u64> {
        let all = link.outbox.take();
        let ticket = |message: &Zeroizing<Vec<u8>>| match Said::parse(message).unwrap() {
            Said::Sign { ticket, session: 9, algorithm: "ssh-ed25519", host_key: b"key", hash }
                if hash == HASH =>
            {
                ticket
            }
            other @ (Said::Claim(_) | Said::Sign { .. } | Said::Signed { .. } | Said::Leaving) => {
                panic!("{other:?}")
            }
        };
        all.iter().map(ticket).collect()
    }

    #[test]
    fn what_is_asked_waits_for_a_link_and_goes_to_another_one_when_that_breaks() {
        run(|tasks| async move {
            let signers = Signers::default();
            let (told, all) = mpsc::channel();
            let ask = || {
                let told = told.clone();
                let deliver = Box::new(move |signature| told.send(signature).unwrap());
                assert!(signers.ask(9, ("ssh-ed25519", b"key", &HASH), deliver));
            };
            ask();
            let first = signers.open(tasks.wake_me().unwrap());
            assert_eq!(tickets(&first), [0]);
            let second = signers.open(tasks.wake_me().unwrap());
            assert_eq!(tickets(&second), Vec::<u64>::new());
            ask();
            ask();
            assert_eq!([tickets(&first), tickets(&second)], [vec![2], vec![1]]);
            drop(first);
            let mut again = tickets(&second);
            again.sort_unstable();
            assert_eq!(again, [0, 2]);
            signers.answered(0, b"signature");
            signers.answered(1, b"");
            // Of a link that was slow.
            signers.answered(0, b"another");
            assert_eq!(all.try_iter().collect::<Vec<_>>(), [Some(b"signature".to_vec()), None]);
            drop(second);
            assert_eq!(signers.all().asked.len(), 1);
        });
    }
}
