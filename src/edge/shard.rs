//! One shard: everything that runs on one core. A glommio executor (the door) and an epoll thread (the pump).

use std::io::{self, Write};
use std::num::NonZeroU32;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::os::unix::net::UnixStream as ControlEnd;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_lite::AsyncReadExt;
use glommio::net::{TcpListener, UnixStream};
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use nix::errno::Errno;

use crate::metrics::Counters;

use super::door::{Door, Place};
use super::listen::Listener;
use super::pump::PumpHandle;
use super::report::Info;
use super::shared::Shared;

/// The door's ring registers this much memory, so that unprivileged executors fit into 8 MiB of memlock.
const RING_MEMORY_BYTES: usize = 64 << 10;
/// Fewer entries make every wake dearer, more do not fit into the memlock limit.
const RING_DEPTH: usize = 1024;
/// How soon the executor looks at its ring again while tasks run.
const PREEMPT: Duration = Duration::from_millis(1);
/// How long accepting rests when descriptors or memory have run out.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// Connections accepted before others get the thread.
const ACCEPTS_IN_A_ROW: u32 = 8;
/// The door yields to the pump of its core: a burst of handshakes must not be felt by people who type.
const DOOR_NICE: i32 = 5;
/// On the control stream: accept nothing more.
const DRAIN: u8 = b'd';
/// On the control stream: wake up.
const BEAT: u8 = b'b';
/// Between beats while somebody waits for a door.
const BEAT_BUSY: Duration = Duration::from_millis(20);
/// Between beats otherwise: a lost accept waits no longer.
const BEAT_IDLE: Duration = Duration::from_millis(500);
/// How long a shard may take to come up.
const START_WAIT: Duration = Duration::from_secs(10);

/// A running shard. Dropping it ends its connections.
pub(super) struct Shard {
    control: ControlEnd,
    door: Option<ExecutorJoinHandle<()>>,
    pub(super) pump: PumpHandle<Info>,
    pump_thread: Option<JoinHandle<()>>,
}

impl Shard {
    /// Starts the door of shard `index` on `cpu`, in front of its `pump`.
    ///
    /// # Errors
    /// What the executor said: usually the memlock limit.
    pub(super) fn start(
        index: usize,
        cpu: usize,
        listeners: Vec<Listener>,
        shared: Arc<Shared>,
        counters: Arc<Counters>,
        (pump, pump_thread): (PumpHandle<Info>, JoinHandle<()>),
        half_open_max: NonZeroU32,
    ) -> io::Result<Self> {
        let (control, theirs) = ControlEnd::pair()?;
        let (started, starting) = mpsc::sync_channel(1);
        let door_pump = pump.clone();
        let door = LocalExecutorBuilder::new(Placement::Fixed(cpu))
            .name(&format!("door-{index}"))
            .io_memory(RING_MEMORY_BYTES)
            .ring_depth(RING_DEPTH)
            .preempt_timer(PREEMPT)
            .spawn(move || async move {
                lower_weight();
                let door = Rc::new(Door::new(shared, counters, door_pump, half_open_max));
                let accepting: Vec<_> = listeners
                    .into_iter()
                    .map(|listener| glommio::spawn_local(accept(Rc::clone(&door), listener)))
                    .collect();
                let _first_line_ran = started.send(());
                let mut control = control_stream(theirs);
                let mut accepting = Some(accepting);
                let mut words = [0; 64];
                // The end of the stream means: stop.
                while let Ok(count @ 1..) = control.read(&mut words).await {
                    if words[..count].contains(&DRAIN)
                        && let Some(accepting) = accepting.take()
                    {
                        for task in accepting {
                            task.cancel().await;
                        }
                    }
                }
            })
            .map_err(io::Error::from)?;
        // A memlock limit that is too low shows only now: the executor counts once it has run.
        if starting.recv_timeout(START_WAIT).is_err() {
            drop(control);
            let said = door.join().map_or_else(|error| error.to_string(), |()| String::new());
            return Err(io::Error::other(format!(
                "shard {index} did not start: {said}; raise the memlock limit (LimitMEMLOCK=) or lower `shards`"
            )));
        }
        Ok(Self { control, door: Some(door), pump, pump_thread: Some(pump_thread) })
    }

    /// Accepts nothing more; connections go on.
    pub(super) fn stop_accepting(&mut self) {
        let _already_gone = self.control.write(&[DRAIN]);
    }

    /// The end of the control stream that [`Heart`] beats on.
    pub(super) fn pulse(&self) -> io::Result<ControlEnd> {
        self.control.try_clone()
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        let _already_gone = self.control.shutdown(std::net::Shutdown::Both);
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

/// Wakes the doors now and then.
///
/// glommio 0.9 sleeps on one of its rings, linked to the other by a poll. Rarely (1 login in some thousands) the
/// completion of an accept, connect or timer does not come through that link, and the executor sleeps until something
/// else wakes it. A byte on the control stream is such a something; it bounds the delay.
pub(super) struct Heart {
    _stops_when_dropped: mpsc::Sender<()>,
}

impl Heart {
    /// Beats on `pulses`, fast while `busy` says that somebody is between accept and session.
    pub(super) fn start(
        mut pulses: Vec<ControlEnd>,
        busy: impl Fn() -> bool + Send + 'static,
    ) -> io::Result<Self> {
        for pulse in &pulses {
            pulse.set_nonblocking(true)?;
        }
        let (stop, stopped) = mpsc::channel();
        std::thread::Builder::new().name("heart".into()).spawn(move || {
            loop {
                let period = if busy() { BEAT_BUSY } else { BEAT_IDLE };
                if stopped.recv_timeout(period) != Err(mpsc::RecvTimeoutError::Timeout) {
                    return;
                }
                for pulse in &mut pulses {
                    // A door that is awake and has not read yet needs no beat; one that is gone needs none either.
                    let _awake_or_gone = pulse.write(&[BEAT]);
                }
            }
        })?;
        Ok(Self { _stops_when_dropped: stop })
    }
}

/// Accepts until it is cancelled.
async fn accept(door: Rc<Door>, listener: Listener) {
    let raw = listener.socket.into_raw_fd();
    // SAFETY: `raw` was just given up by the socket that owned it: nobody else closes it.
    let listener = unsafe { TcpListener::from_raw_fd(raw) };
    let mut in_a_row = 0;
    loop {
        match listener.accept().await {
            Ok(stream) => {
                // A client that is gone already has no name.
                if let Ok(peer) = stream.peer_addr() {
                    // The place is taken here: accepting itself must not outrun the limit on half-open connections.
                    let place = Place::take(&door, &stream, peer.ip());
                    let connection = Rc::clone(&door).serve(stream, peer, place);
                    glommio::spawn_local(connection).detach();
                }
            }
            Err(error) => {
                if exhausted(&io::Error::from(error)) {
                    glommio::timer::sleep(ACCEPT_REST).await;
                }
            }
        }
        // An accept that finds somebody waiting does not give the thread away by itself: under a flood the rest waits in
        // the kernel's queue while those who are in are served.
        in_a_row += 1;
        if in_a_row % ACCEPTS_IN_A_ROW == 0 {
            glommio::executor().yield_task_queue_now().await;
        }
    }
}

/// Is it us who ran out of something, so that trying again at once would spin?
fn exhausted(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM))
}

fn control_stream(end: ControlEnd) -> UnixStream {
    let raw = end.into_raw_fd();
    // SAFETY: `raw` was just given up by the stream that owned it: nobody else closes it.
    unsafe { UnixStream::from_raw_fd(raw) }
}

fn lower_weight() {
    // SAFETY: a system call on the calling thread that touches no memory; it can only fail, which costs fairness.
    let _unfair = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, DOOR_NICE) };
}
