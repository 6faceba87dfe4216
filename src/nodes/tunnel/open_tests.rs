//! Peers that mean no good, over a byte stream in memory and a clock that nobody waits for.

use russh::server::{self, Auth, ChannelOpenHandle, VerifiedPublicKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::nodes::tunnel::testing;

const VERSION: &[u8] = b"SSH-2.0-Hostile\r\n";

fn opening() -> Opening {
    let endpoint =
        Endpoint::new(("root", "n1", 22), vec![], DockerSocket::default(), testing::credential());
    let settings = Arc::new(Settings::default());
    Opening { company: Company::Shared, endpoint: Arc::new(endpoint.unwrap()), settings }
}

/// What comes of a connection to `peer`.
async fn met<F: Future<Output = ()> + Send + 'static>(
    peer: impl FnOnce(DuplexStream) -> F,
) -> Result<Tunnel, Unreached> {
    let (ours, theirs) = duplex(1 << 16);
    tokio::spawn(peer(theirs));
    let question: crate::nodes::tunnel::Question = Box::new(|_| Box::pin(async { true }));
    let address = "203.0.113.9:22".parse().unwrap();
    let expected = Expected::Asked(Some(question));
    let line = Lifeline::default().attach().unwrap();
    opening().over(ours, address, line, &HOST_KEY_TYPES, expected).await
}

/// Says something once, then takes whatever comes and says no more.
async fn says(mut wire: DuplexStream, what: Vec<u8>) {
    let _ = wire.write_all(&what).await;
    while matches!(wire.read(&mut [0; 1024]).await, Ok(1..)) {}
}

/// Says something again and again.
async fn repeats(mut wire: DuplexStream, first: &'static [u8], what: Vec<u8>) {
    let _ = wire.write_all(first).await;
    while wire.write_all(&what).await.is_ok() {}
}

/// A packet without encryption (RFC 4253 §6).
fn packet(payload: &[u8]) -> Vec<u8> {
    let padding = 8 + 8 - (5 + payload.len()) % 8;
    let len = u32::try_from(1 + payload.len() + padding).unwrap();
    let mut packet = len.to_be_bytes().to_vec();
    packet.push(u8::try_from(padding).unwrap());
    packet.extend_from_slice(payload);
    packet.resize(packet.len() + padding, 0);
    packet
}

/// Until nothing of the connections is left.
async fn until_alone() {
    let metrics = Runtime::current().metrics();
    let mut every = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..10_000 {
        if metrics.num_alive_tasks() == 0 {
            return;
        }
        every.tick().await;
    }
    panic!("{} tasks stay", metrics.num_alive_tasks());
}

#[tokio::test(start_paused = true)]
async fn whoever_is_silent_or_endless_before_the_login_is_ended_by_name() {
    let silent = |what: &[u8]| {
        let what = what.to_vec();
        |wire| says(wire, what)
    };
    let timed_out = Unreached::TimedOut { stage: Stage::Exchange };
    assert_eq!(met(silent(b"")).await.unwrap_err(), timed_out);
    assert_eq!(met(silent(VERSION)).await.unwrap_err(), timed_out);
    let http = met(silent(&[b"HTTP/1.1 400 Bad\x1b Request\r\n", &b"x".repeat(300)[..]].concat()));
    let why = http.await.unwrap_err();
    assert_eq!(why.label(), "not_ssh");
    assert!(why.fault().contains("HTTP/1.1 400 Bad\\x1b Request"), "{why}");
    let lines = met(|wire| repeats(wire, b"", b"a line before the version\r\n".to_vec()));
    assert_eq!(lines.await.unwrap_err().label(), "not_ssh");
    let ignore = packet(&[&[2, 0, 0, 3, 0][..], &[7; 768]].concat());
    let why = met(|wire| repeats(wire, VERSION, ignore)).await.unwrap_err();
    assert!(why.fault().contains("without end before the login"), "{why}");
    let huge = [VERSION, &[0x7f, 0xff, 0xff, 0xff, 4][..], &[0; 64][..]].concat();
    assert_eq!(met(silent(&huge)).await.unwrap_err().label(), "malformed");
    let need = met(|mut wire: DuplexStream| async move {
        let _ = wire.write_all(b"Exceeded MaxStartups\r\n").await;
    });
    let said = "Exceeded MaxStartups".to_owned();
    assert_eq!(need.await.unwrap_err(), Unreached::Closed { stage: Stage::Exchange, said });
    until_alone().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_has_nothing_in_common_is_told_what() {
    let mut kexinit = vec![20];
    kexinit.extend([0; 16]);
    for list in ["curve25519-sha256", "ssh-rsa", "x", "x", "x", "x", "none", "none", "", ""] {
        kexinit.extend(u32::try_from(list.len()).unwrap().to_be_bytes());
        kexinit.extend(list.as_bytes());
    }
    kexinit.extend([0; 5]);
    let hello = [VERSION, &packet(&kexinit)].concat();
    let why = met(|wire| says(wire, hello)).await.unwrap_err();
    let theirs = "ssh-rsa".to_owned();
    assert_eq!(why, Unreached::NoCommonAlgorithm { of: "host key", theirs });
    until_alone().await;
}

/// A server of the library's, which does one thing wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fake {
    NeverLogsIn,
    RefusesAll,
    OpensChannels,
    NeverConfirms,
}

impl server::Handler for Fake {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        _: &str,
        _: VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        match self {
            Self::NeverLogsIn => std::future::pending().await,
            Self::RefusesAll => Ok(Auth::reject()),
            Self::OpensChannels | Self::NeverConfirms => Ok(Auth::Accept),
        }
    }

    async fn auth_succeeded(&mut self, session: &mut server::Session) -> Result<(), russh::Error> {
        if *self == Self::OpensChannels {
            let handle = session.handle();
            tokio::spawn(async move {
                let _ = handle.channel_open_forwarded_tcpip("x", 1, "y", 2).await;
            });
        }
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<server::Msg>,
        reply: ChannelOpenHandle,
        _: &mut server::Session,
    ) -> Result<(), russh::Error> {
        if *self == Self::NeverConfirms {
            std::mem::forget(reply);
        }
        Ok(())
    }
}

async fn serves(wire: DuplexStream, fake: Fake) {
    let config = server::Config {
        keys: vec![(*testing::credential().key()).clone()],
        auth_rejection_time: Duration::ZERO,
        ..server::Config::default()
    };
    if let Ok(session) = server::run_stream(Arc::new(config), wire, fake).await {
        let _ = session.await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_that_never_ends_ends_and_a_refused_one_is_told() {
    let why = met(|wire| serves(wire, Fake::RefusesAll)).await.unwrap_err();
    assert_eq!(why.label(), "key_not_accepted", "{why}");
    until_alone().await;
    let why = met(|wire| serves(wire, Fake::NeverLogsIn)).await.unwrap_err();
    assert_eq!(why, Unreached::TimedOut { stage: Stage::Login });
}

#[tokio::test(start_paused = true)]
async fn a_node_that_opens_channels_towards_us_is_ended() {
    let tunnel = met(|wire| serves(wire, Fake::OpensChannels)).await.unwrap();
    let why = tunnel.ended().await;
    assert!(why.fault().contains("nobody asked for"), "{why}");
    drop(tunnel);
    until_alone().await;
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_never_confirmed_has_a_deadline_and_keeps_its_seat() {
    let tunnel = met(|wire| serves(wire, Fake::NeverConfirms)).await.unwrap();
    assert_eq!(tunnel.probe().await, Err(NoProbe::TimedOut));
    assert!(!tunnel.is_free(), "the node may confirm it yet");
    for _ in 1..SESSIONS_MAX {
        let why = tunnel.channel(Target::Session).await.map(drop);
        assert_eq!(why, Err(Unreached::TimedOut { stage: Stage::Channel }));
    }
    let why = tunnel.channel(Target::Session).await.map(drop);
    assert_eq!(why, Err(Unreached::SessionsRefused));
    tunnel.cut();
    tunnel.ended().await;
    drop(tunnel);
    until_alone().await;
}
