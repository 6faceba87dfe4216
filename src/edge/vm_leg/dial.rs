//! From a VM's entry to a connection: its addresses, and the first of them that answers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::super::clock;
use super::super::failed::Failed;
use super::super::login_leg::{LoginLeg, Scratch};
use super::super::names::Stale;
use super::super::shared::Shared;
use super::super::stream::Stream;
use super::VmLegs;
use crate::ended::{Cause, Detail, Ended, Stage};
use crate::metrics::{Counters, LoginStage};
use crate::plural;
use crate::route::Vm;
use crate::ssh::transport::{ClientConfig, Transport};

impl VmLegs {
    /// Connects to the first of `endpoints` that answers, all of them within the time for a dial.
    pub(super) async fn connect(
        &self,
        shared: &Shared,
        scratch: &Scratch,
        counters: &Counters,
        endpoints: &[SocketAddr],
        config: &Arc<ClientConfig>,
    ) -> Result<(LoginLeg, SocketAddr), Failed> {
        let began_us = clock::monotonic_us();
        let mut last = Failed::from(Ended::vm(Stage::Dial, Cause::DialFailed));
        let mut left = shared.settings.dial_timeout;
        for (at, endpoint) in (1_u32..).zip(endpoints) {
            let transport = scratch.with_context(|cx| Transport::client(Arc::clone(config), cx));
            // Our identification line goes out first: when it is written, there is a connection.
            let dial = async {
                let mut leg = LoginLeg::to_vm(Stream::connect(&self.tasks, *endpoint)?, transport);
                leg.flush().await?;
                Ok::<_, io::Error>(leg)
            };
            let waiting = u32::try_from(endpoints.len()).unwrap_or(u32::MAX).saturating_sub(at);
            let share = left / waiting.saturating_add(1);
            match self.tasks.timeout(share, Box::pin(dial)).await {
                Some(Ok(leg)) => {
                    counters.stage(LoginStage::Dial, clock::monotonic_us() - began_us);
                    return Ok((leg, *endpoint));
                }
                Some(Err(error)) => last = Failed::dialling(&error),
                None => {
                    let time = plural::count(share.as_secs_f32().ceil(), "second");
                    let detail = Detail::found(format_args!("no answer within {time}"));
                    last = Failed::new(Ended::vm(Stage::Dial, Cause::DialFailed), detail);
                }
            }
            let spent = Duration::from_micros(clock::monotonic_us() - began_us);
            left = shared.settings.dial_timeout.saturating_sub(spent);
        }
        Err(last)
    }

    /// The VM's addresses that lie in `vm_leg.networks`, checked *after* resolution, at every
    /// dial; at least one.
    pub(super) async fn resolve(
        &self,
        shared: &Shared,
        vm_entry: &Vm,
    ) -> Result<Vec<SocketAddr>, Failed> {
        let found = if let Ok(literal) = vm_entry.endpoint.parse::<SocketAddr>() {
            vec![literal]
        } else {
            // Where nothing is pinned, an address that is somebody else's by now would
            // pin the wrong key.
            let stale = if vm_entry.host_key.is_some() { Stale::Will } else { Stale::Not };
            let limit = shared.settings.dial_timeout;
            let found = shared.names.find(&self.tasks, &vm_entry.endpoint, limit, stale).await;
            let all = found.map_err(|unresolved| {
                Failed::new(Ended::edge(Stage::Dial, Cause::DialFailed), Detail::found(unresolved))
            });
            all?.to_vec()
        };
        let canonical =
            found.into_iter().map(|at| SocketAddr::new(at.ip().to_canonical(), at.port()));
        let networks = &shared.settings.networks;
        let allowed: Vec<_> = canonical
            .filter(|at| networks.iter().any(|network| network.contains(&at.ip())))
            .collect();
        if allowed.is_empty() {
            return Err(Ended::edge(Stage::Dial, Cause::NetworkNotAllowed).into());
        }
        Ok(allowed)
    }
}
