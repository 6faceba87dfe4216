//! THE ONE JUDGE: may this key or certificate, from here, now, go there? And if not, why.
//!
//! Everybody who decides about a right asks [`judge`]: the door about an offer and about a proof,
//! the login that waits in the dial, the pump about its live sessions, and `explain`. Three
//! functions for one question would drift apart. It looks nothing up but the routing map, has no
//! side effect, and allocates nothing for a plain key without options. Signatures are verified
//! elsewhere (`ssh`), after this has said yes.

use std::net::IpAddr;
use std::sync::Arc;

use crate::ended::{Cause, labelled};
use crate::route::{self, Address, Admitted, KeyLine, Table, Way, Who};
use crate::ssh::authorized_keys::KeyOptions;
use crate::ssh::certificate::{CertificateFault, Restrictions};
use crate::ssh::userauth::{Identity, Policy, ProvedKey, Subject, is_login};

labelled! {
    /// Why somebody is not let in. A closed set: a log field. For operators only; a stranger must
    /// not learn which it was.
    pub enum Refusal {
        /// The user name asked for is longer than any can be, or has a control character.
        LoginName = "login_name",
        /// Nobody has the key, or it is a user's no more.
        NotRegistered = "not_registered",
        /// The key, the certificate or its CA is in `revoked_keys`.
        Revoked = "revoked",
        /// Past the `expiry-time` of the key's line.
        KeyExpired = "key_expired",
        /// Not from an address of the line's `from=`.
        From = "from",
        /// The line's options cannot be read.
        KeyOptions = "key_options",
        /// The security key did not show that it verified its user.
        VerifyRequired = "verify_required",
        /// The user has no VM at this address.
        NoVmHere = "no_vm_here",
        /// No VM has the name asked for.
        NoSuchVm = "no_such_vm",
        /// The user may not enter the VM.
        Forbidden = "forbidden",
        /// Neither the VM nor the request names a login.
        NoLogin = "no_login",
        /// A host's certificate.
        CertificateType = "certificate_type",
        /// Its CA is not one of `trusted_user_cas`.
        CaUnknown = "ca_unknown",
        /// Its CA did not sign it.
        CaSignature = "ca_signature",
        /// Before its first second.
        CertificateNotYet = "certificate_not_yet",
        /// After its last second.
        CertificateExpired = "certificate_expired",
        /// It names nobody.
        PrincipalsNone = "principals_none",
        /// None of the names in it is a user's.
        PrincipalsUnknown = "principals_unknown",
        /// Several of the names in it are users'.
        PrincipalsSeveral = "principals_several",
        /// Not from one of its `source-address`es.
        SourceAddress = "source_address",
        /// A critical option that is not known or malformed.
        CriticalOption = "critical_option",
        /// A key or certificate that cannot be read.
        Unreadable = "unreadable",
        /// More certificates on one connection than are verified.
        TooManyCertificates = "too_many_certificates",
        /// The right is narrower than what the session began with.
        Narrowed = "narrowed",
        /// The VM is in maintenance.
        VmMaintenance = "vm_maintenance",
        /// The pool address is in maintenance.
        AddressMaintenance = "address_maintenance",
        /// The agent that has the session is trusted no more.
        FarEnd = "far_end",
        /// The edge that the session came by is admitted no more.
        EdgeRemoved = "edge_removed",
    }
}

impl Refusal {
    /// Whether somebody of whom nothing is known is refused so, whoever has a key here.
    #[must_use]
    pub const fn is_of_a_stranger(self) -> bool {
        matches!(
            self,
            Self::LoginName
                | Self::NotRegistered
                | Self::CertificateType
                | Self::CaUnknown
                | Self::CaSignature
                | Self::PrincipalsNone
                | Self::PrincipalsUnknown
                | Self::Unreadable
                | Self::TooManyCertificates
        )
    }

    /// For the operator.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::LoginName => {
                "no account has such a login name: too long, or with a control character"
            }
            Self::NotRegistered => "no user has this key",
            Self::Revoked => "edge.revoked_keys lists this key, certificate or CA",
            Self::KeyExpired => "the key's expiry-time has passed",
            Self::From => "the key's from= does not list the client's address",
            Self::KeyOptions => "the options of the key's line cannot be read",
            Self::VerifyRequired => "the security key did not verify its user (verify-required)",
            Self::NoVmHere => "no VM at this address",
            Self::NoSuchVm => "no VM of that name",
            Self::Forbidden => "not allowed to enter that VM",
            Self::NoLogin => "no login name",
            Self::CertificateType => "a host certificate lets no user in",
            Self::CaUnknown => "the certificate's CA is none of edge.trusted_user_cas",
            Self::CaSignature => "the certificate was not signed by its CA",
            Self::CertificateNotYet => "the certificate is not valid yet",
            Self::CertificateExpired => "the certificate has expired",
            Self::PrincipalsNone => "the certificate names no principal",
            Self::PrincipalsUnknown => "none of the certificate's principals is a user",
            Self::PrincipalsSeveral => {
                "several of the certificate's principals are users; it has to be exactly one"
            }
            Self::SourceAddress => "the certificate's source-address does not list the client's",
            Self::CriticalOption => {
                "the certificate has a critical option that is not known or malformed"
            }
            Self::Unreadable => "the key or certificate cannot be read",
            Self::TooManyCertificates => "too many certificates on one connection",
            Self::Narrowed => "the right is narrower than when the session began",
            Self::VmMaintenance => "the VM is in maintenance",
            Self::AddressMaintenance => "the address dialled is in maintenance",
            Self::FarEnd => "the agent that has the session is trusted no more",
            Self::EdgeRemoved => "the edge that the session came by is admitted no more",
        }
    }

    /// How a login that waits for its VM, or a live session, ends for it.
    #[must_use]
    pub const fn cause(self) -> Cause {
        match self {
            Self::KeyExpired | Self::CertificateExpired => Cause::RightExpired,
            Self::From
            | Self::KeyOptions
            | Self::VerifyRequired
            | Self::SourceAddress
            | Self::Narrowed => Cause::RightNarrowed,
            Self::VmMaintenance => Cause::VmMaintenance,
            Self::AddressMaintenance => Cause::AddressMaintenance,
            Self::FarEnd => Cause::AgentUnreachable,
            Self::EdgeRemoved => Cause::EdgeRemoved,
            Self::LoginName
            | Self::NotRegistered
            | Self::Revoked
            | Self::NoVmHere
            | Self::NoSuchVm
            | Self::Forbidden
            | Self::NoLogin
            | Self::CertificateType
            | Self::CaUnknown
            | Self::CaSignature
            | Self::CertificateNotYet
            | Self::PrincipalsNone
            | Self::PrincipalsUnknown
            | Self::PrincipalsSeveral
            | Self::CriticalOption
            | Self::Unreadable
            | Self::TooManyCertificates => Cause::RightLost,
        }
    }
}

impl From<CertificateFault> for Refusal {
    fn from(fault: CertificateFault) -> Self {
        match fault {
            CertificateFault::Key(_) => Self::Unreadable,
            CertificateFault::Type => Self::CertificateType,
            CertificateFault::Untrusted => Self::CaUnknown,
            CertificateFault::NotYet => Self::CertificateNotYet,
            CertificateFault::Expired => Self::CertificateExpired,
            CertificateFault::Principals => Self::PrincipalsNone,
            CertificateFault::Source => Self::SourceAddress,
            CertificateFault::Critical => Self::CriticalOption,
            CertificateFault::Revoked => Self::Revoked,
            CertificateFault::Signature => Self::CaSignature,
            CertificateFault::TooMany => Self::TooManyCertificates,
            CertificateFault::Unverified => Self::VerifyRequired,
            CertificateFault::Login => Self::LoginName,
        }
    }
}

impl From<route::Refusal> for Refusal {
    fn from(refusal: route::Refusal) -> Self {
        match refusal {
            route::Refusal::Unregistered => Self::NotRegistered,
            route::Refusal::EmptySlot => Self::NoVmHere,
            route::Refusal::NoSuchVm => Self::NoSuchVm,
            route::Refusal::Forbidden => Self::Forbidden,
            route::Refusal::NoLogin => Self::NoLogin,
        }
    }
}

/// What is judged, and by what.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    /// Who may go where.
    pub table: &'a Table,
    /// CAs and revocations.
    pub policy: &'a Policy,
    /// The key or certificate.
    pub subject: Subject<'a>,
    /// The client's address; `None` for whichever would do.
    pub source: Option<IpAddr>,
    /// Now.
    pub unix_s: u64,
    /// Where to.
    pub place: CasePlace<'a>,
}

/// Where somebody wants to be.
#[derive(Clone, Copy)]
pub enum CasePlace<'a> {
    /// In what is found at a pool address, or by a name in the login.
    At {
        /// The address dialled.
        address: &'a Address,
        /// The user name as sent.
        login: &'a str,
    },
    /// In the VM where a session is, whichever way leads there by now: it may have moved, been
    /// renamed or changed hands.
    Held(&'a Admitted),
    /// At the lobby where a visitor is. As with sessions, the address may be in maintenance.
    Visited {
        /// What is at the address dialled by now.
        address: &'a Address,
        /// Who came.
        user: &'a Arc<str>,
    },
}

/// A right that somebody has.
#[derive(Clone, Debug)]
pub struct Right<T> {
    /// What was made of the way.
    pub found: T,
    /// Whose it is.
    pub identity: Identity,
    /// What it does not give.
    pub restrictions: Restrictions,
    /// Whether it is had from some addresses only.
    pub source_bound: bool,
    /// Whether it depends on more of the key than its fingerprint, which is all that was given: on
    /// its SHA-1 hash, or on its type.
    pub key_bound: bool,
    /// The first second in which it is had no more.
    pub until_s: Option<u64>,
    /// It cannot be used now; whoever proves the key is told so.
    pub closed: Option<Refusal>,
}

/// What a session began with.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Grant {
    /// What it may not do, as the VM was told.
    pub restrictions: Restrictions,
    /// Whether a security key showed that it verified its user.
    pub user_verified: bool,
}

impl From<&ProvedKey> for Grant {
    fn from(key: &ProvedKey) -> Self {
        Self { restrictions: key.restrictions().clone(), user_verified: key.user_verified() }
    }
}

impl<T> Right<T> {
    /// Whether it may be used, now and for all that was granted.
    ///
    /// # Errors
    /// The maintenance; [`Refusal::VerifyRequired`]; [`Refusal::Narrowed`].
    pub fn covers(&self, grant: &Grant) -> Result<(), Refusal> {
        if let Some(closed) = self.closed {
            return Err(closed);
        }
        if self.restrictions.verify_required && !grant.user_verified {
            return Err(Refusal::VerifyRequired);
        }
        if self.restrictions.is_narrower_than(&grant.restrictions) {
            return Err(Refusal::Narrowed);
        }
        Ok(())
    }
}

/// The judgement. `read` makes of the way what the caller needs; it runs on a read of the routing
/// map, maybe twice, and must be short. The way and what the key's line says are of one revision:
/// what a change gives with a restriction is not had without it.
///
/// # Errors
/// The first reason against, in this order: the login, the key or certificate itself, whom it
/// names, the way, the key's line.
pub fn judge<T>(
    case: &Case<'_>,
    read: impl Fn(&Arc<str>, Way<'_>) -> T,
) -> Result<Right<T>, Refusal> {
    let Case { table, policy, subject, source, unix_s, place } = *case;
    // As the request itself is refused, before anything is looked up.
    if let CasePlace::At { login, .. } = place
        && !is_login(login)
    {
        return Err(Refusal::LoginName);
    }
    let standing = policy.stand(subject, source, unix_s)?;
    let identity = match subject {
        Subject::Certificate(_) => {
            Identity::User(user_of(table, standing.principals, place)?.to_owned())
        }
        Subject::Key(_) | Subject::Fingerprint(_) => Identity::Key(subject.fingerprint()),
    };
    let denied = |user: &str, vm: Option<&route::Vm>| -> Result<(), Refusal> {
        table.denies(&who(&identity), user, vm).map_or(Ok(()), |refusal| Err(refusal.into()))
    };
    let (found, line) = match place {
        CasePlace::At { address, login } => {
            table.ask(who(&identity), address, login, |user, way| {
                denied(user, way.vm())?;
                let closed = address.closed.then_some(Refusal::AddressMaintenance);
                Ok((read(user, way), closed.or(way.closed().then_some(Refusal::VmMaintenance))))
            })
        }
        CasePlace::Held(held) => table.hold(who(&identity), held, |vm| {
            let way = Way::Vm { vm, login: &held.login, by_name: held.by_name };
            denied(&held.user, Some(vm))?;
            Ok((read(&held.user, way), way.closed().then_some(Refusal::VmMaintenance)))
        }),
        CasePlace::Visited { address, user } => {
            table.ask(who(&identity), address, "", |is, way| match way {
                Way::Lobby if is == user => {
                    denied(user, None)?;
                    Ok((read(user, way), None))
                }
                Way::Lobby => Err(Refusal::Forbidden),
                Way::Vm { .. } => Err(Refusal::NoVmHere),
            })
        }
    }?;
    let (found, closed) = found?;
    let options = understand(&line)?;
    // It refuses for these two reasons and no other.
    options.admit(source, unix_s).map_err(|fault| {
        if fault == CertificateFault::Expired { Refusal::KeyExpired } else { Refusal::From }
    })?;
    let until_s = [standing.until_s, options.expires_s].into_iter().flatten().min();
    let source_bound = standing.source_bound || options.from.is_some();
    if !can_verify(subject)
        && (standing.restrictions.verify_required || options.restrictions.verify_required)
    {
        return Err(Refusal::VerifyRequired);
    }
    // A certificate has no line, and a plain key no restrictions but those of its line.
    let restrictions = match subject {
        Subject::Certificate(_) => standing.restrictions,
        Subject::Key(_) | Subject::Fingerprint(_) => options.restrictions,
    };
    let key_bound = matches!(subject, Subject::Fingerprint(_))
        && (restrictions.verify_required || !policy.revocations.knows_fingerprints());
    Ok(Right { found, identity, restrictions, source_bound, key_bound, until_s, closed })
}

/// The one of a certificate's principals that is a user. Other names in it are for other servers.
/// Whoever is in already is who that was: it ends no session that somebody else is added whom its
/// certificate names.
fn user_of<'a>(
    table: &Table,
    principals: &'a [String],
    place: CasePlace<'_>,
) -> Result<&'a str, Refusal> {
    let mut users = principals.iter().filter(|name| match place {
        CasePlace::At { .. } => table.is_user(name),
        CasePlace::Held(Admitted { user, .. }) | CasePlace::Visited { user, .. } => {
            name.as_str() == &**user && table.is_user(name)
        }
    });
    let user = users.next().ok_or(Refusal::PrincipalsUnknown)?;
    if users.any(|other| other != user) {
        return Err(Refusal::PrincipalsSeveral);
    }
    Ok(user)
}

/// Whether the key's signature could show that its user was verified. Of one whose type is not
/// known, it might.
fn can_verify(subject: Subject<'_>) -> bool {
    match subject {
        Subject::Key(key) => key.key_type().is_security_key(),
        Subject::Fingerprint(_) => true,
        Subject::Certificate(certificate) => certificate.key().key_type().is_security_key(),
    }
}

/// What a key's line says. Allocates only for the few keys that have options.
fn understand(line: &KeyLine) -> Result<KeyOptions, Refusal> {
    match line {
        KeyLine::Unknown => Err(Refusal::NotRegistered),
        KeyLine::Plain => Ok(KeyOptions::default()),
        // What cannot be understood is no yes.
        KeyLine::Options(text) => KeyOptions::parse(text).map_err(|_| Refusal::KeyOptions),
    }
}

/// The protocol's identity in the routing map's words.
const fn who(identity: &Identity) -> Who<'_> {
    match identity {
        Identity::Key(fingerprint) => Who::Key(fingerprint.0),
        Identity::User(name) => Who::User(name.as_str()),
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
