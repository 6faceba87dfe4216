//! What a keeper does when things change under it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keyway::nodes::tunnel::{Check, Company, Health, Keeper, Reason, State, Unreached};
use nix::sys::signal::Signal;
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;

use super::node::{Node, echoes, run, until};
use crate::harness::process;

/// A check that the socket sends back what it gets.
fn by_echo() -> Check {
    Box::new(|tunnel| {
        Box::pin(async move {
            let mut stream = tunnel.docker_stream().await.map_err(|why| Reason::from(&why))?;
            echoes(&mut stream).await;
            Ok(())
        })
    })
}

async fn is(health: &mut watch::Receiver<Health>, state: State) -> Health {
    let became = health.wait_for(|health| health.state == state);
    let became = tokio::time::timeout(crate::harness::wait::SOON, became).await;
    became.unwrap_or_else(|_| panic!("never {state:?}")).expect("a keeper").clone()
}

/// Ends every process that serves a connection of the node, and not the one that listens.
fn end_sessions(node: &Node, how: Signal) {
    let listener = node.sshd.id();
    for child in process::descendants(listener) {
        process::signal(child, how);
    }
}

#[test]
fn a_node_goes_offline_with_its_sshd_and_comes_back_with_it() {
    let mut node = Node::start();
    let socket = node.echo();
    run(async {
        let keeper = Keeper::start(node.plan(&socket), by_echo());
        let mut health = keeper.health();
        assert_eq!(health.borrow().state, State::Pending);
        let online = is(&mut health, State::Online).await;
        assert!(online.heartbeat_s.is_some() && online.reason.is_none());
        node.sshd.down();
        let offline = is(&mut health, State::Offline).await;
        assert!(offline.reason.is_some(), "{offline:?}");
        assert!(keeper.tunnel().is_err());
        until("a refusal", || {
            let label = keeper.health().borrow().reason.as_ref().map(|reason| reason.label);
            label == Some("connection_refused")
        })
        .await;
        node.sshd.up();
        is(&mut health, State::Online).await;
        let stream = keeper.docker_stream(Company::Shared).await;
        echoes(&mut stream.expect("a stream")).await;
    });
}

#[test]
fn a_frozen_connection_is_noticed_and_replaced() {
    let node = Node::start();
    let socket = node.echo();
    run(async {
        let keeper = Keeper::start(node.plan(&socket), by_echo());
        let mut health = keeper.health();
        is(&mut health, State::Online).await;
        let mut stream = keeper.docker_stream(Company::Shared).await.expect("a stream");
        end_sessions(&node, Signal::SIGSTOP);
        let offline = is(&mut health, State::Offline).await;
        assert_eq!(offline.reason.expect("a reason").label, "frozen");
        let read = stream.read(&mut [0; 8]).await.expect_err("no end of input");
        assert_eq!(read.kind(), std::io::ErrorKind::ConnectionReset);
        is(&mut health, State::Online).await;
        end_sessions(&node, Signal::SIGCONT);
    });
}

#[test]
fn a_cut_connection_ends_its_streams_with_an_error_and_comes_back() {
    let node = Node::start();
    let socket = node.echo();
    run(async {
        let keeper = Keeper::start(node.plan(&socket), by_echo());
        is(&mut keeper.health(), State::Online).await;
        let mut shared = keeper.docker_stream(Company::Shared).await.expect("a stream");
        let mut own = keeper.docker_stream(Company::Own).await.expect("a stream");
        echoes(&mut own).await;
        end_sessions(&node, Signal::SIGKILL);
        for stream in [&mut shared, &mut own] {
            assert!(stream.read(&mut [0; 8]).await.is_err(), "that is no end of input");
        }
        until("a new connection", || keeper.tunnel().is_ok()).await;
    });
}

#[test]
fn another_host_key_is_an_error_that_nothing_repairs_until_the_key_is_back() {
    let mut node = Node::start();
    let socket = node.echo();
    let plan = node.plan(&socket);
    let pinned = node.pin().fingerprint().to_string();
    let (key, public) = (node.sshd.host_key.path().to_owned(), node.sshd.host_key.public_path());
    let kept = [&key, &public].map(|path| std::fs::read(path).expect("a key"));
    run(async {
        let keeper = Keeper::start(plan, by_echo());
        let mut health = keeper.health();
        is(&mut health, State::Online).await;
        node.sshd.change_host_key();
        let reason = is(&mut health, State::Error).await.reason.expect("a reason");
        assert_eq!(reason.label, "host_key_changed");
        let shown = node.sshd.host_key.fingerprint();
        assert!(reason.fault.contains(&pinned) && reason.fault.contains(&shown), "{reason:?}");
        assert!(keeper.tunnel().is_err());
        node.sshd.down();
        for (path, bytes) in std::iter::zip([&key, &public], &kept) {
            std::fs::write(path, bytes).expect("the old key");
        }
        node.sshd.up();
        is(&mut health, State::Online).await;
    });
}

#[test]
fn a_check_that_fails_is_an_error_over_a_connection_that_stays() {
    let node = Node::start();
    let socket = node.echo();
    let fails = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&fails);
    let check: Check = Box::new(move |_| {
        let fails = told.load(Ordering::Relaxed);
        let (label, fault, fix) = ("api_too_old", "x".to_owned(), "y".to_owned());
        let reason = Reason { label, fault, fix, shown: None };
        Box::pin(async move { if fails { Err(reason) } else { Ok(()) } })
    });
    run(async {
        let keeper = Keeper::start(node.plan(&socket), check);
        let mut health = keeper.health();
        let since = is(&mut health, State::Online).await.since_s;
        assert!(since > 0);
        let mut stream = keeper.docker_stream(Company::Shared).await.expect("a stream");
        fails.store(true, Ordering::Relaxed);
        keeper.hurry();
        let error = is(&mut health, State::Error).await;
        assert_eq!(error.reason.expect("a reason").label, "api_too_old");
        fails.store(false, Ordering::Relaxed);
        is(&mut health, State::Online).await;
        echoes(&mut stream).await;
    });
}

#[test]
fn a_daemon_that_does_not_answer_is_told_from_a_node_that_is_gone() {
    let node = Node::start();
    let socket = node.echo();
    let check: Check = Box::new(|_| Box::pin(std::future::pending()));
    run(async {
        let mut plan = node.plan(&socket);
        let brisk = (*plan.settings).clone();
        let check_max = std::time::Duration::from_millis(300);
        plan.settings = Arc::new(keyway::nodes::tunnel::Settings { check: check_max, ..brisk });
        let keeper = Keeper::start(plan, check);
        let error = is(&mut keeper.health(), State::Error).await;
        assert_eq!(error.reason.expect("a reason").label, "daemon_not_answering");
        assert!(keeper.tunnel().is_ok());
    });
}

#[test]
fn a_node_without_a_pin_is_pending_and_never_dialled() {
    let node = Node::start();
    let socket = node.echo();
    run(async {
        let mut plan = node.plan(&socket);
        plan.pin = None;
        let keeper = Keeper::start(plan, by_echo());
        let health = keeper.health().borrow().clone();
        assert_eq!(health.state, State::Pending);
        assert_eq!(health.reason.expect("a reason").label, "host_key_unknown");
        for company in [Company::Shared, Company::Own] {
            let why = keeper.docker_stream(company).await.map(drop);
            assert_eq!(why, Err(Unreached::NotYet));
        }
    });
    node.was_left_alone();
}

#[test]
fn connections_of_their_own_are_bounded_and_end_with_their_streams() {
    let node = Node::start();
    let socket = node.echo();
    run(async {
        let keeper = Keeper::start(node.plan(&socket), by_echo());
        is(&mut keeper.health(), State::Online).await;
        let mut held = vec![];
        for _ in 0..16 {
            held.push(keeper.docker_stream(Company::Own).await.expect("a stream"));
        }
        let why = keeper.docker_stream(Company::Own).await.map(drop);
        assert_eq!(why, Err(Unreached::TooManyConnections { max: 16 }));
        for stream in &mut held {
            echoes(stream).await;
        }
        held.clear();
        let listener = node.sshd.id();
        // The one that stands: a process with privileges and, under root, one without.
        until("their ends", || process::descendants(listener).len() <= 2).await;
        keeper.docker_stream(Company::Own).await.expect("a place is free again");
    });
}

#[test]
fn trap_50_all_connections_and_tasks_end_with_their_node() {
    let node = Node::start();
    let socket = node.echo();
    run(async {
        let runtime = tokio::runtime::Handle::current();
        let tasks = || runtime.metrics().num_alive_tasks();
        let before = tasks();
        let keeper = Keeper::start(node.plan(&socket), by_echo());
        is(&mut keeper.health(), State::Online).await;
        let mut shared = keeper.docker_stream(Company::Shared).await.expect("a stream");
        let mut own = keeper.docker_stream(Company::Own).await.expect("a stream");
        let tunnel = keeper.tunnel().expect("a tunnel");
        drop(keeper);
        for stream in [&mut shared, &mut own] {
            assert!(stream.read(&mut [0; 8]).await.is_err());
        }
        tunnel.ended().await;
        drop((shared, own, tunnel));
        until("the end of all tasks", || tasks() <= before).await;
        let listener = node.sshd.id();
        until("the end of all processes", || process::descendants(listener).is_empty()).await;
    });
}

#[test]
fn fifty_unread_streams_are_ended_by_name_and_a_ping_passes_beside_them() {
    let node = Node::start();
    let (socket, echo) = (node.source(), crate::harness::echo_server());
    run(async {
        let tunnel = node.open(&socket).await.expect("a tunnel");
        let mut unread = vec![];
        for _ in 0..50 {
            unread.push(tunnel.docker_stream().await.expect("a stream"));
        }
        for _ in 0..50 {
            echoes(&mut tunnel.tcp_stream(echo).await.expect("a stream")).await;
        }
        for stream in &mut unread {
            let mut into = vec![];
            let why = stream.read_to_end(&mut into).await.expect_err("it was ended");
            assert!(why.to_string().starts_with("nobody read this stream"), "{why}");
        }
        echoes(&mut tunnel.tcp_stream(echo).await.expect("a stream")).await;
    });
}

#[test]
fn a_reader_on_a_connection_of_its_own_may_pause_and_loses_nothing() {
    let node = Node::start();
    let socket = node.source();
    let check: Check = Box::new(|_| Box::pin(async { Ok(()) }));
    run(async {
        let mut plan = node.plan(&socket);
        let brisk = (*plan.settings).clone();
        let rarely = std::time::Duration::from_mins(1);
        plan.settings = Arc::new(keyway::nodes::tunnel::Settings { keepalive: rarely, ..brisk });
        let keeper = Keeper::start(plan, check);
        is(&mut keeper.health(), State::Online).await;
        let mut paused = keeper.docker_stream(Company::Own).await.expect("a stream");
        // Longer than any sign of life may take; others go on meanwhile.
        let mut health = keeper.health();
        for _ in 0..4 {
            health.changed().await.expect("a keeper");
        }
        let mut block = vec![0; 64 << 20];
        paused.read_exact(&mut block).await.expect("all of it");
        assert!(block.iter().all(|byte| *byte == 7));
    });
}
