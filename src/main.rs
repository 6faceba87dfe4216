//! Arguments -> role; nothing else.

use std::process::ExitCode;

use keyway::cli::{self, Demo, Failure, Roles};

/// Frees what a burst of connections used, and is faster on the login path than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run(std::env::args_os(), &Roles { serve: keyway::serve::serve, demo })
}

fn demo(_: &Demo) -> Result<(), Failure> {
    Err("not built yet".into())
}
