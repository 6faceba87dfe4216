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
    assert_eq!(saved.append(head(1), &put("early")).unwrap(), Appended::Missing);
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
    assert_eq!(next, Appended::Missing, "nothing is written behind what is not believed");
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
    let mut saved = Saved::at(&scratch.0);
    let told = |edges| FrontDoor { edges, ..FrontDoor::default() };
    saved.write_front_door(head(3), &told(vec![[1; 32]])).unwrap();
    assert_eq!(saved.front_door().unwrap(), Some(told(vec![[1; 32]])));
    let in_the_way = scratch.0.join(FRONT_DOOR).with_extension("new");
    fs::create_dir(&in_the_way).unwrap();
    assert!(saved.write_front_door(head(4), &told(Vec::new())).is_err());
    assert_eq!(saved.front_door().unwrap(), None);
    assert!(saved.unsaved.for_s().is_some());
    assert!(!saved.is_to_be_tried() && rested(&mut saved).is_to_be_tried());
    fs::remove_dir(in_the_way).unwrap();
    saved.write_front_door(head(4), &told(Vec::new())).unwrap();
    assert_eq!(saved.front_door().unwrap(), Some(told(Vec::new())));
}

/// As it is when the rest after a failure is over.
fn rested(saved: &mut Saved) -> &mut Saved {
    for failed in [&mut saved.failed, &mut saved.front_door_failed] {
        *failed = failed.map(|at| at.checked_sub(REST).unwrap());
    }
    saved
}

/// A map that lets a user in, and a disk that is full from then on.
fn full(scratch: &Scratch) -> Saved {
    let mut saved = Saved::at(&scratch.0);
    saved.write(head(3), &Contents { users: vec![user("eve")], ..Contents::default() }).unwrap();
    assert_eq!(found(&scratch.0), (3, 1));
    saved.open.as_mut().unwrap().journal =
        OpenOptions::new().write(true).open("/dev/full").unwrap();
    saved
}

#[test]
fn a_change_that_cannot_be_kept_leaves_nothing_to_start_from_but_its_moment() {
    let scratch = Scratch::new();
    let mut saved = full(&scratch);
    let goes = Delta { changes: vec![Change::RemoveUser("eve".to_owned())] };
    let fault = saved.append(head(4), &goes).unwrap_err().to_string();
    assert!(fault.contains("a restart has nothing of it"), "{fault}");
    assert!(Saved::at(&scratch.0).restore(&Table::new()).is_err(), "eve was let in again");
    assert!(Saved::at(&scratch.0).contents(u64::MAX).is_err());
    assert!(saved.is_spoiled());
    assert_eq!(Saved::at(&scratch.0).last(), Some(head(3)), "an earlier store would be believed");
    assert!(saved.unsaved.for_s().is_some());
    // The disk is left alone for a while, and then all of it is wanted.
    assert_eq!(saved.append(head(5), &put("a")).unwrap(), Appended::Rests);
    assert!(!saved.is_to_be_tried());
    assert_eq!(rested(&mut saved).append(head(5), &put("a")).unwrap(), Appended::Missing);
    assert!(saved.is_to_be_tried());
    saved.write(head(6), &Contents::default()).unwrap();
    assert_eq!((found(&scratch.0), saved.unsaved.for_s()), ((6, 0), None));
    assert!(!saved.is_spoiled() && !saved.is_to_be_tried());
}

#[test]
fn a_map_that_cannot_be_written_anew_leaves_nothing_of_the_last_one_either() {
    let scratch = Scratch::new();
    let mut saved = Saved::at(&scratch.0);
    saved.write(head(3), &Contents { users: vec![user("eve")], ..Contents::default() }).unwrap();
    let in_the_way = scratch.0.join(SNAPSHOT).with_extension("new");
    fs::create_dir(&in_the_way).unwrap();
    saved.write(head(4), &Contents::default()).unwrap_err();
    assert!(Saved::at(&scratch.0).restore(&Table::new()).is_err());
    assert_eq!(Saved::at(&scratch.0).last(), Some(head(3)));
    // Nor does a second failure make more of it.
    saved.write(head(5), &Contents::default()).unwrap_err();
    assert!(saved.is_spoiled());
}

#[test]
fn what_cannot_be_taken_back_either_is_said_with_what_to_do() {
    let scratch = Scratch::new();
    let mut saved = full(&scratch);
    // Neither to be opened nor to be removed.
    fs::remove_file(scratch.0.join(SNAPSHOT)).unwrap();
    fs::create_dir_all(scratch.0.join(SNAPSHOT).join("in the way")).unwrap();
    let fault = saved.append(head(4), &put("a")).unwrap_err().to_string();
    assert!(fault.contains("would let in whom it lets in; remove it before one"), "{fault}");
}

#[test]
fn what_is_denied_is_kept_until_it_has_come() {
    let scratch = Scratch::new();
    let mut saved = Saved::at(&scratch.0);
    assert!(saved.denied().unwrap().is_none());
    saved.remove_denied().unwrap();
    let until = head(9);
    saved.write(head(3), &Contents::default()).unwrap();
    saved.write_denied(until, &Denied::default()).unwrap();
    assert_eq!(saved.denied().unwrap(), Some((until, Denied::default())));
    assert_eq!(saved.last(), Some(head(3)));
    saved.remove_denied().unwrap();
    assert!(saved.denied().unwrap().is_none());
    // What cannot be kept is in the map that there is: nobody starts from that.
    let in_the_way = scratch.0.join(DENIED).with_extension("new");
    fs::create_dir(&in_the_way).unwrap();
    saved.write_denied(until, &Denied::default()).unwrap_err();
    assert!(saved.is_spoiled() && !saved.is_kept());
    fs::remove_dir(in_the_way).unwrap();
    fs::write(scratch.0.join(DENIED), saved_routes::encode_delta(until, 8, &put("a"))).unwrap();
    assert!(saved.denied().is_err(), "it may say who is let in no more");
}
