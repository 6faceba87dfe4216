//! The nodes of the registry are kept reached, and how they are found goes back into it.
//!
//! A thread of its own follows both: what was written of nodes, and what is seen of them. It writes
//! only what differs from what the registry says, several at a time, so that a thousand nodes that
//! go at once are a few commits.

#![expect(clippy::disallowed_methods, reason = "one thread writes down what is seen of nodes")]

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::control::api::{self, GivenKey, Tried, dto};
use crate::nodes::daemon::At;
use crate::nodes::roster::{Roster, Seen, Target};
use crate::nodes::trial::Found;
use crate::nodes::tunnel::{
    Credential, DockerSocket, Endpoint, Health, Pin, Reason, Settings, State as How,
};
use crate::plain_text::masked;
use crate::registry::document::{Docker, NodeState, Reached, SealedKey, SshAccess, fingerprint_of};
use crate::registry::draft::Written;
use crate::registry::writer::{CommandRequest, Mode};
use crate::registry::{Command, Key, Label, Service};
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::publickey::PublicKey;
use crate::state::State;
use crate::unix_time::unix_s;

/// Reports that are written down by one request: others' changes come in between.
const AT_ONCE: usize = 64;
/// Longest reason that is kept, in characters.
const REASON_CHARS_MAX: usize = 400;
/// Says that nobody has confirmed the host key that is shown.
const UNCONFIRMED: &str = "host-key-unconfirmed";
/// Says that another host key is shown than has to be.
const CHANGED: &str = "host-key-changed";

/// What the thread hears.
enum News {
    /// Something was written of nodes, or everything was read anew.
    Registry,
    /// A node was looked at.
    Seen(String, Box<Seen>),
    /// No more.
    End,
}

/// All nodes, from the start of this process to its drain.
pub(super) struct Nodes {
    state: State,
    roster: OnceLock<Roster>,
    service: OnceLock<Weak<Service>>,
    health: Duration,
    news: Sender<News>,
    heard: Mutex<Option<Receiver<News>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Nodes {
    pub(super) fn new(state: State, health: Duration) -> Self {
        let (news, heard) = mpsc::channel();
        let (heard, thread) = (Mutex::new(Some(heard)), Mutex::default());
        let (roster, service) = (OnceLock::new(), OnceLock::new());
        Self { state, roster, service, health, news, heard, thread }
    }

    /// The registry is open: its nodes are reached from now on.
    pub(super) fn begin(self: &Arc<Self>, service: &Arc<Service>) -> io::Result<()> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(heard) = heard else { return Ok(()) };
        let settings = Settings { health: self.health, ..Settings::default() };
        let post = self.news.clone();
        let tell = move |name: &str, seen: Seen| {
            drop(post.send(News::Seen(name.to_owned(), Box::new(seen))));
        };
        let roster = Roster::new(settings, Arc::new(tell))?;
        // Nobody else sets them.
        let _first = (self.roster.set(roster).is_ok(), self.service.set(Arc::downgrade(service)));
        let all = Arc::downgrade(self);
        let run = move || follow(&all, &heard);
        let thread = thread::Builder::new().name("node-news".to_owned()).spawn(run)?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        let _first = self.news.send(News::Registry);
        Ok(())
    }

    /// Something was written into the registry.
    pub(super) fn follow(&self, written: &[Written]) {
        if written.iter().any(|written| matches!(written.key, Key::Node(_))) {
            let _ended = self.news.send(News::Registry);
        }
    }

    /// A successor reaches them.
    pub(super) fn end(&self) {
        let _ended = self.news.send(News::End);
        if let Some(roster) = self.roster.get() {
            roster.keep(BTreeMap::new());
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A panic over there was reported by its hook.
        let _reported = thread.map(JoinHandle::join);
    }

    /// What is to be kept.
    fn reconcile(&self, service: &Service) {
        let Some(roster) = self.roster.get() else { return };
        let known: Vec<_> = service.read(|model| {
            let all = model.nodes().iter().filter_map(|(name, stored)| {
                let docker = stored.document.docker.clone()?;
                Some((name.clone(), docker, model.node_state(name).cloned()))
            });
            all.collect()
        });
        let mut targets = BTreeMap::new();
        for (name, docker, state) in known {
            match self.target(&name, &docker, None) {
                Ok(at) => {
                    let mark = format!("{docker:?}");
                    let before = state.map(|state| before(&state));
                    targets.insert(name.to_string(), Target { at, mark, before });
                }
                Err(reason) => {
                    let cause = "unusable".to_owned();
                    let state = NodeState {
                        reached: Reached::Error,
                        reason: Some(reason),
                        cause: Some(cause),
                        ..NodeState::default()
                    };
                    Self::write_down(service, vec![(name, state)]);
                }
            }
        }
        roster.keep(targets);
    }

    /// How many nodes there are by how they are, and which are not online.
    pub(super) fn counts(&self) -> Vec<(Reached, Vec<Label>)> {
        let all = [Reached::Pending, Reached::Online, Reached::Error, Reached::Offline];
        let mut counts: Vec<_> = all.into_iter().map(|how| (how, Vec::new())).collect();
        let Some(service) = self.service.get().and_then(Weak::upgrade) else { return counts };
        service.read(|model| {
            for (name, _) in model.nodes().iter().filter(|(_, it)| it.document.docker.is_some()) {
                let reached = model.node_state(name).map(|state| state.reached).unwrap_or_default();
                if let Some((_, names)) = counts.iter_mut().find(|(how, _)| *how == reached) {
                    names.push(name.clone());
                }
            }
        });
        counts
    }

    /// Where a node's Docker is. `key`: what to log in with instead of what is said there.
    fn target(&self, name: &Label, docker: &Docker, key: Option<&GivenKey>) -> Result<At, String> {
        let Some(ssh) = &docker.ssh else { return Ok(At::Here(PathBuf::from(&docker.socket))) };
        let SshAccess { endpoint, host_key, networks, credential } = ssh;
        let credential = match (key, credential) {
            (Some(given), _) => read(given)?,
            (None, Some(sealed)) => self.unseal(name, sealed)?,
            (None, None) => self.own()?,
        };
        let socket = DockerSocket::from_str(&docker.socket).map_err(|fault| fault.to_string())?;
        let at = (endpoint.user.as_str(), endpoint.host.as_str(), endpoint.port);
        let endpoint = Endpoint::new(at, networks.clone(), socket, credential);
        let endpoint = endpoint.map_err(|fault| fault.to_string())?;
        let pin = host_key.as_deref().map(Pin::from_str).transpose();
        let pin = pin.map_err(|fault| fault.to_string())?;
        Ok(At::There { endpoint: Arc::new(endpoint), pin })
    }

    /// The front door's own node key.
    fn own(&self) -> Result<Credential, String> {
        let mut entropy = SystemEntropy::default();
        let key = self.state.node_key(&mut entropy).map_err(|fault| fault.to_string())?;
        let text = key.to_openssh("", &mut entropy);
        Credential::read(&text, None).map_err(|fault| fault.to_string())
    }

    fn unseal(&self, name: &Label, sealed: &SealedKey) -> Result<Credential, String> {
        let opener = self.state.sealer(&mut SystemEntropy::default());
        let opener = opener.map_err(|fault| fault.to_string())?;
        let key = opener.open(&purpose(name), &sealed.sealed).map_err(|fault| {
            format!(
                "the private key of node {name} cannot be opened: {fault}; fix: give it again \
                 (`keyway node set {name} --key FILE`)"
            )
        })?;
        let text = str::from_utf8(&key).map_err(|fault| fault.to_string())?;
        Credential::read(text, None).map_err(|fault| fault.to_string())
    }

    /// Writes down how nodes are, where the registry says otherwise.
    fn write_down(service: &Service, found: Vec<(Label, NodeState)>) {
        let news: Vec<(Label, NodeState)> = service.read(|model| {
            let differs = |(name, now): (Label, NodeState)| {
                let node = model.nodes().get(&name)?;
                node.document.docker.as_ref()?;
                let was = model.node_state(&name).cloned().unwrap_or_default();
                differing(&was, now).map(|now| (name, now))
            };
            found.into_iter().filter_map(differs).collect()
        });
        for some in news.chunks(AT_ONCE) {
            let orders = some.iter().map(|(name, state)| {
                log(name, state);
                let (name, state) = (name.clone(), state.clone());
                CommandRequest::of_itself(Command::NodeFound { name, state })
            });
            for answer in service.carry_out_all(orders.collect(), Mode::Real) {
                if let Err(failed) = answer {
                    tracing::warn!("how a node was found is not written down: {failed}");
                }
            }
        }
    }
}

impl api::Nodes for Nodes {
    fn seal(&self, node: &Label, key: &GivenKey) -> Result<SealedKey, String> {
        let credential = read(key)?;
        let text = credential.to_openssh().map_err(|fault| fault.to_string())?;
        let seal = self.state.sealer(&mut SystemEntropy::default());
        let seal = seal.map_err(|fault| fault.to_string())?;
        let sealed = seal.seal(&purpose(node), text.as_bytes());
        let sealed = sealed.ok_or("it is too long to be sealed")?;
        Ok(SealedKey { public: credential.public().to_line(), sealed })
    }

    fn test(&self, trial: api::Trial) -> Tried {
        let api::Trial { name, docker, key, accept_new } = trial;
        let Some(roster) = self.roster.get() else {
            return not_tried("the registry is not open", "see `keyway status`");
        };
        let nobody = Label::new("new");
        let purpose = name.clone().or_else(|| nobody.ok());
        let Some(purpose) = purpose else { return not_tried("it has no name", "give it one") };
        let tried = match self.target(&purpose, &docker, key.as_ref()) {
            Ok(at) => tried(roster.test(at, accept_new)),
            Err(why) => return not_tried(&why, ""),
        };
        match name {
            // A connection that stood before its key changed is nothing to rely on.
            Some(name) if tried.shown.cause.as_deref() == Some(CHANGED) => {
                roster.forget(name.as_str());
                let _ended = self.news.send(News::Registry);
            }
            Some(name) => roster.hurry(name.as_str()),
            None => {}
        }
        tried
    }

    fn seen_s(&self, node: &Label) -> Option<u64> {
        self.roster.get()?.heartbeat_s(node.as_str())
    }
}

/// What a node's key is sealed for.
fn purpose(node: &Label) -> String {
    format!("keyway node {node}")
}

fn read(given: &GivenKey) -> Result<Credential, String> {
    let passphrase = given.passphrase.as_ref().map(|it| it.as_str());
    Credential::read(&given.text, passphrase).map_err(|fault| fault.to_string())
}

fn follow(nodes: &Weak<Nodes>, heard: &Receiver<News>) {
    while let Ok(first) = heard.recv() {
        let Some(nodes) = nodes.upgrade() else { return };
        let Some(service) = nodes.service.get().and_then(Weak::upgrade) else { return };
        let mut seen = BTreeMap::new();
        let mut has_changed = false;
        for news in std::iter::once(first).chain(heard.try_iter()) {
            match news {
                News::Registry => has_changed = true,
                // The last of several says it all.
                News::Seen(name, now) => drop(seen.insert(name, now)),
                News::End => return,
            }
        }
        if has_changed {
            nodes.reconcile(&service);
        }
        let named = seen
            .into_iter()
            .filter_map(|(name, seen)| Some((Label::new(&name).ok()?, state_of(&seen))));
        Nodes::write_down(&service, named.collect());
    }
}

/// What was known before this process.
fn before(state: &NodeState) -> Health {
    Health {
        state: match state.reached {
            Reached::Pending => How::Pending,
            Reached::Online => How::Online,
            Reached::Error => How::Error,
            Reached::Offline => How::Offline,
        },
        reason: None,
        since_s: state.since_s,
        heartbeat_s: state.seen_s,
        way: None,
    }
}

const fn reached(how: How) -> Reached {
    match how {
        How::Pending => Reached::Pending,
        How::Online => Reached::Online,
        How::Error => Reached::Error,
        How::Offline => Reached::Offline,
    }
}

fn state_of(seen: &Seen) -> NodeState {
    let Seen { health, daemon } = seen;
    NodeState {
        reached: reached(health.state),
        reason: health.reason.as_ref().map(sentence),
        cause: health.reason.as_ref().map(cause),
        since_s: health.since_s,
        seen_s: health.heartbeat_s,
        docker_version: daemon.as_ref().map(|daemon| daemon.version.clone()),
        architecture: daemon.as_ref().map(|daemon| daemon.architecture.clone()),
        via: health.way.map(|way| way.as_str().to_owned()),
        shown: health.reason.as_ref().and_then(|reason| Some(reason.shown?.to_string())),
    }
}

fn sentence(reason: &Reason) -> String {
    let Reason { fault, fix, .. } = reason;
    let text = if fix.is_empty() { fault.clone() } else { format!("{fault}; fix: {fix}") };
    masked(&text, REASON_CHARS_MAX)
}

/// In the words of the API, whose parts are joined by `-`.
fn cause(reason: &Reason) -> String {
    reason.label.replace('_', "-")
}

/// What to write down: nothing where the registry says it already. When a node was seen last is
/// written with what else changes.
fn differing(was: &NodeState, mut now: NodeState) -> Option<NodeState> {
    // Who tried it before it was kept has reached it.
    if now.reached == Reached::Pending && was.seen_s.is_some() {
        (now.reached, now.seen_s) = (Reached::Offline, was.seen_s);
    }
    let same_way = (was.reached, &was.cause) == (now.reached, &now.cause);
    let since_s = if same_way && was.since_s > 0 { was.since_s } else { now.since_s.max(1) };
    // Of what does not answer nothing new is known.
    let now = NodeState {
        since_s,
        docker_version: now.docker_version.or_else(|| was.docker_version.clone()),
        architecture: now.architecture.or_else(|| was.architecture.clone()),
        via: now.via.or_else(|| was.via.clone()),
        ..now
    };
    let compared = NodeState { seen_s: was.seen_s, ..now.clone() };
    let is_same = same_way && NodeState { reason: was.reason.clone(), ..compared } == *was;
    (!is_same).then_some(now)
}

fn log(name: &Label, state: &NodeState) {
    let reason = state.reason.as_deref().unwrap_or_default();
    let cause = state.cause.as_deref().unwrap_or_default();
    match state.reached {
        Reached::Online => tracing::info!(node = %name, "the node is online"),
        Reached::Pending => tracing::info!(node = %name, cause, "the node is pending: {reason}"),
        Reached::Error => tracing::error!(node = %name, cause, "the node has a fault: {reason}"),
        Reached::Offline => tracing::warn!(node = %name, cause, "the node is offline: {reason}"),
    }
}

fn not_tried(why: &str, fix: &str) -> Tried {
    let shown = dto::NodeTest {
        state: Reached::Error,
        reason: Some(why.to_owned()),
        fix: Some(fix.to_owned()).filter(|fix| !fix.is_empty()),
        cause: Some("unusable".to_owned()),
        ..dto::NodeTest::default()
    };
    Tried { shown, state: None }
}

fn tried(found: Found) -> Tried {
    let Found { host_key, via, daemon, reason, is_to_be_mended, is_unconfirmed, probe } = found;
    let line = host_key.as_ref().map(PublicKey::to_line);
    let state = match (&daemon, is_unconfirmed, is_to_be_mended) {
        (Some(_), ..) => Reached::Online,
        (None, true, _) => Reached::Pending,
        (None, false, true) => Reached::Error,
        (None, false, false) => Reached::Offline,
    };
    let cause = match &reason {
        Some(_) if is_unconfirmed => Some(UNCONFIRMED.to_owned()),
        reason => reason.as_ref().map(cause),
    };
    let fix = match (&host_key, reason.as_ref()) {
        (Some(key), Some(it)) if is_unconfirmed => {
            Some(format!("{}, then say so: --host-key {}", it.fix, key.fingerprint()))
        }
        (_, it) => it.map(|it| it.fix.clone()).filter(|fix| !fix.is_empty()),
    };
    let now_s = unix_s();
    let shown = dto::NodeTest {
        state,
        reason: reason.as_ref().map(|it| masked(&it.fault, REASON_CHARS_MAX)),
        fix,
        cause: cause.clone(),
        host_key: line.as_deref().map(fingerprint_of),
        host_key_line: line,
        docker_version: daemon.as_ref().map(|it| it.version.clone()),
        api_version: daemon.as_ref().map(|it| it.api_version.clone()),
        architecture: daemon.as_ref().map(|it| it.architecture.clone()),
        via: via.map(str::to_owned),
        probe: probe.map(|it| masked(&it, REASON_CHARS_MAX)),
    };
    let state = (state == Reached::Online).then(|| NodeState {
        reached: state,
        since_s: now_s,
        seen_s: Some(now_s),
        docker_version: shown.docker_version.clone(),
        architecture: shown.architecture.clone(),
        via: shown.via.clone(),
        ..NodeState::default()
    });
    Tried { shown, state }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_registry_says_already_is_not_written_again() {
        let online = NodeState {
            reached: Reached::Online,
            since_s: 100,
            seen_s: Some(100),
            docker_version: Some("20.10".to_owned()),
            ..NodeState::default()
        };
        let later = NodeState { since_s: 130, seen_s: Some(130), ..online.clone() };
        assert_eq!(differing(&online, later), None);
        let gone = NodeState {
            reached: Reached::Offline,
            cause: Some("timed-out".to_owned()),
            reason: Some("no answer in time, in connecting".to_owned()),
            since_s: 140,
            seen_s: Some(130),
            ..NodeState::default()
        };
        let written = differing(&online, gone.clone()).unwrap();
        assert_eq!(written.docker_version.as_deref(), Some("20.10"), "it had one");
        assert_eq!((written.since_s, written.seen_s), (140, Some(130)));
        // By a keeper that has not come there itself.
        let pending = NodeState { reached: Reached::Pending, seen_s: None, ..gone.clone() };
        let at_all = NodeState { seen_s: online.seen_s, ..written.clone() };
        assert_eq!(differing(&online, pending), Some(at_all));
        // The same cause in other words, after a restart.
        let reworded = NodeState { reason: Some("x".to_owned()), since_s: 200, ..gone };
        assert_eq!(differing(&written, reworded), None);
    }
}
