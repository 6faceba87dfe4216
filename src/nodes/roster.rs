//! All nodes that are kept: a keeper each, on one runtime with a thread of its own; whoever wants
//! to know is told of every change.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::daemon::{At, Daemon, daemon, here, over, reason};
use super::docker::{Docker, Fault};
use super::trial::{Found, Trial};
use super::tunnel::{Check, Health, Keeper, Plan, Reason, Settings, State, Tunnel};
use crate::unix_time::unix_s;

/// A node that is to be kept.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where its Docker is.
    pub at: At,
    /// Everything that it is made from, in a text: another text is another node.
    pub mark: String,
    /// What was known of it before.
    pub before: Option<Health>,
}

/// What is known of a node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seen {
    /// How it is.
    pub health: Health,
    /// Of its Docker, since it answered first.
    pub daemon: Option<Daemon>,
}

/// Whoever is told of every change of a node, by name. Called on the roster's thread: it must
/// not wait.
pub type Tell = Arc<dyn Fn(&str, Seen) + Send + Sync>;

/// All nodes that are kept.
pub struct Roster {
    /// Ended without waiting for what it does.
    runtime: Option<Runtime>,
    kept: Mutex<BTreeMap<String, Kept>>,
    settings: Arc<Settings>,
    tell: Tell,
}

struct Kept {
    mark: String,
    heartbeat: Heartbeat,
    /// Ends with this.
    keeper: Option<Keeper>,
    told: JoinHandle<()>,
}

/// When a node's Docker answered last, Unix time.
#[derive(Clone, Debug, Default)]
struct Heartbeat(Arc<Mutex<Option<u64>>>);

impl Drop for Kept {
    fn drop(&mut self) {
        self.told.abort();
    }
}

impl Drop for Roster {
    fn drop(&mut self) {
        self.kept().clear();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Roster {
    /// Nobody yet.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn new(settings: Settings, tell: Tell) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("nodes")
            .enable_all()
            .build()?;
        let (kept, settings) = (Mutex::default(), Arc::new(settings));
        Ok(Self { runtime: Some(runtime), kept, settings, tell })
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps these, and no others. One that is kept already, and is the same, is left alone.
    pub fn keep(&self, all: BTreeMap<String, Target>) {
        let Some(runtime) = &self.runtime else { return };
        let _inside = runtime.enter();
        let mut kept = self.kept();
        kept.retain(|name, it| all.get(name).is_some_and(|target| target.mark == it.mark));
        for (name, target) in all {
            if let Entry::Vacant(free) = kept.entry(name) {
                let one = self.begin(free.key(), target);
                free.insert(one);
            }
        }
    }

    fn begin(&self, name: &str, target: Target) -> Kept {
        let Target { at, mark, before } = target;
        let heartbeat = Heartbeat::default();
        let (told, keeper) = match at {
            At::Here(socket) => {
                let told = self.tell_of(name, &heartbeat);
                let settings = Arc::clone(&self.settings);
                (tokio::spawn(attend_here(socket, settings, before, told)), None)
            }
            At::There { endpoint, pin } => {
                let known = Arc::new(Mutex::new(None));
                let is_dialled = pin.is_some();
                let check = check_over(&known);
                let settings = Arc::clone(&self.settings);
                let keeper = Keeper::start(Plan { endpoint, pin, settings, before }, check);
                let told = self.tell_of(name, &heartbeat);
                let mut health = keeper.health();
                let follow = async move {
                    // Nothing is known of one that is dialled before it was.
                    while !is_dialled || health.changed().await.is_ok() {
                        let now = health.borrow_and_update().clone();
                        let daemon = known.lock().unwrap_or_else(PoisonError::into_inner).clone();
                        told(Seen { health: now, daemon });
                        if !is_dialled {
                            return;
                        }
                    }
                };
                (tokio::spawn(follow), Some(keeper))
            }
        };
        Kept { mark, heartbeat, keeper, told }
    }

    fn tell_of(&self, name: &str, heartbeat: &Heartbeat) -> impl Fn(Seen) + Send + use<> {
        let (name, tell, heartbeat) = (name.to_owned(), Arc::clone(&self.tell), heartbeat.clone());
        move |seen: Seen| {
            if seen.health.state == State::Online {
                let mut last = heartbeat.0.lock().unwrap_or_else(PoisonError::into_inner);
                *last = seen.health.heartbeat_s;
            }
            tell(&name, seen);
        }
    }

    /// Ends what there is of a node, until it is to be kept again.
    pub fn forget(&self, name: &str) {
        let gone = self.kept().remove(name);
        drop(gone);
    }

    /// Looks at a node at once.
    pub fn hurry(&self, name: &str) {
        if let Some(keeper) = self.kept().get(name).and_then(|it| it.keeper.as_ref()) {
            keeper.hurry();
        }
    }

    /// When the node's Docker answered last, Unix time.
    pub fn heartbeat_s(&self, name: &str) -> Option<u64> {
        let heartbeat = self.kept().get(name)?.heartbeat.clone();
        *heartbeat.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries a node that need not be one. Waits.
    pub fn test(&self, at: At, accept_new: bool) -> Found {
        let trial = Trial { at, accept_new, settings: Arc::clone(&self.settings) };
        self.runtime.as_ref().map_or_else(Found::default, |runtime| runtime.block_on(trial.run()))
    }
}

/// Looks at a Docker through the connection that stands.
fn check_over(known: &Arc<Mutex<Option<Daemon>>>) -> Check {
    let known = Arc::clone(known);
    Box::new(move |tunnel: Tunnel| {
        let known = Arc::clone(&known);
        Box::pin(async move {
            let docker = over(tunnel);
            let is_known = known.lock().unwrap_or_else(PoisonError::into_inner).is_some();
            let looked = look(&docker, is_known).await;
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            match looked {
                Ok(None) => Ok(()),
                Ok(Some(daemon)) => {
                    *known = Some(daemon);
                    Ok(())
                }
                Err(fault) => {
                    // It may come back as another one.
                    *known = None;
                    Err(reason(&fault))
                }
            }
        })
    })
}

/// Whether it answers; what it is, if that is not known.
async fn look(docker: &Docker, is_known: bool) -> Result<Option<Daemon>, Fault> {
    if is_known {
        return docker.ping().await.map(|_| None);
    }
    daemon(docker).await.map(Some)
}

async fn attend_here(
    socket: PathBuf,
    settings: Arc<Settings>,
    before: Option<Health>,
    tell: impl Fn(Seen),
) {
    let docker = here(socket);
    let (mut known, mut last) = (None, before);
    loop {
        let looked = timeout(settings.check, look(&docker, known.is_some())).await;
        let failed = match looked {
            Ok(Ok(daemon)) => {
                known = daemon.or(known);
                None
            }
            Ok(Err(fault)) => Some(reason(&fault)),
            Err(_) => Some(Reason {
                label: "daemon_not_answering",
                fault: format!("Docker gave no answer in {:?}", settings.check),
                fix: "look into Docker's log".to_owned(),
                shown: None,
            }),
        };
        if failed.is_some() {
            known = None;
        }
        let now_s = unix_s();
        let state = if failed.is_some() { State::Error } else { State::Online };
        let label = |reason: &Option<Reason>| reason.as_ref().map(|reason| reason.label);
        let same = |it: &&Health| it.state == state && label(&it.reason) == label(&failed);
        let since_s = last.as_ref().filter(same).map_or(now_s, |it| it.since_s);
        let heartbeat_s = if failed.is_none() {
            Some(now_s)
        } else {
            last.as_ref().and_then(|it| it.heartbeat_s)
        };
        let health = Health { state, reason: failed, since_s, heartbeat_s, way: None };
        last = Some(health.clone());
        tell(Seen { health, daemon: known.clone() });
        sleep(settings.health.max(Duration::from_secs(1))).await;
    }
}
