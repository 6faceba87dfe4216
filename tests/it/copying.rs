//! Every stock client that the tests have, as something that copies a file to the VM and back.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{
    Output, Target, World, assert_same_file, peers, run, run_into, run_with_input, write_noise,
};
use crate::{openssh, russh_client};

pub(crate) const MB: u64 = 1_000_000;
/// Longer files are copied by streams alone: some libraries' sftp is slow.
const SFTP_BYTES_MAX: u64 = 10 * MB;

/// A client and the world it is to copy through.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Client {
    OpenSsh,
    Dropbear,
    Putty,
    Libssh,
    Libssh2,
    Paramiko,
    Asyncssh,
    NodeSsh2,
    Russh,
}

impl Client {
    /// Has alice run a command that fails, if the client tells how it ended, and copy `len`
    /// bytes to `s001` and back. Nothing happens if the client is not here.
    #[track_caller]
    pub(crate) fn copies(self, world: &World, len: u64) {
        match self {
            Self::OpenSsh => openssh::both_ways(world, &world.target("alice", "s001"), &[], len),
            Self::Dropbear => dropbear(world, len),
            Self::Putty => putty(world, len),
            Self::Libssh => libssh(world, len),
            Self::Libssh2 => python(world, "ssh2_peer.py", &[], len),
            Self::Paramiko => python(world, "paramiko_peer.py", &[], len),
            Self::Asyncssh => python(world, "asyncssh_peer.py", &["basic"], len),
            Self::NodeSsh2 => node(world, len),
            Self::Russh => russh_client::copies(&world.target("alice", "s001"), len),
        }
    }
}

/// The file that is copied, where it goes to, and where it comes back to.
struct Files {
    source: PathBuf,
    uploaded: PathBuf,
    downloaded: PathBuf,
}

impl Files {
    fn write(world: &World, len: u64) -> Self {
        let [source, uploaded, downloaded] =
            ["source", "uploaded", "downloaded"].map(|name| world.path(name));
        write_noise(&source, len, len);
        Self { source, uploaded, downloaded }
    }

    #[track_caller]
    fn assert_copied(&self, suffix: &str) {
        for copy in [&self.uploaded, &self.downloaded] {
            let mut copy = copy.clone().into_os_string();
            copy.push(suffix);
            assert_same_file(&self.source, Path::new(&copy));
        }
    }

    /// By commands whose input and output are the file.
    #[track_caller]
    fn stream(&self, client: impl Fn(&str) -> Command) {
        let (up, down) = (self.uploaded.display(), self.source.display());
        run_with_input(&mut client(&format!("cat > {up}")), &self.source).ok();
        // To a file: dropbear 2022.83 stands still at its end now and then if that is a pipe whose
        // reader is slow, with every byte read and nothing under way.
        run_into(&mut client(&format!("cat {down}")), &self.downloaded).ok();
        self.assert_copied("");
    }
}

/// Runs one of our peer programs: it checks an exit status itself and copies a file both ways.
#[track_caller]
fn peer(world: &World, mut command: Command, trusts: &dyn AsRef<OsStr>, with_sftp: bool, len: u64) {
    let target = world.target("alice", "s001");
    let files = Files::write(world, len);
    let with_sftp = with_sftp && len <= SFTP_BYTES_MAX;
    command
        .env("PEER_SFTP", if with_sftp { "yes" } else { "no" })
        .arg(&target.host)
        .arg(target.port.to_string())
        .arg(&target.login)
        .arg(target.key.path())
        .arg(trusts)
        .args([&files.source, &files.uploaded, &files.downloaded]);
    let output = run(&mut command).ok();
    assert_eq!(output.text(), "done", "{}", output.stderr);
    files.assert_copied("");
    if with_sftp {
        files.assert_copied(".sftp");
    }
}

#[track_caller]
fn python(world: &World, script: &str, first: &[&str], len: u64) {
    let Some(python) = peers::python("python") else { return };
    let mut command = Command::new(python);
    command.arg(peers::script(script)).args(first);
    let host_key = world.target("alice", "s001").host_key.public();
    peer(world, command, &host_key, true, len);
}

#[track_caller]
fn node(world: &World, len: u64) {
    let (Some(node), Some(modules)) = (peers::program("node", "node"), peers::node_modules())
    else {
        return;
    };
    let mut command = Command::new(node);
    command.arg(peers::script("node_peer.js")).env("NODE_PATH", modules);
    let host_key = world.target("alice", "s001").host_key.public();
    peer(world, command, &host_key, true, len);
}

#[track_caller]
fn libssh(world: &World, len: u64) {
    let Some(_) = peers::program("libssh", "/usr/include/libssh/libssh.h") else { return };
    // Several tests build it at a time.
    let program = world.path("libssh_peer");
    run(Command::new("gcc")
        .args(["-O1", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&program)
        .arg(peers::script("libssh_peer.c"))
        .arg("-lssh"))
    .ok();
    let known_hosts = world.target("alice", "s001").known_hosts;
    peer(world, Command::new(program), &known_hosts, false, len);
}

#[track_caller]
fn dropbear(world: &World, len: u64) {
    let Some(client) = dropbear_of(world, &world.target("alice", "s001")) else { return };
    let output = run(&mut client("echo $KEYWAY_VM; exit 7")).ends(7);
    assert_eq!(output.text(), "blue");
    Files::write(world, len).stream(client);
}

/// dropbear's client, on its way to `target`; the command is for it to run.
#[track_caller]
pub(crate) fn dropbear_of(
    world: &World,
    target: &Target,
) -> Option<impl Fn(&str) -> Command + use<>> {
    let dbclient = peers::program("dropbear", "dbclient")?;
    let convert = peers::program("dropbear", "dropbearconvert")?;
    let key = world.path("dropbear_key");
    run(Command::new(convert).args(["openssh", "dropbear"]).arg(target.key.path()).arg(&key)).ok();
    let home = world.path("home");
    fs::create_dir_all(home.join(".ssh")).expect("a home");
    fs::copy(&target.known_hosts, home.join(".ssh/known_hosts")).expect("known_hosts");
    let (port, login, host) = (target.port.to_string(), target.login.clone(), target.host.clone());
    Some(move |command: &str| {
        let mut client = Command::new(&dbclient);
        client.env("HOME", &home).arg("-i").arg(&key);
        client.args(["-p", &port, "-l", &login, &host, command]);
        client
    })
}

#[track_caller]
fn putty(world: &World, len: u64) {
    let target = world.target("alice", "s001");
    let Some(putty) = putty_of(world, &target) else { return };
    let plink = |command: &str| {
        let mut plink = putty("plink");
        plink.args([&*target.host, command]);
        plink
    };
    let output = run(&mut plink("echo $KEYWAY_VM; exit 7")).ends(7);
    assert_eq!(output.text(), "blue");
    Files::write(world, len).stream(plink);
}

/// The programs of PuTTY, on their way to `target`.
#[track_caller]
pub(crate) fn putty_of(world: &World, target: &Target) -> Option<impl Fn(&str) -> Command + use<>> {
    let puttygen = peers::program("putty", "puttygen")?;
    let program = |name| peers::program("putty", name);
    let (plink, pscp) = (program("plink")?, program("pscp")?);
    let key = world.path("key.ppk");
    run(Command::new(puttygen).arg(target.key.path()).arg("-o").arg(&key)).ok();
    let (home, fingerprint) = (world.dir().to_owned(), target.host_key.fingerprint());
    let (port, login) = (target.port.to_string(), target.login.clone());
    Some(move |program: &str| {
        let mut command = Command::new(if program == "pscp" { &pscp } else { &plink });
        command.env("HOME", &home).args(["-batch", "-noagent", "-P", &port, "-l", &login]);
        command.args(["-hostkey", &fingerprint, "-i"]).arg(&key);
        command
    })
}

/// asyncssh has several parts to play.
#[track_caller]
pub(crate) fn asyncssh(target: &Target, what: &str, more: &[&dyn AsRef<OsStr>]) -> Option<Output> {
    let mut command = Command::new(peers::python("python")?);
    command
        .arg(peers::script("asyncssh_peer.py"))
        .arg(what)
        .arg(&target.host)
        .arg(target.port.to_string())
        .arg(&target.login)
        .arg(target.key.path())
        .arg(target.host_key.public())
        .args(more);
    Some(run(&mut command).ok())
}
