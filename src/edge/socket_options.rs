//! The options every data-plane socket gets. A listener passes them on to what it accepts (tcp(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{SockRef, Socket, TcpKeepalive};

/// Data that a VM does not acknowledge for this long ends the connection. The kernel counts
/// unanswered keepalive probes against it too, and peers that acknowledge but take no data: a VM
/// that is paused or moved deserves the patience that a client has. Before a session is established
/// there are deadlines, which are much shorter.
const USER_TIMEOUT: Duration = Duration::from_hours(1);
/// Idle time before the first keepalive probe, below the 350 s after which load balancers
/// forget a connection.
const KEEPALIVE_IDLE: Duration = Duration::from_mins(2);
/// Time between probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// The same of a connection that others wait for: their question is asked elsewhere once its host
/// is known to be gone.
const LINK_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle time before its probes, and between them.
const LINK_IDLE: Duration = Duration::from_secs(10);
const LINK_INTERVAL: Duration = Duration::from_secs(5);
/// Time between probes where only their number ends a connection, and the most that the kernel
/// counts: two hours, as long as a system without settings waits.
const KEEPALIVE_ALONE: (Duration, u32) = (Duration::from_mins(1), 127);

/// Sets what a connection needs: it sends small packets at once and notices a peer that is gone.
pub(super) fn established(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL),
    )
}

/// Sets how long a peer may acknowledge nothing; `None`: as long as a system
/// without settings waits.
pub(super) fn be_patient(socket: &Socket, patience: Option<Duration>) -> io::Result<()> {
    socket.set_tcp_user_timeout(patience)?;
    if patience.is_none() {
        let (interval, retries) = KEEPALIVE_ALONE;
        let probes = TcpKeepalive::new().with_time(KEEPALIVE_IDLE);
        socket.set_tcp_keepalive(&probes.with_interval(interval).with_retries(retries))?;
    }
    Ok(())
}

/// Has a host that is gone noticed within half a minute: of a control link, which is quiet for
/// long.
pub(super) fn be_watchful(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_user_timeout(Some(LINK_TIMEOUT))?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(LINK_IDLE).with_interval(LINK_INTERVAL))
}

/// Answers what was just read with an ACK now. The kernel forgets this setting by itself, so it is
/// repeated; a failure costs only time.
pub(super) fn acknowledge_now(fd: impl AsFd) {
    let _slower = SockRef::from(&fd).set_tcp_quickack(true);
}

/// Has epoll tell of bytes once there are so many, or no room for more; tells at once if there are.
/// False: it goes on as before.
pub(super) fn tell_of(fd: &impl AsRawFd, bytes: libc::c_int) -> bool {
    let Ok(len) = libc::socklen_t::try_from(size_of_val(&bytes)) else { return false };
    let value = (&raw const bytes).cast();
    // SAFETY: `bytes` is readable for the `len` bytes that the kernel is told of.
    unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, value, len) == 0
    }
}

/// What a TCP socket holds for its peer, in bytes as the kernel reckons them.
#[derive(Clone, Copy, Debug)]
pub(super) struct SendBuffer {
    /// Written and not acknowledged.
    pub(super) queued: usize,
    /// The most it holds; the kernel lets that grow.
    pub(super) most: usize,
}

impl SendBuffer {
    pub(super) const fn free(self) -> usize {
        self.most.saturating_sub(self.queued)
    }
}

/// Asks a socket for its buffer; `None` before Linux 4.12.
pub(super) fn send_buffer(fd: &impl AsRawFd) -> Option<SendBuffer> {
    /// Numbers in a `SO_MEMINFO` (linux/sock_diag.h).
    const COUNT: usize = 9;
    /// Where the buffer's size and what is in it stand.
    const PLACES: [usize; 2] = [3, 5];
    let mut numbers = [0_u32; COUNT];
    let mut len = libc::socklen_t::try_from(size_of_val(&numbers)).ok()?;
    // SAFETY: `numbers` is writable for the `len` bytes that the kernel is told of, and any bytes
    // make numbers of it.
    let done = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            numbers.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    let [most, queued] = PLACES.map(|at| usize::try_from(numbers[at]));
    (done == 0).then_some(SendBuffer { queued: queued.ok()?, most: most.ok()? })
}

/// Whether a send would take anything. If not, edge-triggered epoll will say when one does.
pub(super) fn takes_bytes(fd: impl AsFd) -> bool {
    let mut asked = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
    // Interrupted: a send finds out.
    poll(&mut asked, PollTimeout::ZERO) != Ok(0)
}
