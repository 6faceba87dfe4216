//! Which address counts: the one in a load balancer's PROXY header, the one behind a NAT, or
//! the socket's own.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::harness::network::{Cable, in_own_network, ip, nft};
use crate::harness::world::port;
use crate::harness::{Output, Target, World, peers, wait};

/// Pool addresses of one front door, and how many of them are tried.
const ADDRESSES: u16 = 1_000;
const TRIED: u16 = 20;

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
    if World::is_passed_by() {
        return;
    }
    let world = behind("proxy_protocol_from = [\"127.0.0.0/8\"]");
    let (dialled, other) = (world.target("alice", "s001"), world.target("alice", "s002"));
    for header in [text(&other), binary(&other)] {
        let Some(output) = through(&dialled, &header, "echo $KEYWAY_VM") else { return };
        assert_eq!(output.ok().text(), "red");
    }
    logged(&world, &format!("{CLIENT}:40000"));
}

#[test]
fn a_listed_peer_must_send_a_header_and_hears_nothing_before_it() {
    if World::is_passed_by() {
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
    if World::is_passed_by() {
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
    if World::is_passed_by() {
        return;
    }
    let world = World::plan().natted("s001").user("alice").vm("blue", "alice", "s001").start();
    let target = world.target("alice", "s001");
    assert_eq!(target.ssh(&[], "echo $KEYWAY_VM").ok().text(), "blue");
    logged(&world, "\"address\":\"s001\"");
}

#[test]
fn an_address_outside_the_pool_is_never_sent_to_a_default() {
    if World::is_passed_by() {
        return;
    }
    let world = behind("proxy_protocol_from = [\"127.0.0.0/8\"]");
    let dialled = world.target("alice", "s001");
    let elsewhere = Target { host: "203.0.113.99".to_owned(), ..dialled.clone() };
    let Some(output) = through(&dialled, &text(&elsewhere), "echo $KEYWAY_VM") else { return };
    assert_eq!(output.ends(255).text(), "");
    logged(&world, "not_in_pool");
}

/// A connection's line comes when it has ended, which may be after its client.
#[track_caller]
fn logged(world: &World, part: &str) {
    wait::until(part, wait::SOON, || world.log().contains(part));
}

/// Nobody is let in where no pool address was dialled.
#[track_caller]
fn refused(world: &World, label: &str, to: SocketAddr) {
    let before = world.log().matches("not_in_pool").count();
    let output = world.target_to("alice", label, to).ssh(&[], "echo $KEYWAY_VM").ends(255);
    assert_eq!(output.text(), "");
    wait::until("the line of the refusal", wait::SOON, || {
        world.log().matches("not_in_pool").count() > before
    });
}

#[test]
fn a_pool_address_is_one_over_ipv6_and_over_ipv4() {
    if World::is_passed_by() {
        return;
    }
    in_own_network(|| {
        let cable = Cable::lay();
        // Nobody's pool address.
        ip("addr add fd77::9/64 dev near nodad");
        let (four, six): (IpAddr, IpAddr) =
            (Ipv4Addr::new(10, 77, 0, 1).into(), "fd77::1".parse().expect("an address"));
        let world = World::plan()
            .address_at("s001", four, "public6 = \"fd77::1\"\n")
            .user("alice")
            .vm("blue", "alice", "s001")
            .listen(Ipv6Addr::UNSPECIFIED.into())
            .listen(Ipv4Addr::UNSPECIFIED.into())
            .start();
        cable.at_client();
        for (dialled, client) in [(six, "[fd77::2]"), (four, "10.77.0.2")] {
            let target = world.target_to("alice", client, SocketAddr::new(dialled, port()));
            assert_eq!(target.ssh(&[], "echo $KEYWAY_VM").ok().text(), "blue");
        }
        let unlisted = "fd77::9".parse().expect("an address");
        refused(&world, "unlisted", SocketAddr::new(unlisted, port()));
        cable.at_server();
    });
}

#[test]
fn each_of_a_thousand_pool_addresses_leads_to_its_own_vm() {
    if World::is_passed_by() {
        return;
    }
    in_own_network(|| {
        ip("route add local 10.78.0.0/22 dev lo");
        let pool = |number: u16| {
            let [high, low] = number.to_be_bytes();
            IpAddr::from([10, 78, high, low])
        };
        // The first, the last, and some between.
        let sample: Vec<u16> = (0..TRIED).map(|n| 1 + n * (ADDRESSES - 1) / (TRIED - 1)).collect();
        assert_eq!((sample[0], sample[sample.len() - 1]), (1, ADDRESSES));
        let mut plan = World::plan().user("alice").listen(Ipv4Addr::UNSPECIFIED.into());
        for number in 1..=ADDRESSES {
            plan = plan.address_at(&format!("s{number:04}"), pool(number), "");
        }
        for number in &sample {
            plan = plan.vm(&format!("vm{number}"), "alice", &format!("s{number:04}"));
        }
        let world = plan.start();
        for number in &sample {
            let target = world.target("alice", &format!("s{number:04}"));
            let reached = target.ssh(&[], "echo $KEYWAY_VM").ok().text();
            assert_eq!(reached, format!("vm{number}"));
        }
        refused(&world, "unlisted", SocketAddr::new(pool(ADDRESSES + 1), port()));
        // A pool address without a VM of hers.
        let output = world.target("alice", "s0002").ssh(&[], "echo $KEYWAY_VM").ends(255);
        assert!(output.stderr.contains("Permission denied"), "{}", output.stderr);
    });
}

#[test]
fn behind_dnat_the_address_that_was_dialled_decides() {
    if World::is_passed_by() {
        return;
    }
    in_own_network(|| {
        let cable = Cable::lay();
        let own = Ipv4Addr::new(10, 77, 0, 1);
        let to_us = format!("add rule inet nat in tcp dport 22 dnat ip to {own}:{}", port());
        if !nft(&[
            "add table inet nat",
            "add chain inet nat in { type nat hook prerouting priority dstnat; }",
            &to_us,
        ]) {
            return;
        }
        let dialled: [IpAddr; 3] =
            [[10, 78, 0, 9].into(), [10, 78, 0, 10].into(), [10, 78, 0, 11].into()];
        let [first, second, unlisted] = dialled;
        for original_dst in [true, false] {
            cable.at_server();
            let world = World::plan()
                .address_at("s001", first, "")
                .address_at("s002", second, "")
                .user("alice")
                .vm("blue", "alice", "s001")
                .vm("red", "alice", "s002")
                .listen(own.into())
                .edge(&format!("original_dst = {original_dst}"))
                .start();
            cable.at_client();
            if original_dst {
                ip("route add 10.78.0.0/22 via 10.77.0.1");
                for (dialled, vm) in [(first, "blue"), (second, "red")] {
                    let target = world.target_to("alice", vm, SocketAddr::new(dialled, 22));
                    assert_eq!(target.ssh(&[], "echo $KEYWAY_VM").ok().text(), vm);
                }
                refused(&world, "unlisted", SocketAddr::new(unlisted, 22));
                refused(&world, "direct", SocketAddr::new(own.into(), port()));
            } else {
                refused(&world, "rewritten", SocketAddr::new(first, 22));
            }
        }
        cable.at_server();
    });
}
