//! Host keys that VMs show at their first use go into the registry, and from there into the routing map.

use std::sync::{Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::edge::shared::{FirstUse, Shown};
use crate::registry::command::Dialled;
use crate::registry::refusal::Refusal;
use crate::registry::service::{Actor, Failed, Mode, Order};
use crate::registry::{Command, Options, Service};
use crate::route::Vm;
use crate::ssh::publickey::PublicKey;

/// How long a store that failed is not asked again: each try makes it read everything anew, for seconds at a million VMs,
/// and every change waits for that.
const STORE_REST: Duration = Duration::from_secs(5);

/// The registry, once it is open, and for as long as this process has it.
#[derive(Default)]
pub(super) struct InRegistry {
    pub(super) service: OnceLock<Weak<Service>>,
    store: Mutex<Health>,
}

/// What is known of the store.
#[derive(Debug, Default)]
enum Health {
    /// It did not fail, or that is over.
    #[default]
    Well,
    /// It failed.
    Failed { at: Instant, why: String },
}

impl Health {
    /// Why it is not worth asking, if it is not.
    fn ill(&mut self, now: Instant) -> Option<String> {
        match self {
            Self::Failed { at, why } if now.saturating_duration_since(*at) < STORE_REST => {
                Some(why.clone())
            }
            Self::Failed { .. } | Self::Well => {
                *self = Self::Well;
                None
            }
        }
    }
}

impl FirstUse for InRegistry {
    fn shown(&self, vm: &Vm, key: &PublicKey) -> Shown {
        self.shown_at(vm, key, Instant::now)
    }
}

impl InRegistry {
    fn shown_at(&self, vm: &Vm, key: &PublicKey, now: impl Fn() -> Instant) -> Shown {
        let health = || self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(service) = self.service.get().and_then(Weak::upgrade) else {
            return Shown::Failed { why: "the registry is not open".to_owned() };
        };
        if let Some(why) = health().ill(now()) {
            return Shown::Failed { why };
        }
        let dialled = Dialled { owner: vm.owner.clone(), endpoint: vm.endpoint.clone() };
        let order = Order {
            command: Command::VmPin { id: vm.id.clone(), key: key.to_line(), dialled },
            options: Options::default(),
            expected: None,
            actor: Actor { name: "keyway".to_owned(), from: "first use".to_owned() },
        };
        match service.carry_out(order, Mode::Real) {
            Ok(_) => Shown::Pinned,
            Err(Failed::Refused(Refusal::HostKeyTaken { of, .. })) => {
                Shown::OfOtherOwner { vm: of.to_string() }
            }
            Err(Failed::Refused(Refusal::HostKeyOther { .. })) => Shown::Other,
            Err(failed) => {
                let why = failed.to_string();
                if let Failed::Store(_) = failed {
                    *health() = Health::Failed { at: now(), why: why.clone() };
                }
                Shown::Failed { why }
            }
        }
    }
}

#[cfg(test)]
#[path = "first_use_tests.rs"]
mod tests;
