//! The VM leg's beginning: dial the VM, check its host key against the pin, log in. Nothing here runs before a key was
//! proved, and nothing falls back to another VM, address, key or method.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::ended::{Cause, Detail, Ended, Side, Stage};
use crate::metrics::{Counters, LoginStage};
use crate::plural;
use crate::route::{Admitted, Pin, Vm};
use crate::ssh::certificate::UserCertificate;
use crate::ssh::hostkey::PrivateKey;
use crate::ssh::publickey::{KeyType, PublicKey, SignatureAlgorithm};
use crate::ssh::transport::{Algorithms, ClientConfig, Event, RekeyLimits, Transport};
use crate::ssh::userauth::{Credential, Login, LoginStep, ProvedKey};

use super::clock;
use super::executor::Executor;
use super::failed::{self, Failed};
use super::first_use::Shown;
use super::gate;
use super::login_leg::{LoginLeg, Scratch};
use super::names::Stale;
use super::report::Report;
use super::settings::{Principal, VmCredential};
use super::shared::Shared;
use super::stream::Stream;

/// From the TCP connection to the VM's USERAUTH_SUCCESS.
const VM_LOGIN: Duration = Duration::from_secs(30);
/// A certificate is valid from this long ago: clocks of resumed VMs run behind.
const VALID_BEFORE_S: u64 = 600;
/// And until this far ahead: it is used at once or never.
const VALID_AFTER_S: u64 = 60;
/// How long a login name that a VM refused is remembered.
const REFUSAL_MS: u64 = 60_000;
/// Refusals remembered per shard; the map is emptied of old ones when it is full.
const REFUSALS_MAX: usize = 4096;
/// Keys written down beside a session that has no need of it, at a time and shard; further ones at a later login.
const COMPLETIONS_MAX: usize = 2;
/// How long one key pair serves for minting certificates.
const SUBJECT_MS: u64 = 3_600_000;

/// Longest text kept of what a VM says to its user before the login, in bytes.
const BANNER_BYTES_MAX: usize = 4 << 10;

/// A shard's way to VMs: configurations made once, and the refusals of the last minute.
pub(super) struct VmLegs {
    tasks: Executor,
    refused: RefCell<HashMap<Asked, Refusal>>,
    ed25519: Arc<ClientConfig>,
    ecdsa: Arc<ClientConfig>,
    rsa: Arc<ClientConfig>,
    any: Arc<ClientConfig>,
    completions: Places<COMPLETIONS_MAX>,
    /// The key that certificates are minted for, and when it was made.
    subject: RefCell<Option<(Arc<PrivateKey>, u64)>>,
}

/// Places for work on other threads. One is taken until the work is over, whether or not anybody still waits for it.
#[derive(Default)]
struct Places<const MAX: usize>(Arc<()>);

/// One of the places.
struct FirstUsePermit {
    _counted: Arc<()>,
}

impl<const MAX: usize> Places<MAX> {
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

/// What the edge logs in with.
struct Presented {
    credential: Credential,
    /// Of a certificate: whom it names, and from where it may be used.
    principal: Option<String>,
    source: Option<String>,
}

impl Presented {
    /// For operators, who have to make the VM take it.
    fn in_words(&self) -> String {
        let source = self.source.as_deref().unwrap_or("anywhere");
        match &self.principal {
            Some(principal) => format!("a certificate for {principal} from {source}"),
            None => "the key of vm_leg.identity".into(),
        }
    }
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
            completions: Places::default(),
            subject: RefCell::default(),
        }
    }

    /// Dials the VM that `admitted` names and logs in; the leg is ready for the pump. What the VM says to its user on the
    /// way is added to `banner`, as received.
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
        let mut last = Failed::from(edge(Stage::VmExchange, Cause::PinMismatch));
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
                self.judge(shared, &admitted.vm, leg.transport.host_key()).await?;
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
                    return Err(edge(Stage::VmExchange, Cause::PinUnwritten).into());
                }
                None => {
                    let secured = leg.transport.session_id().is_some();
                    let stage = if secured { Stage::VmLogin } else { Stage::VmExchange };
                    let said = leg.transport.last_words(Detail::BYTES_MAX);
                    let detail = said.as_deref().map(Detail::said);
                    return Err(Failed { ended: vm(stage, Cause::Deadline), detail });
                }
            };
            let other_type = by_fingerprint
                && matches!(last.ended.cause, Cause::PinMismatch | Cause::NoCommonAlgorithm);
            last_leg = Some(leg);
            if !other_type {
                break;
            }
        }
        // A fingerprint that matches none of its keys is a mismatch too, however the last try ended.
        if by_fingerprint && last.ended.cause == Cause::NoCommonAlgorithm {
            last = vm(Stage::VmExchange, Cause::PinMismatch).into();
        }
        if last.ended.cause == Cause::PinMismatch {
            warn_of_mismatch(&admitted.vm, last_leg.as_ref());
        }
        if last.is_refusal() {
            self.remember(remembered, last.detail.clone());
        }
        Err(last)
    }

    /// What to ask for, in order.
    fn configs(&self, wanted: Option<&Pin>) -> Vec<Arc<ClientConfig>> {
        let configs = match wanted.map(|pin| pin.key().and_then(|blob| key_type(&blob))) {
            None | Some(Some(KeyType::SkEd25519 | KeyType::SkEcdsaP256)) => vec![&self.any],
            Some(None) => vec![&self.ed25519, &self.ecdsa, &self.rsa],
            Some(Some(KeyType::Ed25519)) => vec![&self.ed25519],
            Some(Some(KeyType::EcdsaP256 | KeyType::EcdsaP384 | KeyType::EcdsaP521)) => {
                vec![&self.ecdsa]
            }
            Some(Some(KeyType::Rsa)) => vec![&self.rsa],
        };
        configs.into_iter().map(Arc::clone).collect()
    }

    /// The key that certificates are minted for. It never leaves this thread's memory; what a certificate is good for is
    /// bound by its principal, source address and minute of life, so one key serves many.
    fn subject(&self, scratch: &Scratch) -> Arc<PrivateKey> {
        let now = clock::monotonic_ms();
        let mut subject = self.subject.borrow_mut();
        match &*subject {
            Some((key, made)) if now.saturating_sub(*made) < SUBJECT_MS => Arc::clone(key),
            Some(_) | None => {
                let key = scratch.with_context(|cx| PrivateKey::generate_ed25519(cx.entropy));
                let key = Arc::new(key);
                *subject = Some((Arc::clone(&key), now));
                key
            }
        }
    }

    /// Connects to the first of `endpoints` that answers, all of them within the time for a dial.
    async fn connect(
        &self,
        shared: &Shared,
        scratch: &Scratch,
        counters: &Counters,
        endpoints: &[SocketAddr],
        config: &Arc<ClientConfig>,
    ) -> Result<(LoginLeg, SocketAddr), Failed> {
        let began_us = clock::monotonic_us();
        let mut last = Failed::from(vm(Stage::Dial, Cause::DialFailed));
        let mut left = shared.settings.dial_timeout;
        for (at, endpoint) in (1_u32..).zip(endpoints) {
            let transport = scratch.with_context(|cx| Transport::client(Arc::clone(config), cx));
            // Our identification line goes out first: when it is written, there is a connection.
            let dial = async {
                let mut leg = LoginLeg::to_vm(Stream::connect(&self.tasks, *endpoint)?, transport);
                leg.flush().await?;
                Ok::<_, io::Error>(leg)
            };
            let waiting = u32::try_from(endpoints.len()).unwrap_or(u32::MAX).saturating_sub(at);
            let share = left / waiting.saturating_add(1);
            match self.tasks.timeout(share, Box::pin(dial)).await {
                Some(Ok(leg)) => {
                    counters.stage(LoginStage::Dial, clock::monotonic_us() - began_us);
                    return Ok((leg, *endpoint));
                }
                Some(Err(error)) => last = Failed::dialling(&error),
                None => {
                    let time = plural::count(share.as_secs_f32().ceil(), "second");
                    let detail = Detail::found(format_args!("no answer within {time}"));
                    last = Failed::new(vm(Stage::Dial, Cause::DialFailed), detail);
                }
            }
            let spent = Duration::from_micros(clock::monotonic_us() - began_us);
            left = shared.settings.dial_timeout.saturating_sub(spent);
        }
        Err(last)
    }

    async fn log_in(
        &self,
        shared: &Shared,
        scratch: &Scratch,
        leg: &mut LoginLeg,
        guest: Guest<'_>,
        banner: &mut String,
    ) -> Result<(), Failed> {
        let presented = self.credential(shared, scratch, leg, guest)?;
        let credential = &presented.credential;
        let mut login = scratch
            .with_context(|cx| {
                Login::start(&guest.admitted.login, credential, &mut leg.transport, cx)
            })
            .map_err(failed::of_login)?;
        let step = leg
            .drive(scratch, |transport, event, payload, cx| {
                if !matches!(event, Event::Payload(_)) {
                    return Ok(None);
                }
                Ok(match login.receive(payload, transport, cx)? {
                    LoginStep::Continue => None,
                    LoginStep::Banner(text) => {
                        if banner.len() < BANNER_BYTES_MAX {
                            banner.push_str(&text);
                        }
                        None
                    }
                    LoginStep::Success => Some(Ok(())),
                    LoginStep::Refused(methods) => Some(Err((false, methods))),
                    LoginStep::MoreWanted(methods) => Some(Err((true, methods))),
                })
            })
            .await
            .map_err(|broken| Failed::broke(&broken, Stage::VmLogin, &leg.transport))?;
        step.map_err(|(more, methods)| {
            if more {
                Failed::second_factor(&methods)
            } else {
                Failed::login_refused(&methods, &presented.in_words())
            }
        })
    }

    /// What the edge logs in with: the plain identity, or a certificate for this one connection.
    fn credential(
        &self,
        shared: &Shared,
        scratch: &Scratch,
        leg: &LoginLeg,
        guest: Guest<'_>,
    ) -> Result<Presented, Ended> {
        let Guest { report, admitted, key, .. } = guest;
        let live = shared.live.load_full();
        // The right may have gone, or be less, since the key was proved.
        gate::recheck(shared, report, clock::unix_s())
            .map_err(|why| edge(Stage::VmLogin, why.cause()))?;
        let restrictions = key.restrictions();
        let (ca, principal) = match &live.credential {
            // A plain key cannot carry what the user's key forbids.
            VmCredential::Identity(_) if restrictions.is_restricted() => {
                return Err(edge(Stage::VmLogin, Cause::Restricted));
            }
            VmCredential::Identity(identity) => {
                let credential = Credential { key: Arc::clone(identity), certificate: None };
                return Ok(Presented { credential, principal: None, source: None });
            }
            VmCredential::Authority { ca, principal } => (ca, *principal),
        };
        let named = match principal {
            Principal::Vm => format!("vm:{}", admitted.vm.id),
            Principal::Login => admitted.login.clone(),
        };
        let key_id = format!(
            "keyway user={} client={} key={} session={}",
            admitted.user,
            report.source(),
            key.fingerprint(),
            report.request
        );
        let source = admitted.vm.source_address.as_ref().unwrap_or(&live.source_address);
        let source = source.option(leg.local_ip());
        let now_s = clock::unix_s();
        let subject = self.subject(scratch);
        let certificate = UserCertificate {
            key: subject.public(),
            key_id: &key_id,
            principals: &[&named],
            valid_after_s: now_s.saturating_sub(VALID_BEFORE_S),
            valid_before_s: now_s.saturating_add(VALID_AFTER_S),
            source_address: source.as_deref(),
            restrictions,
            serial: report.request.0,
        };
        let certificate = scratch
            .with_context(|cx| certificate.mint(ca, cx.entropy))
            .map_err(|_| edge(Stage::VmLogin, Cause::Resources))?;
        let credential = Credential { key: subject, certificate: Some(certificate) };
        Ok(Presented { credential, principal: Some(named), source })
    }

    /// The VM's addresses that lie in `vm_leg.networks`, checked *after* resolution, at every dial; at least one.
    async fn resolve(&self, shared: &Shared, vm_entry: &Vm) -> Result<Vec<SocketAddr>, Failed> {
        let found = if let Ok(literal) = vm_entry.endpoint.parse::<SocketAddr>() {
            vec![literal]
        } else {
            // Where nothing is pinned, an address that is somebody else's by now would pin the wrong key.
            let stale = if vm_entry.host_key.is_some() { Stale::Will } else { Stale::Not };
            let limit = shared.settings.dial_timeout;
            let found = shared.names.find(&self.tasks, &vm_entry.endpoint, limit, stale).await;
            let all = found.map_err(|unresolved| {
                Failed::new(edge(Stage::Dial, Cause::DialFailed), Detail::found(unresolved))
            });
            all?.to_vec()
        };
        let canonical =
            found.into_iter().map(|at| SocketAddr::new(at.ip().to_canonical(), at.port()));
        let networks = &shared.settings.networks;
        let allowed: Vec<_> = canonical
            .filter(|at| networks.iter().any(|network| network.contains(&at.ip())))
            .collect();
        if allowed.is_empty() {
            return Err(edge(Stage::Dial, Cause::NetworkNotAllowed).into());
        }
        Ok(allowed)
    }

    /// Judges the host key the VM has proved, and has it pinned at first use.
    async fn judge(
        &self,
        shared: &Arc<Shared>,
        vm_entry: &Arc<Vm>,
        blob: &[u8],
    ) -> Result<(), Ended> {
        let mismatch = vm(Stage::VmExchange, Cause::PinMismatch);
        let key = PublicKey::parse(blob).map_err(|_| mismatch)?;
        let wanted = vm_entry.host_key.as_ref();
        if let Some(pinned) = wanted.and_then(Pin::key) {
            return if *pinned == *blob { Ok(()) } else { Err(mismatch) };
        }
        if let Some(Pin::Fingerprint(given)) = wanted
            && key.fingerprint().0 != *given
        {
            return Err(mismatch);
        }
        if wanted.is_none() {
            return self.pin(shared, vm_entry, key).await;
        }
        // The VM has shown what it has to; only the next login has to find out the key's type again.
        if let Some(place) = self.completions.take() {
            let (first_use, entry) = (Arc::clone(&shared.first_use), Arc::clone(vm_entry));
            shared.pins.run(move || {
                if let Shown::Failed { why } = first_use.shown(&entry, &key) {
                    tracing::warn!(vm = entry.name, why, "the host key could not be written down");
                }
                drop(place);
            });
        }
        Ok(())
    }

    /// Has `key` pinned at its first use, in its turn.
    async fn pin(
        &self,
        shared: &Arc<Shared>,
        vm_entry: &Arc<Vm>,
        key: PublicKey,
    ) -> Result<(), Ended> {
        let unwritten = edge(Stage::VmExchange, Cause::PinUnwritten);
        let (first_use, entry) = (Arc::clone(&shared.first_use), Arc::clone(vm_entry));
        let write = move || first_use.shown(&entry, &key);
        match self.tasks.blocking(&shared.pins, write).await.ok_or(unwritten)? {
            Shown::Pinned => Ok(()),
            Shown::Other => Err(vm(Stage::VmExchange, Cause::PinMismatch)),
            Shown::OfOtherOwner { vm: other } => {
                tracing::warn!(
                    vm = vm_entry.name,
                    other,
                    "the VM's host key belongs to a VM of another owner; if images are cloned, give it with \
                     `keyway vm host-key set` or host_key in the fleet file"
                );
                Err(vm(Stage::VmExchange, Cause::PinConflict))
            }
            Shown::Failed { why } => {
                tracing::warn!(vm = vm_entry.name, why, "the host key could not be pinned");
                Err(unwritten)
            }
        }
    }

    /// Not asked again, if the VM refused this login lately.
    fn refused_lately(&self, login: &Asked) -> Option<Failed> {
        let now = clock::monotonic_ms();
        let refused = self.refused.borrow();
        let refusal = refused.get(login).filter(|refusal| refusal.is_fresh(now))?;
        let ended = edge(Stage::VmLogin, Cause::LoginRemembered);
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

fn key_type(blob: &[u8]) -> Option<KeyType> {
    PublicKey::parse(blob).ok().map(|key| key.key_type())
}

const fn edge(stage: Stage, cause: Cause) -> Ended {
    Ended { side: Side::Edge, stage, cause }
}

const fn vm(stage: Stage, cause: Cause) -> Ended {
    Ended { side: Side::Vm, stage, cause }
}

/// An operator should look at this today.
fn warn_of_mismatch(vm_entry: &Vm, leg: Option<&LoginLeg>) {
    let key = leg.and_then(|leg| PublicKey::parse(leg.transport.host_key()).ok());
    let proved = key.map_or_else(String::new, |key| key.fingerprint().to_string());
    tracing::warn!(
        vm = vm_entry.name,
        proved,
        "the VM's host key is not the pinned one; sessions are refused until an operator settles it"
    );
}

#[cfg(test)]
#[path = "dial_tests.rs"]
mod tests;
