//! A store of another history than the routes that were saved last: whether it is to be believed,
//! and what is to be remembered before it serves, so that no slot leads to another VM soon and no
//! revision is told twice.
//!
//! Every store that a restore replaced is read, and the routes and quarantined slots that were
//! saved beside them. Where these may not tell all that there was (the store was damaged, or was
//! never on this host: what is saved beside it is not synced), new slots are refused for one
//! quarantine as well: what is not known cannot be quarantined.

use std::path::Path;

use super::Failure;
use super::last_said::LastSaid;
use crate::plain_text::masked;
use crate::registry::command::{Noted, Way};
use crate::registry::refusal::utc;
use crate::registry::store::sqlite::{self, Replaced};
use crate::registry::store::{self, Revision, Sqlite, Store as _, StoreId};
use crate::registry::writer::{Actor, CommandRequest, Mode};
use crate::registry::{Command, Label, Limits, Model, Options, Service, writer};
use crate::route::saved_routes::Head;
use crate::ssh::publickey::Fingerprint;
use crate::state::routes::{Saved, Ways, differs};
use crate::state::{Adopted, Adopting, RemovedEdge, Restored, State};

/// Revisions that a lost history may have made since its backup: more than any has. Twenty of them
/// are half of what a serial of the zone can grow by and still be the later one (RFC 1982 §3.2).
const REVISIONS_LOST_MAX: u64 = 100_000_000;
/// Ways remembered by one command: each is a document at most, and some move a VM.
const WAYS_TOGETHER: usize = 32;

/// What has to be done before a store of another history serves.
pub(super) struct Adoption {
    /// Who asked for it.
    actor: Actor,
    /// Restores that led to it, the earliest first.
    restored: Vec<Restored>,
    kept: Kept,
    /// What the stores knew that were replaced.
    replaced: Vec<Before>,
    /// Until when new slots are refused.
    closed_until_s: Option<u64>,
    /// For the audit log.
    about: String,
}

/// What was kept beside the store.
struct Kept {
    /// Of which moment the routes are that were saved last.
    last: Option<Head>,
    /// The routes themselves; nothing of those that could not be kept.
    routes: Option<Ways>,
    /// Slots that the saved routes led by not long ago.
    quarantined: Vec<Way>,
    /// Edges that were removed, and must not come back with a backup.
    removed_edges: Vec<RemovedEdge>,
}

/// A store that was replaced.
struct Before {
    head: store::Head,
    model: Model,
    /// When the ways that it had may lead elsewhere.
    ways_until_s: u64,
}

/// What is known of the time before.
pub(super) struct Known<'a> {
    pub(super) state: &'a State,
    pub(super) saved: &'a Saved,
    /// What was saved when an adoption began that was cut short.
    pub(super) before: &'a Saved,
    pub(super) limits: &'a Limits,
    pub(super) now_s: u64,
}

impl Adoption {
    /// What has to be done before `store` serves; nothing if it goes on where the routes ended.
    /// Raises the store's revision above all that were seen.
    ///
    /// # Errors
    /// The store is another one, or an earlier state of it, and nobody has adopted it; or
    /// something cannot be read.
    pub(super) fn begin(store: &Sqlite, known: &Known<'_>) -> Result<Option<Self>, Failure> {
        let Known { state, saved, before, limits, now_s } = *known;
        let head = store.head()?;
        let adopted = state.adopted()?.filter(|adopted| adopted.is(head));
        let other = saved.last().filter(|last| differs(*last, head));
        if let Some(last) = other {
            if adopted.is_none() {
                return Err(refused(&state.store(), head, last).into());
            }
            saved.set_aside(before)?;
        }
        let begun = state.adopting()?.filter(|begun| other.is_none() && begun.goes_on(head));
        let adopted = adopted.or_else(|| begun.as_ref()?.adopted.clone());
        let last = before.last();
        let restored = state.restored()?;
        let is_restored = restored.iter().any(|it| it.store_id == head.store_id.to_string());
        if last.is_none() && !is_restored {
            if begun.is_some() {
                state.settle()?;
            }
            return Ok(None);
        }
        let (replaced, unreadable) = read_replaced(state, limits, now_s)?;
        let kept = Kept::read(state, before)?;
        let told_by_one = |last: Head| {
            let same = |it: &&Before| it.head.store_id.0 == last.store;
            replaced.iter().filter(same).any(|it| it.head.revision.0 >= last.revision)
        };
        // What could not be saved is of a later moment than is known.
        let all_saved = unreadable == 0 && !before.is_spoiled();
        let all_known = all_saved && last.is_some_and(told_by_one);
        let nothing_lost = adopted.as_ref().is_some_and(|adopted| adopted.nothing_lost);
        let inherited_s =
            replaced.iter().filter_map(|before| before.model.closed_until_s(now_s)).max();
        let closed_until_s = match (nothing_lost, all_known) {
            (true, _) => None,
            (false, true) => inherited_s,
            (false, false) => inherited_s.max(Some(now_s.saturating_add(limits.quarantine_s))),
        };
        let seen = replaced.iter().map(|before| before.head.revision.0);
        let seen = seen.chain(last.map(|last| last.revision)).max().unwrap_or(0);
        let beyond = if all_known || nothing_lost { 0 } else { REVISIONS_LOST_MAX };
        let floor = seen.max(head.revision.0).saturating_add(1).saturating_add(beyond);
        // What was begun is not raised again: each time it would be by more than any history has.
        let (revision, floor) =
            begun.map_or((head.revision.0, floor), |begun| (begun.revision, begun.floor));
        let store_id = head.store_id.to_string();
        state.note_adopting(&Adopting { store_id, revision, floor, adopted: adopted.clone() })?;
        let raised = store.raise(Revision(floor))?;
        let id = head.store_id;
        let (place, slots) = (place(last), slots(closed_until_s));
        let about = format!(
            "store {id} at revision {}, now {}, {place}; {slots}",
            Revision(revision),
            raised.revision
        );
        let actor =
            adopted.map_or_else(Actor::itself, |adopted| by(adopted.uid, "keyway store adopt"));
        // A restore that failed was noted before it began.
        let known_id = |restored: &Restored| {
            let mut ids = replaced.iter().map(|it| it.head.store_id).chain([id]);
            ids.any(|id| id.to_string() == restored.store_id)
        };
        let restored = restored.into_iter().filter(known_id).collect();
        Ok(Some(Self { actor, restored, kept, replaced, closed_until_s, about }))
    }

    /// The ids of the stores that it stands in for.
    pub(super) fn stores(&self) -> Vec<[u8; 16]> {
        let replaced = self.replaced.iter().map(|before| before.head.store_id.0);
        replaced.chain(self.kept.last.iter().map(|last| last.store)).collect()
    }

    /// Tells the registry of all that, before it serves. Says which edges were admitted again after
    /// their removal.
    ///
    /// # Errors
    /// What the registry says; all of it can be done again.
    pub(super) fn carry_out(self, service: &Service) -> Result<Vec<Fingerprint>, Failure> {
        let Self { actor, restored, kept, replaced, closed_until_s, about } = self;
        let Kept { routes, quarantined, removed_edges, .. } = kept;
        let order = |actor: &Actor, command| CommandRequest {
            command,
            options: Options::default(),
            expected: None,
            actor: actor.clone(),
        };
        let note = |what, about| Command::Note { what, about };
        let mut orders = Vec::new();
        for Restored { store_id, at_s, from, uid } in restored {
            let about = format!("store {store_id} from {} at {}", masked(&from, 200), utc(at_s));
            orders.push(order(&by(uid, "keyway restore"), note(Noted::StoreRestore, about)));
        }
        if let Some(until_s) = closed_until_s {
            tracing::warn!(
                "what was given out after the backup is not known: nobody is given a slot that they have not until {}",
                utc(until_s)
            );
            orders.push(order(&actor, Command::Close { until_s }));
        }
        let mut last_said = service.read(|model| {
            let now = model.edges().values().map(|stored| &stored.document);
            let before = replaced.iter().flat_map(|before| before.model.edges().values());
            LastSaid::of(now, removed_edges, before.map(|stored| &stored.document))
        });
        let admitted = std::mem::take(&mut last_said.admitted);
        for RemovedEdge { name, .. } in &last_said.removed {
            tracing::warn!("edge {name} was removed after the backup: it stays so");
        }
        orders.extend(last_said.orders().map(|command| order(&actor, command)));
        let ways = service.read(|model| ways(model, routes.as_ref(), quarantined, &replaced));
        let remembered = ways.chunks(WAYS_TOGETHER);
        orders.extend(
            remembered.map(|some| order(&actor, Command::QuarantineWays { ways: some.to_vec() })),
        );
        tracing::info!("adopting {about}");
        orders.push(order(&actor, note(Noted::StoreAdopt, about)));
        for answer in service.carry_out_all(orders, Mode::Real) {
            answer?;
        }
        Ok(admitted)
    }
}

fn refused(path: &Path, head: store::Head, last: Head) -> String {
    format!(
        "{} is store {} at revision {}, and this front door's routes are of store {} at revision {}: a backup was restored, \
         or an old copy was put back; if it is the one to believe, run `keyway store adopt` and start keyway again",
        path.display(),
        head.store_id,
        head.revision,
        StoreId(last.store),
        last.revision
    )
}

/// What a store knew that was replaced. It may be of an earlier Keyway.
fn read(path: &Path, limits: &Limits) -> Result<(store::Head, Model), Failure> {
    let store = Sqlite::open_kept(path)?;
    let head = store.head()?;
    Ok((head, writer::load(&store, limits)?))
}

/// The stores that restores replaced and whose ways may not lead elsewhere yet; and how many of
/// them cannot be read.
fn read_replaced(
    state: &State,
    limits: &Limits,
    now_s: u64,
) -> Result<(Vec<Before>, usize), Failure> {
    let (mut replaced, mut unreadable) = (Vec::new(), 0);
    for Replaced { path, until_s } in sqlite::replaced(&state.store())? {
        let ways_until_s = until_s.min(now_s).saturating_add(limits.quarantine_s);
        // Nothing that was there is quarantined longer than that.
        if ways_until_s <= now_s {
            continue;
        }
        match read(&path, limits) {
            Ok((head, model)) => replaced.push(Before { head, model, ways_until_s }),
            Err(why) => {
                tracing::warn!("{}: {why}", path.display());
                unreadable += 1;
            }
        }
    }
    Ok((replaced, unreadable))
}

/// Which routes a store takes the place of, in words.
fn place(last: Option<Head>) -> String {
    match last {
        Some(Head { store, revision, .. }) => {
            format!("in place of store {} at revision {revision}", StoreId(store))
        }
        None => "where no routes were saved".to_owned(),
    }
}

/// What is known of the slots, in words.
fn slots(closed_until_s: Option<u64>) -> String {
    closed_until_s.map_or_else(
        || "all slots are known".to_owned(),
        |until_s| format!("no new slots until {}", utc(until_s)),
    )
}

impl Kept {
    fn read(state: &State, before: &Saved) -> Result<Self, Failure> {
        let removed_edges = state.removed_edges()?;
        let last = before.last();
        let (routes, quarantined) = match last {
            Some(_) if before.is_spoiled() => (None, before.quarantined.read()?),
            Some(_) => (Some(before.ways()?), before.quarantined.read()?),
            None => (None, Vec::new()),
        };
        Ok(Self { last, routes, quarantined, removed_edges })
    }
}

/// All ways that there were: those that were saved may have been used until now, those of a store
/// until it was replaced.
fn ways(
    model: &Model,
    routes: Option<&Ways>,
    quarantined: Vec<Way>,
    replaced: &[Before],
) -> Vec<Way> {
    let mut ways = Vec::new();
    for Before { model: before, ways_until_s, .. } in replaced {
        let all = before.ways().into_iter();
        let all = all.map(|way| Way { until_s: way.until_s.or(Some(*ways_until_s)), ..way });
        ways.extend(model.with_members(all.collect(), before.seeing_members()));
    }
    if let Some(routes) = routes {
        // The store that the routes are of knows best which VM had an id: another may have had it
        // at the backup's time.
        let of = replaced.iter().filter(|before| before.head.store_id.0 == routes.head.store);
        let of = of.max_by_key(|before| before.head.revision.0);
        let way = |(principal, address, vm): &(String, String, String)| {
            let (principal, address) = (principal.parse().ok()?, Label::new(address).ok()?);
            let vm = of.and_then(|it| it.model.of_id(vm)).unwrap_or_else(|| model.serial_of(vm));
            Some(Way { principal, address, vm, until_s: None, endpoint: None })
        };
        let member = |(team, user): &(String, String)| {
            Some((Label::new(team).ok()?, Label::new(user).ok()?))
        };
        let members: Vec<_> = routes.members.iter().filter_map(member).collect();
        let members = members.iter().map(|(team, user)| (team, user));
        let all = routes.slots.iter().filter_map(way).chain(quarantined);
        ways.extend(model.with_members(all.collect(), members));
    }
    ways
}

impl Adopting {
    /// Whether it is of this store, before or after its revision was raised.
    fn goes_on(&self, head: store::Head) -> bool {
        let revision = head.revision.0;
        let same = self.store_id == head.store_id.to_string();
        same && (revision == self.revision || revision >= self.floor)
    }
}

impl Adopted {
    /// Whether the store was looked at as it is.
    fn is(&self, head: store::Head) -> bool {
        self.store_id == head.store_id.to_string() && self.revision == head.revision.0
    }
}

fn by(uid: u32, command: &str) -> Actor {
    Actor { name: format!("uid {uid}"), from: command.to_owned() }
}

#[cfg(test)]
#[path = "adoption_tests.rs"]
mod tests;
