//! The agent's door: a data connection becomes a session that is relayed like any other, once this
//! agent has judged it by itself; a control link is where edges announce them.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::FutureExt;
use zeroize::Zeroize;

use super::super::clock;
use super::super::denied::Denied;
use super::super::handoff::{Agent, Details, FarEnd, Sighting, SigningLink, Trusted, entry_of};
use super::super::login_leg::{Broken, LoginLeg};
use super::super::presence::ConnectionGuard;
use super::super::report::{Proved, Report, RequestId};
use super::super::route_gate::{Entry, RouteGate};
use super::super::stream::{Read, Stream};
use super::{Door, HalfOpenSlot, Outcome};
use crate::ended::{Cause, Detail, Ended, Side, Stage};
use crate::route::{Admitted, Carriage};
use crate::ssh::certificate::Restrictions;
use crate::ssh::fault::Fault;
use crate::ssh::handoff::{self, CLAIM_ID_BYTES, OPEN_LENGTH_MAX, Open, Refused, Said, Taken};
use crate::ssh::message::Reason;
use crate::ssh::packet::Opened;
use crate::ssh::publickey::{Fingerprint, PublicKey};
use crate::ssh::transport::{Event, Transport};
use crate::ssh::userauth::{
    Authenticator, Gate, Identity, Offer, Pass, Policy, ProvedKey, Step, Subject,
};
use crate::unix_time::unix_s;

/// Most bytes kept of a data connection behind its id, before its OPEN is whole.
const OPENING_BYTES_MAX: usize = OPEN_LENGTH_MAX as usize + 64;

/// How often keys of data connections that did not come are looked for, and an edge is asked again
/// what it said no to.
const LOOK_AFTER: Duration = Duration::from_secs(10);

/// What an edge hears that was removed.
const UNTRUSTED: &str = "trusted no more";
/// How long this agent's map may lag behind the edge's before it decides as it is, in milliseconds.
const MAP_WAIT_MS: u64 = 2_000;
/// How often it is looked whether it has moved.
const MAP_LOOK: Duration = Duration::from_millis(20);

/// Why a session is not taken.
#[derive(Debug, thiserror::Error)]
enum Denial {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the address dialled is not in this agent's pool")]
    Address,
    #[error("by this agent's map the proof lets nobody in there")]
    Proof,
    #[error("by this agent's map it leads to another VM")]
    OtherVm,
    #[error("by this agent's map its VM is not this agent's to carry")]
    Node,
    #[error("the edge is none of agent's edges any more")]
    Edge,
    #[error("this session was handed over before")]
    Replayed,
    #[error("too many sessions have come in the last minutes, or too many of this user")]
    Busy,
}

impl Denial {
    /// Whether a map that has moved may say otherwise.
    const fn is_of_the_map(&self) -> bool {
        match self {
            Self::Address
            | Self::Proof
            | Self::OtherVm
            | Self::Node
            | Self::Refused(Refused::HostKey) => true,
            Self::Refused(
                Refused::Malformed(_) | Refused::Exchange | Refused::Stale | Refused::KexInit,
            )
            | Self::Edge
            | Self::Replayed
            | Self::Busy => false,
        }
    }
}

/// A session that this agent's map lets in.
struct Judged<'a> {
    open: Open<'a>,
    session: handoff::Session,
    admitted: Admitted,
    key: Box<ProvedKey>,
    /// The edge's map knows the same of the VM.
    agrees: bool,
}

impl Door {
    /// Takes one connection of an edge to its end, or to the pump. `presence`: of the connection; a
    /// link gives it back, for nobody waits for one to end.
    pub(super) async fn take(
        &self,
        agent: &Agent,
        stream: Stream,
        report: &RefCell<Report>,
        place: &HalfOpenSlot,
        presence: &Cell<Option<ConnectionGuard>>,
    ) -> Outcome {
        self.counters.accepted();
        let peer = report.borrow().client;
        if !agent.lets_come(peer.ip()) {
            report.borrow_mut().detail = Some(Detail::noted("not from agent's edge_networks"));
            return Outcome::Ended(Ended::edge(Stage::Accept, Cause::HandoffRefused));
        }
        let mut bytes = Vec::new();
        let grace = self.shared.settings.login_grace;
        let opening = Box::pin(self.read_until(&stream, (&mut bytes, CLAIM_ID_BYTES), 1));
        match self.tasks.timeout(grace, opening).await {
            Some(Ok(())) => {}
            Some(Err(broken)) => return Outcome::Ended(broken.ended(Side::Client, Stage::Accept)),
            None => return Outcome::Ended(Ended::client(Stage::Accept, Cause::Deadline)),
        }
        // A data connection begins with a zero.
        if bytes.first() != Some(&0) {
            return Box::pin(self.link(agent, stream, bytes, report, place, presence)).await;
        }
        let opening = Box::pin(self.open(agent, stream, bytes, report));
        match self.tasks.timeout(grace, opening).await {
            Some(Ok((leg, admitted, key))) => {
                place.progressed();
                Box::pin(self.begin_session(leg, report, place, admitted, &key)).await
            }
            Some(Err(ended)) => Outcome::Ended(ended),
            None => Outcome::Ended(Ended::client(Stage::Handoff, Cause::Deadline)),
        }
    }

    /// Reads until there are `count` bytes, and at most `max`.
    async fn read_until(
        &self,
        stream: &Stream,
        (bytes, max): (&mut Vec<u8>, usize),
        count: usize,
    ) -> Result<(), Broken> {
        while bytes.len() < count {
            stream.readable().await?;
            if self.scratch.read(stream, bytes, max)? == Read::End {
                return Err(Broken::Closed);
            }
        }
        Ok(())
    }

    /// From a data connection's first byte to the session's leg, which has READY to say.
    async fn open(
        &self,
        agent: &Agent,
        stream: Stream,
        mut bytes: Vec<u8>,
        report: &RefCell<Report>,
    ) -> Result<(LoginLeg, Admitted, Box<ProvedKey>), Ended> {
        let broke = |broken: Broken| broken.ended(Side::Client, Stage::Handoff);
        let refused = |why: &str| {
            report.borrow_mut().detail = Some(Detail::noted(why));
            Ended::edge(Stage::Handoff, Cause::HandoffRefused)
        };
        let id = (&mut bytes, CLAIM_ID_BYTES);
        self.read_until(&stream, id, CLAIM_ID_BYTES).await.map_err(broke)?;
        let id = bytes.first_chunk().copied().unwrap_or_default();
        let Some((claim, edge)) = agent.claims.announced(&self.tasks, id).await else {
            return Err(refused("no edge announced this data connection"));
        };
        if !agent.trusts_edge(&edge) {
            return Err(refused("the edge that announced it is none of agent's edges any more"));
        }
        let mut input = Vec::new();
        let (mut from_edge, mut to_edge) = claim.at_agent();
        let Opened { payload, used } = loop {
            let found = from_edge.open(&mut input, OPEN_LENGTH_MAX);
            if let Some(opened) = found.map_err(|fault| broke(fault.into()))? {
                break opened;
            }
            let more = input.len().max(from_edge.needs().saturating_sub(1)).saturating_add(1);
            let input = (&mut input, OPENING_BYTES_MAX);
            self.read_until(&stream, input, more).await.map_err(broke)?;
        };
        if !agent.claims.come(id) {
            return Err(refused("another data connection came under the same announcement"));
        }
        let open = input.get(payload).unwrap_or_default();
        let judged = Box::pin(self.judge((agent, &edge), open, report)).await;
        match judged {
            Ok((taken, admitted, key)) => {
                let line = (from_edge, to_edge);
                let transport = self.scratch.with_context(|cx| taken.go_on(line, cx));
                let unread = input.split_off(used);
                input.zeroize();
                let transport = transport.map_err(|fault| broke(fault.into()))?;
                {
                    let mut report = report.borrow_mut();
                    report.user = Some(admitted.user.clone());
                    report.admitted = Some(admitted.clone());
                    report.far_end = Some(Arc::new(FarEnd::Edge(edge)));
                    report.software = transport.peer_ident();
                }
                let mut leg = LoginLeg::from_client(stream, transport, unread);
                leg.flush().await.map_err(|error| broke(error.into()))?;
                Ok((leg, admitted, key))
            }
            Err(denial) => {
                input.zeroize();
                let text = denial.to_string();
                let told = self
                    .scratch
                    .with_context(|cx| handoff::refuse(&mut to_edge, &text, cx))
                    .unwrap_or_default();
                // Whoever is gone need not be told.
                let _told = stream.write_all(&told).await;
                Err(refused(&text))
            }
        }
    }

    /// What this agent makes of OPEN. A map that does not let in, or knows the VM otherwise than
    /// the edge's, may just be behind: it has a moment to move, and then decides.
    async fn judge<'a>(
        &self,
        (agent, edge): (&Agent, &Fingerprint),
        open: &'a [u8],
        report: &RefCell<Report>,
    ) -> Result<(Taken<'a>, Admitted, Box<ProvedKey>), Denial> {
        let until_ms = clock::monotonic_ms().saturating_add(MAP_WAIT_MS);
        let judged = loop {
            let seen = (self.shared.table.revision(), agent.trusted());
            report.borrow_mut().denied = Denied::default();
            let judged = self.judge_now(agent, open, report);
            let is_settled = match &judged {
                Ok(judged) => judged.agrees,
                Err(denial) => !denial.is_of_the_map(),
            };
            if is_settled || !self.moves(agent, &seen, until_ms).await {
                break judged?;
            }
        };
        // READY is for no edge that was removed while this agent's map moved.
        if !agent.trusts_edge(edge) {
            return Err(Denial::Edge);
        }
        let Judged { open, session, admitted, key, agrees } = judged;
        if !agrees {
            let odd = "this agent's map knows the VM otherwise than the edge's";
            report.borrow_mut().detail = Some(Detail::noted(odd));
        }
        match agent.seen.sight(&admitted.user, session.id.as_bytes(), unix_s()) {
            Sighting::First => {}
            Sighting::Again => return Err(Denial::Replayed),
            Sighting::NoRoom => return Err(Denial::Busy),
        }
        let trusted = agent.trusted();
        let taken = open.take(session, &trusted.host_keys, agent.identity.limits())?;
        Ok((taken, admitted, key))
    }

    /// Waits until this agent knows more than it has `seen`; false if it does not in time.
    async fn moves(
        &self,
        agent: &Agent,
        (revision, trusted): &(u64, Arc<Trusted>),
        until_ms: u64,
    ) -> bool {
        while clock::monotonic_ms() < until_ms {
            self.tasks.sleep(MAP_LOOK).await;
            let now = agent.trusted();
            if self.shared.table.revision() != *revision || !Arc::ptr_eq(&now, trusted) {
                return true;
            }
        }
        false
    }

    /// By this agent's own map and clock, as they are now.
    fn judge_now<'a>(
        &self,
        agent: &Agent,
        open: &'a [u8],
        report: &RefCell<Report>,
    ) -> Result<Judged<'a>, Denial> {
        let open = Open::parse(open).map_err(Refused::from)?;
        let trusted = agent.trusted();
        let now_s = unix_s();
        let session = open.session(&trusted.host_keys, now_s)?;
        let details = Details::parse(open.details).map_err(Refused::from)?;
        let address = self.shared.table.dialled(details.dialled).ok_or(Denial::Address)?;
        {
            let mut report = report.borrow_mut();
            report.request = RequestId(details.request);
            report.client = details.client;
            report.dialled = Some(details.dialled);
            report.address = Some(address.clone());
        }
        let gate = RouteGate::new(&self.shared, &address, report);
        let live = self.shared.live.load();
        let at = (details.client.ip(), now_s);
        let key = open.prove(&session, at, &live.policy, &gate).ok_or(Denial::Proof)?;
        report.borrow_mut().who = Some(Proved::from(&*key));
        let Some(Entry::Vm(admitted, key)) = gate.entry(key) else { return Err(Denial::Proof) };
        if admitted.vm.id != details.vm {
            return Err(Denial::OtherVm);
        }
        match self.shared.table.carriage(&admitted.vm) {
            Some(Carriage::Handoff(node)) if Fingerprint(node.agent_key) == agent.key() => {}
            Some(Carriage::Handoff(_) | Carriage::Relay) | None => return Err(Denial::Node),
        }
        let agrees = entry_of(&admitted.vm) == details.entry;
        Ok(Judged { open, session, admitted, key, agrees })
    }

    /// Serves an edge's control link.
    async fn link(
        &self,
        agent: &Agent,
        stream: Stream,
        unread: Vec<u8>,
        report: &RefCell<Report>,
        place: &HalfOpenSlot,
        presence: &Cell<Option<ConnectionGuard>>,
    ) -> Outcome {
        let config = agent.identity.clone();
        let transport = self.scratch.with_context(|cx| Transport::server(config, cx));
        let mut leg = LoginLeg::from_client(stream, transport, unread);
        let peer = report.borrow().client;
        let mut authenticator = Authenticator::new(peer.ip());
        let (policy, unknown) = (Policy::default(), Cell::new(None));
        let logging_in = leg.drive(&self.scratch, |transport, event, payload, cx| {
            if !matches!(event, Event::Payload(_)) {
                return Ok(None);
            }
            let gate = EdgeGate { agent, unknown: &unknown };
            let now_s = unix_s();
            let step = authenticator.receive(payload, now_s, &policy, &gate, transport, cx)?;
            let Step::Proved(key) = step else { return Ok(None) };
            authenticator.accept(transport, cx)?;
            Ok(Some(key.fingerprint()))
        });
        let logged_in = self.tasks.timeout(self.shared.settings.login_grace, Box::pin(logging_in));
        let edge_key = match logged_in.await {
            Some(Ok(key)) => key,
            Some(Err(broken)) => {
                let unknown = unknown.into_inner().map(|key| {
                    Detail::noted(format_args!(
                        "{key} is none of agent's edges: `keyway edge list` at control, or `edges` in agent.toml"
                    ))
                });
                report.borrow_mut().detail = unknown.or_else(|| broken.detail(&leg.transport));
                return Outcome::Ended(broken.ended(Side::Client, Stage::Authentication));
            }
            None => return Outcome::Ended(Ended::client(Stage::Authentication, Cause::Deadline)),
        };
        place.leave();
        drop(presence.take());
        if let Err(error) = leg.be_watchful() {
            return Outcome::Ended(Broken::from(error).ended(Side::Client, Stage::Session));
        }
        tracing::info!(edge = %peer, key = %edge_key, "control link open");
        let detail = self.talk(agent, &mut leg, (edge_key, peer)).await;
        let detail = detail.as_ref().map_or("", Detail::as_str);
        tracing::info!(edge = %peer, key = %edge_key, detail, "control link closed");
        Outcome::Linked
    }

    /// Hears what an edge announces and signs, and asks it to sign, until the link
    /// breaks; returns why.
    async fn talk(
        &self,
        agent: &Agent,
        leg: &mut LoginLeg,
        (edge_key, from): (Fingerprint, SocketAddr),
    ) -> Option<Detail> {
        let signing = agent.signers.open(edge_key, from, self.tasks.wake_me()?);
        // It may have been removed since it was let in.
        if !agent.trusts_edge(&edge_key) {
            return Some(Detail::noted(UNTRUSTED));
        }
        let mut looked_us = clock::monotonic_us();
        loop {
            let now_us = clock::monotonic_us();
            if u128::from(now_us.saturating_sub(looked_us)) >= LOOK_AFTER.as_micros() {
                looked_us = now_us;
                agent.claims.forget_late();
                signing.ask_again();
            }
            let Some(questions) = signing.outbox.take() else {
                self.scratch.with_context(|cx| {
                    leg.transport.disconnect(Reason::ByApplication, UNTRUSTED, cx);
                });
                leg.say_now();
                return Some(Detail::noted(UNTRUSTED));
            };
            let asked = self.scratch.with_context(|cx| {
                for question in questions {
                    leg.transport.send(&question, cx)?;
                }
                leg.rekey_if_due(cx)
            });
            if let Err(fault) = asked {
                return Some(Detail::found(fault));
            }
            let heard = async {
                let nothing = leg.drive(&self.scratch, |_, event, payload, _| {
                    if !matches!(event, Event::Payload(_)) {
                        return Ok(None::<()>);
                    }
                    said(agent, &signing, edge_key, payload).map(|()| None)
                });
                nothing.await.err()
            };
            let filled = async {
                signing.outbox.filled().await;
                None
            };
            let next = self.tasks.timeout(LOOK_AFTER, Box::pin(filled.or(heard)));
            if let Some(Some(broken)) = next.await {
                return broken.detail(&leg.transport);
            }
        }
    }
}

/// Takes what an edge says on its link.
fn said(
    agent: &Agent,
    link: &SigningLink<'_>,
    edge: Fingerprint,
    message: &[u8],
) -> Result<(), Fault> {
    // An edge that was removed says nothing more.
    if !agent.trusts_edge(&edge) {
        return Err(Fault::Service);
    }
    match Said::parse(message)? {
        Said::Claim(claim) if agent.claims.announce(edge, claim) => Ok(()),
        Said::Claim(_) => Err(Fault::Flood),
        Said::Signed { ticket, signature } => {
            link.answered(ticket, signature);
            Ok(())
        }
        Said::Close { session, reason } => {
            agent.closing.told((edge, session), reason);
            Ok(())
        }
        // These are ours to say.
        Said::Sign { .. } | Said::Prove { .. } | Said::Leaving => Err(Fault::Service),
    }
}

/// Lets edges in whose keys are pinned.
struct EdgeGate<'a> {
    agent: &'a Agent,
    /// The key that was offered last and is none of them.
    unknown: &'a Cell<Option<Fingerprint>>,
}

impl Gate for EdgeGate<'_> {
    fn judge_offer(&self, offer: &Offer<'_>) -> Option<Pass> {
        let Subject::Key(key) = offer.subject else { return None };
        let key: &PublicKey = key;
        let fingerprint = key.fingerprint();
        if !self.agent.trusts_edge(&fingerprint) {
            self.unknown.set(Some(fingerprint));
            return None;
        }
        Some(Pass { identity: Identity::Key(fingerprint), restrictions: Restrictions::default() })
    }
}
