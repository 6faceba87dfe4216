//! Who asks, and what they may: a peer of the socket by what the kernel says of it, everybody
//! else by a token.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::problem::Problem;
use crate::config::Peer;
use crate::registry::document::Role;
use crate::registry::writer::Actor;
use crate::registry::{Label, Model};
use crate::ssh::digest;
use crate::ssh::entropy::Entropy;

/// What every token begins with, so that scanners of leaked secrets can tell it.
const TOKEN_PREFIX: &str = "kw_";
/// The same of a token that an agent joins with: it is good for nothing else.
const JOIN_PREFIX: &str = "kwj_";
/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// Longest file of accounts that is read, in bytes.
const ACCOUNTS_BYTES_MAX: u64 = 16 << 20;

/// Somebody whose role is known.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) actor: Actor,
    pub(super) role: Role,
    pub(super) proof: Proof,
}

/// What gave somebody a role; it may do so no longer after a while.
#[derive(Clone, Debug)]
pub(super) enum Proof {
    /// What the kernel says of a peer of the socket.
    Socket(Process),
    /// A token.
    Token(TokenHash),
}

/// Who is at the other end of the socket, and the user that this process runs as.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Process {
    pub(super) own_uid: u32,
    pub(super) is: Credentials,
}

/// A role, as it is written.
pub(super) const fn role_word(role: Role) -> &'static str {
    match role {
        Role::Reader => "reader",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}

/// SHA-256 of a token, in hexadecimal as the registry keeps it.
#[derive(Clone, Debug)]
pub(super) struct TokenHash(String);

impl TokenHash {
    fn of(token: &str) -> Self {
        let hash = digest::sha256(token.as_bytes());
        let digits = hash.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        Self(digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect())
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }

    /// The hash of the token in an `Authorization` header (RFC 6750 §2.1).
    pub(super) fn from_header(value: Option<&[u8]>) -> Result<Self, Problem> {
        const HOW: &str = "send `Authorization: Bearer kw_...` with a token of `keyway token add`";
        let bearer = value.and_then(|value| std::str::from_utf8(value).ok()?.split_once(' '));
        let (scheme, token) = bearer.ok_or_else(|| Problem::unauthenticated(HOW))?;
        let bearer = Some(token).filter(|_| scheme.eq_ignore_ascii_case("bearer"));
        let hash = bearer.and_then(|token| Self::of_shape(token.trim(), TOKEN_PREFIX));
        hash.ok_or_else(|| Problem::unauthenticated(HOW))
    }

    /// The hash of what may be a token that an agent joins with.
    pub(super) fn of_join(token: &str) -> Option<Self> {
        Self::of_shape(token, JOIN_PREFIX)
    }

    fn of_shape(token: &str, prefix: &str) -> Option<Self> {
        let random = URL_SAFE_NO_PAD.decode(token.strip_prefix(prefix)?).ok()?;
        (random.len() == TOKEN_BYTES).then(|| Self::of(token))
    }

    /// The node whose agent joins with the token. Every token is compared, each in constant time.
    pub(super) fn joins(&self, model: &Model) -> Option<Label> {
        let mut found = None;
        for (name, stored) in model.nodes() {
            let join = stored.document.join.as_ref();
            if join.is_some_and(|join| digest::same(join.hash.as_bytes(), self.0.as_bytes())) {
                found = Some(name.clone());
            }
        }
        found
    }

    /// The name and role of the token, if it is good at `now_s`. Every token is compared, each
    /// in constant time.
    pub(super) fn find(&self, model: &Model, now_s: u64) -> Result<(String, Role), Problem> {
        let mut found = None;
        for (name, stored) in model.tokens() {
            if digest::same(stored.document.hash.as_bytes(), self.0.as_bytes()) {
                found = Some((name, &stored.document));
            }
        }
        let unknown = "the token is unknown or was removed; make another with `keyway token add`";
        let (name, token) = found.ok_or_else(|| Problem::unauthenticated(unknown))?;
        if token.expires_s.is_some_and(|end_s| end_s <= now_s) {
            let expired =
                format!("the token `{name}` has expired; make another with `keyway token add`");
            return Err(Problem::unauthenticated(&expired));
        }
        Ok((name.to_string(), token.role))
    }
}

/// A new token and its hash.
pub(super) fn new_token(entropy: &mut dyn Entropy) -> (String, TokenHash) {
    drawn(TOKEN_PREFIX, entropy)
}

/// The same, for an agent to join with.
pub(super) fn new_join_token(entropy: &mut dyn Entropy) -> (String, TokenHash) {
    drawn(JOIN_PREFIX, entropy)
}

fn drawn(prefix: &str, entropy: &mut dyn Entropy) -> (String, TokenHash) {
    let mut random = [0; TOKEN_BYTES];
    entropy.fill(&mut random);
    let token = format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random));
    let hash = TokenHash::of(&token);
    (token, hash)
}

/// What the kernel says of a peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Credentials {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// What peers of the socket may do.
#[derive(Debug)]
pub(super) struct Peers {
    rules: Vec<(Peer, Role)>,
    passwd: PathBuf,
    group: PathBuf,
}

impl Peers {
    pub(super) fn new(rules: Vec<(Peer, Role)>, etc: &Path) -> Self {
        Self { rules, passwd: etc.join("passwd"), group: etc.join("group") }
    }

    /// The greatest of the roles that the rules give. Names are looked up in the files of accounts,
    /// each time: whoever is taken out of a group loses the role at the next request. `own_uid`:
    /// the user that this process runs as.
    pub(super) fn role(&self, own_uid: u32, peer: Credentials) -> Option<Role> {
        let Credentials { uid, gid } = peer;
        if uid == 0 || uid == own_uid {
            return Some(Role::Admin);
        }
        if self.rules.is_empty() {
            return None;
        }
        let (passwd, group) = (read(&self.passwd), read(&self.group));
        let users: Vec<(&str, u32)> = lines(&passwd)
            .filter_map(|fields| {
                let [name, _, is, group, ..] = fields.as_slice() else { return None };
                (is.parse() == Ok(uid)).then_some((*name, group.parse().ok()?))
            })
            .collect();
        let holds = |rule: &Peer| match rule {
            Peer::Uid(is) => *is == uid,
            Peer::User(name) => users.iter().any(|(user, _)| user == name),
            Peer::Group(name) => lines(&group).any(|fields| {
                let [of, _, number, members, ..] = fields.as_slice() else { return false };
                let number = number.parse::<u32>().ok();
                let primary = number == Some(gid)
                    || users.iter().any(|(_, primary)| number == Some(*primary));
                let member =
                    || members.split(',').any(|m| users.iter().any(|(user, _)| *user == m));
                of == name && (primary || member())
            }),
        };
        self.rules.iter().filter(|(rule, _)| holds(rule)).map(|(_, role)| *role).max()
    }
}

/// A file of accounts; unreadable, it names nobody.
fn read(path: &Path) -> String {
    let small = fs::metadata(path).is_ok_and(|about| about.len() <= ACCOUNTS_BYTES_MAX);
    let bytes = if small { fs::read(path).unwrap_or_default() } else { Vec::new() };
    String::from_utf8_lossy(&bytes).into_owned()
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::entropy::SystemEntropy;

    fn peers(rules: &[(Peer, Role)]) -> (Peers, PathBuf) {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("keyway-peers-{}-{number}", std::process::id());
        let etc = std::env::temp_dir().join(name);
        fs::create_dir(&etc).unwrap();
        fs::write(
            etc.join("passwd"),
            "root:x:0:0::/:/bin/sh\ndeploy:x:1001:1001::/:/bin/sh\neve:x:1002:50::/:/bin/sh\nbroken\n",
        )
        .unwrap();
        fs::write(etc.join("group"), "ops:x:2000:eve,mallory\nstaff:x:50:\nbroken\n").unwrap();
        (Peers::new(rules.to_vec(), &etc), etc)
    }

    fn role(peers: &Peers, uid: u32) -> Option<Role> {
        peers.role(990, Credentials { uid, gid: 4242 })
    }

    #[test]
    fn root_and_our_own_user_are_admin_and_others_what_the_rules_say() {
        let (group, user) =
            (|name: &str| Peer::Group(name.into()), |name: &str| Peer::User(name.into()));
        let (peers, etc) = peers(&[
            (user("deploy"), Role::Operator),
            (Peer::Uid(1005), Role::Reader),
            (group("ops"), Role::Reader),
            (group("staff"), Role::Operator),
            (group("4242"), Role::Admin),
            (user("nobody-here"), Role::Admin),
        ]);
        assert_eq!(role(&peers, 0), Some(Role::Admin));
        assert_eq!(role(&peers, 990), Some(Role::Admin));
        assert_eq!(role(&peers, 1001), Some(Role::Operator));
        assert_eq!(role(&peers, 1005), Some(Role::Reader));
        assert_eq!(role(&peers, 1002), Some(Role::Operator), "the greatest of both groups");
        assert_eq!(role(&peers, 1003), None);
        assert_eq!(peers.role(990, Credentials { uid: 1003, gid: 50 }), Some(Role::Operator));
        fs::write(etc.join("group"), "ops:x:2000:eve\n").unwrap();
        assert_eq!(role(&peers, 1002), Some(Role::Reader), "looked up anew");
        fs::remove_dir_all(&etc).unwrap();
        assert_eq!(role(&peers, 1001), None, "without accounts there are no names");
        assert_eq!(role(&peers, 1005), Some(Role::Reader));
    }

    #[test]
    fn only_what_looks_like_a_token_is_looked_up() {
        let (token, hash) = new_token(&mut SystemEntropy::default());
        assert_eq!(token.len(), TOKEN_PREFIX.len() + 43);
        let header = |text: &str| TokenHash::from_header(Some(text.as_bytes()));
        for scheme in ["Bearer", "bearer"] {
            assert_eq!(header(&format!("{scheme} {token}")).unwrap().0, hash.0);
        }
        let short = token.split_at(token.len() - 1).0;
        for wrong in [
            String::new(),
            "Bearer".to_owned(),
            format!("Basic {token}"),
            format!("Bearer {short}"),
            format!("Bearer {token}A"),
            format!("Bearer {}", token.replace("kw_", "kv_")),
            format!("Bearer kw_{}", "+".repeat(43)),
        ] {
            assert_eq!(header(&wrong).unwrap_err().code, "unauthenticated", "{wrong}");
        }
        assert!(TokenHash::from_header(None).is_err());
        assert!(TokenHash::from_header(Some(&[0xff, 0x20, 0xff])).is_err());
    }
}
