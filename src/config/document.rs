//! Walks a TOML file by hand and collects every fault on the way.
//!
//! Serde would stop at the first one. Here a value of the wrong type is told and replaced by
//! nothing, and the walk goes on: whoever edits the file sees everything at once.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::finding::Finding;
use crate::plain_text::escaped;

/// Below this likeness (Jaro-Winkler, 0 to 1) a suggestion would puzzle more than help.
const LIKENESS_MIN: f64 = 0.75;

/// One file, and what was found in it.
pub(super) struct Document {
    file: Arc<str>,
    order: usize,
    /// Where each line begins, in bytes.
    lines: Vec<usize>,
    faults: RefCell<Vec<Finding>>,
    warnings: RefCell<Vec<Finding>>,
    /// Lines that are not TOML: whatever else seems to be wrong there follows from that.
    broken: RefCell<BTreeSet<usize>>,
}

impl Document {
    pub(super) fn new(file: &str, order: usize, text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self {
            file: Arc::from(file),
            order,
            lines: std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect(),
            faults: RefCell::default(),
            warnings: RefCell::default(),
            broken: RefCell::default(),
        }
    }

    /// The root of the file. Syntax errors become faults; what could be read around them is still
    /// there, but keys may be missing through no fault of their own.
    pub(super) fn parse<'i>(&self, text: &'i str) -> Spanned<DeTable<'i>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let line = error.span().map_or(1, |span| self.line(span.start));
            self.fault(line, format!("not TOML: {}", error.message()), "correct the syntax");
            self.broken.borrow_mut().insert(line);
        }
        table
    }

    fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at)
    }

    pub(super) fn fault(&self, line: usize, what: impl Display, fix: impl Display) {
        if !self.broken.borrow().contains(&line) {
            self.faults.borrow_mut().push(self.finding(line, &what, &fix));
        }
    }

    pub(super) fn warn(&self, line: usize, what: impl Display, fix: impl Display) {
        self.warnings.borrow_mut().push(self.finding(line, &what, &fix));
    }

    fn finding(&self, line: usize, what: &dyn Display, fix: &dyn Display) -> Finding {
        Finding {
            order: self.order,
            line,
            file: Arc::clone(&self.file),
            what: escaped(&what.to_string()),
            fix: escaped(&fix.to_string()),
        }
    }

    /// The file is TOML: a key that is not there was not written.
    pub(super) fn is_whole(&self) -> bool {
        self.broken.borrow().is_empty()
    }

    /// How many faults were found so far.
    pub(super) fn faults_found(&self) -> usize {
        self.faults.borrow().len()
    }

    pub(super) fn into_findings(self) -> (Vec<Finding>, Vec<Finding>) {
        (self.faults.into_inner(), self.warnings.into_inner())
    }
}

/// A table of a document, whose keys are asked for one by one; what nobody asked for is unknown.
pub(super) struct Section<'d, 'i> {
    pub(super) document: &'d Document,
    table: &'d DeTable<'i>,
    /// How it is called in messages: `edge`, or nothing for the root.
    name: String,
    /// Of its header.
    pub(super) line: usize,
    asked: RefCell<Vec<&'static str>>,
}

impl<'d, 'i> Section<'d, 'i> {
    pub(super) fn root(document: &'d Document, table: &'d Spanned<DeTable<'i>>) -> Self {
        Self {
            document,
            table: table.get_ref(),
            name: String::new(),
            line: 1,
            asked: RefCell::default(),
        }
    }

    fn label(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// The value of `key`, if it is there.
    pub(super) fn get(&self, key: &'static str) -> Option<Value<'d, 'i>> {
        let mut asked = self.asked.borrow_mut();
        // Some are read twice, and told once.
        if !asked.contains(&key) {
            asked.push(key);
        }
        let (name, value) = self.table.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(Value {
            document: self.document,
            node: value,
            label: self.label(key),
            line: self.document.line(name.span().start),
        })
    }

    /// The value of a key that must be there.
    pub(super) fn require(&self, key: &'static str, example: &str) -> Option<Value<'d, 'i>> {
        let value = self.get(key);
        if value.is_none() && self.document.is_whole() {
            let what = format!("`{}` is missing", self.label(key));
            self.document.fault(self.line, what, format_args!("add `{key} = {example}`"));
        }
        value
    }

    /// The table `[key]`, if it is there.
    pub(super) fn section(&self, key: &'static str) -> Option<Self> {
        let value = self.get(key)?;
        if let DeValue::Table(table) = value.node.get_ref() {
            return Some(self.below(table, self.label(key), value.node.span().start));
        }
        value.mistaken("a table", &format!("write it as `[{}]` and its keys below", value.label));
        None
    }

    /// All tables `[[key]]`.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Self> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let fix = format!("write each one as `[[{key}]]` and its keys below");
        let DeValue::Array(array) = value.node.get_ref() else {
            value.mistaken("a list of tables", &fix);
            return Vec::new();
        };
        let each = array.iter().filter_map(|item| {
            if let DeValue::Table(table) = item.get_ref() {
                return Some(self.below(table, key.to_owned(), item.span().start));
            }
            value.item(item).mistaken("a table", &fix);
            None
        });
        each.collect()
    }

    /// All keys with their values, for a table whose keys are the operator's own.
    pub(super) fn entries(self) -> impl Iterator<Item = (&'d str, Value<'d, 'i>)> {
        self.table.iter().map(move |(name, node)| {
            let key = name.get_ref().as_ref();
            let line = self.document.line(name.span().start);
            (key, Value { document: self.document, node, label: self.label(key), line })
        })
    }

    fn below(&self, table: &'d DeTable<'i>, name: String, at: usize) -> Self {
        Self {
            document: self.document,
            table,
            name,
            line: self.document.line(at),
            asked: RefCell::default(),
        }
    }

    /// Tells every key that was not asked for.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        for (name, _) in self.table {
            let key = name.get_ref().as_ref();
            if asked.contains(&key) {
                continue;
            }
            let what = format!("unknown key `{}`", self.label(key));
            let likeness = |known: &&&str| strsim::jaro_winkler(known, key);
            let like = asked
                .iter()
                .filter(|known| likeness(known) >= LIKENESS_MIN)
                .max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
            let fix = match like {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("remove it; known here: {}", asked.join(", ")),
            };
            self.document.fault(self.document.line(name.span().start), what, fix);
        }
    }
}

/// A value with its place.
pub(super) struct Value<'d, 'i> {
    document: &'d Document,
    node: &'d Spanned<DeValue<'i>>,
    /// How it is called in messages: `edge.listen`.
    pub(super) label: String,
    /// Of its key, or of the item itself in a list.
    pub(super) line: usize,
}

impl<'d, 'i> Value<'d, 'i> {
    /// `what` goes on after the value's name: "is ...".
    pub(super) fn fault(&self, what: impl Display, fix: impl Display) {
        self.document.fault(self.line, format_args!("`{}` {what}", self.label), fix);
    }

    /// As [`Value::fault`], but no reason to stop.
    pub(super) fn warn(&self, what: impl Display, fix: impl Display) {
        self.document.warn(self.line, format_args!("`{}` {what}", self.label), fix);
    }

    fn mistaken(&self, wanted: &str, fix: &str) {
        let is = match self.node.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.fault(format_args!("is {is}, not {wanted}"), fix);
    }

    pub(super) fn string(&self) -> Option<&'d str> {
        if let DeValue::String(text) = self.node.get_ref() {
            return Some(text);
        }
        self.mistaken("a string", "put it in double quotes");
        None
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        if let DeValue::Boolean(value) = self.node.get_ref() {
            return Some(*value);
        }
        self.mistaken("a boolean", "write true or false, without quotes");
        None
    }

    /// An integer of `unit` ("seconds") within `range`.
    pub(super) fn integer(&self, range: RangeInclusive<u32>, unit: &str) -> Option<u32> {
        let (low, high) = (range.start(), range.end());
        let fix = format!("write an integer from {low} to {high} ({unit})");
        let DeValue::Integer(integer) = self.node.get_ref() else {
            self.mistaken("an integer", &fix);
            return None;
        };
        let value = u32::from_str_radix(integer.as_str(), integer.radix());
        match value {
            Ok(value) if range.contains(&value) => Some(value),
            Ok(_) | Err(_) => {
                self.fault(format_args!("is {integer}, out of range"), fix);
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.string()?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let all: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            let fix = format!("write {}", all.join(" or "));
            self.fault(format_args!("is \"{text}\""), fix);
        }
        found.map(|(_, value)| *value)
    }

    /// The strings of a list, each with its own place.
    pub(super) fn strings(&self) -> Option<Vec<(Self, &'d str)>> {
        let DeValue::Array(array) = self.node.get_ref() else {
            self.mistaken("a list", "write it as [\"...\", \"...\"]");
            return None;
        };
        let items = array.iter().map(|item| {
            let item = self.item(item);
            item.string().map(|text| (item, text))
        });
        Some(items.flatten().collect())
    }

    /// As [`Value::strings`], but one string may stand without brackets.
    pub(super) fn one_or_more(&self) -> Option<Vec<(Self, &'d str)>> {
        if let DeValue::String(text) = self.node.get_ref() {
            return Some(vec![(self.item(self.node), text)]);
        }
        self.strings()
    }

    /// The entries of a table whose keys are not known beforehand.
    pub(super) fn entries(&self, fix: &str) -> Option<Vec<(&'d str, Self)>> {
        let DeValue::Table(table) = self.node.get_ref() else {
            self.mistaken("a table", fix);
            return None;
        };
        let entries = table.iter().map(|(name, value)| {
            let line = self.document.line(name.span().start);
            (name.get_ref().as_ref(), Self { line, ..self.item(value) })
        });
        Some(entries.collect())
    }

    fn item(&self, item: &'d Spanned<DeValue<'i>>) -> Self {
        Self {
            document: self.document,
            node: item,
            label: self.label.clone(),
            line: self.document.line(item.span().start),
        }
    }
}
