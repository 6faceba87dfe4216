//! Load for Keyway and for the front doors beside it: latencies on the client's side, CPU and
//! memory of the target's processes on the other.
//!
//! `engine` is a client on Keyway's own protocol core, so that thousands of sessions cost little
//! beside what they measure, and `vm` a server on it, for what a stock sshd would drown; `link` is
//! the socket below both. `scenario` says what the clients do; `account` reads `/proc`; `lab`
//! starts a whole set-up (VMs, Keyway, HAProxy) to compare targets in one run; `report` prints.
//! Every load ends by itself.

#![expect(clippy::disallowed_methods, reason = "it measures, by threads and clocks")]

mod account;
mod compare;
mod delay;
mod engine;
mod first_byte;
mod lab;
mod link;
mod programs;
mod report;
mod scenario;
mod splice;
mod vm;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Why something did not work, for people.
type Fail = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Fail>;

const EXAMPLES: &str = "\
Examples:
  keyway-loadtest logins --to 127.0.77.1:2222 --key id_ed25519 --pid 4711 --count 500 --parallel 8
  keyway-loadtest bulk --to 127.0.77.1:2222 --key id_ed25519 --pid 4711 --bytes 1000000000 --cipher aes128-gcm@openssh.com
  keyway-loadtest compare --keyway target/release/keyway --rounds 3 --output json";

/// Load scenarios against an SSH front door, with the cost on its side.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How the figures are printed
    #[arg(long, value_enum, default_value_t = Output::Table, global = true)]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// For people
    Table,
    /// For programs: one object a line
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Log in, run `true`, log out, many times
    Logins {
        #[command(flatten)]
        target: TargetArguments,
        #[command(flatten)]
        shape: scenario::Logins,
    },
    /// Move bytes through one session
    Bulk {
        #[command(flatten)]
        target: TargetArguments,
        #[command(flatten)]
        shape: scenario::Bulk,
    },
    /// Send one byte and wait for it, many times; beside it, if asked for, key exchanges at a rate
    Echo {
        #[command(flatten)]
        target: TargetArguments,
        #[command(flatten)]
        shape: scenario::Echo,
    },
    /// Hold established sessions that do nothing
    IdleHold {
        #[command(flatten)]
        target: TargetArguments,
        #[command(flatten)]
        shape: scenario::Hold,
    },
    /// Hold connections that stop before authentication
    HalfOpenHold {
        #[command(flatten)]
        target: TargetArguments,
        #[command(flatten)]
        shape: scenario::Hold,
        /// Where they stop
        #[arg(long, value_enum, default_value_t = scenario::Stop::KeyExchange)]
        stop: scenario::Stop,
    },
    /// Every scenario against a VM directly, HAProxy TCP, a bare splice loop and Keyway, in turn
    Compare(compare::Compare),
    /// Be the light VM of `compare`: a server that answers `exec true`, until it is ended
    #[command(hide = true)]
    Vm(vm::Setup),
    /// Be the bare splice loop of `compare`, until it is ended
    #[command(hide = true)]
    Splice(splice::Setup),
}

#[derive(Args)]
struct TargetArguments {
    /// Address and port of the target
    #[arg(long)]
    to: SocketAddr,
    /// Put an HAProxy in TCP mode in front of --to and account for that
    #[arg(long)]
    haproxy: bool,
    /// User name inside the VM
    #[arg(long, default_value = "root")]
    login: String,
    /// Private key (openssh-key-v1, no passphrase)
    #[arg(long)]
    key: PathBuf,
    /// A process of the target; its descendants count too
    #[arg(long)]
    pid: Vec<u32>,
    /// The target is not on the loopback range, but a host of your own made for this
    #[arg(long)]
    own_host: bool,
}

impl TargetArguments {
    /// The target, and the HAProxy that must live as long as it is loaded.
    fn open(self) -> Result<(scenario::Target, Option<programs::Started>)> {
        if !self.to.ip().is_loopback() && !self.own_host {
            return Err(format!("{} is not a loopback address: see --own-host", self.to).into());
        }
        let credential = Arc::new(engine::credential(&self.key)?);
        let mut target = scenario::Target {
            name: "target".into(),
            address: self.to,
            login: self.login,
            credential,
            pids: self.pid,
        };
        if !self.haproxy {
            return Ok((target, None));
        }
        let dir = std::env::temp_dir().join(format!("keyway-haproxy-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let address = format!("127.0.76.2:{}", programs::port()?).parse()?;
        let proxy = programs::haproxy(&dir, address, self.to)?;
        target.name = "haproxy".into();
        target.address = proxy.address;
        target.pids = vec![proxy.started.id()];
        Ok((target, Some(proxy.started)))
    }
}

fn run(arguments: Arguments) -> Result<Vec<report::Summary>> {
    let one = |row: report::Row| report::summary(&[row]).into_iter().collect();
    scenario::raise_fd_limit()?;
    match arguments.command {
        Command::Logins { target, shape } => {
            let (target, _proxy) = target.open()?;
            Ok(one(scenario::logins(&target, &shape)?))
        }
        Command::Bulk { target, shape } => {
            let (target, _proxy) = target.open()?;
            Ok(one(scenario::bulk(&target, &shape)?))
        }
        Command::Echo { target, shape } => {
            let (target, _proxy) = target.open()?;
            Ok(one(scenario::echo(&target, &shape)?))
        }
        Command::IdleHold { target, shape } => {
            let (target, _proxy) = target.open()?;
            Ok(one(scenario::idle_hold(&target, &shape)?))
        }
        Command::HalfOpenHold { target, shape, stop } => {
            let (target, _proxy) = target.open()?;
            Ok(one(scenario::half_open_hold(&target, &shape, stop)?))
        }
        Command::Compare(compare) => compare::compare(&compare),
        Command::Vm(setup) => vm::serve(&setup).map(|()| vec![]),
        Command::Splice(setup) => splice::serve(&setup).map(|()| vec![]),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = arguments.output;
    match run(arguments) {
        Ok(rows) => {
            match output {
                Output::Table => print!("{}", report::table(&rows)),
                Output::Json => print!("{}", report::json(&rows)),
            }
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("keyway-loadtest: {why}");
            ExitCode::FAILURE
        }
    }
}
