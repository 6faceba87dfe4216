//! Sockets of the DNS server: bound before it starts, and UDP that answers from the address
//! it was asked at.
//!
//! A socket on a wildcard address would answer from whatever address the route to the asker
//! prefers, and the asker drops what comes from elsewhere. So the kernel is asked for each
//! datagram's destination (IP_PKTINFO, RFC 3542 §6.1), and the answer carries it as its source.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, TcpListener as StdListener, UdpSocket as StdUdp};
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::counters::Transport;

/// Datagrams that wait while the thread answers others. The kernel caps it at `net.core.rmem_max`.
const RECEIVE_BYTES: usize = 4 << 20;
/// Connections that wait for a place.
const BACKLOG: i32 = 256;
/// Sizes of IP_PKTINFO and IPV6_PKTINFO (`in_pktinfo` is 12 bytes, `in6_pktinfo` 20),
/// with their headers.
const CONTROL_BYTES: usize = 64;
/// How often both sockets of port 0 are sought on one port.
const PORT_TRIES: usize = 16;

/// Both sockets of one configured address.
pub(super) struct Pair {
    pub(super) address: SocketAddr,
    pub(super) udp: StdUdp,
    pub(super) tcp: StdListener,
}

/// Binds UDP and TCP on the same port. Port 0 is any that is free for both. `shared`: a process of
/// ours may have them until we answer; nobody else may.
pub(super) fn bind(address: SocketAddr, shared: bool) -> Result<Pair, (Transport, io::Error)> {
    if !shared && address.port() != 0 {
        // SO_REUSEPORT would let a second server of the same user have half of the questions.
        for transport in [Transport::Udp, Transport::Tcp] {
            free(address, transport).map_err(|error| (transport, error))?;
        }
    }
    let mut tries = 1..if address.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        let udp = bind_udp(address).map_err(|error| (Transport::Udp, error))?;
        let real = udp.local_addr().map_err(|error| (Transport::Udp, error))?;
        match bind_tcp(real) {
            Ok(tcp) => return Ok(Pair { address: real, udp, tcp }),
            Err(error) if error.kind() != io::ErrorKind::AddrInUse || tries.next().is_none() => {
                return Err((Transport::Tcp, error));
            }
            Err(_) => {}
        }
    }
}

/// Asks for an address alone.
fn free(address: SocketAddr, transport: Transport) -> io::Result<()> {
    let (kind, protocol) = match transport {
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Of TCP for the sake of TIME_WAIT; of UDP it would share.
    socket.set_reuse_address(transport == Transport::Tcp)?;
    socket.bind(&address.into())
}

fn bind_udp(address: SocketAddr) -> io::Result<StdUdp> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    let _capped = socket.set_recv_buffer_size(RECEIVE_BYTES);
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if address.ip().is_unspecified() {
        if address.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
    }
    socket.set_nonblocking(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn bind_tcp(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Or a restart would wait for the last connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A UDP socket that keeps, for the datagram at hand, where it came from and where it went.
pub(super) struct Datagrams {
    socket: UdpSocket,
    control: Vec<u8>,
}

/// Where an answer goes.
pub(super) struct Asker {
    /// Who asked.
    pub(super) peer: SocketAddr,
    from: SockaddrStorage,
    asked_at: Option<AskedAt>,
}

/// The address a datagram was sent to, as the kernel gives it.
enum AskedAt {
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

impl Datagrams {
    /// Inside the runtime that will drive it.
    pub(super) fn new(socket: StdUdp) -> io::Result<Self> {
        let control = cmsg_space!([u8; CONTROL_BYTES]);
        Ok(Self { socket: UdpSocket::from_std(socket)?, control })
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// The next datagram, cut at the buffer's length; `WouldBlock` if there is none.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Option<Asker>)> {
        let Self { socket, control } = self;
        socket.try_io(Interest::READABLE, || {
            let mut parts = [IoSliceMut::new(buffer)];
            let message = recvmsg::<SockaddrStorage>(
                socket.as_raw_fd(),
                &mut parts,
                Some(control),
                MsgFlags::empty(),
            )?;
            let mut asked_at = None;
            for control in message.cmsgs()? {
                // The interface is left to the routes: a forced one breaks where
                // they are asymmetric.
                if let ControlMessageOwned::Ipv4PacketInfo(mut info) = control {
                    info.ipi_ifindex = 0;
                    asked_at = Some(AskedAt::V4(info));
                } else if let ControlMessageOwned::Ipv6PacketInfo(mut info) = control {
                    info.ipi6_ifindex = 0;
                    asked_at = Some(AskedAt::V6(info));
                }
            }
            let asker = message.address.and_then(|from| {
                let v4 = from.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
                let v6 = || from.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into()));
                Some(Asker { peer: v4.or_else(v6)?, from, asked_at })
            });
            Ok((message.bytes, asker))
        })
    }

    /// Sends an answer. Never waits: what the kernel has no room for is lost, as datagrams are.
    pub(super) fn send(&self, answer: &[u8], to: &Asker) -> io::Result<()> {
        let parts = [IoSlice::new(answer)];
        let source = match &to.asked_at {
            Some(AskedAt::V4(info)) => Some(ControlMessage::Ipv4PacketInfo(info)),
            Some(AskedAt::V6(info)) => Some(ControlMessage::Ipv6PacketInfo(info)),
            None => None,
        };
        let fd = self.socket.as_raw_fd();
        sendmsg(fd, &parts, source.as_slice(), MsgFlags::MSG_DONTWAIT, Some(&to.from))?;
        Ok(())
    }
}
