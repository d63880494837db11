//! The command line: what to do, with which configuration, and how it ended.
//!
//! Does not: decide anything that the configuration can say. Flags are other names of configuration keys.
//! Exit codes: 0 done, 1 one sentence `error: ...` on standard error says why not, 2 the command line is wrong.

mod doctor;

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand, ValueEnum};
use logstreams::config::{self, CONFIG_FILE_VARIABLE, Config, Flag, OptionalAddr, Sources};
use tracing_subscriber::EnvFilter;

/// How a command ended; the error is the one sentence that the user reads.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Runs the server until it is told to stop; given by `main`, so that the commands can be tried without a server.
pub(crate) type Serve = fn(Arc<Config>) -> Outcome;

/// A durable message log behind the Kafka protocol, in one binary.
///
/// Without a command it serves.
#[derive(Parser)]
#[command(name = "logstreams", version, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Serve (what happens without a command, too).
    Serve(ServeArgs),
    /// Check this machine: what is wrong for a log, and the command that cures it.
    Doctor(ConfigArgs),
    /// Print segments (.log), offset indexes (.index) and time indexes (.timeindex) as text.
    Dump {
        /// The files to print.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Print every record, too.
        #[arg(long)]
        records: bool,
    },
}

/// Where the configuration comes from, for every command that needs one.
#[derive(Args)]
struct ConfigArgs {
    /// Read the configuration from this TOML file [env: LOGSTREAMS_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Keep all data here (log.dir)
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Set any configuration key; CONFIGURATION.md lists them
    #[arg(short = 'o', value_name = "KEY=VALUE", value_parser = split_option)]
    options: Vec<(String, String)>,
}

#[derive(Args)]
struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Listen here for Kafka clients; port 0 picks a free port (kafka.addr)
    #[arg(long, value_name = "HOST:PORT")]
    kafka_addr: Option<String>,
    /// Listen here for Redis clients (redis.addr)
    #[arg(long, value_name = "HOST:PORT|off")]
    redis_addr: Option<String>,
    /// Listen here for HTTP (admin.addr)
    #[arg(long, value_name = "HOST:PORT|off")]
    admin_addr: Option<String>,
    /// Run this many shards (shards)
    #[arg(long, value_name = "N|auto")]
    shards: Option<String>,
    /// Check the configuration, say ok or what is wrong, and exit
    #[arg(long)]
    check_config: bool,
    /// Print the configuration in force, each value with its origin, and exit
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "toml",
        conflicts_with = "check_config", hide_possible_values = true)]
    print_config: Option<PrintFormat>,
}

#[derive(Clone, Copy, ValueEnum)]
enum PrintFormat {
    /// The configuration in force, as a file.
    Toml,
    /// Every entry there is: CONFIGURATION.md.
    Markdown,
}

/// Does what the command line says.
pub(crate) fn run(run_server: Serve) -> ExitCode {
    let command_line = CommandLine::parse();
    let ended = match command_line.command.unwrap_or(Command::Serve(command_line.serve)) {
        Command::Serve(args) => serve(run_server, &args).map(|()| ExitCode::SUCCESS),
        Command::Doctor(args) => examine(&args),
        Command::Dump { files, records } => {
            logstreams::dump::run(&files, records).map(|()| ExitCode::SUCCESS).map_err(Into::into)
        }
    };
    ended.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

fn serve(run_server: Serve, args: &ServeArgs) -> Outcome {
    if matches!(args.print_config, Some(PrintFormat::Markdown)) {
        return print(&config::configuration_page());
    }
    let config = Config::load(&sources(&args.config, &serve_flags(args)))?;
    if args.print_config.is_some() {
        return print(&config.to_toml());
    }
    refuse_missing_doors(&config)?;
    if args.check_config {
        return print("ok\n");
    }
    start_logging(&config)?;
    if config.admin_addr != OptionalAddr::Off {
        tracing::info!("this version has no HTTP door yet; it serves the Kafka and Redis protocols");
    }
    run_server(Arc::new(config))
}

fn examine(args: &ConfigArgs) -> Outcome<ExitCode> {
    let config = Config::load(&sources(args, &[]))?;
    let findings = doctor::examine(&config);
    let lines: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
    print(&lines)?;
    let failed = findings.iter().any(doctor::Finding::is_failure);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// An address that was asked for must not be silently unserved.
fn refuse_missing_doors(config: &Config) -> Outcome {
    let key = "admin.addr";
    if config.is_given(key) && config.admin_addr != OptionalAddr::Off {
        let place = config.origin(key).map(|origin| format!("{origin}: ")).unwrap_or_default();
        return Err(format!(
            "{place}this version has no HTTP door yet; start without --admin-addr (and without {key}), or with off"
        )
        .into());
    }
    Ok(())
}

/// Logs go to standard error, in colour only for a person. A line that cannot be written is lost: where the log's file is
/// on the disk that has just become full, telling of it would be the next failure (and `eprintln!` panics then).
fn start_logging(config: &Config) -> Outcome {
    let filter =
        EnvFilter::try_new(config.log_level.as_str()).map_err(|error| format!("log.level: {error}"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .log_internal_errors(false)
        .try_init()
        .map_err(|error| -> Box<dyn Error> { error })
}

/// Writes to standard output; a reader that went away early (`| head`) is no error.
fn print(text: &str) -> Outcome {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {error}").into())
        }
        _ => Ok(()),
    }
}

fn sources(args: &ConfigArgs, flags: &[Flag]) -> Sources {
    let data_dir = args.data_dir.as_ref().map(|value| flag("--data-dir", "log.dir", value));
    let options = args.options.iter().map(|(name, value)| Flag {
        name: name.clone(),
        value: value.clone(),
        shown: format!("-o {name}={value}"),
    });
    let from_environment =
        || std::env::var_os(CONFIG_FILE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    Sources {
        file: args.config.clone().or_else(from_environment),
        environment: std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect(),
        command_line: options.chain(data_dir).chain(flags.iter().cloned()).collect(),
    }
}

fn serve_flags(args: &ServeArgs) -> Vec<Flag> {
    let flags = [
        ("--kafka-addr", "kafka.addr", &args.kafka_addr),
        ("--redis-addr", "redis.addr", &args.redis_addr),
        ("--admin-addr", "admin.addr", &args.admin_addr),
        ("--shards", "shards", &args.shards),
    ];
    flags.into_iter().filter_map(|(shown, name, value)| Some(flag(shown, name, value.as_ref()?))).collect()
}

fn flag(shown: &str, name: &str, value: &str) -> Flag {
    Flag { name: name.to_owned(), value: value.to_owned(), shown: shown.to_owned() }
}

fn split_option(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.trim().to_owned(), value.to_owned())),
        None => Err("expected KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::CommandLine;

    #[test]
    fn the_command_line_is_well_formed() {
        CommandLine::command().debug_assert();
    }
}
