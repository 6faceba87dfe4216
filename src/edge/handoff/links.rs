//! The edge's control links: one a process and agent, on a thread of their own. Opened when a data
//! connection is announced, whatever became of the last one; closed when none was for a while.

#![expect(clippy::disallowed_methods, reason = "one thread carries all links of a process")]

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{io, mem};

use futures_lite::FutureExt;
use zeroize::Zeroizing;

use super::super::clock;
use super::super::executor::{Control, Executor, Order, Wake};
use super::super::login_leg::{LoginLeg, Scratch};
use super::far_end::Peer;
use super::handed::{Handed, Known};
use super::link::{Carrier, Link, LinkShown};
use super::rates::{Question, Questions};
use super::signing_keys::SigningKeys;
use super::trouble::{Trouble, trouble};
use crate::ended::Cause;
use crate::ssh::fault::Fault;
use crate::ssh::handoff::Said;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::{Fingerprint, PublicKey, SignatureAlgorithm};
use crate::ssh::transport::{
    Algorithms, ClientConfig, Context, Event, RekeyLimits, ServerConfig, Transport,
};

/// From the TCP connection to the agent's USERAUTH_SUCCESS.
const OPEN_WAIT: Duration = Duration::from_secs(10);
/// How long a link that broke stays broken, if sessions live that it is for; longer each time.
const REST_MIN: Duration = Duration::from_millis(200);
const REST_MAX: Duration = Duration::from_secs(10);
/// Signatures of one link before the others have their turn, and it is seen whether the agent is
/// still trusted: an RSA one takes milliseconds.
const SIGNED_A_TURN: u32 = 8;

/// All links of this process. Dropping it closes them.
pub struct Links {
    all: Arc<All>,
    control: Control,
    thread: Option<JoinHandle<()>>,
}

struct All {
    identity: Arc<PrivateKey>,
    /// Agents take sessions from this edge, as far as is known.
    is_admitted: AtomicBool,
    signing_keys: SigningKeys,
    links: Mutex<AllLinks>,
    /// Of each agent, by its key: a link more gives it no more.
    agents: Mutex<HashMap<Fingerprint, Arc<Carrier>>>,
    /// Links that have no task yet, and whoever gives them one.
    new: Mutex<(Vec<Arc<Link>>, Option<Wake>)>,
}

/// One link an agent, and those to agents that leave.
#[derive(Default)]
struct AllLinks {
    current: HashMap<Peer, Arc<Link>>,
    leaving: Vec<Weak<Link>>,
}

impl Links {
    /// Starts the thread. `identity`: what this edge is to agents.
    ///
    /// # Errors
    /// Out of descriptors or threads.
    pub fn start(identity: Arc<PrivateKey>) -> io::Result<Self> {
        let (control, parts) = Control::new()?;
        let (links, agents, new) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (is_admitted, signing_keys) = (AtomicBool::new(true), SigningKeys::default());
        let all = Arc::new(All { identity, is_admitted, signing_keys, links, agents, new });
        let theirs = Arc::clone(&all);
        let thread = thread::Builder::new().name("links".into()).spawn(move || {
            let tasks = Executor::new(parts);
            let starting = tasks.clone();
            tasks.spawn(async move { theirs.run(&starting).await });
            if let Err(error) = tasks.run(|| ()) {
                tracing::error!(%error, "control links stopped: epoll failed");
            }
        })?;
        Ok(Self { all, control, thread: Some(thread) })
    }

    /// Has the agent told of a data connection that is about to come, for the session that
    /// `request` names.
    pub(in crate::edge) fn announce(
        &self,
        peer: &Peer,
        claim: Zeroizing<Vec<u8>>,
        request: u64,
        known: Known,
    ) -> Handed {
        let link = self.all.link(peer);
        // First: the agent may ask about it at once.
        let handed = Handed::new(&link.agent.sessions, request, known);
        link.announce([claim].into());
        handed
    }

    /// Signs with these host keys from now on, and with earlier ones for the sessions that
    /// were shown those.
    pub(in crate::edge) fn sign_with(&self, server: &Arc<ServerConfig>) {
        self.all.signing_keys.replace(server);
    }

    /// What this edge is to agents.
    pub fn identity(&self) -> Fingerprint {
        self.all.identity.public().fingerprint()
    }

    /// Its whole public key.
    pub fn identity_key(&self) -> &PublicKey {
        self.all.identity.public()
    }

    /// Whether agents take sessions from this edge; true if that is new.
    pub(in crate::edge) fn admit(&self, admitted: bool) -> bool {
        self.all.is_admitted.swap(admitted, Ordering::AcqRel) != admitted
    }

    /// Whether this edge may hand sessions over.
    pub(in crate::edge) fn is_admitted(&self) -> bool {
        self.all.is_admitted.load(Ordering::Acquire)
    }

    /// All public keys that sign: those in use, and those that sessions began with.
    pub fn signing_keys(&self) -> Vec<PublicKey> {
        self.all.signing_keys.public()
    }

    /// Cuts the links to all agents but these. One that is trusted again gets another.
    pub(in crate::edge) fn keep(&self, trusted: impl Fn(&Peer) -> bool) {
        let mut links = self.all.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.current.retain(|peer, link| {
            let stays = trusted(peer);
            if !stays {
                link.cut();
            }
            stays
        });
        // Those that leave sign until they are gone.
        links.leaving.retain(|link| {
            let link = link.upgrade().filter(|link| trusted(&link.peer) || link.cut());
            link.is_some()
        });
    }

    /// Has the agent that carries a session tell its user why it ends: the keys are there. Whether
    /// it is, or leaves and keeps its sessions, is not known here.
    pub(in crate::edge) fn end(&self, peer: &Peer, handed: &Handed, cause: Cause) {
        let Some(session) = handed.ends() else { return };
        let links = self.all.links.lock().unwrap_or_else(PoisonError::into_inner);
        let leaving = links.leaving.iter().filter_map(Weak::upgrade);
        let leaving = leaving.filter(|link| link.peer == *peer);
        links.current.get(peer).cloned().into_iter().chain(leaving).for_each(|link| {
            link.end(session, cause);
        });
    }

    /// All of them, those to agents that leave too.
    pub fn shown(&self) -> Vec<LinkShown> {
        let links = self.all.links.lock().unwrap_or_else(PoisonError::into_inner);
        let leaving = links.leaving.iter().filter_map(Weak::upgrade);
        links.current.values().cloned().chain(leaving).map(|link| link.shown()).collect()
    }

    /// Why the agent cannot be told of anything, as far as is known.
    pub(in crate::edge) fn trouble(&self, peer: &Peer) -> Option<Arc<str>> {
        let links = self.all.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.current.get(peer)?.state().trouble.clone()
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.control.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

impl All {
    /// An agent leaves: its successor gets a link of its own. This one stays as long as there are
    /// sessions that it is for.
    fn replace(&self, leaving: &Link) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |link: &Arc<Link>| std::ptr::eq(Arc::as_ptr(link), leaving);
        if !links.current.get(&leaving.peer).is_some_and(is_it) {
            return;
        }
        let link = links.current.remove(&leaving.peer);
        links.leaving.retain(|link| link.strong_count() > 0);
        links.leaving.extend(link.iter().map(Arc::downgrade));
        let waiting = {
            let mut state = leaving.state();
            state.is_leaving = true;
            state.forget(clock::monotonic_ms());
            // All that is new comes to the successor, since a moment before we are told of it.
            let mut waiting: VecDeque<_> = state.said.drain(..).map(|(_, claim)| claim).collect();
            waiting.append(&mut state.waiting);
            waiting
        };
        // Under the same lock: an agent that is trusted no more must not get another.
        if !waiting.is_empty() {
            self.link_in(&mut links, &leaving.peer).announce(waiting);
        }
    }

    fn link(&self, peer: &Peer) -> Arc<Link> {
        self.link_in(&mut self.links.lock().unwrap_or_else(PoisonError::into_inner), peer)
    }

    fn link_in(&self, links: &mut AllLinks, peer: &Peer) -> Arc<Link> {
        let link = links.current.entry(peer.clone()).or_insert_with(|| {
            let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
            let agent = Arc::clone(agents.entry(peer.key).or_default());
            let link = Arc::new(Link::new(peer.clone(), agent));
            let mut new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
            new.0.push(Arc::clone(&link));
            if let Some(wake) = &new.1 {
                wake.wake();
            }
            link
        });
        Arc::clone(link)
    }

    /// Gives every link its task.
    async fn run(self: Arc<Self>, tasks: &Executor) {
        let scratch = Rc::new(Scratch::new());
        let config = ClientConfig::new(
            &[SignatureAlgorithm::Ed25519],
            Algorithms::default(),
            RekeyLimits::default(),
        );
        let config = Arc::new(config);
        loop {
            let new = poll_fn(|_| {
                let mut new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
                new.1 = tasks.wake_me();
                if new.0.is_empty() { Poll::Pending } else { Poll::Ready(mem::take(&mut new.0)) }
            });
            for link in new.await {
                let (all, scratch) = (Arc::clone(&self), Rc::clone(&scratch));
                let (config, own) = (Arc::clone(&config), tasks.clone());
                tasks.spawn(async move { link.keep(&all, &own, &scratch, &config).await });
            }
        }
    }
}

impl Link {
    /// Opens the link whenever something waits for it.
    async fn keep(
        &self,
        all: &All,
        tasks: &Executor,
        scratch: &Scratch,
        config: &Arc<ClientConfig>,
    ) {
        let mut rest = REST_MIN;
        loop {
            let waiting = Box::pin(self.something_waits(tasks));
            // Sessions that live on may want to be signed for: their link is opened again without
            // being asked for.
            if self.is_used() {
                let _asked = tasks.timeout(rest, waiting).await;
                rest = rest.saturating_mul(2).min(REST_MAX);
            } else {
                waiting.await;
            }
            if self.state().is_cut {
                return;
            }
            let opening = Box::pin(self.open(tasks, scratch, config, &all.identity));
            let opened = tasks.timeout(OPEN_WAIT, opening).await;
            let trouble = match opened.unwrap_or(Err(Trouble::Deadline)) {
                Ok(mut leg) => {
                    self.is_open(true);
                    rest = REST_MIN;
                    tracing::info!(agent = %self.peer.address, "control link open");
                    let trouble = self.serve(all, tasks, scratch, &mut leg).await;
                    self.is_open(false);
                    trouble
                }
                Err(trouble) => Some(trouble),
            };
            // Its listener is another one's by now.
            if self.state().is_leaving {
                return;
            }
            if let Some(trouble) = trouble {
                let text = trouble.to_string();
                tracing::warn!(agent = %self.peer.address, trouble = text, "no control link");
                self.failed(&text);
            }
        }
    }

    /// Passes announcements on and signs, until nobody needs it for a while, or the link breaks.
    async fn serve(
        &self,
        all: &All,
        tasks: &Executor,
        scratch: &Scratch,
        leg: &mut LoginLeg,
    ) -> Option<Trouble> {
        let Carrier { sessions, .. } = &*self.agent;
        let questions = RefCell::new(Questions::default());
        loop {
            if self.state().is_cut {
                self.close(scratch, leg, "trusted no more");
                return None;
            }
            let now_ms = clock::monotonic_ms();
            let said = self.say(all, scratch, leg, &mut questions.borrow_mut());
            let remembered = match said {
                Ok(remembered) => remembered,
                Err(fault) => return Some(Trouble::Said(fault.to_string())),
            };
            let is_held = leg.transport.is_held();
            let heard = async {
                let asked = leg.drive(scratch, |transport, event, payload, cx| {
                    match event {
                        Event::Payload(_) => {}
                        Event::Rekeyed => return Ok(Some(())),
                        Event::Starved
                        | Event::Handled
                        | Event::Secured
                        | Event::Unimplemented(_) => return Ok(None),
                    }
                    let question = self.hear(all, Said::parse(payload)?, transport, cx)?;
                    let taken =
                        question.map(|it| questions.borrow_mut().push(it, &self.agent.rates()));
                    match taken {
                        Some(true) => Ok(Some(())),
                        Some(false) => Err(Fault::Flood),
                        None => Ok(None),
                    }
                });
                asked.await.err()
            };
            let due = questions.borrow().next_ms(now_ms, &self.agent.rates());
            if due == Some(0) {
                tasks.yield_now().await;
            }
            let next = due.into_iter().chain(remembered).min().map(Duration::from_millis);
            let told = async {
                if is_held {
                    return pending().await;
                }
                self.something_waits(tasks).await;
                None
            };
            let wait = next.unwrap_or_else(|| sessions.idle_left(now_ms));
            match tasks.timeout(wait, Box::pin(told.or(heard))).await {
                Some(Some(broken)) => return Some(trouble(&broken, leg)),
                None if next.is_none() && sessions.idle_left(clock::monotonic_ms()).is_zero() => {
                    self.close(scratch, leg, "idle");
                    return None;
                }
                Some(None) | None => {}
            }
        }
    }

    /// Says what waits and what is due; returns when the first of what is remembered of it may be
    /// forgotten, in milliseconds from now.
    fn say(
        &self,
        all: &All,
        scratch: &Scratch,
        leg: &mut LoginLeg,
        questions: &mut Questions,
    ) -> Result<Option<u64>, Fault> {
        let now_ms = clock::monotonic_ms();
        // What is held back during a key exchange is not wiped, and here are keys: they wait.
        let is_held = leg.transport.is_held();
        let waiting = if is_held { VecDeque::new() } else { mem::take(&mut self.state().waiting) };
        let closing = mem::take(&mut self.state().closing);
        scratch.with_context(|cx| {
            for (session, cause) in closing {
                let close = Said::Close { session, reason: cause.as_str() };
                leg.transport.send(&close.message(), cx)?;
            }
            for claim in &waiting {
                leg.transport.send(&Said::Claim(claim).message(), cx)?;
            }
            for _ in 0..SIGNED_A_TURN {
                let due = questions.due(now_ms, &mut self.agent.rates());
                let Some(question) = due else { break };
                let signature = self.sign(all, &question);
                let signed = Said::Signed { ticket: question.ticket, signature: &signature };
                leg.transport.send(&signed.message(), cx)?;
            }
            leg.rekey_if_due(cx)
        })?;
        Ok(self.state().remember(waiting, now_ms))
    }

    /// Takes what the agent says; returns what is to be signed in its turn.
    fn hear(
        &self,
        all: &All,
        said: Said<'_>,
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Result<Option<Question>, Fault> {
        match said {
            Said::Leaving => {
                all.replace(self);
                Ok(None)
            }
            // Once a session: there is no rate to mind.
            Said::Prove { ticket, session, asked } => {
                let proof = self.agent.sessions.prove(session, asked);
                if proof.is_some() {
                    self.log(session, "hostkeys-prove-00@openssh.com");
                }
                let signature = &proof.unwrap_or_default();
                transport.send(&Said::Signed { ticket, signature }.message(), cx)?;
                Ok(None)
            }
            Said::Sign { ticket, session, algorithm, host_key, hash } => Ok(Some(Question {
                ticket,
                session,
                algorithm: algorithm.to_owned(),
                host_key: host_key.to_vec(),
                hash: hash.to_vec(),
            })),
            // These are ours to say.
            Said::Claim(_) | Said::Signed { .. } | Said::Close { .. } => Err(Fault::Service),
        }
    }

    /// The signature that the agent asks for; empty if there is none.
    fn sign(&self, all: &All, question: &Question) -> Vec<u8> {
        let Question { session, algorithm, host_key, hash, .. } = question;
        let signature = all.signing_keys.sign(algorithm, host_key, hash);
        if !signature.is_empty() {
            self.agent.sessions.signed(*session);
            self.log(*session, algorithm);
        }
        signature
    }
}
