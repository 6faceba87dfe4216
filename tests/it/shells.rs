//! Completions in the shells that they are for.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

use crate::harness::{peers, run};

const KEYWAY: &str = env!("CARGO_BIN_EXE_keyway");

fn script(shell: &str) -> String {
    run(Command::new(KEYWAY).args(["completions", shell])).ok().text()
}

#[test]
fn fish_offers_what_can_be_written() {
    let Some(fish) = peers::program("shells", "fish") else { return };
    let home = env::temp_dir().join(format!("keyway-fish-{}", std::process::id()));
    let config = home.join("fish");
    fs::create_dir_all(config.join("completions")).expect("a directory");
    fs::write(config.join("completions/keyway.fish"), script("fish")).expect("a file");
    // It looks for completions of what it finds only.
    let beside = Path::new(KEYWAY).parent().expect("a directory");
    let path = format!("{}:{}", beside.display(), env::var("PATH").expect("a path"));
    let offered = |line: &str| -> Vec<String> {
        let complete = format!("complete -C '{line}'");
        let mut command = Command::new(&fish);
        command.args(["-c", &complete]).env("XDG_CONFIG_HOME", &home).env("HOME", &home);
        command.env("PATH", &path);
        let text = run(&mut command).ok().text();
        let words = text.lines().filter_map(|line| line.split('\t').next());
        words.map(str::to_owned).collect()
    };
    assert_eq!(offered("keyway vm l"), ["list"]);
    assert_eq!(offered("keyway vm list --output "), ["json", "table"]);
    assert_eq!(offered("keyway completions "), ["bash", "fish", "zsh"]);
    fs::remove_dir_all(home).expect("it was ours");
}

#[test]
fn zsh_reads_its_completions() {
    let Some(zsh) = peers::program("shells", "zsh") else { return };
    let path = env::temp_dir().join(format!("keyway-zsh-{}", std::process::id()));
    fs::write(&path, script("zsh")).expect("a file");
    run(Command::new(zsh).arg("-n").arg(&path)).ok();
    fs::remove_file(path).expect("it was ours");
}
