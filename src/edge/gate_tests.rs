//! Tests of the judge: what is against a key, and what ends a session. That door, re-check and
//! `explain` agree is tested where all three are in reach, in `serve`.

use std::collections::BTreeSet;

use super::*;
use crate::edge::report::{Proved, Report, RequestId};
use crate::edge::revocation::recheck;
use crate::edge::running::tests::{contents, shared};
use crate::edge::shared::Shared;
use crate::route::{Admission, Change, Contents, Delta, Snapshot};
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::userauth::Presented;

const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const NOW_S: u64 = 1_800_000_000;

/// Alice with one key and one VM, and what she got from there.
struct World {
    shared: Shared,
    contents: Contents,
    report: Report,
}

impl World {
    /// She comes with a key of this line.
    fn with(options: Option<&str>) -> Self {
        let key = PrivateKey::generate_ed25519(&mut SystemEntropy::default());
        let mut contents = contents(&[("alice", &key)]);
        contents.users[0].keys[0].options = options.map(Arc::from);
        let shared = shared();
        shared.table.apply(Snapshot::new(contents.clone()).unwrap());
        let mut report = Report::new(RequestId(1), (SOURCE, 1).into(), 0);
        let presented = Presented::Key(key.public().clone());
        let place = shared.table.dialled([127, 0, 77, 1].into()).unwrap();
        let case = Case {
            table: &shared.table,
            policy: &Policy::default(),
            subject: (&presented).into(),
            source: Some(SOURCE),
            unix_s: NOW_S,
            place: CasePlace::At { address: &place, login: "me" },
        };
        let right = judge(&case, |user, way| way.admission(user)).unwrap();
        let Admission::Vm(admitted) = right.found else { panic!("she has a VM") };
        report.who = Some(Proved {
            fingerprint: key.public().fingerprint(),
            login: "me".into(),
            presented: Arc::new(presented),
            grant: Arc::new(Grant { restrictions: right.restrictions, user_verified: false }),
        });
        report.admitted = Some(admitted);
        Self { shared, contents, report }
    }

    /// What becomes of her session when the line is this.
    fn then(&mut self, options: Option<&str>) -> Result<Option<u64>, Refusal> {
        self.contents.users[0].keys[0].options = options.map(Arc::from);
        let put = Change::PutUser(self.contents.users[0].clone());
        self.shared.table.change(Delta { changes: vec![put] }).unwrap();
        recheck(&self.shared, &self.report, NOW_S)
    }
}

#[test]
fn a_session_ends_when_its_line_gives_less_and_never_when_it_gives_more() {
    let narrowed = Err(Refusal::Narrowed);
    let end = 1_900_000_000;
    for (before, after, expected) in [
        (None, None, Ok(None)),
        (None, Some("from=\"10.9.9.9\""), Err(Refusal::From)),
        (None, Some("from=\"192.0.2.0/24\""), Ok(None)),
        (None, Some("expiry-time=\"20200101\""), Err(Refusal::KeyExpired)),
        (None, Some("expiry-time=\"20300317174640Z\""), Ok(Some(end))),
        (None, Some("restrict"), narrowed),
        (None, Some("restrict,command=\"true\""), narrowed),
        (None, Some("no-pty"), narrowed),
        (None, Some("verify-required"), Err(Refusal::VerifyRequired)),
        (None, Some("no-such-option"), Err(Refusal::KeyOptions)),
        (Some("restrict,command=\"true\""), None, Ok(None)),
        (Some("restrict"), Some("restrict,pty"), Ok(None)),
        (Some("restrict,pty"), Some("restrict"), narrowed),
        (Some("command=\"true\""), Some("command=\"false\""), narrowed),
        (Some("command=\"true\""), Some("command=\"true\""), Ok(None)),
        (Some("from=\"192.0.2.1\""), Some("from=\"192.0.2.1,10.0.0.0/8\""), Ok(None)),
        (Some("expiry-time=\"20300317174640Z\""), None, Ok(None)),
    ] {
        let mut world = World::with(before);
        assert_eq!(world.then(after), expected, "{before:?} -> {after:?}");
        // What was taken away and is given back: a session that was not ended may stay.
        assert!(world.then(before).is_ok());
    }
}

#[test]
fn a_vm_in_maintenance_and_a_user_who_goes_keep_nobody() {
    let mut world = World::with(None);
    let closed = |world: &mut World, is| {
        world.contents.vms[0].vm.closed = is;
        let put = Change::PutVm(world.contents.vms[0].clone());
        let changed = world.shared.table.change(Delta { changes: vec![put] }).unwrap();
        (recheck(&world.shared, &world.report, NOW_S), changed.takes_away)
    };
    assert_eq!(closed(&mut world, true), (Err(Refusal::VmMaintenance), true));
    assert_eq!(closed(&mut world, false).0, Ok(None));
    world.contents.users[0].keys.clear();
    assert!(
        world
            .shared
            .table
            .change(Delta { changes: vec![Change::PutUser(world.contents.users[0].clone())] })
            .unwrap()
            .takes_away
    );
    let gone = recheck(&world.shared, &world.report, NOW_S);
    assert_eq!(gone, Err(Refusal::NotRegistered));
}

#[test]
fn every_reason_has_a_label_and_a_sentence_of_its_own() {
    let labels: BTreeSet<_> = Refusal::ALL.iter().map(|why| why.as_str()).collect();
    let sentences: BTreeSet<_> = Refusal::ALL.iter().map(|why| why.sentence()).collect();
    assert_eq!((labels.len(), sentences.len()), (Refusal::ALL.len(), Refusal::ALL.len()));
    for label in labels {
        assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{label}");
    }
}
