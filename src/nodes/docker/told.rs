//! Answers that go on: a JSON text a line, as pulls, builds, loads, statistics and events are told.
//!
//! A daemon has said 200 before it begins, so an error comes as a line. A line that is too long to
//! be read might be one: it ends the call.

use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt as _;

use super::exchange::Answer;
use super::fault::{Fault, cleaned, error_in};
use super::lines::{Line, Lines};
use crate::plain_text::escaped;

/// Bytes of a line: 64 KiB of a build's output, each of them an escape.
const LINE_BYTES_MAX: usize = 512 << 10;
const CHUNK_BYTES: usize = 16 << 10;
/// Bytes of the words of one line that are shown.
const WORDS_BYTES_MAX: usize = 64 << 10;

/// An answer that goes on.
pub struct Told<T> {
    answer: Answer,
    lines: Lines,
    buffer: Box<[u8]>,
    /// Part of the buffer that is not yet taken.
    from_byte: usize,
    to_byte: usize,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Told<T> {
    pub(super) fn new(answer: Answer) -> Self {
        let (lines, buffer) = (Lines::new(LINE_BYTES_MAX), vec![0; CHUNK_BYTES].into_boxed_slice());
        Self { answer, lines, buffer, from_byte: 0, to_byte: 0, of: PhantomData }
    }

    /// The next one; nothing when the daemon has said all.
    ///
    /// # Errors
    /// [`Fault::Failed`] where the daemon tells of an error, and what every call may come to. It is
    /// safe to stop waiting for it.
    pub async fn next(&mut self) -> Result<Option<T>, Fault> {
        loop {
            let mut left = self.buffer.get(self.from_byte..self.to_byte).unwrap_or_default();
            let line = self.lines.take(&mut left);
            self.from_byte = self.to_byte - left.len();
            if let Some(one) = line.map_or(Ok(None), |line| read(&line))? {
                return Ok(Some(one));
            }
            if self.from_byte < self.to_byte {
                continue;
            }
            let count = self.answer.read(&mut self.buffer).await;
            let count = count.map_err(|error| Fault::from_io(&error))?;
            if count == 0 {
                return self.lines.rest().map_or(Ok(None), |line| read(&line));
            }
            (self.from_byte, self.to_byte) = (0, count);
        }
    }
}

/// What a line says; nothing for an empty one.
fn read<T: DeserializeOwned>(line: &Line) -> Result<Option<T>, Fault> {
    if line.cut {
        return Err(Fault::TooLarge { what: "line of an answer", bytes_max: LINE_BYTES_MAX });
    }
    if line.bytes.trim_ascii().is_empty() {
        return Ok(None);
    }
    if let Some(words) = error_in(&line.bytes) {
        return Err(Fault::failed(&words));
    }
    let one = serde_json::from_slice(&line.bytes);
    one.map(Some).map_err(|error| Fault::not_docker(&format!("a line of its answer: {error}")))
}

/// How far a pull, a build or a load is. Its words may be shown.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(from = "ProgressTold")]
pub struct Progress {
    /// Of which layer, if of one.
    pub layer: Option<String>,
    /// What happens: `Downloading`, `Step 1/2 : FROM x`, the lines that a build wrote.
    pub lines: Vec<String>,
    /// Bytes done, and to do, if it says so.
    pub bytes: Option<(u64, u64)>,
    /// The image that came of a build.
    pub image: Option<String>,
}

#[derive(Deserialize)]
struct ProgressTold {
    id: Option<String>,
    status: Option<String>,
    stream: Option<String>,
    #[serde(rename = "progressDetail")]
    detail: Option<Detail>,
    aux: Option<Aux>,
}

#[derive(Deserialize)]
struct Detail {
    current: Option<i64>,
    total: Option<i64>,
}

#[derive(Deserialize)]
struct Aux {
    #[serde(rename = "ID")]
    id: Option<String>,
}

impl From<ProgressTold> for Progress {
    fn from(told: ProgressTold) -> Self {
        let words = told.stream.or(told.status).unwrap_or_default();
        let bytes = told.detail.and_then(|detail| {
            let of = |count: Option<i64>| u64::try_from(count?).ok();
            Some((of(detail.current)?, of(detail.total)?))
        });
        Self {
            layer: told.id.map(|id| cleaned(&id)),
            lines: shown_lines(&words),
            bytes,
            image: told.aux.and_then(|aux| aux.id).map(|id| cleaned(&id)),
        }
    }
}

/// The lines of what a build or a daemon wrote: nothing in them commands a terminal, and colours,
/// which the classic builder gives to all errors, are left out.
fn shown_lines(words: &str) -> Vec<String> {
    let end = words.floor_char_boundary(WORDS_BYTES_MAX);
    let (shown, more) = words.split_at(end);
    let mut lines: Vec<_> = shown.trim_end().lines().map(|line| escaped(&plain(line))).collect();
    if !more.is_empty() {
        lines.push("[cut at 64 KiB]".to_owned());
    }
    lines.retain(|line| !line.is_empty());
    lines
}

/// Without what selects a colour (ECMA-48 §8.3.117).
fn plain(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        match rest.strip_prefix('m') {
            Some(rest) => plain.push_str(rest),
            None => plain.extend(["\x1b[", part]),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(json: &str) -> Result<Option<Progress>, Fault> {
        read(&Line { bytes: json.as_bytes().to_vec(), cut: false })
    }

    #[test]
    fn progress_is_read_and_commands_nothing() {
        let json =
            r#"{"status":"Downloading","id":"a\u001b[1","progressDetail":{"current":3,"total":9}}"#;
        let progress = told(json).unwrap().unwrap();
        assert_eq!(progress.layer.as_deref(), Some("a\\u{1b}[1"));
        assert_eq!(
            (progress.bytes, progress.lines),
            (Some((3, 9)), vec!["Downloading".to_owned()])
        );
        let build =
            told(r#"{"stream":"\u001b[91m1st\r\ntwo\u001b[0m\u001b[2J\n"}"#).unwrap().unwrap();
        assert_eq!(build.lines, ["1st", "two\\u{1b}[2J"]);
        let aux = told(r#"{"aux":{"ID":"sha256:1"}}"#).unwrap().unwrap();
        assert_eq!(aux.image.as_deref(), Some("sha256:1"));
        let negative = r#"{"status":"x","progressDetail":{"current":-1,"total":9}}"#;
        assert_eq!(told(negative).unwrap().unwrap().bytes, None);
        let long = format!(r#"{{"stream":"{}"}}"#, "é".repeat(WORDS_BYTES_MAX));
        let lines = told(&long).unwrap().unwrap().lines;
        assert_eq!((lines[0].len(), lines[1].as_str()), (WORDS_BYTES_MAX, "[cut at 64 KiB]"));
    }

    #[test]
    fn an_error_ends_it_and_so_does_what_may_hide_one() {
        let failed = told(r#"{"errorDetail":{"message":"no space left on device"}}"#);
        assert_eq!(failed, Err(Fault::Failed("no space left on device".to_owned())));
        assert!(matches!(told("{\"status\""), Err(Fault::NotDocker(_))));
        let cut = read::<Progress>(&Line { bytes: vec![b' '; 9], cut: true });
        assert!(matches!(cut, Err(Fault::TooLarge { .. })));
        assert_eq!(told(" "), Ok(None));
    }
}
