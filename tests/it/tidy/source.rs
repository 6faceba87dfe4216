//! Rust text as the rules look at it: without comments and literals, its words, its items of
//! tests, its functions.

pub(super) fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `word` stands as a whole word.
pub(super) fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        !text[..at].ends_with(is_word_char) && !text[at + word.len()..].starts_with(is_word_char)
    })
}

pub(super) fn has_word(text: &str, word: &str) -> bool {
    words(text, word).next().is_some()
}

pub(super) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Blanks comments, strings and characters, keeping every newline and column.
pub(super) fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let Some(end) = literal_end(&chars, at) else {
            out.push(chars[at]);
            at += 1;
            continue;
        };
        for c in &chars[at..end] {
            out.push(if *c == '\n' { '\n' } else { ' ' });
        }
        at = end;
    }
    out
}

/// If a comment or literal starts at `at`, where it ends.
fn literal_end(chars: &[char], at: usize) -> Option<usize> {
    let len = chars.len();
    let is = |at: usize, c: char| chars.get(at) == Some(&c);
    let until = |mut from: usize, stop: char| {
        while from < len && chars[from] != stop {
            from += if chars[from] == '\\' { 2 } else { 1 };
        }
        (from + 1).min(len)
    };
    match chars[at] {
        '/' if is(at + 1, '/') => {
            Some(chars[at..].iter().position(|c| *c == '\n').map_or(len, |n| at + n))
        }
        '/' if is(at + 1, '*') => {
            let (mut depth, mut from) = (1, at + 2);
            while from < len && depth > 0 {
                if is(from, '*') && is(from + 1, '/') {
                    depth -= 1;
                    from += 1;
                } else if is(from, '/') && is(from + 1, '*') {
                    depth += 1;
                    from += 1;
                }
                from += 1;
            }
            Some(from.min(len))
        }
        '"' => Some(until(at + 1, '"')),
        'r' if at == 0 || !is_word_char(chars[at - 1]) || chars[at - 1] == 'b' => {
            let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
            if !is(at + 1 + hashes, '"') {
                return None;
            }
            let mut from = at + 2 + hashes;
            while from < len && !(is(from, '"') && (1..=hashes).all(|n| is(from + n, '#'))) {
                from += 1;
            }
            Some((from + 1 + hashes).min(len))
        }
        // A character, not a lifetime: it closes right behind one character or an escape.
        '\'' if is(at + 1, '\\') || is(at + 2, '\'') => Some(until(at + 1, '\'')),
        _ => None,
    }
}

/// `code` (blanked) with every item that only tests have blanked, too.
pub(super) fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some((from, len)) =
        TEST_ONLY.iter().filter_map(|of| Some((rest.find(of)?, of.len()))).min()
    {
        let end = item_end(rest, from + len);
        kept.push_str(&rest[..from]);
        kept.extend(rest[from..end].chars().filter(|c| *c == '\n'));
        rest = &rest[end..];
    }
    kept + rest
}

/// What stands before an item that only tests, or only tests and fuzzing, have.
pub(super) const TEST_ONLY: &[&str] =
    &["#[cfg(test)]", "#[cfg(fuzzing)]", "#[cfg(any(test, fuzzing))]"];

/// Where the item that begins at `from` ends: behind its `;`, or behind the brace that closes it.
fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code[from..].char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '}' if depth <= 1 => return from + at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return from + at + 1,
            _ => {}
        }
    }
    code.len()
}

/// A function with a body.
pub(super) struct Function<'a> {
    pub(super) name: &'a str,
    /// Its lines, from its `fn` to its last brace, counted from 1.
    pub(super) lines: std::ops::RangeInclusive<usize>,
}

/// The functions of `code` (blanked), those inside others included.
pub(super) fn functions(code: &str) -> Vec<Function<'_>> {
    let mut found = vec![];
    for at in words(code, "fn") {
        let behind = code[at + 2..].trim_start();
        let name_len = behind.find(|c| !is_word_char(c)).unwrap_or(behind.len());
        let end = item_end(code, at);
        if name_len > 0 && code[..end].ends_with('}') {
            let lines = line_of(code, at)..=line_of(code, end - 1);
            found.push(Function { name: &behind[..name_len], lines });
        }
    }
    found
}
