//! One node's connections: the one that stands, those that streams have for themselves, and what
//! is known of its health.
//!
//! A keeper is one task. It connects again when the connection ends, after a wait that grows and is
//! never the same for two nodes, and looks at the node's health over the connection that stands. It
//! repairs nothing: a node with another host key stays in error until somebody changes the
//! pin. When the keeper is dropped its task and all connections of the node end.

#![expect(missing_docs, reason = "a field is what its name says")]

use std::net::SocketAddr;
use std::pin::Pin as Pinned;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::endpoint::Endpoint;
use super::fault::Unreached;
use super::open::{Tunnel, Way};
use super::pin::{Pin, Trust};
use super::settings::Settings;
use super::stream::{Seats, Stream};
use super::unread::Company;
use super::wire::Lifeline;
use crate::ssh::entropy::{Entropy, SystemEntropy};
use crate::ssh::publickey::{Fingerprint, PublicKey};
use crate::unix_time::unix_s;

/// Connections of a node beside the one that stands: each costs it a process.
const OWN_CONNECTIONS_MAX: usize = 16;

/// What is known of a node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// Never reached yet.
    Pending,
    /// Reached, and all is well.
    Online,
    /// Reached, and there is something to mend.
    Error,
    /// Not reached any more.
    Offline,
}

impl State {
    /// A word that does not change.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Online => "online",
            Self::Error => "error",
            Self::Offline => "offline",
        }
    }
}

/// Why a node is not online.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reason {
    /// A short name that does not change.
    pub label: &'static str,
    /// What is wrong.
    pub fault: String,
    /// What to do about it.
    pub fix: String,
    /// A host key that was shown, and must not be.
    pub shown: Option<Fingerprint>,
}

impl From<&Unreached> for Reason {
    fn from(why: &Unreached) -> Self {
        let shown = why.shown().map(PublicKey::fingerprint);
        Self { label: why.label(), fault: why.fault(), fix: why.fix().to_owned(), shown }
    }
}

/// What is published of a node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Health {
    pub state: State,
    pub reason: Option<Reason>,
    /// Since when state and reason are these, in seconds since 1970.
    pub since_s: u64,
    /// When the node last gave a sign of life.
    pub heartbeat_s: Option<u64>,
    /// How its Docker socket is reached.
    pub way: Option<Way>,
}

/// Looks at what matters beyond SSH: the node's Docker.
pub type Check = Box<dyn Fn(Tunnel) -> Checking + Send + Sync>;
/// One such look, which has a deadline.
pub type Checking = Pinned<Box<dyn Future<Output = Result<(), Reason>> + Send>>;

/// What a keeper keeps.
pub struct Plan {
    pub endpoint: Arc<Endpoint>,
    /// Without one nothing is dialled.
    pub pin: Option<Pin>,
    pub settings: Arc<Settings>,
    /// What was published of it last, by an earlier keeper.
    pub before: Option<Health>,
}

/// Keeps one node connected.
pub struct Keeper {
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
}

struct Shared {
    endpoint: Arc<Endpoint>,
    pin: Option<Pin>,
    settings: Arc<Settings>,
    check: Check,
    health: watch::Sender<Health>,
    /// The connection that stands, or why there is none.
    standing: Mutex<Result<Tunnel, Unreached>>,
    own: Arc<Semaphore>,
    lifeline: Lifeline,
    hurry: Notify,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.take().inspect(JoinHandle::abort);
        self.shared.stands(Err(Unreached::Gone));
        self.shared.lifeline.end();
    }
}

impl Keeper {
    /// Begins to keep a node. To be called within a runtime.
    pub fn start(plan: Plan, check: Check) -> Self {
        let Plan { endpoint, pin, settings, before } = plan;
        let unconfirmed = pin.is_none().then(|| Reason {
            label: "host_key_unknown",
            fault: "no host key of this node is known".to_owned(),
            fix: "test the node and confirm the key it shows".to_owned(),
            shown: None,
        });
        let pending = Health {
            state: State::Pending,
            reason: None,
            since_s: unix_s(),
            heartbeat_s: None,
            way: None,
        };
        let mut health = before.unwrap_or(pending);
        health.way = None;
        if unconfirmed.is_some() {
            (health.state, health.reason) = (State::Pending, unconfirmed);
        }
        let is_pinned = pin.is_some();
        let shared = Arc::new(Shared {
            endpoint,
            pin,
            settings,
            check,
            health: watch::channel(health).0,
            standing: Mutex::new(Err(Unreached::NotYet)),
            own: Arc::new(Semaphore::new(OWN_CONNECTIONS_MAX)),
            lifeline: Lifeline::default(),
            hurry: Notify::new(),
        });
        let kept = Arc::clone(&shared);
        let task = is_pinned.then(|| tokio::spawn(async move { kept.keep().await }));
        Self { shared, task }
    }

    /// What is known of the node, and every change of it.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    /// Connects, or looks at the node's health, at once.
    pub fn hurry(&self) {
        self.shared.hurry.notify_one();
    }

    /// The connection that stands.
    ///
    /// # Errors
    /// Why there is none.
    pub fn tunnel(&self) -> Result<Tunnel, Unreached> {
        self.shared.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A stream to the node's Docker socket. In company it must be read always; on a connection of
    /// its own its reader may pause.
    ///
    /// # Errors
    /// [`Unreached`].
    pub async fn docker_stream(&self, company: Company) -> Result<Stream, Unreached> {
        if company == Company::Shared {
            match self.tunnel()?.docker_stream().await {
                // What sessions carry, a connection takes few of.
                Err(Unreached::SessionsRefused | Unreached::TooManyStreams { .. }) => {}
                done => return done,
            }
        }
        let (tunnel, seats) = self.own_connection().await?;
        tunnel.docker_stream_with(seats).await
    }

    /// A stream to an address, as the node reaches it.
    ///
    /// # Errors
    /// [`Unreached`].
    pub async fn tcp_stream(&self, company: Company, to: SocketAddr) -> Result<Stream, Unreached> {
        if company == Company::Shared {
            return self.tunnel()?.tcp_stream(to).await;
        }
        let (tunnel, seats) = self.own_connection().await?;
        tunnel.tcp_stream_with(to, seats).await
    }

    async fn own_connection(&self) -> Result<(Tunnel, Seats), Unreached> {
        let seat = Arc::clone(&self.shared.own).try_acquire_owned();
        let full = |_| Unreached::TooManyConnections { max: OWN_CONNECTIONS_MAX };
        let seats = Seats(vec![seat.map_err(full)?]);
        let tunnel = self.shared.connect(Company::Own).await?;
        if let Ok(standing) = self.tunnel() {
            tunnel.goes_as(&standing);
        }
        let hastened = tunnel.clone();
        tokio::spawn(async move { hastened.hasten().await });
        Ok((tunnel, seats))
    }
}

/// How a connection that stood came to its end.
enum Over {
    Lost(Unreached),
    /// Given up for a fresh one.
    Worn,
}

impl Shared {
    fn stands(&self, standing: Result<Tunnel, Unreached>) {
        let mut place = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *place, standing);
        drop(place);
        drop(before);
    }

    async fn connect(&self, company: Company) -> Result<Tunnel, Unreached> {
        let pin = self.pin.clone().ok_or(Unreached::NotYet)?;
        let (endpoint, settings) = (Arc::clone(&self.endpoint), Arc::clone(&self.settings));
        Tunnel::open_in(company, endpoint, Trust::Pinned(pin), settings, &self.lifeline).await
    }

    async fn keep(&self) {
        let mut back_off = BackOff::new(&self.settings);
        // A process that starts does not meet all of its nodes at one moment.
        sleep(between(Duration::ZERO, self.settings.back_off_min)).await;
        loop {
            let why = match self.connect(Company::Shared).await {
                Ok(tunnel) => match self.attend(tunnel, &mut back_off).await {
                    Over::Worn => continue,
                    Over::Lost(why) => why,
                },
                Err(why) => why,
            };
            self.stands(Err(why.clone()));
            self.not_reached(&why);
            let wait = if why.is_to_be_mended() {
                // Nothing changes before somebody does something: no need to be a nuisance.
                between(self.settings.health / 2, self.settings.health)
            } else {
                back_off.next()
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = self.hurry.notified() => {}
            }
        }
    }

    /// Looks at the node's health, again and again, until the connection is over.
    async fn attend(&self, tunnel: Tunnel, back_off: &mut BackOff) -> Over {
        // Before anything else: small packets go out at once only after a session has run.
        let _ = tunnel.probe().await;
        self.stands(Ok(tunnel.clone()));
        loop {
            let looked = tokio::select! {
                biased;
                why = tunnel.ended() => return Over::Lost(why),
                looked = self.look(&tunnel) => looked,
            };
            match looked {
                Ok(()) => {
                    *back_off = BackOff::new(&self.settings);
                    self.publish(State::Online, None, Some(tunnel.way()));
                }
                Err(Some(reason)) => self.publish(State::Error, Some(reason), Some(tunnel.way())),
                Err(None) => {
                    tunnel.cut();
                    return Over::Lost(Unreached::Frozen);
                }
            }
            let rest = between(self.settings.health.mul_f32(0.9), self.settings.health);
            tokio::select! {
                why = tunnel.ended() => return Over::Lost(why),
                () = sleep(rest) => {}
                () = self.hurry.notified() => {}
            }
            if tunnel.is_worn_and_free() {
                self.stands(Err(Unreached::NotYet));
                return Over::Worn;
            }
        }
    }

    /// One look: what the check says, or nothing if the node itself gives no answer.
    async fn look(&self, tunnel: &Tunnel) -> Result<(), Option<Reason>> {
        match timeout(self.settings.check, (self.check)(tunnel.clone())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => Err(Some(reason)),
            Err(_) if tunnel.is_alive().await => Err(Some(Reason {
                label: "daemon_not_answering",
                fault: format!("the node's Docker gave no answer in {:?}", self.settings.check),
                fix: "look into Docker's log on the node".to_owned(),
                shown: None,
            })),
            Err(_) => Err(None),
        }
    }

    fn not_reached(&self, why: &Unreached) {
        let was_reached = self.health.borrow().heartbeat_s.is_some();
        let state = match (why.is_to_be_mended(), was_reached) {
            (true, _) => State::Error,
            (false, true) => State::Offline,
            (false, false) => State::Pending,
        };
        self.publish(state, Some(Reason::from(why)), None);
    }

    /// `way`: how Docker is reached, if the node gave a sign of life.
    fn publish(&self, state: State, reason: Option<Reason>, way: Option<Way>) {
        let now_s = unix_s();
        self.health.send_modify(|health| {
            let label = |reason: &Option<Reason>| reason.as_ref().map(|reason| reason.label);
            if (health.state, label(&health.reason)) != (state, label(&reason)) {
                health.since_s = now_s;
            }
            (health.state, health.reason, health.way) = (state, reason, way);
            if way.is_some() {
                health.heartbeat_s = Some(now_s);
            }
        });
    }
}

/// How long to wait before the next try.
struct BackOff {
    min: Duration,
    max: Duration,
    most: Duration,
}

impl BackOff {
    fn new(settings: &Settings) -> Self {
        let (min, max) = (settings.back_off_min, settings.back_off_max);
        Self { min, max, most: min.saturating_mul(2).min(max) }
    }

    fn next(&mut self) -> Duration {
        let wait = between(self.min, self.most);
        self.most = self.most.saturating_mul(2).min(self.max);
        wait
    }
}

/// A time between two, by chance.
fn between(from: Duration, to: Duration) -> Duration {
    let mut bytes = [0; 2];
    SystemEntropy::default().fill(&mut bytes);
    let part = f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX);
    from.saturating_add(to.saturating_sub(from).mul_f64(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_within_their_bounds_and_differ() {
        let settings = Settings::default();
        let mut first = Vec::new();
        for _ in 0..64 {
            let mut back_off = BackOff::new(&settings);
            let waits: Vec<Duration> = (0..9).map(|_| back_off.next()).collect();
            let bounds = settings.back_off_min..=settings.back_off_max;
            assert!(waits.iter().all(|wait| bounds.contains(wait)), "{waits:?}");
            assert!(waits[0] <= 2 * settings.back_off_min);
            first.push(waits[0]);
        }
        first.dedup();
        assert!(first.len() > 32);
    }
}
