//! What a request is answered: JSON, text or a stream, and what every answer says about itself.

use axum::http::header::{self, HeaderValue};
use axum::http::{Response, StatusCode};
use tokio::sync::OwnedSemaphorePermit;

use super::body::{Body, Lines, Text};

/// What a handler answers.
pub(super) enum Answer {
    /// JSON.
    Json {
        /// Written already.
        body: Vec<u8>,
        /// The revision of the one thing it shows.
        tag: Option<u64>,
    },
    /// Plain text, as long as it may be.
    Text(Text),
    /// Lines of JSON, one a commit, until somebody ends it.
    Watch(Lines),
}

impl Answer {
    /// `place`: of an answer that there may be few of; it is free again when all of
    /// the answer is gone.
    pub(super) fn into_response(
        self,
        status: StatusCode,
        place: Option<OwnedSemaphorePermit>,
    ) -> Response<Body> {
        match self {
            Self::Json { body, tag } => {
                let mut response = with(status, "application/json", Body::whole(body, place));
                let tag = tag.and_then(|tag| HeaderValue::try_from(format!("\"{tag}\"")).ok());
                if let Some(tag) = tag {
                    response.headers_mut().insert(header::ETAG, tag);
                }
                response
            }
            Self::Text(text) => {
                with(status, "text/plain; charset=utf-8", Body::Text(text.at(place)))
            }
            Self::Watch(lines) => with(status, "application/x-ndjson", Body::Lines(lines)),
        }
    }
}

/// An answer of this type.
pub(super) fn with(status: StatusCode, media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    // What is answered is nobody else's business, and old as soon as it is read.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
