//! One line per connection, written when it ends: who, where, how much, and which side ended
//! it in which stage.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::denied::Denied;
use super::gate::Grant;
use super::handoff::{FarEnd, Handed};
use super::presence::ConnectionGuard;
use super::pump::Carry;
use super::seats::SessionPermit;
use crate::ended::{About, Cause, Detail, Ended, notice};
use crate::route::{Address, Admitted};
use crate::ssh::publickey::Fingerprint;
use crate::ssh::text::printable;
use crate::ssh::userauth::{Presented, ProvedKey};

/// Longest peer text in a log line, in bytes.
const TEXT_MAX_BYTES: usize = 128;

/// What is known of a connection; it grows as the connection goes on.
#[derive(Clone, Debug)]
pub struct Report {
    /// Names the connection in the log and in every text its user sees.
    pub request: RequestId,
    /// The client as admission sees it: the PROXY header's source where there is one.
    pub client: SocketAddr,
    /// The address dialled, in the pool or not, once it is known.
    pub dialled: Option<IpAddr>,
    /// The pool address dialled.
    pub address: Option<Arc<Address>>,
    /// The client's identification line, printable.
    pub software: String,
    /// Who proved a key, once somebody has.
    pub who: Option<Proved>,
    /// Whose key it was; a lobby visitor has no VM.
    pub user: Option<Arc<str>>,
    /// Where the route leads, if it does.
    pub admitted: Option<Admitted>,
    /// What was offered before somebody proved a key, or in vain.
    pub denied: Denied,
    /// Who else has part in it, if it was handed over.
    pub far_end: Option<Arc<FarEnd>>,
    /// What was dialled for the VM.
    pub endpoint: Option<Box<SocketAddr>>,
    /// What is known of its end beyond the cause.
    pub detail: Option<Detail>,
    /// How many sessions its user, or its VM, has, if that is why there is no further one.
    pub others: usize,
    /// When it was accepted, on the shard's clock in milliseconds.
    pub accepted_ms: u64,
    /// The same in microseconds, for measuring.
    pub accepted_us: u64,
}

/// The proved identity, as the log and the re-check of a session's right need it.
#[derive(Clone, Debug)]
pub struct Proved {
    /// The plain key's fingerprint, also under a certificate.
    pub fingerprint: Fingerprint,
    /// The user name that was asked for.
    pub login: String,
    /// The key or certificate itself, to be judged again when anything changes.
    pub presented: Arc<Presented>,
    /// What its session begins with.
    pub grant: Arc<Grant>,
}

impl From<&ProvedKey> for Proved {
    fn from(key: &ProvedKey) -> Self {
        Self {
            fingerprint: key.fingerprint(),
            login: key.login().to_owned(),
            presented: key.standing(),
            grant: Arc::new(Grant::from(key)),
        }
    }
}

/// 64 random bits, shown as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RequestId(pub u64);

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What passed through a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Carried {
    /// How, if it came to that.
    pub carry: Option<Carry>,
    /// Payload and framing bytes received from the client.
    pub up_bytes: u64,
    /// Payload and framing bytes received from the VM.
    pub down_bytes: u64,
    /// From accept to end, in milliseconds.
    pub lasted_ms: u64,
    /// How often an agent was signed for.
    pub signatures: u64,
}

impl Report {
    /// A connection of which only the peer is known.
    pub fn new(request: RequestId, client: SocketAddr, accepted_us: u64) -> Self {
        Self {
            request,
            client,
            dialled: None,
            address: None,
            software: String::new(),
            who: None,
            user: None,
            admitted: None,
            denied: Denied::default(),
            far_end: None,
            endpoint: None,
            detail: None,
            others: 0,
            accepted_ms: accepted_us / 1000,
            accepted_us,
        }
    }

    /// The client's address without its port.
    pub fn source(&self) -> IpAddr {
        self.client.ip()
    }

    /// What the user reads about `cause`.
    pub fn notice(&self, cause: Cause) -> String {
        let (vm, login) = self.admitted.as_ref().map_or(("the lobby", ""), |admitted| {
            (admitted.vm.name.as_str(), admitted.login.as_str())
        });
        let detail = self.detail.as_ref();
        let (request, sessions) = (&self.request.to_string(), self.others);
        notice(cause, &About { vm, login, detail, request, sessions })
    }

    /// Whether keys were offered and nobody got in.
    fn is_denied(&self) -> bool {
        self.user.is_none() && !self.denied.all().is_empty()
    }

    /// Writes the line.
    pub fn write(&self, ended: Ended, carried: Carried) {
        let dialled = self.dialled.map(|ip| ip.to_string()).unwrap_or_default();
        let address = self.address.as_ref().map_or("", |address| address.name.as_str());
        let user = self.user.as_deref().unwrap_or_default();
        let vm = self.admitted.as_ref().map_or("", |admitted| admitted.vm.name.as_str());
        let (login, fingerprint) = self.who.as_ref().map_or_else(Default::default, |who| {
            (printable(&who.login, TEXT_MAX_BYTES), who.fingerprint.to_string())
        });
        let software = printable(&self.software, TEXT_MAX_BYTES);
        let endpoint = self.endpoint.as_ref().map(ToString::to_string).unwrap_or_default();
        let detail = self.detail.as_ref().map_or("", Detail::as_str);
        #[expect(clippy::cast_precision_loss, reason = "seconds for people, to the millisecond")]
        let seconds = carried.lasted_ms as f64 / 1000.0;
        if self.is_denied() {
            // What a peer chose comes last: `docs/fail2ban.md` reads the line from its beginning.
            tracing::info!(
                request = %self.request,
                client = %self.client,
                stranger = self.denied.is_of_a_stranger(),
                dialled,
                address,
                denied = %self.denied,
                side = ended.side.as_str(),
                stage = ended.stage.as_str(),
                cause = ended.cause.as_str(),
                seconds,
                login = printable(self.denied.login(), TEXT_MAX_BYTES),
                software,
                "login denied"
            );
            return;
        }
        tracing::info!(
            request = %self.request,
            client = %self.client,
            dialled,
            address,
            user,
            key = fingerprint,
            login,
            vm,
            endpoint,
            software,
            carry = carried.carry.map_or("", Carry::as_str),
            up_bytes = carried.up_bytes,
            down_bytes = carried.down_bytes,
            seconds,
            signatures = carried.signatures,
            side = ended.side.as_str(),
            stage = ended.stage.as_str(),
            cause = ended.cause.as_str(),
            detail,
            "connection ended"
        );
    }
}

/// What goes with a session to the pump, and is dropped when the session ends.
pub struct Info {
    /// For the log line.
    pub report: Report,
    /// Counts the connection as present.
    pub presence: ConnectionGuard,
    /// The place it takes among the sessions.
    pub seat: SessionPermit,
    /// Of a session that an agent carries.
    pub handed: Option<Handed>,
}
