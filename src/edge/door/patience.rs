//! How long somebody may take who has not proved a key.

use std::time::Duration;

use crate::plural;

/// How long a client may take to sign once it was told that its key may enter: time to type a
/// passphrase, to find a security key and touch it. OpenSSH's `LoginGraceTime` for the whole login.
pub(super) const PROOF_WAIT: Duration = Duration::from_mins(2);

/// What a client that has not proved a key is given time for.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Patience {
    /// Machines talk to us: `login_grace_s`, from accept to the offer of a key that may enter.
    Grace,
    /// A person types a passphrase or a PIN: [`PROOF_WAIT`], once a connection.
    Proof,
}

impl Patience {
    /// What the client reads when the time is up.
    pub(super) fn over(self, grace: Duration) -> String {
        match self {
            Self::Grace => format!(
                "no key that may enter was offered within {} (login_grace_s)",
                plural::count(grace.as_secs(), "second")
            ),
            Self::Proof => format!(
                "the key was accepted, but its signature did not come within {}; connect again",
                plural::count(PROOF_WAIT.as_secs(), "second")
            ),
        }
    }
}
