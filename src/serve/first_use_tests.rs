//! Tests of `first_use`: a store that fails, and pins of an earlier Keyway.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::*;
use crate::registry::command::{NewVm, Placement};
use crate::registry::store::testing::memory::Memory;
use crate::registry::store::{
    EntryRef, Head, Part, Revision, Store, StoreError, StoreId, TransactFault, Transaction, Watch,
};
use crate::registry::writer::Start;
use crate::registry::{Label, Limits, Principal};
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::testing::Seeded;
use crate::state::State;

/// Writes nothing while it is ill; counts how often it is asked.
struct Frail {
    kept: Memory,
    ill: AtomicBool,
    asked: AtomicUsize,
}

impl Store for Frail {
    fn snapshot_parts(
        &self,
        parts: &[Part<'_>],
        visit: &mut dyn FnMut(EntryRef<'_>),
    ) -> Result<Head, StoreError> {
        self.kept.snapshot_parts(parts, visit)
    }

    fn transact_all(&self, transactions: &[Transaction]) -> Vec<Result<Revision, TransactFault>> {
        self.asked.fetch_add(1, Relaxed);
        if self.ill.load(Relaxed) {
            let full = StoreError::Full { path: PathBuf::from("registry.db") };
            return vec![Err(full.into()); transactions.len()];
        }
        self.kept.transact_all(transactions)
    }

    fn watch(&self, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.kept.watch(after)
    }

    fn compact(&self, up_to: Revision) -> Result<(), StoreError> {
        self.kept.compact(up_to)
    }
}

/// A registry with alice, bob, and a VM of each.
struct World {
    store: Arc<Frail>,
    service: Arc<Service>,
}

impl World {
    fn new() -> Self {
        let kept = Memory::new(StoreId([7; 16]));
        let (ill, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
        let store = Arc::new(Frail { kept, ill, asked });
        let service = Service::start(Start {
            store: Arc::clone(&store) as Arc<dyn Store>,
            limits: Limits::default(),
            now_s: || 1_000_000,
            entropy: Box::new(Seeded(1)),
            known: None,
            follow: Box::new(|_| ()),
        });
        let world = Self { store, service: Arc::new(service.unwrap()) };
        for owner in ["alice", "bob"] {
            let name = Label::new(owner).unwrap();
            world.must(Command::UserAdd { name: name.clone(), keys: Vec::new() });
            world.must(Command::VmAdd(NewVm {
                placement: Placement::Nowhere,
                ..NewVm::new(
                    Label::new(&format!("{owner}-vm")).unwrap(),
                    Principal::User(name),
                    "127.0.0.1:22".to_owned(),
                )
            }));
        }
        world
    }

    fn must(&self, command: Command) {
        let actor = Actor { name: "test".to_owned(), from: "test".to_owned() };
        let order = CommandRequest { command, options: Options::default(), expected: None, actor };
        self.service.carry_out(order, Mode::Real).unwrap();
    }

    fn pinning(&self, old: Option<OldPins>) -> InRegistry {
        let pinning = InRegistry::new(old);
        pinning.service.set(Arc::downgrade(&self.service)).unwrap();
        pinning
    }

    fn pin(&self, vm: &str) -> Option<String> {
        self.service.read(|model| {
            let (_, stored) = model.vm_named(&Label::new(vm).unwrap()).unwrap();
            stored.document.pin.as_deref().map(str::to_owned)
        })
    }
}

fn dialled(owner: &str) -> Vm {
    Vm {
        id: format!("{owner}-vm"),
        name: format!("{owner}-vm"),
        owner: owner.to_owned(),
        endpoint: "127.0.0.1:22".to_owned(),
        login: None,
        host_key: None,
        source_address: None,
        address: None,
        closed: false,
        carry: crate::route::Carry::Auto,
        node: None,
    }
}

fn key() -> PublicKey {
    PrivateKey::generate_ed25519(&mut SystemEntropy::default()).public().clone()
}

#[test]
fn a_store_that_failed_is_asked_again_after_a_rest_and_a_refusal_is_no_failure() {
    let world = World::new();
    let pinning = world.pinning(None);
    let (began, hers) = (Instant::now(), dialled("alice"));
    let shown = |vm: &Vm, after: Duration| {
        let before = world.store.asked.load(Relaxed);
        let shown = pinning.shown_at(vm, &key(), || began + after);
        (shown, world.store.asked.load(Relaxed) - before)
    };

    let moved = Vm { endpoint: "127.0.0.1:23".to_owned(), ..dialled("alice") };
    let (refused, asked) = shown(&moved, Duration::ZERO);
    assert!(matches!(refused, Shown::Failed { why } if why.contains("endpoint")) && asked == 0);

    world.store.ill.store(true, Relaxed);
    let (failed, asked) = shown(&hers, Duration::ZERO);
    assert!(matches!(&failed, Shown::Failed { why } if why.contains("no space")), "{failed:?}");
    assert_eq!(asked, 1, "a refusal before was no failure");
    let almost = STORE_REST.checked_sub(Duration::from_nanos(1)).unwrap();
    for after in [Duration::ZERO, almost] {
        assert_eq!(shown(&hers, after), (failed.clone(), 0));
    }
    // It rests anew after each failure.
    assert_eq!(shown(&hers, STORE_REST), (failed.clone(), 1));
    assert_eq!(shown(&hers, STORE_REST + almost), (failed, 0));

    world.store.ill.store(false, Relaxed);
    assert_eq!(shown(&hers, 2 * STORE_REST), (Shown::Pinned, 1));
    assert_eq!(shown(&dialled("bob"), Duration::ZERO), (Shown::Pinned, 1));
}

/// A state directory that is gone with it.
struct Scratch(PathBuf);

impl Scratch {
    /// With these pins of an earlier Keyway.
    fn with_pins(lines: &[(&str, &PublicKey, &str)]) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name =
            format!("keyway-first-use-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let scratch = Self(std::env::temp_dir().join(name));
        scratch.state();
        let lines =
            lines.iter().map(|(vm, key, owner)| format!("{vm} {} {owner}\n", key.to_line()));
        let path = scratch.0.join("pins");
        fs::write(&path, lines.collect::<String>()).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        scratch
    }

    fn state(&self) -> State {
        State::open(&self.0).unwrap()
    }

    fn old(&self) -> Option<OldPins> {
        self.state().old_pins().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn pins_of_an_earlier_keyway_are_imported_once_and_nothing_is_pinned_before() {
    let world = World::new();
    let (hers, his, other) = (key(), key(), key());
    // His VM was somebody else's at its first use, and one VM is gone.
    let scratch = Scratch::with_pins(&[
        ("alice-vm", &hers, "alice"),
        ("bob-vm", &his, "alice"),
        ("gone", &other, "alice"),
    ]);
    let pinning = world.pinning(scratch.old());
    let early = pinning.shown(&dialled("alice"), &other);
    assert!(matches!(&early, Shown::Failed { why } if why.contains("old pins")), "{early:?}");
    pinning.import(Applied::Whole);
    assert_eq!(world.pin("alice-vm"), Some(hers.to_line()));
    assert_eq!(world.pin("bob-vm"), Some(his.to_line()));
    assert_eq!(pinning.shown(&dialled("alice"), &other), Shown::Other);
    assert_eq!(pinning.shown(&dialled("alice"), &hers), Shown::Pinned);

    assert!(scratch.old().is_none() && scratch.0.join("pins.imported").exists());
    world.must(Command::VmUnpin { name: Label::new("alice-vm").unwrap() });
    let again = world.pinning(scratch.old());
    again.import(Applied::Whole);
    assert_eq!(again.shown(&dialled("alice"), &other), Shown::Pinned, "what was forgotten is");
}

#[test]
fn an_old_pin_takes_the_place_of_none_and_keeps_no_other_from_being_imported() {
    let world = World::new();
    let (first, old, his) = (key(), key(), key());
    world.pinning(None).shown(&dialled("alice"), &first);
    let scratch = Scratch::with_pins(&[("alice-vm", &old, "alice"), ("bob-vm", &his, "bob")]);
    world.pinning(scratch.old()).import(Applied::Whole);
    assert_eq!(world.pin("alice-vm"), Some(first.to_line()));
    assert_eq!(world.pin("bob-vm"), Some(his.to_line()));
}

#[test]
fn old_pins_that_cannot_be_imported_stay_and_nothing_is_pinned_in_their_place() {
    let world = World::new();
    let (old, other) = (key(), key());
    let scratch = Scratch::with_pins(&[("alice-vm", &old, "alice")]);
    let shut = |pinning: &InRegistry| {
        let shown = pinning.shown(&dialled("alice"), &other);
        assert!(matches!(shown, Shown::Failed { .. }) && scratch.old().is_some());
        assert_eq!(world.pin("alice-vm"), None);
    };
    let pinning = world.pinning(scratch.old());
    pinning.import(Applied::Partly);
    shut(&pinning);
    world.store.ill.store(true, Relaxed);
    pinning.import(Applied::Whole);
    shut(&pinning);
    let closed = InRegistry::new(scratch.old());
    closed.import(Applied::Whole);
    shut(&closed);

    world.store.ill.store(false, Relaxed);
    pinning.import(Applied::Whole);
    assert_eq!((world.pin("alice-vm"), scratch.old().is_none()), (Some(old.to_line()), true));
}
