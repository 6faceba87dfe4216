//! A world: users, pool addresses, VMs, and the Keyway in front of them, on loopback
//! addresses of its own.

use std::fmt::Write;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use nix::sys::signal::Signal;

use super::plan::{Address, Followed, Place};
pub(crate) use super::plan::{Plan, port};
use super::wire::{To, Wire};
use super::{Key, Process, Scratch, Target, peers, process, run, sshd, wait};

/// What is answered at a metrics listener, head and all.
#[track_caller]
pub(crate) fn page_at(at: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(at).expect("the metrics listener");
    let request = format!("GET {path} HTTP/1.1\r\nhost: it\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    // A reset behind the answer is as good as an end.
    let _reset = stream.read_to_string(&mut answer);
    answer
}

impl Plan {
    #[track_caller]
    pub(crate) fn start(self) -> World {
        World::start(self)
    }
}

/// Users, VMs and the door between them. Ends with the test.
#[derive(Debug)]
pub(crate) struct World {
    // Dropped first: its sessions end before their VMs do.
    edge: Option<Process>,
    /// Takes all sessions over, if they are handed to it.
    agent: Option<Process>,
    pub(crate) vms: Vec<sshd::Vm>,
    /// Between edge and agent.
    pub(crate) inner: Option<Wire>,
    plan: Plan,
    host_key: Key,
    user_ca: Key,
    net: [u8; 2],
    dir: Scratch,
}

impl World {
    pub(crate) fn plan() -> Plan {
        Plan::default()
    }

    /// One user, one address, one VM: alice, s001, blue. A test adds what it is about.
    pub(crate) fn usual_plan() -> Plan {
        Self::plan().address("s001").user("alice").vm("blue", "alice", "s001")
    }

    #[track_caller]
    pub(crate) fn usual() -> Self {
        Self::usual_plan().start()
    }

    /// Two users behind one address, where alice has blue and bob green; alice has red
    /// behind s002 as well.
    pub(crate) fn two_users_plan() -> Plan {
        let plan = Self::plan().address("s001").address("s002").user("alice").user("bob");
        let plan = plan.vm("blue", "alice", "s001").vm("red", "alice", "s002");
        plan.vm("green", "bob", "s001")
    }

    #[track_caller]
    pub(crate) fn two_users() -> Self {
        Self::two_users_plan().start()
    }

    /// Whether the clients go straight to the VM (see the module's text).
    pub(crate) fn is_direct() -> bool {
        std::env::var("KEYWAY_TEST_TARGET").is_ok_and(|target| target == "direct")
    }

    /// Whether all worlds hand their sessions to an agent: the same tests, through a handoff.
    fn is_handed() -> bool {
        std::env::var("KEYWAY_TEST_TARGET").is_ok_and(|target| target == "handoff")
    }

    /// The same as [`World::is_direct`], for a test that has nothing to say then: it is
    /// listed as skipped.
    #[track_caller]
    pub(crate) fn is_passed_by() -> bool {
        let is_direct = Self::is_direct();
        if is_direct {
            let at = std::panic::Location::caller();
            peers::skipped(&format!("{at}: about Keyway (KEYWAY_TEST_TARGET=direct)"));
        }
        is_direct
    }

    #[track_caller]
    fn start(plan: Plan) -> Self {
        let dir = Scratch::new();
        let at = dir.path();
        let host_key = Key::ed25519(at, "edge_host_key");
        let operator_ca = Key::ed25519(at, "operator_ca");
        let user_ca = Key::ed25519(at, "user_ca");
        for user in &plan.users {
            Key::ed25519(at, user);
        }
        for (_, name, kind) in &plan.keys {
            Key::generate(at, name, &kind.iter().map(String::as_str).collect::<Vec<_>>());
        }
        let net = own_net();
        let (edge, agent, vms, inner) = (None, None, vec![], None);
        let mut world = Self { edge, agent, vms, inner, plan, host_key, user_ca, net, dir };
        for at in 0..world.plan.vms.len() {
            let vm = world.start_vm(at, &operator_ca);
            world.vms.push(vm);
        }
        if !Self::is_direct() {
            world.plan.handed |= Self::is_handed();
            // Of a handed session only the agent can log in to the VM.
            let edge_ca = if world.plan.handed {
                Key::ed25519(world.dir.path(), "edge_ca")
            } else {
                operator_ca.clone()
            };
            if world.plan.followed != Followed::No {
                world.certify();
            }
            fs::write(world.path("keyway.toml"), world.keyway_toml(&edge_ca)).expect("keyway.toml");
            if world.plan.handed {
                fs::write(world.path("agent.toml"), world.agent_toml(&operator_ca))
                    .expect("agent.toml");
            }
            fs::write(world.path("fleet.toml"), world.fleet_toml()).expect("fleet.toml");
            if world.plan.handed && world.plan.followed != Followed::Unjoined {
                world.start_agent("agent");
            }
            world.start_edge();
            world.lay_wires();
        }
        world
    }

    fn lay_wires(&mut self) {
        let [outer, inner] = self.plan.wires;
        if let Some(passing) = outer {
            for at in 0..self.plan.addresses.len() {
                let _wire = Wire::lay(self.outer(at), To::Door(self.pool(at)), passing);
            }
        }
        self.inner =
            inner.map(|passing| Wire::lay(self.node_at(), To::Agent(self.agent_at()), passing));
    }

    fn start_vm(&self, at: usize, operator_ca: &Key) -> sshd::Vm {
        let (name, owner, ..) = &self.plan.vms[at];
        let (mut ca, mut principals, mut keys) =
            (operator_ca.public_line(), format!("vm:{name}\n"), String::new());
        if Self::is_direct() {
            keys = self
                .plan
                .users
                .iter()
                .flat_map(|user| self.public_lines(user))
                .fold(String::new(), |lines, line| lines + &line + "\n");
            if self.plan.user_ca {
                ca = format!("{ca}\n{}\n", self.user_ca.public_line());
                principals = format!("{principals}{owner}\n");
            }
        }
        let trust = sshd::Trust { ca: &ca, principals: &principals, keys: &keys };
        let host = 100 + u8::try_from(at).expect("few VMs");
        sshd::Vm::start(
            self.dir.path(),
            name,
            self.ip(host),
            &trust,
            self.plan.server,
            &self.plan.sshd,
        )
    }

    #[track_caller]
    fn start_edge(&mut self) {
        self.start_edge_of(Path::new(env!("CARGO_BIN_EXE_keyway")));
    }

    #[track_caller]
    fn start_edge_of(&mut self, program: &Path) {
        let mut process = Process::start(
            "keyway",
            self.dir.path(),
            Command::new(program)
                .arg("serve")
                .arg("--config")
                .arg(self.path("keyway.toml"))
                .arg("--fleet")
                .arg(self.path("fleet.toml")),
        );
        // Comes up behind the front door.
        wait::listens(&mut process, self.metrics());
        self.edge = Some(process);
    }

    /// Starts the agent; in a world that has one, again.
    #[track_caller]
    pub(crate) fn start_agent(&mut self, name: &str) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyway"));
        command.arg("agent").arg("--config").arg(self.path("agent.toml"));
        let mut process = Process::start(name, self.dir.path(), &mut command);
        // Whoever asks for metrics is kept waiting before the door is open.
        wait::until("the agent", wait::SOON, || {
            process.has_ended() || process.log().contains("is up")
        });
        assert!(process.log().contains("is up"), "{}", process.log());
        self.agent = Some(process);
    }

    /// Has another agent take the place of the one there is, which drains; returns that one.
    #[track_caller]
    pub(crate) fn replace_agent(&mut self) -> Process {
        let before = self.agent.take().expect("a world that hands its sessions over");
        process::signal(before.id(), Signal::SIGTERM);
        let closed = || before.log().contains("draining");
        wait::until("the drain", wait::SOON, closed);
        self.start_agent("successor");
        before
    }

    /// What `keyway identity` says of a front door or an agent.
    #[track_caller]
    pub(crate) fn identity(&self, config: &str, more: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyway"));
        command.arg("identity").arg("--config").arg(self.path(config)).args(more);
        run(&mut command).ok().text()
    }

    /// Where the agent listens.
    pub(crate) fn agent_at(&self) -> SocketAddr {
        self.spare(40)
    }

    /// Where edges find it.
    pub(crate) fn node_at(&self) -> SocketAddr {
        if self.plan.wires[1].is_some() { self.spare(41) } else { self.agent_at() }
    }

    /// Where clients find a pool address that a wire leads to.
    fn outer(&self, at: usize) -> SocketAddr {
        self.spare(42 + u8::try_from(at).expect("few addresses"))
    }

    fn agent_metrics(&self) -> SocketAddr {
        SocketAddr::new(self.ip(251), port() + 1)
    }

    fn agent_toml(&self, operator_ca: &Key) -> String {
        let cas = if self.plan.user_ca {
            format!("trusted_user_cas = [\"{}\"]\n", self.user_ca.public_line())
        } else {
            String::new()
        };
        let (judges, control) = match self.plan.followed {
            Followed::Unjoined => Default::default(),
            Followed::Known => {
                let url = format!("https://{}", self.api());
                (String::new(), format!("[control]\nurl = \"{url}\"\nca = \"cert.pem\"\n"))
            }
            Followed::No => {
                let edge = self.identity("keyway.toml", &[]);
                let host_key = self.host_key.public_line();
                let judges = format!(
                    "edges = [\"{edge}\"]\nhost_keys = [\"{host_key}\"]\nreplica = \"fleet.toml\"\n{cas}"
                );
                (judges, String::new())
            }
        };
        format!(
            "state_dir = \"{state}\"\n\
             listen = \"{listen}\"\n\
             edge_networks = [\"127.0.0.0/8\"]\n\
             shards = 1\n\
             log = \"json\"\n\
             {judges}\
             {control}\
             [vm_leg]\n\
             user_ca = \"{ca}\"\n\
             {vm_leg}\
             [metrics]\n\
             listen = \"{metrics}\"\n",
            state = self.path("agent_state").display(),
            listen = self.agent_at(),
            ca = operator_ca.path().display(),
            vm_leg = self.plan.vm_leg,
            metrics = self.agent_metrics(),
        )
    }

    fn keyway_toml(&self, operator_ca: &Key) -> String {
        let mut listen = self.plan.listen.clone();
        if listen.is_empty() {
            listen.extend((0..self.plan.addresses.len()).map(|at| self.pool(at)));
        }
        let listen: Vec<String> = listen.iter().map(|at| format!("\"{at}\"")).collect();
        let cas = if self.plan.user_ca {
            format!("trusted_user_cas = [\"{}\"]\n", self.user_ca.public_line())
        } else {
            String::new()
        };
        let api = match self.plan.followed {
            Followed::No => String::new(),
            Followed::Known | Followed::Unjoined => {
                let at = self.api();
                format!(
                    "[api]\nlisten = \"{at}\"\ntls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\n"
                )
            }
        };
        format!(
            "state_dir = \"{state}\"\n\
             [edge]\n\
             listen = [{listen}]\n\
             shards = 1\n\
             host_keys = [\"{host_key}\"]\n\
             log = \"json\"\n\
             {cas}{edge}\
             {api}\
             [nodes]\n\
             health_s = 1\n\
             [vm_leg]\n\
             user_ca = \"{ca}\"\n\
             {vm_leg}\
             [metrics]\n\
             listen = \"{metrics}\"\n",
            state = self.path("state").display(),
            listen = listen.join(", "),
            host_key = self.host_key.path().display(),
            edge = self.plan.edge,
            ca = operator_ca.path().display(),
            vm_leg = self.plan.vm_leg,
            metrics = self.metrics(),
        )
    }

    /// A certificate for the API, its own CA as `openssl req -x509` makes them.
    fn certify(&self) {
        let ip = self.api().ip().to_string();
        let mut params = rcgen::CertificateParams::new([ip]).expect("a name");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        let cert = params.self_signed(&key).expect("a certificate");
        for (name, text) in [("cert.pem", cert.pem()), ("key.pem", key.serialize_pem())] {
            fs::write(self.path(name), text).expect("a set-up of ours");
            let mode = fs::Permissions::from_mode(0o600);
            fs::set_permissions(self.path(name), mode).expect("its mode");
        }
    }

    /// Where the front door's API is over TLS.
    pub(crate) fn api(&self) -> SocketAddr {
        self.spare(41)
    }

    fn fleet_toml(&self) -> String {
        let mut text = String::new();
        for (at, Address { name, place, more }) in self.plan.addresses.iter().enumerate() {
            let ip = self.pool(at).ip();
            let known = match place {
                Place::Natted => format!("203.0.113.{}\"\nprivate = \"{ip}", at + 1),
                Place::Own | Place::At(_) => ip.to_string(),
            };
            let _ = write!(text, "[[address]]\nname = \"{name}\"\npublic = \"{known}\"\n{more}\n");
        }
        for user in &self.plan.users {
            let keys = self.public_lines(user).join("\", \"");
            let _ = write!(text, "[[user]]\nname = \"{user}\"\nkeys = [\"{keys}\"]\n\n");
        }
        let mut node = "";
        if self.plan.handed {
            let key = if self.plan.followed == Followed::Unjoined {
                String::new()
            } else {
                let key = self.identity("agent.toml", &["--fingerprint"]);
                format!("agent_key = \"{key}\"\n")
            };
            let at = self.node_at();
            let _ =
                write!(text, "[[node]]\nname = \"n1\"\nagent = \"{at}\"\n{key}trusted = true\n\n");
            node = "node = \"n1\"\n";
        }
        for ((name, owner, address, more), vm) in std::iter::zip(&self.plan.vms, &self.vms) {
            let _ = write!(
                text,
                "[[vm]]\nname = \"{name}\"\nowner = \"{owner}\"\naddress = \"{address}\"\nssh = \"{}\"\n{node}{more}\n",
                vm.address
            );
        }
        text
    }

    fn public_lines(&self, user: &str) -> Vec<String> {
        let more =
            self.plan.keys.iter().filter(|(of, ..)| of == user).map(|(_, name, _)| name.as_str());
        std::iter::once(user).chain(more).map(|name| self.key(name).public_line()).collect()
    }

    fn ip(&self, host: u8) -> IpAddr {
        Ipv4Addr::new(127, self.net[0], self.net[1], host).into()
    }

    fn pool(&self, at: usize) -> SocketAddr {
        let ip = match self.plan.addresses[at].place {
            Place::At(ip) => ip,
            Place::Own | Place::Natted => {
                self.ip(1 + u8::try_from(at).expect("few addresses on loopback"))
            }
        };
        SocketAddr::new(ip, port())
    }

    /// An address that belongs to this world and is nobody's door; `number` tells several apart.
    pub(crate) fn spare(&self, number: u8) -> SocketAddr {
        SocketAddr::new(self.ip(200 + number), port())
    }

    pub(crate) fn metrics(&self) -> SocketAddr {
        // A wildcard address of a test's own network holds the doors' port at every address.
        SocketAddr::new(self.ip(250), port() + 1)
    }

    /// What is answered at the metrics listener, head and all.
    #[track_caller]
    pub(crate) fn page(&self, path: &str) -> String {
        page_at(self.metrics(), path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn user_ca(&self) -> &Key {
        &self.user_ca
    }

    pub(crate) fn key(&self, user: &str) -> Key {
        Key::at(self.path(user))
    }

    /// The front door's process.
    pub(crate) fn edge(&mut self) -> &mut Process {
        self.edge.as_mut().expect("a test of the door itself")
    }

    /// Ends the front door at once and starts another one on what its files say now.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.edge = None;
        self.start_edge();
    }

    /// The same, of another build: a file of its own is taken for one.
    #[track_caller]
    pub(crate) fn upgrade(&mut self) {
        self.edge = None;
        let program = self.path("keyway-of-another-build");
        fs::copy(env!("CARGO_BIN_EXE_keyway"), &program).expect("a copy");
        self.start_edge_of(&program);
    }

    /// Makes the front door drain; returns once it takes nobody more at `target`.
    #[track_caller]
    pub(crate) fn drain(&mut self, target: &Target) {
        process::signal(self.edge().id(), Signal::SIGTERM);
        let address = (target.host.clone(), target.port);
        wait::until("the door closes", wait::SOON, || TcpStream::connect(&address).is_err());
    }

    /// Has the front door end, in which nobody is.
    #[track_caller]
    pub(crate) fn end(&mut self) {
        process::signal(self.edge().id(), Signal::SIGTERM);
        wait::until("its end", wait::SOON, || self.edge().has_ended());
    }

    /// Ends the agent at once and starts another one.
    #[track_caller]
    pub(crate) fn restart_agent(&mut self) {
        self.agent = None;
        self.start_agent("agent");
    }

    /// Ends the front door at once.
    pub(crate) fn kill(&mut self) {
        self.edge = None;
    }

    /// The agent's log so far.
    pub(crate) fn agent_log(&self) -> String {
        self.agent.as_ref().map(Process::log).unwrap_or_default()
    }

    /// What the agent's metrics say.
    pub(crate) fn agent_page(&self) -> String {
        page_at(self.agent_metrics(), "/metrics")
    }

    /// The agent's process.
    pub(crate) fn agent(&mut self) -> &mut Process {
        self.agent.as_mut().expect("a world that hands its sessions over")
    }

    /// The front door's log so far.
    pub(crate) fn log(&self) -> String {
        self.edge.as_ref().map(Process::log).unwrap_or_default()
    }

    pub(crate) fn vm(&mut self, name: &str) -> &mut sshd::Vm {
        self.vms.iter_mut().find(|vm| vm.name == name).expect("a VM of the plan")
    }

    /// Where `user` goes to at the pool address `address`, as the login that runs the tests.
    #[track_caller]
    pub(crate) fn target(&self, user: &str, address: &str) -> Target {
        let (socket, host_key) = if Self::is_direct() {
            let at = self
                .plan
                .vms
                .iter()
                .position(|(_, owner, at, _)| owner == user && at == address)
                .expect("straight to a VM that the user has there");
            (self.vms[at].address, self.vms[at].host_key.clone())
        } else {
            let at = self.plan.addresses.iter().position(|one| one.name == address);
            let at = at.expect("an address of the plan");
            let to = if self.plan.wires[0].is_some() { self.outer(at) } else { self.pool(at) };
            (to, self.host_key.clone())
        };
        Target::new(self.dir.path(), user, address, socket, host_key, self.key(user))
    }

    /// Where `user` goes to who dials `to`, whatever that is; `label` tells such targets apart.
    pub(crate) fn target_to(&self, user: &str, label: &str, to: SocketAddr) -> Target {
        Target::new(self.dir.path(), user, label, to, self.host_key.clone(), self.key(user))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let tail = |text: String| {
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(60)..].join("\n")
        };
        eprintln!("---- keyway\n{}", tail(self.log()));
        if let Some(agent) = &self.agent {
            eprintln!("---- agent\n{}", tail(agent.log()));
        }
        for vm in &self.vms {
            eprintln!("---- sshd {}\n{}", vm.name, tail(vm.log()));
        }
    }
}

/// The middle of addresses of the process and one world alone, so that fixed ports never
/// meet another's.
fn own_net() -> [u8; 2] {
    static COUNT: AtomicU8 = AtomicU8::new(0);
    let process = u8::try_from(std::process::id() % 150).expect("less than 150") + 80;
    [process, COUNT.fetch_add(1, Ordering::Relaxed)]
}

/// A loopback address for somebody who stands outside any world.
pub(crate) fn own_ip() -> IpAddr {
    let [process, number] = own_net();
    Ipv4Addr::new(127, process, number, 1).into()
}
