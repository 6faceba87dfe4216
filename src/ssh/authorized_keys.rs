//! One line of an `authorized_keys` file: options, key, comment (sshd(8), "authorized
//! keys file format").
//!
//! Every option is either honoured or refuses the whole line by its name: an option that were
//! dropped in silence would be a permission that nobody gave.

use std::net::IpAddr;

use super::certificate::{CertificateFault, Restrictions};
use super::publickey::{KeyFault, PublicKey};
use super::source_address::{SourceFault, SourcePatterns};

/// Longest line read, in bytes: an RSA-8192 key takes 1.5 kB, a long command a few more.
const LINE_BYTES_MAX: usize = 16 << 10;

/// Options of sshd that the front door cannot honour, and why.
const REFUSED: [(&str, &str); 8] = [
    ("cert-authority", "certificate authorities are configured for the whole front door"),
    ("principals", "it belongs to cert-authority"),
    ("environment", "the environment belongs to the VM"),
    ("tunnel", "tunnel devices belong to the VM"),
    (
        "no-touch-required",
        "a plain security key must always be touched; a certificate may waive it",
    ),
    ("permitopen", "forwards are allowed or forbidden as a whole"),
    ("permitlisten", "forwards are allowed or forbidden as a whole"),
    ("zos-key-ring-label", "there is no key ring here"),
];

/// Why a line is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LineFault {
    /// The key itself.
    #[error(transparent)]
    Key(#[from] KeyFault),
    /// An option of sshd that cannot be honoured here.
    #[error("option {option} cannot be honoured: {reason}")]
    Refused {
        /// Its name.
        option: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not an option of sshd.
    #[error("unknown option {0:?}")]
    Unknown(String),
    /// An option given twice that can only be given once.
    #[error("option {0} is given twice")]
    Twice(&'static str),
    /// An option whose value is missing, not in double quotes, or malformed.
    #[error("option {0} has a malformed value")]
    Value(&'static str),
    /// A quote that never ends, or something after one.
    #[error("unbalanced quotes")]
    Quotes,
    /// An entry of `from=`.
    #[error(transparent)]
    Source(#[from] SourceFault),
}

/// A key with what its line says about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuthorizedKey {
    /// The key.
    pub key: PublicKey,
    /// The rest of the line.
    pub comment: String,
    /// What the options say.
    pub options: KeyOptions,
    /// The options as they were written, which [`KeyOptions::parse`] reads; `None`
    /// if there are none.
    pub options_text: Option<String>,
}

impl AuthorizedKey {
    /// Reads one line. A bare `.pub` line is one too.
    ///
    /// # Errors
    /// [`LineFault`] names the option or entry.
    pub fn parse(line: &str) -> Result<Self, LineFault> {
        let line = line.trim();
        if line.len() > LINE_BYTES_MAX {
            return Err(KeyFault::Malformed.into());
        }
        let first = line.split([' ', '\t']).next().unwrap_or_default();
        let mut options = KeyOptions::default();
        let (key_part, options_text) = if is_key_type(first) {
            (line, None)
        } else {
            let key_part = options.read(line)?;
            let text = line.strip_suffix(key_part).unwrap_or(line).trim_end();
            (key_part, Some(text.to_owned()))
        };
        let (key, comment) = PublicKey::parse_line(key_part)?;
        Ok(Self { key, comment: comment.to_owned(), options, options_text })
    }
}

/// What the options of a line say. The default is that of a line without any.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KeyOptions {
    /// What the session may not do.
    pub restrictions: Restrictions,
    /// `from=`, if given.
    pub from: Option<SourcePatterns>,
    /// `expiry-time=` as Unix time, if given. A time without `Z` is taken as UTC: the edge
    /// has no time zone.
    pub expires_s: Option<u64>,
}

/// Whether a line's first word is the type of a key, spoken here or not, rather than options.
fn is_key_type(word: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-"].iter().any(|family| word.starts_with(family))
}

impl KeyOptions {
    /// Reads the options of a line, without the key.
    ///
    /// # Errors
    /// [`LineFault`] names the option.
    pub fn parse(text: &str) -> Result<Self, LineFault> {
        let mut options = Self::default();
        if text.trim().is_empty() {
            return Ok(options);
        }
        if text.len() > LINE_BYTES_MAX {
            return Err(LineFault::Quotes);
        }
        // As if a key followed; anything that does follow is none of the options.
        let line = format!("{} ", text.trim());
        let rest = options.read(&line)?;
        if rest.is_empty() { Ok(options) } else { Err(LineFault::Quotes) }
    }

    /// Whether the key may be used from `source`, where that is known, at `unix_s`.
    ///
    /// # Errors
    /// [`CertificateFault::Expired`], [`CertificateFault::Source`].
    pub fn admit(&self, source: Option<IpAddr>, unix_s: u64) -> Result<(), CertificateFault> {
        if self.expires_s.is_some_and(|expires_s| unix_s >= expires_s) {
            return Err(CertificateFault::Expired);
        }
        if let (Some(from), Some(source)) = (&self.from, source)
            && !from.admits(source)
        {
            return Err(CertificateFault::Source);
        }
        Ok(())
    }

    /// Takes the options off the front of `line`; returns what follows the blank after them. They
    /// apply in the order written: `restrict,pty` gives the terminal back.
    fn read<'a>(&mut self, mut line: &'a str) -> Result<&'a str, LineFault> {
        loop {
            let end = line.find(['=', ',', ' ', '\t']).ok_or(KeyFault::Malformed)?;
            let (name, rest) = line.split_at(end);
            let name = name.to_ascii_lowercase();
            let rest = if let Some(value) = rest.strip_prefix('=') {
                let (value, rest) = unquote(value)
                    .map_err(|()| known_value(&name).map_or(LineFault::Quotes, LineFault::Value))?;
                self.apply_value(&name, value)?;
                rest
            } else {
                self.apply_flag(&name)?;
                rest
            };
            match rest.strip_prefix(',') {
                Some(more) => line = more,
                None if rest.starts_with([' ', '\t']) => return Ok(rest.trim_start()),
                None => return Err(LineFault::Quotes),
            }
        }
    }

    fn apply_flag(&mut self, name: &str) -> Result<(), LineFault> {
        let restrictions = &mut self.restrictions;
        match name {
            "restrict" => {
                restrictions.no_pty = true;
                restrictions.no_port_forwarding = true;
                restrictions.no_agent_forwarding = true;
                restrictions.no_x11_forwarding = true;
                restrictions.no_user_rc = true;
            }
            "pty" => restrictions.no_pty = false,
            "no-pty" => restrictions.no_pty = true,
            "port-forwarding" => restrictions.no_port_forwarding = false,
            "no-port-forwarding" => restrictions.no_port_forwarding = true,
            "agent-forwarding" => restrictions.no_agent_forwarding = false,
            "no-agent-forwarding" => restrictions.no_agent_forwarding = true,
            "x11-forwarding" => restrictions.no_x11_forwarding = false,
            "no-x11-forwarding" => restrictions.no_x11_forwarding = true,
            "user-rc" => restrictions.no_user_rc = false,
            "no-user-rc" => restrictions.no_user_rc = true,
            "verify-required" => restrictions.verify_required = true,
            "no-verify-required" => restrictions.verify_required = false,
            // It always is: see `REFUSED`.
            "touch-required" => {}
            _ => {
                return Err(known_value(name).map_or_else(|| refuse(name), LineFault::Value));
            }
        }
        Ok(())
    }

    fn apply_value(&mut self, name: &str, value: String) -> Result<(), LineFault> {
        match name {
            "command" => set_once(&mut self.restrictions.force_command, "command", || {
                if value.contains('\0') { Err(LineFault::Value("command")) } else { Ok(value) }
            }),
            "from" => set_once(&mut self.from, "from", || Ok(SourcePatterns::parse(&value)?)),
            "expiry-time" => set_once(&mut self.expires_s, "expiry-time", || {
                parse_time(&value).ok_or(LineFault::Value("expiry-time"))
            }),
            _ => Err(refuse(name)),
        }
    }
}

/// The options with a value that are honoured.
fn known_value(name: &str) -> Option<&'static str> {
    ["command", "from", "expiry-time"].into_iter().find(|known| *known == name)
}

fn refuse(name: &str) -> LineFault {
    REFUSED.into_iter().find(|(option, _)| *option == name).map_or_else(
        || LineFault::Unknown(name.to_owned()),
        |(option, reason)| LineFault::Refused { option, reason },
    )
}

fn set_once<T>(
    slot: &mut Option<T>,
    option: &'static str,
    value: impl FnOnce() -> Result<T, LineFault>,
) -> Result<(), LineFault> {
    if slot.is_some() {
        return Err(LineFault::Twice(option));
    }
    *slot = Some(value()?);
    Ok(())
}

/// A value in double quotes, where `\"` is a quote; returns the rest of the line too.
fn unquote(text: &str) -> Result<(String, &str), ()> {
    let mut rest = text.strip_prefix('"').ok_or(())?;
    let mut value = String::new();
    loop {
        let end = rest.find(['"', '\\']).ok_or(())?;
        let (plain, tail) = rest.split_at(end);
        value.push_str(plain);
        if let Some(after) = tail.strip_prefix("\\\"") {
            value.push('"');
            rest = after;
        } else if let Some(after) = tail.strip_prefix('\\') {
            value.push('\\');
            rest = after;
        } else {
            return Ok((value, tail.strip_prefix('"').ok_or(())?));
        }
    }
}

/// `YYYYMMDD[Z]` or `YYYYMMDDHHMM[SS][Z]` as Unix time.
fn parse_time(text: &str) -> Option<u64> {
    let digits = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    if !matches!(digits.len(), 8 | 12 | 14) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let field = |from: usize, to: usize| match digits.get(from..to) {
        Some(part) => part.parse::<u64>().ok(),
        None => Some(0),
    };
    let (year, month, day) = (field(0, 4)?, field(4, 6)?, field(6, 8)?);
    let (hour, minute, second) = (field(8, 10)?, field(10, 12)?, field(12, 14)?);
    if year < 1970 || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let months = month_days(year);
    let past = usize::try_from(month).ok()?.checked_sub(1)?;
    if day == 0 || day > *months.get(past)? {
        return None;
    }
    let years: u64 = (1970..year).map(|year| month_days(year).iter().sum::<u64>()).sum();
    let days = months.iter().take(past).sum::<u64>().checked_add(years)?.checked_add(day)?;
    let hours = days.checked_sub(1)?.checked_mul(24)?.checked_add(hour)?;
    hours.checked_mul(60)?.checked_add(minute)?.checked_mul(60)?.checked_add(second)
}

fn month_days(year: u64) -> [u64; 12] {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

#[cfg(test)]
#[path = "authorized_keys_tests.rs"]
mod tests;
