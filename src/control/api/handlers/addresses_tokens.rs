//! Pool addresses and tokens.

use super::{behind, unknown};
use crate::control::api::auth::new_token;
use crate::control::api::context::Context;
use crate::control::api::dto;
use crate::control::api::problem::Problem;
use crate::control::api::reply::{Changed, Gone, List, Moved, Reply};
use crate::registry::command::{NewAddress, Placement};
use crate::registry::document::{AddressState, Document};
use crate::registry::refusal::Kind;
use crate::registry::writer::{Committed, Mode, ServiceError};
use crate::registry::{Command, Key, Label};
use crate::ssh::entropy::SystemEntropy;

type Answer<T> = Result<T, Problem>;

/// VMs moved away together: others are served in between.
const TOGETHER: usize = 64;

pub(in super::super) fn addresses(context: &Context) -> Answer<List<dto::Address>> {
    context.api.service.read(|model| {
        let after = context.query.after.as_deref().unwrap_or_default();
        let items = model.addresses().filter(|(name, ..)| name.as_str() > after).map(
            |(name, stored, _)| {
                (name.to_string(), dto::Address::of(model, name, &stored.document, stored.revision))
            },
        );
        Ok(List::page(&context.query, model.revision(), items))
    })
}

pub(in super::super) fn address(context: &Context) -> Answer<Reply<dto::Address>> {
    let name = context.name(0)?;
    context.api.service.read(|model| {
        let stored = model.address(&name).ok_or_else(|| unknown(Kind::Address, &name))?;
        let body = dto::Address::of(model, &name, &stored.document, stored.revision);
        Ok(Reply { body, tag: Some(stored.revision) })
    })
}

pub(in super::super) fn address_add(
    context: &Context,
    new: dto::NewAddress,
) -> Answer<Changed<dto::Address>> {
    let dto::NewAddress { name, public, public6, private, lobby } = new;
    let (public, lobby, name) = (Some(public), Some(lobby), Label::new(&name)?);
    let address = NewAddress { public, public6, private, lobby, ..NewAddress::default() };
    let done = context.carry_out(Command::AddressAdd { name: name.clone(), address })?;
    Ok(changed(context, &done, &name))
}

pub(in super::super) fn address_remove(context: &Context) -> Answer<Changed<Gone>> {
    let done = context.carry_out(Command::AddressRemove { name: context.name(0)? })?;
    Ok(context.changed(&done, |_| None))
}

pub(in super::super) fn address_set(
    context: &Context,
    patch: dto::AddressPatch,
) -> Answer<Changed<dto::Address>> {
    let dto::AddressPatch { public, public6, private, lobby } = patch;
    let name = context.name(0)?;
    let address = NewAddress {
        public,
        public6: public6.ip(),
        private: private.ip(),
        lobby,
        no_public6: public6 == dto::IpPatch::None,
        no_private: private == dto::IpPatch::None,
    };
    let done = context.carry_out(Command::AddressSet { name: name.clone(), address })?;
    Ok(changed(context, &done, &name))
}

pub(in super::super) fn undrain(context: &Context) -> Answer<Changed<dto::Address>> {
    set_state(context, AddressState::Ready)
}

pub(in super::super) fn maint(context: &Context) -> Answer<Changed<dto::Address>> {
    set_state(context, AddressState::Maint)
}

fn set_state(context: &Context, state: AddressState) -> Answer<Changed<dto::Address>> {
    let name = context.name(0)?;
    let done = context.carry_out(Command::AddressState { name: name.clone(), state })?;
    Ok(changed(context, &done, &name))
}

/// No more VMs are put there, and those that stand there are moved, each by itself: one that
/// cannot be is told.
pub(in super::super) fn drain(context: &Context) -> Answer<Changed<dto::Address>> {
    let name = context.name(0)?;
    let state = Command::AddressState { name: name.clone(), state: AddressState::Drain };
    let away = |vm: &Label| Command::VmRenumber { name: vm.clone(), to: Placement::Chosen };
    let (done, vms, results) = match context.mode() {
        Mode::Real => {
            let done = context.carry_out(state)?;
            // From here on none is added.
            let vms = standing(context, &name);
            let mut results = Vec::with_capacity(vms.len());
            for some in vms.chunks(TOGETHER) {
                let orders = some.iter().map(|vm| context.order(away(vm))).collect();
                results.extend(context.api.service.carry_out_all(orders, Mode::Real));
            }
            (done, vms, results)
        }
        Mode::DryRun => {
            let vms = standing(context, &name);
            let mut first = context.order(state);
            first.expected = context.expected;
            let orders = std::iter::once(first).chain(vms.iter().map(|vm| context.order(away(vm))));
            let mut results =
                context.api.service.carry_out_all(orders.collect(), Mode::DryRun).into_iter();
            let done = results.next().unwrap_or(Err(ServiceError::Ended))?;
            (done, vms, results.collect())
        }
    };
    let mut answer = changed(context, &done, &name);
    for (vm, result) in vms.iter().zip(results) {
        match result {
            Ok(moved) => {
                answer.revision = answer.revision.max(moved.revision);
                answer.moves.extend(moved.report.moves.iter().map(Moved::from));
            }
            Err(ServiceError::Refused(refusal)) => {
                answer.warnings.push(format!("VM {vm} stays at {name}: {refusal}"));
            }
            Err(failed) => return Err(failed.into()),
        }
    }
    if let (Mode::Real, Some(item)) = (context.mode(), &mut answer.item) {
        item.vms = standing(context, &name).len();
    }
    Ok(answer)
}

/// The VMs at an address, by name.
fn standing(context: &Context, address: &Label) -> Vec<Label> {
    context.api.service.read(|model| {
        let serials = model.vms_at(address).into_iter().flatten();
        let mut names: Vec<Label> =
            serials.filter_map(|serial| Some(model.vm(*serial)?.document.name.clone())).collect();
        names.sort();
        names
    })
}

fn changed(context: &Context, done: &Committed, name: &Label) -> Changed<dto::Address> {
    context.changed(done, |seen| match seen.get(&Key::Address(name.clone()))? {
        (Document::Address(address), at) => Some(dto::Address::of(seen.model, name, &address, at)),
        _ => None,
    })
}

pub(in super::super) fn tokens(context: &Context) -> Answer<List<dto::Token>> {
    context.api.service.read(|model| {
        let items = behind(model.tokens(), context.query.after.as_deref()).map(|(name, stored)| {
            (name.to_string(), dto::Token::of(name, &stored.document, stored.revision))
        });
        Ok(List::page(&context.query, model.revision(), items))
    })
}

pub(in super::super) fn token_add(
    context: &Context,
    new: dto::NewToken,
) -> Answer<Changed<dto::Token>> {
    let dto::NewToken { name, role, expires_s } = new;
    let name = Label::new(&name)?;
    expires_s.map_or(Ok(()), |end_s| to_come(context, end_s))?;
    let (text, hash) = new_token(&mut SystemEntropy::default());
    let hash = hash.into_text();
    let done =
        context.carry_out(Command::TokenAdd { name: name.clone(), hash, role, expires_s })?;
    let mut answer = context.changed(&done, |seen| match seen.get(&Key::Token(name.clone()))? {
        (Document::Token(token), at) => Some(dto::Token::of(&name, &token, at)),
        _ => None,
    });
    // A token that was never made is good for nothing.
    if let (Mode::Real, Some(item)) = (context.mode(), &mut answer.item) {
        item.token = Some(text);
    }
    Ok(answer)
}

/// Refuses what ends before it begins.
pub(super) fn to_come(context: &Context, expires_s: u64) -> Answer<()> {
    if expires_s > context.api.service.now_s() {
        return Ok(());
    }
    let detail = "`expires_s` is in the past; write a Unix time to come, or leave it out";
    Err(Problem::invalid(detail))
}

pub(in super::super) fn token_remove(context: &Context) -> Answer<Changed<Gone>> {
    let done = context.carry_out(Command::TokenRemove { name: context.name(0)? })?;
    Ok(context.changed(&done, |_| None))
}
