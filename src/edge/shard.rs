//! One shard: everything that runs on one core. Two threads, the door and the pump, each with an
//! epoll set of its own.

#![expect(clippy::disallowed_methods, reason = "a shard's door is a thread")]

use std::cell::Cell;
use std::io;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;

use super::attended::Attended;
use super::clock;
use super::door::Door;
use super::executor::{Control, Executor, Order};
use super::listen::{self, Listener};
use super::presence::ConnectionGuard;
use super::pump::{self, PumpHandle};
use super::report::Info;
use super::shared::Shared;
use super::stream::Acceptor;
use crate::metrics::Counters;

/// How long accepting rests when descriptors or memory have run out.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How long a door may take to accept who waits and to close its listeners.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// How often the log hears that nobody can be accepted, in milliseconds.
const WARN_MS: u64 = 60_000;
/// Connections that all listeners of a shard together accept before those who are
/// in get their turn.
const ACCEPTS_A_ROUND: u32 = 8;
/// The door yields to the pump of its core: a burst of handshakes must not be felt by
/// people who type.
const DOOR_NICE: i32 = 5;

/// A running shard. Dropping it ends its connections.
pub(super) struct Shard {
    control: Control,
    /// Tells by its end that the listeners are closed.
    closed: Mutex<mpsc::Receiver<()>>,
    door: Option<JoinHandle<()>>,
    pub(super) pump: PumpHandle<Info>,
    /// Whoever is on the way to the pump, or at the lobby.
    pub(super) attended: Arc<Attended>,
    pump_thread: Option<JoinHandle<()>>,
}

impl Shard {
    /// Starts the door of shard `index` on `cpu`, in front of its `pump`.
    ///
    /// # Errors
    /// Out of descriptors, memory or threads.
    pub(super) fn start(
        index: usize,
        cpu: usize,
        listeners: Vec<Listener>,
        shared: Arc<Shared>,
        counters: Arc<Counters>,
        (pump, pump_thread): (PumpHandle<Info>, JoinHandle<()>),
        half_open_max: NonZeroU32,
    ) -> io::Result<Self> {
        let (control, parts) = Control::new()?;
        let (started, starting) = mpsc::sync_channel(1);
        let door_pump = pump.clone();
        let attended = Arc::new(Attended::new(Arc::clone(&counters)));
        let way = Arc::clone(&attended);
        let pump_thread = Some(pump_thread);
        // From here on whatever fails stops what runs by dropping this.
        let (closing, closed) = mpsc::channel();
        let closed = Mutex::new(closed);
        let mut running = Self { control, closed, door: None, pump, attended, pump_thread };
        let door = std::thread::Builder::new().name(format!("door-{index}")).spawn(move || {
            pump::pin(cpu);
            lower_weight();
            let tasks = Executor::new(parts);
            let way = (way, door_pump);
            let door = Door::new(tasks.clone(), Arc::clone(&shared), counters, way, half_open_max);
            let door = Rc::new(door);
            let common = Rc::new(Accepting::default());
            let mut accepting = Vec::with_capacity(listeners.len());
            for listener in listeners {
                let acceptor = match Acceptor::new(&tasks, listener) {
                    Ok(acceptor) => acceptor,
                    Err(error) => return drop(started.send(Err(error))),
                };
                // A drain is not over before the listeners are closed.
                let open = shared.enter();
                let (closing, door) = (closing.clone(), Rc::clone(&door));
                let accept = accept(open, acceptor, door, Rc::clone(&common));
                let task = async move {
                    accept.await;
                    drop(closing);
                };
                accepting.extend(tasks.spawn(task));
            }
            drop(closing);
            let _nobody_waits = started.send(Ok(()));
            let ran = tasks.run(|| {
                common.draining.set(true);
                for task in &accepting {
                    tasks.wake(*task);
                }
            });
            if let Err(error) = ran {
                tracing::error!(%error, "door stopped: epoll failed");
            }
        })?;
        running.door = Some(door);
        starting.recv().map_err(|_| io::Error::other("the door panicked"))??;
        Ok(running)
    }

    /// Whether one of its threads has ended by itself.
    pub(super) fn has_fallen(&self) -> bool {
        let ended =
            |thread: &Option<JoinHandle<()>>| thread.as_ref().is_none_or(JoinHandle::is_finished);
        ended(&self.door) || ended(&self.pump_thread)
    }

    /// Accepts nothing more than what already waits; connections go on. Returns when the
    /// listeners are closed.
    pub(super) fn stop_accepting(&self) {
        self.control.order(Order::Drain);
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing is ever sent: it ends.
        let _closed = closed.recv_timeout(CLOSE_WAIT);
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.control.order(Order::Stop);
        if let Some(door) = self.door.take() {
            let _ended = door.join();
        }
        self.pump.stop();
        // Its last log lines are written before the process goes.
        if let Some(thread) = self.pump_thread.take() {
            let _ended = thread.join();
        }
    }
}

/// Accepts until a drain, and then those who wait already: closing the listener would reset them.
async fn accept(open: ConnectionGuard, acceptor: Acceptor, door: Rc<Door>, common: Rc<Accepting>) {
    let tasks = door.tasks.clone();
    // More than the kernel's queue holds came after the drain began: they are the successor's.
    let mut left = listen::BACKLOG;
    let mut warned = None;
    loop {
        match acceptor.accept() {
            Ok(Some((stream, peer))) => {
                // Place and presence are taken here: accepting must not outrun the limit on
                // half-open connections, and a drain must not miss whom we have just let in.
                let place = door.take_slot(&stream, peer.ip());
                let presence = door.enter();
                tasks.spawn(Rc::clone(&door).serve(stream, peer, place, presence));
                left -= i32::from(common.draining.get());
            }
            Ok(None) if common.draining.get() => left = 0,
            Ok(None) => acceptor.waiting(&common.draining).await,
            // That one connection was gone already.
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                let now = clock::monotonic_ms();
                if warned.is_none_or(|last| now >= last + WARN_MS) {
                    warned = Some(now);
                    tracing::warn!(%error, "nobody can be accepted");
                }
                tasks.sleep(ACCEPT_REST).await;
            }
        }
        if left <= 0 {
            break;
        }
        // Under a flood the rest waits in the kernel's queue while those who are in are served.
        if common.has_had_its_share(&tasks) {
            tasks.yield_now().await;
        }
    }
    // Closed before the drain may be over.
    drop(acceptor);
    drop(open);
}

/// What the listeners of a shard share.
#[derive(Default)]
struct Accepting {
    draining: Cell<bool>,
    /// A round of the executor, and how many were accepted in it.
    taken: Cell<(u64, u32)>,
}

impl Accepting {
    /// Counts one step; true when this round has had enough of them.
    fn has_had_its_share(&self, tasks: &Executor) -> bool {
        let (round, taken) = self.taken.get();
        let taken = if round == tasks.round() { taken + 1 } else { 1 };
        self.taken.set((tasks.round(), taken));
        taken >= ACCEPTS_A_ROUND
    }
}

/// Is this about the connection that was to be accepted (accept(2)), and not about the listener or
/// about us? The others (no descriptors, no memory) come back at once, and trying again without a
/// rest would spin.
fn is_of_one_connection(error: &io::Error) -> bool {
    use Errno as E;
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(
        code,
        None | Some(
            E::ECONNABORTED
                | E::EINTR
                | E::EPROTO
                | E::EPERM
                | E::ENETDOWN
                | E::ENOPROTOOPT
                | E::EHOSTDOWN
                | E::ENONET
                | E::EHOSTUNREACH
                | E::EOPNOTSUPP
                | E::ENETUNREACH
        )
    )
}

fn lower_weight() {
    // SAFETY: a system call on the calling thread that touches no memory; it can only fail,
    // which costs fairness.
    let _unfair = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, DOOR_NICE) };
}
