//! `keyway ca show`: what the VMs need to trust this front door.

use std::{
    fmt::Write as _,
    io::{self, Write},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{CaShow, DONE, FAULTS, check};
use crate::{
    config::{self, Config, Loaded, Principals, UserCa, VmCredential},
    route::is_label,
    ssh::{entropy::SystemEntropy, publickey::PublicKey},
    state::{State, StateFault},
};

/// The first sshd that punishes source addresses by itself, and that knows how to exempt some.
const PENALTIES_FROM: Version = Version { major: 9, minor: 8 };
/// The first sshd with `PerSourceMaxStartups`.
const OLDEST: Version = Version { major: 8, minor: 5 };
/// Logins that may be under way in one VM at a time. All users come from the edge's few addresses, and sshd's own
/// default of 10 would refuse them at random as soon as a few log in together.
const MAX_STARTUPS: &str = "100:30:300";

/// An OpenSSH version.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Version {
    major: u16,
    minor: u16,
}

/// `9.2`, `9.2p1` or `OpenSSH_9.2p1`.
pub(super) fn parse_version(text: &str) -> Result<Version, String> {
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

pub(super) fn parse_vm(text: &str) -> Result<String, String> {
    if is_label(text) {
        Ok(text.to_owned())
    } else {
        Err("names of VMs are 1 to 63 of a-z, 0-9 and -".to_owned())
    }
}

pub(super) fn parse_edge(text: &str) -> Result<String, String> {
    let known = text.parse::<IpAddr>().is_ok()
        || text.parse::<IpNet>().is_ok_and(|network| network.trunc() == network);
    if known { Ok(text.to_owned()) } else { Err("write an IP address or a network".to_owned()) }
}

pub(super) fn show(
    arguments: &CaShow,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> io::Result<u8> {
    let config = match config::load(arguments.config.as_deref(), None) {
        Ok(Loaded { config, warnings, .. }) => {
            check::tell("warning", &warnings, stderr)?;
            config
        }
        Err(report) => {
            check::tell_faults(&report, stderr)?;
            return Ok(FAULTS);
        }
    };
    let (ca, principals) = match &config.vm_leg.credential {
        VmCredential::Key(key) => {
            writeln!(
                stderr,
                "keyway: there is no CA: vm_leg.identity logs in with one plain key; \
                 fix: remove identity, or put this line into ~/.ssh/authorized_keys of the VMs:\n{}",
                key.public().to_line()
            )?;
            return Ok(FAULTS);
        }
        VmCredential::Certificates { ca, principals } => (public(ca, &config), *principals),
    };
    match ca {
        Ok(ca) if arguments.drop_in => write!(stdout, "{}", drop_in(&ca, principals, arguments))?,
        Ok(ca) => writeln!(stdout, "{} keyway user CA", ca.to_line())?,
        Err(fault) => {
            writeln!(stderr, "keyway: {fault}")?;
            return Ok(FAULTS);
        }
    }
    Ok(DONE)
}

fn public(ca: &UserCa, config: &Config) -> Result<PublicKey, StateFault> {
    Ok(match ca {
        UserCa::Given(key) => key.public().clone(),
        UserCa::InState => {
            let key = State::open(&config.state_dir)?.user_ca(&mut SystemEntropy::default())?;
            key.public().clone()
        }
    })
}

/// A file for `/etc/ssh/sshd_config.d`, which any sshd from 8.5 on accepts.
fn drop_in(ca: &PublicKey, principals: Principals, arguments: &CaShow) -> String {
    let CaShow { vm, edge, sshd_version, .. } = arguments;
    let mut text = String::new();
    let mut put = |line: std::fmt::Arguments<'_>| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{line}");
    };
    let name = vm.as_deref().unwrap_or("NAME");
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
                if vm.is_some() { "" } else { ", with this VM's name in fleet.toml for NAME" }
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
    put(format_args!(
        "# All users come from the edge's addresses: sshd must not take them for one busy stranger."
    ));
    put(format_args!("MaxStartups {MAX_STARTUPS}"));
    put(format_args!("PerSourceMaxStartups none"));
    let exempt = if edge.is_empty() { "EDGE_ADDRESS".to_owned() } else { edge.join(",") };
    let missing = if edge.is_empty() { ", with the edge's addresses for EDGE_ADDRESS" } else { "" };
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
