//! A whole set-up on loopback addresses: a stock sshd or the light one as the VM, and every front
//! door before it, so that all are measured in one run.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::programs::{
    self, Keyway, Started, haproxy, keyway_agent, keyway_serve, light, make_keys, splice, sshd,
    user_name,
};
use crate::scenario::Target;
use crate::{Result, delay, engine};

/// What can be measured. The chains are the way of a handed-over session's bytes with another front
/// door: that, then the second half of a relay, which is what an agent does, then the VM; only the
/// first of them counts.
pub(crate) const TARGETS: [&str; 7] =
    ["direct", "haproxy", "splice", "relay", "handoff", "haproxy-chain", "splice-chain"];

/// What stands behind the front doors.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Backend {
    /// A stock sshd.
    Sshd,
    /// A process of this program, see `vm`.
    Light,
}

/// Round trips of the ways of a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ways {
    /// Between the client and whatever it connects to.
    pub(crate) client: Duration,
    /// Between what it connects to and the agent, or the VM where there is no agent.
    pub(crate) far: Duration,
}

/// The whole set-up.
pub(crate) struct Lab {
    targets: Vec<Target>,
    /// The user's private key.
    pub(crate) key: PathBuf,
    /// In the order in which they end: fronts before what they lean on.
    _programs: Vec<Started>,
    _dir: Scratch,
}

/// A directory that goes with this value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("keyway-loadtest-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Lab {
    /// Starts everything. Without `ways` all is as near as loopback is.
    pub(crate) fn start(keyway: &Path, backend: Backend, ways: Option<Ways>) -> Result<Self> {
        let scratch = Scratch::new()?;
        let dir = scratch.0.clone();
        make_keys(&dir)?;
        let at = |host: u8| -> Result<SocketAddr> {
            Ok(format!("127.0.76.{host}:{}", programs::port()?).parse()?)
        };
        let [vm, agent, relay, handed] = [at(1)?, at(5)?, at(3)?, at(6)?];
        let far = |to: SocketAddr| ways.map_or(Ok(to), |ways| delay::start(to, ways.far));
        let vm_process = match backend {
            Backend::Sshd => sshd(&dir, vm)?,
            Backend::Light => light(&dir, vm)?,
        };
        let far_vm = far(vm)?;
        let relay = keyway_serve(
            &dir,
            keyway,
            Keyway { name: "relay", pool: relay, metrics: at(4)?, vm: far_vm, agent: None },
        )?;
        let seen_at = far(agent)?;
        let (agent, handed) = keyway_agent(
            &dir,
            keyway,
            agent,
            Keyway { name: "handed", pool: handed, metrics: at(7)?, vm, agent: Some(seen_at) },
        )?;
        let haproxy_chain = haproxy(&dir, at(8)?, relay.address)?;
        let splice_chain = splice(&dir, at(9)?, relay.address)?;
        let haproxy = haproxy(&dir, at(2)?, far_vm)?;
        let splice = splice(&dir, at(10)?, far_vm)?;
        let credential = Arc::new(engine::credential(&dir.join("user"))?);
        let login = user_name()?;
        let targets = [
            (vm, vm_process.id()),
            (haproxy.address, haproxy.started.id()),
            (splice.address, splice.started.id()),
            (relay.address, relay.started.id()),
            (handed.address, handed.started.id()),
            (haproxy_chain.address, haproxy_chain.started.id()),
            (splice_chain.address, splice_chain.started.id()),
        ];
        let near = |to: SocketAddr| ways.map_or(Ok(to), |ways| delay::start(to, ways.client));
        let targets = std::iter::zip(TARGETS, targets)
            .map(|(name, (address, pid))| {
                Ok(Target {
                    name: name.to_owned(),
                    address: near(address)?,
                    login: login.clone(),
                    credential: Arc::clone(&credential),
                    pids: vec![pid],
                })
            })
            .collect::<Result<_>>()?;
        let fronts = [haproxy_chain, splice_chain, haproxy, splice, handed];
        let mut programs: Vec<Started> = fronts.into_iter().map(|front| front.started).collect();
        programs.extend([agent, relay.started, vm_process]);
        Ok(Self { targets, key: dir.join("user"), _programs: programs, _dir: scratch })
    }

    /// All of [`TARGETS`], in that order.
    pub(crate) fn targets(&self) -> &[Target] {
        &self.targets
    }
}
