//! What the API shows and does that is not in the registry: sessions, host keys, the zone, and why a login goes
//! where it goes, by the edge's own code.

use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};

use crate::control::api::view::{Decision, Explanation, HostKey, Session, Step};
use crate::control::api::{Beside, Beyond, Question, Target, WriteText};
use crate::control::dns::{Zone, export};
use crate::edge::report::RequestId;
use crate::edge::shared::Shared;
use crate::edge::{Edge, Present, clock};
use crate::registry::store::{Fault, Sqlite};
use crate::route::{Address, Admission, KeyLine, Refusal, Who};
use crate::ssh::authorized::KeyOptions;
use crate::ssh::publickey::PublicKey;

/// A login that no VM can have, for a question that names none.
const ANY_LOGIN: &str = "\0";

/// All of one process that the API may ask.
pub(super) struct Everything {
    pub(super) shared: Arc<Shared>,
    pub(super) edge: Arc<OnceLock<Weak<Edge>>>,
    pub(super) store: Sqlite,
    pub(super) zone: Option<Arc<Zone>>,
    /// The zone's name.
    pub(super) apex: Option<String>,
}

impl Everything {
    fn edge(&self) -> Option<Arc<Edge>> {
        self.edge.get().and_then(Weak::upgrade)
    }
}

impl Beside for Everything {
    fn sessions(&self) -> Vec<Session> {
        let (unix_s, now_ms) = (clock::unix_s(), clock::monotonic_ms());
        let all = self.edge().map(|edge| edge.sessions()).unwrap_or_default();
        all.into_iter().map(|present| session(present, unix_s, now_ms)).collect()
    }

    fn end_session(&self, id: &str) -> bool {
        let id = u64::from_str_radix(id, 16).ok().filter(|_| id.len() == 16);
        id.zip(self.edge()).is_some_and(|(id, edge)| edge.kill(RequestId(id)))
    }

    fn explain(&self, question: &Question) -> Result<Explanation, Beyond> {
        let walk = Walk { shared: &self.shared, steps: Vec::new(), address: None };
        walk.explain(question, self.apex.as_deref())
    }

    fn host_keys(&self) -> Vec<HostKey> {
        let live = self.shared.live.load();
        let keys = live.server.host_keys().iter().map(|host_key| host_key.key.public());
        keys.map(|key| HostKey {
            key_type: key.to_line().split(' ').next().unwrap_or_default().to_owned(),
            fingerprint: key.fingerprint().to_string(),
            line: key.to_line(),
        })
        .collect()
    }

    fn zone(&self) -> Option<WriteText> {
        let zone = Arc::clone(self.zone.as_ref()?);
        Some(Box::new(move |into| export::write(&zone, into)))
    }

    fn backup(&self, to: &Path) -> Result<(), Beyond> {
        self.store.backup(to).map_err(|fault| {
            let kind =
                if matches!(fault, Fault::Exists { .. }) { Beyond::Exists } else { Beyond::Failed };
            kind(fault.to_string())
        })
    }
}

fn session(present: Present, unix_s: u64, now_ms: u64) -> Session {
    let Present { report, up_bytes, down_bytes } = present;
    let admitted = report.admitted.as_ref();
    Session {
        id: report.request.to_string(),
        user: report.user.as_deref().unwrap_or_default().to_owned(),
        fingerprint: report.who.as_ref().map(|who| who.fingerprint.to_string()).unwrap_or_default(),
        vm: admitted.map(|admitted| admitted.vm.name.clone()).unwrap_or_default(),
        address: report.address.as_ref().map(|it| it.name.clone()).unwrap_or_default(),
        login: admitted.map(|admitted| admitted.login.clone()).unwrap_or_default(),
        client: report.client.to_string(),
        since_s: unix_s.saturating_sub(now_ms.saturating_sub(report.accepted_ms) / 1000),
        up_bytes,
        down_bytes,
    }
}

/// A question on its way through the steps of a login.
struct Walk<'a> {
    shared: &'a Shared,
    steps: Vec<Step>,
    address: Option<Arc<Address>>,
}

impl Walk<'_> {
    fn step(&mut self, step: &str, answer: impl Into<String>) {
        self.steps.push(Step { step: step.to_owned(), answer: answer.into() });
    }

    fn refused(self, principal: Option<String>, code: &str, reason: &str) -> Explanation {
        Explanation {
            decision: Decision::Refused,
            principal,
            vm: None,
            address: self.address.map(|address| address.name.clone()),
            login: None,
            by_name: false,
            reason: reason.to_owned(),
            code: code.to_owned(),
            steps: self.steps,
        }
    }

    /// The pool address that is meant.
    fn target(
        &mut self,
        target: &Target,
        apex: Option<&str>,
    ) -> Result<(), (String, &'static str)> {
        let table = &self.shared.table;
        let found = match target {
            Target::Address(text) => {
                let found = match text.parse() {
                    Ok(ip) => table.address(ip),
                    Err(_) => table.address_named(text),
                };
                let found = found.filter(|address| !address.closed);
                found.ok_or((format!("{text} is no address of the pool, or is in maintenance: connections to it are refused"), "address-unknown"))
            }
            Target::Name(text) => {
                let name = text.trim_end_matches('.').to_ascii_lowercase();
                let suffix = apex.map(|apex| format!(".{apex}"));
                let name =
                    suffix.and_then(|it| name.strip_suffix(&it).map(str::to_owned)).unwrap_or(name);
                match table.vm(&name) {
                    None => match table.address_named(&name) {
                        Some(address) => Ok(address),
                        None => Err((format!("there is no VM {name}"), "no-such-vm")),
                    },
                    Some(vm) => {
                        let address = vm.address.as_deref().and_then(|at| table.address_named(at));
                        address.ok_or((format!("VM {name} has no address: it is entered as login+{name}@ at any pool address"), "no-address"))
                    }
                }
            }
        };
        let address = found?;
        self.step("address", format!("{} ({})", address.name, address.public));
        self.address = Some(address);
        Ok(())
    }

    fn explain(mut self, question: &Question, apex: Option<&str>) -> Result<Explanation, Beyond> {
        if let Err((reason, code)) = self.target(&question.target, apex) {
            self.step("address", reason.clone());
            return Ok(self.refused(None, code, &reason));
        }
        let Some(address) = self.address.clone() else {
            return Err(Beyond::Failed("no address was found".to_owned()));
        };
        let table = &self.shared.table;
        let who = Who::Key(question.fingerprint.0);
        let Some(user) = table.user(who) else {
            self.step("key", "nobody's");
            return Ok(self.refused(None, "not-registered", "no user has this key"));
        };
        let user = user.to_string();
        self.step("key", format!("{} of {user}", question.fingerprint));
        if let Some(line) = &question.key
            && let Ok((key, _)) = PublicKey::parse_line(line)
        {
            if self.shared.live.load().policy.revocations.revokes_key(&key) {
                self.step("revocation", "revoked");
                return Ok(self.refused(Some(user), "revoked", "edge.revoked_keys lists this key"));
            }
            self.step("revocation", "not revoked");
        }
        if let KeyLine::Options(text) = table.key_options(&question.fingerprint.0) {
            let read = KeyOptions::parse(&text);
            let expired = read.as_ref().is_ok_and(|options| {
                options.expires_s.is_some_and(|expires_s| clock::unix_s() >= expires_s)
            });
            if read.is_err() || expired {
                let what = if expired { "has expired" } else { "cannot be read" };
                self.step("key options", format!("{text}: {what}"));
                let reason = format!("the key {what} (options {text})");
                let code = if expired { "key-expired" } else { "key-options" };
                return Ok(self.refused(Some(user), code, &reason));
            }
            self.step("key options", text.to_string());
        }
        let asked = question.login.as_deref().unwrap_or(ANY_LOGIN);
        let admission = table.explain(who, &address, asked);
        Ok(self.decided(user, admission))
    }

    fn decided(mut self, user: String, admission: Result<Admission, Refusal>) -> Explanation {
        match admission {
            Ok(Admission::Vm(admitted)) => {
                let vm = admitted.vm.name.clone();
                let how = if admitted.by_name { "by name" } else { "by its slot" };
                self.step("route", format!("VM {vm}, {how}"));
                let login = Some(admitted.login).filter(|login| login != ANY_LOGIN);
                Explanation {
                    decision: Decision::Vm,
                    reason: format!("{user} enters {vm} {how}"),
                    principal: Some(user),
                    vm: Some(vm),
                    address: self.address.map(|address| address.name.clone()),
                    login,
                    by_name: admitted.by_name,
                    code: "vm".to_owned(),
                    steps: self.steps,
                }
            }
            Ok(Admission::Lobby { .. }) => {
                self.step("route", "lobby");
                Explanation {
                    decision: Decision::Lobby,
                    reason: format!("{user} gets the list of VMs"),
                    principal: Some(user),
                    vm: None,
                    address: self.address.map(|address| address.name.clone()),
                    login: None,
                    by_name: false,
                    code: "lobby".to_owned(),
                    steps: self.steps,
                }
            }
            Ok(Admission::Nothing) => self.refused(Some(user), "no-route", "no route"),
            Err(refusal) => {
                let code = match refusal {
                    Refusal::Unregistered => "not-registered",
                    Refusal::EmptySlot => "no-vm-here",
                    Refusal::NoSuchVm => "no-such-vm",
                    Refusal::Forbidden => "forbidden",
                    Refusal::NoLogin => "no-login",
                };
                let reason = refusal.to_string();
                self.step("route", reason.clone());
                self.refused(Some(user), code, &reason)
            }
        }
    }
}
