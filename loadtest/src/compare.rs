//! Every scenario against every front door, in turn within one run.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::Result;
use crate::first_byte::{self, Client};
use crate::lab::{Backend, Lab, TARGETS, Ways};
use crate::report::{self, Row, Summary};
use crate::scenario::{self, Bulk, Direction, Echo, Hold, Logins, Stop, Target};

#[derive(Args)]
pub(crate) struct Compare {
    /// The Keyway to measure; a release build
    #[arg(long)]
    keyway: PathBuf,
    /// Rounds of each scenario; targets take turns within a round, figures are medians
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Bytes of each bulk transfer
    #[arg(long, default_value_t = 1_000_000_000)]
    bytes: u64,
    /// Logins of each round
    #[arg(long, default_value_t = 400)]
    logins: u32,
    /// The same against the light VM, where each is cheap
    #[arg(long, default_value_t = 4000)]
    light_logins: u32,
    /// Logins under way at a time
    #[arg(long, default_value_t = 8)]
    parallel: u32,
    /// Connections that are held; a stock sshd needs two processes for each
    #[arg(long, default_value_t = 400)]
    held: u32,
    /// Round trip between client and front door where the first byte is timed, in milliseconds
    #[arg(long, default_value_t = 50)]
    client_rtt_ms: u64,
    /// The same between front door and agent, or VM where there is no agent
    #[arg(long, default_value_t = 10)]
    far_rtt_ms: u64,
    /// A Python that has paramiko
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Only these targets
    #[arg(long, value_delimiter = ',', value_parser = TARGETS, default_values = TARGETS)]
    targets: Vec<String>,
    /// Only scenarios whose names contain this
    #[arg(long, default_value = "")]
    only: String,
}

/// Measures one target.
type Run = Box<dyn Fn(&Lab, &Target) -> Result<Row>>;

/// What to run against every target.
struct Scenario {
    name: String,
    processes: Processes,
    backend: Backend,
    ways: Option<Ways>,
    /// Those of [`TARGETS`] of which it says something.
    targets: &'static [&'static str],
    run: Run,
}

/// How long the targets' processes live.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Processes {
    /// One round: memory that an earlier round has left free would hide the growth of the next.
    Fresh,
    /// All rounds.
    Warm,
}

/// Whatever is an alternative to another.
const FRONTS: &[&str] = &["direct", "haproxy", "relay", "handoff"];
/// Before anybody has proved a key.
const BEFORE_LOGIN: &[&str] = &["direct", "haproxy", "relay"];

fn scenarios(compare: &Compare) -> Vec<Scenario> {
    use Processes::{Fresh, Warm};
    let mut all = vec![];
    let mut add = |name: String, processes, targets, run: Run| {
        all.push(Scenario { name, processes, backend: Backend::Sshd, ways: None, targets, run });
    };
    let held = Hold { count: compare.held, parallel: 8, seconds: 5 };
    for stop in [Stop::Banner, Stop::KeyExchange] {
        let held = held.clone();
        let name = format!("half-open {stop:?}").to_lowercase();
        let run = move |_: &Lab, target: &Target| scenario::half_open_hold(target, &held, stop);
        add(name, Fresh, BEFORE_LOGIN, Box::new(run));
    }
    add(
        "idle".into(),
        Fresh,
        FRONTS,
        Box::new(move |_, target| scenario::idle_hold(target, &held)),
    );
    for cipher in ["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com"] {
        for direction in [Direction::Down, Direction::Up] {
            let shape = Bulk { bytes: compare.bytes, direction, cipher: cipher.to_owned() };
            let name = format!("bulk {direction:?} {cipher}").to_lowercase();
            add(name, Warm, &TARGETS, Box::new(move |_, target| scenario::bulk(target, &shape)));
        }
    }
    let shape = Logins { count: compare.logins, parallel: compare.parallel, cipher: None };
    add("logins".into(), Warm, FRONTS, Box::new(move |_, target| scenario::logins(target, &shape)));
    let shape = Echo { count: 5000, handshakes_per_s: 0, cipher: None };
    add("echo".into(), Warm, &TARGETS, Box::new(move |_, target| scenario::echo(target, &shape)));
    // A stock sshd cannot take a thousand handshakes a second, nor can what stands in front of it.
    let shape = Echo { count: 5000, handshakes_per_s: 1000, cipher: None };
    add(
        "echo beside handshakes".into(),
        Warm,
        &["relay", "handoff"],
        Box::new(move |_, target| scenario::echo(target, &shape)),
    );
    all.push(light_logins(compare));
    all.extend([Client::OpenSsh, Client::Paramiko].map(|client| first_byte(compare, client)));
    all
}

fn light_logins(compare: &Compare) -> Scenario {
    let shape = Logins { count: compare.light_logins, parallel: compare.parallel, cipher: None };
    Scenario {
        name: "logins light".into(),
        processes: Processes::Warm,
        backend: Backend::Light,
        ways: None,
        targets: FRONTS,
        run: Box::new(move |_, target| {
            let row = scenario::logins(target, &shape)?;
            Ok(Row { scenario: format!("{}, light VM", row.scenario), ..row })
        }),
    }
}

fn first_byte(compare: &Compare, client: Client) -> Scenario {
    let ways = Ways {
        client: Duration::from_millis(compare.client_rtt_ms),
        far: Duration::from_millis(compare.far_rtt_ms),
    };
    let python = compare.python.clone();
    Scenario {
        name: format!("first byte {client:?}").to_lowercase(),
        processes: Processes::Warm,
        backend: Backend::Sshd,
        ways: Some(ways),
        targets: FRONTS,
        run: Box::new(move |lab, target| first_byte::measure(target, client, &lab.key, &python)),
    }
}

/// Every scenario against every target, in turn within a round.
pub(crate) fn compare(compare: &Compare) -> Result<Vec<Summary>> {
    let mut summaries = vec![];
    let (chosen, others): (Vec<_>, Vec<_>) =
        scenarios(compare).into_iter().partition(|scenario| scenario.name.contains(&compare.only));
    if chosen.is_empty() {
        let names: Vec<_> = others.iter().map(|scenario| scenario.name.as_str()).collect();
        let (only, names) = (&compare.only, names.join("\", \""));
        return Err(format!("no scenario contains \"{only}\"; there are \"{names}\"").into());
    }
    for Scenario { name, processes, backend, ways, targets, run } in chosen {
        let mut lab = Lab::start(&compare.keyway, backend, ways)?;
        let mut rows = vec![vec![]; TARGETS.len()];
        for round in 1..=compare.rounds {
            if processes == Processes::Fresh && round > 1 {
                drop(lab);
                lab = Lab::start(&compare.keyway, backend, ways)?;
            }
            for (target, rows) in std::iter::zip(lab.targets(), &mut rows) {
                if !targets.contains(&&*target.name) || !compare.targets.contains(&target.name) {
                    continue;
                }
                eprintln!("{name}: {}, round {round} of {}", target.name, compare.rounds);
                let row =
                    run(&lab, target).map_err(|why| format!("{name}, {}: {why}", target.name));
                rows.push(row?);
            }
        }
        summaries.extend(rows.iter().filter_map(|rows| report::summary(rows)));
    }
    Ok(summaries)
}
