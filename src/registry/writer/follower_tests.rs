//! Tests of following a store that somebody else writes.

use std::collections::BTreeMap;
use std::sync::mpsc;

use super::*;
use crate::registry::Label;
use crate::registry::store::testing::memory::Memory;
use crate::registry::store::{StoreId, Transaction};

const USER: &str = r#"{"keys":[]}"#;

fn put(names: &[&str]) -> Transaction {
    let key = |name: &&str| format!("user/{name}");
    let all = names.iter().map(key);
    all.fold(Transaction::new().put("audit/1", "{}"), |it, key| it.put(key, USER))
}

/// Users as the follower hears of them.
fn followed(store: &Memory, act: impl FnOnce(&Memory, &dyn Fn(&str, bool))) {
    let (tell, told) = mpsc::channel();
    let follow: Subscriber = Box::new(move |news| match news {
        Update::Written { written, .. } => {
            for Written { key, now, .. } in written {
                let _ended = tell.send((key.to_string(), now.is_some()));
            }
        }
        Update::Everything { contents, .. } => {
            for user in contents.users {
                let _ended = tell.send((format!("user/{}", user.name), true));
            }
        }
    });
    let follower = follower(store, Some(read(store)), follow);
    let stop = AtomicBool::new(false);
    let heard = std::cell::RefCell::new(BTreeMap::new());
    std::thread::scope(|scope| {
        scope.spawn(|| follower.run(&stop));
        act(store, &|name, there| {
            let key = format!("user/{name}");
            while heard.borrow().get(&key) != Some(&there) {
                let (key, is) = told.recv_timeout(Duration::from_mins(1)).unwrap();
                heard.borrow_mut().insert(key, is);
            }
        });
        stop.store(true, Ordering::Relaxed);
    });
}

fn read(store: &Memory) -> Model {
    load::load(store, &Limits::default(), None, Unreadable::Refused, &mut nobody()).unwrap()
}

fn follower(store: &Memory, model: Option<Model>, follow: Subscriber) -> Follower {
    Follower::new(Arc::new(store.clone()), Limits::default(), model, follow)
}

fn nobody() -> Subscriber {
    Box::new(|_| ())
}

#[test]
fn every_commit_of_another_writer_is_told_in_order() {
    let store = Memory::new(StoreId([1; 16]));
    store.transact(&put(&["alice"])).unwrap();
    followed(&store, |store, wait| {
        store.transact(&put(&["bob"])).unwrap();
        wait("bob", true);
        store.transact(&put(&["carol"]).delete("user/alice")).unwrap();
        wait("alice", false);
        wait("carol", true);
    });
}

#[test]
fn who_lags_behind_a_compaction_reads_everything() {
    let store = Memory::new(StoreId([1; 16]));
    let model = read(&store);
    store.transact(&put(&["alice"])).unwrap();
    let at = store.transact(&put(&["bob"])).unwrap();
    store.compact(at).unwrap();
    let (tell, told) = mpsc::channel();
    let follow: Subscriber = Box::new(move |news| {
        if let Update::Everything { contents, .. } = news {
            let _ended = tell.send(contents.users.len());
        }
    });
    let follower = follower(&store, Some(model), follow);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| follower.run(&stop));
        assert_eq!(told.recv_timeout(Duration::from_mins(1)), Ok(2));
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_model_that_follows_is_the_one_that_is_read() {
    let store = Memory::new(StoreId([1; 16]));
    let mut model = read(&store);
    let mut watch = store.watch(Revision::ZERO).unwrap();
    store.transact(&put(&["alice", "bob"])).unwrap();
    store.transact(&put(&["carol"]).delete("user/bob")).unwrap();
    while let Some(commit) = watch.next(Duration::ZERO).unwrap() {
        take(&mut model, commit);
    }
    assert_eq!(model.revision(), read(&store).revision());
    let names = |model: &Model| model.users().keys().cloned().collect::<Vec<Label>>();
    assert_eq!(names(&model), names(&read(&store)));
    assert_eq!(names(&model), [Label::new("alice").unwrap(), Label::new("carol").unwrap()]);
}

#[test]
fn what_a_newer_program_wrote_leads_nowhere_and_hides_nothing_else() {
    let store = Memory::new(StoreId([1; 16]));
    store.transact(&put(&["alice", "bob"])).unwrap();
    followed(&store, |store, wait| {
        let strange = Transaction::new().put("user/bob", r#"{"keys":7}"#).put("user/carol", USER);
        store.transact(&strange.delete("user/alice")).unwrap();
        for (name, there) in [("bob", false), ("alice", false), ("carol", true)] {
            wait(name, there);
        }
    });
    // Who has to read everything reads the rest too.
    let (tell, told) = mpsc::channel();
    let follow: Subscriber = Box::new(move |news| {
        if let Update::Everything { contents, .. } = news {
            let names = contents.users.into_iter().map(|user| user.name);
            let _ended = tell.send(names.collect::<Vec<_>>());
        }
    });
    let follower = follower(&store, None, follow);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| follower.run(&stop));
        let names = told.recv_timeout(Duration::from_mins(1)).unwrap();
        assert_eq!(names, ["carol"]);
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_bug_of_whoever_is_told_makes_it_all_be_told_anew() {
    let store = Memory::new(StoreId([1; 16]));
    let (tell, told) = mpsc::channel();
    let follow: Subscriber = Box::new(move |news| match news {
        Update::Written { .. } => panic!("a bug that is meant"),
        Update::Everything { contents, .. } => {
            let _ended = tell.send(contents.users.len());
        }
    });
    let follower = follower(&store, Some(read(&store)), follow);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| follower.run(&stop));
        store.transact(&put(&["alice"])).unwrap();
        assert_eq!(told.recv_timeout(Duration::from_mins(1)), Ok(1));
        stop.store(true, Ordering::Relaxed);
    });
}
