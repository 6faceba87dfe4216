//! Random histories: an engine and the reference get the same, and must say the same.
//!
//! Revisions are an engine's own, so what is compared is their order: each history keeps the
//! two side by side.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use super::super::memory::Memory;
use super::{Factory, ID};
use crate::registry::store::{
    Expected, Refusal, Revision, Store, StoreError, TransactFault, Transaction, Watch,
};

const HISTORIES: u32 = 256;
const STEPS: usize = 60;
/// Few, so that transactions meet.
const KEYS: [&str; 5] = ["a", "vm/1", "vm/2", "vm/20", "z"];

#[derive(Clone, Debug)]
enum Step {
    /// A group of transactions.
    Transact(Vec<Plan>),
    /// A watcher that begins at one of the revisions so far.
    Watch(prop::sample::Index),
    /// One of the watchers takes up to so many commits.
    Read(prop::sample::Index, usize),
    /// A compaction up to one of the revisions so far.
    Compact(prop::sample::Index),
    Snapshot(&'static str),
    /// The process ends, its watchers with it.
    Reopen,
}

/// A transaction by numbers, so that it can speak of revisions that are not known yet.
#[derive(Clone, Debug)]
struct Plan {
    compares: Vec<(usize, Guess)>,
    /// One for each key: 0 leaves it, 1 deletes it, others put it.
    changes: [u8; KEYS.len()],
}

#[derive(Clone, Debug)]
enum Guess {
    Absent,
    /// What the key has now, so that the compare holds unless the group itself changes it.
    Now,
    Some(prop::sample::Index),
}

fn guesses() -> impl Strategy<Value = Guess> {
    prop_oneof![
        1 => Just(Guess::Absent),
        4 => Just(Guess::Now),
        1 => any::<prop::sample::Index>().prop_map(Guess::Some)
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let plan = (vec((0..KEYS.len(), guesses()), 0..3), any::<[u8; KEYS.len()]>())
        .prop_map(|(compares, bytes)| Plan { compares, changes: bytes.map(|byte| byte % 4) });
    let index = any::<prop::sample::Index>;
    prop_oneof![
        8 => vec(plan, 1..4).prop_map(Step::Transact),
        2 => index().prop_map(Step::Watch),
        4 => (index(), 1..5_usize).prop_map(|(who, count)| Step::Read(who, count)),
        1 => index().prop_map(Step::Compact),
        2 => prop::sample::select(vec!["", "vm/", "vm/2", "none"]).prop_map(Step::Snapshot),
        1 => Just(Step::Reopen),
    ]
}

pub(super) fn hold(factory: &dyn Factory) {
    let mut config =
        ProptestConfig { cases: HISTORIES, failure_persistence: None, ..<_>::default() };
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(RandomState::new().hash_one(()));
    }
    let seed = config.rng_seed;
    let held = TestRunner::new(config).run(&vec(steps(), 1..STEPS), |steps| {
        Pair::new(factory).follow(&steps);
        Ok(())
    });
    // With the shortest history that fails.
    held.unwrap_or_else(|failure| panic!("PROPTEST_RNG_SEED is {seed:?}: {failure}"));
}

/// The engine on the left, the reference on the right.
struct Pair<'a> {
    factory: &'a dyn Factory,
    left: Arc<dyn Store>,
    right: Memory,
    /// What each revision of the engine's is in the reference.
    revisions: BTreeMap<Revision, Revision>,
    watchers: Vec<(Box<dyn Watch>, Box<dyn Watch>)>,
    puts: u32,
}

impl<'a> Pair<'a> {
    fn new(factory: &'a dyn Factory) -> Self {
        Self {
            factory,
            left: factory.fresh(ID),
            right: Memory::new(ID),
            revisions: BTreeMap::from([(Revision::ZERO, Revision::ZERO)]),
            watchers: vec![],
            puts: 0,
        }
    }

    fn follow(mut self, steps: &[Step]) {
        for step in steps {
            self.step(step);
        }
        // At last all is read to its end.
        for number in 0..self.watchers.len() {
            while self.read(number) {}
        }
        self.snapshot("");
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Transact(plans) => self.transact(plans),
            Step::Watch(at) => {
                let (left, right) = self.pick(*at);
                match (self.left.watch(left), self.right.watch(right)) {
                    (Ok(left), Ok(right)) => self.watchers.push((left, right)),
                    (Err(left), Err(right)) => assert_eq!(self.in_right(left), right),
                    (left, right) => panic!("watch: {} and {}", left.is_ok(), right.is_ok()),
                }
            }
            Step::Read(who, count) => {
                if !self.watchers.is_empty() {
                    let number = who.index(self.watchers.len());
                    let _all = (0..*count).all(|_| self.read(number));
                }
            }
            Step::Compact(at) => {
                // An engine may have read ahead: bring all watchers to the same place first.
                for number in 0..self.watchers.len() {
                    while self.read(number) {}
                }
                let (left, right) = self.pick(*at);
                self.left.compact(left).unwrap();
                self.right.compact(right).unwrap();
            }
            Step::Snapshot(prefix) => self.snapshot(prefix),
            Step::Reopen => {
                self.watchers.clear();
                let none = Arc::new(Memory::new(ID));
                self.left = self.factory.reopen(std::mem::replace(&mut self.left, none));
                self.snapshot("");
            }
        }
    }

    fn pick(&self, at: prop::sample::Index) -> (Revision, Revision) {
        let (&left, &right) = self.revisions.iter().nth(at.index(self.revisions.len())).unwrap();
        (left, right)
    }

    fn transact(&mut self, plans: &[Plan]) {
        let (left, right): (Vec<_>, Vec<_>) = plans.iter().map(|plan| self.plan(plan)).unzip();
        let (left, right) = (self.left.transact_all(&left), self.right.transact_all(&right));
        assert_eq!(left.len(), right.len());
        for (left, right) in left.into_iter().zip(right) {
            match (left, right) {
                (Ok(left), Ok(right)) => {
                    let (&last, _) = self.revisions.last_key_value().unwrap();
                    assert!(left >= last, "{left} after {last}");
                    assert_eq!(*self.revisions.entry(left).or_insert(right), right);
                }
                (Err(left), Err(right)) => assert_eq!(self.refused(left), right),
                (left, right) => panic!("the engine says {left:?}, the reference {right:?}"),
            }
        }
    }

    /// The same transaction in either's revisions.
    fn plan(&mut self, plan: &Plan) -> (Transaction, Transaction) {
        let mut both = (Transaction::new(), Transaction::new());
        let now = self.left.snapshot("").unwrap().entries;
        for (key, guess) in &plan.compares {
            let key = KEYS[*key];
            let entry = now.iter().find(|entry| entry.key == key);
            let (left, right) = match (guess, entry) {
                (Guess::Absent, _) | (Guess::Now, None) => (Expected::Absent, Expected::Absent),
                (Guess::Now, Some(entry)) => {
                    let right = self.revisions[&entry.modified];
                    (Expected::Modified(entry.modified), Expected::Modified(right))
                }
                (Guess::Some(at), _) => {
                    let (left, right) = self.pick(*at);
                    (Expected::Modified(left), Expected::Modified(right))
                }
            };
            both = (both.0.when(key, left), both.1.when(key, right));
        }
        for (key, change) in KEYS.into_iter().zip(plan.changes) {
            both = match change {
                0 => both,
                1 => (both.0.delete(key), both.1.delete(key)),
                _ => {
                    self.puts += 1;
                    let value = self.puts.to_string();
                    (both.0.put(key, &*value), both.1.put(key, &*value))
                }
            };
        }
        both
    }

    /// One commit from a pair of watchers; whether there was one.
    fn read(&mut self, number: usize) -> bool {
        let (left, right) = &mut self.watchers[number];
        let (left, right) = (left.next(Duration::ZERO), right.next(Duration::ZERO));
        match (left, right) {
            (Ok(Some(left)), Ok(Some(right))) => {
                assert_eq!(self.revisions[&left.revision], right.revision);
                assert_eq!(left.changes, right.changes);
                true
            }
            (Ok(None), Ok(None)) => false,
            (left, right) => panic!("the engine's watcher has {left:?}, the reference's {right:?}"),
        }
    }

    fn snapshot(&self, prefix: &str) {
        let (mut left, right) =
            (self.left.snapshot(prefix).unwrap(), self.right.snapshot(prefix).unwrap());
        left.head.revision = self.revisions[&left.head.revision];
        for entry in &mut left.entries {
            entry.modified = self.revisions[&entry.modified];
        }
        assert_eq!(left, right);
    }

    fn refused(&self, fault: TransactFault) -> TransactFault {
        let TransactFault::Refused(Refusal::Conflict { key, found }) = fault else { return fault };
        let found = found.and_then(|found| self.revisions.get(&found).copied());
        Refusal::Conflict { key, found }.into()
    }

    fn in_right(&self, fault: StoreError) -> StoreError {
        let StoreError::Compacted { oldest } = fault else { return fault };
        StoreError::Compacted { oldest: self.revisions[&oldest] }
    }
}
