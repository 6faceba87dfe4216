//! SSH connections to nodes: trust, login, probe, and streams through them.
//!
//! A [`Tunnel`] is one connection: its address judged at each dial, its host key pinned before a
//! byte of a credential is sent, everything with a deadline. A [`Stream`] is one channel of it, to
//! the node's Docker socket or to an address there. A [`Keeper`] holds a node's standing
//! connection, asks for its health, and opens connections of their own for streams whose reader
//! may pause: the SSH library gives a channel its window back when bytes arrive, not when somebody
//! has read them, so one paused reader would stop all channels of a connection, or fill memory.
//!
//! Nothing here writes to a store or to the log. What a node says is bounded before it is kept,
//! made printable before it is shown, and decides nothing but the way to its own socket.

mod address;
mod credential;
mod dial;
mod endpoint;
mod fault;
mod guard;
mod kdf;
mod keeper;
mod link;
mod open;
mod pin;
mod probe;
mod said;
mod script;
mod settings;
mod stream;
mod unread;
mod wire;

#[cfg(test)]
mod testing;

pub use self::address::Unfit;
pub use self::credential::{Credential, CredentialFault};
pub use self::endpoint::{DockerSocket, Endpoint, EndpointFault};
pub use self::fault::{Stage, Unreached};
pub use self::keeper::{Check, Checking, Health, Keeper, Plan, Reason, State};
pub use self::open::{Tunnel, Way};
pub use self::pin::{Pin, PinFault, Question, Trust};
pub use self::probe::{Findings, NoProbe, Probe, SocketKind};
pub use self::settings::Settings;
pub use self::stream::Stream;
pub use self::unread::Company;
pub use self::wire::Lifeline;
