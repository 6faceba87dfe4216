//! Tests of sessions whose host keys somebody else holds.

use super::*;
use crate::ssh::handoff;
use crate::ssh::wire::Put;

/// A session at an agent, and the edge that has its host keys.
struct Handed {
    world: World,
    edge: Arc<ServerConfig>,
}

impl Handed {
    fn new(seed: u64, limits: RekeyLimits) -> Self {
        eprintln!("seed {seed}");
        let algorithms = algorithms(Cipher::Aes128Gcm, Mac::Sha256);
        let edge = server_config(seed ^ 1, algorithms.clone(), limits);
        let server = Arc::new(edge.without_keys());
        let client = client_config(algorithms, never());
        let mut front = Pair::new(seed, Arc::clone(&server), client);
        front.settle().unwrap();
        let (algorithm, host_key, hash) = front.server.transport.unsigned().unwrap();
        let signature = handoff::sign(&edge, (algorithm, host_key), hash.as_bytes()).unwrap();
        front.at_server(|server, cx| server.signed(&signature, cx)).unwrap();
        let mut world = World::joined_to(seed, front, server, Made::default());
        world.relay.begin(&mut world.tools);
        world.settle();
        Self { world, edge }
    }

    /// What is wanted now.
    fn wanted(&mut self) -> Option<Want> {
        self.world.relay.wanted().map(|wanted| wanted.want())
    }

    /// Answers what is wanted, as the edge does; false if it is nothing.
    fn answer(&mut self) -> bool {
        let Some(wanted) = self.world.relay.wanted() else { return false };
        let want = wanted.want();
        let answer = match wanted {
            Wanted::Signature { algorithm, host_key, hash } => {
                handoff::sign(&self.edge, (algorithm, host_key), &hash).unwrap()
            }
            Wanted::Proof(asked) => asked.to_vec(),
        };
        self.world.relay.answered(want, Some(&answer), &mut self.world.tools);
        self.world.settle();
        true
    }

    fn speak(&mut self, number: u8) {
        for party in EACH {
            if !self.world.peer(party).end.transport.is_held() {
                self.world.send(party, &[CHANNEL_DATA, number]);
            }
        }
        self.world.settle();
    }
}

fn request(name: &str, rest: &[u8]) -> Vec<u8> {
    let mut message = vec![GLOBAL_REQUEST];
    message.put_string(name.as_bytes());
    message.put_bool(true);
    message.put_bytes(rest);
    message
}

fn prove(asked: &[u8]) -> Vec<u8> {
    request("hostkeys-prove-00@openssh.com", asked)
}

/// Started by the client, by us, and by both at once: neither has seen the other's KEXINIT.
#[test]
fn a_key_exchange_waits_for_its_signature_whoever_starts_it_and_nothing_is_lost() {
    for (case, (by_us, by_client)) in
        [(true, false), (false, true), (true, true)].iter().enumerate()
    {
        let age_ms = if *by_us { 60_000 } else { u64::MAX };
        let mut all =
            Handed::new(200 + u64::try_from(case).unwrap(), RekeyLimits { age_ms, ..never() });
        for round in 0..5_u8 {
            all.speak(2 * round);
            assert!(!all.answer(), "nothing is due");
            all.world.tools.now.0 += 60_000;
            if *by_us {
                // It is heard, and so we start; it has not seen that when it starts, too.
                let world = &mut all.world;
                world.send(Party::Client, &[CHANNEL_DATA, 100]);
                world
                    .client
                    .work(&mut Context { now: world.tools.now, entropy: &mut world.random });
                world.turn(&mut false);
                assert_eq!(world.relay.client.exchange, Exchange::Ours);
            }
            if *by_client {
                all.world.rekey(Party::Client);
            }
            all.world.settle();
            // While it waits the VM's data does, too.
            let before = all.world.to_client().len();
            all.world.send(Party::Vm, &[CHANNEL_DATA, 2 * round + 1]);
            all.world.settle();
            assert_eq!(all.world.to_client().len(), before, "case {case}");
            assert!(all.answer(), "case {case}");
            assert!(!all.answer());
            assert_eq!(all.world.client.rekeys(), usize::from(round) + 1, "case {case}");
        }
        assert_eq!(all.world.over, None);
        let numbers: Vec<u8> = all.world.to_client().iter().map(|data| data[1]).collect();
        assert_eq!(numbers, (0..10).collect::<Vec<_>>(), "case {case}");
        let heard = all.world.to_vm().iter().filter(|data| data[1] != 100).count();
        assert_eq!(heard, 5, "case {case}");
    }
}

/// It may say nothing: a silence of hours is ours, not the client's.
#[test]
fn a_client_that_waits_for_a_signature_is_not_given_up_before_the_exchange_is() {
    let mut all = Handed::new(210, never());
    all.world.tools.client_alive = ClientAlive { interval: Duration::from_secs(15), count_max: 3 };
    all.world.relay.begin(&mut all.world.tools);
    all.world.rekey(Party::Client);
    all.world.settle();
    for _ in 0..10 {
        all.world.later(15_000);
    }
    assert_eq!(all.world.relay.phase, Phase::Open);
    assert!(all.answer());
    all.speak(1);
    assert_eq!((all.world.to_vm().len(), all.world.client.rekeys()), (1, 1));

    // Nobody ever signs.
    all.world.rekey(Party::Client);
    all.world.settle();
    all.world.tools.client_alive.interval = Duration::ZERO;
    all.world.relay.begin(&mut all.world.tools);
    for _ in 0..=rekey::EXCHANGE_MS_MAX / 60_000 {
        assert_eq!(all.world.relay.phase, Phase::Open);
        all.world.relay.look(&mut all.world.tools);
        all.world.tools.now.0 += 60_000;
    }
    let Phase::Closing { ended, .. } = all.world.relay.phase else { panic!("still open") };
    assert_eq!(ended, session(Side::Client, Cause::from(&Fault::HostKey)));
}

#[test]
fn a_signature_that_is_none_ends_the_session_and_a_key_exchange_that_went_on_takes_no_second() {
    let mut all = Handed::new(220, never());
    all.world.rekey(Party::Client);
    all.world.settle();
    assert!(all.answer());
    all.world.rekey(Party::Client);
    all.world.settle();
    assert_eq!(all.wanted(), Some(Want::Signature));
    assert_eq!(all.wanted(), None, "said once");
    all.world.relay.answered(Want::Signature, Some(b"another"), &mut all.world.tools);
    assert!(matches!(all.world.relay.phase, Phase::Closing { .. }));
}

/// Traps 23 and 24: nobody's reply is taken for another's while the proof is on its way.
#[test]
fn a_proof_comes_later_in_its_turn_and_once() {
    let mut all = Handed::new(230, never());
    let world = &mut all.world;
    world.send(Party::Client, &request("tcpip-forward", b""));
    world.send(Party::Client, &prove(b"asked"));
    world.send(Party::Client, &request("keepalive@openssh.com", b""));
    world.send(Party::Client, &prove(b"asked"));
    world.send(Party::Client, &[CHANNEL_DATA, 1]);
    world.settle();
    assert_eq!(world.to_vm().len(), 3, "only what is not ours is relayed, and at once");
    world.send(Party::Vm, &[REQUEST_SUCCESS, 0, 0, 0, 22]);
    world.send(Party::Vm, &[CHANNEL_DATA, 2]);
    world.send(Party::Vm, &[REQUEST_FAILURE]);
    world.settle();
    assert_eq!(world.to_client(), [vec![REQUEST_SUCCESS, 0, 0, 0, 22], vec![CHANNEL_DATA, 2]]);
    assert!(all.answer());
    let proof = [&[REQUEST_SUCCESS], &b"asked"[..]].concat();
    let failure = vec![REQUEST_FAILURE];
    assert_eq!(all.world.to_client()[2..], [proof, failure.clone(), failure]);
    assert!(!all.answer());
    assert!(all.world.relay.client.replies.owes_none());
}

#[test]
fn a_proof_that_nobody_makes_or_that_asks_for_too_much_is_refused_and_the_session_goes_on() {
    let mut all = Handed::new(240, never());
    all.world.send(Party::Client, &prove(b"asked"));
    all.world.settle();
    assert_eq!(all.wanted(), Some(Want::Proof));
    all.world.relay.answered(Want::Proof, None, &mut all.world.tools);
    all.speak(1);
    assert_eq!(all.world.to_client(), [vec![REQUEST_FAILURE], vec![CHANNEL_DATA, 1]]);
    let mut all = Handed::new(241, never());
    all.world.send(Party::Client, &prove(&vec![0; handoff::PROVE_BYTES_MAX + 1]));
    all.world.settle();
    assert_eq!(all.wanted(), None);
    assert_eq!(all.world.to_client(), [vec![REQUEST_FAILURE]]);
}

/// The client goes on once its NEWKEYS is out: what is due is told behind the key exchange.
#[test]
fn a_proof_that_comes_while_a_key_exchange_runs_is_told_after_it() {
    let mut all = Handed::new(250, never());
    all.world.send(Party::Client, &prove(b"asked"));
    all.world.rekey(Party::Client);
    all.world.settle();
    assert!(all.answer());
    assert!(all.world.to_client().is_empty());
    assert!(all.answer());
    assert_eq!(all.world.client.rekeys(), 1);
    assert_eq!(all.world.to_client(), [[&[REQUEST_SUCCESS], &b"asked"[..]].concat()]);
}
