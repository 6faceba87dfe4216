//! What outlives a change, and a restore: slots that are held, and what is true of the registry as a whole.

use super::document::{QuarantinedSlot, Registry};
use super::model::Model;
use super::name::Principal;

impl Model {
    /// What each principal must not see again yet.
    pub fn quarantined(&self) -> impl Iterator<Item = (&Principal, &[QuarantinedSlot])> {
        self.quarantined.iter().map(|(principal, stored)| (principal, &*stored.document))
    }

    /// What is true of the registry as a whole.
    #[must_use]
    pub fn registry(&self) -> Registry {
        self.whole.as_ref().map(|whole| whole.document.clone()).unwrap_or_default()
    }

    /// Unix time until which nobody is given a slot that they have not, if that is after `now_s`.
    #[must_use]
    pub fn closed_until_s(&self, now_s: u64) -> Option<u64> {
        let until_s = self.whole.as_ref()?.document.no_new_slots_until_s?;
        (until_s > now_s).then_some(until_s)
    }
}
