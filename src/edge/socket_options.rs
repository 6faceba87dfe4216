//! The options every data-plane socket gets. A listener passes them on to what it accepts (tcp(7)).

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, Socket, TcpKeepalive};

/// Data that a peer does not acknowledge for this long ends the connection. It also ends peers that acknowledge but take
/// no data, such as a client stopped with Ctrl-Z or a VM that is paused, which deserve patience; before a key is proved
/// the login's own deadline is much shorter.
const USER_TIMEOUT: Duration = Duration::from_mins(15);
/// Idle time before the first keepalive probe, below the 350 s after which load balancers forget a connection.
const KEEPALIVE_IDLE: Duration = Duration::from_mins(2);
/// Time between probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Sets what a connection needs: it sends small packets at once and notices a peer that is gone.
pub(super) fn established(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL),
    )
}

/// Answers what was just read with an ACK now. The kernel forgets this setting by itself, so it is
/// repeated; a failure costs only time.
pub(super) fn acknowledge_now(fd: impl AsFd) {
    let _slower = SockRef::from(&fd).set_tcp_quickack(true);
}
