//! `keyway completions`, `keyway man`: what shells and `man` know of this program, from the arguments themselves.

use std::{fs, io::Write, path::Path};

use clap::{CommandFactory as _, ValueEnum};
use clap_complete::Shell;

use super::{
    Arguments, DONE,
    trouble::{Outcome, Trouble},
};

/// A shell.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Known {
    /// Into /usr/share/bash-completion/completions/keyway
    Bash,
    /// Into _keyway in a directory of $fpath
    Zsh,
    /// Into ~/.config/fish/completions/keyway.fish
    Fish,
}

pub(super) fn completions(shell: Known, stdout: &mut dyn Write) -> Outcome {
    let shell = match shell {
        Known::Bash => Shell::Bash,
        Known::Zsh => Shell::Zsh,
        Known::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "keyway", &mut script);
    stdout.write_all(&script)?;
    Ok(DONE)
}

/// One page on stdout, or all of them in a directory.
pub(super) fn man(directory: Option<&Path>, stdout: &mut dyn Write) -> Outcome {
    let Some(directory) = directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Arguments::command()).render(&mut page)?;
        stdout.write_all(&page)?;
        return Ok(DONE);
    };
    let failed = |error| Trouble::failed(format!("{}: {error}", directory.display()));
    fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(Arguments::command(), directory).map_err(failed)?;
    writeln!(stdout, "the pages are in {}", directory.display())?;
    Ok(DONE)
}
