//! Where a node is, and as whom it is entered.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::credential::Credential;

/// Longest name of DNS, in characters (RFC 1035 §2.3.4).
const HOST_CHARS_MAX: usize = 253;
/// Longest login name, in bytes: far above what Linux takes.
const USER_BYTES_MAX: usize = 64;
/// Longest path of a unix socket, in bytes (unix(7)).
const SOCKET_BYTES_MAX: usize = 107;
/// What a socket's path may hold beside letters and digits: nothing that any shell takes for more
/// than itself.
const SOCKET_MARKS: &str = "/._-+@:,=%";

/// Why something is no endpoint.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EndpointFault {
    /// Neither an address nor a name of DNS.
    #[error("a node's host is an IP address or a name such as `n1.example.com`")]
    Host,
    /// Port 0.
    #[error("a node's port is a number from 1 to 65535")]
    Port,
    /// Not a login name.
    #[error(
        "a node's user is a login name of 1 to {USER_BYTES_MAX} letters, digits and `._-@+$\\`"
    )]
    User,
    /// Not a path that can be used.
    #[error(
        "a Docker socket is an absolute path of at most {SOCKET_BYTES_MAX} bytes, of letters, \
         digits and `{SOCKET_MARKS}`, such as /var/run/docker.sock"
    )]
    Socket,
}

/// The path of a Docker socket on a node.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct DockerSocket(String);

impl DockerSocket {
    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for DockerSocket {
    fn default() -> Self {
        Self("/var/run/docker.sock".to_owned())
    }
}

impl FromStr for DockerSocket {
    type Err = EndpointFault;

    fn from_str(text: &str) -> Result<Self, EndpointFault> {
        let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || SOCKET_MARKS.contains(c));
        let is_file = text.starts_with('/') && !text.ends_with('/');
        if is_plain && is_file && text.len() <= SOCKET_BYTES_MAX {
            Ok(Self(text.to_owned()))
        } else {
            Err(EndpointFault::Socket)
        }
    }
}

impl fmt::Debug for DockerSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for DockerSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A node's sshd, and how it is entered.
#[derive(Clone, Debug)]
pub struct Endpoint {
    host: String,
    port: u16,
    user: String,
    networks: Vec<IpNet>,
    docker_socket: DockerSocket,
    credential: Credential,
}

impl Endpoint {
    /// `networks`: where its address must lie; none: anywhere but in special places.
    ///
    /// # Errors
    /// [`EndpointFault`], the first that is found.
    pub fn new(
        (user, host, port): (&str, &str, u16),
        networks: Vec<IpNet>,
        docker_socket: DockerSocket,
        credential: Credential,
    ) -> Result<Self, EndpointFault> {
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.parse::<IpAddr>().is_err() && !is_name(host) {
            return Err(EndpointFault::Host);
        }
        if port == 0 {
            return Err(EndpointFault::Port);
        }
        let is_login = |c: char| c.is_ascii_alphanumeric() || "._-@+$\\".contains(c);
        if user.is_empty() || user.len() > USER_BYTES_MAX || !user.chars().all(is_login) {
            return Err(EndpointFault::User);
        }
        let (host, user) = (host.to_owned(), user.to_owned());
        Ok(Self { host, port, user, networks, docker_socket, credential })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn networks(&self) -> &[IpNet] {
        &self.networks
    }

    pub(super) const fn docker_socket(&self) -> &DockerSocket {
        &self.docker_socket
    }

    pub(super) const fn credential(&self) -> &Credential {
        &self.credential
    }
}

/// Labels of letters, digits, `-` and `_`; the last one not of digits alone, which would be
/// an address in a spelling that only some resolvers read.
fn is_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_number =
        last.chars().all(|c| c.is_ascii_digit()) || last.to_ascii_lowercase().starts_with("0x");
    host.len() <= HOST_CHARS_MAX && host.split('.').all(is_label) && !is_number
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::tunnel::testing;

    fn new(user: &str, host: &str, port: u16) -> Result<Endpoint, EndpointFault> {
        let socket = DockerSocket::default();
        Endpoint::new((user, host, port), vec![], socket, testing::credential())
    }

    #[test]
    fn hosts_are_addresses_or_names() {
        for host in ["203.0.113.9", "2001:db8::1", "[2001:db8::1]", "n1", "n1.example.com.", "a_b"]
        {
            assert!(new("root", host, 22).is_ok(), "{host}");
        }
        for host in ["", "n1 n2", "-oProxyCommand=x", "a..b", "2130706433", "0x7f000001", "127.1"] {
            assert_eq!(new("root", host, 22).unwrap_err(), EndpointFault::Host, "{host}");
        }
        assert_eq!(new("root", "n1", 0).unwrap_err(), EndpointFault::Port);
    }

    #[test]
    fn users_and_sockets_hold_nothing_that_a_shell_or_a_log_reads() {
        for user in ["", "a b", "a\nb", "root;id", &"x".repeat(65)] {
            assert_eq!(new(user, "n1", 22).unwrap_err(), EndpointFault::User, "{user:?}");
        }
        for socket in ["/var/run/docker.sock", "/run/user/1000/podman/podman.sock"] {
            assert_eq!(socket.parse::<DockerSocket>().unwrap().as_str(), socket);
        }
        let long = format!("/{}", "x".repeat(107));
        for socket in ["", "docker.sock", "/", "/a b", "/a'b", "/a$b", "/a\nb", "/a!b", &long] {
            assert_eq!(socket.parse::<DockerSocket>(), Err(EndpointFault::Socket), "{socket:?}");
        }
    }
}
