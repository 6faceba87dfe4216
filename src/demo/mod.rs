//! `keyway demo`: the whole product on one machine, with nothing to set up and nothing left behind.
//!
//! A front door on loopback addresses, two users, VMs that run real commands, an agent beside one
//! of them. It shows that one address leads each user elsewhere, and runs until it is interrupted;
//! or checks itself and says whether everything went right. Needs no other program and no root.
//! Keys are thrown away at the end, and nothing outside this machine can reach any of it.
//!
//! In reading order: `stage` (who and what), `door` (the edge), `agent`, `running` (all), `vm` and
//! `process` (the built-in VMs), `screen`, `check`.

#![expect(
    clippy::disallowed_methods,
    reason = "a program of its own, whose servers are threads and whose waits are measured by the clock"
)]

mod agent;
mod agent_identity;
mod check;
mod client;
mod directory;
mod door;
mod link;
mod process;
mod running;
mod screen;
mod sshd;
mod stage;
mod terminal;
mod vm;

use std::io::{self, IsTerminal};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::running::Demo;
use self::stage::Kind;
use crate::serve::Failure;

/// What the demonstration is asked to do.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// Run the printed lines and report, instead of waiting.
    pub check: bool,
    /// Use the installed sshd for the VMs instead of the built-in server.
    pub sshd: bool,
    /// Port to listen at; one that is free if `None`.
    pub port: Option<u16>,
    /// Write the front door's log to stderr.
    pub verbose: bool,
}

/// Runs the demonstration to its end: it was interrupted, or every check went right.
///
/// # Errors
/// Something did not start, or a check went wrong.
pub fn run(options: Options) -> Result<(), Failure> {
    if options.verbose {
        // A log that stands already is as good.
        let _stands = tracing_subscriber::fmt()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .try_init();
    }
    // From here on an interrupt ends what there is and removes the directory.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let kind = if options.sshd { Kind::Sshd } else { Kind::BuiltIn };
    let demo = Demo::start(kind, options.port)?;
    let out = &mut io::stdout();
    let done = if options.check {
        check::run(&demo, out, &mut || signals.pending().next().is_some())
    } else {
        screen::show(&demo, out).map_err(Failure::from).map(|()| {
            let _which = signals.forever().next();
        })
    };
    demo.end();
    done
}

#[cfg(test)]
mod tests {
    use super::check;
    use super::running::Demo;
    use super::stage::Kind;

    /// Starts a whole front door and logs in many times: the product's own end-to-end test.
    #[test]
    fn the_demonstration_checks_itself_and_leaves_nothing_behind() {
        let demo = Demo::start(Kind::BuiltIn, None).unwrap();
        let directory = demo.stage.directory().path().to_owned();
        let mut out = Vec::new();
        let checked = check::run(&demo, &mut out, &mut || false);
        let told = String::from_utf8(out).unwrap();
        assert!(directory.exists());
        demo.end();
        assert!(checked.is_ok(), "{checked:?}\n{told}");
        assert!(told.contains("alice at 127.0.77.1 reaches blue"), "{told}");
        assert!(!directory.exists());
    }

    #[test]
    fn an_interrupted_check_is_a_failure() {
        let demo = Demo::start(Kind::BuiltIn, None).unwrap();
        let mut out = Vec::new();
        assert!(check::run(&demo, &mut out, &mut || true).is_err());
        demo.end();
    }
}
