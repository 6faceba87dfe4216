//! What the demonstration shows: who reaches what, and lines to paste.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;

use super::directory::quoted;
use super::door::{FILES, KNOWN_HOSTS};
use super::process::sftp_server;
use super::running::Demo;
use super::stage::{
    Address, Carrier, Kind, LOBBY, PLACED_VMS, POOL, PlacedVm, S001, S002, S003, State, Who,
    own_name,
};

/// One way in that is shown, and checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) who: Who,
    /// The user name of the line.
    pub(super) login: &'static str,
    pub(super) address: Address,
    pub(super) leads: Leads,
    /// What is worth seeing here.
    pub(super) says: &'static str,
}

/// Where a way in leads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Leads {
    To(&'static str),
    /// To a VM that does not answer.
    Down(&'static str),
    Lobby,
    Nowhere,
}

pub(super) const ENTRIES: [Entry; 7] = [
    Entry {
        who: Who::Alice,
        login: "alice",
        address: S001,
        leads: Leads::To("blue"),
        says: "alice at 127.0.77.1 reaches blue",
    },
    Entry {
        who: Who::Bob,
        login: "bob",
        address: S001,
        leads: Leads::To("green"),
        says: "bob at the same address reaches green",
    },
    Entry {
        who: Who::Alice,
        login: "alice",
        address: S002,
        leads: Leads::To("red"),
        says: "alice at 127.0.77.2 reaches red, by its agent",
    },
    Entry {
        who: Who::Alice,
        login: "alice+red",
        address: S001,
        leads: Leads::To("red"),
        says: "alice names red, at any address",
    },
    Entry {
        who: Who::Alice,
        login: "alice",
        address: LOBBY,
        leads: Leads::Lobby,
        says: "the lobby lists alice's VMs",
    },
    Entry {
        who: Who::Alice,
        login: "alice",
        address: S003,
        leads: Leads::Down("grey"),
        says: "grey is down, and alice is told so",
    },
    Entry {
        who: Who::Bob,
        login: "bob",
        address: S002,
        leads: Leads::Nowhere,
        says: "bob has no VM at 127.0.77.2: his key is no key there",
    },
];

/// The arguments of the `ssh` line of `entry`.
pub(super) fn arguments(demo: &Demo, entry: &Entry) -> Vec<OsString> {
    let directory = demo.stage.directory().path();
    let identity = demo.stage.identity(entry.who).cloned().unwrap_or_else(PathBuf::new);
    let known_hosts = directory.join(KNOWN_HOSTS);
    // ssh itself takes the value apart at blanks, after the shell did.
    let quote = if quoted(&known_hosts).starts_with('\'') { "\"" } else { "" };
    let mut option = OsString::from("UserKnownHostsFile=");
    option.push(quote);
    option.push(known_hosts);
    option.push(quote);
    let Entry { login, address, .. } = entry;
    vec![
        "-p".into(),
        demo.door.port.to_string().into(),
        "-i".into(),
        identity.into(),
        "-o".into(),
        option,
        format!("{login}@{}", address.ip).into(),
    ]
}

/// The line to paste.
fn line(demo: &Demo, entry: &Entry) -> String {
    let mut line = String::from("ssh");
    for argument in arguments(demo, entry) {
        let _infallible = write!(line, " {}", quoted(argument.as_ref()));
    }
    line
}

/// Shows everything.
pub(super) fn show(demo: &Demo, out: &mut dyn Write) -> io::Result<()> {
    let directory = quoted(demo.stage.directory().path());
    let port = demo.door.port;
    writeln!(out, "Keyway's front door is open at port {port} of four loopback addresses.")?;
    writeln!(out, "Nothing outside this machine can reach it.\n")?;
    table(out)?;
    writeln!(out)?;
    match demo.stage.kind {
        Kind::BuiltIn => writeln!(
            out,
            "A VM here is a small SSH server of our own: it runs real commands on this machine, as you,\n\
             each VM in a home directory of its own."
        )?,
        Kind::Sshd => {
            let own = own_name().unwrap_or_default();
            writeln!(out, "A VM here is the installed sshd, which lets every login in as {own}.")?;
        }
    }
    for place in PLACED_VMS.iter().filter(|place| place.carrier == Carrier::Agent) {
        writeln!(
            out,
            "Sessions with {} are handed over to an agent beside it (agent.toml): the front door only\n\
             splices them, and has no key of theirs. The others it opens and seals again.",
            place.vm
        )?;
    }
    writeln!(out, "Paste any of these lines into another terminal; add a command to run it.\n")?;
    for entry in &ENTRIES {
        writeln!(out, "# {}", entry.says)?;
        writeln!(out, "{}\n", line(demo, entry))?;
    }
    if demo.stage.kind == Kind::Sshd || sftp_server().is_some() {
        writeln!(
            out,
            "scp, sftp and rsync take the same options (scp and sftp say -P for the port)."
        )?;
    }
    let [config, fleet] = FILES;
    writeln!(
        out,
        "Its configuration, as for `keyway serve`, is {config} and {fleet} in {directory}."
    )?;
    writeln!(out, "Ctrl-C ends the demonstration and removes {directory}.")?;
    out.flush()
}

/// Who reaches what, address by address.
fn table(out: &mut dyn Write) -> io::Result<()> {
    let reached = |who: Who, address: Address| {
        let place = PLACED_VMS.iter().find(|place| place.owner == who && place.address == address);
        match place {
            _ if address == LOBBY => "a list of VMs".to_owned(),
            Some(PlacedVm { vm, state: State::Down, .. }) => format!("{vm} (down)"),
            Some(PlacedVm { vm, state: State::Up, .. }) => (*vm).to_owned(),
            None => "-".to_owned(),
        }
    };
    writeln!(out, "  ADDRESS              ALICE REACHES    BOB REACHES")?;
    for address in POOL {
        let [alice, bob] = Who::ALL.map(|who| reached(who, address));
        let ip = address.ip.to_string();
        writeln!(out, "  {:6} {ip:13} {alice:16} {bob}", address.name)?;
    }
    Ok(())
}
