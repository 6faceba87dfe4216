//! When we start a key exchange of a relayed session, and when we stop waiting for one.

use nix::errno::Errno;

use super::gcm::{GCM, PreferGcm, takes_gcm};
use super::leg::{Exchange, Party, PumpContext, Stop};
use super::{Phase, Relay, Signature, Turn, Upgrade};
use crate::ssh::cipher::Cipher;
use crate::ssh::fault::Fault;

/// How long a key exchange may take once a session lives. Long: a client that is stopped answers
/// when it is continued, and `alive` sees to those that are gone.
pub(super) const EXCHANGE_MS_MAX: u64 = 15 * 60_000;

/// A client that prefers chacha20 is asked to change after this many bytes.
const BULK: u64 = 4 << 20;

impl Relay {
    /// Looked at now and then: a quiet session can do without some memory, and a key exchange that
    /// a peer never goes on with must end some day.
    pub(in crate::edge) fn look(&mut self, tools: &mut PumpContext) -> Turn {
        let received = self.client.received + self.vm.received;
        if received == self.received_before {
            self.client.transport.rest();
            self.vm.transport.rest();
        }
        self.received_before = received;
        let stuck = [(Party::Client, &self.client), (Party::Vm, &self.vm)]
            .into_iter()
            .find_map(|(party, line)| line.transport.is_exchanging().then_some(party));
        match (stuck, self.exchanging_since) {
            (None, _) => self.exchanging_since = None,
            (Some(_), None) => self.exchanging_since = Some(tools.now.0),
            (Some(party), Some(since)) if tools.now.0 >= since + EXCHANGE_MS_MAX => {
                let why = match (party, self.signature) {
                    (Party::Client, Signature::Due | Signature::AskedFor) => {
                        Stop::Fault(party, Fault::HostKey)
                    }
                    (Party::Client | Party::Vm, _) => Stop::Lost(party, Errno::ETIMEDOUT),
                };
                self.stop(why, tools);
                return self.linger(tools);
            }
            (Some(_), Some(_)) => {}
        }
        Turn::Wait
    }

    /// Starts a key exchange that is due; see the head of `relay` for when it may. How old keys are
    /// counts when their peer is heard: one that is silent may be stopped or out of reach, and
    /// would only miss the exchange's deadline.
    pub(super) fn start_exchange(&mut self, tools: &mut PumpContext) -> Result<bool, Stop> {
        if self.phase != Phase::Open
            || self.client.transport.is_exchanging()
            || self.vm.transport.is_exchanging()
        {
            return Ok(false);
        }
        let (party, ciphers) = if self.wants_upgrade(tools) {
            (Party::Client, Some(GCM))
        } else if self.client.transport.rekey_due(self.client.heard) {
            (Party::Client, None)
        } else if self.vm.transport.rekey_due(self.vm.heard) {
            (Party::Vm, None)
        } else {
            return Ok(false);
        };
        let (line, other) = self.lines(party);
        line.transport
            .rekey(ciphers, &mut tools.context())
            .map_err(|fault| Stop::Fault(party, fault))?;
        line.exchange = Exchange::Ours;
        line.flush(&mut other.inbox);
        Ok(true)
    }

    /// Looks once at a session that turned out bulky.
    fn wants_upgrade(&mut self, tools: &PumpContext) -> bool {
        if self.upgrade == Upgrade::Settled || self.client.received + self.vm.received < BULK {
            return false;
        }
        self.upgrade = Upgrade::Settled;
        tools.prefer_gcm == PreferGcm::Bulk
            && self.client.transport.receive_cipher() == Some(Cipher::Chacha20Poly1305)
            && takes_gcm(&self.client.transport)
    }
}
