//! Tests of the executor and of its sockets: real ones, on loopback.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;

use super::*;
use crate::edge::listen;
use crate::edge::stream::{Acceptor, Read, Stream};

/// Stops the executor when it goes, also with a task that panics.
struct StopAtLast(Control);

impl Drop for StopAtLast {
    fn drop(&mut self) {
        self.0.order(Order::Stop);
    }
}

/// Runs `body` as the first task of an executor until it is done.
pub(in crate::edge) fn run<F: std::future::Future<Output = ()> + 'static>(
    body: impl FnOnce(Executor) -> F,
) {
    let (control, parts) = Control::new().unwrap();
    let tasks = Executor::new(parts);
    let body = body(tasks.clone());
    let done = Rc::new(Cell::new(false));
    let theirs = Rc::clone(&done);
    tasks.spawn(async move {
        let _stop = StopAtLast(control);
        body.await;
        theirs.set(true);
    });
    tasks.run(|| {}).unwrap();
    assert!(done.get(), "the executor stopped before the body was done");
}

/// A listener of one shard on a loopback port of the kernel's choice.
pub(in crate::edge) fn acceptor(tasks: &Executor) -> (Acceptor, SocketAddr) {
    let address = "127.0.0.1:0".parse().unwrap();
    let mut listeners = listen::bind(&[address], &[0]).unwrap();
    let listener = listeners.shards.pop().unwrap().pop().unwrap();
    let address = listener.address;
    (Acceptor::new(tasks, listener).unwrap(), address)
}

pub(in crate::edge) async fn accepted(acceptor: &Acceptor) -> Stream {
    let never = Cell::new(false);
    loop {
        if let Some((stream, _)) = acceptor.accept().unwrap() {
            return stream;
        }
        acceptor.waiting(&never).await;
    }
}

#[test]
fn a_deadline_ends_a_phase_that_waits_for_nothing_and_not_one_that_is_done() {
    run(|tasks| async move {
        let never = Box::pin(std::future::pending::<()>());
        assert_eq!(tasks.timeout(Duration::from_millis(30), never).await, None);
        let done = Box::pin(std::future::ready(7));
        assert_eq!(tasks.timeout(Duration::ZERO, done).await, Some(7));
        // A long deadline outside does not hide a short one inside, nor the other way round.
        let inner = Box::pin(async {
            let never = Box::pin(std::future::pending::<()>());
            tasks.timeout(Duration::from_millis(20), never).await
        });
        assert_eq!(tasks.timeout(Duration::from_hours(1), inner).await, Some(None));
        let inner = Box::pin(async {
            let never = Box::pin(std::future::pending::<()>());
            tasks.timeout(Duration::from_hours(1), never).await
        });
        assert_eq!(tasks.timeout(Duration::from_millis(20), inner).await, None);
        tasks.sleep(Duration::from_millis(20)).await;
    });
}

#[test]
fn a_finished_task_leaves_no_deadline_and_no_socket_behind() {
    run(|tasks| async move {
        let (acceptor, address) = acceptor(&tasks);
        let before = tasks.0.sources.borrow().len();
        for _ in 0..10 {
            let peer = TcpStream::connect(address).unwrap();
            let stream = accepted(&acceptor).await;
            let theirs = tasks.clone();
            tasks.spawn(async move {
                let read = Box::pin(stream.readable());
                let _ended = theirs.timeout(Duration::from_hours(1), read).await;
            });
            tasks.yield_now().await;
            drop(peer);
        }
        while tasks.0.tasks.borrow().len() > 1 {
            tasks.yield_now().await;
        }
        assert_eq!(tasks.0.deadlines.borrow().len(), 0);
        assert_eq!(tasks.0.sources.borrow().len(), before);
    });
}

#[test]
fn one_task_that_panics_ends_alone() {
    run(|tasks| async move {
        let (tell, told) = mpsc::channel();
        tasks.spawn(async { panic!("on purpose") });
        tasks.spawn(async move { tell.send(()).unwrap() });
        tasks.yield_now().await;
        told.try_recv().expect("the task behind it ran");
        assert_eq!(tasks.0.tasks.borrow().len(), 1);
    });
}

#[test]
fn tasks_that_never_wait_leave_sockets_and_deadlines_their_turns() {
    run(|tasks| async move {
        let turns = Rc::new(Cell::new(0_u32));
        for _ in 0..3 {
            let (turns, theirs) = (Rc::clone(&turns), tasks.clone());
            tasks.spawn(async move {
                loop {
                    turns.set(turns.get() + 1);
                    theirs.yield_now().await;
                }
            });
        }
        let (acceptor, address) = acceptor(&tasks);
        let mut peer = TcpStream::connect(address).unwrap();
        let stream = accepted(&acceptor).await;
        peer.write_all(b"x").unwrap();
        stream.readable().await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), Read::Bytes(1));
        tasks.sleep(Duration::from_millis(20)).await;
        assert!(turns.get() > 3, "{}", turns.get());
    });
}

#[test]
fn new_tasks_run_in_the_round_they_came_in_and_do_not_make_it_longer_for_others() {
    run(|tasks| async move {
        let (spawned, ran) = (Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(0_u64)));
        let before = tasks.round();
        for _ in 0..10 {
            let (spawned, ran, theirs) = (Rc::clone(&spawned), Rc::clone(&ran), tasks.clone());
            tasks.spawn(async move {
                for _ in 0..100 {
                    for _ in 0..8 {
                        spawned.set(spawned.get() + 1);
                        let ran = Rc::clone(&ran);
                        theirs.spawn(async move { ran.set(ran.get() + 1) });
                    }
                    theirs.yield_now().await;
                }
            });
        }
        while tasks.0.tasks.borrow().len() > 1 {
            tasks.yield_now().await;
        }
        assert_eq!((spawned.get(), ran.get()), (8000, 8000));
        // Ten times eight a round and no more, however many asked for another turn.
        assert!(tasks.round() - before >= 100, "{}", tasks.round() - before);
    });
}

#[test]
fn blocking_work_answers_its_own_task_and_a_panic_in_it_is_no_answer() {
    run(|tasks| async move {
        let workers = Rc::new(Workers::new("test", 2, 100));
        assert_eq!(tasks.blocking(&workers, || 6 * 7).await, Some(42));
        assert_eq!(tasks.blocking(&workers, || -> u8 { panic!("on purpose") }).await, None);
        // More than have a thread at a time: all of them get an answer.
        let answers = Rc::new(Cell::new(0));
        for number in 0..100 {
            let (answers, theirs) = (Rc::clone(&answers), tasks.clone());
            let workers = Rc::clone(&workers);
            tasks.spawn(async move {
                assert_eq!(theirs.blocking(&workers, move || number).await, Some(number));
                answers.set(answers.get() + 1);
            });
        }
        while tasks.0.tasks.borrow().len() > 1 {
            tasks.sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(answers.get(), 100);
    });
}

#[test]
fn blocking_work_that_nobody_waits_for_is_not_begun() {
    run(|tasks| async move {
        let workers = Workers::new("test", 1, 3);
        let (go, gate) = mpsc::channel::<()>();
        let first = tasks.blocking(&workers, move || gate.recv().is_err());
        let (tell, told) = mpsc::channel();
        let second = tasks.blocking(&workers, move || tell.send(()).is_ok());
        let waited = tasks.timeout(
            Duration::ZERO,
            Box::pin(async { futures_lite::future::zip(first, second).await }),
        );
        assert_eq!(waited.await, None);
        drop(go);
        assert_eq!(tasks.blocking(&workers, || 7).await, Some(7));
        assert!(told.recv().is_err(), "it was dropped undone");
    });
}

#[test]
fn a_stream_reads_what_came_with_the_fin_and_then_the_end() {
    run(|tasks| async move {
        let (acceptor, address) = acceptor(&tasks);
        let mut peer = TcpStream::connect(address).unwrap();
        let stream = accepted(&acceptor).await;
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), Read::Nothing);
        peer.write_all(b"last words").unwrap();
        drop(peer);
        let mut heard = Vec::new();
        loop {
            stream.readable().await.unwrap();
            let mut buffer = [0; 4];
            match stream.read(&mut buffer).unwrap() {
                Read::Bytes(count) => heard.extend_from_slice(&buffer[..count]),
                Read::Nothing => {}
                Read::End => break,
            }
        }
        assert_eq!(heard, b"last words");
    });
}

#[test]
fn a_write_waits_for_a_slow_reader_and_loses_nothing() {
    run(|tasks| async move {
        let (acceptor, address) = acceptor(&tasks);
        let mut peer = TcpStream::connect(address).unwrap();
        let stream = accepted(&acceptor).await;
        let sent: Vec<u8> = (0..8_u32 << 20).map(|at| at.to_le_bytes()[0]).collect();
        let workers = Workers::new("test", 1, 1);
        let reader = tasks.blocking(&workers, move || {
            let mut heard = Vec::new();
            peer.read_to_end(&mut heard).map(|_| heard)
        });
        let write = async {
            let mut left = &sent[..];
            while !left.is_empty() {
                left = &left[stream.write(left).await.unwrap()..];
            }
            stream.finish().unwrap();
        };
        // The reader's thread starts with its first poll; both futures are polled by this one task.
        let (mut reader, mut write) = (Box::pin(reader), Box::pin(write));
        let mut written = false;
        let heard = poll_fn(|cx| {
            let heard = reader.as_mut().poll(cx);
            written = written || write.as_mut().poll(cx).is_ready();
            heard
        })
        .await;
        assert!(written && heard.unwrap().unwrap() == sent);
    });
}

#[test]
fn a_connection_is_there_when_the_first_write_is_done_and_a_refusal_is_told_by_it() {
    run(|tasks| async move {
        let (acceptor, address) = acceptor(&tasks);
        let stream = Stream::connect(&tasks, address).unwrap();
        assert_eq!(stream.write(b"first").await.unwrap(), 5);
        let theirs = accepted(&acceptor).await;
        theirs.readable().await.unwrap();
        assert_eq!(theirs.read(&mut [0; 8]).unwrap(), Read::Bytes(5));
        drop(acceptor);
        let refused = match Stream::connect(&tasks, address) {
            Ok(stream) => stream.write(b"first").await.unwrap_err(),
            Err(at_once) => at_once,
        };
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_drain_still_takes_those_who_wait_in_the_kernels_queue() {
    let (control, parts) = Control::new().unwrap();
    let tasks = Executor::new(parts);
    let (acceptor, address) = acceptor(&tasks);
    let waiting: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
    let taken = Rc::new(Cell::new(0));
    let draining = Rc::new(Cell::new(false));
    let (theirs, over) = (Rc::clone(&taken), Rc::clone(&draining));
    control.order(Order::Drain);
    let accepting = tasks.spawn(async move {
        acceptor.waiting(&over).await;
        while acceptor.accept().unwrap().is_some() {
            theirs.set(theirs.get() + 1);
        }
        control.order(Order::Stop);
    });
    tasks
        .run(|| {
            draining.set(true);
            tasks.wake(accepting.unwrap());
        })
        .unwrap();
    assert_eq!(taken.get(), waiting.len());
}
