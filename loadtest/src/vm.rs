//! A light VM: an SSH server on Keyway's own protocol core that answers `exec true`
//! and nothing else.
//!
//! A stock sshd burns more CPU on one login than any front door, on the same cores and caches. In
//! front of this one the front door is most of what runs, and its own cost shows. It is a process
//! of its own, and lets in whom the laboratory's sshd lets in: the user's plain key, and
//! certificates of the CA for one principal.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use keyway::edge::clock;
use keyway::ssh::connection::{Asked, ChannelEvent, Connection};
use keyway::ssh::fault::Fault;
use keyway::ssh::host_key::HostKey;
use keyway::ssh::message;
use keyway::ssh::private_key::PrivateKey;
use keyway::ssh::publickey::{Fingerprint, PublicKey};
use keyway::ssh::transport::{Algorithms, Context, RekeyLimits, ServerConfig, Transport};
use keyway::ssh::userauth::{Authenticator, Gate, Identity, Offer, Pass, Policy, Step, Subject};
use keyway::ssh::wire::Put;

use crate::Result;
use crate::link::Link;

/// Refused signatures on one connection.
const ATTEMPTS_MAX: u32 = 3;
/// A login that says nothing for this long is over: whoever else waits needs its thread.
const PATIENCE: Duration = Duration::from_secs(30);
/// `exit` of a shell that does not find its command.
const NOT_FOUND: u32 = 127;

#[derive(Args, Clone)]
pub(crate) struct Setup {
    /// Where it listens
    #[arg(long)]
    listen: SocketAddr,
    /// Its private key (openssh-key-v1, no passphrase)
    #[arg(long)]
    host_key: PathBuf,
    /// Public key of the CA whose certificates let in
    #[arg(long)]
    user_ca: PathBuf,
    /// The principal that they must name
    #[arg(long)]
    principal: String,
    /// Public key that lets in without a certificate
    #[arg(long)]
    key: PathBuf,
    /// Threads, which is how many connections it holds at a time
    #[arg(long, default_value_t = 16)]
    threads: u32,
}

/// What all threads share.
struct Vm {
    config: Arc<ServerConfig>,
    policy: Policy,
    door: Door,
}

/// Lets in one key, and certificates for one principal.
struct Door {
    key: Fingerprint,
    principal: String,
}

impl Door {
    fn is_open_to(&self, identity: &Identity) -> bool {
        match identity {
            Identity::User(principal) => *principal == self.principal,
            Identity::Key(fingerprint) => *fingerprint == self.key,
        }
    }
}

impl Gate for Door {
    fn judge_offer(&self, offer: &Offer<'_>) -> Option<Pass> {
        let standing = offer.stand().ok()?;
        let identity = match offer.subject {
            Subject::Certificate(_) => {
                let mut names = standing.principals.iter().cloned().map(Identity::User);
                names.find(|name| self.is_open_to(name))?
            }
            Subject::Key(_) | Subject::Fingerprint(_) => {
                let key = Identity::Key(offer.subject.fingerprint());
                self.is_open_to(&key).then_some(key)?
            }
        };
        Some(Pass { identity, restrictions: standing.restrictions })
    }
}

fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|why| format!("{}: {why}", path.display()).into())
}

/// Serves until the process is ended, or until no connection can be accepted any more.
pub(crate) fn serve(setup: &Setup) -> Result<()> {
    let (host_key, _comment) = PrivateKey::from_openssh(&text(&setup.host_key)?)?;
    let host_keys = vec![HostKey { key: host_key, certificate: None }];
    let config = ServerConfig::new(host_keys, Algorithms::default(), RekeyLimits::default());
    let (ca, _comment) = PublicKey::parse_line(text(&setup.user_ca)?.trim_end())?;
    let (key, _comment) = PublicKey::parse_line(text(&setup.key)?.trim_end())?;
    let vm = Vm {
        config: Arc::new(config),
        policy: Policy { cas: vec![ca], attempts_max: ATTEMPTS_MAX, ..Policy::default() },
        door: Door { key: key.fingerprint(), principal: setup.principal.clone() },
    };
    let listener = TcpListener::bind(setup.listen)?;
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..setup.threads).map(|_| scope.spawn(|| accept(&vm, &listener))).collect();
        for thread in threads {
            thread.join().map_err(|_| "a thread of the VM panicked")??;
        }
        Ok(())
    })
}

/// One connection after the other.
fn accept(vm: &Vm, listener: &TcpListener) -> Result<()> {
    loop {
        let (stream, peer) = listener.accept()?;
        let mut visit = Visit::new(vm, peer);
        // Whoever is refused is told so in its own protocol, and most just hang up
        // when they are done.
        let _why = visit.run(stream);
    }
}

/// One connection, above its transport.
struct Visit<'a> {
    vm: &'a Vm,
    phase: Phase,
}

enum Phase {
    /// Nobody has proved a key yet.
    Login(Authenticator),
    /// A user is in.
    Open(Connection),
}

impl<'a> Visit<'a> {
    fn new(vm: &'a Vm, peer: SocketAddr) -> Self {
        Self { vm, phase: Phase::Login(Authenticator::new(peer.ip())) }
    }

    fn run(&mut self, stream: TcpStream) -> Result<()> {
        let config = Arc::clone(&self.vm.config);
        let mut link = Link::new(stream, PATIENCE, |cx| Transport::server(config, cx))?;
        let ended = loop {
            if let Err(why) = link.take(|payload, transport, cx| self.take(payload, transport, cx))
            {
                break why;
            }
        };
        // A fault's DISCONNECT, if there is somebody to read it.
        let _unheard = link.flush();
        Err(ended)
    }

    fn take(
        &mut self,
        payload: &[u8],
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> std::result::Result<(), Fault> {
        let Vm { policy, door, config } = self.vm;
        match &mut self.phase {
            Phase::Login(authenticator) => {
                let now = clock::unix_s();
                let step = authenticator.receive(payload, now, policy, door, transport, cx)?;
                let Step::Proved(key) = step else { return Ok(()) };
                if !door.is_open_to(key.identity()) {
                    return authenticator.refuse(policy, transport, cx);
                }
                authenticator.accept(transport, cx)?;
                self.phase = Phase::Open(Connection::new(1, "this VM forwards nothing"));
                transport.send(&host_keys(config), cx)
            }
            Phase::Open(connection) => {
                let event = connection.receive(payload, transport, cx)?;
                let ChannelEvent::Request { channel, asked, wants_reply } = event else {
                    return Ok(());
                };
                let runs = match asked {
                    Asked::Exec(command) => Some(command == "true"),
                    Asked::Shell | Asked::Subsystem(_) => Some(false),
                    Asked::Pty(_)
                    | Asked::Window { .. }
                    | Asked::Env { .. }
                    | Asked::Signal(_)
                    | Asked::Other(_) => None,
                };
                if wants_reply {
                    connection.answer(channel, runs.is_some(), transport, cx)?;
                }
                match runs {
                    None => Ok(()),
                    Some(true) => connection.finish(channel, 0, transport, cx),
                    Some(false) => {
                        let refusal = b"this VM runs `true` and nothing else\n";
                        connection.data(channel, true, refusal, transport, cx)?;
                        connection.finish(channel, NOT_FOUND, transport, cx)
                    }
                }
            }
        }
    }
}

/// What a stock sshd tells whoever has logged in (OpenSSH PROTOCOL §2.5): a front door has
/// to deal with it.
fn host_keys(config: &ServerConfig) -> Vec<u8> {
    let mut told = vec![message::GLOBAL_REQUEST];
    told.put_string(b"hostkeys-00@openssh.com");
    told.put_bool(false);
    for key in config.host_keys() {
        told.put_string(key.key.public().blob());
    }
    told
}
