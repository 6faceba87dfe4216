//! Where options may stand: those that say which server or which files, and how to say it, also
//! before the noun.
//!
//! `keyway --config FILE vm list` is what people write who know git, docker or kubectl. Every
//! command knows its own options; what stands before it is handed to it, as if it stood behind.

use std::ffi::{OsStr, OsString};

/// Options with a value that mean the same wherever they stand.
const OPTIONS: [&str; 7] =
    ["--ca", "--config", "--fleet", "--output", "--server", "--socket", "--token-file"];

/// `arguments`, the program's name first, with what stands before the noun at its end.
pub(super) fn noun_first(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut all: Vec<OsString> = arguments.into_iter().collect();
    let mut noun = 1;
    while let Some(option) = all.get(noun).and_then(|text| text.to_str()) {
        noun += match option.split_once('=') {
            Some((name, _)) if OPTIONS.contains(&name) => 1,
            None if OPTIONS.contains(&option) => 2,
            Some(_) | None => break,
        };
    }
    if noun >= all.len() {
        // Nothing to do: the help says what there is.
        all.truncate(1);
    }
    if noun == 1 || noun >= all.len() {
        return all;
    }
    let options: Vec<OsString> = all.drain(1..noun).collect();
    // What comes behind `--` is no option.
    let end = all.iter().position(|text| text == OsStr::new("--")).unwrap_or(all.len());
    all.splice(end..end, options);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(line: &str) -> String {
        let all = noun_first(line.split(' ').map(OsString::from));
        let all: Vec<_> = all.iter().map(|text| text.to_str().unwrap()).collect();
        all.join(" ")
    }

    #[test]
    fn options_before_the_noun_go_behind_it() {
        for (written, meant) in [
            ("keyway vm list", "keyway vm list"),
            ("keyway --config k.toml vm list", "keyway vm list --config k.toml"),
            (
                "keyway --config=k.toml --output json vm list --owner alice",
                "keyway vm list --owner alice --config=k.toml --output json",
            ),
            ("keyway --socket s vm add -- blue", "keyway vm add --socket s -- blue"),
            ("keyway --config k.toml --help", "keyway --help --config k.toml"),
            // Nothing is asked for: the help is shown.
            ("keyway --config", "keyway"),
            ("keyway --config k.toml", "keyway"),
            // Nobody can tell what this means, and clap says so.
            ("keyway --dry-run vm rm blue", "keyway --dry-run vm rm blue"),
            ("keyway --help", "keyway --help"),
            ("keyway", "keyway"),
        ] {
            assert_eq!(ordered(written), meant, "{written}");
        }
    }
}
