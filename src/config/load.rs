//! Gathers the configuration: defaults < file < environment < command line; the later wins.
//!
//! Within one of these layers the finer unit wins, as in Kafka: `log.retention.ms` before `log.retention.minutes`
//! before `log.retention.hours`. Between layers the later one wins whatever its unit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::entry::{Alias, Alter, ConfigType, Entry, INT_MAX, Rule};
use super::error::ConfigError;
use super::nearest::nearest;
use super::origin::{Given, Origin, Origins};
use super::table::{BROKER_ENTRIES, Config};
use super::topic::refuse_compaction;
use super::value::{Problem, normalize};

/// What every environment variable of ours begins with.
pub const VARIABLE_PREFIX: &str = "LOGSTREAMS_";

/// The variable that names the configuration file; the command line reads it.
pub const CONFIG_FILE_VARIABLE: &str = "LOGSTREAMS_CONFIG";

/// The places to read a configuration from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The TOML file, if any.
    pub file: Option<PathBuf>,
    /// Environment variables; those without our prefix are passed over.
    pub environment: Vec<(String, String)>,
    /// What the command line gives, in its order.
    pub command_line: Vec<Flag>,
}

/// One value of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// The entry's name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The flag as the user wrote it, for messages.
    pub shown: String,
}

/// One value as it was found, its name not yet known to be one.
struct Found {
    name: String,
    text: String,
    origin: Origin,
}

impl Config {
    /// Reads all `sources` and checks every value.
    ///
    /// # Errors
    /// The first thing wrong, with its place.
    pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
        let mut origins = Origins::default();
        if let Some(path) = &sources.file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| ConfigError::UnreadableFile { path: path.clone(), error })?;
            apply(&mut origins.given, read_toml(path, &text)?)?;
        }
        apply(&mut origins.given, read_environment(&sources.environment)?)?;
        let flags = sources.command_line.iter().map(|flag| Found {
            name: flag.name.clone(),
            text: flag.value.clone(),
            origin: Origin::CommandLine(flag.shown.clone()),
        });
        apply(&mut origins.given, flags.collect())?;
        Config::of(origins)
    }

    /// The defaults with `options` on top, as the command line's `-o name=value` gives them.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_options(options: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let command_line = options
            .iter()
            .map(|(name, value)| Flag {
                name: (*name).to_owned(),
                value: (*value).to_owned(),
                shown: format!("-o {name}={value}"),
            })
            .collect();
        Config::load(&Sources { command_line, ..Sources::default() })
    }

    /// This configuration as it was started, with `altered` in force on top: what earlier changes set and `altered`
    /// lacks falls back.
    ///
    /// # Errors
    /// Unknown and illegal values, and `NotDynamic` for an entry that holds until the next start.
    pub fn with_dynamic(&self, altered: &BTreeMap<String, String>) -> Result<Config, ConfigError> {
        let mut found = Vec::with_capacity(altered.len());
        for (name, text) in altered {
            if let Some((entry, alias)) = find(name)
                && (entry.alter == Alter::Restart || alias.is_some())
            {
                return Err(ConfigError::NotDynamic { name: name.clone() });
            }
            found.push(Found { name: name.clone(), text: text.clone(), origin: Origin::Altered });
        }
        let mut origins = Origins { given: self.origins.given.clone(), dynamic: BTreeMap::new() };
        apply(&mut origins.dynamic, found)?;
        Config::of(origins)
    }

    fn of(origins: Origins) -> Result<Config, ConfigError> {
        let given: BTreeMap<&str, Given> = BROKER_ENTRIES
            .iter()
            .filter_map(|entry| Some((entry.name, origins.get(entry.name)?.clone())))
            .collect();
        let config = Config::build(
            origins,
            |entry| {
                given.get(entry.name).map_or_else(|| entry.default.to_owned(), |given| given.text.clone())
            },
            |entry, text, problem| match given.get(entry.name) {
                Some(given) => invalid(&given.origin, given.name, text, problem),
                None => ConfigError::Conflict(format!("the default of {} is illegal: {problem}", entry.name)),
            },
        )?;
        config.check()?;
        Ok(config)
    }

    /// What no entry can check alone.
    fn check(&self) -> Result<(), ConfigError> {
        if self.group_min_session_timeout_ms > self.group_max_session_timeout_ms {
            return Err(ConfigError::Conflict(format!(
                "group.min.session.timeout.ms ({}) is greater than group.max.session.timeout.ms ({}): raise the latter",
                self.group_min_session_timeout_ms, self.group_max_session_timeout_ms
            )));
        }
        if !self.dma_write_bytes.is_multiple_of(4096) {
            return Err(ConfigError::Conflict(format!(
                "dma.write.bytes ({}) is not a multiple of 4096",
                self.dma_write_bytes
            )));
        }
        Ok(())
    }
}

/// The configuration when nothing is given.
impl Default for Config {
    fn default() -> Self {
        match Config::of(Origins::default()) {
            Ok(config) => config,
            Err(error) => unreachable!("the defaults are legal: {error}"),
        }
    }
}

/// The entry that `name` stands for, and the alias if the name is one.
pub(super) fn find(name: &str) -> Option<(&'static Entry, Option<&'static Alias>)> {
    BROKER_ENTRIES.iter().find_map(|entry| {
        if entry.name == name {
            return Some((entry, None));
        }
        entry.aliases.iter().find(|alias| alias.name == name).map(|alias| (entry, Some(alias)))
    })
}

/// Every name that `find` knows.
fn known_names() -> impl Iterator<Item = &'static str> {
    BROKER_ENTRIES
        .iter()
        .flat_map(|entry| std::iter::once(entry.name).chain(entry.aliases.iter().map(|alias| alias.name)))
}

/// Lays one layer over what was given so far.
fn apply(given: &mut BTreeMap<&'static str, Given>, layer: Vec<Found>) -> Result<(), ConfigError> {
    // How fine the unit of the layer's present winner is: 0 for the entry's own name.
    let mut ranks: BTreeMap<&'static str, usize> = BTreeMap::new();
    for Found { name, text, origin } in layer {
        let Some((entry, alias)) = find(&name) else {
            let nearest = nearest_key(&name).map(str::to_owned);
            return Err(ConfigError::UnknownKey { origin, name, nearest });
        };
        let checked = match alias {
            None => (entry.normalize)(&entry.rule, &text).map(Option::unwrap_or_default),
            Some(alias) => read_alias(entry, alias, &text),
        };
        let plain = checked
            .and_then(|plain| refuse_compaction(entry, &plain).map(|()| plain))
            .map_err(|problem| invalid(&origin, &name, &text, problem))?;
        let rank = alias.map_or(0, |alias| {
            1 + entry.aliases.iter().position(|known| known.name == alias.name).unwrap_or_default()
        });
        if ranks.get(entry.name).is_none_or(|&best| rank <= best) {
            ranks.insert(entry.name, rank);
            let name = alias.map_or(entry.name, |alias| alias.name);
            given.insert(entry.name, Given { name, text: plain, origin });
        }
    }
    Ok(())
}

/// A time in an alias's coarse unit, as milliseconds.
fn read_alias(entry: &Entry, alias: &Alias, text: &str) -> Result<String, Problem> {
    let min = entry.rule.bounds.map_or(0, |(min, _)| min);
    let rule = Rule { kind: ConfigType::Int, unit: alias.unit, bounds: Some((min, INT_MAX)) };
    let plain = normalize::<i64>(&rule, text)?.unwrap_or_default();
    Ok(match plain.parse::<i64>() {
        // An INT of hours is far from filling a LONG of milliseconds; -1 means "no bound" in every unit.
        Ok(value) if value >= 0 => value.saturating_mul(alias.unit.milliseconds()).to_string(),
        _ => plain,
    })
}

fn invalid(origin: &Origin, name: &str, value: &str, problem: Problem) -> ConfigError {
    ConfigError::InvalidValue {
        origin: origin.clone(),
        name: name.to_owned(),
        value: value.to_owned(),
        problem,
    }
}

/// The broker-level name that `name` was probably meant to be.
fn nearest_key(name: &str) -> Option<&'static str> {
    // A topic's name of something is nearest to the broker's name of the same thing.
    let same = BROKER_ENTRIES.iter().find(|entry| entry.topic_name == Some(name)).map(|entry| entry.name);
    same.or_else(|| nearest(name, known_names()))
}

/// The variable that sets the entry called `name`.
pub fn variable_of(name: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", name.replace('.', "_").to_ascii_uppercase())
}

fn read_environment(environment: &[(String, String)]) -> Result<Vec<Found>, ConfigError> {
    let names: BTreeMap<String, &'static str> = known_names().map(|name| (variable_of(name), name)).collect();
    let mut found = Vec::new();
    for (variable, text) in environment {
        if !variable.starts_with(VARIABLE_PREFIX)
            || variable == CONFIG_FILE_VARIABLE
            || is_service_variable(variable, text)
        {
            continue;
        }
        let Some(name) = names.get(variable) else {
            let nearest = nearest(variable, names.keys().map(String::as_str)).map(str::to_owned);
            return Err(ConfigError::UnknownVariable { variable: variable.clone(), nearest });
        };
        found.push(Found {
            name: (*name).to_owned(),
            text: text.clone(),
            origin: Origin::Environment(variable.clone()),
        });
    }
    Ok(found)
}

/// Whether Kubernetes or Docker set the variable to tell where a service called `logstreams` or `logstreams-...` is;
/// refusing it would keep us from starting beside such a service.
fn is_service_variable(variable: &str, text: &str) -> bool {
    let words: Vec<&str> = variable.split('_').collect();
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let is_protocol = |word: &str| matches!(word, "TCP" | "UDP" | "SCTP");
    words.windows(2).any(|pair| pair[0] == "SERVICE" && matches!(pair[1], "HOST" | "PORT"))
        || words.windows(3).any(|three| three[0] == "PORT" && is_number(three[1]) && is_protocol(three[2]))
        || (variable.ends_with("_PORT") && text.contains("://"))
}

fn read_toml(path: &Path, text: &str) -> Result<Vec<Found>, ConfigError> {
    let line_of = |position: usize| 1 + text.bytes().take(position).filter(|&byte| byte == b'\n').count();
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: line_of(error.span().map_or(0, |span| span.start)),
        problem: syntax_problem(error.message()),
    })?;
    let mut values = Vec::new();
    flatten(table.get_ref(), "", &mut values);
    // In the order of the file, so that the first error reported is the first one written.
    values.sort_by_key(|(_, position, _)| *position);
    let mut found = Vec::with_capacity(values.len());
    for (name, position, value) in values {
        let line = line_of(position);
        let text = plain_text(value).map_err(|problem| ConfigError::Syntax {
            path: path.to_owned(),
            line,
            problem: format!("{name}: {problem}"),
        })?;
        found.push(Found { name, text, origin: Origin::File { path: path.to_owned(), line } });
    }
    Ok(found)
}

/// The values of `table` under dotted names, with the position of each key in the file.
fn flatten<'a, 'i>(table: &'a DeTable<'i>, prefix: &str, values: &mut Vec<(String, usize, &'a DeValue<'i>)>) {
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) => flatten(inner, &format!("{name}."), values),
            other => values.push((name, key.span().start, other)),
        }
    }
}

fn plain_text(value: &DeValue<'_>) -> Result<String, &'static str> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| "the number is too large"),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(flag) => Ok(flag.to_string()),
        _ => Err("expected a string, a number, true or false"),
    }
}

/// TOML's own message on one line, with the cure for the one trap that Kafka's names set.
fn syntax_problem(message: &str) -> String {
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    if message.contains("dotted key")
        || message.contains("duplicate key")
        || message.contains("cannot extend")
    {
        format!(
            "{message} (where one name continues another, put the longer in quotes: \"max.connections.per.ip\" = 100)"
        )
    } else {
        message
    }
}

#[cfg(test)]
mod tests;
