//! The `logstreams` binary: the command line on top of the library.

mod cli;

use std::process::ExitCode;
use std::sync::Arc;

use logstreams::config::Config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run(&cli::Parts { serve, probe_io_uring })
}

/// Runs the server until it is told to stop.
fn serve(_config: Arc<Config>) -> cli::Outcome {
    Err("this build has no server yet".into())
}

/// Asks the kernel whether this process may use io_uring.
fn probe_io_uring() -> Result<(), String> {
    Ok(())
}
