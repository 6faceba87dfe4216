//! What operators do meanwhile, and how long it took to reach whom it concerns.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine};
use keyway::registry::command::{Command, Options, VmSettings};
use keyway::registry::document::Access;
use keyway::registry::writer::{Actor, CommandRequest, Mode};
use keyway::registry::{Principal, Service};

use crate::Size;
use crate::control::{Commits, Control};
use crate::followers::Heard;
use crate::made::{USERS, blob, label, mixed, node_of};
use crate::measures::Times;

/// Operators at a time.
const THREADS: u64 = 8;

/// Revisions, and the node of the VM that was changed.
pub(crate) type Made = Vec<(u64, u64)>;

pub(crate) struct Changer<'a> {
    service: &'a Service,
    size: Size,
    /// Of changes so far.
    number: u64,
}

impl<'a> Changer<'a> {
    pub(crate) fn new(control: &'a Control, size: Size) -> Self {
        Self { service: &control.service, size, number: 1 }
    }

    /// Its revision, unless chance has made something of it that is refused.
    fn carry_out(&self, command: Command) -> Option<u64> {
        let actor = Actor { name: "bench".to_owned(), from: "itself".to_owned() };
        let order = CommandRequest { command, options: Options::default(), expected: None, actor };
        self.service.carry_out(order, Mode::Real).ok().map(|done| done.revision)
    }

    fn set(&self, vm: u64, number: u64) -> Option<u64> {
        let set = VmSettings { login: Some(format!("l{number}")), ..VmSettings::default() };
        self.carry_out(Command::VmSet { name: label('v', vm), set })
    }

    /// Of ten changes eight are of a VM, one draws a user in or lets one go, and one is a key of a
    /// user, who is known on some five nodes.
    fn step(&self, number: u64) -> Option<(u64, u64)> {
        let vm = mixed(number / 20 * 20 + number % 10) % self.size.vms;
        let user = mixed(number / 20) % USERS;
        let revision = match number % 10 {
            0 => {
                let (name, with) = (label('v', vm), Principal::User(label('u', user)));
                let share = (number / 10).is_multiple_of(2);
                self.carry_out(if share {
                    Command::VmShare { name, with, access: Access::ByName }
                } else {
                    Command::VmUnshare { name, with }
                })
            }
            1 => {
                let key = BASE64_STANDARD.encode(blob((1 << 40) + number));
                let line = format!("ssh-ed25519 {key}");
                let user = label('u', mixed(number) % USERS);
                self.carry_out(Command::KeyAdd { user, line });
                return None;
            }
            _ => self.set(vm, number),
        };
        Some((revision?, node_of(vm, self.size.nodes)))
    }

    /// So many changes a second for so long.
    pub(crate) fn run(&mut self, rate: u64, lasts: Duration) -> Made {
        // A share and its end are of one thread: blocks of twenty.
        let blocks = rate * u64::try_from(lasts.as_millis()).unwrap() / 1000 / 20;
        let first = self.number.div_ceil(20);
        self.number = (first + blocks) * 20;
        let (began, this) = (Instant::now(), &*self);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    scope.spawn(move || {
                        let mut made = Made::new();
                        let of = |block: &u64| block % THREADS == thread;
                        for block in (0..blocks).filter(of) {
                            for at in 0..20 {
                                // The blocks of one round run side by side.
                                let turn = block / THREADS * 20 + at;
                                let due = Duration::from_micros(turn * THREADS * 1_000_000 / rate);
                                std::thread::sleep(due.saturating_sub(began.elapsed()));
                                made.extend(this.step((first + block) * 20 + at));
                            }
                        }
                        made
                    })
                })
                .collect();
            let made = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
            let took = began.elapsed();
            if took > lasts * 11 / 10 {
                println!(
                    "  behind: {:.1} s in place of {:.1}",
                    took.as_secs_f64(),
                    lasts.as_secs_f64()
                );
            }
            made
        })
    }

    /// One more change; its revision.
    pub(crate) fn once(&mut self) -> u64 {
        self.number += 1;
        self.set(0, self.number).unwrap()
    }

    /// A VM of each of the first nodes is shared with a team of a thousand, and no more.
    pub(crate) fn fat(&mut self, nodes: u64) -> u64 {
        let mut vms = HashMap::new();
        for vm in 0..self.size.vms {
            let node = node_of(vm, self.size.nodes);
            if node < nodes {
                vms.entry(node).or_insert(vm);
            }
            if vms.len() == usize::try_from(nodes).unwrap() {
                break;
            }
        }
        for vm in vms.values() {
            // Nobody's on that node, most likely: another one each time.
            let team = mixed(self.number + vm) % 200 * 100;
            let (name, with) = (label('v', *vm), Principal::Team(label('t', team)));
            let share =
                Command::VmShare { name: name.clone(), with: with.clone(), access: Access::ByName };
            self.carry_out(share);
            self.carry_out(Command::VmUnshare { name, with });
        }
        self.number += 1;
        nodes * 2
    }
}

/// From the commit of each change until the agent of the VM's node had it.
pub(crate) fn latencies(made: &Made, commits: &Commits, heard: &Heard) -> Times {
    let mut times = Times::new();
    let mut of: HashMap<u64, Vec<(u64, u64)>> = HashMap::new();
    for (node, revision, at_ns) in heard {
        of.entry(*node).or_default().push((*revision, *at_ns));
    }
    for (revision, node) in made {
        let commit = commits.partition_point(|(last, _)| last < revision);
        let (_, committed_ns) = commits[commit];
        let heard = &of[node];
        // Everybody has heard of it by now.
        let first = heard.iter().find(|(to, _)| to >= revision).unwrap();
        times.add_ns(first.1.saturating_sub(committed_ns));
    }
    times
}
