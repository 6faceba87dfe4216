//! What agents of both versions have, and whom they let in, over histories of what is held back.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::route::Who;

/// What an agent has that does as it is told, of which version its frames were.
#[derive(Default)]
struct Told {
    at: u64,
    vms: BTreeSet<String>,
    denied: Option<(u64, Denied)>,
    newest: u16,
}

impl Told {
    fn take(&mut self, frames: &[Bytes]) {
        for frame in frames {
            let version = [frame[4 + 8], frame[4 + 9]];
            self.newest = self.newest.max(u16::from_le_bytes(version));
            match saved_routes::decode_any(&frame[4..]).unwrap() {
                Message::Snapshot(head, contents) => {
                    self.at = head.revision;
                    self.vms = contents.vms.into_iter().map(|entry| entry.vm.name).collect();
                }
                Message::Delta(head, after, delta) => {
                    assert!(after <= self.at && self.at <= head.revision);
                    self.at = head.revision;
                    for change in delta.changes {
                        if let Change::PutVm(entry) = change {
                            self.vms.insert(entry.vm.name);
                        } else if let Change::RemoveVm(name) = change {
                            self.vms.remove(&name);
                        }
                    }
                }
                Message::Denied(until, denied) => {
                    assert!(until.revision > self.at);
                    self.denied = Some((until.revision, denied));
                }
                Message::FrontDoor(..) | Message::Asked(_) => {}
            }
            self.denied.take_if(|(until, _)| *until <= self.at);
        }
    }

    /// Whether it lets alice in.
    fn lets_in(&self, entry: &VmEntry) -> bool {
        let refused = self
            .denied
            .as_ref()
            .and_then(|(_, denied)| denied.refusal(&Who::User("alice"), "alice", Some(&entry.vm)));
        self.vms.contains(&entry.vm.name) && refused.is_none()
    }
}

proptest! {
    /// Whatever is held back and let go, and whichever version is spoken.
    #[test]
    fn an_agent_has_what_it_is_to_have_and_lets_nobody_in_who_has_lost_the_right(
        steps in prop::collection::vec((0..4_u8, 0..6_u8), 1..40),
    ) {
        let hub: Arc<Hub> = Arc::default();
        hub.begin(head(10));
        let mut fleet = Fleet(Vec::new());
        let mut now = hub.follow("n1", KEY, (VERSION, None), &fleet).unwrap();
        let mut old = hub.follow("n2", [2; 32], (VERSION_BEFORE, None), &fleet).unwrap();
        let (mut new_one, mut old_one) = (Told::default(), Told::default());
        for (follower, agent) in [(&mut now, &mut new_one), (&mut old, &mut old_one)] {
            follower.door();
            agent.take(&[crate::control::feed::whole(follower.everything(&fleet).unwrap())]);
        }
        for (revision, (step, which)) in (11..).zip(steps) {
            let node = if which % 2 == 0 { "n1" } else { "n2" };
            let name = format!("vm{which}");
            let there = fleet.0.iter().any(|entry| entry.vm.name == name);
            match step {
                0 if !there => add(&hub, &mut fleet, revision, on(node, vm(&name))),
                1 if there => take(&hub, &mut fleet, revision, &name),
                // As a large commit does.
                2 => hub.state().rings.get_mut("n1").unwrap().hold(head(revision), 1 << 20),
                3 => drop(hub.release()),
                _ => {}
            }
            new_one.take(&now.next(which == 0, at(0)).unwrap());
            old_one.take(&old.next(which == 0, at(0)).unwrap());
            for which in 0..6 {
                let node = if which % 2 == 0 { "n1" } else { "n2" };
                let entry = on(node, vm(&format!("vm{which}")));
                let may = fleet.0.contains(&entry);
                prop_assert!(may || !new_one.lets_in(&entry) && !old_one.lets_in(&entry));
                if node == "n2" {
                    prop_assert_eq!(old_one.lets_in(&entry), may, "nothing is kept from it");
                }
            }
            prop_assert_eq!(old_one.newest, VERSION_BEFORE);
        }
        hub.release();
        new_one.take(&now.next(true, at(0)).unwrap());
        let all = fleet.vms_on("n1").into_iter().map(|entry| entry.vm.name).collect();
        prop_assert_eq!(&new_one.vms, &all);
        prop_assert!(new_one.denied.is_none());
    }
}
