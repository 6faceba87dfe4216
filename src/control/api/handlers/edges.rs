//! Edges.

use super::unknown;
use crate::control::api::context::Context;
use crate::control::api::dto;
use crate::control::api::problem::Problem;
use crate::control::api::reply::{Changed, List, Reply};
use crate::registry::document::{Document, EdgeState, Origin};
use crate::registry::refusal::Kind;
use crate::registry::writer::Committed;
use crate::registry::{Command, Key, Label};

type Answer<T> = Result<T, Problem>;

const REMOVED_IN_THE_FILE: &str = "the fleet file removed it: if that says `removed = true`, the next start or reload \
     removes it again; take that out there";
const IN_THE_FILE: &str = "the fleet file names it, which does not bring it back and is refused there from now on; say \
     `removed = true` there, or take it out";

/// By name; of one name the one that is admitted first.
pub(in super::super) fn edges(context: &Context) -> Answer<List<dto::Edge>> {
    context.api.service.read(|model| {
        let after = context.query.after.as_deref().unwrap_or_default();
        let mut all: Vec<(String, dto::Edge)> = model
            .edges()
            .iter()
            .map(|(key, stored)| {
                let edge = dto::Edge::of(*key, &stored.document, stored.revision);
                let cursor = format!("{} {} {}", edge.name, edge.state.word(), edge.fingerprint);
                (cursor, edge)
            })
            .filter(|(cursor, _)| cursor.as_str() > after)
            .collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(List::page(&context.query, model.revision(), all.into_iter()))
    })
}

pub(in super::super) fn edge(context: &Context) -> Answer<Reply<dto::Edge>> {
    let name = context.name(0)?;
    context.api.service.read(|model| {
        let (key, stored) = model.edge_named(&name).ok_or_else(|| unknown(Kind::Edge, &name))?;
        let body = dto::Edge::of(key, &stored.document, stored.revision);
        Ok(Reply { body, tag: Some(stored.revision) })
    })
}

pub(in super::super) fn add(context: &Context, new: dto::NewEdge) -> Answer<Changed<dto::Edge>> {
    let dto::NewEdge { name, identity } = new;
    let done = context.carry_out(Command::EdgeAdd { name: Label::new(&name)?, identity })?;
    let mut answer = changed(context, &done, EdgeState::Admitted);
    if was_of_file(&done, EdgeState::Removed) {
        answer.warnings.push(REMOVED_IN_THE_FILE.to_owned());
    }
    Ok(answer)
}

/// It is shown as it is remembered.
pub(in super::super) fn remove(context: &Context) -> Answer<Changed<dto::Edge>> {
    let name = context.name(0)?;
    // The entry in the audit says which it was: names are given again.
    let identity = admitted(context, &name);
    let done = context.carry_out(Command::EdgeRemove { name, identity })?;
    let mut answer = changed(context, &done, EdgeState::Removed);
    if was_of_file(&done, EdgeState::Admitted) {
        answer.warnings.push(IN_THE_FILE.to_owned());
    }
    Ok(answer)
}

/// The public key line of the edge of that name, if it is admitted.
fn admitted(context: &Context, name: &Label) -> Option<String> {
    context.api.service.read(|model| {
        let (_, stored) = model.edge_named(name)?;
        (stored.document.state == EdgeState::Admitted).then(|| stored.document.key.clone())
    })
}

/// Whether the file had made it so.
fn was_of_file(done: &Committed, state: EdgeState) -> bool {
    let mut before = done.written.iter().filter_map(|written| written.before.as_ref());
    let is = (Origin::Fleet, state);
    before.any(|(it, _)| matches!(it, Document::Edge(edge) if (edge.origin, edge.state) == is))
}

fn changed(context: &Context, done: &Committed, now: EdgeState) -> Changed<dto::Edge> {
    context.changed(done, |seen| {
        let mut written = done.written.iter().map(|written| &written.key);
        let key = written.find_map(|key| if let Key::Edge(key) = key { Some(*key) } else { None });
        match seen.get(&Key::Edge(key?))? {
            (Document::Edge(edge), at) if edge.state == now => Some(dto::Edge::of(key?, &edge, at)),
            _ => None,
        }
    })
}
