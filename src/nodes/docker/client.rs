//! One daemon: which API is spoken with it, and how it is asked.

use std::sync::{Arc, Mutex, PoisonError};

use hyper::{Method, Request, header};
use serde::de::DeserializeOwned;

use super::exchange::{Answer, Patience, What, ask};
use super::fault::{Fault, Refusal, error_in};
use super::model::{Ping, Version};
use super::stream::{Dial, Resumed};
use super::target::Target;
use super::version::ApiVersion;

/// One daemon. Copies share what was agreed with it.
#[derive(Clone)]
pub struct Docker {
    dial: Arc<dyn Dial>,
    /// The API that both sides speak, once somebody asked.
    pub(super) agreed: Arc<Mutex<Option<ApiVersion>>>,
}

/// What a request for a change came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// It was made.
    Made,
    /// It was so already.
    WasSo,
}

/// A question, before it has a version.
pub(super) struct Question {
    pub(super) method: Method,
    pub(super) target: Target,
    pub(super) what: What,
    pub(super) patience: Patience,
    /// Besides those that every request has.
    pub(super) headers: Vec<(header::HeaderName, header::HeaderValue)>,
}

impl Question {
    pub(super) fn new(method: Method, target: Target) -> Self {
        Self { method, target, what: What::Nothing, patience: Patience::USUAL, headers: vec![] }
    }

    pub(super) fn get(target: Target) -> Self {
        Self::new(Method::GET, target)
    }

    pub(super) fn post(target: Target) -> Self {
        Self::new(Method::POST, target)
    }

    pub(super) fn patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    pub(super) fn what(self, what: What) -> Self {
        Self { what, ..self }
    }

    /// With a text of ours in JSON.
    pub(super) fn json(self, json: &impl serde::Serialize) -> Self {
        // Structures of names, texts and numbers: nothing in them fails.
        let json = serde_json::to_vec(json).unwrap_or_default();
        self.what(What::Json(json)).header(header::CONTENT_TYPE, "application/json")
    }

    pub(super) fn tar(self, source: impl tokio::io::AsyncRead + Send + Unpin + 'static) -> Self {
        self.what(What::Source(Box::new(source))).header(header::CONTENT_TYPE, "application/x-tar")
    }

    pub(super) fn header(mut self, name: header::HeaderName, value: &'static str) -> Self {
        self.headers.push((name, header::HeaderValue::from_static(value)));
        self
    }
}

impl Docker {
    /// The daemon that streams of `dial` lead to. Nothing is asked yet.
    pub fn new(dial: impl Dial + 'static) -> Self {
        Self { dial: Arc::new(dial), agreed: Arc::default() }
    }

    /// Whether the daemon answers, for health: as little as can be asked.
    pub async fn ping(&self) -> Result<Ping, Fault> {
        let answer = self.bare(Question::get(Target::new("/_ping"))).await?;
        let ping = Ping {
            api: answer.header("api-version").and_then(|text| text.parse().ok()),
            podman: answer.header("libpod-api-version").is_some(),
        };
        answer.done().await?;
        Ok(ping)
    }

    /// What the daemon is; agrees on a version anew.
    ///
    /// # Errors
    /// [`Fault::ApiTooOld`], [`Fault::ApiTooNew`], and what every call may come to.
    pub async fn version(&self) -> Result<Version, Fault> {
        let answer = self.bare(Question::get(Target::new("/version"))).await?;
        let version: Version = read(answer).await?;
        let newest = version.api.parse::<ApiVersion>()?;
        // Podman's oldest is its own affair, and Docker before 1.12 named none.
        let oldest = version.api_min.as_deref().map(str::parse::<ApiVersion>).transpose()?;
        let agreed = ApiVersion::agreed(oldest.unwrap_or(ApiVersion::OLDEST), newest)?;
        *self.agreed.lock().unwrap_or_else(PoisonError::into_inner) = Some(agreed);
        Ok(version)
    }

    /// An answer in JSON.
    pub(super) async fn read<T: DeserializeOwned>(&self, question: Question) -> Result<T, Fault> {
        read(self.ask(question).await?).await
    }

    /// An answer without a body that anybody wants.
    pub(super) async fn does(&self, question: Question) -> Result<(), Fault> {
        self.ask(question).await?.done().await
    }

    /// The same of what may be so already.
    pub(super) async fn changes(&self, question: Question) -> Result<Change, Fault> {
        match self.does(question).await {
            Ok(()) => Ok(Change::Made),
            Err(fault) if fault.refusal() == Some(Refusal::NotModified) => Ok(Change::WasSo),
            Err(fault) => Err(fault),
        }
    }

    /// A good answer, its body still to come.
    pub(super) async fn ask(&self, question: Question) -> Result<Answer, Fault> {
        let removes = question.method == Method::DELETE;
        let answer = self.versioned(question).await?.accepted(removes).await;
        answer.inspect_err(|fault| self.learns(fault))
    }

    /// A stream in both directions.
    pub(super) async fn upgrade(&self, question: Question) -> Result<Resumed, Fault> {
        let question =
            question.header(header::CONNECTION, "Upgrade").header(header::UPGRADE, "tcp");
        let stream = self.versioned(question).await?.upgraded().await;
        stream.inspect_err(|fault| self.learns(fault))
    }

    async fn versioned(&self, question: Question) -> Result<Answer, Fault> {
        let known = || *self.agreed.lock().unwrap_or_else(PoisonError::into_inner);
        if known().is_none() {
            self.version().await?;
        }
        let version = known().unwrap_or(ApiVersion::OLDEST);
        let path = format!("/v{version}{}", question.target.as_str());
        self.send(&path, question).await.inspect_err(|fault| self.learns(fault))
    }

    async fn bare(&self, question: Question) -> Result<Answer, Fault> {
        let path = question.target.as_str().to_owned();
        self.send(&path, question).await?.accepted(false).await
    }

    async fn send(&self, path: &str, question: Question) -> Result<Answer, Fault> {
        let mut request = Request::builder()
            .method(question.method)
            .uri(path)
            .header(header::HOST, "docker")
            .header(header::USER_AGENT, concat!("keyway/", env!("CARGO_PKG_VERSION")));
        for (name, value) in question.headers {
            request = request.header(name, value);
        }
        // Names are judged and texts percent-encoded: only one that is far too long gets here.
        let request =
            request.body(()).map_err(|error| Fault::NotDocker(format!("no request: {error}")))?;
        ask(&*self.dial, request, question.what, question.patience).await
    }

    /// A daemon that went away may come back as another one; one that takes a request for wrong
    /// may be another one already.
    fn learns(&self, fault: &Fault) {
        let gone = matches!(fault, Fault::Unreachable(_) | Fault::Closed(_));
        if gone || fault.refusal() == Some(Refusal::Invalid) {
            *self.agreed.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

/// The JSON of an answer.
async fn read<T: DeserializeOwned>(answer: Answer) -> Result<T, Fault> {
    let json = answer.json().await?;
    serde_json::from_slice(&json).map_err(|error| match error_in(&json) {
        Some(words) => Fault::failed(&words),
        None => Fault::not_docker(&format!("its answer is not what was asked for: {error}")),
    })
}
