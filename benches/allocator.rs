//! The allocator at the size of a large edge host: 1M VMs, 200k users, 20k teams, 1,000 addresses.
//!
//! CPU time of the thread per command, without a store: `cargo bench --bench allocator`.

#![expect(clippy::disallowed_methods, reason = "it measures, by threads and clocks")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on may end")]
#![expect(clippy::print_stdout, reason = "its figures are its product")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use keyway::registry::command::{Command, NewAddress, NewVm, Options};
use keyway::registry::document::Access;
use keyway::registry::name::{Label, Principal};
use keyway::registry::{CommandContext, Draft, Limits, Model};
use nix::time::{ClockId, clock_gettime};

const VMS: u64 = 1_000_000;
const USERS: u64 = 200_000;
const TEAMS: u64 = 20_000;
const ADDRESSES: u64 = 1_000;
/// Users of a team; one in a hundred teams has a thousand.
const MEMBERS: u64 = 8;
const LARGE_EVERY: u64 = 100;
const LARGE_MEMBERS: u64 = 1_000;
/// One VM in so many belongs to a team.
const TEAM_EVERY: u64 = 10;
const MEASURED: u64 = 20_000;

struct World {
    model: Model,
    nonce: u64,
}

impl World {
    fn run(&mut self, command: &Command) -> bool {
        self.nonce += 1;
        let stamp = CommandContext { now_s: 1_000_000, nonce: self.nonce };
        let mut draft = Draft::new(&mut self.model, stamp);
        let done = draft.carry_out(command, Options::default()).is_ok();
        if done {
            let _written = draft.keep();
        }
        done
    }

    /// A number that follows from the last.
    fn chance(&mut self, below: u64) -> u64 {
        self.nonce += 1;
        let mut z = self.nonce.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z ^ (z >> 27)) % below
    }
}

fn label(letter: char, number: u64) -> Label {
    Label::new(&format!("{letter}{number}")).unwrap()
}

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    Duration::from(now)
}

fn add(number: u64, owner: Principal) -> Command {
    Command::VmAdd(NewVm::new(label('v', number), owner, "10.0.0.1:22".to_owned()))
}

fn owner(world: &mut World, number: u64) -> Principal {
    if number.is_multiple_of(TEAM_EVERY) {
        Principal::Team(label('t', world.chance(TEAMS)))
    } else {
        Principal::User(label('u', world.chance(USERS)))
    }
}

fn main() {
    let began = Instant::now();
    let mut world = World { model: Model::new(Limits::default()), nonce: 0 };
    for number in 0..ADDRESSES {
        let ip = Ipv4Addr::from(0x0a00_0000 + u32::try_from(number).unwrap());
        let address = NewAddress { public: Some(IpAddr::V4(ip)), ..NewAddress::default() };
        assert!(world.run(&Command::AddressAdd { name: label('s', number), address }));
    }
    for number in 0..USERS {
        assert!(world.run(&Command::UserAdd { name: label('u', number), keys: Vec::new() }));
    }
    for number in 0..TEAMS {
        let count = if number.is_multiple_of(LARGE_EVERY) { LARGE_MEMBERS } else { MEMBERS };
        let mut members: Vec<Label> = (0..count).map(|_| label('u', world.chance(USERS))).collect();
        members.sort();
        members.dedup();
        assert!(world.run(&Command::TeamAdd { name: label('t', number), members }));
    }
    let mut refused = 0_u64;
    for number in 0..VMS {
        let owner = owner(&mut world, number);
        refused += u64::from(!world.run(&add(number, owner)));
    }
    println!(
        "{VMS} VMs of {USERS} users and {TEAMS} teams at {ADDRESSES} addresses: {:.1} s, {refused} refused, {} MB",
        began.elapsed().as_secs_f64(),
        resident_mb()
    );

    println!("{:<44} {:>9} {:>9} {:>9}", "CPU us of a command", "p50", "p99", "max");
    let mut next = VMS;
    measure(&mut world, "vm add, owned by a user", |world| {
        next += 1;
        add(next, Principal::User(label('u', world.chance(USERS))))
    });
    measure(&mut world, "vm add, owned by a team of 8", |world| {
        next += 1;
        let team = world.chance(TEAMS / LARGE_EVERY) * LARGE_EVERY + 1;
        add(next, Principal::Team(label('t', team)))
    });
    measure(&mut world, "vm add, owned by a team of 1,000", |world| {
        next += 1;
        let team = world.chance(TEAMS / LARGE_EVERY) * LARGE_EVERY;
        add(next, Principal::Team(label('t', team)))
    });
    measure(&mut world, "vm share with a user", |world| Command::VmShare {
        name: label('v', world.chance(VMS)),
        with: Principal::User(label('u', world.chance(USERS))),
        access: Access::Slot,
    });
    measure(&mut world, "vm rm", |world| Command::VmRemove { name: label('v', world.chance(VMS)) });
}

fn measure(world: &mut World, what: &str, mut command: impl FnMut(&mut World) -> Command) {
    let mut us = Histogram::<u64>::new(3).unwrap();
    for _ in 0..MEASURED {
        let command = command(world);
        let began = cpu();
        let _done = world.run(&command);
        us.record(u64::try_from(cpu().saturating_sub(began).as_nanos()).unwrap()).unwrap();
    }
    let shown = |ns: u64| f64::from(u32::try_from(ns).unwrap()) / 1e3;
    println!(
        "{what:<44} {:>9.1} {:>9.1} {:>9.1}",
        shown(us.value_at_quantile(0.5)),
        shown(us.value_at_quantile(0.99)),
        shown(us.max())
    );
}

/// Resident memory of this process.
fn resident_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kb: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kb / 1024
}
