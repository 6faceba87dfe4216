//! Arguments -> role; nothing else.

use std::process::ExitCode;

use keyway::cli::{self, Demo, Roles};
use keyway::demo::{self, Options};
use keyway::serve::{self, Failure};

/// Frees what a burst of connections used, and is faster on the login path than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run(std::env::args_os(), &Roles { serve: serve::serve, agent: serve::agent, demo })
}

fn demo(asked: &Demo) -> Result<(), Failure> {
    demo::run(Options {
        check: asked.check,
        sshd: asked.sshd,
        port: asked.port,
        verbose: asked.log,
    })
}
