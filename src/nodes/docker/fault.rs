//! Why a call to a daemon came to nothing, in words for people and in one for programs.

use std::time::Duration;
use std::{fmt, io};

use serde::Deserialize;

use super::names::NameFault;
use super::version::{ApiVersion, NoVersion, Parted};
use crate::plain_text::escaped;

/// Characters of a daemon's words that are passed on.
const WORDS_CHARS_MAX: usize = 500;

/// Why a call came to nothing. Words of the daemon in it are cut, and without what
/// commands a terminal.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Fault {
    /// There is no stream to the daemon: nothing was asked.
    #[error("the Docker daemon is not reached: {0}")]
    Unreachable(String),
    /// Nothing moved for too long. What was asked may have been done.
    #[error("the Docker daemon does not answer: {stage} took over {} s", limit.as_secs())]
    Silent {
        /// What was waited for.
        stage: Stage,
        /// For how long.
        limit: Duration,
    },
    /// The stream ended before the answer did. What was asked may have been done.
    #[error("the Docker daemon closed the connection before its answer was whole ({0})")]
    Closed(String),
    /// What answers is no Docker daemon, or speaks in a way that nobody knows.
    #[error("what answers does not speak Docker's API: {0}; is it the daemon's socket?")]
    NotDocker(String),
    /// The newest API that the daemon speaks is too old.
    #[error(
        "the daemon's API {0} is too old, {oldest} is the oldest that works: upgrade Docker on the node to 19.03 or newer",
        oldest = ApiVersion::OLDEST
    )]
    ApiTooOld(ApiVersion),
    /// The oldest API that the daemon takes is too new.
    #[error(
        "the daemon takes no API below {0}, this keyway speaks {ours} at most: upgrade keyway, or lower the daemon's minimum API version",
        ours = ApiVersion::OURS
    )]
    ApiTooNew(ApiVersion),
    /// An answer is larger than any honest one.
    #[error("the Docker daemon's {what} is over {bytes_max} bytes")]
    TooLarge {
        /// What of it.
        what: &'static str,
        /// Its limit.
        bytes_max: usize,
    },
    /// The daemon says no.
    #[error("the Docker daemon refuses: {message} [{why}]")]
    Refused {
        /// Of which kind.
        why: Refusal,
        /// Its words.
        message: String,
    },
    /// The daemon began to do it, and then failed.
    #[error("the Docker daemon failed: {0}")]
    Failed(String),
    /// The daemon answered, but gave no stream in both directions.
    #[error(
        "the Docker daemon gives no stream for the command's input and output (status {0}): a proxy in front of its socket has to pass upgrades on"
    )]
    NotUpgraded(u16),
    /// What was to be sent could not be read to its end; the daemon is not to blame.
    #[error("what was to be sent to the Docker daemon ended early: {0}")]
    Source(String),
    /// A name that Docker has none of.
    #[error(transparent)]
    Name(#[from] NameFault),
}

/// What is waited for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// A stream to the daemon.
    Connect,
    /// The head of its answer; while a request goes out, that the daemon takes more of it.
    Answer,
    /// That it turns a connection into a stream.
    Upgrade,
    /// The next part of its answer.
    Body,
    /// The next part of what is sent to it, which somebody else provides.
    Source,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting to it",
            Self::Answer => "its answer to a request",
            Self::Upgrade => "its stream for a command",
            Self::Body => "the next part of its answer",
            Self::Source => "the next part of what it was to be sent",
        })
    }
}

/// How a daemon says no.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// It takes the request for wrong.
    Invalid,
    /// It, or a registry, wants other credentials.
    Denied,
    /// There is no such thing.
    NotFound,
    /// It is so already.
    NotModified,
    /// Something else is in the way: a name that is taken, a container that does not run.
    Conflict,
    /// Something else still uses what was to be removed.
    InUse,
    /// Not now.
    Busy,
    /// It failed before it began.
    Server,
    /// No status that Docker's API has.
    Unknown,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Refusal {
    /// The kind that a status stands for. `removes`: the request was to remove something.
    pub(super) fn of(status: u16, removes: bool) -> Self {
        match status {
            304 => Self::NotModified,
            400 => Self::Invalid,
            401 | 403 => Self::Denied,
            404 => Self::NotFound,
            409 if removes => Self::InUse,
            409 => Self::Conflict,
            429 | 503 => Self::Busy,
            500..=599 => Self::Server,
            _ => Self::Unknown,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::NotModified => "not_modified",
            Self::Conflict => "conflict",
            Self::InUse => "in_use",
            Self::Busy => "busy",
            Self::Server => "server",
            Self::Unknown => "unknown",
        }
    }
}

impl Fault {
    /// One word for programs and metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Silent { .. } => "silent",
            Self::Closed(_) => "closed",
            Self::NotDocker(_) => "not_docker",
            Self::ApiTooOld(_) => "api_too_old",
            Self::ApiTooNew(_) => "api_too_new",
            Self::TooLarge { .. } => "too_large",
            Self::Refused { why, .. } => why.as_str(),
            Self::Failed(_) => "failed",
            Self::NotUpgraded(_) => "not_upgraded",
            Self::Source(_) => "source",
            Self::Name(_) => "name",
        }
    }

    /// How the daemon refused, if it did.
    pub const fn refusal(&self) -> Option<Refusal> {
        if let Self::Refused { why, .. } = self { Some(*why) } else { None }
    }

    pub(super) fn not_docker(words: &str) -> Self {
        Self::NotDocker(cleaned(words))
    }

    pub(super) fn failed(words: &str) -> Self {
        Self::Failed(cleaned(words))
    }

    /// What a stream's error says; a fault that was passed through one comes out as it was.
    pub(super) fn from_io(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()) {
            Some(fault) => fault.clone(),
            None => Self::Closed(cleaned(&error.to_string())),
        }
    }
}

impl From<Parted> for Fault {
    fn from(parted: Parted) -> Self {
        match parted {
            Parted::TooOld(newest) => Self::ApiTooOld(newest),
            Parted::TooNew(oldest) => Self::ApiTooNew(oldest),
        }
    }
}

impl From<NoVersion> for Fault {
    fn from(NoVersion(text): NoVersion) -> Self {
        Self::not_docker(&format!("its API version is `{text}`"))
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::other(fault)
    }
}

/// Words of others as they may be shown: on one line, cut, without what commands a terminal.
pub(super) fn cleaned(words: &str) -> String {
    let words = words.trim();
    let mut end = words.char_indices().map(|(at, _)| at).skip(WORDS_CHARS_MAX);
    match end.next() {
        Some(end) => escaped(&words[..end]) + "...",
        None => escaped(words),
    }
}

/// The error that a text of a daemon tells of, in whichever of the forms it has.
pub(super) fn error_in(json: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Said {
        message: Option<String>,
        error: Option<String>,
        #[serde(rename = "errorDetail")]
        detail: Option<Detail>,
    }
    #[derive(Deserialize)]
    struct Detail {
        message: Option<String>,
    }
    let said: Said = serde_json::from_slice(json).ok()?;
    let whole = said.detail.map(|detail| detail.message.unwrap_or_default());
    let words = whole.filter(|words| !words.is_empty() || said.error.is_none());
    words.or(said.error).or(said.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_daemon_are_cut_and_command_nothing() {
        assert_eq!(
            cleaned(" no\x1b[2J such\nthing\u{202e} \n"),
            "no\\u{1b}[2J such\\nthing\\u{202e}"
        );
        assert_eq!(cleaned(&"é".repeat(500)), "é".repeat(500));
        assert_eq!(cleaned(&"é".repeat(501)), "é".repeat(500) + "...");
    }

    #[test]
    fn a_fault_passes_through_a_stream_unchanged() {
        let fault = Fault::Silent { stage: Stage::Body, limit: Duration::from_secs(7) };
        assert_eq!(Fault::from_io(&fault.clone().into()), fault);
        let other = io::Error::other("reset\x07");
        assert_eq!(Fault::from_io(&other), Fault::Closed("reset\\u{7}".to_owned()));
    }

    #[test]
    fn an_error_is_found_in_each_of_its_forms() {
        let found = |json: &str| error_in(json.as_bytes());
        let both = r#"{"errorDetail":{"code":1,"message":"no space"},"error":"no"}"#;
        assert_eq!(found(both).as_deref(), Some("no space"));
        assert_eq!(found(r#"{"error":"no"}"#).as_deref(), Some("no"));
        assert_eq!(found(r#"{"errorDetail":{},"error":"no"}"#).as_deref(), Some("no"));
        assert_eq!(found(r#"{"errorDetail":{}}"#).as_deref(), Some(""));
        let podman = r#"{"cause":"no such container","message":"no container web","response":404}"#;
        assert_eq!(found(podman).as_deref(), Some("no container web"));
        assert_eq!(found(r#"{"stream":"error"}"#), None);
        assert_eq!(found("<html>"), None);
    }

    #[test]
    fn a_status_says_what_stands_in_the_way() {
        assert_eq!(Refusal::of(409, true), Refusal::InUse);
        assert_eq!(Refusal::of(409, false), Refusal::Conflict);
        assert_eq!(Refusal::of(304, false), Refusal::NotModified);
        assert_eq!(Refusal::of(204, false), Refusal::Unknown);
    }
}
