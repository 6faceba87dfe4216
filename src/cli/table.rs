//! How answers look: aligned columns for people, JSON for programs. Text of others never commands the terminal.

use std::{fmt::Write as _, io};

use serde_json::Value;

/// What stands where there is nothing.
const NOTHING: &str = "-";
/// Between two columns.
const GAP: &str = "  ";

/// A column: its header, and what stands in it for an item.
pub(super) type Column = (&'static str, fn(&Value) -> String);

/// Lines of cells.
pub(super) struct Table {
    headers: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(columns: &[Column]) -> Self {
        Self { headers: columns.iter().map(|(header, _)| *header).collect(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| filled(&plain(&cell))).collect());
    }

    /// The header and every row; every column as wide as its widest cell, the last one as it comes.
    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let mut widths: Vec<usize> = self.headers.iter().map(|header| header.len()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let headers = self.headers.iter().map(|header| (*header).to_owned()).collect();
        for row in std::iter::once(&headers).chain(&self.rows) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:<width$}{GAP}");
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
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

/// Whether a character moves the cursor, colours, or turns what stands around it: controls (C0, DEL, C1), line and
/// paragraph separators, and what changes the direction of writing (UAX 9 §2).
fn commands(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{061c}')
}

/// Text that is safe on a terminal, on one line.
pub(super) fn plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if commands(c) { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe
}

/// A value on one line, with every character escaped that is not safe on a terminal (RFC 8259 §7).
pub(super) fn json(value: &Value) -> String {
    let written = value.to_string();
    // serde_json escapes the controls of ASCII but DEL, and writes nothing outside strings that is not ASCII.
    if !written.chars().any(commands) {
        return written;
    }
    let mut safe = String::with_capacity(written.len());
    for c in written.chars() {
        if commands(c) {
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}
