//! Tests of `http`: how long a connection lasts, and who reads too slowly. Their time is
//! tokio's paused one.

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

const LIMITS: Limits = Limits {
    silent: Duration::from_secs(10),
    head: Duration::from_secs(30),
    age: Duration::from_mins(1),
    last_request: Duration::from_secs(20),
};

/// A connection to two routes, one of which never answers.
fn connected(lingers: bool) -> DuplexStream {
    let (ours, theirs) = duplex(1 << 10);
    let routes = Router::new()
        .route("/now", get(async || "here"))
        .route("/never", get(async || std::future::pending::<&str>().await));
    tokio::spawn(async move { converse(ours, routes, LIMITS, || lingers).await });
    theirs
}

async fn ask(stream: &mut DuplexStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

/// Asks, and reads the answer.
async fn answered(stream: &mut DuplexStream) {
    ask(stream, "/now").await;
    let mut answer = Vec::new();
    while !answer.ends_with(b"here") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "it ended");
    }
}

/// After how many seconds the other side ends it.
async fn ends_after_s(stream: &mut DuplexStream) -> u64 {
    let begun = Instant::now();
    let mut rest = Vec::new();
    let _ended = stream.read_to_end(&mut rest).await;
    begun.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_nothing_goes_soon_and_who_begins_to_ask_no_later() {
    assert_eq!(ends_after_s(&mut connected(true)).await, 10);
    let mut slow = connected(true);
    slow.write_all(b"GET /now HT").await.unwrap();
    assert_eq!(ends_after_s(&mut slow).await, 10);
}

#[tokio::test(start_paused = true)]
async fn who_has_asked_may_rest_between_two_requests_and_not_for_longer() {
    let mut stream = connected(false);
    for _ in 0..2 {
        answered(&mut stream).await;
        sleep(20 * SECOND).await;
    }
    answered(&mut stream).await;
    // Of its minute, 40 seconds are gone.
    assert_eq!(ends_after_s(&mut stream).await, 20);
    let mut stream = connected(false);
    answered(&mut stream).await;
    assert_eq!(ends_after_s(&mut stream).await, 30);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_under_way_outlasts_its_connections_age_and_one_that_lingers_everything()
{
    let mut stream = connected(false);
    ask(&mut stream, "/never").await;
    assert_eq!(ends_after_s(&mut stream).await, 60 + 20);
    let mut stream = connected(true);
    ask(&mut stream, "/never").await;
    assert!(timeout(3600 * SECOND, ends_after_s(&mut stream)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_too_large_is_told_so() {
    let mut stream = connected(false);
    let (mut reads, mut writes) = tokio::io::split(&mut stream);
    let head = format!("GET /now HTTP/1.1\r\nx: {}", "x".repeat(HEAD_BYTES_MAX));
    let mut answer = String::new();
    // It is answered before all of it is taken.
    let (_cut, _read) =
        tokio::join!(writes.write_all(head.as_bytes()), reads.read_to_string(&mut answer));
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

/// What becomes of `bytes` for a peer that takes `sip` of them every `pause`.
async fn written(bytes: usize, sip: usize, pause: Duration) -> io::Result<()> {
    let (ours, mut theirs) = duplex(sip);
    tokio::spawn(async move {
        let mut taken = vec![0; sip];
        while theirs.read_exact(&mut taken).await.is_ok() {
            sleep(pause).await;
        }
        std::future::pending::<()>().await;
    });
    let mut patient = Patient::new(ours);
    patient.write_all(&vec![0; bytes]).await?;
    patient.flush().await
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_too_little_is_given_up_and_a_steady_one_is_not() {
    let fault = written(1 << 20, 1, SECOND).await.unwrap_err();
    assert_eq!(fault.kind(), io::ErrorKind::TimedOut);
    let fault = written(8 << 20, 16 << 10, SECOND).await.unwrap_err();
    assert_eq!(fault.kind(), io::ErrorKind::TimedOut);
    // Minutes in all, as it should for somebody far away.
    written(8 << 20, 64 << 10, SECOND).await.unwrap();
    // A little is soon over, however slowly it is taken.
    written(20, 1, SECOND).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_reads_line_by_line_for_hours_is_not_given_up() {
    let (ours, mut theirs) = duplex(16);
    tokio::spawn(async move {
        let mut line = [0; 32];
        while theirs.read_exact(&mut line).await.is_ok() {}
    });
    let mut patient = Patient::new(ours);
    for _ in 0..1000 {
        patient.write_all(&[0; 32]).await.unwrap();
        patient.flush().await.unwrap();
        sleep(Duration::from_secs(20)).await;
    }
}
