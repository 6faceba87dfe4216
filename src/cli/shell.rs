//! `keyway completions`, `keyway man`: what shells and `man` know of this program, from the
//! arguments themselves.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::{Arg, Command, ValueEnum};
use clap_complete::Shell;

use super::DONE;
use super::error::{CliError, Outcome};

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

/// `command` is all of this program's.
pub(super) fn completions(mut command: Command, shell: Known, stdout: &mut dyn Write) -> Outcome {
    let shell = match shell {
        Known::Bash => Shell::Bash,
        Known::Zsh => Shell::Zsh,
        Known::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "keyway", &mut script);
    stdout.write_all(&script)?;
    if shell == Shell::Fish {
        for noun in command.get_subcommands() {
            fish_words(noun, stdout)?;
        }
    }
    Ok(DONE)
}

/// What stands behind a command of one word, where only some words can: clap_complete (4.6) leaves
/// that out for fish, which then offers files.
fn fish_words(command: &Command, stdout: &mut dyn Write) -> io::Result<()> {
    let name = command.get_name();
    let values = command.get_positionals().flat_map(Arg::get_possible_values);
    for value in values.filter(|value| !value.is_hide_set()) {
        let (word, help) = (value.get_name(), value.get_help().map(ToString::to_string));
        let help = help.unwrap_or_default().replace('\\', "\\\\").replace('\'', "\\'");
        let when = format!("__fish_keyway_using_subcommand {name}");
        writeln!(stdout, "complete -c keyway -n \"{when}\" -f -a {word} -d '{help}'")?;
    }
    Ok(())
}

/// One page on stdout, or all of them in a directory.
pub(super) fn man(command: Command, directory: Option<&Path>, stdout: &mut dyn Write) -> Outcome {
    let Some(directory) = directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        stdout.write_all(&page)?;
        return Ok(DONE);
    };
    let failed = |error| CliError::failed(format!("{}: {error}", directory.display()));
    fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(command, directory).map_err(failed)?;
    writeln!(stdout, "the pages are in {}", directory.display())?;
    Ok(DONE)
}
