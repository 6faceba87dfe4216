//! What a request leaves behind: a log line for every change and for everything that was refused,
//! and, where somebody known tried to change something and was refused, an entry of the audit log.
//! Both are rationed by who asks: neither a scanner nor a script in a loop fills a disk.

#![expect(clippy::disallowed_methods, reason = "a trace tells how long each step took")]

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use axum::http::StatusCode;
use axum::http::request::Parts;

use super::origin::Origin;
use super::problem::Problem;
use crate::log_limiter::{LogLimiter, Network};
use crate::registry::command::Noted;
use crate::registry::writer::{Actor, CommandRequest, Mode};
use crate::registry::{Command, Options, Service};
use crate::ssh::text::printable;

/// Longest method, in bytes: those that are known are shorter, others are what a peer sent.
const METHOD_MAX_BYTES: usize = 16;
/// Longest path, in bytes.
const PATH_MAX_BYTES: usize = 200;
/// Longest reason, in bytes.
const WHY_MAX_BYTES: usize = 300;
/// Largest command that the audit log keeps of what was refused, in bytes of JSON: done is what has
/// a limit of its own.
const COMMAND_BYTES_MAX: usize = 4096;

/// Who causes lines.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Source {
    /// Somebody at the socket.
    Uid(u32),
    /// Somebody elsewhere.
    Network(Network),
}

/// One request, as it is told of.
pub(super) struct Asked {
    source: Source,
    from: String,
    method: String,
    /// With the names that stand in it.
    path: String,
    /// Who asks, as far as is known.
    by: Option<Actor>,
    /// Whether they have a role.
    known: bool,
    /// Whether it is there to change something; unknown until there is a route.
    changes: bool,
    dry_run: bool,
}

impl Asked {
    pub(super) fn new(from: &Origin, parts: &Parts) -> Self {
        let (source, from, by) = match from {
            Origin::Socket(actor, process, _) => {
                (Source::Uid(process.is.uid), actor.from.clone(), Some(actor.clone()))
            }
            Origin::Tls { peer, .. } => {
                (Source::Network(Network::of(peer.ip())), peer.to_string(), None)
            }
        };
        Self {
            source,
            from,
            method: printable(parts.method.as_str(), METHOD_MAX_BYTES),
            path: printable(parts.uri.path(), PATH_MAX_BYTES),
            by,
            known: false,
            changes: false,
            // Whoever may not is refused before the query is read.
            dry_run: parts
                .uri
                .query()
                .is_some_and(|query| query.split('&').any(|pair| pair == "dry_run=true")),
        }
    }

    pub(super) fn is_by(&mut self, actor: &Actor) {
        self.by = Some(actor.clone());
        self.known = true;
    }

    /// Whether it is from somebody with a role.
    pub(super) const fn is_known(&self) -> bool {
        self.known
    }

    pub(super) fn is_a_change(&mut self, changes: bool) {
        self.changes = changes;
    }

    pub(super) fn is_tried(&mut self, dry_run: bool) {
        self.dry_run = dry_run;
    }

    /// Tells of something that was done.
    pub(super) fn done(&self) {
        let Self { from, method, path, by, changes, dry_run, .. } = self;
        if *changes {
            let by = by.as_ref().map_or("", |by| by.name.as_str());
            tracing::info!(by, from, method, path, dry_run, "API");
        }
    }

    /// What was refused before it was a command of the registry, if that belongs into the audit
    /// log: somebody known wanted to change something and may not.
    pub(super) fn forbidden(&self, problem: &Problem) -> Option<(Actor, Command)> {
        let meant =
            self.known && self.changes && !self.dry_run && problem.status == StatusCode::FORBIDDEN;
        let actor = self.by.as_ref().filter(|_| meant)?;
        Some((actor.clone(), refused(self.what(), problem.code)))
    }

    fn what(&self) -> Command {
        let about = format!("{} {}", self.method, self.path);
        Command::Note { what: Noted::Request, about }
    }
}

/// What was refused, as the audit log keeps it.
pub(super) fn refused(command: Command, code: &str) -> Command {
    let large = |command: &Command| {
        serde_json::to_vec(command).map_or(usize::MAX, |bytes| bytes.len()) > COMMAND_BYTES_MAX
    };
    let of = if large(&command) {
        Command::Note { what: Noted::Request, about: format!("{}, a large one", command.word()) }
    } else {
        command
    };
    Command::Refused { of: Box::new(of), code: code.to_owned() }
}

/// How much each of those who ask may leave behind.
pub(super) struct Traces {
    lines: Mutex<LogLimiter<Source>>,
    entries: Mutex<LogLimiter<String>>,
    /// Tries to join that failed.
    joins: Mutex<LogLimiter<Network>>,
    since: Instant,
}

impl Traces {
    pub(super) fn new() -> Self {
        let since = Instant::now();
        Self { lines: Mutex::default(), entries: Mutex::default(), joins: Mutex::default(), since }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Writes into the audit log what somebody was refused. May wait for the registry.
    pub(super) fn note_refused(&self, service: &Service, actor: &Actor, command: Command) {
        if !self.takes_entry(actor) {
            return;
        }
        let (options, actor) = (Options::default(), actor.clone());
        let order = CommandRequest { command, options, expected: None, actor };
        if let Err(failed) = service.carry_out(order, Mode::Real) {
            tracing::warn!("what was refused is not in the audit log: {failed}");
        }
    }

    /// Whether somebody from there may try to join: not too many have failed lately.
    pub(super) fn may_join(&self, from: &Origin) -> bool {
        let Origin::Tls { peer, .. } = from else { return true };
        let joins = self.joins.lock().unwrap_or_else(PoisonError::into_inner);
        !joins.is_spent(&Network::of(peer.ip()), self.now_ms())
    }

    /// Somebody from there has tried to join, and failed.
    pub(super) fn not_joined(&self, from: &Origin) {
        if let Origin::Tls { peer, .. } = from {
            let mut joins = self.joins.lock().unwrap_or_else(PoisonError::into_inner);
            joins.allow(Network::of(peer.ip()), self.now_ms());
        }
    }

    /// Whether the audit log takes one more refusal of this caller.
    fn takes_entry(&self, by: &Actor) -> bool {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.allow(by.name.clone(), self.now_ms())
    }

    /// Whether `source` may cause one more line.
    fn takes_line(&self, source: Source) -> bool {
        let now_ms = self.now_ms();
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let (allowed, kept_back) = lines.allow_line(source, now_ms);
        drop(lines);
        if let Some(lines) = kept_back {
            tracing::warn!(lines, "API requests were refused and not logged one by one");
        }
        allowed
    }

    /// Tells of a connection that did not get as far as a request.
    pub(super) fn no_tls(&self, peer: SocketAddr, why: &io::Error) {
        if self.takes_line(Source::Network(Network::of(peer.ip()))) {
            let why = printable(&why.to_string(), WHY_MAX_BYTES);
            tracing::info!(from = %peer, why, "API connection refused: no TLS handshake");
        }
    }

    /// Tells of something that was refused, or failed.
    pub(super) fn refused(&self, asked: &Asked, problem: &Problem) {
        if !self.takes_line(asked.source) {
            return;
        }
        let Asked { from, method, path, by, dry_run, .. } = asked;
        let by = by.as_ref().map_or("", |by| by.name.as_str());
        let (status, code) = (problem.status.as_u16(), problem.code);
        let why = printable(&problem.detail, WHY_MAX_BYTES);
        tracing::info!(by, from, method, path, dry_run, status, code, why, "API request refused");
    }
}
