//! One request that is let in: who, what, and what was sent along, read once before a
//! handler sees it.

use std::sync::Arc;

use axum::body::Bytes;
use serde::de::DeserializeOwned;

use super::auth::Caller;
use super::problem::Problem;
use super::query::Queries;
use super::reply::{Changed, Gone, Seen};
use super::shared::Api;
use super::trace;
use crate::plain_text::masked;
use crate::registry::command::Noted;
use crate::registry::document::Origin;
use crate::registry::object::Object;
use crate::registry::writer::{CommandRequest, Committed, Mode, ServiceError};
use crate::registry::{Command, Label, Options, Principal, Refusal};

/// A request on its way through a handler.
pub(super) struct Context {
    pub(super) api: Arc<Api>,
    pub(super) caller: Caller,
    /// What stands in the path's places, in order.
    pub(super) params: Vec<String>,
    pub(super) query: Queries,
    /// The revision that the subject must have.
    pub(super) expected: Option<u64>,
    /// At most what the route takes.
    pub(super) body: Bytes,
}

impl Context {
    /// The text in a place of the path.
    pub(super) fn param(&self, place: usize) -> &str {
        self.params.get(place).map_or("", String::as_str)
    }

    /// The name in a place of the path.
    pub(super) fn name(&self, place: usize) -> Result<Label, Problem> {
        Ok(Label::new(self.param(place))?)
    }

    /// The user or team in a place of the path.
    pub(super) fn principal(&self, place: usize) -> Result<Principal, Problem> {
        Ok(self.param(place).parse::<Principal>()?)
    }

    /// The body; none at all is an empty object.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let body: &[u8] = if self.body.trim_ascii().is_empty() { b"{}" } else { &self.body };
        serde_json::from_slice(body).map(|Object(it)| it).map_err(|fault| {
            let what = if fault.is_data() { "does not fit" } else { "is not JSON" };
            Problem::bad(format!("the body {what}: {}", masked(&fault.to_string(), 300)))
        })
    }

    pub(super) const fn mode(&self) -> Mode {
        if self.query.dry_run { Mode::DryRun } else { Mode::Real }
    }

    pub(super) const fn options(&self) -> Options {
        Options { renumber: self.query.renumber, origin: Origin::Command, planned: false }
    }

    pub(super) fn order(&self, command: Command) -> CommandRequest {
        let actor = self.caller.actor.clone();
        CommandRequest { command, options: self.options(), expected: None, actor }
    }

    /// Carries out one command, on the revision that was asked for.
    pub(super) fn carry_out(&self, command: Command) -> Result<Committed, Problem> {
        let order = CommandRequest { expected: self.expected, ..self.order(command) };
        let tried = order.command.clone();
        self.api.service.carry_out(order, self.mode()).map_err(|failed| {
            if let ServiceError::Refused(refusal) = &failed {
                self.was_refused(tried, refusal);
            }
            failed.into()
        })
    }

    /// Carries out what nobody asked for: it follows from what was found.
    pub(super) fn of_itself(&self, command: Command) -> Result<Committed, ServiceError> {
        self.api.service.carry_out(CommandRequest::of_itself(command), Mode::Real)
    }

    /// Writes into the audit log what the caller wanted and did not get.
    pub(super) fn was_refused(&self, command: Command, why: &Refusal) {
        if self.mode() == Mode::Real {
            let command = trace::refused(command, why.code());
            self.api.traces.note_refused(&self.api.service, &self.caller.actor, command);
        }
    }

    /// Writes into the audit log what was done beside the registry, and answers so: it is done,
    /// whether or not it can be written down.
    pub(super) fn noted(&self, what: Noted, about: impl Into<String>) -> Changed<Gone> {
        let about = about.into();
        let order = self.order(Command::Note { what, about });
        let noted = self.api.service.carry_out(order, Mode::Real);
        let missing = noted.err().map(|failed| format!("it is not in the audit log: {failed}"));
        Changed { warnings: missing.into_iter().collect(), ..self.acted() }
    }

    /// What to answer after a command.
    pub(super) fn changed<T>(
        &self,
        done: &Committed,
        item: impl FnOnce(&Seen<'_>) -> Option<T>,
    ) -> Changed<T> {
        self.api.service.read(|model| Changed::by(done, model, self.query.dry_run, item))
    }

    /// What to answer after something that is no command.
    pub(super) fn acted(&self) -> Changed<Gone> {
        Changed::of_nothing(self.api.service.revision(), self.query.dry_run)
    }
}
