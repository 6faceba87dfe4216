//! The programs of a laboratory: a stock sshd or the light VM, HAProxy in TCP mode, a bare splice
//! loop, Keyway's front door and its agent, each a child that ends with its value.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Result;

/// A program that ends with this value.
pub(crate) struct Started {
    child: Child,
    dir: PathBuf,
}

impl Started {
    fn start(dir: &Path, name: &str, command: &mut Command) -> Result<Self> {
        let log = fs::File::create(dir.join(format!("{name}.log")))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|why| format!("{name} does not start: {why}"))?;
        Ok(Self { child, dir: dir.join(format!("{name}.log")) })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it listens at `address`.
    fn listens(&mut self, address: SocketAddr) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(10) {
            if self.child.try_wait()?.is_some() {
                break;
            }
            if TcpStream::connect(address).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let log = fs::read_to_string(&self.dir).unwrap_or_default();
        Err(format!("nobody listens at {address}:\n{log}").into())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // HAProxy passes SIGTERM on to its worker; a killed master would leave it behind.
        if let Ok(id) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port of this process, below those that the kernel hands out.
pub(crate) fn port() -> Result<u16> {
    Ok(10_000 + u16::try_from(std::process::id() % 20_000)?)
}

/// A program that passes connections on, and where it listens.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    pub(crate) started: Started,
}

/// Starts an HAProxy in TCP mode, which splices, at `address` in front of `backend`.
pub(crate) fn haproxy(dir: &Path, address: SocketAddr, backend: SocketAddr) -> Result<Front> {
    let config = dir.join(format!("haproxy-{}.cfg", address.ip()));
    fs::write(
        &config,
        format!(
            "global\n  maxconn 7000\ndefaults\n  mode tcp\n  option splice-auto\n  timeout connect 10s\n  timeout client 1h\n  \
             timeout server 1h\nlisten ssh\n  bind {address}\n  server vm {backend}\n"
        ),
    )?;
    let mut started =
        Started::start(dir, "haproxy", Command::new("haproxy").arg("-db").arg("-f").arg(&config))?;
    started.listens(address)?;
    Ok(Front { address, started })
}

/// Starts a bare splice loop at `address` in front of `backend`.
pub(crate) fn splice(dir: &Path, address: SocketAddr, backend: SocketAddr) -> Result<Front> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("splice").args(["--listen", &address.to_string(), "--to", &backend.to_string()]);
    let mut started = Started::start(dir, "splice", &mut command)?;
    started.listens(address)?;
    Ok(Front { address, started })
}

/// Keys of all parties, each as a file and its `.pub`.
pub(crate) fn make_keys(dir: &Path) -> Result<()> {
    for key in ["vm_host_key", "edge_host_key", "ca", "user"] {
        let make = ["-q", "-t", "ed25519", "-N", "", "-f"];
        command_output(Command::new("ssh-keygen").args(make).arg(dir.join(key)))?;
    }
    Ok(())
}

/// Who runs this, and so whom a stock sshd lets in.
pub(crate) fn user_name() -> Result<String> {
    command_output(Command::new("id").arg("-un"))
}

fn command_output(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|why| format!("{command:?}: {why}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

/// The principal of a certificate for the one VM of the laboratory.
const PRINCIPAL: &str = "vm:blue";

/// Starts a stock sshd.
pub(crate) fn sshd(dir: &Path, address: SocketAddr) -> Result<Started> {
    // Only an init script makes it.
    let _ = fs::create_dir_all("/run/sshd");
    let at = dir.display();
    fs::write(dir.join("principals"), format!("{PRINCIPAL}\n"))?;
    let config = dir.join("sshd_config");
    fs::write(
        &config,
        format!(
            "ListenAddress {address}\nHostKey {at}/vm_host_key\nPidFile none\nUsePAM no\nStrictModes no\n\
             PermitRootLogin yes\nTrustedUserCAKeys {at}/ca.pub\nAuthorizedPrincipalsFile {at}/principals\n\
             AuthorizedKeysFile {at}/user.pub\nMaxStartups 20000\nLoginGraceTime 600\nSetEnv HOME={at}\n"
        ),
    )?;
    let mut sshd = Started::start(
        dir,
        "sshd",
        Command::new("/usr/sbin/sshd")
            .arg("-D")
            .arg("-f")
            .arg(&config)
            .arg("-E")
            .arg(dir.join("sshd.err")),
    )?;
    sshd.listens(address)?;
    Ok(sshd)
}

/// Starts the light VM.
pub(crate) fn light(dir: &Path, address: SocketAddr) -> Result<Started> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("vm").args(["--listen", &address.to_string()]).args(["--principal", PRINCIPAL]);
    for (option, file) in
        [("--host-key", "vm_host_key"), ("--user-ca", "ca.pub"), ("--key", "user.pub")]
    {
        command.arg(option).arg(dir.join(file));
    }
    let mut vm = Started::start(dir, "vm", &mut command)?;
    vm.listens(address)?;
    Ok(vm)
}

/// A front door with one VM and one user.
pub(crate) struct Keyway {
    /// Of its files.
    pub(crate) name: &'static str,
    pub(crate) pool: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) vm: SocketAddr,
    /// Where it finds the agent of the VM's node; none: it relays.
    pub(crate) agent: Option<SocketAddr>,
}

impl Keyway {
    fn config(&self, dir: &Path) -> Result<PathBuf> {
        let Self { name, pool, metrics, .. } = self;
        let at = dir.display();
        let text = format!(
            "state_dir = \"{at}/{name}\"\n[edge]\nlisten = [\"{pool}\"]\n\
             host_keys = [\"{at}/edge_host_key\"]\nlogin_grace_s = 600\nlog = \"json\"\n\
             sessions_max_per_user = 1000000\nsessions_max_per_vm = 1000000\n\
             [vm_leg]\nuser_ca = \"{at}/ca\"\n[metrics]\nlisten = \"{metrics}\"\n"
        );
        written(dir, &format!("{name}.toml"), &text)
    }

    fn fleet(&self, dir: &Path, agent_key: &str) -> Result<PathBuf> {
        let Self { name, pool, vm, .. } = self;
        let key = fs::read_to_string(dir.join("user.pub"))?;
        let mut text = format!(
            "[[address]]\nname = \"s001\"\npublic = \"{}\"\n[[user]]\nname = \"alice\"\nkeys = [\"{}\"]\n\
             [[vm]]\nname = \"blue\"\nowner = \"alice\"\naddress = \"s001\"\nssh = \"{vm}\"\n",
            pool.ip(),
            key.trim_end(),
        );
        if let Some(agent) = self.agent {
            let _ = write!(
                text,
                "node = \"n1\"\n[[node]]\nname = \"n1\"\nagent = \"{agent}\"\n\
                 agent_key = \"{agent_key}\"\ntrusted = true\n"
            );
        }
        written(dir, &format!("{name}.fleet.toml"), &text)
    }

    fn serve(self, dir: &Path, program: &Path, agent_key: &str) -> Result<Front> {
        let (config, fleet) = (self.config(dir)?, self.fleet(dir, agent_key)?);
        let mut command = Command::new(program);
        command.arg("serve").arg("--config").arg(&config).arg("--fleet").arg(&fleet);
        let mut started = Started::start(dir, self.name, &mut command)?;
        started.listens(self.pool)?;
        Ok(Front { address: self.pool, started })
    }
}

/// Starts a front door that relays.
pub(crate) fn keyway_serve(dir: &Path, program: &Path, keyway: Keyway) -> Result<Front> {
    keyway.serve(dir, program, "")
}

/// Starts an agent that listens at `listen`, and the front door that hands its sessions over to it.
pub(crate) fn keyway_agent(
    dir: &Path,
    program: &Path,
    listen: SocketAddr,
    keyway: Keyway,
) -> Result<(Started, Front)> {
    let identity = |config: &Path, more: &[&str]| {
        let mut command = Command::new(program);
        command_output(command.args(["identity", "--config"]).arg(config).args(more))
    };
    let edge = identity(&keyway.config(dir)?, &[])?;
    let host_key = fs::read_to_string(dir.join("edge_host_key.pub"))?;
    let at = dir.display();
    let text = format!(
        "state_dir = \"{at}/agent\"\nlisten = \"{listen}\"\nedge_networks = [\"127.0.0.0/8\"]\n\
         edges = [\"{edge}\"]\nhost_keys = [\"{}\"]\nreplica = \"{at}/{}.fleet.toml\"\n\
         log = \"json\"\n[vm_leg]\nuser_ca = \"{at}/ca\"\n[metrics]\nlisten = \"{}:{}\"\n",
        host_key.trim_end(),
        keyway.name,
        listen.ip(),
        listen.port() + 1,
    );
    let config = written(dir, "agent.toml", &text)?;
    let agent_key = identity(&config, &["--fingerprint"])?;
    // The agent reads the fleet when it starts.
    keyway.fleet(dir, &agent_key)?;
    let mut command = Command::new(program);
    let mut agent =
        Started::start(dir, "agent", command.arg("agent").arg("--config").arg(&config))?;
    agent.listens(listen)?;
    Ok((agent, keyway.serve(dir, program, &agent_key)?))
}

fn written(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    fs::write(&path, text)?;
    Ok(path)
}
