//! Listens on a unix socket and for TLS, and serves what comes there: few connections at a time,
//! each with a deadline for everything it may wait for.

use std::net::{SocketAddr, TcpListener as StdTcp};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdUnix, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_rustls::rustls::ServerConfig;

use super::auth::{Credentials, Process};
use super::converse::{CONNECTIONS_MAX, converse};
use super::origin::Origin;
use super::over_tls::{listen, serve_tls, tls_config};
use super::serve_error::ApiServeError;
use super::shared::{Api, Roles, TURNS_MAX, role_of};
use crate::config::{ApiTls, Peer};
use crate::control::feed::{PINS_MAX, READS_MAX};
use crate::control::http::serve_each;
use crate::control::server_thread::{ServerThread, Stopped};
use crate::registry::document::Role;
use crate::registry::writer::Actor;

/// Threads that are left to find out who asks, whatever the others wait for.
const KNOWING_MAX: usize = 4;
/// For what is under way when the API ends.
const END_MAX: Duration = Duration::from_secs(5);
/// Who may connect to the socket: the user and the group that own it. What they may do
/// is another matter.
const SOCKET_MODE: u32 = 0o660;

/// The running API. Dropping it ends it: connections are cut, its socket's file is removed,
/// its thread is gone.
pub struct Handle {
    /// Ends before the socket's file goes.
    _thread: ServerThread,
    socket: Bound,
    tls: Option<(SocketAddr, Arc<ArcSwap<ServerConfig>>)>,
    roles: Roles,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("socket", &self.socket.path).finish_non_exhaustive()
    }
}

impl Handle {
    /// Its unix socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket.path
    }

    /// Where it listens for TLS, with the real port.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.tls.as_ref().map(|(address, _)| *address)
    }

    /// What peers of the socket may do from their next request on.
    pub fn reload_peers(&self, peers: Vec<(Peer, Role)>) {
        self.roles.store(Arc::new(role_of(peers)));
    }

    /// Reads certificate and key anew, for connections from then on. Without TLS nothing happens.
    ///
    /// # Errors
    /// [`ApiServeError::Tls`]; the old ones stay.
    pub fn reload_tls(&self, tls: &ApiTls) -> Result<(), ApiServeError> {
        if let Some((_, config)) = &self.tls {
            config.store(tls_config(tls)?);
        }
        Ok(())
    }
}

/// A socket's file, removed with this unless it is another one by then.
struct Bound {
    path: PathBuf,
    /// Device and inode.
    file: (u64, u64),
}

impl Drop for Bound {
    fn drop(&mut self) {
        let same = |about: fs::Metadata| (about.dev(), about.ino()) == self.file;
        if fs::symlink_metadata(&self.path).is_ok_and(same) {
            let _gone = fs::remove_file(&self.path);
        }
    }
}

/// Where the API is to be: whoever connects waits.
pub struct Reserved {
    unix: StdUnix,
    bound: Bound,
    own_uid: u32,
    tls: Option<(StdTcp, Arc<ServerConfig>)>,
}

/// Takes the socket and, for TLS, the address; reads the certificate.
///
/// # Errors
/// [`ApiServeError`].
pub fn reserve(socket: &Path, tls: Option<&ApiTls>) -> Result<Reserved, ApiServeError> {
    let tls = tls.map(|tls| Ok((listen(tls.listen)?, tls_config(tls)?))).transpose()?;
    let (unix, bound, own_uid) = bind(socket)?;
    Ok(Reserved { unix, bound, own_uid, tls })
}

pub(super) fn start(api: Arc<Api>, reserved: Reserved) -> Result<Handle, ApiServeError> {
    let Reserved { unix, bound, own_uid, tls } = reserved;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(TURNS_MAX + KNOWING_MAX + READS_MAX + PINS_MAX)
        .thread_name("api-wait")
        .build()
        .map_err(ApiServeError::Start)?;
    let (unix, tls) = {
        let _inside = runtime.enter();
        let unix = UnixListener::from_std(unix).map_err(ApiServeError::Start)?;
        let tls = tls.map(|(listener, config)| {
            let address = listener.local_addr()?;
            let config = Arc::new(ArcSwap::new(config));
            Ok((TcpListener::from_std(listener)?, address, config))
        });
        (unix, tls.transpose().map_err(ApiServeError::Start)?)
    };
    let roles = Arc::clone(&api.roles);
    let reload = tls.as_ref().map(|(_, address, config)| (*address, Arc::clone(config)));
    let serve = move |stopped: Stopped| {
        runtime.block_on(async {
            let over_tls = Arc::clone(&api);
            tokio::select! {
                () = serve_unix(unix, api, own_uid) => {}
                () = serve_tls(tls.map(|(listener, _, config)| (listener, config)), over_tls) => {}
                _ = stopped => {}
            }
        });
        runtime.shutdown_timeout(END_MAX);
    };
    let thread = ServerThread::start("api", serve).map_err(ApiServeError::Start)?;
    Ok(Handle { _thread: thread, socket: bound, tls: reload, roles })
}

/// The listener, its file, and the user that this process makes files as.
fn bind(path: &Path) -> Result<(StdUnix, Bound, u32), ApiServeError> {
    let failed = |source| ApiServeError::Socket { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(about) if about.file_type().is_socket() => match StdUnixStream::connect(path) {
            Ok(_) => return Err(ApiServeError::Taken(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        },
        Ok(_) => return Err(ApiServeError::NoSocket(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = StdUnix::bind(path).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
    let about = fs::symlink_metadata(path).map_err(failed)?;
    let bound = Bound { path: path.to_owned(), file: (about.dev(), about.ino()) };
    Ok((listener, bound, about.uid()))
}

async fn serve_unix(listener: UnixListener, api: Arc<Api>, own_uid: u32) {
    let accept = async || {
        let (stream, _) = listener.accept().await?;
        let who = peer(&stream, own_uid);
        Ok(who.map(|(actor, process)| (process.is.uid, (stream, actor, process))))
    };
    let serve = |(stream, actor, process), place| {
        converse(stream, Arc::clone(&api), Origin::Socket(actor, process, place))
    };
    serve_each("API socket", CONNECTIONS_MAX, accept, serve).await;
}

/// Who is at the other end of the socket: those whose credentials were in force
/// when they connected.
fn peer(stream: &UnixStream, own_uid: u32) -> Option<(Actor, Process)> {
    let is = stream.peer_cred().ok()?;
    let peer = Credentials { uid: is.uid(), gid: is.gid() };
    let process = is.pid().map(|pid| format!(" pid {pid}")).unwrap_or_default();
    let actor = Actor { name: format!("uid {}", peer.uid), from: format!("socket{process}") };
    Some((actor, Process { own_uid, is: peer }))
}
