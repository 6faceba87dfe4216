//! One shard: everything that runs on one core. Two threads, the door and the pump, each with an epoll set of its own.

use std::cell::Cell;
use std::io;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;

use crate::metrics::Counters;

use super::door::{Door, Place};
use super::listen::Listener;
use super::pump::{self, PumpHandle};
use super::report::Info;
use super::shared::{Presence, Shared};
use super::stream::Acceptor;
use super::tasks::{Control, Order, Tasks};

/// How long accepting rests when descriptors or memory have run out.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// Connections accepted before others get the thread.
const ACCEPTS_IN_A_ROW: u32 = 8;
/// The door yields to the pump of its core: a burst of handshakes must not be felt by people who type.
const DOOR_NICE: i32 = 5;

/// A running shard. Dropping it ends its connections.
pub(super) struct Shard {
    control: Control,
    door: Option<JoinHandle<()>>,
    pub(super) pump: PumpHandle<Info>,
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
        // From here on whatever fails stops what runs by dropping this.
        let mut running = Self { control, door: None, pump, pump_thread: Some(pump_thread) };
        let door = std::thread::Builder::new().name(format!("door-{index}")).spawn(move || {
            pump::pin(cpu);
            lower_weight();
            let tasks = Tasks::new(parts);
            let door =
                Door::new(tasks.clone(), Arc::clone(&shared), counters, door_pump, half_open_max);
            let door = Rc::new(door);
            let draining = Rc::new(Cell::new(false));
            let mut accepting = Vec::with_capacity(listeners.len());
            for listener in listeners {
                let acceptor = match Acceptor::new(&tasks, listener) {
                    Ok(acceptor) => acceptor,
                    Err(error) => return drop(started.send(Err(error))),
                };
                // A drain is not over before the listeners are closed.
                let open = shared.enter();
                let task = accept(Rc::clone(&door), acceptor, Rc::clone(&draining), open);
                accepting.extend(tasks.spawn(task));
            }
            let _nobody_waits = started.send(Ok(()));
            let ran = tasks.run(|| {
                draining.set(true);
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

    /// Accepts nothing more than what already waits; connections go on.
    pub(super) fn stop_accepting(&self) {
        self.control.order(Order::Drain);
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
async fn accept(door: Rc<Door>, acceptor: Acceptor, draining: Rc<Cell<bool>>, _open: Presence) {
    let tasks = door.tasks.clone();
    let mut in_a_row = 0;
    loop {
        match acceptor.accept() {
            Ok(Some((stream, peer))) => {
                // The place is taken here: accepting itself must not outrun the limit on half-open connections.
                let place = Place::take(&door, &stream, peer.ip());
                tasks.spawn(Rc::clone(&door).serve(stream, peer, place));
            }
            Ok(None) if draining.get() => return,
            Ok(None) => acceptor.waiting(&draining).await,
            Err(error) if exhausted(&error) => tasks.sleep(ACCEPT_REST).await,
            // That one connection was gone already.
            Err(_) => {}
        }
        // Under a flood the rest waits in the kernel's queue while those who are in are served.
        in_a_row += 1;
        if in_a_row % ACCEPTS_IN_A_ROW == 0 {
            tasks.turn().await;
        }
    }
}

/// Is it us who ran out of something, so that trying again at once would spin?
fn exhausted(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM))
}

fn lower_weight() {
    // SAFETY: a system call on the calling thread that touches no memory; it can only fail, which costs fairness.
    let _unfair = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, DOOR_NICE) };
}
