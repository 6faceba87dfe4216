//! Where agents join. The token is all that lets somebody in here, and it is good for nothing else;
//! who fails is told why, logged, and after some tries not heard for a while.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use http_body_util::{BodyExt, Limited};

use super::auth::TokenHash;
use super::follow::{refused, shown, told};
use super::pipeline::{Connection, in_turn};
use super::problem::Problem;
use super::shared::Api;
use super::trace::{self, Asked};
use crate::control::feed::{JoinAnswer, JoinQuestion, believed};
use crate::registry::refusal::Refusal;
use crate::registry::writer::{Actor, CommandRequest, Mode, ServiceError};
use crate::registry::{Command, Label, Options};
use crate::ssh::publickey::Fingerprint;

/// Bytes of a question: a token, and the fingerprints of some hundred keys.
const QUESTION_BYTES_MAX: usize = 16 << 10;

/// Makes whoever asks a node's agent, if it shows the token; or says what that would be.
pub(super) async fn join(State(connection): State<Arc<Connection>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut asked = Asked::new(connection.from(), &parts);
    let response = match joined(&connection, &parts, body, &mut asked).await {
        Ok(answer) => told(&answer),
        Err(problem) => {
            // What is away, or ends, is nobody's fault there.
            if !problem.status.is_server_error() {
                connection.api().traces.not_joined(connection.from());
            }
            refused(&connection, &asked, problem)
        }
    };
    response.map(Body::new)
}

async fn joined(
    connection: &Connection,
    parts: &Parts,
    body: Body,
    asked: &mut Asked,
) -> Result<JoinAnswer, Problem> {
    let (api, from) = (Arc::clone(connection.api()), connection.from());
    if !api.traces.may_join(from) {
        return Err(Problem::too_many_tries());
    }
    let key = shown(from, parts)?;
    let actor = Actor { name: format!("agent {key}"), from: from.peer() };
    asked.is_by(&actor);
    let body = Limited::new(body, QUESTION_BYTES_MAX).collect().await;
    let body = body.map_err(|_| Problem::too_large(QUESTION_BYTES_MAX))?.to_bytes();
    let question = serde_json::from_slice(&body);
    let question = question.map_err(|_| Problem::bad("the body is no question"))?;
    in_turn(Arc::clone(&api.turns), move || meet(&api, &actor, key, question)).await
}

fn meet(
    api: &Api,
    actor: &Actor,
    key: Fingerprint,
    question: JoinQuestion,
) -> Result<JoinAnswer, Problem> {
    let JoinQuestion { token, believes } = question;
    if let Some(why) = api.service.away() {
        return Err(Problem::registry_away(why));
    }
    let unknown = || Problem::from(Refusal::JoinTokenUnknown);
    let hash = TokenHash::of_join(token.trim()).ok_or_else(unknown)?;
    let name = api.service.read(|model| hash.joins(model)).ok_or_else(unknown)?;
    let told = api.hub.told().filter(|(_, told)| !told.host_keys.is_empty());
    let (head, told) = told.ok_or_else(|| {
        // With `--yes` nobody would see that there is nothing to believe.
        Problem::registry_away("nothing is known of the front door's keys; its log says why")
    })?;
    let mode = match believes {
        None => Mode::DryRun,
        Some(believes) if believes == believed(&told) => Mode::Real,
        Some(_) => {
            let detail = "the front door has other keys now than were shown; run it again";
            return Err(Problem::new(StatusCode::CONFLICT, "front-door-changed", detail));
        }
    };
    let hash = hash.into_text();
    let command = Command::NodeJoin { name: name.clone(), hash, key: key.to_string() };
    let (options, tried) = (Options::default(), command.clone());
    let order = CommandRequest { command, options, expected: None, actor: actor.clone() };
    if let Err(failed) = api.service.carry_out(order, mode) {
        // Whoever knows a token is somebody.
        if let ServiceError::Refused(refusal) = &failed {
            let command = trace::refused(tried, refusal.code());
            api.traces.note_refused(&api.service, actor, command);
        }
        return Err(failed.into());
    }
    if mode == Mode::Real {
        tracing::info!(node = %name, %key, from = actor.from, "an agent has joined");
    }
    let front_door = JoinAnswer::front_door(head, &told);
    of_node(api, &name, front_door).ok_or_else(unknown)
}

fn of_node(api: &Api, name: &Label, front_door: String) -> Option<JoinAnswer> {
    api.service.read(|model| {
        let node = &model.nodes().get(name)?.document;
        let (agent, trusted) = (node.agent.as_ref()?.at, node.trusted);
        Some(JoinAnswer { node: name.to_string(), agent, trusted, front_door })
    })
}
