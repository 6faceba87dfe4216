//! `keyway token`: what programs show to the API.

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::api_path::path;
use super::api_session::{ApiSession, tell_warnings};
use super::change::{Change, ChangeArgs};
use super::error::{CliError, Outcome};
use super::keyfile::seconds;
use super::remote::Remote;
use super::table::{self, Column, cell};
use super::terminal::Terminal;
use super::vm::put;
use super::{DONE, Output};
use crate::registry::Label;
use crate::registry::refusal::utc;
use crate::unix_time::unix_s;

/// Longest life that can be asked for, in days: a century.
const DAYS_MAX: u64 = 36_525;

#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// All tokens; of none more than a hash is kept
    List,
    /// One token
    Show {
        /// Which
        name: Label,
    },
    /// A new token: stdout gets it and nothing else, this once; a file that stdout is, is made
    /// yours alone (0600)
    #[command(
        visible_alias = "create",
        after_help = "\
Examples:
  keyway token add ci --role operator --expires 30d > ci.token
  keyway vm list --server https://keyway.example.test:8443 --token-file ci.token"
    )]
    Add {
        /// What to call it
        name: Label,
        /// What its bearer may do
        #[arg(long)]
        role: Role,
        /// For how long: 90m, 12h, 30d [default: for ever]
        #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
        expires: Option<u64>,
        #[command(flatten)]
        edit: ChangeArgs,
    },
    /// A token ends
    #[command(visible_alias = "remove")]
    Rm {
        /// Which
        name: Label,
        #[command(flatten)]
        edit: ChangeArgs,
    },
}

/// What a bearer may do.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Role {
    /// Look
    Reader,
    /// And change users, teams and VMs
    Operator,
    /// Everything
    Admin,
}

impl Role {
    const fn word(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// `30d` in seconds.
pub(super) fn parse_seconds(text: &str) -> Result<u64, String> {
    let form = || format!("write a number and m, h or d, up to {DAYS_MAX}d");
    let unit = text.chars().last().ok_or_else(form)?;
    let seconds = match unit {
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(form()),
    };
    let number: u64 = text.strip_suffix(unit).unwrap_or(text).parse().map_err(|_| form())?;
    let all = number.checked_mul(seconds).filter(|all| (1..=DAYS_MAX * 86_400).contains(all));
    all.ok_or_else(form)
}

const COLUMNS: &[Column] = &[
    ("NAME", |token| cell(token, "name")),
    ("ROLE", |token| cell(token, "role")),
    ("CREATED", |token| seconds(token, "created_s")),
    ("EXPIRES", |token| seconds(token, "expires_s")),
];

pub(super) fn run(command: Token, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    let mut talk = remote.talk(terminal)?;
    match command {
        Token::List => talk.list(&path(["tokens"]), &[], COLUMNS, &|_| true),
        Token::Show { name } => {
            let its = |token: &Value| cell(token, "name") == name.as_str();
            match talk.find(&path(["tokens"]), &its)? {
                Some(token) => talk.show(&token, COLUMNS),
                None => Err(CliError::Refused {
                    code: "not-found".to_owned(),
                    detail: format!("there is no token `{name}`; `keyway token list` shows all"),
                }),
            }
        }
        Token::Add { name, role, expires, edit } => {
            let mut body = json!({ "name": name, "role": role.word() });
            let ends_s = expires.map(|seconds| unix_s().saturating_add(seconds));
            put(&mut body, [("expires_s", ends_s.map(Value::from))]);
            let ends =
                ends_s.map_or_else(|| "for ever".to_owned(), |s| format!("until {}", utc(s)));
            let line = |_: &Value| format!("token {name} added ({}, {ends})", role.word());
            show_once(&mut talk, Change::post(path(["tokens"]), body), edit, "/item/token", &line)?;
            Ok(DONE)
        }
        Token::Rm { name, edit } => {
            let change = Change::delete(path(["tokens", name.as_str()]));
            talk.change(change, edit, &|_| format!("token {name} ended"))
        }
    }
}

/// Has a token made and shows it, this once: it stands `at` this place of the answer, and stdout
/// gets it and nothing else. `line` says what was made. Whether it was a token that was shown, and
/// neither an answer in JSON nor what would be.
pub(super) fn show_once(
    talk: &mut ApiSession<'_, '_>,
    change: Change,
    edit: ChangeArgs,
    at: &str,
    line: &dyn Fn(&Value) -> String,
) -> Result<bool, CliError> {
    // Before there is anything to read in it; a token in a file that is open to others is refused
    // later.
    let kept = (talk.terminal.keep)().map_err(|error| {
        let fix = "fix: umask 077 before, or a directory of your own";
        CliError::failed(format!("stdout is a file that is open to others ({error}); {fix}"))
    })?;
    let answer = talk.make(change, edit)?;
    if talk.output == Output::Json {
        writeln!(talk.terminal.stdout, "{}", table::json(&answer))?;
        return Ok(false);
    }
    if edit.dry_run {
        talk.say(&answer, line)?;
        return Ok(false);
    }
    let token = answer.pointer(at).and_then(Value::as_str);
    let token = token.ok_or_else(|| talk.client.strange("no token"))?;
    writeln!(talk.terminal.stdout, "{}", table::plain(token))?;
    let line = line(answer.get("item").unwrap_or(&Value::Null));
    let kept = if kept { ", and its file is open to nobody else now" } else { "" };
    writeln!(talk.terminal.stderr, "{}; it is shown this once{kept}", table::plain(&line))?;
    tell_warnings(&answer, talk.terminal.stderr)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::parse_seconds;

    #[test]
    fn a_life_is_a_number_with_its_unit() {
        assert_eq!(parse_seconds("30d"), Ok(2_592_000));
        assert_eq!(parse_seconds("12h"), Ok(43_200));
        assert_eq!(parse_seconds("90m"), Ok(5400));
        for wrong in ["", "d", "30", "30s", "-1d", "0d", "1.5h", "99999999d", "3é", "1 d"] {
            assert!(parse_seconds(wrong).is_err(), "{wrong:?}");
        }
    }
}
