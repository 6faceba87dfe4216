//! How long things may take, and how often they happen.

use std::time::Duration;

/// Deadlines and intervals of one node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// For resolving the name and for each address of it.
    pub connect: Duration,
    /// For version lines and key exchange, without the time of a [`Question`](super::Question).
    pub exchange: Duration,
    /// For whoever is asked about a new host key: below sshd's own LoginGraceTime of 120 s.
    pub question: Duration,
    /// For the login.
    pub login: Duration,
    /// For opening a channel.
    pub channel: Duration,
    /// For the probe to answer.
    pub probe: Duration,
    /// After so long a silence the node is asked for a sign of life; after three times as long
    /// the connection has ended.
    pub keepalive: Duration,
    /// Time between two looks at a node's health.
    pub health: Duration,
    /// For one look.
    pub check: Duration,
    /// Shortest wait before the next try to connect.
    pub back_off_min: Duration,
    /// Longest one.
    pub back_off_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            exchange: Duration::from_secs(15),
            question: Duration::from_secs(110),
            login: Duration::from_secs(15),
            channel: Duration::from_secs(10),
            probe: Duration::from_secs(10),
            keepalive: Duration::from_secs(10),
            health: Duration::from_secs(30),
            check: Duration::from_secs(5),
            back_off_min: Duration::from_secs(1),
            back_off_max: Duration::from_secs(20),
        }
    }
}
