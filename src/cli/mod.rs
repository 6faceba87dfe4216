//! The command line: arguments -> what to do, and what it says about it.
//!
//! Results go to stdout, faults and progress to stderr. Exit codes: 0 done, 1 not done (each fault has its line), 2 the
//! arguments make no sense. The long-running roles are handed in, so that this room knows none of theirs.

use std::{
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{self, Loaded};

mod ca;
mod check;

/// All that could be done was done.
const DONE: u8 = 0;
/// Something is wrong, and was told on stderr.
const FAULTS: u8 = 1;
/// The arguments make no sense.
const USAGE: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  keyway demo                                                try it: two users, their VMs, nothing to set up
  keyway check --config keyway.toml --fleet fleet.toml       all faults of both files, with their lines
  keyway ca show --config keyway.toml --drop-in --vm blue    what the sshd of VM blue needs
  keyway serve --config keyway.toml --fleet fleet.toml       run the front door

Exit codes: 0 done, 1 faults (told on stderr), 2 wrong arguments.";

/// An SSH front door: `ssh my-vm` reaches the right VM, by the user's key and the address dialled.
#[derive(Debug, Parser)]
#[command(name = "keyway", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the front door until SIGTERM (drains) or SIGINT; SIGHUP reloads keys, revocations and fleet
    #[command(after_help = "\
Example:
  keyway serve --config /etc/keyway/keyway.toml --fleet /etc/keyway/fleet.toml")]
    Serve(Files),
    /// Validate both files and say what they hold; every fault is told with its line and a fix
    #[command(after_help = "\
Examples:
  keyway check --config keyway.toml --fleet fleet.toml
  keyway check --config keyway.toml --fleet fleet.toml --output json | jq .warnings")]
    Check {
        #[command(flatten)]
        files: Files,
        /// How to say it
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// The CA whose certificates the VMs trust
    Ca {
        #[command(subcommand)]
        command: CaCommand,
    },
    /// Try it all on this machine: a front door on loopback, two users, VMs that run real commands
    #[command(after_help = "\
Examples:
  keyway demo            prints ssh lines to paste; runs until Ctrl-C
  keyway demo --check    runs them itself; exit code 0 if all of them went right")]
    Demo(Demo),
}

#[derive(Debug, Subcommand)]
enum CaCommand {
    /// Print the CA's public key, which is made now if it does not exist
    #[command(after_help = "\
Examples:
  keyway ca show --config keyway.toml > keyway_user_ca.pub
  keyway ca show --config keyway.toml --drop-in --vm blue --edge 10.0.0.2 --sshd-version 9.9")]
    Show(CaShow),
}

/// The two files.
#[derive(Args, Clone, Debug, Eq, PartialEq)]
pub struct Files {
    /// How the front door runs
    #[arg(long, value_name = "FILE", default_value = "keyway.toml")]
    pub config: PathBuf,
    /// Who may go where
    #[arg(long, value_name = "FILE", default_value = "fleet.toml")]
    pub fleet: PathBuf,
}

#[derive(Args, Debug)]
struct CaShow {
    /// How the front door runs
    #[arg(long, value_name = "FILE", default_value = "keyway.toml")]
    config: PathBuf,
    /// Print all the lines that the `sshd_config` of a VM needs
    #[arg(long)]
    drop_in: bool,
    /// The VM's name, for its principal
    #[arg(long, value_name = "NAME", requires = "drop_in", value_parser = ca::parse_vm)]
    vm: Option<String>,
    /// An address or network from which the edge dials VMs (may be repeated)
    #[arg(long, value_name = "ADDRESS", requires = "drop_in", value_parser = ca::parse_edge)]
    edge: Vec<String>,
    /// The VM's OpenSSH version; what it does not know is left a comment [default: any from 8.5]
    #[arg(long, value_name = "X.Y", requires = "drop_in", value_parser = ca::parse_version)]
    sshd_version: Option<ca::Version>,
}

/// What the demonstration is asked to do.
#[derive(Args, Clone, Debug, Eq, PartialEq)]
pub struct Demo {
    /// Run the printed lines and report, instead of waiting
    #[arg(long)]
    pub check: bool,
    /// Use the installed sshd for the VMs instead of the built-in server
    #[arg(long)]
    pub sshd: bool,
    /// Port to listen at [default: a free one]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Show the front door's log lines too
    #[arg(long)]
    pub log: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// What `serve` starts from.
#[derive(Debug)]
pub struct Start {
    /// Read again at SIGHUP, with [`config::load`].
    pub files: Files,
    /// What they hold now. Its warnings are to be logged.
    pub loaded: Loaded,
}

/// Why a role ended other than as it should: one line for stderr.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The long-running roles. Each runs until it is told to stop.
#[derive(Clone, Copy, Debug)]
pub struct Roles {
    /// The front door.
    pub serve: fn(Start) -> Result<(), Failure>,
    /// The demonstration.
    pub demo: fn(&Demo) -> Result<(), Failure>,
}

/// Does what `arguments` (with the program's name first) say.
pub fn run(arguments: impl IntoIterator<Item = OsString>, roles: &Roles) -> ExitCode {
    let (stdout, stderr) = (&mut io::stdout().lock(), &mut io::stderr());
    // A pipe that was closed early (`| head`) is not our fault, and there is nobody to tell.
    ExitCode::from(run_with(arguments, roles, stdout, stderr).unwrap_or(FAULTS))
}

fn run_with(
    arguments: impl IntoIterator<Item = OsString>,
    roles: &Roles,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> io::Result<u8> {
    let command = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments.command,
        Err(error) if error.use_stderr() => {
            write!(stderr, "{error}")?;
            return Ok(USAGE);
        }
        Err(help_or_version) => {
            write!(stdout, "{help_or_version}")?;
            return Ok(DONE);
        }
    };
    match command {
        Command::Check { files, output } => check::run(&files, output, stdout, stderr),
        Command::Ca { command: CaCommand::Show(show) } => ca::show(&show, stdout, stderr),
        Command::Serve(files) => match config::load(&files.config, &files.fleet) {
            Ok(loaded) => end((roles.serve)(Start { files, loaded }), stderr),
            Err(report) => {
                check::tell_faults(&report, stderr)?;
                Ok(FAULTS)
            }
        },
        Command::Demo(demo) => end((roles.demo)(&demo), stderr),
    }
}

fn end(result: Result<(), Failure>, stderr: &mut dyn Write) -> io::Result<u8> {
    match result {
        Ok(()) => Ok(DONE),
        Err(failure) => {
            writeln!(stderr, "keyway: {failure}")?;
            Ok(FAULTS)
        }
    }
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
