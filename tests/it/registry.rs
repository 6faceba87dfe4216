//! From nothing to `ssh vm.zone`: a registry that is filled by the command line, found by name
//! through real DNS with a stock resolver, in a network of its own.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::network::may_miss;
use crate::harness::process::{kill_tree, signal};
use crate::harness::target::{beside, login};
use crate::harness::{Key, Output, Process, Scratch, World, run, sshd, wait};

#[path = "registry_rights.rs"]
mod rights;

const KEYWAY: &str = env!("CARGO_BIN_EXE_keyway");
/// The pool, on the loopback interface of the test's own network.
const LOBBY: &str = "10.79.0.9";
const POOL: [&str; 4] = ["10.79.0.1", "10.79.0.2", "10.79.0.3", "10.79.0.4"];
/// Within that a session must be gone whose right is.
const REVOKED: Duration = Duration::from_secs(5);

/// A network and a resolver configuration of their own, held by a process.
struct Island {
    holder: Process,
    dir: Scratch,
    users: Vec<(String, Key)>,
    keyway: Option<Process>,
    vms: Vec<(String, sshd::Vm)>,
}

impl Island {
    /// `None` where networks of one's own are missing, and may be.
    fn new() -> Option<Self> {
        let dir = Scratch::new();
        let resolver = dir.path().join("resolv.conf");
        fs::write(&resolver, "nameserver 127.0.0.53\noptions timeout:2 attempts:2\n")
            .expect("a set-up of ours");
        let ready = dir.path().join("ready");
        let pool = [&POOL[..], &[LOBBY]].concat();
        let pool: Vec<_> =
            pool.iter().map(|ip| format!("ip address add {ip}/32 dev lo && ")).collect();
        let pool = pool.concat();
        let script = format!(
            "mount --bind {} /etc/resolv.conf && ip link set lo up && {pool} touch {} && exec sleep 3600",
            resolver.display(),
            ready.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "sh", "-c", &script]).current_dir(dir.path());
        let mut holder = Process::start("island", dir.path(), &mut command);
        if !wait::happens(wait::SOON, || ready.exists() || holder.has_ended()) || !ready.exists() {
            may_miss("netns", &format!("unshare: {}; it takes root", holder.log()));
            return None;
        }
        let keys = ["alice", "bob", "carol"];
        let users = keys.map(|name| (name.to_owned(), Key::ed25519(dir.path(), name)));
        let mut island = Self { holder, dir, users: users.into(), keyway: None, vms: Vec::new() };
        let config = format!(
            "state_dir = \"{0}/state\"\n\
             [edge]\nlisten = [\"0.0.0.0:22\"]\nlog = \"json\"\n\
             [vm_leg]\nuser_ca = \"{1}\"\n\
             [dns]\nzone = \"vm.test\"\nlisten = \"127.0.0.53:53\"\n\
             [metrics]\nlisten = \"127.0.0.1:9644\"\n",
            island.dir.path().display(),
            Key::ed25519(island.dir.path(), "ca").path().display()
        );
        fs::write(island.path("keyway.toml"), config).expect("a set-up of ours");
        island.start();
        Some(island)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("state/keyway.sock")
    }

    /// A program on the island.
    fn command(&self, program: &str) -> Command {
        let mut command = beside(self.holder.id(), Path::new(program));
        command.env("KEYWAY_SOCKET", self.socket()).env("HOME", self.dir.path());
        command
    }

    fn start(&mut self) {
        let mut command = self.command(KEYWAY);
        command.arg("serve").arg("--config").arg(self.path("keyway.toml"));
        let mut process = Process::start("keyway", self.dir.path(), &mut command);
        let socket = self.socket();
        wait::until("the API", wait::SOON, || {
            assert!(!process.has_ended(), "{}", process.log());
            UnixStream::connect(&socket).is_ok()
        });
        self.keyway = Some(process);
    }

    fn keyway(&self, words: &str) -> Output {
        let mut command = self.command(KEYWAY);
        command.args(words.split_whitespace()).current_dir(self.dir.path());
        run(&mut command)
    }

    /// An answer as JSON.
    #[track_caller]
    fn json(&self, words: &str) -> serde_json::Value {
        let output = self.keyway(&format!("{words} --output json")).ok();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|why| panic!("{words}: {why}"))
    }

    /// A VM's sshd, which lets in certificates for `vm:<id>`.
    fn sshd(&mut self, id: &str) -> SocketAddr {
        let number = u8::try_from(self.vms.len()).expect("a set-up of ours") + 1;
        let ip = IpAddr::V4(Ipv4Addr::new(127, 79, 0, number));
        let ca = fs::read_to_string(self.path("ca.pub")).expect("a set-up of ours");
        let principals = format!("vm:{id}\n");
        let trust = sshd::Trust { ca: &ca, principals: &principals, keys: "" };
        let holder = self.holder.id();
        let vm = sshd::Vm::start_beside(holder, self.dir.path(), id, ip, &trust);
        let address = vm.address;
        self.vms.push((id.to_owned(), vm));
        address
    }

    /// `ssh NAME.vm.test`, as a user with nothing but a key and a resolver.
    fn ssh(&self, user: &str, login: &str, host: &str, command: &str) -> Command {
        let (_, key) = self.users.iter().find(|(name, _)| name == user).expect("a set-up of ours");
        let known = self.path(&format!("known_hosts_{user}"));
        let mut ssh = self.command("ssh");
        ssh.args(["-F", "none", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o"])
            .arg("StrictHostKeyChecking=accept-new")
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", known.display()))
            .arg("-i")
            .arg(key.path())
            .arg("-l")
            .arg(login)
            .arg(host)
            .arg(command);
        ssh
    }

    /// In which VM `user` is at `host`.
    #[track_caller]
    fn enters(&self, user: &str, host: &str) -> String {
        run(&mut self.ssh(user, &login(), host, "echo $KEYWAY_VM")).ok().text()
    }

    #[track_caller]
    fn is_refused(&self, user: &str, host: &str) {
        let output = run(&mut self.ssh(user, &login(), host, "echo $KEYWAY_VM")).ends(255);
        assert!(output.stderr.contains("Permission denied"), "{}", output.stderr);
    }

    /// The list of sessions, once it has `count`: one whose client has left stands there
    /// for a moment more.
    #[track_caller]
    fn sessions(&self, count: usize) -> serde_json::Value {
        let mut list = serde_json::Value::Null;
        wait::until(&format!("{count} sessions"), wait::SOON, || {
            list = self.json("session list");
            list.as_array().expect("a list").len() == count
        });
        list
    }

    /// What DNS says of a name.
    fn dig(&self, name: &str, kind: &str) -> Vec<String> {
        let mut dig = self.command("dig");
        let output =
            run(dig.args(["+short", "@127.0.0.53", &format!("{name}.vm.test"), kind])).ok();
        output.text().lines().map(str::to_owned).collect()
    }

    /// A session that stays until it is ended.
    fn stays(&self, user: &str, host: &str) -> Process {
        let mut ssh = self.ssh(user, &login(), host, "echo in; sleep 600");
        let process = Process::start(&format!("ssh-{user}-{host}"), self.dir.path(), &mut ssh);
        wait::until("a session", wait::SOON, || process.log().contains("in\n"));
        process
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        self.vms.clear();
        self.keyway = None;
        kill_tree(self.holder.id());
    }
}

#[track_caller]
fn ends_with_words(session: Process, words: &str) {
    ends_with_words_within(REVOKED, session, words);
}

#[track_caller]
fn ends_with_words_within(limit: Duration, mut session: Process, words: &str) {
    wait::until("the session ends", limit, || session.has_ended());
    assert!(session.log().contains(words), "{}", session.log());
}

/// The pool, three users, and two VMs, all by the command line.
fn settled() -> Option<Island> {
    if World::is_direct() {
        return None;
    }
    let mut island = Island::new()?;
    for (number, ip) in POOL.iter().enumerate() {
        island.keyway(&format!("address add s{:03} {ip}", number + 1)).ok();
    }
    for user in ["alice", "bob", "carol"] {
        island.keyway(&format!("user add {user} --key {user}.pub")).ok();
    }
    for (vm, owner) in [("blue", "alice"), ("green", "bob")] {
        let at = island.sshd(vm);
        island.keyway(&format!("vm add {vm} --owner {owner} --ssh {at} --address s001")).ok();
    }
    Some(island)
}

#[test]
fn what_the_command_line_makes_is_entered_by_name_through_dns() {
    let Some(mut island) = settled() else { return };
    assert_eq!(island.enters("alice", "blue.vm.test"), "blue");
    assert_eq!(island.enters("bob", "green.vm.test"), "green");
    island.is_refused("carol", "blue.vm.test");
    // Whoever has no right to blue can only ever reach a VM of their own at its address.
    assert_eq!(island.enters("bob", "blue.vm.test"), "green");
    assert_eq!(island.dig("blue", "A"), ["s001.vm.test.", POOL[0]]);
    assert_eq!(island.dig("blue", "SSHFP").len(), 2, "the alias and one host key");

    // A team, its VM, and a member who joins later.
    island.keyway("team add ops --member alice --member bob").ok();
    let at = island.sshd("shared");
    island.keyway(&format!("vm add shared --owner team:ops --ssh {at}")).ok();
    assert_eq!(island.enters("alice", "shared.vm.test"), "shared");
    assert_eq!(island.enters("bob", "shared.vm.test"), "shared");
    island.is_refused("carol", "shared.vm.test");
    island.keyway("team join ops carol").ok();
    assert_eq!(island.enters("carol", "shared.vm.test"), "shared");

    // Both are at s001, so bob would see two VMs there.
    let refused = island.keyway("vm share blue --with bob").ends(1);
    assert!(refused.stderr.contains("bob would see blue and green at s001"), "{}", refused.stderr);
    let planned = island.json("vm share blue --with bob --renumber --dry-run");
    assert_eq!(planned["moves"][0]["vm"], "blue");
    assert_eq!(island.dig("blue", "A"), ["s001.vm.test.", POOL[0]], "a dry run changed something");
    island.keyway("vm share blue --with bob --renumber").ok();
    assert_eq!(island.dig("blue", "A"), ["s003.vm.test.", POOL[2]]);
    for user in ["alice", "bob"] {
        assert_eq!(island.enters(user, "blue.vm.test"), "blue");
    }
    // Who had the old address still gets there: resolvers remember it.
    assert_eq!(island.enters("alice", POOL[0]), "blue");
    assert_eq!(island.enters("bob", POOL[0]), "green");

    // Scripts learn what to dial.
    let vms = island.json("vm list");
    let blue = vms.as_array().expect("a list").iter().find(|vm| vm["name"] == "blue");
    let blue = blue.expect("blue");
    assert_eq!(
        (&blue["host"], &blue["ssh_dest"]),
        (&"blue.vm.test".into(), &"blue.vm.test".into())
    );

    // People learn it in the lobby.
    island.keyway(&format!("address add home {LOBBY} --lobby")).ok();
    let list = run(&mut island.ssh("alice", &login(), "home.vm.test", "list")).ok().text();
    assert!(list.lines().any(|line| line.ends_with(" blue.vm.test")), "{list}");

    // Access that takes no slot, at any address.
    let by_name =
        run(&mut island.ssh("carol", &format!("{}+blue", login()), POOL[3], "true")).ends(255);
    assert!(by_name.stderr.contains("Permission denied"), "{}", by_name.stderr);
    island.keyway("vm share blue --with carol --by-name").ok();
    run(&mut island.ssh("carol", &format!("{}+blue", login()), POOL[3], "true")).ok();
    island.is_refused("carol", "blue.vm.test");

    // A drained address is left by its VMs.
    island.keyway("address drain s001").ok();
    assert_ne!(island.dig("green", "A"), ["s001.vm.test.", POOL[0]]);
    assert_eq!(island.enters("bob", "green.vm.test"), "green");

    // Everything is there again after a restart, in the map and in DNS.
    let before = island.json("vm list");
    signal(island.keyway.as_ref().expect("a set-up of ours").id(), Signal::SIGKILL);
    island.keyway = None;
    island.start();
    assert_eq!(island.json("vm list"), before);
    assert_eq!(island.enters("bob", "green.vm.test"), "green");
}

#[test]
fn who_loses_the_right_is_shown_out_with_a_word() {
    let Some(island) = settled() else { return };
    let lost = "was taken away, so this session has ended";
    island.keyway("vm share blue --with carol").ok();
    let (alice, carol) =
        (island.stays("alice", "blue.vm.test"), island.stays("carol", "blue.vm.test"));
    island.sessions(2);
    island.keyway("vm unshare blue --with carol").ok();
    ends_with_words(carol, lost);
    island.is_refused("carol", "blue.vm.test");

    // The new owner did nothing wrong, the old one has nothing there any more.
    island.keyway("vm transfer blue --to carol").ok();
    ends_with_words(alice, lost);
    assert_eq!(island.enters("carol", "blue.vm.test"), "blue");

    // A renamed VM keeps its sessions.
    let carol = island.stays("carol", "blue.vm.test");
    island.keyway("vm rename blue red").ok();
    assert_eq!(island.enters("carol", "red.vm.test"), "blue");
    let sessions = island.sessions(1);
    let id = sessions[0]["id"].as_str().expect("a set-up of ours");
    island.keyway(&format!("session kill {id}")).ok();
    ends_with_words(carol, "an operator ended this session");

    let bob = island.stays("bob", "green.vm.test");
    // Another comment, or options that let the session be, end nothing: the key is
    // there all the time.
    let line = fs::read_to_string(island.path("bob.pub")).expect("a set-up of ours");
    let words: Vec<&str> = line.split_whitespace().take(2).collect();
    let line = format!("expiry-time=\"20990101\" {} another\n", words.join(" "));
    fs::write(island.path("again.pub"), line).expect("a set-up of ours");
    island.keyway("key set bob again.pub").ok();
    island.sessions(1);
    assert_eq!(island.enters("bob", "green.vm.test"), "green");
    let keys = island.json("key list --user bob");
    assert_eq!((&keys[0]["comment"], keys.as_array().map(Vec::len)), (&"another".into(), Some(1)));
    island
        .keyway(&format!(
            "key rm bob {}",
            keys[0]["fingerprint"].as_str().expect("a set-up of ours")
        ))
        .ok();
    ends_with_words(bob, lost);
    island.sessions(0);
}

#[test]
fn explain_walks_the_way_of_a_login_and_says_which_step_decides() {
    let Some(island) = settled() else { return };
    let explain = |words: &str| {
        let answer = island.json(&format!("explain {words}"));
        let text = |key: &str| answer[key].as_str().unwrap_or("-").to_owned();
        [text("decision"), text("principal"), text("vm"), text("code")].join(" ")
    };
    let at = POOL[0];
    assert_eq!(explain(&format!("--key alice.pub --address {at}")), "vm alice blue vm");
    assert_eq!(explain("--key alice.pub --name blue"), "vm alice blue vm");
    assert_eq!(explain("--key alice.pub --name blue.vm.test"), "vm alice blue vm");
    assert_eq!(explain("--key alice.pub --address s002"), "refused alice - no-vm-here");
    assert_eq!(explain("--key alice.pub --address 192.0.2.1"), "refused - - address-unknown");
    assert_eq!(explain("--key alice.pub --name nothing"), "refused - - no-such-vm");
    assert_eq!(explain("--key carol.pub --name blue"), "refused carol - no-vm-here");
    let by_name = |vm: &str| format!("--key alice.pub --address s002 --login root+{vm}");
    assert_eq!(explain(&by_name("blue")), "vm alice blue vm");
    assert_eq!(explain(&by_name("green")), "refused alice - forbidden");
    assert_eq!(explain(&by_name("none")), "refused alice - no-such-vm");
    island.keyway("user rm carol").ok();
    assert_eq!(explain("--key carol.pub --name blue"), "refused - - not-registered");
    island.keyway("vm set blue --state maint").ok();
    assert_eq!(explain("--key alice.pub --address s001"), "refused alice blue vm-maintenance");
    assert_eq!(explain("--key alice.pub --name blue"), "refused alice blue vm-maintenance");
    island.keyway("vm set blue --state ready").ok();
    island.keyway("address maint s001").ok();
    assert_eq!(explain("--key alice.pub --address s001"), "refused alice blue address-maintenance");
    assert_eq!(explain("--key alice.pub --name blue"), "refused alice blue address-maintenance");
    island.keyway("address add home 10.79.0.9 --lobby").ok();
    assert_eq!(explain("--key alice.pub --address home"), "lobby alice - lobby");
}

#[test]
fn the_edge_starts_from_the_last_routes_when_the_registry_cannot_be_opened() {
    let Some(mut island) = settled() else { return };
    assert_eq!(island.enters("alice", "blue.vm.test"), "blue");
    let keyway = island.keyway.take().expect("a set-up of ours");
    signal(keyway.id(), Signal::SIGKILL);
    drop(keyway);
    let store = island.path("state/registry.db");
    fs::write(&store, "not a store").expect("a set-up of ours");
    for more in ["-wal", "-shm"] {
        let _there_or_not = fs::remove_file(island.path(&format!("state/registry.db{more}")));
    }
    let mut command = island.command(KEYWAY);
    command.arg("serve").arg("--config").arg(island.path("keyway.toml"));
    let process = Process::start("keyway-again", island.dir.path(), &mut command);
    wait::until("the front door", wait::SOON, || process.log().contains("is up"));
    assert!(process.log().contains("the registry cannot be opened"), "{}", process.log());
    assert_eq!(island.enters("alice", "blue.vm.test"), "blue");
    island.is_refused("carol", "blue.vm.test");
    // Nobody was there yet, and what cannot be written down cannot be held against anybody later.
    let mut green = island.ssh("bob", &login(), "green.vm.test", "true");
    let first = run(&mut green).ends(255);
    assert!(first.stderr.contains("cannot be recorded right now"), "{}", first.stderr);
    let list = island.keyway("user list").ok();
    assert!(list.text().contains("carol") && list.stderr.contains("the registry is away"));
    let refused = island.keyway("user add dora").ends(1);
    assert!(refused.stderr.contains("[registry-away]"), "{}", refused.stderr);
}

#[test]
fn a_start_runs_from_the_saved_routes_while_the_registry_is_read() {
    let Some(mut island) = settled() else { return };
    for (round, end) in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGTERM].into_iter().enumerate()
    {
        let mut keyway = island.keyway.take().expect("a running keyway");
        signal(keyway.id(), end);
        wait::until("the end", wait::SOON, || keyway.has_ended());
        let mut command = island.command(KEYWAY);
        command.arg("serve").arg("--config").arg(island.path("keyway.toml"));
        let name = format!("keyway-{round}");
        let process = Process::start(&name, island.dir.path(), &mut command);
        wait::until("the front door", wait::SOON, || process.log().contains("is up"));
        assert!(process.log().contains("the routes are those saved last"), "{}", process.log());
        island.keyway = Some(process);
        assert_eq!(island.enters("alice", "blue.vm.test"), "blue");
        // What changes now is saved behind what was there, with what changes no route.
        let vm = format!("more{round}");
        let at = island.sshd(&vm);
        island.keyway(&format!("vm add {vm} --owner alice --ssh {at}")).ok();
        island.keyway(&format!("token add t{round} --role reader")).ok();
        for earlier in 0..=round {
            let vm = format!("more{earlier}");
            assert_eq!(island.enters("alice", &format!("{vm}.vm.test")), vm);
        }
    }
}

#[test]
fn a_backup_is_believed_only_once_adopted_and_what_was_lost_with_it_leads_nowhere_else() {
    let Some(mut island) = settled() else { return };
    let backup = island.path("backup.db");
    island.keyway(&format!("store backup {}", backup.display())).ok();
    // Made after the backup: alice could go to lost at s002.
    let lost = island.sshd("lost");
    island.keyway(&format!("vm add lost --owner alice --ssh {lost} --address s002")).ok();
    assert_eq!(island.enters("alice", "lost.vm.test"), "lost");
    // And was gone again: no routing map knows that her slot at s004 is held.
    island.keyway("vm add brief --owner alice --ssh 127.0.0.1:9 --address s004").ok();
    island.keyway("vm rm brief").ok();
    let keyway = island.keyway.take().expect("a running keyway");
    signal(keyway.id(), Signal::SIGKILL);
    drop(keyway);
    let config = island.path("keyway.toml");
    let restore = format!("store restore {} --config {}", backup.display(), config.display());
    island.keyway(&restore).ok();

    // Not adopted: the routes that were saved stand, those of the backup do not.
    let mut command = island.command(KEYWAY);
    command.arg("serve").arg("--config").arg(&config);
    let mut refusing = Process::start("keyway-refusing", island.dir.path(), &mut command);
    wait::until("the front door", wait::SOON, || refusing.log().contains("is up"));
    assert!(refusing.log().contains("keyway store adopt"), "{}", refusing.log());
    assert_eq!(island.enters("alice", "lost.vm.test"), "lost");
    signal(refusing.id(), Signal::SIGTERM);
    wait::until("its end", wait::SOON, || refusing.has_ended());

    island.keyway(&format!("store adopt --config {}", config.display())).ok();
    // An adoption that fails half way opens the door from the earlier routes only.
    let adopting = island.path("state/adopting");
    fs::create_dir(&adopting).expect("in the way of a file");
    let mut failing = Process::start("keyway-failing", island.dir.path(), &mut command);
    wait::until("the front door", wait::SOON, || failing.log().contains("is up"));
    assert!(failing.log().contains("the registry cannot be opened"), "{}", failing.log());
    assert_eq!(island.enters("alice", "lost.vm.test"), "lost");
    signal(failing.id(), Signal::SIGTERM);
    wait::until("its end", wait::SOON, || failing.has_ended());
    fs::remove_dir(&adopting).expect("out of the way");

    island.start();
    let refused = island.keyway("vm show lost").ends(1);
    assert!(refused.stderr.contains("there is no VM `lost`"), "{}", refused.stderr);
    let green = island.vms[1].1.address;
    let refused =
        island.keyway(&format!("vm add other --owner alice --ssh {green} --address s002")).ends(1);
    assert!(refused.stderr.contains("is gone, which must not lead to other"), "{}", refused.stderr);
    let refused =
        island.keyway(&format!("vm add other --owner alice --ssh {green} --address s004")).ends(1);
    assert!(refused.stderr.contains("is gone, which must not lead to other"), "{}", refused.stderr);
    island.keyway(&format!("vm add other --owner alice --ssh {green}")).ok();
    assert_eq!(island.dig("other", "A"), ["s003.vm.test.", POOL[2]]);
}

/// Eight clients at once, and kills in between: what was acknowledged stands, and nobody sees two
/// VMs at an address.
#[test]
fn eight_writers_and_a_process_that_is_killed_keep_the_invariant() {
    let Some(mut island) = settled() else { return };
    // A pool that is not used up by what the writers leave behind.
    let pool: Vec<String> = (1..=64)
        .map(|last| format!("[[address]]\nname = \"t{last:03}\"\npublic = \"10.79.1.{last}\"\n"))
        .collect();
    fs::write(island.path("pool.toml"), pool.concat()).expect("a set-up of ours");
    island.keyway("apply -f pool.toml --yes").ok();
    for round in 0..3 {
        let workers: Vec<_> = (0..8)
            .map(|worker| {
                let vm = format!("w{worker}-{round}");
                let script = format!(
                    "{KEYWAY} vm add {vm} --owner carol --ssh 127.0.0.1:22 && echo made {vm}; \
                     {KEYWAY} vm share {vm} --with bob --renumber && echo shared {vm}; \
                     {KEYWAY} vm transfer {vm} --to alice --renumber && echo moved {vm}; \
                     {KEYWAY} vm rm {vm} && echo gone {vm}"
                );
                let mut command = island.command("sh");
                command.arg("-c").arg(script).stdin(Stdio::null());
                let name = format!("worker-{worker}-{round}");
                Process::start(&name, island.dir.path(), &mut command)
            })
            .collect();
        // Killed when some have been answered and some have not.
        wait::until("some answers", wait::SOON, || {
            workers.iter().filter(|worker| worker.log().contains("made")).count() >= 2
        });
        let keyway = island.keyway.take().expect("a set-up of ours");
        signal(keyway.id(), Signal::SIGKILL);
        drop(keyway);
        let mut workers = workers;
        for worker in &mut workers {
            wait::until("a worker ends", wait::SOON, || worker.has_ended());
        }
        island.start();
        let vms = island.json("vm list");
        let vms = vms.as_array().expect("a set-up of ours");
        for worker in &workers {
            let log = worker.log();
            let named = |word: &str| {
                let line = log.lines().find(|line| line.starts_with(&format!("{word} ")));
                line.map(|line| line[word.len() + 1..].to_owned())
            };
            let stands = |name: &String| vms.iter().any(|vm| vm["name"] == name.as_str());
            if let (Some(made), None) = (named("made"), named("gone")) {
                let maybe_gone = log.lines().any(|line| line.starts_with("moved"));
                assert!(stands(&made) || maybe_gone, "{made} was acknowledged and is lost");
            }
            assert!(!named("gone").is_some_and(|gone| stands(&gone)), "a VM came back");
        }
        for user in ["alice", "bob", "carol"] {
            let mut seen = std::collections::BTreeMap::new();
            for vm in island
                .json(&format!("vm list --visible-to {user}"))
                .as_array()
                .expect("a set-up of ours")
            {
                let Some(address) = vm["address"].as_str() else { continue };
                let other = seen.insert(address.to_owned(), vm["name"].clone());
                assert_eq!(other, None, "{user} sees two VMs at {address}");
            }
        }
    }
}
