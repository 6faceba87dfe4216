//! Keyway, an SSH front door for fleets of virtual machines: `ssh my-vm` reaches the right VM by
//! the key that was *proved* and the pool address that was dialled.
//!
//! Data flows one way: socket -> [`ssh`] -> [`route`] -> carry, and [`registry`] -> [`route`].
//!
//! The rooms, in reading order:
//! - [`ssh`]: the protocol, both roles, sans-IO. Bytes, time and randomness are arguments.
//! - [`route`]: who may go where. {key -> principals}, {principal, address -> VM}, lock-free.
//! - [`edge`]: the data plane. A shard per core: the door takes a connection from accept to an
//!   established session, the pump relays it; each is a thread with an epoll set of its own.
//! - [`registry`]: users, keys, teams, VMs, pool addresses; the allocator; the store of it all.
//! - [`control`]: the API, DNS, the metrics endpoint, and the feed that agents follow, on threads
//!   of their own.
//! - [`nodes`]: the hosts that VMs lie on, over SSH: tunnels, pins, health, their Docker.
//! - [`config`], [`state`]: files that cannot be wrong once read; keys made once.
//! - [`ended`], [`log`], [`metrics`]: why a connection ended, written and counted.
//!   `log_limiter`: how many lines somebody may cause. `plural`: numbers of things.
//!   `plain_text`: what of others may be shown again. [`unix_time`]: the time of day. `durable`:
//!   files that outlive a crash of the host.
//!   [`host`]: what a process may have there. `trust`: which servers are believed over TLS.
//! - [`serve`], [`cli`], [`demo`]: the commands, long-running roles first: a front door, an agent.
//!
//! Words that are used in one sense everywhere:
//! - *pool address*: an address that clients dial, shared by VMs of different users. *Slot*:
//!   {principal, pool address}, which leads to one VM at most; a *principal* is a user or a team.
//!   *Quarantine*: the time in which a slot that led to a VM leads to no other.
//! - *door*: a shard's way from an accepted connection to an established session, its *gate* the
//!   one judge of who may enter. *Lobby*: a pool address at which the door itself answers, with a
//!   list of the visitor's VMs.
//! - *leg*: one of a session's two SSH connections, client and VM. *Pump*: the thread that carries
//!   established sessions, each of them a *relay* from leg to leg.
//! - *handoff*: an established session goes from the edge to an *agent* beside its VM in the middle
//!   of a key exchange; from then on the edge splices it. *Node*: a host that VMs lie on.
//! - *feed*: the routes as they leave the process for whoever *follows*. *Audience*: what one of
//!   those has of the whole. *Canary*: the follower that has a large change before the others.
//! - *pin*: the host key that a VM has to show, recorded at its first use.
//!
//! What must always hold:
//! - The only identity is a [`ssh::userauth::ProvedKey`], which the signature check alone makes.
//!   Offering a key has no side effect: no dial, no counter that bans.
//! - A route is a function of the proved key and the pool address; of the user name
//!   only as `login+vm`.
//! - No principal sees two VMs at one pool address, and a slot leads to no other VM soon
//!   after its last use.
//! - Nothing falls back to another VM, key or trust decision. An address outside the
//!   pool is refused.
//! - Peer bytes never panic, never allocate by their own say-so, never reach a log or a label raw.
//! - One connection's panic ends one connection.

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests wait, start threads and are told by the environment"
    )
)]

pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
mod durable;
pub mod edge;
pub mod ended;
pub mod host;
pub mod log;
mod log_limiter;
pub mod metrics;
pub mod nodes;
mod plain_text;
mod plural;
pub mod registry;
pub mod route;
pub mod serve;
pub mod ssh;
pub mod state;
#[cfg(any(test, fuzzing))]
pub mod testing;
mod trust;
pub mod unix_time;
