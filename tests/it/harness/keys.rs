//! Throw-away keys, certificates and agents, all made by OpenSSH's own tools.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Process, run, wait};

/// A key pair on disk, without a passphrase.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    path: PathBuf,
}

impl Key {
    pub(crate) fn ed25519(dir: &Path, name: &str) -> Self {
        Self::generate(dir, name, &["-t", "ed25519"])
    }

    /// `kind`: the arguments of `ssh-keygen` that choose type and size.
    pub(crate) fn generate(dir: &Path, name: &str, kind: &[&str]) -> Self {
        let path = dir.join(name);
        run(Command::new("ssh-keygen")
            .args(kind)
            .args(["-q", "-N", "", "-C", name, "-f"])
            .arg(&path))
        .ok();
        Self { path }
    }

    /// One that was made before.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn public_path(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".pub");
        path.into()
    }

    /// `ssh-ed25519 AAAA... name`.
    pub(crate) fn public_line(&self) -> String {
        fs::read_to_string(self.public_path()).expect("a public key").trim_end().to_owned()
    }

    /// `ssh-ed25519 AAAA...`, without the comment.
    pub(crate) fn public(&self) -> String {
        self.public_line().split(' ').take(2).collect::<Vec<_>>().join(" ")
    }

    /// `SHA256:...`.
    pub(crate) fn fingerprint(&self) -> String {
        let line = run(Command::new("ssh-keygen").arg("-lf").arg(self.public_path())).ok().text();
        line.split(' ').nth(1).expect("a fingerprint").to_owned()
    }

    /// Signs `self` with `ca` as a user certificate, which stands beside the key from then on.
    pub(crate) fn certify(&self, ca: &Self, principals: &str, options: &[&str]) -> PathBuf {
        run(Command::new("ssh-keygen")
            .arg("-q")
            .arg("-s")
            .arg(&ca.path)
            .args(["-I", "test-certificate", "-n", principals])
            .args(options)
            .arg(self.public_path()))
        .ok();
        let mut path = self.path.clone().into_os_string();
        path.push("-cert.pub");
        path.into()
    }
}

/// An `ssh-agent` with some keys.
#[derive(Debug)]
pub(crate) struct Agent {
    socket: PathBuf,
    _process: Process,
}

impl Agent {
    /// The agent offers the keys in this order.
    pub(crate) fn with(dir: &Path, keys: &[&Key]) -> Self {
        let socket = dir.join("agent");
        let process = Process::start(
            "ssh-agent",
            dir,
            Command::new("ssh-agent").args(["-D", "-a"]).arg(&socket),
        );
        // It is there before anybody listens at it.
        wait::until("the agent", wait::SOON, || UnixStream::connect(&socket).is_ok());
        for key in keys {
            run(Command::new("ssh-add").arg("-q").arg(key.path()).env("SSH_AUTH_SOCK", &socket))
                .ok();
        }
        Self { socket, _process: process }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}
