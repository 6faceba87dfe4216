//! The text of a file and where it came from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::finding::Finding;
use super::keys;

/// Where something stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Location {
    pub(super) file: Arc<str>,
    pub(super) order: usize,
    pub(super) line: usize,
}

impl Location {
    pub(super) fn warn(&self, (what, fix): (String, String), warnings: &mut Vec<Finding>) {
        let Self { file, order, line } = self.clone();
        warnings.push(Finding { order, line, file, what, fix });
        warnings.sort();
    }
}

/// Where `keyway.toml` is where nobody names it: in the working directory, or where a
/// system keeps it.
const USUAL: [&str; 2] = ["keyway.toml", "/etc/keyway/keyway.toml"];

/// The configuration that is read where none is named: the first of the usual ones that is there.
#[must_use]
pub fn usual<'p>() -> Option<&'p Path> {
    USUAL.map(Path::new).into_iter().find(|path| path.exists())
}

/// A file's text and where it came from.
pub(super) struct Source {
    /// As named on the command line.
    pub(super) name: String,
    pub(super) order: usize,
    /// Relative paths in it start here.
    pub(super) base: PathBuf,
    pub(super) text: String,
}

pub(super) fn source(path: &Path, order: usize) -> Result<Source, Finding> {
    let name = path.display().to_string();
    match std::fs::read(path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => {
                let base = path.parent().unwrap_or(Path::new("")).to_owned();
                Ok(Source { name, order, base, text })
            }
            Err(error) => {
                let (good, _) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
                let line = good.split(|byte| *byte == b'\n').count();
                let what = "not TOML: not UTF-8 text".to_owned();
                Err(Finding {
                    order,
                    line,
                    file: name.into(),
                    what,
                    fix: "save the file as UTF-8".to_owned(),
                })
            }
        },
        Err(error) => Err(Finding {
            order,
            line: 1,
            file: name.into(),
            what: format!("cannot be read: {}", keys::plain(&error)),
            fix: "correct the path or its permissions".to_owned(),
        }),
    }
}

/// The configuration that is named, or the [`usual`] one; nothing if there is none.
pub(super) fn config_source(config: Option<&Path>) -> Result<Source, Finding> {
    match config.or_else(usual) {
        Some(config) => source(config, 0),
        None => Ok(Source {
            name: "keyway.toml (not there: defaults)".to_owned(),
            order: 0,
            base: PathBuf::new(),
            text: String::new(),
        }),
    }
}
