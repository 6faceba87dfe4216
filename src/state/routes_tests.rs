//! Tests of the map on disk.

use super::*;
use crate::durable::seen;
use crate::route::UserEntry;
use crate::testing::scratch::Scratch;

/// Which users a start finds, and at which revision.
fn found(state_dir: &Path) -> (u64, usize) {
    let (table, mut saved) = (Table::new(), Saved::at(state_dir));
    let (head, _) = saved.restore(&table).unwrap();
    (head.revision, table.counts().users)
}

fn head(revision: u64) -> Head {
    Head { store: [7; 16], program: program(), revision }
}

fn user(name: &str) -> UserEntry {
    UserEntry { name: name.to_owned(), keys: Vec::new(), closed: false }
}

fn put(name: &str) -> Delta {
    Delta { changes: vec![Change::PutUser(user(name))] }
}

#[test]
fn a_later_process_goes_on_behind_what_an_earlier_one_saved() {
    let scratch = Scratch::new();
    let mut saved = Saved::at(&scratch.0);
    assert_eq!(saved.append(head(1), &put("early")).unwrap(), Appended::SnapshotWanted);
    saved.write(head(3), &Contents { users: vec![user("a")], ..Contents::default() }).unwrap();
    assert_eq!(saved.append(head(4), &put("b")).unwrap(), Appended::Done);
    assert_eq!(saved.append(head(6), &Delta::default()).unwrap(), Appended::Done);
    drop(saved);
    assert_eq!(found(&scratch.0), (6, 2));
    // What a crash tore is cut off before the next is written.
    let journal = scratch.0.join(JOURNAL);
    let whole = fs::read(&journal).unwrap();
    fs::write(&journal, [&whole[..], &whole[..whole.len() / 3]].concat()).unwrap();
    let mut saved = Saved::at(&scratch.0);
    saved.restore(&Table::new()).unwrap();
    assert_eq!(saved.append(head(7), &put("c")).unwrap(), Appended::Done);
    assert_eq!(Saved::at(&scratch.0).last(), Some(head(7)));
    assert_eq!(found(&scratch.0), (7, 3));
}

#[test]
fn where_a_delta_is_missing_nothing_that_follows_is_believed() {
    let scratch = Scratch::new();
    let mut saved = Saved::at(&scratch.0);
    saved.write(head(3), &Contents::default()).unwrap();
    let journal = scratch.0.join(JOURNAL);
    let mut ends = vec![0];
    for (revision, name) in [(4, "b"), (5, "c"), (6, "d")] {
        saved.append(head(revision), &put(name)).unwrap();
        ends.push(fs::read(&journal).unwrap().len());
    }
    let all = fs::read(&journal).unwrap();
    fs::write(&journal, [&all[..ends[1]], &all[ends[2]..]].concat()).unwrap();
    assert_eq!(found(&scratch.0), (4, 1));
    let mut saved = Saved::at(&scratch.0);
    saved.restore(&Table::new()).unwrap();
    let next = saved.append(head(7), &put("e")).unwrap();
    assert_eq!(next, Appended::SnapshotWanted, "nothing is written behind what is not believed");
}

#[test]
fn this_program_has_one_name() {
    assert_eq!(program(), program());
    assert_ne!(program(), [0; 8]);
}

#[test]
fn routes_that_are_set_aside_are_whole_there_after_a_crash() {
    let scratch = Scratch::new();
    let (mut saved, before) = (Saved::at(&scratch.0), Saved::before_adoption(&scratch.0));
    saved.write(head(3), &Contents::default()).unwrap();
    fs::write(scratch.0.join(QUARANTINE), "").unwrap();
    saved.set_aside(&before).unwrap();
    let ends = [SNAPSHOT, JOURNAL, QUARANTINE].map(|name| format!("/{name}.before-adoption"));
    // What is on the disk, moment by moment.
    for names in seen::synced() {
        let [snapshot, journal, quarantine] =
            [0, 1, 2].map(|which| names.iter().any(|name| name.ends_with(&ends[which])));
        assert!(!snapshot || journal && quarantine, "{names:?}");
    }
    assert!(seen::synced().iter().any(|names| names.iter().any(|name| name.ends_with(&ends[2]))));
    assert!(seen::is_synced(&scratch.0));
    before.remove().unwrap();
    assert!(seen::is_synced(&scratch.0));
}

#[test]
fn a_front_door_that_cannot_be_kept_leaves_none_that_believes_whom_it_removed() {
    let scratch = Scratch::new();
    let saved = Saved::at(&scratch.0);
    let told = |edges| FrontDoor { edges, ..FrontDoor::default() };
    saved.write_front_door(head(3), &told(vec![[1; 32]])).unwrap();
    assert_eq!(saved.front_door().unwrap(), Some(told(vec![[1; 32]])));
    let in_the_way = scratch.0.join(FRONT_DOOR).with_extension("new");
    fs::create_dir(&in_the_way).unwrap();
    assert!(saved.write_front_door(head(4), &told(Vec::new())).is_err());
    assert_eq!(saved.front_door().unwrap(), None);
    fs::remove_dir(in_the_way).unwrap();
    saved.write_front_door(head(4), &told(Vec::new())).unwrap();
    assert_eq!(saved.front_door().unwrap(), Some(told(Vec::new())));
}
