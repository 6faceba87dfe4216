//! Text of others, as it may be shown again: what would command a terminal, turn the text around it
//! or not be seen at all.
//!
//! What a peer of SSH says is shown as printable ASCII and nothing else, which is stricter:
//! [`crate::ssh::text`].

/// Characters of a wrong name or value that are said again to whoever wrote it.
pub(crate) const SHOWN_CHARS_MAX: usize = 80;

/// Whether a character is a control (C0, DEL, C1), ends a line or a paragraph, changes the
/// direction of writing, or is not seen: the general categories Cc, Cf, Zl and Zp, and
/// `Default_Ignorable_Code_Point` (UAX 44 §5.7, UAX 9 §2).
pub(crate) const fn is_unsafe(c: char) -> bool {
    let commands = matches!(c, '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{2028}' | '\u{2029}');
    // What embeds, overrides and isolates directions, and the marks of one.
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}');
    // Joiners, spaces without width, invisible operators, isolates, byte order marks; soft hyphen,
    // grapheme joiner, fillers, vowels and selectors of variations; tags.
    let hides = matches!(
        c,
        '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{ad}' | '\u{34f}'
        | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}'
    );
    // What stands before or around others of its script, and in notes and music.
    let formats = matches!(
        c,
        '\u{600}'..='\u{605}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
        | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
    );
    commands || turns || hides || formats
}

/// Whether a text holds nothing but printable ASCII, as nearly all do: found out many
/// bytes at a time.
pub(crate) fn is_ascii(text: &str) -> bool {
    text.bytes().fold(true, |plain, byte| plain & (b' '..=b'~').contains(&byte))
}

/// The text on one line, with an escape such as `\n` or `\u{202e}` in the place of what is unsafe.
pub(crate) fn escaped(text: &str) -> String {
    if is_ascii(text) {
        return text.to_owned();
    }
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe
}

/// At most `chars_max` characters of what somebody wrote, with `?` in the place of what is unsafe.
pub(crate) fn masked(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).map(|c| if is_unsafe(c) { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the standard library prints it as it is in `{:?}`, by tables of its own.
    fn is_printed(c: char) -> bool {
        matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1
    }

    #[test]
    fn of_all_characters_those_that_command_turn_or_hide_are_unsafe() {
        let all = || (0..=u32::from(char::MAX)).filter_map(char::from_u32);
        // Unicode 16: 65 of Cc, 170 of Cf, one each of Zl and Zp, and 4,036 more that are
        // ignorable by default.
        assert_eq!(all().filter(|c| is_unsafe(*c)).count(), 4_273);
        for c in all() {
            let shown = format!("U+{:04X}", u32::from(c));
            assert!(is_unsafe(c) || !c.is_control(), "{shown}");
            // Hangul fillers are letters, which are not seen.
            let is_filler = matches!(c, '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}');
            assert!(!is_unsafe(c) || !is_printed(c) || is_filler, "{shown} is printed");
        }
    }

    #[test]
    fn what_is_unsafe_is_never_left_and_the_rest_stays() {
        let all: String = (0..=u32::from(char::MAX)).filter_map(char::from_u32).collect();
        let (escaped, masked) = (escaped(&all), masked(&all, usize::MAX));
        assert!(!escaped.chars().any(is_unsafe) && !masked.chars().any(is_unsafe));
        for c in all.chars().filter(|c| !is_unsafe(*c)) {
            assert_eq!(super::escaped(&c.to_string()), c.to_string());
        }
        assert_eq!(masked.chars().count(), all.chars().count());
    }

    #[test]
    fn a_text_is_escaped_masked_and_cut_as_a_whole() {
        let text = "é\n\u{202e}x\u{200b}\u{e0041}ñ";
        assert_eq!(escaped(text), "é\\n\\u{202e}x\\u{200b}\\u{e0041}ñ");
        assert_eq!(masked(text, 5), "é??x?");
    }
}
