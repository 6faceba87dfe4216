//! Users, their keys, and teams.

use std::ops::Bound;

use super::{behind, unknown};
use crate::control::api::context::Context;
use crate::control::api::dto;
use crate::control::api::problem::Problem;
use crate::control::api::reply::{Changed, Gone, List, Reply, Seen};
use crate::registry::document::{Document, UserKey};
use crate::registry::refusal::Kind;
use crate::registry::writer::Committed;
use crate::registry::{Command, Key, Label};

type Answer<T> = Result<T, Problem>;

pub(in super::super) fn users(context: &Context) -> Answer<List<dto::User>> {
    context.api.service.read(|model| {
        let items = behind(model.users(), context.query.after.as_deref()).map(|(name, stored)| {
            (name.to_string(), dto::User::of(model, name, &stored.document, stored.revision))
        });
        Ok(List::page(&context.query, model.revision(), items))
    })
}

pub(in super::super) fn user(context: &Context) -> Answer<Reply<dto::User>> {
    let name = context.name(0)?;
    context.api.service.read(|model| {
        let stored = model.users().get(&name).ok_or_else(|| unknown(Kind::User, &name))?;
        let body = dto::User::of(model, &name, &stored.document, stored.revision);
        Ok(Reply { body, tag: Some(stored.revision) })
    })
}

pub(in super::super) fn user_add(
    context: &Context,
    new: dto::NewUser,
) -> Answer<Changed<dto::User>> {
    let name = Label::new(&new.name)?;
    let done = context.carry_out(Command::UserAdd { name: name.clone(), keys: new.keys })?;
    Ok(user_changed(context, &done, &name))
}

pub(in super::super) fn user_remove(context: &Context) -> Answer<Changed<Gone>> {
    let done = context.carry_out(Command::UserRemove { name: context.name(0)? })?;
    Ok(context.changed(&done, |_| None))
}

fn user_changed(context: &Context, done: &Committed, name: &Label) -> Changed<dto::User> {
    context.changed(done, |seen| match seen.get(&Key::User(name.clone()))? {
        (Document::User(user), at) => Some(dto::User::of(seen.model, name, &user, at)),
        _ => None,
    })
}

pub(in super::super) fn key_add(context: &Context, new: dto::NewKey) -> Answer<Changed<dto::User>> {
    let user = context.name(0)?;
    let done = context.carry_out(Command::KeyAdd { user: user.clone(), line: new.line })?;
    Ok(user_changed(context, &done, &user))
}

pub(in super::super) fn key_set(context: &Context, new: dto::NewKey) -> Answer<Changed<dto::User>> {
    let (user, fingerprint) = (context.name(0)?, context.param(1).to_owned());
    let command = Command::KeySet { user: user.clone(), fingerprint, line: new.line };
    let done = context.carry_out(command)?;
    Ok(user_changed(context, &done, &user))
}

pub(in super::super) fn key_remove(context: &Context) -> Answer<Changed<dto::User>> {
    let user = context.name(0)?;
    let fingerprint = context.param(1).to_owned();
    let done = context.carry_out(Command::KeyRemove { user: user.clone(), fingerprint })?;
    Ok(user_changed(context, &done, &user))
}

/// Keys by user and fingerprint; the cursor is both.
pub(in super::super) fn keys(context: &Context) -> Answer<List<dto::Key>> {
    let after = context.query.after.as_deref();
    let (user, fingerprint) = after.map_or(("", ""), |it| it.split_once('/').unwrap_or((it, "")));
    context.api.service.read(|model| {
        let users = model.users().range::<str, _>((Bound::Included(user), Bound::Unbounded));
        let items = users.flat_map(|(name, stored)| {
            let mut keys: Vec<&UserKey> = stored.document.keys.iter().collect();
            keys.retain(|key| name.as_str() != user || key.fingerprint.as_str() > fingerprint);
            keys.sort_by(|one, other| one.fingerprint.cmp(&other.fingerprint));
            let shown = |key: &UserKey| {
                (format!("{name}/{}", key.fingerprint), dto::Key::new(key, Some(name)))
            };
            keys.into_iter().map(shown).collect::<Vec<_>>()
        });
        Ok(List::page(&context.query, model.revision(), items))
    })
}

pub(in super::super) fn teams(context: &Context) -> Answer<List<dto::Team>> {
    context.api.service.read(|model| {
        let items = behind(model.teams(), context.query.after.as_deref()).map(|(name, stored)| {
            (name.to_string(), dto::Team::of(model, name, &stored.document, stored.revision))
        });
        Ok(List::page(&context.query, model.revision(), items))
    })
}

pub(in super::super) fn team(context: &Context) -> Answer<Reply<dto::Team>> {
    let name = context.name(0)?;
    context.api.service.read(|model| {
        let stored = model.teams().get(&name).ok_or_else(|| unknown(Kind::Team, &name))?;
        let body = dto::Team::of(model, &name, &stored.document, stored.revision);
        Ok(Reply { body, tag: Some(stored.revision) })
    })
}

pub(in super::super) fn team_add(
    context: &Context,
    new: dto::NewTeam,
) -> Answer<Changed<dto::Team>> {
    let name = Label::new(&new.name)?;
    let members = new.members.iter().map(|member| Label::new(member)).collect::<Result<_, _>>()?;
    let done = context.carry_out(Command::TeamAdd { name: name.clone(), members })?;
    Ok(team_changed(context, &done, &name))
}

pub(in super::super) fn team_remove(context: &Context) -> Answer<Changed<Gone>> {
    let done = context.carry_out(Command::TeamRemove { name: context.name(0)? })?;
    Ok(context.changed(&done, |_| None))
}

pub(in super::super) fn join(context: &Context, how: dto::NewAccess) -> Answer<Changed<dto::Team>> {
    let (team, user) = (context.name(0)?, context.name(1)?);
    let command = Command::TeamJoin { team: team.clone(), user, access: how.access };
    let done = context.carry_out(command)?;
    Ok(team_changed(context, &done, &team))
}

pub(in super::super) fn leave(context: &Context) -> Answer<Changed<dto::Team>> {
    let (team, user) = (context.name(0)?, context.name(1)?);
    let done = context.carry_out(Command::TeamLeave { team: team.clone(), user })?;
    Ok(team_changed(context, &done, &team))
}

fn team_changed(context: &Context, done: &Committed, name: &Label) -> Changed<dto::Team> {
    context.changed(done, |seen: &Seen<'_>| match seen.get(&Key::Team(name.clone()))? {
        (Document::Team(team), at) => Some(dto::Team::of(seen.model, name, &team, at)),
        _ => None,
    })
}
