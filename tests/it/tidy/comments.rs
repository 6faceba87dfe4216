//! Comments end where code ends, at the width of rustfmt.toml, which the stable rustfmt does not
//! hold them to.

use super::{File, Finding};

const COLUMNS_MAX: usize = 100;

/// Lines of comment that are too long. What cannot be broken, an address or a path, may be.
pub(super) fn too_wide(file: &File) -> Vec<Finding> {
    let mut found = vec![];
    for (at, (code, text)) in std::iter::zip(file.code.lines(), file.text.lines()).enumerate() {
        let Some(comment) = text.trim_start().strip_prefix("//").filter(|_| code.trim().is_empty())
        else {
            continue;
        };
        let columns = text.chars().count();
        let words = comment.trim_start_matches(['/', '!']).split_whitespace().count();
        if columns > COLUMNS_MAX && words > 1 {
            found.push(Finding(at + 1, format!("{columns} columns of comment: wrap it")));
        }
    }
    found
}

#[test]
fn a_comment_beyond_the_last_column_is_found_but_for_what_cannot_be_broken() {
    let lines = |text: &str| too_wide(&File::new("src/x.rs", text)).len();
    let (fits, long) = ("é ".repeat(47), "word ".repeat(20));
    assert_eq!(lines(&format!("//! {fits}.\n    // {}\nlet x = \"// {long}\";\n", &fits[..90])), 0);
    assert_eq!(lines(&format!("/// https://{}\n", "a".repeat(COLUMNS_MAX))), 0);
    assert_eq!(lines(&format!("//! {long}\n    /// {long}\n// {long}\n")), 3);
}
