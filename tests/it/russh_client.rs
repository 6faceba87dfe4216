//! russh as a client: the one peer here that speaks ML-KEM.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, Handle};
use russh::keys::{PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate, load_secret_key};
use russh::{ChannelMsg, Preferred};

use crate::harness::{Target, World};

/// Trusts exactly one host key.
struct Pinned(PublicKey);

impl client::Handler for Pinned {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        offered: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(match offered {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.key_data() == self.0.key_data(),
            PublicKeyOrCertificate::Certificate(_) => false,
        })
    }
}

async fn login(target: &Target, exchange: russh::kex::Name, rekey_bytes: usize) -> Handle<Pinned> {
    let preferred = Preferred { kex: Cow::Owned(vec![exchange]), ..Preferred::default() };
    let config = client::Config {
        preferred,
        limits: russh::Limits::new(rekey_bytes, rekey_bytes, Duration::from_hours(1)),
        nodelay: true,
        ..client::Config::default()
    };
    let pinned = Pinned(PublicKey::from_openssh(&target.host_key.public()).expect("a public key"));
    let mut handle = client::connect(Arc::new(config), (target.host.as_str(), target.port), pinned)
        .await
        .expect("key exchange");
    let key = load_secret_key(target.key.path(), None).expect("a private key");
    let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
    let result = handle.authenticate_publickey(&target.login, key).await.expect("an answer");
    assert!(result.success(), "{result:?}");
    handle
}

/// Sends `len` bytes through `cat` and expects them back.
async fn echoes(handle: &Handle<Pinned>, len: usize) {
    let mut sent = (0..251).collect::<Vec<u8>>().repeat(len / 251 + 1);
    sent.truncate(len);
    let mut channel = handle.channel_open_session().await.expect("a channel");
    channel.exec(true, "cat; exit 7").await.expect("exec");
    let writer = channel.make_writer();
    let to_send = sent.clone();
    let sending = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let mut writer = writer;
        writer.write_all(&to_send).await.expect("the VM takes it");
        writer.shutdown().await.expect("end of input");
    });
    let (mut back, mut status) = (vec![], None);
    while let Some(message) = channel.wait().await {
        if let ChannelMsg::Data { data } = message {
            back.extend_from_slice(&data);
        } else if let ChannelMsg::ExitStatus { exit_status } = message {
            status = Some(exit_status);
        }
    }
    sending.await.expect("all was sent");
    assert_eq!(status, Some(7));
    assert!(back == sent, "{} bytes came back, {len} were sent", back.len());
}

fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_mins(2), work).await.expect("done in time");
    });
}

/// Sends `len` bytes to the VM, which sends them back.
pub(crate) fn copies(target: &Target, len: u64) {
    run(async {
        let handle = login(target, russh::kex::MLKEM768X25519_SHA256, 1 << 30).await;
        echoes(&handle, usize::try_from(len).expect("fits into memory")).await;
    });
}

#[test]
fn russh_logs_in_by_ml_kem() {
    // Debian 12's sshd has none.
    if World::is_passed_by() {
        return;
    }
    let world = World::usual();
    let target = world.target("alice", "s001");
    run(async {
        let handle = login(&target, russh::kex::MLKEM768X25519_SHA256, 1 << 30).await;
        echoes(&handle, 3_000_000).await;
    });
}

#[test]
fn russh_rekeys_by_ml_kem_under_load() {
    if World::is_passed_by() {
        return;
    }
    let world = World::usual();
    let target = world.target("alice", "s001");
    run(async {
        let handle = login(&target, russh::kex::MLKEM768X25519_SHA256, 1 << 20).await;
        echoes(&handle, 10_000_000).await;
    });
}

#[test]
fn russh_logs_in_by_curve25519() {
    let world = World::usual();
    let target = world.target("alice", "s001");
    run(async {
        let handle = login(&target, russh::kex::CURVE25519, 1 << 30).await;
        echoes(&handle, 3_000_000).await;
    });
}
