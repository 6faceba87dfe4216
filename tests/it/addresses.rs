//! Which address counts: the one in a load balancer's PROXY header, the one behind a NAT, or the socket's own.

use crate::harness::{Output, Target, World, peers};
use std::{
    fmt::Write as _,
    io::{Read, Write as _},
    net::{IpAddr, TcpStream},
    time::Duration,
};

/// Where the header says that the client is.
const CLIENT: &str = "198.51.100.7";

/// alice has blue at one address and red at the other.
fn behind(edge: &str) -> World {
    World::plan()
        .address("s001")
        .address("s002")
        .user("alice")
        .vm("blue", "alice", "s001")
        .vm("red", "alice", "s002")
        .edge(edge)
        .start()
}

fn text(to: &Target) -> Vec<u8> {
    format!("PROXY TCP4 {CLIENT} {} 40000 {}\r\n", to.host, to.port).into_bytes()
}

fn binary(to: &Target) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    for address in [CLIENT, &to.host] {
        let IpAddr::V4(address) = address.parse().expect("an address") else { panic!("IPv4") };
        header.extend(address.octets());
    }
    header.extend(40_000_u16.to_be_bytes());
    header.extend(to.port.to_be_bytes());
    header
}

/// Connects to `dialled` with `header` in front.
fn through(dialled: &Target, header: &[u8], command: &str) -> Option<Output> {
    let python = peers::program("python", "python3")?;
    let mut hex = String::new();
    for byte in header {
        let _ = write!(hex, "{byte:02x}");
    }
    let proxy = format!(
        "ProxyCommand={} {} {} {} {hex}",
        python.display(),
        peers::script("proxy_sender.py").display(),
        dialled.host,
        dialled.port
    );
    Some(dialled.ssh(&["-o", &proxy], command))
}

#[test]
fn the_address_in_a_proxy_header_of_either_version_decides() {
    if World::is_direct() {
        return;
    }
    let world = behind("proxy_protocol_from = [\"127.0.0.0/8\"]");
    let (dialled, other) = (world.target("alice", "s001"), world.target("alice", "s002"));
    for header in [text(&other), binary(&other)] {
        let Some(output) = through(&dialled, &header, "echo $KEYWAY_VM") else { return };
        assert_eq!(output.ok().text(), "red");
    }
    assert!(world.log().contains(&format!("{CLIENT}:40000")), "the log names the client");
}

#[test]
fn a_listed_peer_must_send_a_header_and_hears_nothing_before_it() {
    if World::is_direct() {
        return;
    }
    let world = behind("proxy_protocol_from = [\"127.0.0.0/8\"]");
    let target = world.target("alice", "s001");
    let mut socket = TcpStream::connect((&*target.host, target.port)).expect("a connection");
    socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    assert!(socket.read(&mut [0; 1]).is_err(), "a banner came before the header");
    socket.write_all(b"SSH-2.0-direct\r\n").expect("sent");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let mut said = Vec::new();
    let _reset_or_end = socket.read_to_end(&mut said);
    assert!(said.is_empty(), "{said:?}");
}

/// sshpiper CVE-2024-35175: anybody may not choose their own source and destination.
#[test]
fn a_header_from_anybody_else_is_refused() {
    if World::is_direct() {
        return;
    }
    let world = behind("proxy_protocol_from = [\"192.0.2.0/24\"]");
    let (dialled, other) = (world.target("alice", "s001"), world.target("alice", "s002"));
    for header in [text(&other), binary(&other)] {
        let Some(output) = through(&dialled, &header, "echo $KEYWAY_VM") else { return };
        assert_eq!(output.ends(255).text(), "");
    }
    assert_eq!(dialled.ssh(&[], "echo $KEYWAY_VM").ok().text(), "blue");
}

#[test]
fn a_private_address_stands_for_its_public_one() {
    if World::is_direct() {
        return;
    }
    let world = World::plan().natted("s001").user("alice").vm("blue", "alice", "s001").start();
    let target = world.target("alice", "s001");
    assert_eq!(target.ssh(&[], "echo $KEYWAY_VM").ok().text(), "blue");
    assert!(world.log().contains("\"address\":\"s001\""));
}

#[test]
fn an_address_outside_the_pool_is_never_sent_to_a_default() {
    if World::is_direct() {
        return;
    }
    let world = behind("proxy_protocol_from = [\"127.0.0.0/8\"]");
    let dialled = world.target("alice", "s001");
    let elsewhere = Target { host: "203.0.113.99".to_owned(), ..dialled.clone() };
    let Some(output) = through(&dialled, &text(&elsewhere), "echo $KEYWAY_VM") else { return };
    assert_eq!(output.ends(255).text(), "");
    assert!(world.log().contains("not_in_pool"), "{}", world.log());
}
