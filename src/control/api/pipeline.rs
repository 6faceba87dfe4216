//! From a request to its answer: who asks, what for, may they, is it well formed; then, on a thread
//! that may wait, the handler.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderValue};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::auth::{Caller, Proof, TokenHash, role_word};
use super::context::Context;
use super::origin::Origin;
use super::problem::Problem;
use super::query::Queries;
use super::response::Answer;
use super::routes::{self, Kind, Route, Source};
use super::shared::{Api, WHOLE_MAX};
use super::trace::Asked;
use crate::registry::writer::Actor;

/// For the whole body of a request.
const BODY_MAX: Duration = Duration::from_mins(1);
/// For what is left of a body that was refused.
const SWALLOW_MAX: Duration = Duration::from_secs(5);
/// Bytes of it: a fleet that is too large by half.
const SWALLOWED_BYTES_MAX: usize = 32 << 20;
/// The same, from somebody who may do nothing.
const SWALLOWED_UNKNOWN_BYTES_MAX: usize = 64 << 10;
/// Bytes of a body where none is taken: room for an empty object.
const NO_BODY_BYTES_MAX: usize = 64;

/// One connection, as its requests see it.
pub(super) struct Connection {
    api: Arc<Api>,
    from: Origin,
    watching: AtomicBool,
}

impl Connection {
    pub(super) const fn new(api: Arc<Api>, from: Origin) -> Self {
        Self { api, from, watching: AtomicBool::new(false) }
    }

    pub(super) const fn api(&self) -> &Arc<Api> {
        &self.api
    }

    pub(super) const fn from(&self) -> &Origin {
        &self.from
    }

    /// It is followed for as long as somebody likes, in no place of the API's.
    pub(super) fn stays_outside(&self) {
        self.watching.store(true, Ordering::Relaxed);
        self.from.stays_outside();
    }

    /// Whether its last request watches, for as long as it likes.
    pub(super) fn watches(&self) -> bool {
        self.watching.load(Ordering::Relaxed)
    }
}

/// Answers one request; never fails.
pub(super) async fn respond(
    State(connection): State<Arc<Connection>>,
    request: Request,
) -> Response {
    let Connection { api, from, watching } = &*connection;
    let (parts, body) = request.into_parts();
    // Who waits to be asked for the body (RFC 9110 §10.1.1) has sent nothing of it.
    let begun = !parts.headers.contains_key(header::EXPECT);
    let mut body = Sent { body, begun };
    let mut asked = Asked::new(from, &parts);
    let mut stale = None;
    let answered = answer(api, from, parts, &mut body, &mut asked, &mut stale).await;
    let (known, mut response) = match answered {
        Ok(Answered { status, answer, place }) => {
            asked.done();
            watching.store(matches!(answer, Answer::Watch(_)), Ordering::Relaxed);
            (true, answer.into_response(status, place))
        }
        Err(problem) => {
            api.traces.refused(&asked, &problem);
            if let Some((actor, command)) = asked.forbidden(&problem) {
                let api = Arc::clone(api);
                let noted = wait(move || {
                    api.traces.note_refused(&api.service, &actor, command);
                    Ok(())
                });
                // What cannot be noted is in the log.
                let _noted = noted.await;
            }
            (asked.is_known(), problem.into_response())
        }
    };
    // What is not known is as old as what is.
    if let Some(warning) = stale {
        response.headers_mut().insert(header::WARNING, warning);
    }
    if !body.swallowed(known).await {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    from.rests();
    response.map(Body::new)
}

/// The body of a request.
struct Sent {
    body: Body,
    /// Whether some of it may be on its way.
    begun: bool,
}

impl Sent {
    /// Takes what is left of a body that was refused: who still sends does not read the answer, and
    /// loses it if the connection ends meanwhile. False if more is left.
    async fn swallowed(&mut self, known: bool) -> bool {
        let Self { body, begun } = self;
        let mut left = if known { SWALLOWED_BYTES_MAX } else { SWALLOWED_UNKNOWN_BYTES_MAX };
        let swallow = async {
            while !body.is_end_stream() {
                if !*begun {
                    return false;
                }
                match body.frame().await {
                    Some(Ok(frame)) => {
                        let bytes = frame.data_ref().map_or(0, Bytes::len);
                        let Some(rest) = left.checked_sub(bytes) else { return false };
                        left = rest;
                    }
                    Some(Err(_)) => return false,
                    None => return true,
                }
            }
            true
        };
        timeout(SWALLOW_MAX, swallow).await.unwrap_or(false)
    }
}

struct Answered {
    status: StatusCode,
    answer: Answer,
    /// Where there may be few of such answers.
    place: Option<OwnedSemaphorePermit>,
}

async fn answer(
    api: &Arc<Api>,
    from: &Origin,
    parts: Parts,
    body: &mut Sent,
    asked: &mut Asked,
    stale: &mut Option<HeaderValue>,
) -> Result<Answered, Problem> {
    let caller = caller(api, from, &parts.headers).await?;
    from.asks(&caller.actor.name);
    asked.is_by(&caller.actor);
    let (route, params) = routes::find(&parts.method, parts.uri.path())?;
    asked.is_a_change(!route.kind.only_shows());
    if caller.role < route.role {
        let (has, wants) = (role_word(caller.role), role_word(route.role));
        return Err(Problem::forbidden(format!("this takes the role {wants}; yours is {has}")));
    }
    match (route.source, api.service.away()) {
        (Source::Registry, Some(why)) => return Err(Problem::registry_away(why)),
        (Source::Known, Some(why)) => *stale = warning(why),
        (Source::Process, Some(_)) | (_, None) => {}
    }
    let query = Queries::read(parts.uri.query().unwrap_or_default(), &route.kind.queries())?;
    asked.is_tried(query.dry_run);
    let expected = expected(route, &parts.headers)?;
    let body = read(route, &parts.headers, body).await?;
    let created = matches!(route.kind, Kind::Create) && !query.dry_run;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let place = match route.kind {
        Kind::Whole => {
            let place = Arc::clone(&api.whole).try_acquire_owned();
            Some(place.map_err(|_| Problem::busy(WHOLE_MAX))?)
        }
        Kind::Show(_) | Kind::List(_) | Kind::Change | Kind::Create | Kind::All | Kind::Act => None,
    };
    let context = Context { api: Arc::clone(api), caller, params, query, expected, body };
    // Whoever asked may go meanwhile; what is held for them is held until this is done.
    let carried_out = in_turn(Arc::clone(&api.turns), move || {
        let answer = (route.run.carry_out)(&context);
        Ok((answer?, place))
    });
    let (answer, place) = carried_out.await?;
    Ok(Answered { status, answer, place })
}

/// "Response is Stale" (RFC 7234 §5.5.1), and why.
fn warning(why: &str) -> Option<HeaderValue> {
    let text: String = why
        .chars()
        .map(|c| if matches!(c, '"' | '\\') || !matches!(c, ' '..='~') { '?' } else { c })
        .collect();
    HeaderValue::try_from(format!("110 keyway \"{text}\"")).ok()
}

/// The same as [`wait`], when it is its turn.
pub(super) async fn in_turn<T: Send + 'static>(
    turns: Arc<Semaphore>,
    run: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let turn = turns.acquire_owned().await.map_err(|_| Problem::ending())?;
    wait(move || {
        let answer = run();
        drop(turn);
        answer
    })
    .await
}

/// Runs what may wait for the registry where nobody else waits for it.
pub(super) async fn wait<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(run).await {
        Ok(answer) => answer,
        Err(error) if error.is_cancelled() => Err(Problem::ending()),
        // The panic was reported by its hook.
        Err(_) => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "bug",
            "a bug in keyway; its log says where",
        )),
    }
}

/// Who asks. Nothing else of the request is looked at before.
async fn caller(api: &Arc<Api>, from: &Origin, headers: &HeaderMap) -> Result<Caller, Problem> {
    match from {
        Origin::Socket(actor, process, _) => {
            let (api, actor, process) = (Arc::clone(api), actor.clone(), *process);
            wait(move || {
                let role = api.role(process).ok_or_else(|| {
                    let name = &actor.name;
                    let fix = "name it in [api.peers] of keyway.toml";
                    Problem::forbidden(format!("{name} has no role here; {fix}"))
                })?;
                Ok(Caller { actor, role, proof: Proof::Socket(process) })
            })
            .await
        }
        Origin::Tls { peer, .. } => {
            let header = headers.get(header::AUTHORIZATION);
            let token = TokenHash::from_header(header.map(HeaderValue::as_bytes))?;
            if let Some(why) = api.service.away() {
                let fix = "no token can be checked; ask at the socket";
                return Err(Problem::registry_away(format!("{why} ({fix})")));
            }
            let (api, from) = (Arc::clone(api), peer.to_string());
            wait(move || {
                let now_s = api.service.now_s();
                let (name, role) = api.service.read(|model| token.find(model, now_s))?;
                let actor = Actor { name: format!("token {name}"), from };
                Ok(Caller { actor, role, proof: Proof::Token(token) })
            })
            .await
        }
    }
}

/// The revision that `If-Match` names (RFC 9110 §13.1.1).
fn expected(route: &Route, headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let mut all = headers.get_all(header::IF_MATCH).iter();
    let Some(value) = all.next() else { return Ok(None) };
    if route.kind.only_shows() {
        return Ok(None);
    }
    if !route.kind.takes_revision() {
        return Err(Problem::bad("If-Match has no meaning here: nothing here has a revision"));
    }
    let text = value.to_str().unwrap_or_default().trim();
    // What is made is not there yet, and no revision of it is either (RFC 9110 §13.1.1).
    let matches = |expected| {
        if matches!(route.kind, Kind::Create) && !route.path.contains('{') {
            let detail =
                "what is made has no revision before; leave If-Match out: nothing is made twice";
            return Err(Problem::new(StatusCode::PRECONDITION_FAILED, "changed", detail));
        }
        Ok(expected)
    };
    if text == "*" && all.next().is_none() {
        return matches(None);
    }
    let number = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let revision = number.and_then(|number| number.parse().ok());
    match (revision, all.next()) {
        (Some(revision), None) => matches(Some(revision)),
        (_, _) => {
            Err(Problem::bad("If-Match is no revision; send If-Match: \"17\", as ETag had it"))
        }
    }
}

/// The body, of which at most as much is read as the route takes.
async fn read(route: &Route, headers: &HeaderMap, sent: &mut Sent) -> Result<Bytes, Problem> {
    let bytes_max = route.run.takes.as_ref().map_or(NO_BODY_BYTES_MAX, |(_, bytes_max)| *bytes_max);
    let Sent { body, begun } = sent;
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let too_large = || match route.run.takes {
        Some(_) => Problem::too_large(bytes_max),
        None => Problem::bad("this takes no body"),
    };
    if body.size_hint().lower() > u64::try_from(bytes_max).unwrap_or(u64::MAX) {
        return Err(too_large());
    }
    if route.run.takes.is_some() && !is_json(headers) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "send the body with Content-Type: application/json",
        ));
    }
    *begun = true;
    let body = match timeout(BODY_MAX, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
        Ok(Err(_)) => return Err(Problem::bad("the body ended too early")),
        Err(_) => return Err(Problem::bad("the body did not come in time")),
    };
    if route.run.takes.is_none() && !matches!(body.trim_ascii(), b"" | b"{}" | b"null") {
        return Err(Problem::bad("this takes no body"));
    }
    Ok(body)
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = value.and_then(|value| value.split(';').next()).unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/json")
}
