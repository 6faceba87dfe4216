//! Host keys that VMs show at their first use go into the registry, and from there into
//! the routing map.

#![expect(clippy::disallowed_methods, reason = "a store that failed is let rest for a time")]

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::edge::first_use::{FirstUse, Shown};
use crate::registry::command::Dialled;
use crate::registry::refusal::Refusal;
use crate::registry::writer::{Actor, CommandRequest, Mode, ServiceError};
use crate::registry::{Command, Options, Service};
use crate::route::Vm;
use crate::ssh::publickey::PublicKey;
use crate::state::{OldPins, StateFault};

/// How long a store that failed is not asked again: a try may wait for its lock for seconds, and
/// every change waits with it.
const STORE_REST: Duration = Duration::from_secs(5);

/// Old pins that are brought into the registry by one request: others' changes come in between.
const IMPORTED_AT_ONCE: usize = 64;

/// The registry, once it is open, and for as long as this process has it.
pub(super) struct InRegistry {
    pub(super) service: OnceLock<Weak<Service>>,
    store: Mutex<Health>,
    old: Mutex<Old>,
}

/// Pins of an earlier Keyway, which the registry has to have before a VM without a pin is one
/// that nobody was in.
#[derive(Debug)]
enum Old {
    /// It has them, or there are none.
    Settled,
    /// Not yet.
    Waiting(OldPins),
}

/// Why old pins are not in the registry.
#[derive(Debug, thiserror::Error)]
enum NotImported {
    #[error("the registry is not open")]
    NotOpen,
    #[error(transparent)]
    Failed(#[from] ServiceError),
    #[error(transparent)]
    State(#[from] StateFault),
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
    /// `old`: pins of an earlier Keyway. Until they are imported, nothing is pinned.
    pub(super) fn new(old: Option<OldPins>) -> Self {
        let old = Mutex::new(old.map_or(Old::Settled, Old::Waiting));
        Self { service: OnceLock::new(), store: Mutex::default(), old }
    }

    fn old(&self) -> MutexGuard<'_, Old> {
        self.old.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the pins of an earlier Keyway into the registry, if there are any. To be called once
    /// it is open and a fleet file is applied as a whole: what it does not have then is gone.
    pub(super) fn import(&self, applied: Applied) {
        let mut old = self.old();
        let Old::Waiting(pins) = &*old else { return };
        let done = match applied {
            Applied::Whole => self.try_import(pins).map_err(|fault| fault.to_string()),
            Applied::Partly => Err("the fleet file is not applied as a whole".to_owned()),
        };
        match done {
            Ok(()) => *old = Old::Settled,
            Err(why) => tracing::error!(
                "the pins of an earlier keyway are not imported, and VMs that are not pinned in the registry cannot be \
                 entered: {why}; mend it and restart keyway"
            ),
        }
    }

    fn try_import(&self, old: &OldPins) -> Result<(), NotImported> {
        let service = self.service.get().and_then(Weak::upgrade).ok_or(NotImported::NotOpen)?;
        let mut gone = 0;
        let mut orders = Vec::new();
        service.read(|model| {
            for (id, key) in old.iter() {
                let Some(stored) = model.vm(model.serial_of(id)) else {
                    gone += 1;
                    continue;
                };
                let vm = &stored.document;
                // Whoever had it at its first use, it is this VM that showed the key.
                let dialled = Dialled { owner: vm.owner.to_string(), endpoint: vm.ssh.clone() };
                orders.push((id, order(id, key, dialled, "pins")));
            }
        });
        let mut imported = 0;
        for some in orders.chunks(IMPORTED_AT_ONCE) {
            let together = some.iter().map(|(_, order)| order.clone()).collect();
            for ((id, _), answer) in some.iter().zip(service.carry_out_all(together, Mode::Real)) {
                match answer {
                    Ok(_) => imported += 1,
                    Err(ServiceError::Refused(refusal)) => {
                        tracing::warn!(vm = id, "an old pin is not imported: {refusal}");
                    }
                    Err(failed) => return Err(failed.into()),
                }
            }
        }
        old.settle()?;
        tracing::info!(imported, gone, "the pins of an earlier keyway are in the registry");
        Ok(())
    }

    fn shown_at(&self, vm: &Vm, key: &PublicKey, now: impl Fn() -> Instant) -> Shown {
        let health = || self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(service) = self.service.get().and_then(Weak::upgrade) else {
            return Shown::Failed { why: "the registry is not open".to_owned() };
        };
        if let Old::Waiting(_) = *self.old() {
            return Shown::Failed { why: "the old pins are not in the registry".to_owned() };
        }
        if let Some(why) = health().ill(now()) {
            return Shown::Failed { why };
        }
        let dialled = Dialled { owner: vm.owner.clone(), endpoint: vm.endpoint.clone() };
        match service.carry_out(order(&vm.id, key, dialled, "first use"), Mode::Real) {
            Ok(done) => {
                if !done.written.is_empty() {
                    let (vm, fingerprint) = (vm.name.as_str(), key.fingerprint());
                    tracing::info!(vm, %fingerprint, "the host key of a VM is pinned at its first use");
                }
                Shown::Pinned
            }
            Err(ServiceError::Refused(Refusal::HostKeyTaken { of, .. })) => {
                Shown::OfOtherOwner { vm: of.to_string() }
            }
            Err(ServiceError::Refused(Refusal::HostKeyOther { .. })) => Shown::Other,
            Err(failed) => {
                let why = failed.to_string();
                if let ServiceError::Store(_) = failed {
                    *health() = Health::Failed { at: now(), why: why.clone() };
                }
                Shown::Failed { why }
            }
        }
    }
}

fn order(id: &str, key: &PublicKey, dialled: Dialled, from: &str) -> CommandRequest {
    CommandRequest {
        command: Command::VmPin { id: id.to_owned(), key: key.to_line(), dialled },
        options: Options::default(),
        expected: None,
        actor: Actor { name: "keyway".to_owned(), from: from.to_owned() },
    }
}

/// What came of the fleet file at a start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Applied {
    /// The registry holds all of it, or there is none.
    Whole,
    /// Something of it was refused.
    Partly,
}

#[cfg(test)]
#[path = "first_use_tests.rs"]
mod tests;
