//! `loadgen run FILE.toml`: several steps by one command.
//!
//! ```toml
//! about = "one sentence"
//!
//! [defaults]                  # options of every step that has them
//! duration = "10s"
//!
//! [[step]]
//! name = "bulk"               # in the results; default is the command
//! command = "produce"         # produce, consume or both
//! partitions = 4              # options as on the command line, without the dashes in front
//! idempotent = true           # a switch
//! topic-config = ["a=1"]      # what may be given several times
//! ```
//!
//! Options become words of a command line and are read by the same parser, so there is one list of them. What producers
//! had acknowledged is kept from step to step: a later `consume` with `verify`, `from-beginning` and `exit-at-end` misses
//! what is missing.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, CommandFactory, FromArgMatches};
use serde::Serialize;
use toml::{Table, Value};

use crate::cli::{Action, Cli, Command};
use crate::report::Report;
use crate::run;
use crate::verify::Ledger;

/// Names are taken for each other from this likeness on (Jaro-Winkler, 0 to 1).
const LIKENESS_MIN: f64 = 0.75;
const COMMANDS: [&str; 3] = ["produce", "consume", "both"];

/// Do the steps of a scenario file, one after the other.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// The file; see tools/loadgen/scenarios.
    pub file: PathBuf,
    /// Brokers to begin with, in place of the file's.
    #[arg(long)]
    pub bootstrap: Option<String>,
    /// Report this process's CPU and memory.
    #[arg(long)]
    pub broker_pid: Option<u32>,
    /// An option for every step that has it, `KEY=VALUE`, in place of the file's; repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Only the steps of these names.
    #[arg(long, value_delimiter = ',')]
    pub steps: Vec<String>,
    /// Write the results of all steps as JSON to a file, or to standard output (`-`).
    #[arg(long)]
    pub json: Option<String>,
    /// No progress.
    #[arg(long)]
    pub quiet: bool,
    /// Progress as a live view, where standard error is a terminal.
    #[arg(long)]
    pub view: bool,
    /// Only check the file.
    #[arg(long)]
    pub check: bool,
}

/// A scenario's results.
#[derive(Serialize)]
pub struct ScenarioReport {
    pub loadgen: &'static str,
    pub scenario: String,
    pub steps: Vec<StepReport>,
}

/// What came of a step: a report, or why there is none.
#[derive(Serialize)]
pub struct StepReport {
    pub name: String,
    pub report: Option<Report>,
    pub error: Option<String>,
}

impl ScenarioReport {
    /// Every step was done, and what was verified is clean.
    pub fn is_clean(&self) -> bool {
        self.steps.iter().all(|step| step.report.as_ref().is_some_and(Report::is_clean))
    }
}

/// A step that the parser has read.
struct Step {
    name: String,
    command: Box<Command>,
}

/// Does the steps; one that fails does not keep the later ones from being done. Tells of each by `tell`.
///
/// # Errors
/// If the file is not sound; then nothing was done.
pub fn run(args: &RunArgs, mut tell: impl FnMut(&str)) -> Result<ScenarioReport> {
    let text =
        std::fs::read_to_string(&args.file).with_context(|| format!("reading {}", args.file.display()))?;
    let mut steps = read(&text, &overrides(args)?).with_context(|| format!("in {}", args.file.display()))?;
    if !args.steps.is_empty() {
        steps.retain(|step| args.steps.contains(&step.name));
        ensure!(!steps.is_empty(), "no step is called {}", args.steps.join(" or "));
    }
    let scenario = args.file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let mut report = ScenarioReport { loadgen: env!("CARGO_PKG_VERSION"), scenario, steps: Vec::new() };
    let mut ledger = Ledger::default();
    for Step { name, command } in steps.into_iter().filter(|_| !args.check) {
        tell(&format!("== {name}\n"));
        let (done, error) = match run::run(&command, &mut ledger) {
            Ok(done) => {
                tell(&done.to_text()?);
                (Some(done), None)
            }
            Err(error) => {
                tell(&format!("  failed: {error:#}\n"));
                (None, Some(format!("{error:#}")))
            }
        };
        report.steps.push(StepReport { name, report: done, error });
    }
    Ok(report)
}

/// The options that stand above those of the file.
fn overrides(args: &RunArgs) -> Result<Table> {
    let mut table = Table::new();
    let mut put = |key: &str, value: String| table.insert(key.to_string(), Value::String(value));
    for pair in &args.overrides {
        let (key, value) = pair.split_once('=').with_context(|| format!("expected KEY=VALUE, not {pair}"))?;
        put(key, value.to_string());
    }
    args.bootstrap.iter().for_each(|bootstrap| drop(put("bootstrap", bootstrap.clone())));
    args.broker_pid.iter().for_each(|pid| drop(put("broker-pid", pid.to_string())));
    for (key, is_set) in [("quiet", args.quiet), ("view", args.view)] {
        if is_set {
            table.insert(key.to_string(), Value::Boolean(true));
        }
    }
    Ok(table)
}

/// Reads a scenario.
fn read(text: &str, overrides: &Table) -> Result<Vec<Step>> {
    let mut file: Table = text.parse()?;
    let defaults = match file.remove("defaults") {
        Some(Value::Table(defaults)) => defaults,
        None => Table::new(),
        Some(_) => bail!("defaults is a table"),
    };
    let steps = match file.remove("step") {
        Some(Value::Array(steps)) => steps,
        _ => bail!("a scenario has [[step]] tables"),
    };
    file.remove("about");
    if let Some(key) = file.keys().next() {
        bail!("unknown key {key}{}", hint(key, ["about", "defaults", "step"].into_iter()));
    }
    for (what, table) in [("[defaults]", &defaults), ("--set", overrides)] {
        check_known(what, table, &COMMANDS)?;
    }
    ensure!(!steps.is_empty(), "a scenario without steps");
    let read = |(index, step)| {
        let Value::Table(step) = step else { bail!("a step is a table") };
        read_step(step, &defaults, overrides).with_context(|| format!("step {}", index + 1))
    };
    steps.into_iter().enumerate().map(read).collect()
}

fn read_step(mut step: Table, defaults: &Table, overrides: &Table) -> Result<Step> {
    let mut take = |key: &str| match step.remove(key) {
        Some(Value::String(text)) => Ok(Some(text)),
        None => Ok(None),
        Some(_) => bail!("{key} is a text"),
    };
    let (name, command) = (take("name")?, take("command")?);
    let command = command.context("command is missing: produce, consume or both")?;
    if !COMMANDS.contains(&command.as_str()) {
        bail!("unknown command {command}{}", hint(&command, COMMANDS.into_iter()));
    }
    let name = name.unwrap_or_else(|| command.clone());
    check_known(&name, &step, &[&command])?;
    let mut words = vec!["loadgen".to_string(), command.clone()];
    let known = option_names(&command);
    let mut options = defaults.clone();
    options.retain(|key, _| known.iter().any(|known| known == key));
    options.extend(step);
    options.extend(overrides.clone().into_iter().filter(|(key, _)| known.contains(key)));
    for (key, value) in &options {
        put_words(&mut words, key, value)?;
    }
    let matches = Cli::command()
        .try_get_matches_from(&words)
        .map_err(|error| anyhow::anyhow!("{}", first_line(&error.to_string())))?;
    let Action::Load(command) = Cli::from_arg_matches(&matches)?.action else {
        bail!("{command} is no load")
    };
    command.check()?;
    Ok(Step { name, command })
}

/// One option as words of a command line.
fn put_words(words: &mut Vec<String>, key: &str, value: &Value) -> Result<()> {
    match value {
        Value::Boolean(true) => words.push(format!("--{key}")),
        Value::Boolean(false) => {}
        Value::String(text) if text == "true" && is_switch(key) => words.push(format!("--{key}")),
        Value::String(text) => words.push(format!("--{key}={text}")),
        Value::Integer(number) => words.push(format!("--{key}={number}")),
        Value::Float(number) => words.push(format!("--{key}={number}")),
        Value::Array(values) => {
            for value in values {
                ensure!(!value.is_array(), "{key}: a list in a list");
                put_words(words, key, value)?;
            }
        }
        Value::Datetime(_) | Value::Table(_) => bail!("{key} is no option's value"),
    }
    Ok(())
}

/// Refuses keys that none of the commands has.
fn check_known(place: &str, table: &Table, commands: &[&str]) -> Result<()> {
    let known: Vec<String> = commands.iter().flat_map(|command| option_names(command)).collect();
    for key in table.keys() {
        if !known.contains(key) {
            bail!("{place}: unknown option {key}{}", hint(key, known.iter().map(String::as_str)));
        }
    }
    Ok(())
}

/// The options of a command, as the parser knows them.
fn option_names(command: &str) -> Vec<String> {
    let cli = Cli::command();
    let command = cli.find_subcommand(command).expect("one of COMMANDS");
    command.get_arguments().filter_map(|option| option.get_long()).map(str::to_string).collect()
}

fn is_switch(key: &str) -> bool {
    let cli = Cli::command();
    let mut options = cli.get_subcommands().flat_map(|command| command.get_arguments());
    options.any(|option| option.get_long() == Some(key) && !option.get_action().takes_values())
}

/// `; did you mean X?`, if X is like enough.
fn hint<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let likeness = |candidate: &str| strsim::jaro_winkler(name, candidate);
    let best = known.max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
    match best.filter(|best| likeness(best) >= LIKENESS_MIN) {
        Some(best) => format!("; did you mean {best}?"),
        None => String::new(),
    }
}

fn first_line(text: &str) -> &str {
    text.trim_start_matches("error: ").lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use toml::{Table, Value};

    use super::read;
    use crate::keys::Keys;

    fn refused(text: &str) -> String {
        match read(text, &Table::new()) {
            Ok(_) => panic!("{text} is refused"),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn options_are_those_of_the_command_line() {
        let text = "
            about = \"two\"
            [defaults]
            duration = \"3s\"
            connections = 7
            [[step]]
            command = \"produce\"
            idempotent = true
            keys = \"zipf:100\"
            topic-config = [\"a=1\", \"b=2\"]
            [[step]]
            name = \"read\"
            command = \"consume\"
            duration = 2
            rewind = false
        ";
        let overrides = Table::from_iter([("bootstrap".to_string(), Value::String("h:1".to_string()))]);
        let steps = read(text, &overrides).expect("sound");
        assert_eq!(steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(), ["produce", "read"]);
        let (common, produce) = (steps[0].command.common(), steps[0].command.produce().expect("produces"));
        assert_eq!(
            (common.duration, common.bootstrap.as_str()),
            (Some(std::time::Duration::from_secs(3)), "h:1")
        );
        assert_eq!(common.topic_configs.len(), 2);
        assert!(produce.idempotent && produce.connections == 7);
        assert_eq!(produce.keys, Keys::Zipf { count: 100, exponent: 1.0 });
        assert_eq!(steps[1].command.common().duration, Some(std::time::Duration::from_secs(2)));
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_may_be_meant() {
        let step = "[[step]]\ncommand = \"produce\"\n";
        assert!(refused(&format!("{step}partition = 3")).contains("did you mean partitions?"));
        assert!(refused(&format!("{step}consumers = 3")).contains("unknown option consumers"));
        assert!(refused("[[step]]\ncommand = \"prodce\"").contains("did you mean produce?"));
        assert!(refused(&format!("[default]\n{step}")).contains("did you mean defaults?"));
        assert!(refused(&format!("[defaults]\nlinger = 3\n{step}")).contains("did you mean linger-ms?"));
        assert!(refused(&format!("{step}acks = \"some\"")).contains("acks"));
        assert!(refused(&format!("{step}connections = 0")).contains("--connections"));
        assert!(refused("about = \"nothing\"").contains("[[step]]"));
    }

    #[test]
    fn the_samples_are_sound() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
        let mut count = 0;
        for entry in std::fs::read_dir(directory).expect("the samples are there") {
            let path = entry.expect("readable").path();
            let text = std::fs::read_to_string(&path).expect("readable");
            let steps = read(&text, &Table::new()).unwrap_or_else(|error| panic!("{path:?}: {error:#}"));
            assert!(text.starts_with("about = ") && !steps.is_empty(), "{path:?}");
            count += 1;
        }
        assert!(count >= 8);
    }
}
