//! What tests of this room share: a seeded source of randomness and two transports
//! joined in memory.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "for tests and fuzzing only, where a panic is the finding"
)]

#[cfg(test)]
pub(super) mod hunt;
#[cfg(test)]
pub(super) mod keygen;

use std::sync::Arc;

use super::entropy::Entropy;
use super::fault::Fault;
use super::host_key::HostKey;
use super::private_key::PrivateKey;
#[cfg(test)]
use super::publickey::PublicKey;
use super::publickey::SignatureAlgorithm;
use super::transport::{
    Algorithms, ClientConfig, Context, Event, Instant, RekeyLimits, ServerConfig, Transport,
};
#[cfg(test)]
use super::wire::Put;

/// SplitMix64: the same bytes for the same seed, on every machine.
pub(crate) struct Seeded(pub(crate) u64);

impl Seeded {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }
}

/// A KRL that lists keys by their SHA-1 hashes (OpenSSH PROTOCOL.krl).
#[cfg(test)]
pub(crate) fn sha1_list<'a>(keys: impl Iterator<Item = &'a PublicKey>) -> Vec<u8> {
    use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
    let mut hashes = Vec::new();
    for key in keys {
        hashes.put_string(digest(&SHA1_FOR_LEGACY_USE_ONLY, key.blob()).as_ref());
    }
    let mut list = b"SSHKRL\n\0".to_vec();
    list.put_u32(1);
    for number in [1, 0, 0] {
        list.put_u64(number);
    }
    list.put_string(b"");
    list.put_string(b"");
    list.put_u8(3);
    list.put_string(&hashes);
    list
}

impl Entropy for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            let len = chunk.len();
            chunk.copy_from_slice(&bytes[..len]);
        }
    }
}

/// A server configuration with one Ed25519 host key made from `seed`.
pub(crate) fn server_config(
    seed: u64,
    algorithms: Algorithms,
    limits: RekeyLimits,
) -> Arc<ServerConfig> {
    let key = PrivateKey::generate_ed25519(&mut Seeded(seed));
    let host_key = HostKey { key, certificate: None };
    Arc::new(ServerConfig::new(vec![host_key], algorithms, limits))
}

/// A client configuration that asks for Ed25519 host keys.
pub(crate) fn client_config(algorithms: Algorithms, limits: RekeyLimits) -> Arc<ClientConfig> {
    Arc::new(ClientConfig::new(&[SignatureAlgorithm::Ed25519], algorithms, limits))
}

/// A transport with what is on its way to it.
pub(crate) struct End {
    pub(crate) transport: Transport,
    pub(crate) inbox: Vec<u8>,
    pub(crate) payloads: Vec<Vec<u8>>,
    pub(crate) events: Vec<Event>,
}

impl End {
    pub(crate) fn new(transport: Transport) -> Self {
        Self { transport, inbox: Vec::new(), payloads: Vec::new(), events: Vec::new() }
    }

    /// Handles everything in the inbox.
    pub(crate) fn receive(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        loop {
            let received = self.transport.receive(&mut self.inbox, cx)?;
            match &received.event {
                Event::Starved => return Ok(()),
                Event::Payload(range) => self.payloads.push(self.inbox[range.clone()].to_vec()),
                other @ (Event::Handled
                | Event::Secured
                | Event::Rekeyed
                | Event::Unimplemented(_)) => self.events.push(other.clone()),
            }
            self.inbox.drain(..received.used);
        }
    }

    /// Takes all output.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        let out = self.transport.output().to_vec();
        self.transport.sent(out.len());
        out
    }
}

/// A client and a server joined in memory, with virtual time and seeded randomness.
pub(crate) struct Pair {
    pub(crate) client: End,
    pub(crate) server: End,
    pub(crate) random: Seeded,
    pub(crate) now: Instant,
}

impl Pair {
    pub(crate) fn new(seed: u64, server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> Self {
        let mut random = Seeded(seed);
        let now = Instant(1_000);
        let mut cx = Context { now, entropy: &mut random };
        let client = End::new(Transport::client(client, &mut cx));
        let server = End::new(Transport::server(server, &mut cx));
        Self { client, server, random, now }
    }

    /// A pair with the default algorithms.
    pub(crate) fn plain(seed: u64) -> Self {
        let limits = RekeyLimits::default();
        let server = server_config(seed ^ 1, Algorithms::default(), limits);
        Self::new(seed, server, client_config(Algorithms::default(), limits))
    }

    /// A pair past its first key exchange with a user authenticated.
    pub(crate) fn connected(seed: u64) -> Self {
        let mut pair = Self::plain(seed);
        pair.settle().unwrap();
        pair.authenticate();
        pair
    }

    pub(crate) fn authenticate(&mut self) {
        self.client.transport.authenticated();
        self.server.transport.authenticated();
    }

    /// Runs `body` with the server's transport and a context.
    pub(crate) fn at_server<T>(
        &mut self,
        body: impl FnOnce(&mut Transport, &mut Context<'_>) -> T,
    ) -> T {
        let mut cx = Context { now: self.now, entropy: &mut self.random };
        body(&mut self.server.transport, &mut cx)
    }

    /// Runs `body` with the client's transport and a context.
    pub(crate) fn at_client<T>(
        &mut self,
        body: impl FnOnce(&mut Transport, &mut Context<'_>) -> T,
    ) -> T {
        let mut cx = Context { now: self.now, entropy: &mut self.random };
        body(&mut self.client.transport, &mut cx)
    }

    /// Carries bytes both ways, in pieces of at most `piece` bytes, until nothing moves.
    pub(crate) fn settle_in_pieces(&mut self, piece: usize) -> Result<(), Fault> {
        loop {
            let to_server = self.client.take_output();
            let to_client = self.server.take_output();
            if to_server.is_empty() && to_client.is_empty() {
                return Ok(());
            }
            let mut cx = Context { now: self.now, entropy: &mut self.random };
            for (end, bytes) in [(&mut self.server, to_server), (&mut self.client, to_client)] {
                for part in bytes.chunks(piece) {
                    end.inbox.extend_from_slice(part);
                    end.receive(&mut cx)?;
                }
            }
        }
    }

    /// Carries bytes both ways until nothing moves.
    pub(crate) fn settle(&mut self) -> Result<(), Fault> {
        self.settle_in_pieces(usize::MAX)
    }
}
