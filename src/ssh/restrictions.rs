//! What keys and certificates take away from a session, and what they are worth by themselves.

use super::publickey::{Proof, Touch};

/// What a key or certificate takes away from its session. Carried into the
/// certificate of the VM leg.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "eight independent permissions of sshd(8), none a state"
)]
pub struct Restrictions {
    /// Runs instead of whatever the client asks for.
    pub force_command: Option<String>,
    /// No terminal.
    pub no_pty: bool,
    /// No TCP or socket forwarding, in either direction.
    pub no_port_forwarding: bool,
    /// No agent forwarding.
    pub no_agent_forwarding: bool,
    /// No X11 forwarding.
    pub no_x11_forwarding: bool,
    /// `~/.ssh/rc` is not run.
    pub no_user_rc: bool,
    /// Every signature must show that the security key checked its user.
    pub verify_required: bool,
    /// Signatures of an untouched security key are good enough.
    pub no_touch_required: bool,
}

impl Restrictions {
    /// Whether it takes anything away that the VM would have to take away too.
    pub const fn is_restricted(&self) -> bool {
        self.force_command.is_some()
            || self.no_pty
            || self.no_port_forwarding
            || self.no_agent_forwarding
            || self.no_x11_forwarding
            || self.no_user_rc
    }

    /// What to demand of the signature, for
    /// [`PublicKey::verify_with`](super::publickey::PublicKey::verify_with).
    pub const fn touch(&self) -> Touch {
        if self.no_touch_required { Touch::NotRequired } else { Touch::Required }
    }

    /// Whether it forbids or demands something that `before` does not: a session that began under
    /// `before` would have more than it may. What takes less away is no reason to end anything.
    pub fn is_narrower_than(&self, before: &Self) -> bool {
        let forbids = |now: bool, then: bool| now && !then;
        let forced = self.force_command.is_some() && self.force_command != before.force_command;
        forced
            || forbids(self.no_pty, before.no_pty)
            || forbids(self.no_port_forwarding, before.no_port_forwarding)
            || forbids(self.no_agent_forwarding, before.no_agent_forwarding)
            || forbids(self.no_x11_forwarding, before.no_x11_forwarding)
            || forbids(self.no_user_rc, before.no_user_rc)
            || forbids(before.no_touch_required, self.no_touch_required)
    }

    /// Whether a verified signature proved enough. A key that is no security key cannot show a
    /// verified user, so `verify-required` refuses it (sshd lets it pass).
    pub const fn is_satisfied_by(&self, proof: Proof) -> bool {
        proof.user_verified || !self.verify_required
    }
}

/// What a key or certificate is worth by itself, before anybody asks where it leads.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Standing<'a> {
    /// The names a certificate gives its holder, none of them empty. A plain key has none: it
    /// stands for itself.
    pub principals: &'a [String],
    /// What it takes away.
    pub restrictions: Restrictions,
    /// Whether it is good from some addresses only.
    pub source_bound: bool,
    /// The first second in which it is good no more, Unix time.
    pub until_s: Option<u64>,
}
