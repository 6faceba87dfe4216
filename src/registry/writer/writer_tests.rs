//! The writer batch by batch: what takes many of them, and a store that fails.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::TryRecvError;

use super::*;
use crate::registry::command::{NewAddress, NewVm, Placement};
use crate::registry::document::Access;
use crate::registry::name::{Label, Principal};
use crate::registry::store::testing::memory::Memory;
use crate::registry::store::{self, EntryRef, Head, Part, StoreError, StoreId, Watch};
use crate::registry::writer::Actor;
use crate::registry::{Limits, Options, routes};
use crate::route::{Snapshot, Table, Who};
use crate::ssh::testing::Seeded;

/// More than one batch takes.
const MANY: usize = 64 * (PARTS_TOGETHER + 3);

/// What a store does with transactions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ill {
    Well,
    /// Says that it is full, and has done nothing.
    Full,
    /// Says that it is full, and has done all.
    Lies,
    /// Does all but the one of this index.
    But(usize),
}

/// A store that fails when asked to, and counts the entries that are read.
#[derive(Clone)]
struct Ailing {
    memory: Memory,
    ill: Arc<Mutex<Ill>>,
    unreadable: Arc<Mutex<bool>>,
    read: Arc<AtomicUsize>,
}

impl Ailing {
    fn fault() -> StoreError {
        StoreError::Full { path: "store".into() }
    }

    fn is(&self, ill: Ill) {
        *self.ill.lock().unwrap() = ill;
    }
}

impl Store for Ailing {
    fn snapshot_parts(
        &self,
        parts: &[Part<'_>],
        visit: &mut dyn FnMut(EntryRef<'_>),
    ) -> Result<Head, StoreError> {
        if *self.unreadable.lock().unwrap() {
            return Err(Self::fault());
        }
        self.memory.snapshot_parts(parts, &mut |entry| {
            self.read.fetch_add(1, Ordering::Relaxed);
            visit(entry);
        })
    }

    fn transact_all(&self, transactions: &[Transaction]) -> Vec<Result<Revision, TransactFault>> {
        let ill = *self.ill.lock().unwrap();
        let each = transactions.iter().enumerate().map(|(index, one)| match ill {
            Ill::Well => self.memory.transact(one),
            Ill::But(other) if other != index => self.memory.transact(one),
            Ill::Full | Ill::But(_) => Err(Self::fault().into()),
            Ill::Lies => self.memory.transact(one).and_then(|_| Err(Self::fault().into())),
        });
        each.collect()
    }

    fn watch(&self, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.memory.watch(after)
    }

    fn compact(&self, up_to: Revision) -> Result<(), StoreError> {
        self.memory.compact(up_to)
    }
}

type Answer = Receiver<Vec<Result<Committed, ServiceError>>>;

struct World {
    writer: Writer,
    store: Ailing,
    table: Arc<Table>,
    /// Documents that the follower was told of, batch by batch; `None`: of everything.
    told: Arc<Mutex<Vec<Option<usize>>>>,
}

fn label(name: &str) -> Label {
    Label::new(name).unwrap()
}

fn add(user: &str) -> Command {
    Command::UserAdd { name: label(user), keys: vec![] }
}

fn remove(user: &str) -> Command {
    Command::UserRemove { name: label(user) }
}

impl World {
    fn new() -> Self {
        let store = Ailing {
            memory: Memory::new(StoreId([7; 16])),
            ill: Arc::new(Mutex::new(Ill::Well)),
            unreadable: Arc::default(),
            read: Arc::default(),
        };
        let told: Arc<Mutex<Vec<Option<usize>>>> = Arc::default();
        let table = Arc::new(Table::new());
        let (heard, map) = (Arc::clone(&told), Arc::clone(&table));
        let mut follow: Subscriber = Box::new(move |news| {
            heard.lock().unwrap().push(match news {
                Update::Written { written, .. } => {
                    map.change(routes::delta(written)).unwrap();
                    Some(written.len())
                }
                Update::Everything { contents, .. } => {
                    map.apply(Snapshot::new(contents).unwrap());
                    None
                }
            });
        });
        let model =
            load::load(&store, &Limits::default(), None, Unreadable::Refused, &mut follow).unwrap();
        let wanted = LastOperatorRevision::at(model.revision());
        let model = Arc::new(RwLock::new(model));
        let (kept, entropy) = (Arc::new(store.clone()), Box::new(Seeded(5)));
        let health = StoreHealth::default();
        let writer = Writer::new(model, kept, follow, entropy, || 1_000_000, wanted, health);
        let mut world = Self { writer, store, table, told };
        for user in ["u0", "u1"] {
            world.must(add(user));
        }
        let public = Some([127, 0, 77, 1].into());
        let address = NewAddress { public, ..NewAddress::default() };
        world.must(Command::AddressAdd { name: label("s0"), address });
        world
    }

    /// `with` may enter so many VMs of u0's by name, and v0 at s0.
    fn shared(with: &str) -> Self {
        let mut world = Self::new();
        if let Principal::Team(team) = with.parse().unwrap() {
            world.must(Command::TeamAdd { name: team, members: vec![label("u1")] });
        }
        for number in 0..MANY {
            let placement =
                if number == 0 { Placement::At(label("s0")) } else { Placement::Nowhere };
            let name = label(&format!("v{number}"));
            world.must(Command::VmAdd(NewVm {
                placement,
                ..NewVm::new(name.clone(), "u0".parse().unwrap(), "127.0.0.1:22".to_owned())
            }));
            let access = if number == 0 { Access::Slot } else { Access::ByName };
            world.must(Command::VmShare { name, with: with.parse().unwrap(), access });
        }
        world
    }

    fn task(at: Option<u64>, mode: Mode, commands: Vec<Command>) -> (Task, Answer) {
        let order = |command| CommandRequest {
            command,
            options: Options { renumber: false, ..Options::default() },
            expected: None,
            actor: Actor { name: "test".to_owned(), from: "test".to_owned() },
        };
        let (answer, answered) = mpsc::sync_channel(1);
        let orders = commands.into_iter().map(order).collect();
        (Task::new(Job { at, orders, mode, answer }), answered)
    }

    /// One batch of one request.
    fn serve(&mut self, at: Option<u64>, mode: Mode, commands: Vec<Command>) -> Answer {
        let (task, answered) = Self::task(at, mode, commands);
        self.writer.serve(vec![task]);
        answered
    }

    fn begin(&mut self, commands: Vec<Command>) -> Answer {
        let answered = self.serve(None, Mode::Real, commands);
        assert_eq!(answered.try_recv().err(), Some(TryRecvError::Empty), "it takes more batches");
        assert_eq!(self.writer.under_way.len(), 1);
        answered
    }

    /// One batch of what is under way.
    fn go_on(&mut self) {
        let under_way = std::mem::take(&mut self.writer.under_way);
        self.writer.serve(under_way);
    }

    fn brought_to_its_end(&mut self, answered: &Answer) -> Vec<Result<Committed, ServiceError>> {
        while !self.writer.under_way.is_empty() {
            self.go_on();
        }
        answered.try_recv().unwrap()
    }

    fn run(&mut self, command: Command) -> Result<Committed, ServiceError> {
        let answered = self.serve(None, Mode::Real, vec![command]);
        answered.try_recv().unwrap().pop().unwrap()
    }

    fn must(&mut self, command: Command) -> Committed {
        self.run(command).unwrap()
    }

    fn refused(&mut self, command: Command) -> String {
        self.run(command).unwrap_err().to_string()
    }

    fn is_there(&self, user: &str) -> bool {
        self.writer.model.read().unwrap().users().contains_key(&label(user))
    }

    fn revision(&self) -> u64 {
        self.writer.model.read().unwrap().revision()
    }

    /// The VM that a certificate for this user leads to at s0.
    fn led(&self, user: &str) -> Option<String> {
        let address = self.table.address_named("s0").unwrap();
        self.table.lookup(Who::User(user), &address, |vm| vm.name.clone())
    }

    /// The model is that of the store, and so is the routing map.
    fn agrees(&self) {
        let mut nobody: Subscriber = Box::new(|_| ());
        let loaded = load::load(
            &self.store.memory,
            &Limits::default(),
            None,
            Unreadable::Refused,
            &mut nobody,
        )
        .unwrap();
        let model = self.writer.model.read().unwrap();
        assert_eq!(loaded.revision(), model.revision());
        assert_eq!(loaded.contents(), model.contents());
        for entry in self.store.memory.snapshot("").unwrap().entries {
            let Ok(key) = entry.key.parse::<Key>() else { continue };
            assert_eq!(loaded.get(&key), model.get(&key), "{key}");
        }
        assert_eq!(self.table.counts().users, loaded.users().len());
        assert_eq!(self.writer.standing, Standing::Sound);
    }
}

#[test]
fn others_are_served_between_the_batches_of_a_large_removal() {
    let mut world = World::shared("u1");
    let before = world.told.lock().unwrap().len();
    let audit = |world: &World| {
        audit::page(&world.store.memory, None, store::Order::Up, usize::MAX).unwrap().len()
    };
    let entries = audit(&world);
    let answered = world.begin(vec![remove("u1")]);
    assert_eq!(audit(&world), entries + 1);
    world.must(add("u9"));
    assert!(world.is_there("u1"));
    let done = world.brought_to_its_end(&answered).pop().unwrap().unwrap();
    assert_eq!((done.report.progress, done.report.left), (Progress::Done, 0));
    assert_eq!(done.revision, world.revision());
    assert!(!world.is_there("u1"));
    assert_eq!(audit(&world), entries + 2, "it is one entry");
    for told in &world.told.lock().unwrap()[before..] {
        assert!(told.unwrap() <= (PARTS_TOGETHER + 1) * (PART_DOCUMENTS + 2), "{told:?}");
    }
    assert!(done.written.len() < MANY / 2, "all that was written is held");
    world.agrees();
}

#[test]
fn a_user_who_goes_enters_nothing_from_the_first_part_on_by_a_certificate_either() {
    let mut world = World::shared("u1");
    assert_eq!(world.led("u1").as_deref(), Some("v0"));
    let answered = world.begin(vec![remove("u1")]);
    assert_eq!(world.table.user(Who::User("u1")), None);
    assert!(world.table.visible("u1").is_empty());
    let again = "user `u1` is being removed; run `keyway user rm u1` again";
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINILzCr80scSuAcnYpxLu4nnirz6xztusEayvak/vj9f";
    world.must(Command::TeamAdd { name: label("ops"), members: vec![] });
    for command in [
        add("u1"),
        Command::KeyAdd { user: label("u1"), line: key.to_owned() },
        Command::TeamJoin { team: label("ops"), user: label("u1"), access: Access::Slot },
        Command::VmTransfer { name: label("v1"), to: "u1".parse().unwrap(), keep: None },
        Command::VmShare { name: label("v1"), with: "u1".parse().unwrap(), access: Access::Slot },
    ] {
        assert_eq!(world.refused(command), again);
    }
    // As after a restart.
    let contents = world.writer.model.read().unwrap().contents();
    world.table.apply(Snapshot::new(contents).unwrap());
    assert_eq!(world.led("u1"), None);
    world.brought_to_its_end(&answered).pop().unwrap().unwrap();
    world.must(add("u1"));
    assert_eq!(world.table.user(Who::User("u1")).as_deref(), Some("u1"));
    world.agrees();
}

#[test]
fn a_team_that_goes_lets_nobody_in_from_the_first_part_on() {
    let mut world = World::shared("team:ops");
    assert_eq!(world.led("u1").as_deref(), Some("v0"));
    let answered = world.begin(vec![Command::TeamRemove { name: label("ops") }]);
    assert_eq!(world.led("u1"), None);
    assert!(world.table.visible("u1").is_empty());
    let again = "team `ops` is being removed; run `keyway team rm ops` again";
    let join = Command::TeamJoin { team: label("ops"), user: label("u0"), access: Access::Slot };
    let with = "team:ops".parse().unwrap();
    let share = Command::VmShare { name: label("v1"), with, access: Access::Slot };
    let team = Command::TeamAdd { name: label("ops"), members: vec![] };
    for command in [join, share, team] {
        assert_eq!(world.refused(command), again);
    }
    world.brought_to_its_end(&answered).pop().unwrap().unwrap();
    world.agrees();
}

#[test]
fn a_dry_run_of_a_large_removal_tries_its_beginning_alone() {
    let mut world = World::shared("u1");
    let (before, revision) = (world.store.memory.snapshot("").unwrap(), world.revision());
    let answered = world.serve(None, Mode::DryRun, vec![remove("u1"), add("u9")]);
    let mut answers = answered.try_recv().unwrap();
    answers.pop().unwrap().unwrap();
    let done = answers.pop().unwrap().unwrap();
    assert_eq!(done.report.progress, Progress::Begun);
    assert_eq!(done.report.left + (PARTS_TOGETHER + 1) * PART_DOCUMENTS, MANY + 1);
    assert!(world.writer.under_way.is_empty());
    assert_eq!(world.store.memory.snapshot("").unwrap(), before);
    assert_eq!(world.revision(), revision);
    world.agrees();
}

#[test]
fn what_stands_behind_a_large_removal_is_carried_out_after_it() {
    let mut world = World::shared("u1");
    let at = Some(world.revision());
    let answered = world.serve(at, Mode::Real, vec![add("u7"), remove("u1"), add("u1")]);
    let answers = world.brought_to_its_end(&answered);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert!(world.is_there("u1"));
    world.agrees();
}

#[test]
fn what_stands_behind_a_large_removal_is_not_carried_out_if_somebody_changes_anything_meanwhile() {
    let mut world = World::shared("u1");
    let at = Some(world.revision());
    let answered = world.serve(at, Mode::Real, vec![remove("u1"), add("u7")]);
    world.must(add("u9"));
    let answers = world.brought_to_its_end(&answered);
    assert!(answers[0].is_ok());
    assert!(
        matches!(answers[1], Err(ServiceError::Refused(Refusal::Outdated { .. }))),
        "{answers:?}"
    );
    assert!(!world.is_there("u1") && !world.is_there("u7"));
}

#[test]
fn a_removal_that_another_one_ended_leaves_whoever_has_the_name_next() {
    let mut world = World::shared("u1");
    let answered = world.begin(vec![remove("u1")]);
    let waiting = std::mem::take(&mut world.writer.under_way);
    let other = world.serve(None, Mode::Real, vec![remove("u1"), add("u1")]);
    assert!(world.brought_to_its_end(&other).iter().all(Result::is_ok));
    world.writer.under_way = waiting;
    let done = world.brought_to_its_end(&answered).pop().unwrap().unwrap();
    assert_eq!(done.report.progress, Progress::Done);
    assert!(world.is_there("u1"));
    world.agrees();
}

#[test]
fn a_removal_that_fails_half_way_says_that_it_was_begun_and_goes_on_by_the_same_command() {
    let mut world = World::shared("u1");
    let answered = world.begin(vec![remove("u1"), add("u8")]);
    world.store.is(Ill::Full);
    let mut answers = world.brought_to_its_end(&answered);
    assert!(matches!(answers.pop().unwrap(), Err(ServiceError::Store(_))), "u8");
    let failed = answers.pop().unwrap().unwrap_err();
    assert!(matches!(failed, ServiceError::Begun(_)), "{failed:?}");
    assert!(failed.to_string().contains("run the same command again"), "{failed}");
    world.store.is(Ill::Well);
    world.agrees();
    world.must(remove("u1"));
    assert!(!world.is_there("u1"));
    world.agrees();
}

#[test]
fn what_a_full_store_did_not_take_is_taken_back_and_nothing_is_read() {
    let mut world = World::shared("u1");
    let (before, told) = (world.revision(), world.told.lock().unwrap().len());
    world.store.is(Ill::Full);
    world.store.read.store(0, Ordering::Relaxed);
    for _ in 0..3 {
        let name = label("v0");
        let answered = world.serve(
            None,
            Mode::Real,
            vec![add("u9"), Command::VmRemove { name }, remove("u1"), add("u8")],
        );
        for answer in world.brought_to_its_end(&answered) {
            assert!(matches!(answer, Err(ServiceError::Store(_))), "{answer:?}");
        }
        assert_eq!(world.revision(), before);
        world.agrees();
    }
    assert_eq!(world.store.read.load(Ordering::Relaxed), 0);
    assert_eq!(world.told.lock().unwrap().len(), told, "nothing has changed");
    assert_eq!(world.led("u1").as_deref(), Some("v0"));
    // A plan made before is still one.
    world.store.is(Ill::Well);
    let answered = world.serve(Some(before), Mode::Real, vec![add("u9")]);
    answered.try_recv().unwrap().pop().unwrap().unwrap();
    world.agrees();
}

#[test]
fn what_a_store_has_done_and_says_it_has_not_is_read_anew() {
    let mut world = World::new();
    world.store.is(Ill::Lies);
    assert!(matches!(world.run(add("u9")), Err(ServiceError::Store(_))));
    assert!(world.is_there("u9"));
    assert_eq!(world.told.lock().unwrap().last(), Some(&None), "of everything");
    world.store.is(Ill::Well);
    world.agrees();
}

#[test]
fn of_a_batch_what_the_store_took_stays_and_nothing_is_read() {
    let mut world = World::new();
    world.store.is(Ill::But(1));
    world.store.read.store(0, Ordering::Relaxed);
    let answered = world.serve(None, Mode::Real, ["u6", "u7", "u8"].map(add).to_vec());
    let answers = answered.try_recv().unwrap();
    assert!(answers[0].is_ok() && answers[1].is_err() && answers[2].is_ok(), "{answers:?}");
    assert!(world.is_there("u6") && !world.is_there("u7") && world.is_there("u8"));
    assert_eq!(world.store.read.load(Ordering::Relaxed), 0);
    assert_eq!(world.told.lock().unwrap().last(), Some(&Some(2)));
    world.agrees();
}

#[test]
fn while_the_store_cannot_be_read_nothing_is_carried_out_and_then_its_revision_is_enough() {
    let mut world = World::new();
    let before = world.revision();
    world.store.is(Ill::Full);
    *world.store.unreadable.lock().unwrap() = true;
    world.store.read.store(0, Ordering::Relaxed);
    for _ in 0..2 {
        assert!(matches!(world.run(add("u9")), Err(ServiceError::Store(_))));
        assert_eq!((world.revision(), world.is_there("u9")), (before, false));
        assert_eq!(world.writer.standing, Standing::Doubted);
    }
    world.store.is(Ill::Well);
    assert!(matches!(world.run(add("u9")), Err(ServiceError::Store(_))), "it cannot be read");
    *world.store.unreadable.lock().unwrap() = false;
    world.must(add("u9"));
    assert_eq!(world.store.read.load(Ordering::Relaxed), 0);
    world.agrees();
}

#[test]
fn a_store_that_another_process_wrote_is_read_anew() {
    let mut world = World::new();
    let key = Key::User(label("u1")).to_string();
    world.store.memory.transact(&Transaction::new().delete(key)).unwrap();
    world.store.read.store(0, Ordering::Relaxed);
    assert!(matches!(world.run(remove("u1")), Err(ServiceError::Store(_))));
    assert!(!world.is_there("u1"));
    assert!(world.store.read.load(Ordering::Relaxed) > 0);
    world.agrees();
}

#[test]
fn the_health_of_the_store_follows_it_and_recovers_though_nobody_changes_anything() {
    let mut world = World::new();
    let health = world.writer.health.clone();
    let notes = |world: &World| {
        let audit = world.store.memory.snapshot("audit/").unwrap().entries;
        let text = |entry: &store::Entry| String::from_utf8_lossy(&entry.value).into_owned();
        audit.iter().map(text).filter(|text| text.contains("store-fault")).count()
    };
    for unreadable in [false, true] {
        assert!(health.fault().is_none() && world.writer.works());
        world.store.is(Ill::Full);
        *world.store.unreadable.lock().unwrap() = unreadable;
        assert!(world.refused(add("u9")).contains("make room"));
        for _ in 0..3 {
            assert!(!world.writer.works());
            assert!(health.fault().unwrap().contains("make room"), "{:?}", health.fault());
        }
        // Whoever asks meanwhile hears the same.
        assert!(world.refused(add("u9")).contains("make room"));
        let before = notes(&world);
        world.store.is(Ill::Well);
        *world.store.unreadable.lock().unwrap() = false;
        assert!(world.writer.works());
        assert_eq!(
            (health.fault(), notes(&world)),
            (None, before + 1),
            "what was wrong is noted once"
        );
        world.agrees();
    }
    world.store.is(Ill::Full);
    let _refused = world.refused(add("u9"));
    world.store.is(Ill::Well);
    world.must(add("u9"));
    assert_eq!(health.fault(), None, "a change that was made is as good");
}

#[test]
fn a_change_that_cannot_be_made_as_things_stand_says_nothing_of_the_store() {
    let mut world = World::new();
    let key = Key::User(label("u1")).to_string();
    world.store.memory.transact(&Transaction::new().delete(key)).unwrap();
    assert!(matches!(world.run(remove("u1")), Err(ServiceError::Store(_))));
    assert_eq!(world.writer.health.fault(), None);
}
