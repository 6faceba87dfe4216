//! A relay goes on where the door has left its client.

use super::Relay;
use crate::edge::early::{Early, Said};
use crate::ssh::fault::Fault;
use crate::ssh::transport::Context;

impl Relay {
    /// Passes on what the client said before there was a relay. Comes behind [`Self::showing`].
    ///
    /// # Errors
    /// The VM's transport is over.
    pub(in crate::edge) fn after(
        mut self,
        early: Early,
        cx: &mut Context<'_>,
    ) -> Result<Self, Fault> {
        let Self { vm, banner, .. } = &mut self;
        let said = early.pass_on(&mut vm.transport, cx, |open| {
            if let Some(banner) = banner {
                banner.opens(open);
            }
        });
        let Said { origins, replies, proof } = said?;
        for (sent, received) in origins {
            vm.origins.record(sent, received);
        }
        self.client.replies = replies;
        self.proof = proof;
        Ok(self)
    }
}
