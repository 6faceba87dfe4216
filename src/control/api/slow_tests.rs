//! Whoever reads slowly, or not at all: what is held for them is little, and nobody else waits.

use std::future::{Future, poll_fn};
use std::io::{BufReader, Read, Write};
use std::pin::Pin;
use std::sync::atomic::Ordering;

use axum::body::HttpBody as _;
use serde_json::json;

use super::body::{Body, Text};
use super::routes::{Kind, ROUTES};
use super::shared::{TURNS_MAX, WHOLE_MAX};
use super::testing::{Reply, World, head, read_head};
use crate::registry::document::Role;

/// More than sockets and queues hold.
const LONG: usize = 32 << 20;
/// Requests until a place is free again: what was held is let go as soon as the peer is
/// seen to be gone.
const TRIES: usize = 10_000;

fn wholes() -> impl Iterator<Item = &'static str> {
    ROUTES.iter().filter(|route| matches!(route.kind, Kind::Whole)).map(|route| route.path)
}

fn is_busy(reply: &Reply) -> bool {
    reply.code().as_deref() == Some("busy")
}

#[test]
fn few_large_answers_are_under_way_and_the_next_is_told_when_to_come_again() {
    let world = World::new();
    *world.fake.zone.lock().unwrap() = Some("z".repeat(LONG));
    assert_eq!(wholes().count(), 2);
    let mut slow: Vec<_> = (0..WHOLE_MAX)
        .map(|_| {
            let mut stream = world.connect();
            stream.write_all(head("GET", "/v1/zone", &[], b"").as_bytes()).unwrap();
            let mut reader = BufReader::new(stream);
            assert_eq!(read_head(&mut reader).0, 200);
            reader
        })
        .collect();
    for path in wholes() {
        let reply = world.get(path);
        assert!(is_busy(&reply) && reply.status == 503, "{path}: {}", reply.status);
        let seconds: u32 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((1..60).contains(&seconds));
    }
    // Everything else is answered meanwhile.
    assert_eq!(world.get("/v1/vms").status, 200);
    drop(slow.pop());
    let free = (0..TRIES).find(|_| !is_busy(&world.get("/v1/export")));
    assert!(free.is_some(), "the place of somebody who has gone is still taken");
    // A slow one gets all of it in the end, and then its place is free too.
    let mut rest = slow.pop().unwrap();
    let mut text = Vec::new();
    rest.read_to_end(&mut text).unwrap();
    assert!(text.ends_with(b"0\r\n\r\n"), "the text was cut off");
    assert!(text.len() > LONG);
}

#[test]
fn a_small_export_takes_a_place_for_as_long_as_it_is_on_its_way() {
    let world = World::new();
    for _ in 0..3 * WHOLE_MAX {
        let free = (0..TRIES).find(|_| world.get("/v1/export").status == 200);
        assert!(free.is_some(), "a place was never given back");
    }
}

#[test]
fn who_asks_is_found_out_while_all_turns_are_taken() {
    let world = World::over_tls();
    let question = json!({"fingerprint": format!("SHA256:{}", "A".repeat(43)), "name": "blue"});
    let body = question.to_string();
    let asked = world.fake.asked.lock().unwrap();
    let waiting: Vec<_> = (0..2 * TURNS_MAX)
        .map(|_| {
            let mut stream = world.connect();
            let headers = ["content-type: application/json"];
            let head = head("POST", "/v1/explain", &headers, body.as_bytes());
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(body.as_bytes()).unwrap();
            stream
        })
        .collect();
    while world.fake.asking.load(Ordering::SeqCst) < TURNS_MAX {
        std::thread::yield_now();
    }
    let wrong = format!("kw_{}", "A".repeat(43));
    let reply = world.send_tls(Some(&wrong), "GET", "/v1/health", &json!(null));
    assert_eq!(reply.code().as_deref(), Some("unauthenticated"));
    *world.role.lock().unwrap() = None;
    assert_eq!(world.get("/v1/health").code().as_deref(), Some("forbidden"));
    assert_eq!(world.fake.asking.load(Ordering::SeqCst), TURNS_MAX, "more were begun");
    *world.role.lock().unwrap() = Some(Role::Reader);
    drop(asked);
    for mut stream in waiting {
        assert_eq!(read_head(&mut BufReader::new(&mut stream)).0, 200);
    }
}

/// All pieces of a text, and whether it ended well.
async fn read(mut text: Body) -> (usize, bool) {
    let mut bytes = 0;
    loop {
        match poll_fn(|cx| Pin::new(&mut text).poll_frame(cx)).await {
            Some(Ok(frame)) => bytes += frame.into_data().unwrap().len(),
            Some(Err(_)) => return (bytes, false),
            None => return (bytes, true),
        }
    }
}

fn text_of(
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()> + Send + 'static,
) -> impl Future<Output = (usize, bool)> {
    read(Body::Text(Text::start(write).unwrap()))
}

#[tokio::test]
async fn a_text_that_is_cut_off_does_not_look_whole() {
    let lines = |count: usize| {
        move |into: &mut dyn Write| (0..count).try_for_each(|_| into.write_all(&[b'x'; 100]))
    };
    assert_eq!(text_of(lines(0)).await, (0, true));
    assert_eq!(text_of(lines(1)).await, (100, true));
    assert_eq!(text_of(lines(50_000)).await, (5_000_000, true));
    let (_, whole) = text_of(move |into| {
        lines(2000)(into)?;
        Err(std::io::ErrorKind::Other.into())
    })
    .await;
    assert!(!whole);
}
