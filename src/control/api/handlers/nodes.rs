//! Nodes.

use super::addresses_tokens::to_come;
use super::{behind, unknown};
use crate::control::api::auth::new_join_token;
use crate::control::api::context::Context;
use crate::control::api::dto;
use crate::control::api::problem::Problem;
use crate::control::api::reply::{Changed, Gone, List, Reply};
use crate::registry::command::NodeSettings;
use crate::registry::document::Document;
use crate::registry::refusal::Kind;
use crate::registry::writer::{Committed, Mode};
use crate::registry::{Command, Key, Label};
use crate::ssh::entropy::SystemEntropy;

type Answer<T> = Result<T, Problem>;

/// How long an agent may join with a token, in seconds, where nobody says.
const JOIN_S: u64 = 3600;

pub(in super::super) fn nodes(context: &Context) -> Answer<List<dto::Node>> {
    context.api.service.read(|model| {
        let items = behind(model.nodes(), context.query.after.as_deref()).map(|(name, stored)| {
            (name.to_string(), dto::Node::of(model, name, &stored.document, stored.revision))
        });
        Ok(List::page(&context.query, model.revision(), items))
    })
}

pub(in super::super) fn node(context: &Context) -> Answer<Reply<dto::Node>> {
    let name = context.name(0)?;
    context.api.service.read(|model| {
        let stored = model.nodes().get(&name).ok_or_else(|| unknown(Kind::Node, &name))?;
        let body = dto::Node::of(model, &name, &stored.document, stored.revision);
        Ok(Reply { body, tag: Some(stored.revision) })
    })
}

pub(in super::super) fn add(context: &Context, new: dto::NewNode) -> Answer<Changed<dto::Node>> {
    let dto::NewNode { name, agent, agent_key, trusted } = new;
    let name = Label::new(&name)?;
    let set = NodeSettings { agent, agent_key, trusted: Some(trusted) };
    let done = context.carry_out(Command::NodeAdd { name: name.clone(), set })?;
    Ok(changed(context, &done, &name))
}

pub(in super::super) fn set(
    context: &Context,
    patch: dto::NodePatch,
) -> Answer<Changed<dto::Node>> {
    let dto::NodePatch { agent, agent_key, trusted } = patch;
    let (name, set) = (context.name(0)?, NodeSettings { agent, agent_key, trusted });
    let done = context.carry_out(Command::NodeSet { name: name.clone(), set })?;
    Ok(changed(context, &done, &name))
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
        (Document::Node(node), at) => Some(dto::Node::of(seen.model, name, &node, at)),
        _ => None,
    })
}
