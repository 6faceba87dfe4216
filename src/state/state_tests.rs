//! Tests of `state`.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::private_file::LEFT_AFTER;
use super::*;
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::PublicKey;

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
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
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

/// Writes the file that an earlier Keyway kept.
fn put_pins(scratch: &Scratch, text: &str) {
    let path = scratch.0.join("pins");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn old_pins_are_read_until_they_are_settled() {
    let scratch = Scratch::new();
    let state = scratch.open();
    assert!(state.old_pins().unwrap().is_none());
    let mut entropy = SystemEntropy::default();
    let key = PrivateKey::generate_ed25519(&mut entropy).public().clone();
    let line = key.to_line();
    put_pins(
        &scratch,
        &format!("# VM, key, owner\n\n  red_2\t{line} team:ops  \nblue {line} alice"),
    );
    let old = state.old_pins().unwrap().unwrap();
    assert_eq!(old.iter().collect::<Vec<_>>(), [("blue", &key), ("red_2", &key)]);
    assert!(state.old_pins().unwrap().is_some(), "they were only read");
    old.settle().unwrap();
    assert!(state.old_pins().unwrap().is_none());
    assert_eq!(scratch.names(), ["pins.imported"]);
    assert!(matches!(old.settle(), Err(StateFault::Io { .. })));
}

#[test]
fn kept_pins_are_there_for_the_next_process_and_bind_a_key_to_its_owner() {
    let scratch = Scratch::new();
    let state = scratch.open();
    let mut entropy = SystemEntropy::default();
    let [one, other] =
        [(); 2].map(|()| PrivateKey::generate_ed25519(&mut entropy).public().clone());
    let mut pins = state.kept_pins().unwrap();
    assert_eq!(pins.get("blue"), None);
    assert_eq!(pins.pin("blue", &one, "alice").unwrap(), Pinned::Done);
    assert_eq!(pins.pin("green", &other, "team:ops").unwrap(), Pinned::Done);
    assert_eq!(scratch.mode("vm_host_keys"), 0o600);
    let mut pins = state.kept_pins().unwrap();
    assert_eq!((pins.get("blue"), pins.get("green")), (Some(&one), Some(&other)));
    assert_eq!(pins.of_other_owner(&one, "alice"), None);
    assert_eq!(pins.of_other_owner(&one, "team:ops"), Some("blue"));
    assert_eq!(pins.pin("blue", &other, "alice").unwrap(), Pinned::Other);
    let of_other = pins.pin("red", &one, "bob").unwrap();
    assert_eq!(of_other, Pinned::OfOtherOwner("blue".to_owned()));
    assert_eq!(state.kept_pins().unwrap().get("blue"), Some(&one), "the first stands");
}

#[test]
fn an_identity_is_made_once_and_for_nobody_else() {
    let scratch = Scratch::new();
    let state = scratch.open();
    let mut entropy = SystemEntropy::default();
    let made = state.identity(&mut entropy).unwrap();
    assert_eq!(scratch.mode("identity"), 0o600);
    assert_eq!(state.identity(&mut entropy).unwrap().public(), made.public());
    assert_ne!(state.host_key(&mut entropy).unwrap().public(), made.public());
}

#[test]
fn every_line_of_old_pins_that_cannot_be_read_is_named_with_what_to_do() {
    let scratch = Scratch::new();
    let state = scratch.open();
    let mut entropy = SystemEntropy::default();
    let line = PrivateKey::generate_ed25519(&mut entropy).public().to_line();
    put_pins(
        &scratch,
        &format!(
            "blue {line} alice\nBad\x1b {line} alice\ncut {line}\n\nred ssh-ed25519 AAAA bob\n\
             blue {line} alice\nalone\n"
        ),
    );
    let said = state.old_pins().unwrap_err().to_string();
    let path = scratch.0.join("pins");
    let starts = [
        (2, "`Bad\\u{1b}` is no id"),
        (3, "the owner of `cut` is missing"),
        (5, "the key of `red`"),
        (6, "`blue` is pinned twice"),
        (7, "the key of `alone`"),
    ];
    assert_eq!(said.lines().count(), starts.len(), "{said}");
    for ((number, what), line) in starts.into_iter().zip(said.lines()) {
        assert!(line.starts_with(&format!("{}:{number}: {what}", path.display())), "{line}");
        assert!(line.ends_with("fix: restore the line, or remove it to pin the VM's key anew"));
    }
    put_pins(&scratch, "");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(state.old_pins(), Err(StateFault::Open { .. })));
}

#[test]
fn a_file_is_replaced_under_a_name_of_its_own_and_only_what_the_dead_left_goes() {
    let scratch = Scratch::new();
    let state = scratch.open();
    let left = |suffix: &str, age: Duration| {
        let path = scratch.0.join(format!(".{NAMED_HOST_KEYS}.{suffix}"));
        fs::write(&path, "half").unwrap();
        let then = fs::metadata(&path).unwrap().modified().unwrap() - age;
        File::options().write(true).open(&path).unwrap().set_modified(then).unwrap();
    };
    left("00000000000000aa", 2 * LEFT_AFTER);
    left("00000000000000bb", LEFT_AFTER / 2);
    left("of-an-operator", 2 * LEFT_AFTER);
    let other = scratch.0.join(format!("{NAMED_HOST_KEYS}.new"));
    fs::write(&other, "another process writes").unwrap();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let state = state.clone();
            scope.spawn(move || {
                for _ in 0..20 {
                    state.name_host_keys(&format!("keys {number}")).unwrap();
                }
            });
        }
    });
    assert!(state.named_host_keys().unwrap().unwrap().starts_with("keys "));
    assert_eq!(fs::read_to_string(other).unwrap(), "another process writes");
    let names = scratch.names();
    let young = format!(".{NAMED_HOST_KEYS}.00000000000000bb");
    let strange = format!(".{NAMED_HOST_KEYS}.of-an-operator");
    let new = format!("{NAMED_HOST_KEYS}.new");
    assert_eq!(names, [young, strange, NAMED_HOST_KEYS.to_owned(), new]);
    // Where it cannot be put, nothing stays.
    fs::create_dir(scratch.0.join(FOLLOWED)).unwrap();
    assert!(state.follow_files(Path::new("keyway.toml")).is_err());
    assert_eq!(scratch.names().len(), 5);
}

#[test]
fn removed_edges_that_cannot_be_read_are_not_taken_for_none() {
    let scratch = Scratch::new();
    let state = State::open(&scratch.0).unwrap();
    assert_eq!(state.removed_edges().unwrap(), []);
    let identity =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINILzCr80scSuAcnYpxLu4nnirz6xztusEayvak/vj9f";
    let edge = RemovedEdge { name: "e1".to_owned(), identity: identity.to_owned(), since_s: 7 };
    state.note_removed_edges(std::slice::from_ref(&edge)).unwrap();
    assert_eq!(state.removed_edges().unwrap(), std::slice::from_ref(&edge));
    let strange = RemovedEdge { identity: "x".to_owned(), ..edge.clone() };
    state.note_removed_edges(&[edge, strange]).unwrap();
    assert!(state.removed_edges().unwrap_err().to_string().contains("which edges were removed"));
    fs::write(scratch.0.join("removed_edges"), "[{").unwrap();
    assert!(state.removed_edges().is_err());
}
