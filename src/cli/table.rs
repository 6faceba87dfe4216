//! How answers look: aligned columns for people, JSON for programs. Text of others never
//! commands the terminal.

use std::fmt::Write as _;
use std::io;

use serde_json::Value;

pub(super) use crate::plain_text::escaped as plain;
use crate::plain_text::{is_ascii, is_unsafe};

/// What stands where there is nothing.
const NOTHING: &str = "-";
/// Between two columns.
const GAP: &str = "  ";

/// A column: its header, and what stands in it for an item.
pub(super) type Column = (&'static str, fn(&Value) -> String);

/// Behind every cell that waits to be written; [`plain`] leaves none in a cell.
const CELL_END: char = '\x1f';

/// Lines of cells. They wait as one text: of a million lines each cell for itself would take more
/// than what it says.
pub(super) struct Table {
    headers: Vec<&'static str>,
    widths: Vec<usize>,
    cells: String,
}

impl Table {
    pub(super) fn new(columns: &[Column]) -> Self {
        let headers: Vec<_> = columns.iter().map(|(header, _)| *header).collect();
        let widths = headers.iter().map(|header| header.len()).collect();
        Self { headers, widths, cells: String::new() }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        for (cell, width) in cells.into_iter().zip(&mut self.widths) {
            let begin = self.cells.len();
            let safe = plain(&cell);
            self.cells.push_str(if safe.is_empty() { NOTHING } else { &safe });
            let chars = self.cells.get(begin..).map_or(0, |cell| cell.chars().count());
            *width = (*width).max(chars);
            self.cells.push(CELL_END);
        }
    }

    /// The header and every row; every column as wide as its widest cell, the last one as it comes.
    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let mut cells = self.headers.iter().copied().chain(self.cells.split_terminator(CELL_END));
        let mut line = String::new();
        loop {
            line.clear();
            for (width, cell) in self.widths.iter().zip(cells.by_ref()) {
                let _ = write!(line, "{cell:<width$}{GAP}");
            }
            if line.is_empty() {
                return Ok(());
            }
            writeln!(out, "{}", line.trim_end())?;
        }
    }
}

/// One thing, a line for each of its fields.
pub(super) fn write_fields(
    item: &Value,
    columns: &[Column],
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let width = columns.iter().map(|(header, _)| header.len()).max().unwrap_or_default();
    for (header, cell) in columns {
        let cell = filled(&plain(&cell(item)));
        writeln!(out, "{:<width$}{GAP}{cell}", header.to_lowercase())?;
    }
    Ok(())
}

fn filled(cell: &str) -> String {
    if cell.is_empty() { NOTHING.to_owned() } else { cell.to_owned() }
}

/// The text, number or word under `key`; nothing for what is not there.
pub(super) fn cell(item: &Value, key: &str) -> String {
    item.get(key).map(shown).unwrap_or_default()
}

/// A list of texts under `key`, with commas.
pub(super) fn cells(item: &Value, key: &str) -> String {
    let items = item.get(key).and_then(Value::as_array);
    let texts: Vec<String> = items.into_iter().flatten().map(shown).collect();
    texts.join(",")
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => json(value),
    }
}

/// A value on one line, with every character escaped that is not safe on a terminal (RFC 8259 §7).
pub(super) fn json(value: &Value) -> String {
    let written = value.to_string();
    // serde_json escapes the controls of ASCII but DEL, and writes nothing outside strings
    // that is not ASCII.
    if is_ascii(&written) || !written.chars().any(is_unsafe) {
        return written;
    }
    let mut safe = String::with_capacity(written.len());
    for c in written.chars() {
        if is_unsafe(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(c);
        }
    }
    safe
}
