//! Tests of `state`.

use std::{
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use super::*;
use crate::{
    route::{Pin, Vm},
    ssh::{entropy::SystemEntropy, publickey::PublicKey},
};

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("keyway-state-{}-{number}", std::process::id())))
    }

    fn open(&self) -> State {
        State::open(&self.0).unwrap()
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.0.join(name)).unwrap().mode() & 0o7777
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn put_pins(&self, text: &str) {
        let path = self.0.join(PINS);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn key() -> PublicKey {
    PrivateKey::generate_ed25519(&mut SystemEntropy::default()).public().clone()
}

fn vm(name: &str, owner: &str, host_key: Option<Pin>) -> Vm {
    Vm {
        id: name.to_owned(),
        name: name.to_owned(),
        owner: owner.to_owned(),
        endpoint: "127.0.0.1:22".to_owned(),
        login: None,
        host_key,
        address: None,
    }
}

#[test]
fn keys_are_made_once_and_for_nobody_else() {
    let scratch = Scratch::new();
    let mut entropy = SystemEntropy::default();
    let state = State::open(&scratch.0).unwrap();
    assert_eq!(fs::metadata(&scratch.0).unwrap().mode() & 0o7777, 0o700);
    let host = state.host_key(&mut entropy).unwrap().public().clone();
    let ca = state.user_ca(&mut entropy).unwrap().public().clone();
    assert_ne!(host, ca);
    assert_eq!(*scratch.open().host_key(&mut entropy).unwrap().public(), host);
    assert_eq!(*scratch.open().user_ca(&mut entropy).unwrap().public(), ca);
    assert_eq!(scratch.names(), [HOST_KEY, USER_CA]);
    assert_eq!((scratch.mode(HOST_KEY), scratch.mode(USER_CA)), (0o600, 0o600));
}

#[test]
fn processes_that_start_together_agree_on_one_key() {
    let scratch = Scratch::new();
    let state = scratch.open();
    let made = || state.host_key(&mut SystemEntropy::default()).unwrap().public().clone();
    let keys: Vec<PublicKey> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(made)).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert!(keys.iter().all(|key| *key == keys[0]));
    assert_eq!(scratch.names(), [HOST_KEY]);
}

#[test]
fn what_is_open_to_others_is_refused() {
    let scratch = Scratch::new();
    let mut entropy = SystemEntropy::default();
    scratch.open().host_key(&mut entropy).unwrap();
    let path = scratch.0.join(HOST_KEY);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let fault = scratch.open().host_key(&mut entropy).unwrap_err().to_string();
    let shown = path.display();
    assert_eq!(fault, format!("{shown} is open to others (mode 0644); fix: chmod go= {shown}"));
    fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o750)).unwrap();
    assert!(matches!(State::open(&scratch.0), Err(StateFault::Open { mode: 0o750, .. })));
}

#[test]
fn a_damaged_key_is_never_replaced() {
    let scratch = Scratch::new();
    let mut entropy = SystemEntropy::default();
    let state = scratch.open();
    state.host_key(&mut entropy).unwrap();
    let path = scratch.0.join(HOST_KEY);
    fs::write(&path, "").unwrap();
    assert!(matches!(state.host_key(&mut entropy), Err(StateFault::Key { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"");
}

#[test]
fn the_first_key_seen_is_the_pin_and_stays_it() {
    let scratch = Scratch::new();
    let (first, second) = (key(), key());
    let pins = scratch.open().pins().unwrap();
    assert!(pins.is_empty() && pins.get("blue").is_none());
    assert_eq!(pins.record_first("blue", "alice", &first).unwrap(), Recorded::First);
    assert_eq!(pins.record_first("blue", "alice", &first).unwrap(), Recorded::Same);
    let pinned = Arc::new(Pinned { key: first.clone(), owner: "alice".to_owned() });
    assert_eq!(pins.record_first("blue", "alice", &second).unwrap(), Recorded::Conflict(pinned));
    assert_eq!(pins.record_first("team-vm", "team:ops", &second).unwrap(), Recorded::First);
    assert_eq!((scratch.mode(PINS), scratch.names()), (0o600, vec![PINS.to_owned()]));

    let again = scratch.open().pins().unwrap();
    assert_eq!(again.len(), 2);
    assert_eq!(again.get("blue").unwrap().key, first);
    assert_eq!(again.get("team-vm").unwrap().owner, "team:ops");
}

#[test]
fn of_shards_that_race_one_wins() {
    let scratch = Scratch::new();
    let pins = scratch.open().pins().unwrap();
    let outcomes: Vec<Recorded> = std::thread::scope(|scope| {
        let race = || pins.record_first("blue", "alice", &key()).unwrap();
        let shards: Vec<_> = (0..8).map(|_| scope.spawn(race)).collect();
        shards.into_iter().map(|shard| shard.join().unwrap()).collect()
    });
    let won = pins.get("blue").unwrap();
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Recorded::First).count(), 1);
    let lost = Recorded::Conflict(won);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == lost).count(), 7);
}

#[test]
fn a_key_of_another_owners_vm_is_not_pinned() {
    let scratch = Scratch::new();
    let (pinned, by_line, by_print) = (key(), key(), key());
    let pins = scratch.open().pins().unwrap();
    pins.record_first("blue", "alice", &pinned).unwrap();
    let given = [
        vm("green", "alice", Some(Pin::Key(by_line.blob().to_vec()))),
        vm("grey", "alice", Some(Pin::Fingerprint(by_print.fingerprint().0))),
        vm("plain", "alice", None),
    ];
    pins.note_given(&given);
    for (key, vm) in [(&pinned, "blue"), (&by_line, "green"), (&by_print, "grey")] {
        let refused = Recorded::OtherOwner { vm: vm.to_owned() };
        assert_eq!(pins.record_first("red", "bob", key).unwrap(), refused);
        assert_eq!(pins.held_by_other_owner(key, "bob").as_deref(), Some(vm));
        assert_eq!(pins.held_by_other_owner(key, "alice"), None);
    }
    assert!(pins.get("red").is_none());
    // The owner's own clone is the owner's business, and a reload forgets what is no longer given.
    assert_eq!(pins.record_first("blue-2", "alice", &pinned).unwrap(), Recorded::First);
    pins.note_given(&[]);
    assert_eq!(pins.record_first("red", "bob", &by_line).unwrap(), Recorded::First);
}

#[test]
fn a_pin_that_cannot_be_written_is_not_kept_in_memory_either() {
    let scratch = Scratch::new();
    let pins = scratch.open().pins().unwrap();
    fs::remove_dir_all(&scratch.0).unwrap();
    assert!(matches!(pins.record_first("blue", "alice", &key()), Err(StateFault::Io { .. })));
    assert!(pins.get("blue").is_none());
}

#[test]
fn a_file_left_by_a_writer_that_died_is_in_nobodys_way() {
    let scratch = Scratch::new();
    let pins = scratch.open().pins().unwrap();
    fs::write(scratch.0.join("pins.new"), "half a li").unwrap();
    assert_eq!(pins.record_first("blue", "alice", &key()).unwrap(), Recorded::First);
    assert_eq!(scratch.open().pins().unwrap().len(), 1);
}

#[test]
fn pins_are_read_as_people_write_them() {
    let scratch = Scratch::new();
    let state = scratch.open();
    let (one, two) = (key(), key());
    let text = format!(
        "# by hand\r\n\r\n  blue\t{}  alice \r\nred {} team:ops",
        one.to_line(),
        two.to_line()
    );
    scratch.put_pins(&text);
    let pins = state.pins().unwrap();
    assert_eq!(*pins.get("blue").unwrap(), Pinned { key: one, owner: "alice".to_owned() });
    assert_eq!(*pins.get("red").unwrap(), Pinned { key: two, owner: "team:ops".to_owned() });
}

#[test]
fn every_damaged_pin_is_told_and_none_is_skipped() {
    let scratch = Scratch::new();
    let state = scratch.open();
    let line = key().to_line();
    let text = format!(
        "blue {line} alice\nred ssh-ed25519 AAAA bob\na.b {line} x\nblue {line} bob\ngrey {line}\nalone\n"
    );
    scratch.put_pins(&text);
    let told = state.pins().unwrap_err().to_string();
    let path = scratch.0.join(PINS);
    let fix = "fix: restore the line, or remove it to pin the VM's key anew";
    let expected = [
        "2: the key of `red`: malformed key",
        "3: `a.b` is no name of a VM",
        "4: `blue` is pinned twice",
        "5: the owner of `grey` is missing",
        "6: the key of `alone`: malformed key",
    ]
    .map(|fault| format!("{}:{fault}; {fix}", path.display()));
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn one_process_at_a_time_has_the_directory_and_the_next_one_is_told_which() {
    let scratch = Scratch::new();
    let state = scratch.open();
    let lock = state.lock().unwrap();
    assert_eq!(scratch.mode(LOCK), 0o600);
    let refused = scratch.open().lock().unwrap_err();
    assert!(
        matches!(&refused, StateFault::InUse { by: Some(id), .. } if *id == std::process::id())
    );
    let told = refused.to_string();
    assert!(told.contains(&format!("(process {})", std::process::id())), "{told}");
    assert!(told.contains("; fix: "), "{told}");
    fs::write(scratch.0.join(LOCK), "no number").unwrap();
    assert!(matches!(state.lock(), Err(StateFault::InUse { by: None, .. })));
    drop(lock);
    state.lock().unwrap();
}

#[test]
fn a_line_removed_by_hand_is_forgotten_with_the_next_reload_and_does_not_come_back() {
    let scratch = Scratch::new();
    let pins = scratch.open().pins().unwrap();
    for vm in ["blue", "green", "red"] {
        assert_eq!(pins.record_first(vm, "alice", &key()).unwrap(), Recorded::First);
    }
    let without = |name: &str| {
        let text = fs::read_to_string(scratch.0.join(PINS)).unwrap();
        let rest = text.split_inclusive('\n').filter(|line| !line.starts_with(name));
        scratch.put_pins(&rest.collect::<String>());
    };
    without("blue");
    assert!(pins.get("blue").is_some(), "nothing happens while it is being edited");
    pins.reload().unwrap();
    assert!(pins.get("blue").is_none() && pins.get("green").is_some());
    let second = key();
    assert_eq!(pins.record_first("blue", "alice", &second).unwrap(), Recorded::First);
    assert_eq!(pins.get("blue").unwrap().key, second);

    without("green");
    pins.record_first("white", "alice", &key()).unwrap();
    assert!(!fs::read_to_string(scratch.0.join(PINS)).unwrap().contains("green"));
    assert!(pins.get("green").is_none());

    fs::remove_file(scratch.0.join(PINS)).unwrap();
    pins.reload().unwrap();
    assert!(pins.is_empty());
}

#[test]
fn a_reload_of_damaged_pins_changes_nothing_and_nothing_is_written_over_them() {
    let scratch = Scratch::new();
    let pins = scratch.open().pins().unwrap();
    pins.record_first("blue", "alice", &key()).unwrap();
    scratch.put_pins("blue is my favourite\n");
    assert!(matches!(pins.reload(), Err(StateFault::Pins { .. })));
    let refused = pins.record_first("green", "alice", &key());
    assert!(matches!(refused, Err(StateFault::Pins { .. })), "{refused:?}");
    assert!(pins.get("blue").is_some() && pins.get("green").is_none());
    assert_eq!(fs::read_to_string(scratch.0.join(PINS)).unwrap(), "blue is my favourite\n");
}

#[test]
fn who_has_handed_over_pins_no_more() {
    let scratch = Scratch::new();
    let state = scratch.open();
    let (old, new) = (state.pins().unwrap(), state.pins().unwrap());
    old.record_first("blue", "alice", &key()).unwrap();
    old.hand_over();
    new.record_first("green", "alice", &key()).unwrap();
    let refused = old.record_first("red", "alice", &key());
    assert!(matches!(refused, Err(StateFault::HandedOver { .. })), "{refused:?}");
    let all = state.pins().unwrap();
    assert!(all.get("blue").is_some() && all.get("green").is_some() && all.get("red").is_none());
}
