//! One stock sshd that stands for a node, and a unix socket on it that stands for its Docker.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use keyway::nodes::tunnel::{
    Credential, DockerSocket, Endpoint, Lifeline, Pin, Plan, Settings, Stream, Trust, Tunnel,
    Unreached,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::sshd::{self, Server, Vm};
use crate::harness::{Key, Scratch, wait};

pub(super) struct Node {
    pub(super) sshd: Vm,
    pub(super) key: Key,
    dir: Scratch,
}

impl Node {
    /// A node that lets in its key.
    pub(super) fn start() -> Self {
        Self::start_with("", "")
    }

    /// `extra`: lines of sshd_config that win; `options`: those of the key.
    pub(super) fn start_with(extra: &str, options: &str) -> Self {
        let dir = Scratch::new();
        let key = Key::ed25519(dir.path(), "node_key");
        let keys = format!("{options} {}\n", key.public());
        let trust = sshd::Trust { ca: &key.public(), principals: "nobody", keys: &keys };
        let ip = crate::harness::world::own_ip();
        let sshd = Vm::start(dir.path(), "n1", ip, &trust, Server::OpenSsh, extra);
        Self { sshd, key, dir }
    }

    /// Where things of this node may lie.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A socket that sends back what it gets.
    pub(super) fn echo(&self) -> PathBuf {
        let path = self.path("docker.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut back = stream.try_clone().expect("a second handle");
                    let _ = std::io::copy(&mut &stream, &mut back);
                    let _ = stream.shutdown(std::net::Shutdown::Write);
                });
            }
        });
        path
    }

    /// A socket that writes without end to whoever connects.
    pub(super) fn source(&self) -> PathBuf {
        let path = self.path("docker.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let block = vec![7; 1 << 16];
                    while std::io::Write::write_all(&mut stream, &block).is_ok() {}
                });
            }
        });
        path
    }

    /// Fails unless nobody has connected since it was found to listen.
    #[track_caller]
    pub(super) fn was_left_alone(&self) {
        // That was a connection, too, and its end comes into the log when it likes.
        wait::until("its log", wait::SOON, || self.sshd.log().contains("Connection closed"));
        assert_eq!(self.sshd.log().matches("Connection from").count(), 1);
    }

    pub(super) fn pin(&self) -> Pin {
        self.sshd.host_key.public().parse().expect("a pin")
    }

    pub(super) fn endpoint(&self, socket: &Path) -> Arc<Endpoint> {
        self.endpoint_as(&login(), &self.key, socket)
    }

    pub(super) fn endpoint_as(&self, user: &str, key: &Key, socket: &Path) -> Arc<Endpoint> {
        let text = std::fs::read_to_string(key.path()).expect("a key");
        let credential = Credential::read(&text, None).expect("a credential");
        let (host, port) = (self.sshd.address.ip().to_string(), self.sshd.address.port());
        let networks = vec!["127.0.0.0/8".parse().expect("a network")];
        let socket: DockerSocket = socket.to_string_lossy().parse().expect("a socket's path");
        let endpoint = Endpoint::new((user, &host, port), networks, socket, credential);
        Arc::new(endpoint.expect("an endpoint"))
    }

    pub(super) fn plan(&self, socket: &Path) -> Plan {
        Plan {
            endpoint: self.endpoint(socket),
            pin: Some(self.pin()),
            settings: brisk(),
            before: None,
        }
    }

    pub(super) async fn open(&self, socket: &Path) -> Result<Tunnel, Unreached> {
        open(self.endpoint(socket), Trust::Pinned(self.pin())).await
    }
}

pub(super) async fn open(endpoint: Arc<Endpoint>, trust: Trust) -> Result<Tunnel, Unreached> {
    Tunnel::open(endpoint, trust, brisk(), &Lifeline::default()).await
}

/// Whoever runs the tests.
pub(super) fn login() -> String {
    crate::harness::target::login()
}

/// Deadlines and intervals that make a test short, where it waits for them to pass.
pub(super) fn brisk() -> Arc<Settings> {
    Arc::new(Settings {
        keepalive: Duration::from_millis(300),
        health: Duration::from_millis(500),
        back_off_min: Duration::from_millis(50),
        back_off_max: Duration::from_millis(500),
        ..Settings::default()
    })
}

pub(super) fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_mins(2), work).await.expect("done in time")
    })
}

/// Sends a word and expects it back.
pub(super) async fn echoes(stream: &mut Stream) {
    stream.write_all(b"keyway").await.expect("the node takes it");
    let mut back = [0; 6];
    stream.read_exact(&mut back).await.expect("it comes back");
    assert_eq!(&back, b"keyway");
}

/// Waits until `ready` says yes, without blocking the runtime.
pub(super) async fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let polled = async {
        let mut every = tokio::time::interval(Duration::from_millis(5));
        while !ready() {
            every.tick().await;
        }
    };
    assert!(tokio::time::timeout(wait::SOON, polled).await.is_ok(), "{what} did not happen");
}
