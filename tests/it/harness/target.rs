//! Where somebody goes to, with all that stock clients want to know.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::keys::Agent;
use super::{Key, Output, peers, run};

/// All that a stock client needs to know to log in somewhere.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) login: String,
    pub(crate) key: Key,
    pub(crate) host_key: Key,
    pub(crate) known_hosts: PathBuf,
    /// An `ssh_config` whose host `door` is this target.
    pub(crate) config: PathBuf,
}

impl Target {
    pub(super) fn new(
        dir: &Path,
        user: &str,
        address: &str,
        to: SocketAddr,
        host_key: Key,
        key: Key,
    ) -> Self {
        let (host, port) = (to.ip().to_string(), to.port());
        let login = login();
        let known_hosts = dir.join(format!("known_hosts-{user}-{address}"));
        // dropbear looks for the bare address, everybody else for address and port.
        let line = host_key.public();
        fs::write(&known_hosts, format!("[{host}]:{port} {line}\n{host} {line}\n"))
            .expect("known_hosts");
        let config = dir.join(format!("ssh_config-{user}-{address}"));
        let text = format!(
            "Host door\n  HostName {host}\n  Port {port}\n  User {login}\n  IdentityFile {}\n\
             Host *\n  IdentitiesOnly yes\n  IdentityAgent none\n  UserKnownHostsFile {}\n  \
             GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  UpdateHostKeys no\n  \
             BatchMode yes\n  ConnectTimeout 30\n",
            key.path().display(),
            known_hosts.display()
        );
        fs::write(&config, text).expect("ssh_config");
        Self { host, port, login, key, host_key, known_hosts, config }
    }

    /// A program of OpenSSH, set up for this target: its host is `door`.
    pub(crate) fn openssh(&self, program: &str) -> Command {
        let program = peers::program("openssh", program).expect("no test runs without OpenSSH");
        let mut command = Command::new(program);
        command.arg("-F").arg(&self.config);
        command
    }

    /// `ssh` with the keys of `agent` and no other.
    pub(crate) fn ssh_with_agent(&self, agent: &Agent) -> Command {
        let mut command = self.openssh("ssh");
        command
            .env("SSH_AUTH_SOCK", agent.socket())
            .args(["-o", "IdentitiesOnly=no", "-o", "IdentityAgent=SSH_AUTH_SOCK"])
            .args(["-o", "IdentityFile=none"]);
        command
    }

    /// `ssh OPTIONS door COMMAND`.
    #[track_caller]
    pub(crate) fn ssh(&self, options: &[&str], command: &str) -> Output {
        run(self.openssh("ssh").args(options).arg("door").arg(command))
    }
}

/// Who runs the tests: an `sshd` that is not root's lets nobody else in.
pub(crate) fn login() -> String {
    run(Command::new("id").arg("-un")).ok().text()
}

/// A program in the networks, mounts and working directory of another process.
pub(crate) fn beside(process: u32, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--net", "--mount", "--wd", "--target", &process.to_string()]).arg(program);
    command
}
