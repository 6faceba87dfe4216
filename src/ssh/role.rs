//! Which end of a connection somebody is.

/// Which end of the transport we are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// We connected.
    Client,
    /// We accepted.
    Server,
}
