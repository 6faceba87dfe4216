//! Which message is legal when: every number, at every step of every stage, towards both roles.
//!
//! The table stands here a second time, in the words of the RFCs, and the transport is asked for
//! each of its entries.

use super::*;

/// How far a connection is in the protocol's own order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reached {
    Nothing,
    Keys,
    User,
}

/// How far a key exchange is, as the end under attack sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    /// None runs.
    Idle,
    /// Our KEXINIT is out.
    Offered,
    /// The peer's KEXINIT is here too.
    Begun,
    /// Our NEWKEYS is out.
    Switched,
}

const STEPS: [Step; 4] = [Step::Idle, Step::Offered, Step::Begun, Step::Switched];

fn is_legal(number: u8, victim: Role, reached: Reached, step: Step) -> bool {
    let quiet = matches!(step, Step::Idle | Step::Offered);
    let server = victim == Role::Server;
    match number {
        message::DISCONNECT => true,
        // Both ends speak strict KEX, which is known from the second KEXINIT on.
        message::IGNORE | message::UNIMPLEMENTED | message::DEBUG => {
            reached != Reached::Nothing || quiet
        }
        message::SERVICE_REQUEST => server && reached == Reached::Keys && quiet,
        message::USERAUTH_REQUEST => server && reached != Reached::Nothing && quiet,
        message::SERVICE_ACCEPT
        | message::USERAUTH_FAILURE
        | message::USERAUTH_SUCCESS
        | message::USERAUTH_BANNER
        | message::USERAUTH_PK_OK => !server && reached == Reached::Keys && quiet,
        message::EXT_INFO | message::PING | message::PONG => reached != Reached::Nothing && quiet,
        message::KEXINIT => quiet,
        message::NEWKEYS => step == Step::Switched,
        message::KEX_ECDH_INIT => server && step == Step::Begun,
        message::KEX_ECDH_REPLY => !server && step == Step::Begun,
        80..=127 => reached == Reached::User,
        number if is_unknown(number) => reached != Reached::Nothing && quiet,
        _ => false,
    }
}

/// RFC 4250 §4.1.1: reserved for client protocols, and local extensions, of which we speak one.
fn is_unknown(number: u8) -> bool {
    number >= 128 && !matches!(number, message::PING | message::PONG)
}

/// A pair at some point, and what an attacker needs there.
struct Scene {
    pair: Pair,
    victim: Role,
    /// What the peer seals with at this point of its stream.
    sealer: Sealer,
    /// What comes next from the peer.
    next: Vec<u8>,
}

impl Scene {
    fn new(seed: u64, victim: Role, reached: Reached, step: Step) -> Self {
        let algorithms =
            Algorithms { methods: vec![Method::Curve25519], ..with_ciphers(&[Cipher::Aes128Gcm]) };
        let mut scene = Self {
            pair: pair_with(seed, &algorithms),
            victim,
            sealer: Sealer::plain(),
            next: Vec::new(),
        };
        if reached != Reached::Nothing {
            scene.pair.settle().unwrap();
        }
        if reached == Reached::User {
            scene.pair.authenticate();
        }
        scene.advance(reached, step);
        scene
    }

    fn advance(&mut self, reached: Reached, step: Step) {
        self.copy_sealer();
        match (reached, step) {
            (_, Step::Idle) => {}
            (Reached::Nothing, Step::Offered) => {
                let bytes = self.peer().take_output();
                let line = bytes.split_inclusive(|byte| *byte == b'\n').next().unwrap();
                self.next = bytes.strip_prefix(line).unwrap().to_vec();
                self.deliver(line).unwrap();
            }
            (_, Step::Offered) => self.at_victim(|t, cx| t.rekey(None, cx)).unwrap(),
            (_, Step::Begun | Step::Switched) => {
                // A no-op in the first key exchange.
                self.at_peer(|t, cx| t.rekey(None, cx)).unwrap();
                let begin = self.peer().take_output();
                self.deliver(&begin).unwrap();
                self.copy_sealer();
                if step == Step::Switched {
                    self.switch();
                }
            }
        }
    }

    fn switch(&mut self) {
        let answer = self.victim().take_output();
        let (peer, mut cx) = match self.victim {
            Role::Server => (&mut self.pair.client, cx(&mut self.pair.random)),
            Role::Client => (&mut self.pair.server, cx(&mut self.pair.random)),
        };
        peer.inbox.extend(answer);
        peer.receive(&mut cx).unwrap();
        let mut bytes = peer.take_output();
        if self.victim == Role::Client {
            // The reply alone: behind it stands the NEWKEYS.
            let field = u32::from_be_bytes(*bytes.first_chunk().unwrap());
            let frame = self.sealer.suite().map_or(4, |_aes_gcm| 4 + 16);
            self.next = bytes.split_off(usize::try_from(field).unwrap().saturating_add(frame));
            self.sealer.seal(b"x", &mut Seeded(1), &mut Vec::new()).unwrap();
        } else {
            self.copy_sealer();
        }
        self.deliver(&bytes).unwrap();
    }

    /// A second sealer with the peer's keys and counters.
    fn copy_sealer(&mut self) {
        let sealer = &mut self.peer().transport.sealer;
        if sealer.suite().is_none() {
            return;
        }
        let (keys, seq) = std::mem::replace(sealer, Sealer::plain()).into_keys().unwrap();
        let mut copy = Keys::zero(keys.suite());
        for (to, from) in copy.parts_mut().into_iter().zip([keys.iv(), keys.key(), keys.mac_key()])
        {
            to.copy_from_slice(from);
        }
        *sealer = Sealer::from_keys(keys, seq);
        self.sealer = Sealer::from_keys(copy, seq);
    }

    fn victim(&mut self) -> &mut Peer {
        match self.victim {
            Role::Client => &mut self.pair.client,
            Role::Server => &mut self.pair.server,
        }
    }

    fn peer(&mut self) -> &mut Peer {
        match self.victim {
            Role::Client => &mut self.pair.server,
            Role::Server => &mut self.pair.client,
        }
    }

    fn at_victim<T>(&mut self, body: impl FnOnce(&mut Transport, &mut Context<'_>) -> T) -> T {
        match self.victim {
            Role::Client => self.pair.at_client(body),
            Role::Server => self.pair.at_server(body),
        }
    }

    fn at_peer<T>(&mut self, body: impl FnOnce(&mut Transport, &mut Context<'_>) -> T) -> T {
        match self.victim {
            Role::Client => self.pair.at_server(body),
            Role::Server => self.pair.at_client(body),
        }
    }

    fn deliver(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let Pair { client, server, random, .. } = &mut self.pair;
        let victim = match self.victim {
            Role::Client => client,
            Role::Server => server,
        };
        victim.inbox.extend(bytes);
        victim.receive(&mut cx(random))
    }

    fn inject(&mut self, payload: &[u8]) -> Result<(), Fault> {
        let mut packet = Vec::new();
        self.sealer.seal(payload, &mut Seeded(2), &mut packet).unwrap();
        self.deliver(&packet)
    }

    /// The rest of the honest conversation.
    fn carry_on(&mut self) -> Result<(), Fault> {
        let next = std::mem::take(&mut self.next);
        self.deliver(&next)?;
        self.pair.settle()
    }
}

fn cx(random: &mut Seeded) -> Context<'_> {
    Context { now: Instant(1_000), entropy: random }
}

fn check_every_number(victim: Role) {
    for reached in [Reached::Nothing, Reached::Keys, Reached::User] {
        for step in STEPS {
            if (reached, step) == (Reached::Nothing, Step::Idle) {
                continue;
            }
            for number in 0..=255 {
                let mut scene = Scene::new(u64::from(number), victim, reached, step);
                let outcome = scene.inject(&[number]);
                let place = format!("{number} to a {victim:?}, {reached:?}, {step:?}: {outcome:?}");
                if is_legal(number, victim, reached, step) {
                    assert!(!matches!(outcome, Err(Fault::Unexpected { .. })), "{place}");
                    if is_unknown(number) {
                        assert_eq!(outcome, Ok(()), "{place}");
                        assert!(scene.victim().payloads.is_empty(), "{place}");
                    }
                    continue;
                }
                let Err(Fault::Unexpected { number: refused, .. }) = outcome else {
                    panic!("{place}");
                };
                assert_eq!(refused, number, "{place}");
                assert!(scene.victim().payloads.is_empty(), "{place}");
                assert_eq!(
                    scene.inject(&[message::DISCONNECT]),
                    outcome,
                    "a fault sticks: {place}"
                );
            }
        }
    }
}

#[test]
fn what_the_table_does_not_allow_ends_a_server() {
    check_every_number(Role::Server);
}

#[test]
fn what_the_table_does_not_allow_ends_a_client() {
    check_every_number(Role::Client);
}

/// RFC 4253 §11.4: in the order in which they came, with the number of the packet. Before a user is
/// authenticated they count with all messages that make no progress.
#[test]
fn a_number_that_nobody_speaks_is_answered_with_unimplemented() {
    for victim in [Role::Server, Role::Client] {
        for reached in [Reached::Keys, Reached::User] {
            let mut scene = Scene::new(301, victim, reached, Step::Idle);
            let numbers = [128, 191, 194, 200, 255];
            for number in numbers {
                scene.inject(&[number, 1, 2, 3]).unwrap();
            }
            let first = scene.sealer.seq().wrapping_sub(5);
            let answers = scene.victim().take_output();
            let (pair, mut cx) = match victim {
                Role::Server => (&mut scene.pair.client, cx(&mut scene.pair.random)),
                Role::Client => (&mut scene.pair.server, cx(&mut scene.pair.random)),
            };
            pair.inbox.extend(answers);
            pair.receive(&mut cx).unwrap();
            let unknown = |at| Event::Unimplemented(first.wrapping_add(at));
            assert!(pair.events.ends_with(&[0, 1, 2, 3, 4].map(unknown)), "{:?}", pair.events);
            let ended = (0..IDLE_MESSAGES_MAX).find_map(|_| scene.inject(&[200]).err());
            assert_eq!(ended, (reached == Reached::Keys).then_some(Fault::Flood));
        }
    }
}

/// An answer in the middle of our own key exchange waits for its end: not every client
/// takes one there.
#[test]
fn unimplemented_waits_for_the_end_of_a_key_exchange() {
    let mut scene = Scene::new(302, Role::Server, Reached::User, Step::Offered);
    scene.victim().take_output();
    scene.inject(&[200]).unwrap();
    assert!(scene.victim().take_output().is_empty());
}

/// What a PING asks us to keep before anybody is authenticated is bounded, read or not.
#[test]
fn pings_before_authentication_are_short() {
    let ping = |len| [&[message::PING, 0, 0, 0, len][..], &vec![7; usize::from(len)]].concat();
    let mut scene = Scene::new(303, Role::Server, Reached::Keys, Step::Idle);
    for _ in 0..IDLE_MESSAGES_MAX {
        scene.inject(&ping(64)).unwrap();
    }
    let held = scene.victim().transport.waiting_capacity();
    assert!(held <= 16 << 10, "{held}");
    let mut scene = Scene::new(304, Role::Server, Reached::Keys, Step::Idle);
    assert_eq!(scene.inject(&ping(65)), Err(Fault::Malformed(Malformed::Range)));
    let mut scene = Scene::new(305, Role::Server, Reached::User, Step::Idle);
    scene.inject(&ping(255)).unwrap();
}

/// Trap 15, CVE-2023-48795 (Terrapin), arXiv 2509.10895: whatever somebody in the middle slips in
/// before the first NEWKEYS, in either direction, there will be no connection.
#[test]
fn nothing_slipped_in_before_the_first_newkeys_leaves_a_connection() {
    for victim in [Role::Server, Role::Client] {
        for step in [Step::Offered, Step::Begun, Step::Switched] {
            let mut honest = Scene::new(300, victim, Reached::Nothing, step);
            honest.carry_on().unwrap();
            assert!(honest.victim().events.contains(&Event::Secured), "{victim:?} {step:?}");
            for number in 0..=255 {
                for body in [&[][..], &[0; 4], &[0; 8]] {
                    let mut scene = Scene::new(u64::from(number), victim, Reached::Nothing, step);
                    let payload = [&[number], body].concat();
                    let ended = scene.inject(&payload).and_then(|()| scene.carry_on());
                    assert!(ended.is_err(), "{payload:?} to a {victim:?} in {step:?}");
                }
            }
        }
    }
}
