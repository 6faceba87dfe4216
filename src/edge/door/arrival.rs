//! Before SSH: which address was dialled, by whom, and load balancers that only look whether
//! somebody is here.

use std::cell::RefCell;
use std::net::IpAddr;
use std::os::fd::AsFd;

use super::super::local_address;
use super::super::login_leg::Broken;
use super::super::proxy_header::{self, Expected, HeaderVerdict, Origin};
use super::super::report::Report;
use super::super::stream::{Read, Stream};
use super::{Door, HalfOpenSlot};
use crate::ended::{Cause, Detail, Ended, Stage};
use crate::ssh::ident;

impl Door {
    /// Finds the address that was dialled, reading a PROXY header where one is due. Returns the
    /// bytes read behind it; `None` for a health check, which alone is not counted as accepted.
    pub(super) async fn local(
        &self,
        stream: &Stream,
        report: &RefCell<Report>,
        place: &HalfOpenSlot,
    ) -> Result<Option<(IpAddr, Vec<u8>)>, Ended> {
        let settings = &self.shared.settings;
        let peer = report.borrow().client;
        match settings.senders.expect(peer.ip()) {
            Expected::Plain => {
                self.counters.accepted();
                let local = local_address::local_address(stream.as_fd(), settings.destination);
                let local = local.map_err(|fault| {
                    tracing::warn!(client = %peer, %fault, "no certain local address");
                    Ended::edge(Stage::Accept, Cause::NotInPool)
                })?;
                Ok(Some((local.ip(), Vec::new())))
            }
            Expected::Header => {
                let header = Box::pin(self.read_header(stream, report));
                let read = self.tasks.timeout(settings.login_grace, header).await;
                if let Some(Ok(None)) = read {
                    return Ok(None);
                }
                self.counters.accepted();
                let read = read.ok_or(Ended::client(Stage::Header, Cause::Deadline))??;
                Ok(read.map(|(origin, unread)| {
                    report.borrow_mut().client = origin.source;
                    place.sourced(origin.source.ip());
                    (origin.destination.ip(), unread)
                }))
            }
        }
    }

    /// Reads a PROXY header; `None` for a health check.
    async fn read_header(
        &self,
        stream: &Stream,
        report: &RefCell<Report>,
    ) -> Result<Option<(Origin, Vec<u8>)>, Ended> {
        let mut bytes = Vec::new();
        loop {
            match proxy_header::inspect(Expected::Header, &bytes) {
                Ok(HeaderVerdict::Proxied { origin, used }) => {
                    return Ok(Some((origin, bytes.split_off(used))));
                }
                Ok(HeaderVerdict::HealthCheck) => return Ok(None),
                Ok(HeaderVerdict::More { .. }) => {}
                // Never from who must send one.
                Ok(HeaderVerdict::Plain) => {
                    return Err(Ended::edge(Stage::Header, Cause::HeaderRefused));
                }
                Err(fault) => {
                    report.borrow_mut().detail = Some(Detail::found(fault));
                    return Err(Ended::edge(Stage::Header, Cause::HeaderRefused));
                }
            }
            let reset = |_| Ended::client(Stage::Header, Cause::Reset);
            stream.readable().await.map_err(reset)?;
            let read = self.scratch.read(stream, &mut bytes, proxy_header::HEADER_BYTES_MAX);
            if read.map_err(reset)? == Read::End {
                return Err(Ended::client(Stage::Header, Cause::Closed));
            }
        }
    }

    /// A load balancer looks whether SSH is spoken here: it must read our identification line, or
    /// it takes us for dead.
    pub(super) async fn answer_check(&self, stream: &Stream) -> Result<(), Broken> {
        stream.write_now(format!("{}\r\n", ident::TO_CLIENTS).as_bytes());
        stream.finish()?;
        let mut said = Vec::new();
        loop {
            stream.readable().await?;
            said.clear();
            if self.scratch.read(stream, &mut said, proxy_header::HEADER_BYTES_MAX)? == Read::End {
                return Ok(());
            }
        }
    }
}
