//! Nodes that are tried: what is asked before one is trusted, and what was found there.

use clap::Args;
use serde_json::{Value, json};

use super::api_path::path;
use super::api_session::ApiSession;
use super::change::{Change, ChangeArgs};
use super::error::{CliError, Outcome};
use super::keyfile;
use super::remote::secret;
use super::table::{Column, cell, plain};
use super::vm::put;
use super::{DONE, FAULTS};
use crate::registry::{self, Label};

/// Says that a node shows a host key that nobody has confirmed.
const UNCONFIRMED: &str = "host-key-unconfirmed";

/// Where a node's Docker is, and how it is reached.
#[derive(Args, Debug, Default)]
pub(super) struct Reach {
    /// Where its sshd is: it is logged in to with the key that `keyway node identity` shows
    #[arg(long, value_name = "USER@HOST[:PORT]", value_parser = parse_ssh, conflicts_with = "local")]
    ssh: Option<String>,
    /// It is this machine
    #[arg(long)]
    local: bool,
    /// The socket of its Docker, or Podman, there [default: /var/run/docker.sock]
    #[arg(long, value_name = "PATH")]
    docker_socket: Option<String>,
    /// What its address has to lie in: one that is loopback, link-local or multicast is dialled
    /// only if it does
    #[arg(long, value_name = "NETWORK,NETWORK", value_delimiter = ',', requires = "ssh")]
    networks: Option<Vec<String>>,
    /// A private key to log in with [default: the front door's own node key]
    #[arg(long, value_name = "FILE", requires = "ssh")]
    key: Option<std::path::PathBuf>,
    /// A file that says in its first line what opens the key
    #[arg(long, value_name = "FILE", requires = "key")]
    passphrase_file: Option<std::path::PathBuf>,
}

/// What is to be believed of a host key.
#[derive(Args, Debug, Default)]
pub(super) struct Belief {
    /// The host key that it has to show: SHA256:..., a public key line, or a file
    #[arg(long, value_name = "KEY")]
    host_key: Option<String>,
    /// The first host key that it shows will do
    #[arg(long, conflicts_with = "host_key")]
    accept_new: bool,
}

fn parse_ssh(text: &str) -> Result<String, String> {
    registry::ssh_endpoint(text).map(|it| it.to_string()).map_err(str::to_owned)
}

impl Reach {
    /// The body that says so.
    pub(super) fn body(&self, name: &Label) -> Result<Value, CliError> {
        let key = self.key.as_deref().map(secret).transpose()?;
        let passphrase = self.passphrase_file.as_deref().map(secret).transpose()?;
        let first = passphrase.as_ref().map(|text| text.lines().next().unwrap_or_default());
        // The node called `local` is this machine, unless it is said to be elsewhere.
        let is_here =
            self.docker_socket.is_some() && self.ssh.is_none() && name.as_str() == "local";
        let mut body = json!({});
        put(
            &mut body,
            [
                ("ssh", self.ssh.clone().map(Value::from)),
                ("local", (self.local || is_here).then_some(Value::Bool(true))),
                ("docker_socket", self.docker_socket.clone().map(Value::from)),
                ("networks", self.networks.clone().map(Value::from)),
                ("private_key", key.as_ref().map(|text| Value::from(text.as_str()))),
                ("passphrase", first.map(Value::from)),
            ],
        );
        Ok(body)
    }

    /// Whether a host key has to be believed.
    pub(super) const fn is_elsewhere(&self) -> bool {
        self.ssh.is_some()
    }

    /// Whether anything of it is said.
    pub(super) const fn is_given(&self) -> bool {
        self.ssh.is_some() || self.local || self.docker_socket.is_some()
    }

    pub(super) fn shown(&self) -> String {
        match &self.ssh {
            Some(ssh) => format!(" ({ssh})"),
            None => String::new(),
        }
    }
}

impl Belief {
    /// Adds what is believed to a body.
    fn put(&self, body: &mut Value) -> Result<(), CliError> {
        let key = self.host_key.as_deref().map(keyfile::host_key).transpose()?;
        let accept = self.accept_new.then_some(Value::Bool(true));
        put(body, [("host_key", key.map(Value::from)), ("accept_new", accept)]);
        Ok(())
    }

    const fn is_given(&self) -> bool {
        self.host_key.is_some() || self.accept_new
    }

    /// Completes the body of a node to be: what nobody said of its host key is asked for.
    pub(super) fn complete(
        &self,
        name: &Label,
        body: &mut Value,
        talk: &mut ApiSession<'_, '_>,
    ) -> Result<(), CliError> {
        self.put(body)?;
        if self.is_given() {
            return Ok(());
        }
        if !talk.terminal.can_ask() {
            return Err(CliError::Usage(format!(
                "nobody is here who could say that the host key of node {name} is right: give it with --host-key SHA256:..., \
                 or take the one it shows with --accept-new, or add it with --untested and run `keyway node test {name}`"
            )));
        }
        talk.progress(&format!("reaching node {name}..."))?;
        let shown =
            talk.make(Change::post(path(["nodes", "test"]), body.clone()), ChangeArgs::default())?;
        let line = confirmed(name, &shown, talk)?;
        put(body, [("host_key", Some(Value::from(line)))]);
        Ok(())
    }
}

/// The host key that somebody here says is right.
fn confirmed(
    name: &Label,
    shown: &Value,
    talk: &mut ApiSession<'_, '_>,
) -> Result<String, CliError> {
    let key = shown.get("host_key_line").and_then(Value::as_str).map(str::to_owned);
    let (Some(line), true) = (key, shown.get("cause").and_then(Value::as_str) == Some(UNCONFIRMED))
    else {
        return Err(CliError::failed(format!("node {name}: {}", told(shown))));
    };
    let kind = line.split(' ').next().unwrap_or_default().to_owned();
    writeln!(
        talk.terminal.stderr,
        "node {name} shows the host key {} ({})\nthere, `ssh-keygen -lf /etc/ssh/ssh_host_{}_key.pub` shows the same",
        plain(&cell(shown, "host_key")),
        plain(&kind),
        kind.strip_prefix("ssh-").unwrap_or("ecdsa").split('-').next().unwrap_or_default(),
    )?;
    if talk.terminal.agrees("is that right, and is it to be trusted from now on?")? {
        return Ok(line);
    }
    Err(CliError::failed("nothing has changed, and nothing was sent there"))
}

/// What was in the way, and what mends it.
fn told(shown: &Value) -> String {
    let reason =
        shown.get("reason").and_then(Value::as_str).unwrap_or("its Docker was not reached");
    match shown.get("fix").and_then(Value::as_str) {
        Some(fix) => plain(&format!("{reason}; fix: {fix}")),
        None => plain(reason),
    }
}

const FIELDS: &[Column] = &[
    ("STATE", |it| cell(it, "state")),
    ("REASON", |it| cell(it, "reason")),
    ("FIX", |it| cell(it, "fix")),
    ("HOST KEY", |it| cell(it, "host_key")),
    ("DOCKER", |it| cell(it, "docker_version")),
    ("API", |it| cell(it, "api_version")),
    ("ARCHITECTURE", |it| cell(it, "architecture")),
    ("VIA", |it| cell(it, "via")),
    ("SEEN THERE", |it| cell(it, "probe")),
];

/// Tries a node that is known, and asks about its host key if nobody has confirmed one.
pub(super) fn test(name: &Label, belief: &Belief, talk: &mut ApiSession<'_, '_>) -> Outcome {
    let at = path(["nodes", name.as_str(), "test"]);
    let mut body = json!({});
    belief.put(&mut body)?;
    talk.progress(&format!("reaching node {name}..."))?;
    let ask = |body: &Value, talk: &ApiSession<'_, '_>| {
        talk.make(Change::post(at.clone(), body.clone()), ChangeArgs::default())
    };
    let mut found = ask(&body, talk)?;
    let is_unconfirmed = found.get("cause").and_then(Value::as_str) == Some(UNCONFIRMED);
    if is_unconfirmed && talk.terminal.can_ask() {
        let line = confirmed(name, &found, talk)?;
        put(&mut body, [("host_key", Some(Value::from(line)))]);
        found = ask(&body, talk)?;
    }
    talk.show(&found, FIELDS)?;
    Ok(if found.get("state").and_then(Value::as_str) == Some("online") { DONE } else { FAULTS })
}
