//! The other end of the feed: a thread that follows one control plane over TLS, for as long as it
//! takes, and asks it to pin host keys; and a join, which waits for its answer.

#![expect(clippy::disallowed_methods, reason = "how long a connection lasted is measured")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;
use std::{fmt, io};

use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;

use super::join::{JoinAnswer, JoinQuestion, believed};
use super::{
    ALPN, HEARTBEAT, JOIN_PATH, Known, PATH, PINS_PATH, PinAnswer, PinQuestion, REPORT_PATH,
    Report, proof, version,
};
use crate::control::server_thread::{ServerThread, Stopped};
use crate::plain_text::masked;
use crate::route::FrontDoor;
use crate::route::saved_routes::{self, Head, Message};
use crate::ssh::entropy::{Entropy, SystemEntropy};
use crate::ssh::private_key::PrivateKey;
use crate::trust::{self, Server};
use crate::unix_time::unix_s;

/// Whoever does not take a connection, or a request, by then will not.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Five heartbeats: nobody is there any more.
const SILENCE_MAX: Duration = HEARTBEAT.saturating_mul(5);
/// Waits between two tries, each a part more or less by chance: nobody comes with all others.
const WAIT_MIN: Duration = Duration::from_millis(250);
const WAIT_MAX: Duration = Duration::from_secs(15);
/// Longest frame, in bytes: as in the journal.
const FRAME_BYTES_MAX: usize = 256 << 20;
/// Characters of a reason that are told, and of its code.
const DETAIL_CHARS_MAX: usize = 500;
const CODE_CHARS_MAX: usize = 40;
/// Bytes of an answer that is no feed.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// The same of an answer that says whom to believe, with all that is revoked.
const JOIN_BYTES_MAX: usize = 64 << 20;
/// Questions about host keys that wait: a login waits for each.
const QUESTIONS_MAX: usize = 64;
/// For the answer to one.
const ANSWER_COMES: Duration = Duration::from_secs(5);

/// Whoever follows: told of everything on the feed's thread, in order.
pub trait Follows: Send {
    /// How far it has come.
    fn known(&self) -> Option<Head>;

    /// [`super::digest`] of all that it has. Without one, it begins anew where control was started
    /// since and nothing has changed.
    fn digest(&self) -> Option<[u8; 32]> {
        None
    }

    /// Whether it works as it should.
    fn is_well(&self) -> bool {
        true
    }

    /// Takes what comes next.
    ///
    /// # Errors
    /// Why it does not, in words: the connection ends.
    fn take(&mut self, message: Message) -> Result<(), String>;
}

/// How it is with the feed, for metrics.
#[derive(Debug, Default)]
pub struct Followed {
    connected: AtomicBool,
    /// Unix time in seconds.
    heard_s: AtomicU64,
    revision: AtomicU64,
}

impl Followed {
    /// Whether there is a connection on which the feed comes.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Seconds since all that was known was known to be so; nothing if it never was.
    pub fn age_s(&self) -> Option<u64> {
        let heard_s = self.heard_s.load(Ordering::Relaxed);
        (heard_s > 0).then(|| unix_s().saturating_sub(heard_s))
    }

    /// The registry's revision that is known.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    /// What was known was saved then.
    pub fn begins(&self, head: Head, saved_s: u64) {
        self.revision.store(head.revision, Ordering::Relaxed);
        self.heard_s.store(saved_s, Ordering::Relaxed);
    }
}

/// The feed, followed until this is dropped.
#[derive(Debug)]
pub struct Handle {
    _thread: ServerThread,
}

/// Asks the control plane to pin host keys.
#[derive(Debug)]
pub struct Pins(Sender<Question>);

/// Questions on their way, for [`start`].
#[derive(Debug)]
pub struct Asked(Receiver<Question>);

type Question = (PinQuestion, SyncSender<PinAnswer>);

/// A way for questions from threads that wait for the answer.
#[must_use]
pub fn pins() -> (Pins, Asked) {
    let (sender, receiver) = channel(QUESTIONS_MAX);
    (Pins(sender), Asked(receiver))
}

impl Pins {
    /// Has `key`, a public key line, pinned to the VM with this id, which was dialled as `owner`'s
    /// and at `endpoint`. Waits for some seconds at most.
    pub fn pin(&self, vm: &str, (owner, endpoint): (&str, &str), key: String) -> PinAnswer {
        let failed = |why: &str| PinAnswer::Failed(why.to_owned());
        let (vm, owner, endpoint) = (vm.to_owned(), owner.to_owned(), endpoint.to_owned());
        let (answer, answered) = sync_channel(1);
        if self.0.try_send((PinQuestion { vm, owner, endpoint, key }, answer)).is_err() {
            return failed("too many keys wait to be pinned");
        }
        answered.recv_timeout(ANSWER_COMES).unwrap_or_else(|_| failed("no answer from control"))
    }
}

/// What is needed to reach a control plane.
#[derive(Clone)]
struct Place {
    server: Server,
    tls: Arc<ClientConfig>,
    identity: Arc<PrivateKey>,
}

/// Follows the control plane at `url`, which `ca` speaks for, as the holder of `identity`.
///
/// # Errors
/// `ca` cannot be read, or there is no thread to be had.
pub fn start(
    (url, ca): (&str, Option<&Path>),
    identity: Arc<PrivateKey>,
    follows: Box<dyn Follows>,
    followed: Arc<Followed>,
    asked: Asked,
) -> io::Result<Handle> {
    let following = following((url, ca), identity, follows, followed, asked)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = move |stopped: Stopped| {
        runtime.block_on(async {
            tokio::select! {
                () = following => {}
                _ = stopped => {}
            }
        });
        runtime.shutdown_background();
    };
    Ok(Handle { _thread: ServerThread::start("feed", serve)? })
}

/// The same as something that does not end, for whoever has an event loop.
///
/// # Errors
/// `ca` cannot be read.
pub fn following(
    (url, ca): (&str, Option<&Path>),
    identity: Arc<PrivateKey>,
    follows: Box<dyn Follows>,
    followed: Arc<Followed>,
    asked: Asked,
) -> io::Result<impl Future<Output = ()> + Send + use<>> {
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    let place = Place::of((url, ca), identity).map_err(wrong)?;
    Ok(async move {
        tokio::select! {
            () = follow(&place, follows, &followed) => {}
            () = answer_all(&place, asked) => {}
        }
    })
}

/// What an agent joins, and whom it is to believe.
#[derive(Debug)]
pub struct Met {
    /// The token's node.
    pub node: String,
    /// Where edges look for its agent.
    pub agent: SocketAddr,
    /// Whether sessions are handed to it.
    pub trusted: bool,
    /// Of which moment the rest is.
    pub head: Head,
    /// Whom to believe.
    pub front_door: FrontDoor,
}

/// Why an agent has not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinFault {
    /// Something is wrong on this side.
    #[error("{0}")]
    Here(String),
    /// Nobody is there who could be believed.
    #[error("{0}")]
    Unreachable(String),
    /// Control says no; nothing has changed.
    #[error("{detail} [{code}]")]
    Refused {
        /// A word for programs.
        code: String,
        /// What and why, and what to do about it.
        detail: String,
    },
}

/// Asks control what the holder of `identity` would join with `token`; where it `believes` what it
/// was told then, it joins.
///
/// # Errors
/// [`JoinFault`].
pub fn join(
    at: (&str, Option<&Path>),
    identity: Arc<PrivateKey>,
    token: &str,
    believes: Option<&FrontDoor>,
) -> Result<Met, JoinFault> {
    let place = Place::of(at, identity).map_err(JoinFault::Here)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| JoinFault::Here(error.to_string()))?;
    let question = JoinQuestion { token: token.to_owned(), believes: believes.map(believed) };
    runtime.block_on(place.join(&question))
}

/// Follows for ever.
async fn follow(place: &Place, mut follows: Box<dyn Follows>, followed: &Followed) {
    let (mut wait, mut told) = (WAIT_MIN, String::new());
    loop {
        let begun = Instant::now();
        let Err(why) = follow_once(place, &mut *follows, followed, &mut told).await;
        followed.connected.store(false, Ordering::Relaxed);
        // Once each, however long it lasts.
        if why != told {
            let at = &place.server.authority;
            tracing::warn!("the feed of {at} is not followed, what is known stays: {why}");
            told = why;
        }
        wait = if begun.elapsed() > SILENCE_MAX { WAIT_MIN } else { (wait * 2).min(WAIT_MAX) };
        sleep(by_chance(wait)).await;
    }
}

/// Between a half of it and one and a half.
fn by_chance(wait: Duration) -> Duration {
    let mut random = [0; 1];
    SystemEntropy::default().fill(&mut random);
    wait / 2 + wait * u32::from(random[0]) / 255
}

/// Never says what ended it but by an error.
async fn follow_once(
    place: &Place,
    follows: &mut dyn Follows,
    followed: &Followed,
    told: &mut String,
) -> Result<std::convert::Infallible, String> {
    let speaks = version::write(&version::SPOKEN);
    let path = match follows.known() {
        Some(head) => {
            let known = Known { head, digest: follows.digest() };
            format!("{PATH}?speaks={speaks}&{}", known.write())
        }
        None => format!("{PATH}?speaks={speaks}"),
    };
    let request = Request::get(path).body(Full::default());
    let response = place.ask(request.map_err(|error| error.to_string())?).await?;
    if response.status() != StatusCode::OK {
        return Err(refused(response).await.to_string());
    }
    let mut body = response.into_body();
    let mut frames = Frames::default();
    loop {
        let next = timeout(SILENCE_MAX, body.frame()).await;
        let next = next.map_err(|_| format!("nothing came for {} s", SILENCE_MAX.as_secs()))?;
        let next = next.ok_or("control has ended it")?.map_err(|error| error.to_string())?;
        let Ok(data) = next.into_data() else { continue };
        frames.take(&data)?;
        while let Some(frame) = frames.next()? {
            let message = saved_routes::decode_any(&frame).map_err(|fault| fault.to_string())?;
            if let Message::Asked(at) = message {
                // It has all that came before.
                let (digest, well) = (follows.digest(), follows.is_well());
                let report = Report { revision: at.revision, digest, well };
                let place = place.clone();
                tokio::spawn(async move { place.report(report).await });
                continue;
            }
            follows.take(message)?;
            let head = follows.known();
            followed.begins(head.unwrap_or_default(), unix_s());
            if !followed.connected.swap(true, Ordering::Relaxed) {
                told.clear();
                let revision = head.map(|head| head.revision);
                tracing::info!(revision, "following the feed of {}", place.server.authority);
            }
        }
    }
}

/// Why control does not do it, in its own words as far as these can be shown.
struct Refused {
    status: StatusCode,
    code: Option<String>,
    detail: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it answers {}: {}", self.status, self.detail)
    }
}

async fn refused(response: Response<Incoming>) -> Refused {
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
    let body = timeout(CONNECT_MAX, body).await.ok().and_then(Result::ok);
    let bytes = body.map(Collected::to_bytes).unwrap_or_default();
    let problem: Option<serde_json::Value> = serde_json::from_slice(&bytes).ok();
    let text = |key| problem.as_ref().and_then(|it| it.get(key)?.as_str());
    let detail = masked(text("detail").unwrap_or("no keyway's answer"), DETAIL_CHARS_MAX);
    Refused { status, code: text("code").map(|code| masked(code, CODE_CHARS_MAX)), detail }
}

/// Puts frames together from what comes.
#[derive(Default)]
struct Frames {
    bytes: Vec<u8>,
    /// Where the first frame that was not given begins.
    at: usize,
}

impl Frames {
    fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(bytes);
        self.length().map(drop)
    }

    /// Of the next frame, once that is known.
    fn length(&self) -> Result<Option<usize>, String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some((length, _)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            return Err(format!("a frame of {length} bytes"));
        }
        Ok(Some(length))
    }

    /// The next frame that is there as a whole.
    fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        let Some(length) = self.length()? else { return Ok(None) };
        let (begin, end) = (self.at + 4, self.at + 4 + length);
        let frame = self.bytes.get(begin..end).map(<[u8]>::to_vec);
        if frame.is_some() {
            self.at = end;
        }
        Ok(frame)
    }
}

/// Answers questions, several at a time: each login waits for its own alone.
async fn answer_all(place: &Place, Asked(mut asked): Asked) {
    while let Some((question, answer)) = asked.recv().await {
        let place = place.clone();
        tokio::spawn(async move {
            let answered = timeout(ANSWER_COMES, place.pin(&question)).await;
            let answered = answered.unwrap_or_else(|_| Err("no answer in time".to_owned()));
            // Whoever asked may have gone.
            let _gone = answer.send(answered.unwrap_or_else(PinAnswer::Failed));
        });
    }
    std::future::pending::<()>().await;
}

impl Place {
    /// # Errors
    /// Why nobody could be trusted there, in words.
    fn of((url, ca): (&str, Option<&Path>), identity: Arc<PrivateKey>) -> Result<Self, String> {
        let server = trust::server(url).ok_or_else(|| format!("{url} is no https://HOST"))?;
        let mut tls = trust::client_config(ca)?;
        // An older control knows the second one alone.
        tls.alpn_protocols = vec![ALPN.to_vec(), b"http/1.1".to_vec()];
        Ok(Self { server, tls: Arc::new(tls), identity })
    }

    async fn join(&self, question: &JoinQuestion) -> Result<Met, JoinFault> {
        let shown = &self.server.authority;
        let unreachable = |why| JoinFault::Unreachable(format!("control at {shown}: {why}"));
        let response = self.post(JOIN_PATH, question).await.map_err(unreachable)?;
        if response.status() != StatusCode::OK {
            let refused = refused(response).await;
            return Err(match refused.code {
                Some(code) => JoinFault::Refused { code, detail: refused.detail },
                None => unreachable(refused.to_string()),
            });
        }
        let body = Limited::new(response.into_body(), JOIN_BYTES_MAX).collect();
        let body = timeout(CONNECT_MAX, body).await.ok().and_then(Result::ok);
        let bytes = body.map(Collected::to_bytes).unwrap_or_default();
        let answer: Option<JoinAnswer> = serde_json::from_slice(&bytes).ok();
        let met = answer.and_then(|answer| {
            let (head, front_door) = answer.read()?;
            let JoinAnswer { node, agent, trusted, .. } = answer;
            Some(Met { node, agent, trusted, head, front_door })
        });
        met.ok_or_else(|| unreachable("no answer of keyway's".to_owned()))
    }

    async fn pin(&self, question: &PinQuestion) -> Result<PinAnswer, String> {
        let response = self.post(PINS_PATH, question).await?;
        if response.status() != StatusCode::OK {
            return Err(refused(response).await.to_string());
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        serde_json::from_slice(&body).map_err(|_| "control gave no answer of keyway's".to_owned())
    }

    /// Whoever asked asks again.
    async fn report(&self, report: Report) {
        match timeout(ANSWER_COMES, self.post(REPORT_PATH, &report)).await {
            Ok(Ok(response)) if response.status() == StatusCode::OK => {}
            Ok(Ok(response)) => tracing::debug!("a report: {}", refused(response).await),
            Ok(Err(why)) => tracing::debug!("a report: {why}"),
            Err(_) => tracing::debug!("a report: no answer in time"),
        }
    }

    async fn post(
        &self,
        path: &str,
        question: &impl Serialize,
    ) -> Result<Response<Incoming>, String> {
        let body = serde_json::to_vec(question).map_err(|error| error.to_string())?;
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body));
        self.ask(request.map_err(|error| error.to_string())?).await
    }

    /// Sends one request over a connection of its own, with the proof that is good there alone.
    async fn ask(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String> {
        let connected = timeout(CONNECT_MAX, self.connect()).await;
        let (mut sender, proof) = connected.map_err(|_| "it cannot be reached in time")??;
        let host = HeaderValue::try_from(&self.server.authority);
        let host = host.map_err(|error| error.to_string())?;
        let headers = request.headers_mut();
        headers.insert(header::HOST, host);
        headers.insert(header::AUTHORIZATION, proof);
        let answer = timeout(CONNECT_MAX, sender.send_request(request)).await;
        answer.map_err(|_| "no answer in time")?.map_err(|error| error.to_string())
    }

    async fn connect(&self) -> Result<(SendRequest<Full<Bytes>>, HeaderValue), String> {
        let host = self.server.name.to_str().into_owned();
        let stream = TcpStream::connect((host.as_str(), self.server.port)).await;
        let stream = stream.map_err(|error| format!("it cannot be reached: {error}"))?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(self.server.name.clone(), stream).await;
        let stream = stream.map_err(|error| {
            let error = trust::fault(&error);
            let fix = "if its certificate is your own, or of a CA of your own, `ca` names that; if it is said to have \
                       expired or not to be valid yet, look at this host's clock";
            format!("no TLS: {error}; {fix}")
        })?;
        let exporter = proof::exporter(stream.get_ref().1).ok_or("it does not speak TLS 1.3")?;
        let proof = proof::authorization(&self.identity, &exporter);
        let proof = proof.ok_or("the agent's identity does not sign")?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        // What goes wrong with it is told to whoever waits for the answer.
        tokio::spawn(connection);
        Ok((sender, proof))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_put_together_wherever_they_are_cut() {
        let sent: Vec<&[u8]> = vec![b"one", b"", b"three"];
        let on_the_wire = |frame: &&[u8]| {
            let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
            [&length[..], frame].concat()
        };
        let bytes: Vec<u8> = sent.iter().flat_map(on_the_wire).collect();
        for cut in 0..=bytes.len() {
            for other in cut..=bytes.len() {
                let (mut frames, mut came) = (Frames::default(), Vec::new());
                for piece in [&bytes[..cut], &bytes[cut..other], &bytes[other..]] {
                    frames.take(piece).unwrap();
                    while let Some(frame) = frames.next().unwrap() {
                        came.push(frame);
                    }
                }
                assert_eq!(came, sent, "{cut} {other}");
            }
        }
    }

    #[test]
    fn a_frame_that_says_it_is_too_long_is_not_waited_for() {
        let length = u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes();
        assert!(Frames::default().take(&length).is_err());
        assert!(Frames::default().take(&[&[0, 0, 0, 1, 7][..], &length].concat()).is_ok());
        let mut frames = Frames::default();
        frames.take(&[&[0, 0, 0, 1, 7][..], &length].concat()).unwrap();
        assert_eq!(frames.next(), Ok(Some(vec![7])));
        assert!(frames.next().is_err());
    }
}
