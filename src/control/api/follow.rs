//! The feed's two requests, at the API's TLS listener but none of its routes: no role is good for
//! them, and what is good for them is a role for nothing else.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::Response;
use http_body_util::{BodyExt, Limited};
use tokio::sync::mpsc;

use super::body;
use super::origin::Origin;
use super::pipeline::{Connection, wait};
use super::problem::Problem;
use super::response::with;
use super::shared::Api;
use super::trace::Asked;
use crate::control::feed::{self, Follower, PinAnswer, PinQuestion, proof};
use crate::registry::command::Dialled;
use crate::registry::refusal::Refusal;
use crate::registry::writer::{Actor, CommandRequest, Mode, ServiceError};
use crate::registry::{Command, Label, Options};
use crate::route::saved_routes::Head;
use crate::ssh::publickey::Fingerprint;

/// Frames that wait for a slow follower; all others of its audience share them.
const FRAMES_WAITING: usize = 4;
/// Bytes of a question about a host key: RSA of 8192 bits, with room to spare.
const QUESTION_BYTES_MAX: usize = 16 << 10;

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
        Ok((follower, begins)) => {
            // A place of its own: the hub knows how many there may be.
            connection.stays_outside();
            let (sender, receiver) = mpsc::channel(FRAMES_WAITING);
            tokio::spawn(feed::send(follower, begins, sender));
            with(StatusCode::OK, "application/octet-stream", body::Body::Frames(receiver))
        }
        Err(problem) => refused(&connection, &asked, problem),
    };
    response.map(Body::new)
}

async fn begin(connection: &Connection, parts: &Parts) -> Result<(Follower, Vec<Bytes>), Problem> {
    let (api, from) = (Arc::clone(connection.api()), connection.from());
    let key = shown(from, parts)?;
    let known = known(parts.uri.query().unwrap_or_default());
    let turn = Arc::clone(&api.turns).acquire_owned().await.map_err(|_| Problem::ending())?;
    wait(move || {
        let mut follower = {
            let model = api.service.model();
            let Agent { node, key } = agent(&api, &model, key)?;
            let follower = api.hub.follow(node.as_str(), key.0, known, &*model);
            follower.ok_or_else(Problem::ending)?
        };
        // Not while others wait for the registry.
        let begins = follower.begins();
        drop(turn);
        Ok((follower, begins))
    })
    .await
}

/// Pins the host key that a VM has shown, on the node of whoever asks.
pub(super) async fn pin(State(connection): State<Arc<Connection>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let asked = Asked::new(connection.from(), &parts);
    let response = match pinned(&connection, &parts, body).await {
        Ok(answer) => {
            let body = serde_json::to_vec(&answer).unwrap_or_default();
            with(StatusCode::OK, "application/json", body::Body::whole(body, None))
        }
        Err(problem) => refused(&connection, &asked, problem),
    };
    response.map(Body::new)
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
    let (api, from) = (Arc::clone(connection.api()), connection.from());
    let key = shown(from, parts)?;
    let who = agent(&api, &api.service.model(), key)?;
    let body = Limited::new(body, QUESTION_BYTES_MAX).collect().await;
    let body = body.map_err(|_| Problem::too_large(QUESTION_BYTES_MAX))?.to_bytes();
    let question: PinQuestion =
        serde_json::from_slice(&body).map_err(|_| Problem::bad("the body is no question"))?;
    let peer = from.peer();
    wait(move || Ok(pin_in_registry(&api, &who, question, peer))).await
}

fn pin_in_registry(api: &Api, who: &Agent, asked: PinQuestion, from: String) -> PinAnswer {
    let PinQuestion { vm, owner, endpoint, key } = asked;
    {
        let model = api.service.model();
        let lies_there = model
            .vm(model.serial_of(&vm))
            .is_some_and(|stored| stored.document.node.as_ref() == Some(&who.node));
        if !lies_there {
            return PinAnswer::Failed(format!("node {} has no such VM", who.node));
        }
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
    let mut nodes = model.nodes().iter();
    let its = |agent: &crate::registry::document::Agent| agent.key.as_ref() == Some(&text);
    let node = nodes.find(|(_, node)| node.document.agent.as_ref().is_some_and(its));
    let (node, _) = node.ok_or_else(|| {
        Problem::forbidden(format!(
            "no node has an agent with the key {text}; fix: `keyway node token NODE`, and with that `keyway agent join` \
             there, or `keyway node set NODE --agent IP:PORT --agent-key {text}`"
        ))
    })?;
    Ok(Agent { node: node.clone(), key })
}

/// `known=`, as a follower wrote it; what is not that begins anew.
fn known(query: &str) -> Option<Head> {
    let known = query.split('&').find_map(|pair| pair.strip_prefix("known="))?;
    feed::read_head(known)
}
