//! A registry that is read at a start is the one that was written.

use std::sync::Arc;

use super::{Unreadable, load};
use crate::registry::command::{Command, NewAddress, NewVm, Options, Placement, VmSettings};
use crate::registry::document::{Access, VmState};
use crate::registry::store::testing::memory::Memory;
use crate::registry::store::{Store, StoreId, Transaction};
use crate::registry::writer::{RegistryError, Subscriber, Update};
use crate::registry::{CommandContext, Draft, Label, Limits, Model, Written};
use crate::route::Contents;

fn label(name: &str) -> Label {
    Label::new(name).unwrap()
}

/// Carries commands out on a model, and writes what they write to a store.
fn written(commands: &[Command]) -> (Model, Memory) {
    let (mut model, store) = (Model::new(Limits::default()), Memory::new(StoreId([1; 16])));
    for (nonce, command) in (1_u64..).zip(commands) {
        // Serials that are not in the order of names.
        let stamp =
            CommandContext { now_s: 1_000_000, nonce: nonce.wrapping_mul(0x9e37_79b9_7f4a_7c15) };
        let mut draft = Draft::new(&mut model, stamp);
        draft.carry_out(command, Options::default()).unwrap();
        let mut transaction = Transaction::new();
        for Written { key, now, .. } in draft.keep().0 {
            transaction = match now {
                Some(document) => transaction.put(key.to_string(), document.to_json()),
                None => transaction.delete(key.to_string()),
            };
        }
        store.transact(&transaction).unwrap();
    }
    (model, store)
}

fn commands() -> Vec<Command> {
    let user = |name: &str| Command::UserAdd { name: label(name), keys: Vec::new() };
    let address = |last: u8| {
        let public = Some([127, 0, 77, last].into());
        let address = NewAddress { public, ..NewAddress::default() };
        Command::AddressAdd { name: label(&format!("s{last}")), address }
    };
    let vm = |name: &str, owner: &str, placement: Placement| {
        let (name, owner, ssh) = (label(name), owner.parse().unwrap(), "10.0.0.1:22".to_owned());
        Command::VmAdd(NewVm { placement, ..NewVm::new(name, owner, ssh) })
    };
    let closed = VmSettings { state: Some(VmState::Maint), ..VmSettings::default() };
    let mut all = vec![user("alice"), user("bob"), user("bob-2"), address(1), address(2)];
    all.push(Command::TeamAdd { name: label("ops"), members: vec![label("bob")] });
    // Names that agree in what is compared first.
    for name in ["longer-than-eight-b", "longer-than-eight-a", "blue", "b", "longer-t"] {
        all.push(vm(name, "alice", Placement::Nowhere));
    }
    all.extend([
        vm("red", "team:ops", Placement::Chosen),
        vm("grey", "alice", Placement::Chosen),
        Command::VmShare {
            name: label("grey"),
            with: "bob-2".parse().unwrap(),
            access: Access::Slot,
        },
        Command::VmShare {
            name: label("red"),
            with: "alice".parse().unwrap(),
            access: Access::ByName,
        },
        // A second way for those who had the first, and a hold after that.
        Command::VmRenumber { name: label("grey"), to: Placement::Chosen },
        Command::VmRename { name: label("blue"), to: label("green") },
        // The id `blue` is taken.
        vm("blue", "bob", Placement::Chosen),
        Command::VmRemove { name: label("b") },
        Command::VmSet { name: label("longer-t"), set: closed },
    ]);
    all
}

#[test]
fn a_model_that_was_read_is_the_one_that_was_written() {
    let (model, store) = written(&commands());
    let told = Arc::new(std::sync::Mutex::new(None));
    let tell = Arc::clone(&told);
    let mut follow: Subscriber = Box::new(move |news| {
        let Update::Everything { revision, contents, .. } = news else {
            panic!("one kind of news")
        };
        *tell.lock().unwrap() = Some((revision, contents));
    });
    let read = load(&store, &Limits::default(), None, Unreadable::Refused, &mut follow).unwrap();
    assert_eq!(read.revision(), model.revision());
    assert_eq!(read.vm_names(), model.vm_names());
    assert_eq!(read.aging, model.aging);
    for entry in store.snapshot("").unwrap().entries {
        let key = entry.key.parse().unwrap();
        assert_eq!(read.get(&key), model.get(&key), "{key}");
    }
    for id in ["blue", "blue_2", "green", "grey", "b"] {
        assert_eq!(read.of_id(id), model.of_id(id), "{id}");
    }
    assert_eq!(read.of_id("blue"), read.vm_named(&label("green")).map(|(serial, _)| serial));
    assert_eq!(read.of_id("blue_2"), read.vm_named(&label("blue")).map(|(serial, _)| serial));
    let (revision, contents): (u64, Contents) = told.lock().unwrap().take().unwrap();
    assert_eq!((revision, &contents), (model.revision(), &model.contents()));
    assert_eq!(contents, read.contents());
    let closed = contents.vms.iter().filter(|entry| entry.vm.closed).map(|entry| &*entry.vm.name);
    assert_eq!((contents.vms.len(), closed.collect::<Vec<_>>()), (7, vec!["longer-t"]));
}

#[test]
fn nobody_is_told_of_a_store_that_cannot_be_read() {
    for key in ["vm/0000000000000001", "user/-", "vm/blue"] {
        let (_, store) = written(&commands());
        store.transact(&Transaction::new().put(key, "{}")).unwrap();
        let mut follow: Subscriber = Box::new(|news| panic!("told of {news:?}"));
        let fault =
            load(&store, &Limits::default(), None, Unreadable::Refused, &mut follow).unwrap_err();
        assert!(
            matches!(fault, RegistryError::Unreadable { .. } | RegistryError::Strange(_)),
            "{key}: {fault}"
        );
    }
}
