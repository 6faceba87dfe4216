//! Tests of adoptions: whatever is restored over whatever, no slot leads to another VM soon, and no
//! revision comes twice.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::*;
use crate::registry::command::{NewAddress, NewVm, Placement};
use crate::registry::document::EdgeState;
use crate::registry::testing::dice::Dice;
use crate::registry::testing::history::Truth;
use crate::registry::writer::{ServiceError, Start, Update};
use crate::registry::{Document, Key, Principal, Refusal, routes};
use crate::ssh::testing::Seeded;

const QUARANTINE_S: u64 = 100;
/// The time of services in these tests, which only goes on.
static NOW_S: AtomicU64 = AtomicU64::new(1_800_000_000);

fn now_s() -> u64 {
    NOW_S.load(Ordering::Relaxed)
}

/// One test at a time: all have one clock.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A state directory, and what a process has of it that serves.
struct Host {
    directory: PathBuf,
    state: State,
    limits: Limits,
    seed: u64,
    served: Option<(Sqlite, Service)>,
}

impl Host {
    fn new(seed: u64) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("keyway-adoption-{}-{number}", std::process::id());
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let directory = base.join(name);
        let state = State::open(&directory).unwrap();
        let limits = Limits { quarantine_s: QUARANTINE_S, ..Limits::default() };
        Self { directory, state, limits, seed, served: None }
    }

    fn fresh(&mut self) -> Seeded {
        self.seed += 1;
        Seeded(self.seed)
    }

    /// As `serve` begins.
    fn start(&mut self) -> Result<Option<u64>, Failure> {
        let mut id = [0; 16];
        let mut entropy = self.fresh();
        crate::ssh::entropy::Entropy::fill(&mut entropy, &mut id);
        let store = Sqlite::open(&self.state.store(), StoreId(id))?;
        let (mut saved, before) = (self.state.routes(), self.state.routes_before_adoption());
        let (state, limits, now) = (&self.state, &self.limits, now_s());
        let known = Known { state, saved: &saved, before: &before, limits, now_s: now };
        let adoption = Adoption::begin(&store, &known)?;
        let closed = adoption.as_ref().and_then(|adoption| adoption.closed_until_s);
        let head = store.head()?;
        let at = move |revision| Head { store: head.store_id.0, program: [1; 8], revision };
        let start = Start {
            store: Arc::new(store.clone()),
            limits: self.limits.clone(),
            now_s,
            entropy: Box::new(entropy),
            known: None,
            follow: Box::new(move |news| match news {
                Update::Everything { revision, contents, .. } => {
                    saved.write(at(revision), &contents).unwrap();
                }
                Update::Written { model, written } => {
                    saved.append(at(model.revision()), &routes::delta(written)).unwrap();
                    saved.quarantined.append(model, written).unwrap();
                }
            }),
        };
        let service = Service::start(start)?;
        if let Some(adoption) = adoption {
            self.state.note_replaced(&adoption.stores())?;
            adoption.carry_out(&service)?;
            self.state.settle()?;
        }
        self.served = Some((store, service));
        Ok(closed)
    }

    fn stop(&mut self) {
        self.served = None;
    }

    fn service(&self) -> &Service {
        &self.served.as_ref().unwrap().1
    }

    fn says(&self, command: Command) -> Result<u64, ServiceError> {
        let actor = Actor { name: "test".to_owned(), from: "test".to_owned() };
        let order = CommandRequest { command, options: Options::default(), expected: None, actor };
        self.service().carry_out(order, Mode::Real).map(|done| done.revision)
    }

    fn backup(&self, name: &str) -> PathBuf {
        let to = self.directory.join(name);
        self.served.as_ref().unwrap().0.backup(&to).unwrap();
        to
    }

    /// As `keyway store restore`.
    fn restore(&mut self, from: &Path) {
        let mut id = [0; 16];
        crate::ssh::entropy::Entropy::fill(&mut self.fresh(), &mut id);
        let at_s = now_s();
        let (store_id, from_where) = (StoreId(id).to_string(), "backup".to_owned());
        self.state.note_restored(Restored { store_id, at_s, from: from_where, uid: 7 }).unwrap();
        let stamp = utc(at_s).replace(['-', ':'], "");
        sqlite::restore(from, &self.state.store(), StoreId(id), &stamp).unwrap();
    }

    /// As `keyway store adopt`.
    fn adopt(&self, nothing_lost: bool) {
        let head = Sqlite::open_kept(&self.state.store()).unwrap().head().unwrap();
        let (store_id, revision) = (head.store_id.to_string(), head.revision.0);
        self.state.adopt(&Adopted { store_id, revision, nothing_lost, uid: 7 }).unwrap();
    }

    /// Damages the store as a disk does, and leaves what says that it is one or not.
    fn damage(&self, from: usize) {
        let path = self.state.store();
        let mut bytes = fs::read(&path).unwrap();
        bytes[from..].fill(0xa5);
        fs::write(&path, bytes).unwrap();
    }

    fn documents(&self) -> Truth {
        let snapshot = self.served.as_ref().unwrap().0.snapshot("").unwrap();
        let mut truth = Truth::default();
        for entry in snapshot.entries {
            let Ok(key) = entry.key.parse::<Key>() else { continue };
            let document = Document::from_json(&key, &entry.value).unwrap();
            truth.documents.insert(key, (document, entry.modified.0));
        }
        truth
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.served = None;
        let _gone = fs::remove_dir_all(&self.directory);
    }
}

fn label(name: &str) -> Label {
    Label::new(name).unwrap()
}

fn address(number: u8) -> Command {
    let public = Some([127, 0, 77, number].into());
    let name = label(&format!("s{number}"));
    Command::AddressAdd { name, address: NewAddress { public, ..NewAddress::default() } }
}

fn user(name: &str) -> Command {
    Command::UserAdd { name: label(name), keys: Vec::new() }
}

fn vm(name: &str, owner: &str, at: &str) -> Command {
    vm_at(name, owner, Placement::At(label(at)))
}

fn vm_at(name: &str, owner: &str, placement: Placement) -> Command {
    Command::VmAdd(NewVm {
        placement,
        ..NewVm::new(
            label(name),
            Principal::User(label(owner)),
            // Of one owner, VMs at one endpoint are one VM.
            format!("127.0.0.1:{}", 1000 + name.bytes().map(u32::from).sum::<u32>()),
        )
    })
}

fn settled(host: &mut Host) {
    host.start().unwrap();
    for number in 0..3 {
        host.says(address(number)).unwrap();
    }
    host.says(user("u0")).unwrap();
}

fn audit(host: &Host) -> Vec<(String, &'static str)> {
    let all = host.service().audit(None, false, 1000).unwrap();
    all.into_iter().map(|(_, audit)| (audit.actor.name, audit.command.word())).collect()
}

#[test]
fn a_slot_leads_to_no_other_vm_soon_whatever_is_restored_over_whatever() {
    let _alone = alone();
    let count = std::env::var("KEYWAY_RESTORES").ok().and_then(|count| count.parse().ok());
    let first = std::env::var("KEYWAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let (mut restores, mut done) = (0, 0);
    for seed in first..first + count.unwrap_or(24) {
        let told = Told(seed);
        let mut host = Host::new(seed * 1_000_000);
        let mut dice = Dice(Seeded(seed));
        settled(&mut host);
        let (mut truth, mut backups) = (Truth::default(), vec![host.backup("first")]);
        let mut serial = 0;
        for step in 0..30 {
            let look = |host: &Host, truth: &mut Truth| {
                truth.documents = host.documents().documents;
                truth.look(now_s(), QUARANTINE_S);
            };
            for _ in 0..dice.below(6) {
                NOW_S.fetch_add(dice.below(QUARANTINE_S / 3), Ordering::Relaxed);
                look(&host, &mut truth);
                done += u64::from(host.says(dice.command()).is_ok());
                look(&host, &mut truth);
            }
            match dice.below(6) {
                0 => backups.push(host.backup(&format!("backup-{step}"))),
                1 | 2 => {
                    host.stop();
                    match dice.below(4) {
                        0 => host.damage(0),
                        1 => host.damage(4096),
                        _ => {}
                    }
                    // Now and then two in a row, none of which was served.
                    for _ in 0..=dice.below(2) {
                        let which = usize::try_from(dice.below(backups.len() as u64)).unwrap();
                        host.restore(&backups[which]);
                        NOW_S.fetch_add(dice.below(QUARANTINE_S / 3), Ordering::Relaxed);
                    }
                    host.adopt(false);
                    host.start().unwrap();
                    restores += 1;
                    look(&host, &mut truth);
                }
                3 => {
                    host.stop();
                    assert_eq!(host.start().unwrap(), None, "nothing was restored");
                }
                _ => {}
            }
            let revision = host.service().revision();
            assert!(revision >= serial, "revision {revision} after {serial}");
            serial = revision;
        }
        std::mem::forget(told);
    }
    assert!(restores > 0 && done > restores, "{done} commands, {restores} restores");
}

/// Says which seed it was, if that ends in a panic.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("KEYWAY_SEED={} KEYWAY_RESTORES=1", self.0);
    }
}

#[test]
fn a_second_and_a_third_restore_forget_nothing_and_every_store_is_kept() {
    let _alone = alone();
    let mut host = Host::new(1);
    settled(&mut host);
    let backup = host.backup("backup");
    host.says(vm("brief", "u0", "s0")).unwrap();
    host.says(Command::VmRemove { name: label("brief") }).unwrap();
    let revision = host.service().revision();
    host.stop();
    for _ in 0..3 {
        host.restore(&backup);
    }
    assert_eq!(sqlite::replaced(&host.state.store()).unwrap().len(), 3);
    assert!(host.start().is_err(), "nobody has adopted it");
    host.adopt(false);
    assert_eq!(host.start().unwrap(), None, "all is known");
    let refused = host.says(vm("other", "u0", "s0")).unwrap_err();
    assert!(matches!(refused, ServiceError::Refused(Refusal::Conflict { .. })), "{refused}");
    host.says(vm("other", "u0", "s1")).unwrap();
    assert!(host.service().revision() > revision);
    let restored = ("uid 7".to_owned(), "store-restore");
    let audit = audit(&host);
    assert_eq!(audit.iter().filter(|entry| **entry == restored).count(), 3, "{audit:?}");
    assert!(audit.contains(&("uid 7".to_owned(), "store-adopt")), "{audit:?}");
    // Whoever follows any of them is told.
    let id = host.served.as_ref().unwrap().0.head().unwrap().store_id.0;
    let replaced = host.state.replaced().unwrap();
    assert!(replaced.len() == 3 && !replaced.contains(&id), "{replaced:?}");
    // Once it is done it is as any other: nothing is adopted again.
    host.stop();
    assert_eq!(host.start().unwrap(), None);
    assert_eq!(audit, self::audit(&host));
}

#[test]
fn what_a_damaged_store_held_is_still_held_and_no_new_slot_is_given_for_one_quarantine() {
    let _alone = alone();
    let mut host = Host::new(2);
    settled(&mut host);
    host.says(vm("blue", "u0", "s1")).unwrap();
    let backup = host.backup("backup");
    host.says(vm("brief", "u0", "s0")).unwrap();
    host.says(Command::VmRemove { name: label("brief") }).unwrap();
    let revision = host.service().revision();
    host.stop();
    host.damage(0);
    host.restore(&backup);
    host.adopt(false);
    let until_s = host.start().unwrap().expect("slots are closed");
    assert!(until_s <= now_s() + QUARANTINE_S);
    let held = host
        .service()
        .read(Model::ways)
        .into_iter()
        .any(|way| way.address == label("s0") && way.until_s.is_some());
    assert!(held, "the saved routes forgot the hold");
    let refused = host.says(vm("other", "u0", "s2")).unwrap_err();
    assert!(matches!(refused, ServiceError::Refused(Refusal::Closed { .. })), "{refused}");
    assert!(refused.to_string().contains("--no-address"), "{refused}");
    host.says(vm_at("by-name", "u0", Placement::Nowhere)).unwrap();
    // What has a slot keeps it, under another name too.
    host.says(Command::VmRename { name: label("blue"), to: label("navy") }).unwrap();
    assert!(host.service().revision() > revision + REVISIONS_LOST_MAX / 2);
    NOW_S.fetch_add(2 * QUARANTINE_S, Ordering::Relaxed);
    host.says(vm("other", "u0", "s2")).unwrap();
}

#[test]
fn a_registry_new_on_this_host_gives_no_slot_at_once_unless_nothing_was_lost() {
    let _alone = alone();
    let mut there = Host::new(3);
    settled(&mut there);
    let backup = there.backup("backup");
    for nothing_lost in [false, true] {
        let mut here = Host::new(4);
        here.restore(&backup);
        if nothing_lost {
            here.adopt(true);
        }
        assert_eq!(here.start().unwrap().is_none(), nothing_lost);
        assert_eq!(here.says(vm("blue", "u0", "s0")).is_ok(), nothing_lost);
    }
}

#[test]
fn an_adoption_is_of_one_state_of_one_store() {
    let _alone = alone();
    let mut host = Host::new(5);
    settled(&mut host);
    let early = host.backup("early");
    host.says(user("u1")).unwrap();
    let late = host.backup("late");
    host.says(user("u2")).unwrap();
    host.stop();
    host.restore(&late);
    host.adopt(false);
    // Another one takes its place before it is served.
    host.restore(&early);
    assert!(host.start().is_err());
    // An old copy with the id that was adopted, put there by hand.
    let head = Sqlite::open_kept(&host.state.store()).unwrap().head().unwrap();
    host.state
        .adopt(&Adopted {
            store_id: head.store_id.to_string(),
            revision: head.revision.0 + 1,
            nothing_lost: false,
            uid: 7,
        })
        .unwrap();
    assert!(host.start().is_err());
    host.adopt(false);
    host.start().unwrap();
}

#[test]
fn an_adoption_that_was_cut_short_is_done_again() {
    let _alone = alone();
    let mut host = Host::new(6);
    settled(&mut host);
    let backup = host.backup("backup");
    host.says(vm("brief", "u0", "s0")).unwrap();
    host.says(Command::VmRemove { name: label("brief") }).unwrap();
    host.stop();
    host.damage(0);
    host.restore(&backup);
    host.adopt(false);
    let store = Sqlite::open(&host.state.store(), StoreId([9; 16])).unwrap();
    let (saved, before) = (host.state.routes(), host.state.routes_before_adoption());
    let (state, limits) = (&host.state, &host.limits);
    let known = Known { state, saved: &saved, before: &before, limits, now_s: now_s() };
    // And then the process is killed, each time.
    let mut raised = Vec::new();
    for again in 0..4 {
        if again == 3 {
            host.adopt(false);
        }
        assert!(Adoption::begin(&store, &known).unwrap().is_some());
        raised.push(store.head().unwrap().revision);
    }
    assert_eq!(raised, [raised[0]; 4], "once, however often it is tried");
    drop(store);
    // As a command that believed another one would leave it.
    fs::remove_file(host.directory.join("adopted")).unwrap();
    assert!(host.start().unwrap().is_some());
    assert!(audit(&host).contains(&("uid 7".to_owned(), "store-adopt")), "{:?}", audit(&host));
    NOW_S.fetch_add(QUARANTINE_S / 2, Ordering::Relaxed);
    assert!(host.service().read(Model::ways).iter().any(|way| way.address == label("s0")));
    let revision = host.service().revision();
    // The next one is another.
    host.stop();
    host.damage(0);
    host.restore(&backup);
    host.adopt(false);
    host.start().unwrap();
    assert!(host.service().revision() > revision + REVISIONS_LOST_MAX / 2);
}

/// By what the store says that was replaced, or, where that cannot be read, by what is kept beside.
#[test]
fn an_edge_that_was_removed_stays_so_whatever_is_restored() {
    let _alone = alone();
    for is_damaged in [false, true] {
        let mut host = Host::new(7);
        settled(&mut host);
        let key = crate::ssh::private_key::PrivateKey::generate_ed25519(&mut Seeded(7));
        let (identity, print) = (key.public().to_line(), key.public().fingerprint());
        let name = label("e1");
        let add = Command::EdgeAdd { name: name.clone(), identity: identity.clone() };
        host.says(add.clone()).unwrap();
        let backup = host.backup("backup");
        host.says(Command::EdgeRemove { name, identity: None }).unwrap();
        host.stop();
        if is_damaged {
            let kept = RemovedEdge { name: "e1".to_owned(), identity, since_s: u64::MAX };
            host.state.note_removed_edges(&[kept]).unwrap();
            host.damage(0);
        }
        host.restore(&backup);
        host.adopt(false);
        host.start().unwrap();
        let state = |host: &Host| host.service().read(|model| model.edges()[&print].document.state);
        assert_eq!(state(&host), EdgeState::Removed, "{is_damaged}");
        assert!(audit(&host).contains(&("uid 7".to_owned(), "edge-rm")), "{:?}", audit(&host));
        // It is no key for ever.
        host.says(add).unwrap();
        assert_eq!(state(&host), EdgeState::Admitted);
    }
}

/// However many stores were replaced not long ago.
#[test]
fn an_edge_that_was_admitted_again_stays_so_in_every_later_restore() {
    let _alone = alone();
    let mut host = Host::new(8);
    settled(&mut host);
    let key = crate::ssh::private_key::PrivateKey::generate_ed25519(&mut Seeded(8));
    let (identity, print) = (key.public().to_line(), key.public().fingerprint());
    let name = label("e1");
    let add = Command::EdgeAdd { name: name.clone(), identity };
    host.says(add.clone()).unwrap();
    let backup = host.backup("backup");
    host.says(Command::EdgeRemove { name, identity: None }).unwrap();
    for readmits in [true, false] {
        host.stop();
        host.restore(&backup);
        host.adopt(false);
        NOW_S.fetch_add(1, Ordering::Relaxed);
        host.start().unwrap();
        let state = host.service().read(|model| model.edges()[&print].document.state);
        let wanted = if readmits { EdgeState::Removed } else { EdgeState::Admitted };
        assert_eq!(state, wanted, "readmits {readmits}");
        NOW_S.fetch_add(1, Ordering::Relaxed);
        if readmits {
            host.says(add.clone()).unwrap();
        }
    }
}
