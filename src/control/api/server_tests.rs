//! The listeners: their files, their certificates, and peers that misbehave.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio_rustls::rustls::{ALL_VERSIONS, version};

use super::auth::{Credentials, Process, new_token};
use super::testing::{World, head, now_s, read_head, read_reply};
use super::{ApiServeError, server};
use crate::config::{ApiTls, Peer};
use crate::registry::document::Role;
use crate::registry::writer::{Actor, CommandRequest, Mode};
use crate::registry::{Command, Label, Options};
use crate::ssh::entropy::SystemEntropy;

/// Another API on the same registry.
fn start(
    world: &World,
    socket: &std::path::Path,
    tls: Option<&ApiTls>,
) -> Result<super::Handle, ApiServeError> {
    let beside = Arc::clone(&world.fake) as Arc<dyn super::DataPlane>;
    let reader = Box::new(|_| Some(Role::Reader));
    let api = super::shared::Api::new(Arc::clone(&world.service), beside, reader, Arc::default());
    server::start(Arc::new(api), server::reserve(socket, tls)?)
}

#[test]
fn a_socket_that_nobody_answers_is_replaced_and_others_are_left_alone() {
    let world = World::new();
    let path = world.handle.socket().to_owned();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o660);
    assert!(
        matches!(start(&world, &path, None), Err(ApiServeError::Taken(taken)) if taken == path)
    );
    assert_eq!(world.get("/v1/health").status, 200);
    let stale = world.scratch.0.join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    let handle = start(&world, &stale, None).unwrap();
    assert_eq!(handle.socket(), stale);
    drop(handle);
    assert!(!stale.exists(), "the file goes with the API");
    let file = world.scratch.0.join("file");
    fs::write(&file, "precious").unwrap();
    assert!(matches!(start(&world, &file, None), Err(ApiServeError::NoSocket(_))));
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    let nowhere = world.scratch.0.join("no/such.sock");
    let fault = start(&world, &nowhere, None).unwrap_err();
    assert!(fault.to_string().contains("no/such.sock"), "{fault}");
    let handle = start(&world, &stale, None).unwrap();
    fs::remove_file(&stale).unwrap();
    let _successor = UnixListener::bind(&stale).unwrap();
    drop(handle);
    assert!(stale.exists(), "the successor's file was removed");
}

#[test]
fn dropping_the_handle_ends_it_even_with_silent_clients_and_watchers() {
    let world = World::over_tls();
    let mut silent = world.connect();
    let mut silent_tls = world.connect_tcp();
    let watcher = world.connect();
    (&watcher).write_all(head("GET", "/v1/watch", &[], b"").as_bytes()).unwrap();
    let mut watcher = BufReader::new(watcher);
    assert_eq!(read_head(&mut watcher).0, 200);
    let (path, address) = (world.handle.socket().to_owned(), world.handle.address().unwrap());
    drop(world.handle);
    assert!(UnixStream::connect(&path).is_err());
    assert!(std::net::TcpStream::connect(address).is_err());
    assert!(!matches!(silent.read(&mut [0; 1]), Ok(1)));
    assert!(!matches!(silent_tls.read(&mut [0; 1]), Ok(1)));
    let mut rest = Vec::new();
    let _ended = watcher.read_to_end(&mut rest);
}

#[test]
fn tls_1_2_and_1_3_are_served_and_nothing_without_tls() {
    let world = World::over_tls();
    let token = world.token("ci", "reader");
    let bearer = format!("authorization: Bearer {token}");
    let certificate = world.scratch.0.join("one.crt");
    for version in [&version::TLS12, &version::TLS13] {
        let mut stream = world.connect_tls(&certificate, &[version]);
        stream.write_all(head("GET", "/v1/health", &[&bearer], b"").as_bytes()).unwrap();
        assert_eq!(stream.conn.protocol_version(), Some(version.version));
        let reply = read_reply(stream);
        assert_eq!(reply.status, 200);
        assert_eq!(reply.json()["status"], "ok");
    }
    let mut plain = world.connect_tcp();
    plain.write_all(head("GET", "/v1/health", &[&bearer], b"").as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ended = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    // Whoever is at the socket needs no token, and one there gives no other role.
    *world.role.lock().unwrap() = Some(Role::Reader);
    let admin = world.send(
        "POST",
        "/v1/users",
        &[&bearer, "content-type: application/json"],
        b"{\"name\":\"x\"}",
    );
    assert_eq!(admin.code().as_deref(), Some("forbidden"));
}

#[test]
fn a_token_ends_when_it_expires_and_when_it_is_removed() {
    let world = World::over_tls();
    let add = |name: &str, expires_s: Option<u64>| {
        let (token, hash) = new_token(&mut SystemEntropy::default());
        let name = Label::new(name).unwrap();
        let command =
            Command::TokenAdd { name, hash: hash.into_text(), role: Role::Admin, expires_s };
        let actor = Actor { name: "test".into(), from: "test".into() };
        let order = CommandRequest { command, options: Options::default(), expected: None, actor };
        world.service.carry_out(order, Mode::Real).unwrap();
        token
    };
    let (over, live) = (add("over", Some(now_s())), add("live", Some(now_s() + 1)));
    let get = |token: &str| world.send_tls(Some(token), "GET", "/v1/tokens", &Value::Null);
    assert_eq!(get(&over).code().as_deref(), Some("unauthenticated"));
    assert!(get(&over).json()["detail"].as_str().unwrap().contains("expired"));
    assert_eq!(get(&live).status, 200);
    let logged = world.send_tls(Some(&live), "POST", "/v1/users", &json!({"name": "alice"}));
    assert_eq!(logged.status, 201);
    let log = world.get("/v1/audit?newest=true&limit=1").json();
    assert_eq!(log["items"][0]["actor"]["name"], "token live");
    assert!(log["items"][0]["actor"]["from"].as_str().unwrap().starts_with("127.0.0.1:"));
    // Who watches with it is cut off too.
    let mut watcher = world.connect_tls(&world.scratch.0.join("one.crt"), ALL_VERSIONS);
    let bearer = format!("authorization: Bearer {live}");
    watcher.write_all(head("GET", "/v1/watch", &[&bearer], b"").as_bytes()).unwrap();
    let mut watcher = BufReader::new(watcher);
    assert_eq!(read_head(&mut watcher).0, 200);
    world.must("DELETE", "/v1/tokens/live", &Value::Null);
    assert_eq!(get(&live).code().as_deref(), Some("unauthenticated"));
    let mut rest = String::new();
    let _ended = watcher.read_to_string(&mut rest);
    assert!(!rest.contains('{'), "told after its token was gone: {rest}");
}

#[test]
fn a_certificate_is_replaced_while_it_runs_and_a_wrong_one_is_not() {
    let world = World::over_tls();
    let token = world.token("ci", "reader");
    let bearer = format!("authorization: Bearer {token}");
    let ask = |certificate: &str| {
        let mut stream = world.connect_tls(&world.scratch.0.join(certificate), ALL_VERSIONS);
        stream.write_all(head("GET", "/v1/health", &[&bearer], b"").as_bytes())
    };
    assert!(ask("one.crt").is_ok());
    let two = world.scratch.certificate("two");
    let crossed = ApiTls { key: world.scratch.0.join("one.key"), ..two.clone() };
    assert!(matches!(world.handle.reload_tls(&crossed), Err(ApiServeError::Tls { .. })));
    let rubbish = world.scratch.0.join("rubbish");
    fs::write(&rubbish, "-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n").unwrap();
    let wrong = ApiTls { cert: rubbish.clone(), ..two.clone() };
    assert!(
        matches!(world.handle.reload_tls(&wrong), Err(ApiServeError::Tls { path, .. }) if path == rubbish)
    );
    fs::write(&rubbish, "").unwrap();
    assert!(world.handle.reload_tls(&wrong).is_err());
    let missing = ApiTls { key: world.scratch.0.join("missing"), ..two.clone() };
    assert!(world.handle.reload_tls(&missing).is_err());
    assert!(ask("one.crt").is_ok() && ask("two.crt").is_err());
    world.handle.reload_tls(&two).unwrap();
    assert!(ask("two.crt").is_ok() && ask("one.crt").is_err());
    let used = ApiTls { listen: world.handle.address().unwrap(), ..two };
    let other = world.scratch.0.join("other.sock");
    let fault = start(&world, &other, Some(&used)).unwrap_err();
    assert!(
        matches!(fault, ApiServeError::Listen { address, .. } if address == used.listen),
        "{fault}"
    );
    assert!(!other.exists(), "half of it was left");
}

#[test]
fn another_role_at_the_socket_holds_from_the_next_request_on() {
    let world = World::new();
    let mut stream = world.connect();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut ask = || {
        stream.write_all(b"GET /v1/tokens HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let (status, headers) = read_head(&mut reader);
        let length = headers.iter().find(|(name, _)| name == "content-length").unwrap();
        reader.read_exact(&mut vec![0; length.1.parse().unwrap()]).unwrap();
        status
    };
    let mut watcher = world.connect();
    watcher.write_all(head("GET", "/v1/watch", &[], b"").as_bytes()).unwrap();
    let mut watcher = BufReader::new(watcher);
    assert_eq!(read_head(&mut watcher).0, 200);
    assert_eq!(ask(), 200);
    *world.role.lock().unwrap() = Some(Role::Operator);
    assert_eq!(ask(), 403);
    *world.role.lock().unwrap() = None;
    assert_eq!(ask(), 403);
    let mut rest = String::new();
    watcher.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains('{'), "told after it might no longer: {rest}");
}

#[test]
fn peers_are_replaced_while_it_runs() {
    let world = World::new();
    // Whoever runs the tests is root or the user that the API runs as: only others have rules.
    let stranger = |api: &super::shared::Api| {
        let is = Credentials { uid: 77_777, gid: 77_777 };
        api.role(Process { own_uid: 1, is })
    };
    let beside = Arc::clone(&world.fake) as Arc<dyn super::DataPlane>;
    let service = Arc::clone(&world.service);
    let rules = vec![(Peer::Uid(77_777), Role::Reader)];
    let api = Arc::new(super::shared::Api::new(
        service,
        beside,
        super::shared::role_of(rules),
        Arc::default(),
    ));
    let handle = {
        let reserved = server::reserve(&world.scratch.0.join("other.sock"), None).unwrap();
        server::start(Arc::clone(&api), reserved).unwrap()
    };
    assert_eq!(stranger(&api), Some(Role::Reader));
    handle.reload_peers(vec![(Peer::Uid(77_777), Role::Operator)]);
    assert_eq!(stranger(&api), Some(Role::Operator));
    handle.reload_peers(Vec::new());
    assert_eq!(stranger(&api), None);
}

#[test]
fn a_bad_connection_ends_alone() {
    let world = World::over_tls();
    let many = format!("GET / HTTP/1.1\r\n{}", "x: y\r\n".repeat(200));
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(80 << 10));
    let bad: [&[u8]; 8] = [
        b"\0\0\0\0",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/users HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/users HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{\"na",
        b"POST /v1/users HTTP/1.1\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        many.as_bytes(),
        long.as_bytes(),
    ];
    for bytes in bad {
        let mut stream = world.connect();
        let _cut = stream.write_all(bytes);
        let _cut = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _cut = stream.read_to_end(&mut answer);
        let good = answer.starts_with(b"HTTP/1.1 2") || answer.starts_with(b"HTTP/1.1 5");
        assert!(!good, "{}", String::from_utf8_lossy(&answer));
        let mut stream = world.connect_tcp();
        let _cut = stream.write_all(bytes);
        let _cut = stream.shutdown(std::net::Shutdown::Write);
        let _cut = stream.read_to_end(&mut answer);
        assert_eq!(world.get("/v1/health").status, 200);
    }
    assert_eq!(world.service.read(|model| model.users().len()), 0);
}

#[test]
fn silent_connections_keep_nobody_out_and_a_caller_keeps_its_place() {
    let world = World::over_tls();
    let token = world.token("ci", "reader");
    let watch = |mut stream: Box<dyn Stream>, headers: &[&str]| {
        stream.write_all(head("GET", "/v1/watch", headers, b"").as_bytes()).unwrap();
        let mut watcher = BufReader::new(stream);
        assert_eq!(read_head(&mut watcher).0, 200);
        watcher
    };
    let certificate = world.scratch.0.join("one.crt");
    let bearer = format!("authorization: Bearer {token}");
    let over_tls = Box::new(world.connect_tls(&certificate, ALL_VERSIONS));
    let mut watchers = [watch(over_tls, &[&bearer]), watch(Box::new(world.connect()), &[])];
    // More than there are places, on each listener, and they stay.
    let silent: Vec<_> = (0..200).map(|_| world.connect_tcp()).collect();
    let silent_here: Vec<_> = (0..200).map(|_| world.connect()).collect();
    assert_eq!(world.send_tls(Some(&token), "GET", "/v1/health", &Value::Null).status, 200);
    assert_eq!(world.get("/v1/health").status, 200);
    // Nor do those that shake hands and then say nothing.
    let shaken: Vec<_> = (0..150)
        .map(|_| {
            let mut stream = world.connect_tls(&certificate, ALL_VERSIONS);
            stream.conn.complete_io(&mut stream.sock).unwrap();
            stream
        })
        .collect();
    assert_eq!(world.send_tls(Some(&token), "GET", "/v1/health", &Value::Null).status, 200);
    world.must("POST", "/v1/users", &json!({"name": "alice"}));
    for watcher in &mut watchers {
        let mut line = String::new();
        while !line.contains("alice") {
            line.clear();
            assert_ne!(watcher.read_line(&mut line).unwrap(), 0, "the watcher was shown out");
        }
    }
    drop((silent, silent_here, shaken));
}

/// A connection of either kind.
trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

#[test]
fn a_connection_carries_many_requests() {
    let world = World::new();
    let mut stream = world.connect();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for n in 0..50 {
        let path = if n % 3 == 0 { "/v1/nothing" } else { "/v1/health" };
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).unwrap();
        let (status, headers) = read_head(&mut reader);
        assert_eq!(status, if n % 3 == 0 { 404 } else { 200 });
        let length = headers.iter().find(|(name, _)| name == "content-length").unwrap();
        let mut body = vec![0; length.1.parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        let _json: Value = serde_json::from_slice(&body).unwrap();
    }
}

#[test]
fn whoever_sends_too_much_reads_why() {
    let world = World::over_tls();
    let token = world.token("ci", "admin");
    let bearer = format!("authorization: Bearer {token}");
    let body = vec![b' '; 20 << 20];
    for (path, token) in [("/v1/apply", &*bearer), ("/v1/users", &bearer), ("/v1/nothing", &bearer)]
    {
        let mut stream = world.connect_tls(&world.scratch.0.join("one.crt"), ALL_VERSIONS);
        let head = head("POST", path, &[token, "content-type: application/json"], &body);
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body).unwrap();
        let reply = read_reply(stream);
        let code = reply.code().unwrap();
        assert!(matches!((reply.status, &*code), (413, "too-large") | (404, "no-route")), "{code}");
    }
    // Who waits to be asked is not asked, and need not send.
    let mut waiting = world.connect();
    let head = "POST /v1/users HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3000000\r\n\r\n";
    waiting.write_all(head.as_bytes()).unwrap();
    let reply = read_reply(waiting);
    assert_eq!((reply.status, reply.header("connection")), (413, Some("close")));
    // The connection goes on where all was taken.
    let mut stream = world.connect();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for _ in 0..3 {
        let head = "POST /v1/users HTTP/1.1\r\nhost: x\r\ncontent-length: 3000000\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body[..3_000_000]).unwrap();
        let (status, headers) = read_head(&mut reader);
        assert_eq!(status, 413);
        assert!(!headers.iter().any(|(name, _)| name == "connection"));
        let length = headers.iter().find(|(name, _)| name == "content-length").unwrap();
        let mut body = vec![0; length.1.parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
    }
}
