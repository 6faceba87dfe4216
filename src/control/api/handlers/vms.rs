//! VMs.

use std::collections::BTreeSet;

use super::{behind, unknown};
use crate::control::api::context::Context;
use crate::control::api::dto;
use crate::control::api::problem::Problem;
use crate::control::api::reply::{Changed, Gone, List, Reply};
use crate::registry::command::{NewVm, Placement, VmSettings};
use crate::registry::document::{Document, Serial, Stored, Vm};
use crate::registry::refusal::Kind;
use crate::registry::writer::Committed;
use crate::registry::{Command, Label, Model, Principal};

type Answer<T> = Result<T, Problem>;

pub(in super::super) fn vms(context: &Context) -> Answer<List<dto::Vm>> {
    context.api.service.read(|model| {
        let query = &context.query;
        for principal in [&query.visible_to, &query.owner].into_iter().flatten() {
            if !model.exists(principal) {
                let kind = match principal {
                    Principal::User(_) => Kind::User,
                    Principal::Team(_) => Kind::Team,
                };
                return Err(unknown(kind, principal.label()));
            }
        }
        let visible = query.visible_to.as_ref().map(|principal| model.visible_to(principal));
        let there = match &query.address {
            Some(at) => Some(model.vms_at(at).ok_or_else(|| unknown(Kind::Address, at))?),
            None => None,
        };
        // All that somebody owns are among those that they see.
        let owned = query.owner.as_ref().map(|owner| model.visible_to(owner));
        let on = match &query.node {
            Some(node) if !model.nodes().contains_key(node) => {
                return Err(unknown(Kind::Node, node));
            }
            node => node.as_ref().map(|node| model.vms_on(node)),
        };
        let sets = [visible.as_ref(), owned.as_ref(), there, on];
        let after = query.after.as_deref();
        let items = some_vms(model, sets, after)
            .filter(|(_, vm)| query.owner.as_ref().is_none_or(|owner| vm.document.owner == *owner))
            .map(|(name, vm)| (name.to_string(), dto::Vm::of(model, &vm.document, vm.revision)));
        Ok(List::page(&context.query, model.revision(), items))
    })
}

/// The VMs that are in all of `sets`, by name: a page of a few among a million does not
/// look at the million.
fn some_vms<'m>(
    model: &'m Model,
    sets: [Option<&BTreeSet<Serial>>; 4],
    after: Option<&str>,
) -> Box<dyn Iterator<Item = (&'m Label, &'m Stored<Box<Vm>>)> + 'm> {
    let sets = || sets.into_iter().flatten();
    let Some(least) = sets().min_by_key(|set| set.len()) else {
        let all = behind(model.vm_names(), after);
        return Box::new(all.filter_map(|(name, serial)| Some((name, model.vm(*serial)?))));
    };
    let wanted = least.iter().filter(|serial| sets().all(|set| set.contains(serial)));
    let mut some: Vec<_> = wanted
        .filter_map(|serial| model.vm(*serial))
        .map(|vm| (&vm.document.name, vm))
        .filter(|(name, _)| after.is_none_or(|after| name.as_str() > after))
        .collect();
    some.sort_unstable_by_key(|(name, _)| *name);
    Box::new(some.into_iter())
}

pub(in super::super) fn vm(context: &Context) -> Answer<Reply<dto::Vm>> {
    let name = context.name(0)?;
    context.api.service.read(|model| {
        let (_, stored) = model.vm_named(&name).ok_or_else(|| unknown(Kind::Vm, &name))?;
        let body = dto::Vm::of(model, &stored.document, stored.revision);
        Ok(Reply { body, tag: Some(stored.revision) })
    })
}

/// Where a VM is put: at an address, nowhere, or where the allocator says.
fn placement(address: Option<&str>, no_address: bool) -> Answer<Placement> {
    match (address, no_address) {
        (Some(_), true) => {
            Err(Problem::invalid("`address` and `no_address` are both given; keep one"))
        }
        (Some(address), false) => Ok(Placement::At(Label::new(address)?)),
        (None, true) => Ok(Placement::Nowhere),
        (None, false) => Ok(Placement::Chosen),
    }
}

pub(in super::super) fn add(context: &Context, new: dto::NewVm) -> Answer<Changed<dto::Vm>> {
    let dto::NewVm {
        name,
        owner,
        ssh,
        login,
        host_key,
        source_address,
        address,
        no_address,
        node,
        carry,
    } = new;
    let name = Label::new(&name)?;
    let placement = placement(address.as_deref(), no_address)?;
    let owner = owner.parse::<Principal>()?;
    let node = node.as_deref().map(Label::new).transpose()?;
    let new = NewVm {
        login,
        host_key,
        source_address,
        placement,
        node,
        carry,
        ..NewVm::new(name.clone(), owner, ssh)
    };
    let done = context.carry_out(Command::VmAdd(new))?;
    Ok(changed(context, &done, &name))
}

pub(in super::super) fn remove(context: &Context) -> Answer<Changed<Gone>> {
    let done = context.carry_out(Command::VmRemove { name: context.name(0)? })?;
    Ok(context.changed(&done, |_| None))
}

pub(in super::super) fn set(context: &Context, patch: dto::VmPatch) -> Answer<Changed<dto::Vm>> {
    let name = context.name(0)?;
    let dto::VmPatch { ssh, login, host_key, source_address, state, node, carry } = patch;
    let set = VmSettings { ssh, login, host_key, source_address, state, node, carry };
    let done = context.carry_out(Command::VmSet { name: name.clone(), set })?;
    Ok(changed(context, &done, &name))
}

pub(in super::super) fn share(context: &Context, how: dto::NewAccess) -> Answer<Changed<dto::Vm>> {
    let (name, with) = (context.name(0)?, context.principal(1)?);
    let command = Command::VmShare { name: name.clone(), with, access: how.access };
    let done = context.carry_out(command)?;
    Ok(changed(context, &done, &name))
}

pub(in super::super) fn unshare(context: &Context) -> Answer<Changed<dto::Vm>> {
    let (name, with) = (context.name(0)?, context.principal(1)?);
    let done = context.carry_out(Command::VmUnshare { name: name.clone(), with })?;
    Ok(changed(context, &done, &name))
}

pub(in super::super) fn rename(context: &Context, to: dto::To) -> Answer<Changed<dto::Vm>> {
    let (name, to) = (context.name(0)?, Label::new(&to.to)?);
    let done = context.carry_out(Command::VmRename { name, to: to.clone() })?;
    Ok(changed(context, &done, &to))
}

pub(in super::super) fn transfer(
    context: &Context,
    dto::Transfer { to, keep }: dto::Transfer,
) -> Answer<Changed<dto::Vm>> {
    let (name, to) = (context.name(0)?, to.parse::<Principal>()?);
    let done = context.carry_out(Command::VmTransfer { name: name.clone(), to, keep })?;
    Ok(changed(context, &done, &name))
}

pub(in super::super) fn renumber(context: &Context, to: dto::Renumber) -> Answer<Changed<dto::Vm>> {
    let name = context.name(0)?;
    let to = placement(to.address.as_deref(), false)?;
    let done = context.carry_out(Command::VmRenumber { name: name.clone(), to })?;
    Ok(changed(context, &done, &name))
}

fn changed(context: &Context, done: &Committed, name: &Label) -> Changed<dto::Vm> {
    context.changed(done, |seen| match seen.vm(name)? {
        (Document::Vm(vm), at) => Some(dto::Vm::of(seen.model, &vm, at)),
        _ => None,
    })
}
