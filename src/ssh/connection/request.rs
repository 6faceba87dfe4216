//! What a client asks of a session channel (RFC 4254 §6), parsed within limits.

use super::super::wire::{Malformed, Reader};

/// Longest name in a request (terminal, signal, subsystem, variable), in bytes.
pub(super) const NAME_BYTES_MAX: usize = 256;

/// Longest value of an environment variable, in bytes.
pub(super) const ENV_BYTES_MAX: usize = 4 << 10;

/// Longest command, in bytes: Linux' own limit for one argument.
const COMMAND_BYTES_MAX: usize = 128 << 10;

/// Most terminal modes in one pty-req. RFC 4254 §8 defines fewer than 60 of the 159 opcodes
/// with an argument.
pub(super) const MODES_MAX: usize = 130;

/// A terminal as the client describes it (RFC 4254 §6.2). Text as sent, not printable-safe.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pty {
    /// The value of `TERM`.
    pub term: String,
    /// Width in characters.
    pub columns: u32,
    /// Height in characters.
    pub rows: u32,
    /// Width in pixels.
    pub width_px: u32,
    /// Height in pixels.
    pub height_px: u32,
    /// Opcode and argument of the modes (RFC 4254 §8), without `TTY_OP_END`.
    pub modes: Vec<(u8, u32)>,
}

/// What the peer asked of a session channel. Text as sent, not printable-safe.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Asked {
    /// The user's shell.
    Shell,
    /// One command.
    Exec(String),
    /// A subsystem, e.g. `sftp`.
    Subsystem(String),
    /// A terminal.
    Pty(Pty),
    /// The terminal's new size.
    Window {
        /// Width in characters.
        columns: u32,
        /// Height in characters.
        rows: u32,
        /// Width in pixels.
        width_px: u32,
        /// Height in pixels.
        height_px: u32,
    },
    /// An environment variable.
    Env {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// A signal, without `SIG`.
    Signal(String),
    /// Any other request, by name; also one of the above that is not fit: an `exec` whose command
    /// is no UTF-8 or over 128 KiB, an `env` over the limits. Answer: no.
    Other(String),
}

/// What the body of a channel request holds.
pub(super) enum Parsed {
    Asked(Asked),
    /// What no caller could do anything with: a variable too many, too long or not text; what
    /// only servers send (RFC 4254 §6.10). Not even reported, unless it waits for an answer
    /// behind other requests.
    Unfit,
}

pub(super) fn parse(name: &str, mut reader: Reader<'_>) -> Result<Parsed, Malformed> {
    let asked = match name {
        "shell" => Asked::Shell,
        "exec" => {
            let command = reader.string()?;
            match std::str::from_utf8(command) {
                Ok(command) if command.len() <= COMMAND_BYTES_MAX => Asked::Exec(command.into()),
                Ok(_) | Err(_) => Asked::Other(name.to_owned()),
            }
        }
        "subsystem" => Asked::Subsystem(short(&mut reader)?),
        "signal" => Asked::Signal(short(&mut reader)?),
        "pty-req" => Asked::Pty(Pty {
            term: short(&mut reader)?,
            columns: reader.u32()?,
            rows: reader.u32()?,
            width_px: reader.u32()?,
            height_px: reader.u32()?,
            modes: modes(reader.string()?)?,
        }),
        "window-change" => Asked::Window {
            columns: reader.u32()?,
            rows: reader.u32()?,
            width_px: reader.u32()?,
            height_px: reader.u32()?,
        },
        "env" => {
            let (name, value) = (reader.string()?, reader.string()?);
            reader.end()?;
            return Ok(env(name, value).map_or(Parsed::Unfit, Parsed::Asked));
        }
        "exit-status" | "exit-signal" => return Ok(Parsed::Unfit),
        _ => return Ok(Parsed::Asked(Asked::Other(name.to_owned()))),
    };
    reader.end()?;
    Ok(Parsed::Asked(asked))
}

fn short(reader: &mut Reader<'_>) -> Result<String, Malformed> {
    let text = reader.text()?;
    if text.len() > NAME_BYTES_MAX { Err(Malformed::Range) } else { Ok(text.to_owned()) }
}

fn env(name: &[u8], value: &[u8]) -> Option<Asked> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || value.len() > ENV_BYTES_MAX {
        return None;
    }
    let unfit = |text: &str| text.contains('\0');
    let name = std::str::from_utf8(name).ok().filter(|name| !unfit(name) && !name.contains('='))?;
    let value = std::str::from_utf8(value).ok().filter(|value| !unfit(value))?;
    Some(Asked::Env { name: name.to_owned(), value: value.to_owned() })
}

/// Encoded terminal modes (RFC 4254 §8). They should end with `TTY_OP_END`; paramiko sends an empty
/// list without it.
pub(super) fn modes(encoded: &[u8]) -> Result<Vec<(u8, u32)>, Malformed> {
    let mut reader = Reader::new(encoded);
    let mut modes = Vec::new();
    while !reader.is_empty() {
        match reader.u8()? {
            // TTY_OP_END, and the opcodes that "cause parsing to stop".
            0 | 160..=255 => break,
            opcode => modes.push((opcode, reader.u32()?)),
        }
        if modes.len() > MODES_MAX {
            return Err(Malformed::Range);
        }
    }
    Ok(modes)
}
