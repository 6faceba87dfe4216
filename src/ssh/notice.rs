//! One readable text for a user whose key was right and whose VM does not answer.
//!
//! After a correct key no failure may look like a failed login, or the client would burn its other
//! keys. So the channel opens, the first shell, exec or subsystem request gets the text on
//! **stderr** (on stdout it would break scp, sftp and git), then exit status 255, EOF and CLOSE. A
//! forward opened first gets the text in its `CHANNEL_OPEN_FAILURE`. The caller disconnects when
//! [`Progress::Done`] comes, or at its own deadline for a client that opens nothing.

use std::collections::BTreeMap;

use super::connection::{Asked, ChannelEvent, ChannelId, Connection};
use super::fault::Fault;
use super::outlet::{Outlet, Sealed};
use super::text::{LineEnd, printable_lines};
use super::transport::{Context, Transport};

/// Longest notice, and longest text before it, in bytes.
const NOTICE_BYTES_MAX: usize = 4 << 10;

/// Most channels that get the notice at a time: OpenSSH's `MaxSessions`.
const CHANNELS_MAX: usize = 10;

/// What a client makes of 255: `ssh` uses it for its own errors, and git, scp and
/// sftp take it as one.
const EXIT_STATUS: u32 = 255;

/// How far a notice is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Progress {
    /// Go on reading.
    Waiting,
    /// A channel got the whole text and both sides closed it: disconnect.
    Done,
}

/// Where one channel stands.
enum Telling {
    /// Nothing was asked for yet that would show the text.
    Unasked { end: LineEnd },
    /// The rest of the text, which the peer's window did not take so far.
    Text(Vec<u8>),
    /// All is sent, our CLOSE included.
    Told,
}

/// Tells `text` on every session channel of a connection.
pub struct Notice {
    connection: Connection,
    text: String,
    before: String,
    channels: BTreeMap<ChannelId, Telling>,
    progress: Progress,
}

impl Notice {
    /// `text`: one or more lines; it is made printable ASCII.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let line = text.lines().collect::<Vec<_>>().join(" ");
        Self {
            connection: Connection::new(CHANNELS_MAX, &line),
            text: text.to_owned(),
            before: String::new(),
            channels: BTreeMap::new(),
            progress: Progress::Waiting,
        }
    }

    /// Tells `text` first, which may be anything that a VM said: made printable ASCII too.
    #[must_use]
    pub fn after(mut self, text: &str) -> Self {
        text.trim_end().clone_into(&mut self.before);
        self
    }

    /// Takes one connection-protocol message (80..=127).
    ///
    /// # Errors
    /// As [`Connection::receive`]; final.
    pub fn receive(
        &mut self,
        payload: &[u8],
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Result<Progress, Fault> {
        self.take(payload, &mut Sealed { transport, cx })
    }

    /// [`Notice::receive`] without a transport.
    fn take(&mut self, payload: &[u8], out: &mut dyn Outlet) -> Result<Progress, Fault> {
        match self.connection.take(payload, out)? {
            ChannelEvent::None => self.tell(out)?,
            ChannelEvent::Opened(channel) => {
                self.channels.insert(channel, Telling::Unasked { end: LineEnd::Lf });
            }
            ChannelEvent::Request { channel, asked, wants_reply } => {
                let granted = self.asked(channel, &asked);
                if wants_reply {
                    self.connection.put_answer(channel, granted, out)?;
                }
                self.tell(out)?;
            }
            ChannelEvent::Data { channel, bytes } => {
                self.connection.give_back(channel, bytes.len(), out)?;
            }
            ChannelEvent::Eof(_) => {}
            ChannelEvent::Closed(channel) => match self.channels.remove(&channel) {
                Some(Telling::Told) => self.progress = Progress::Done,
                Some(Telling::Unasked { .. } | Telling::Text(_)) | None => {}
            },
        }
        Ok(self.progress)
    }

    /// Whether a request is granted; the first that starts something starts the text.
    fn asked(&mut self, channel: ChannelId, asked: &Asked) -> bool {
        let Some(Telling::Unasked { end }) = self.channels.get_mut(&channel) else { return false };
        let starts = match asked {
            Asked::Pty(_) => {
                *end = LineEnd::CrLf;
                return true;
            }
            Asked::Env { .. } | Asked::Window { .. } | Asked::Signal(_) => return true,
            Asked::Shell | Asked::Exec(_) | Asked::Subsystem(_) => true,
            // A command that is not text gets the text all the same.
            Asked::Other(name) => name == "exec",
        };
        if starts {
            let mut text = printable_lines(&self.before, *end, NOTICE_BYTES_MAX);
            text.push_str(&printable_lines(&self.text, *end, NOTICE_BYTES_MAX));
            self.channels.insert(channel, Telling::Text(text.into_bytes()));
        }
        starts
    }

    /// Sends what the windows take, and ends the channels that have it all.
    fn tell(&mut self, out: &mut dyn Outlet) -> Result<(), Fault> {
        for (channel, telling) in &mut self.channels {
            let Telling::Text(rest) = telling else { continue };
            let taken = self.connection.put_data(*channel, true, rest, out)?;
            rest.drain(..taken);
            if rest.is_empty() {
                self.connection.put_end(*channel, EXIT_STATUS, out)?;
                *telling = Telling::Told;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "notice_tests.rs"]
mod tests;
