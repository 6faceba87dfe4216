//! Imports have one style: the standard library, then other crates, then ours, a blank line between
//! them; one `use` a module. A nightly rustfmt writes it
//! (`imports_granularity=Module,group_imports=StdExternalCrate`); the stable one, which is ours,
//! keeps the order inside a group.

use super::source::{is_word_char, line_of};
use super::{File, Finding};

/// Whose a module is, in the order in which they are imported.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum Whose {
    Standard,
    Foreign,
    Ours,
}

struct Import<'a> {
    from: usize,
    to: usize,
    visible: &'a str,
    /// Without its last name, or the names in its braces.
    module: &'a str,
    names: &'a str,
    whose: Whose,
    /// Behind an attribute: only at times.
    at_times: bool,
}

/// The import that begins with the line at `start`.
fn import(code: &str, start: usize, at_times: bool) -> Option<Import<'_>> {
    let line = code[start..].lines().next()?;
    let at = line.find("use ")?;
    let visible = line[..at].trim();
    let is_import = visible.is_empty() || visible == "pub" || visible.starts_with("pub(");
    let (path, _) = code[start + at + 4..].split_once(';').filter(|_| is_import)?;
    let (module, names) = match path.split_once("::{") {
        Some((module, names)) => (module, names),
        None => path.rsplit_once("::").unwrap_or(("", path)),
    };
    let whose = match path.split(|c| !is_word_char(c)).next()? {
        "std" | "core" | "alloc" => Whose::Standard,
        "crate" | "super" | "self" => Whose::Ours,
        _ => Whose::Foreign,
    };
    let from = line_of(code, start);
    let to = from + path.matches('\n').count();
    Some(Import { from, to, visible, module: module.trim(), names, whose, at_times })
}

pub(super) fn out_of_style(file: &File) -> Vec<Finding> {
    let (code, text): (_, Vec<&str>) = (&file.code, file.text.lines().collect());
    let modules: Vec<&str> = code
        .lines()
        .filter_map(|line| line.strip_suffix(';')?.split_once("mod ").map(|(_, name)| name))
        .collect();
    let (mut found, mut last): (_, Option<Import<'_>>) = (vec![], None);
    let (mut start, mut seen_attribute) = (0, false);
    while start < code.len() {
        let line_len = code[start..].find('\n').map_or(code.len() - start, |at| at + 1);
        let line = code[start..start + line_len].trim();
        if line.is_empty() || line.starts_with("#[") {
            seen_attribute |= !line.is_empty();
            start += line_len;
            continue;
        }
        let Some(import) = import(code, start, seen_attribute) else {
            (last, seen_attribute) = (None, false);
            start += line_len;
            continue;
        };
        let mut wrong = |what: &str| found.push(Finding(import.from, what.to_owned()));
        if import.names.contains("::") {
            wrong("names another module inside braces");
        }
        if import.whose == Whose::Foreign
            && modules.contains(&import.module.split("::").next().unwrap_or(""))
        {
            wrong("is a module of this file: `self::`");
        }
        if let Some(last) = &last {
            let between = text[last.to..import.from - 1].iter();
            let is_apart = between.clone().any(|line| line.trim().is_empty());
            let same = (last.visible, last.module) == (import.visible, import.module);
            if import.whose < last.whose {
                wrong("the standard library, then other crates, then ours");
            } else if is_apart != (import.whose != last.whose) {
                wrong("a blank line stands between the three groups, and nowhere else");
            } else if same && !import.at_times && !last.at_times {
                wrong("one `use` a module");
            }
        }
        seen_attribute = false;
        start = code[start..]
            .match_indices('\n')
            .nth(import.to - import.from)
            .map_or(code.len(), |(at, _)| start + at + 1);
        last = Some(import);
    }
    found
}

#[test]
fn imports_in_another_style_are_found() {
    let kept = "//! x\nuse std::fs;\nuse std::io::{self, Read};\n\nuse nix::sched;\n\n\
        use self::a::B;\npub use super::c;\n#[cfg(test)]\nuse super::d;\nuse crate::{\n    e, f,\n};\nmod a;\n\
        fn f() {\n    use Errno as E;\n}\n";
    let lines = |text: &str| -> Vec<usize> {
        out_of_style(&File::new("src/x.rs", text))
            .into_iter()
            .map(|Finding(line, _)| line)
            .collect()
    };
    assert_eq!(lines(kept), [0; 0]);
    for (from, to, line) in [
        ("use std::fs;\n", "use std::{fs, path::Path};\n", 2),
        ("use std::fs;\n", "use std::fs;\n\n", 4),
        ("\n\nuse nix", "\nuse nix", 4),
        ("use std::fs;\n", "use crate::x;\n\n", 4),
        ("use self::a::B", "use a::B", 7),
        ("use crate::{\n", "use crate::g;\nuse crate::{\n", 12),
        ("io::{self, Read};\n", "io::{self, Read};\nuse std::io::Write;\n", 4),
    ] {
        assert!(kept.contains(from), "{from:?}");
        assert_eq!(lines(&kept.replacen(from, to, 1)).first(), Some(&line), "{to:?}");
    }
}
