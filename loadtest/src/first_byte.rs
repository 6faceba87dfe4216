//! Time until stock clients print the first byte of a command's output, over ways that take time.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::ValueEnum;

use crate::Result;
use crate::report::Row;
use crate::scenario::Target;

/// Logs in, runs a command, prints the milliseconds until its first byte came.
const PARAMIKO: &str = include_str!("first_byte.py");

/// Which client.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Client {
    /// `ssh`, which asks for much before it is answered
    OpenSsh,
    /// Waits for each answer
    Paramiko,
}

/// Runs `client` once.
pub(crate) fn measure(target: &Target, client: Client, key: &Path, python: &Path) -> Result<Row> {
    let ms = match client {
        Client::OpenSsh => openssh(target, key)?,
        Client::Paramiko => paramiko(target, key, python)?,
    };
    Ok(Row {
        scenario: format!("first byte, {client:?}").to_lowercase(),
        target: target.name.clone(),
        figures: vec![("first_byte_ms", ms)],
    })
}

fn openssh(target: &Target, key: &Path) -> Result<f64> {
    let began = Instant::now();
    let mut child = Command::new("ssh")
        .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
        .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
        .args(["-o", "LogLevel=ERROR", "-i"])
        .arg(key)
        .args(["-p", &target.address.port().to_string(), "-l", &target.login])
        .arg(target.address.ip().to_string())
        .arg("echo here; cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|why| format!("ssh does not start: {why}"))?;
    let mut out = child.stdout.take().ok_or("no output")?;
    let first = out.read_exact(&mut [0]);
    let ms = began.elapsed().as_secs_f64() * 1000.0;
    drop(child.stdin.take());
    let status = child.wait()?;
    first.map_err(|_| format!("ssh ended with {status} and said nothing"))?;
    Ok(ms)
}

fn paramiko(target: &Target, key: &Path, python: &Path) -> Result<f64> {
    let output = Command::new(python)
        .args(["-c", PARAMIKO])
        .args([target.address.ip().to_string(), target.address.port().to_string()])
        .arg(&target.login)
        .arg(key)
        .output()
        .map_err(|why| format!("{} does not start: {why}", python.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| {
        let why = String::from_utf8_lossy(&output.stderr);
        format!("{} with paramiko (see --python): {}", python.display(), why.trim_end()).into()
    })
}
