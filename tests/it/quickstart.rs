//! The README's quick start, as it is written: every line of its blocks, in one shell, on a
//! machine of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::harness::network::may_miss;
use crate::harness::{Scratch, run};

/// The shell blocks of a section of the README, in order.
fn blocks(section: &str) -> Vec<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).expect("the README");
    let (_, behind) = readme.split_once(&format!("\n## {section}\n")).expect("the section");
    let section = behind.split("\n## ").next().unwrap_or_default();
    let blocks = section.split("\n```sh\n").skip(1);
    blocks.filter_map(|block| Some(block.split_once("\n```")?.0.to_owned())).collect()
}

#[test]
fn the_quick_start_runs_as_it_is_written() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.path().join(name);
    let blocks = blocks("Quick start");
    assert!(blocks.len() > 3, "{blocks:?}");
    // What was built is there already; all else is done as it stands.
    fs::create_dir_all(path("clone/target/release")).expect("a directory");
    fs::copy(env!("CARGO_BIN_EXE_keyway"), path("clone/target/release/keyway")).expect("a copy");
    fs::create_dir(path("bin")).expect("a directory");
    fs::write(path("bin/cargo"), "#!/bin/sh\n[ \"$*\" = 'build --release' ]\n").expect("a file");
    fs::set_permissions(path("bin/cargo"), fs::Permissions::from_mode(0o755)).expect("its mode");
    fs::write(path("resolv.conf"), "options timeout:2 attempts:2\n").expect("a file");
    fs::write(path("quick.sh"), blocks.join("\n")).expect("a file");
    // Homes, what runs and names belong to this test alone, and nothing outlives its first process.
    let script = "mount -t tmpfs -o mode=700 tmpfs ~root && mount -t tmpfs tmpfs /run \
                  && mount --bind \"$1/resolv.conf\" /etc/resolv.conf && ip link set lo up || exit 77
                  cd \"$1/clone\" && HOME=~root PATH=\"$1/bin:$PATH\" bash -eu -o pipefail \"$1/quick.sh\" && exit
                  cat ~root/keyway-quick/serve.log >&2; exit 1";
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh"]);
    let output = run(command.arg(scratch.path()).env_remove("KEYWAY_SOCKET"));
    if output.status == 77 || output.stderr.contains("unshare failed") {
        may_miss("netns", &format!("unshare: {}; it takes root", output.stderr));
        return;
    }
    assert_eq!(output.status, 0, "{}\n{}", output.text(), output.stderr);
    assert!(output.text().contains("in blue as root"), "{}", output.text());
    let names = fs::read_to_string(path("resolv.conf")).expect("the names");
    assert_eq!(names, "options timeout:2 attempts:2\n", "left as it was");
}
