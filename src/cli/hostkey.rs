//! `keyway hostkey`: the keys that clients know this front door by. Every edge of a
//! fleet has the same.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;
use zeroize::Zeroizing;

use super::api_path::path;
use super::api_session::each;
use super::archive::Temporary;
use super::error::{CliError, Outcome};
use super::remote::{Remote, read};
use super::table::{self, Column, cell, plain};
use super::terminal::Terminal;
use super::{DONE, Output};
use crate::durable;
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::{KeyFault, KeyType};
use crate::state::Imported;

#[derive(Debug, Subcommand)]
pub(super) enum HostKey {
    /// The public host keys of the running server
    #[command(after_help = "\
Example:
  keyway hostkey list --output json | jq -r '.[].line'")]
    List,
    /// Copy the private host key out of state_dir to a new file (mode 0600); it is made
    /// if there is none
    #[command(after_help = "\
Example:
  keyway hostkey export --config /etc/keyway/keyway.toml edge_host_key")]
    Export {
        /// The new file
        file: PathBuf,
    },
    /// Copy a private host key into state_dir, which must have no other
    #[command(after_help = "\
Example:
  keyway hostkey import --config /etc/keyway/keyway.toml edge_host_key")]
    Import {
        /// An Ed25519 key as ssh-keygen writes it, without a passphrase
        file: PathBuf,
    },
}

const COLUMNS: &[Column] = &[
    ("TYPE", |key| cell(key, "type")),
    ("FINGERPRINT", |key| cell(key, "fingerprint")),
    ("LINE", |key| cell(key, "line")),
];

pub(super) fn run(command: HostKey, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    match command {
        HostKey::List => {
            let mut talk = remote.talk(terminal)?;
            // There are a few at most: they come without pages.
            let keys = talk.get(path(["hostkeys"]))?;
            talk.items(each(&keys, "items").cloned().collect(), COLUMNS)
        }
        HostKey::Export { file } => {
            let state = remote.state_with_host_key()?;
            let entropy = &mut SystemEntropy::default();
            let key =
                state.host_key(entropy).map_err(|fault| CliError::failed(fault.to_string()))?;
            let text = key.to_openssh("keyway host key", entropy);
            let is = write_private(&file, &key, &text, NAMED_BY)?;
            let is = if is == Imported::Already { "already in" } else { "copied to" };
            say(&format!("the host key is {is} {}", file.display()), &key, remote, terminal)
        }
        HostKey::Import { file } => {
            let (key, text) = private(&file, NAMED_BY)?;
            let state = remote.state_with_host_key()?;
            let imported = state.import_host_key(&key, &text, &mut SystemEntropy::default());
            let what = match imported.map_err(|fault| CliError::failed(fault.to_string()))? {
                Imported::New => "the host key is in place; it counts from the next start on",
                Imported::Already => "the host key is in place already",
            };
            say(what, &key, remote, terminal)
        }
    }
}

/// Names the files of host keys that are not in the state directory.
const NAMED_BY: &str = "edge.host_keys";

/// Reads a private key that can be one in the state directory; others are named by a key of
/// the configuration.
pub(super) fn private(
    file: &Path,
    named_by: &str,
) -> Result<(PrivateKey, Zeroizing<String>), CliError> {
    let shown = file.display();
    let bytes = Zeroizing::new(read(file)?);
    let text = Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned());
    let (key, _) = PrivateKey::from_openssh(&text).map_err(|fault| {
        let fix = if fault == KeyFault::Encrypted {
            format!("ssh-keygen -p -N '' -f {shown}")
        } else {
            "name a private key as ssh-keygen -t ed25519 writes it".to_owned()
        };
        CliError::failed(format!("{shown}: {fault}; fix: {fix}"))
    })?;
    let key_type = key.public().key_type();
    if key_type != KeyType::Ed25519 {
        return Err(CliError::failed(format!(
            "{shown}: state_dir takes an Ed25519 key; name a key of another type in {named_by}"
        )));
    }
    Ok((key, text))
}

/// A new file, or one that holds the same key.
pub(super) fn write_private(
    file: &Path,
    key: &PrivateKey,
    text: &str,
    named_by: &str,
) -> Result<Imported, CliError> {
    let shown = file.display();
    let failed = |error: std::io::Error| CliError::failed(format!("{shown}: {error}"));
    if fs::symlink_metadata(file).is_err() {
        let (temporary, mut new) = Temporary::beside(file).map_err(failed)?;
        new.write_all(text.as_bytes()).and_then(|()| new.sync_all()).map_err(failed)?;
        match durable::link(temporary.path(), file) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            linked => return linked.map(|()| Imported::New).map_err(failed),
        }
    }
    let other = || {
        CliError::failed(format!("{shown} is there already and holds another key; name a new file"))
    };
    let (there, _) = private(file, named_by).map_err(|_| other())?;
    if there.public() == key.public() { Ok(Imported::Already) } else { Err(other()) }
}

pub(super) fn say(
    what: &str,
    key: &PrivateKey,
    remote: &Remote,
    terminal: &mut Terminal<'_>,
) -> Outcome {
    let fingerprint = key.public().fingerprint().to_string();
    match remote.output {
        Output::Table => writeln!(terminal.stdout, "{} ({fingerprint})", plain(what))?,
        Output::Json => {
            let item = json!({ "fingerprint": fingerprint, "line": key.public().to_line() });
            writeln!(terminal.stdout, "{}", table::json(&item))?;
        }
    }
    Ok(DONE)
}
