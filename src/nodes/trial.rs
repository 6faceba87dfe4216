//! One look at a node that need not be one: what somebody sees before it is trusted and kept.

use std::sync::{Arc, Mutex, PoisonError};

use super::daemon::{At, Daemon, daemon, here, over, reason};
use super::tunnel::{
    Endpoint, Findings, Lifeline, NoProbe, Pin, Question, Reason, Settings, SocketKind, Trust,
    Tunnel, Unreached,
};
use crate::ssh::publickey::PublicKey;

/// What is to be tried.
pub(super) struct Trial {
    pub(super) at: At,
    /// Whether the first key that is shown will do.
    pub(super) accept_new: bool,
    pub(super) settings: Arc<Settings>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// The key that it showed.
    pub host_key: Option<PublicKey>,
    /// How its Docker is reached.
    pub via: Option<&'static str>,
    /// What its Docker says of itself: it is online.
    pub daemon: Option<Daemon>,
    /// What is in the way.
    pub reason: Option<Reason>,
    /// Whether something answered, so that there is something to mend.
    pub is_to_be_mended: bool,
    /// Whether nothing is in the way but that nobody has said that the host key is right.
    pub is_unconfirmed: bool,
    /// What was seen of the account and the socket.
    pub probe: Option<String>,
}

impl Trial {
    pub(super) async fn run(self) -> Found {
        match self.at {
            At::Here(socket) => {
                let found = Found { via: Some("local"), ..Found::default() };
                match daemon(&here(socket)).await {
                    Ok(daemon) => Found { daemon: Some(daemon), ..found },
                    Err(fault) => {
                        Found { reason: Some(reason(&fault)), is_to_be_mended: true, ..found }
                    }
                }
            }
            At::There { endpoint, pin } => {
                there(endpoint, pin, self.accept_new, self.settings).await
            }
        }
    }
}

async fn there(
    endpoint: Arc<Endpoint>,
    pin: Option<Pin>,
    accept_new: bool,
    settings: Arc<Settings>,
) -> Found {
    let shown = Arc::new(Mutex::new(None));
    let has_pin = pin.is_some();
    let trust = pin.map_or_else(|| Trust::FirstUse(question(&shown, accept_new)), Trust::Pinned);
    let lifeline = Lifeline::default();
    let opened = Tunnel::open(endpoint, trust, settings, &lifeline).await;
    let asked_of = shown.lock().unwrap_or_else(PoisonError::into_inner).take();
    let tunnel = match opened {
        Ok(tunnel) => tunnel,
        Err(why) => {
            let host_key = why.shown().cloned().or(asked_of);
            let is_unconfirmed =
                matches!(why, Unreached::HostKeyNotConfirmed { .. }) && !has_pin && !accept_new;
            return Found {
                host_key,
                is_to_be_mended: why.is_to_be_mended(),
                reason: Some(Reason::from(&why)),
                is_unconfirmed,
                ..Found::default()
            };
        }
    };
    let probe = match tunnel.probe().await {
        Ok(findings) => seen(&findings),
        Err(no) => unseen(&no),
    };
    let host_key = Some(tunnel.host_key().clone());
    let found = Found { host_key, probe: Some(probe), ..Found::default() };
    // Its own words say more than those of whoever speaks over it.
    let stream = tunnel.docker_stream().await;
    let via = Some(tunnel.way().as_str());
    if let Err(why) = stream {
        return Found { reason: Some(Reason::from(&why)), is_to_be_mended: true, ..found };
    }
    match daemon(&over(tunnel)).await {
        Ok(daemon) => Found { daemon: Some(daemon), via, ..found },
        Err(fault) => Found { reason: Some(reason(&fault)), is_to_be_mended: true, via, ..found },
    }
}

/// Notes the key, and answers for whoever is not here.
fn question(shown: &Arc<Mutex<Option<PublicKey>>>, answer: bool) -> Question {
    let shown = Arc::clone(shown);
    Box::new(move |key| {
        *shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
        Box::pin(async move { answer })
    })
}

fn seen(findings: &Findings) -> String {
    let socket = match findings.socket {
        SocketKind::Missing => "there is no such socket",
        SocketKind::Hidden => "the directory of the socket may not be looked into",
        SocketKind::Other => "what is there is no socket",
        SocketKind::Socket if !findings.writable => "the socket may not be used",
        SocketKind::Socket if findings.listening == Some(false) => "nobody listens at the socket",
        SocketKind::Socket => "the socket may be used",
    };
    let client = if findings.docker_client { ", docker client" } else { "" };
    format!(
        "{} (uid {}, groups {}) on {} {}; {socket}{client}",
        findings.user, findings.uid, findings.groups, findings.system, findings.machine
    )
}

fn unseen(no: &NoProbe) -> String {
    format!("no probe is possible: {no}")
}
