//! `keyway demo`: the whole product on one machine, with nothing to set up and nothing left behind.
//!
//! A front door on loopback addresses, two users, VMs that run real commands. It shows that one
//! address leads each user elsewhere, and runs until it is interrupted; or checks itself and says
//! whether everything went right. Needs no other program and no root. Keys are thrown away at the
//! end, and nothing outside this machine can reach any of it.
//!
//! In reading order: `stage` (who and what), `door` (the edge), `vm` and `process` (the
//! built-in VMs), `check`.

#![expect(
    clippy::disallowed_methods,
    reason = "a program of its own, whose servers are threads and whose waits are measured by the clock"
)]

mod check;
mod client;
mod directory;
mod door;
mod link;
mod process;
mod screen;
mod sshd;
mod stage;
mod terminal;
mod vm;

use std::io::{self, IsTerminal, Write};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::directory::Directory;
use self::door::FrontDoor;
use self::stage::{Kind, Stage};
use crate::serve::Failure;
use crate::ssh::entropy::SystemEntropy;
use crate::state::State;

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
    let demo = Demo::start(options)?;
    let out = &mut io::stdout();
    let done = if options.check {
        demo.check(out, &mut || signals.pending().next().is_some())
    } else {
        screen::show(&demo, out).map_err(Failure::from).map(|()| {
            let _which = signals.forever().next();
        })
    };
    demo.end();
    done
}

/// A running demonstration.
struct Demo {
    door: FrontDoor,
    stage: Stage,
}

impl Demo {
    fn start(options: Options) -> Result<Self, Failure> {
        let mut entropy = SystemEntropy::default();
        let directory = Directory::new(&mut entropy)?;
        let remembered = State::open(&directory.path().join("state"))?;
        let host_key = remembered.host_key(&mut entropy)?;
        let user_ca = remembered.user_ca(&mut entropy)?;
        let kind = if options.sshd { Kind::Sshd } else { Kind::BuiltIn };
        let stage = Stage::set(directory, user_ca.public(), kind, &mut entropy)?;
        let loaded = door::configured(stage.directory(), &stage.fleet()?, options.port)?;
        let door = door::front_door(loaded, host_key.public().clone(), &remembered)?;
        let known_hosts = screen::known_hosts(&door);
        stage.directory().file(screen::KNOWN_HOSTS, &known_hosts)?;
        Ok(Self { door, stage })
    }

    fn check(
        &self,
        out: &mut dyn Write,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<(), Failure> {
        let tally = check::run(self, out, interrupted)?;
        match tally.wrong {
            0 => Ok(()),
            wrong => Err(format!("{wrong} of {} checks went wrong", tally.right + wrong).into()),
        }
    }

    /// Users first, then the VMs, then the directory.
    fn end(self) {
        let Self { door, stage } = self;
        door.close();
        drop(stage);
    }
}

#[cfg(test)]
mod tests {
    use super::{Demo, Options};

    /// Starts a whole front door and logs in many times: the product's own end-to-end test.
    #[test]
    fn the_demonstration_checks_itself_and_leaves_nothing_behind() {
        let demo = Demo::start(Options::default()).unwrap();
        let directory = demo.stage.directory().path().to_owned();
        let mut out = Vec::new();
        let checked = demo.check(&mut out, &mut || false);
        let told = String::from_utf8(out).unwrap();
        assert!(directory.exists());
        demo.end();
        assert!(checked.is_ok(), "{checked:?}\n{told}");
        assert!(told.contains("alice at 127.0.77.1 reaches blue"), "{told}");
        assert!(!directory.exists());
    }

    #[test]
    fn an_interrupted_check_is_a_failure() {
        let demo = Demo::start(Options::default()).unwrap();
        let mut out = Vec::new();
        assert!(demo.check(&mut out, &mut || true).is_err());
        demo.end();
    }
}
