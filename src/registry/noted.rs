//! What is done beside the registry, for the audit log.

use serde::{Deserialize, Serialize};

/// What is done beside the registry and belongs into the audit log.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Noted {
    /// A session was ended.
    SessionKill,
    /// A large commit goes to all agents before one is known to be well with it.
    NodeRelease,
    /// The store was copied.
    StoreBackup,
    /// A backup was put in the place of the store.
    StoreRestore,
    /// A store of another history was adopted.
    StoreAdopt,
    /// Clients see other host keys: the zone has others too, and so another serial.
    HostKeys,
    /// Old entries of the audit log were removed.
    AuditForget,
    /// The store failed, and takes changes again.
    StoreFault,
    /// A request of the API, as it was sent, where nothing is known that says more.
    Request,
}
