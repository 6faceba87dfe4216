//! The door: from an accepted socket to an established session, on the shard's own executor.
//!
//! accept -> local address -> admission -> key exchange -> proved key -> route -> VM leg -> pump.
//! Every wait has a deadline. A connection that fails after its key was proved is told why in a
//! channel of its own; before that it hears what every stranger hears.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::FutureExt;

use self::half_open::{HalfOpen, HalfOpenSlot};
use self::last_line::{KILLED, LastLine, StrangerLines};
use self::patience::{PROOF_WAIT, Patience};
use super::attended::Attended;
use super::denied::Denied;
use super::early::Early;
use super::executor::Executor;
use super::global_requests::host_keys;
use super::handoff::{Next, Part};
use super::login_leg::{LoginLeg, Scratch};
use super::presence::ConnectionGuard;
use super::pump::PumpHandle;
use super::report::{Info, Proved, Report, RequestId};
use super::route_gate::{Entry, RouteGate};
use super::shared::Shared;
use super::stream::Stream;
use super::vm_leg::VmLegs;
use super::{clock, lobby};
use crate::ended::{Cause, Ended, Side, Stage};
use crate::metrics::{Counters, LoginStage};
use crate::route::{Address, Admitted};
use crate::ssh::message::Reason;
use crate::ssh::notice::{Notice, Progress};
use crate::ssh::transport::{Context, Event, Transport};
use crate::ssh::userauth::{Authenticator, ProvedKey, Step};
use crate::unix_time::unix_s;

mod arrival;
mod begin_session;
mod exchange;
mod half_open;
mod hand_over;
mod last_line;
mod patience;
mod take_over;

/// How long somebody with `-N` and no channel waits before the reason comes in the DISCONNECT.
const NOTICE_WAIT: Duration = Duration::from_secs(5);
/// How long a last word may take to leave and be heard.
const FAREWELL_WAIT: Duration = Duration::from_secs(1);
/// How long whoever is sent away may take to be gone: a notice, then a last word.
pub(super) const PARTING_MAX: Duration =
    NOTICE_WAIT.saturating_add(FAREWELL_WAIT).saturating_add(Duration::from_secs(1));
/// Said to whoever offered no key that has a VM at an address in maintenance, the same bytes
/// whoever it is. Whose key has one hears it behind the signature.
const MAINTENANCE_WORDS: &str = "the address you connected to is in maintenance. Try again later.";

/// What authentication has come to.
enum Come {
    /// A key was offered that may enter: its signature is next.
    Offer,
    /// A key was proved that leads somewhere.
    Entry(Entry),
}

/// How the door's part of a connection ended.
enum Outcome {
    /// The pump has it now, and its report.
    Carried,
    /// It was a load balancer's health check.
    Checked,
    /// It was an edge's control link, which has lines of its own.
    Linked,
    /// It is over.
    Ended(Ended),
}

/// One shard's door.
pub(super) struct Door {
    pub(super) tasks: Executor,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    attended: Arc<Attended>,
    pump: PumpHandle<Info>,
    scratch: Scratch,
    vm_legs: VmLegs,
    half_open: Rc<HalfOpen>,
    stranger_lines: StrangerLines,
}

impl Door {
    pub(super) fn new(
        tasks: Executor,
        shared: Arc<Shared>,
        counters: Arc<Counters>,
        (attended, pump): (Arc<Attended>, PumpHandle<Info>),
        half_open_max: NonZeroU32,
    ) -> Self {
        Self {
            vm_legs: VmLegs::new(tasks.clone()),
            half_open: Rc::new(HalfOpen::new(Arc::clone(&counters), half_open_max)),
            tasks,
            shared,
            counters,
            attended,
            pump,
            scratch: Scratch::new(),
            stranger_lines: StrangerLines::default(),
        }
    }

    /// Counts a connection as present.
    pub(super) fn enter(&self) -> ConnectionGuard {
        self.shared.enter()
    }

    /// Takes a place among the half-open connections, which may cost another one its own.
    pub(super) fn take_slot(&self, stream: &Stream, source: IpAddr) -> HalfOpenSlot {
        HalfOpenSlot::take(&self.half_open, stream, source)
    }

    /// Takes one accepted connection to its end, or to the pump. A panic in it ends it alone.
    /// The presence goes behind the last line: a drain, and the process with it, is over once
    /// nobody is present.
    pub(super) async fn serve(
        self: Rc<Self>,
        stream: Stream,
        peer: SocketAddr,
        place: HalfOpenSlot,
        presence: ConnectionGuard,
    ) {
        let presence = Cell::new(Some(presence));
        let request = RequestId(self.scratch.random());
        let report = RefCell::new(Report::new(request, peer, clock::monotonic_us()));
        let mut last_line = LastLine {
            counters: &self.counters,
            strangers: &self.stranger_lines,
            report: &report,
            ended: Some(KILLED),
        };
        let connection: Pin<Box<dyn Future<Output = Outcome> + '_>> = match &self.shared.part {
            Part::Agent(agent) => Box::pin(self.take(agent, stream, &report, &place, &presence)),
            Part::Alone | Part::Edge(_) => Box::pin(self.connection(stream, &report, &place)),
        };
        last_line.ended = match AssertUnwindSafe(connection).catch_unwind().await {
            Ok(Outcome::Carried | Outcome::Checked | Outcome::Linked) => None,
            Ok(Outcome::Ended(ended)) if place.evicted() => {
                Some(Ended::edge(ended.stage, Cause::HalfOpenFull))
            }
            Ok(Outcome::Ended(ended)) => Some(ended),
            Err(_panic) => {
                self.counters.panicked();
                Some(Ended::edge(Stage::Session, Cause::Panic))
            }
        };
    }

    async fn connection(
        &self,
        stream: Stream,
        report: &RefCell<Report>,
        place: &HalfOpenSlot,
    ) -> Outcome {
        let (local, unread) = match self.local(&stream, report, place).await {
            Ok(Some(found)) => found,
            Ok(None) => {
                let answered = Box::pin(self.answer_check(&stream));
                let _gone = self.tasks.timeout(FAREWELL_WAIT, answered).await;
                return Outcome::Checked;
            }
            Err(ended) => return Outcome::Ended(ended),
        };
        report.borrow_mut().dialled = Some(local);
        let Some(address) = self.shared.table.dialled(local) else {
            return Outcome::Ended(Ended::edge(Stage::Accept, Cause::NotInPool));
        };
        report.borrow_mut().address = Some(Arc::clone(&address));
        let server = Arc::clone(&self.shared.live.load().server);
        let transport = self.scratch.with_context(|cx| match &self.shared.part {
            Part::Edge(_) if self.shared.table.has_nodes() => {
                Transport::server_for_handoff(server, unix_s(), cx)
            }
            Part::Alone | Part::Edge(_) | Part::Agent(_) => Transport::server(server, cx),
        });
        let mut leg = LoginLeg::from_client(stream, transport, unread);
        let entry = Box::pin(self.authenticate(&mut leg, &address, report, place)).await;
        report.borrow_mut().software = leg.transport.peer_ident();
        let (entry, next) = match entry {
            Ok(entry) => entry,
            Err(ended) => return Outcome::Ended(ended),
        };
        match entry {
            // A visitor of the lobby keeps the half-open place, and can lose it to a newcomer like
            // everybody there.
            Entry::Lobby { user } => {
                report.borrow_mut().user = Some(user);
                Outcome::Ended(Box::pin(self.lobby(leg, report)).await)
            }
            Entry::Closed { user, admitted, why } => {
                {
                    let mut report = report.borrow_mut();
                    report.user = Some(user);
                    report.admitted = admitted;
                }
                let ended = Ended::edge(Stage::Authentication, why.cause());
                place.leave();
                Outcome::Ended(
                    Box::pin(self.explain(leg, Early::default(), report, ended, "")).await,
                )
            }
            Entry::Vm(admitted, key) => {
                {
                    let mut report = report.borrow_mut();
                    report.user = Some(Arc::clone(&admitted.user));
                    report.admitted = Some(admitted.clone());
                }
                Box::pin(self.go_on(next, leg, report, place, admitted, key)).await
            }
        }
    }

    /// From a proved key that leads to a VM to a session, whoever carries it.
    async fn go_on(
        &self,
        next: Next,
        leg: LoginLeg,
        report: &RefCell<Report>,
        place: &HalfOpenSlot,
        admitted: Admitted,
        key: Box<ProvedKey>,
    ) -> Outcome {
        match next {
            Next::Give(given) => {
                // The proof is the agent's to keep.
                drop(key);
                Box::pin(self.give(leg, report, place, admitted, given)).await
            }
            Next::Relay => Box::pin(self.begin_session(leg, report, place, admitted, &key)).await,
            Next::Nobody(ended) => {
                place.leave();
                let told = self.explain(leg, Early::default(), report, ended, "");
                Outcome::Ended(Box::pin(told).await)
            }
        }
    }

    /// Key exchange and authentication, until a proved key has a route here.
    async fn authenticate(
        &self,
        leg: &mut LoginLeg,
        address: &Arc<Address>,
        report: &RefCell<Report>,
        place: &HalfOpenSlot,
    ) -> Result<(Entry, Next), Ended> {
        let source = report.borrow().source();
        let gate = RouteGate::new(&self.shared, address, report);
        let mut authenticator = Authenticator::new(source);
        if address.closed {
            authenticator = authenticator.saying(MAINTENANCE_WORDS);
        }
        let mut stage = Stage::Exchange;
        let began_us = clock::monotonic_us();
        let mut secured_us = began_us;
        let mut patience = Patience::Grace;
        let mut handle =
            |transport: &mut Transport, event: &Event, payload: &[u8], cx: &mut Context<'_>| {
                match event {
                    Event::Secured => {
                        stage = Stage::Authentication;
                        secured_us = clock::monotonic_us();
                        self.counters.stage(LoginStage::Exchange, secured_us - began_us);
                        place.progressed();
                        // Many stop here and wait; whoever goes on pays some hundred nanoseconds.
                        transport.rest();
                        return Ok(None);
                    }
                    Event::Payload(_) => {}
                    Event::Starved | Event::Handled | Event::Rekeyed | Event::Unimplemented(_) => {
                        return Ok(None);
                    }
                }
                // Read anew each time: what a reload takes away is gone for those who are
                // half way in, too.
                let live = self.shared.live.load();
                let now_s = unix_s();
                let step =
                    authenticator.receive(payload, now_s, &live.policy, &gate, transport, cx)?;
                let Step::Proved(key) = step else {
                    let waits = patience == Patience::Grace && authenticator.waits_for_proof();
                    return Ok(waits.then(|| {
                        patience = Patience::Proof;
                        Come::Offer
                    }));
                };
                report.borrow_mut().who = Some(Proved::from(&*key));
                let Some(entry) = gate.entry(key) else {
                    authenticator.refuse(&live.policy, transport, cx)?;
                    return Ok(None);
                };
                authenticator.accept(transport, cx)?;
                // Right behind, as sshd does: one packet on the wire for both.
                // Those of its own start, whatever a reload has brought since: the client has just
                // seen one of them.
                let own = transport.server_config().map(Arc::clone);
                let server = own.unwrap_or_else(|| Arc::clone(&live.server));
                transport.send(&host_keys(server.host_keys()), cx)?;
                Ok(Some(Come::Entry(entry)))
            };
        let grace = self.shared.settings.login_grace;
        let waited_ms = clock::monotonic_ms().saturating_sub(report.borrow().accepted_ms);
        let mut limit = grace.saturating_sub(Duration::from_millis(waited_ms));
        let heard = loop {
            let driven = Box::pin(leg.drive(&self.scratch, &mut handle));
            match self.tasks.timeout(limit, driven).await {
                Some(Ok(Come::Offer)) => limit = PROOF_WAIT,
                heard => break heard,
            }
        };
        let entry = match heard {
            Some(Ok(Come::Entry(entry))) => entry,
            Some(Err(broken)) => {
                report.borrow_mut().detail = broken.detail(&leg.transport);
                return Err(broken.ended(Side::Client, stage));
            }
            Some(Ok(Come::Offer)) | None => {
                let text = patience.over(grace);
                self.scratch.with_context(|cx| {
                    leg.transport.disconnect(Reason::ByApplication, &text, cx);
                });
                leg.say_now();
                return Err(Ended::client(stage, Cause::Deadline));
            }
        };
        // Whoever got in has offered nothing in vain.
        report.borrow_mut().denied = Denied::default();
        let next = self.begin_handoff(leg, &entry, report);
        // The client goes on while the VM is dialled.
        leg.flush().await.map_err(|_| Ended::client(stage, Cause::Reset))?;
        self.counters.stage(LoginStage::Authentication, clock::monotonic_us() - secured_us);
        Ok((entry, next))
    }

    /// Tells an authenticated user why there is no session, and before it what the VM itself
    /// had to say, then says goodbye. Returns `ended`: what the user does meanwhile changes
    /// nothing about it.
    async fn explain(
        &self,
        mut leg: LoginLeg,
        early: Early,
        report: &RefCell<Report>,
        ended: Ended,
        banner: &str,
    ) -> Ended {
        let text = report.borrow().notice(ended.cause);
        let mut told = Notice::new(&text).after(banner);
        let asked = self.scratch.with_context(|cx| {
            let asked = early.tell(&mut leg.transport, cx, |message, transport, cx| {
                told.receive(message, transport, cx).map(drop)
            });
            asked.inspect_err(|fault| {
                leg.transport.disconnect(fault.reason(), &fault.to_string(), cx);
            })
        });
        if asked.is_ok() {
            let conversation = leg.drive(&self.scratch, |transport, event, payload, cx| {
                if !matches!(event, Event::Payload(_)) {
                    return Ok(None);
                }
                Ok(match told.receive(payload, transport, cx)? {
                    Progress::Done => Some(()),
                    Progress::Waiting => None,
                })
            });
            let _heard = self.tasks.timeout(NOTICE_WAIT, Box::pin(conversation)).await;
        }
        self.say_goodbye(&mut leg, Reason::ByApplication, &text).await;
        ended
    }

    async fn say_goodbye(&self, leg: &mut LoginLeg, reason: Reason, text: &str) {
        self.scratch.with_context(|cx| leg.transport.disconnect(reason, text, cx));
        let _heard = self.tasks.timeout(FAREWELL_WAIT, Box::pin(leg.finish(&self.scratch))).await;
    }

    /// Shows a registered user the way to their VMs.
    async fn lobby(&self, mut leg: LoginLeg, report: &RefCell<Report>) -> Ended {
        let Some(wake) = self.tasks.wake_me() else {
            return Ended::edge(Stage::Lobby, Cause::Resources);
        };
        let visitor = self.attended.enter(report.borrow().clone(), Stage::Lobby, wake);
        let (tasks, scratch) = (&self.tasks, &self.scratch);
        let (ended, text) =
            match lobby::host(tasks, scratch, &self.shared, &mut leg, &visitor).await {
                Ok(ended) => (ended, "goodbye".to_owned()),
                Err(cause) => (Ended::evicted(Stage::Lobby, cause), visitor.report.notice(cause)),
            };
        self.say_goodbye(&mut leg, Reason::ByApplication, &text).await;
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn size_of_future<Arguments, Output, F>(_: &F) -> usize
    where
        F: Asks<Arguments, Output>,
    {
        size_of::<Output>()
    }

    /// A function of some arguments.
    trait Asks<Arguments, Output> {}

    impl<A, B, C, D, O, F: Fn(A, B, C, D) -> O> Asks<(A, B, C, D), O> for F {}

    impl<A, B, C, D, E, O, F: Fn(A, B, C, D, E) -> O> Asks<(A, B, C, D, E), O> for F {}

    /// A half-open connection is these three, its transport's own memory and what its peer has
    /// sent of a packet.
    #[test]
    fn a_connection_that_waits_at_the_door_stays_small() {
        let serve = size_of_future(&Door::serve);
        let connection = size_of_future(&Door::connection);
        let login = size_of_future(&Door::authenticate);
        assert!(serve <= 528, "{serve}");
        assert!(connection <= 1280, "{connection}");
        assert!(login <= 768, "{login}");
    }
}
