//! How long a change takes to be a route.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use keyway::registry::command::{Command, NewVm, Options, VmSettings};
use keyway::registry::document::Access;
use keyway::registry::writer::{Actor, CommandRequest, Mode};
use keyway::registry::{Principal, Service};
use keyway::route::Table;

use crate::Times;
use crate::made::{USERS, label, mixed};
use crate::start::started;

/// Orders of one thread alone, and of each of several at once.
const ALONE: u64 = 1_000;
const TOGETHER: u64 = 1_000;
const THREADS: u64 = 8;

/// What the disk alone takes for a few pages: no figure of a commit means much without it.
pub(crate) fn disk(dir: &Path) {
    let path = dir.join("bench.disk");
    let mut file = File::create(&path).unwrap();
    let (pages, mut times) = (vec![1; 5 * 4096], Times::new());
    for _ in 0..ALONE / 4 {
        let began = Instant::now();
        file.write_all(&pages).unwrap();
        file.sync_all().unwrap();
        times.add(began.elapsed());
    }
    fs::remove_file(path).unwrap();
    println!("the disk: sync of {} KB: {times}", pages.len() / 1000);
}

/// What one thread of clients does to its own VM, over and over: made, altered, shared, removed.
fn step(thread: u64, number: u64) -> Command {
    let name = label('w', thread * 1_000_000 + number / 4);
    let user = |salt: u64| label('u', mixed((thread << 40) | ((number / 4) << 4) | salt) % USERS);
    match number % 4 {
        0 => Command::VmAdd(NewVm::new(name, Principal::User(user(0)), "10.9.9.9:22".to_owned())),
        1 => {
            let login = Some("admin".to_owned());
            Command::VmSet { name, set: VmSettings { login, ..VmSettings::default() } }
        }
        2 => Command::VmShare { name, with: Principal::User(user(1)), access: Access::ByName },
        _ => Command::VmRemove { name },
    }
}

/// Carries a step out and looks for it in the table.
fn change(service: &Service, table: &Table, thread: u64, number: u64) -> Duration {
    let command = step(thread, number);
    let name = label('w', thread * 1_000_000 + number / 4);
    let actor = Actor { name: "bench".to_owned(), from: "itself".to_owned() };
    let order = CommandRequest { command, options: Options::default(), expected: None, actor };
    let began = Instant::now();
    service.carry_out(order, Mode::Real).unwrap();
    let routed = table.vm(name.as_str());
    let took = began.elapsed();
    let seen = match number % 4 {
        0 => routed.is_some(),
        1 => routed.is_some_and(|vm| vm.login.is_some()),
        2 => true,
        _ => routed.is_none(),
    };
    assert!(seen, "step {number} of thread {thread} is not in the table");
    took
}

pub(crate) fn changes(dir: &Path) {
    let (service, table, _) = started(dir);
    let (service, table) = (&service, &*table);
    disk(dir);
    let mut alone = Times::new();
    for number in 0..ALONE {
        alone.add(change(service, table, 0, number));
    }
    println!("change -> route, alone: {alone}");
    let (done, began) = (AtomicBool::new(false), Instant::now());
    let mut together = Times::new();
    let waits = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut waits = Times::new();
            while !done.load(Ordering::Relaxed) {
                let began = Instant::now();
                let _there = service.read(|model| model.vm_names().len());
                waits.add(began.elapsed());
                std::thread::sleep(Duration::from_micros(500));
            }
            waits
        });
        let clients: Vec<_> = (1..=THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    (0..TOGETHER).map(|at| change(service, table, thread, at)).collect::<Vec<_>>()
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap().into_iter().for_each(|took| together.add(took));
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    let a_second = u128::from(THREADS * TOGETHER) * 1000 / began.elapsed().as_millis();
    println!("change -> route, {THREADS} at once: {together}, {a_second} a second");
    println!("meanwhile a reader waits for the model: {waits}");
    disk(dir);
}
