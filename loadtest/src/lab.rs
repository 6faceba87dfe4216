//! A whole set-up on loopback addresses: a stock sshd or the light one as the VM, HAProxy in TCP
//! mode and Keyway in front of it, so that all are measured in one run.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::report::{self, Row};
use crate::scenario::{self, Bulk, Direction, Echo, Hold, Logins, Stop, Target};
use crate::{Result, engine};

#[derive(Args)]
pub(crate) struct Compare {
    /// The Keyway to measure; a release build
    #[arg(long)]
    keyway: PathBuf,
    /// Rounds of each scenario; targets take turns within a round, figures are medians
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Bytes of each bulk transfer
    #[arg(long, default_value_t = 1_000_000_000)]
    bytes: u64,
    /// Logins of each round
    #[arg(long, default_value_t = 400)]
    logins: u32,
    /// The same against the light VM, where each is cheap
    #[arg(long, default_value_t = 4000)]
    light_logins: u32,
    /// Logins under way at a time
    #[arg(long, default_value_t = 8)]
    parallel: u32,
    /// Connections that are held; a stock sshd needs two processes for each
    #[arg(long, default_value_t = 400)]
    held: u32,
    /// Only these targets
    #[arg(long, value_delimiter = ',', default_value = "direct,haproxy,keyway")]
    targets: Vec<String>,
    /// Only scenarios whose names contain this
    #[arg(long, default_value = "")]
    only: String,
}

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

/// A directory that goes with this value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("keyway-loadtest-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A port of this process, below those that the kernel hands out.
fn port() -> Result<u16> {
    Ok(10_000 + u16::try_from(std::process::id() % 20_000)?)
}

/// An HAProxy and where it listens.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    pub(crate) started: Started,
}

/// Starts an HAProxy in TCP mode, which splices, in front of `backend`.
pub(crate) fn haproxy(backend: SocketAddr) -> Result<Proxy> {
    let dir = std::env::temp_dir().join(format!("keyway-haproxy-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let address: SocketAddr = format!("127.0.76.2:{}", port()?).parse()?;
    let config = dir.join("haproxy.cfg");
    fs::write(
        &config,
        format!(
            "global\n  maxconn 7000\ndefaults\n  mode tcp\n  option splice-auto\n  timeout connect 10s\n  timeout client 1h\n  \
             timeout server 1h\nlisten ssh\n  bind {address}\n  server vm {backend}\n"
        ),
    )?;
    let mut started =
        Started::start(&dir, "haproxy", Command::new("haproxy").arg("-db").arg("-f").arg(&config))?;
    started.listens(address)?;
    Ok(Proxy { address, started })
}

/// The whole set-up. Fields end in this order: fronts before what they lean on.
struct Lab {
    keyway: Started,
    haproxy: Proxy,
    vm: Started,
    addresses: Addresses,
    credential: Arc<keyway::ssh::userauth::Credential>,
    login: String,
    _dir: Scratch,
}

#[derive(Clone, Copy)]
struct Addresses {
    vm: SocketAddr,
    pool: SocketAddr,
    metrics: SocketAddr,
}

fn command_output(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|why| format!("{command:?}: {why}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

/// What stands behind the front doors.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Backend {
    /// A stock sshd.
    Sshd,
    /// A process of this program, see `vm`.
    Light,
}

/// The principal of a certificate for the one VM of the laboratory.
const PRINCIPAL: &str = "vm:blue";

impl Lab {
    fn start(keyway: &Path, backend: Backend) -> Result<Self> {
        let scratch = Scratch::new()?;
        let dir = scratch.0.clone();
        let port = port()?;
        let addresses = Addresses {
            vm: format!("127.0.76.1:{port}").parse()?,
            pool: format!("127.0.76.3:{port}").parse()?,
            metrics: format!("127.0.76.4:{port}").parse()?,
        };
        for key in ["vm_host_key", "edge_host_key", "ca", "user"] {
            command_output(
                Command::new("ssh-keygen")
                    .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                    .arg(dir.join(key)),
            )?;
        }
        let login = command_output(Command::new("id").arg("-un"))?;
        let vm = match backend {
            Backend::Sshd => start_sshd(&dir, addresses.vm)?,
            Backend::Light => start_light(&dir, addresses.vm)?,
        };
        let haproxy = haproxy(addresses.vm)?;
        let credential = Arc::new(engine::credential(&dir.join("user"))?);
        let keyway = start_keyway(&dir, keyway, addresses)?;
        Ok(Self { keyway, haproxy, vm, addresses, credential, login, _dir: scratch })
    }

    fn targets(&self) -> [Target; 3] {
        let target = |name: &str, address, pid| Target {
            name: name.to_owned(),
            address,
            login: self.login.clone(),
            credential: self.credential.clone(),
            pids: vec![pid],
        };
        [
            target("direct", self.addresses.vm, self.vm.id()),
            target("haproxy", self.haproxy.address, self.haproxy.started.id()),
            target("keyway", self.addresses.pool, self.keyway.id()),
        ]
    }
}

fn start_sshd(dir: &Path, address: SocketAddr) -> Result<Started> {
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

fn start_light(dir: &Path, address: SocketAddr) -> Result<Started> {
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

fn start_keyway(dir: &Path, program: &Path, addresses: Addresses) -> Result<Started> {
    let at = dir.display();
    let (config, fleet) = (dir.join("keyway.toml"), dir.join("fleet.toml"));
    fs::write(
        &config,
        format!(
            "state_dir = \"{at}/state\"\n[edge]\nlisten = [\"{}\"]\nhost_keys = [\"{at}/edge_host_key\"]\n\
             login_grace_s = 600\nlog = \"json\"\nsessions_max_per_user = 1000000\n\
             sessions_max_per_vm = 1000000\n[vm_leg]\nuser_ca = \"{at}/ca\"\n[metrics]\nlisten = \"{}\"\n",
            addresses.pool, addresses.metrics
        ),
    )?;
    let key = fs::read_to_string(dir.join("user.pub"))?;
    fs::write(
        &fleet,
        format!(
            "[[address]]\nname = \"s001\"\npublic = \"{}\"\n[[user]]\nname = \"alice\"\nkeys = [\"{}\"]\n\
             [[vm]]\nname = \"blue\"\nowner = \"alice\"\naddress = \"s001\"\nssh = \"{}\"\n",
            addresses.pool.ip(),
            key.trim_end(),
            addresses.vm
        ),
    )?;
    let mut keyway = Started::start(
        dir,
        "keyway",
        Command::new(program).arg("serve").arg("--config").arg(&config).arg("--fleet").arg(&fleet),
    )?;
    keyway.listens(addresses.pool)?;
    Ok(keyway)
}

/// Measures one target.
type Run = Box<dyn Fn(&Target) -> Result<Row>>;

/// What to run against every target.
struct Scenario {
    name: String,
    processes: Processes,
    backend: Backend,
    run: Run,
}

/// How long the targets' processes live.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Processes {
    /// One round: memory that an earlier round has left free would hide the growth of the next.
    Fresh,
    /// All rounds.
    Warm,
}

fn scenarios(compare: &Compare) -> Vec<Scenario> {
    use Processes::{Fresh, Warm};
    let mut all = vec![];
    let mut add = |name: String, processes, run: Run| {
        all.push(Scenario { name, processes, backend: Backend::Sshd, run });
    };
    let held = Hold { count: compare.held, parallel: 8, seconds: 5 };
    for stop in [Stop::Banner, Stop::KeyExchange] {
        let held = held.clone();
        let name = format!("half-open {stop:?}").to_lowercase();
        add(name, Fresh, Box::new(move |target| scenario::half_open_hold(target, &held, stop)));
    }
    add("idle".into(), Fresh, Box::new(move |target| scenario::idle_hold(target, &held)));
    for cipher in ["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com"] {
        for direction in [Direction::Down, Direction::Up] {
            let shape = Bulk { bytes: compare.bytes, direction, cipher: cipher.to_owned() };
            let name = format!("bulk {direction:?} {cipher}").to_lowercase();
            add(name, Warm, Box::new(move |target| scenario::bulk(target, &shape)));
        }
    }
    let shape = Logins { count: compare.logins, parallel: compare.parallel, cipher: None };
    add("logins".into(), Warm, Box::new(move |target| scenario::logins(target, &shape)));
    for handshakes_per_s in [0, 1000] {
        let shape = Echo { count: 5000, handshakes_per_s, cipher: None };
        let name = format!("echo {handshakes_per_s}");
        add(name, Warm, Box::new(move |target| scenario::echo(target, &shape)));
    }
    let shape = Logins { count: compare.light_logins, parallel: compare.parallel, cipher: None };
    all.push(Scenario {
        name: "logins light".into(),
        processes: Warm,
        backend: Backend::Light,
        run: Box::new(move |target| {
            let row = scenario::logins(target, &shape)?;
            Ok(Row { scenario: format!("{}, light VM", row.scenario), ..row })
        }),
    });
    all
}

/// Every scenario against every target, in turn within a round; medians of the rounds.
pub(crate) fn compare(compare: &Compare) -> Result<Vec<Row>> {
    let mut medians = vec![];
    let (chosen, others): (Vec<_>, Vec<_>) =
        scenarios(compare).into_iter().partition(|scenario| scenario.name.contains(&compare.only));
    if chosen.is_empty() {
        let names: Vec<_> = others.iter().map(|scenario| scenario.name.as_str()).collect();
        let (only, names) = (&compare.only, names.join("\", \""));
        return Err(format!("no scenario contains \"{only}\"; there are \"{names}\"").into());
    }
    for Scenario { name, processes, backend, run } in chosen {
        let mut lab = Lab::start(&compare.keyway, backend)?;
        let mut rows = lab.targets().map(|_| vec![]);
        for round in 1..=compare.rounds {
            if processes == Processes::Fresh && round > 1 {
                drop(lab);
                lab = Lab::start(&compare.keyway, backend)?;
            }
            for (target, rows) in std::iter::zip(&lab.targets(), &mut rows) {
                // A stock sshd cannot take a thousand handshakes a second, nor can what
                // stands in front of it.
                let flooded = name == "echo 1000" && target.name != "keyway";
                if flooded || !compare.targets.contains(&target.name) {
                    continue;
                }
                eprintln!("{name}: {}, round {round} of {}", target.name, compare.rounds);
                rows.push(run(target).map_err(|why| format!("{name}, {}: {why}", target.name))?);
            }
        }
        medians.extend(rows.iter().filter_map(|rows| report::median(rows)));
    }
    Ok(medians)
}
