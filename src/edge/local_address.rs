//! Which of our addresses a client dialled: the half of the route that the client's
//! key does not name.
//!
//! The socket's own name is checked against a second witness, and a disagreement refuses the
//! connection: routing on a wrong address would ask for another VM than the user did.
//! - IPv4: the `IP_PKTINFO` control message that `IP_PKTOPTIONS` returns on an accepted socket.
//! - IPv6: the headers of the SYN itself (`TCP_SAVED_SYN`). `IPV6_2292PKTOPTIONS` names the
//!   **peer** as soon as the client has sent a byte (OpenSSH clients speak first), and its packet
//!   stays in memory once the option is off again. The saved SYN is freed by reading it. There is
//!   none under SYN cookies: then the name stands alone.
//!
//! Both want the listener's options as [`listen`](super::listen) sets them. Nothing here allocates.
//!
//! Source: Linux `net/ipv4/ip_sockglue.c` (`IP_PKTOPTIONS`), `net/ipv6/ipv6_sockglue.c`, tcp(7).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use socket2::SockRef;

/// Bytes that one `IP_PKTINFO` control message needs, with room for another that somebody
/// may have asked for.
const CONTROL_BYTES: usize = 128;

/// Bytes of a SYN's headers: IPv6 with extension headers, and at most 60 of TCP. More is
/// answered as no witness.
const SYN_BYTES: usize = 512;

/// Who knows what the client dialled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Destination {
    /// The socket: the packets arrive as the client sent them, or a private -> public map undoes
    /// what was done to them.
    Socket,
    /// This host's connection tracking, which rewrote the destination (`DNAT`, `REDIRECT`):
    /// `SO_ORIGINAL_DST`.
    Tracked,
}

/// Why the address is not known for sure. The connection is refused; it is never routed by a guess.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LocalAddressError {
    /// The socket has no name any more: the connection was reset before it was accepted.
    #[error("the socket has no local address ({0})")]
    Nameless(Errno),
    /// The socket's name and the packet do not agree.
    #[error("the socket says {socket}, the packet says {packet}")]
    Disagree {
        /// From `getsockname`.
        socket: IpAddr,
        /// From the second witness.
        packet: IpAddr,
    },
    /// No `IP_PKTINFO`: the listener was not made by `listen`.
    #[error("the kernel gives no packet information")]
    NoPacketInfo,
    /// An IPv4 connection on an IPv6 socket, which only a foreign listener can produce.
    #[error("{0} is IPv4 on an IPv6 listener")]
    Mapped(Ipv6Addr),
    /// Connection tracking does not know this connection.
    #[error("connection tracking knows no original destination ({0})")]
    Untracked(Errno),
}

/// The address that the peer of the accepted socket `fd` dialled, with its port; a link-local one
/// keeps its scope.
///
/// Call it once per connection: reading the saved SYN frees it.
///
/// # Errors
/// [`LocalAddressError`]; all of them refuse the connection.
pub fn local_address(
    fd: BorrowedFd<'_>,
    destination: Destination,
) -> Result<SocketAddr, LocalAddressError> {
    let named = name(fd)?;
    match named {
        SocketAddr::V4(socket) => agree(*socket.ip(), packet_info(fd)?)?,
        SocketAddr::V6(socket) => {
            if socket.ip().to_ipv4_mapped().is_some() {
                return Err(LocalAddressError::Mapped(*socket.ip()));
            }
            if let Some(packet) = saved_syn(fd) {
                agree(*socket.ip(), packet)?;
            }
        }
    }
    match destination {
        Destination::Socket => Ok(named),
        Destination::Tracked => conntrack_original(fd, named),
    }
}

fn agree(socket: impl Into<IpAddr>, packet: impl Into<IpAddr>) -> Result<(), LocalAddressError> {
    let (socket, packet) = (socket.into(), packet.into());
    if socket == packet { Ok(()) } else { Err(LocalAddressError::Disagree { socket, packet }) }
}

fn name(fd: BorrowedFd<'_>) -> Result<SocketAddr, LocalAddressError> {
    let address = SockRef::from(&fd).local_addr().map_err(|cause| {
        LocalAddressError::Nameless(
            cause.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw),
        )
    })?;
    address.as_socket().ok_or(LocalAddressError::Nameless(Errno::EAFNOSUPPORT))
}

/// The destination in the `IP_PKTINFO` message.
fn packet_info(fd: BorrowedFd<'_>) -> Result<Ipv4Addr, LocalAddressError> {
    let mut control = [0; CONTROL_BYTES];
    let used = option(fd, libc::IPPROTO_IP, libc::IP_PKTOPTIONS, &mut control)
        .map_err(|_| LocalAddressError::NoPacketInfo)?;
    destination_of(control.get(..used).unwrap_or_default()).ok_or(LocalAddressError::NoPacketInfo)
}

/// Walks control messages (cmsg(3)) to `IP_PKTINFO`: {interface, address to answer from,
/// destination in the header}.
fn destination_of(mut control: &[u8]) -> Option<Ipv4Addr> {
    const WORD: usize = size_of::<usize>();
    const HEAD: usize = size_of::<libc::cmsghdr>();
    while let Some(head) = control.get(..HEAD) {
        let (len, kind) = head.split_first_chunk::<WORD>()?;
        let len = usize::from_ne_bytes(*len);
        let (level, kind) = kind.split_first_chunk::<4>()?;
        let kind = i32::from_ne_bytes(*kind.first_chunk::<4>()?);
        if i32::from_ne_bytes(*level) == libc::IPPROTO_IP && kind == libc::IP_PKTINFO {
            let info = control.get(HEAD..len)?;
            return info.get(8..)?.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes));
        }
        control = control.get(len.max(HEAD).checked_next_multiple_of(WORD)?..)?;
    }
    None
}

/// The destination of the SYN that made this connection, in its own family.
fn saved_syn(fd: BorrowedFd<'_>) -> Option<IpAddr> {
    let mut syn = [0; SYN_BYTES];
    let used = option(fd, libc::IPPROTO_TCP, libc::TCP_SAVED_SYN, &mut syn).ok()?;
    destination_in(syn.get(..used)?)
}

/// The destination field of an IP header (RFC 791 §3.1, RFC 8200 §3).
fn destination_in(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => packet.get(16..)?.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes).into()),
        6 => packet.get(24..)?.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes).into()),
        _ => None,
    }
}

/// What connection tracking says the client dialled.
fn conntrack_original(
    fd: BorrowedFd<'_>,
    named: SocketAddr,
) -> Result<SocketAddr, LocalAddressError> {
    match named {
        SocketAddr::V4(_) => {
            let found =
                getsockopt(&fd, sockopt::OriginalDst).map_err(LocalAddressError::Untracked)?;
            let ip = Ipv4Addr::from(u32::from_be(found.sin_addr.s_addr));
            Ok(SocketAddrV4::new(ip, u16::from_be(found.sin_port)).into())
        }
        SocketAddr::V6(_) => {
            let found =
                getsockopt(&fd, sockopt::Ip6tOriginalDst).map_err(LocalAddressError::Untracked)?;
            let ip = Ipv6Addr::from(found.sin6_addr.s6_addr);
            Ok(SocketAddrV6::new(ip, u16::from_be(found.sin6_port), 0, found.sin6_scope_id).into())
        }
    }
}

/// Reads a socket option of variable length into `buffer`; returns the bytes written.
fn option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let mut len = libc::socklen_t::try_from(buffer.len()).unwrap_or(libc::socklen_t::MAX);
    // SAFETY: `buffer` is writable for `len` bytes, `len` is a live socklen_t, and the kernel
    // writes no more than `len`.
    let answer = unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, buffer.as_mut_ptr().cast(), &raw mut len)
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    usize::try_from(len).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
#[path = "local_address_tests.rs"]
mod tests;
