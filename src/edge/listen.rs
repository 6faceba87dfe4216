//! The listening sockets: for every shard and every address one, all with the same options.
//!
//! All listeners of one address form a reuseport group in shard order, and a small packet-filter
//! program picks the listener of the shard that runs on the CPU that received the SYN: the
//! connection, its softirq work and its shard stay on one CPU.
//!
//! Source: socket(7), ip(7), tcp(7); Linux `net/core/sock_reuseport.c` (the index a program returns
//! is the order in which the sockets of the group began to listen).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::socket_options;

/// Connections that may wait to be accepted, per listener. The kernel cuts it to
/// `net.core.somaxconn` (4,096 by default).
pub const BACKLOG: i32 = 4096;

/// One listening socket of one shard.
#[derive(Debug)]
pub struct Listener {
    /// The socket: listening, non-blocking, close-on-exec.
    pub socket: Socket,
    /// What it is bound to; the port is the real one even if 0 was asked for.
    pub address: SocketAddr,
}

impl Listener {
    /// The same one again.
    ///
    /// # Errors
    /// Out of descriptors.
    pub(super) fn again(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, address: self.address })
    }
}

/// What [`bind`] hands out.
#[derive(Debug)]
pub struct Listeners {
    /// The listeners of each shard, in shard order; inside a shard in the order of the addresses.
    pub shards: Vec<Vec<Listener>>,
    /// What works less well than it could.
    pub warnings: Vec<Warning>,
}

impl Listeners {
    /// Sets how long the clients that will be accepted may acknowledge nothing.
    ///
    /// # Errors
    /// [`ListenError::Failed`].
    pub fn be_patient(&self, patience: Option<Duration>) -> Result<(), ListenError> {
        for listener in self.shards.iter().flatten() {
            socket_options::be_patient(&listener.socket, patience)
                .map_err(|cause| refused(listener.address, "TCP_USER_TIMEOUT", cause))?;
        }
        Ok(())
    }
}

/// The listeners are up, but the operator should know this.
#[derive(Debug, thiserror::Error)]
pub enum Warning {
    /// The kernel refused the steering program: it spreads connections over the shards
    /// by hash instead.
    #[error("{address}: connections are not steered to the CPU that receives them ({source})")]
    Unsteered {
        /// The listeners' address.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The address is not on this host. It is listened on all the same and works as
    /// soon as it comes.
    #[error(
        "{address} is not an address of this host yet: nobody reaches it before it is added \
         (`ip addr add`, or `ip route add local ... dev lo` for a whole pool)"
    )]
    NotHere {
        /// The listeners' address.
        address: SocketAddr,
    },
}

/// Why an address cannot be listened on. Each says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another program has it.
    #[error(
        "{address} is in use by another program (`ss -ltnp sport = :{port}` names it). If it is the host's own sshd, \
         give that another Port or ListenAddress, or listen on the pool addresses by name",
        port = address.port()
    )]
    InUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// A port under 1024 without the right to it.
    #[error(
        "no permission to listen on {address}: ports below 1024 need CAP_NET_BIND_SERVICE. Give it with \
         `AmbientCapabilities=CAP_NET_BIND_SERVICE` in the systemd unit or `setcap cap_net_bind_service=+ep` on the \
         binary, or lower net.ipv4.ip_unprivileged_port_start"
    )]
    Denied {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Not an address that this host could ever have, e.g. a link-local one without its interface.
    #[error("{address} cannot be listened on: it is not an address a host can have here")]
    Unknown {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The kernel has no such address family, usually because IPv6 is off.
    #[error("{address} cannot be listened on: this host has no {family}; remove it from `listen`",
        family = if address.is_ipv6() { "IPv6" } else { "IPv4" })]
    NoFamily {
        /// The address asked for.
        address: SocketAddr,
    },
    /// An IPv4 address written as IPv6. Listeners for IPv6 take IPv6 only.
    #[error("write {address} as the IPv4 address it is")]
    Mapped {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The same address twice.
    #[error("{address} is listed twice")]
    Twice {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Anything else the kernel said.
    #[error("{address} cannot be listened on: {step}: {source}")]
    Failed {
        /// The address asked for.
        address: SocketAddr,
        /// What was being done.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Addresses that are ours, and nobody can connect to yet.
#[derive(Debug)]
pub struct Reserved {
    listeners: Listeners,
    cpus: Vec<usize>,
}

/// Listens on every address once for each shard; `cpus` names the CPU of each
/// shard, in shard order.
///
/// # Errors
/// The first [`ListenError`]; sockets opened before it are closed again.
pub fn bind(addresses: &[SocketAddr], cpus: &[usize]) -> Result<Listeners, ListenError> {
    reserve(addresses, cpus, false)?.open(0)
}

/// Takes every address once for each shard, without listening: what can fail has failed
/// before anybody is let in. `is_beside`: a process of ours listens at these addresses, and
/// goes on until we do.
///
/// # Errors
/// As [`bind`].
pub fn reserve(
    addresses: &[SocketAddr],
    cpus: &[usize],
    is_beside: bool,
) -> Result<Reserved, ListenError> {
    for (position, &address) in addresses.iter().enumerate() {
        if addresses[..position].contains(&address) {
            return Err(ListenError::Twice { address });
        }
    }
    let mut warnings = Vec::new();
    // All before the first of ours listens: a wildcard beside a named address of the same
    // port is no conflict.
    for &address in addresses {
        match probe(address) {
            Ok(warning) => warnings.extend(warning),
            // Its owner gives it up once we listen. Of another user's program the bind below tells.
            Err(ListenError::InUse { .. }) if is_beside => {}
            Err(fault) => return Err(fault),
        }
    }
    let mut shards: Vec<Vec<Listener>> = cpus.iter().map(|_| Vec::new()).collect();
    for &asked in addresses {
        let mut address = asked;
        for shard in &mut shards {
            let socket = open(address)?;
            if address.port() == 0 {
                address = bound_to(&socket, address)?;
            }
            shard.push(Listener { socket, address });
        }
    }
    let listeners = Listeners { shards, warnings };
    Ok(Reserved { listeners, cpus: cpus.to_vec() })
}

impl Reserved {
    /// As [`Listeners::be_patient`].
    ///
    /// # Errors
    /// [`ListenError::Failed`].
    pub fn be_patient(&self, patience: Option<Duration>) -> Result<(), ListenError> {
        self.listeners.be_patient(patience)
    }

    /// Listens: from now on whoever connects waits for us. `beside`: so many shards of a process of
    /// ours listen here now.
    ///
    /// # Errors
    /// As [`bind`].
    pub fn open(self, beside: usize) -> Result<Listeners, ListenError> {
        let Self { mut listeners, cpus } = self;
        let addresses = listeners.shards.first().map_or(0, Vec::len);
        for at in 0..addresses {
            // In the order of the shards: it is what the program names them by.
            for listener in listeners.shards.iter().filter_map(|shard| shard.get(at)) {
                let failed = |cause| refused(listener.address, "listen", cause);
                listener.socket.listen(BACKLOG).map_err(failed)?;
            }
            // The program belongs to the group, so any member may set it; the group is
            // complete only now.
            if let Some(last) = listeners.shards.last().and_then(|shard| shard.get(at)) {
                listeners.warnings.extend(steered(last, &cpus, beside));
            }
        }
        Ok(listeners)
    }
}

/// Steers connections at `listener`'s address to the shards of this process, which has it for
/// itself from now on.
pub fn steer_alone(listener: &Listener, cpus: &[usize]) -> Option<Warning> {
    steer(&listener.socket, cpus, 0)
        .err()
        .map(|source| Warning::Unsteered { address: listener.address, source })
}

/// Asks for `address` alone. `SO_REUSEPORT` would let a second Keyway of the same user share the
/// port and take half of the connections, and `IP_FREEBIND` takes any address: only a bind
/// without both tells.
fn probe(address: SocketAddr) -> Result<Option<Warning>, ListenError> {
    if let IpAddr::V6(ip) = address.ip()
        && ip.to_ipv4_mapped().is_some()
    {
        return Err(ListenError::Mapped { address });
    }
    let socket = plain(address)?;
    match socket.bind(&address.into()) {
        Ok(()) => Ok(None),
        Err(cause) if cause.kind() == io::ErrorKind::AddrNotAvailable => {
            Ok(Some(Warning::NotHere { address }))
        }
        Err(cause) => Err(refused(address, "bind", cause)),
    }
}

/// A socket of the right family that accepted sockets may linger beside.
fn plain(address: SocketAddr) -> Result<Socket, ListenError> {
    let failed = |step| move |cause| refused(address, step, cause);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
        .map_err(failed("socket"))?;
    // Sessions of an earlier process, or in TIME_WAIT, must not keep a new one from listening.
    socket.set_reuse_address(true).map_err(failed("SO_REUSEADDR"))?;
    if address.is_ipv6() {
        socket.set_only_v6(true).map_err(failed("IPV6_V6ONLY"))?;
    }
    Ok(socket)
}

/// One listener with all its options; accepted sockets inherit those of a connection and the two
/// that tell the local address.
fn open(address: SocketAddr) -> Result<Socket, ListenError> {
    let failed = |step| move |cause| refused(address, step, cause);
    let socket = plain(address)?;
    socket.set_reuse_port(true).map_err(failed("SO_REUSEPORT"))?;
    socket.set_nonblocking(true).map_err(failed("O_NONBLOCK"))?;
    socket_options::established(&socket).map_err(failed("connection options"))?;
    if address.is_ipv4() {
        socket.set_freebind_v4(true).map_err(failed("IP_FREEBIND"))?;
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)
            .map_err(|errno| refused(address, "IP_PKTINFO", errno.into()))?;
    } else {
        socket.set_freebind_v6(true).map_err(failed("IPV6_FREEBIND"))?;
        save_syn(&socket).map_err(failed("TCP_SAVE_SYN"))?;
    }
    socket.bind(&address.into()).map_err(failed("bind"))?;
    Ok(socket)
}

/// Keeps the headers of each SYN until `local_address` has read them (about 80 bytes of kernel
/// memory a connection).
fn save_syn(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and the length are those of one live c_int, which is what
    // the option takes.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_SAVE_SYN,
            std::ptr::from_ref(&on).cast(),
            libc::socklen_t::try_from(size_of_val(&on)).unwrap_or(0),
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn bound_to(socket: &Socket, address: SocketAddr) -> Result<SocketAddr, ListenError> {
    let bound =
        socket.local_addr().map_err(|cause| refused(address, "getsockname", cause))?.as_socket();
    Ok(bound.unwrap_or(address))
}

fn refused(address: SocketAddr, step: &'static str, source: io::Error) -> ListenError {
    match source.raw_os_error() {
        Some(libc::EADDRINUSE) => ListenError::InUse { address },
        Some(libc::EACCES | libc::EPERM) => ListenError::Denied { address },
        Some(libc::EADDRNOTAVAIL | libc::EINVAL | libc::ENODEV) if step == "bind" => {
            ListenError::Unknown { address }
        }
        Some(libc::EAFNOSUPPORT) => ListenError::NoFamily { address },
        _ => ListenError::Failed { address, step, source },
    }
}

/// `beside`: so many listeners of another process of ours came before ours. All that is new comes
/// to us, so that it can close its own when those who were on their way to it are in.
fn steered(member: &Listener, cpus: &[usize], beside: usize) -> Option<Warning> {
    if cpus.len() < 2 && beside == 0 {
        return None;
    }
    let steered = steer(&member.socket, cpus, beside);
    steered.err().map(|source| Warning::Unsteered { address: member.address, source })
}

/// Gives the reuseport group of `member` the program of [`steering`].
fn steer(member: &Socket, cpus: &[usize], before: usize) -> io::Result<()> {
    let mut program = steering(cpus, before)?;
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let whole = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    setsockopt(member, sockopt::AttachReusePortCbpf, &whole).map_err(io::Error::from)
}

/// From the CPU that runs the softirq to the index of the listener: `cpu % shards` where shard n
/// runs on CPU n, else a comparison for each shard first. A CPU without a shard takes the
/// remainder. `before`: listeners of the group that are before ours; an index that is none (they
/// are gone) leaves the choice to the kernel.
fn steering(cpus: &[usize], before: usize) -> io::Result<Vec<libc::sock_filter>> {
    // A load at SKF_AD_OFF + SKF_AD_CPU is the kernel's extension "which CPU am I on".
    let cpu = libc::SKF_AD_OFF.wrapping_add(libc::SKF_AD_CPU).cast_unsigned();
    let number = |number: usize| u32::try_from(number).map_err(|_| io::ErrorKind::InvalidInput);
    let (count, before) = (number(cpus.len())?, number(before)?);
    let mut program = vec![instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, cpu, 0)];
    if cpus.iter().enumerate().any(|(shard, &cpu)| shard != cpu) {
        for (shard, &cpu) in (0_u32..).zip(cpus) {
            let cpu = u32::try_from(cpu).map_err(|_| io::ErrorKind::InvalidInput)?;
            program.push(instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, cpu, 1));
            program.push(instruction(libc::BPF_RET | libc::BPF_K, before.saturating_add(shard), 0));
        }
    }
    program.push(instruction(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, count, 0));
    program.push(instruction(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K, before, 0));
    program.push(instruction(libc::BPF_RET | libc::BPF_A, 0, 0));
    Ok(program)
}

/// One instruction; a jump skips `unless` instructions when its condition does not hold.
fn instruction(code: u32, k: u32, unless: u8) -> libc::sock_filter {
    // Every code of classic BPF fits 16 bits (linux/filter.h); an impossible one is
    // refused by the kernel.
    libc::sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt: 0, jf: unless, k }
}

#[cfg(test)]
#[path = "listen_tests.rs"]
mod tests;
