//! The map of an agent that follows a control plane: what comes is judged by at once, and kept on
//! the disk for a start while control is away.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use super::super::front_door::Believed;
use super::super::start::Failure;
use crate::config::{AgentConfig, Control};
use crate::control::feed::client::{self, Asked, Followed, Follows, Handle, Pins};
use crate::control::feed::{self, PinAnswer};
use crate::edge::Edge;
use crate::edge::first_use::{FirstUse, Shown};
use crate::edge::shared::Shared;
use crate::registry::store::StoreId;
use crate::route::saved_routes::{Head, Message};
use crate::route::{Contents, Delta, Denied, FrontDoor, Snapshot, Table, Vm};
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::PublicKey;
use crate::state::State;
use crate::state::routes::{Appended, Saved, Unsaved};

/// No program is called so: nothing goes on from what it told.
const NOBODY: [u8; 8] = [0; 8];

/// What was kept when this process, or another one, followed last.
pub(super) struct Kept {
    saved: Saved,
    /// Of which moment, and when it was written.
    head: Option<(Head, SystemTime)>,
    pub(super) map: Snapshot,
    /// Refused though the map has it, until the map has come so far.
    pub(super) denied: Option<(Head, Denied)>,
}

impl Kept {
    /// Reads it; what it knows of the front door goes into `config`.
    ///
    /// # Errors
    /// It is there and cannot be read: it may say who is let in no more.
    pub(super) fn read(state: &State, config: &mut AgentConfig) -> Result<Self, Failure> {
        let mut saved = state.routes();
        let told = saved.front_door()?;
        let believed = told.as_ref().map(Believed::read).transpose()?.unwrap_or_default();
        let Believed { edges, host_keys, trusted_user_cas, revocations } = believed;
        (config.edges, config.host_keys) = (edges, host_keys);
        config.edge.trusted_user_cas = trusted_user_cas;
        config.edge.revocations = revocations;
        let head = match saved.last() {
            // What came next could not be written, and everything is asked for.
            Some(head) if saved.is_spoiled() => Some((nothing_after(head), SystemTime::UNIX_EPOCH)),
            // Read as a whole, so that it may go on where it ended.
            Some(_) => Some(saved.restore(&Table::new())?),
            None => None,
        };
        let contents = match head {
            Some((head, _)) if !saved.is_spoiled() => saved.contents(head.revision)?.1,
            Some(_) | None => Contents::default(),
        };
        let map = Snapshot::new(contents).map_err(|found| words(&found))?;
        match head {
            Some(_) if saved.is_spoiled() => tracing::error!(
                "what control sent last could not be kept: nobody is let in before control is heard"
            ),
            Some((Head { revision, .. }, _)) => {
                tracing::info!(revision, "the routes are those that control sent last");
            }
            None => {
                tracing::info!("nothing is known yet: nobody is let in before control is heard");
            }
        }
        // Rights that were taken away do not come back from the disk.
        let is_ahead = |denied: &Head| {
            head.is_some_and(|(it, _)| it.store == denied.store && it.revision < denied.revision)
        };
        let denied = saved.denied()?.filter(|(until, _)| is_ahead(until));
        if let Some((until, denied)) = &denied {
            let (until, count) = (until.revision, denied.count());
            tracing::info!(until, count, "what was taken away is refused still");
        }
        Ok(Self { saved, head, map, denied })
    }
}

/// The feed, followed.
pub(super) struct Feed {
    _handle: Handle,
    saved: Arc<Mutex<Option<Saved>>>,
    following: Following,
}

/// How it is with the feed, and with what is kept of it.
#[derive(Clone)]
pub(super) struct Following {
    pub(super) followed: Arc<Followed>,
    pub(super) unsaved: Arc<Unsaved>,
}

impl Feed {
    pub(super) fn follow(
        Control { url, ca }: &Control,
        Kept { saved, head, denied, .. }: Kept,
        identity: Arc<PrivateKey>,
        (shared, edge): (&Arc<Shared>, &Arc<Edge>),
        asked: Asked,
    ) -> Result<Self, Failure> {
        let followed = Arc::new(Followed::default());
        if let Some((head, written)) = head {
            let saved_s = written.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            followed.begins(head, saved_s.as_secs());
        }
        let following =
            Following { followed: Arc::clone(&followed), unsaved: Arc::clone(&saved.unsaved) };
        let saved = Arc::new(Mutex::new(Some(saved)));
        let follows = Follower {
            shared: Arc::clone(shared),
            edge: Arc::downgrade(edge),
            saved: Arc::clone(&saved),
            head: head.map(|(head, _)| head),
            front_door: None,
            denied,
        };
        let at = (url.as_str(), ca.as_deref());
        let handle = client::start(at, identity, Box::new(follows), followed, asked)?;
        Ok(Self { _handle: handle, saved, following })
    }

    /// A successor does.
    pub(super) fn saves_no_more(&self) {
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn following(&self) -> Following {
        self.following.clone()
    }
}

/// Takes what comes, on the feed's thread.
struct Follower {
    shared: Arc<Shared>,
    edge: Weak<Edge>,
    /// Nothing is saved by a process that drains.
    saved: Arc<Mutex<Option<Saved>>>,
    /// How far it has come.
    head: Option<Head>,
    front_door: Option<FrontDoor>,
    /// Refused until it has come so far.
    denied: Option<(Head, Denied)>,
}

impl Follows for Follower {
    fn known(&self) -> Option<Head> {
        self.head
    }

    fn digest(&self) -> Option<[u8; 32]> {
        // Of a map that does not fit nobody should find that it does.
        let head = self.head.filter(|head| head.program != NOBODY)?;
        let saved = self.saved();
        let (_, contents) = saved.as_ref()?.contents(head.revision).ok()?;
        Some(feed::digest(contents))
    }

    fn is_well(&self) -> bool {
        let is_kept = self.saved().as_ref().is_none_or(Saved::is_kept);
        is_kept && self.edge.upgrade().is_some_and(|edge| !edge.has_fallen())
    }

    fn take(&mut self, message: Message) -> Result<(), String> {
        let edge = self.edge.upgrade().ok_or("this agent ends")?;
        match message {
            Message::Snapshot(head, contents) => {
                goes_on(self.head, head)?;
                self.everything(&edge, head, &contents)
            }
            Message::Delta(head, after, delta) => {
                goes_on(self.head, head)?;
                self.change(&edge, (head, after), delta)
            }
            Message::FrontDoor(head, told) => {
                self.adopts(head, &told);
                goes_on(self.head, head)?;
                self.front_door(&edge, head, told)
            }
            // Answered where it comes.
            Message::Asked(_) => Ok(()),
            Message::Denied(until, denied) => {
                goes_on(self.head, until)?;
                self.deny(&edge, until, denied)
            }
        }
    }
}

impl Follower {
    /// Where control has adopted another store, everything begins anew: what is known stays until
    /// that has come.
    fn adopts(&mut self, now: Head, told: &FrontDoor) {
        if let Some(known) = self.head.filter(|known| is_adopted(*known, now, told)) {
            let (store, before) = (StoreId(now.store), StoreId(known.store));
            tracing::warn!(%store, %before, "control has adopted another store: its routes are believed");
            self.head = None;
        }
    }

    fn everything(&mut self, edge: &Edge, head: Head, contents: &Contents) -> Result<(), String> {
        let snapshot = Snapshot::new(contents.clone()).map_err(|found| words(&found))?;
        edge.replace(snapshot);
        self.head = Some(head);
        self.denies_on(edge);
        let saved = self.saved().as_mut().map_or(Ok(()), |saved| saved.write(head, contents));
        is_saved(&saved);
        Ok(())
    }

    fn change(
        &mut self,
        edge: &Edge,
        (head, after): (Head, u64),
        delta: Delta,
    ) -> Result<(), String> {
        match self.head {
            Some(known) if after > known.revision => {
                return self.anew(format!("what follows revision {} is missing", known.revision));
            }
            None => return Err("it begins with a change".to_owned()),
            Some(_) if self.saved().as_ref().is_some_and(Saved::is_to_be_tried) => {
                return self.anew("what came before is not on the disk".to_owned());
            }
            // So much is known already.
            Some(known) if known == head && delta.changes.is_empty() => return Ok(()),
            Some(_) => {}
        }
        let kept = delta.clone();
        if let Err(found) = edge.change(delta) {
            return self.anew(format!("a change does not fit: {}", words(&found)));
        }
        self.head = Some(head);
        self.denies_on(edge);
        // Rights first, the disk after.
        let append = |saved: &mut Saved| match saved.append(head, &kept)? {
            Appended::Full => {
                let (_, contents) = saved.contents(head.revision)?;
                saved.write(head, &contents).map(|()| Appended::Done)
            }
            appended @ (Appended::Done | Appended::Missing | Appended::Rests) => Ok(appended),
        };
        let appended = self.saved().as_mut().map_or(Ok(Appended::Done), append);
        if is_saved(&appended) && matches!(appended, Ok(Appended::Missing)) {
            return self.anew("what came before is not on the disk".to_owned());
        }
        Ok(())
    }

    /// What later changes take away, which come when they can. All that are told together are
    /// refused until the last of these changes has come.
    fn deny(&mut self, edge: &Edge, until: Head, denied: Denied) -> Result<(), String> {
        if self.head.is_some_and(|known| known.revision >= until.revision) {
            return Ok(());
        }
        let before = self.denied.take().filter(|(head, _)| head.store == until.store);
        let (until, denied) = match before {
            Some((head, before)) => {
                let revision = head.revision.max(until.revision);
                let both = before.clone().and(denied);
                // What is refused already stays so; whoever begins anew needs none of it.
                self.denied = Some((head, before));
                let Ok(both) = both else {
                    return self.anew("more is taken away than can be refused".to_owned());
                };
                (Head { revision, ..until }, both)
            }
            None => (until, denied),
        };
        denied.fits().map_err(|why| why.to_string())?;
        tracing::info!(
            until = until.revision,
            count = denied.count(),
            "what was taken away is refused before the changes have come that do so"
        );
        edge.deny(denied.clone());
        let mut saved = self.saved();
        is_saved(&saved.as_mut().map_or(Ok(()), |saved| saved.write_denied(until, &denied)));
        drop(saved);
        self.denied = Some((until, denied));
        Ok(())
    }

    /// What has come needs to be refused no more.
    fn denies_on(&mut self, edge: &Edge) {
        let Some(known) = self.head else { return };
        let has_come =
            |until: &Head| until.store != known.store || until.revision <= known.revision;
        if self.denied.take_if(|(until, _)| has_come(until)).is_some() {
            edge.deny_no_more();
            let saved = self.saved();
            // One that stays is known by its revision.
            is_saved(&saved.as_ref().map_or(Ok(()), Saved::remove_denied));
        }
    }

    /// What is known stays, and the next connection begins with everything.
    fn anew(&mut self, why: String) -> Result<(), String> {
        if let Some(head) = &mut self.head {
            *head = nothing_after(*head);
        }
        Err(why)
    }

    fn front_door(&mut self, edge: &Edge, head: Head, told: FrontDoor) -> Result<(), String> {
        if self.front_door.as_ref() == Some(&told) {
            return Ok(());
        }
        Believed::read(&told).map_err(|fault| fault.to_string())?.rules(edge, &self.shared);
        let mut saved = self.saved();
        let kept = saved.as_mut().map_or(Ok(()), |it| it.write_front_door(head, &told));
        drop(saved);
        // What is not on the disk is taken again.
        self.front_door = is_saved(&kept).then_some(told);
        Ok(())
    }

    fn saved(&self) -> MutexGuard<'_, Option<Saved>> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether another store than is known was adopted in its place.
pub(super) fn is_adopted(known: Head, now: Head, told: &FrontDoor) -> bool {
    known.store != now.store && told.stands_for.contains(&known.store)
}

/// Neither another store nor an earlier state of it is believed.
pub(super) fn goes_on(known: Option<Head>, now: Head) -> Result<(), String> {
    let Some(known) = known else { return Ok(()) };
    if now.store == known.store && now.revision >= known.revision {
        return Ok(());
    }
    let files = "routes.snapshot and routes.journal";
    Err(format!(
        "it sends store {} at revision {}, and this agent's routes are of store {} at revision {}, in whose place it was not \
         adopted there (`keyway store adopt`): it may be another control; if it is the one to believe, stop this agent, \
         remove {files} from its state_dir and start it again",
        StoreId(now.store),
        now.revision,
        StoreId(known.store),
        known.revision
    ))
}

/// Nothing goes on from here.
const fn nothing_after(head: Head) -> Head {
    Head { program: NOBODY, ..head }
}

fn is_saved<T>(result: &io::Result<T>) -> bool {
    if let Err(error) = result {
        tracing::error!("what control sends is not kept: {error}");
    }
    result.is_ok()
}

fn words(found: &[crate::route::Contradiction]) -> String {
    let all: Vec<String> = found.iter().map(ToString::to_string).collect();
    all.join("; ")
}

/// Host keys that VMs show at their first use are pinned by control, and come back with the feed.
pub(super) struct InRegistry(pub(super) Pins);

impl FirstUse for InRegistry {
    fn shown(&self, vm: &Vm, key: &PublicKey) -> Shown {
        match self.0.pin(&vm.id, (&vm.owner, &vm.endpoint), key.to_line()) {
            PinAnswer::Pinned => Shown::Pinned,
            PinAnswer::Other => Shown::Other,
            PinAnswer::OfOtherOwner(vm) => Shown::OfOtherOwner { vm },
            PinAnswer::Failed(why) => Shown::Failed { why },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(store: u8, revision: u64) -> Head {
        Head { store: [store; 16], program: [0; 8], revision }
    }

    #[test]
    fn another_store_is_adopted_where_control_has_said_so_of_the_one_that_is_known() {
        let told = FrontDoor { stands_for: vec![[1; 16], [2; 16]], ..FrontDoor::default() };
        assert!(is_adopted(head(1, 9), head(3, 5), &told));
        assert!(is_adopted(head(2, 9), head(3, 5), &told));
        assert!(!is_adopted(head(4, 9), head(3, 5), &told));
        assert!(!is_adopted(head(1, 9), head(1, 5), &told), "an earlier state of the same store");
    }

    #[test]
    fn neither_another_store_nor_an_earlier_state_is_believed() {
        let goes_on = |known, now| goes_on(Some(known), now);
        assert_eq!(super::goes_on(None, head(1, 7)), Ok(()));
        assert_eq!(goes_on(head(1, 7), head(1, 7)), Ok(()));
        assert_eq!(goes_on(head(1, 7), Head { program: [9; 8], ..head(1, 8) }), Ok(()));
        for other in [head(1, 6), head(2, 7), head(2, 8)] {
            let why = goes_on(head(1, 7), other).unwrap_err();
            assert!(why.contains("`keyway store adopt`"), "{why}");
        }
    }
}
