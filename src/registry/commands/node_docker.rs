//! The Docker of a node: where it is, and what is to be shown on the way there.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::registry::command::NodeSettings;
use crate::registry::document::{DOCKER_SOCKET, Docker, SshAccess, SshEndpoint};
use crate::registry::name::Label;
use crate::registry::refusal::Refusal;
use crate::registry::values::{check_host_key, plain, ssh_endpoint};

/// Longest path of a socket, in bytes: `sun_path` holds this and a NUL.
const SOCKET_BYTES_MAX: usize = 107;
/// Networks of a node, at most.
const NETWORKS_MAX: usize = 64;
/// Labels of a node, at most, and bytes of each half.
const LABELS_MAX: usize = 32;
const LABEL_BYTES_MAX: usize = 128;

/// The Docker that is described, of which nothing is known.
///
/// # Errors
/// [`Refusal::Invalid`], as of the node that it would be.
pub fn docker_of(set: &NodeSettings) -> Result<Docker, Refusal> {
    let name = Label::new("new").map_err(Refusal::from)?;
    docker(&name, None, set)?.ok_or_else(|| {
        Refusal::invalid("it is not said where the node is", "give `ssh`, or `local`")
    })
}

/// The Docker of a node from then on.
pub(super) fn docker(
    name: &Label,
    was: Option<Docker>,
    set: &NodeSettings,
) -> Result<Option<Docker>, Refusal> {
    let ends = set.ssh.as_deref() == Some("") || set.local == Some(false);
    let endpoint = set.ssh.as_deref().filter(|text| !text.is_empty());
    if set.local == Some(true) && endpoint.is_some() {
        return Err(Refusal::invalid(
            "a node is this machine, or one that is reached over SSH",
            "give `local`, or `ssh`",
        ));
    }
    let socket = set.docker_socket.as_deref().map(check_socket).transpose()?;
    let mut docker = match (was, set.local == Some(true), endpoint) {
        (was, _, Some(text)) => {
            let endpoint = read_endpoint(text)?;
            // A pin is the node's, wherever it moves to.
            match was {
                Some(Docker { socket, ssh: Some(old) }) => {
                    Some(Docker { socket, ssh: Some(SshAccess { endpoint, ..old }) })
                }
                Some(Docker { socket, ssh: None }) => {
                    Some(Docker { socket, ssh: Some(new(endpoint)) })
                }
                None => Some(Docker { socket: DOCKER_SOCKET.to_owned(), ssh: Some(new(endpoint)) }),
            }
        }
        (was, true, None) => {
            let socket = was.map_or_else(|| DOCKER_SOCKET.to_owned(), |docker| docker.socket);
            Some(Docker { socket, ssh: None })
        }
        (Some(Docker { ssh: Some(_), .. }), false, None) if set.ssh.as_deref() == Some("") => None,
        (Some(Docker { ssh: None, .. }), false, None) if ends => None,
        (was, false, None) => was,
    };
    match (&mut docker, socket) {
        (Some(docker), Some(socket)) => docker.socket = socket,
        (None, Some(_)) if !ends => {
            return Err(Refusal::invalid(
                format_args!("node `{name}` has no Docker that Keyway could reach"),
                "say how: `--ssh user@host`, or `--local`",
            ));
        }
        (Some(_) | None, _) => {}
    }
    let over_ssh = docker.as_mut().and_then(|docker| docker.ssh.as_mut());
    let given = [set.host_key.is_some(), set.networks.is_some(), set.credential.is_some()];
    match over_ssh {
        Some(ssh) => of_ssh(ssh, set)?,
        None if given.contains(&true) => return Err(no_ssh(name)),
        None => {}
    }
    Ok(docker)
}

const fn new(endpoint: SshEndpoint) -> SshAccess {
    SshAccess { endpoint, host_key: None, networks: Vec::new(), credential: None }
}

/// What is set of how a node is logged in to.
fn of_ssh(ssh: &mut SshAccess, set: &NodeSettings) -> Result<(), Refusal> {
    if let Some(text) = &set.host_key {
        ssh.host_key = check_host_key(text)?;
    }
    if let Some(texts) = &set.networks {
        ssh.networks = read_networks(texts)?;
    }
    if set.own_credential {
        ssh.credential = None;
    }
    if let Some(sealed) = &set.credential {
        ssh.credential = Some(sealed.clone());
    }
    Ok(())
}

pub(super) fn no_ssh(name: &Label) -> Refusal {
    Refusal::invalid(
        format_args!("node `{name}` is not reached over SSH"),
        format!("say where its sshd is: `keyway node set {name} --ssh user@host`"),
    )
}

fn read_endpoint(text: &str) -> Result<SshEndpoint, Refusal> {
    ssh_endpoint(text).map_err(|fix| {
        Refusal::invalid(format_args!("`{}` is no user@host:port", plain(text)), fix)
    })
}

fn read_networks(texts: &[String]) -> Result<Vec<IpNet>, Refusal> {
    if texts.len() > NETWORKS_MAX {
        let what = format!("the node would have networks: {}", texts.len());
        return Err(Refusal::TooMany { what, limit: NETWORKS_MAX });
    }
    let read = |text: &String| {
        let ip = || text.parse::<IpAddr>().map(IpNet::from).ok();
        text.parse().ok().or_else(ip).ok_or_else(|| {
            Refusal::invalid(
                format_args!("`{}` is no network", plain(text)),
                "write \"10.0.0.0/8\" or \"fd00::/8\"",
            )
        })
    };
    texts.iter().map(read).collect()
}

/// Empty: the usual one.
fn check_socket(path: &str) -> Result<String, Refusal> {
    if path.is_empty() {
        return Ok(DOCKER_SOCKET.to_owned());
    }
    let fits = path.len() <= SOCKET_BYTES_MAX && !path.chars().any(char::is_control);
    if path.starts_with('/') && fits {
        return Ok(path.to_owned());
    }
    Err(Refusal::invalid(
        format_args!("`{}` is no path of a socket", plain(path)),
        format!("write an absolute path of at most {SOCKET_BYTES_MAX} bytes: \"{DOCKER_SOCKET}\""),
    ))
}

pub(super) fn check_labels(
    labels: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Refusal> {
    if labels.len() > LABELS_MAX {
        let what = format!("the node would have labels: {}", labels.len());
        return Err(Refusal::TooMany { what, limit: LABELS_MAX });
    }
    let is_word = |text: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
        text.len() <= LABEL_BYTES_MAX && text.bytes().all(inner)
    };
    match labels.iter().find(|(name, value)| name.is_empty() || !is_word(name) || !is_word(value)) {
        None => Ok(labels.clone()),
        Some((name, value)) => Err(Refusal::invalid(
            format_args!("`{}={}` is no label", plain(name), plain(value)),
            format!("use letters, digits and -_./, at most {LABEL_BYTES_MAX} of them on each side"),
        )),
    }
}

#[cfg(test)]
#[path = "node_docker_tests.rs"]
mod tests;
