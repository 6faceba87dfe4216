//! What signs for agents: the host keys in use, and those that sessions began with.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::ssh::handoff;
use crate::ssh::publickey::PublicKey;
use crate::ssh::transport::ServerConfig;

#[derive(Default)]
pub(super) struct SigningKeys(Mutex<HostKeys>);

#[derive(Default)]
struct HostKeys {
    current: Option<Arc<ServerConfig>>,
    /// As long as a session lives that was shown them.
    earlier: Vec<Weak<ServerConfig>>,
}

impl SigningKeys {
    /// Signs with these from now on, and with earlier ones for the sessions that were shown those.
    pub(super) fn replace(&self, server: &Arc<ServerConfig>) {
        let mut host_keys = self.host_keys();
        if let Some(earlier) = host_keys.current.replace(Arc::clone(server)) {
            host_keys.earlier.retain(|earlier| earlier.strong_count() > 0);
            host_keys.earlier.push(Arc::downgrade(&earlier));
        }
    }

    /// The public keys of all that sign.
    pub(super) fn public(&self) -> Vec<PublicKey> {
        let mut keys: Vec<PublicKey> = Vec::new();
        for server in self.all() {
            for host_key in server.host_keys() {
                if !keys.contains(host_key.key.public()) {
                    keys.push(host_key.key.public().clone());
                }
            }
        }
        keys
    }

    /// The signature that an agent asks for; empty if none of our host keys is meant.
    pub(super) fn sign(&self, algorithm: &str, host_key: &[u8], hash: &[u8]) -> Vec<u8> {
        let sign =
            |server: &Arc<ServerConfig>| handoff::sign(server, (algorithm, host_key), hash).ok();
        self.all().iter().find_map(sign).unwrap_or_default()
    }

    fn all(&self) -> Vec<Arc<ServerConfig>> {
        let host_keys = self.host_keys();
        let earlier = host_keys.earlier.iter().filter_map(Weak::upgrade);
        host_keys.current.iter().cloned().chain(earlier).collect()
    }

    fn host_keys(&self) -> MutexGuard<'_, HostKeys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
