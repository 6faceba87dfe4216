//! Daemons as they should not be.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::time::sleep;

use super::testing::{Daemon, Does, VERSION, answer, chunked, frame, json};
use super::*;

fn web() -> ContainerName {
    ContainerName::new("web").unwrap()
}

fn app() -> ImageName {
    ImageName::new("app:1").unwrap()
}

async fn says(bytes: impl Into<Vec<u8>>) -> Fault {
    let (_, docker) = Daemon::known_that([Does::Says(bytes.into(), usize::MAX)]);
    docker.inspect_container(&web()).await.unwrap_err()
}

const CONTAINER: &str =
    r#"{"Id":"abc","State":{"Status":"running","Running":true},"Config":{"Tty":false}}"#;

async fn logs_of(body: Does) -> (Daemon, Result<Vec<LogLine>, Fault>) {
    let (daemon, docker) = Daemon::known_that([json(CONTAINER), body]);
    let lines = async {
        let mut logs = docker.logs(&web(), LogPart::default()).await?;
        let mut lines = vec![];
        while let Some(line) = logs.next().await? {
            lines.push(line);
        }
        Ok(lines)
    };
    (daemon, lines.await)
}

#[tokio::test]
async fn the_newest_version_of_both_stands_in_every_path() {
    let (daemon, docker) = Daemon::known_that([json("[]"), json("[]")]);
    docker.containers("keyway.vm=1&x").await.unwrap();
    docker.networks().await.unwrap();
    let filters = "%7B%22label%22%3A%5B%22keyway.vm%3D1%26x%22%5D%7D";
    let list = format!("GET /v1.41/containers/json?all=1&filters={filters} HTTP/1.1");
    assert_eq!(daemon.heads(), ["GET /version HTTP/1.1", &list, "GET /v1.41/networks HTTP/1.1"]);
}

#[tokio::test]
async fn a_daemon_too_old_or_too_new_is_told_by_its_version() {
    let of =
        |oldest: &str, newest: &str| json(&VERSION.replace("1.12", oldest).replace("1.41", newest));
    let (_, docker) = Daemon::that([of("1.12", "1.39"), of("1.48", "1.60"), of("1", "1.x")]);
    let too_old = docker.info().await.unwrap_err();
    assert!(too_old.to_string().contains("API 1.39 is too old, 1.40 is"), "{too_old}");
    let too_new = docker.info().await.unwrap_err();
    assert!(
        too_new.to_string().contains("no API below 1.48, this keyway speaks 1.47"),
        "{too_new}"
    );
    assert_eq!([too_old.label(), too_new.label()], ["api_too_old", "api_too_new"]);
    assert_eq!(docker.info().await.unwrap_err().label(), "not_docker");
}

#[tokio::test]
async fn a_daemon_that_was_away_is_asked_for_its_version_again() {
    let cut = Does::Says(b"HTTP/1.1 2".to_vec(), usize::MAX);
    let newer = json(&VERSION.replace("1.41", "1.45"));
    let (daemon, docker) = Daemon::known_that([cut, newer, json("[]")]);
    assert_eq!(docker.networks().await.unwrap_err().label(), "closed");
    docker.networks().await.unwrap();
    assert_eq!(daemon.heads().last().unwrap(), "GET /v1.45/networks HTTP/1.1");
}

#[tokio::test]
async fn a_dial_that_fails_says_why_and_commands_no_terminal() {
    let (_, docker) = Daemon::that([]);
    let fault = docker.ping().await.unwrap_err();
    assert_eq!(fault, Fault::Unreachable("nobody\\u{1b}[2J listens".to_owned()));
}

#[tokio::test]
async fn no_name_of_a_daemon_leads_elsewhere() {
    let (_, docker) = Daemon::known_that([json(r#"[{"Id":"../images/json?x="}]"#)]);
    assert_eq!(docker.containers("x").await.unwrap_err().label(), "not_docker");
}

#[tokio::test]
async fn the_daemons_words_are_told_with_their_kind_and_cleaned() {
    let body = br#"{"message":"no such\u001b[2J container: web"}"#;
    let fault = says(answer("404 Not Found", "", body)).await;
    assert_eq!(fault.refusal(), Some(Refusal::NotFound));
    let text =
        "the Docker daemon refuses: no such\\u{1b}[2J container: web (status 404) [not_found]";
    assert_eq!(fault.to_string(), text);
    // Words that never come are not waited for, and those that are no JSON are told.
    let fault = says(answer("500 Oops", "", b"<h1>\x07")).await;
    assert_eq!(fault.to_string(), "the Docker daemon refuses: <h1>\\u{7} (status 500) [server]");
    let fault = says("HTTP/1.1 503 X\r\nContent-Length: 99\r\n\r\n{").await;
    assert_eq!(fault.refusal(), Some(Refusal::Busy));
    let long = vec![b'x'; 1 << 20];
    assert_eq!(says(answer("400 Bad", "", &long)).await.refusal(), Some(Refusal::Invalid));
}

#[tokio::test]
async fn what_is_so_already_is_no_fault_and_what_is_in_use_no_conflict() {
    let status = |status: &str| Does::Says(answer(status, "", b""), usize::MAX);
    let not_modified = Does::Says(b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec(), usize::MAX);
    let (_, docker) = Daemon::known_that([not_modified, status("409 X"), status("409 X")]);
    assert_eq!(docker.start_container(&web()).await, Ok(Change::WasSo));
    let fault = docker.kill_container(&web(), "HUP").await.unwrap_err();
    assert_eq!(fault.refusal(), Some(Refusal::Conflict));
    let fault = docker.remove_container(&web(), false, false).await.unwrap_err();
    assert_eq!(fault.refusal(), Some(Refusal::InUse));
}

#[tokio::test]
async fn what_is_no_answer_of_dockers_is_told_as_such() {
    for wrong in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    ] {
        let fault = says(wrong).await;
        assert_eq!(fault.label(), "not_docker", "{wrong:?}: {fault}");
    }
    let failed = says(answer("200 OK", "", br#"{"errorDetail":{"message":"gone"}}"#)).await;
    assert_eq!(failed, Fault::Failed("gone".to_owned()));
}

#[tokio::test]
async fn an_answer_that_ends_early_is_none() {
    for cut in [
        "",
        "HTTP/1.1 200 OK\r\nConte",
        "HTTP/1.1 200 OK\r\nContent-Length: 999999999999999\r\n\r\n{\"Id\":",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n{}",
    ] {
        let fault = says(cut).await;
        assert_eq!(fault.label(), "closed", "{cut:?}: {fault}");
    }
}

#[tokio::test]
async fn nothing_without_end_is_taken() {
    let head = Does::Goes(b"HTTP/1.1 200 OK\r\n".to_vec(), b"X: y\r\n".repeat(99), Duration::ZERO);
    let long = Does::Goes(b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'y'; 999], Duration::ZERO);
    let body = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n[";
    let body = Does::Goes(body.to_vec(), vec![b' '; 1 << 20], Duration::ZERO);
    let many = format!("[{}]", vec![r#"{"Id":"a"}"#; 10_001].join(","));
    let (_, docker) = Daemon::known_that([head, long, body, json(&many)]);
    for label in ["too_large", "too_large", "too_large", "not_docker"] {
        assert_eq!(docker.containers("x").await.unwrap_err().label(), label);
    }
}

#[tokio::test(start_paused = true)]
async fn every_wait_has_its_end() {
    let stage = |fault: Fault| {
        let Fault::Silent { stage, .. } = fault else { panic!("{fault}") };
        stage
    };
    let docker = Docker::new(std::future::pending::<io::Result<DuplexStream>>);
    assert_eq!(stage(docker.ping().await.unwrap_err()), Stage::Connect);
    let second = Duration::from_secs(1);
    let endless = b"HTTP/1.1 100 Continue\r\n\r\n".to_vec();
    let body =
        |text: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{text}").into_bytes();
    let (daemon, docker) = Daemon::known_that([
        Does::Hangs(vec![]),
        Does::Hangs(b"HTTP/1.1 200".to_vec()),
        Does::Goes(endless.clone(), endless, second),
        Does::Goes(b"HTTP/1.1 200 OK\r\nX: ".to_vec(), b"y".to_vec(), second),
        Does::Hangs(body("[")),
        Does::Goes(body("["), b" ".to_vec(), 20 * second),
        Does::Hangs(vec![]),
    ]);
    for expected in [Stage::Answer; 4].into_iter().chain([Stage::Body; 2]) {
        assert_eq!(stage(docker.networks().await.unwrap_err()), expected);
    }
    let stop = docker.stop_container(&web(), 1000 * second).await.unwrap_err();
    assert_eq!(stop, Fault::Silent { stage: Stage::Answer, limit: 1060 * second });
    daemon.all_left(8).await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_whose_words_do_not_come_stands() {
    let head = b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n".to_vec();
    let (_, docker) = Daemon::known_that([Does::Hangs(head)]);
    let fault = docker.inspect_container(&web()).await.unwrap_err();
    assert_eq!(fault.refusal(), Some(Refusal::NotFound));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_followed_may_be_silent_and_leaves_nothing_behind() {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let (daemon, docker) = Daemon::known_that([json(CONTAINER), Does::Hangs(head)]);
    let part = LogPart { follow: true, tail: Some(5), ..LogPart::default() };
    let mut logs = docker.logs(&web(), part).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_hours(9), logs.next()).await;
    assert!(waited.is_err(), "{waited:?}");
    assert_eq!(*daemon.left.lock().unwrap(), 2);
    drop(logs);
    daemon.all_left(3).await;
    assert!(
        daemon.heads()[2].contains("/v1.41/containers/abc/logs?stdout=1&stderr=1&follow=1&tail=5 ")
    );
}

#[tokio::test]
async fn a_frame_of_4_gib_is_a_number() {
    let mut begun = vec![1, 0, 0, 0, 255, 255, 255, 255, b'x', b'\n'];
    let small = Does::Says(chunked(&begun), usize::MAX);
    let (_, lines) = logs_of(small).await;
    let cut = Fault::Closed("in the middle of a frame of output".to_owned());
    assert_eq!(lines.unwrap_err(), cut);
    // A line without end is read through, and no more of it is kept than of any.
    begun.resize(32 << 20, b'y');
    let body = answer("200 OK", "", &begun);
    let (_, docker) = Daemon::known_that([json(CONTAINER), Does::Says(body, usize::MAX)]);
    let mut logs = docker.logs(&web(), LogPart::default()).await.unwrap();
    let line = logs.next().await.unwrap().unwrap();
    assert_eq!((line.shown(), line.bytes.capacity() < 99), ("x".to_owned(), true));
    assert_eq!(logs.next().await, Err(cut));
}

#[tokio::test]
async fn a_long_line_is_cut_and_marked_and_controls_are_shown() {
    let long = vec![b'z'; 3 << 20];
    let body = [
        frame(1, b"a\x1b[2J"),
        frame(2, &long),
        frame(1, b"b\nlast"),
        frame(2, b"\nnext\n"),
        frame(1, b""),
    ];
    let (_, lines) = logs_of(Does::Says(answer("200 OK", "", &body.concat()), usize::MAX)).await;
    let lines = lines.unwrap();
    let shown: Vec<_> = lines.iter().map(LogLine::shown).collect();
    assert_eq!(shown[0], "a\\u{1b}[2Jb");
    assert_eq!(shown[1], "z".repeat(64 << 10) + " [cut at 64 KiB]");
    assert_eq!(
        (&shown[2..], lines[1].origin),
        (&["next".into(), "last".into()][..], Origin::Stderr)
    );
}

#[tokio::test]
async fn output_that_is_in_no_frames_is_told_as_such() {
    let (_, lines) = logs_of(Does::Says(answer("200 OK", "", b"plain text"), usize::MAX)).await;
    assert_eq!(lines.unwrap_err().label(), "not_docker");
    let tty = CONTAINER.replace("false", "true");
    let raw = Does::Says(answer("200 OK", "", b"\x01\0\0\0\0\0\0\x01plain\n"), usize::MAX);
    let (_, docker) = Daemon::known_that([json(&tty), raw]);
    let mut logs = docker.logs(&web(), LogPart::default()).await.unwrap();
    assert_eq!(logs.next().await.unwrap().unwrap().bytes, b"\x01\0\0\0\0\0\0\x01plain");
}

#[tokio::test]
async fn a_command_has_a_stream_in_both_directions_with_half_close() {
    let (daemon, docker) = Daemon::known_that([json(r#"{"Id":"e1"}"#), Does::Echoes]);
    let spec = ExecSpec { attach_stdin: true, ..ExecSpec::new(["cat"]) };
    let Exec { id, mut input, mut output } = docker.exec(&web(), &spec).await.unwrap();
    input.write_all(b"hello").await.unwrap();
    input.shutdown().await.unwrap();
    let mut all = vec![];
    while let Some(Chunk { origin, bytes }) = output.next().await.unwrap() {
        all.push((origin, String::from_utf8(bytes.to_vec()).unwrap()));
    }
    let chunk = |origin, text: &str| (origin, text.to_owned());
    let expected = [
        chunk(Origin::Stdout, "ready\n"),
        chunk(Origin::Stderr, "hello"),
        chunk(Origin::Stdout, "bye"),
    ];
    assert_eq!((all, id.as_str()), (expected.to_vec(), "e1"));
    assert_eq!(daemon.heads()[2], "POST /v1.41/exec/e1/start HTTP/1.1");
    drop((input, output));
    daemon.all_left(3).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_refused_is_told_apart_from_one_that_does_not_come() {
    let made = || json(r#"{"Id":"e1"}"#);
    let refused = Does::Says(answer("409 X", "", br#"{"message":"not running"}"#), usize::MAX);
    let plain = Does::Says(answer("200 OK", "", b""), usize::MAX);
    let does = [made(), plain, made(), refused, made(), Does::Hangs(vec![])];
    let (_, docker) = Daemon::known_that(does);
    let spec = ExecSpec::new(["true"]);
    let fault = async || docker.exec(&web(), &spec).await.err().unwrap();
    assert_eq!(fault().await, Fault::NotUpgraded(200));
    assert_eq!(fault().await.refusal(), Some(Refusal::Conflict));
    let limit = Duration::from_mins(1);
    assert_eq!(fault().await, Fault::Silent { stage: Stage::Upgrade, limit });
}

async fn load(
    docker: &Docker,
    archive: impl AsyncRead + Send + Unpin + 'static,
) -> Result<(), Fault> {
    let mut told = docker.load(archive).await?;
    while told.next().await?.is_some() {}
    Ok(())
}

#[tokio::test]
async fn an_upload_is_whole_and_its_source_is_blamed_for_its_own_faults() {
    let (daemon, docker) = Daemon::known_that([Does::Reads, Does::Reads, Does::Reads]);
    load(&docker, &b"an archive"[..]).await.unwrap();
    assert!(daemon.heard.lock().unwrap()[2].contains("an archive"));
    let broken = tokio_test_source(Err(io::Error::other("disk\x07")));
    assert_eq!(load(&docker, broken).await.unwrap_err(), Fault::Source("disk\\u{7}".to_owned()));
}

/// A source that gives a few bytes, and then this, or nothing for ever.
fn tokio_test_source(then: io::Result<()>) -> impl AsyncRead + Send + Unpin {
    struct Source(Option<io::Result<()>>, bool);
    impl AsyncRead for Source {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if !std::mem::replace(&mut self.1, true) {
                buffer.put_slice(b"begun");
                return Poll::Ready(Ok(()));
            }
            match self.0.take() {
                Some(Err(error)) => Poll::Ready(Err(error)),
                _ => Poll::Pending,
            }
        }
    }
    Source(Some(then), false)
}

#[tokio::test(start_paused = true)]
async fn a_source_that_stalls_is_not_the_daemons_silence() {
    let (_, docker) = Daemon::known_that([Does::Reads, Does::Hangs(vec![])]);
    let limit = Duration::from_mins(10);
    let fault = load(&docker, tokio_test_source(Ok(()))).await.unwrap_err();
    assert_eq!(fault, Fault::Silent { stage: Stage::Source, limit });
    let fault = load(&docker, &b"all of it"[..]).await.unwrap_err();
    assert_eq!(fault, Fault::Silent { stage: Stage::Answer, limit });
}

/// A source without end, and how much of it was read.
struct Endless(Arc<Mutex<usize>>);

impl AsyncRead for Endless {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        *self.0.lock().unwrap() += buffer.remaining();
        buffer.put_slice(&vec![7; buffer.remaining()]);
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_waits_for_the_daemon_and_hears_its_refusal() {
    let full = answer("500 Oops", "", br#"{"message":"no space left on device"}"#);
    let (_, docker) = Daemon::known_that([Does::ReadsNot(full)]);
    let read = Arc::new(Mutex::new(0));
    let fault = load(&docker, Endless(Arc::clone(&read))).await.unwrap_err();
    assert_eq!(fault.refusal(), Some(Refusal::Server), "{fault}");
    assert!(fault.to_string().contains("no space left"), "{fault}");
    // The stream's 64 KiB, as much in the connection, and what was just read.
    let read = *read.lock().unwrap();
    assert!(read <= 256 << 10, "{read} bytes were read");
}

/// A stream that takes nothing after the first bytes, and is read as another one.
struct Torn(DuplexStream, bool);

impl AsyncRead for Torn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Torn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if std::mem::replace(&mut self.1, true) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_daemon_says_counts_more_than_that_it_takes_no_more() {
    let said = Arc::new(Mutex::new(vec![b"".to_vec(), answer("500 Oops", "", b"full")]));
    let docker = Docker::new(move || {
        let said = said.lock().unwrap().pop();
        async move {
            let (ours, mut theirs) = duplex(64 << 10);
            tokio::spawn(async move {
                // Later than the write fails.
                sleep(Duration::from_secs(5)).await;
                let _ = theirs.write_all(&said.unwrap_or_default()).await;
            });
            Ok::<_, io::Error>(Torn(ours, false))
        }
    });
    *docker.agreed.lock().unwrap() = Some(ApiVersion::OLDEST);
    let source = || Endless(Arc::default());
    assert_eq!(load(&docker, source()).await.unwrap_err().refusal(), Some(Refusal::Server));
    // Where it says nothing, why it takes no more is what there is to say.
    *docker.agreed.lock().unwrap() = Some(ApiVersion::OLDEST);
    assert_eq!(load(&docker, source()).await.unwrap_err(), Fault::Closed("broken pipe".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_transfer_that_moves_has_no_limit() {
    // One byte a minute, for three hours.
    let (mut ours, theirs) = duplex(1);
    tokio::spawn(async move {
        for _ in 0..180 {
            sleep(Duration::from_mins(1)).await;
            ours.write_all(b"x").await.unwrap();
        }
    });
    let (_, docker) = Daemon::known_that([Does::Reads]);
    load(&docker, theirs).await.unwrap();
}

#[tokio::test]
async fn an_archive_goes_from_one_daemon_to_another() {
    let (_, from) = Daemon::known_that([Does::Says(chunked(b"an image"), 3)]);
    let (to_daemon, to) = Daemon::known_that([Does::Reads]);
    load(&to, from.save(&[app()]).await.unwrap()).await.unwrap();
    let heard = to_daemon.heard.lock().unwrap()[2].replace("\r\n", "");
    assert!(heard.contains("an imag"), "{heard}");
    // A fault of the one that is read is told by the one that is written, with its words.
    let (_, from) = Daemon::known_that([Does::Says(chunked(b"an image")[..60].to_vec(), 3)]);
    let (_, to) = Daemon::known_that([Does::Reads]);
    let fault = load(&to, from.save(&[app()]).await.unwrap()).await.unwrap_err();
    assert!(
        matches!(&fault, Fault::Source(why) if why.contains("closed the connection")),
        "{fault}"
    );
}

#[tokio::test]
async fn an_error_inside_an_answer_of_200_is_one() {
    let lines = b"{\"status\":\"Loading\"}\n{\"errorDetail\":{\"message\":\"disk full\"},\"error\":\"x\"}\n";
    let (_, docker) = Daemon::known_that([Does::Says(chunked(lines), 5)]);
    let mut told = docker.pull(&app(), None).await.unwrap();
    assert_eq!(told.next().await.unwrap().unwrap().lines, ["Loading"]);
    assert_eq!(told.next().await, Err(Fault::Failed("disk full".to_owned())));
}

#[tokio::test]
async fn credentials_go_into_the_request_and_nowhere_else() {
    let (daemon, docker) = Daemon::known_that([Does::Says(chunked(b""), 9)]);
    let auth = RegistryAuth::new("reg.example", "u", "geheim");
    assert_eq!(format!("{auth:?}"), "RegistryAuth(..)");
    docker.pull(&app(), Some(&auth)).await.unwrap();
    let heard = daemon.heard.lock().unwrap()[1].clone();
    let header = heard.lines().find_map(|line| line.strip_prefix("x-registry-auth: ")).unwrap();
    assert!(header.starts_with("eyJwYXNzd29yZCI6"), "{header}");
    assert!(heard.starts_with("POST /v1.41/images/create?fromImage=app&tag=1 "), "{heard}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Wherever an answer is cut, it says the same.
    #[test]
    fn where_an_answer_is_cut_does_not_matter(each in 1..200_usize, seed in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let word = format!("{seed:x}");
            let body = [
                frame(1, b"one\ntw"),
                frame(2, word.as_bytes()),
                frame(1, b"o\n"),
                frame(2, b"\n"),
            ];
            let (_, lines) = logs_of(Does::Says(chunked(&body.concat()), each)).await;
            let lines: Vec<_> = lines.unwrap().iter().map(LogLine::shown).collect();
            assert_eq!(lines, ["one", "two", &word]);
            let (_, docker) = Daemon::that([
                Does::Says(answer("200 OK", "", VERSION.as_bytes()), each),
                Does::Says(chunked(CONTAINER.as_bytes()), each),
                Does::Says(chunked(b"{\"status\":\"a\"}\r\n\n{\"status\":\"b\"}"), each),
                Does::Says(answer("404 X", "", br#"{"message":"none"}"#), each),
            ]);
            assert!(docker.inspect_container(&web()).await.unwrap().state.running);
            let mut told = docker.pull(&app(), None).await.unwrap();
            let mut words = vec![];
            while let Some(progress) = told.next().await.unwrap() {
                words.extend(progress.lines);
            }
            assert_eq!(words, ["a", "b"]);
            let fault = docker.inspect_container(&web()).await.unwrap_err();
            assert_eq!(fault.refusal(), Some(Refusal::NotFound));
        });
    }
}
