//! `keyway ca`: the CA whose certificates the VMs trust, and what a VM needs for that.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use ipnet::IpNet;
use serde_json::json;

use super::api_path::path;
use super::change::{Change, ChangeArgs};
use super::error::{CliError, Outcome};
use super::hostkey::{private, say, write_private};
use super::remote::Remote;
use super::table::{cell, plain};
use super::terminal::Terminal;
use super::{DONE, FAULTS, check};
use crate::config::{self, Logins, Of, Principals, UserCa, VmCredential};
use crate::route::{Carry, is_id, is_label};
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::publickey::PublicKey;
use crate::state::{Imported, State, StateFault};

/// Names the file of a CA that is not in the state directory.
const NAMED_BY: &str = "vm_leg.user_ca";

#[derive(Debug, Subcommand)]
pub(super) enum Ca {
    /// Print the CA's public key, which is made now if it does not exist
    #[command(after_help = "\
Examples:
  keyway ca show --config keyway.toml > keyway_user_ca.pub
  keyway ca show --config keyway.toml --drop-in --vm blue --edge 10.0.0.2 --sshd-version 9.9

--vm asks the running server for the VM's id: certificates name that, whatever the VM is called now.")]
    Show(CaShow),
    /// Copy the private key of the CA out of state_dir to a new file (mode 0600); it is made
    /// if there is none
    #[command(after_help = "\
Example:
  keyway ca export --config /etc/keyway/keyway.toml user_ca")]
    Export {
        /// The new file
        file: PathBuf,
    },
    /// Copy the private key of a CA into state_dir, which must have no other
    #[command(after_help = "\
Example:
  keyway ca import --config /etc/keyway/keyway.toml user_ca")]
    Import {
        /// An Ed25519 key as ssh-keygen writes it, without a passphrase
        file: PathBuf,
    },
    /// Say that the VMs trust the CA in use now: a start warns no more that they were
    /// prepared for another
    #[command(after_help = "\
Example:
  keyway ca confirm")]
    Confirm,
}

#[derive(Args, Debug)]
pub(super) struct CaShow {
    /// Print all the lines that the `sshd_config` of a VM needs
    #[arg(long)]
    drop_in: bool,
    /// The VM's name; the server is asked for its id, the principal of its certificates
    #[arg(long, value_name = "NAME", requires = "drop_in", value_parser = parse_vm)]
    vm: Option<String>,
    /// The VM's id, if no server can be asked: the name it was made with
    #[arg(long, value_name = "ID", requires = "drop_in", conflicts_with = "vm", value_parser = parse_id)]
    id: Option<String>,
    /// An address or network from which the edge, or the agent, dials VMs (may be repeated)
    #[arg(long, value_name = "ADDRESS", requires = "drop_in", value_parser = parse_edge)]
    edge: Vec<String>,
    /// The VM's OpenSSH version; what it does not know is left a comment [default: any from 8.5]
    #[arg(long, value_name = "X.Y", requires = "drop_in", value_parser = parse_version)]
    sshd_version: Option<Version>,
}

pub(super) fn run(command: Ca, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    let failed = |fault: StateFault| CliError::failed(fault.to_string());
    let entropy = &mut SystemEntropy::default();
    match command {
        Ca::Show(asked) => show(&asked, remote, terminal),
        Ca::Export { file } => {
            let key = remote.state_with_ca()?.user_ca(entropy).map_err(failed)?;
            let text = key.to_openssh("keyway user CA", entropy);
            let is = write_private(&file, &key, &text, NAMED_BY)?;
            let is = if is == Imported::Already { "already in" } else { "copied to" };
            say(&format!("the CA is {is} {}", file.display()), &key, remote, terminal)
        }
        Ca::Import { file } => {
            let (key, text) = private(&file, NAMED_BY)?;
            let imported = remote.state_with_ca()?.import_user_ca(&key, &text, entropy);
            let what = match imported.map_err(failed)? {
                Imported::New => "the CA is in place; it counts from the next start on",
                Imported::Already => "the CA is in place already",
            };
            say(what, &key, remote, terminal)
        }
        Ca::Confirm => {
            let mut talk = remote.talk(terminal)?;
            let change = Change::post(path(["ca", "confirm"]), json!({}));
            talk.change(change, ChangeArgs::default(), &|ca| {
                format!(
                    "the VMs trust the CA {}, as far as this registry knows",
                    cell(ca, "in_use")
                )
            })
        }
    }
}

/// The first sshd that punishes source addresses by itself, and that knows how to exempt some.
const PENALTIES_FROM: Version = Version { major: 9, minor: 8 };
/// The first sshd with `PerSourceMaxStartups`.
const OLDEST: Version = Version { major: 8, minor: 5 };
/// Logins that may be under way in one VM at a time. All users come from the edge's few addresses,
/// and sshd's own default of 10 would refuse them at random as soon as a few log in together.
const MAX_STARTUPS: &str = "100:30:300";

/// An OpenSSH version.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Version {
    major: u16,
    minor: u16,
}

/// `9.2`, `9.2p1` or `OpenSSH_9.2p1`.
fn parse_version(text: &str) -> Result<Version, String> {
    let number = text.strip_prefix("OpenSSH_").unwrap_or(text);
    let number = number.split('p').next().unwrap_or(number);
    let parse = || {
        let (major, minor) = number.split_once('.')?;
        Some(Version { major: major.parse().ok()?, minor: minor.parse().ok()? })
    };
    match parse() {
        Some(version) if version < OLDEST => Err("OpenSSH from 8.5 on is supported".to_owned()),
        Some(version) => Ok(version),
        None => Err("write it like 9.2, as `ssh -V` in the VM prints it".to_owned()),
    }
}

fn parse_vm(text: &str) -> Result<String, String> {
    if is_label(text) {
        Ok(text.to_owned())
    } else {
        Err("names of VMs are 1 to 63 of a-z, 0-9 and -".to_owned())
    }
}

fn parse_id(text: &str) -> Result<String, String> {
    if is_id(text) {
        Ok(text.to_owned())
    } else {
        Err("ids of VMs are 1 to 63 of a-z, 0-9, - and _".to_owned())
    }
}

fn parse_edge(text: &str) -> Result<String, String> {
    let known = text.parse::<IpAddr>().is_ok()
        || text.parse::<IpNet>().is_ok_and(|network| network.trunc() == network);
    if known { Ok(text.to_owned()) } else { Err("write an IP address or a network".to_owned()) }
}

fn show(arguments: &CaShow, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    let Terminal { stderr, .. } = terminal;
    let logins = match config::load_logins(remote.config_file()) {
        Ok(logins) => {
            check::tell("warning", &logins.warnings, stderr)?;
            logins
        }
        Err(report) => {
            check::tell_faults(&report, stderr)?;
            return Ok(FAULTS);
        }
    };
    let (ca, principals) = match &logins.vm_leg.credential {
        VmCredential::Key(key) => {
            writeln!(
                stderr,
                "keyway: there is no CA: vm_leg.identity logs in with one plain key; \
                 fix: remove identity, or put this line into ~/.ssh/authorized_keys of the VMs:\n{}",
                key.public().to_line()
            )?;
            return Ok(FAULTS);
        }
        VmCredential::Certificates { ca, principals } => (public(ca, &logins), *principals),
    };
    let ca = ca.map_err(|fault| CliError::failed(fault.to_string()))?;
    if arguments.drop_in {
        let id = match (&arguments.vm, principals) {
            (Some(name), Principals::Vm) => Some(id_of(name, logins.of, remote, terminal)?),
            (Some(_), Principals::Login) | (None, _) => arguments.id.clone(),
        };
        write!(
            terminal.stdout,
            "{}",
            drop_in(&ca, principals, id.as_deref(), logins.of, arguments)
        )?;
    } else {
        writeln!(terminal.stdout, "{} keyway user CA", ca.to_line())?;
    }
    Ok(DONE)
}

/// The id of the VM of this name: only the registry knows it.
fn id_of(
    name: &str,
    of: Of,
    remote: &Remote,
    terminal: &mut Terminal<'_>,
) -> Result<String, CliError> {
    let asked = remote.talk(terminal).and_then(|talk| talk.get(path(["vms", name])));
    match (asked, of) {
        (Ok(vm), Of::FrontDoor) => {
            let (id, node) = (cell(&vm, "id"), cell(&vm, "node"));
            if cell(&vm, "carried") == Carry::Handoff.word() {
                let warning = format!(
                    "warning: VM {name} is entered through the agent of node {node}, whose CA it has to trust, and not this \
                     one: on that host `keyway ca show --config /etc/keyway/agent.toml --drop-in --id {id}`"
                );
                writeln!(terminal.stderr, "{}", plain(&warning))?;
            }
            Ok(id)
        }
        (Ok(vm), Of::Agent) => Ok(cell(&vm, "id")),
        (Err(CliError::Unreachable(_)), Of::Agent) => Err(CliError::Unreachable(format!(
            "an agent has no registry that knows the id of VM {name}: give it with --id (it is the name that the VM was made \
             with; `keyway vm show {name}` at the front door tells)"
        ))),
        (Err(CliError::Unreachable(why)), Of::FrontDoor) => Err(CliError::Unreachable(format!(
            "{why}; only the server knows the id of VM {name}: start it, or give the id with --id (it is the name that the VM \
             was made with; keyway vm show tells)"
        ))),
        (Err(other), _) => Err(other),
    }
}

fn public(ca: &UserCa, logins: &Logins) -> Result<PublicKey, StateFault> {
    Ok(match ca {
        UserCa::Given(key) => key.public().clone(),
        UserCa::InState => {
            let key = State::open(&logins.state_dir)?.user_ca(&mut SystemEntropy::default())?;
            key.public().clone()
        }
    })
}

/// A file for `/etc/ssh/sshd_config.d`, which any sshd from 8.5 on accepts.
fn drop_in(
    ca: &PublicKey,
    principals: Principals,
    id: Option<&str>,
    of: Of,
    arguments: &CaShow,
) -> String {
    let mut text = String::new();
    let mut put = |line: std::fmt::Arguments<'_>| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{line}");
    };
    let name = id.unwrap_or("ID");
    put(format_args!(
        "# Keyway: save as /etc/ssh/sshd_config.d/10-keyway.conf in the VM, then: sshd -t && systemctl reload ssh"
    ));
    put(format_args!(""));
    put(format_args!(
        "# Logins that carry a certificate of this CA are let in. Make the file first:"
    ));
    put(format_args!("#   echo '{} keyway user CA' > /etc/ssh/keyway_user_ca.pub", ca.to_line()));
    put(format_args!("TrustedUserCAKeys /etc/ssh/keyway_user_ca.pub"));
    put(format_args!(""));
    match principals {
        Principals::Vm => {
            put(format_args!(
                "# ... but only those minted for this VM, one principal. Make the file first{}:",
                if id.is_some() { "" } else { ", with this VM's id for ID (keyway vm show)" }
            ));
            put(format_args!("#   echo 'vm:{name}' > /etc/ssh/keyway_principals"));
            put(format_args!(
                "# It lets into every account that Keyway asks for. For some accounts only, write"
            ));
            put(format_args!(
                "# /etc/ssh/keyway_principals/%u below and make one such file for each account."
            ));
            put(format_args!("AuthorizedPrincipalsFile /etc/ssh/keyway_principals"));
        }
        Principals::Login => {
            put(format_args!(
                "# principals = \"login\": a certificate is good for the account it names in any VM that trusts"
            ));
            put(format_args!("# this CA. AuthorizedPrincipalsFile must stay unset."));
        }
    }
    put(format_args!(""));
    text + &sources(of, arguments)
}

/// What sshd has to know of the addresses that all users come from.
fn sources(of: Of, arguments: &CaShow) -> String {
    let (dials, placeholder) = match of {
        Of::FrontDoor => ("edge", "EDGE_ADDRESS"),
        Of::Agent => ("agent", "AGENT_ADDRESS"),
    };
    let CaShow { edge, sshd_version, .. } = arguments;
    let mut text = String::new();
    let mut put = |line: std::fmt::Arguments<'_>| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{line}");
    };
    put(format_args!(
        "# All users come from the {dials}'s addresses: sshd must not take them for one busy stranger."
    ));
    put(format_args!("MaxStartups {MAX_STARTUPS}"));
    put(format_args!("PerSourceMaxStartups none"));
    let exempt = if edge.is_empty() { placeholder.to_owned() } else { edge.join(",") };
    let missing = if edge.is_empty() {
        format!(", with the {dials}'s addresses for {placeholder}")
    } else {
        String::new()
    };
    match sshd_version {
        Some(version) if *version < PENALTIES_FROM => {
            put(format_args!(
                "# (OpenSSH before 9.8 knows no PerSourcePenalties, so nothing is to be exempted.)"
            ));
        }
        Some(_) if !edge.is_empty() => put(format_args!("PerSourcePenaltyExemptList {exempt}")),
        Some(_) => {
            put(format_args!("# REQUIRED: uncomment{missing} (or give --edge):"));
            put(format_args!("# PerSourcePenaltyExemptList {exempt}"));
        }
        None => {
            put(format_args!(
                "# REQUIRED from OpenSSH 9.8 on, unknown before: uncomment{missing} (or give --sshd-version):"
            ));
            put(format_args!("# PerSourcePenaltyExemptList {exempt}"));
        }
    }
    text
}
