//! What the end-to-end tests stand on: throw-away worlds of stock `sshd`s behind a Keyway,
//! and stock clients.
//!
//! `KEYWAY_TEST_TARGET=direct` takes Keyway out: the same client command lines then go straight to
//! the stock `sshd`, which shows that a failure is ours and not the command line's. Tests of what
//! only Keyway does say so with [`World::is_direct`] and do nothing then.

pub(crate) mod client;
pub(crate) mod dockerd;
pub(crate) mod keys;
#[path = "../../../src/edge/testing/mod.rs"]
pub(crate) mod network;
pub(crate) mod peers;
pub(crate) mod plan;
pub(crate) mod process;
pub(crate) mod sshd;
pub(crate) mod target;
pub(crate) mod wait;
pub(crate) mod wire;
pub(crate) mod world;

use std::fs;
use std::io::{BufWriter, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) use self::keys::Key;
pub(crate) use self::process::{Leashed, Output, Process, run, run_into, run_with_input};
pub(crate) use self::target::Target;
pub(crate) use self::world::World;

/// A directory of one test, removed when the test has passed and kept, named in the
/// output, when it failed.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // Not under target/: paths of unix sockets are limited to 107 bytes.
        let path = std::env::temp_dir().join(format!("keyway-it-{}-{count}", std::process::id()));
        fs::create_dir_all(&path).expect("a scratch directory");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// For something that outlives the test, and removes it.
    pub(crate) fn keep(self) -> PathBuf {
        let path = self.0.clone();
        std::mem::forget(self);
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for a look: {}", self.0.display());
        } else {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// Whether `tests/run --full` asks for what takes long; if not, `what` is listed as skipped.
pub(crate) fn full(what: &str) -> bool {
    let full = std::env::var_os("KEYWAY_FULL").is_some();
    if !full {
        peers::skipped(&format!("{what} (tests/run --full)"));
    }
    full
}

/// Writes `len` bytes that do not compress and differ everywhere; the same for the same `seed`.
pub(crate) fn write_noise(path: &Path, len: u64, seed: u64) {
    let mut file = BufWriter::new(fs::File::create(path).expect("a file of noise"));
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut left = len;
    let mut block = [0; 8192];
    while left > 0 {
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let take = usize::try_from(left.min(8192)).expect("at most a block");
        file.write_all(&block[..take]).expect("noise is written");
        left -= take as u64;
    }
    file.flush().expect("noise is written");
}

/// Fails unless both files hold the same bytes; says where they part.
#[track_caller]
pub(crate) fn assert_same_file(left: &Path, right: &Path) {
    let open = |path: &Path| {
        std::io::BufReader::with_capacity(
            1 << 20,
            fs::File::open(path).unwrap_or_else(|why| panic!("{}: {why}", path.display())),
        )
    };
    let (mut left_file, mut right_file) = (open(left), open(right));
    let (mut left_block, mut right_block) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0_u64;
    loop {
        let left_len = fill(&mut left_file, &mut left_block);
        let right_len = fill(&mut right_file, &mut right_block);
        let (left_part, right_part) = (&left_block[..left_len], &right_block[..right_len]);
        if left_part != right_part {
            // Byte by byte only here: a debug build would take seconds for each hundred megabytes.
            let same =
                std::iter::zip(left_part, right_part).take_while(|(left, right)| left == right);
            panic!(
                "{} and {} part at byte {} (blocks of {left_len} and {right_len})",
                left.display(),
                right.display(),
                at + same.count() as u64
            );
        }
        if left_len == 0 {
            return;
        }
        at += left_len as u64;
    }
}

fn fill(file: &mut impl Read, block: &mut [u8]) -> usize {
    let mut len = 0;
    while len < block.len() {
        match file.read(&mut block[len..]).expect("a readable file") {
            0 => break,
            read => len += read,
        }
    }
    len
}

/// A server that sends back what it gets, for as long as the tests run.
pub(crate) fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut back = stream.try_clone().expect("a second handle");
                let _ = std::io::copy(&mut &stream, &mut back);
                let _ = back.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    address
}

/// Sends a megabyte through `stream` to an echo server and expects it back, then the end.
#[track_caller]
pub(crate) fn assert_echoes(mut stream: TcpStream) {
    let sent: Vec<u8> =
        (0..1_000_000_u32).flat_map(|n| (n % 251).to_le_bytes()[..1].to_vec()).collect();
    let mut writer = stream.try_clone().expect("a second handle");
    let to_send = sent.clone();
    let sending = std::thread::spawn(move || {
        writer.write_all(&to_send).expect("the echo server takes it");
        writer.shutdown(std::net::Shutdown::Write).expect("half-close");
    });
    let mut back = vec![];
    stream.read_to_end(&mut back).expect("the echo comes back");
    sending.join().expect("all was sent");
    assert!(back == sent, "{} bytes came back, {} were sent", back.len(), sent.len());
}
