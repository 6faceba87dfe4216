//! Tests of `names`: a resolver that answers, fails or hangs as it is told.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::super::executor::tests::run;
use super::*;

const ONE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 22);
const SOON: Duration = Duration::from_mins(1);

fn good_since(ms_ago: u64) -> Known {
    let at = 10 * GOOD_MS - ms_ago;
    Known { good: Some((Arc::new([ONE]), at)), ..Known::default() }
}

#[test]
fn an_answer_is_fresh_for_a_while_and_serves_for_an_hour_while_lookups_fail_or_hang() {
    let now = 10 * GOOD_MS;
    let why = Unresolved::because("no such name");
    let failure = Some(Err(why.clone()));
    let found = Some(Ok(Arc::<[SocketAddr]>::from([ONE])));
    let cases = [
        // Age of the answer, of a failure, of a lookup; with a pin, without.
        (Some(0), None, None, found.clone(), found.clone()),
        (Some(FRESH_MS - 1), None, None, found.clone(), found.clone()),
        (Some(FRESH_MS), None, None, None, None),
        (Some(FRESH_MS), None, Some(PATIENCE_MS - 1), None, None),
        (Some(FRESH_MS), None, Some(PATIENCE_MS), found.clone(), None),
        (Some(FRESH_MS), Some(0), None, found.clone(), failure.clone()),
        (Some(GOOD_MS - 1), Some(FAILED_MS - 1), None, found, failure.clone()),
        (Some(GOOD_MS - 1), Some(FAILED_MS), None, None, None),
        (Some(GOOD_MS), Some(0), None, failure.clone(), failure.clone()),
        (None, Some(0), None, failure.clone(), failure.clone()),
        (None, None, Some(GOOD_MS), None, None),
    ];
    for (good, failed, lookup, pinned, unpinned) in cases {
        let mut known = good.map_or_else(Known::default, good_since);
        known.failed = failed.map(|ago| (why.clone(), now - ago));
        let waiting = Vec::new();
        known.lookup = lookup.map(|ago| Lookup { since_ms: now - ago, waiting });
        let case = format!("{good:?} {failed:?} {lookup:?}");
        assert_eq!(known.answer(now, Stale::Will), pinned, "{case}");
        assert_eq!(known.answer(now, Stale::Not), unpinned, "{case}");
    }
}

#[test]
fn a_name_is_looked_up_once_however_many_wait_and_then_not_again() {
    run(|tasks| async move {
        let (asked, (go, gate)) = (Arc::new(AtomicUsize::new(0)), mpsc::channel::<()>());
        let (count, gate) = (Arc::clone(&asked), Mutex::new(gate));
        let names = Rc::new(Names::new(move |name| {
            count.fetch_add(1, Ordering::SeqCst);
            let _ended = gate.lock().unwrap().recv();
            assert_eq!(name, "box.example:22");
            Ok(vec![ONE])
        }));
        let found = Rc::new(Cell::new(0));
        for _ in 0..50 {
            let (names, theirs, found) = (Rc::clone(&names), tasks.clone(), Rc::clone(&found));
            tasks.spawn(async move {
                let all = names.find(&theirs, "box.example:22", SOON, Stale::Not).await;
                assert_eq!(*all.unwrap(), [ONE]);
                found.set(found.get() + 1);
            });
        }
        tasks.yield_now().await;
        drop(go);
        while found.get() < 50 {
            tasks.yield_now().await;
        }
        assert!(names.find(&tasks, "box.example:22", SOON, Stale::Not).await.is_ok());
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_failure_and_a_panic_are_no_answer_and_are_believed_for_a_moment() {
    run(|tasks| async move {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let names = Names::new(move |name| {
            count.fetch_add(1, Ordering::SeqCst);
            match name {
                "empty" => Ok(Vec::new()),
                "broken" => panic!("on purpose"),
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        });
        let cases = [
            ("empty", "it has no address"),
            ("broken", "the resolver failed"),
            ("absent", "entity not found"),
        ];
        for (at, (name, why)) in (1..).zip(cases) {
            for _ in 0..3 {
                let fault = names.find(&tasks, name, SOON, Stale::Will).await.unwrap_err();
                assert_eq!(fault.to_string(), format!("its name could not be looked up: {why}"));
            }
            assert_eq!(asked.load(Ordering::SeqCst), at, "{name}");
        }
    });
}

#[test]
fn a_lookup_that_hangs_ends_with_the_limit_and_an_earlier_answer_serves_meanwhile() {
    run(|tasks| async move {
        let (_never, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let names = Names::new(move |_| {
            let _ended = gate.lock().unwrap().recv();
            Err(io::ErrorKind::TimedOut.into())
        });
        let limit = Duration::from_millis(5);
        let late = Err(Unresolved::because("no answer in time"));
        assert_eq!(names.find(&tasks, "box", limit, Stale::Will).await, late);
        let now_ms = clock::monotonic_ms();
        {
            let mut all = names.known();
            let known = all.get_mut("box").unwrap();
            // As if both had been there for long.
            known.good = Some((Arc::new([ONE]), now_ms.saturating_sub(FRESH_MS)));
            let lookup = known.lookup.as_mut().unwrap();
            lookup.since_ms = now_ms.saturating_sub(PATIENCE_MS);
        }
        assert_eq!(*names.find(&tasks, "box", limit, Stale::Will).await.unwrap(), [ONE]);
        assert_eq!(names.find(&tasks, "box", limit, Stale::Not).await, late);
    });
}

#[test]
fn no_more_names_are_kept_than_there_is_room_for() {
    let now = 10 * GOOD_MS;
    let mut all: HashMap<_, _> =
        (0..NAMES_MAX).map(|number| (number.to_string(), good_since(GOOD_MS))).collect();
    all.insert("0".into(), good_since(0));
    make_room(&mut all, now);
    assert_eq!(all.len(), 1, "what is spent goes first");
    all = (0..NAMES_MAX).map(|number| (number.to_string(), good_since(0))).collect();
    make_room(&mut all, now);
    assert_eq!(all.len(), NAMES_MAX - NAMES_MAX / 8);
}
