//! Tests of `local_address`.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::*;
use crate::edge::listen::{self, Listener};
use crate::edge::testing::{self, Cable, ip};

fn listening(address: &str) -> Listener {
    let address = address.parse().expect("an address");
    listen::bind(&[address], &[0]).expect("listens").shards.remove(0).remove(0)
}

/// Connects to `address`; returns what the accepted socket says, and both ends.
fn dial(
    listener: &Listener,
    address: SocketAddr,
    destination: Destination,
) -> (Result<SocketAddr, LocalAddressError>, Socket, TcpStream) {
    let client = TcpStream::connect_timeout(&address, Duration::from_secs(5)).expect("connects");
    let (accepted, _) = listener.socket.accept().expect("accepts");
    (local_address(accepted.as_fd(), destination), accepted, client)
}

#[test]
fn loopback_addresses_of_both_families_are_told_apart() {
    let listener = listening("0.0.0.0:0");
    for last in 1..=20 {
        let dialled = SocketAddr::from(([127, 0, 77, last], listener.address.port()));
        assert_eq!(dial(&listener, dialled, Destination::Socket).0, Ok(dialled));
    }
    let listener = listening("[::]:0");
    let dialled = SocketAddr::from((Ipv6Addr::LOCALHOST, listener.address.port()));
    assert_eq!(dial(&listener, dialled, Destination::Socket).0, Ok(dialled));
}

#[test]
fn a_client_that_speaks_before_we_look_is_told_apart_as_well() {
    // IPV6_2292PKTOPTIONS would name the peer here. OpenSSH sends its version line at once.
    testing::in_own_network(|| {
        for address in ["fd77::5", "fd77::9"] {
            ip(&format!("-6 addr add {address}/128 dev lo nodad"));
            testing::settled(address);
        }
        let six = listening("[::]:0");
        let four = listening("0.0.0.0:0");
        for (listener, from, to) in
            [(&six, "fd77::9", "fd77::5"), (&four, "127.0.0.9", "127.0.77.5")]
        {
            let from = SocketAddr::new(from.parse().expect("an address"), 0);
            let to = SocketAddr::new(to.parse().expect("an address"), listener.address.port());
            let client = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("socket");
            client.bind(&from.into()).expect("binds");
            client.connect(&to.into()).expect("connects");
            (&client).write_all(b"SSH-2.0-early\r\n").expect("writes");
            let (accepted, _) = listener.socket.accept().expect("accepts");
            let mut line = [0; 15];
            (&accepted).read_exact(&mut line).expect("the line has arrived");
            assert_eq!(local_address(accepted.as_fd(), Destination::Socket), Ok(to));
        }
    });
}

#[test]
fn the_saved_syn_is_read_once_and_then_the_name_stands_alone() {
    let listener = listening("[::1]:0");
    let (first, accepted, _client) = dial(&listener, listener.address, Destination::Socket);
    assert_eq!(first, Ok(listener.address));
    assert_eq!(saved_syn(accepted.as_fd()), None, "its memory is still held");
    assert_eq!(local_address(accepted.as_fd(), Destination::Socket), Ok(listener.address));
}

#[test]
fn under_syn_cookies_both_families_are_still_told_apart() {
    testing::in_own_network(|| {
        // /proc/sys/net shows the network of the thread that opens it.
        std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2").expect("cookies always");
        for wildcard in ["0.0.0.0:0", "[::]:0"] {
            let listener = listening(wildcard);
            let target: IpAddr = if listener.address.is_ipv4() {
                Ipv4Addr::new(127, 0, 77, 5).into()
            } else {
                Ipv6Addr::LOCALHOST.into()
            };
            let dialled = SocketAddr::new(target, listener.address.port());
            let (found, accepted, _client) = dial(&listener, dialled, Destination::Socket);
            assert_eq!(found, Ok(dialled));
            assert_eq!(saved_syn(accepted.as_fd()), None, "there is no SYN to save");
        }
    });
}

#[test]
fn ipv4_on_an_ipv6_listener_is_refused() {
    let listener = Socket::new(Domain::IPV6, Type::STREAM, None).expect("socket");
    listener.set_only_v6(false).expect("option");
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    listener.bind(&any.into()).expect("binds");
    listener.listen(8).expect("listens");
    let port = listener.local_addr().expect("name").as_socket().expect("inet").port();
    let _client = TcpStream::connect(("127.0.77.1", port)).expect("connects");
    let (accepted, _) = listener.accept().expect("accepts");
    let mapped = Ipv4Addr::new(127, 0, 77, 1).to_ipv6_mapped();
    assert_eq!(
        local_address(accepted.as_fd(), Destination::Socket),
        Err(LocalAddressError::Mapped(mapped))
    );
}

#[test]
fn a_socket_of_a_foreign_listener_is_refused_for_want_of_packet_information() {
    let listener = TcpListener::bind("127.0.77.1:0").expect("listens");
    let _client = TcpStream::connect(listener.local_addr().expect("name")).expect("connects");
    let (accepted, _) = listener.accept().expect("accepts");
    assert_eq!(
        local_address(accepted.as_fd(), Destination::Socket),
        Err(LocalAddressError::NoPacketInfo)
    );
}

#[test]
fn witnesses_that_disagree_refuse_the_connection() {
    let (one, other) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    assert_eq!(agree(one, one), Ok(()));
    assert_eq!(
        agree(one, other),
        Err(LocalAddressError::Disagree { socket: one.into(), packet: other.into() })
    );
    assert!(agree(one.to_ipv6_mapped(), one).is_err(), "families are not mixed up");
}

#[test]
fn control_messages_are_walked_without_trust_in_their_lengths() {
    // A TTL message (type 2), padded to 24 bytes, then IP_PKTINFO (type 8), as
    // x86-64 lays them out.
    let mut control = Vec::new();
    control.extend(20_usize.to_ne_bytes());
    control
        .extend([0_i32.to_ne_bytes(), 2_i32.to_ne_bytes(), 64_i32.to_ne_bytes(), [0; 4]].concat());
    control.extend(28_usize.to_ne_bytes());
    control.extend([0_i32.to_ne_bytes(), 8_i32.to_ne_bytes(), 1_i32.to_ne_bytes()].concat());
    control.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    assert_eq!(destination_of(&control), Some(Ipv4Addr::new(10, 0, 0, 2)));
    for cut in 0..control.len() {
        assert_eq!(destination_of(&control[..cut]), None);
    }
    for len in [0, 1, 15, 16, 17, 4_096, usize::MAX - 3, usize::MAX] {
        for at in [0, 24] {
            let mut wrong = control.clone();
            wrong[at..at + 8].copy_from_slice(&len.to_ne_bytes());
            // Any answer but a hang, a panic or an address that is not in it.
            let found = destination_of(&wrong);
            assert!(found.is_none_or(|ip| ip == Ipv4Addr::new(10, 0, 0, 2)), "{found:?}");
        }
    }
}

#[test]
fn a_pool_of_a_thousand_anyip_addresses_behind_a_cable_is_told_apart() {
    testing::in_own_network(|| {
        let cable = Cable::lay();
        ip("route add local 10.78.0.0/22 dev lo");
        ip("-6 route add local fd78::/64 dev lo");
        let four = listening("0.0.0.0:2222");
        let six = listening("[::]:2222");
        cable.at_client();
        ip("route add 10.78.0.0/22 via 10.77.0.1");
        ip("-6 route add fd78::/64 via fd77::1");
        for number in 1..=1_000_u16 {
            let [high, low] = number.to_be_bytes();
            let dialled = SocketAddr::from(([10, 78, high, low], 2222));
            assert_eq!(dial(&four, dialled, Destination::Socket).0, Ok(dialled));
            let dialled: SocketAddr =
                format!("[fd78::{number:x}]:2222").parse().expect("an address");
            assert_eq!(dial(&six, dialled, Destination::Socket).0, Ok(dialled));
        }
        // The addresses of the cable's own end, and one that lo holds.
        for dialled in ["10.77.0.1:2222", "10.78.3.255:2222"] {
            let dialled = dialled.parse().expect("an address");
            assert_eq!(dial(&four, dialled, Destination::Socket).0, Ok(dialled));
        }
        cable.at_server();
        // Hairpin: this host dials its own pool address.
        let dialled = "10.78.0.7:2222".parse().expect("an address");
        assert_eq!(dial(&four, dialled, Destination::Socket).0, Ok(dialled));
    });
}

#[test]
fn a_link_local_address_keeps_its_scope() {
    testing::in_own_network(|| {
        let cable = Cable::lay();
        ip("addr add fe80::77/64 dev near nodad");
        let six = listening("[::]:2222");
        let scope = interface("near");
        cable.at_client();
        ip("addr add fe80::78/64 dev far nodad");
        let target = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77);
        let dialled = SocketAddrV6::new(target, 2222, 0, interface("far"));
        let (found, ..) = dial(&six, dialled.into(), Destination::Socket);
        assert_eq!(found, Ok(SocketAddrV6::new(target, 2222, 0, scope).into()));
    });
}

fn interface(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).expect("the interface")
}

#[test]
fn behind_dnat_connection_tracking_tells_what_was_dialled() {
    testing::in_own_network(|| {
        let cable = Cable::lay();
        if !testing::nft(&[
            "add table inet nat",
            "add chain inet nat in { type nat hook prerouting priority dstnat; }",
            "add rule inet nat in tcp dport 22 redirect to :2222",
        ]) {
            return;
        }
        let four = listening("0.0.0.0:2222");
        let six = listening("[::]:2222");
        cable.at_client();
        ip("route add 10.78.0.0/22 via 10.77.0.1");
        ip("-6 route add fd78::/64 via fd77::1");
        for (listener, dialled, rewritten) in
            [(&four, "10.78.0.9:22", "10.77.0.1:2222"), (&six, "[fd78::9]:22", "[fd77::1]:2222")]
        {
            let dialled = dialled.parse().expect("an address");
            let (found, accepted, _client) = dial(listener, dialled, Destination::Tracked);
            assert_eq!(found, Ok(dialled));
            let plain = name(accepted.as_fd()).map(|name| name.to_string());
            assert_eq!(plain.as_deref(), Ok(rewritten), "the rule did not rewrite");
        }
    });
}

#[test]
fn without_connection_tracking_nothing_is_guessed() {
    testing::in_own_network(|| {
        let listener = listening("0.0.0.0:2222");
        let dialled = "127.0.77.5:2222".parse().expect("an address");
        let (found, ..) = dial(&listener, dialled, Destination::Tracked);
        assert!(matches!(found, Err(LocalAddressError::Untracked(_))), "{found:?}");
    });
}
