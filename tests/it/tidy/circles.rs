//! No circle of files: what a file names, and what that names in turn, never comes back to it.
//!
//! An arrow is a path of the code (`use`, `crate::a::b`, `super::c`, `child::d`), followed through
//! re-exports to the file where the item stands. Tests are left out, and so is what a module passes
//! on of its children, unless its own code names it, too.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{File, is_test, is_word_char, repository, words};

/// The one circle that is meant: the table of routes describes itself to whoever asks for it.
const MEANT: (&str, &str) = ("src/control/api/openapi.rs", "src/control/api/routes.rs");

/// Re-exports that are followed to find one item; more are a circle of their own.
const REEXPORTS_MAX: usize = 8;

/// What one file names, by file.
type Arrows<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// A path from an import, and what it is called in the file.
#[derive(Debug, Eq, PartialEq)]
struct Import {
    path: Vec<String>,
    name: String,
    public: bool,
}

/// A file of the crate as a module.
struct Module<'a> {
    file: &'a str,
    imports: Vec<Import>,
    /// Paths in the rest of the code that have at least two parts.
    paths: BTreeSet<Vec<String>>,
    /// Public imports that the rest of the code names.
    own: BTreeSet<String>,
}

struct Crate<'a>(BTreeMap<Vec<String>, Module<'a>>);

impl<'a> Crate<'a> {
    fn of(files: &'a [File]) -> Self {
        let mut modules = BTreeMap::new();
        for file in files.iter().filter(|file| !is_test(&file.path)) {
            if let Some(place) = place_of(&file.path) {
                let code = without_tests(&file.code);
                let (imports, rest) = imports_of(&code);
                let own = imports.iter().filter(|import| import.public).map(|import| &import.name);
                let own = own.filter(|name| is_named(&rest, name)).cloned().collect();
                let paths = paths_of(&rest);
                modules.insert(place, Module { file: &file.path, imports, paths, own });
            }
        }
        Self(modules)
    }

    fn arrows(&self) -> Arrows<'a> {
        let mut arrows = Arrows::new();
        for (place, module) in &self.0 {
            let mut named = BTreeSet::new();
            for import in &module.imports {
                let at = self.stands(place, &import.path, REEXPORTS_MAX);
                let of_child = |at: &Vec<String>| at.len() > place.len() && at.starts_with(place);
                let passed_on = import.public && !module.own.contains(&import.name);
                named.extend(at.filter(|at| !(passed_on && of_child(at))));
            }
            for path in &module.paths {
                named.extend(self.stands(place, path, REEXPORTS_MAX));
            }
            let named = named.iter().map(|at| self.0[at].file);
            arrows.insert(module.file, named.filter(|file| *file != module.file).collect());
        }
        arrows
    }

    /// The module where the item stands that `path` leads to from `place`. Nothing if it is none of
    /// the crate's, or a module as such.
    fn stands(&self, place: &[String], path: &[String], more: usize) -> Option<Vec<String>> {
        let (mut at, rest) = self.begins(place, path, more)?;
        let mut rest = rest.as_slice();
        while let Some((name, behind)) = rest.split_first() {
            let child = [&at[..], std::slice::from_ref(name)].concat();
            if self.0.contains_key(&child) {
                (at, rest) = (child, behind);
                continue;
            }
            let module = &self.0[&at];
            let import = module.imports.iter().find(|import| import.name == *name);
            let Some(import) = import.filter(|_| more > 0) else { return Some(at) };
            let path = [&import.path[..], behind].concat();
            // What is not the crate's own is passed on here.
            return self.stands(&at, &path, more - 1);
        }
        None
    }

    /// The module that a path begins at, and the rest of the path.
    fn begins(
        &self,
        place: &[String],
        path: &[String],
        more: usize,
    ) -> Option<(Vec<String>, Vec<String>)> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" | "keyway" => Some((vec![], rest.to_vec())),
            "self" => Some((place.to_vec(), rest.to_vec())),
            "super" => {
                let (_, above) = place.split_last()?;
                if rest.first().is_some_and(|next| next == "super") {
                    return self.begins(above, rest, more);
                }
                Some((above.to_vec(), rest.to_vec()))
            }
            name => {
                let child = [place, std::slice::from_ref(first)].concat();
                if self.0.contains_key(&child) {
                    return Some((child, rest.to_vec()));
                }
                let imports = &self.0.get(place)?.imports;
                let import = imports.iter().find(|import| import.name == name);
                let import = import.filter(|import| more > 0 && import.path != path)?;
                let path = [&import.path[..], rest].concat();
                self.begins(place, &path, more - 1)
            }
        }
    }
}

/// The path of a file's module; nothing for what is no module of the library.
fn place_of(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    if path == "main" {
        return None;
    }
    let path = path.strip_suffix("/mod").unwrap_or(path);
    Some(path.split('/').filter(|part| *part != "lib").map(str::to_owned).collect())
}

/// The code without the items that are there for tests only.
fn without_tests(code: &str) -> String {
    let mut left = String::with_capacity(code.len());
    let mut rest = code;
    let marks = ["#[cfg(test)]", "#[cfg(any(test", "#[cfg(doc)]"];
    while let Some(at) = marks.iter().filter_map(|mark| rest.find(mark)).min() {
        left.push_str(&rest[..at]);
        rest = &rest[at..];
        rest = &rest[item_end(rest)..];
    }
    left + rest
}

/// Where the item ends that begins with an attribute.
fn item_end(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '}' if depth == 0 => return at,
            '}' => {
                depth -= 1;
                let behind = code[at + 1..].trim_start();
                if depth == 0 && !behind.starts_with([';', ',', '.', ')']) {
                    return at + 1;
                }
            }
            ';' | ',' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// The imports of a file, and the code without them.
fn imports_of(code: &str) -> (Vec<Import>, String) {
    let (mut imports, mut rest) = (vec![], String::with_capacity(code.len()));
    let mut statement: Option<(String, bool)> = None;
    for line in code.split_inclusive('\n') {
        if let Some((text, _)) = &mut statement {
            text.push_str(line);
        } else {
            let words = line.trim_start();
            let is_public = |before: &str| {
                before == "pub" || before.starts_with("pub(") && before.ends_with(')')
            };
            let exported = words.split_once(" use ").filter(|(before, _)| is_public(before));
            let public = exported.is_some();
            let behind = exported.map(|(_, behind)| behind).or_else(|| words.strip_prefix("use "));
            match behind {
                Some(text) => statement = Some((text.to_owned(), public)),
                None => rest.push_str(line),
            }
        }
        if let Some((text, public)) = statement.take_if(|(text, _)| text.contains(';')) {
            let text = text.split(';').next().unwrap_or_default();
            let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
            tree(&[], &text, public, &mut imports);
        }
    }
    (imports, rest)
}

/// `a::{b, c::{self, d as e}}` -> a::b, a::c, a::c::d as e.
fn tree(before: &[String], text: &str, public: bool, imports: &mut Vec<Import>) {
    let text = text.trim();
    if let Some((head, group)) = text.split_once('{') {
        let head = head.trim().trim_end_matches("::");
        let parts = head.split("::").filter(|part| !part.is_empty());
        let before = [before.to_vec(), parts.map(str::to_owned).collect()].concat();
        let group = group.rsplit_once('}').map_or(group, |(group, _)| group);
        let (mut depth, mut from) = (0_usize, 0);
        for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => {
                    tree(&before, &group[from..at], public, imports);
                    from = at + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let (path, name) = text.split_once(" as ").unwrap_or((text, ""));
    let parts = path.split("::").filter(|part| !part.is_empty()).map(str::to_owned);
    let mut path: Vec<String> = before.iter().cloned().chain(parts).collect();
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let Some(last) = path.last().filter(|_| !text.is_empty()).cloned() else { return };
    let name = if name.is_empty() { last } else { name.to_owned() };
    imports.push(Import { path, name, public });
}

/// The paths in code that have at least two parts.
fn paths_of(code: &str) -> BTreeSet<Vec<String>> {
    let mut paths = BTreeSet::new();
    let mut rest = code;
    while let Some(at) = rest.find("::") {
        let begin = rest[..at].rfind(|c: char| !is_word_char(c)).map_or(0, |before| before + 1);
        let path = &rest[begin..];
        let len = path.find(|c: char| !is_word_char(c) && c != ':').unwrap_or(path.len());
        let parts: Vec<String> = path[..len]
            .split("::")
            .take_while(|part| !part.is_empty())
            .map(str::to_owned)
            .collect();
        if parts.len() > 1 && !rest[..begin].ends_with("::") {
            paths.insert(parts);
        }
        rest = &rest[begin + len.max(at + 2 - begin)..];
    }
    paths
}

/// Whether the code names the item `name` by its bare name. What only looks alike is none of it:
/// a field, a method, a macro, a local, an attribute, a variant, an item of another path. What is
/// behind `name::` is a path of its own.
fn is_named(code: &str, name: &str) -> bool {
    let variants = variants_of(code);
    let bare: Vec<(&str, &str)> = words(code, name)
        .filter(|at| !variants.contains(at))
        .map(|at| (code[..at].trim_end(), code[at + name.len()..].trim_start()))
        .collect();
    let is_value = name.starts_with(char::is_lowercase);
    let is_local = is_value && bare.iter().any(|(before, after)| is_bound(before, after));
    bare.iter().any(|(before, after)| {
        let is_part = before.ends_with("::") || before.ends_with('.') && !before.ends_with("..");
        let is_macro = after.starts_with('!') && !after.starts_with("!=");
        let is_other = is_part || is_macro || before.ends_with("#[") || before.ends_with('\'');
        if is_other || after.starts_with(':') || is_behind_one_of(before, &DEFINES) {
            return false;
        }
        let is_argument = before.ends_with(['(', ',']) && after.starts_with([')', ',']);
        !is_value || after.starts_with('(') || is_argument && !is_local
    })
}

/// Keywords that a new name stands behind.
const DEFINES: [&str; 8] = ["fn", "let", "mod", "struct", "enum", "trait", "type", "const"];

/// Whether a word is made a local here: by a `let`, as a parameter, in a closure.
fn is_bound(before: &str, after: &str) -> bool {
    let is_typed = after.starts_with(':') && !after.starts_with("::");
    is_typed || before.ends_with('|') || is_behind_one_of(before, &["let", "mut", "ref"])
}

fn is_behind_one_of(before: &str, keywords: &[&str]) -> bool {
    let behind = |keyword: &&str| before.strip_suffix(*keyword);
    keywords.iter().filter_map(behind).any(|before| !before.ends_with(is_word_char))
}

/// Where the names of an enum's variants stand.
fn variants_of(code: &str) -> BTreeSet<usize> {
    let mut variants = BTreeSet::new();
    for at in words(code, "enum") {
        let Some(open) = code[at..].find('{').map(|open| at + open) else { continue };
        let (mut depth, mut next) = (0_usize, false);
        for (at, c) in code[open..].char_indices() {
            match c {
                '(' | '[' | '{' => {
                    depth += 1;
                    next = depth == 1;
                }
                ')' | ']' | '}' => {
                    depth = depth.saturating_sub(1);
                    // An attribute stands before the name.
                    next = depth == 1 && c == ']';
                }
                ',' if depth == 1 => next = true,
                c if depth == 1 && next && is_word_char(c) => {
                    variants.insert(open + at);
                    next = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    variants
}

/// The shortest way from one file to another, both named.
fn way<'a>(arrows: &Arrows<'a>, from: &'a str, to: &str) -> Option<Vec<&'a str>> {
    let mut ways = VecDeque::from([vec![from]]);
    let mut seen = BTreeSet::from([from]);
    while let Some(way) = ways.pop_front() {
        let here = *way.last()?;
        if here == to {
            return Some(way);
        }
        for next in arrows.get(here).into_iter().flatten() {
            if seen.insert(next) {
                ways.push_back([&way[..], &[*next]].concat());
            }
        }
    }
    None
}

/// One circle for each arrow that closes one, the shortest.
fn circles(arrows: &Arrows<'_>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (from, named) in arrows {
        for to in named {
            if let Some(mut circle) = way(arrows, to, from) {
                // It begins with its first file by name, so that it is told once.
                let first = circle.iter().enumerate().min_by_key(|(_, file)| **file);
                let first = first.map_or(0, |(at, _)| at);
                circle.rotate_left(first);
                circle.push(circle[0]);
                found.insert(circle.join(" -> "));
            }
        }
    }
    found
}

fn without<'a>(mut arrows: Arrows<'a>, (from, to): (&str, &str)) -> Arrows<'a> {
    if let Some(named) = arrows.get_mut(from) {
        named.retain(|other| *other != to);
    }
    arrows
}

#[test]
fn no_file_is_named_by_what_it_names() {
    let files = repository();
    let arrows = Crate::of(&files).arrows();
    assert!(!circles(&arrows).is_empty(), "{MEANT:?} closes no circle any more: take it out");
    let found: Vec<_> = circles(&without(arrows, MEANT)).into_iter().collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn a_planted_circle_is_found_through_facades_and_groups() {
    let planted = [
        ("src/lib.rs", "pub mod a; pub mod b;\n"),
        (
            "src/a/mod.rs",
            "mod inner;\npub(crate) use inner::{\n    Thing,\n    other as Renamed,\n};\n",
        ),
        ("src/a/inner.rs", "use super::super::b::{self, c::{D, E}};\npub struct Thing(D);\n"),
        ("src/b/mod.rs", "pub mod c;\n#[cfg(test)]\nmod tests { use crate::a::Thing; }\n"),
        ("src/b/c.rs", "pub struct D;\nfn f() { let x: Vec<crate::a::Thing> = g(); }\n"),
    ];
    let files: Vec<File> = planted.iter().map(|(path, text)| File::new(path, text)).collect();
    let arrows = Crate::of(&files).arrows();
    let circle = "src/a/inner.rs -> src/b/c.rs -> src/a/inner.rs".to_owned();
    assert_eq!(circles(&arrows), BTreeSet::from([circle]));
    let open = without(arrows, ("src/b/c.rs", "src/a/inner.rs"));
    assert_eq!(circles(&open), BTreeSet::new());
}

#[test]
fn a_facade_that_uses_what_it_holds_is_no_facade() {
    let planted = [
        ("src/a/mod.rs", "mod inner;\npub struct Of;\nfn f() { inner::run() }\n"),
        ("src/a/inner.rs", "use super::Of;\n"),
    ];
    let files: Vec<File> = planted.iter().map(|(path, text)| File::new(path, text)).collect();
    let found = circles(&Crate::of(&files).arrows());
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_facade_that_names_what_it_passes_on_is_no_facade() {
    let circles_of = |code: &str| {
        let facade = format!("mod inner;\npub(crate) use self::inner::{{Thing, log}};\n{code}");
        let inner = "use super::Of;\npub struct Thing;\npub fn log() {}\n";
        let planted = [("src/a/mod.rs", &*facade), ("src/a/inner.rs", inner)];
        let files: Vec<File> = planted.iter().map(|(path, text)| File::new(path, text)).collect();
        circles(&Crate::of(&files).arrows()).len()
    };
    for named in [
        "pub struct Of(Thing);",
        "pub struct Of { of: Vec<Thing> }",
        "pub enum Of { Thing(Thing) }",
        "pub struct Of;\nimpl From<Of> for Thing {}",
        "pub struct Of;\nfn f(of: &Of) -> &'static Thing { of }",
        "pub struct Of;\nfn f() { Thing::new() }",
        "pub struct Of;\nfn f() { log() }",
        "pub struct Of;\nfn f() { of.map(log) }",
    ] {
        assert_eq!(circles_of(named), 1, "{named}");
    }
    for alike in [
        "pub struct Of;\n// Of a Thing.\nconst F: &str = \"a Thing, log()\";",
        "pub struct Of { log: u8 }\nfn f(of: &Of) -> u8 { of.log }",
        "pub struct Of;\nfn f(of: &Of) { log!(of); of.log(); other::log() }",
        "pub struct Of;\nimpl Of { fn log(&self) {} }",
        "pub struct Of;\nfn f() { let log = 1; g(log) }",
        "pub struct Of;\nfn f(log: u8) { g(log) }",
        "pub enum Of { A, #[b(c)] Thing { of: u8 }, Other(u8) }\nfn f() { Of::Thing { of } }",
        "pub struct Of;\n#[cfg(test)]\nmod tests { fn f() -> Thing {} }",
    ] {
        assert_eq!(circles_of(alike), 0, "{alike}");
    }
}
