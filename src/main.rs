//! The `logstreams` binary: the command line on top of the library.

mod cli;

use std::process::ExitCode;
use std::sync::Arc;

use logstreams::config::Config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run(serve)
}

/// Runs the server until it is told to stop.
fn serve(config: Arc<Config>) -> cli::Outcome {
    Ok(logstreams::server::run(config)?)
}
