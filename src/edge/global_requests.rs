//! The few global requests that concern one leg alone: host keys are the edge's towards the client,
//! the VM's towards the edge (OpenSSH PROTOCOL §2.5).
//!
//! Replies to global requests carry no identifier: the n-th reply answers the n-th request
//! that wanted one (RFC 4254 §4). An answer of ours therefore waits until all earlier
//! requests have theirs.

use std::collections::VecDeque;

use crate::ssh::fault::Fault;
use crate::ssh::handoff::PROVE_BYTES_MAX;
use crate::ssh::host_key::HostKey;
use crate::ssh::message::{GLOBAL_REQUEST, REQUEST_FAILURE, REQUEST_SUCCESS};
use crate::ssh::publickey::{KeyType, SignatureAlgorithm};
use crate::ssh::transport::{ServerConfig, Transport};
use crate::ssh::wire::{Malformed, Put, Reader};

/// Sent by a server that tells its host keys.
const HOST_KEYS: &[u8] = b"hostkeys-00@openssh.com";

/// Sent by a client that wants a proof for keys told; also the first field of what is signed.
const PROVE: &[u8] = b"hostkeys-prove-00@openssh.com";

/// A request that nobody knows and everybody must refuse: whoever does is there (OpenSSH
/// `serverloop.c`).
const KEEP_ALIVE: &[u8] = b"keepalive@openssh.com";

/// Answers of ours that may wait for answers of the other side. One proof is answered a session, so
/// only a client that asks again and again has more than one.
const WAITING_MAX: usize = 16;

/// Bytes of the other side's replies that may wait for an answer of ours: any reply that
/// somebody knows has a few.
const HELD_BYTES_MAX: usize = 16 << 10;

/// A global request, as far as a relay has to tell them apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Request<'a> {
    /// The host keys of a server.
    HostKeys {
        /// It should not, but then it must have its answer.
        wants_reply: bool,
    },
    /// Asks to prove these host keys (the fields after the header).
    Prove(&'a [u8]),
    /// Anything else.
    Other {
        /// The other side will answer.
        wants_reply: bool,
    },
}

impl<'a> Request<'a> {
    /// Reads a GLOBAL_REQUEST message.
    ///
    /// # Errors
    /// It does not parse as far as the header goes: then nobody could tell who must answer it.
    pub(super) fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(message);
        reader.u8()?;
        let name = reader.string()?;
        let wants_reply = reader.bool()?;
        Ok(match name {
            HOST_KEYS => Self::HostKeys { wants_reply },
            PROVE if wants_reply => Self::Prove(reader.rest()),
            _ => Self::Other { wants_reply },
        })
    }
}

/// The request that tells a client the edge's host keys. It wants no reply.
pub(super) fn host_keys(keys: &[HostKey]) -> Vec<u8> {
    let mut message = vec![GLOBAL_REQUEST];
    message.put_string(HOST_KEYS);
    message.put_bool(false);
    for key in keys {
        message.put_string(key.key.public().blob());
    }
    message
}

/// The request that asks a peer whether it is there.
pub(super) fn keep_alive() -> Vec<u8> {
    let mut message = vec![GLOBAL_REQUEST];
    message.put_string(KEEP_ALIVE);
    message.put_bool(true);
    message
}

/// The reply to [`Request::Prove`]. `signatures`: of all keys asked for.
pub(super) fn proof(signatures: Option<&[u8]>) -> Vec<u8> {
    match signatures {
        Some(signatures) => [&[REQUEST_SUCCESS], signatures].concat(),
        None => failure(),
    }
}

/// The reply that refuses a request.
pub(super) fn failure() -> Vec<u8> {
    vec![REQUEST_FAILURE]
}

/// A signature for each key that [`Request::Prove`] asks for, one behind the other; `None` if one
/// is not ours. `rsa`: the algorithm for RSA keys, if the client takes one.
pub(super) fn signatures(
    asked: &[u8],
    keys: &[HostKey],
    session_id: &[u8],
    rsa: Option<SignatureAlgorithm>,
) -> Option<Vec<u8>> {
    let mut reader = Reader::new(asked);
    let mut all = Vec::new();
    for _ in keys {
        if reader.is_empty() {
            break;
        }
        let blob = reader.string().ok()?;
        let key = &keys.iter().find(|key| key.key.public().blob() == blob)?.key;
        let mut signed = Vec::new();
        signed.put_string(PROVE);
        signed.put_string(session_id);
        signed.put_string(blob);
        let mut algorithms = key.algorithms().iter();
        let taken = |one: &SignatureAlgorithm| one.key_type() != KeyType::Rsa || rsa == Some(*one);
        let algorithm = *algorithms.find(|one| taken(one))?;
        all.put_string(&key.sign(algorithm, &signed).ok()?);
    }
    // More than one signature a key is nobody's need, and each may be an RSA one.
    (reader.is_empty() && !asked.is_empty()).then_some(all)
}

/// Whether a client had its proof of our host keys: it may have one.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Proof {
    Open,
    /// Somebody else is to prove the keys asked for.
    Due(Box<[u8]>),
    AskedFor,
    Given,
}

impl Proof {
    /// The answer to a client that asks; `None`: it is not known yet.
    pub(super) fn requested(
        &mut self,
        asked: &[u8],
        server: &ServerConfig,
        transport: &Transport,
    ) -> Option<Vec<u8>> {
        if *self != Self::Open {
            return Some(failure());
        }
        if !server.signs() && asked.len() <= PROVE_BYTES_MAX {
            *self = Self::Due(asked.into());
            return None;
        }
        *self = Self::Given;
        let rsa = transport.rsa_proofs();
        let made =
            transport.session_id().and_then(|id| signatures(asked, server.host_keys(), id, rsa));
        Some(proof(made.as_deref()))
    }

    /// What somebody else is to prove: said once.
    pub(super) fn due(&mut self) -> Option<Box<[u8]>> {
        match std::mem::replace(self, Self::AskedFor) {
            Self::Due(asked) => Some(asked),
            other @ (Self::Open | Self::AskedFor | Self::Given) => {
                *self = other;
                None
            }
        }
    }
}

/// The requests of one leg's peer that still wait for a reply, theirs and ours in one order.
#[derive(Debug, Default)]
pub(super) struct Replies {
    /// Requests that were relayed and wait for the other side's reply.
    owed: u32,
    ours: VecDeque<Waiting>,
    /// Bytes of replies held in `ours`.
    held_bytes: usize,
}

/// A question of ours to one peer, among the requests of the other side that it has to answer too.
#[derive(Debug, Default)]
pub(super) enum Question {
    #[default]
    None,
    Asked {
        /// Replies that belong to the other side and come first.
        after: u32,
        /// The packet that it went out in.
        seq: u32,
    },
}

impl Question {
    /// The question goes out now, in packet `seq`, behind `owed` requests that wait
    /// for their replies.
    pub(super) const fn ask(&mut self, owed: u32, seq: u32) {
        *self = Self::Asked { after: owed, seq };
    }

    /// It waits for its answer.
    pub(super) const fn is_open(&self) -> bool {
        matches!(self, Self::Asked { .. })
    }

    /// A reply came: true if it is the answer, and not the other side's.
    pub(super) const fn takes_reply(&mut self) -> bool {
        match self {
            Self::None => false,
            Self::Asked { after: 0, .. } => {
                *self = Self::None;
                true
            }
            Self::Asked { after, .. } => {
                *after -= 1;
                false
            }
        }
    }

    /// The peer does not know packet `sent`: that is an answer too, and no reply will come.
    pub(super) const fn is_unknown(&mut self, sent: u32) {
        if let Self::Asked { seq, .. } = self
            && *seq == sent
        {
            *self = Self::None;
        }
    }

    /// Nor will one for packet `sent`, a request of the other side.
    pub(super) const fn skips_reply(&mut self, sent: u32) {
        if let Self::Asked { after, seq } = self
            && seq.wrapping_sub(sent) < u32::MAX / 2
        {
            *after = after.saturating_sub(1);
        }
    }
}

/// An answer of ours whose turn has not come.
#[derive(Debug)]
struct Waiting {
    /// Replies of the other side that go first.
    after: u32,
    /// `None`: somebody else makes it, and it is not here yet.
    message: Option<Vec<u8>>,
    /// Replies of the other side that came before their turn: they follow.
    held: Vec<Vec<u8>>,
}

impl Replies {
    /// Requests that wait for the other side's reply.
    pub(super) const fn owed(&self) -> u32 {
        self.owed
    }

    /// A request that wants a reply went to the other side.
    pub(super) const fn relayed(&mut self) {
        self.owed = self.owed.saturating_add(1);
    }

    /// Nothing waits for a reply.
    pub(super) fn owes_none(&self) -> bool {
        self.owed == 0 && self.ours.is_empty()
    }

    /// We answer a request ourselves: gives `message` back if it may go at once.
    ///
    /// # Errors
    /// [`Fault::Flood`]: too many wait already.
    pub(super) fn answer(&mut self, message: Vec<u8>) -> Result<Option<Vec<u8>>, Fault> {
        if self.owes_none() {
            return Ok(Some(message));
        }
        self.wait(Some(message))?;
        Ok(None)
    }

    /// We answer a request ourselves, and do not know how yet.
    ///
    /// # Errors
    /// As [`Replies::answer`].
    pub(super) fn answer_later(&mut self) -> Result<(), Fault> {
        self.wait(None)
    }

    fn wait(&mut self, message: Option<Vec<u8>>) -> Result<(), Fault> {
        if self.ours.len() == WAITING_MAX {
            return Err(Fault::Flood);
        }
        self.ours.push_back(Waiting { after: self.owed, message, held: Vec::new() });
        Ok(())
    }

    /// What [`Replies::answer_later`] spoke of is here: gives what may go now.
    pub(super) fn answer_came(&mut self, message: Vec<u8>) -> Vec<Vec<u8>> {
        if let Some(waiting) = self.ours.iter_mut().find(|waiting| waiting.message.is_none()) {
            waiting.message = Some(message);
        }
        self.due()
    }

    /// A reply of the other side came: gives it back if it may go at once, and what follows it.
    ///
    /// # Errors
    /// [`Fault::Flood`]: too much of theirs waits for an answer of ours.
    pub(super) fn reply(&mut self, reply: Vec<u8>) -> Result<Vec<Vec<u8>>, Fault> {
        if !self.must_wait() {
            let mut due = vec![reply];
            due.extend(self.passed());
            return Ok(due);
        }
        self.held_bytes = self.held_bytes.saturating_add(reply.len());
        if self.held_bytes > HELD_BYTES_MAX {
            return Err(Fault::Flood);
        }
        if let Some(last) = self.ours.iter_mut().rfind(|waiting| waiting.after == 0) {
            last.held.push(reply);
        }
        self.count();
        Ok(Vec::new())
    }

    /// Whether the next reply of the other side has to wait for an answer of ours.
    pub(super) fn must_wait(&self) -> bool {
        self.ours.front().is_some_and(|waiting| waiting.after == 0)
    }

    /// A reply of the other side was relayed: gives the answers of ours whose turn it is now.
    pub(super) fn passed(&mut self) -> Vec<Vec<u8>> {
        self.count();
        self.due()
    }

    /// One reply of the other side came.
    fn count(&mut self) {
        self.owed = self.owed.saturating_sub(1);
        for waiting in &mut self.ours {
            waiting.after = waiting.after.saturating_sub(1);
        }
    }

    fn due(&mut self) -> Vec<Vec<u8>> {
        let mut due = Vec::new();
        let is_due = |waiting: &mut Waiting| waiting.after == 0 && waiting.message.is_some();
        while let Some(Waiting { message, held, .. }) = self.ours.pop_front_if(is_due) {
            due.extend(message);
            self.held_bytes -= held.iter().map(Vec::len).sum::<usize>();
            due.extend(held);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::entropy::SystemEntropy;
    use crate::ssh::private_key::PrivateKey;
    use crate::ssh::testing::Seeded;

    fn request(name: &[u8], wants_reply: bool, rest: &[u8]) -> Vec<u8> {
        let mut message = vec![GLOBAL_REQUEST];
        message.put_string(name);
        message.put_bool(wants_reply);
        message.put_bytes(rest);
        message
    }

    #[test]
    fn requests_are_told_apart_by_their_whole_name() {
        let read = |name: &[u8], wants_reply| {
            format!("{:?}", Request::read(&request(name, wants_reply, b"rest")).unwrap())
        };
        assert_eq!(read(HOST_KEYS, false), "HostKeys { wants_reply: false }");
        assert_eq!(read(HOST_KEYS, true), "HostKeys { wants_reply: true }");
        assert_eq!(read(PROVE, true), format!("Prove({:?})", b"rest"));
        assert_eq!(read(PROVE, false), "Other { wants_reply: false }");
        assert_eq!(read(b"hostkeys-00@openssh.co", false), "Other { wants_reply: false }");
        assert_eq!(read(b"keepalive@openssh.com", true), "Other { wants_reply: true }");
    }

    #[test]
    fn a_request_without_a_header_is_malformed() {
        let whole = request(HOST_KEYS, true, b"");
        for len in 0..whole.len() {
            assert!(Request::read(&whole[..len]).is_err(), "length {len}");
        }
    }

    #[test]
    fn an_rsa_key_is_proved_with_the_algorithm_the_client_takes_or_not_at_all() {
        let rsa = include_str!("../ssh/userauth/testdata/rsa2048");
        let rsa = PrivateKey::from_openssh(rsa).unwrap().0;
        let ed25519 = PrivateKey::generate_ed25519(&mut SystemEntropy::default());
        let keys = [rsa, ed25519].map(|key| HostKey { key, certificate: None });
        let id = [7; 32];
        let asked = |key: &HostKey| {
            let mut asked = Vec::new();
            asked.put_string(key.key.public().blob());
            asked
        };
        let [rsa, ed25519] = &keys;
        for algorithm in [SignatureAlgorithm::RsaSha256, SignatureAlgorithm::RsaSha512] {
            let all = signatures(&asked(rsa), &keys, &id, Some(algorithm)).unwrap();
            let mut reader = Reader::new(&all);
            let mut signed = Vec::new();
            for field in [PROVE, &id, rsa.key.public().blob()] {
                signed.put_string(field);
            }
            rsa.key.public().verify(algorithm, &signed, reader.string().unwrap()).unwrap();
        }
        assert_eq!(signatures(&asked(rsa), &keys, &id, None), None);
        assert!(signatures(&asked(ed25519), &keys, &id, None).is_some());
    }

    #[test]
    fn our_answer_waits_for_the_replies_to_earlier_requests_and_not_for_later_ones() {
        let mut replies = Replies::default();
        assert_eq!(replies.answer(vec![1]).unwrap(), Some(vec![1]));
        replies.relayed();
        replies.relayed();
        assert_eq!(replies.answer(vec![2]).unwrap(), None);
        assert_eq!(replies.answer(vec![3]).unwrap(), None);
        replies.relayed();
        assert_eq!(replies.answer(vec![4]).unwrap(), None);
        assert_eq!(replies.passed(), Vec::<Vec<u8>>::new());
        assert_eq!(replies.passed(), [vec![2], vec![3]]);
        assert_eq!(replies.passed(), [vec![4]]);
        assert_eq!(replies.answer(vec![5]).unwrap(), Some(vec![5]));
        // A reply nobody asked for changes nothing.
        assert_eq!(replies.passed(), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn replies_to_later_requests_wait_for_an_answer_of_ours_that_is_not_here_yet() {
        let mut replies = Replies::default();
        let none = Vec::<Vec<u8>>::new();
        replies.relayed();
        replies.answer_later().unwrap();
        replies.relayed();
        assert_eq!(replies.answer(vec![4]).unwrap(), None);
        replies.relayed();
        assert_eq!(replies.answer(vec![6]).unwrap(), None);
        assert_eq!(replies.reply(vec![1]).unwrap(), [[1]]);
        assert_eq!(replies.reply(vec![3]).unwrap(), none);
        assert_eq!(replies.reply(vec![5]).unwrap(), none);
        assert_eq!(replies.answer_came(vec![2]), [[2], [3], [4], [5], [6]]);
        assert!(replies.owes_none());
        // It was here before its turn.
        replies.relayed();
        replies.answer_later().unwrap();
        assert_eq!(replies.answer_came(vec![2]), none);
        assert!(!replies.owes_none());
        assert_eq!(replies.reply(vec![1]).unwrap(), [[1], [2]]);
        // Nothing relayed, and still one that waits.
        replies.answer_later().unwrap();
        assert_eq!(replies.answer(vec![8]).unwrap(), None);
        assert_eq!(replies.answer_came(vec![7]), [[7], [8]]);
        assert_eq!(replies.answer(vec![9]).unwrap(), Some(vec![9]));
    }

    /// Replies carry no id (trap 24): whenever each comes, they go out as the requests came in.
    #[test]
    fn replies_go_out_in_the_order_of_their_requests_whenever_each_is_there() {
        for seed in 0..500 {
            let (mut random, mut replies) = (Seeded(seed), Replies::default());
            let (mut next, mut said, mut later) = (0_u8, Vec::new(), None);
            let mut relayed = VecDeque::new();
            while next < 40 || later.is_some() || !relayed.is_empty() {
                match random.below(5) {
                    0 if next < 40 && replies.ours.len() < WAITING_MAX => {
                        said.extend(replies.answer(vec![next]).unwrap());
                        next += 1;
                    }
                    1 if next < 40 => {
                        replies.relayed();
                        relayed.push_back(next);
                        next += 1;
                    }
                    2 if next < 40 && later.is_none() && replies.ours.len() < WAITING_MAX => {
                        replies.answer_later().unwrap();
                        later = Some(next);
                        next += 1;
                    }
                    3 if !relayed.is_empty() => {
                        let reply = vec![relayed.pop_front().unwrap()];
                        if replies.must_wait() || random.below(2) == 0 {
                            said.extend(replies.reply(reply).unwrap());
                        } else {
                            said.push(reply);
                            said.extend(replies.passed());
                        }
                    }
                    4 => {
                        let came = later.take().map(|later| replies.answer_came(vec![later]));
                        said.extend(came.unwrap_or_default());
                    }
                    _ => {}
                }
            }
            assert_eq!(said.concat(), (0..next).collect::<Vec<_>>(), "seed {seed}");
            assert!(replies.owes_none() && replies.held_bytes == 0, "seed {seed}");
        }
    }

    #[test]
    fn what_is_held_for_an_answer_of_ours_is_bounded() {
        let mut replies = Replies::default();
        for _ in 0..2 {
            replies.answer_later().unwrap();
            for _ in 0..16 {
                replies.relayed();
                assert!(replies.reply(vec![0; HELD_BYTES_MAX / 16]).unwrap().is_empty());
            }
            assert_eq!(replies.answer_came(failure()).len(), 17, "what is gone counts no more");
        }
        replies.answer_later().unwrap();
        replies.relayed();
        assert_eq!(replies.reply(vec![0; HELD_BYTES_MAX + 1]), Err(Fault::Flood));
    }

    #[test]
    fn the_answer_to_our_question_is_the_reply_behind_those_to_earlier_requests() {
        let mut question = Question::default();
        assert!(!question.takes_reply());
        question.ask(2, 7);
        assert_eq!([0; 4].map(|_| question.takes_reply()), [false, false, true, false]);
        question.ask(0, 8);
        question.is_unknown(7);
        assert!(question.is_open());
        question.is_unknown(8);
        assert!(!question.takes_reply());
        question.ask(2, 9);
        question.skips_reply(10);
        question.skips_reply(7);
        assert_eq!([0; 2].map(|_| question.takes_reply()), [false, true]);
    }

    #[test]
    fn a_client_that_asks_without_end_is_a_flood() {
        let mut replies = Replies::default();
        replies.relayed();
        for _ in 0..WAITING_MAX {
            assert_eq!(replies.answer(failure()).unwrap(), None);
        }
        assert_eq!(replies.answer(failure()), Err(Fault::Flood));
    }
}
