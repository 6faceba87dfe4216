//! The feed's two requests, at the API's TLS listener but none of its routes: no role is good for
//! them, and what is good for them is a role for nothing else. What they wait for is theirs too:
//! however many follow, others' requests have their own turns and threads.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::Response;
use http_body_util::{BodyExt, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::body;
use super::origin::Origin;
use super::pipeline::{Connection, in_turn};
use super::problem::Problem;
use super::response::with;
use super::shared::Api;
use super::trace::Asked;
use crate::control::feed::{self, Follower, Known, PinAnswer, PinQuestion, Report, proof, version};
use crate::registry::command::Dialled;
use crate::registry::refusal::Refusal;
use crate::registry::writer::{Actor, CommandRequest, Mode, ServiceError};
use crate::registry::{Command, Label, Options};
use crate::ssh::publickey::Fingerprint;

/// Frames that wait for a slow follower; all others of its audience share them.
const FRAMES_WAITING: usize = 4;
/// Bytes of a question about a host key: RSA of 8192 bits, with room to spare.
const QUESTION_BYTES_MAX: usize = 16 << 10;
/// For all of them to come: whoever asks waits for 5 s.
const QUESTION_MAX: Duration = Duration::from_secs(5);

/// Who asks: the agent of a node.
struct Agent {
    node: Label,
    key: Fingerprint,
}

/// Follows the registry.
pub(super) async fn follow(
    State(connection): State<Arc<Connection>>,
    request: Request,
) -> Response {
    let (parts, _) = request.into_parts();
    let asked = Asked::new(connection.from(), &parts);
    let begun = begin(&connection, &parts).await;
    let response = match begun {
        Ok(follower) => {
            // A place of its own: the hub knows how many there may be.
            connection.stays_outside();
            let (sender, receiver) = mpsc::channel(FRAMES_WAITING);
            let api = Arc::clone(connection.api());
            let seats = Arc::clone(&api.following);
            let everything = Box::new(move |follower: &mut Follower| {
                let everything = api.service.read(|model| follower.everything(model));
                // Not while others wait for the registry.
                everything.map(feed::whole)
            });
            tokio::spawn(feed::send(follower, (seats, everything), sender));
            with(StatusCode::OK, "application/octet-stream", body::Body::Frames(receiver))
        }
        Err(problem) => refused(&connection, &asked, problem),
    };
    response.map(Body::new)
}

async fn begin(connection: &Connection, parts: &Parts) -> Result<Follower, Problem> {
    let (api, from) = (Arc::clone(connection.api()), connection.from());
    let key = shown(from, parts)?;
    let query = parts.uri.query().unwrap_or_default();
    let speaks = speaks(query)?;
    let known = Known::read(value(query, "known"), value(query, "digest"));
    in_turn(Arc::clone(&api.following.reads), move || {
        api.service.read(|model| {
            let Agent { node, key } = agent(&api, model, key)?;
            api.hub.follow(node.as_str(), key.0, (speaks, known), model).ok_or_else(Problem::ending)
        })
    })
    .await
}

/// Whatever else somebody asks for who has said that it follows.
pub(super) async fn no_feed() -> Response {
    let problem = Problem::forbidden("a connection of the feed is good for the feed alone");
    problem.into_response().map(Body::new)
}

/// Pins the host key that a VM has shown, on the node of whoever asks.
pub(super) async fn pin(State(connection): State<Arc<Connection>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let asked = Asked::new(connection.from(), &parts);
    let response = match pinned(&connection, &parts, body).await {
        Ok(answer) => told(&answer),
        Err(problem) => refused(&connection, &asked, problem),
    };
    response.map(Body::new)
}

/// What whoever asked is answered.
pub(super) fn told(answer: &impl Serialize) -> Response<body::Body> {
    let body = serde_json::to_vec(answer).unwrap_or_default();
    with(StatusCode::OK, "application/json", body::Body::whole(body, None))
}

/// Tells who was refused what, here and there.
pub(super) fn refused(
    connection: &Connection,
    asked: &Asked,
    problem: Problem,
) -> Response<body::Body> {
    connection.api().traces.refused(asked, &problem);
    problem.into_response()
}

async fn pinned(connection: &Connection, parts: &Parts, body: Body) -> Result<PinAnswer, Problem> {
    let api = Arc::clone(connection.api());
    let (who, question) = question::<PinQuestion>(connection, parts, body).await?;
    let peer = connection.from().peer();
    in_turn(Arc::clone(&api.following.pins), move || {
        let who = api.service.read(|model| agent(&api, model, who))?;
        Ok(pin_in_registry(&api, &who, question?, peer))
    })
    .await
}

/// Hears how a canary is.
pub(super) async fn report(
    State(connection): State<Arc<Connection>>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let asked = Asked::new(connection.from(), &parts);
    let response = match reported(&connection, &parts, body).await {
        Ok(()) => told(&()),
        Err(problem) => refused(&connection, &asked, problem),
    };
    response.map(Body::new)
}

async fn reported(connection: &Connection, parts: &Parts, body: Body) -> Result<(), Problem> {
    let api = Arc::clone(connection.api());
    let (who, report) = question::<Report>(connection, parts, body).await?;
    in_turn(Arc::clone(&api.following.reads), move || {
        #[expect(clippy::disallowed_methods, reason = "how long it has been well is measured")]
        let now = Instant::now();
        api.service.read(|model| {
            let Agent { node, key } = agent(&api, model, who)?;
            api.hub.hear(node.as_str(), key.0, (report?, now), model);
            Ok(())
        })
    })
    .await
}

/// Who asks, and what, if that can be read.
async fn question<T: DeserializeOwned>(
    connection: &Connection,
    parts: &Parts,
    body: Body,
) -> Result<(Fingerprint, Result<T, Problem>), Problem> {
    let key = shown(connection.from(), parts)?;
    let body = Limited::new(body, QUESTION_BYTES_MAX).collect();
    let body = timeout(QUESTION_MAX, body).await;
    let body = body.map_err(|_| Problem::bad("the body did not come in time"))?;
    let body = body.map_err(|_| Problem::too_large(QUESTION_BYTES_MAX))?.to_bytes();
    let question = serde_json::from_slice(&body);
    Ok((key, question.map_err(|_| Problem::bad("the body is no question"))))
}

fn pin_in_registry(api: &Api, who: &Agent, asked: PinQuestion, from: String) -> PinAnswer {
    let PinQuestion { vm, owner, endpoint, key } = asked;
    let lies_there = api.service.read(|model| {
        let stored = model.vm(model.serial_of(&vm));
        stored.is_some_and(|stored| stored.document.node.as_ref() == Some(&who.node))
    });
    if !lies_there {
        return PinAnswer::Failed(format!("node {} has no such VM", who.node));
    }
    let order = CommandRequest {
        command: Command::VmPin { id: vm, key, dialled: Dialled { owner, endpoint } },
        options: Options::default(),
        expected: None,
        actor: Actor { name: format!("agent of node {}", who.node), from },
    };
    match api.service.carry_out(order, Mode::Real) {
        Ok(_) => PinAnswer::Pinned,
        Err(ServiceError::Refused(Refusal::HostKeyTaken { of, .. })) => {
            PinAnswer::OfOtherOwner(of.to_string())
        }
        Err(ServiceError::Refused(Refusal::HostKeyOther { .. })) => PinAnswer::Other,
        Err(failed) => PinAnswer::Failed(failed.to_string()),
    }
}

/// The key whose holder is at the other end.
pub(super) fn shown(from: &Origin, parts: &Parts) -> Result<Fingerprint, Problem> {
    let shown = parts.headers.get(header::AUTHORIZATION);
    let proved = from.exporter().and_then(|exporter| proof::proved(shown, exporter));
    proved.ok_or_else(|| {
        Problem::unauthenticated("only agents and edges follow, by their keys, over TLS 1.3")
    })
}

/// Whose agent it is that has this key.
fn agent(api: &Api, model: &crate::registry::Model, key: Fingerprint) -> Result<Agent, Problem> {
    if let Some(why) = api.service.away() {
        return Err(Problem::registry_away(why));
    }
    let text = key.to_string();
    let node = model.node_of_agent(&text).ok_or_else(|| {
        Problem::forbidden(format!(
            "no node has an agent with the key {text}; fix: `keyway node token NODE`, and with that `keyway agent join` \
             there, or `keyway node set NODE --agent IP:PORT --agent-key {text}`"
        ))
    })?;
    Ok(Agent { node: node.clone(), key })
}

/// Whether there is a version of the frames that both ends know.
fn speaks(query: &str) -> Result<u16, Problem> {
    let Some(theirs) = value(query, "speaks").and_then(version::read) else {
        return Err(Problem::bad("speaks=FIRST-LAST says which versions of the feed are known"));
    };
    let agreed = version::agreed(version::SPOKEN, theirs);
    agreed.map_err(|why| Problem::new(StatusCode::CONFLICT, "feed-version", why.to_string()))
}

/// What a follower wrote.
fn value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(is, _)| *is == name).map(|(_, value)| value)
}
