//! The edge's way from a proved key to a session that an agent has: asked, handed over, and from
//! then on spliced.

use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::mem;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_lite::FutureExt;
use futures_lite::future::try_zip;
use zeroize::Zeroize as _;

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
use super::{Door, FAREWELL_WAIT, HalfOpenSlot, Outcome};
use crate::ended::{Cause, Detail, Ended, Side, Stage};
use crate::route::{self, Admitted};
use crate::ssh::fault::Fault;
use crate::ssh::handoff::{Answered, Asked, Claim, EdgeEnd, Passed};
use crate::ssh::message::Reason;
use crate::ssh::publickey::Fingerprint;
use crate::ssh::transport::Context;
use crate::unix_time::unix_s;

/// How long an agent may take to judge: it waits two seconds for an announcement, and as long for
/// its map.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How long a client may take to answer our KEXINIT. Long: one that is stopped answers when
/// it is continued.
const EXCHANGE_WAIT: Duration = Duration::from_mins(15);
/// Most bytes kept of either side's packets until one is whole.
const UNREAD_BYTES_MAX: usize = 320 * 1024;

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
        let (Part::Edge(_), Some(dialled)) = (&self.shared.part, report.borrow().dialled) else {
            return Next::Nobody(Ended::edge(Stage::Handoff, Cause::AgentUnreachable));
        };
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
        let seat = match self.seat(report, &admitted) {
            Ok(seat) => seat,
            Err(ended) => {
                let told = self.explain(client_leg, Early::default(), report, ended, "");
                return Outcome::Ended(told.await);
            }
        };
        let Some(wake) = self.tasks.wake_me() else {
            return Outcome::Ended(Ended::edge(Stage::Session, Cause::Resources));
        };
        report.borrow_mut().far_end = Some(Arc::new(FarEnd::Agent(given.peer.clone())));
        let waiting = self.attended.enter(report.borrow().clone(), Stage::Handoff, wake);
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
        let stands = recheck(&self.shared, &waiting.report, unix_s());
        if let Err(why) = stands {
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
        let end = RefCell::new(end);
        let read = [(&client, client_unread), (&agent, unread)];
        let (upwards, downwards) = match self.switch(&end, read, out, &waiting).await {
            Ok(leftovers) => leftovers,
            Err(ended) => {
                let text = report.borrow().notice(ended.cause);
                self.say_last(&client, &end, &text).await;
                return Outcome::Ended(ended);
            }
        };
        let client = SplicedLeg { fd: client.leave(), leftover: upwards };
        let agent = SplicedLeg { fd: agent.leave(), leftover: downwards };
        let carriage = Carriage::Splice(Box::new(Splice::new(client, agent)));
        self.hand_to_pump(carriage, peer.address, waiting, seat, Some(handed))
    }

    /// Passes on what both sides say until both directions are raw, or somebody has it ended;
    /// returns what was read upwards and downwards behind that. `read`: each socket, and what was
    /// read of it and not opened. `out`: what is to be written to the client first.
    async fn switch(
        &self,
        end: &RefCell<EdgeEnd>,
        [(client, client_unread), (agent_side, agent_unread)]: [(&Stream, Vec<u8>); 2],
        out: Vec<u8>,
        waiting: &Waiting,
    ) -> Result<(Vec<u8>, Vec<u8>), Ended> {
        let agent_gone = Ended { side: Side::Agent, stage: Stage::Handoff, cause: Cause::Reset };
        let client_gone = Ended::client(Stage::Handoff, Cause::Closed);
        let up = self.pass_on(
            (client, Side::Client),
            (agent_side, agent_gone),
            (client_unread, Vec::new()),
            |input, out, cx| end.borrow_mut().from_client(input, out, cx),
        );
        let down = self.pass_on(
            (agent_side, Side::Agent),
            (client, client_gone),
            (agent_unread, out),
            |input, out, cx| end.borrow_mut().from_agent(input, out, cx),
        );
        let switched = async { try_zip(up, down).await };
        let told = async { Err(Ended::evicted(Stage::Handoff, waiting.eviction().await)) };
        let switched = Box::pin(switched.or(told).or(self.agent_is_silent(end)));
        let stuck = Ended::client(Stage::Handoff, Cause::Deadline);
        self.tasks.timeout(EXCHANGE_WAIT, switched).await.unwrap_or(Err(stuck))
    }

    /// Ends when the client has done its part of the key exchange and the agent does not answer:
    /// an agent is no person who may have gone to lunch.
    async fn agent_is_silent<T>(&self, end: &RefCell<EdgeEnd>) -> Result<T, Ended> {
        let until =
            |so: bool| {
                poll_fn(move |_| {
                    if end.borrow().awaits_agent() == so { Poll::Ready(()) } else { Poll::Pending }
                })
            };
        until(true).await;
        if self.tasks.timeout(ANSWER_WAIT, Box::pin(until(false))).await.is_some() {
            pending::<()>().await;
        }
        Err(agent(Cause::Deadline))
    }

    /// Tells the client why this is the end, as long as there is a key to say it under.
    async fn say_last(&self, client: &Stream, end: &RefCell<EdgeEnd>, text: &str) {
        let mut last = Vec::new();
        self.scratch.with_context(|cx| {
            end.borrow_mut().disconnect(Reason::ByApplication, text, &mut last, cx);
        });
        client.write_now(&last);
        // Unread bytes would make a reset of the close, and the word would be lost with it.
        if client.finish().is_ok() {
            let read = Box::pin(self.scratch.read_to_end(client));
            let _heard = self.tasks.timeout(FAREWELL_WAIT, read).await;
        }
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

    /// Passes on what one side says, packet by packet, until that direction is raw; returns
    /// what was read behind its last packet. `out` goes first; `gone`: how it ends where
    /// nothing can be written.
    async fn pass_on(
        &self,
        (from, side): (&Stream, Side),
        (to, gone): (&Stream, Ended),
        (mut unread, mut out): (Vec<u8>, Vec<u8>),
        mut one: impl FnMut(&mut [u8], &mut Vec<u8>, &mut Context<'_>) -> Result<Passed, Fault>,
    ) -> Result<Vec<u8>, Ended> {
        let broke = |broken: Broken| broken.ended(side, Stage::Handoff);
        loop {
            let passed =
                self.scratch.with_context(|cx| pass(&mut unread, |input| one(input, &mut out, cx)));
            let is_over = passed.map_err(|fault| broke(fault.into()))?;
            to.write_all(&out).await.map_err(|_| gone)?;
            out.clear();
            if is_over {
                return Ok(unread);
            }
            from.readable().await.map_err(|error| broke(error.into()))?;
            let read = self.scratch.read(from, &mut unread, UNREAD_BYTES_MAX);
            if read.map_err(|error| broke(error.into()))? == Read::End {
                return Err(broke(Broken::Closed));
            }
        }
    }
}

/// Takes the whole packets at the front of `unread` away; true once the last one of its
/// direction has come.
fn pass(
    unread: &mut Vec<u8>,
    mut one: impl FnMut(&mut [u8]) -> Result<Passed, Fault>,
) -> Result<bool, Fault> {
    let mut start = 0;
    let is_over = loop {
        match one(unread.get_mut(start..).unwrap_or_default())? {
            Passed::Starved => break false,
            Passed::Packet(used) => start += used,
            Passed::Last(used) => {
                start += used;
                break true;
            }
            Passed::Raw => break true,
        }
    };
    // Some of the client's were opened there.
    unread[..start].zeroize();
    unread.drain(..start);
    Ok(is_over)
}

/// The agent, or the network on its side, ended it.
const fn agent(cause: Cause) -> Ended {
    Ended { side: Side::Agent, stage: Stage::Handoff, cause }
}
