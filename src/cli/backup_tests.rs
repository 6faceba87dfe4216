//! Tests of `backup`, `restore` and of what goes in and out of `ca`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use age::secrecy::ExposeSecret as _;

use super::testing::{ALICE, Fake, Said, Scratch, Sitting, refusing, say_with};
use super::*;
use crate::durable;
use crate::registry::store::{Sqlite, Store as _, StoreId, Transaction};
use crate::ssh::entropy::SystemEntropy;
use crate::state::State;

fn say(arguments: &[&str]) -> Said {
    say_with(arguments, &refusing(), &[], "", Sitting::Nobody)
}

/// A state directory with its configuration.
struct Host {
    scratch: Scratch,
    state: State,
    config: String,
}

impl Host {
    fn new() -> Self {
        let scratch = Scratch::new();
        let config = scratch.file("keyway.toml", "state_dir = \"state\"\n");
        let state = State::open(&scratch.0.join("state")).unwrap();
        Self { scratch, state, config }
    }

    /// One that has served.
    fn used() -> Self {
        let host = Self::new();
        let store = Sqlite::open(&host.state.store(), StoreId([1; 16])).unwrap();
        store.transact(&Transaction::new().put("user/alice", "{}")).unwrap();
        host.prints();
        host
    }

    /// The fingerprints of host key, CA and identity.
    fn prints(&self) -> [String; 3] {
        let entropy = &mut SystemEntropy::default();
        let host_key = self.state.host_key(entropy).unwrap().public().fingerprint();
        let user_ca = self.state.user_ca(entropy).unwrap().public().fingerprint();
        let identity = self.state.identity(entropy).unwrap().public().fingerprint();
        [host_key, user_ca, identity].map(|it| it.to_string())
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.scratch.0.join("state")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> =
            names.filter(|name| name != "lock" && name != "store.use").collect();
        names.sort();
        names
    }

    fn user(&self) -> usize {
        Sqlite::open_kept(&self.state.store()).unwrap().snapshot("user/").unwrap().entries.len()
    }
}

#[test]
fn a_backup_is_sealed_unless_somebody_says_otherwise() {
    let host = Host::used();
    let file = host.scratch.path("keyway.age");
    let said = say(&["backup", &file, "--config", &host.config]);
    assert_eq!((said.code, said.out.as_str()), (USAGE, ""), "{said:?}");
    for advice in ["--recipient age1", "--passphrase-file", "--plain", "private keys"] {
        assert!(said.err.contains(advice), "{said:?}");
    }
    let open = host.scratch.file("open", "a passphrase\n");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    let said = say(&["backup", &file, "--passphrase-file", &open, "--config", &host.config]);
    assert!(said.code == FAULTS && said.err.contains("chmod go="), "{said:?}");
    let ssh = ["backup", &file, "--recipient", ALICE, "--config", &host.config];
    let said = say(&ssh);
    assert!(said.code == FAULTS && said.err.contains("make a key with age-keygen"), "{said:?}");
    assert!(!fs::exists(&file).unwrap());
}

#[test]
fn a_backup_makes_nothing_that_is_not_there() {
    let nothing = Scratch::new();
    let config = nothing.file("keyway.toml", "state_dir = \"state\"\n");
    let file = nothing.path("keyway.tar");
    let refused = |config: &str, why: &str| {
        let said = say(&["backup", &file, "--plain", "--config", config]);
        assert_eq!((said.code, said.out.as_str()), (FAULTS, ""), "{said:?}");
        assert!(said.err.contains(why) && said.err.contains("keyway"), "{said:?}");
        assert!(!fs::exists(&file).unwrap());
    };
    refused(&config, "no such state directory");
    assert!(!fs::exists(nothing.0.join("state")).unwrap());
    let said = say(&["store", "adopt", "--config", &config]);
    assert!(said.code == FAULTS && said.err.contains("no such state directory"), "{said:?}");
    assert!(!fs::exists(nothing.0.join("state")).unwrap());
    let host = Host::new();
    refused(&host.config, "there is no store");
    assert!(host.names().is_empty(), "{:?}", host.names());
    Sqlite::open(&host.state.store(), StoreId([1; 16])).unwrap();
    refused(&host.config, "ssh_host_ed25519_key: there is no such key");
    assert_eq!(host.names(), ["registry.db"]);
    host.state.host_key(&mut SystemEntropy::default()).unwrap();
    refused(&host.config, "user_ca: there is no such key");
    assert_eq!(host.names(), ["registry.db", "ssh_host_ed25519_key"]);
}

#[test]
fn an_archive_with_a_name_twice_changes_nothing() {
    let host = Host::used();
    let before = (host.prints(), host.names());
    let content = || archive::Content::Bytes(b"text".to_vec().into());
    for name in ["named/keyway.toml", "user_ca", "keyway-backup.json"] {
        let file = host.scratch.path(&format!("{}.tar", name.replace('/', "-")));
        let store = archive::Content::File(host.state.store());
        let files = [name, name].map(|name| (name.to_owned(), content()));
        let files = files.into_iter().chain([("registry.db".to_owned(), store)]);
        let all: Vec<_> = files.collect();
        assert!(archive::write(Path::new(&file), &archive::Seal::Plain, &all, 0).is_ok());
        let said = say(&["restore", &file, "--config", &host.config]);
        assert!(said.code == FAULTS && said.err.contains("twice"), "{said:?}");
        assert_eq!((host.prints(), host.names()), before, "{name}");
    }
}

#[test]
fn what_is_backed_up_is_there_on_another_host_and_nothing_there_is_written_over() {
    let there = Host::used();
    let identity = age::x25519::Identity::generate();
    let key = there
        .scratch
        .secret("key.txt", &format!("# made\n{}\n", identity.to_string().expose_secret()));
    let passphrase = there.scratch.secret("passphrase", "correct horse battery staple\n");
    let recipient = identity.to_public().to_string();
    let ways: [(&[&str], &[&str]); 3] = [
        (&["--recipient", &recipient], &["--identity", &key]),
        (&["--passphrase-file", &passphrase], &["--passphrase-file", &passphrase]),
        (&["--plain"], &[]),
    ];
    for (number, (seal, opens)) in ways.into_iter().enumerate() {
        let file = there.scratch.path(&format!("keyway-{number}.age"));
        let backup = [&["backup", &file, "--config", &there.config][..], seal].concat();
        let said = say(&backup);
        assert_eq!((said.code, said.err.as_str()), (DONE, ""), "{said:?}");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(durable::seen::has_synced(Path::new(&file)), "a crash would lose its name");
        let bytes = fs::read(&file).unwrap();
        let said = say(&backup);
        assert!(said.code == FAULTS && said.err.contains("is there already"), "{said:?}");
        assert_eq!(fs::read(&file).unwrap(), bytes);
        assert_eq!(there.names(), ["identity", "registry.db", "ssh_host_ed25519_key", "user_ca"]);
        let readable = bytes.windows(8).any(|some| some == b"OPENSSH ");
        assert_eq!(readable, seal == ["--plain"], "{seal:?}");

        let here = Host::used();
        let others = here.prints();
        let restore = [&["restore", &file, "--config", &here.config][..], opens].concat();
        let said = say(&restore);
        for name in here.names().iter().filter(|name| !name.starts_with("routes")) {
            let path = here.scratch.0.join("state").join(name);
            assert!(durable::seen::has_synced(&path), "a crash would lose {name}");
        }
        assert_eq!((said.code, said.err.as_str()), (DONE, ""), "{said:?}");
        assert!(said.out.contains("; next: keyway serve"), "{said:?}");
        assert_eq!(said.out.matches("is kept as").count(), 4, "{said:?}");
        assert_eq!((here.prints(), here.user()), (there.prints(), 1));
        assert_ne!(here.prints(), others);
        let kept = here.names().iter().filter(|name| name.contains(".replaced-")).count();
        assert_eq!(kept, 4, "{:?}", here.names());
        assert!(here.names().iter().any(|name| name.starts_with("restored-")), "its keyway.toml");
        assert!(!here.names().iter().any(|name| name.contains("partial")), "{:?}", here.names());
        assert_eq!(here.state.restored().unwrap()[0].from, file);
    }
}

#[test]
fn a_backup_that_cannot_be_opened_or_was_altered_changes_nothing() {
    let there = Host::used();
    let identity = age::x25519::Identity::generate();
    let key = there.scratch.secret("key.txt", identity.to_string().expose_secret());
    let other = age::x25519::Identity::generate();
    let other = there.scratch.secret("other.txt", other.to_string().expose_secret());
    let file = there.scratch.path("keyway.age");
    let recipient = identity.to_public().to_string();
    say(&["backup", &file, "--recipient", &recipient, "--config", &there.config]);
    let here = Host::used();
    let before = (here.prints(), here.names());
    let refused = |more: &[&str], file: &str, why: &str| {
        let said = say(&[&["restore", file, "--config", &here.config][..], more].concat());
        assert!(said.code != DONE && said.err.contains(why), "{said:?}");
        assert_eq!((here.prints(), here.names()), before, "{why}");
    };
    refused(&[], &file, "--identity FILE");
    refused(&["--identity", &other], &file, "one of its recipients");
    refused(&["--passphrase-file", &key], &file, "sealed for recipients");
    let whole = fs::read(&file).unwrap();
    let mut altered = whole.clone();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    for bytes in [&altered[..], &whole[..whole.len() - 1], &whole[..middle]] {
        let file = there.scratch.path("altered.age");
        fs::write(&file, bytes).unwrap();
        refused(&["--identity", &key], &file, "altered.age");
    }
    refused(&[], &there.scratch.file("text", "no archive"), "no whole backup");
    let lock = here.state.lock().unwrap();
    let said = say(&["restore", &file, "--identity", &key, "--config", &here.config]);
    assert!(said.code == FAULTS && said.err.contains("in use by another keyway"), "{said:?}");
    drop(lock);
}

#[test]
fn nothing_vouches_for_an_archive_that_is_not_sealed() {
    let (here, there) = (Host::used(), Host::new());
    let file = here.scratch.path("keyway.tar");
    let said = say(&["backup", &file, "--plain", "--config", &here.config]);
    assert_eq!(said.code, DONE, "{said:?}");
    let passphrase = there.scratch.secret("passphrase", "a passphrase\n");
    let restore = ["restore", &file, "--config", &there.config];
    let said = say(&[&restore[..], &["--passphrase-file", &passphrase]].concat());
    assert!(said.code == FAULTS && said.err.contains("is not sealed"), "{said:?}");
    assert!(!there.state.store().exists());
    assert_eq!(say(&restore).code, DONE);
    assert_eq!(there.prints(), here.prints());
}

#[test]
fn while_a_store_is_in_use_a_restore_replaces_no_key_either() {
    let (here, there) = (Host::used(), Host::used());
    let file = here.scratch.path("keyway.tar");
    assert_eq!(say(&["backup", &file, "--plain", "--config", &here.config]).code, DONE);
    let before = there.prints();
    let drains = there.state.use_store().unwrap();
    let said = say(&["restore", &file, "--config", &there.config]);
    assert!(said.code == FAULTS && said.err.contains("use"), "{said:?}");
    assert_eq!(there.prints(), before);
    drop(drains);
}

#[test]
fn a_ca_goes_from_one_host_to_another_and_replaces_none() {
    let (one, two) = (Host::new(), Host::new());
    let file = one.scratch.path("user_ca");
    let export = ["ca", "export", &file, "--config", &one.config];
    let said = say(&export);
    assert_eq!((said.code, said.err.as_str()), (DONE, ""), "{said:?}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(durable::seen::has_synced(Path::new(&file)), "a crash would lose its name");
    assert!(say(&export).out.contains("is already in"), "the same again");
    let import = ["ca", "import", &file, "--config", &two.config];
    assert!(say(&import).out.contains("counts from the next start on"));
    assert!(say(&import).out.contains("in place already"));
    assert_eq!(one.prints()[1], two.prints()[1]);
    let third = Host::used();
    let said = say(&["ca", "import", &file, "--config", &third.config]);
    assert!(said.code == FAULTS && said.err.contains("holds another key"), "{said:?}");
    let said = say(&["ca", "export", &file, "--config", &third.config]);
    assert!(said.code == FAULTS && said.err.contains("holds another key"), "{said:?}");
    let given =
        one.scratch.file("given.toml", "state_dir = \"state\"\n[vm_leg]\nuser_ca = \"user_ca\"\n");
    let said = say(&["ca", "import", &file, "--config", &given]);
    assert!(said.code == FAULTS && said.err.contains("vm_leg.user_ca names"), "{said:?}");
}

#[test]
fn the_drop_in_of_a_vm_that_was_renamed_names_its_id() {
    let fake = Fake::new(&[(200, r#"{"name":"blue","id":"red","owner":"alice"}"#)]);
    let host = Host::new();
    let (socket, config) = (fake.scratch.path("keyway.sock"), &host.config);
    let show = ["ca", "show", "--drop-in", "--vm", "blue", "--config", config, "--socket", &socket];
    let said = fake.say(&show);
    assert_eq!(said.code, DONE, "{said:?}");
    assert!(said.out.contains("echo 'vm:red' > /etc/ssh/keyway_principals"), "{said:?}");
    assert_eq!(fake.asked(), ["GET /v1/vms/blue"]);

    let said = say(&["ca", "show", "--drop-in", "--vm", "blue", "--config", &host.config]);
    assert_eq!((said.code, said.out.as_str()), (UNREACHABLE, ""), "{said:?}");
    assert!(said.err.contains("give the id with --id"), "{said:?}");
    let said = say(&["ca", "show", "--drop-in", "--id", "blue_2", "--config", &host.config]);
    assert!(said.code == DONE && said.out.contains("echo 'vm:blue_2'"), "{said:?}");
}
