//! `keyway serve`, asked over its socket and over DNS.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::change::disk;
use crate::made::{USERS, mixed};
use crate::{Times, VMS, kb_in};

const KEYWAY: &str = env!("CARGO_BIN_EXE_keyway");
/// Changes whose answer is looked for in DNS.
const ASKED: u64 = 300;

/// The real thing: `keyway serve` on this directory, asked over its socket and over DNS.
struct Served {
    process: Child,
    socket: PathBuf,
    dns: u16,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

impl Served {
    fn start(dir: &Path) -> Self {
        let free = || UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (dns, ssh, metrics) = (free(), free(), free());
        let config = dir.join("keyway.toml");
        let text = format!(
            "state_dir = \"{}\"\n[edge]\nlisten = [\"127.0.0.1:{ssh}\"]\n[dns]\nzone = \"vm.test\"\n\
             listen = \"127.0.0.1:{dns}\"\nresponses_per_second = 0\n[metrics]\nlisten = \"127.0.0.1:{metrics}\"\n",
            dir.display()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new(KEYWAY);
        command.arg("serve").arg("--config").arg(&config).stderr(Stdio::piped());
        let began = Instant::now();
        let mut process = command.spawn().unwrap();
        let mut said = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        for (word, what) in [("listening", "the door is open"), ("is up", "all of it is up")] {
            while !line.contains(word) {
                line.clear();
                assert!(said.read_line(&mut line).unwrap() > 0, "keyway serve ended");
            }
            println!("keyway serve: {what} after {} ms", began.elapsed().as_millis());
        }
        let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
        let (now, most) = (kb_in(&status, "VmRSS:") >> 10, kb_in(&status, "VmHWM:") >> 10);
        println!("resident {now} MB, at most {most} MB");
        // Nobody reads what it says from now on; it would say it to a closed pipe.
        std::thread::spawn(move || {
            let _all = std::io::copy(&mut said, &mut std::io::sink());
        });
        Self { process, socket: dir.join("keyway.sock"), dns }
    }

    fn keyway(&self, words: &str) {
        let began = Instant::now();
        let mut command = Command::new(KEYWAY);
        command.args(words.split(' ')).env("KEYWAY_SOCKET", &self.socket);
        let output = command.output().unwrap();
        let (ms, bytes) = (began.elapsed().as_millis(), output.stdout.len());
        println!("keyway {words}: {ms} ms, {bytes} bytes, {}", output.status);
    }
}

/// A connection to the API.
struct Client(BufReader<UnixStream>);

impl Client {
    /// Sends a request and reads the answer's status.
    fn ask(&mut self, method: &str, path: &str, body: &str) -> u16 {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: keyway\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut length = 0;
        while line.trim_end() != "" {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        self.0.read_exact(&mut vec![0; length]).unwrap();
        status
    }
}

/// Whether the name has an answer, over UDP.
fn resolves(socket: &UdpSocket, name: &str) -> bool {
    let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').chain([""]) {
        packet.push(u8::try_from(label.len()).unwrap());
        packet.extend(label.as_bytes());
    }
    packet.extend([0, 1, 0, 1]);
    socket.send(&packet).unwrap();
    let mut answer = [0; 512];
    let count = socket.recv(&mut answer).unwrap();
    let (code, answers) = (answer[3] & 15, answer[7]);
    assert!(count > 12 && matches!(code, 0 | 3), "an answer, or that there is none");
    code == 0 && answers > 0
}

pub(crate) fn served(dir: &Path) {
    println!("from the store, which was changed beside the saved routes:");
    drop(Served::start(dir));
    println!("from the saved routes:");
    let served = Served::start(dir);
    let mut client = Client(BufReader::new(UnixStream::connect(&served.socket).unwrap()));
    let dns = UdpSocket::bind("127.0.0.1:0").unwrap();
    dns.connect(("127.0.0.1", served.dns)).unwrap();
    dns.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    disk(dir);
    let (mut added, mut removed, mut asked) = (Times::new(), Times::new(), Times::new());
    for number in 0..ASKED {
        let name = format!("x{number}");
        let owner = mixed(number) % USERS;
        let body =
            format!("{{\"name\":\"{name}\",\"owner\":\"u{owner}\",\"ssh\":\"10.9.9.9:22\"}}");
        let began = Instant::now();
        assert_eq!(client.ask("POST", "/v1/vms", &body), 201);
        while !resolves(&dns, &format!("{name}.vm.test")) {}
        added.add(began.elapsed());
        let began = Instant::now();
        assert!(resolves(&dns, &format!("v{}.vm.test", mixed(number) % VMS)));
        asked.add(began.elapsed());
        let began = Instant::now();
        assert_eq!(client.ask("DELETE", &format!("/v1/vms/{name}"), ""), 200);
        while resolves(&dns, &format!("{name}.vm.test")) {}
        removed.add(began.elapsed());
    }
    println!("change -> answer, API to DNS, a VM added: {added}");
    println!("change -> answer, API to DNS, a VM removed: {removed}");
    println!("DNS alone: {asked}");
    for words in [
        "vm show v5 --output json",
        "vm list --visible-to u77 --output json",
        "vm list --owner u77 --output json",
        "vm list --address s5 --output json",
        "vm add slow --owner u5 --ssh 10.0.0.1:22",
        "vm rm slow",
        "user list --output json",
        "team list --output json",
        "address list --output json",
        "audit list --limit 20 --output json",
        "vm list --output json",
        "export",
    ] {
        served.keyway(words);
    }
}
