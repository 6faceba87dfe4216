//! Why a request is not answered as asked: a problem (RFC 9457), with a code that stays the same.

use axum::http::header::{self, HeaderValue};
use axum::http::{Response, StatusCode};
use schemars::JsonSchema;
use serde::Serialize;

use super::body::Body;
use super::response::with;
use crate::registry::name::NotALabel;
use crate::registry::writer::ServiceError;
use crate::registry::{Refusal, store};

/// Characters of a reason that are told: some name what was sent.
const DETAIL_CHARS: usize = 500;
/// When to come again where all places are taken, in seconds: a large answer takes some.
pub(super) const COME_AGAIN_S: u32 = 5;

/// The code of an answer that there is no place for.
pub(super) const BUSY: &str = "busy";
/// The code of what takes a registry that cannot be read or changed now.
pub(super) const REGISTRY_AWAY: &str = "registry-away";

/// What an error answers.
#[derive(Debug, JsonSchema, Serialize)]
#[schemars(rename = "Problem")]
pub(super) struct ProblemBody<'a> {
    /// Always `about:blank`: the code says more.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    status: u16,
    /// For programs.
    code: &'static str,
    /// For people: what is wrong, and what to do.
    detail: &'a str,
}

/// Why a request is not answered as asked.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) detail: String,
    /// Methods that are allowed here, of a 405.
    allow: Option<String>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), allow: None }
    }

    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
    }

    pub(super) fn no_route() -> Self {
        let detail = "there is nothing here; GET /v1/openapi.json lists what there is";
        Self::new(StatusCode::NOT_FOUND, "no-route", detail)
    }

    pub(super) fn method_not_allowed(allow: &[&str]) -> Self {
        let allow = allow.join(", ");
        let detail = format!("allowed here: {allow}");
        let code = "method-not-allowed";
        let problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, code, detail);
        Self { allow: Some(allow), ..problem }
    }

    pub(super) fn unauthenticated(detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
    }

    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    pub(super) fn too_large(bytes_max: usize) -> Self {
        let detail = format!("the body is larger than {bytes_max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
    }

    pub(super) fn store_failed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store-failed", detail)
    }

    /// Whoever asks from there has failed too often.
    pub(super) fn too_many_tries() -> Self {
        let detail = "too many tries to join failed that came from this network; wait a minute";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-tries", detail)
    }

    /// The registry cannot be read or changed; the detail says why, and what to do.
    pub(super) fn registry_away(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, REGISTRY_AWAY, detail)
    }

    /// All places for large answers are taken.
    pub(super) fn busy(places: usize) -> Self {
        let detail =
            format!("{places} large answers are on their way already; try again when one is done");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, BUSY, detail)
    }

    pub(super) fn ending() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ending", ServiceError::Ended.to_string())
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let Self { status, code, detail, allow } = self;
        let detail: String = detail.chars().take(DETAIL_CHARS).collect();
        let title = status.canonical_reason().unwrap_or_default();
        let body = ProblemBody {
            kind: "about:blank",
            title,
            status: status.as_u16(),
            code,
            detail: &detail,
        };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let media_type = "application/problem+json";
        let mut response = with(status, media_type, Body::whole(body, None));
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if code == BUSY {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(COME_AGAIN_S));
        }
        if let Some(allow) = allow.and_then(|allow| HeaderValue::try_from(allow).ok()) {
            headers.insert(header::ALLOW, allow);
        }
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match &refusal {
            Refusal::Unknown { .. } | Refusal::NotPinned { .. } => StatusCode::NOT_FOUND,
            Refusal::JoinTokenUnknown => StatusCode::FORBIDDEN,
            Refusal::Invalid { .. } | Refusal::Reserved { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::Changed { .. } | Refusal::Outdated { .. } => StatusCode::PRECONDITION_FAILED,
            Refusal::Taken { .. }
            | Refusal::KeyTaken { .. }
            | Refusal::IpTaken { .. }
            | Refusal::AgentKeyTaken { .. }
            | Refusal::IdentityTaken { .. }
            | Refusal::EdgeRemoved { .. }
            | Refusal::EdgeOfHostRemoved { .. }
            | Refusal::AgentKeyOther { .. }
            | Refusal::AgentRemoved { .. }
            | Refusal::JoinTokenUsed { .. }
            | Refusal::JoinTokenExpired { .. }
            | Refusal::NoHandoff { .. }
            | Refusal::InUse { .. }
            | Refusal::Going { .. }
            | Refusal::Conflict { .. }
            | Refusal::Exhausted { .. }
            | Refusal::Closed { .. }
            | Refusal::NotReady { .. }
            | Refusal::HostKeyOther { .. }
            | Refusal::NodeHostKeyOther { .. }
            | Refusal::HostKeyTaken { .. }
            | Refusal::HostKeyElsewhere { .. }
            | Refusal::TooMany { .. }
            | Refusal::Already(_) => StatusCode::CONFLICT,
        };
        Self::new(status, refusal.code(), refusal.to_string())
    }
}

impl From<NotALabel> for Problem {
    fn from(fault: NotALabel) -> Self {
        Refusal::from(fault).into()
    }
}

impl From<ServiceError> for Problem {
    fn from(failed: ServiceError) -> Self {
        match failed {
            ServiceError::Refused(refusal) => refusal.into(),
            ServiceError::Store(_) | ServiceError::Away(_) => {
                Self::registry_away(failed.to_string())
            }
            ServiceError::Begun(why) => {
                let detail = ServiceError::Begun(why.clone()).to_string();
                Self { detail, ..Self::from(*why) }
            }
            ServiceError::Ended => Self::ending(),
        }
    }
}

impl From<store::StoreError> for Problem {
    fn from(fault: store::StoreError) -> Self {
        Self::registry_away(fault.to_string())
    }
}
