//! The installed sshd as a VM, set up as a real VM has to be: it trusts the user CA, for the
//! principal `vm:<name>`.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::Uid;

use super::directory::Directory;

/// Where distributions put it. It insists on being started by its absolute path.
const PATHS: [&str; 3] = ["/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd"];
/// Where it wants to lock its unprivileged half in when it is started by root. Its service makes
/// it, and so do we.
const PRIVILEGE_SEPARATION: &str = "/run/sshd";
/// How long it may take to listen.
const START_WAIT: Duration = Duration::from_secs(10);
/// Between two looks whether it listens.
const START_REST: Duration = Duration::from_millis(20);

/// The key files in the directory that every sshd is pointed at.
pub(super) struct Files<'a> {
    /// Its host key.
    pub(super) host_key: &'a Path,
    /// The CA's public key.
    pub(super) user_ca: &'a Path,
}

/// A running sshd. Dropping it ends it; sessions end when the front door lets go of them.
pub(super) struct Sshd {
    child: Child,
    address: SocketAddr,
}

impl Sshd {
    /// Starts one for the VM called `name`.
    ///
    /// # Errors
    /// It is not installed, or did not start: with what it said.
    pub(super) fn start(name: &str, directory: &Directory, files: &Files<'_>) -> io::Result<Self> {
        let program = PATHS
            .into_iter()
            .find(|path| Path::new(path).exists())
            .ok_or_else(|| io::Error::other("no sshd is installed; leave out --sshd"))?;
        if Uid::effective().is_root() {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(PRIVILEGE_SEPARATION)?;
        }
        let port = TcpListener::bind((IpAddr::from([127, 0, 0, 1]), 0))?.local_addr()?.port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let principals =
            directory.file(&format!("vms/{name}.principals"), &format!("vm:{name}\n"))?;
        let text = configuration(name, address, files, &principals);
        let file = directory.file(&format!("vms/{name}.sshd_config"), &text)?;
        let log = directory.path().join(format!("vms/{name}.log"));
        let child = Command::new(program)
            .args([Path::new("-D"), Path::new("-f"), &file, Path::new("-E"), &log])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut sshd = Self { child, address };
        sshd.wait(&log)?;
        Ok(sshd)
    }

    /// Where it listens.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it listens.
    fn wait(&mut self, log: &Path) -> io::Result<()> {
        let until = Instant::now() + START_WAIT;
        loop {
            if TcpStream::connect(self.address).is_ok() {
                return Ok(());
            }
            if self.child.try_wait()?.is_some() || Instant::now() > until {
                let said = std::fs::read_to_string(log).unwrap_or_default();
                return Err(io::Error::other(format!("sshd did not start: {}", said.trim())));
            }
            std::thread::sleep(START_REST);
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Paths are quoted, for the temporary directory may be anywhere.
fn configuration(name: &str, address: SocketAddr, files: &Files<'_>, principals: &Path) -> String {
    let (ip, port) = (address.ip(), address.port());
    let (host_key, user_ca) = (files.host_key.display(), files.user_ca.display());
    let principals = principals.display();
    format!(
        "ListenAddress {ip}:{port}\n\
         HostKey \"{host_key}\"\n\
         TrustedUserCAKeys \"{user_ca}\"\n\
         AuthorizedPrincipalsFile \"{principals}\"\n\
         AuthorizedKeysFile none\n\
         AuthenticationMethods publickey\n\
         PasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         UsePAM no\n\
         StrictModes no\n\
         MaxStartups 100\n\
         PidFile none\n\
         PrintMotd no\n\
         SetEnv KEYWAY_VM={name}\n\
         Subsystem sftp internal-sftp\n"
    )
}
