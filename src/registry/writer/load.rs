//! From a store to a model and to the routing map, at a start: one thread reads, decodes, and fills
//! the map, while another puts the model together.

#![expect(
    clippy::disallowed_methods,
    reason = "the store is read by one thread while another one builds the model"
)]

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::mpsc::{Sender, channel};

use super::request::{RegistryError, Subscriber, Update};
use crate::registry::document::{Document, Edge, Key, PREFIXES, Serial, Stored};
use crate::registry::model::{Limits, Model};
use crate::registry::name::Label;
use crate::registry::routes;
use crate::registry::store::{EntryRef, Part, Store};
use crate::route::Contents;

/// Documents handed over together.
const TOGETHER: usize = 512;
/// Bytes of a name that are compared where the name itself need not be fetched.
const PREFIX_BYTES: usize = 8;

/// What becomes of a document that cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unreadable {
    /// Nothing is read: what it says may be a right, or the end of one.
    Refused,
    /// It is no document: whoever only follows takes rights away rather than none.
    LeftOut,
}

/// What a follower is told of.
type Everything = (Contents, Vec<Edge>);
/// A document, where it stands, and the revision that wrote it.
type Read = (Key, Document, u64);

/// Reads all documents, and tells the follower, unless that is `known` to be at the
/// store's revision.
///
/// # Errors
/// [`RegistryError`]; the follower was told nothing then.
pub(super) fn load(
    store: &dyn Store,
    limits: &Limits,
    known: Option<u64>,
    unreadable: Unreadable,
    follow: &mut Subscriber,
) -> Result<Model, RegistryError> {
    let now = match known {
        Some(_) => Some(store.head()?.revision.0),
        None => None,
    };
    let wanted = known.is_none() || known != now;
    // Without a limit: what waits here is on its way into the model, which holds all
    // of it in the end.
    let (hand, handed) = channel();
    let model = std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().name("registry-load".to_owned());
        let told = &mut *follow;
        let reader = reader.spawn_scoped(scope, move || {
            let told_of = wanted.then(Everything::default);
            let (revision, told_of) = read(store, told_of, unreadable, &hand)?;
            // The model need not wait for the routing map, nor the map for the model.
            drop(hand);
            if let Some((contents, edges)) = told_of {
                told(Update::Everything { revision, contents, edges });
            }
            Ok::<_, RegistryError>(revision)
        })?;
        let mut model = Model::new(limits.clone());
        let mut names = Vec::new();
        for some in handed {
            let some: Vec<Read> = some;
            for (key, document, revision) in some {
                match (key, document) {
                    (Key::Vm(serial), Document::Vm(document)) => {
                        names.push((prefix(&document.name), document.name.clone(), serial));
                        model.fill_vm(serial, Stored { document, revision });
                    }
                    (key, document) => drop(model.put(&key, Some(document), revision)),
                }
            }
        }
        model.fill_vm_names(sorted(names));
        let revision = reader.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        model.at_revision(revision);
        Ok::<_, RegistryError>(model)
    })?;
    if !wanted && now != Some(model.revision()) {
        // Somebody wrote meanwhile: what the follower knew is no longer all.
        return load(store, limits, None, unreadable, follow);
    }
    Ok(model)
}

/// Reads all documents and hands them over; returns the store's revision and, if wanted, what they
/// mean for whoever follows.
fn read(
    store: &dyn Store,
    mut told_of: Option<Everything>,
    unreadable: Unreadable,
    hand: &Sender<Vec<Read>>,
) -> Result<(u64, Option<Everything>), RegistryError> {
    let (mut some, mut fault) = (Vec::with_capacity(TOGETHER), None);
    let head = store.snapshot_parts(&PREFIXES.map(Part::whole), &mut |entry| {
        if fault.is_some() {
            return;
        }
        match decode(entry) {
            Ok(read) => {
                match (&mut told_of, &read.1) {
                    (Some((_, edges)), Document::Edge(edge)) => edges.push(edge.clone()),
                    (Some((contents, _)), document) => routes::enter(contents, &read.0, document),
                    (None, _) => {}
                }
                some.push(read);
            }
            Err(why) if unreadable == Unreadable::LeftOut => tracing::warn!("left out: {why}"),
            Err(why) => fault = Some(why),
        }
        if some.len() == TOGETHER {
            // Whoever takes them has panicked if they are not taken, and that ends the start.
            let _gone = hand.send(std::mem::replace(&mut some, Vec::with_capacity(TOGETHER)));
        }
    })?;
    let _gone = hand.send(some);
    fault.map_or(Ok((head.revision.0, told_of)), Err)
}

fn decode(entry: EntryRef<'_>) -> Result<Read, RegistryError> {
    let key = entry.key.parse::<Key>()?;
    let document = Document::from_json(&key, entry.value)
        .map_err(|why| RegistryError::Unreadable { key: entry.key.to_owned(), why })?;
    Ok((key, document, entry.modified.0))
}

/// The first bytes of a name as a number that is in their order.
fn prefix(name: &Label) -> u64 {
    let mut bytes = [0; PREFIX_BYTES];
    for (to, from) in bytes.iter_mut().zip(name.as_str().bytes()) {
        *to = from;
    }
    u64::from_be_bytes(bytes)
}

/// A map that is built from one end to the other.
fn sorted(mut names: Vec<(u64, Label, Serial)>) -> BTreeMap<Label, Serial> {
    names.sort_by(|(one, one_name, _), (other, other_name, _)| {
        one.cmp(other).then_with(|| one_name.cmp(other_name))
    });
    names.into_iter().map(|(_, name, serial)| (name, serial)).collect()
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
