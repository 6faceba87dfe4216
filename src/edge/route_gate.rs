//! The one judge ([`gate::judge`]) at one pool address, for one connection: what the door asks
//! about offers and proofs.

use std::cell::RefCell;
use std::sync::Arc;

use super::clock;
use super::denied::{Vain, Word};
use super::gate::{self, Case, CasePlace, Grant, Refusal, Right};
use super::report::Report;
use super::shared::Shared;
use crate::route::{Address, Admission, Admitted, Way};
use crate::ssh::certificate::CertificateFault;
use crate::ssh::publickey::Fingerprint;
use crate::ssh::userauth::{Gate, Offer, Pass, ProvedKey, Subject};

/// Where a proved key leads.
pub enum Entry {
    /// To a VM.
    Vm(Admitted, Box<ProvedKey>),
    /// To the list of VMs.
    Lobby {
        /// Whose.
        user: Arc<str>,
    },
    /// Nowhere now, and the user is to hear why.
    Closed {
        /// Who came.
        user: Arc<str>,
        /// Where it would lead, if to a VM.
        admitted: Option<Admitted>,
        /// The maintenance.
        why: Refusal,
    },
}

/// The judge at one address, for one connection.
pub struct RouteGate<'a> {
    shared: &'a Shared,
    address: &'a Arc<Address>,
    report: &'a RefCell<Report>,
}

impl<'a> RouteGate<'a> {
    /// `report` says where the client comes from, and takes note of what was offered in vain.
    pub const fn new(
        shared: &'a Shared,
        address: &'a Arc<Address>,
        report: &'a RefCell<Report>,
    ) -> Self {
        Self { shared, address, report }
    }

    /// Where a proved key leads. `None`: answer like an unknown key.
    pub fn entry(&self, key: Box<ProvedKey>) -> Option<Entry> {
        let source = self.report.borrow().source();
        let live = self.shared.live.load();
        let presented = key.standing();
        let offer = Offer {
            login: key.login(),
            subject: (&*presented).into(),
            source,
            unix_s: clock::unix_s(),
            policy: &live.policy,
        };
        let right = self.ask(&offer, Word::Fact, |user, way| way.admission(user))?;
        match right.covers(&Grant::from(&*key)) {
            Ok(()) => Some(match right.found {
                Admission::Vm(admitted) => Entry::Vm(admitted, key),
                Admission::Lobby { user } => Entry::Lobby { user },
            }),
            Err(why @ (Refusal::VmMaintenance | Refusal::AddressMaintenance)) => {
                Some(match right.found {
                    Admission::Vm(admitted) => Entry::Closed {
                        user: Arc::clone(&admitted.user),
                        admitted: Some(admitted),
                        why,
                    },
                    Admission::Lobby { user } => Entry::Closed { user, admitted: None, why },
                })
            }
            Err(why) => {
                self.deny(key.login(), Some(key.fingerprint()), why, Word::Fact);
                None
            }
        }
    }

    fn ask<T>(
        &self,
        offer: &Offer<'_>,
        word: Word,
        read: impl Fn(&Arc<str>, Way<'_>) -> T,
    ) -> Option<Right<T>> {
        let Offer { login, subject, source, unix_s, policy } = *offer;
        let place = CasePlace::At { address: self.address, login };
        let table = &self.shared.table;
        let case = Case { table, policy, subject, source: Some(source), unix_s, place };
        gate::judge(&case, read)
            .inspect_err(|why| self.deny(login, Some(subject.fingerprint()), *why, word))
            .ok()
    }

    fn deny(&self, login: &str, key: Option<Fingerprint>, why: Refusal, word: Word) {
        // Which CA a certificate names is seen, whoever wrote it.
        let is_seen = matches!(why, Refusal::CertificateType | Refusal::CaUnknown);
        let word = if is_seen { Word::Fact } else { word };
        self.report.borrow_mut().denied.note(login, Vain { key, why, word });
    }
}

impl Gate for RouteGate<'_> {
    fn judge_offer(&self, offer: &Offer<'_>) -> Option<Pass> {
        let word = match offer.subject {
            Subject::Certificate(_) => Word::Claim,
            Subject::Key(_) | Subject::Fingerprint(_) => Word::Fact,
        };
        let Right { identity, restrictions, .. } = self.ask(offer, word, |_, _| ())?;
        Some(Pass { identity, restrictions })
    }

    fn hears(&self, login: &str, key: Option<Fingerprint>, why: CertificateFault) {
        self.deny(login, key, why.into(), Word::Fact);
    }
}
