//! Where files lie that only tests have.

use super::source::TEST_ONLY;
use super::{File, Finding, squeezed};

/// Modules of tests that are neither the tests of a file nor the room's `testing`.
pub(super) fn elsewhere(file: &File) -> Vec<Finding> {
    if file.path.contains("/testing/") {
        return vec![];
    }
    let (mut of_tests, mut found) = (false, vec![]);
    for (at, line) in file.code.lines().enumerate() {
        if line.trim_start().starts_with("#[") {
            of_tests |= TEST_ONLY.iter().any(|only| squeezed(line) == squeezed(only));
            continue;
        }
        let module = line.trim().strip_suffix(';').and_then(|line| line.split("mod ").nth(1));
        if let Some(name) = module.filter(|_| of_tests) {
            let at_home = ["tests", "testing"].contains(&name) || name.ends_with("_tests");
            if !at_home {
                found.push(Finding(at + 1, format!("`{name}` is for tests only")));
            }
        }
        of_tests = false;
    }
    found
}
