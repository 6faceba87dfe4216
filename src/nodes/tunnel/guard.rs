//! What this side of a connection answers: the judgement of the host key, and no to everything
//! that a node might ask for.
//!
//! A node has no reason to open a channel towards us: nothing is ever forwarded back. One that
//! does ends its connection.

use std::sync::Arc;

use russh::client::{ChannelOpenHandle, DisconnectReason, Handler, Msg, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, ChannelId};
use tokio::sync::{Notify, watch};

use super::fault::{Stage, Unreached};
use super::pin::Question;
use crate::ssh::publickey::{Fingerprint, PublicKey};

/// What the host key must be.
pub(super) enum Expected {
    Pinned(Fingerprint),
    /// For whoever is asked to say.
    Asked(Option<Question>),
}

/// One connection's answers.
pub(super) struct Guard {
    pub(super) expected: Expected,
    /// Somebody is being asked.
    pub(super) asking: Arc<Notify>,
    /// The key that the node has shown, once it is trusted.
    pub(super) shown: watch::Sender<Option<PublicKey>>,
    /// Why the connection ended.
    pub(super) ended: watch::Sender<Option<Unreached>>,
}

impl Guard {
    async fn judge(&mut self, shown: PublicKey) -> Result<bool, Unreached> {
        match &mut self.expected {
            Expected::Pinned(pinned) if *pinned == shown.fingerprint() => {}
            Expected::Pinned(pinned) => {
                return Err(Unreached::HostKeyChanged { pinned: *pinned, shown });
            }
            Expected::Asked(question) => {
                self.asking.notify_one();
                let yes = match question.take() {
                    Some(question) => question(shown.clone()).await,
                    None => false,
                };
                if !yes {
                    return Err(Unreached::HostKeyNotConfirmed { shown });
                }
            }
        }
        self.shown.send_replace(Some(shown));
        Ok(true)
    }
}

fn unasked() -> Unreached {
    Unreached::Malformed { said: "it opens channels that nobody asked for".to_owned() }
}

impl Handler for Guard {
    type Error = Unreached;

    async fn check_server_key(
        &mut self,
        offered: &PublicKeyOrCertificate,
    ) -> Result<bool, Unreached> {
        let malformed = || Unreached::Malformed { said: "it shows a broken host key".to_owned() };
        match offered {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                let blob = key.to_bytes().map_err(|_| malformed())?;
                self.judge(PublicKey::parse(&blob).map_err(|_| malformed())?).await
            }
            // None was asked for.
            PublicKeyOrCertificate::Certificate(_) => Err(malformed()),
        }
    }

    async fn disconnected(&mut self, why: DisconnectReason<Unreached>) -> Result<(), Unreached> {
        let why = match why {
            DisconnectReason::ReceivedDisconnect(said) => {
                Unreached::Closed { stage: Stage::Standing, said: said.message }
            }
            DisconnectReason::Error(why) => why,
        };
        self.ended.send_replace(Some(why));
        Ok(())
    }

    async fn should_accept_unknown_server_channel(&mut self, _: ChannelId, _: &str) -> bool {
        false
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Unreached> {
        Err(unasked())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Unreached> {
        Err(unasked())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Unreached> {
        Err(unasked())
    }

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Unreached> {
        Err(unasked())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Unreached> {
        Err(unasked())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Unreached> {
        Err(unasked())
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Unreached> {
        Err(unasked())
    }
}
