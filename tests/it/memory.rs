//! What the memory of an edge holds of a session: of one that was handed over, nothing.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};

use crate::harness::{Leashed, World, peers};

const PAGE: u64 = 4096;
const PAGE_BYTES: usize = 4096;

/// Secrets of a session, each with what it is.
type Secrets = Vec<(String, Vec<u8>)>;

/// A session whose secrets are known, from when it stands.
fn session(world: &World) -> Option<(Leashed, Secrets)> {
    let python = peers::python("python")?;
    let target = world.target("alice", "s001");
    let mut peer = Command::new(python);
    peer.arg(peers::script("secrets_peer.py"));
    peer.args([&target.host, &target.port.to_string(), &target.login]);
    peer.arg(target.key.path()).arg(target.host_key.public_line());
    let said = fs::File::create(world.path("peer.err")).expect("a file");
    peer.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(said);
    let mut peer = Leashed::start(&mut peer);
    let mut secrets = Secrets::new();
    for line in BufReader::new(peer.stdout.take().expect("a pipe")).lines() {
        let line = line.expect("a line");
        let Some((name, hex)) = line.split_once(' ') else { return Some((peer, secrets)) };
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
        secrets.push((name.to_owned(), (0..hex.len()).step_by(2).map(byte).collect()));
    }
    panic!("{}", fs::read_to_string(world.path("peer.err")).expect("what it said"));
}

/// Which of the secrets stand in the memory that a process can write to.
fn found(process: u32, secrets: &Secrets) -> Vec<String> {
    let open = |name| fs::File::open(format!("/proc/{process}/{name}")).expect("its memory");
    let (memory, pages) = (open("mem"), open("pagemap"));
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).expect("its regions");
    let mut begins = vec![Vec::new(); 1 << 16];
    for secret in secrets {
        begins[two(&secret.1)].push(secret);
    }
    let mut found = Vec::new();
    for region in maps.lines().filter(|line| line.contains(" rw")) {
        let (range, rest) = region.split_once(' ').expect("a range");
        let (start, end) = range.split_once('-').expect("two ends");
        let address = |hex| u64::from_str_radix(hex, 16).expect("an address");
        for (at, bytes) in touched(&memory, &pages, address(start)..address(end)) {
            for (index, pair) in bytes.windows(2).enumerate() {
                for (name, secret) in &begins[two(pair)] {
                    if bytes[index..].starts_with(secret) {
                        let of = rest.split_whitespace().last().unwrap_or_default();
                        found.push(format!("{name} at {:x} of {of}", at + index as u64));
                    }
                }
            }
        }
    }
    found
}

fn two(bytes: &[u8]) -> usize {
    usize::from(u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// The runs of pages of `region` that were ever written to, as `/proc/PID/pagemap` has them.
fn touched(memory: &fs::File, pages: &fs::File, region: Range<u64>) -> Vec<(u64, Vec<u8>)> {
    let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut about = vec![0; usize::try_from((region.end - region.start) / PAGE * 8).expect("few")];
    pages.read_exact_at(&mut about, region.start / PAGE * 8).expect("its pages");
    for (index, about) in about.chunks_exact(8).enumerate() {
        // Present, or swapped out.
        if about[7] >> 6 == 0 {
            continue;
        }
        let at = region.start + index as u64 * PAGE;
        let mut page = vec![0; PAGE_BYTES];
        // What goes away meanwhile holds nothing.
        if memory.read_exact_at(&mut page, at).is_err() {
            continue;
        }
        match runs.last_mut() {
            Some((start, bytes)) if *start + bytes.len() as u64 == at => bytes.append(&mut page),
            _ => runs.push((at, page)),
        }
    }
    runs
}

#[test]
fn of_a_session_that_was_handed_over_the_edge_holds_no_key_and_no_byte() {
    if World::is_passed_by() {
        return;
    }
    let mut world = World::usual_plan().handed().start();
    let Some((mut peer, secrets)) = session(&world) else { return };
    let known = |name: &str| secrets.iter().any(|(known, _)| known == name);
    for name in ["K1", "K2", "C1", "D1", "C2", "D2", "proof", "before", "during", "after"] {
        assert!(known(name), "{name}: {secrets:?}");
    }
    let found = found(world.edge().id(), &secrets);
    assert!(found.is_empty(), "{found:#?}");
    assert!(peer.try_wait().expect("the peer").is_none(), "it stands still");
    let _gone = (peer.kill(), peer.wait());
}

/// The same eyes see what there is to see of one that is relayed.
#[test]
fn of_a_relayed_session_they_are_found() {
    if World::is_passed_by() {
        return;
    }
    let mut world = World::usual();
    let Some((mut peer, secrets)) = session(&world) else { return };
    let found = found(world.edge().id(), &secrets);
    for name in ["C1 ", "D1 ", "C1.schedule", "D1.schedule", "after"] {
        assert!(found.iter().any(|found| found.starts_with(name)), "{name}: {found:#?}");
    }
    let _gone = (peer.kill(), peer.wait());
}
