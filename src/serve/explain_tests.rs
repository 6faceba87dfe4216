//! The door, the re-check of live sessions and `explain` are one judge: over generated registries,
//! keys, certificates, revocations, states and addresses they agree, and with the rules said once
//! more as plainly as can be.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::edge::denied::Denied;
use crate::edge::first_use::{FirstUse, Shown};
use crate::edge::local_address::Destination;
use crate::edge::proxy_header::Senders;
use crate::edge::relay::{ClientAlive, PreferGcm};
use crate::edge::report::{Proved, Report, RequestId};
use crate::edge::route_gate::{Entry, RouteGate};
use crate::edge::settings::{Settings, VmCredential};
use crate::edge::shared::Shared;
use crate::edge::{clock, revocation};
use crate::route::testing::{arbitrary, model, sound};
use crate::route::{Contents, Snapshot, UserEntry};
use crate::ssh::authorized_keys::KeyOptions;
use crate::ssh::certificate::{Restrictions, UserCertificate};
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::PublicKey;
use crate::ssh::revocation::Revocations;
use crate::ssh::testing::{Pair, Seeded, server_config, sha1_list};
use crate::ssh::transport::{Algorithms, RekeyLimits};
use crate::ssh::userauth::{
    Authenticator, Credential, Gate, Login, LoginStep, Offer, Policy, Presented, Step as Said,
};

#[path = "explain_words_tests.rs"]
mod words;

/// Keys of users, by the numbers that generated registries know them by.
static KEYS: LazyLock<[Arc<PrivateKey>; 6]> =
    LazyLock::new(|| std::array::from_fn(|n| Arc::new(generate(n as u64))));
/// The first is trusted.
static CAS: LazyLock<[PrivateKey; 2]> = LazyLock::new(|| [generate(100), generate(101)]);

const SOURCES: [[u8; 4]; 2] = [[192, 0, 2, 7], [10, 9, 9, 9]];

const LINES: [Option<&str>; 10] = [
    None,
    None,
    Some("restrict"),
    Some("no-pty,command=\"true\""),
    Some("from=\"192.0.2.0/24\""),
    Some("from=\"10.9.9.9\",restrict,pty"),
    Some("expiry-time=\"20200101\""),
    Some("expiry-time=\"21060101\""),
    Some("no-such-option"),
    Some("verify-required"),
];

fn generate(seed: u64) -> PrivateKey {
    PrivateKey::generate_ed25519(&mut Seeded(seed))
}

struct Nobody;

impl FirstUse for Nobody {
    fn shown(&self, _: &Vm, _: &PublicKey) -> Shown {
        Shown::Failed { why: String::new() }
    }
}

/// What somebody comes with.
#[derive(Clone, Debug)]
enum Comes {
    Key(usize),
    Certificate {
        key: usize,
        ca: usize,
        principals: Vec<&'static str>,
        /// Before, within or after its time.
        dates: i8,
        source: Option<&'static str>,
        no_pty: bool,
        forged: bool,
    },
}

impl Comes {
    const fn key(&self) -> usize {
        match self {
            Self::Key(key) | Self::Certificate { key, .. } => *key,
        }
    }

    /// What is presented in place of the plain key.
    fn blob(&self, now_s: u64) -> Option<Vec<u8>> {
        let Self::Certificate { key, ca, principals, dates, source, no_pty, forged } = self else {
            return None;
        };
        let (valid_after_s, valid_before_s) = match dates {
            -1 => (now_s + 3600, now_s + 7200),
            0 => (now_s - 3600, now_s + 3600),
            _ => (now_s - 7200, now_s - 3600),
        };
        let template = UserCertificate {
            key: KEYS[*key].public(),
            key_id: "of a test",
            principals,
            valid_after_s,
            valid_before_s,
            source_address: *source,
            restrictions: &Restrictions { no_pty: *no_pty, ..Restrictions::default() },
            serial: 7,
        };
        let mut blob = template.mint(&CAS[*ca], &mut Seeded(1)).unwrap();
        *blob.last_mut().unwrap() ^= u8::from(*forged);
        Some(blob)
    }

    fn asked(&self, now_s: u64) -> Asked {
        match self.blob(now_s) {
            None => Asked::Key(KEYS[self.key()].public().clone()),
            Some(blob) => Asked::Certificate(Certificate::parse(&blob).map(Box::new)),
        }
    }
}

fn comes() -> impl Strategy<Value = Comes> {
    let name = prop::sample::select(vec!["u0", "u1", "u2", "u3", "root", "u0"]);
    let certificate = (
        0..6_usize,
        prop_oneof![4 => Just(0_usize), 1 => Just(1)],
        prop::collection::vec(name, 1..4),
        prop_oneof![4 => Just(0_i8), 1 => Just(-1), 1 => Just(1)],
        prop::option::weighted(0.3, Just("192.0.2.0/24")),
        any::<bool>(),
        prop::bool::weighted(0.1),
    );
    let certificate =
        certificate.prop_map(|(key, ca, principals, dates, source, no_pty, forged)| {
            Comes::Certificate { key, ca, principals, dates, source, no_pty, forged }
        });
    prop_oneof![(0..6_usize).prop_map(Comes::Key), certificate]
}

/// One state of everything that decides.
#[derive(Clone, Debug)]
struct State {
    contents: Contents,
    /// Numbers of keys, and 100 for the CA that is trusted.
    revoked: Vec<usize>,
    /// The list has SHA-1 hashes, of which a fingerprint says nothing.
    by_sha1: bool,
}

fn state() -> impl Strategy<Value = State> {
    let lines = prop::collection::vec(prop::sample::select(LINES.to_vec()), 6);
    let closed = prop::collection::vec(prop::bool::weighted(0.2), 4);
    let revoked = prop::collection::vec(prop_oneof![8 => 0..6_usize, 1 => Just(100)], 0..2);
    let state = (arbitrary(), lines, closed, revoked, any::<bool>());
    state.prop_map(|(contents, lines, closed, revoked, by_sha1)| {
        let (mut contents, _) = sound(contents);
        for key in contents.users.iter_mut().flat_map(|user| &mut user.keys) {
            let number = usize::from(key.fingerprint[0]);
            key.fingerprint = KEYS[number].public().fingerprint().0;
            key.options = lines[number].map(Arc::from);
        }
        for (entry, closed) in contents.vms.iter_mut().zip(closed) {
            entry.vm.closed = closed;
        }
        State { contents, revoked, by_sha1 }
    })
}

impl State {
    fn live(&self) -> Live {
        let keys = self.revoked.iter().map(|number| match number {
            100 => CAS[0].public(),
            key => KEYS[*key].public(),
        });
        let list = if self.by_sha1 {
            sha1_list(keys)
        } else {
            let lines = keys.map(|key| key.fingerprint().to_string());
            lines.collect::<Vec<_>>().join("\n").into_bytes()
        };
        let policy = Policy {
            cas: vec![CAS[0].public().clone()],
            revocations: Revocations::parse(&list).unwrap(),
            attempts_max: 6,
            ..Policy::default()
        };
        Live {
            server: server_config(1, Algorithms::default(), RekeyLimits::default()),
            policy: Arc::new(policy),
            credential: VmCredential::Identity(Arc::clone(&KEYS[0])),
            source_address: crate::route::SourceAddress::Own,
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.contents.clone()).unwrap()
    }

    fn shared(&self) -> Shared {
        let settings = Settings {
            login_grace: Duration::from_secs(1),
            senders: Senders::new(Vec::new()),
            destination: Destination::Socket,
            seats: crate::edge::seats::Most { sessions: 8, per_user: 8, per_vm: 8 },
            dial_timeout: Duration::from_secs(1),
            networks: Vec::new(),
            prefer_gcm: PreferGcm::Never,
            client_alive: ClientAlive { interval: Duration::ZERO, count_max: 0 },
            zone: None,
        };
        let shared = Shared::new(settings, self.live(), Table::new(), Arc::new(Nobody));
        shared.table.apply(self.snapshot());
        shared
    }

    /// Whom this is good for by itself, and what it takes away: the rules once more.
    fn good_for(
        &self,
        comes: &Comes,
        source: IpAddr,
        held: Option<&str>,
    ) -> Option<(Result<String, usize>, Restrictions)> {
        if self.revoked.contains(&comes.key()) {
            return None;
        }
        match comes {
            Comes::Key(key) => {
                let fingerprint = KEYS[*key].public().fingerprint().0;
                let mut all = self.contents.users.iter().flat_map(|user| &user.keys);
                let line = all.find(|line| line.fingerprint == fingerprint)?;
                let options = match &line.options {
                    None => KeyOptions::default(),
                    Some(text) => KeyOptions::parse(text).ok()?,
                };
                let is_home = source == IpAddr::from(SOURCES[0]);
                let text = line.options.as_deref().unwrap_or_default();
                let kept_out = text.contains("192.0.2.0/24") && !is_home
                    || text.contains("10.9.9.9") && is_home
                    || text.contains("20200101")
                    // None of these keys can.
                    || text.contains("verify-required");
                (!kept_out).then_some((Err(*key), options.restrictions))
            }
            Comes::Certificate { ca, principals, dates, source: from, no_pty, forged, .. } => {
                let bad = *ca != 0 || self.revoked.contains(&100) || *dates != 0 || *forged;
                if bad || from.is_some() && source != IpAddr::from(SOURCES[0]) {
                    return None;
                }
                let is_user = |name: &&str| self.contents.users.iter().any(|it| it.name == **name);
                let mut users: Vec<&str> = principals.iter().copied().filter(is_user).collect();
                users.retain(|name| held.is_none_or(|held| held == *name));
                users.sort_unstable();
                users.dedup();
                let [user] = users[..] else { return None };
                let restrictions = Restrictions { no_pty: *no_pty, ..Restrictions::default() };
                Some((Ok(user.to_owned()), restrictions))
            }
        }
    }

    /// As [`model::admit`], of somebody who may come at all: `-` if not, and `closed ` before what
    /// cannot be used now.
    fn leads(
        &self,
        comes: &Comes,
        source: IpAddr,
        held: Option<&str>,
        address: &str,
        login: &str,
    ) -> String {
        if login.contains(char::is_control) {
            return "-".to_owned();
        }
        let Some((who, _)) = self.good_for(comes, source, held) else { return "-".to_owned() };
        let who = match &who {
            Ok(user) => Who::User(user),
            Err(key) => Who::Key(KEYS[*key].public().fingerprint().0),
        };
        let told = model::admit(&self.contents, who, address, login);
        if told == "nothing" {
            return "-".to_owned();
        }
        let vm = told.split_once('@').map(|(_, vm)| vm.trim_end_matches(" by name").to_owned());
        let vm_closed =
            |name: &String| self.contents.vms.iter().any(|it| it.vm.name == *name && it.vm.closed);
        let closed = self.contents.addresses.iter().any(|it| it.name == address && it.closed)
            || vm.as_ref().is_some_and(vm_closed);
        if closed { format!("closed {told}") } else { told }
    }
}

/// What came of a login, in the model's words.
fn told(entry: &Entry) -> String {
    let of = |admitted: &crate::route::Admitted| {
        let how = if admitted.by_name { " by name" } else { "" };
        format!("{}@{}{how}", admitted.login, admitted.vm.name)
    };
    match entry {
        Entry::Vm(admitted, _) => of(admitted),
        Entry::Lobby { user } => format!("lobby of {user}"),
        Entry::Closed { admitted: Some(admitted), .. } => format!("closed {}", of(admitted)),
        Entry::Closed { user, admitted: None, .. } => format!("closed lobby of {user}"),
    }
}

/// A whole login in memory, as the door has it: a query first, then the proof.
fn log_in(
    shared: &Shared,
    comes: &Comes,
    report: &RefCell<Report>,
    login: &str,
    address: &Arc<Address>,
) -> Option<Entry> {
    let now_s = clock::unix_s();
    let source = report.borrow().source();
    let live = shared.live.load();
    let gate = RouteGate::new(shared, address, report);
    let blob = comes.blob(now_s);
    let mut pair = Pair::plain(7);
    pair.settle().unwrap();
    let credential = Credential { key: Arc::clone(&KEYS[comes.key()]), certificate: blob };
    let mut client =
        pair.at_client(|transport, cx| Login::start(login, &credential, transport, cx)).unwrap();
    let mut authenticator = Authenticator::new(source);
    let mut entry = None;
    loop {
        pair.settle().unwrap();
        let asked: Vec<_> = std::mem::take(&mut pair.server.payloads);
        for payload in asked {
            pair.at_server(|transport, cx| {
                let said = authenticator
                    .receive(&payload, now_s, &live.policy, &gate, transport, cx)
                    .unwrap();
                let Said::Proved(key) = said else { return };
                report.borrow_mut().who = Some(Proved::from(&*key));
                entry = gate.entry(key);
                match entry {
                    Some(_) => authenticator.accept(transport, cx).unwrap(),
                    None => authenticator.refuse(&live.policy, transport, cx).unwrap(),
                }
            });
        }
        pair.settle().unwrap();
        let answers: Vec<_> = std::mem::take(&mut pair.client.payloads);
        for payload in answers {
            let step = pair.at_client(|transport, cx| client.receive(&payload, transport, cx));
            match step.unwrap() {
                LoginStep::Success | LoginStep::Refused(_) | LoginStep::MoreWanted(_) => {
                    return entry;
                }
                LoginStep::Continue | LoginStep::Banner(_) => {}
            }
        }
    }
}

fn report(source: IpAddr) -> RefCell<Report> {
    RefCell::new(Report::new(RequestId(1), (source, 22).into(), 0))
}

/// What `explain` says, in the model's words.
fn explained(
    shared: &Shared,
    asked: Asked,
    from: Option<IpAddr>,
    address: &str,
    login: &str,
) -> (String, Decision) {
    let now_s = clock::unix_s();
    let live = shared.live.load();
    let question = Question {
        asked,
        target: Target::Address(address.to_owned()),
        login: Some(login.to_owned()),
        from,
    };
    let said = Walk::new(&shared.table, &live, now_s).explain(&question, None);
    let how = if said.by_name { " by name" } else { "" };
    let goal = match (&said.vm, &said.login) {
        (Some(vm), Some(login)) => format!("{login}@{vm}{how}"),
        _ => format!("lobby of {}", said.principal.clone().unwrap_or_default()),
    };
    let text = match said.decision {
        Decision::Vm | Decision::Lobby => goal,
        Decision::Depends => format!("depends {goal}"),
        Decision::Refused if said.code.ends_with("-maintenance") => format!("closed {goal}"),
        Decision::Refused => "-".to_owned(),
    };
    (text, said.decision)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn door_recheck_and_explain_agree(
        before in state(),
        after in state(),
        comes in comes(),
        source in prop::sample::select(SOURCES.map(IpAddr::from).to_vec()),
    ) {
        let shared = before.shared();
        let mut sessions = Vec::new();
        for address in shared.table.addresses() {
            for login in ["me", "me+v0", "me+v1", "+v2", "m\0e", "m\ne+v0"] {
                let expected = before.leads(&comes, source, None, &address.name, login);
                let report = report(source);

                // An offer, before anything is proved. Whether the CA signed is not
                // the gate's to know.
                let presented = match comes.asked(clock::unix_s()) {
                    Asked::Key(key) => Some(Presented::Key(key)),
                    Asked::Certificate(read) => read.ok().map(|it| Presented::Certificate(*it)),
                    Asked::Fingerprint(_) => None,
                };
                let live = shared.live.load();
                if let Some(presented) = &presented {
                    let offer = Offer {
                        login,
                        subject: presented.into(),
                        source,
                        unix_s: clock::unix_s(),
                        policy: &live.policy,
                    };
                    let gate = RouteGate::new(&shared, &address, &report);
                    prop_assert_eq!(gate.judge_offer(&offer).is_some(), expected != "-");
                }

                // The proof.
                report.borrow_mut().denied = Denied::default();
                let entry = log_in(&shared, &comes, &report, login, &address);
                let said = entry.as_ref().map_or("-".to_owned(), told);
                prop_assert_eq!(&said, &expected, "{:?} at {} as {}", &comes, &address.name, login);
                prop_assert_eq!(said == "-", !report.borrow().denied.all().is_empty());
                // Whatever it says in whosever name.
                let forged = matches!(comes, Comes::Certificate { forged: true, .. });
                prop_assert!(!forged || report.borrow().denied.is_of_a_stranger());

                // The question.
                let asked = || comes.asked(clock::unix_s());
                let (told, _) = explained(&shared, asked(), Some(source), &address.name, login);
                prop_assert_eq!(&told, &expected, "{:?} at {} as {}", &comes, &address.name, login);
                let both = SOURCES.map(|source| before.leads(&comes, source.into(), None, &address.name, login));
                let (open, decision) = explained(&shared, asked(), None, &address.name, login);
                match decision {
                    Decision::Depends => prop_assert!(both.iter().any(|it| open.strip_prefix("depends ") == Some(it.as_str()))),
                    Decision::Refused if open == "-" => prop_assert!(both.iter().all(|it| it == "-")),
                    Decision::Vm | Decision::Lobby | Decision::Refused => prop_assert!(both.contains(&open)),
                }

                // By its fingerprint alone: the same, or what it says depends on the key.
                if let Asked::Key(key) = asked() {
                    let asked = Asked::Fingerprint(key.fingerprint());
                    let (told, decision) =
                        explained(&shared, asked, Some(source), &address.name, login);
                    match decision {
                        Decision::Depends => prop_assert!(
                            expected == "-" || told.strip_prefix("depends ") == Some(&*expected)
                        ),
                        Decision::Vm | Decision::Lobby | Decision::Refused if told != expected => {
                            // A refusal, and of something that is in maintenance too: the
                            // door's comes first.
                            prop_assert!(expected == "-" && told.starts_with("closed"), "{}", told);
                        }
                        Decision::Vm | Decision::Lobby | Decision::Refused => {}
                    }
                }

                match entry {
                    Some(Entry::Vm(admitted, _)) => report.borrow_mut().admitted = Some(admitted),
                    Some(Entry::Lobby { user }) => report.borrow_mut().user = Some(user),
                    Some(Entry::Closed { .. }) | None => continue,
                }
                report.borrow_mut().dialled = Some(address.public);
                sessions.push((report.into_inner(), address.public));
            }
        }
        // A session may stay where it is.
        for (session, _) in &sessions {
            prop_assert!(revocation::recheck(&shared, session, clock::unix_s()).is_ok());
        }
        // And after any change just if the same login would lead to the same VM by some
        // way, with no less.
        shared.table.apply(after.snapshot());
        shared.live.store(Arc::new(after.live()));
        for (session, dialled) in &sessions {
            let mut places = after.contents.addresses.iter();
            let (held, way) = if let Some(admitted) = &session.admitted {
                let login = format!("me+{}", admitted.vm.name);
                let open = places.find(|it| !it.closed).unwrap();
                let held = Some(&*admitted.user);
                (held, after.leads(&comes, source, held, &open.name, &login))
            } else {
                // Of a lobby maintenance takes nothing away from those who are there.
                let held = session.user.as_deref();
                let there = places.find(|it| it.lobby && it.public == *dialled);
                let way = there.map(|it| after.leads(&comes, source, held, &it.name, "me"));
                let way = way.unwrap_or("-".to_owned());
                (held, way.trim_start_matches("closed ").to_owned())
            };
            let owner = |state: &State| {
                let (who, restrictions) = state.good_for(&comes, source, held)?;
                let user = match who {
                    Ok(user) => user,
                    Err(key) => {
                        let key = KEYS[key].public().fingerprint().0;
                        let has = |it: &&UserEntry| it.keys.iter().any(|line| line.fingerprint == key);
                        state.contents.users.iter().find(has)?.name.clone()
                    }
                };
                Some((user, restrictions))
            };
            let (was, had) = owner(&before).unwrap();
            let same = owner(&after).is_some_and(|(is, has)| {
                is == was
                    && (has.no_pty <= had.no_pty)
                    && (has.no_port_forwarding <= had.no_port_forwarding)
                    && (has.force_command.is_none() || has.force_command == had.force_command)
            });
            let stays = revocation::recheck(&shared, session, clock::unix_s());
            let may = way != "-" && !way.starts_with("closed") && same;
            prop_assert_eq!(stays.is_ok(), may, "{:?}: {} {:?}", stays, way, &comes);
        }
    }
}
