//! What every command that asks a server has in common: where the server is.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use zeroize::Zeroizing;

use super::Output;
use super::api_session::ApiSession;
use super::client::{Client, ServerAt, Tls};
use super::error::CliError;
use super::terminal::Terminal;
use crate::config::{
    self, Config, Found, HostKeys, Report, SOCKET, STATE_DIR, UserCa, VmCredential,
};
use crate::durable::MODE_OTHERS;
use crate::state::State;
use crate::trust;

/// Names the socket.
const SOCKET_VARIABLE: &str = "KEYWAY_SOCKET";

/// Which server.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Server")]
pub(super) struct ServerArgs {
    /// The server's unix socket [default: $KEYWAY_SOCKET, else the one of --config]
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    /// The configuration whose state_dir holds the socket [default: keyway.toml or
    /// /etc/keyway/keyway.toml, if there]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// A server elsewhere, https://HOST:PORT
    #[arg(long, value_name = "URL", global = true)]
    server: Option<String>,
    /// The file with the token for --server
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// The CAs that --server is trusted by, or its own certificate, in PEM [default:
    /// the system's CAs]
    #[arg(long, value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
}

/// Which server, and how to say what it answers.
#[derive(Args, Clone, Debug)]
pub(super) struct Remote {
    /// How to say it
    #[arg(long, value_enum, default_value_t = Output::Table, global = true)]
    pub(super) output: Output,
    #[command(flatten)]
    server: ServerArgs,
}

impl ServerArgs {
    /// For a command with an output of its own.
    pub(super) fn remote(self) -> Remote {
        Remote { output: Output::Table, server: self }
    }

    fn place(&self, terminal: &Terminal<'_>) -> Result<ServerAt, CliError> {
        let Self { socket, server, token_file, ca, .. } = self;
        match (server, token_file) {
            (Some(_), _) if socket.is_some() => {
                let what = "--socket and --server name two servers; leave one out";
                Err(CliError::Usage(what.to_owned()))
            }
            (Some(url), Some(token)) => tls(url, token, ca.as_deref()).map(ServerAt::Tls),
            (Some(_), None) => {
                let what = "--server needs --token-file; `keyway token add` makes a token";
                Err(CliError::Usage(what.to_owned()))
            }
            (None, _) if token_file.is_some() || ca.is_some() => {
                Err(CliError::Usage("--token-file and --ca belong to --server".to_owned()))
            }
            (None, _) => self.socket(terminal).map(ServerAt::Socket),
        }
    }

    fn socket(&self, terminal: &Terminal<'_>) -> Result<PathBuf, CliError> {
        let named = (terminal.variable)(SOCKET_VARIABLE).filter(|path| !path.is_empty());
        if let Some(path) = &self.socket {
            return Ok(path.clone());
        }
        if let (Some(path), None) = (named, &self.config) {
            return Ok(path.into());
        }
        match self.config_file() {
            Some(file) => Ok(find(file)?.socket),
            None => Ok(Path::new(STATE_DIR).join(SOCKET)),
        }
    }

    /// The configuration that is named, or is there.
    fn config_file(&self) -> Option<&Path> {
        self.config.as_deref().or_else(config::usual)
    }
}

impl Remote {
    /// The state directory, if the host key is kept there and not in files that the
    /// configuration names.
    pub(super) fn state_with_host_key(&self) -> Result<State, CliError> {
        if let Some(file) = self.server.config_file() {
            let (config, _) = config::load_config(file).map_err(|report| faults(&report))?;
            if let HostKeys::Given(_) = config.edge.host_keys {
                let shown = file.display();
                return Err(CliError::failed(format!(
                    "{shown}: edge.host_keys names the files of the host keys; copy those"
                )));
            }
        }
        self.state()
    }

    /// The configuration, if one is named or there, and its file.
    pub(super) fn config(&self) -> Result<Option<(PathBuf, Config)>, CliError> {
        let Some(file) = self.server.config_file() else { return Ok(None) };
        let (config, _) = config::load_config(file).map_err(|report| faults(&report))?;
        Ok(Some((file.to_owned(), config)))
    }

    /// The state directory, if the CA is kept there and not in a file that the configuration names.
    pub(super) fn state_with_ca(&self) -> Result<State, CliError> {
        if let Some(file) = self.config_file() {
            let shown = file.display();
            let logins = config::load_logins(Some(file)).map_err(|report| faults(&report))?;
            match logins.vm_leg.credential {
                VmCredential::Key(_) => {
                    return Err(CliError::failed(format!(
                        "{shown}: vm_leg.identity logs in with one plain key: there is no CA; copy that file"
                    )));
                }
                VmCredential::Certificates { ca: UserCa::Given(_), .. } => {
                    return Err(CliError::failed(format!(
                        "{shown}: vm_leg.user_ca names the file of the CA; copy that"
                    )));
                }
                VmCredential::Certificates { ca: UserCa::InState, .. } => {}
            }
        }
        self.state()
    }

    /// Where others reach the API over TLS, as far as is known here; nothing if it is not served
    /// there.
    pub(super) fn api_url(&self) -> Option<String> {
        if let Some(url) = &self.server.server {
            return Some(url.clone());
        }
        let Ok(Some((_, Config { api, .. }))) = self.config() else {
            return Some("https://HOST:PORT".to_owned());
        };
        let at = api.tls?.listen;
        if at.ip().is_unspecified() {
            return Some(format!("https://HOST:{}", at.port()));
        }
        Some(format!("https://{at}"))
    }

    /// The configuration that is named, or is there.
    pub(super) fn config_file(&self) -> Option<&Path> {
        self.server.config_file()
    }

    /// The state directory, for what is done without a server; it is made if it is missing.
    pub(super) fn state(&self) -> Result<State, CliError> {
        State::open(&self.state_dir()?).map_err(|fault| CliError::failed(fault.to_string()))
    }

    /// The state directory that is there, for what only looks.
    pub(super) fn kept_state(&self) -> Result<State, CliError> {
        let path = self.state_dir()?;
        if !path.exists() {
            return Err(CliError::failed(format!(
                "{}: there is no such state directory; fix: name the keyway.toml of the front door with --config",
                path.display()
            )));
        }
        State::open_kept(&path).map_err(|fault| CliError::failed(fault.to_string()))
    }

    fn state_dir(&self) -> Result<PathBuf, CliError> {
        Ok(match self.server.config_file() {
            Some(file) => find(file)?.state_dir,
            None => STATE_DIR.into(),
        })
    }

    /// A server to talk to.
    pub(super) fn talk<'t, 'a>(
        &self,
        terminal: &'t mut Terminal<'a>,
    ) -> Result<ApiSession<'t, 'a>, CliError> {
        let client = Client::new(self.server.place(terminal)?)?;
        Ok(ApiSession { client, output: self.output, terminal })
    }

    /// Another connection to the same server.
    pub(super) fn client(&self, terminal: &Terminal<'_>) -> Result<Client, CliError> {
        Client::new(self.server.place(terminal)?)
    }
}

/// Where the front door of a configuration is.
pub(super) fn find(config: &Path) -> Result<Found, CliError> {
    config::find(config).map_err(|report| faults(&report))
}

fn faults(report: &Report) -> CliError {
    let faults: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
    CliError::failed(faults.join("; "))
}

fn tls(url: &str, token: &Path, ca: Option<&Path>) -> Result<Tls, CliError> {
    let server = trust::server(url).ok_or_else(|| {
        CliError::Usage(format!("--server {url}: write https://HOST or https://HOST:PORT, no more"))
    })?;
    let config = Arc::new(trust::client_config(ca).map_err(CliError::failed)?);
    Ok(Tls { server, token: token_of(token)?, config })
}

/// The token in a file that nobody else may read.
pub(super) fn token_of(file: &Path) -> Result<String, CliError> {
    let shown = file.display();
    let text = read(file)?;
    let mode = fs::metadata(file).map_or(0, |about| about.mode());
    if mode & MODE_OTHERS != 0 {
        let mode = mode & 0o7777;
        return Err(CliError::failed(format!(
            "{shown} is open to others (mode {mode:04o}); fix: chmod go= {shown}"
        )));
    }
    let text = String::from_utf8_lossy(&text);
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(CliError::failed(format!(
            "{shown} holds no token: one line as `keyway token add` or `keyway node token` printed it"
        )));
    }
    Ok(token.to_owned())
}

/// A whole file.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, CliError> {
    fs::read(file).map_err(|error| CliError::failed(format!("{}: {error}", file.display())))
}

/// The text of a file that nobody else may read.
pub(super) fn secret(file: &Path) -> Result<Zeroizing<String>, CliError> {
    let shown = file.display();
    let mode = fs::metadata(file).map_or(0, |about| about.mode()) & 0o7777;
    if mode & MODE_OTHERS != 0 {
        let fix = format!("chmod go= {shown}");
        return Err(CliError::failed(format!(
            "{shown} is open to others (mode {mode:04o}); fix: {fix}"
        )));
    }
    let bytes = Zeroizing::new(read(file)?);
    let text =
        str::from_utf8(&bytes).map_err(|_| CliError::failed(format!("{shown} is no text")))?;
    Ok(Zeroizing::new(text.to_owned()))
}
