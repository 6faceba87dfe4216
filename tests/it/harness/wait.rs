//! The one place that waits: it polls, with a deadline and a name for what never came.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::Process;

/// Most that anything may take that should be there at once.
pub(crate) const SOON: Duration = Duration::from_secs(20);

const POLL: Duration = Duration::from_millis(5);

/// Whether `ready` said yes within `limit`.
pub(crate) fn happens(limit: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    loop {
        if ready() {
            return true;
        }
        if began.elapsed() > limit {
            return false;
        }
        std::thread::sleep(POLL);
    }
}

/// Waits until `ready` says yes.
#[track_caller]
pub(crate) fn until(what: &str, limit: Duration, ready: impl FnMut() -> bool) {
    assert!(happens(limit, ready), "after {limit:?}: {what} did not happen");
}

/// Waits until `process` accepts connections at `address`.
#[track_caller]
pub(crate) fn listens(process: &mut Process, address: SocketAddr) {
    let mut ended = false;
    let listens = happens(SOON, || {
        ended = process.has_ended();
        ended || TcpStream::connect_timeout(&address, SOON).is_ok()
    });
    assert!(
        listens && !ended,
        "{} does not listen at {address}:\n{}",
        process.name(),
        process.log()
    );
}
