//! The metrics endpoint: `GET /metrics`, `GET /healthz` and `GET /readyz`, on a thread of its own.
//!
//! A scrape must cost sessions nothing, so nothing here runs on a shard. There is no
//! authentication: it belongs on loopback or a management network, never on a pool address.
//! Everything a client can make it hold is bounded.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::{TcpListener, TcpSocket};

use super::http::{self, Limits, serve_each};
use super::places::network_of;
use super::server_thread::{ServerThread, Stopped};

/// Connections served at a time. Nobody has to prove anything here, so any of them makes room for a
/// newcomer: a scrape is over before its turn comes.
const CONNECTIONS_MAX: usize = 32;

/// How long a connection may last, idle or not. A scraper that keeps it open makes a new
/// one now and then.
const CONNECTION_MAX: Duration = Duration::from_mins(1);

/// Of one connection: it is cut at its age, whatever is under way.
const LIMITS: Limits = Limits {
    silent: Duration::from_secs(10),
    head: CONNECTION_MAX,
    age: CONNECTION_MAX,
    last_request: Duration::ZERO,
};

/// The media type of text format 0.0.4.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Connections that wait for a place.
const BACKLOG: u32 = 128;

/// Makes the page. Runs on the endpoint's thread, once a scrape.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// Whether something is so, in words. Runs on the endpoint's thread.
pub type Probe = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// What is shown.
#[derive(Clone)]
pub struct Pages {
    /// At `/metrics`.
    pub metrics: Render,
    /// At `/healthz`: whether the process works. Who restarts it otherwise asks this.
    pub healthy: Probe,
    /// At `/readyz`: whether people are let in. Who sends them elsewhere otherwise asks this.
    pub ready: Probe,
}

/// Why the endpoint did not start.
#[derive(Debug, thiserror::Error)]
pub enum MetricsServeError {
    /// The address cannot be listened on.
    #[error("metrics cannot be served on {address}: {source}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No thread or no event loop for it.
    #[error("metrics cannot be served: {0}")]
    Start(#[source] io::Error),
}

/// The running endpoint. Dropping it stops the endpoint and waits until its thread is gone.
#[derive(Debug)]
pub struct Handle {
    address: SocketAddr,
    _thread: ServerThread,
}

impl Handle {
    /// Where it listens, with the real port.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// An address that is ours, and is not answered at yet.
#[derive(Debug)]
pub struct Reserved {
    socket: TcpSocket,
    address: SocketAddr,
}

/// Takes the address. Nobody can connect yet.
///
/// # Errors
/// [`MetricsServeError::Listen`].
pub fn reserve(listen: SocketAddr) -> Result<Reserved, MetricsServeError> {
    let failed = |source| MetricsServeError::Listen { address: listen, source };
    let socket = if listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(failed)?;
    // Or a restart would wait for the last connections' TIME_WAIT.
    socket.set_reuseaddr(true).map_err(failed)?;
    socket.bind(listen).map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    Ok(Reserved { socket, address })
}

impl Reserved {
    /// Serves `pages`, from the moment this returns.
    ///
    /// # Errors
    /// [`MetricsServeError`].
    pub fn serve(self, pages: Pages) -> Result<Handle, MetricsServeError> {
        let Self { socket, address } = self;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(MetricsServeError::Start)?;
        let listener = {
            let _inside = runtime.enter();
            socket
                .listen(BACKLOG)
                .map_err(|source| MetricsServeError::Listen { address, source })?
        };
        let serve = move |stopped| runtime.block_on(serve(listener, pages, stopped));
        let thread = ServerThread::start("metrics", serve).map_err(MetricsServeError::Start)?;
        Ok(Handle { address, _thread: thread })
    }
}

async fn serve(listener: TcpListener, pages: Pages, stopped: Stopped) {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async |State(pages): State<Pages>| answer((pages.healthy)())))
        .route("/readyz", get(async |State(pages): State<Pages>| answer((pages.ready)())))
        .fallback(async || (StatusCode::NOT_FOUND, "try /metrics, /healthz or /readyz\n"))
        .with_state(pages);
    let accept = async || {
        let (stream, peer) = listener.accept().await?;
        Ok(Some((network_of(peer.ip()), stream)))
    };
    let serve = |stream, place| {
        let routes = routes.clone();
        async move {
            http::converse(stream, routes, LIMITS, || false).await;
            drop(place);
        }
    };
    // Not a graceful shutdown: a scraper that keeps its connection must not hold up ours.
    tokio::select! {
        () = serve_each("metrics", CONNECTIONS_MAX, accept, serve) => {}
        _ = stopped => {}
    }
}

async fn metrics(State(pages): State<Pages>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, TEXT)], (pages.metrics)())
}

fn answer(probed: Result<String, String>) -> impl IntoResponse {
    let (status, text) = match probed {
        Ok(text) => (StatusCode::OK, text),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, text),
    };
    (status, text + "\n")
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream as Client;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Well, and not ready.
    fn pages(metrics: Render) -> Pages {
        let healthy = Arc::new(|| Ok("ok".to_owned()));
        Pages { metrics, healthy, ready: Arc::new(|| Err("it drains".to_owned())) }
    }

    fn started() -> Handle {
        let count = AtomicU32::new(0);
        let render: Render = Arc::new(move || {
            format!(
                "# TYPE scrapes counter\nscrapes {}\n",
                count.fetch_add(1, Ordering::Relaxed) + 1
            )
        });
        let reserved = reserve("127.0.0.1:0".parse().expect("address")).expect("an address");
        reserved.serve(pages(render)).expect("starts")
    }

    /// Sends `request` and reads until the other side closes.
    fn ask(handle: &Handle, request: &str) -> String {
        let mut client = Client::connect(handle.address()).expect("connects");
        client.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
        client.write_all(request.as_bytes()).expect("writes");
        let mut answer = String::new();
        // A reset after the answer is as good as an end of file.
        let _ = client.read_to_string(&mut answer);
        answer
    }

    fn get(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    }

    #[test]
    fn metrics_are_rendered_anew_for_each_scrape() {
        let handle = started();
        for n in 1..=3 {
            let answer = ask(&handle, &get("/metrics"));
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
            assert!(answer.ends_with(&format!("scrapes {n}\n")), "{answer}");
        }
    }

    #[test]
    fn other_paths_are_404_and_other_methods_405() {
        let handle = started();
        assert!(ask(&handle, &get("/healthz")).ends_with("\r\n\r\nok\n"));
        let ready = ask(&handle, &get("/readyz"));
        assert!(ready.starts_with("HTTP/1.1 503 ") && ready.ends_with("\r\n\r\nit drains\n"));
        assert!(ask(&handle, &get("/")).starts_with("HTTP/1.1 404 "));
        assert!(ask(&handle, &get("/metrics/../etc")).starts_with("HTTP/1.1 404 "));
        for method in ["POST", "DELETE", "PUT"] {
            let request = get("/metrics").replacen("GET", method, 1);
            assert!(ask(&handle, &request).starts_with("HTTP/1.1 405 "), "{method}");
        }
    }

    #[test]
    fn a_request_without_end_is_cut_off() {
        let handle = started();
        let mut client = Client::connect(handle.address()).expect("connects");
        client.set_write_timeout(Some(Duration::from_secs(10))).expect("timeout");
        client.write_all(b"GET /metrics HTTP/1.1\r\n").expect("writes");
        let mut sent = 0_usize;
        let line = format!("X-Pad: {}\r\n", "x".repeat(1_000));
        while client.write_all(line.as_bytes()).is_ok() {
            sent += line.len();
            assert!(sent < 64 << 20, "it takes everything");
        }
        assert!(ask(&handle, &get("/healthz")).ends_with("ok\n"));
    }

    #[test]
    fn dropping_the_handle_ends_the_endpoint_even_with_a_silent_client() {
        let handle = started();
        let address = handle.address();
        let mut silent = Client::connect(address).expect("connects");
        silent.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
        drop(handle);
        assert!(Client::connect(address).is_err());
        assert!(!matches!(silent.read(&mut [0; 1]), Ok(1)));
    }

    #[test]
    fn an_address_in_use_is_named() {
        let handle = started();
        let fault = reserve(handle.address()).expect_err("in use");
        assert!(fault.to_string().contains(&handle.address().to_string()), "{fault}");
    }

    #[test]
    fn silent_connections_make_room_for_a_scrape_oldest_first() {
        let handle = started();
        let mut silent: Vec<Client> = (0..2 * CONNECTIONS_MAX)
            .map(|_| Client::connect(handle.address()).expect("connects"))
            .collect();
        let answer = ask(&handle, &get("/metrics"));
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let first = &mut silent[0];
        first.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        assert!(!matches!(first.read(&mut [0; 1]), Ok(1)), "the oldest was shown out");
        let last = silent.last_mut().expect("many");
        last.write_all(get("/healthz").as_bytes()).expect("writes");
        let mut answer = String::new();
        last.read_to_string(&mut answer).expect("reads");
        assert!(answer.ends_with("ok\n"), "{answer}");
    }
}
