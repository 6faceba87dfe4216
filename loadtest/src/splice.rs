//! A bare splice loop: what a proxy costs that knows nothing of what it carries. Two blocking
//! threads a connection, one for each direction, and nothing else.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;

use clap::Args;
use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice};
use nix::unistd::pipe;

use crate::Result;

/// Bytes taken at a time, as by Keyway's own pump.
const BITE: usize = 128 << 10;

#[derive(Args, Clone)]
pub(crate) struct Setup {
    /// Where it listens
    #[arg(long)]
    listen: SocketAddr,
    /// Where it carries to
    #[arg(long)]
    to: SocketAddr,
}

/// Carries until the process is ended, or until no connection can be accepted any more.
pub(crate) fn serve(setup: &Setup) -> Result<()> {
    let listener = TcpListener::bind(setup.listen)?;
    loop {
        let (near, _peer) = listener.accept()?;
        let to = setup.to;
        thread::spawn(move || carry_both(&near, to));
    }
}

/// Whichever side ends or fails, its peer reads the end.
fn carry_both(near: &TcpStream, to: SocketAddr) -> Result<()> {
    let far = TcpStream::connect(to)?;
    for socket in [near, &far] {
        socket.set_nodelay(true)?;
    }
    thread::scope(|scope| {
        scope.spawn(|| carry(near, &far));
        carry(&far, near);
    });
    Ok(())
}

fn carry(from: &TcpStream, to: &TcpStream) {
    // Who cannot go on says so to both, as a proxy does.
    let _why = splice_all(from, to);
    let _gone = to.shutdown(Shutdown::Write);
}

fn splice_all(from: &TcpStream, to: &TcpStream) -> nix::Result<()> {
    let (out, into) = pipe()?;
    let flags = SpliceFFlags::empty();
    loop {
        let mut left = match splice(from.as_fd(), None, &into, None, BITE, flags) {
            Ok(0) => return Ok(()),
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        while left > 0 {
            left -= splice(&out, None, to.as_fd(), None, left, flags)?;
        }
    }
}
