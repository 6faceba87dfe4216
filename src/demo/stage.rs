//! The set-up of the demonstration: who is there, which VMs, at which addresses, with which
//! throw-away keys.

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use nix::unistd::{Uid, User};
use socket2::{Domain, Socket, Type};

use super::agent_identity::Identity;
use super::directory::Directory;
use super::sshd::{Files, Sshd};
use super::vm::{self, Vm};
use crate::serve::Failure;
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::PublicKey;
use crate::ssh::userauth::Credential;

/// A pool address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Address {
    pub(super) name: &'static str,
    pub(super) ip: Ipv4Addr,
}

pub(super) const S001: Address = Address { name: "s001", ip: Ipv4Addr::new(127, 0, 77, 1) };
pub(super) const S002: Address = Address { name: "s002", ip: Ipv4Addr::new(127, 0, 77, 2) };
pub(super) const S003: Address = Address { name: "s003", ip: Ipv4Addr::new(127, 0, 77, 3) };
pub(super) const LOBBY: Address = Address { name: "lobby", ip: Ipv4Addr::new(127, 0, 77, 4) };
/// The pool. All of 127/8 is here on Linux, and nowhere else.
pub(super) const POOL: [Address; 4] = [S001, S002, S003, LOBBY];

/// Who owns a VM, and where it answers its owner.
pub(super) struct PlacedVm {
    pub(super) vm: &'static str,
    pub(super) owner: Who,
    pub(super) address: Address,
    pub(super) state: State,
    pub(super) carrier: Carrier,
}

/// What carries sessions with a VM.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Carrier {
    /// The front door, which opens and seals each packet again.
    FrontDoor,
    /// The agent of the node that it lies on: the front door has no key of them.
    Agent,
}

/// Whether anything runs there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    Up,
    Down,
}

impl PlacedVm {
    const fn new(vm: &'static str, owner: Who, address: Address) -> Self {
        Self { vm, owner, address, state: State::Up, carrier: Carrier::FrontDoor }
    }
}

pub(super) const PLACED_VMS: [PlacedVm; 4] = [
    PlacedVm::new("blue", Who::Alice, S001),
    PlacedVm::new("green", Who::Bob, S001),
    PlacedVm { carrier: Carrier::Agent, ..PlacedVm::new("red", Who::Alice, S002) },
    PlacedVm { state: State::Down, ..PlacedVm::new("grey", Who::Alice, S003) },
];
/// The node of the agent.
const NODE: &str = "n1";

/// A user.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Who {
    Alice,
    Bob,
}

impl Who {
    pub(super) const ALL: [Self; 2] = [Self::Alice, Self::Bob];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Alice => "alice",
            Self::Bob => "bob",
        }
    }
}

/// What answers for the VMs that are up.
enum Machine {
    BuiltIn(Vm),
    Sshd(Sshd),
}

impl Machine {
    const fn address(&self) -> SocketAddr {
        match self {
            Self::BuiltIn(vm) => vm.address(),
            Self::Sshd(sshd) => sshd.address(),
        }
    }
}

/// Which servers the VMs are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// Our own small one.
    BuiltIn,
    /// The installed sshd.
    Sshd,
}

/// Everything but the front door. Dropping it ends the VMs and removes the directory.
pub(super) struct Stage {
    pub(super) kind: Kind,
    machines: Vec<(&'static str, Machine)>,
    host_keys: Vec<(&'static str, PublicKey)>,
    /// Bound and not listening: nobody else can take the port of the VM that is down.
    vacant: Socket,
    users: Vec<(Who, Credential, PathBuf)>,
    /// Last, for the VMs' homes are in it.
    directory: Directory,
}

impl Stage {
    /// Makes the users' keys and starts the VMs, each of which trusts one CA: that of whatever
    /// carries sessions with it.
    pub(super) fn set(
        directory: Directory,
        user_ca: &PublicKey,
        agent: &Identity,
        kind: Kind,
        entropy: &mut SystemEntropy,
    ) -> Result<Self, Failure> {
        let mut users = Vec::new();
        for who in Who::ALL {
            let key = PrivateKey::generate_ed25519(entropy);
            let text = key.to_openssh(&format!("{} (keyway demo)", who.name()), entropy);
            let file = directory.file(who.name(), &text)?;
            users.push((who, Credential { key: Arc::new(key), certificate: None }, file));
        }
        let agent_ca = agent.user_ca.public();
        let ca_file = directory.file("user_ca.pub", &format!("{}\n", user_ca.to_line()))?;
        let agent_ca_file = directory.file("agent_ca.pub", &format!("{}\n", agent_ca.to_line()))?;
        let (mut machines, mut host_keys) = (Vec::new(), Vec::new());
        for PlacedVm { vm: name, owner, state, carrier, .. } in PLACED_VMS {
            if state == State::Down {
                continue;
            }
            let (user_ca, ca_file) = match carrier {
                Carrier::FrontDoor => (user_ca, &ca_file),
                Carrier::Agent => (agent_ca, &agent_ca_file),
            };
            let home = directory.directory(&format!("vms/{name}"))?;
            let host_key = PrivateKey::generate_ed25519(entropy);
            host_keys.push((name, host_key.public().clone()));
            let machine = match kind {
                Kind::BuiltIn => {
                    directory.file(&format!("vms/{name}/.profile"), &profile(name, owner))?;
                    let user_ca = user_ca.clone();
                    let setup = vm::Setup { name: name.into(), home, host_key, user_ca };
                    Machine::BuiltIn(Vm::start(setup)?)
                }
                Kind::Sshd => {
                    let text = host_key.to_openssh(name, entropy);
                    let host_key = directory.file(&format!("vms/{name}.host_key"), &text)?;
                    let files = Files { host_key: &host_key, user_ca: ca_file };
                    Machine::Sshd(Sshd::start(name, &directory, &files)?)
                }
            };
            machines.push((name, machine));
        }
        let vacant = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        vacant.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
        Ok(Self { kind, machines, host_keys, vacant, users, directory })
    }

    pub(super) const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// A user's key.
    pub(super) fn credential(&self, who: Who) -> Option<&Credential> {
        self.user(who).map(|(_, credential, _)| credential)
    }

    /// The file of a user's key.
    pub(super) fn identity(&self, who: Who) -> Option<&PathBuf> {
        self.user(who).map(|(_, _, file)| file)
    }

    fn user(&self, who: Who) -> Option<&(Who, Credential, PathBuf)> {
        self.users.iter().find(|(user, _, _)| *user == who)
    }

    /// Who may go where: the fleet file.
    pub(super) fn fleet(&self, agent: &Identity) -> Result<String, Failure> {
        let mut text = String::from("# Who may go where, in this demonstration.\n");
        for address in POOL {
            let lobby = address == LOBBY;
            let _infallible = write!(
                text,
                "\n[[address]]\nname = \"{}\"\npublic = \"{}\"\nlobby = {lobby}\n",
                address.name, address.ip
            );
        }
        for (who, credential, _) in &self.users {
            let (name, key) = (who.name(), credential.key.public().to_line());
            let _infallible =
                write!(text, "\n[[user]]\nname = \"{name}\"\nkeys = [\"{key} {name}\"]\n");
        }
        let _infallible = write!(
            text,
            "\n[[node]]\nname = \"{NODE}\"\nagent = \"{}\"\nagent_key = \"{}\"\ntrusted = true\n",
            agent.address,
            agent.key.fingerprint()
        );
        // sshd knows the users of this machine only.
        let login = match self.kind {
            Kind::BuiltIn => String::new(),
            Kind::Sshd => format!("login = \"{}\"\n", own_name()?),
        };
        for PlacedVm { vm, owner, address, carrier, .. } in PLACED_VMS {
            let endpoint = self.endpoint(vm)?;
            let _infallible = write!(
                text,
                "\n[[vm]]\nname = \"{vm}\"\nowner = \"{}\"\naddress = \"{}\"\nssh = \"{endpoint}\"\n{login}",
                owner.name(),
                address.name
            );
            if carrier == Carrier::Agent {
                let _infallible = writeln!(text, "node = \"{NODE}\"");
            }
            if let Some((_, key)) = self.host_keys.iter().find(|(name, _)| *name == vm) {
                let _infallible = writeln!(text, "host_key = \"{}\"", key.to_line());
            }
        }
        Ok(text)
    }

    fn endpoint(&self, name: &str) -> io::Result<SocketAddr> {
        let machine = self.machines.iter().find(|(machine, _)| *machine == name);
        if let Some((_, machine)) = machine {
            return Ok(machine.address());
        }
        self.vacant.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }
}

/// The name of the user who runs this.
pub(super) fn own_name() -> Result<String, Failure> {
    let user = User::from_uid(Uid::effective())?;
    Ok(user.ok_or("the user who runs this has no name, which sshd needs")?.name)
}

/// What a login shell in a VM reads first.
fn profile(vm: &str, owner: Who) -> String {
    let owner = owner.name();
    format!(
        r#"PS1="$LOGNAME@{vm}\$ "
[ -z "$BASH_VERSION" ] || PS1="$LOGNAME@{vm}:\w\$ "
unset HISTFILE
echo 'This is {vm}, a VM of {owner}. Its commands are real: they run on your machine, as you.'
"#
    )
}
