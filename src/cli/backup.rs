//! `keyway backup` and `keyway restore`: all that this front door is, in one sealed file: its
//! registry, its CA, its host keys and what it is to agents. A copy of the store alone lets
//! nobody in elsewhere.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Seek as _};
use std::path::{Path, PathBuf};

use age::secrecy::SecretString;
use age::x25519;
use clap::Args;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::archive::{self, Content, Opens, SMALL_BYTES_MAX, Seal, Temporary};
use super::error::{CliError, Outcome};
use super::remote::{Remote, read, secret};
use super::store::{next, put_back};
use super::table::plain;
use super::terminal::Terminal;
use super::{DONE, Output, table};
use crate::config::{Config, HostKeys, UserCa, VmCredential};
use crate::registry::refusal::utc;
use crate::registry::store::sqlite::Restored;
use crate::registry::store::{Head, Sqlite, Store as _, sqlite};
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::host_key::HostKey;
use crate::ssh::private_key::PrivateKey;
use crate::state::{HOST_KEY, IDENTITY, NODE_KEY, PINS, Placed, SEAL_KEY, STORE, State, USER_CA};
use crate::unix_time::unix_s;

/// What the archive says of itself; its first file.
const ABOUT: &str = "keyway-backup.json";
/// Files that the configuration names stand behind this.
const NAMED: &str = "named/";

#[derive(Args, Debug)]
#[group(skip)]
pub(super) struct Backup {
    /// The new file (mode 0600)
    file: PathBuf,
    /// Seal it for the holder of this key: age1..., or a file with such lines (may be repeated)
    #[arg(long, value_name = "KEY", conflicts_with_all = ["passphrase_file", "plain"])]
    recipient: Vec<String>,
    /// Seal it by the passphrase in a file
    #[arg(long, value_name = "FILE", conflicts_with = "plain")]
    passphrase_file: Option<PathBuf>,
    /// Do not seal it: whoever has the file has the private keys
    #[arg(long)]
    plain: bool,
}

#[derive(Args, Debug)]
#[group(skip)]
pub(super) struct Restore {
    /// The backup
    file: PathBuf,
    /// What opens a backup for a recipient: a file as age-keygen writes it (may be repeated)
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    identity: Vec<PathBuf>,
    /// What opens a backup by passphrase
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

fn failed(fault: impl std::fmt::Display) -> CliError {
    CliError::failed(fault.to_string())
}

pub(super) fn backup(asked: &Backup, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    let seal = seal(asked)?;
    let config = remote.config()?;
    let state = remote.kept_state()?;
    let at_s = unix_s();
    if !state.store().exists() {
        let what = "there is no store; keyway serve makes one";
        return Err(failed(format!("{}: {what}", state.store().display())));
    }
    let mut files = keys(&state, config.as_ref().map(|(_, config)| config))?;
    // In the state directory, where it is as safe as the store itself.
    let (copy, _) = Temporary::beside(&state.store()).map_err(failed)?;
    fs::remove_file(copy.path()).map_err(failed)?;
    sqlite::backup(&state.store(), copy.path()).map_err(failed)?;
    let head = Sqlite::open_kept(copy.path()).and_then(|store| store.head()).map_err(failed)?;
    if let Some((file, _)) = &config {
        files.push((format!("{NAMED}keyway.toml"), Content::Bytes(Zeroizing::new(read(file)?))));
    }
    files.push((STORE.to_owned(), Content::File(copy.path().to_owned())));
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    let about = json!({
        "keyway": env!("CARGO_PKG_VERSION"),
        "at": utc(at_s),
        "store_id": head.store_id.to_string(),
        "revision": head.revision.0,
        "files": names,
    });
    let text = Zeroizing::new(about.to_string().into_bytes());
    files.insert(0, (ABOUT.to_owned(), Content::Bytes(text)));
    archive::write(&asked.file, &seal, &files, at_s)?;
    match remote.output {
        Output::Json => writeln!(terminal.stdout, "{}", table::json(&about))?,
        Output::Table => writeln!(
            terminal.stdout,
            "{} holds the store (revision {}), host keys and CA of {}",
            plain(&asked.file.display().to_string()),
            head.revision,
            plain(&state.store().parent().unwrap_or(Path::new(".")).display().to_string())
        )?,
    }
    Ok(DONE)
}

/// The keys of a front door: those of the state directory, and those that its configuration names.
fn keys(state: &State, config: Option<&Config>) -> Result<Vec<(String, Content)>, CliError> {
    let entropy = &mut SystemEntropy::default();
    let kept = |name: &str| {
        state.kept_key(name).map_err(failed)?.ok_or_else(|| {
            let path = state.store().with_file_name(name);
            let fix = match config {
                Some(_) => "put it back, or start keyway serve, which makes one",
                None => "name with --config the keyway.toml that says where the keys are",
            };
            failed(format!("{}: there is no such key; fix: {fix}", path.display()))
        })
    };
    let (mut files, mut certificates) = (Vec::new(), Vec::new());
    let mut put = |name: String, key: &PrivateKey, entropy: &mut SystemEntropy| {
        let text = key.to_openssh(&name, entropy);
        files.push((name, Content::Bytes(Zeroizing::new(text.as_bytes().to_vec()))));
    };
    match config.map(|config| &config.edge.host_keys) {
        Some(HostKeys::Given(all)) => {
            for (number, HostKey { key, certificate }) in (1..).zip(all) {
                let name = format!("{NAMED}edge.host_keys-{number}");
                put(name.clone(), key, entropy);
                certificates.extend(certificate.as_ref().map(|it| {
                    let line = format!("{}\n", it.to_line()).into_bytes();
                    (format!("{name}-cert.pub"), Content::Bytes(Zeroizing::new(line)))
                }));
            }
        }
        Some(HostKeys::InState) | None => {
            put(HOST_KEY.to_owned(), &kept(HOST_KEY)?, entropy);
        }
    }
    match config.map(|config| &config.vm_leg.credential) {
        Some(VmCredential::Key(key)) => put(format!("{NAMED}vm_leg.identity"), key, entropy),
        Some(VmCredential::Certificates { ca: UserCa::Given(key), .. }) => {
            put(format!("{NAMED}vm_leg.user_ca"), key, entropy);
        }
        Some(VmCredential::Certificates { ca: UserCa::InState, .. }) | None => {
            put(USER_CA.to_owned(), &kept(USER_CA)?, entropy);
        }
    }
    if let Some(key) = config.and_then(|config| config.dns.as_ref()?.dnssec_key.as_ref()) {
        put(format!("{NAMED}dns.dnssec_key"), key, entropy);
    }
    // Agents and nodes know them, if there are any.
    for name in [IDENTITY, NODE_KEY] {
        if let Some(key) = state.kept_key(name).map_err(failed)? {
            put(name.to_owned(), &key, entropy);
        }
    }
    if let Some(text) = state.seal_key_text().map_err(failed)? {
        files.push((SEAL_KEY.to_owned(), Content::Bytes(Zeroizing::new(text.as_bytes().to_vec()))));
    }
    if let Some(text) = state.old_pins_text().map_err(failed)? {
        files.push((PINS.to_owned(), Content::Bytes(Zeroizing::new(text.as_bytes().to_vec()))));
    }
    files.extend(certificates);
    Ok(files)
}

fn seal(asked: &Backup) -> Result<Seal, CliError> {
    if let Some(file) = &asked.passphrase_file {
        return passphrase(file).map(Seal::Passphrase);
    }
    if asked.plain {
        return Ok(Seal::Plain);
    }
    if asked.recipient.is_empty() {
        return Err(CliError::Usage(
            "a backup holds private keys: name --recipient age1... (age-keygen makes such a key) or --passphrase-file FILE; \
             --plain leaves it unsealed"
                .to_owned(),
        ));
    }
    let mut recipients = Vec::new();
    for named in &asked.recipient {
        let texts = if Path::new(named).is_file() {
            String::from_utf8_lossy(&read(Path::new(named))?).into_owned()
        } else {
            named.clone()
        };
        let lines = texts.lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            recipients.push(line.parse::<x25519::Recipient>().map_err(|fault| {
                let shown: String = line.chars().take(60).collect();
                let fix = if line.starts_with("ssh-") {
                    "an SSH key cannot be one; make a key with age-keygen"
                } else {
                    "name age1..., as age-keygen prints it"
                };
                failed(format!("--recipient {shown}: {fault}; fix: {fix}"))
            })?);
        }
    }
    if recipients.is_empty() {
        return Err(failed("--recipient: the file names none; write age1..., one a line"));
    }
    Ok(Seal::Recipients(recipients))
}

/// The first line of a file that nobody else may read.
fn passphrase(file: &Path) -> Result<SecretString, CliError> {
    let text = secret(file)?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(failed(format!("{} holds no passphrase in its first line", file.display())));
    }
    Ok(SecretString::from(line.to_owned()))
}

fn opens(asked: &Restore) -> Result<Opens, CliError> {
    let shown = asked.file.display();
    let is_sealed =
        archive::is_sealed(&asked.file).map_err(|it| failed(format!("{shown}: {it}")))?;
    if !is_sealed && asked.passphrase_file.is_none() && asked.identity.is_empty() {
        return Ok(Opens::Nothing);
    }
    if !is_sealed {
        // Whoever can replace the file could else leave out what shows that it is ours.
        return Err(failed(format!(
            "{shown} is not sealed, so neither a passphrase nor an identity vouches for it; fix: name the sealed one, or, if \
             you made it with keyway backup --plain, restore it without them"
        )));
    }
    if let Some(file) = &asked.passphrase_file {
        return passphrase(file).map(Opens::Passphrase);
    }
    let mut identities = Vec::new();
    for file in &asked.identity {
        let text = secret(file)?;
        let lines = text.lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let identity = line.parse::<x25519::Identity>();
            identities.push(identity.map_err(|fault| {
                failed(format!(
                    "{}: {fault}; fix: name a file that age-keygen wrote",
                    file.display()
                ))
            })?);
        }
    }
    if identities.is_empty() {
        return Err(CliError::Usage(format!(
            "{shown} is sealed: name --identity FILE (of a recipient) or --passphrase-file FILE"
        )));
    }
    Ok(Opens::Identities(identities))
}

/// What was found in an archive, before anything is changed.
struct Found<'a> {
    /// The archive.
    file: &'a Path,
    /// Of all that it holds, until now.
    names: BTreeSet<String>,
    store: Option<Temporary>,
    /// Names in the state directory.
    keys: Vec<(&'static str, Zeroizing<String>)>,
    /// Names of this configuration or another.
    named: Vec<(String, Zeroizing<String>)>,
}

pub(super) fn restore(asked: &Restore, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    let opens = opens(asked)?;
    let state = remote.state()?;
    // Before all is read: a large store takes its time.
    let _nobody_serves = state.lock().map_err(failed)?;
    let nobody_drains = state.have_store().map_err(failed)?;
    let mut found = Found {
        file: &asked.file,
        names: BTreeSet::new(),
        store: None,
        keys: Vec::new(),
        named: Vec::new(),
    };
    archive::read(&asked.file, &opens, &mut |name, size, content| {
        found.take(&state, name, size, content)
    })?;
    let shown = asked.file.display();
    let Some(store) = found.store.take() else {
        return Err(failed(format!("{shown} holds no store: it is no backup of keyway")));
    };
    Sqlite::open_kept(store.path()).map_err(failed)?;
    for (name, text) in &found.keys {
        if *name != PINS {
            PrivateKey::from_openssh(text)
                .map_err(|it| failed(format!("{shown}: {name}: {it}")))?;
        }
    }
    let at_s = unix_s();
    let stamp = utc(at_s).replace(['-', ':'], "");
    let Restored { head, replaced } = put_back(&state, &nobody_drains, store.path(), &asked.file)?;
    // What fails most easily came first: keys beside a store that is not theirs let nobody in.
    let half = |fault| {
        failed(format!("{fault}; the store is restored already: mend that and restore again"))
    };
    let mut kept: Vec<PathBuf> = replaced.into_iter().collect();
    for (name, text) in &found.keys {
        match state.put(name, text, &stamp).map_err(half)? {
            Placed::New | Placed::Already => {}
            Placed::InPlaceOf(other) => kept.push(other),
        }
    }
    let mut aside = Vec::new();
    for (name, text) in &found.named {
        let directory = format!("restored-{stamp}");
        aside.push(state.put_aside(&directory, name, text).map_err(half)?);
    }
    let text = match remote.output {
        Output::Json => format!("{}\n", table::json(&item(head, &kept, &aside))),
        Output::Table => {
            let (store, next) = (state.store(), next(&state, head));
            let restored = format!("{} is restored from {shown}", store.display());
            let Head { store_id, revision } = head;
            told(
                &format!("{restored} (store {store_id}, revision {revision}){next}"),
                &kept,
                &aside,
            )
        }
    };
    write!(terminal.stdout, "{text}")?;
    Ok(DONE)
}

/// What was restored, for programs.
fn item(head: Head, kept: &[PathBuf], aside: &[PathBuf]) -> Value {
    let shown = |all: &[PathBuf]| -> Vec<String> {
        all.iter().map(|path| path.display().to_string()).collect()
    };
    json!({
        "store_id": head.store_id.to_string(),
        "revision": head.revision.0,
        "kept": shown(kept),
        "aside": shown(aside),
    })
}

/// What was restored, for people.
fn told(restored: &str, kept: &[PathBuf], aside: &[PathBuf]) -> String {
    let mut text = format!("{restored}\n");
    for path in kept {
        let _ = writeln!(text, "what was there before is kept as {}", path.display());
    }
    for path in aside {
        let _ = writeln!(
            text,
            "a file that the configuration of the backup names is in {}: put it where keyway.toml wants it",
            path.display()
        );
    }
    text.lines().fold(String::new(), |all, line| all + &plain(line) + "\n")
}

impl Found<'_> {
    fn take(
        &mut self,
        state: &State,
        name: &str,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<(), CliError> {
        if !self.names.insert(name.to_owned()) {
            return Err(failed(format!("the backup holds `{}` twice", plain(name))));
        }
        if name == STORE {
            let (temporary, mut file) = Temporary::beside(&state.store()).map_err(failed)?;
            let copied = io::copy(content, &mut file).and_then(|_| file.rewind());
            let whole = copied.and_then(|()| file.sync_all());
            whole.map_err(|error| failed(format!("{}: {error}", self.file.display())))?;
            self.store = Some(temporary);
            return Ok(());
        }
        let mut known = [HOST_KEY, USER_CA, IDENTITY, NODE_KEY, SEAL_KEY, PINS].into_iter();
        let known = known.find(|known| *known == name);
        let named = name.strip_prefix(NAMED).filter(|name| is_plain(name));
        if known.is_none() && named.is_none() && name != ABOUT || size > SMALL_BYTES_MAX {
            let shown: String = name.chars().take(80).collect();
            return Err(failed(format!(
                "the backup holds `{shown}`, which this keyway does not know; restore it with the one that wrote it"
            )));
        }
        let mut text =
            Zeroizing::new(String::with_capacity(usize::try_from(size).unwrap_or(0) + 1));
        content.take(SMALL_BYTES_MAX).read_to_string(&mut text).map_err(|error| {
            failed(format!("{}: `{}`: {error}", self.file.display(), plain(name)))
        })?;
        if let Some(known) = known {
            self.keys.push((known, text));
        } else if let Some(named) = named {
            self.named.push((named.to_owned(), text));
        }
        Ok(())
    }
}

/// Whether a name is that of a file in a directory, and of no other.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !name.is_empty() && name.len() < 100 && !name.starts_with('.') && name.chars().all(plain)
}
