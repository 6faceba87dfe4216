//! The lobby: a pool address where any registered key gets the list of its VMs.
//!
//! `ssh lobby` prints a table, `ssh lobby -- --json` the same as JSON. A list is made when it is
//! asked for, on another thread, and written in pages: what waits for a visitor is bounded by us,
//! not by the window that it gives. One that reads too slowly is given up. The right to be here is
//! judged as that to a session is: on arrival, at each list, and whenever rights change.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::FutureExt;

use super::attended::Waiting;
use super::executor::Executor;
use super::gate::Refusal;
use super::login_leg::{Broken, LoginLeg, Scratch};
use super::pump::Stay;
use super::report::Report;
use super::seats::{Share, Shares};
use super::shared::Shared;
use super::{clock, revocation};
use crate::ended::{Cause, Ended, Side, Stage};
use crate::route::{Address, Vm};
use crate::ssh::connection::{Asked, ChannelEvent, ChannelId, Connection};
use crate::ssh::fault::Fault;
use crate::ssh::transport::{Context, Event, Transport};

/// Channels one visitor may have open.
const CHANNELS_MAX: usize = 4;
/// Lists that one user may have on their way, on all connections together: each holds
/// every VM's name.
const LISTS_MAX: usize = 4;
/// How long a visitor may stay who reads nothing.
const VISIT: Duration = Duration::from_mins(1);
/// How long it may take to read the next [`READ_BYTES`]: 3 kB a second.
const READ_WAIT: Duration = Duration::from_secs(20);
const READ_BYTES: usize = 64 << 10;
/// Sealed bytes that wait for a visitor, beside one message.
const OUTPUT_MAX: usize = 64 << 10;
/// Bytes of one message of data.
const MESSAGE_BYTES: usize = 32 << 10;
/// VMs of one page: some 20 kB of text.
const PAGE_VMS: usize = 256;
const REFUSAL: &str = "the lobby forwards nothing: connect to one of your VMs";
const USAGE: &str = "keyway: the lobby lists your VMs: `ssh <lobby>` for a table, `ssh <lobby> -- --json` for JSON\n";
const BUSY: &str = "keyway: too many lists are being made right now; try again in a moment\n";

/// Serves a visitor, whose report has a user, to the end of the visit; the goodbye is the caller's.
///
/// # Errors
/// Why it had to end: somebody said so, or the right to be here is gone.
pub(super) async fn host(
    tasks: &Executor,
    scratch: &Scratch,
    shared: &Arc<Shared>,
    leg: &mut LoginLeg,
    visitor: &Waiting,
) -> Result<Ended, Cause> {
    let told = async { Err(eviction(tasks, shared, visitor).await) };
    Box::pin(told.or(serve(tasks, scratch, shared, leg, &visitor.report))).await
}

/// Waits until the visit has to end.
async fn eviction(tasks: &Executor, shared: &Shared, visitor: &Waiting) -> Cause {
    loop {
        // At first too: what was taken away before the visitor was in the list was told to nobody.
        match revocation::may_stay(shared, &visitor.report) {
            Stay::End(cause) => return cause,
            Stay::Until(None) => return visitor.eviction().await,
            Stay::Until(Some(at_ms)) => {
                let rest = Duration::from_millis(at_ms.saturating_sub(clock::monotonic_ms()));
                if let Some(cause) = tasks.timeout(rest, Box::pin(visitor.eviction())).await {
                    return cause;
                }
            }
        }
    }
}

async fn serve(
    tasks: &Executor,
    scratch: &Scratch,
    shared: &Arc<Shared>,
    leg: &mut LoginLeg,
    visitor: &Arc<Report>,
) -> Result<Ended, Cause> {
    let edge = |cause| Ok(Ended::edge(Stage::Lobby, cause));
    let user = visitor.user.as_ref().ok_or(Cause::RightLost)?;
    let mut lobby = Lobby::new();
    let mut patience = Patience::new();
    loop {
        let step = {
            let rest = patience.rest(&lobby);
            tasks.timeout(rest, Box::pin(step(&mut lobby, scratch, leg))).await
        };
        match step {
            None => return edge(Cause::Deadline),
            Some(Err(broken)) => return Ok(broken.ended(Side::Client, Stage::Lobby)),
            Some(Ok(Step::Over)) => return edge(Cause::Closed),
            Some(Ok(Step::Again)) => tasks.yield_now().await,
            Some(Ok(Step::List)) => {
                let share = Shares::take(&shared.lists, user, LISTS_MAX);
                let Ok(share) = share else {
                    lobby.refuse(&format!(
                        "keyway: you have {LISTS_MAX} lists on their way; let one end first\n"
                    ));
                    continue;
                };
                let (format, shared_there, visitor) =
                    (lobby.format(), Arc::clone(shared), Arc::clone(visitor));
                let made = tasks
                    .blocking(&shared.lister, move || make(&shared_there, &visitor, format, share));
                match made.await {
                    Some(Ok(list)) => lobby.show(list),
                    Some(Err(why)) => return Err(why.cause()),
                    None => lobby.refuse(BUSY),
                }
            }
        }
    }
}

/// The list of a visitor who may still have one.
fn make(shared: &Shared, visitor: &Report, format: Format, share: Share) -> Result<List, Refusal> {
    let visible = shared.table.visible(visitor.user.as_deref().unwrap_or_default());
    // Judged behind the look: what was seen was the visitor's to see.
    revocation::recheck(shared, visitor, clock::unix_s())?;
    Ok(List::new(visible, shared.settings.zone.clone(), format, share))
}

/// Until when the visitor has to have read more.
struct Patience {
    until_ms: u64,
    /// What has to be written by then, of all that was.
    bytes: usize,
}

impl Patience {
    fn new() -> Self {
        Self { until_ms: after(VISIT), bytes: READ_BYTES }
    }

    fn rest(&mut self, lobby: &Lobby) -> Duration {
        if lobby.written >= self.bytes {
            *self = Self { until_ms: after(READ_WAIT), bytes: lobby.written + READ_BYTES };
        }
        Duration::from_millis(self.until_ms.saturating_sub(clock::monotonic_ms()))
    }
}

fn after(time: Duration) -> u64 {
    clock::monotonic_ms().saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// One page out, or messages in until there is something to do.
async fn step(lobby: &mut Lobby, scratch: &Scratch, leg: &mut LoginLeg) -> Result<Step, Broken> {
    let told = scratch.with_context(|cx| lobby.tell(&mut leg.transport, cx));
    if told? == Told::Page {
        leg.flush().await?;
        return Ok(Step::Again);
    }
    leg.drive(scratch, |transport, event, payload, cx| {
        if matches!(event, Event::Payload(_)) {
            return lobby.receive(payload, transport, cx);
        }
        // A key exchange may have held up the text.
        Ok(lobby.is_telling().then_some(Step::Again))
    })
    .await
}

/// What is to be done for a visitor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    /// There may be more to write.
    Again,
    /// The list is to be made.
    List,
    /// An answer was given and its channel is closed.
    Over,
}

/// What came of writing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Told {
    /// As much as may wait was written.
    Page,
    /// There is nothing to write, or the visitor takes nothing now.
    Nothing,
}

/// One visitor's conversation.
struct Lobby {
    connection: Connection,
    /// Whether the visitor asked for a terminal, which wants CR LF.
    terminal: bool,
    /// Answers in the order of the requests; the first is being told. At most one a channel.
    answers: VecDeque<Answer>,
    /// Bytes of text so far.
    written: usize,
}

/// What is told on one channel.
struct Answer {
    channel: ChannelId,
    stderr: bool,
    exit_status: u32,
    /// The piece being told, and how much of it is.
    text: String,
    told: usize,
    then: Then,
}

/// What comes behind the piece at hand.
enum Then {
    End,
    /// A list that is still to be made.
    Unmade(Format),
    List(List),
}

/// How a list looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Format {
    Table,
    Json,
}

impl Lobby {
    fn new() -> Self {
        Self {
            connection: Connection::new(CHANNELS_MAX, REFUSAL),
            terminal: false,
            answers: VecDeque::new(),
            written: 0,
        }
    }

    /// Takes one connection message.
    fn receive(
        &mut self,
        payload: &[u8],
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Result<Option<Step>, Fault> {
        match self.connection.receive(payload, transport, cx)? {
            ChannelEvent::Data { channel, bytes } => {
                self.connection.consumed(channel, bytes.len(), transport, cx)?;
            }
            ChannelEvent::Closed(_) if self.answers.is_empty() => return Ok(Some(Step::Over)),
            ChannelEvent::None
            | ChannelEvent::Opened(_)
            | ChannelEvent::Eof(_)
            | ChannelEvent::Closed(_) => {}
            ChannelEvent::Request { channel, asked, wants_reply } => {
                let granted = self.asked(channel, &asked);
                if wants_reply {
                    self.connection.answer(channel, granted, transport, cx)?;
                }
            }
        }
        Ok(match self.answers.front() {
            Some(Answer { then: Then::Unmade(_), .. }) => Some(Step::List),
            Some(_) => Some(Step::Again),
            None => None,
        })
    }

    fn asked(&mut self, channel: ChannelId, asked: &Asked) -> bool {
        let list = |format| (false, "", 0, Then::Unmade(format));
        let (stderr, text, exit_status, then) = match asked {
            Asked::Pty(_) => {
                self.terminal = true;
                return true;
            }
            Asked::Env { .. } | Asked::Window { .. } | Asked::Signal(_) => return true,
            Asked::Shell => list(Format::Table),
            Asked::Exec(command) => match command.trim() {
                "" | "list" => list(Format::Table),
                "--json" | "list --json" => list(Format::Json),
                _ => (true, USAGE, 2, Then::End),
            },
            Asked::Subsystem(_) | Asked::Other(_) => return false,
        };
        // RFC 4254 §6.5: one program a channel.
        if self.answers.iter().any(|answer| answer.channel == channel) {
            return false;
        }
        let text = self.lines(text.to_owned());
        self.answers.push_back(Answer { channel, stderr, exit_status, text, told: 0, then });
        true
    }

    fn lines(&self, text: String) -> String {
        if self.terminal { text.replace('\n', "\r\n") } else { text }
    }

    fn is_telling(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Of the list that is to be made.
    fn format(&self) -> Format {
        match self.answers.front() {
            Some(Answer { then: Then::Unmade(format), .. }) => *format,
            Some(_) | None => Format::Table,
        }
    }

    /// The list that was to be made.
    fn show(&mut self, list: List) {
        if let Some(answer) = self.answers.front_mut() {
            answer.then = Then::List(list);
        }
    }

    /// There is no list, and why.
    fn refuse(&mut self, why: &str) {
        let why = self.lines(why.to_owned());
        if let Some(answer) = self.answers.front_mut() {
            (answer.stderr, answer.exit_status) = (true, 1);
            (answer.text, answer.told, answer.then) = (why, 0, Then::End);
        }
    }

    /// Seals what there is to tell, as much as may wait and as the visitor's window allows.
    fn tell(&mut self, transport: &mut Transport, cx: &mut Context<'_>) -> Result<Told, Fault> {
        while let Some(mut answer) = self.answers.pop_front() {
            if let Some(told) = self.tell_one(&mut answer, transport, cx)? {
                self.answers.push_front(answer);
                return Ok(told);
            }
        }
        Ok(Told::Nothing)
    }

    /// `None`: it is told.
    fn tell_one(
        &mut self,
        answer: &mut Answer,
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Result<Option<Told>, Fault> {
        let channel = answer.channel;
        while let Some(window) = self.connection.window(channel) {
            if transport.output().len() >= OUTPUT_MAX {
                return Ok(Some(Told::Page));
            }
            let rest = answer.text.as_bytes().get(answer.told..).unwrap_or_default();
            if rest.is_empty() {
                match &mut answer.then {
                    Then::End => {
                        self.connection.finish(channel, answer.exit_status, transport, cx)?;
                        return Ok(None);
                    }
                    Then::Unmade(_) => return Ok(Some(Told::Nothing)),
                    Then::List(list) => match list.page() {
                        Some(page) => (answer.text, answer.told) = (self.lines(page), 0),
                        None => answer.then = Then::End,
                    },
                }
                continue;
            }
            // What is sealed while keys are exchanged would wait somewhere else.
            if window == 0 || transport.is_held() {
                return Ok(Some(Told::Nothing));
            }
            let some = rest.get(..MESSAGE_BYTES).unwrap_or(rest);
            let taken = self.connection.data(channel, answer.stderr, some, transport, cx)?;
            answer.told += taken;
            self.written += taken;
        }
        // The visitor has closed the channel.
        Ok(None)
    }
}

/// A VM, and the pool address where the user enters it; none, if only by name.
type Visible = (Arc<Vm>, Option<Arc<Address>>);

/// A list on its way: every VM of a user, of which each page makes text of a few.
struct List {
    visible: Vec<Visible>,
    /// In which VMs have their names.
    zone: Option<Arc<str>>,
    format: Format,
    /// Of the columns; the last needs none.
    widths: [usize; 4],
    /// How many are told, and whether anything is.
    next: usize,
    began: bool,
    _share: Share,
}

const HEAD: [&str; 4] = ["VM", "OWNER", "ADDRESS", "CONNECT TO"];

impl List {
    /// Takes its time where there are many.
    fn new(visible: Vec<Visible>, zone: Option<Arc<str>>, format: Format, share: Share) -> Self {
        let mut widths = HEAD.map(str::len);
        if format == Format::Table {
            for one in &visible {
                for (width, cell) in widths.iter_mut().zip(row(one, zone.as_deref())) {
                    *width = cell.len().max(*width);
                }
            }
        }
        Self { visible, zone, format, widths, next: 0, began: false, _share: share }
    }

    /// The next lines; `None` behind the last.
    fn page(&mut self) -> Option<String> {
        let first = !std::mem::replace(&mut self.began, true);
        let rest = self.visible.get(self.next..).unwrap_or_default();
        let some = rest.get(..PAGE_VMS).unwrap_or(rest);
        if some.is_empty() && !first {
            return None;
        }
        let last = some.len() == rest.len();
        let page = match self.format {
            Format::Table if self.visible.is_empty() => "You have no VMs here yet.\n".to_owned(),
            Format::Table => table(some, self.zone.as_deref(), self.widths, first),
            Format::Json => json(some, self.zone.as_deref(), first, last),
        };
        self.next += some.len();
        Some(page)
    }
}

/// Its name in the zone, where that leads to the address at which this user enters: it may
/// lead to another one.
fn host_name((vm, address): &Visible, zone: Option<&str>) -> Option<String> {
    let here = address.as_ref()?.name.as_str();
    let zone = zone.filter(|_| vm.address.as_deref() == Some(here))?;
    Some(format!("{}.{zone}", vm.name))
}

/// Whether nobody is let in there now.
fn is_in_maintenance((vm, address): &Visible) -> bool {
    vm.closed || address.as_ref().is_some_and(|address| address.closed)
}

/// The columns of one VM.
fn row(one: &Visible, zone: Option<&str>) -> [String; 4] {
    let (vm, address) = one;
    let (name, public) = address.as_ref().map_or_else(
        || ("(by name)".to_owned(), format!("user+{}@", vm.name)),
        |address| (address.name.clone(), IpAddr::to_string(&address.public)),
    );
    let mut connect = host_name(one, zone).unwrap_or(public);
    if is_in_maintenance(one) {
        connect.push_str(" (in maintenance)");
    }
    [vm.name.clone(), vm.owner.clone(), name, connect]
}

fn table(some: &[Visible], zone: Option<&str>, widths: [usize; 4], first: bool) -> String {
    let head = first.then(|| HEAD.map(str::to_owned));
    let mut out = String::new();
    let rows = some.iter().map(|one| row(one, zone));
    for [vm, owner, address, connect] in head.into_iter().chain(rows) {
        let [a, b, c, _] = widths;
        let _infallible = writeln!(out, "{vm:a$}  {owner:b$}  {address:c$}  {connect}");
    }
    out
}

/// Names are DNS labels and addresses are addresses: nothing here needs escaping.
fn json(some: &[Visible], zone: Option<&str>, first: bool, last: bool) -> String {
    let quoted = |text: String| format!("\"{text}\"");
    let mut out = String::new();
    for (at, one) in some.iter().enumerate() {
        let (vm, address) = one;
        out.push_str(if first && at == 0 { "[" } else { "," });
        let (name, public) = address.as_ref().map_or_else(
            || ("null".to_owned(), "null".to_owned()),
            |address| (quoted(address.name.clone()), quoted(address.public.to_string())),
        );
        let host = host_name(one, zone).map_or_else(|| "null".to_owned(), quoted);
        let _infallible = write!(
            out,
            "{{\"name\":\"{}\",\"owner\":\"{}\",\"address\":{name},\"public\":{public},\"host\":{host},\
             \"maintenance\":{}}}",
            vm.name,
            vm.owner,
            is_in_maintenance(one)
        );
    }
    if first && some.is_empty() {
        out.push('[');
    }
    if last {
        out.push_str("]\n");
    }
    out
}

#[cfg(test)]
#[path = "lobby_tests.rs"]
mod tests;
