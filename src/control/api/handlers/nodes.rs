//! Nodes.

use axum::http::StatusCode;

use super::addresses_tokens::to_come;
use super::{behind, unknown};
use crate::control::api::auth::new_join_token;
use crate::control::api::context::Context;
use crate::control::api::dto;
use crate::control::api::nodes_beside::{GivenKey, Trial, Tried};
use crate::control::api::problem::Problem;
use crate::control::api::reply::{Changed, Gone, List, Reply};
use crate::registry::command::NodeSettings;
use crate::registry::document::{self, Document, Reached, SealedKey};
use crate::registry::refusal::Kind;
use crate::registry::writer::{Committed, Mode};
use crate::registry::{Command, Key, Label, Model, docker_of};
use crate::ssh::entropy::SystemEntropy;

type Answer<T> = Result<T, Problem>;

/// How long an agent may join with a token, in seconds, where nobody says.
const JOIN_S: u64 = 3600;

pub(in super::super) fn nodes(context: &Context) -> Answer<List<dto::Node>> {
    context.api.service.read(|model| {
        let items = behind(model.nodes(), context.query.after.as_deref()).map(|(name, stored)| {
            (name.to_string(), shown(context, model, (name, &stored.document, stored.revision)))
        });
        Ok(List::page(&context.query, model.revision(), items))
    })
}

/// As the registry has it; its Docker may have answered since that was written.
fn shown(
    context: &Context,
    model: &Model,
    (name, node, revision): (&Label, &document::Node, u64),
) -> dto::Node {
    let mut shown = dto::Node::of(model, name, node, revision);
    if node.docker.is_some() {
        shown.last_seen = context.api.beside.nodes().seen_s(name).max(shown.last_seen);
    }
    shown
}

pub(in super::super) fn node(context: &Context) -> Answer<Reply<dto::Node>> {
    let name = context.name(0)?;
    context.api.service.read(|model| {
        let stored = model.nodes().get(&name).ok_or_else(|| unknown(Kind::Node, &name))?;
        let body = shown(context, model, (&name, &stored.document, stored.revision));
        Ok(Reply { body, tag: Some(stored.revision) })
    })
}

pub(in super::super) fn add(context: &Context, new: dto::NewNode) -> Answer<Changed<dto::Node>> {
    let name = Label::new(&new.name)?;
    let dto::NewNode { agent, agent_key, trusted, labels, untested, .. } = new;
    let asked = dto::NewTest {
        ssh: new.ssh,
        local: new.local,
        docker_socket: new.docker_socket,
        host_key: new.host_key,
        accept_new: new.accept_new,
        networks: new.networks,
        private_key: new.private_key,
        passphrase: new.passphrase,
    };
    let given = given_key(asked.private_key.as_deref(), asked.passphrase.as_deref())?;
    let (accept_new, is_reached) = (asked.accept_new, asked.ssh.is_some() || asked.local);
    let has_key = asked.host_key.is_some() || accept_new || asked.local;
    let mut set = docker_settings(asked);
    // Nobody learns by a refusal later that it is no name, or taken.
    if context.api.service.read(|model| model.nodes().contains_key(&name)) {
        let set = NodeSettings::default();
        context.carry_out(Command::NodeAdd { name: name.clone(), set })?;
    }
    let mut found = None;
    if is_reached && has_key && !untested && context.mode() == Mode::Real {
        let docker = docker_of(&set)?;
        let trial = Trial { name: None, docker, key: given.clone(), accept_new };
        let Tried { shown, state } = context.api.beside.nodes().test(trial);
        let state = state.filter(|_| shown.state == Reached::Online);
        found = Some(state.ok_or_else(|| not_reached(&name, &shown))?);
        set.host_key = shown.host_key_line.filter(|_| set.ssh.is_some()).or(set.host_key);
    }
    if let Some(key) = &given {
        set.credential = Some(sealed(context, &name, key)?);
    }
    set = NodeSettings { agent, agent_key, trusted: Some(trusted), ..set };
    set.labels = Some(labels).filter(|labels| !labels.is_empty());
    let done = context.carry_out(Command::NodeAdd { name: name.clone(), set })?;
    if let Some(state) = found {
        // It is added, whether or not this can be written down.
        let _later = context.of_itself(Command::NodeFound { name: name.clone(), state });
    }
    Ok(changed(context, &done, &name))
}

fn docker_settings(asked: dto::NewTest) -> NodeSettings {
    let dto::NewTest { ssh, local, docker_socket, host_key, networks, .. } = asked;
    NodeSettings {
        ssh,
        local: local.then_some(true),
        docker_socket,
        host_key,
        networks,
        ..NodeSettings::default()
    }
}

fn given_key(text: Option<&str>, passphrase: Option<&str>) -> Answer<Option<GivenKey>> {
    match (text, passphrase) {
        (None, Some(_)) => {
            Err(Problem::invalid("`passphrase` is given, and no `private_key`".to_owned()))
        }
        (text, passphrase) => Ok(text.map(|text| GivenKey {
            text: text.to_owned().into(),
            passphrase: passphrase.map(|it| it.to_owned().into()),
        })),
    }
}

fn sealed(context: &Context, name: &Label, key: &GivenKey) -> Answer<SealedKey> {
    let sealed = context.api.beside.nodes().seal(name, key);
    sealed.map_err(|why| Problem::invalid(format!("`private_key` cannot be used: {why}")))
}

/// Why a node is not added.
fn not_reached(name: &Label, test: &dto::NodeTest) -> Problem {
    let why = test.reason.as_deref().unwrap_or("its Docker was not reached");
    let fix = test.fix.as_ref().map(|fix| format!("; fix: {fix}")).unwrap_or_default();
    let detail = format!("node `{name}` is not added: {why}{fix}");
    Problem::new(StatusCode::CONFLICT, "node-not-reached", detail)
}

pub(in super::super) fn set(
    context: &Context,
    patch: dto::NodePatch,
) -> Answer<Changed<dto::Node>> {
    let name = context.name(0)?;
    let dto::NodePatch { agent, agent_key, trusted, ssh, local, .. } = patch;
    let own_credential = patch.private_key.as_deref() == Some("");
    let text = patch.private_key.as_deref().filter(|text| !text.is_empty());
    let given = given_key(text, patch.passphrase.as_deref())?;
    let credential = given.map(|key| sealed(context, &name, &key)).transpose()?;
    let set = NodeSettings {
        agent,
        agent_key,
        trusted,
        ssh,
        local,
        docker_socket: patch.docker_socket,
        host_key: patch.host_key,
        networks: patch.networks,
        credential,
        own_credential,
        labels: patch.labels,
    };
    let done = context.carry_out(Command::NodeSet { name: name.clone(), set })?;
    Ok(changed(context, &done, &name))
}

/// Tries a node that nobody keeps.
pub(in super::super) fn test_new(context: &Context, asked: dto::NewTest) -> Answer<dto::NodeTest> {
    let key = given_key(asked.private_key.as_deref(), asked.passphrase.as_deref())?;
    let accept_new = asked.accept_new;
    let docker = docker_of(&docker_settings(asked))?;
    let trial = Trial { name: None, docker, key, accept_new };
    Ok(context.api.beside.nodes().test(trial).shown)
}

/// Tries a node, and keeps the host key that is confirmed if that was the right one.
pub(in super::super) fn test(context: &Context, asked: dto::Retest) -> Answer<dto::NodeTest> {
    let name = context.name(0)?;
    let node =
        context.api.service.read(|model| model.nodes().get(&name).map(|it| it.document.clone()));
    let node = node.ok_or_else(|| unknown(Kind::Node, &name))?;
    let Some(mut docker) = node.docker else {
        return Err(Problem::invalid(format!(
            "node `{name}` has no Docker that Keyway could reach; say how: `keyway node set {name} --ssh user@host`"
        )));
    };
    let mut is_unconfirmed = false;
    if let Some(ssh) = &mut docker.ssh
        && ssh.host_key.is_none()
    {
        is_unconfirmed = true;
        let given = NodeSettings {
            ssh: Some(ssh.endpoint.to_string()),
            host_key: asked.host_key,
            ..NodeSettings::default()
        };
        ssh.host_key = docker_of(&given)?.ssh.and_then(|ssh| ssh.host_key);
    }
    let accept_new = asked.accept_new && is_unconfirmed;
    let trial = Trial { name: Some(name.clone()), docker, key: None, accept_new };
    let Tried { shown, .. } = context.api.beside.nodes().test(trial);
    if let (true, Reached::Online, Some(line)) = (is_unconfirmed, shown.state, &shown.host_key_line)
    {
        context.carry_out(Command::NodePin { name, key: line.clone() })?;
    }
    Ok(shown)
}

pub(in super::super) fn token(
    context: &Context,
    new: dto::NewJoinToken,
) -> Answer<Changed<dto::Node>> {
    let name = context.name(0)?;
    let now_s = context.api.service.now_s();
    let expires_s = new.expires_s.unwrap_or_else(|| now_s.saturating_add(JOIN_S));
    to_come(context, expires_s)?;
    let (text, hash) = new_join_token(&mut SystemEntropy::default());
    let hash = hash.into_text();
    let done = context.carry_out(Command::NodeToken { name: name.clone(), hash, expires_s })?;
    let mut answer = changed(context, &done, &name);
    // A token that was never made is good for nothing.
    let item = answer.item.as_mut().filter(|_| context.mode() == Mode::Real);
    if let Some(join) = item.and_then(|node| node.join.as_mut()) {
        join.token = Some(text);
    }
    Ok(answer)
}

pub(in super::super) fn remove(context: &Context) -> Answer<Changed<Gone>> {
    let done = context.carry_out(Command::NodeRemove { name: context.name(0)? })?;
    Ok(context.changed(&done, |_| None))
}

fn changed(context: &Context, done: &Committed, name: &Label) -> Changed<dto::Node> {
    context.changed(done, |seen| match seen.get(&Key::Node(name.clone()))? {
        (Document::Node(node), at) => Some(shown(context, seen.model, (name, &node, at))),
        _ => None,
    })
}
