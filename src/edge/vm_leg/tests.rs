//! Tests of `dial`: host keys at their first use, and a registry that is slow to take them.

use std::io;
use std::rc::Rc;
use std::sync::{Mutex, mpsc};

use super::super::executor::tests::run;
use super::super::first_use::FirstUse;
use super::super::names::Names;
use super::super::running::tests::shared_with;
use super::super::workers::Workers;
use super::*;
use crate::edge::first_use::Shown;
use crate::route::Carry;
use crate::ssh::entropy::SystemEntropy;

/// Pins what it is shown, once it is let; says so before.
struct Slow {
    asked: mpsc::Sender<String>,
    let_go: Mutex<mpsc::Receiver<()>>,
}

impl FirstUse for Slow {
    fn shown(&self, vm: &Vm, _: &PublicKey) -> Shown {
        let _test_is_over = self.asked.send(vm.owner.clone());
        let _ended = self.let_go.lock().unwrap().recv();
        Shown::Pinned
    }
}

/// A registry that takes nothing until it is let, and its other ends: what it is asked,
/// and what lets it.
fn slow() -> (Arc<Slow>, mpsc::Receiver<String>, mpsc::Sender<()>) {
    let ((asked, questions), (go, let_go)) = (mpsc::channel(), mpsc::channel());
    let slow = Slow { asked, let_go: Mutex::new(let_go) };
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
        source_address: None,
        address: None,
        closed: false,
        carry: Carry::Auto,
        node: None,
    })
}

fn key() -> PublicKey {
    PrivateKey::generate_ed25519(&mut SystemEntropy::default()).public().clone()
}

const UNWRITTEN: Ended = Ended::edge(Stage::VmExchange, Cause::PinUnwritten);
/// More at once than have a thread, by far.
const MANY: usize = 100;

#[test]
fn first_uses_wait_for_a_slow_registry_and_all_get_their_answer() {
    run(|tasks| async move {
        let (registry, questions, go) = slow();
        let shared = Arc::new(shared_with(Arc::clone(&registry) as Arc<dyn FirstUse>));
        let legs = Rc::new(VmLegs::new(tasks.clone()));
        let (unseen, answers) = (vm_with(None), Rc::new(RefCell::new(Vec::new())));
        for _ in 0..MANY {
            let (legs, shared, unseen) =
                (Rc::clone(&legs), Arc::clone(&shared), Arc::clone(&unseen));
            let answers = Rc::clone(&answers);
            tasks.spawn(async move {
                let judged = legs.judge_host_key(&shared, &unseen, key().blob()).await;
                answers.borrow_mut().push(judged);
            });
        }
        tasks.yield_now().await;
        assert_eq!(questions.recv().unwrap(), "alice", "it was asked about what was dialled");
        assert_eq!(*answers.borrow(), [], "nobody was let yet, and nobody refused");
        for _ in 0..MANY {
            go.send(()).unwrap();
        }
        while answers.borrow().len() < MANY {
            tasks.yield_now().await;
        }
        assert_eq!(*answers.borrow(), vec![Ok(()); MANY]);
    });
}

#[test]
fn a_registry_that_hangs_keeps_a_bounded_number_waiting() {
    run(|tasks| async move {
        let (registry, questions, go) = slow();
        let mut shared = shared_with(registry);
        shared.pins = Workers::new("pins", 1, 1);
        let (shared, legs) = (Arc::new(shared), Rc::new(VmLegs::new(tasks.clone())));
        let (unseen, key) = (vm_with(None), key());
        let judged = |key: PublicKey| {
            let (legs, shared, unseen) =
                (Rc::clone(&legs), Arc::clone(&shared), Arc::clone(&unseen));
            async move { legs.judge_host_key(&shared, &unseen, key.blob()).await }
        };
        let done = Rc::new(RefCell::new(Vec::new()));
        for at in 0..2 {
            let (judged, theirs) = (judged(key.clone()), Rc::clone(&done));
            tasks.spawn(async move {
                let answer = judged.await;
                theirs.borrow_mut().push(answer);
            });
            tasks.yield_now().await;
            if at == 0 {
                questions.recv().unwrap();
            }
        }
        assert_eq!(judged(key).await, Err(UNWRITTEN), "one is asked about, one waits");
        assert_eq!(*done.borrow(), []);
        go.send(()).unwrap();
        go.send(()).unwrap();
        while done.borrow().len() < 2 {
            tasks.yield_now().await;
        }
        assert_eq!(*done.borrow(), [Ok(()), Ok(())]);
    });
}

#[test]
fn a_resolver_that_hangs_keeps_no_first_use_and_no_literal_address_waiting() {
    run(|tasks| async move {
        let (registry, _questions, go) = slow();
        let (_never, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let mut shared = shared_with(registry);
        shared.settings.networks = vec!["127.0.0.0/8".parse().unwrap()];
        shared.names = Names::new(move |_| {
            let _ended = gate.lock().unwrap().recv();
            Err(io::ErrorKind::TimedOut.into())
        });
        let (shared, legs) = (Arc::new(shared), Rc::new(VmLegs::new(tasks.clone())));
        for number in 0..MANY {
            let (legs, shared) = (Rc::clone(&legs), Arc::clone(&shared));
            let named = Vm { endpoint: format!("vm{number}:22"), ..Vm::clone(&vm_with(None)) };
            tasks.spawn(async move {
                let _hangs = legs.resolve(&shared, &named).await;
            });
        }
        tasks.yield_now().await;
        let literal = Vm { endpoint: "127.0.0.1:22".into(), ..Vm::clone(&vm_with(None)) };
        let at: SocketAddr = literal.endpoint.parse().unwrap();
        assert_eq!(legs.resolve(&shared, &literal).await, Ok(vec![at]));
        go.send(()).unwrap();
        assert_eq!(legs.judge_host_key(&shared, &Arc::new(literal), key().blob()).await, Ok(()));
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
        for _ in 0..MANY {
            assert_eq!(legs.judge_host_key(&shared, &given, key.blob()).await, Ok(()));
        }
        let mismatch = Err(Ended::vm(Stage::VmExchange, Cause::PinMismatch));
        assert_eq!(legs.judge_host_key(&shared, &given, other.blob()).await, mismatch);
        assert!(legs.completions.take().is_none());
        for _ in 0..COMPLETIONS_MAX {
            assert_eq!(questions.recv().unwrap(), "alice", "it is written down beside");
        }
        drop(go);
        while legs.completions.take().is_none() {
            tasks.yield_now().await;
        }
        assert!(questions.try_recv().is_err(), "and the wrong key is not");
    });
}
