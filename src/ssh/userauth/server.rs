//! The server's side: which keys may be used, and which one was proved.

use std::mem;
use std::net::IpAddr;

use super::super::certificate::CertificateFault;
use super::super::fault::{Fault, Stage};
use super::super::message;
use super::super::outlet::{Outlet, Sealed};
use super::super::text::{LineEnd, printable_lines};
use super::super::transport::{Context, Transport};
use super::super::wire::{Malformed, Put, Reader};
use super::messages::{
    CONNECTION, KEYBOARD_INTERACTIVE, LOGIN_BYTES_MAX, Method, PUBLIC_KEY, PUBLIC_KEY_HOST_BOUND,
    SERVICE, is_login, service_message,
};
use super::policy::Policy;
use super::proof::{CaChecks, Gate, ProvedKey, Request, RequestJudge, RequestVerdict};

/// Most offers refused on one connection. A refused offer is no failed login: a stock client walks
/// through every key of its agent, and to count that as OpenSSH's `MaxAuthTries` does would shut
/// out people with many keys. The bound is there because each offer costs us a parse, and for a
/// certificate a signature to verify.
pub const OFFERS_MAX: u32 = 64;

/// Most offers accepted on one connection; further ones are refused like unknown keys, whatever
/// they are. A client that is told yes signs, and one that cannot goes on to its next key.
const ACCEPTED_MAX: u32 = 32;

/// Most messages of one connection's authentication, whatever they are: offers that are accepted
/// and never signed, and `SERVICE_REQUEST`s that are repeated (paramiko sends one per key).
const MESSAGES_MAX: u32 = 256;

/// Longest banner, in bytes.
const BANNER_BYTES_MAX: usize = 2 << 10;

/// What the server side wants after a message.
#[derive(Debug)]
pub enum Step {
    /// Go on reading.
    Continue,
    /// A key was proved: answer with `accept` or `refuse` before the next message.
    Proved(Box<ProvedKey>),
}

/// Where the authentication stands.
enum State {
    /// The service was not asked for yet.
    Service,
    /// No request came yet.
    Unbound,
    /// A request came; all others must name the same user (RFC 4252 §5).
    Bound { login: String },
    /// A proof was given out and its answer is due.
    Deciding { login: String },
    /// SUCCESS is sent.
    Accepted,
    /// Over. Every later input gets this same answer.
    Ended(Fault),
}

/// How far the last words are.
///
/// Nothing in the protocol says that a client has no key left: a stock one just hangs up. But
/// before that it walks through all methods that we list, and `keyboard-interactive` comes behind
/// `publickey` with all of them. So once a key was refused that method is listed too, and whoever
/// asks for it reads the words and is refused: no prompt, no answer to read, no second round.
/// Clients that get in with a later key never see them, and to list it for some keys only would
/// tell strangers which ones are known.
#[derive(Clone, Copy, Eq, PartialEq)]
enum LastWords {
    /// No key was refused: `publickey` alone is listed.
    Kept,
    /// `keyboard-interactive` is listed too.
    Due,
    /// They were sent: `publickey` alone is listed again.
    Said,
}

impl LastWords {
    /// After a key was refused.
    const fn due(self) -> Self {
        match self {
            Self::Kept | Self::Due => Self::Due,
            Self::Said => Self::Said,
        }
    }
}

/// The answer to one message, before it is put into bytes.
#[derive(Debug)]
enum Answer {
    /// `SERVICE_ACCEPT`.
    Service,
    /// `USERAUTH_PK_OK` for this algorithm name and blob.
    Usable { name: String, blob: Vec<u8> },
    /// `USERAUTH_FAILURE`.
    Failure,
    /// The last words and `USERAUTH_FAILURE`.
    Words,
    /// The same, if they are not said yet, and the end.
    LastFailure,
    /// Nothing until it is decided.
    Proved(Box<ProvedKey>),
}

/// The server's side of one connection's authentication.
pub struct Authenticator {
    source: IpAddr,
    state: State,
    last_words: LastWords,
    /// Said instead of the policy's last words: as constant as those, for everybody who
    /// dials the same place.
    instead: Option<&'static str>,
    /// Refused signed requests and requests of other methods.
    attempts: u32,
    /// Refused offers, and the request that the last words answer.
    offers: u32,
    /// Accepted offers.
    accepted: u32,
    ca_checks: CaChecks,
    /// All messages.
    messages: u32,
}

impl Authenticator {
    /// `source`: the client's address, for the `source-address` option of certificates.
    #[must_use]
    pub const fn new(source: IpAddr) -> Self {
        let (state, last_words) = (State::Service, LastWords::Kept);
        let ca_checks = CaChecks { last: None, done: 0 };
        Self {
            source,
            state,
            last_words,
            instead: None,
            attempts: 0,
            offers: 0,
            accepted: 0,
            ca_checks,
            messages: 0,
        }
    }

    /// With other last words than the policy's. They must not depend on who comes.
    #[must_use]
    pub const fn saying(mut self, words: &'static str) -> Self {
        self.instead = Some(words);
        self
    }

    /// An offer was answered with yes: the client may ask its user for a passphrase now.
    #[must_use]
    pub const fn waits_for_proof(&self) -> bool {
        self.accepted > 0
    }

    /// Takes one message (5 or 50) that `transport` delivered; answers go out through
    /// `transport.send`. `policy` is the one in force now.
    ///
    /// # Errors
    /// Every fault is final. [`Fault::Attempts`] comes after the last FAILURE was queued;
    /// [`Fault::Service`] for any other service; [`Fault::Unexpected`] for a message out of order
    /// or a changed user name; [`Fault::Flood`] beyond the limit on messages.
    pub fn receive(
        &mut self,
        payload: &[u8],
        unix_s: u64,
        policy: &Policy,
        gate: &dyn Gate,
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Result<Step, Fault> {
        let Some(session_id) = transport.session_id().map(<[u8]>::to_vec) else {
            return Err(self.end(unexpected(payload, Stage::FirstExchange)));
        };
        let host_key = transport.host_key().to_vec();
        let judge = RequestJudge {
            policy,
            source: self.source,
            unix_s,
            gate,
            session_id: &session_id,
            host_key: &host_key,
        };
        self.take(payload, &judge, &mut Sealed { transport, cx })
    }

    /// Judges a proof that was made elsewhere, to whoever holds `host_key`, as if it had come here:
    /// nothing of what the other place made of it is believed. `request`: a signed
    /// `USERAUTH_REQUEST`, whole.
    #[must_use]
    pub fn prove_again(
        request: &[u8],
        (session_id, host_key): (&[u8], &[u8]),
        (source, unix_s): (IpAddr, u64),
        policy: &Policy,
        gate: &dyn Gate,
    ) -> Option<Box<ProvedKey>> {
        let mut authenticator = Self { state: State::Unbound, ..Self::new(source) };
        let judge = RequestJudge { policy, source, unix_s, gate, session_id, host_key };
        match authenticator.judged(request, &judge) {
            Ok(Answer::Proved(proved)) => Some(proved),
            Ok(
                Answer::Service
                | Answer::Usable { .. }
                | Answer::Failure
                | Answer::Words
                | Answer::LastFailure,
            )
            | Err(_) => None,
        }
    }

    /// `USERAUTH_SUCCESS`; calls `transport.authenticated()`.
    ///
    /// # Errors
    /// [`Fault::Unexpected`] when no proof waits for its answer; the transport's own faults.
    pub fn accept(&mut self, transport: &mut Transport, cx: &mut Context<'_>) -> Result<(), Fault> {
        self.put_success(&mut Sealed { transport, cx })?;
        transport.authenticated();
        Ok(())
    }

    /// `USERAUTH_FAILURE` (counts as an attempt).
    ///
    /// # Errors
    /// [`Fault::Attempts`] after the last FAILURE was queued; [`Fault::Unexpected`] when no proof
    /// waits for its answer; the transport's own faults.
    pub fn refuse(
        &mut self,
        policy: &Policy,
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Result<(), Fault> {
        self.put_refusal(policy, &mut Sealed { transport, cx })
    }

    /// [`Authenticator::receive`] without a transport, like the two below for the other calls.
    fn take(
        &mut self,
        payload: &[u8],
        judge: &RequestJudge<'_>,
        out: &mut dyn Outlet,
    ) -> Result<Step, Fault> {
        let answer = self.judged(payload, judge).map_err(|fault| self.end(fault))?;
        self.put(answer, judge.policy, out)
    }

    fn put_success(&mut self, out: &mut dyn Outlet) -> Result<(), Fault> {
        if let State::Deciding { .. } = self.state {
            self.state = State::Accepted;
            out.send(&[message::USERAUTH_SUCCESS])
        } else {
            Err(self.undecided(message::USERAUTH_SUCCESS))
        }
    }

    fn put_refusal(&mut self, policy: &Policy, out: &mut dyn Outlet) -> Result<(), Fault> {
        if let State::Deciding { login } = &mut self.state {
            self.state = State::Bound { login: mem::take(login) };
            let answer = self.proof_refused(policy);
            self.put(answer, policy, out).map(|_| ())
        } else {
            Err(self.undecided(message::USERAUTH_FAILURE))
        }
    }

    fn put(
        &mut self,
        answer: Answer,
        policy: &Policy,
        out: &mut dyn Outlet,
    ) -> Result<Step, Fault> {
        match answer {
            Answer::Service => out.send(&service_message(message::SERVICE_ACCEPT))?,
            Answer::Usable { name, blob } => {
                let mut usable = vec![message::USERAUTH_PK_OK];
                usable.put_string(name.as_bytes());
                usable.put_string(&blob);
                out.send(&usable)?;
            }
            Answer::Failure => out.send(&self.failure(policy))?,
            Answer::Words => self.say_last_words(policy, out)?,
            Answer::LastFailure => {
                self.say_last_words(policy, out)?;
                return Err(self.end(Fault::Attempts));
            }
            Answer::Proved(proved) => return Ok(Step::Proved(proved)),
        }
        Ok(Step::Continue)
    }

    fn words<'a>(&self, policy: &'a Policy) -> &'a str {
        self.instead.unwrap_or(&policy.last_words)
    }

    fn say_last_words(&mut self, policy: &Policy, out: &mut dyn Outlet) -> Result<(), Fault> {
        let words = self.words(policy);
        if self.last_words != LastWords::Said && !words.is_empty() {
            let plus = match &self.state {
                State::Bound { login } if login.contains('+') => policy.plus_words.as_str(),
                State::Service
                | State::Unbound
                | State::Bound { .. }
                | State::Deciding { .. }
                | State::Accepted
                | State::Ended(_) => "",
            };
            out.send(&banner(&[words, plus].join("\n")))?;
        }
        self.last_words = LastWords::Said;
        out.send(&self.failure(policy))
    }

    fn failure(&self, policy: &Policy) -> Vec<u8> {
        let mut methods = String::from(PUBLIC_KEY);
        if self.last_words == LastWords::Due && !self.words(policy).is_empty() {
            methods = format!("{PUBLIC_KEY},{KEYBOARD_INTERACTIVE}");
        }
        let mut message = vec![message::USERAUTH_FAILURE];
        message.put_string(methods.as_bytes());
        message.put_bool(false);
        message
    }

    fn judged(&mut self, payload: &[u8], judge: &RequestJudge<'_>) -> Result<Answer, Fault> {
        if let State::Ended(fault) = &self.state {
            return Err(*fault);
        }
        self.messages = self.messages.saturating_add(1);
        if self.messages > MESSAGES_MAX {
            return Err(Fault::Flood);
        }
        match payload.split_first() {
            Some((&message::SERVICE_REQUEST, body)) => self.service(payload, body),
            Some((&message::USERAUTH_REQUEST, body)) => self.user(payload, body, judge),
            Some(_) | None => Err(unexpected(payload, Stage::Authentication)),
        }
    }

    fn service(&mut self, payload: &[u8], body: &[u8]) -> Result<Answer, Fault> {
        let mut reader = Reader::new(body);
        let service = reader.string()?;
        reader.end()?;
        if service != SERVICE.as_bytes() {
            return Err(Fault::Service);
        }
        match &self.state {
            State::Service => self.state = State::Unbound,
            State::Unbound | State::Bound { .. } => {}
            State::Deciding { .. } | State::Accepted => {
                return Err(unexpected(payload, Stage::Authentication));
            }
            State::Ended(fault) => return Err(*fault),
        }
        Ok(Answer::Service)
    }

    /// A `USERAUTH_REQUEST` of any method.
    fn user(
        &mut self,
        payload: &[u8],
        body: &[u8],
        judge: &RequestJudge<'_>,
    ) -> Result<Answer, Fault> {
        let mut reader = Reader::new(body);
        let login = reader.text()?;
        if login.len() > LOGIN_BYTES_MAX {
            return Err(Malformed::Range.into());
        }
        if reader.string()? != CONNECTION.as_bytes() {
            return Err(Fault::Service);
        }
        let first = match &self.state {
            State::Unbound => true,
            State::Bound { login: bound } if bound == login => false,
            State::Service | State::Bound { .. } | State::Deciding { .. } | State::Accepted => {
                return Err(unexpected(payload, Stage::Authentication));
            }
            State::Ended(fault) => return Err(*fault),
        };
        self.state = State::Bound { login: login.to_owned() };
        let method = match reader.name()? {
            PUBLIC_KEY => Method::PublicKey,
            PUBLIC_KEY_HOST_BOUND => Method::HostBound,
            "none" if first => return Ok(Answer::Failure),
            KEYBOARD_INTERACTIVE if self.last_words == LastWords::Due => {
                // RFC 4256 §3.1: language tag and submethods, which ask nothing of us.
                reader.string()?;
                reader.string()?;
                reader.end()?;
                return Ok(self.count_offer(Answer::Words));
            }
            _ => return Ok(self.attempt_failed(judge.policy)),
        };
        let request = Request::read(payload, login, method, reader, judge.host_key)?;
        // No account has such a name: an unknown user, whatever the key. sshd hangs up on a NUL,
        // which the edge's user would read as a fault of the VM.
        if !is_login(login) {
            judge.gate.hears(login, None, CertificateFault::Login);
            return Ok(if request.is_query() {
                self.offer_refused()
            } else {
                self.proof_refused(judge.policy)
            });
        }
        if request.is_query() && self.accepted >= ACCEPTED_MAX {
            return Ok(self.offer_refused());
        }
        Ok(match judge.verdict(&request, &mut self.ca_checks) {
            RequestVerdict::Usable { name, blob } => {
                self.accepted = self.accepted.saturating_add(1);
                Answer::Usable { name, blob }
            }
            RequestVerdict::OfferRefused => self.offer_refused(),
            RequestVerdict::ProofRefused => self.proof_refused(judge.policy),
            RequestVerdict::Proved(proved) => {
                self.state = State::Deciding { login: login.to_owned() };
                Answer::Proved(proved)
            }
        })
    }

    /// Nothing waited to be decided: the caller's mistake, and no reason to let anybody in.
    fn undecided(&mut self, number: u8) -> Fault {
        let fault = match &self.state {
            State::Ended(fault) => *fault,
            State::Service
            | State::Unbound
            | State::Bound { .. }
            | State::Deciding { .. }
            | State::Accepted => Fault::Unexpected { number, during: Stage::Authentication },
        };
        self.end(fault)
    }

    fn attempt_failed(&mut self, policy: &Policy) -> Answer {
        self.attempts = self.attempts.saturating_add(1);
        if self.attempts >= policy.attempts_max { Answer::LastFailure } else { Answer::Failure }
    }

    fn proof_refused(&mut self, policy: &Policy) -> Answer {
        self.last_words = self.last_words.due();
        self.attempt_failed(policy)
    }

    fn offer_refused(&mut self) -> Answer {
        self.last_words = self.last_words.due();
        self.count_offer(Answer::Failure)
    }

    /// Bounded like an offer: it ends the connection if there were too many.
    fn count_offer(&mut self, answer: Answer) -> Answer {
        self.offers = self.offers.saturating_add(1);
        if self.offers >= OFFERS_MAX { Answer::LastFailure } else { answer }
    }

    fn end(&mut self, fault: Fault) -> Fault {
        self.state = State::Ended(fault);
        fault
    }
}

fn unexpected(payload: &[u8], during: Stage) -> Fault {
    Fault::Unexpected { number: payload.first().copied().unwrap_or_default(), during }
}

fn banner(text: &str) -> Vec<u8> {
    let mut message = vec![message::USERAUTH_BANNER];
    message.put_string(printable_lines(text, LineEnd::CrLf, BANNER_BYTES_MAX).as_bytes());
    message.put_string(b"");
    message
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
