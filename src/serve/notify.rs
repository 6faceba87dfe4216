//! Tells systemd how it goes (sd_notify(3)), if it asked: a datagram to the socket that it names.

#![expect(clippy::disallowed_methods, reason = "systemd names its socket in the environment")]

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::{env, io};

use crate::edge::clock;

/// Names the socket.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// How it goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State<'s> {
    /// People are let in. Its process is the service's from now on, whoever was it before.
    Ready,
    /// The files are being read again.
    Reloading,
    /// Nobody is let in any more.
    Stopping,
    /// In words.
    Status(&'s str),
}

/// Tells it. Whoever does not listen misses it.
pub(super) fn tell(state: State<'_>) {
    let Some(socket) = env::var_os(VARIABLE).filter(|socket| !socket.is_empty()) else { return };
    if let Err(error) = send(&socket, &message(state, std::process::id(), clock::monotonic_us())) {
        tracing::warn!("systemd is not told of this ({state:?}): {error}");
    }
}

fn message(state: State<'_>, process: u32, monotonic_us: u64) -> String {
    match state {
        State::Ready => format!("READY=1\nMAINPID={process}\n"),
        State::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={monotonic_us}\n"),
        State::Stopping => "STOPPING=1\n".to_owned(),
        // A line is one assignment.
        State::Status(text) => format!("STATUS={}\n", text.replace('\n', " ")),
    }
}

/// A path, or a name of the abstract namespace behind an `@`.
fn send(socket: &OsStr, message: &str) -> io::Result<()> {
    let to = match socket.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &to)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_arrives_at_a_path_and_at_an_abstract_name() {
        let name = format!("keyway-notify-{}", std::process::id());
        let path = env::temp_dir().join(&name);
        let abstracted = SocketAddr::from_abstract_name(&name).unwrap();
        let heard = [UnixDatagram::bind(&path), UnixDatagram::bind_addr(&abstracted)];
        let sockets = [path.clone().into_os_string(), format!("@{name}").into()];
        for (heard, socket) in heard.into_iter().zip(sockets) {
            send(&socket, &message(State::Ready, 7, 0)).unwrap();
            let mut bytes = [0; 64];
            let count = heard.unwrap().recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..count], b"READY=1\nMAINPID=7\n");
        }
        std::fs::remove_file(path).unwrap();
        assert!(send(OsStr::new("/nowhere/at/all"), "READY=1\n").is_err());
    }

    #[test]
    fn a_message_is_lines_of_assignments() {
        assert_eq!(message(State::Reloading, 7, 9), "RELOADING=1\nMONOTONIC_USEC=9\n");
        assert_eq!(message(State::Status("one\ntwo"), 7, 9), "STATUS=one two\n");
        assert_eq!(message(State::Stopping, 7, 9), "STOPPING=1\n");
    }
}
