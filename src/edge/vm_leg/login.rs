//! The login at a VM: with a certificate minted for this one connection, or with
//! the plain identity.

use std::sync::Arc;

use super::super::failed::{self, Failed};
use super::super::login_leg::{LoginLeg, Scratch};
use super::super::settings::{Principal, VmCredential};
use super::super::shared::Shared;
use super::super::{clock, revocation};
use super::{Guest, VmLegs};
use crate::ended::{Cause, Ended, Stage};
use crate::ssh::certificate::UserCertificate;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::transport::Event;
use crate::ssh::userauth::{Credential, Login, LoginStep};

/// A certificate is valid from this long ago: clocks of resumed VMs run behind.
const VALID_BEFORE_S: u64 = 600;
/// And until this far ahead: it is used at once or never.
const VALID_AFTER_S: u64 = 60;
/// How long one key pair serves for minting certificates.
const SUBJECT_MS: u64 = 3_600_000;
/// Longest text kept of what a VM says to its user before the login, in bytes.
const BANNER_BYTES_MAX: usize = 4 << 10;

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
    pub(super) async fn log_in(
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
        revocation::recheck(shared, report, clock::unix_s())
            .map_err(|why| Ended::edge(Stage::VmLogin, why.cause()))?;
        let restrictions = key.restrictions();
        let (ca, principal) = match &live.credential {
            // A plain key cannot carry what the user's key forbids.
            VmCredential::Identity(_) if restrictions.is_restricted() => {
                return Err(Ended::edge(Stage::VmLogin, Cause::Restricted));
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
            .map_err(|_| Ended::edge(Stage::VmLogin, Cause::Resources))?;
        let credential = Credential { key: subject, certificate: Some(certificate) };
        Ok(Presented { credential, principal: Some(named), source })
    }

    /// The key that certificates are minted for. It never leaves this thread's memory; what a
    /// certificate is good for is bound by its principal, source address and minute of life, so one
    /// key serves many.
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
}
