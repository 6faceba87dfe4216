//! Tests of `vm`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::client::{self, Answer, Ask, Begin, End, Task, Trouble};
use super::super::directory::Directory;
use super::{Setup, Vm};
use crate::edge::clock::unix_s;
use crate::ssh::certificate::{Restrictions, UserCertificate};
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::userauth::Credential;

/// For a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_mins(1);

/// The VM `blue`, its CA, and somebody who talks to it directly.
struct Scene {
    vm: Vm,
    ca: PrivateKey,
    host_key: Vec<u8>,
    directory: Directory,
}

impl Scene {
    fn new() -> Self {
        let entropy = &mut SystemEntropy::default();
        let directory = Directory::new(entropy).unwrap();
        let ca = PrivateKey::generate_ed25519(entropy);
        let key = PrivateKey::generate_ed25519(entropy);
        let host_key = key.public().blob().to_vec();
        let vm = Vm::start(Setup {
            name: "blue".into(),
            home: directory.path().to_owned(),
            host_key: key,
            user_ca: ca.public().clone(),
        });
        Self { vm: vm.unwrap(), ca, host_key, directory }
    }

    fn run(&self, credential: &Credential, task: &Task<'_>) -> Result<Answer, Trouble> {
        client::run(self.vm.address(), &self.host_key, "alice", credential, task, PATIENCE)
    }

    /// As the edge would come.
    fn answer(&self, task: &Task<'_>) -> Answer {
        self.run(&certified(&self.ca, "vm:blue", &Restrictions::default()), task).unwrap()
    }
}

fn certified(ca: &PrivateKey, principal: &str, restrictions: &Restrictions) -> Credential {
    let entropy = &mut SystemEntropy::default();
    let key = PrivateKey::generate_ed25519(entropy);
    let certificate = UserCertificate {
        key: key.public(),
        key_id: "test",
        principals: &[principal],
        valid_after_s: unix_s() - 60,
        valid_before_s: unix_s() + 60,
        source_address: Some("127.0.0.1"),
        restrictions,
        serial: 1,
    };
    let certificate = certificate.mint(ca, entropy).unwrap();
    Credential { key: Arc::new(key), certificate: Some(certificate) }
}

/// Trap 35: a login minted for one VM must be worth nothing at another.
#[test]
fn only_a_certificate_of_the_ca_for_this_very_vm_lets_anybody_in() {
    let scene = Scene::new();
    let free = Restrictions::default();
    let stranger = PrivateKey::generate_ed25519(&mut SystemEntropy::default());
    let plain = certified(&scene.ca, "vm:blue", &free);
    let refused = [
        certified(&scene.ca, "vm:red", &free),
        certified(&scene.ca, "blue", &free),
        certified(&scene.ca, "alice", &free),
        certified(&stranger, "vm:blue", &free),
        Credential { key: plain.key, certificate: None },
    ];
    for credential in &refused {
        let answer = scene.run(credential, &Task::exec("true"));
        assert!(matches!(answer, Err(Trouble::Denied)), "{answer:?}");
    }
    assert_eq!(scene.answer(&Task::exec("echo $USER in $KEYWAY_VM")).stdout, b"alice in blue\n");
}

#[test]
fn what_the_certificate_takes_away_is_taken_away() {
    let scene = Scene::new();
    let forced = Restrictions {
        force_command: Some("echo forced".into()),
        no_pty: true,
        ..Restrictions::default()
    };
    let credential = certified(&scene.ca, "vm:blue", &forced);
    let answer = scene.run(&credential, &Task::exec("echo asked for")).unwrap();
    assert_eq!(answer.stdout, b"forced\n");
    let on_terminal = Task { terminal: Some((80, 24)), ..Task::exec("true") };
    assert!(matches!(scene.run(&credential, &on_terminal), Err(Trouble::Request)));
}

#[test]
fn output_error_and_exit_status_arrive_apart() {
    let answer = Scene::new().answer(&Task::exec("echo one; echo two >&2; exit 9"));
    assert_eq!(answer, Answer { stdout: b"one\n".into(), stderr: b"two\n".into(), status: 9 });
}

#[test]
fn a_program_ended_by_a_signal_ends_as_a_shell_would_tell_it() {
    assert_eq!(Scene::new().answer(&Task::exec("kill -TERM $$")).status, 128 + 15);
}

#[test]
fn the_end_of_the_input_reaches_the_program_and_its_last_output_the_client() {
    let task = Task { input: b"to be counted", ..Task::exec("wc -c; echo and on") };
    let stdout = String::from_utf8(Scene::new().answer(&task).stdout).unwrap();
    assert_eq!(stdout.split_whitespace().collect::<Vec<_>>(), ["13", "and", "on"]);
}

#[test]
fn more_than_every_window_flows_both_ways_at_once() {
    let input: Vec<u8> = (0..=250_u8).cycle().take(6 << 20).collect();
    let answer = Scene::new().answer(&Task { input: &input, ..Task::exec("cat") });
    assert_eq!((answer.stdout == input, answer.status), (true, 0));
}

#[test]
fn a_program_that_closes_its_input_does_not_stall_a_client_that_goes_on() {
    let input = vec![0; 1 << 20];
    let task = Task { input: &input, ..Task::exec("exec <&-; echo done") };
    assert_eq!(Scene::new().answer(&task).stdout, b"done\n");
}

#[test]
fn a_terminal_has_the_size_and_the_name_that_were_asked_for() {
    let command = "tty >/dev/null && echo $TERM $(stty size)";
    let task = Task { terminal: Some((100, 30)), ..Task::exec(command) };
    assert_eq!(Scene::new().answer(&task).stdout, b"xterm 30 100\r\n");
}

#[test]
fn an_interrupt_typed_on_a_terminal_reaches_the_program() {
    // No child in the foreground: a shell drops an interrupt that comes just as its child has
    // ended by itself.
    let command = "trap 'echo interrupted; exit 4' INT; echo ready; while :; do read -r line; done";
    let typed = Task {
        terminal: Some((80, 24)),
        input: b"\x03",
        begin: Begin::AfterOutput,
        ..Task::exec(command)
    };
    let answer = Scene::new().answer(&typed);
    assert!(String::from_utf8(answer.stdout).unwrap().ends_with("interrupted\r\n"));
    assert_eq!(answer.status, 4);
}

#[test]
fn something_left_in_the_background_of_a_terminal_does_not_hold_the_session() {
    let task =
        Task { terminal: Some((80, 24)), ..Task::exec("trap '' HUP; sleep 300 & echo $!; exit 3") };
    let answer = Scene::new().answer(&task);
    assert_eq!(answer.status, 3);
    let left = String::from_utf8(answer.stdout).unwrap();
    let left = nix::unistd::Pid::from_raw(left.trim().parse().unwrap());
    nix::sys::signal::kill(left, nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[test]
fn forwarding_is_refused_with_a_word() {
    let scene = Scene::new();
    let credential = certified(&scene.ca, "vm:blue", &Restrictions::default());
    let answer = scene.run(&credential, &Task::ask(Ask::Forward));
    assert!(matches!(&answer, Err(Trouble::Refused(text)) if text.contains("forward nothing")));
}

#[test]
fn an_unknown_subsystem_is_refused() {
    let scene = Scene::new();
    let credential = certified(&scene.ca, "vm:blue", &Restrictions::default());
    let answer = scene.run(&credential, &Task::ask(Ask::Subsystem("netconf")));
    assert!(matches!(answer, Err(Trouble::Request)));
}

#[test]
fn a_client_that_wants_no_more_output_ends_the_program() {
    let task = Task { end: End::NoMoreOutput, ..Task::exec("exec yes") };
    assert_eq!(Scene::new().answer(&task).status, 128 + 13);
}

#[test]
fn a_client_that_goes_away_hangs_its_program_up() {
    // Whoever runs the tests may ignore SIGHUP, which programs would inherit; one that is caught
    // is theirs again.
    signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::default()).unwrap();
    let scene = Scene::new();
    // Its own words about it would end the shell: nobody reads them any more.
    let command = "exec 2>/dev/null; trap 'echo > hung-up; exit' HUP; echo ready; while :; do sleep 0.02; done";
    let credential = certified(&scene.ca, "vm:blue", &Restrictions::default());
    let (address, key) = (scene.vm.address(), &scene.host_key);
    let task = Task { end: End::Vanish, ..Task::exec(command) };
    let answer = client::run(address, key, "alice", &credential, &task, PATIENCE);
    assert!(matches!(answer, Err(Trouble::Late)), "{answer:?}");
    let sign = scene.directory.path().join("hung-up");
    let until = Instant::now() + PATIENCE;
    while !sign.exists() {
        assert!(Instant::now() < until, "the program goes on");
        std::thread::yield_now();
    }
}

#[test]
fn a_vm_that_ends_takes_its_connections_with_it() {
    let Scene { vm, ca, host_key, directory } = Scene::new();
    let address = vm.address();
    let credential = certified(&ca, "vm:blue", &Restrictions::default());
    let visit = std::thread::spawn(move || {
        let task = Task::exec("echo > started; exec sleep 1000");
        client::run(address, &host_key, "alice", &credential, &task, PATIENCE)
    });
    let until = Instant::now() + PATIENCE;
    while !directory.path().join("started").exists() {
        assert!(Instant::now() < until, "the program did not start");
        std::thread::yield_now();
    }
    drop(vm);
    assert!(matches!(visit.join().unwrap(), Err(Trouble::Broken(_))));
}
