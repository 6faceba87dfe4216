//! A client on our own protocol core, for what no stock client does: it takes one step at a time.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use keyway::ssh::entropy::SystemEntropy;
use keyway::ssh::message;
use keyway::ssh::private_key::PrivateKey;
use keyway::ssh::publickey::SignatureAlgorithm;
use keyway::ssh::transport::{
    Algorithms, ClientConfig, Context, Event, Instant, RekeyLimits, Transport,
};
use keyway::ssh::userauth::{Credential, Login, LoginStep};
use keyway::ssh::wire::Put as _;

use super::{Key, Target, wait};

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    transport: Transport,
    entropy: SystemEntropy,
    input: Vec<u8>,
}

/// What a client hears, one thing at a time.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Heard {
    Secured,
    /// A later key exchange is done.
    Rekeyed,
    Message(Vec<u8>),
}

impl Client {
    /// Logs in. What came right behind the success is not looked at yet.
    #[track_caller]
    pub(crate) fn logs_in(target: &Target) -> Self {
        let stream = TcpStream::connect((&*target.host, target.port)).expect("a connection");
        stream.set_nodelay(true).expect("a setting");
        stream.set_read_timeout(Some(wait::SOON)).expect("a setting");
        let (limits, algorithms) = (RekeyLimits::default(), Algorithms::default());
        let config = ClientConfig::new(&SignatureAlgorithm::ALL, algorithms, limits);
        let mut entropy = SystemEntropy::default();
        let mut cx = Context { now: Instant(0), entropy: &mut entropy };
        let transport = Transport::client(Arc::new(config), &mut cx);
        let mut client = Self { stream, transport, entropy, input: Vec::new() };
        while client.hear().expect("a key exchange") != Heard::Secured {}
        let credential = Credential { key: Arc::new(private_key(&target.key)), certificate: None };
        let mut login = client
            .step(|transport, cx| Login::start(&target.login, &credential, transport, cx))
            .expect("the service");
        loop {
            let Heard::Message(message) = client.hear().expect("an answer") else { continue };
            let step = client.step(|transport, cx| login.receive(&message, transport, cx));
            match step.expect("an answer") {
                LoginStep::Success => return client,
                LoginStep::Continue | LoginStep::Banner(_) => {}
                LoginStep::Refused(left) | LoginStep::MoreWanted(left) => {
                    panic!("refused; left: {left}")
                }
            }
        }
    }

    /// Waits for one thing; or why there will be none, with what was said of it.
    pub(crate) fn hear(&mut self) -> Result<Heard, String> {
        loop {
            self.flush();
            let mut cx = Context { now: Instant(0), entropy: &mut self.entropy };
            let received = self.transport.receive(&mut self.input, &mut cx).map_err(|fault| {
                let said = self.transport.farewell().map(|(_, text)| text.to_vec());
                format!("{fault}: {}", String::from_utf8_lossy(&said.unwrap_or_default()))
            })?;
            let message = received.event.payload(&self.input).to_vec();
            self.input.drain(..received.used);
            match received.event {
                Event::Secured => return Ok(Heard::Secured),
                Event::Rekeyed => return Ok(Heard::Rekeyed),
                Event::Payload(_) => return Ok(Heard::Message(message)),
                Event::Handled | Event::Unimplemented(_) => {}
                Event::Starved => {
                    let mut block = [0; 1 << 14];
                    match self.stream.read(&mut block) {
                        Ok(0) => return Err("closed".to_owned()),
                        Ok(len) => self.input.extend_from_slice(&block[..len]),
                        Err(why) => return Err(why.to_string()),
                    }
                }
            }
        }
    }

    /// Does something with the transport, and sends what comes of it.
    pub(crate) fn step<T, E>(
        &mut self,
        step: impl FnOnce(&mut Transport, &mut Context<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut cx = Context { now: Instant(0), entropy: &mut self.entropy };
        let done = step(&mut self.transport, &mut cx);
        self.flush();
        done
    }

    pub(crate) fn say(&mut self, message: &[u8]) {
        self.step(|transport, cx| transport.send(message, cx)).expect("a message");
    }

    pub(crate) fn rekey(&mut self) {
        self.step(|transport, cx| transport.rekey(None, cx)).expect("a key exchange");
    }

    /// Until a key exchange is done; what is said meanwhile is nothing to anybody.
    #[track_caller]
    pub(crate) fn await_rekeyed(&mut self) {
        while self.hear().expect("a key exchange") != Heard::Rekeyed {}
    }

    fn flush(&mut self) {
        let out = self.transport.output();
        // Whoever is gone is found gone at the next read.
        let _gone = self.stream.write_all(out);
        let len = out.len();
        self.transport.sent(len);
    }
}

/// The private key in one of a test's files.
pub(crate) fn private_key(key: &Key) -> PrivateKey {
    let text = std::fs::read_to_string(key.path()).expect("a key file");
    PrivateKey::from_openssh(&text).expect("a private key").0
}

/// The only channel of a client, on both sides: every `sshd` counts from 0.
const CHANNEL: u32 = 0;

/// What a command may say in all, in bytes: more than the sockets on the way hold.
const WINDOW_BYTES: u32 = 8 << 20;

/// Opens a session and runs `command` in it; no answer is waited for.
pub(crate) fn exec(client: &mut Client, command: &str) {
    let mut open = vec![message::CHANNEL_OPEN];
    open.put_string(b"session");
    for number in [CHANNEL, WINDOW_BYTES, 32 << 10] {
        open.put_u32(number);
    }
    client.say(&open);
    let mut request = vec![message::CHANNEL_REQUEST];
    request.put_u32(CHANNEL);
    request.put_string(b"exec");
    request.put_bool(false);
    request.put_string(command.as_bytes());
    client.say(&request);
}

/// Input of the command; no answer is waited for.
pub(crate) fn input(client: &mut Client, data: &[u8]) {
    let mut message = vec![message::CHANNEL_DATA];
    message.put_u32(CHANNEL);
    message.put_string(data);
    client.say(&message);
}

/// The end of the command's input.
pub(crate) fn end_of_input(client: &mut Client) {
    let mut message = vec![message::CHANNEL_EOF];
    message.put_u32(CHANNEL);
    client.say(&message);
}

/// All that the command says until it is over.
#[track_caller]
pub(crate) fn output(client: &mut Client) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let Heard::Message(message) = client.hear().expect("the session lives") else { continue };
        match message.first() {
            // The channel's number and the length stand before it.
            Some(&message::CHANNEL_DATA) => all.extend_from_slice(&message[9..]),
            Some(&message::CHANNEL_CLOSE) => return all,
            Some(_) | None => {}
        }
    }
}
