//! `keyway agent`: runs the far end of handoffs, and makes it known to the front door it follows.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::error::{CliError, Outcome};
use super::remote::token_of;
use super::table::{self, plain};
use super::terminal::Terminal;
use super::{DONE, FAULTS, Output, agent_process, check, fatal};
use crate::config::{self, AgentConfig, AgentFiles, Control, Joining};
use crate::serve::{AgentStart, Failure, JoinFault, KeptTerms, Meeting, Terms};
use crate::ssh::publickey::PublicKey;
use crate::trust;

/// Longest line that may be a token, in bytes.
const TOKEN_BYTES_MAX: u64 = 1024;

#[derive(Args, Debug)]
pub(super) struct Agent {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    files: Option<AgentFiles>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Become the agent of a node, by a token that is good once: control pins this agent's
    /// identity, and this agent believes the keys that it shows first
    #[command(after_help = "\
Examples:
  keyway agent join --config /etc/keyway/agent.toml
  keyway agent join --config agent.toml --token-file n1.token --yes
  keyway agent join --config agent.toml --url https://control.example:9643 --ca control-ca.pem

At control `keyway node token NODE` makes the token. Nothing has changed where this fails; it can be run again.")]
    Join(Join),
    /// How the agent of this host is, with those that drain; exit code 3 if none takes
    /// sessions, 1 if it does not hear of changes
    #[command(after_help = "\
Examples:
  keyway agent status --config /etc/keyway/agent.toml
  keyway agent status --config agent.toml --output json | jq '.[0].sessions'")]
    Status(agent_process::StatusAsked),
    /// Have the agent of this host take no more sessions, and wait until it has ended: those it
    /// has go on for drain_s. As SIGTERM; Ctrl-C ends the wait and no drain
    #[command(after_help = "\
Examples:
  keyway agent drain --config /etc/keyway/agent.toml
  keyway agent drain --config agent.toml --now         send whoever is left away

Until another agent runs, users are told that their VMs cannot be reached. For an upgrade start the new agent first,
which waits for its turn, and then drain: nobody notices.")]
    Drain(agent_process::DrainAsked),
}

#[derive(Args, Debug)]
struct Join {
    /// How the agent runs: its agent.toml
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The file with the token, - for stdin [default: asked for]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Where control is, if agent.toml has no [control]: https://HOST:PORT; the section is
    /// added at its end
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The CAs that --url is trusted by, or its own certificate, in PEM [default:
    /// the system's CAs]
    #[arg(long, value_name = "FILE", requires = "url")]
    ca: Option<PathBuf>,
    /// Do not ask whether to believe what control shows
    #[arg(long)]
    yes: bool,
    /// How to say it
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// What runs the agent, until it is told to stop.
type Role = fn(AgentStart) -> Result<(), Failure>;

pub(super) fn run(agent: Agent, role: Role, terminal: &mut Terminal<'_>) -> Outcome {
    match agent {
        Agent { verb: Some(Verb::Join(join)), .. } => run_join(&join, terminal),
        Agent { verb: Some(Verb::Status(asked)), .. } => agent_process::status(&asked, terminal),
        Agent { verb: Some(Verb::Drain(asked)), .. } => agent_process::drain(&asked, terminal),
        Agent { verb: None, files: Some(files) } => start(files, role, terminal),
        Agent { verb: None, files: None } => {
            Err(CliError::Usage("--config names the agent.toml".to_owned()))
        }
    }
}

fn start(files: AgentFiles, role: Role, terminal: &mut Terminal<'_>) -> Outcome {
    let form = fatal::Form::of_agent(&files, terminal.seen);
    match config::load_agent(&files) {
        Ok(loaded) => match role(AgentStart { files, loaded }) {
            Ok(()) => return Ok(DONE),
            Err(failure) => form.failure(&failure, terminal.stderr)?,
        },
        Err(report) => form.report(&report, terminal.stderr)?,
    }
    Ok(FAULTS)
}

fn run_join(join: &Join, terminal: &mut Terminal<'_>) -> Outcome {
    // Before a token is typed.
    if !(join.yes || terminal.can_ask()) {
        return Err(CliError::failed("nobody is there to ask; --yes believes what control shows"));
    }
    let given = join.given()?;
    let joining = match config::load_joining(&join.config, given.clone()) {
        Ok(Some(joining)) => joining,
        Ok(None) => {
            let shown = join.config.display();
            return Err(CliError::Usage(format!(
                "{shown} has no section [control]: say where control is, with --url https://HOST:PORT and, if its \
                 certificate is your own or of a CA of your own, --ca FILE"
            )));
        }
        Err(report) => {
            check::tell_faults(&report, terminal.stderr)?;
            return Ok(FAULTS);
        }
    };
    check::tell("warning", &joining.warnings, terminal.stderr)?;
    if joining.is_written && given.is_some_and(|given| differs(&given, &joining.control)) {
        let shown = join.config.display();
        return Err(CliError::Usage(format!(
            "{shown} says in [control] where control is; leave --url and --ca out, or correct it there"
        )));
    }
    let token = token(join.token_file.as_deref(), terminal)?;
    let Joining { config, control, is_written, .. } = joining;
    let meeting = Meeting::begin(&config.state_dir, control.clone(), token).map_err(fault)?;
    let terms = meeting.terms();
    write!(terminal.stderr, "{}", told(&terms, &control, &config))?;
    if !join.yes && !terminal.agrees("join, and believe these keys?")? {
        return Err(CliError::failed("nothing was changed"));
    }
    let kept = meeting.join().map_err(fault)?;
    joined(join, &terms, &control, terminal)?;
    if !is_written {
        add_section(&join.config, &control, terminal)?;
    }
    let next = match kept {
        Ok(KeptTerms::OnDisk) => {
            format!("next: keyway agent --config {}", join.config.display())
        }
        Ok(KeptTerms::ByTheAgent) => {
            "the agent that runs here follows within half a minute, if its agent.toml named this control when it started"
                .to_owned()
        }
        Err(why) => format!("warning: what is believed is not kept, and comes with the feed: {why}"),
    };
    writeln!(terminal.stderr, "{}", plain(&next))?;
    Ok(DONE)
}

impl Join {
    /// Where control is, as the command line says it: a path there is meant from here, and one in
    /// agent.toml from there.
    fn given(&self) -> Result<Option<Control>, CliError> {
        let Some(url) = &self.url else { return Ok(None) };
        if trust::server(url).is_none() {
            let what = format!("--url {url}: write https://HOST or https://HOST:PORT, no more");
            return Err(CliError::Usage(what));
        }
        let absolute = |ca: &PathBuf| {
            let told = |error| CliError::failed(format!("{}: {error}", ca.display()));
            ca.canonicalize().map_err(told)
        };
        Ok(Some(Control { url: url.clone(), ca: self.ca.as_ref().map(absolute).transpose()? }))
    }
}

/// Whether both name another server, or other CAs.
fn differs(given: &Control, written: &Control) -> bool {
    let ca = written.ca.as_ref().map(|ca| ca.canonicalize().unwrap_or_else(|_| ca.clone()));
    given.url.trim_end_matches('/') != written.url.trim_end_matches('/')
        || given.ca.is_some() && given.ca != ca
}

/// Never from the arguments: everybody on the host sees those.
fn token(file: Option<&Path>, terminal: &mut Terminal<'_>) -> Result<String, CliError> {
    let is_stdin = match file {
        Some(file) if file != Path::new("-") => return token_of(file),
        Some(_) => true,
        None => false,
    };
    if !is_stdin {
        if !terminal.can_ask() {
            let what =
                "nobody is there to ask for the token; --token-file names its file, - is stdin";
            return Err(CliError::failed(what));
        }
        write!(terminal.stderr, "token, of `keyway node token` at control: ")?;
        terminal.stderr.flush()?;
    }
    let line = read_line(terminal)?;
    match line.trim() {
        "" => Err(CliError::failed("there is no token; `keyway node token NODE` makes one")),
        token => Ok(token.to_owned()),
    }
}

/// A line of what is typed, or comes along a pipe.
fn read_line(terminal: &mut Terminal<'_>) -> io::Result<String> {
    let mut line = Vec::new();
    let mut limited = io::Read::take(&mut *terminal.stdin, TOKEN_BYTES_MAX);
    io::BufRead::read_until(&mut limited, b'\n', &mut line)?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// What both sides will know of each other, for somebody to compare.
fn told(terms: &Terms, control: &Control, config: &AgentConfig) -> String {
    let Terms { node, agent, trusted, identity, host_keys, edges, trusted_user_cas } = terms;
    let mut lines = vec![
        format!("control        {}", control.url),
        format!("node           {node}, whose agent edges look for at {agent}"),
        format!("this agent     {identity}"),
        "it will believe, as `keyway hostkey list` and `keyway edge list` show them there:"
            .to_owned(),
    ];
    let mut keys = |of: &str, mut all: Vec<String>| {
        all.sort();
        if all.is_empty() {
            all.push("none".to_owned());
        }
        lines.extend(all.into_iter().map(|key| format!("  {of:<13}{key}")));
    };
    let prints = |keys: &[PublicKey]| {
        keys.iter()
            .map(|key| format!("{} {}", key.fingerprint(), key.key_type().name()))
            .collect::<Vec<_>>()
    };
    keys("host key", prints(host_keys));
    keys("edge", edges.iter().map(ToString::to_string).collect());
    if !trusted_user_cas.is_empty() {
        keys("CA of users", prints(trusted_user_cas));
    }
    let here = |at: &std::net::SocketAddr| {
        at.port() == agent.port() && (at.ip().is_unspecified() || at.ip() == agent.ip())
    };
    if !config.edge.listen.iter().any(here) {
        let listens: Vec<String> = config.edge.listen.iter().map(ToString::to_string).collect();
        let listens = listens.join(", ");
        lines.push(format!(
            "warning: edges look for it at {agent}, and agent.toml listens at {listens}; if nothing in between leads \
             there: `keyway node set {node} --agent IP:PORT`"
        ));
    }
    if !trusted {
        lines.push(format!(
            "warning: node {node} is not trusted, and nothing is handed to its agent: `keyway node set {node} --trusted true`"
        ));
    }
    lines.iter().map(|line| plain(line) + "\n").collect()
}

fn joined(
    join: &Join,
    terms: &Terms,
    control: &Control,
    terminal: &mut Terminal<'_>,
) -> io::Result<()> {
    let Terms { node, agent, trusted, identity, host_keys, edges, trusted_user_cas } = terms;
    let prints = |keys: &[PublicKey]| -> Value {
        keys.iter().map(|key| key.fingerprint().to_string()).collect()
    };
    let edges: Value = edges.iter().map(ToString::to_string).collect();
    let item = json!({
        "node": node, "agent": agent.to_string(), "trusted": trusted, "identity": identity.to_string(),
        "control": control.url, "host_keys": prints(host_keys), "edges": edges,
        "trusted_user_cas": prints(trusted_user_cas),
    });
    match join.output {
        Output::Json => writeln!(terminal.stdout, "{}", table::json(&item)),
        Output::Table => {
            writeln!(
                terminal.stdout,
                "{}",
                plain(&format!("{identity} is the agent of node {node}"))
            )
        }
    }
}

/// Adds `[control]` behind what agent.toml holds, which stays as it is. Shows it where that
/// cannot be.
fn add_section(config: &Path, control: &Control, terminal: &mut Terminal<'_>) -> io::Result<()> {
    let section = control.section();
    let shown = config.display();
    let added = OpenOptions::new().append(true).open(config).and_then(|mut file| {
        // In one piece, and behind whatever its last line is.
        file.write_all(format!("\n{section}").as_bytes())?;
        file.sync_all()
    });
    match added {
        Ok(()) => writeln!(terminal.stderr, "{}", plain(&format!("[control] is added to {shown}"))),
        Err(error) => {
            let why = plain(&format!("warning: {shown} cannot be written ({error}); add to it:"));
            write!(terminal.stderr, "{why}\n{section}")
        }
    }
}

fn fault(fault: JoinFault) -> CliError {
    match fault {
        JoinFault::Here(why) => CliError::Failed(why),
        JoinFault::Unreachable(why) => CliError::Unreachable(why),
        JoinFault::Refused { code, detail } => CliError::Refused { code, detail },
    }
}
