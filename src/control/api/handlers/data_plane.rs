//! What is not in the registry: sessions, the way of a login, host keys, the zone, backups.

use std::path::Path;

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::unknown;
use crate::control::api::body::Text;
use crate::control::api::context::Context;
use crate::control::api::data_plane::{Asked, DataPlaneError, Question, Target};
use crate::control::api::dto;
use crate::control::api::problem::Problem;
use crate::control::api::query::plain;
use crate::control::api::reply::{Changed, Gone, List};
use crate::registry::Command;
use crate::registry::command::Noted;
use crate::registry::refusal::Kind;
use crate::registry::writer::Mode;
use crate::ssh::authorized_keys::AuthorizedKey;
use crate::ssh::certificate::{Certificate, CertificateFault};
use crate::ssh::publickey::{Fingerprint, PublicKey};

/// Sessions that are named of those that begin alike.
const AMBIGUOUS_SHOWN: usize = 5;

type Answer<T> = Result<T, Problem>;

impl From<DataPlaneError> for Problem {
    fn from(beyond: DataPlaneError) -> Self {
        match beyond {
            DataPlaneError::Exists(why) => Self::new(StatusCode::CONFLICT, "file-exists", why),
            DataPlaneError::Failed(why) => Self::store_failed(why),
        }
    }
}

/// Sessions by id.
pub(in super::super) fn sessions(context: &Context) -> Answer<List<dto::Session>> {
    let query = &context.query;
    let mut sessions = context.api.beside.sessions();
    sessions.retain(|session| {
        query.user.as_ref().is_none_or(|user| session.user == *user)
            && query.vm.as_ref().is_none_or(|vm| session.vm == *vm)
            && query.after.as_ref().is_none_or(|after| session.id > *after)
    });
    sessions.sort_by(|one, other| one.id.cmp(&other.id));
    let revision = context.api.service.revision();
    let items = sessions.into_iter().map(|session| (session.id.clone(), session));
    Ok(List::page(&context.query, revision, items))
}

/// Control links by node.
pub(in super::super) fn links(context: &Context) -> Answer<List<dto::Link>> {
    let query = &context.query;
    let mut links = context.api.beside.links();
    links.sort_by(|one, other| (&one.node, one.since_s).cmp(&(&other.node, other.since_s)));
    let links = links.into_iter().enumerate();
    // A node may have two, and nothing of theirs tells them apart for ever.
    let keyed = links.map(|(at, link)| (format!("{at:06}"), link));
    let items = keyed.filter(|(key, _)| query.after.as_ref().is_none_or(|after| key > after));
    let revision = context.api.service.revision();
    Ok(List::page(query, revision, items))
}

/// The large commit that waits, if one does.
pub(in super::super) fn staged(context: &Context) -> Answer<List<dto::Staged>> {
    let staged = context.api.hub.staged().into_iter();
    let items = staged.map(|it| (it.revision.to_string(), it.into()));
    let items = items.filter(|(key, _)| context.query.after.as_ref().is_none_or(|it| key > it));
    Ok(List::page(&context.query, context.api.service.revision(), items))
}

pub(in super::super) fn staged_release(context: &Context) -> Answer<Changed<Gone>> {
    let hub = &context.api.hub;
    let staged = match context.mode() {
        Mode::Real => hub.release(),
        Mode::DryRun => hub.staged(),
    };
    Ok(match (staged, context.mode()) {
        (Some(staged), Mode::Real) => {
            context.noted(Noted::NodeRelease, staged.revision.to_string())
        }
        (Some(_), Mode::DryRun) => context.acted(),
        (None, _) => {
            let warnings = vec!["no large commit waits".to_owned()];
            Changed { warnings, ..context.acted() }
        }
    })
}

/// The id of the one session that begins as asked; as asked, if there is none.
fn session_of(context: &Context) -> Answer<String> {
    let asked = context.param(0);
    let mut ids: Vec<String> = context.api.beside.sessions().into_iter().map(|it| it.id).collect();
    ids.retain(|id| id.starts_with(asked));
    if let [id] = ids.as_slice() {
        return Ok(id.clone());
    }
    if ids.len() < 2 || ids.iter().any(|id| id == asked) {
        return Ok(asked.to_owned());
    }
    ids.sort_unstable();
    let (count, asked) = (ids.len(), plain(asked));
    ids.truncate(AMBIGUOUS_SHOWN);
    let detail = format!(
        "{count} sessions begin with `{asked}`: {}{}; write more of it",
        ids.join(", "),
        if count > ids.len() { ", ..." } else { "" }
    );
    Err(Problem::new(StatusCode::CONFLICT, "ambiguous", detail))
}

pub(in super::super) fn session_end(context: &Context) -> Answer<Changed<Gone>> {
    let id = &session_of(context)?;
    let there = match context.mode() {
        Mode::Real => context.api.beside.end_session(id),
        Mode::DryRun => context.api.beside.sessions().iter().any(|session| session.id == *id),
    };
    if there {
        return Ok(match context.mode() {
            Mode::Real => context.noted(Noted::SessionKill, id),
            Mode::DryRun => context.acted(),
        });
    }
    let id = plain(id);
    Err(Problem::not_found(format!(
        "there is no session `{id}`; `keyway session list` shows what there is"
    )))
}

pub(in super::super) fn explain(
    context: &Context,
    asked: dto::Explain,
) -> Answer<dto::Explanation> {
    let dto::Explain { key, fingerprint, cert, address, name, login, from } = asked;
    let asked = match (key, fingerprint, cert) {
        (Some(line), None, None) => {
            let read = AuthorizedKey::parse(line.trim());
            let read =
                read.map_err(|fault| Problem::invalid(format!("`key` is no key: {fault}")))?;
            Asked::Key(read.key)
        }
        (None, Some(text), None) => {
            let fingerprint = text.parse::<Fingerprint>().map_err(|_| {
                Problem::invalid(
                    "`fingerprint` is none; write SHA256:... as ssh-keygen -l prints it",
                )
            })?;
            // A list of revocations may name the key in a way that its fingerprint does not show.
            registered(context, fingerprint).map_or(Asked::Fingerprint(fingerprint), Asked::Key)
        }
        (None, None, Some(line)) => match Certificate::parse_line(line.trim()) {
            Ok(certificate) => Asked::Certificate(Ok(Box::new(certificate))),
            Err(fault @ CertificateFault::Signature) => Asked::Certificate(Err(fault)),
            Err(fault) => {
                let fix = "give the line of the -cert.pub file";
                let what = format!("`cert` is no certificate: {fault}; {fix}");
                return Err(Problem::invalid(what));
            }
        },
        (_, _, _) => {
            return Err(Problem::invalid("give `key`, `fingerprint` or `cert`, one of them"));
        }
    };
    let target = match (address, name) {
        (Some(address), None) => Target::Address(address),
        (None, Some(name)) => Target::Name(name),
        (_, _) => return Err(Problem::invalid("give `address` or `name`, one of them")),
    };
    let question = Question { asked, target, login, from };
    Ok(context.api.beside.explain(&question))
}

/// The key of this fingerprint, if a user has it.
fn registered(context: &Context, fingerprint: Fingerprint) -> Option<PublicKey> {
    context.api.service.read(|model| {
        let user = &model.users().get(model.user_of(&fingerprint.0)?)?.document;
        let text = fingerprint.to_string();
        let key = user.keys.iter().find(|key| key.fingerprint == text)?;
        PublicKey::parse_line(&key.key).ok().map(|(key, _)| key)
    })
}

/// Host keys of this front door.
#[derive(Debug, JsonSchema, Serialize)]
pub(in super::super) struct HostKeys {
    items: Vec<dto::HostKey>,
}

pub(in super::super) fn host_keys(context: &Context) -> Answer<HostKeys> {
    Ok(HostKeys { items: context.api.beside.host_keys() })
}

pub(in super::super) fn vm_host_key(context: &Context) -> Answer<dto::VmHostKey> {
    let name = context.name(0)?;
    context.api.service.read(|model| {
        let (_, stored) = model.vm_named(&name).ok_or_else(|| unknown(Kind::Vm, &name))?;
        let vm = &stored.document;
        let pinned = dto::Pinned::of(vm);
        Ok(dto::VmHostKey { vm: vm.name.to_string(), given: vm.host_key.clone(), pinned })
    })
}

pub(in super::super) fn ca(context: &Context) -> Answer<dto::Ca> {
    let in_use = context.api.beside.ca().map(|ca| ca.to_string());
    let prepared_for = context.api.service.read(|model| model.registry().ca);
    Ok(dto::Ca { in_use, prepared_for })
}

pub(in super::super) fn ca_confirm(context: &Context) -> Answer<Changed<dto::Ca>> {
    let none = "there is no CA: vm_leg.identity logs in with one plain key";
    let in_use = context.api.beside.ca().ok_or_else(|| Problem::not_found(none))?;
    let fingerprint = in_use.to_string();
    let done = context.carry_out(Command::CaConfirm { fingerprint: fingerprint.clone() })?;
    let (in_use, prepared_for) = (Some(fingerprint.clone()), Some(fingerprint));
    Ok(context.changed(&done, |_| Some(dto::Ca { in_use, prepared_for })))
}

pub(in super::super) fn pin_forget(context: &Context) -> Answer<Changed<Gone>> {
    let done = context.carry_out(Command::VmUnpin { name: context.name(0)? })?;
    Ok(context.changed(&done, |_| None))
}

pub(in super::super) fn zone(context: &Context) -> Answer<Text> {
    let none = || Problem::not_found("there is no zone; name one in [dns] of keyway.toml");
    let write = context.api.beside.zone().ok_or_else(none)?;
    let no_thread = |error| Problem::store_failed(format!("no thread to write it on: {error}"));
    Text::start(write).map_err(no_thread)
}

pub(in super::super) fn backup(context: &Context, to: dto::Backup) -> Answer<Changed<Gone>> {
    let path = Path::new(&to.path);
    if !path.is_absolute() || to.path.contains('\0') {
        return Err(Problem::invalid(
            "`path` is no absolute path; it is one of the host that keyway runs on",
        ));
    }
    if context.mode() == Mode::Real {
        context.api.beside.backup(path)?;
        return Ok(context.noted(Noted::StoreBackup, plain(&to.path)));
    }
    Ok(context.acted())
}
