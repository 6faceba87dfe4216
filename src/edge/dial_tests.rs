//! Tests of `dial`: host keys at their first use, and a registry that is slow to take them.

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};

use super::super::shared::FirstUse;
use super::super::tasks::BLOCKING_MAX;
use super::super::tasks::tests::run;
use super::super::tests::shared_with;
use super::*;
use crate::ssh::entropy::SystemEntropy;

/// Pins what it is shown, once it is let; says so before.
struct Slow {
    asked: mpsc::Sender<String>,
    let_go: Mutex<mpsc::Receiver<()>>,
    waiting: AtomicUsize,
}

impl FirstUse for Slow {
    fn shown(&self, vm: &Vm, _: &PublicKey) -> Shown {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _test_is_over = self.asked.send(vm.owner.clone());
        let _ended = self.let_go.lock().unwrap().recv();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Shown::Pinned
    }
}

/// A registry that takes nothing until it is let, and its other ends: what it is asked, and what lets it.
fn slow() -> (Arc<Slow>, mpsc::Receiver<String>, mpsc::Sender<()>) {
    let ((asked, questions), (go, let_go)) = (mpsc::channel(), mpsc::channel());
    let slow = Slow { asked, let_go: Mutex::new(let_go), waiting: AtomicUsize::new(0) };
    (Arc::new(slow), questions, go)
}

fn vm_with(host_key: Option<Pin>) -> Arc<Vm> {
    Arc::new(Vm {
        id: "box".into(),
        name: "box".into(),
        owner: "alice".into(),
        endpoint: "localhost:22".into(),
        login: None,
        host_key,
        address: None,
        closed: false,
    })
}

fn key() -> PublicKey {
    PrivateKey::generate_ed25519(&mut SystemEntropy::default()).public().clone()
}

const UNWRITTEN: Ended = edge(Stage::VmExchange, Cause::PinUnwritten);
const _: () = assert!(FIRST_USES_MAX + COMPLETIONS_MAX < BLOCKING_MAX);

#[test]
fn a_slow_registry_refuses_further_first_uses_at_once_and_leaves_threads_to_lookups() {
    run(|tasks| async move {
        let (registry, _questions, go) = slow();
        let shared = Arc::new(shared_with(Arc::clone(&registry) as Arc<dyn FirstUse>));
        let legs = Rc::new(VmLegs::new(tasks.clone()));
        let (unseen, answers) = (vm_with(None), Rc::new(RefCell::new(Vec::new())));
        for _ in 0..2 * BLOCKING_MAX {
            let (legs, shared, unseen) =
                (Rc::clone(&legs), Arc::clone(&shared), Arc::clone(&unseen));
            let answers = Rc::clone(&answers);
            tasks.spawn(async move {
                let judged = legs.judge(&shared, &unseen, key().blob()).await;
                answers.borrow_mut().push(judged);
            });
        }
        tasks.turn().await;
        let refused = vec![Err(UNWRITTEN); 2 * BLOCKING_MAX - FIRST_USES_MAX];
        assert_eq!(*answers.borrow(), refused, "nobody was let yet");
        while registry.waiting.load(Ordering::Relaxed) < FIRST_USES_MAX {
            tasks.turn().await;
        }
        assert_eq!(tasks.blocking(|| 7).await, Some(7), "a lookup has a thread");

        for _ in 0..FIRST_USES_MAX {
            go.send(()).unwrap();
        }
        while answers.borrow().len() < 2 * BLOCKING_MAX {
            tasks.turn().await;
        }
        assert_eq!(answers.borrow()[refused.len()..], vec![Ok(()); FIRST_USES_MAX]);
        // The places are free again.
        go.send(()).unwrap();
        assert_eq!(legs.judge(&shared, &unseen, key().blob()).await, Ok(()));
    });
}

#[test]
fn a_place_stays_taken_while_its_work_goes_on_though_nobody_waits_for_it() {
    run(|tasks| async move {
        let (registry, questions, go) = slow();
        let shared = Arc::new(shared_with(registry));
        let legs = VmLegs::new(tasks.clone());
        let (unseen, key) = (vm_with(None), key());
        for _ in 0..FIRST_USES_MAX {
            let judged = legs.judge(&shared, &unseen, key.blob());
            assert_eq!(tasks.within(Duration::ZERO, Box::pin(judged)).await, None);
            assert_eq!(questions.recv().unwrap(), "alice", "it was asked about what was dialled");
        }
        let further = legs.judge(&shared, &unseen, key.blob());
        let judged = tasks.within(Duration::ZERO, Box::pin(further)).await;
        assert_eq!(judged, Some(Err(UNWRITTEN)), "at once");
        drop(go);
    });
}

#[test]
fn a_fingerprint_that_matches_lets_in_whatever_the_registry_does_with_the_key() {
    run(|tasks| async move {
        let (registry, questions, go) = slow();
        let shared = Arc::new(shared_with(registry));
        let legs = VmLegs::new(tasks.clone());
        let (key, other) = (key(), key());
        let given = vm_with(Some(Pin::Fingerprint(key.fingerprint().0)));
        for _ in 0..2 * BLOCKING_MAX {
            assert_eq!(legs.judge(&shared, &given, key.blob()).await, Ok(()));
        }
        let mismatch = Err(vm(Stage::VmExchange, Cause::PinMismatch));
        assert_eq!(legs.judge(&shared, &given, other.blob()).await, mismatch);
        assert!(legs.completions.take().is_none() && legs.first_uses.take().is_some());
        tasks.turn().await;
        for _ in 0..COMPLETIONS_MAX {
            assert_eq!(questions.recv().unwrap(), "alice", "it is written down beside");
        }
        drop(go);
        while legs.completions.take().is_none() {
            tasks.turn().await;
        }
        assert!(questions.try_recv().is_err(), "and the wrong key is not");
    });
}
