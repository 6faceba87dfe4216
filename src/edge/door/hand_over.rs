//! The edge's way from a proved key to a session that an agent has: asked, handed over, and from
//! then on spliced.

use std::cell::RefCell;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::FutureExt;

use super::super::attended::Waiting;
use super::super::early::Early;
use super::super::failed::Failed;
use super::super::handoff::{Details, FarEnd, Given, Known, Next, Part, Peer, entry_of};
use super::super::login_leg::{Broken, LoginLeg};
use super::super::pump::{Carriage, Splice, SplicedLeg};
use super::super::relay::PreferGcm;
use super::super::relay::gcm::{GCM, takes_gcm};
use super::super::report::Report;
use super::super::revocation::recheck;
use super::super::route_gate::Entry;
use super::super::stream::{Read, Stream};
use super::begin_session::Unreached;
use super::exchange::{Exchange, UNREAD_BYTES_MAX};
use super::{Door, HalfOpenSlot, Outcome};
use crate::ended::{Cause, Detail, Ended, Side, Stage};
use crate::route::{self, Admitted};
use crate::ssh::handoff::{Answered, Asked, Claim};
use crate::ssh::publickey::Fingerprint;
use crate::unix_time::unix_s;

/// How long an agent may take to judge: it waits two seconds for an announcement, and as long for
/// its map.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
impl Door {
    /// Begins the handoff of a session that an agent has to carry. Right behind the success, so
    /// that both leave in one piece.
    pub(super) fn begin_handoff(
        &self,
        leg: &mut LoginLeg,
        entry: &Entry,
        report: &RefCell<Report>,
    ) -> Next {
        let next = self.decide(leg, entry, report);
        if !matches!(next, Next::Give(_)) {
            leg.transport.keep_session();
        }
        next
    }

    fn decide(&self, leg: &mut LoginLeg, entry: &Entry, report: &RefCell<Report>) -> Next {
        let Entry::Vm(admitted, key) = entry else { return Next::Relay };
        let peer = match self.shared.table.carriage(&admitted.vm) {
            Some(route::Carriage::Handoff(node)) => {
                let (address, key) = (node.agent, Fingerprint(node.agent_key));
                Peer { node: node.name.clone(), address, key }
            }
            Some(route::Carriage::Relay) => return Next::Relay,
            None => return Next::Nobody(agent(Cause::AgentUnreachable)),
        };
        let (Part::Edge(links), Some(dialled)) = (&self.shared.part, report.borrow().dialled)
        else {
            return Next::Nobody(Ended::edge(Stage::Handoff, Cause::AgentUnreachable));
        };
        if !links.is_admitted() {
            return Next::Nobody(Ended::edge(Stage::Handoff, Cause::EdgeRemoved));
        }
        let (request, client) = (report.borrow().request, report.borrow().client);
        let (vm, entry) = (admitted.vm.id.clone(), entry_of(&admitted.vm));
        let details = Details { request: request.0, client, dialled, vm, entry };
        let proof = key.request(leg.transport.host_key());
        let prefers = self.shared.settings.prefer_gcm == PreferGcm::Bulk;
        let ciphers = (prefers && takes_gcm(&leg.transport)).then_some(GCM);
        let mut opening = Vec::new();
        let asked = self.scratch.with_context(|cx| {
            let claim = Claim::generate(cx.entropy);
            let encoded = claim.encoded();
            let said = (&proof[..], &details.encoded()[..]);
            let asked = Asked::begin(&mut leg.transport, claim, said, ciphers, &mut opening, cx);
            asked.map(|asked| (asked, encoded))
        });
        match asked {
            Ok((asked, claim)) => Next::Give(Box::new(Given { peer, asked, claim, opening })),
            // It began before there was any node.
            Err(_) => Next::Nobody(Ended::edge(Stage::Handoff, Cause::AgentUnreachable)),
        }
    }

    /// From a session that is given away to two sockets on the pump, or to words about why not.
    pub(super) async fn give(
        &self,
        client_leg: LoginLeg,
        report: &RefCell<Report>,
        place: &HalfOpenSlot,
        admitted: Admitted,
        mut given: Box<Given>,
    ) -> Outcome {
        place.leave();
        report.borrow_mut().far_end = Some(Arc::new(FarEnd::Agent(given.peer.clone())));
        let placed = self.take_place(client_leg, report, &admitted, Stage::Handoff).await;
        let (client_leg, seat, waiting) = match placed {
            Ok(placed) => placed,
            Err(ended) => return Outcome::Ended(ended),
        };
        let claim = mem::take(&mut given.claim);
        let (Part::Edge(links), Some(known)) =
            (&self.shared.part, Known::of(&client_leg.transport))
        else {
            return Outcome::Ended(Ended::edge(Stage::Handoff, Cause::AgentUnreachable));
        };
        let request = report.borrow().request.0;
        let handed = links.announce(&given.peer, claim, request, known);
        // Only now that whoever takes a right away finds it here, and the link: what went since the
        // proof is not missed.
        if let Err(why) = recheck(&self.shared, &waiting.report, unix_s()) {
            self.shared.cut_links();
            let (said, why) = ((Early::default(), ""), Unreached::Told(why.cause()));
            return Outcome::Ended(self.part(client_leg, said, report, &waiting, why).await);
        }
        let (agent, unread) = match self.agent_answers(&mut given, &client_leg, &waiting).await {
            Ok(answered) => answered,
            Err(why) => {
                let said = (Early::default(), "");
                return Outcome::Ended(self.part(client_leg, said, report, &waiting, why).await);
            }
        };
        let (client, transport, client_unread) = client_leg.into_parts();
        let Given { peer, asked, .. } = *given;
        let mut out = Vec::new();
        let Ok(end) = asked.hand_off(transport, &mut out) else {
            return Outcome::Ended(Ended::edge(Stage::Handoff, Cause::Protocol));
        };
        let exchange = Exchange::new(&self.tasks, &self.scratch, [&client, &agent], end);
        let switched = exchange.pass_on([client_unread, unread], out);
        let told = async { Err(Ended::evicted(Stage::Handoff, waiting.eviction().await)) };
        let (upwards, downwards) = match Box::pin(switched.or(told)).await {
            Ok(leftovers) => leftovers,
            Err(ended) => {
                let text = report.borrow().notice(ended.cause);
                exchange.say_last(&text).await;
                return Outcome::Ended(ended);
            }
        };
        drop(exchange);
        let client = SplicedLeg { fd: client.leave(), leftover: upwards };
        let agent = SplicedLeg { fd: agent.leave(), leftover: downwards };
        let carriage = Carriage::Splice(Box::new(Splice::new(client, agent)));
        self.hand_to_pump(carriage, peer.address, waiting, seat, Some(handed))
    }

    /// The first of what may happen while the agent is asked.
    async fn agent_answers(
        &self,
        given: &mut Given,
        client_leg: &LoginLeg,
        waiting: &Waiting,
    ) -> Result<(Stream, Vec<u8>), Unreached> {
        let answered = async { self.ask(given).await.map_err(Unreached::Failed) };
        let left = async { Err(Unreached::Left(client_leg.hung_up().await)) };
        let told = async { Err(Unreached::Told(waiting.eviction().await)) };
        Box::pin(answered.or(left).or(told)).await
    }

    /// Dials the agent and asks; returns the data connection and what was read of it
    /// behind the answer.
    async fn ask(&self, given: &mut Given) -> Result<(Stream, Vec<u8>), Failed> {
        let settings = &self.shared.settings;
        let Given { peer, asked, opening, .. } = given;
        let opening = mem::take(opening);
        let dialling = Box::pin(async {
            let stream = Stream::connect(&self.tasks, peer.address)?;
            stream.write_all(&opening).await?;
            Ok::<_, std::io::Error>(stream)
        });
        let unreachable = |detail| Failed::new(agent(Cause::AgentUnreachable), detail);
        let stream = match self.tasks.timeout(settings.dial_timeout, dialling).await {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => return Err(unreachable(Detail::noted(error))),
            None => return Err(unreachable(Detail::noted("no answer"))),
        };
        let mut bytes = Vec::new();
        let answering = Box::pin(async {
            loop {
                stream.readable().await?;
                if self.scratch.read(&stream, &mut bytes, UNREAD_BYTES_MAX)? == Read::End {
                    return Err(Broken::Closed);
                }
                if let Some((answered, used)) = asked.answer(&mut bytes)? {
                    bytes.drain(..used);
                    return Ok(answered);
                }
            }
        });
        match self.tasks.timeout(ANSWER_WAIT, answering).await {
            Some(Ok(Answered::Ready)) => Ok((stream, bytes)),
            Some(Ok(Answered::Refused(why))) => {
                Err(Failed::new(agent(Cause::AgentRefused), Detail::noted(why)))
            }
            Some(Err(broken)) => {
                let trouble = match &self.shared.part {
                    Part::Edge(links) => links.trouble(peer),
                    Part::Alone | Part::Agent(_) => None,
                };
                Err(unreachable(match (trouble, broken) {
                    (Some(trouble), _) => Detail::noted(format_args!("no control link: {trouble}")),
                    (None, Broken::Closed) => Detail::noted("it closed the data connection"),
                    (None, Broken::Socket(error)) => Detail::noted(error),
                    (None, Broken::Fault(fault)) => Detail::noted(fault),
                }))
            }
            None => Err(unreachable(Detail::noted("no answer"))),
        }
    }
}

/// The agent, or the network on its side, ended it.
const fn agent(cause: Cause) -> Ended {
    Ended { side: Side::Agent, stage: Stage::Handoff, cause }
}
