//! loadgen: drives any Kafka-protocol broker with a measured load.
//!
//! # What latency means
//!
//! **Open loop** (`--rate`): every message has an intended send time that is fixed before the run begins, evenly spaced.
//! Its latency is from that time to the acknowledgement, also when it left late because the broker was slow, requests in
//! flight were at their limit, or this process was not scheduled. So a stall of the broker counts for every message that
//! was due during it, and nothing is left out (no coordinated omission). A message belongs to the measured window by its
//! intended time; one that has no answer when the run gives up counts with the time it has waited.
//! **Closed loop** (no `--rate`): as fast as requests in flight allow; latency is from the actual send, for a measure of
//! queueing at that depth, not of what users of a steady load would see.
//! **Service time**, reported beside it, is per request from the last actual send. Where it is far below the latency,
//! messages waited for their turn.
//! **End to end** (`both`, or `consume --verify`): from the intended send time, which travels in the payload, to the
//! reading of the fetch reply that brought the message.
//!
//! # Modules, in reading order
//!
//! `cli` the options; `setup` from options to clients; `run` the main thread and `view` what it shows; `crew` the worker threads; `worker` their
//! loop; `produce` and `consume` the clients, `source` and `keys` what producers send; `leader_links` and `link` their connections; below them bytes, time and numbers.
//! Beside a run: `scenario`, several of them; `groups` and `member`, consumer groups without fetching; `pubsub` and `subscribers`, PUBLISH at the Redis protocol; `bare` and `bare_server`, what a log server cannot do without; `compare`, `chart` and `svg`, pictures.

mod aborted;
mod bare;
mod bare_server;
mod batch;
mod batch_view;
mod chart;
mod cli;
mod clock;
mod cluster;
mod compare;
mod compression;
mod consume;
mod control;
mod crc32c;
mod crew;
mod groups;
mod keys;
mod leader_links;
mod link;
mod member;
mod payload;
mod process;
mod produce;
mod produce_frame;
mod pubsub;
mod report;
mod run;
mod scenario;
mod schedule;
mod setup;
mod source;
mod stats;
mod subscribers;
mod svg;
mod timeline;
mod transaction;
mod verify;
mod view;
mod wire;
mod worker;

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use serde::Serialize;

use crate::cli::{Action, Cli};
use crate::report::Report;
use crate::scenario::RunArgs;
use crate::verify::Ledger;

/// The exit code of a run whose verification failed.
const EXIT_NOT_CLEAN: u8 = 2;

fn main() -> ExitCode {
    match try_main() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("loadgen: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_main() -> Result<ExitCode> {
    match Cli::parse().action {
        Action::Load(command) => {
            deliver(&run::run(&command, &mut Ledger::default())?, command.common().json.as_deref())
        }
        Action::Run(args) => run_scenario(&args),
        Action::Groups(args) => {
            let report = groups::run(&args)?;
            show(&report.to_text()?, args.which.json.as_deref());
            write_json(&report, args.which.json.as_deref()).map(|()| ExitCode::SUCCESS)
        }
        Action::Committed(args) => {
            let report = groups::run_committed(&args)?;
            show(&format!("answered after {:.1} ms\n", report.answered_after_ms), args.which.json.as_deref());
            write_json(&report, args.which.json.as_deref()).map(|()| ExitCode::SUCCESS)
        }
        Action::Pubsub(args) => deliver(&pubsub::run(&args)?, args.json.as_deref()),
        Action::Bare(args) => deliver(&bare::run(&args)?, args.json.as_deref()),
        Action::BareServer(args) => bare_server::serve(&args).map(|()| ExitCode::SUCCESS),
        Action::Compare(args) => {
            for path in compare::run(&args)? {
                println!("{}", path.display());
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Prints a report, and writes it as JSON where asked.
fn deliver(report: &Report, json_path: Option<&str>) -> Result<ExitCode> {
    show(&report.to_text()?, json_path);
    write_json(report, json_path)?;
    Ok(exit_code(report.is_clean()))
}

/// Prints what is for people: beside JSON on standard output, to standard error.
fn show(text: &str, json_path: Option<&str>) {
    match json_path {
        Some("-") => eprint!("{text}"),
        _ => print!("{text}"),
    }
}

fn run_scenario(args: &RunArgs) -> Result<ExitCode> {
    let json_path = args.json.as_deref();
    let report = scenario::run(args, |text| show(text, json_path))?;
    write_json(&report, json_path)?;
    Ok(exit_code(report.is_clean()))
}

/// Writes results where asked; on standard output JSON stands alone.
fn write_json(report: &impl Serialize, path: Option<&str>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let json = serde_json::to_string_pretty(report)? + "\n";
    match path {
        "-" => print!("{json}"),
        path => fs::write(path, json).with_context(|| format!("writing {path}"))?,
    }
    Ok(())
}

fn exit_code(is_clean: bool) -> ExitCode {
    if is_clean { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NOT_CLEAN) }
}
