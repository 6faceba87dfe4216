//! Debian's `dockerd`s of the tests' own, and its Podman: nothing of theirs lies beyond a
//! directory, and nothing of them stays when the tests have ended, however they did.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;

use keyway::nodes::docker::Docker;

use super::{Process, Scratch, peers, process, run, wait};

/// A Linux with busybox and nothing else, as every daemon here has it.
pub(crate) const IMAGE: &str = "busy:1";

/// A daemon behind a unix socket of its own.
pub(crate) struct Daemon {
    dir: PathBuf,
    engine: Engine,
    process: Option<Process>,
    /// Ends it and all that it started, when this is dropped or the tests end.
    guard: (Child, Option<ChildStdin>),
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Engine {
    Docker,
    Podman,
}

/// Two daemons side by side, which all tests share; each names what it makes after itself.
/// Nothing without the peer.
#[track_caller]
pub(crate) fn pair() -> Option<&'static [Daemon; 2]> {
    static PAIR: OnceLock<Option<[Daemon; 2]>> = OnceLock::new();
    PAIR.get_or_init(|| Some([Daemon::docker()?, Daemon::docker()?])).as_ref()
}

impl Daemon {
    /// A `dockerd` of the caller's own, with [`IMAGE`].
    #[track_caller]
    pub(crate) fn docker() -> Option<Self> {
        peers::program("docker", "dockerd")?;
        Self::start(Engine::Docker)
    }

    /// Debian's Podman, as its Docker.
    #[track_caller]
    pub(crate) fn podman() -> Option<Self> {
        peers::program("podman", "podman")?;
        Self::start(Engine::Podman)
    }

    fn start(engine: Engine) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            peers::skipped("daemons of containers (only root starts them)");
            return None;
        }
        let busybox = peers::program("docker", "busybox")?;
        peers::program("docker", "docker")?;
        let dir = Scratch::new().keep();
        let mut guard = Command::new(peers::script("dockerds.sh"))
            .env("KEYWAY_DOCKERDS", &dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let stdin = guard.stdin.take();
        let mut daemon = Self { dir, engine, process: None, guard: (guard, stdin) };
        daemon.up();
        fs::write(daemon.dir.join("root.tar"), root(&busybox)).expect("a tar");
        run(daemon.client().arg("import").arg(daemon.dir.join("root.tar")).arg(IMAGE)).ok();
        Some(daemon)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("s")
    }

    /// The client under test.
    pub(crate) fn api(&self) -> Docker {
        let socket = self.socket();
        Docker::new(move || tokio::net::UnixStream::connect(socket.clone()))
    }

    /// Docker's own client.
    pub(crate) fn client(&self) -> Command {
        let mut command = Command::new("docker");
        command.arg("-H").arg(format!("unix://{}", self.socket().display()));
        // The classic builder: `buildx` may not be there.
        command.env("DOCKER_BUILDKIT", "0").env("DOCKER_CONFIG", self.dir.join("config"));
        command
    }

    /// Ends it at once, as a crash does. Its containers live on.
    pub(crate) fn kill(&mut self) {
        let Some(daemon) = self.process.take() else { return };
        process::signal(daemon.id(), nix::sys::signal::Signal::SIGKILL);
        // Its containerd would keep the next one from starting.
        if let Ok(id) = fs::read_to_string(self.dir.join("exec/containerd/containerd.pid")) {
            process::signal(
                id.trim().parse().expect("a number"),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        for stale in ["pid", "s", "exec/containerd/containerd.pid"] {
            let _ = fs::remove_file(self.dir.join(stale));
        }
    }

    /// Starts it.
    #[track_caller]
    pub(crate) fn up(&mut self) {
        // The first try after a crash may meet what is left of the one before.
        for _ in 0..2 {
            let mut process = Process::start("daemon", &self.dir, &mut self.command());
            let mut ended = false;
            let there = wait::happens(2 * wait::SOON, || {
                ended = process.has_ended();
                ended || UnixStream::connect(self.socket()).is_ok()
            });
            if there && !ended {
                self.process = Some(process);
                return;
            }
        }
        let log = fs::read_to_string(self.dir.join("daemon.log")).unwrap_or_default();
        panic!("the daemon does not start:\n{log}");
    }

    fn command(&self) -> Command {
        let at = |name: &str| self.dir.join(name);
        let socket = format!("unix://{}", self.socket().display());
        let mut command;
        match self.engine {
            Engine::Docker => {
                command = Command::new(peers::program("docker", "dockerd").expect("asked before"));
                let name = self.dir.file_name().expect("a name").to_string_lossy().into_owned();
                command.args(["--bridge=none", "--iptables=false", "--ip6tables=false"]);
                command.arg("--data-root").arg(at("data")).arg("--exec-root").arg(at("exec"));
                command.arg("-H").arg(socket).arg("-p").arg(at("pid"));
                command.arg("--containerd-namespace").arg(&name);
                command.arg("--containerd-plugins-namespace").arg(name + "-plugins");
            }
            Engine::Podman => {
                let settings = "[containers]\n\
                    default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
                    [engine]\n\
                    runtime = \"runc\"\n\
                    cgroup_manager = \"cgroupfs\"\n\
                    events_logger = \"file\"\n";
                fs::write(at("containers.conf"), settings).expect("settings");
                command = Command::new("podman");
                command.env("CONTAINERS_CONF", at("containers.conf"));
                command.arg("--root").arg(at("data")).arg("--runroot").arg(at("run"));
                command.args(["system", "service", "--time=0"]).arg(socket);
            }
        }
        command
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.process.as_ref().map(Process::log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("---- daemon\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
        }
        // The guard ends it as it should end, with its containers.
        let (guard, stdin) = &mut self.guard;
        drop(stdin.take());
        let _ = guard.wait();
    }
}

/// A root file system of busybox alone, as a tar.
fn root(busybox: &Path) -> Vec<u8> {
    let mut tar = tar::Builder::new(vec![]);
    tar.append_path_with_name(busybox, "bin/busybox").expect("a program");
    for name in
        ["sh", "cat", "echo", "sleep", "true", "ls", "stty", "head", "id", "kill", "yes", "tr"]
    {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        tar.append_link(&mut header, format!("bin/{name}"), "busybox").expect("a link");
    }
    tar.into_inner().expect("a tar")
}
