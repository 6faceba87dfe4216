//! Fuzz bodies: plain functions from bytes to nothing, wrapped for libFuzzer by `fuzz/` and run
//! on seeded inputs by the tests below. A body must neither panic nor grow memory beyond the
//! limits it asserts.
#![expect(clippy::missing_panics_doc, clippy::panic, reason = "a panic is the finding")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use crate::config::{Dns, DomainName, NameServer, Secondary};
use crate::control::dns::responder::{Reply, Responder};
use crate::control::dns::{Addresses, Entry, Label, Names, PointsAt, Transport, Zone};
use crate::edge::proxy_header::{Expected, HEADER_BYTES_MAX, HeaderVerdict, inspect};
use crate::ssh::authorized_keys::AuthorizedKey;
use crate::ssh::certificate::Certificate;
use crate::ssh::connection::Connection;
use crate::ssh::message;
use crate::ssh::negotiate::KexInit;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::PublicKey;
use crate::ssh::revocation::Revocations;
use crate::ssh::testing::{End, Pair, Seeded};
use crate::ssh::transport::Context;
use crate::ssh::userauth::{Authenticator, Gate, Identity, Offer, Pass, Policy, Step};

/// Where every body's clients come from.
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Most output a peer can make a transport queue: its own limit and one message.
const OUTPUT_MAX_BYTES: usize = 1024 * 1024 + 300 * 1024;
/// Most memory that takes: as much again may be written and not cut off yet, and a vector doubles
/// as it grows. What is held back for a key exchange is small beside it.
const CAPACITY_MAX_BYTES: usize = 5 * OUTPUT_MAX_BYTES;

fn bounded(end: &End) {
    assert!(end.transport.output().len() <= OUTPUT_MAX_BYTES);
    assert!(end.transport.waiting_capacity() <= CAPACITY_MAX_BYTES);
}

/// Raw bytes at both ends of a transport, before any key. The first byte is the size of the pieces.
pub fn transport_bytes(data: &[u8]) {
    let Some((piece, bytes)) = data.split_first() else { return };
    let mut pair = Pair::plain(1);
    let mut cx = Context { now: pair.now, entropy: &mut pair.random };
    for end in [&mut pair.server, &mut pair.client] {
        for part in bytes.chunks(usize::from(*piece).max(1)) {
            end.inbox.extend_from_slice(part);
            if end.receive(&mut cx).is_err() {
                break;
            }
            bounded(end);
        }
    }
}

/// Structured packets inside encryption. Each step is two bytes (what, length) and a payload.
pub fn packets_inside(data: &[u8]) {
    let mut pair = Pair::plain(2);
    if pair.settle().is_err() {
        return;
    }
    let mut rest = data;
    while let Some((&[what, len], tail)) = rest.split_first_chunk() {
        let (payload, tail) = tail.split_at(usize::from(len).min(tail.len()));
        rest = tail;
        let done = match what % 6 {
            0 if !payload.is_empty() => pair.at_client(|t, cx| t.send(payload, cx)),
            1 if !payload.is_empty() => pair.at_server(|t, cx| t.send(payload, cx)),
            2 => pair.at_client(|t, cx| t.rekey(None, cx)),
            3 => pair.at_server(|t, cx| t.rekey(None, cx)),
            4 => {
                pair.authenticate();
                Ok(())
            }
            _ => pair.settle_in_pieces(usize::from(len).max(1)),
        };
        bounded(&pair.client);
        bounded(&pair.server);
        if done.is_err() {
            return;
        }
    }
    let _ended_or_settled = pair.settle();
}

/// Everything that parses keys and certificates.
pub fn certificate(data: &[u8]) {
    if let Ok(certificate) = Certificate::parse(data) {
        let cas = [certificate.ca().clone()];
        let _decided = certificate.admit_user(&cas, Some(SOURCE), 1_800_000_000);
    }
    let _parsed = PublicKey::parse(data);
    let _parsed = Revocations::parse(data);
    if let Ok(text) = std::str::from_utf8(data) {
        let _parsed = AuthorizedKey::parse(text);
        let _parsed = Certificate::parse_line(text);
        let _parsed = PrivateKey::from_openssh(text);
    }
}

/// KEXINIT payloads: parsed alone, and as the first packet at both ends.
pub fn kexinit(data: &[u8]) {
    let mut payload = vec![message::KEXINIT];
    payload.extend_from_slice(data);
    let _parsed = KexInit::parse(&payload);
    let mut pair = Pair::plain(3);
    let mut stream = b"SSH-2.0-fuzz\r\n".to_vec();
    let mut random = Seeded(4);
    let sealed = crate::ssh::packet::Sealer::plain().seal(&payload, &mut random, &mut stream);
    if sealed.is_err() {
        return;
    }
    let mut cx = Context { now: pair.now, entropy: &mut pair.random };
    for end in [&mut pair.server, &mut pair.client] {
        end.inbox.clone_from(&stream);
        let _ended_or_waiting = end.receive(&mut cx);
        bounded(end);
    }
}

/// Lets everybody in whose signature holds.
struct Open;

impl Gate for Open {
    fn judge_offer(&self, offer: &Offer<'_>) -> Option<Pass> {
        let restrictions = offer.stand().ok()?.restrictions;
        Some(Pass { identity: Identity::Key(offer.subject.fingerprint()), restrictions })
    }
}

/// Authentication messages after a finished key exchange, then connection messages: a length
/// byte before each.
pub fn userauth(data: &[u8]) {
    let mut pair = Pair::plain(5);
    if pair.settle().is_err() {
        return;
    }
    let policy = Policy { attempts_max: 6, ..Policy::default() };
    let mut authenticator = Authenticator::new(SOURCE);
    let mut connection = Connection::new(4, "no");
    let mut rest = data;
    while let Some((len, tail)) = rest.split_first() {
        let (payload, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = tail;
        let Some(number) = payload.first() else { continue };
        let ended = pair.at_server(|transport, cx| {
            if message::CONNECTION.contains(number) {
                return connection.receive(payload, transport, cx).is_err();
            }
            match authenticator.receive(payload, 1_800_000_000, &policy, &Open, transport, cx) {
                Ok(Step::Continue) => false,
                Ok(Step::Proved(_)) => panic!("a signature was forged"),
                Err(_) => true,
            }
        });
        pair.server.take_output();
        if ended {
            return;
        }
    }
}

/// PROXY protocol headers.
pub fn proxy_header(data: &[u8]) {
    for expected in [Expected::Header, Expected::Plain] {
        match inspect(expected, data) {
            Ok(HeaderVerdict::Proxied { used, .. }) => {
                assert!(used <= data.len() && used <= HEADER_BYTES_MAX);
            }
            Ok(HeaderVerdict::More { at_least }) => {
                assert!(at_least > data.len() && at_least <= HEADER_BYTES_MAX);
            }
            Ok(HeaderVerdict::Plain | HeaderVerdict::HealthCheck) | Err(_) => {}
        }
    }
}

/// Both configuration files, parted at the first NUL.
pub fn config(data: &[u8]) {
    let cut = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (config, fleet) = data.split_at(cut);
    crate::config::fuzz(config, fleet.get(1..).unwrap_or_default());
}

/// Every name that starts with `s` is an address, every other is a VM at it.
struct AllNames;

const ALL_ADDRESSES: Addresses =
    Addresses { v4: Some(Ipv4Addr::LOCALHOST), v6: Some(Ipv6Addr::LOCALHOST) };

impl Names for AllNames {
    fn vm(&self, name: &Label) -> Option<PointsAt> {
        let at = Label::new(b"s001").filter(|_| !name.as_str().starts_with('x'))?;
        Some(PointsAt { name: at, addresses: ALL_ADDRESSES })
    }

    fn address(&self, name: &Label) -> Option<Addresses> {
        name.as_str().starts_with('s').then_some(ALL_ADDRESSES)
    }

    fn serial(&self) -> u32 {
        7
    }

    fn walk(&self, _: &mut dyn FnMut(Entry) -> ControlFlow<()>) {}
}

static ZONE: LazyLock<Option<Arc<Zone>>> = LazyLock::new(|| {
    let zone = DomainName::new("vm.test")?;
    let name = DomainName::new("ns.deep.vm.test")?;
    let settings = Dns {
        zone,
        listen: Vec::new(),
        ns: vec![NameServer { name, addresses: vec![SOURCE] }],
        ttl_s: 60,
        expire_s: 604_800,
        secondaries: vec![Secondary { network: SOURCE.into(), notify: None }],
        dnssec_key: None,
        responses_per_second: None,
    };
    Zone::new(&settings, &[], Arc::new(AllNames)).ok().map(Arc::new)
});

/// DNS requests over both transports: every answer fits, and carries the id of its question.
pub fn dns_request(data: &[u8]) {
    let Some(zone) = ZONE.as_ref() else { panic!("the zone") };
    let (mut responder, mut out) = (Responder::new(Arc::clone(zone)), Vec::new());
    for (transport, bytes_max) in [(Transport::Udp, 1232), (Transport::Tcp, 65_535)] {
        match responder.respond(data, SOURCE, transport, &mut out) {
            Reply::Message(_) => {
                assert!((12..=bytes_max).contains(&out.len()));
                assert_eq!(out.get(..2), data.get(..2));
                assert!(out.get(2).is_some_and(|flags| flags & 0x80 != 0));
            }
            Reply::Nothing => assert!(out.is_empty()),
            Reply::Transfer(_) => assert_eq!(transport, Transport::Tcp),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::ssh::testing::Seeded;

    /// A short run is the smoke test of every check; `KEYWAY_FUZZ_SECONDS` makes it longer.
    #[expect(clippy::print_stdout, reason = "says how to repeat a run that failed")]
    fn run(name: &str, body: fn(&[u8]), seeds: &[Vec<u8>]) {
        let seconds = std::env::var("KEYWAY_FUZZ_SECONDS").map_or(2, |text| text.parse().unwrap());
        let seed = std::env::var("KEYWAY_FUZZ_SEED").map_or(1, |text| text.parse().unwrap());
        println!("{name}: seed {seed}, {seconds} s");
        let mut random = Seeded(seed);
        let end = Instant::now() + Duration::from_secs(seconds);
        for input in seeds {
            body(input);
        }
        while Instant::now() < end {
            let mut input = match seeds {
                [] => Vec::new(),
                some => some[random.below(some.len())].clone(),
            };
            if input.is_empty() || random.below(4) == 0 {
                input = (0..random.below(400)).map(|_| random.next().to_le_bytes()[0]).collect();
            }
            for _ in 0..random.below(8) {
                if input.is_empty() {
                    break;
                }
                let at = random.below(input.len());
                match random.below(4) {
                    0 => input[at] ^= 1 << random.below(8),
                    1 => input[at] = random.next().to_le_bytes()[0],
                    2 => input.truncate(at),
                    _ => input.insert(at, random.next().to_le_bytes()[0]),
                }
            }
            body(&input);
        }
    }

    #[test]
    fn raw_bytes_before_any_key() {
        let mut client = Pair::plain(9).client;
        let mut stream = vec![7];
        stream.extend(client.take_output());
        run("transport_bytes", transport_bytes, &[stream]);
    }

    #[test]
    fn packets_inside_encryption() {
        let steps = [vec![0, 5, 2, 0, 0, 0, 0], vec![4, 0, 2, 0, 5, 9], vec![0, 3, 94, 0, 0, 3, 0]];
        run("packets_inside", packets_inside, &[steps.concat(), steps[1].clone()]);
    }

    #[test]
    fn keys_and_certificates() {
        let key = PrivateKey::generate_ed25519(&mut Seeded(1));
        let line = format!("restrict,from=\"10.0.0.0/8\" {} me", key.public().to_line());
        let file = key.to_openssh("me", &mut Seeded(2)).as_bytes().to_vec();
        let seeds = [key.public().blob().to_vec(), line.into_bytes(), file];
        run("certificate", certificate, &seeds);
    }

    #[test]
    fn kexinits() {
        let mut lists = vec![7; 16];
        for list in ["curve25519-sha256", "ssh-ed25519", "aes128-ctr", "aes128-ctr"] {
            lists.extend(u32::try_from(list.len()).unwrap().to_be_bytes());
            lists.extend(list.as_bytes());
        }
        run("kexinit", kexinit, &[lists]);
    }

    #[test]
    fn authentication_messages() {
        let mut request = vec![30, 50, 0, 0, 0, 1, b'r', 0, 0, 0, 14];
        request.extend(b"ssh-connection");
        let service = [&[17, 5, 0, 0, 0, 12][..], b"ssh-userauth"].concat();
        run("userauth", userauth, &[[service.clone(), request].concat(), service]);
    }

    #[test]
    fn proxy_headers() {
        let text = b"PROXY TCP4 10.0.0.1 10.0.0.2 1000 22\r\nSSH-2.0-x\r\n".to_vec();
        let mut binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        binary.extend([10, 0, 0, 1, 10, 0, 0, 2, 4, 4, 0, 22]);
        run("proxy_header", proxy_header, &[text, binary]);
    }

    #[test]
    fn configuration_files() {
        let both = b"state_dir = \"x\"\n[edge]\nlisten = [\"0.0.0.0:22\"]\n\0[[address]]\nname = \"s001\"\npublic = \"10.0.0.1\"\n";
        run("config", config, &[both.to_vec()]);
    }

    #[test]
    fn dns_requests() {
        let request = |name: &[&str], counts: &[u8], rest: &[u8]| {
            let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1];
            bytes.extend(counts);
            for label in name {
                bytes.push(u8::try_from(label.len()).unwrap());
                bytes.extend(label.as_bytes());
            }
            bytes.push(0);
            bytes.extend(rest);
            bytes
        };
        let opt = [0, 1, 0, 1, 0, 0, 41, 16, 0, 0, 0, 0x80, 0, 0, 0];
        let soa = [
            0, 251, 0, 1, 0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 0, 0, 24, 0xc0, 12, 0xc0, 12, 0, 0, 0, 6,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        let seeds = [
            request(&["blue", "vm", "test"], &[0, 0, 0, 0, 0, 1], &opt),
            request(&["ns", "deep", "vm", "test"], &[0; 6], &[0, 255, 0, 1]),
            request(&["vm", "test"], &[0, 0, 0, 1, 0, 0], &soa),
            request(&["vm", "test"], &[0; 6], &[0, 252, 0, 1]),
        ];
        run("dns_request", dns_request, &seeds);
    }
}
