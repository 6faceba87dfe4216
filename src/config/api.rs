//! Walks `[api]`: where operators and their machines talk to this front door, and who may.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::document::{Document, Section, Value};
use super::lines::Lines;
use super::values::{meet, path, path_or_none, socket_address};
use super::{Api, ApiTls, Config, Peer, keys};
use crate::durable::MODE_OTHERS;
use crate::registry::document::Role;

/// Longest path of a socket, in bytes: what `sockaddr_un` holds beside its last zero.
const SOCKET_BYTES_MAX: usize = 107;
/// Beyond what anybody keeps in mind; each is looked at when a peer connects.
const PEERS_MAX: usize = 256;
/// How long a canary may be watched, in seconds: what waits meanwhile is in memory.
const CANARY_S: std::ops::RangeInclusive<u32> = 0..=600;
/// Whoever is ended by what it took is by then.
const CANARY_USUAL_S: u32 = 5;
/// Longest name of an account, in bytes, as useradd(8) has it.
const ACCOUNT_BYTES_MAX: usize = 32;

/// An empty socket stands for the one in the state directory.
pub(super) fn read(root: &Section<'_, '_>, base: &Path, lines: &mut Lines) -> Api {
    let section = root.section("api");
    let get = |key| section.as_ref().and_then(|section| section.get(key));
    let socket = get("socket").and_then(|value| {
        lines.socket = value.line;
        path_or_none(&value, base)
    });
    let listen = get("listen").and_then(|value| {
        lines.api = value.line;
        let text = value.string()?;
        if text.is_empty() { None } else { Some((socket_address(&value, text), value)) }
    });
    let files = [("tls_cert", "CERTIFICATE"), ("tls_key", "PRIVATE KEY")]
        .map(|(key, what)| get(key).map(|value| (pem(&value, base, what), value)));
    let canary_s = get("canary_s").and_then(|value| {
        value.integer(CANARY_S, "seconds; 0: all agents have every change at once")
    });
    let peers = section.as_ref().and_then(|section| section.section("peers"));
    if let Some(peers) = &peers {
        lines.peers = peers.line;
    }
    let peers = peers.map(read_peers).unwrap_or_default();
    let tls = match (listen, files) {
        (None, [None, None]) => None,
        (None, [cert, key]) => {
            for (_, value) in [cert, key].into_iter().flatten() {
                value.warn("has no use", "add api.listen, or remove it");
            }
            None
        }
        (Some((listen, _)), [Some((cert, _)), Some((key, _))]) => {
            listen.zip(cert.zip(key)).map(|(listen, (cert, key))| ApiTls { listen, cert, key })
        }
        (Some((_, value)), [cert, key]) => {
            let missing: Vec<&str> = [("`api.tls_cert`", cert), ("`api.tls_key`", key)]
                .into_iter()
                .filter_map(|(key, given)| given.is_none().then_some(key))
                .collect();
            value.fault(
                format_args!("is set without {}", missing.join(" and ")),
                "name the PEM files of a certificate and its key: nothing is served on TCP without TLS",
            );
            None
        }
    };
    if let Some(section) = section {
        section.finish();
    }
    let canary = Duration::from_secs(canary_s.unwrap_or(CANARY_USUAL_S).into());
    Api { socket: socket.unwrap_or_default(), tls, peers, canary }
}

/// A PEM file that holds what it must. What it holds is parsed where it is used.
pub(super) fn pem(value: &Value<'_, '_>, base: &Path, what: &str) -> Option<std::path::PathBuf> {
    let path = path(value, base)?;
    let shown = path.display();
    let text = fs::read(&path).and_then(|bytes| Ok((bytes, fs::metadata(&path)?.mode())));
    let (bytes, mode) = match text {
        Ok(read) => read,
        Err(error) => {
            let told = keys::plain(&error);
            value.fault(
                format_args!("names {shown}: {told}"),
                "correct the path or its permissions",
            );
            return None;
        }
    };
    let bytes = zeroize::Zeroizing::new(bytes);
    if what == "PRIVATE KEY" && mode & MODE_OTHERS != 0 {
        let told = format!("names {shown}, which others may read (mode {:04o})", mode & 0o7777);
        value.fault(told, format_args!("chmod 600 {shown}"));
        return None;
    }
    let text = String::from_utf8_lossy(&bytes);
    let held = |line: &str| line.starts_with("-----BEGIN ") && line.contains(what);
    if !text.lines().any(held) {
        value.fault(
            format_args!("names {shown}, which holds no PEM block of a {}", what.to_lowercase()),
            "name a file with -----BEGIN lines, as every CA gives it",
        );
        return None;
    }
    Some(path)
}

fn read_peers(section: Section<'_, '_>) -> Vec<(Peer, Role)> {
    const ROLES: [(&str, Role); 3] =
        [("reader", Role::Reader), ("operator", Role::Operator), ("admin", Role::Admin)];
    let mut peers: Vec<(Peer, Role)> = Vec::new();
    for (key, value) in section.entries() {
        if peers.len() == PEERS_MAX {
            value.fault(
                "is one peer too many",
                format_args!("name {PEERS_MAX} at most; use groups"),
            );
            break;
        }
        let peer = read_peer(key);
        if peer.is_none() {
            value.fault(
                "names no account",
                "write the name of a user, \"1000\" or \"uid:1000\" for a number, or \"group:\" and the name of a group",
            );
        }
        peers.extend(peer.zip(value.word(&ROLES)));
    }
    peers
}

fn read_peer(key: &str) -> Option<Peer> {
    let name = |name: &str| {
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b':' | b',' | b'/');
        let sound = (1..=ACCOUNT_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain);
        sound.then(|| name.to_owned())
    };
    match key.split_once(':') {
        // No account may be called so (useradd(8)): whoever writes a number means a number.
        None if key.bytes().all(|byte| byte.is_ascii_digit()) => key.parse().ok().map(Peer::Uid),
        None => name(key).map(Peer::User),
        Some(("uid", number)) => number.parse().ok().map(Peer::Uid),
        Some(("group", group)) => name(group).map(Peer::Group),
        Some(_) => None,
    }
}

/// What the section contradicts. Pool addresses are held against it where the fleet is known.
pub(super) fn check(document: &Document, config: &Config, lines: &Lines) {
    let socket = &config.api.socket;
    let bytes = socket.as_os_str().as_bytes().len();
    if bytes > SOCKET_BYTES_MAX {
        let what = format!("the API's socket would be {} ({bytes} bytes)", socket.display());
        let fix = format!("write an api.socket of at most {SOCKET_BYTES_MAX} bytes");
        document.fault(lines.socket, what, fix);
    }
    if !config.api.peers.is_empty() && socket.starts_with(&config.state_dir) {
        document.warn(
            lines.peers,
            format_args!(
                "`api.peers` names others, who cannot reach {}: nobody else may enter state_dir (0700)",
                socket.display()
            ),
            "write an api.socket in a directory of a group that they are in: install -d -m 2750 -g GROUP /run/keyway",
        );
    }
    let Some(tls) = &config.api.tls else { return };
    let api = tls.listen;
    if api.ip().is_unspecified() {
        let what = format!("`api.listen` is {api}, which includes every pool address");
        let fix = "write an address of the management network, or 127.0.0.1";
        document.fault(lines.api, what, fix);
    }
    let edge = config.edge.listen.iter().map(|at| ("edge.listen", *at));
    let all = edge.chain(std::iter::once(("metrics.listen", config.metrics.listen)));
    if let Some((key, at)) = all.into_iter().find(|(_, at)| meet(*at, api)) {
        let what = format!("`api.listen` is {api}, where `{key}` has {at}");
        document.fault(lines.api, what, "write another port");
    }
}
