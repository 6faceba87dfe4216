//! Reads what people write of keys, endpoints and logins, and says what to write instead.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::document::{SshEndpoint, UserKey};
use super::refusal::Refusal;
use crate::plain_text::{SHOWN_CHARS_MAX, is_unsafe, masked};
use crate::route::{SourceAddress, is_dialable};
use crate::ssh::authorized_keys::AuthorizedKey;
use crate::ssh::keytype::KeyType;
use crate::ssh::publickey::{Fingerprint, PublicKey};

/// Port of an sshd, where none is said.
const SSH_PORT: u16 = 22;
/// Longest endpoint, in bytes: a DNS name and a port.
const ENDPOINT_BYTES_MAX: usize = 260;
/// Longest login name, in bytes: what one `USERAUTH_REQUEST` may reasonably hold, and the limit of
/// our own user names.
const LOGIN_BYTES_MAX: usize = 255;
/// Longest host name, in bytes (RFC 1035 §2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// Reads an `authorized_keys` line.
///
/// # Errors
/// [`Refusal::Invalid`] with what the line's reader says.
pub(super) fn parse_key(line: &str) -> Result<UserKey, Refusal> {
    let line = line.trim();
    let parsed = AuthorizedKey::parse(line).map_err(|fault| {
        Refusal::invalid(
            format_args!("not a key that can be used: {fault}"),
            "give the one line of the .pub file: type, base64, comment",
        )
    })?;
    let key = parsed.key.to_line();
    Ok(UserKey {
        fingerprint: parsed.key.fingerprint().to_string(),
        options: parsed.options_text.unwrap_or_default().trim().to_owned(),
        key,
        comment: parsed.comment.chars().filter(|c| !is_unsafe(*c)).collect(),
    })
}

/// A `host:port` that lies where VMs may lie; a name is looked at when it is dialled.
pub(super) fn check_endpoint(ssh: &str, networks: &[IpNet]) -> Result<(), Refusal> {
    let ip = endpoint(ssh)
        .map_err(|fix| Refusal::invalid(format_args!("`{}` is no host:port", plain(ssh)), fix))?;
    if let Some(ip) = ip.filter(|ip| !networks.iter().any(|network| network.contains(ip))) {
        return Err(Refusal::invalid(
            format_args!("{ip} is in none of vm_leg.networks"),
            "correct the address, or add its network to vm_leg.networks in keyway.toml",
        ));
    }
    if ssh.len() > ENDPOINT_BYTES_MAX {
        let what = format!("the endpoint would have bytes: {}", ssh.len());
        return Err(Refusal::TooMany { what, limit: ENDPOINT_BYTES_MAX });
    }
    Ok(())
}

/// Whether `text` is a `host:port`; the IP if it names one.
///
/// # Errors
/// What to do.
pub(crate) fn endpoint(text: &str) -> Result<Option<IpAddr>, &'static str> {
    const FORM: &str = "write \"10.0.0.5:22\", \"[fd00::5]:22\" or \"host.example:22\"";
    if let Ok(endpoint) = text.parse::<SocketAddr>() {
        let port = if endpoint.port() == 0 { Err("write a port from 1 to 65535") } else { Ok(()) };
        return port.map(|()| Some(endpoint.ip().to_canonical()));
    }
    if text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
        return Err("put the IPv6 address in brackets and add the port: \"[fd00::5]:22\"");
    }
    let (host, port) = text.rsplit_once(':').ok_or("add the port: \"host:22\"")?;
    if !port.parse::<u16>().is_ok_and(|port| port != 0) {
        return Err("write a port from 1 to 65535");
    }
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(inner)
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    // All digits and dots would be a mistyped address that some resolvers take for another one
    // (1.2.3 = 1.2.0.3).
    let numeric = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if host.len() > HOST_BYTES_MAX || numeric || !name.split('.').all(label) {
        return Err(FORM);
    }
    Ok(None)
}

/// Where a node's sshd is, and whom it is logged in to as: `user@host`, or `user@host:port`.
///
/// # Errors
/// What to do.
pub(crate) fn ssh_endpoint(text: &str) -> Result<SshEndpoint, &'static str> {
    let (user, at) =
        text.rsplit_once('@').ok_or("write user@host, or user@host:port: \"root@10.0.0.5\"")?;
    if !is_login(user) {
        return Err("write the name of an account before the @");
    }
    let is_bracketed = at.starts_with('[') && at.ends_with(']');
    let whole = if at.parse::<Ipv6Addr>().is_ok() {
        format!("[{at}]:{SSH_PORT}")
    } else if is_bracketed || !at.contains(':') {
        format!("{at}:{SSH_PORT}")
    } else {
        at.to_owned()
    };
    let ip = endpoint(&whole)?;
    let (host, port) = whole.rsplit_once(':').ok_or("write user@host:port")?;
    let port = port.parse().map_err(|_| "write a port from 1 to 65535")?;
    let host = ip.map_or_else(|| host.to_owned(), |ip| ip.to_string());
    Ok(SshEndpoint { user: user.to_owned(), host, port })
}

/// Where an agent listens: an IP address and a port, for whom it is dialled by is not for a
/// resolver to say.
///
/// # Errors
/// What to do.
pub(crate) fn agent_address(text: &str) -> Result<SocketAddr, &'static str> {
    let at: SocketAddr =
        text.parse().map_err(|_| "write an IP address and a port: \"10.0.0.21:7022\"")?;
    let ip = at.ip().to_canonical();
    if at.port() == 0 {
        return Err("write a port from 1 to 65535");
    }
    if !is_dialable(ip) {
        return Err("write the address that the agent is dialled at");
    }
    Ok(SocketAddr::new(ip, at.port()))
}

/// The identity of an agent: its fingerprint, or the line of its public key.
///
/// # Errors
/// What to do.
pub(crate) fn agent_key(text: &str) -> Result<Fingerprint, &'static str> {
    let text = text.trim();
    if let Ok(fingerprint) = text.parse() {
        return Ok(fingerprint);
    }
    match PublicKey::parse_line(text) {
        Ok((key, _)) if key.key_type() == KeyType::Ed25519 => Ok(key.fingerprint()),
        Ok(_) | Err(_) => Err("write SHA256:... of the agent's identity, or its ssh-ed25519 line"),
    }
}

/// The identity of an edge: the line of its public key.
///
/// # Errors
/// What to do.
pub(crate) fn edge_identity(text: &str) -> Result<PublicKey, &'static str> {
    match PublicKey::parse_line(text.trim()) {
        Ok((key, _)) if key.key_type() == KeyType::Ed25519 => Ok(key),
        Ok(_) | Err(_) => Err("write the ssh-ed25519 line that `keyway identity` prints there"),
    }
}

/// Whether `text` can be the name of an account.
pub(crate) fn is_login(text: &str) -> bool {
    let printable = !text.chars().any(|c| is_unsafe(c) || c.is_whitespace());
    (1..=LOGIN_BYTES_MAX).contains(&text.len()) && printable
}

/// `None`: the name the user asked for.
pub(super) fn check_login(login: &str) -> Result<Option<String>, Refusal> {
    if login.is_empty() {
        return Ok(None);
    }
    if !is_login(login) {
        return Err(Refusal::invalid(
            format_args!("`{}` is no login name", plain(login)),
            "write the name of an account in the VM, or leave it out",
        ));
    }
    Ok(Some(login.to_owned()))
}

/// `None`: the key seen first.
pub(super) fn check_host_key(text: &str) -> Result<Option<String>, Refusal> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(fingerprint) = text.parse::<Fingerprint>() {
        return Ok(Some(fingerprint.to_string()));
    }
    match PublicKey::parse_line(text) {
        Ok((key, _)) => Ok(Some(key.to_line())),
        Err(fault) => Err(Refusal::invalid(
            format_args!("`{}` is no host key: {fault}", plain(text)),
            "write SHA256:... as ssh-keygen -l prints it, or the line of the .pub file",
        )),
    }
}

/// `None`: as for all VMs.
pub(super) fn check_source(text: &str) -> Result<Option<SourceAddress>, Refusal> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|fault| {
        let what = format_args!("`{}` is no source address: {fault}", plain(text));
        Refusal::invalid(what, "write own, none, or networks with commas between")
    })
}

/// What somebody wrote, as it can be said again.
pub(super) fn plain(text: &str) -> String {
    masked(text, SHOWN_CHARS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_read_as_it_is_written() {
        let cases = [
            ("root@203.0.113.9:22", "root@203.0.113.9:22"),
            ("root@203.0.113.9", "root@203.0.113.9:22"),
            ("root@[2001:db8::9]:2301", "root@[2001:db8::9]:2301"),
            ("root@[2001:db8::9]", "root@[2001:db8::9]:22"),
            ("root@2001:db8::9", "root@[2001:db8::9]:22"),
            ("a@b@host.example", "a@b@host.example:22"),
            ("root@host.example:2222", "root@host.example:2222"),
        ];
        for (text, shown) in cases {
            let read = ssh_endpoint(text).unwrap();
            assert_eq!(read.to_string(), shown);
            assert_eq!(ssh_endpoint(&read.to_string()), Ok(read));
        }
        for wrong in [
            "",
            "host",
            "@host",
            "root@",
            "root@:22",
            "root@host:0",
            "root@host:x",
            "root@1.2.3",
            "ro ot@host",
        ] {
            assert!(ssh_endpoint(wrong).is_err(), "{wrong}");
        }
    }
}
