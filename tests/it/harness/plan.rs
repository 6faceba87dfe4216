//! What a test asks for, before there is a world.

use std::net::{IpAddr, SocketAddr};

use super::sshd;
use super::wire::Passing;

/// The port of the front door, at every pool address of the world. One of the process's own,
/// below those that the kernel hands out: whoever listens on a wildcard address would otherwise
/// answer in our place.
pub(crate) fn port() -> u16 {
    10_000 + u16::try_from(std::process::id() % 20_000).expect("less than 20,000")
}

/// What a test asks for; everything else is usual.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub(super) addresses: Vec<Address>,
    pub(super) listen: Vec<SocketAddr>,
    pub(super) users: Vec<String>,
    pub(super) vms: Vec<(String, String, String, String)>,
    pub(super) edge: String,
    pub(super) vm_leg: String,
    pub(super) sshd: String,
    pub(super) user_ca: bool,
    pub(super) handed: bool,
    pub(super) followed: Followed,
    /// Between clients and doors, and between edge and agent.
    pub(super) wires: [Option<Passing>; 2],
    pub(super) keys: Vec<(String, String, Vec<String>)>,
    pub(super) server: sshd::Server,
}

/// How the agent of a [`Plan`] is with the front door's feed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Followed {
    /// It judges by a file.
    #[default]
    No,
    /// It follows.
    Known,
    /// It will, once it has joined.
    Unjoined,
}

/// A pool address of a [`Plan`].
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) name: String,
    pub(super) place: Place,
    /// Further lines of its table.
    pub(super) more: &'static str,
}

/// Where a pool address is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// On loopback, the world's own.
    Own,
    /// The same, and known outside by another one.
    Natted,
    /// Where the test has laid a network for it.
    At(IpAddr),
}

impl Plan {
    pub(crate) fn address(self, name: &str) -> Self {
        self.address_with(name, Place::Own, "")
    }

    pub(crate) fn lobby(self, name: &str) -> Self {
        self.address_with(name, Place::Own, "lobby = true\n")
    }

    /// An address that the world knows by another one than this host sees.
    pub(crate) fn natted(self, name: &str) -> Self {
        self.address_with(name, Place::Natted, "")
    }

    /// An address in a network of the test's own; see [`Plan::listen`]. `more`: further
    /// lines of its table.
    pub(crate) fn address_at(self, name: &str, ip: IpAddr, more: &'static str) -> Self {
        self.address_with(name, Place::At(ip), more)
    }

    fn address_with(mut self, name: &str, place: Place, more: &'static str) -> Self {
        self.addresses.push(Address { name: name.to_owned(), place, more });
        self
    }

    /// Listens at `ip` and at no pool address by itself. Can be called again.
    pub(crate) fn listen(mut self, ip: IpAddr) -> Self {
        self.listen.push(SocketAddr::new(ip, port()));
        self
    }

    pub(crate) fn user(mut self, name: &str) -> Self {
        self.users.push(name.to_owned());
        self
    }

    /// One more key of `user`, made as `kind` tells `ssh-keygen`; found by
    /// [`World::key`] under `name`.
    pub(crate) fn extra_key(mut self, user: &str, name: &str, kind: &[&str]) -> Self {
        let kind = kind.iter().map(|&word| word.to_owned()).collect();
        self.keys.push((user.to_owned(), name.to_owned(), kind));
        self
    }

    pub(crate) fn vm(self, name: &str, owner: &str, address: &str) -> Self {
        self.vm_with(name, owner, address, "")
    }

    /// `more`: further lines of the `[[vm]]` table.
    pub(crate) fn vm_with(mut self, name: &str, owner: &str, address: &str, more: &str) -> Self {
        self.vms.push((name.to_owned(), owner.to_owned(), address.to_owned(), more.to_owned()));
        self
    }

    /// Further lines of `[edge]`.
    pub(crate) fn edge(mut self, lines: &str) -> Self {
        self.edge += lines;
        self.edge.push('\n');
        self
    }

    /// Further lines of `[vm_leg]`.
    pub(crate) fn vm_leg(mut self, lines: &str) -> Self {
        self.vm_leg += lines;
        self.vm_leg.push('\n');
        self
    }

    /// Further lines of every VM's `sshd_config`.
    pub(crate) fn sshd(mut self, lines: &str) -> Self {
        self.sshd += lines;
        self.sshd.push('\n');
        self
    }

    /// What answers in every VM.
    pub(crate) fn server(mut self, server: sshd::Server) -> Self {
        self.server = server;
        self
    }

    /// User certificates of the CA [`World::user_ca`] let in.
    pub(crate) fn user_ca(mut self) -> Self {
        self.user_ca = true;
        self
    }

    /// All VMs lie on a node with an agent, which takes their sessions over.
    pub(crate) fn handed(mut self) -> Self {
        self.handed = true;
        self
    }

    /// The same, and the agent follows the front door, which serves its API over TLS.
    pub(crate) fn followed(mut self) -> Self {
        self.followed = Followed::Known;
        self.handed()
    }

    /// The same, and neither knows the other: the agent does not run before it has joined.
    pub(crate) fn unjoined(mut self) -> Self {
        self.followed = Followed::Unjoined;
        self.handed()
    }

    /// A wire between edge and agent, for the test to tear.
    pub(crate) fn wired(mut self) -> Self {
        self.wires[1] = Some(Passing::Whole);
        self
    }

    /// Clients reach the doors, and edge and agent each other, over wires that cut what they carry
    /// into small pieces.
    pub(crate) fn cut(mut self, seed: u64) -> Self {
        self.wires = [seed, !seed].map(|seed| Some(Passing::Cut { seed }));
        self
    }
}
