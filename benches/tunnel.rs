//! Tunnels to nodes, in figures: a ping of a node's socket through stock sshd, alone and beside
//! streams that nobody reads; what an idle node takes.
//!
//! `cargo bench --bench tunnel`. The nodes of the last part are one sshd, connected to that often;
//! memory is that of this process alone.

#![expect(clippy::disallowed_methods, reason = "it measures, by threads and clocks")]
#![expect(clippy::print_stdout, clippy::expect_used, reason = "a program of its own")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs};

use hdrhistogram::Histogram;
use keyway::nodes::tunnel::{
    Credential, DockerSocket, Endpoint, Lifeline, Settings, Stream, Trust, Tunnel,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PINGS: usize = 2_000;
const STREAMS: usize = 50;
const IDLE: usize = 300;
const PORT: u16 = 9_522;

struct Sshd(Child, PathBuf);

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = fs::remove_dir_all(&self.1);
    }
}

fn sshd() -> Sshd {
    let dir = env::temp_dir().join(format!("keyway-bench-tunnel-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory");
    for name in ["host_key", "key"] {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(dir.join(name))
            .status();
        assert!(made.expect("ssh-keygen").success());
    }
    let at = dir.display();
    let config = format!(
        "ListenAddress 127.0.0.1:{PORT}\nHostKey {at}/host_key\nAuthorizedKeysFile {at}/key.pub\n\
         PidFile none\nUsePAM no\nStrictModes no\nLogLevel QUIET\nMaxStartups 2000\n"
    );
    fs::write(dir.join("config"), config).expect("a file");
    let _ = fs::create_dir_all("/run/sshd");
    let mut command = Command::new("/usr/sbin/sshd");
    command.args(["-D", "-f"]).arg(dir.join("config")).stderr(Stdio::null());
    let child = command.spawn().expect("sshd");
    while std::net::TcpStream::connect(("127.0.0.1", PORT)).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    Sshd(child, dir)
}

/// Answers what it gets if that begins with `p`; else it sends without end.
fn serve(path: &Path) {
    let listener = UnixListener::bind(path).expect("a socket");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut block = [0; 4096];
                while let Ok(len @ 1..) = stream.read(&mut block) {
                    if block[0] == b'p' {
                        let _ = stream.write_all(&block[..len]);
                    } else {
                        while stream.write_all(&[7; 1 << 13]).is_ok() {}
                    }
                }
            });
        }
    });
}

async fn open(dir: &Path) -> Tunnel {
    let key = fs::read_to_string(dir.join("key")).expect("a key");
    let pin = fs::read_to_string(dir.join("host_key.pub")).expect("a key");
    let socket: DockerSocket = dir.join("s").to_string_lossy().parse().expect("a path");
    let credential = Credential::read(&key, None).expect("a key");
    let networks = vec!["127.0.0.0/8".parse().expect("a network")];
    let endpoint = Endpoint::new(("root", "127.0.0.1", PORT), networks, socket, credential);
    let endpoint = Arc::new(endpoint.expect("an endpoint"));
    let trust = Trust::Pinned(pin.parse().expect("a pin"));
    let settings = Arc::new(Settings::default());
    Tunnel::open(endpoint, trust, settings, &Lifeline::default()).await.expect("a tunnel")
}

/// Each ping is a stream of its own, as a request to Docker is.
async fn pings(what: &str, tunnel: &Tunnel) {
    let mut took = Histogram::<u64>::new(3).expect("a histogram");
    for _ in 0..PINGS {
        let began = Instant::now();
        let mut stream = tunnel.docker_stream().await.expect("a stream");
        stream.write_all(b"ping").await.expect("it is taken");
        stream.read_exact(&mut [0; 4]).await.expect("an answer");
        took.saturating_record(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    let at = |quantile| took.value_at_quantile(quantile);
    println!(
        "{what}: p50 {} us, p99 {} us, most {} us; {} kB resident",
        at(0.5),
        at(0.99),
        took.max(),
        resident()
    );
}

async fn streams(tunnel: &Tunnel) -> Vec<Stream> {
    let mut all = vec![];
    for _ in 0..STREAMS {
        let mut stream = tunnel.docker_stream().await.expect("a stream");
        stream.write_all(b"source").await.expect("it is taken");
        all.push(stream);
    }
    all
}

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse().ok()).unwrap_or(0)
}

fn main() {
    let sshd = sshd();
    serve(&sshd.1.join("s"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let tunnel = open(&sshd.1).await;
        pings("no session has run", &tunnel).await;
        let _ = tunnel.probe().await;
        pings("alone", &tunnel).await;
        let unread = streams(&tunnel).await;
        pings("beside 50 unread streams", &tunnel).await;
        drop((unread, tunnel));
        let before = resident();
        let mut idle = vec![];
        for _ in 0..IDLE {
            let tunnel = open(&sshd.1).await;
            let _ = tunnel.probe().await;
            idle.push(tunnel);
        }
        let each = resident().saturating_sub(before) / u64::try_from(IDLE).expect("few");
        println!("{IDLE} idle nodes: {each} kB resident each");
    });
}
