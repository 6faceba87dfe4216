//! What goes and is too large for one transaction, through the service and its store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::registry::command::{Command, NewAddress, NewVm, Options, Placement};
use crate::registry::document::{Access, Document, Key, VmState};
use crate::registry::draft::{Draft, Progress};
use crate::registry::model::{CommandContext, Limits};
use crate::registry::name::{Label, Principal};
use crate::registry::store::testing::memory::Memory;
use crate::registry::store::{Store, StoreId};
use crate::registry::writer::{self, Actor, CommandRequest, Mode, Service, ServiceError, Update};
use crate::ssh::testing::Seeded;

/// More than one transaction holds.
const MANY: usize = 200;

static NOW_S: AtomicU64 = AtomicU64::new(1_000_000);

fn label(name: &str) -> Label {
    Label::new(name).unwrap()
}

fn principal(name: &str) -> Principal {
    name.parse().unwrap()
}

struct World {
    service: Service,
    store: Memory,
    /// How many documents the follower heard of, batch by batch.
    told: Arc<Mutex<Vec<usize>>>,
}

impl World {
    /// A pool of so many addresses, and users u0, u1...
    fn new(addresses: usize, users: usize) -> Self {
        let store = Memory::new(StoreId([7; 16]));
        let told: Arc<Mutex<Vec<usize>>> = Arc::default();
        let heard = Arc::clone(&told);
        let follow = Box::new(move |news: Update<'_>| {
            if let Update::Written { written, .. } = news {
                heard.lock().unwrap().push(written.len());
            }
        });
        let service = Service::start(writer::Start {
            store: Arc::new(store.clone()),
            limits: Limits::default(),
            now_s: || NOW_S.load(Ordering::Relaxed),
            entropy: Box::new(Seeded(5)),
            known: None,
            follow,
        });
        let world = Self { service: service.unwrap(), store, told };
        for last in 0..addresses {
            let public = format!("10.1.{}.{}", last / 250, last % 250 + 1).parse().ok();
            let address = NewAddress { public, ..NewAddress::default() };
            world.must(Command::AddressAdd { name: label(&format!("s{last}")), address });
        }
        for user in 0..users {
            world.must(Command::UserAdd { name: label(&format!("u{user}")), keys: vec![] });
        }
        world
    }

    fn order(&self, command: Command, mode: Mode) -> Result<writer::Committed, ServiceError> {
        let actor = Actor { name: "uid 0".to_owned(), from: "socket".to_owned() };
        let options = Options::default();
        self.service.carry_out(CommandRequest { command, options, expected: None, actor }, mode)
    }

    fn must(&self, command: Command) -> writer::Committed {
        let shown = format!("{command:?}");
        self.order(command, Mode::Real).unwrap_or_else(|failed| panic!("{shown}: {failed}"))
    }

    fn vm(&self, name: &str, owner: &str) {
        self.must(Command::VmAdd(NewVm::new(
            label(name),
            principal(owner),
            "127.0.0.1:22".to_owned(),
        )));
    }

    fn share(&self, name: &str, with: &str) {
        let (name, with) = (label(name), principal(with));
        self.must(Command::VmShare { name, with, access: Access::Slot });
    }

    /// The words of the audit log.
    fn log(&self) -> Vec<&'static str> {
        let log = self.service.audit(None, false, usize::MAX).unwrap();
        log.iter().map(|(_, entry)| entry.command.word()).collect()
    }

    /// Tries, carries out and looks: it is one order in many transactions, and the store says the
    /// same as the model.
    fn goes(&self, command: &Command, key: &Key) {
        let before = self.store.snapshot("").unwrap();
        let tried = self.order(command.clone(), Mode::DryRun).unwrap();
        assert_eq!(self.store.snapshot("").unwrap(), before, "a dry run changed something");
        let (count, heard) = (self.log().len(), self.told.lock().unwrap().len());
        let done = self.must(command.clone());
        assert_eq!((done.report.progress, tried.report.progress), (Progress::Done, Progress::Done));
        assert_eq!(done.written.len(), tried.written.len());
        assert!(done.written.len() > MANY, "{}", done.written.len());
        assert_eq!(done.revision, tried.revision);
        assert!(self.service.read(|model| model.get(key).is_none()));
        assert_eq!(self.log()[count..], [command.word()]);
        assert_eq!(self.told.lock().unwrap()[heard..], [done.written.len()], "all at once");
        let loaded = writer::load(&self.store, &Limits::default()).unwrap();
        let entries = self.store.snapshot("").unwrap().entries;
        self.service.read(|model| {
            for entry in entries {
                let Ok(key) = entry.key.parse::<Key>() else { continue };
                assert_eq!(loaded.get(&key), model.get(&key), "{key}");
            }
            assert_eq!(loaded.vm_names(), model.vm_names());
        });
    }
}

/// u1 has a key and many shares.
fn shared_with_u1() -> World {
    let world = World::new(MANY + 10, 2);
    world.must(Command::KeyAdd {
        user: label("u1"),
        line: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINILzCr80scSuAcnYpxLu4nnirz6xztusEayvak/vj9f"
            .to_owned(),
    });
    for number in 0..MANY {
        let name = format!("v{number}");
        world.vm(&name, "u0");
        world.share(&name, "u1");
    }
    world
}

#[test]
fn a_user_with_many_shares_and_teams_goes() {
    let world = shared_with_u1();
    for number in 0..60 {
        let (name, members) = (label(&format!("t{number}")), vec![label("u1")]);
        world.must(Command::TeamAdd { name, members });
    }
    world.goes(&Command::UserRemove { name: label("u1") }, &Key::User(label("u1")));
    let teams = world.service.read(|model| model.teams().clone());
    assert!(teams.values().all(|stored| stored.document.members.is_empty()));
}

#[test]
fn a_user_who_is_half_gone_has_no_key_and_goes_by_the_same_command() {
    let world = shared_with_u1();
    // As a crash leaves it: of what the service makes durable together, the first
    // transaction alone.
    let mut model = writer::load(&world.store, &Limits::default()).unwrap();
    let remove = Command::UserRemove { name: label("u1") };
    for last in [false, false, false, true] {
        let mut draft = Draft::new(&mut model, CommandContext { now_s: 1_000_000, nonce: 1 });
        draft.carry_out(&remove, Options::default()).unwrap();
        let (written, report) = draft.keep();
        assert!(written.len() < 70, "{}", written.len());
        assert_eq!(report.progress == Progress::Done, last);
        let user = model.users().get(&label("u1"));
        assert_eq!(user.is_none(), last);
        assert!(user.is_none_or(|user| user.document.keys.is_empty()));
    }
    assert!(model.visible_to(&principal("u1")).is_empty());
}

#[test]
fn a_team_with_many_members_and_vms_goes() {
    let world = World::new(MANY + 10, MANY);
    let members = (1..MANY).map(|user| label(&format!("u{user}"))).collect();
    world.must(Command::TeamAdd { name: label("ops"), members });
    for number in 0..MANY {
        let name = format!("v{number}");
        world.vm(&name, "u0");
        world.share(&name, "team:ops");
    }
    // What each member holds are many bytes, so the parts are smaller than by documents alone.
    world.goes(&Command::TeamRemove { name: label("ops") }, &Key::Team(label("ops")));
    let held = world.service.read(|model| model.get(&Key::Quarantine(principal("u9"))));
    let Some((Document::Quarantine(quarantined), _)) = held else { panic!("u9 holds nothing") };
    assert_eq!(quarantined.len(), MANY);
}

#[test]
fn a_vm_that_many_enter_goes() {
    let world = World::new(3, MANY + 2);
    world.vm("blue", "u0");
    for user in 1..=MANY {
        world.share("blue", &format!("u{user}"));
    }
    let serial = world.service.read(|model| *model.vm_names().get(&label("blue")).unwrap());
    let mut model = writer::load(&world.store, &Limits::default()).unwrap();
    let mut draft = Draft::new(&mut model, CommandContext { now_s: 1_000_000, nonce: 1 });
    draft.carry_out(&Command::VmRemove { name: label("blue") }, Options::default()).unwrap();
    assert_eq!(draft.keep().1.progress, Progress::Begun);
    assert_eq!(model.vm(serial).unwrap().document.state, VmState::Maint, "nobody may enter");
    world.goes(&Command::VmRemove { name: label("blue") }, &Key::Vm(serial));
}

#[test]
fn second_ways_of_many_end_in_parts() {
    let mut model = {
        let world = World::new(3, MANY + 2);
        world.vm("blue", "u0");
        for user in 1..=MANY {
            world.share("blue", &format!("u{user}"));
        }
        world.must(Command::VmRenumber { name: label("blue"), to: Placement::Chosen });
        writer::load(&world.store, &Limits::default()).unwrap()
    };
    let mut sweeps = 0;
    loop {
        let mut draft = Draft::new(&mut model, CommandContext { now_s: 2_000_000, nonce: 1 });
        draft.carry_out(&Command::Sweep, Options::default()).unwrap();
        let (written, _) = draft.keep();
        assert!(written.len() < 70, "{}", written.len());
        if written.is_empty() {
            break;
        }
        sweeps += 1;
    }
    assert!(sweeps >= 3, "{sweeps}");
    let (_, vm) = model.vm_named(&label("blue")).unwrap();
    assert!(vm.document.old.is_empty());
}
