//! Why a VM was not reached: the end, and what is known beside it for its user and its operator.

use std::io;

use nix::errno::Errno;

use super::login_leg::Broken;
use crate::ended::{Cause, Detail, Ended, Side, Stage};
use crate::ssh::fault::Fault;
use crate::ssh::transport::Transport;

/// An attempt that ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Failed {
    pub(super) ended: Ended,
    pub(super) detail: Option<Detail>,
}

impl From<Ended> for Failed {
    fn from(ended: Ended) -> Self {
        Self { ended, detail: None }
    }
}

impl Failed {
    pub(super) const fn new(ended: Ended, detail: Detail) -> Self {
        Self { ended, detail: Some(detail) }
    }

    /// The VM's leg broke in `stage`.
    pub(super) fn broke(broken: &Broken, stage: Stage, transport: &Transport) -> Self {
        let (mut ended, detail) = (broken.ended(Side::Vm, stage), broken.detail(transport));
        // sshd says in a line of text, in place of its version, that it is busy or
        // punishes our address.
        let hung_up = matches!(broken, Broken::Closed | Broken::Socket(_));
        if hung_up && matches!(detail, Some(Detail::Said(_))) {
            ended.cause = Cause::TurnedAway;
        }
        Self { ended, detail }
    }

    /// The VM could not be connected to.
    pub(super) fn dialling(error: &io::Error) -> Self {
        let code = error.raw_os_error().map(Errno::from_raw);
        let scarce = matches!(
            code,
            Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::EADDRNOTAVAIL)
        );
        let ended = if scarce {
            Ended::edge(Stage::Dial, Cause::Resources)
        } else if error.kind() == io::ErrorKind::ConnectionRefused {
            Ended::vm(Stage::Dial, Cause::DialRefused)
        } else {
            Ended::vm(Stage::Dial, Cause::DialFailed)
        };
        Self::new(ended, Detail::found(error))
    }

    /// The VM took the login as far as it goes and asks for one of `methods` beside it.
    pub(super) fn second_factor(methods: &str) -> Self {
        let ended = Ended::vm(Stage::VmLogin, Cause::SecondFactor);
        Self::new(ended, Detail::found(format_args!("it asks for {methods} too")))
    }

    /// The VM refused the login; `methods` are those that it takes, `presented` what we came with.
    pub(super) fn login_refused(methods: &str, presented: &str) -> Self {
        let ended = Ended::vm(Stage::VmLogin, Cause::LoginRefused);
        let takes_keys = methods.split(',').any(|method| method == "publickey");
        let detail = if takes_keys {
            // Its server tells nobody but its own log why.
            Detail::noted(format_args!("it takes {methods}, and not {presented}"))
        } else if methods.is_empty() {
            Detail::found("it offers no way to log in")
        } else {
            Detail::found(format_args!("it takes no keys for this login, only {methods}"))
        };
        Self::new(ended, detail)
    }

    /// Whether the same login would be refused again.
    pub(super) const fn is_refusal(&self) -> bool {
        matches!(self.ended.cause, Cause::LoginRefused | Cause::SecondFactor)
    }
}

/// A fault of our own on the VM's leg.
pub(super) fn of_login(fault: Fault) -> Failed {
    let ended = Ended::vm(Stage::VmLogin, Cause::from(&fault));
    Failed::new(ended, Detail::found(fault))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(failed: &Failed) -> (Cause, &str) {
        (failed.ended.cause, failed.detail.as_ref().map_or("", Detail::as_str))
    }

    #[test]
    fn what_the_system_says_about_a_dial_is_kept() {
        for (errno, cause, text) in [
            (Errno::ECONNREFUSED, Cause::DialRefused, "Connection refused (os error 111)"),
            (Errno::EHOSTUNREACH, Cause::DialFailed, "No route to host (os error 113)"),
            (Errno::EMFILE, Cause::Resources, "Too many open files (os error 24)"),
        ] {
            let failed = Failed::dialling(&io::Error::from(errno));
            assert_eq!(shown(&failed), (cause, text));
        }
    }

    #[test]
    fn a_refusal_says_what_the_vm_asks_for_and_what_it_was_shown_to_operators_only() {
        let factor = Failed::second_factor("keyboard-interactive");
        assert_eq!(shown(&factor), (Cause::SecondFactor, "it asks for keyboard-interactive too"));
        let password = Failed::login_refused("password", "vm:blue");
        assert_eq!(
            shown(&password),
            (Cause::LoginRefused, "it takes no keys for this login, only password")
        );
        assert!(matches!(password.detail, Some(Detail::Found(_))));
        let unknown = Failed::login_refused("publickey,password", "a certificate for vm:blue");
        assert!(matches!(unknown.detail, Some(Detail::Noted(_))), "{unknown:?}");
        assert!(factor.is_refusal() && password.is_refusal());
    }
}
