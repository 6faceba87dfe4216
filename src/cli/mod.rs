//! The command line: arguments -> what to do, and what it says about it.
//!
//! Results go to stdout, faults and progress to stderr. A change asks a running server over its
//! socket (`client`), and what it says no to is told in its words. The long-running roles are
//! handed in, so that this room knows none of theirs.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use self::error::Outcome;
use self::exit_code::{CHANGED, DONE, FAULTS, UNREACHABLE, USAGE};
use self::output::Output;
use self::remote::Remote;
use self::terminal::Terminal;
use crate::config::{self, Files};
use crate::durable::MODE_OTHERS;
use crate::serve::{AgentStart, Failure, Start};

mod address;
mod agent;
mod agent_process;
mod api_path;
mod api_session;
mod apply;
mod archive;
mod audit;
mod backup;
mod ca;
mod change;
mod check;
mod client;
mod edge;
mod error;
mod exit_code;
mod explain;
mod fatal;
mod hostkey;
mod identity;
mod key;
mod keyfile;
mod node;
mod node_trial;
mod order;
mod output;
mod remote;
mod running;
mod session;
mod shell;
mod store;
mod table;
mod team;
mod terminal;
mod token;
mod user;
mod vm;

const EXAMPLES: &str = "\
Examples:
  keyway demo                                                try it: two users, their VMs, nothing to set up
  keyway serve --config keyway.toml                          run the front door
  keyway address add s001 203.0.113.7                        an address of the pool
  keyway user add alice --key alice.pub                      somebody who logs in
  keyway vm add blue --owner alice --ssh 10.1.0.5:22         where to, and `ssh blue` works
  keyway vm share blue --with bob                            also for bob
  keyway status                                              how it is; `keyway reload` after a change of its files
  keyway explain --key bob.pub --name blue                   why a key is let in, or is not
  keyway apply -f fleet.toml                                 all of it from a file
  keyway ca show --drop-in --vm blue                         what the sshd of VM blue needs

Every list and change takes --output json; changes take --dry-run. Servers are found by --socket, KEYWAY_SOCKET, the
state_dir of --config, of keyway.toml here or of /etc/keyway/keyway.toml, else /var/lib/keyway/keyway.sock. These options
may stand before the noun too: keyway --config FILE vm list.

Exit codes: 0 done, 1 refused or failed (told on stderr, with what to do and a stable [code]), 2 wrong arguments,
3 no server answers or nobody gets in, 4 changed meanwhile (--if-revision).";

/// An SSH front door: `ssh my-vm` reaches the right VM, by the user's key and the address dialled.
#[derive(Debug, Parser)]
#[command(name = "keyway", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the front door until SIGTERM (drains) or SIGINT; SIGHUP reloads keys,
    /// revocations and fleet
    #[command(after_help = "\
Examples:
  keyway serve --config /etc/keyway/keyway.toml
  keyway serve --config /etc/keyway/keyway.toml --fleet /etc/keyway/fleet.toml")]
    Serve(Files),
    /// Run an agent beside the VMs: it takes sessions from front doors and relays them;
    /// signals as of serve
    #[command(
        args_conflicts_with_subcommands = true,
        subcommand_negates_reqs = true,
        after_help = "\
Examples:
  keyway agent --config /etc/keyway/agent.toml
  keyway agent --config agent.toml --fleet fleet.toml
  keyway agent join --config agent.toml                      once, to follow a front door: see `keyway node token`
  keyway agent status --config /etc/keyway/agent.toml
  keyway agent drain --config /etc/keyway/agent.toml"
    )]
    Agent(agent::Agent),
    /// Have a running front door read its files again, as SIGHUP does, and say what
    /// came of each part
    #[command(after_help = "\
Examples:
  keyway reload
  keyway reload --dry-run
  keyway reload --output json | jq -r '.restart[].key'

Exit code 1 if something of the files is not in force; what takes a restart is told on stderr.")]
    Reload {
        #[command(flatten)]
        reload: running::ReloadAsked,
        #[command(flatten)]
        remote: Remote,
    },
    /// How a front door is, part by part; exit code 3 if nobody gets in, 1 if something
    /// else does not work
    #[command(after_help = "\
Examples:
  keyway status
  keyway status --wait && ssh blue.vm.example.test
  keyway status --wait=300
  keyway status --output json | jq .counts.sessions")]
    Status {
        #[command(flatten)]
        status: running::StatusAsked,
        #[command(flatten)]
        remote: Remote,
    },
    /// Validate the files of a front door or an agent and say what they hold; every fault is told
    /// with its line and a fix
    #[command(after_help = "\
Examples:
  keyway check --config keyway.toml --fleet fleet.toml
  keyway check --config agent.toml
  keyway check --config keyway.toml --fleet fleet.toml --output json | jq .warnings")]
    Check {
        #[command(flatten)]
        files: Files,
        /// How to say it
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Try it all on this machine: a front door on loopback, two users, VMs that run real commands
    #[command(after_help = "\
Examples:
  keyway demo            prints ssh lines to paste; runs until Ctrl-C
  keyway demo --check    runs them itself; exit code 0 if all of them went right")]
    Demo(Demo),
    /// People and programs that log in
    #[command(
        alias = "users",
        arg_required_else_help = true,
        after_help = "\
Examples:
  keyway user add alice --key alice.pub
  keyway user show alice
  keyway user list --output json | jq -r '.[].name'
  keyway user rm alice --dry-run"
    )]
    User(Noun<user::User>),
    /// The keys that users log in with
    #[command(
        alias = "keys",
        arg_required_else_help = true,
        after_help = "\
Examples:
  keyway key add alice second.pub
  keyway key set alice alice.pub         another comment or other options; less rights end sessions
  keyway key list --user alice
  keyway key rm alice SHA256:Rp3F5dUjTo4JLpkpVsqBHmxPcNjZkWRbDWaEDuyBo3o"
    )]
    Key(Noun<key::Key>),
    /// Users who share what is given to the team
    #[command(
        alias = "teams",
        arg_required_else_help = true,
        after_help = "\
Examples:
  keyway team add ops --member alice --member bob
  keyway team join ops carol
  keyway team leave ops bob
  keyway team show ops"
    )]
    Team(Noun<team::Team>),
    /// The machines, whose they are and who else may enter
    #[command(
        alias = "vms",
        arg_required_else_help = true,
        after_help = "\
Examples:
  keyway vm add blue --owner alice --ssh 127.0.0.1:2201 --login root
  keyway vm add shared --owner team:ops --ssh 127.0.0.1:2202
  keyway vm share blue --with bob
  keyway vm list --visible-to bob --output json"
    )]
    Vm(Noun<vm::Vm>),
    /// The pool of addresses that VMs share
    #[command(
        alias = "addresses",
        arg_required_else_help = true,
        after_help = "\
Examples:
  keyway address add s001 127.0.77.1
  keyway address list
  keyway address drain s001 --dry-run"
    )]
    Address(Noun<address::Address>),
    /// The hosts that hold VMs, and the agents that take sessions over there
    #[command(alias = "nodes", arg_required_else_help = true, after_help = node::EXAMPLES)]
    Node(Noun<node::Node>),
    /// The front doors that agents take sessions from, by their identities
    #[command(alias = "edges", arg_required_else_help = true, after_help = edge::EXAMPLES)]
    Edge(Noun<edge::Edge>),
    /// Make the registry hold what a fleet file says; shows a plan and asks
    #[command(
        arg_required_else_help = true,
        after_help = "\
Examples:
  keyway apply -f fleet.toml
  keyway apply -f fleet.toml --prune --dry-run
  keyway apply -f fleet.toml --yes --output json"
    )]
    Apply {
        #[command(flatten)]
        apply: apply::Apply,
        #[command(flatten)]
        remote: Remote,
    },
    /// Print what the registry holds as a fleet file
    #[command(after_help = "\
Examples:
  keyway export > fleet.toml
  keyway export --output json | jq '.vms | length'")]
    Export {
        /// How to write it
        #[arg(id = "format", long = "output", value_enum, default_value_t = apply::Format::Toml)]
        format: apply::Format,
        #[command(flatten)]
        remote: remote::ServerArgs,
    },
    /// Give a user all keys of an authorized_keys file
    #[command(
        arg_required_else_help = true,
        after_help = "\
Examples:
  keyway import-authorized-keys alice authorized_keys
  ssh old-host cat .ssh/authorized_keys | keyway import-authorized-keys alice -

Every line is checked before any is sent. Options that cannot be honoured refuse the file."
    )]
    ImportAuthorizedKeys {
        #[command(flatten)]
        import: apply::Import,
        #[command(flatten)]
        remote: Remote,
    },
    /// Why a key is let in somewhere, or is not
    #[command(
        arg_required_else_help = true,
        after_help = "\
Examples:
  keyway explain --key alice.pub --address 127.0.77.1 --output json
  keyway explain --key alice.pub --name blue
  keyway explain --fingerprint SHA256:Rp3F5dUjTo4JLpkpVsqBHmxPcNjZkWRbDWaEDuyBo3o --address s003 --login root+blue"
    )]
    Explain {
        #[command(flatten)]
        explain: explain::Explain,
        #[command(flatten)]
        remote: Remote,
    },
    /// Who is inside
    #[command(
        alias = "sessions",
        arg_required_else_help = true,
        after_help = "\
Examples:
  keyway session list --vm blue
  keyway session kill 3f2a91c47d0be652"
    )]
    Session(Noun<session::Session>),
    /// Who did what, when, from where
    #[command(
        alias = "audits",
        arg_required_else_help = true,
        after_help = "\
Examples:
  keyway audit list --limit 20
  keyway audit list --follow"
    )]
    Audit(Noun<audit::Audit>),
    /// The DNS zone of VMs and addresses
    #[command(
        alias = "zones",
        arg_required_else_help = true,
        after_help = "\
Example:
  keyway zone export > vm.example.test.zone"
    )]
    Zone(Noun<apply::Zone>),
    /// What programs show to the API
    #[command(
        alias = "tokens",
        arg_required_else_help = true,
        after_help = "\
Examples:
  keyway token add ci --role operator --expires 30d > ci.token
  keyway token list
  keyway token rm ci"
    )]
    Token(Noun<token::Token>),
    /// Where the registry is kept: copies, and which history is believed
    #[command(
        alias = "stores",
        arg_required_else_help = true,
        after_help = "\
Examples:
  keyway store show
  keyway store backup /var/backups/keyway/2026-07-28.db
  keyway store restore /var/backups/keyway/2026-07-28.db"
    )]
    Store(Noun<store::Store>),
    /// The keys that clients know this front door by
    #[command(
        alias = "hostkeys",
        arg_required_else_help = true,
        after_help = "\
Examples:
  keyway hostkey list
  keyway hostkey export edge_host_key
  keyway hostkey import edge_host_key"
    )]
    Hostkey(Noun<hostkey::HostKey>),
    /// What this front door is to agents, or with its agent.toml an agent to front doors: its
    /// public key, made now if there is none
    #[command(after_help = "\
Examples:
  keyway identity --config /etc/keyway/keyway.toml            a line for edges in agent.toml
  keyway identity --config agent.toml --fingerprint           for agent_key in the fleet file")]
    Identity {
        #[command(flatten)]
        identity: identity::Identity,
        #[command(flatten)]
        remote: Remote,
    },
    /// The CA whose certificates the VMs trust
    #[command(
        arg_required_else_help = true,
        after_help = "\
Examples:
  keyway ca show --drop-in --vm blue
  keyway ca show --config agent.toml --drop-in --id blue
  keyway ca export user_ca
  keyway ca import user_ca"
    )]
    Ca(Noun<ca::Ca>),
    /// Write all that this front door is to one sealed file: registry, CA and host keys
    #[command(
        arg_required_else_help = true,
        after_help = "\
Examples:
  keyway backup /var/backups/keyway/2026-07-28.age --recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p
  keyway backup keyway.age --passphrase-file passphrase

It reads state_dir, so it runs as root or the service's user; keyway may serve meanwhile. `age -d keyway.age | tar t` shows
what is in it. Keys that keyway.toml names elsewhere are in it too."
    )]
    Backup {
        #[command(flatten)]
        backup: backup::Backup,
        #[command(flatten)]
        remote: Remote,
    },
    /// Put back what `keyway backup` wrote, with keyway stopped; what was there is kept beside it
    #[command(
        arg_required_else_help = true,
        after_help = "\
Examples:
  keyway restore keyway.age --identity key.txt
  keyway restore --config /etc/keyway/keyway.toml keyway.age --passphrase-file passphrase

It writes into state_dir only, where nothing is written over. On a host that is new to it the registry gives no new slots
until registry.quarantine_s is over, unless `keyway store adopt --nothing-lost` says that the backup holds all there was."
    )]
    Restore {
        #[command(flatten)]
        restore: backup::Restore,
        #[command(flatten)]
        remote: Remote,
    },
    /// Completions for a shell
    #[command(
        arg_required_else_help = true,
        after_help = "\
Examples:
  keyway completions bash > /usr/share/bash-completion/completions/keyway
  keyway completions fish > ~/.config/fish/completions/keyway.fish"
    )]
    Completions {
        /// Which
        shell: shell::Known,
    },
    /// Manual pages
    #[command(after_help = "\
Examples:
  keyway man | man -l -
  keyway man --dir /usr/local/share/man/man1")]
    Man {
        /// Write a page for every command into this directory
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// A noun's verbs, and the server that they ask.
#[derive(Args, Debug)]
struct Noun<V: Subcommand> {
    #[command(subcommand)]
    verb: V,
    #[command(flatten)]
    remote: Remote,
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

/// The long-running roles. Each runs until it is told to stop.
#[derive(Clone, Copy, Debug)]
pub struct Roles {
    /// The front door.
    pub serve: fn(Start) -> Result<(), Failure>,
    /// The far end of a handoff.
    pub agent: fn(AgentStart) -> Result<(), Failure>,
    /// The demonstration.
    pub demo: fn(&Demo) -> Result<(), Failure>,
}

/// Does what `arguments` (with the program's name first) say.
#[expect(clippy::disallowed_methods, reason = "the environment is read here and passed on")]
pub fn run(arguments: impl IntoIterator<Item = OsString>, roles: &Roles) -> ExitCode {
    let (stdin, stdout, stderr) =
        (&mut io::stdin().lock(), &mut io::stdout().lock(), &mut io::stderr());
    let (asks, seen) = (io::stdin().is_terminal(), io::stderr().is_terminal());
    let variable = &|name: &str| std::env::var_os(name);
    let terminal = Terminal { stdin, stdout, stderr, variable, asks, seen, keep: &keep_stdout };
    // A pipe that was closed early (`| head`) is not our fault, and there is nobody to tell.
    ExitCode::from(run_with(arguments, roles, terminal).unwrap_or(FAULTS))
}

/// Takes from others what they may do with the file that stdout is, if it is one; whether
/// they might have.
fn keep_stdout() -> io::Result<bool> {
    let stdout = std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let about = stdout.metadata()?;
    if !about.is_file() || about.mode() & MODE_OTHERS == 0 {
        return Ok(false);
    }
    let mode = about.mode() & 0o7777 & !MODE_OTHERS;
    stdout.set_permissions(std::fs::Permissions::from_mode(mode))?;
    Ok(true)
}

fn run_with(
    arguments: impl IntoIterator<Item = OsString>,
    roles: &Roles,
    mut terminal: Terminal<'_>,
) -> io::Result<u8> {
    let Terminal { stdout, stderr, .. } = &mut terminal;
    let command = match Arguments::try_parse_from(order::noun_first(arguments)) {
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
    match carry_out(command, roles, &mut terminal) {
        Ok(code) => Ok(code),
        Err(trouble) => trouble.tell(terminal.stderr),
    }
}

fn carry_out(command: Command, roles: &Roles, terminal: &mut Terminal<'_>) -> Outcome {
    let Terminal { stdout, stderr, seen, .. } = terminal;
    match command {
        Command::Check { files, output } => Ok(check::run(&files, output, stdout, stderr)?),
        Command::Ca(Noun { verb, remote }) => ca::run(verb, &remote, terminal),
        Command::Identity { identity, remote } => identity::run(&identity, &remote, terminal),
        Command::Backup { backup, remote } => backup::backup(&backup, &remote, terminal),
        Command::Restore { restore, remote } => backup::restore(&restore, &remote, terminal),
        Command::Serve(files) => {
            let form = fatal::Form::of(&files, *seen);
            match config::load(files.config.as_deref(), files.fleet.as_deref()) {
                Ok(loaded) => match (roles.serve)(Start { files, loaded }) {
                    Ok(()) => return Ok(DONE),
                    Err(failure) => form.failure(&failure, stderr)?,
                },
                Err(report) => form.report(&report, stderr)?,
            }
            Ok(FAULTS)
        }
        Command::Agent(agent) => agent::run(agent, roles.agent, terminal),
        Command::Reload { reload, remote } => running::reload(&reload, &remote, terminal),
        Command::Status { status, remote } => running::status(&status, &remote, terminal),
        Command::Demo(demo) => Ok(end((roles.demo)(&demo), stderr)?),
        Command::User(Noun { verb, remote }) => user::run(verb, &remote, terminal),
        Command::Key(Noun { verb, remote }) => key::run(verb, &remote, terminal),
        Command::Team(Noun { verb, remote }) => team::run(verb, &remote, terminal),
        Command::Vm(Noun { verb, remote }) => vm::run(verb, &remote, terminal),
        Command::Address(Noun { verb, remote }) => address::run(verb, &remote, terminal),
        Command::Node(Noun { verb, remote }) => node::run(verb, &remote, terminal),
        Command::Edge(Noun { verb, remote }) => edge::run(verb, &remote, terminal),
        Command::Apply { apply, remote } => apply::apply(&apply, &remote, terminal),
        Command::Export { format, remote } => apply::export(format, &remote.remote(), terminal),
        Command::ImportAuthorizedKeys { import, remote } => {
            apply::import(&import, &remote, terminal)
        }
        Command::Explain { explain, remote } => explain::run(explain, &remote, terminal),
        Command::Session(Noun { verb, remote }) => session::run(verb, &remote, terminal),
        Command::Audit(Noun { verb, remote }) => audit::run(verb, &remote, terminal),
        Command::Zone(Noun { verb, remote }) => apply::zone(&verb, &remote, terminal),
        Command::Token(Noun { verb, remote }) => token::run(verb, &remote, terminal),
        Command::Store(Noun { verb, remote }) => store::run(verb, &remote, terminal),
        Command::Hostkey(Noun { verb, remote }) => hostkey::run(verb, &remote, terminal),
        Command::Completions { shell } => shell::completions(Arguments::command(), shell, stdout),
        Command::Man { dir } => shell::man(Arguments::command(), dir.as_deref(), stdout),
    }
}

fn end(result: Result<(), Failure>, stderr: &mut dyn Write) -> io::Result<u8> {
    match result {
        Ok(()) => Ok(DONE),
        Err(failure) => {
            fatal::tell(&failure, stderr)?;
            Ok(FAULTS)
        }
    }
}

#[cfg(test)]
#[path = "backup_tests.rs"]
mod backup_tests;
#[cfg(test)]
#[path = "help_tests.rs"]
mod help_tests;
#[cfg(test)]
#[path = "noun_tests.rs"]
mod noun_tests;
#[cfg(test)]
#[path = "offline_tests.rs"]
mod offline_tests;
#[cfg(test)]
#[path = "remote_tests.rs"]
mod remote_tests;
#[cfg(test)]
mod running_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
#[cfg(test)]
#[path = "tls_tests.rs"]
mod tls_tests;
