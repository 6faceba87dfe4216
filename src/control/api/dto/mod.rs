//! WHAT GOES OVER THE WIRE: bodies of requests and what answers show, a file a noun.
//!
//! A request of the wrong shape is refused before a handler sees it; names and values are judged by
//! the registry, in its own words. What is shown is made from the registry's model, or handed over
//! by the data plane.

mod access;
mod address;
mod audit;
mod edge;
mod explanation;
mod host_key;
mod link;
mod node;
mod pattern;
mod process;
mod session;
mod staged;
mod team;
mod token;
mod user;
mod vm;

pub(super) use self::access::NewAccess;
pub use self::address::Address;
pub(super) use self::address::{AddressPatch, IpPatch, NewAddress};
pub use self::audit::{Actor, Audit};
pub use self::edge::Edge;
pub(super) use self::edge::NewEdge;
pub(super) use self::explanation::Explain;
pub use self::explanation::{Decision, Explanation, Step};
pub use self::host_key::{Ca, HostKey, Pinned, VmHostKey};
pub use self::link::Link;
pub use self::node::{Carried, Node, NodeTest};
pub(super) use self::node::{NewJoinToken, NewNode, NewTest, NodePatch, Retest};
pub(super) use self::pattern::{NAME, PRINCIPAL};
pub(super) use self::process::{Backup, Reload};
pub use self::session::{Session, SessionState};
pub use self::staged::Staged;
pub(super) use self::team::NewTeam;
pub use self::team::{Member, Team};
pub(super) use self::token::NewToken;
pub use self::token::Token;
pub use self::user::{Key, User};
pub(super) use self::user::{NewKey, NewUser};
pub(super) use self::vm::{NewVm, Renumber, To, Transfer, VmPatch};
pub use self::vm::{OldAddress, Share, Vm};
