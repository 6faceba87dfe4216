//! The API's listener for TLS, and who follows there. A client says in its first message whether it
//! is a follower (ALPN): those have places of their own from then on, and one handshake does not
//! wait for the other's round trips. Whoever only says so, and proves nothing, makes room for
//! others who do.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdTcp};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::Acceptor;
use tokio_rustls::server::{StartHandshake, TlsStream};

use super::converse::{CONNECTIONS_MAX, converse};
use super::origin::Origin;
use super::serve_error::ApiServeError;
use super::shared::Api;
use crate::config::ApiTls;
use crate::control::feed::{ALPN, proof};
use crate::control::http::serve_each;
use crate::control::places::{Place, Places, network_of};

/// For a TLS handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long a follower's handshake may keep others from theirs: round trips to those who are far
/// away, and silence, are waited for beside.
const HANDSHAKE_TURN: Duration = Duration::from_millis(100);
/// Connections that say they follow, and have not shown yet that they may.
const ARRIVING_MAX: usize = 1024;
/// Bytes that the kernel keeps for a follower that does not read. Everything of a node with
/// thousands of VMs is some few of these.
const SEND_BUFFER_BYTES: usize = 128 << 10;
/// A follower that acknowledges nothing for so long, or takes nothing, is gone: a heartbeat is
/// always on its way.
const GONE_AFTER: Duration = Duration::from_secs(30);

pub(super) fn listen(address: SocketAddr) -> Result<StdTcp, ApiServeError> {
    let listener = StdTcp::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|source| ApiServeError::Listen { address, source })
}

pub(super) fn tls_config(tls: &ApiTls) -> Result<Arc<ServerConfig>, ApiServeError> {
    let fault = |path: &Path, why: String| ApiServeError::Tls { path: path.to_owned(), why };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(&tls.cert).and_then(Iterator::collect);
    let chain = chain.map_err(|error| fault(&tls.cert, error.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key);
    let key = key.map_err(|error| fault(&tls.key, error.to_string()))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    let mut config = config.map_err(|error| fault(&tls.cert, error.to_string()))?;
    config.alpn_protocols = vec![ALPN.to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

pub(super) async fn serve_tls(
    listener: Option<(TcpListener, Arc<ArcSwap<ServerConfig>>)>,
    api: Arc<Api>,
) {
    let Some((listener, config)) = listener else { return std::future::pending().await };
    let arriving = Arc::new(Places::new("feed", ARRIVING_MAX));
    let accept = async || {
        let (stream, peer) = listener.accept().await?;
        Ok(Some((network_of(peer.ip()), (stream, peer))))
    };
    let serve = |(stream, peer): (TcpStream, SocketAddr), place: Place<IpAddr>| {
        let (api, config, arriving) = (Arc::clone(&api), config.load_full(), Arc::clone(&arriving));
        async move {
            let hello = LazyConfigAcceptor::new(Acceptor::default(), stream);
            let hello = timeout(HANDSHAKE_MAX, hello).await;
            match hello.unwrap_or_else(|late| Err(late.into())) {
                Ok(hello) if follows(&hello) => {
                    place.leaves();
                    let (place, shown_out) = arriving.take(network_of(peer.ip())).await;
                    tokio::select! {
                        () = serve_follower(hello, config, (api, peer, place)) => {}
                        () = shown_out => {}
                    }
                }
                Ok(hello) => {
                    let handshake = timeout(HANDSHAKE_MAX, hello.into_stream(config)).await;
                    shaken(
                        handshake.unwrap_or_else(|late| Err(late.into())),
                        (api, peer, place),
                        false,
                    )
                    .await;
                }
                Err(error) => api.traces.no_tls(peer, &error),
            }
        }
    };
    serve_each("API over TLS", CONNECTIONS_MAX, accept, serve).await;
}

/// Whether a client says that it follows.
fn follows(hello: &StartHandshake<TcpStream>) -> bool {
    hello.client_hello().alpn().is_some_and(|mut all| all.any(|it| it == ALPN))
}

/// Handshakes have their turns: those who came at once do not keep what is sent to all others.
async fn serve_follower(
    hello: StartHandshake<TcpStream>,
    config: Arc<ServerConfig>,
    who: (Arc<Api>, SocketAddr, Place<IpAddr>),
) {
    let seats = Arc::clone(&who.0.following);
    let handshake = async {
        let socket = SockRef::from(&hello.io);
        socket.set_tcp_nodelay(true)?;
        socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
        socket.set_tcp_user_timeout(Some(GONE_AFTER))?;
        let turn = seats.handshakes.acquire().await.map_err(io::Error::other)?;
        let mut handshake = hello.into_stream(config);
        let soon = timeout(HANDSHAKE_TURN, &mut handshake).await;
        drop(turn);
        match soon {
            Ok(done) => done,
            Err(_) => handshake.await,
        }
    };
    let handshake = timeout(HANDSHAKE_MAX, handshake).await;
    shaken(handshake.unwrap_or_else(|late| Err(late.into())), who, true).await;
}

async fn shaken(
    handshake: io::Result<TlsStream<TcpStream>>,
    (api, peer, place): (Arc<Api>, SocketAddr, Place<IpAddr>),
    follows: bool,
) {
    match handshake {
        Ok(stream) => {
            let exporter = proof::exporter(stream.get_ref().1);
            converse(stream, api, Origin::Tls { peer, place, exporter, follows }).await;
        }
        Err(error) => api.traces.no_tls(peer, &error),
    }
}
