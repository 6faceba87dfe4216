//! The followers' process, and how it is told what to do: words on its standard input, one answer
//! line each.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::Builder;
use std::time::{Duration, Instant};

use keyway::control::feed::client::{self, Followed, Follows};
use keyway::route::saved_routes::{Head, Message};
use nix::sys::socket::{Shutdown, SockaddrIn, getpeername, shutdown};

use crate::made::identity;
use crate::measures::now_ns;
use crate::{Size, again};

/// Node, revision, and when that was decoded there.
pub(crate) type Heard = Vec<(u64, u64, u64)>;

const LOOK_EVERY: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_mins(5);

/// What the followers of one process have in common.
#[derive(Default)]
struct All {
    revisions: Vec<AtomicU64>,
    heard: Mutex<Heard>,
    snapshots: AtomicU64,
    paused: AtomicBool,
}

/// Remembers how far it has come, and nothing else.
struct Light {
    node: usize,
    pauses: bool,
    head: Option<Head>,
    all: Arc<All>,
}

impl Follows for Light {
    fn known(&self) -> Option<Head> {
        self.head
    }

    fn take(&mut self, message: Message) -> Result<(), String> {
        while self.pauses && self.all.paused.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK_EVERY);
        }
        let head = match message {
            Message::FrontDoor(..) | Message::Denied(..) | Message::Asked(_) => return Ok(()),
            Message::Snapshot(head, _) => {
                self.all.snapshots.fetch_add(1, Ordering::Relaxed);
                head
            }
            Message::Delta(head, after, _) => {
                let known = self.head.ok_or("it begins with a change")?;
                if after > known.revision {
                    return Err("something is missing".to_owned());
                }
                head
            }
        };
        // Whatever it was: all that was committed before has come.
        self.all.heard.lock().unwrap().push((self.node as u64, head.revision, now_ns()));
        self.head = Some(head);
        self.all.revisions[self.node].store(head.revision, Ordering::Relaxed);
        Ok(())
    }
}

pub(crate) fn run(dir: &Path, port: u16, size: Size) {
    let revisions = (0..size.nodes).map(|_| AtomicU64::new(0)).collect();
    let all = Arc::new(All { revisions, ..All::default() });
    // A thread that waits holds up all of its followers: they do not read.
    for nodes in [0..size.stop, size.stop..size.nodes] {
        let (all, ca) = (Arc::clone(&all), dir.join("control.crt"));
        let run = move || {
            // Without signals, for which there would be a socket that is no connection.
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_io().enable_time().build();
            runtime.unwrap().block_on(async {
                for node in nodes {
                    let pauses = node < size.stop;
                    let all = Arc::clone(&all);
                    let node = usize::try_from(node).unwrap();
                    let light = Box::new(Light { node, pauses, head: None, all });
                    let url = format!("https://localhost:{port}");
                    let identity = Arc::new(identity(node as u64));
                    let (_, asked) = client::pins();
                    let followed = Arc::new(Followed::default());
                    let at = (url.as_str(), Some(&*ca));
                    let follows = client::following(at, identity, light, followed, asked);
                    tokio::spawn(follows.unwrap());
                }
                std::future::pending::<()>().await;
            });
        };
        Builder::new().spawn(run).unwrap();
    }
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let mut words = line.split(' ');
        let answer = match (words.next().unwrap(), words.next()) {
            ("reach", Some(revision)) => all.reach(revision.parse().unwrap()),
            ("cut", _) => cut(),
            ("dump", Some(path)) => all.dump(Path::new(path)),
            ("pause", on) => {
                all.paused.store(on == Some("on"), Ordering::Relaxed);
                String::new()
            }
            _ => unreachable!("{line}"),
        };
        println!("{answer}");
    }
}

impl All {
    /// Waits until all have come so far.
    fn reach(&self, revision: u64) -> String {
        let began = Instant::now();
        let snapshots = self.snapshots.load(Ordering::Relaxed);
        let behind = || {
            let behind = |it: &&AtomicU64| it.load(Ordering::Relaxed) < revision;
            self.revisions.iter().filter(behind).count()
        };
        let mut half = None;
        while behind() > 0 && began.elapsed() < PATIENCE {
            if half.is_none() && behind() * 2 < self.revisions.len() {
                half = Some(began.elapsed());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let snapshots = self.snapshots.load(Ordering::Relaxed) - snapshots;
        let ms = |took: Duration| took.as_millis();
        format!(
            "all there after {} ms (half after {}), {snapshots} began anew, {} never came",
            ms(began.elapsed()),
            ms(half.unwrap_or_default()),
            behind()
        )
    }

    fn dump(&self, path: &Path) -> String {
        let heard = std::mem::take(&mut *self.heard.lock().unwrap());
        let bytes: Vec<u8> = heard
            .iter()
            .flat_map(|(node, revision, at)| [node, revision, at].map(|it| it.to_le_bytes()))
            .flatten()
            .collect();
        fs::write(path, bytes).unwrap();
        String::new()
    }
}

/// Ends every connection of this process: what is TCP, for tokio has a pair of sockets of its own.
fn cut() -> String {
    let mut count = 0;
    for entry in fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let socket =
            fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
        let fd: RawFd = entry.file_name().to_string_lossy().parse().unwrap();
        if socket && fd > 2 && getpeername::<SockaddrIn>(fd).is_ok() {
            // It is open: nobody but its own task closes it, which only ends this try.
            count += usize::from(shutdown(fd, Shutdown::Both).is_ok());
        }
    }
    count.to_string()
}

/// The process, from the other side.
pub(crate) struct Process {
    child: Child,
    says: BufReader<ChildStdout>,
    told: ChildStdin,
    dump: PathBuf,
}

impl Process {
    pub(crate) fn start(dir: &Path, port: u16, size: Size) -> Self {
        let mut command = again(size.nodes < crate::WHOLE.nodes);
        command.arg("--follow").arg(dir).arg(port.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let says = BufReader::new(child.stdout.take().unwrap());
        let told = child.stdin.take().unwrap();
        Self { child, says, told, dump: dir.join("heard") }
    }

    fn ask(&mut self, words: &str) -> String {
        writeln!(self.told, "{words}").unwrap();
        let mut answer = String::new();
        self.says.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    /// Waits until all have everything.
    pub(crate) fn ready(&mut self) -> String {
        self.ask("reach 1")
    }

    pub(crate) fn reach(&mut self, revision: u64) -> String {
        self.ask(&format!("reach {revision}"))
    }

    pub(crate) fn cut(&mut self) {
        let count = self.ask("cut");
        println!("{count} connections are cut");
    }

    pub(crate) fn pause(&mut self) {
        self.ask("pause on");
    }

    pub(crate) fn resume(&mut self) {
        self.ask("pause off");
    }

    pub(crate) fn dump(&mut self) -> Heard {
        let path = self.dump.clone();
        self.ask(&format!("dump {}", path.display()));
        let bytes = fs::read(path).unwrap();
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        let each = bytes.chunks_exact(24);
        each.map(|it| (number(&it[..8]), number(&it[8..16]), number(&it[16..]))).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
