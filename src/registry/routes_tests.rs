//! What the registry writes, as those hear of it who have a part of the whole.

use std::collections::BTreeMap;

use super::*;
use crate::registry::command::{Command, NewAddress, NewVm, NodeSettings, Options};
use crate::registry::draft::Draft;
use crate::registry::testing::dice::Dice;
use crate::registry::{CommandContext, Limits};
use crate::route::audience::{self, Audiences};
use crate::route::testing::{apply, sorted};
use crate::route::{Snapshot, Table};
use crate::ssh::testing::Seeded;

const NODES: [&str; 3] = ["n0", "n1", "n2"];

/// Histories of random commands, and how many are carried out of each.
const HISTORIES: u64 = 48;
const STEPS: u64 = 120;

/// One registry, and those who follow it.
struct Followed {
    model: Model,
    audiences: Audiences,
    /// By node: what it was told, and the map that was made of that.
    held: BTreeMap<&'static str, (Contents, Table)>,
    dice: Dice,
}

impl Followed {
    fn new(seed: u64) -> Self {
        let mut followed = Self {
            model: Model::new(Limits { quarantine_s: 10, ..Limits::default() }),
            audiences: Audiences::default(),
            held: BTreeMap::new(),
            dice: Dice(Seeded(seed)),
        };
        for last in 0..3_u8 {
            let public = Some([127, 0, 77, last].into());
            let address = NewAddress { public, ..NewAddress::default() };
            let name = Label::new(&format!("s{last}")).unwrap();
            followed.carry_out(&Command::AddressAdd { name, address }, 0);
            let name = Label::new(&format!("u{last}")).unwrap();
            followed.carry_out(&Command::UserAdd { name, keys: Vec::new() }, 0);
        }
        for node in NODES {
            let (name, set) = (Label::new(node).unwrap(), NodeSettings::default());
            followed.carry_out(&Command::NodeAdd { name, set }, 0);
        }
        followed
    }

    /// Any command; often one that lays a VM on a node.
    fn command(&mut self, node: &str) -> Command {
        let command = self.dice.command();
        if let Command::VmAdd(new) = command {
            return Command::VmAdd(NewVm { node: Label::new(node).ok(), ..new });
        }
        let is_rare = matches!(command, Command::NodeRemove { .. });
        if is_rare && self.dice.below(4) > 0 { self.command(node) } else { command }
    }

    fn carry_out(&mut self, command: &Command, now_s: u64) -> bool {
        let stamp = CommandContext { now_s, nonce: self.dice.0.next() };
        let mut draft = Draft::new(&mut self.model, stamp);
        if draft.carry_out(command, Options { renumber: true, ..Options::default() }).is_err() {
            return false;
        }
        let (written, _) = draft.keep();
        for (node, delta) in self.audiences.change(&delta(&written), &self.model) {
            let (contents, table) = self.held.get_mut(&*node).expect("one that is open");
            apply(contents, &delta);
            table.change(delta).unwrap_or_else(|found| panic!("{command:?}: {found:?}"));
        }
        true
    }

    fn agrees(&self) {
        let whole = self.model.contents();
        for (node, (contents, _)) in &self.held {
            let wanted = sorted(audience::contents(node, &whole));
            assert_eq!(sorted(audience::contents(node, &self.model)), wanted, "{node}");
            assert_eq!(sorted(contents.clone()), wanted, "{node}");
        }
    }
}

#[test]
fn what_an_audience_is_told_leads_where_the_registry_leads() {
    let (mut done, mut lying) = (0, 0);
    for seed in 0..HISTORIES {
        let mut followed = Followed::new(seed);
        for step in 0..STEPS {
            let node = NODES[usize::try_from(followed.dice.below(3)).unwrap()];
            let command = followed.command(node);
            done += u64::from(followed.carry_out(&command, 1_000 + step));
            followed.agrees();
            if followed.dice.below(4) > 0 {
                followed.audiences.open(node, &followed.model);
                let model = &followed.model;
                followed.held.entry(node).or_insert_with(|| {
                    let (contents, table) = (audience::contents(node, model), Table::new());
                    table.apply(Snapshot::new(contents.clone()).unwrap());
                    (contents, table)
                });
            } else if followed.held.remove(node).is_some() {
                followed.audiences.close(node, &followed.model);
            }
            lying += followed.held.values().map(|(contents, _)| contents.vms.len()).sum::<usize>();
        }
    }
    // Most random commands make no sense; enough of them must.
    assert!(done > HISTORIES * 20 && lying > 1_000, "{done} commands, {lying} VMs");
}
