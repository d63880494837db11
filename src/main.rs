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
fn serve(config: Arc<Config>) -> cli::Outcome {
    Ok(logstreams::server::run(config)?)
}

/// Asks the kernel whether this process may use io_uring.
fn probe_io_uring() -> Result<(), String> {
    logstreams::runtime::probe::probe_io_uring().map_err(|error| error.to_string())
}
