//! The options every data-plane socket gets.

use std::io;
use std::time::Duration;

use glommio::net::TcpStream;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use socket2::{SockRef, TcpKeepalive};

use super::leg::borrow;

/// Data that a peer does not acknowledge for this long ends the connection. It also ends peers that acknowledge but take
/// no data, such as a client stopped with Ctrl-Z or a VM that is paused, which deserve patience; before a key is proved
/// the login's own deadline is much shorter.
const USER_TIMEOUT: Duration = Duration::from_mins(15);
/// Idle time before the first keepalive probe, below the 350 s after which load balancers forget a connection.
const KEEPALIVE_IDLE: Duration = Duration::from_mins(2);
/// Time between probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Sets what an accepted or dialled socket needs: it never blocks, sends small packets at once, and
/// notices a peer that is gone.
pub(super) fn established(stream: &TcpStream) -> io::Result<()> {
    let fd = borrow(stream);
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
    let socket = SockRef::from(&fd);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL),
    )
}

/// Answers what was just read with an ACK now. The kernel forgets this setting by itself, so it is
/// repeated; a failure costs only time.
pub(super) fn acknowledge_now(stream: &TcpStream) {
    let _slower = SockRef::from(&borrow(stream)).set_tcp_quickack(true);
}
