//! One stock `sshd`, standing for a VM.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Key, Process, peers, target, wait, world};

/// A VM: an `sshd` with its own host key. Its sessions find its name in `KEYWAY_VM`, and an empty
/// home: start-up files of whoever runs the tests would slow each shell down.
#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) host_key: Key,
    server: Server,
    config: PathBuf,
    /// A process in whose networks and mounts it runs.
    beside: Option<u32>,
    process: Option<Process>,
}

/// What answers in a VM.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Server {
    #[default]
    OpenSsh,
    /// `tests/peers/asyncssh_vm.py`: tells which signals arrive.
    AsyncSsh,
}

/// Whom an `sshd` lets in.
pub(crate) struct Trust<'a> {
    /// The operator's CA, and the principals its certificates must name one of.
    pub(crate) ca: &'a str,
    pub(crate) principals: &'a str,
    /// Lines of an `authorized_keys` file.
    pub(crate) keys: &'a str,
}

impl Vm {
    /// Prepares and starts it. `extra`: more lines of its configuration, which win
    /// over the usual ones.
    pub(crate) fn start(
        dir: &Path,
        name: &str,
        ip: IpAddr,
        trust: &Trust<'_>,
        server: Server,
        extra: &str,
    ) -> Self {
        let mut vm = Self::prepare(dir, name, ip, trust, server, extra);
        vm.up();
        vm
    }

    /// As [`Vm::start`], in the networks and mounts of another process.
    pub(crate) fn start_beside(
        process: u32,
        dir: &Path,
        name: &str,
        ip: IpAddr,
        trust: &Trust<'_>,
    ) -> Self {
        let mut vm = Self::prepare(dir, name, ip, trust, Server::OpenSsh, "");
        vm.beside = Some(process);
        vm.up();
        vm
    }

    fn prepare(
        dir: &Path,
        name: &str,
        ip: IpAddr,
        trust: &Trust<'_>,
        server: Server,
        extra: &str,
    ) -> Self {
        let dir = dir.join(format!("vm-{name}"));
        fs::create_dir_all(&dir).expect("a directory for the VM");
        // Root's sshd wants its privilege separation directory, which only an init script makes.
        let _ = fs::create_dir_all("/run/sshd");
        let host_key = Key::ed25519(&dir, "host_key");
        // Not the door's: it may listen at every address.
        let address = SocketAddr::new(ip, world::port() + 2);
        for (file, text) in [
            ("ca.pub", trust.ca),
            ("principals", trust.principals),
            ("authorized_keys", trust.keys),
        ] {
            fs::write(dir.join(file), text).expect("a file of the VM");
        }
        let authority = format!(
            "cert-authority,principals=\"{}\" {}\n{}",
            trust.principals.lines().collect::<Vec<_>>().join(","),
            trust.ca.lines().next().expect("a CA"),
            trust.keys
        );
        fs::write(dir.join("authorities"), authority).expect("a file of the VM");
        let config = dir.join("sshd_config");
        let sftp = ["/usr/lib/openssh/sftp-server", "/usr/libexec/sftp-server"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .unwrap_or("internal-sftp");
        let at = dir.display();
        let text = format!(
            "{extra}\n\
             ListenAddress {address}\n\
             HostKey {at}/host_key\n\
             PidFile none\n\
             UsePAM no\n\
             StrictModes no\n\
             LogLevel VERBOSE\n\
             PermitRootLogin yes\n\
             PasswordAuthentication no\n\
             KbdInteractiveAuthentication no\n\
             TrustedUserCAKeys {at}/ca.pub\n\
             AuthorizedPrincipalsFile {at}/principals\n\
             AuthorizedKeysFile {at}/authorized_keys\n\
             MaxSessions 200\n\
             MaxStartups 200\n\
             AllowAgentForwarding yes\n\
             AllowTcpForwarding yes\n\
             AllowStreamLocalForwarding yes\n\
             GatewayPorts clientspecified\n\
             X11Forwarding yes\n\
             SetEnv KEYWAY_VM={name} HOME={at}\n\
             Subsystem sftp {sftp}\n"
        );
        fs::write(&config, text).expect("sshd_config");
        let name = name.to_owned();
        Self { name, address, host_key, server, config, beside: None, process: None }
    }

    /// Starts it again after [`Vm::down`].
    pub(crate) fn up(&mut self) {
        let dir = self.config.parent().expect("a directory");
        let mut command;
        match self.server {
            Server::OpenSsh => {
                let sshd = peers::program("openssh", "/usr/sbin/sshd");
                let sshd = sshd.expect("no test runs without sshd");
                command = match self.beside {
                    Some(process) => target::beside(process, &sshd),
                    None => Command::new(sshd),
                };
                command.arg("-D").arg("-f").arg(&self.config).arg("-E").arg(dir.join("log"));
            }
            Server::AsyncSsh => {
                let python = peers::python("python").expect("the test has asked before");
                command = Command::new(python);
                command
                    .arg(peers::script("asyncssh_vm.py"))
                    .arg(self.address.ip().to_string())
                    .arg(self.address.port().to_string())
                    .arg(dir.join("host_key"))
                    .arg(dir.join("authorities"));
            }
        }
        let mut process = Process::start(&format!("sshd-{}", self.name), dir, &mut command);
        match self.beside {
            Some(_) => wait::until("sshd", wait::SOON, || self.log().contains("Server listening")),
            None => wait::listens(&mut process, self.address),
        }
        self.process = Some(process);
    }

    /// Takes it away, its sessions too.
    pub(crate) fn down(&mut self) {
        self.process = None;
    }

    /// Replaces its host key, as a re-installed VM would.
    pub(crate) fn change_host_key(&mut self) {
        self.down();
        for path in [self.host_key.path().to_owned(), self.host_key.public_path()] {
            fs::remove_file(path).expect("the old key goes");
        }
        self.host_key = Key::ed25519(self.config.parent().expect("a directory"), "host_key");
        self.up();
    }

    /// The process that listens.
    pub(crate) fn id(&self) -> u32 {
        self.process.as_ref().expect("it is up").id()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.config.with_file_name("log")).unwrap_or_default()
    }
}
