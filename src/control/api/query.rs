//! What a request asks for in its query: the parameters that there are, and those that were given.

use super::problem::Problem;
use crate::plain_text::{SHOWN_CHARS_MAX, masked};
use crate::registry::{Label, Principal};

/// Items of a list, unless asked for another number.
const LIMIT: usize = 100;
/// Most items of a list.
const LIMIT_MAX: usize = 1000;

/// A query parameter of a route.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Query {
    /// Say what would happen.
    DryRun,
    /// VMs may be given other addresses.
    Renumber,
    /// How many items.
    Limit,
    /// Where the list goes on.
    After,
    /// The newest first.
    Newest,
    /// VMs that somebody may enter.
    VisibleTo,
    /// VMs of an owner.
    Owner,
    /// VMs at an address.
    Address,
    /// VMs on a node.
    Node,
    /// Sessions of a user.
    User,
    /// Sessions in a VM.
    Vm,
    /// Commits after a revision.
    Revision,
}

impl Query {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::DryRun => "dry_run",
            Self::Renumber => "renumber",
            Self::Limit => "limit",
            Self::After | Self::Revision => "after",
            Self::Newest => "newest",
            Self::VisibleTo => "visible_to",
            Self::Owner => "owner",
            Self::Address => "address",
            Self::Node => "node",
            Self::User => "user",
            Self::Vm => "vm",
        }
    }

    pub(super) const fn summary(self) -> &'static str {
        match self {
            Self::DryRun => "Say what would happen, and change nothing.",
            Self::Renumber => "VMs may be given other addresses where that is needed.",
            Self::Limit => "How many items at most.",
            Self::After => "The cursor of the page before: `next` of its answer.",
            Self::Newest => "The newest first.",
            Self::VisibleTo => "Only VMs that this user or team may enter.",
            Self::Owner => "Only VMs of this user or team.",
            Self::Address => "Only VMs that answer at this address.",
            Self::Node => "Only VMs that lie on this node.",
            Self::User => "Only sessions of this user.",
            Self::Vm => "Only sessions in this VM.",
            Self::Revision => "Commits after this revision; without it, those to come.",
        }
    }
}

/// What was asked for in the query; only what the route knows can be set.
#[derive(Debug, Default)]
pub(super) struct Queries {
    pub(super) dry_run: bool,
    pub(super) renumber: bool,
    pub(super) newest: bool,
    limit: Option<usize>,
    pub(super) after: Option<String>,
    pub(super) visible_to: Option<Principal>,
    pub(super) owner: Option<Principal>,
    pub(super) address: Option<Label>,
    pub(super) node: Option<Label>,
    pub(super) user: Option<String>,
    pub(super) vm: Option<String>,
    pub(super) revision: Option<u64>,
}

impl Queries {
    /// Reads a query as forms write it.
    pub(super) fn read(query: &str, known: &[Query]) -> Result<Self, Problem> {
        let mut read = Self::default();
        let mut seen = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &str| percent_decoded(&text.replace('+', " "));
            let (name, value) = (decode(name)?, decode(value)?);
            let Some(parameter) = known.iter().find(|parameter| parameter.name() == name) else {
                let names: Vec<&str> = known.iter().map(|parameter| parameter.name()).collect();
                let known = if names.is_empty() { "none".into() } else { names.join(", ") };
                let name = plain(&name);
                return Err(Problem::bad(format!(
                    "unknown query parameter `{name}`; known here: {known}"
                )));
            };
            if seen.contains(parameter) {
                return Err(Problem::bad(format!("query parameter `{name}` is given twice")));
            }
            seen.push(*parameter);
            read.set(*parameter, value)?;
        }
        Ok(read)
    }

    fn set(&mut self, parameter: Query, value: String) -> Result<(), Problem> {
        let wrong = |fix: &str| {
            let name = parameter.name();
            Problem::bad(format!("query parameter `{name}` is `{}`; {fix}", plain(&value)))
        };
        let flag = || match value.as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(wrong("write true or false")),
        };
        let principal =
            || value.parse().map_err(|_| wrong("write a user's name, or team: and a team's"));
        match parameter {
            Query::DryRun => self.dry_run = flag()?,
            Query::Renumber => self.renumber = flag()?,
            Query::Newest => self.newest = flag()?,
            Query::Limit => {
                let limit = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                self.limit = Some(limit.ok_or_else(|| wrong("write a number from 1 to 1000"))?);
            }
            Query::VisibleTo => self.visible_to = Some(principal()?),
            Query::Owner => self.owner = Some(principal()?),
            Query::Address => {
                self.address = Some(value.parse().map_err(|_| wrong("write an address's name"))?);
            }
            Query::Node => {
                self.node = Some(value.parse().map_err(|_| wrong("write a node's name"))?);
            }
            Query::Revision => {
                self.revision = Some(value.parse().map_err(|_| wrong("write a revision"))?);
            }
            Query::After => self.after = Some(value),
            Query::User => self.user = Some(value),
            Query::Vm => self.vm = Some(value),
        }
        Ok(())
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(LIMIT)
    }
}

/// Undoes percent-encoding (RFC 3986 §2.1).
pub(super) fn percent_decoded(text: &str) -> Result<String, Problem> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let pair = digit().zip(digit()).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        bytes.push(pair.ok_or_else(|| {
            Problem::bad("a % in the URL is not followed by two hexadecimal digits")
        })?);
    }
    String::from_utf8(bytes).map_err(|_| Problem::bad("the URL holds what is not UTF-8"))
}

/// What somebody wrote, as it can be said again.
pub(super) fn plain(text: &str) -> String {
    masked(text, SHOWN_CHARS_MAX)
}
