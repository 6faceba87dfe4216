//! Who sits here: what they type, and what is shown to them.

use std::ffi::OsString;
use std::io::{self, BufRead};

/// What a command reads and writes besides its arguments.
pub(super) struct Terminal<'a> {
    pub(super) stdin: &'a mut dyn BufRead,
    pub(super) stdout: &'a mut dyn io::Write,
    pub(super) stderr: &'a mut dyn io::Write,
    /// The environment's variables.
    pub(super) variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// Whether somebody types at stdin.
    pub(super) asks: bool,
    /// Whether somebody looks at stderr.
    pub(super) seen: bool,
    /// Takes from others what they may do with the file that stdout is, if it is one; whether
    /// they might have.
    pub(super) keep: &'a dyn Fn() -> io::Result<bool>,
}

impl Terminal<'_> {
    /// Whether somebody would see a question, and can answer it.
    pub(super) const fn can_ask(&self) -> bool {
        self.asks && self.seen
    }

    /// Asks; nothing but a yes is one.
    pub(super) fn agrees(&mut self, question: &str) -> io::Result<bool> {
        write!(self.stderr, "{question} [y/N] ")?;
        self.stderr.flush()?;
        let mut answer = String::new();
        self.stdin.read_line(&mut answer)?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}
