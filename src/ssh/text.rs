//! Text that may safely reach a peer's terminal, a DISCONNECT or a log: printable ASCII
//! and nothing else.
//!
//! Names, version lines and errors may hold peer bytes; a newline, ESC or 8-bit byte in them would
//! forge lines or drive a terminal (RFC 4251 §9.2 asks for this filter).

use std::fmt::Write;

/// How lines of a text for people end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LineEnd {
    /// LF: a program or a plain pipe reads it.
    Lf,
    /// CR LF: a terminal in raw mode reads it, which is what a client with a pty has.
    CrLf,
}

impl LineEnd {
    const fn bytes(self) -> &'static str {
        match self {
            Self::Lf => "\n",
            Self::CrLf => "\r\n",
        }
    }
}

/// `text` as printable ASCII of at most `max_len` bytes: controls become `\n`, `\r`, `\t` or
/// `\xNN`, every character outside ASCII becomes `?`, what does not fit is cut before it.
#[must_use]
pub fn printable(text: &str, max_len: usize) -> String {
    let mut out = String::new();
    for character in text.chars() {
        let before = out.len();
        match character {
            ' '..='~' => out.push(character),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Writing to a String cannot fail.
            '\0'..='\x7f' => drop(write!(out, "\\x{:02x}", u32::from(character))),
            _ => out.push('?'),
        }
        if out.len() > max_len {
            out.truncate(before);
            break;
        }
    }
    out
}

/// The lines of `text`, each made [`printable`] and ended by `end`; at most `max_len` bytes in all.
#[must_use]
pub fn printable_lines(text: &str, end: LineEnd, max_len: usize) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let room = max_len.saturating_sub(out.len()).checked_sub(end.bytes().len());
        let Some(room) = room else { break };
        out.push_str(&printable(line, room));
        out.push_str(end.bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn trap_46_controls_are_escaped_and_other_scripts_replaced() {
        assert_eq!(printable("a\n\x1b[31mé\0\x7f\r\t~", 99), "a\\n\\x1b[31m?\\x00\\x7f\\r\\t~");
    }

    #[test]
    fn an_escape_is_never_cut_in_half() {
        assert_eq!(printable("ab\x1b", 5), "ab");
        assert_eq!(printable("ab\x1b", 6), "ab\\x1b");
        assert_eq!(printable("abc", 2), "ab");
    }

    #[test]
    fn lines_end_as_asked() {
        assert_eq!(printable_lines("one\ntwo\x07", LineEnd::CrLf, 99), "one\r\ntwo\\x07\r\n");
        assert_eq!(printable_lines("one\ntwo", LineEnd::Lf, 6), "one\nt\n");
    }

    proptest! {
        #[test]
        fn any_text_becomes_short_printable_ascii(text in ".*", max_len in 0_usize..40) {
            let out = printable(&text, max_len);
            prop_assert!(out.len() <= max_len);
            prop_assert!(out.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            let lines = printable_lines(&text, LineEnd::Lf, max_len);
            prop_assert!(lines.len() <= max_len);
        }
    }
}
