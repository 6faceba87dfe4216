//! WHAT GOES OVER THE WIRE: bodies of requests and what answers show, a file a noun.
//!
//! A request of the wrong shape is refused before a handler sees it; names and values are judged by the registry, in
//! its own words. What is shown is made from the registry's model, or handed over by the data plane.

mod access;
mod address;
mod audit;
mod explanation;
mod host_key;
mod node;
mod pattern;
mod process;
mod session;
mod team;
mod token;
mod user;
mod vm;

pub use address::Address;
pub use audit::{Actor, Audit};
pub use explanation::{Decision, Explanation, Step};
pub use host_key::{Ca, HostKey, Pinned, VmHostKey};
pub use node::{Carried, Node};
pub use session::{Session, SessionState};
pub use team::{Member, Team};
pub use token::Token;
pub use user::{Key, User};
pub use vm::{OldAddress, Share, Vm};

pub(super) use access::NewAccess;
pub(super) use address::{AddressPatch, IpPatch, NewAddress};
pub(super) use explanation::Explain;
pub(super) use node::{NewNode, NodePatch};
pub(super) use pattern::{NAME, PRINCIPAL};
pub(super) use process::{Backup, Reload};
pub(super) use team::NewTeam;
pub(super) use token::NewToken;
pub(super) use user::{NewKey, NewUser};
pub(super) use vm::{NewVm, Renumber, To, Transfer, VmPatch};
