//! Asks a running keyway: HTTP/1.1 over its unix socket, or over TLS with a token.
//!
//! A connection carries one request: to make one costs microseconds beside what a change costs, and
//! no request is ever sent twice because an old connection had ended.

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::error::CliError;
use crate::trust::{self, Server};

/// Whoever does not take a connection by then will not.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Longest wait for the head of an answer: the fleet file of a million VMs takes
/// minutes to carry out.
const ANSWER_MAX: Duration = Duration::from_mins(30);
/// How often somebody who looks on is told how far a long change has come.
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// Largest answer, in bytes: an export of a million VMs takes a third of it.
const ANSWER_BYTES_MAX: usize = 1 << 30;
/// No server minds a body of this many bytes.
const BODY_BYTES_USUAL: u64 = 1 << 20;
/// Longest line of an answer that goes on, in bytes: a commit names what it changed, a few
/// hundred things at most.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Where a server is.
#[derive(Clone)]
pub(super) enum ServerAt {
    /// Its unix socket.
    Socket(PathBuf),
    /// Its TLS port.
    Tls(Tls),
}

/// A server behind TLS.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) server: Server,
    pub(super) token: String,
    pub(super) config: Arc<tokio_rustls::rustls::ClientConfig>,
}

impl ServerAt {
    fn shown(&self) -> String {
        match self {
            Self::Socket(path) => path.display().to_string(),
            Self::Tls(tls) => format!("https://{}", tls.server.authority),
        }
    }
}

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    /// With its query.
    pub(super) path: String,
    pub(super) body: Option<Value>,
    /// The revision that what is changed must have.
    pub(super) if_match: Option<u64>,
}

impl Request {
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), body: None, if_match: None }
    }
}

/// Asks one server.
pub(super) struct Client {
    place: ServerAt,
    runtime: Runtime,
    /// Why its answers are not of the registry as it is, once one said so.
    stale: OnceLock<String>,
}

impl Client {
    pub(super) fn new(place: ServerAt) -> Result<Self, CliError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| CliError::failed(format!("no runtime: {error}")))?;
        Ok(Self { place, runtime, stale: OnceLock::new() })
    }

    /// Why what it answered is not what the registry says now, if it is not.
    pub(super) fn stale(&self) -> Option<&str> {
        self.stale.get().map(String::as_str)
    }

    /// The body of a good answer.
    ///
    /// # Errors
    /// [`CliError::Unreachable`], [`CliError::Refused`]; [`CliError::Failed`] for what is no
    /// answer of keyway's.
    pub(super) fn ask(&self, request: &Request) -> Result<Bytes, CliError> {
        self.runtime.block_on(async {
            let response = self.exchange(request).await?;
            let status = response.status();
            let body = self.whole(response.into_body()).await?;
            if status.is_success() { Ok(body) } else { Err(self.refusal(status, &body)) }
        })
    }

    /// As [`Client::ask`], of an answer in JSON.
    pub(super) fn ask_json(&self, request: &Request) -> Result<Value, CliError> {
        self.runtime.block_on(async { self.good_json(self.exchange(request).await?).await })
    }

    /// As [`Client::ask_json`], for what may take its time: meanwhile tells `far` every second at
    /// which revision the registry is, if that can be learned.
    pub(super) fn ask_long(
        &self,
        request: &Request,
        far: &mut dyn FnMut(u64),
    ) -> Result<Value, CliError> {
        self.runtime.block_on(async {
            let mut answer = pin!(self.exchange(request));
            let response = loop {
                match timeout(TOLD_EVERY, &mut answer).await {
                    Ok(response) => break response?,
                    Err(_) => {
                        if let Ok(Some(revision)) = timeout(TOLD_EVERY, self.revision()).await {
                            far(revision);
                        }
                    }
                }
            };
            self.good_json(response).await
        })
    }

    /// The registry's revision.
    pub(super) fn get_revision(&self) -> Result<u64, CliError> {
        let answer = self.ask_json(&Request::get("/v1/store"))?;
        let revision = answer.get("revision").and_then(Value::as_u64);
        revision.ok_or_else(|| self.strange("a store without a revision"))
    }

    /// The registry's revision; nothing if the server does not say.
    async fn revision(&self) -> Option<u64> {
        let response = self.exchange(&Request::get("/v1/store")).await.ok()?;
        self.good_json(response).await.ok()?.get("revision")?.as_u64()
    }

    async fn good_json(&self, response: Response<Incoming>) -> Result<Value, CliError> {
        let status = response.status();
        let body = self.whole(response.into_body()).await?;
        if !status.is_success() {
            return Err(self.refusal(status, &body));
        }
        serde_json::from_slice(&body).map_err(|error| self.strange(&format!("not JSON: {error}")))
    }

    /// An answer that goes on, line by line.
    pub(super) fn lines(&self, request: &Request) -> Result<Lines<'_>, CliError> {
        self.runtime.block_on(async {
            let response = self.exchange(request).await?;
            let (status, body) = (response.status(), response.into_body());
            if status.is_success() {
                return Ok(Lines { client: self, body, rest: Vec::new() });
            }
            let body = self.whole(body).await?;
            Err(self.refusal(status, &body))
        })
    }

    async fn exchange(&self, request: &Request) -> Result<Response<Incoming>, CliError> {
        let connected = timeout(CONNECT_MAX, async {
            match &self.place {
                ServerAt::Socket(path) => {
                    let stream = UnixStream::connect(path).await;
                    let stream = stream.map_err(|error| self.unreachable(&error))?;
                    handshake(stream).await.map_err(|error| self.cut(&error))
                }
                ServerAt::Tls(tls) => {
                    let host = tls.server.name.to_str().into_owned();
                    let stream = TcpStream::connect((host.as_str(), tls.server.port)).await;
                    let stream = stream.map_err(|error| self.unreachable(&error))?;
                    let connector = TlsConnector::from(Arc::clone(&tls.config));
                    let stream = connector.connect(tls.server.name.clone(), stream).await;
                    let stream = stream.map_err(|error| self.not_trusted(&error))?;
                    handshake(stream).await.map_err(|error| self.cut(&error))
                }
            }
        });
        let mut sender = connected
            .await
            .map_err(|_| self.unreachable(&io::Error::from(io::ErrorKind::TimedOut)))??;
        let request = self.http(request)?;
        let bytes = request.body().size_hint().exact().unwrap_or_default();
        let answered = timeout(ANSWER_MAX, sender.send_request(request)).await;
        let late = |_| CliError::failed(format!("{}: no answer in time", self.place.shown()));
        let answered = answered.map_err(late)?;
        if let Some(why) = answered.as_ref().ok().and_then(warning) {
            // Of a list that goes on one page says it as well as the next.
            let _said = self.stale.set(why);
        }
        answered.map_err(|error| {
            let cut = self.cut(&error);
            // Whoever takes no more may hang up before its answer is read.
            if bytes > BODY_BYTES_USUAL && !error.is_parse() {
                return CliError::failed(format!(
                    "{cut}; {bytes} bytes may be more than the server takes"
                ));
            }
            cut
        })
    }

    fn http(&self, request: &Request) -> Result<hyper::Request<Full<Bytes>>, CliError> {
        let mut http = hyper::Request::builder().method(&request.method).uri(&request.path);
        http = match &self.place {
            ServerAt::Socket(_) => http.header(header::HOST, "keyway"),
            ServerAt::Tls(tls) => http
                .header(header::HOST, &tls.server.authority)
                .header(header::AUTHORIZATION, format!("Bearer {}", tls.token)),
        };
        if let Some(revision) = request.if_match {
            http = http.header(header::IF_MATCH, format!("\"{revision}\""));
        }
        let body = match &request.body {
            Some(body) => {
                http = http.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        // Names and numbers of ours, percent-encoded.
        http.body(Full::new(body)).map_err(|error| CliError::failed(format!("no request: {error}")))
    }

    async fn whole(&self, mut body: Incoming) -> Result<Bytes, CliError> {
        // What it says of itself is believed up to a point.
        let says = usize::try_from(body.size_hint().lower()).unwrap_or(ANSWER_BYTES_MAX);
        let mut whole = Vec::with_capacity(says.min(ANSWER_BYTES_MAX));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                let shown = self.place.shown();
                CliError::failed(format!("{shown}: the answer was cut off: {error}"))
            })?;
            let data = frame.data_ref().map_or(&[][..], |data| data);
            if whole.len() + data.len() > ANSWER_BYTES_MAX {
                return Err(self.strange("too long"));
            }
            whole.extend_from_slice(data);
        }
        Ok(whole.into())
    }

    /// Why the server did not do it, in its own words.
    fn refusal(&self, status: StatusCode, body: &[u8]) -> CliError {
        let problem: Option<Value> = serde_json::from_slice(body).ok();
        let text = |key| Some(problem.as_ref()?.get(key)?.as_str()?.to_owned());
        match (text("code"), text("detail").or_else(|| text("title"))) {
            (Some(code), Some(detail)) => CliError::Refused { code, detail },
            (_, _) => self.strange(&format!("HTTP status {status}")),
        }
    }

    pub(super) fn strange(&self, what: &str) -> CliError {
        let shown = self.place.shown();
        CliError::failed(format!(
            "{shown} gave no answer of keyway's ({what}); is it another program's, or a keyway of another version?"
        ))
    }

    fn cut(&self, error: &hyper::Error) -> CliError {
        let shown = self.place.shown();
        if error.is_parse() {
            return self.strange("not HTTP");
        }
        CliError::failed(format!(
            "{shown}: the connection ended before the answer came ({error}); look whether it was done, \
             then try again"
        ))
    }

    fn unreachable(&self, error: &io::Error) -> CliError {
        let shown = self.place.shown();
        let ServerAt::Socket(_) = &self.place else {
            return CliError::Unreachable(format!(
                "no keyway answers at {shown}: {error}; see [api] listen in its keyway.toml"
            ));
        };
        let kind = error.kind();
        let what = if matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
            format!(
                "no keyway serves at {shown}: start it with `keyway serve`, or name its socket with --socket or \
                 KEYWAY_SOCKET"
            )
        } else if kind == io::ErrorKind::PermissionDenied {
            format!(
                "{shown}: permission denied; root, the user keyway runs as and the peers named in [api.peers] of its \
                 keyway.toml may use it: become one of them, or have a line for you added there"
            )
        } else {
            format!("no keyway serves at {shown}: {error}")
        };
        CliError::Unreachable(what)
    }

    fn not_trusted(&self, error: &io::Error) -> CliError {
        let (shown, error) = (self.place.shown(), trust::fault(error));
        CliError::Unreachable(format!(
            "{shown}: {error}; if its certificate is your own, or comes from a CA of your own, name that with --ca"
        ))
    }
}

/// The text of a warning (RFC 7234 §5.5).
fn warning(response: &Response<Incoming>) -> Option<String> {
    let value = response.headers().get(header::WARNING)?.to_str().ok()?;
    let (_, text) = value.split_once('"')?;
    Some(text.strip_suffix('"')?.to_owned())
}

/// An answer that goes on.
pub(super) struct Lines<'c> {
    client: &'c Client,
    body: Incoming,
    /// The beginning of the next line.
    rest: Vec<u8>,
}

impl Lines<'_> {
    /// Waits for the next line; nothing once the server has ended the answer.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, CliError> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                return Ok(Some(self.rest.drain(..=end).collect()));
            }
            if self.rest.len() > LINE_BYTES_MAX {
                return Err(self.client.strange("a line without an end"));
            }
            let Some(frame) = self.client.runtime.block_on(self.body.frame()) else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| self.client.cut(&error))?;
            self.rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        }
    }
}

async fn handshake<S>(stream: S) -> hyper::Result<http1::SendRequest<Full<Bytes>>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // What goes wrong with it is told to whoever waits for the answer.
    tokio::spawn(connection);
    Ok(sender)
}
