//! Why a login goes where it goes: the edge's own judgement ([`gate::judge`]), and on the way to it
//! the facts that people look for. The facts decide nothing.

use std::net::IpAddr;
use std::sync::Arc;

use crate::control::api::dto::{Carried, Decision, Explanation, Step};
use crate::control::api::{Asked, Question, Target};
use crate::edge::gate::{self, Case, CasePlace, Refusal, Right};
use crate::edge::settings::Live;
use crate::registry::refusal::utc;
use crate::route::{Address, Admission, Carriage, Carry, KeyLine, Table, Vm, Who};
use crate::ssh::certificate::{Certificate, FOREVER};
use crate::ssh::text::printable;
use crate::ssh::userauth::{Identity, Subject};

/// A login that no VM can have, for a question that names none.
const ANY_LOGIN: &str = " ";

/// Longest text of a certificate that is shown, in bytes.
const TEXT_MAX_BYTES: usize = 128;

/// Principals of a certificate that are shown.
const PRINCIPALS_MAX: usize = 16;

/// A question on its way through the steps of a login.
pub(super) struct Walk<'a> {
    table: &'a Table,
    live: &'a Live,
    unix_s: u64,
    steps: Vec<Step>,
    address: Option<Arc<Address>>,
    vm: Option<Arc<Vm>>,
    principal: Option<String>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(table: &'a Table, live: &'a Live, unix_s: u64) -> Self {
        let (steps, address, vm, principal) = (Vec::new(), None, None, None);
        Self { table, live, unix_s, steps, address, vm, principal }
    }

    pub(super) fn explain(mut self, question: &Question, apex: Option<&str>) -> Explanation {
        if let Err((reason, code)) = self.target(&question.target, apex) {
            self.step("address", reason.clone());
            return self.refused(code, reason);
        }
        let subject = match &question.asked {
            Asked::Key(key) => Subject::Key(key),
            Asked::Fingerprint(fingerprint) => Subject::Fingerprint(*fingerprint),
            Asked::Certificate(Ok(certificate)) => {
                self.certificate(certificate);
                Subject::Certificate(certificate)
            }
            Asked::Certificate(Err(fault)) => {
                let why = Refusal::from(*fault);
                self.step("certificate", fault.to_string());
                return self.refused(&code(why), why.sentence().to_owned());
            }
        };
        if !matches!(subject, Subject::Certificate(_)) {
            self.key(subject);
        }
        self.maintenance();
        let asked = question.login.as_deref().unwrap_or(ANY_LOGIN);
        let judgement = self.ask_gate(subject, question.from, asked);
        if let Some(source) = question.from {
            self.step("source", source.to_string());
        }
        match judgement {
            Ok(right) => self.entered(right, question.from),
            Err(why) => {
                self.step("judgement", why.sentence());
                let hint = self.hint(subject, question.from, asked).unwrap_or_default();
                let reason = format!("{}{hint}", why.sentence());
                self.refused(&code(why), reason)
            }
        }
    }

    fn step(&mut self, step: &str, answer: impl Into<String>) {
        self.steps.push(Step { step: step.to_owned(), answer: answer.into() });
    }

    /// The pool address that is meant, and the VM if one is.
    fn target(
        &mut self,
        target: &Target,
        apex: Option<&str>,
    ) -> Result<(), (String, &'static str)> {
        let table = self.table;
        let found = match target {
            Target::Address(text) => {
                let found = match text.parse() {
                    Ok(ip) => table.dialled(ip),
                    Err(_) => table.address_named(text),
                };
                let unknown = || {
                    let what = "is no address of the pool: connections to it are refused";
                    (format!("{text} {what}"), "address-unknown")
                };
                found.ok_or_else(unknown)
            }
            Target::Name(text) => {
                let name = text.trim_end_matches('.').to_ascii_lowercase();
                let suffix = apex.map(|apex| format!(".{apex}"));
                let name =
                    suffix.and_then(|it| name.strip_suffix(&it).map(str::to_owned)).unwrap_or(name);
                self.vm = table.vm(&name);
                match &self.vm {
                    None => {
                        let none = || (format!("there is no VM {name}"), "no-such-vm");
                        table.address_named(&name).ok_or_else(none)
                    }
                    Some(vm) => {
                        let address = vm.address.as_deref().and_then(|at| table.address_named(at));
                        let none = || {
                            let how = format!("it is entered as LOGIN+{name}@ at any pool address");
                            (format!("VM {name} has no address: {how}"), "no-address")
                        };
                        address.ok_or_else(none)
                    }
                }
            }
        };
        let address = found?;
        self.step("address", format!("{} ({})", address.name, address.public));
        self.address = Some(address);
        Ok(())
    }

    /// Whose key it is, and what its line says.
    fn key(&mut self, subject: Subject<'_>) {
        let fingerprint = subject.fingerprint();
        self.principal =
            self.table.user(Who::Key(fingerprint.0)).map(|user| user.as_ref().to_owned());
        let whose = self.principal.clone().unwrap_or_else(|| "nobody".to_owned());
        self.step("key", format!("{fingerprint} of {whose}"));
        if let KeyLine::Options(text) = self.table.key_options(&fingerprint.0) {
            self.step("key options", text.to_string());
        }
    }

    /// What a certificate says, as far as it decides.
    fn certificate(&mut self, certificate: &Certificate) {
        let key_id = printable(certificate.key_id(), TEXT_MAX_BYTES);
        let key = certificate.key().fingerprint();
        self.step(
            "certificate",
            format!("\"{key_id}\", serial {}, of key {key}", certificate.serial()),
        );
        self.step("CA", certificate.ca().fingerprint().to_string());
        let until = match certificate.valid_before_s() {
            FOREVER => "for ever".to_owned(),
            until_s => format!("until {}", utc(until_s)),
        };
        self.step("valid", format!("from {} {until}", utc(certificate.valid_after_s())));
        let all = certificate.principals();
        let mut shown: Vec<String> = Vec::new();
        let mut users: Vec<&String> = Vec::new();
        for name in all {
            let is_user = self.table.is_user(name);
            if is_user && !users.contains(&name) {
                users.push(name);
            }
            if shown.len() < PRINCIPALS_MAX {
                let is = if is_user { "a user" } else { "no user" };
                shown.push(format!("{} ({is})", printable(name, TEXT_MAX_BYTES)));
            }
        }
        if all.len() > shown.len() {
            shown.push(format!("{} more", all.len() - shown.len()));
        }
        if let [user] = users[..] {
            self.principal = Some(user.clone());
        }
        let none = || "none".to_owned();
        self.step("principals", if shown.is_empty() { none() } else { shown.join(", ") });
    }

    fn maintenance(&mut self) {
        if let Some(address) = self.address.clone().filter(|address| address.closed) {
            self.step("maintenance", format!("address {} is in maintenance", address.name));
        }
        if let Some(vm) = self.vm.clone().filter(|vm| vm.closed) {
            self.step("maintenance", format!("VM {} is in maintenance", vm.name));
        }
    }

    fn ask_gate(
        &self,
        subject: Subject<'_>,
        source: Option<IpAddr>,
        login: &str,
    ) -> Result<Right<Admission>, Refusal> {
        let Some(address) = &self.address else { return Err(Refusal::NoVmHere) };
        let place = CasePlace::At { address, login };
        let (table, policy, unix_s) = (self.table, &self.live.policy, self.unix_s);
        let case = Case { table, policy, subject, source, unix_s, place };
        gate::judge(&case, |user, way| way.admission(user))
    }

    /// How to come in, for somebody who may enter the VM that was named but has no slot for it.
    fn hint(&self, subject: Subject<'_>, source: Option<IpAddr>, asked: &str) -> Option<String> {
        let vm = self.vm.as_ref().filter(|_| !asked.contains('+'))?;
        let named = format!("{asked}+{}", vm.name);
        let right = self.ask_gate(subject, source, &named).ok()?;
        matches!(right.found, Admission::Vm(_)).then(|| {
            let (vm, user) = (&vm.name, self.principal.as_deref().unwrap_or("the user"));
            format!("; {user} may enter {vm} by name: ssh LOGIN+{vm}@ at any pool address")
        })
    }

    fn entered(mut self, right: Right<Admission>, from: Option<IpAddr>) -> Explanation {
        if let Identity::User(user) = &right.identity {
            self.principal = Some(user.clone());
        }
        let mut carried = None;
        let (user, vm, login, by_name, goal) = match right.found {
            Admission::Vm(admitted) => {
                let vm = admitted.vm.name.clone();
                let how = if admitted.by_name { "by name" } else { "by its slot" };
                self.step("route", format!("VM {vm}, {how}"));
                carried = self.carriage(&admitted.vm);
                let login = Some(admitted.login).filter(|login| login != ANY_LOGIN);
                let goal = format!("enters {vm} {how}");
                (admitted.user, Some(vm), login, admitted.by_name, goal)
            }
            Admission::Lobby { user } => {
                self.step("route", "lobby");
                (user, None, None, false, "gets the list of VMs".to_owned())
            }
        };
        let reason = format!("{user} {goal}");
        if right.restrictions.verify_required {
            self.step("signature", "has to come from a security key that verified its user");
        }
        let (decision, code, reason) = match right.closed {
            Some(closed) => (Decision::Refused, code(closed), closed.sentence().to_owned()),
            None if right.key_bound => {
                let ask = "if the key is none that revoked_keys lists by SHA-1 hash, and one that can verify its user where its line asks for that; ask again with --key FILE";
                (Decision::Depends, "key-needed".to_owned(), format!("{reason}, {ask}"))
            }
            None if right.source_bound && from.is_none() => {
                let ask = "if the client's address is one that the key or certificate may be used from; ask again with --from ADDRESS";
                (Decision::Depends, "source-needed".to_owned(), format!("{reason}, {ask}"))
            }
            None if vm.is_some() => (Decision::Vm, "vm".to_owned(), reason),
            None => (Decision::Lobby, "lobby".to_owned(), reason),
        };
        Explanation {
            decision,
            principal: Some(user.as_ref().to_owned()),
            vm,
            address: self.address.map(|address| address.name.clone()),
            login,
            by_name,
            carried,
            reason,
            code,
            steps: self.steps,
        }
    }

    /// What would carry the session; and why, of a VM that lies on a node.
    fn carriage(&mut self, vm: &Vm) -> Option<Carried> {
        let carriage = self.table.carriage(vm)?;
        let carried = match carriage {
            Carriage::Relay => Carried::Relay,
            Carriage::Handoff(_) => Carried::Handoff,
        };
        let Some(name) = vm.node.as_deref() else { return Some(carried) };
        let why = match carriage {
            Carriage::Handoff(node) => {
                format!("handed to the agent of node {name}, at {}", node.agent)
            }
            Carriage::Relay if vm.carry == Carry::Relay => {
                format!("relayed, as carry of the VM says, though it lies on node {name}")
            }
            Carriage::Relay if self.table.node(name).is_none() => {
                format!("relayed: node {name} has no agent that is known")
            }
            Carriage::Relay => format!("relayed: node {name} is not trusted"),
        };
        self.step("carriage", why);
        Some(carried)
    }

    fn refused(self, code: &str, reason: String) -> Explanation {
        Explanation {
            decision: Decision::Refused,
            principal: self.principal,
            vm: None,
            address: self.address.map(|address| address.name.clone()),
            login: None,
            by_name: false,
            carried: None,
            reason,
            code: code.to_owned(),
            steps: self.steps,
        }
    }
}

/// For programs: the log's label, written as everything in the API is.
fn code(why: Refusal) -> String {
    why.as_str().replace('_', "-")
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
