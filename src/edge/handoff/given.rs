//! What the door decides of a session once its key is proved.

use zeroize::Zeroizing;

use super::far_end::Peer;
use crate::ended::Ended;
use crate::ssh::handoff::Asked;

/// How a session with a VM goes on.
pub(in crate::edge) enum Next {
    /// It is relayed here.
    Relay,
    /// An agent is asked.
    Give(Box<Given>),
    /// An agent would have to carry it, and cannot be asked: nothing takes its place.
    Nobody(Ended),
}

/// A session that an agent is about to be asked to take: its KEXINIT is sealed.
pub(in crate::edge) struct Given {
    pub(in crate::edge) peer: Peer,
    pub(in crate::edge) asked: Asked,
    /// What the agent is to be told over the link before.
    pub(in crate::edge) claim: Zeroizing<Vec<u8>>,
    /// What the data connection begins with.
    pub(in crate::edge) opening: Vec<u8>,
}
