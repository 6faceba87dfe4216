//! Where the layers above the transport put their messages: the one seam between their state
//! machines and the packets, so that these can be driven message by message.

use super::fault::Fault;
use super::transport::{Context, Transport};

/// Takes whole messages for the peer, in order.
pub(super) trait Outlet {
    /// Queues `payload` as one message.
    ///
    /// # Errors
    /// Whatever the transport says; final.
    fn send(&mut self, payload: &[u8]) -> Result<(), Fault>;
}

/// A transport together with what its calls need.
pub(super) struct Sealed<'a, 'c> {
    pub(super) transport: &'a mut Transport,
    pub(super) cx: &'a mut Context<'c>,
}

impl Outlet for Sealed<'_, '_> {
    fn send(&mut self, payload: &[u8]) -> Result<(), Fault> {
        self.transport.send(payload, self.cx)
    }
}

#[cfg(test)]
impl Outlet for Vec<Vec<u8>> {
    fn send(&mut self, payload: &[u8]) -> Result<(), Fault> {
        self.push(payload.to_vec());
        Ok(())
    }
}
