//! Lines of a stream that may have any length, or no end.

/// A line without its end, and whether more of it was thrown away.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Line {
    pub(super) bytes: Vec<u8>,
    pub(super) cut: bool,
}

/// Cuts bytes into lines of which no more than a maximum is kept.
#[derive(Debug)]
pub(super) struct Lines {
    begun: Option<Line>,
    bytes_max: usize,
}

impl Lines {
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self { begun: None, bytes_max }
    }

    /// Takes bytes away from `input` up to the end of a line, and gives that line; takes all
    /// of them if there is no end among them.
    pub(super) fn take(&mut self, input: &mut &[u8]) -> Option<Line> {
        if input.is_empty() {
            return None;
        }
        let end = input.iter().position(|&byte| byte == b'\n');
        let (part, rest) = match end {
            Some(end) => (&input[..end], &input[end + 1..]),
            None => (*input, &input[input.len()..]),
        };
        *input = rest;
        let line = self.begun.get_or_insert_with(|| Line { bytes: vec![], cut: false });
        let room = self.bytes_max.saturating_sub(line.bytes.len());
        line.bytes.extend_from_slice(&part[..part.len().min(room)]);
        line.cut |= part.len() > room;
        if end.is_some() { self.begun.take() } else { None }
    }

    /// What came behind the last end of a line, when nothing more comes.
    pub(super) fn rest(&mut self) -> Option<Line> {
        self.begun.take()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines_of(parts: &[&[u8]], bytes_max: usize) -> Vec<(String, bool)> {
        let mut lines = Lines::new(bytes_max);
        let mut all = vec![];
        for mut part in parts.iter().copied() {
            while !part.is_empty() {
                all.extend(lines.take(&mut part));
            }
        }
        all.extend(lines.rest());
        let text = |line: Line| (String::from_utf8_lossy(&line.bytes).into_owned(), line.cut);
        all.into_iter().map(text).collect()
    }

    #[test]
    fn a_line_is_cut_and_the_next_one_is_whole() {
        let line = |text: &str, cut| (text.to_owned(), cut);
        let all = lines_of(&[b"abcd\nabcde\n\nx"], 4);
        assert_eq!(
            all,
            [line("abcd", false), line("abcd", true), line("", false), line("x", false)]
        );
    }

    proptest! {
        #[test]
        fn where_the_bytes_were_parted_does_not_matter(
            text in proptest::collection::vec(prop_oneof![Just(b'\n'), b'a'..=b'c'], 0..60),
            at in 0..60_usize,
            bytes_max in 0..6_usize,
        ) {
            let (one, two) = text.split_at(at.min(text.len()));
            prop_assert_eq!(lines_of(&[one, two], bytes_max), lines_of(&[&text], bytes_max));
        }
    }
}
