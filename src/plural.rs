//! Numbers of things, as people say them.

use std::fmt::Display;

/// `1 VM`, `2 VMs`; `1 address`, `2 addresses`; `1 entry`, `2 entries`. `noun` is regular.
pub(crate) fn count(number: impl Display, noun: &str) -> String {
    let number = number.to_string();
    if number == "1" {
        return format!("{number} {noun}");
    }
    match noun.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'i', 'o', 'u']) => format!("{number} {stem}ies"),
        _ if noun.ends_with('s') => format!("{number} {noun}es"),
        _ => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one_and_others_are_many() {
        let all = |noun| [0, 1, 2, 11].map(|number| count(number, noun));
        assert_eq!(all("fault"), ["0 faults", "1 fault", "2 faults", "11 faults"]);
        assert_eq!(all("address"), ["0 addresses", "1 address", "2 addresses", "11 addresses"]);
        assert_eq!(all("entry"), ["0 entries", "1 entry", "2 entries", "11 entries"]);
        assert_eq!(all("way"), ["0 ways", "1 way", "2 ways", "11 ways"]);
    }
}
