//! From a proved key with a route to a session on the pump, or to words about why there is none.
//!
//! A seat is taken first. While the VM is reached the client is attended to, and whoever may end
//! the connection is heard: the one that comes first decides. How that wait may end, and how what
//! carries a session comes to the pump, is the same for a session that an agent gets (`hand_over`).

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_lite::FutureExt;

use super::super::attended::Waiting;
use super::super::clock;
use super::super::early::{Early, attend};
use super::super::failed::Failed;
use super::super::handoff::Handed;
use super::super::login_leg::{Broken, LoginLeg};
use super::super::pump::{Carriage, Session};
use super::super::relay::Relay;
use super::super::report::{Info, Report};
use super::super::revocation::recheck;
use super::super::seats::SessionPermit;
use super::super::vm_leg::{Guest, Reached};
use super::{Door, HalfOpenSlot, Outcome};
use crate::ended::{Cause, Ended, Side, Stage};
use crate::metrics::LoginStage;
use crate::route::Admitted;
use crate::ssh::userauth::ProvedKey;
use crate::unix_time::unix_s;

/// Why nobody was reached who would have the session.
pub(super) enum Unreached {
    Failed(Failed),
    /// The client has gone.
    Left(Broken),
    /// Somebody has it ended.
    Told(Cause),
}

impl Door {
    /// From a proved key with a route to a session on the pump, or to words about why not.
    pub(super) async fn begin_session(
        &self,
        client_leg: LoginLeg,
        report: &RefCell<Report>,
        place: &HalfOpenSlot,
        admitted: Admitted,
        key: &ProvedKey,
    ) -> Outcome {
        place.leave();
        let placed = self.take_place(client_leg, report, &admitted, Stage::Dial).await;
        let (mut client_leg, seat, waiting) = match placed {
            Ok(placed) => placed,
            Err(ended) => return Outcome::Ended(ended),
        };
        let (mut early, mut banner) = (Early::default(), String::new());
        // Only now that whoever takes a right away finds it here: what went since the proof, with
        // the edge that handed the session over, is not missed.
        if let Err(why) = recheck(&self.shared, &waiting.report, unix_s()) {
            let (said, why) = ((early, &*banner), Unreached::Told(why.cause()));
            return Outcome::Ended(self.part(client_leg, said, report, &waiting, why).await);
        }
        let reached = {
            let (shared, scratch, counters) = (&self.shared, &self.scratch, &*self.counters);
            let (report, stage) = (&*waiting.report, &waiting.stage);
            let guest = Guest { report, admitted: &admitted, key, stage };
            let reach = self.vm_legs.reach(shared, scratch, counters, guest, &mut banner);
            let reached = async { reach.await.map(Box::new).map_err(Unreached::Failed) };
            let left =
                async { Err(Unreached::Left(attend(&mut client_leg, scratch, &mut early).await)) };
            let told = async { Err(Unreached::Told(waiting.eviction().await)) };
            Box::pin(reached.or(left).or(told)).await
        };
        match reached {
            Ok(reached) => {
                let legs = (client_leg, *reached);
                self.hand_over(legs, early, &banner, waiting, seat)
            }
            Err(why) => {
                let said = (early, &*banner);
                Outcome::Ended(self.part(client_leg, said, report, &waiting, why).await)
            }
        }
    }

    /// Tells the client, if it is still there, why nobody has its session; returns how it ended.
    /// `said`: by the client, and what the VM had to say.
    pub(super) async fn part(
        &self,
        client_leg: LoginLeg,
        (early, banner): (Early, &str),
        report: &RefCell<Report>,
        waiting: &Waiting,
        why: Unreached,
    ) -> Ended {
        let stage = waiting.stage.get();
        match why {
            Unreached::Left(broken) => {
                report.borrow_mut().detail = broken.detail(&client_leg.transport);
                broken.ended(Side::Client, stage)
            }
            Unreached::Failed(Failed { ended, detail }) => {
                report.borrow_mut().detail = detail;
                // The seat stays taken while the reason is told, and whoever has it ended
                // can be told of it.
                let told = self.explain(client_leg, early, report, ended, banner);
                let cut = async {
                    waiting.eviction().await;
                    ended
                };
                told.or(cut).await
            }
            Unreached::Told(cause) => {
                let ended = Ended::evicted(stage, cause);
                self.explain(client_leg, early, report, ended, banner).await
            }
        }
    }

    /// A seat for the session, and a place among those attended to, in `stage`.
    ///
    /// # Errors
    /// How it ended; if there is no seat, the user was told so.
    pub(super) async fn take_place(
        &self,
        client_leg: LoginLeg,
        report: &RefCell<Report>,
        admitted: &Admitted,
        stage: Stage,
    ) -> Result<(LoginLeg, SessionPermit, Waiting), Ended> {
        let seat = match self.seat(report, admitted) {
            Ok(seat) => seat,
            Err(full) => {
                return Err(self.explain(client_leg, Early::default(), report, full, "").await);
            }
        };
        let wake = self.tasks.wake_me();
        let wake = wake.ok_or(Ended::edge(Stage::Session, Cause::Resources))?;
        let waiting = self.attended.enter(report.borrow().clone(), stage, wake);
        Ok((client_leg, seat, waiting))
    }

    /// A seat for a session, or why there is none.
    fn seat(&self, report: &RefCell<Report>, admitted: &Admitted) -> Result<SessionPermit, Ended> {
        self.shared.take_seat(&admitted.user, &admitted.vm.id).map_err(|full| {
            let (cause, others) = full.cause();
            report.borrow_mut().others = others;
            Ended::edge(Stage::Session, cause)
        })
    }

    /// Both legs go to the pump.
    fn hand_over(
        &self,
        (client_leg, reached): (LoginLeg, Reached),
        early: Early,
        banner: &str,
        waiting: Waiting,
        seat: SessionPermit,
    ) -> Outcome {
        let Reached { leg: vm_leg, endpoint } = reached;
        let (client_side, vm_side) = (client_leg.leave(), vm_leg.leave());
        // The host keys the client was shown, whatever a reload has brought since.
        let server = client_side
            .transport
            .server_config()
            .map_or_else(|| Arc::clone(&self.shared.live.load().server), Arc::clone);
        let relay = Relay::new(client_side, vm_side, server).showing(banner);
        let relay = match self.scratch.with_context(|cx| relay.after(early, cx)) {
            Ok(relay) => relay,
            Err(fault) => {
                return Outcome::Ended(Ended::vm(Stage::Session, Cause::from(&fault)));
            }
        };
        self.hand_to_pump(Carriage::Reseal(Box::new(relay)), endpoint, waiting, seat, None)
    }

    /// What carries a session goes to the pump, unless somebody has the connection ended in the
    /// last moment. `endpoint`: what was dialled.
    pub(super) fn hand_to_pump(
        &self,
        carriage: Carriage,
        endpoint: SocketAddr,
        waiting: Waiting,
        seat: SessionPermit,
        handed: Option<Handed>,
    ) -> Outcome {
        let accepted_us = waiting.report.accepted_us;
        self.counters.stage(LoginStage::Total, clock::monotonic_us() - accepted_us);
        let carried = waiting.leave(|report| {
            let report = Report { endpoint: Some(Box::new(endpoint)), ..report.clone() };
            let started_ms = report.accepted_ms;
            let info = Info { report, presence: self.enter(), seat, handed };
            self.pump.carry(Session { carriage, info, started_ms })
        });
        match carried {
            Ok(Ok(())) => Outcome::Carried,
            // The pump stops only with the process.
            Ok(Err(_stopped)) => Outcome::Ended(Ended::edge(Stage::Session, Cause::Drained)),
            // In the last moment: there is nobody left to say it.
            Err(cause) => Outcome::Ended(Ended::evicted(Stage::Session, cause)),
        }
    }
}
