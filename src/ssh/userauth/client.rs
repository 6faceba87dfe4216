//! The client's side: one login with one key, towards a VM's sshd.

use std::sync::Arc;

use super::super::fault::{Fault, Stage};
use super::super::message;
use super::super::private_key::PrivateKey;
use super::super::publickey::SignatureAlgorithm;
use super::super::transport::{Context, Transport};
use super::super::wire::{Malformed, Put, Reader};
use super::messages::{LOGIN_BYTES_MAX, Method, SERVICE, request, service_message, signed_data};

/// Most banners of one login. sshd sends one, PAM modules some more.
const BANNERS_MAX: u32 = 16;

/// Longest banner handed on, in bytes; the rest is cut.
const BANNER_BYTES_MAX: usize = 4 << 10;

/// Longest list of methods in a FAILURE, in bytes.
const METHODS_BYTES_MAX: usize = 1 << 10;

/// What a client logs in with. `certificate`: the blob to present in place of the plain key.
pub struct Credential {
    /// Signs.
    pub key: Arc<PrivateKey>,
    /// A user certificate of that key.
    pub certificate: Option<Vec<u8>>,
}

/// What a message of the server meant for a login.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LoginStep {
    /// Go on reading.
    Continue,
    /// `transport.authenticated()` was called.
    Success,
    /// The server refused; the methods that can continue.
    Refused(String),
    /// The key was right and is not enough: one of these methods must follow (RFC 4252 §5.1,
    /// partial success).
    MoreWanted(String),
    /// Text for people, unfiltered.
    Banner(String),
}

/// Where a login stands.
enum State {
    /// `SERVICE_ACCEPT` is due.
    Service,
    /// The answer to the request is due, after this many banners.
    Answer { banners: u32 },
    /// The server answered.
    Answered,
    /// Over. Every later input gets this same answer.
    Ended(Fault),
}

/// The client's side: `SERVICE_REQUEST` and one signed public-key request in one go, no
/// query before it.
pub struct Login {
    state: State,
}

impl Login {
    /// Call once `transport` is Secured and its host key is checked: queues both messages.
    ///
    /// # Errors
    /// [`Fault::Unexpected`] before the first key exchange, [`Fault::NoCommon`] when the key cannot
    /// sign with any algorithm, [`Fault::Malformed`] for a user name over the limit; the
    /// transport's own faults.
    pub fn start(
        login: &str,
        credential: &Credential,
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Result<Self, Fault> {
        let Some(session_id) = transport.session_id() else {
            let number = message::SERVICE_REQUEST;
            return Err(Fault::Unexpected { number, during: Stage::FirstExchange });
        };
        let request = signed_request(login, credential, session_id, transport.server_sig_algs())?;
        transport.send(&service_message(message::SERVICE_REQUEST), cx)?;
        transport.send(&request, cx)?;
        Ok(Self { state: State::Service })
    }

    /// Takes one message that `transport` delivered.
    ///
    /// # Errors
    /// Final: [`Fault::Unexpected`] for every message that is no answer to what we sent,
    /// [`Fault::Service`], [`Fault::Flood`] for banners without end, [`Fault::Malformed`].
    pub fn receive(
        &mut self,
        payload: &[u8],
        transport: &mut Transport,
        _cx: &mut Context<'_>,
    ) -> Result<LoginStep, Fault> {
        let step = self.take(payload)?;
        if step == LoginStep::Success {
            transport.authenticated();
        }
        Ok(step)
    }

    /// The state machine without a transport.
    fn take(&mut self, payload: &[u8]) -> Result<LoginStep, Fault> {
        let step = self.judged(payload);
        if let Err(fault) = &step {
            self.state = State::Ended(*fault);
        }
        step
    }

    fn judged(&mut self, payload: &[u8]) -> Result<LoginStep, Fault> {
        let mut reader = Reader::new(payload);
        let number = reader.u8()?;
        match (&self.state, number) {
            (State::Ended(fault), _) => Err(*fault),
            (State::Service, message::SERVICE_ACCEPT) => {
                if reader.string()? != SERVICE.as_bytes() {
                    return Err(Fault::Service);
                }
                reader.end()?;
                self.state = State::Answer { banners: 0 };
                Ok(LoginStep::Continue)
            }
            (State::Answer { .. }, message::USERAUTH_SUCCESS) => {
                reader.end()?;
                self.state = State::Answered;
                Ok(LoginStep::Success)
            }
            (State::Answer { .. }, message::USERAUTH_FAILURE) => {
                let methods = reader.name()?;
                if methods.len() > METHODS_BYTES_MAX {
                    return Err(Malformed::Range.into());
                }
                let partial_success = reader.bool()?;
                reader.end()?;
                self.state = State::Answered;
                let step = if partial_success { LoginStep::MoreWanted } else { LoginStep::Refused };
                Ok(step(methods.to_owned()))
            }
            (State::Answer { banners }, message::USERAUTH_BANNER) => {
                let banners = banners.saturating_add(1);
                if banners > BANNERS_MAX {
                    return Err(Fault::Flood);
                }
                let text = reader.string()?;
                let _language = reader.string()?;
                reader.end()?;
                self.state = State::Answer { banners };
                let text = text.get(..BANNER_BYTES_MAX).unwrap_or(text);
                Ok(LoginStep::Banner(String::from_utf8_lossy(text).into_owned()))
            }
            (State::Service | State::Answer { .. } | State::Answered, _) => {
                Err(Fault::Unexpected { number, during: Stage::Authentication })
            }
        }
    }
}

/// The one request of a login, signature included.
fn signed_request(
    login: &str,
    credential: &Credential,
    session_id: &[u8],
    server_sig_algs: Option<&str>,
) -> Result<Vec<u8>, Fault> {
    if login.len() > LOGIN_BYTES_MAX {
        return Err(Malformed::Range.into());
    }
    let none = Fault::NoCommon("signature algorithm");
    let algorithm = preferred(credential.key.algorithms(), server_sig_algs).ok_or(none)?;
    let (name, blob) = match &credential.certificate {
        Some(certificate) => (algorithm.certificate_name(), certificate.as_slice()),
        None => (algorithm.name(), credential.key.public().blob()),
    };
    let mut message = request(login, Method::PublicKey, true, name, blob);
    let data = signed_data(session_id, &message);
    let signature = credential.key.sign(algorithm, &data).map_err(|_| none)?;
    message.put_string(&signature);
    Ok(message)
}

/// The first of ours that the server lists. A server that lists none of them, or nothing at all
/// (`EXT_INFO` is optional, and may still be under way), gets our best: refusing is its business.
fn preferred(
    ours: &[SignatureAlgorithm],
    server_sig_algs: Option<&str>,
) -> Option<SignatureAlgorithm> {
    let listed = server_sig_algs.unwrap_or_default();
    ours.iter()
        .find(|algorithm| {
            listed
                .split(',')
                .any(|name| name == algorithm.name() || name == algorithm.certificate_name())
        })
        .or_else(|| ours.first())
        .copied()
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
