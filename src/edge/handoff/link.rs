//! One control link of an edge: what waits to be said on it, how it is opened, and how it is.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use zeroize::Zeroizing;

use super::super::clock;
use super::super::executor::{Executor, Wake};
use super::super::login_leg::{LoginLeg, Scratch};
use super::super::stream::Stream;
use super::far_end::Peer;
use super::handed::Sessions;
use super::rates::Rates;
use super::trouble::{Trouble, trouble};
use crate::ended::{Cause, labelled};
use crate::ssh::message::Reason;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::PublicKey;
use crate::ssh::transport::{ClientConfig, Event, Transport};
use crate::ssh::userauth::{Credential, Login, LoginStep};

/// The login of an edge at an agent's control link.
const LOGIN: &str = "keyway-edge";
/// How long an announcement is remembered, in milliseconds, to be said again to the successor of an
/// agent that leaves: as long as a data connection waits for it there.
const SAID_MS: u64 = 2000;
/// Announcements that wait for a link; the oldest are dropped for newer ones: their
/// logins have given up.
const WAITING_MAX: usize = 4096;

/// The way to one agent.
pub(super) struct Link {
    pub(super) peer: Peer,
    state: Mutex<Waits>,
    pub(super) agent: Arc<Carrier>,
}

/// What is known of an agent, whichever link to it there is.
#[derive(Default)]
pub(super) struct Carrier {
    /// A link stays open for them. One that was announced to an agent that leaves may have come to
    /// its successor.
    pub(super) sessions: Arc<Sessions>,
    rates: Mutex<Rates>,
}

/// What waits to be said on a link, and how it is.
#[derive(Default)]
pub(super) struct Waits {
    pub(super) waiting: VecDeque<Zeroizing<Vec<u8>>>,
    /// What was said within [`SAID_MS`], and until when it is remembered.
    pub(super) said: VecDeque<(u64, Zeroizing<Vec<u8>>)>,
    wake: Option<Wake>,
    /// The agent is trusted no more: its task ends.
    pub(super) is_cut: bool,
    /// The agent takes nothing more: its task ends with the link.
    pub(super) is_leaving: bool,
    /// Ends of sessions that the agent is to word, while it is there: what is not said at once is
    /// not said at all.
    pub(super) closing: Vec<(u64, Cause)>,
    /// Since when it is open, in Unix seconds, if it is.
    pub(super) since_s: Option<u64>,
    /// Why the last attempt failed, until one succeeds.
    pub(super) trouble: Option<Arc<str>>,
    /// Why it was not there last, and when that was, in Unix seconds.
    last_trouble: Option<(u64, Arc<str>)>,
}

labelled! {
    /// How a control link of an edge is.
    pub enum LinkState {
        /// It is open.
        Open = "open",
        /// Nobody needs it.
        Closed = "closed",
        /// The last try to open it failed, or it broke.
        Broken = "broken",
        /// Its agent takes nothing more, and keeps it for the sessions it has.
        Leaving = "leaving",
    }
}

/// A control link of an edge, as it is shown.
#[derive(Clone, Debug)]
pub struct LinkShown {
    /// Whom it leads to.
    pub peer: Peer,
    /// How it is.
    pub state: LinkState,
    /// Since when it is open, in Unix seconds, if it is.
    pub since_s: Option<u64>,
    /// Sessions that its agent carries, whichever link they came by.
    pub sessions: usize,
    /// Why it was not there last, and when that was, in Unix seconds.
    pub trouble: Option<(u64, Arc<str>)>,
}

impl Carrier {
    pub(super) fn rates(&self) -> MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waits {
    /// Returns when the first of what is remembered may be forgotten, in milliseconds from now.
    pub(super) fn remember(
        &mut self,
        said: VecDeque<Zeroizing<Vec<u8>>>,
        now_ms: u64,
    ) -> Option<u64> {
        self.said.extend(said.into_iter().map(|claim| (now_ms.saturating_add(SAID_MS), claim)));
        self.forget(now_ms);
        self.said.front().map(|(until_ms, _)| until_ms.saturating_sub(now_ms))
    }

    fn wake(&self) {
        if let Some(wake) = &self.wake {
            wake.wake();
        }
    }

    pub(super) fn forget(&mut self, now_ms: u64) {
        while self.said.pop_front_if(|(until_ms, _)| *until_ms <= now_ms).is_some() {}
    }
}

impl Link {
    pub(super) fn state(&self) -> MutexGuard<'_, Waits> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn new(peer: Peer, agent: Arc<Carrier>) -> Self {
        Self { peer, state: Mutex::default(), agent }
    }

    /// Nothing more is said or signed here. False, for whoever asks whether it stays.
    pub(super) fn cut(&self) -> bool {
        let mut state = self.state();
        state.is_cut = true;
        state.waiting.clear();
        state.closing.clear();
        state.wake();
        false
    }

    pub(super) fn announce(&self, claims: VecDeque<Zeroizing<Vec<u8>>>) {
        let mut state = self.state();
        state.waiting.extend(claims);
        while state.waiting.len() > WAITING_MAX {
            state.waiting.pop_front();
        }
        state.wake();
    }

    /// Has the agent tell a user why the session ends, if the link is open.
    pub(super) fn end(&self, session: u64, cause: Cause) {
        let mut state = self.state();
        if state.since_s.is_none() {
            return;
        }
        state.closing.push((session, cause));
        state.wake();
    }

    pub(super) fn shown(&self) -> LinkShown {
        let state = self.state();
        let is = match (state.is_leaving, state.since_s, &state.trouble) {
            (true, ..) => LinkState::Leaving,
            (false, Some(_), _) => LinkState::Open,
            (false, None, Some(_)) => LinkState::Broken,
            (false, None, None) => LinkState::Closed,
        };
        let (since_s, trouble) = (state.since_s, state.last_trouble.clone());
        drop(state);
        let (peer, sessions) = (self.peer.clone(), self.agent.sessions.count());
        LinkShown { peer, state: is, since_s, sessions, trouble }
    }

    /// It broke, or cannot be opened. Whoever waited for it hears so; the next one tries again
    /// at once.
    pub(super) fn failed(&self, text: &str) {
        let mut state = self.state();
        let text: Arc<str> = text.into();
        state.last_trouble = Some((clock::unix_s(), Arc::clone(&text)));
        state.trouble = Some(text);
        state.waiting.clear();
        state.said.clear();
    }

    /// It is open from now on, or no more.
    pub(super) fn is_open(&self, is_open: bool) {
        let mut state = self.state();
        state.since_s = is_open.then(clock::unix_s);
        state.closing.clear();
        if is_open {
            state.trouble = None;
        }
    }

    /// Says goodbye.
    pub(super) fn close(&self, scratch: &Scratch, leg: &mut LoginLeg, why: &str) {
        tracing::info!(agent = %self.peer.address, why, "control link closed");
        scratch.with_context(|cx| leg.transport.disconnect(Reason::ByApplication, why, cx));
        leg.say_now();
    }

    /// Whether a session lives that the agent carries.
    pub(super) fn is_used(&self) -> bool {
        self.agent.sessions.are_there()
    }

    pub(super) async fn something_waits(&self, tasks: &Executor) {
        poll_fn(|_| {
            let mut state = self.state();
            state.wake = tasks.wake_me();
            let nothing = state.waiting.is_empty() && state.closing.is_empty() && !state.is_cut;
            if nothing { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    pub(super) async fn open(
        &self,
        tasks: &Executor,
        scratch: &Scratch,
        config: &Arc<ClientConfig>,
        identity: &Arc<PrivateKey>,
    ) -> Result<LoginLeg, Trouble> {
        let transport = scratch.with_context(|cx| Transport::client(Arc::clone(config), cx));
        let mut leg = LoginLeg::to_vm(Stream::connect(tasks, self.peer.address)?, transport);
        leg.be_watchful()?;
        let secured =
            leg.drive(scratch, |_, event, _, _| Ok(matches!(event, Event::Secured).then_some(())));
        secured.await.map_err(|broken| trouble(&broken, &leg))?;
        let shown = PublicKey::parse(leg.transport.host_key()).map_err(|_| Trouble::Closed)?;
        if shown.fingerprint() != self.peer.key {
            return Err(Trouble::Identity(shown.fingerprint()));
        }
        let credential = Credential { key: Arc::clone(identity), certificate: None };
        let login =
            scratch.with_context(|cx| Login::start(LOGIN, &credential, &mut leg.transport, cx));
        let mut login = login.map_err(|fault| Trouble::Said(fault.to_string()))?;
        let came = leg.drive(scratch, |transport, event, payload, cx| {
            if !matches!(event, Event::Payload(_)) {
                return Ok(None);
            }
            Ok(match login.receive(payload, transport, cx)? {
                LoginStep::Success => Some(true),
                LoginStep::Refused(_) | LoginStep::MoreWanted(_) => Some(false),
                LoginStep::Continue | LoginStep::Banner(_) => None,
            })
        });
        if came.await.map_err(|broken| trouble(&broken, &leg))? {
            Ok(leg)
        } else {
            Err(Trouble::Unknown)
        }
    }

    /// What was signed cannot be seen: how often, and for whom it was said to be, can.
    pub(super) fn log(&self, session: u64, what: &str) {
        let (agent, request) = (&self.peer.node, format_args!("{session:016x}"));
        tracing::info!(agent, %request, what, "signed for an agent");
    }
}
