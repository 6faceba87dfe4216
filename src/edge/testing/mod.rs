//! Networks of their own for tests, as threads see them: nothing outside the test's
//! own thread changes.

use std::fs::File;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// Whether a test may do without `what`; fails the test if the environment does not say so.
pub(crate) fn may_miss(what: &str, cause: &str) {
    let allowed = std::env::var("KEYWAY_ALLOW_MISSING").unwrap_or_default();
    assert!(
        allowed.split([',', ' ']).any(|word| word == what),
        "{what} is missing ({cause}); KEYWAY_ALLOW_MISSING={what} allows that"
    );
}

/// Runs `body` on a thread with an empty network of its own, `lo` up. None if that is
/// missing and may be.
pub(crate) fn in_own_network<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let thread = thread::spawn(|| {
        if let Err(cause) = unshare(CloneFlags::CLONE_NEWNET) {
            may_miss("netns", &format!("unshare: {cause}; it takes root"));
            return None;
        }
        ip("link set lo up");
        Some(body())
    });
    thread.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause))
}

/// Two networks joined by a cable.
pub(crate) struct Cable {
    server: File,
    client: File,
}

impl Cable {
    /// Makes the client's network beside the calling thread's own, which is the server's. The ends
    /// are `10.77.0.1` and `fd77::1` here, `10.77.0.2` and `fd77::2` over there.
    pub(crate) fn lay() -> Self {
        let server = here();
        unshare(CloneFlags::CLONE_NEWNET).expect("a second network");
        let client = here();
        let cable = Self { server, client };
        ip("link set lo up");
        cable.at_server();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&cable.client);
        ip(&format!(
            "link add near type veth peer name far netns /proc/{}/fd/{fd}",
            std::process::id()
        ));
        for (end, number) in [("near", 1), ("far", 2)] {
            if number == 2 {
                cable.at_client();
            }
            ip(&format!("addr add 10.77.0.{number}/24 dev {end}"));
            ip(&format!("addr add fd77::{number}/64 dev {end} nodad"));
            ip(&format!("link set {end} up"));
            settled(&format!("fd77::{number}"));
        }
        cable.at_server();
        cable
    }

    /// Sockets made from now on, and programs started, are in the server's network.
    pub(crate) fn at_server(&self) {
        setns(&self.server, CloneFlags::CLONE_NEWNET).expect("setns");
    }

    /// Sockets made from now on, and programs started, are in the client's network.
    pub(crate) fn at_client(&self) {
        setns(&self.client, CloneFlags::CLONE_NEWNET).expect("setns");
    }
}

/// Runs nft(8) in this thread's network. False if it is missing and may be.
pub(crate) fn nft(rules: &[&str]) -> bool {
    for rule in rules {
        match Command::new("nft").arg(rule).output() {
            Ok(done) if done.status.success() => {}
            Ok(done) => panic!("nft {rule}: {}", String::from_utf8_lossy(&done.stderr)),
            Err(cause) => {
                may_miss("nft", &format!("nft(8): {cause}"));
                return false;
            }
        }
    }
    true
}

fn here() -> File {
    File::open("/proc/thread-self/ns/net").expect("this thread's network")
}

/// Waits until this thread's network takes its new IPv6 address for its own: the kernel makes that
/// route later than the address, and later than another one to it that is good for nothing.
pub(crate) fn settled(address: &str) {
    /// Of linux/ipv6_route.h.
    const RTF_LOCAL: u32 = 0x8000_0000;
    let ip: std::net::Ipv6Addr = address.parse().expect("an address");
    let name = format!("{:032x}", ip.to_bits());
    let began = std::time::Instant::now();
    let is_local = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let flags = fields.get(8).and_then(|flags| u32::from_str_radix(flags, 16).ok());
        fields.first() == Some(&name.as_str()) && flags.unwrap_or(0) & RTF_LOCAL != 0
    };
    let routes = || std::fs::read_to_string("/proc/thread-self/net/ipv6_route").expect("routes");
    while !routes().lines().any(is_local) {
        assert!(began.elapsed().as_secs() < 10, "{address} does not become local");
        thread::yield_now();
    }
}

/// Runs ip(8) in this thread's network.
pub(crate) fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).output().expect("ip(8) runs");
    assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}
