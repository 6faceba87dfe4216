//! What one login costs without sockets: the edge's two SSH legs in memory, and the cryptographic
//! operations in them alone. `cargo bench --bench login`.
//!
//! The client's leg: mlkem768x25519-sha256 (or curve25519-sha256), the host key's signature, the
//! user's signature checked. The VM's leg: curve25519-sha256, the VM's signature checked, a user
//! certificate minted and used. All keys are Ed25519. Only the edge's side is timed, each call by
//! itself, and the figures are medians: nothing waits in them, so on a thread that is not
//! interrupted they are CPU time.

#![expect(clippy::disallowed_methods, reason = "it measures, by threads and clocks")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]
#![expect(clippy::expect_used, reason = "a benchmark that cannot measure must end")]
#![expect(clippy::cast_precision_loss, reason = "figures are printed with one digit")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use aws_lc_rs::{agreement, kem, signature};
use keyway::ssh::certificate::{Restrictions, UserCertificate};
use keyway::ssh::entropy::SystemEntropy;
use keyway::ssh::host_key::HostKey;
use keyway::ssh::kex::Method;
use keyway::ssh::private_key::PrivateKey;
use keyway::ssh::publickey::{PublicKey, SignatureAlgorithm};
use keyway::ssh::revocation::Revocations;
use keyway::ssh::transport::{
    Algorithms, ClientConfig, Context, Event, Instant, RekeyLimits, ServerConfig, Transport,
};
use keyway::ssh::userauth::{
    Authenticator, Credential, Gate, Identity, Login, LoginStep, Offer, Pass, Policy, Step, Subject,
};

const LOGINS: usize = 1000;

/// Lets every key in: what a route costs is `benches/route.rs`'s to say.
struct Everybody;

impl Gate for Everybody {
    fn judge_offer(&self, offer: &Offer<'_>) -> Option<Pass> {
        let standing = offer.stand().ok()?;
        let identity = match offer.subject {
            Subject::Certificate(_) => Identity::User(standing.principals.first()?.clone()),
            Subject::Key(_) | Subject::Fingerprint(_) => Identity::Key(offer.subject.fingerprint()),
        };
        Some(Pass { identity, restrictions: standing.restrictions })
    }
}

/// One end of a leg, and the time it has used.
struct End {
    transport: Transport,
    inbox: Vec<u8>,
    used: Duration,
}

impl End {
    fn new(make: impl FnOnce() -> Transport) -> Self {
        let began = Clock::now();
        let transport = make();
        Self { transport, inbox: Vec::new(), used: began.elapsed() }
    }

    fn timed<T>(&mut self, body: impl FnOnce(&mut Transport) -> T) -> T {
        let began = Clock::now();
        let result = body(&mut self.transport);
        self.used += began.elapsed();
        result
    }

    /// Handles what has come; every event and payload goes to `handle`.
    fn receive(
        &mut self,
        cx: &mut Context<'_>,
        mut handle: impl FnMut(&mut Transport, &Event, &[u8], &mut Context<'_>),
    ) {
        let began = Clock::now();
        let mut start = 0;
        loop {
            let input = &mut self.inbox[start..];
            let received = self.transport.receive(input, cx).expect("a sound peer");
            if received.event == Event::Starved {
                break;
            }
            let payload = received.event.payload(input);
            handle(&mut self.transport, &received.event, payload, cx);
            start += received.used;
        }
        self.inbox.drain(..start);
        self.used += began.elapsed();
    }

    fn send_to(&mut self, other: &mut Self) {
        other.inbox.extend_from_slice(self.transport.output());
        self.transport.sent(self.transport.output().len());
    }
}

/// A server and a client of one leg, from the first byte to the accepted key.
struct Leg {
    server_config: Arc<ServerConfig>,
    client_config: Arc<ClientConfig>,
    policy: Policy,
}

/// Times of one leg: its server's side, its client's side.
struct Times {
    server: Duration,
    client: Duration,
}

impl Leg {
    fn new(method: Option<Method>, cas: Vec<PublicKey>) -> Self {
        let mut entropy = SystemEntropy::default();
        let key = PrivateKey::generate_ed25519(&mut entropy);
        let host_key = HostKey { key, certificate: None };
        let mut algorithms = Algorithms::default();
        if let Some(method) = method {
            algorithms.methods = vec![method];
        }
        let limits = RekeyLimits::default();
        let policy = Policy {
            cas,
            revocations: Revocations::default(),
            attempts_max: 6,
            hide_keys: false,
            last_words: String::new(),
            plus_words: String::new(),
        };
        Self {
            server_config: Arc::new(ServerConfig::new(vec![host_key], algorithms.clone(), limits)),
            client_config: Arc::new(ClientConfig::new(
                &[SignatureAlgorithm::Ed25519],
                algorithms,
                limits,
            )),
            policy,
        }
    }

    /// `credential` is made by the client's side and is part of its time.
    fn run(&self, login: &str, unix_s: u64, credential: impl FnOnce() -> Credential) -> Times {
        let mut entropy = SystemEntropy::default();
        let mut cx = Context { now: Instant(0), entropy: &mut entropy };
        let mut server = End::new(|| Transport::server(Arc::clone(&self.server_config), &mut cx));
        let mut client = End::new(|| Transport::client(Arc::clone(&self.client_config), &mut cx));
        let source = "127.0.0.1".parse().expect("an address");
        let mut authenticator = Authenticator::new(source);
        let mut credential = Some(credential);
        let mut logging_in: Option<Login> = None;
        let mut done = false;
        while !done {
            server.send_to(&mut client);
            let mut secured = false;
            client.receive(&mut cx, |transport, event, payload, cx| match event {
                Event::Secured => secured = true,
                Event::Payload(_) => {
                    if let Some(login) = &mut logging_in {
                        let step = login.receive(payload, transport, cx).expect("a login");
                        done |= step == LoginStep::Success;
                    }
                }
                Event::Starved | Event::Handled | Event::Rekeyed | Event::Unimplemented(_) => {}
            });
            if secured && let Some(credential) = credential.take() {
                let begun = client
                    .timed(|transport| Login::start(login, &credential(), transport, &mut cx));
                logging_in = Some(begun.expect("a key that signs"));
            }
            client.send_to(&mut server);
            server.receive(&mut cx, |transport, event, payload, cx| {
                if !matches!(event, Event::Payload(_)) {
                    return;
                }
                let step = authenticator
                    .receive(payload, unix_s, &self.policy, &Everybody, transport, cx)
                    .expect("a sound client");
                if let Step::Proved(_) = step {
                    authenticator.accept(transport, cx).expect("a proved key");
                }
            });
        }
        Times { server: server.used, client: client.used }
    }
}

fn median(mut all: Vec<Duration>) -> f64 {
    all.sort_unstable();
    all[all.len() / 2].as_nanos() as f64 / 1000.0
}

fn time<T>(mut body: impl FnMut() -> T) -> f64 {
    median(
        (0..LOGINS)
            .map(|_| {
                let began = Clock::now();
                black_box(body());
                began.elapsed()
            })
            .collect(),
    )
}

/// The operations of one login and how often each occurs: client's leg, VM's leg.
fn operations() -> Vec<(&'static str, f64, [u32; 2])> {
    let share = || agreement::PrivateKey::generate(&agreement::X25519).expect("a key pair");
    let peer = share().compute_public_key().expect("a public key");
    let mine = share();
    let agree = || {
        let theirs = agreement::UnparsedPublicKey::new(&agreement::X25519, peer.as_ref());
        agreement::agree(&mine, theirs, aws_lc_rs::error::Unspecified, |secret| Ok(secret[0]))
    };
    let decapsulation = kem::DecapsulationKey::generate(&kem::ML_KEM_768).expect("a key pair");
    let encapsulation = decapsulation.encapsulation_key().expect("its public half");
    let pair = signature::Ed25519KeyPair::generate().expect("a key pair");
    let message = [7; 64];
    let signed = pair.sign(&message);
    let public = signature::KeyPair::public_key(&pair).as_ref().to_vec();
    let public = signature::UnparsedPublicKey::new(&signature::ED25519, public);
    vec![
        ("X25519 key pair", time(|| share().compute_public_key()), [1, 1]),
        ("X25519 agreement", time(agree), [1, 1]),
        ("ML-KEM-768 encapsulation", time(|| encapsulation.encapsulate()), [1, 0]),
        ("Ed25519 signature", time(|| pair.sign(&message)), [1, 2]),
        ("Ed25519 verification", time(|| public.verify(&message, signed.as_ref())), [1, 1]),
    ]
}

fn main() {
    // Cargo passes flags of its own; there is nothing to choose.
    let mut entropy = SystemEntropy::default();
    let user = Arc::new(PrivateKey::generate_ed25519(&mut entropy));
    let subject = Arc::new(PrivateKey::generate_ed25519(&mut entropy));
    let ca = PrivateKey::generate_ed25519(&mut entropy);
    let legs = [
        ("client's leg, mlkem768x25519", Leg::new(None, Vec::new())),
        ("client's leg, curve25519", Leg::new(Some(Method::Curve25519), Vec::new())),
    ];
    let vm = Leg::new(Some(Method::Curve25519), vec![ca.public().clone()]);
    let unix_s = 1_800_000_000;
    println!("{:<32} {:>8}", "one login, the edge's side", "us");
    for (name, leg) in &legs {
        let plain = || Credential { key: Arc::clone(&user), certificate: None };
        let times = (0..LOGINS).map(|_| leg.run("alice", unix_s, plain).server).collect();
        println!("{name:<32} {:>8.1}", median(times));
    }
    let restrictions = Restrictions::default();
    let minted = || {
        let certificate = UserCertificate {
            key: subject.public(),
            key_id: "keyway user=alice client=192.0.2.1 key=SHA256:x session=0",
            principals: &["alice"],
            valid_after_s: unix_s - 600,
            valid_before_s: unix_s + 60,
            source_address: None,
            restrictions: &restrictions,
            serial: 1,
        };
        let certificate = certificate.mint(&ca, &mut SystemEntropy::default()).expect("signs");
        Credential { key: Arc::clone(&subject), certificate: Some(certificate) }
    };
    let times = (0..LOGINS).map(|_| vm.run("alice", unix_s, minted).client).collect();
    println!("{:<32} {:>8.1}", "VM's leg, with its certificate", median(times));

    println!(
        "\n{:<32} {:>8}   times in the client's and the VM's leg",
        "the cryptography alone", "us"
    );
    let mut sums = [0.0; 2];
    for (name, us, counts) in operations() {
        println!("{name:<32} {us:>8.1}   {} + {}", counts[0], counts[1]);
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += us * f64::from(count);
        }
    }
    println!("{:<32} {:>8.1}   {:.1} + {:.1}", "together", sums[0] + sums[1], sums[0], sums[1]);
}
