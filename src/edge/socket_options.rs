//! The options every data-plane socket gets. A listener passes them on to what it accepts (tcp(7)).

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, Socket, TcpKeepalive};

/// Data that a VM does not acknowledge for this long ends the connection. The kernel counts unanswered keepalive probes
/// against it too, and peers that acknowledge but take no data: a VM that is paused or moved deserves the patience that a
/// client has. Before a session is established there are deadlines, which are much shorter.
const USER_TIMEOUT: Duration = Duration::from_hours(1);
/// Idle time before the first keepalive probe, below the 350 s after which load balancers forget a connection.
const KEEPALIVE_IDLE: Duration = Duration::from_mins(2);
/// Time between probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// Time between probes where only their number ends a connection, and the most that the kernel counts: two hours, as
/// long as a system without settings waits.
const KEEPALIVE_ALONE: (Duration, u32) = (Duration::from_mins(1), 127);

/// Sets what a connection needs: it sends small packets at once and notices a peer that is gone.
pub(super) fn established(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL),
    )
}

/// Sets how long a peer may acknowledge nothing; `None`: as long as a system without settings waits.
pub(super) fn be_patient(socket: &Socket, patience: Option<Duration>) -> io::Result<()> {
    socket.set_tcp_user_timeout(patience)?;
    if patience.is_none() {
        let (interval, retries) = KEEPALIVE_ALONE;
        let probes = TcpKeepalive::new().with_time(KEEPALIVE_IDLE);
        socket.set_tcp_keepalive(&probes.with_interval(interval).with_retries(retries))?;
    }
    Ok(())
}

/// Answers what was just read with an ACK now. The kernel forgets this setting by itself, so it is
/// repeated; a failure costs only time.
pub(super) fn acknowledge_now(fd: impl AsFd) {
    let _slower = SockRef::from(&fd).set_tcp_quickack(true);
}
