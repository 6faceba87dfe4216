//! The VM leg's beginning: dial the VM, check its host key against the pin, log in. Nothing here
//! runs before a key was proved, and nothing falls back to another VM, address, key or method.

mod dial;
mod login;
mod pin;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::clock;
use super::executor::Executor;
use super::failed::Failed;
use super::login_leg::{LoginLeg, Scratch};
use super::report::Report;
use super::shared::Shared;
use crate::ended::{Cause, Detail, Ended, Stage};
use crate::metrics::{Counters, LoginStage};
use crate::route::{Admitted, Pin, Vm};
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::{PublicKey, SignatureAlgorithm};
use crate::ssh::transport::{Algorithms, ClientConfig, Event, RekeyLimits};
use crate::ssh::userauth::ProvedKey;

/// From the TCP connection to the VM's USERAUTH_SUCCESS.
const VM_LOGIN: Duration = Duration::from_secs(30);
/// How long a login name that a VM refused is remembered.
const REFUSAL_MS: u64 = 60_000;
/// Refusals remembered per shard; the map is emptied of old ones when it is full.
const REFUSALS_MAX: usize = 4096;
/// Keys written down beside a session that has no need of it, at a time and shard; further ones
/// at a later login.
const COMPLETIONS_MAX: usize = 2;

/// A shard's way to VMs: configurations made once, and the refusals of the last minute.
pub(super) struct VmLegs {
    tasks: Executor,
    refused: RefCell<HashMap<Asked, Refusal>>,
    ed25519: Arc<ClientConfig>,
    ecdsa: Arc<ClientConfig>,
    rsa: Arc<ClientConfig>,
    any: Arc<ClientConfig>,
    completions: FirstUsePermits<COMPLETIONS_MAX>,
    /// The key that certificates are minted for, and when it was made.
    subject: RefCell<Option<(Arc<PrivateKey>, u64)>>,
}

/// Places for work on other threads. One is taken until the work is over, whether or not anybody
/// still waits for it.
#[derive(Default)]
struct FirstUsePermits<const MAX: usize>(Arc<()>);

/// One of the places.
struct FirstUsePermit {
    _counted: Arc<()>,
}

impl<const MAX: usize> FirstUsePermits<MAX> {
    /// `None`: all are taken.
    fn take(&self) -> Option<FirstUsePermit> {
        let taken = Arc::strong_count(&self.0) - 1;
        (taken < MAX).then(|| FirstUsePermit { _counted: Arc::clone(&self.0) })
    }
}

/// Who asked which VM for which login.
type Asked = (Arc<str>, String, String);

/// What a VM said to that.
struct Refusal {
    at_ms: u64,
    detail: Option<Detail>,
}

impl Refusal {
    const fn is_fresh(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.at_ms) < REFUSAL_MS
    }
}

/// Who wants in, and where.
#[derive(Clone, Copy)]
pub(super) struct Guest<'a> {
    pub(super) report: &'a Report,
    pub(super) admitted: &'a Admitted,
    pub(super) key: &'a ProvedKey,
    /// How far the way to the VM is.
    pub(super) stage: &'a Cell<Stage>,
}

/// A VM that let us in.
pub(super) struct Reached {
    pub(super) leg: LoginLeg,
    /// Which of its addresses answered.
    pub(super) endpoint: SocketAddr,
}

impl VmLegs {
    pub(super) fn new(tasks: Executor) -> Self {
        use SignatureAlgorithm as A;
        let config = |names: &[A]| {
            let config = ClientConfig::new(names, Algorithms::default(), RekeyLimits::default());
            Arc::new(config)
        };
        let ecdsa = [A::EcdsaP256, A::EcdsaP384, A::EcdsaP521];
        let rsa = [A::RsaSha512, A::RsaSha256];
        let any = [&[A::Ed25519][..], &ecdsa, &rsa].concat();
        Self {
            tasks,
            refused: RefCell::default(),
            ed25519: config(&[A::Ed25519]),
            ecdsa: config(&ecdsa),
            rsa: config(&rsa),
            any: config(&any),
            completions: FirstUsePermits::default(),
            subject: RefCell::default(),
        }
    }

    /// Dials the VM that `admitted` names and logs in; the leg is ready for the pump. What the VM
    /// says to its user on the way is added to `banner`, as received.
    ///
    /// # Errors
    /// How the attempt ended.
    pub(super) async fn reach(
        &self,
        shared: &Arc<Shared>,
        scratch: &Scratch,
        counters: &Counters,
        guest: Guest<'_>,
        banner: &mut String,
    ) -> Result<Reached, Failed> {
        let Guest { admitted, stage, .. } = guest;
        let remembered =
            (Arc::clone(&admitted.user), admitted.vm.id.clone(), admitted.login.clone());
        if let Some(failed) = self.refused_lately(&remembered) {
            return Err(failed);
        }
        let endpoints = self.resolve(shared, &admitted.vm).await?;
        let mut last = Failed::from(Ended::edge(Stage::VmExchange, Cause::PinMismatch));
        let mut last_leg = None;
        let wanted = admitted.vm.host_key.as_ref();
        let by_fingerprint = matches!(wanted, Some(Pin::Fingerprint(_)));
        // For a bare fingerprint each key type is asked for on a connection of its own.
        for config in self.configs(wanted) {
            stage.set(Stage::Dial);
            let (mut leg, endpoint) =
                self.connect(shared, scratch, counters, &endpoints, &config).await?;
            stage.set(Stage::VmExchange);
            let began_us = clock::monotonic_us();
            let pinning = Cell::new(false);
            let login = async {
                leg.drive(scratch, |_, event, _, _| {
                    Ok(matches!(event, Event::Secured).then_some(()))
                })
                .await
                .map_err(|broken| Failed::broke(&broken, Stage::VmExchange, &leg.transport))?;
                counters.stage(LoginStage::VmExchange, clock::monotonic_us() - began_us);
                pinning.set(true);
                self.judge_host_key(shared, &admitted.vm, leg.transport.host_key()).await?;
                pinning.set(false);
                stage.set(Stage::VmLogin);
                let began_us = clock::monotonic_us();
                self.log_in(shared, scratch, &mut leg, guest, banner).await?;
                counters.stage(LoginStage::VmLogin, clock::monotonic_us() - began_us);
                Ok::<_, Failed>(())
            };
            last = match self.tasks.timeout(VM_LOGIN, Box::pin(login)).await {
                Some(Ok(())) => return Ok(Reached { leg, endpoint }),
                Some(Err(failed)) => failed,
                // Only our own registry keeps us that long.
                None if pinning.get() => {
                    return Err(Ended::edge(Stage::VmExchange, Cause::PinUnwritten).into());
                }
                None => {
                    let secured = leg.transport.session_id().is_some();
                    let stage = if secured { Stage::VmLogin } else { Stage::VmExchange };
                    let said = leg.transport.last_words(Detail::BYTES_MAX);
                    let detail = said.as_deref().map(Detail::said);
                    return Err(Failed { ended: Ended::vm(stage, Cause::Deadline), detail });
                }
            };
            let other_type = by_fingerprint
                && matches!(last.ended.cause, Cause::PinMismatch | Cause::NoCommonAlgorithm);
            last_leg = Some(leg);
            if !other_type {
                break;
            }
        }
        // A fingerprint that matches none of its keys is a mismatch too, however
        // the last try ended.
        if by_fingerprint && last.ended.cause == Cause::NoCommonAlgorithm {
            last = Ended::vm(Stage::VmExchange, Cause::PinMismatch).into();
        }
        if last.ended.cause == Cause::PinMismatch {
            warn_of_mismatch(&admitted.vm, last_leg.as_ref());
        }
        if last.is_refusal() {
            self.remember(remembered, last.detail.clone());
        }
        Err(last)
    }

    /// Not asked again, if the VM refused this login lately.
    fn refused_lately(&self, login: &Asked) -> Option<Failed> {
        let now = clock::monotonic_ms();
        let refused = self.refused.borrow();
        let refusal = refused.get(login).filter(|refusal| refusal.is_fresh(now))?;
        let ended = Ended::edge(Stage::VmLogin, Cause::LoginRemembered);
        Some(Failed { ended, detail: refusal.detail.clone() })
    }

    fn remember(&self, login: Asked, detail: Option<Detail>) {
        let now = clock::monotonic_ms();
        let mut refused = self.refused.borrow_mut();
        if refused.len() >= REFUSALS_MAX {
            refused.retain(|_, refusal| refusal.is_fresh(now));
        }
        if refused.len() < REFUSALS_MAX {
            refused.insert(login, Refusal { at_ms: now, detail });
        }
    }
}

/// An operator should look at this today.
fn warn_of_mismatch(vm_entry: &Vm, leg: Option<&LoginLeg>) {
    let key = leg.and_then(|leg| PublicKey::parse(leg.transport.host_key()).ok());
    let proved = key.map_or_else(String::new, |key| key.fingerprint().to_string());
    tracing::warn!(
        vm = vm_entry.name,
        proved,
        fix = "if it was rebuilt: `keyway vm host-key forget VM`, or its new `host_key`",
        "the VM's host key is not the pinned one; sessions are refused until an operator settles it"
    );
}

#[cfg(test)]
mod tests;
