//! `keyway identity`: what an edge is to agents, and an agent to edges.

use clap::Args;
use serde_json::json;

use super::error::{CliError, Outcome};
use super::remote::Remote;
use super::terminal::Terminal;
use super::{DONE, Output, table};
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::private_key::PrivateKey;
use crate::state::StateFault;

#[derive(Args, Debug)]
#[group(skip)]
pub(super) struct Identity {
    /// Print its fingerprint alone
    #[arg(long)]
    fingerprint: bool,
}

pub(super) fn run(asked: &Identity, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    let made = remote.state()?.identity(&mut SystemEntropy::default());
    show(asked, made, "keyway identity", remote, terminal)
}

/// What this front door is to nodes.
pub(super) fn of_nodes(asked: &Identity, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    let made = remote.state()?.node_key(&mut SystemEntropy::default());
    show(asked, made, "keyway node identity", remote, terminal)
}

fn show(
    asked: &Identity,
    made: Result<PrivateKey, StateFault>,
    comment: &str,
    remote: &Remote,
    terminal: &mut Terminal<'_>,
) -> Outcome {
    let key = made.map_err(|fault| CliError::failed(fault.to_string()))?;
    let (fingerprint, line) = (key.public().fingerprint().to_string(), key.public().to_line());
    match (remote.output, asked.fingerprint) {
        (Output::Json, _) => {
            let item = json!({ "fingerprint": fingerprint, "line": line });
            writeln!(terminal.stdout, "{}", table::json(&item))?;
        }
        (Output::Table, true) => writeln!(terminal.stdout, "{fingerprint}")?,
        (Output::Table, false) => writeln!(terminal.stdout, "{line} {comment}")?,
    }
    Ok(DONE)
}
