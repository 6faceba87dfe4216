//! The key exchange in whose middle a session changes hands, as the edge passes it on: packet by
//! packet, until both directions are raw.

use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::task::Poll;
use std::time::Duration;

use futures_lite::FutureExt;
use futures_lite::future::try_zip;
use zeroize::Zeroize as _;

use super::super::executor::Executor;
use super::super::login_leg::{Broken, Scratch};
use super::super::stream::{Read, Stream};
use super::FAREWELL_WAIT;
use crate::ended::{Cause, Ended, Side, Stage};
use crate::ssh::fault::Fault;
use crate::ssh::handoff::{EdgeEnd, Passed};
use crate::ssh::message::Reason;
use crate::ssh::transport::Context;

/// How long a client may take to answer our KEXINIT. Long: one that is stopped answers when
/// it is continued.
const CLIENT_WAIT: Duration = Duration::from_mins(15);
/// How long an agent may take to reply to the client's value, which it does at once: it is no
/// person who may have gone to lunch.
const AGENT_WAIT: Duration = Duration::from_secs(10);
/// Most bytes kept of either side's packets until one is whole.
pub(super) const UNREAD_BYTES_MAX: usize = 320 * 1024;

/// The edge between two sockets.
pub(super) struct Exchange<'a> {
    tasks: &'a Executor,
    scratch: &'a Scratch,
    client: &'a Stream,
    agent: &'a Stream,
    end: RefCell<EdgeEnd>,
    /// How long the client, and the agent, may take.
    waits: [Duration; 2],
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        tasks: &'a Executor,
        scratch: &'a Scratch,
        [client, agent]: [&'a Stream; 2],
        end: EdgeEnd,
    ) -> Self {
        let (end, waits) = (RefCell::new(end), [CLIENT_WAIT, AGENT_WAIT]);
        Self { tasks, scratch, client, agent, end, waits }
    }

    /// Passes on what both sides say until both directions are raw; returns what was read behind
    /// the last packets of client and agent, which is what `unread` is of, too. `out`: for
    /// the client.
    pub(super) async fn pass_on(
        &self,
        [client_unread, agent_unread]: [Vec<u8>; 2],
        out: Vec<u8>,
    ) -> Result<(Vec<u8>, Vec<u8>), Ended> {
        let up = self.one_way(Side::Client, (client_unread, Vec::new()), |input, out, cx| {
            self.end.borrow_mut().from_client(input, out, cx)
        });
        let down = self.one_way(Side::Agent, (agent_unread, out), |input, out, cx| {
            self.end.borrow_mut().from_agent(input, out, cx)
        });
        let switched = async { try_zip(up, down).await };
        let limited =
            self.tasks.timeout(self.waits[0], Box::pin(switched.or(self.agent_is_silent())));
        limited.await.unwrap_or_else(|| Err(self.overdue()))
    }

    /// Ends once the client has done its part and the agent has had the time that it may take.
    async fn agent_is_silent<T>(&self) -> Result<T, Ended> {
        let until = |so: bool| {
            // Whatever passes has this task polled.
            poll_fn(
                move |_| if self.awaits_agent() == so { Poll::Ready(()) } else { Poll::Pending },
            )
        };
        until(true).await;
        if self.tasks.timeout(self.waits[1], Box::pin(until(false))).await.is_some() {
            pending::<()>().await;
        }
        Err(self.overdue())
    }

    fn awaits_agent(&self) -> bool {
        self.end.borrow().awaits_agent()
    }

    fn overdue(&self) -> Ended {
        let (side, cause) = if self.awaits_agent() {
            (Side::Agent, Cause::Deadline)
        } else {
            (Side::Client, Cause::ExchangeUnanswered)
        };
        Ended { side, stage: Stage::Handoff, cause }
    }

    /// Tells the client why this is the end, as long as there is a key to say it under.
    pub(super) async fn say_last(&self, text: &str) {
        let mut last = Vec::new();
        self.scratch.with_context(|cx| {
            self.end.borrow_mut().disconnect(Reason::ByApplication, text, &mut last, cx);
        });
        self.client.write_now(&last);
        // Unread bytes would make a reset of the close, and the word would be lost with it.
        if self.client.finish().is_ok() {
            let read = Box::pin(self.scratch.read_to_end(self.client));
            let _heard = self.tasks.timeout(FAREWELL_WAIT, read).await;
        }
    }

    /// Passes on what one side says, packet by packet, until that direction is raw; returns
    /// what was read behind its last packet. `out` goes first.
    async fn one_way(
        &self,
        side: Side,
        (mut unread, mut out): (Vec<u8>, Vec<u8>),
        mut one: impl FnMut(&mut [u8], &mut Vec<u8>, &mut Context<'_>) -> Result<Passed, Fault>,
    ) -> Result<Vec<u8>, Ended> {
        let (from, to, gone) = if side == Side::Client {
            let gone = Ended { side: Side::Agent, stage: Stage::Handoff, cause: Cause::Reset };
            (self.client, self.agent, gone)
        } else {
            (self.agent, self.client, Ended::client(Stage::Handoff, Cause::Closed))
        };
        let broke = |broken: Broken| broken.ended(side, Stage::Handoff);
        loop {
            let passed =
                self.scratch.with_context(|cx| pass(&mut unread, |input| one(input, &mut out, cx)));
            let is_over = passed.map_err(|fault| broke(fault.into()))?;
            to.write_all(&out).await.map_err(|_| gone)?;
            out.clear();
            if is_over {
                return Ok(unread);
            }
            from.readable().await.map_err(|error| broke(error.into()))?;
            let read = self.scratch.read(from, &mut unread, UNREAD_BYTES_MAX);
            if read.map_err(|error| broke(error.into()))? == Read::End {
                return Err(broke(Broken::Closed));
            }
        }
    }
}

/// Takes the whole packets at the front of `unread` away; true once the last one of its
/// direction has come.
fn pass(
    unread: &mut Vec<u8>,
    mut one: impl FnMut(&mut [u8]) -> Result<Passed, Fault>,
) -> Result<bool, Fault> {
    let mut start = 0;
    let is_over = loop {
        match one(unread.get_mut(start..).unwrap_or_default())? {
            Passed::Starved => break false,
            Passed::Packet(used) => start += used,
            Passed::Last(used) => {
                start += used;
                break true;
            }
            Passed::Raw => break true,
        }
    };
    // Some of the client's were opened there.
    unread[..start].zeroize();
    unread.drain(..start);
    Ok(is_over)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::executor::tests::{accepted, acceptor, run};
    use super::*;
    use crate::ssh::handoff::{Answered, Asked, Claim, OPEN_LENGTH_MAX, Open};
    use crate::ssh::packet::{Opener, Sealer};
    use crate::ssh::testing::{End, Pair, Seeded, client_config, server_config};
    use crate::ssh::transport::{Algorithms, Instant, RekeyLimits, Transport};

    /// A client, what an agent has of the data connection, and the edge between them, which has
    /// heard that the agent is ready; and what it has for the client.
    fn handed() -> (End, (Opener, Sealer), EdgeEnd, Vec<u8>) {
        let limits = RekeyLimits::default();
        let server = server_config(1, Algorithms::default(), limits);
        let client = client_config(Algorithms::default(), limits);
        let mut pair = Pair::new(2, Arc::clone(&server), client);
        let mut random = Seeded(3);
        let mut cx = Context { now: pair.now, entropy: &mut random };
        pair.server = End::new(Transport::server_for_handoff(server, 1_800_000_000, &mut cx));
        pair.settle().unwrap();
        pair.authenticate();
        let mut transport = pair.server.transport;
        let claim = Claim::generate(&mut random);
        let at_agent = Claim::parse(&claim.encoded()).unwrap().at_agent();
        let (mut opening, mut out) = (Vec::new(), Vec::new());
        let mut cx = Context { now: pair.now, entropy: &mut random };
        let said: (&[u8], &[u8]) = (b"", b"");
        let asked = Asked::begin(&mut transport, claim, said, None, &mut opening, &mut cx);
        let mut asked = asked.unwrap();
        let (mut opener, mut sealer) = at_agent;
        let mut open = opening.split_off(crate::ssh::handoff::CLAIM_ID_BYTES);
        let payload = opener.open(&mut open, OPEN_LENGTH_MAX).unwrap().unwrap().payload;
        assert!(Open::parse(&open[payload]).is_ok());
        let mut ready = Vec::new();
        sealer.seal(&[225], cx.entropy, &mut ready).unwrap();
        assert_eq!(asked.answer(&mut ready), Ok(Some((Answered::Ready, ready.len()))));
        let Ok(end) = asked.hand_off(transport, &mut out) else { panic!("it has heard nothing") };
        (pair.client, (opener, sealer), end, out)
    }

    /// Neither waits for a clock: the times that they may take are over as they begin.
    #[test]
    fn whoever_does_not_go_on_is_named_and_the_client_hears_of_it() {
        for answers in [false, true] {
            run(move |tasks| async move {
                let (acceptor, address) = acceptor(&tasks);
                let dial = || Stream::connect(&tasks, address).unwrap();
                let (client, to_client) = (dial(), accepted(&acceptor).await);
                let (agent, to_agent) = (dial(), accepted(&acceptor).await);
                let (mut stock, _line, end, out) = handed();
                let scratch = Scratch::new();
                let ends = [&to_client, &to_agent];
                let mut exchange = Exchange::new(&tasks, &scratch, ends, end);
                assert_eq!(exchange.waits, [CLIENT_WAIT, AGENT_WAIT]);
                exchange.waits = [Duration::from_mins(1), Duration::ZERO];
                let mut random = Seeded(4);
                if answers {
                    // Its KEXINIT and its value.
                    stock.inbox.extend_from_slice(&out);
                    let mut cx = Context { now: Instant(0), entropy: &mut random };
                    stock.receive(&mut cx).unwrap();
                    client.write_all(&stock.take_output()).await.unwrap();
                } else {
                    exchange.waits[0] = Duration::ZERO;
                }
                let ended = exchange.pass_on([Vec::new(), Vec::new()], out.clone()).await;
                let (side, cause) = if answers {
                    (Side::Agent, Cause::Deadline)
                } else {
                    (Side::Client, Cause::ExchangeUnanswered)
                };
                assert_eq!(ended, Err(Ended { side, stage: Stage::Handoff, cause }));
                // Both close at once: nobody waits for the other.
                client.finish().unwrap();
                exchange.say_last("that is all").await;
                drop(exchange);
                drop((to_client, to_agent));
                let mut heard = Vec::new();
                loop {
                    client.readable().await.unwrap();
                    if scratch.read(&client, &mut heard, 1 << 20).unwrap() == Read::End {
                        break;
                    }
                }
                // What stood in `out` was passed on before; it has read that.
                stock.inbox.extend_from_slice(if answers { &heard[out.len()..] } else { &heard });
                let mut cx = Context { now: Instant(0), entropy: &mut random };
                assert!(stock.receive(&mut cx).is_err());
                assert_eq!(stock.transport.last_words(100).as_deref(), Some("that is all"));
                drop(agent);
            });
        }
    }
}
