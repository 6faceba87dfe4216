//! Changes the table by a delta: one step, at a cost in proportion to the delta and to the
//! principals it touches.
//!
//! A delta is first written over the present state as a [`TableDraft`], which copies nothing but
//! what the delta touches. A draft without contradictions becomes the entries to mark; then they
//! are shown all at once, as those of a snapshot are.

use super::changes::Sorted;
use super::draft::TableDraft;
use super::table::{Marks, Table};
use super::{Contradiction, Delta, EntryIndex, What};

/// What came of a delta.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Changed {
    /// Shown from now on.
    pub revision: u64,
    /// Whether somebody may have lost the right to enter a VM, or a key: sessions have to
    /// be checked again ([`Table::keeps`]). To lose a slot and keep the way by name is no
    /// loss in that sense.
    pub takes_away: bool,
}

impl Table {
    /// Changes what `delta` names, for every reader at one instant. Takes the time of the
    /// principals whose keys, teams or VMs change: of each of them all VMs, and of a team that gets
    /// a slot all members who share its slots.
    ///
    /// # Errors
    /// All contradictions in the state that the delta leads to; nothing has changed then.
    /// [`EntryIndex::Change`] says which change has to be another one.
    pub fn change(&self, delta: Delta) -> Result<Changed, Vec<Contradiction>> {
        let Ok(mut writer) = self.writer.lock() else {
            // What that writer marked would be shown with ours.
            return Err(vec![Contradiction { at: EntryIndex::Change(0), what: What::CutShort }]);
        };
        let shown = self.revision();
        let draft = TableDraft::new(self, &writer, shown, &Sorted::new(delta));
        let (wanted, noted, takes_away) = draft.finish()?;
        let marks = Marks {
            addresses: self.addresses.mark(wanted.addresses, shown),
            places: self.places.mark(wanted.places, shown),
            address_names: self.address_names.mark(wanted.address_names, shown),
            keys: self.keys.mark(wanted.keys, shown),
            options: self.options.mark(wanted.options, shown),
            users: self.users.mark(wanted.users, shown),
            teams: self.teams.mark(wanted.teams, shown),
            nodes: self.nodes.mark(wanted.nodes, shown),
            names: self.names.mark(wanted.names, shown),
            retired: wanted.retired,
        };
        writer.note(noted);
        let revision = self.publish(marks, writer.counts);
        Ok(Changed { revision, takes_away })
    }
}

#[cfg(test)]
#[path = "delta_tests.rs"]
mod tests;
