//! What a tunnel reaches, and what stands in its way: each cause by its name.

use std::io::Read as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};

use keyway::nodes::tunnel::{NoProbe, Pin, SocketKind, Trust, Unreached, Way};
use nix::unistd::Uid;

use super::node::{Node, echoes, login, open, run};
use crate::harness::{Key, peers, process, wait};

const NO_STREAMLOCAL: &str = "AllowStreamLocalForwarding no";

/// Why a node's socket is not reached.
fn refusal(node: &Node, socket: &std::path::Path) -> Unreached {
    run(async {
        let tunnel = node.open(socket).await.expect("a login");
        tunnel.docker_stream().await.map(drop).expect_err("a refusal")
    })
}

#[test]
fn a_socket_and_an_address_are_reached_through_the_node() {
    let node = Node::start();
    let socket = node.echo();
    let to = crate::harness::echo_server();
    run(async {
        let tunnel = node.open(&socket).await.expect("a tunnel");
        assert_eq!(tunnel.host_key().to_line(), node.sshd.host_key.public());
        assert_eq!(tunnel.address(), node.sshd.address);
        for _ in 0..3 {
            echoes(&mut tunnel.docker_stream().await.expect("a stream")).await;
            echoes(&mut tunnel.tcp_stream(to).await.expect("a stream")).await;
        }
        let closed = node.sshd.address.ip();
        let closed = std::net::SocketAddr::new(closed, 1);
        let why = tunnel.tcp_stream(closed).await.map(drop).expect_err("nobody listens");
        assert_eq!(why, Unreached::NotConnected { to: closed });
        let found = tunnel.probe().await.expect("a probe");
        assert_eq!((found.socket, found.listening), (SocketKind::Socket, Some(true)));
        assert!(found.writable && found.user == login() && !found.machine.is_empty());
        assert_eq!(tunnel.way(), Way::Forwarded);
    });
}

#[test]
fn a_hundred_thousand_blocks_pass_unchanged_and_an_end_of_input_comes_back() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let node = Node::start();
    let socket = node.echo();
    run(async {
        let tunnel = node.open(&socket).await.expect("a tunnel");
        let stream = tunnel.docker_stream().await.expect("a stream");
        let (mut from, mut to) = tokio::io::split(stream);
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let to_send = sent.clone();
        let sending = tokio::spawn(async move {
            to.write_all(&to_send).await.expect("it is taken");
            to.shutdown().await.expect("an end of input");
            to
        });
        let mut back = vec![];
        from.read_to_end(&mut back).await.expect("an end");
        sending.await.expect("all was sent");
        assert!(back == sent, "{} of {} bytes", back.len(), sent.len());
    });
}

#[test]
fn another_key_is_not_let_in_and_a_user_who_is_not_there_neither() {
    let node = Node::start();
    let socket = node.path("none");
    let other = Key::ed25519(&node.path(""), "other");
    for (user, key) in [(login().as_str(), &other), ("nobody-here", &node.key)] {
        let endpoint = node.endpoint_as(user, key, &socket);
        let why = run(open(endpoint, Trust::Pinned(node.pin()))).expect_err("a refusal");
        let methods = "publickey".to_owned();
        assert_eq!(why, Unreached::KeyNotAccepted { user: user.to_owned(), methods });
    }
}

#[test]
fn a_node_that_asks_for_more_than_a_key_is_told_apart() {
    let extra = "KbdInteractiveAuthentication yes\nPasswordAuthentication yes\n\
                 AuthenticationMethods publickey,password";
    let node = Node::start_with(extra, "");
    let why = run(node.open(&node.path("none"))).expect_err("a refusal");
    assert_eq!(why.label(), "more_than_key", "{why}");
}

#[test]
fn trap_47_a_changed_host_key_ends_it_before_a_byte_of_the_login_is_sent() {
    let mut node = Node::start();
    let (socket, pin) = (node.echo(), node.pin());
    run(node.open(&socket)).expect("a tunnel");
    node.sshd.change_host_key();
    let logged = node.sshd.log().len();
    let both = [pin.clone(), Pin::Fingerprint(pin.fingerprint())];
    for pin in both {
        let why = run(open(node.endpoint(&socket), Trust::Pinned(pin.clone())));
        let Err(Unreached::HostKeyChanged { pinned, shown }) = why else { panic!("{why:?}") };
        assert_eq!(pinned, pin.fingerprint());
        assert_eq!(shown.fingerprint().to_string(), node.sshd.host_key.fingerprint());
    }
    // sshd says more about whoever names a user: `[preauth]` with that name, or a failed key.
    // One for the whole key, and one for each type that a bare fingerprint may be of.
    wait::until("the ends of five connections", wait::SOON, || {
        let log = &node.sshd.log()[logged..];
        let begun = log.matches("Connection from").count();
        let ends = [" closed by 127", " reset by 127", "Unable to negotiate with"];
        let ended: usize = ends.map(|end| log.matches(end).count()).iter().sum();
        begun >= 5 && ended >= begun
    });
    let log = &node.sshd.log()[logged..];
    assert!(!log.contains(&login()) && !log.contains("publickey"), "{log}");
}

#[test]
fn a_bare_fingerprint_finds_its_key_among_those_of_other_types() {
    let dir = crate::harness::Scratch::new();
    let ecdsa = Key::generate(dir.path(), "ecdsa", &["-t", "ecdsa", "-b", "384"]);
    let extra = format!("HostKey {}", ecdsa.path().display());
    let node = Node::start_with(&extra, "");
    let pin: Pin = ecdsa.fingerprint().parse().expect("a pin");
    let socket = node.path("none");
    run(async {
        let tunnel = open(node.endpoint(&socket), Trust::Pinned(pin)).await.expect("a tunnel");
        assert_eq!(tunnel.host_key().to_line(), ecdsa.public());
        let whole: Pin = ecdsa.public().parse().expect("a pin");
        open(node.endpoint(&socket), Trust::Pinned(whole)).await.expect("a tunnel");
    });
}

#[test]
fn a_new_key_is_shown_before_the_login_and_a_no_ends_it() {
    let node = Node::start();
    let socket = node.echo();
    for answer in [false, true] {
        let seen = Arc::new(Mutex::new(None));
        let keep = Arc::clone(&seen);
        let question = Box::new(move |key: keyway::ssh::publickey::PublicKey| {
            *keep.lock().expect("nobody panics") = Some(key);
            let asked: std::pin::Pin<Box<dyn Future<Output = bool> + Send>> =
                Box::pin(async move { answer });
            asked
        });
        let opened = run(open(node.endpoint(&socket), Trust::FirstUse(question)));
        let shown = seen.lock().expect("nobody panics").clone().expect("a question");
        assert_eq!(shown.to_line(), node.sshd.host_key.public());
        match opened {
            Ok(_) => assert!(answer),
            Err(why) => assert_eq!(why, Unreached::HostKeyNotConfirmed { shown }),
        }
        assert_eq!(node.sshd.log().contains("Accepted publickey"), answer);
    }
}

#[test]
fn a_socket_that_is_not_as_it_should_be_is_named() {
    let node = Node::start();
    let missing = node.path("missing.sock");
    assert_eq!(refusal(&node, &missing).label(), "socket_missing");
    let file = node.path("file.sock");
    std::fs::write(&file, "").expect("a file");
    assert_eq!(refusal(&node, &file).label(), "not_a_socket");
    // A daemon that was killed leaves its socket behind.
    let dead = node.path("dead.sock");
    drop(UnixListener::bind(&dead).expect("a socket"));
    assert_eq!(refusal(&node, &dead).label(), "socket_dead");
    // Bound, and nobody listens yet.
    let bound = node.path("bound.sock");
    let _held = std::os::unix::net::UnixDatagram::bind(&bound).expect("a socket");
    assert_eq!(refusal(&node, &bound).label(), "socket_dead");
}

/// Runs what was asked for as somebody who may do little.
const AS_NOBODY: &str = "ForceCommand exec setpriv --reuid=65534 --regid=65534 --clear-groups sh \
    -c \"$SSH_ORIGINAL_COMMAND\"";

#[test]
fn a_socket_that_the_user_may_not_use_or_see_is_named() {
    let extra = if Uid::effective().is_root() {
        format!("{NO_STREAMLOCAL}\n{AS_NOBODY}")
    } else {
        NO_STREAMLOCAL.to_owned()
    };
    let node = Node::start_with(&extra, "");
    let socket = node.echo();
    let mode = |path: &std::path::Path, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, mode).expect("a mode");
    };
    mode(&socket, 0);
    let why = refusal(&node, &socket);
    assert_eq!(why.label(), "no_permission", "{why}");
    let hidden = node.path("hidden");
    std::fs::create_dir(&hidden).expect("a directory");
    mode(&hidden, 0o600);
    let why = refusal(&node, &hidden.join("docker.sock"));
    assert_eq!(why.label(), "socket_hidden", "{why}");
    mode(&hidden, 0o700);
}

#[test]
fn forwarding_that_is_refused_is_named_without_saying_by_which_word() {
    let cases = [
        (NO_STREAMLOCAL, "", true),
        ("AllowTcpForwarding no\nAllowStreamLocalForwarding no", "", false),
        ("DisableForwarding yes", "", false),
        ("", "restrict", false),
        ("", "no-port-forwarding", false),
        ("PermitOpen none", "", false),
    ];
    let to = crate::harness::echo_server();
    for (extra, options, tcp) in cases {
        // Without a docker client, which would be the way then.
        let extra = format!("{extra}\nForceCommand PATH=/nowhere:$PATH; {WITHOUT_CLIENT}");
        let node = Node::start_with(&extra, options);
        let socket = node.echo();
        run(async {
            let tunnel = node.open(&socket).await.expect("a login");
            let docker = tunnel.docker_stream().await.map(drop);
            let named = Unreached::ForwardingRefused { to: socket.display().to_string() };
            assert_eq!(docker, Err(named), "{extra} {options}");
            let address = tunnel.tcp_stream(to).await.map(drop);
            let named = Unreached::ForwardingRefused { to: to.to_string() };
            assert_eq!(address, if tcp { Ok(()) } else { Err(named) }, "{extra} {options}");
        });
    }
}

/// Runs what was asked for with links to all programs but `docker` in its path.
const WITHOUT_CLIENT: &str = "d=$(mktemp -d); for p in id uname grep curl sh; do ln -s \"$(command \
    -v $p)\" $d/$p; done; PATH=$d sh -c \"$SSH_ORIGINAL_COMMAND\"; rm -r $d";

#[test]
fn a_docker_client_is_the_way_where_forwarding_is_refused() {
    // A client that does what Docker's does, without a Docker.
    let node = Node::start_with(
        &format!(
            "{NO_STREAMLOCAL}\nForceCommand PATH=$HOME/bin:$PATH sh -c \"$SSH_ORIGINAL_COMMAND\""
        ),
        "",
    );
    let bin = node.path("vm-n1/bin");
    std::fs::create_dir(&bin).expect("a directory");
    let client = bin.join("docker");
    let client_text = "#!/bin/sh\n[ \"$3 $4\" = 'system dial-stdio' ] || exit 2\n\
        exec nc -U \"${2#unix://}\"\n";
    std::fs::write(&client, client_text).expect("a client");
    std::fs::set_permissions(&client, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    if peers::program("netcat", "nc").is_none() {
        return;
    }
    let socket = node.echo();
    run(async {
        let tunnel = node.open(&socket).await.expect("a login");
        echoes(&mut tunnel.docker_stream().await.expect("a stream")).await;
        assert_eq!(tunnel.way(), Way::DockerClient);
        echoes(&mut tunnel.docker_stream().await.expect("a stream")).await;
        // What the client complains about is told.
        std::fs::write(&client, "#!/bin/sh\necho no daemon here >&2; exit 3\n").expect("a client");
        let mut stream = tunnel.docker_stream().await.expect("a stream");
        let mut into = vec![];
        let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut into).await;
        let said = read.expect_err("no end of input").to_string();
        assert!(said.contains("ended with 3: no daemon here"), "{said}");
    });
}

/// What the probe says at a node where forwarding is refused, so that it is asked.
fn unprobed(extra: &str, options: &str) -> Option<NoProbe> {
    let node = Node::start_with(&format!("{NO_STREAMLOCAL}\n{extra}"), options);
    let why = refusal(&node, &node.echo());
    let Unreached::Unexplained { why, .. } = why else { panic!("{why}") };
    why
}

#[test]
fn where_no_probe_is_possible_it_says_why() {
    assert_eq!(unprobed("MaxSessions 0", ""), Some(NoProbe::NoSession));
    let other =
        |said: &str, status| Some(NoProbe::Other { said: said.to_owned(), status: Some(status) });
    assert_eq!(unprobed("ForceCommand echo not for you", ""), other("not for you", 0));
    assert_eq!(unprobed("", "command=\"exit 5\""), other("", 5));
    let repeated = unprobed("ForceCommand echo \"$SSH_ORIGINAL_COMMAND\"", "");
    assert!(matches!(repeated, Some(NoProbe::Other { status: Some(0), .. })), "{repeated:?}");
    assert_eq!(unprobed("ForceCommand yes", ""), Some(NoProbe::NotUnderstood));
    let nologin = unprobed("ForceCommand /usr/sbin/nologin", "");
    assert_eq!(nologin, other("This account is currently not available.", 1));
}

#[test]
fn what_runs_in_place_of_the_probe_is_ended_with_it() {
    let node = Node::start_with("ForceCommand exec yes", "");
    let socket = node.echo();
    run(async {
        let tunnel = node.open(&socket).await.expect("a login");
        assert_eq!(tunnel.probe().await, Err(NoProbe::NotUnderstood));
        super::node::until("its end", || {
            let mut all = process::descendants(node.sshd.id()).into_iter();
            all.all(|id| {
                let name = std::fs::read_to_string(format!("/proc/{id}/comm"));
                name.is_ok_and(|name| name.trim() != "yes")
            })
        })
        .await;
        echoes(&mut tunnel.docker_stream().await.expect("a stream")).await;
    });
}

#[test]
fn forwarding_works_without_sessions_and_without_a_shell() {
    for extra in ["MaxSessions 0", "ForceCommand /usr/sbin/nologin"] {
        let node = Node::start_with(extra, "");
        let socket = node.echo();
        run(async {
            let tunnel = node.open(&socket).await.expect("a login");
            assert!(tunnel.probe().await.is_err());
            echoes(&mut tunnel.docker_stream().await.expect("a stream")).await;
        });
    }
}

#[test]
fn a_user_whose_shell_is_nologin_is_entered() {
    if !Uid::effective().is_root() {
        peers::skipped("a user without a shell (takes root)");
        return;
    }
    let node = Node::start();
    let socket = node.echo();
    let endpoint = node.endpoint_as("nobody", &node.key, &socket);
    run(async {
        let tunnel = open(endpoint, Trust::Pinned(node.pin())).await.expect("a login");
        let why = tunnel.probe().await.expect_err("no shell");
        assert!(why.to_string().contains("not available"), "{why}");
    });
}

#[test]
fn the_probe_runs_under_every_shell() {
    let shells = [
        ("sh -c", "openssh", "sh"),
        ("dash -c", "openssh", "sh"),
        ("bash -c", "openssh", "sh"),
        ("busybox sh -c", "shells", "busybox"),
        ("csh -c", "shells", "csh"),
        ("fish -c", "shells", "fish"),
        ("zsh -c", "shells", "zsh"),
    ];
    for (shell, peer, program) in shells {
        if peers::program(peer, program).is_none() {
            continue;
        }
        let node = Node::start_with(&format!("ForceCommand {shell} \"$SSH_ORIGINAL_COMMAND\""), "");
        let socket = node.echo();
        run(async {
            let tunnel = node.open(&socket).await.expect("a login");
            let found = tunnel.probe().await.unwrap_or_else(|why| panic!("{shell}: {why}"));
            assert_eq!(found.listening, Some(true), "{shell}");
            assert_eq!((found.system.as_str(), found.user), ("Linux", login()), "{shell}");
        });
    }
}

#[test]
fn an_sshd_that_takes_no_more_connections_is_named() {
    // The usual MaxStartups of the tests' sshds cannot be overruled.
    let node = Node::start_with("PerSourceMaxStartups 1", "");
    let socket = node.path("none");
    let mut held = None;
    wait::until("a place", wait::SOON, || {
        let connection = TcpStream::connect(node.sshd.address).expect("a connection");
        let mut said = [0; 4];
        let has_place = (&connection).read_exact(&mut said).is_ok() && &said == b"SSH-";
        held = has_place.then_some(connection);
        has_place
    });
    run(async {
        let why = node.open(&socket).await.expect_err("a refusal");
        assert!(why.label() == "closed" && why.fault().contains("MaxStartups"), "{why}");
    });
    drop(held);
}

#[test]
fn an_address_outside_the_networks_is_not_dialled() {
    let node = Node::start();
    let key = std::fs::read_to_string(node.key.path()).expect("a key");
    let credential = keyway::nodes::tunnel::Credential::read(&key, None).expect("a key");
    let (host, port) = (node.sshd.address.ip().to_string(), node.sshd.address.port());
    for networks in [vec![], vec!["10.0.0.0/8".parse().expect("a network")]] {
        for host in [&host, "localhost"] {
            let at = (login(), host);
            let endpoint = keyway::nodes::tunnel::Endpoint::new(
                (&at.0, at.1, port),
                networks.clone(),
                keyway::nodes::tunnel::DockerSocket::default(),
                credential.clone(),
            );
            let endpoint = Arc::new(endpoint.expect("an endpoint"));
            let why = run(open(endpoint, Trust::Pinned(node.pin()))).expect_err("a refusal");
            assert_eq!(why.label(), "address_refused", "{why}");
        }
    }
    node.was_left_alone();
}
