//! What a client says before its VM is reached.
//!
//! It may go on at once after its login, so its messages wait here, in order and bounded, for the
//! VM or for the words that there is none. What asks for nothing but a sign of life is answered: a
//! client that gives up after some silence (`ServerAliveInterval`) lives through a slow dial. So is
//! what asks for proof of our own host keys. Replies to global requests carry no identifier (RFC
//! 4254 §4): once one waits for the VM, later ones wait behind it, and the sign of life is a
//! message that means nothing. PING and IGNORE are the transport's.

use std::collections::VecDeque;

use super::global_requests::{self as requests, Proof, Replies, Request};
use super::login_leg::{Broken, LoginLeg, Scratch};
use super::packet_size;
use crate::ssh::fault::Fault;
use crate::ssh::message::{CHANNEL_OPEN, GLOBAL_REQUEST, IGNORE};
use crate::ssh::transport::{Context, Event, Transport};
use crate::ssh::wire::{Malformed, Reader};

/// Bytes that wait before no more is read: room for the opens and requests of any client, and
/// nobody's data, which may come only once a channel is open. One packet may be over it.
const WAITING_MAX: usize = 64 << 10;
/// What one message takes beside its bytes.
const MESSAGE_BYTES: usize = 64;

/// Requests by this prefix are signs of life in every implementation that sends them.
const KEEPALIVE: &[u8] = b"keepalive@";

/// The messages of one client.
pub(super) struct Early {
    /// Each with the sequence number it came under.
    waiting: VecDeque<(u32, Vec<u8>)>,
    bytes: usize,
    replies: Replies,
    proof: Proof,
}

/// What a relay has to know of what was said before.
pub(super) struct Said {
    /// Sequence numbers on the VM's leg, and on the client's.
    pub(super) origins: Vec<(u32, u32)>,
    pub(super) replies: Replies,
    pub(super) proof: Proof,
}

impl Default for Early {
    fn default() -> Self {
        let replies = Replies::default();
        Self { waiting: VecDeque::new(), bytes: 0, replies, proof: Proof::Open }
    }
}

impl Early {
    /// Takes the message that was received last.
    ///
    /// # Errors
    /// The client broke the protocol, or the transport is over.
    pub(super) fn take(
        &mut self,
        message: &[u8],
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Result<(), Fault> {
        if message.first() == Some(&GLOBAL_REQUEST) {
            match Request::read(message)? {
                Request::Prove(asked) => {
                    let reply = match transport.server_config() {
                        Some(server) => self.proof.requested(asked, server, transport),
                        None => Some(requests::failure()),
                    };
                    match reply {
                        Some(reply) => {
                            if let Some(reply) = self.replies.answer(reply)? {
                                transport.send(&reply, cx)?;
                            }
                        }
                        None => self.replies.answer_later()?,
                    }
                    return Ok(());
                }
                Request::Other { wants_reply: true } if is_keepalive(message)? => {
                    if self.replies.owes_none() {
                        return transport.send(&requests::failure(), cx);
                    }
                    transport.send(&[IGNORE, 0, 0, 0, 0], cx)?;
                    self.replies.relayed();
                }
                Request::Other { wants_reply } | Request::HostKeys { wants_reply } => {
                    if wants_reply {
                        self.replies.relayed();
                    }
                }
            }
        }
        self.bytes += message.len() + MESSAGE_BYTES;
        self.waiting.push_back((transport.receive_seq().wrapping_sub(1), message.to_vec()));
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.bytes >= WAITING_MAX
    }

    /// Passes everything on to the VM; `opens` gets every channel's opening before it goes.
    ///
    /// # Errors
    /// The VM's transport is over.
    pub(super) fn pass_on(
        self,
        vm: &mut Transport,
        cx: &mut Context<'_>,
        mut opens: impl FnMut(&mut [u8]),
    ) -> Result<Said, Fault> {
        let Self { waiting, replies, proof, .. } = self;
        let mut origins = Vec::with_capacity(waiting.len());
        for (received, mut message) in waiting {
            if message.first() == Some(&CHANNEL_OPEN) {
                packet_size::lower(&mut message);
                opens(&mut message);
            }
            origins.push((vm.send_seq(), received));
            vm.send(&message, cx)?;
        }
        Ok(Said { origins, replies, proof })
    }

    /// Tells everything to somebody else, who answers it, each request that wants a reply at once.
    ///
    /// # Errors
    /// Theirs, or the transport's.
    pub(super) fn tell(
        mut self,
        transport: &mut Transport,
        cx: &mut Context<'_>,
        mut tell: impl FnMut(&[u8], &mut Transport, &mut Context<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        // Who would have to make a proof is not asked: there is no session to be known by.
        if self.proof.due().is_some() {
            for reply in self.replies.answer_came(requests::failure()) {
                transport.send(&reply, cx)?;
            }
        }
        while let Some((_, message)) = self.waiting.pop_front() {
            tell(&message, transport, cx)?;
            if message.first() == Some(&GLOBAL_REQUEST) && wants_reply(&message)? {
                for reply in self.replies.passed() {
                    transport.send(&reply, cx)?;
                }
            }
        }
        Ok(())
    }
}

fn is_keepalive(message: &[u8]) -> Result<bool, Malformed> {
    let mut reader = Reader::new(message);
    reader.u8()?;
    Ok(reader.string()?.starts_with(KEEPALIVE))
}

fn wants_reply(message: &[u8]) -> Result<bool, Malformed> {
    let mut reader = Reader::new(message);
    reader.u8()?;
    reader.string()?;
    reader.bool()
}

/// Serves a client whose VM is being reached, until it goes. May be dropped at any time: what was
/// read is in `early` or in the leg.
pub(super) async fn attend(leg: &mut LoginLeg, scratch: &Scratch, early: &mut Early) -> Broken {
    let full = leg.drive(scratch, |transport, event, message, cx| {
        if matches!(event, Event::Payload(_)) {
            early.take(message, transport, cx)?;
        }
        Ok(early.is_full().then_some(()))
    });
    match full.await {
        Err(broken) => broken,
        // What it sends further stays in the kernel, but that it goes is seen.
        Ok(()) => leg.hung_up().await,
    }
}

#[cfg(test)]
#[path = "early_tests.rs"]
mod tests;
