//! The configuration as people read it: the effective one as TOML, and the page of all entries as Markdown.

use std::fmt::Write;

use super::describe::{ConfigSource, DescribedConfig};
use super::entry::{Alter, ConfigType, Entry, INT_MAX, LONG_MAX, Unit};
use super::load::variable_of;
use super::table::{BROKER_ENTRIES, Config, TOPIC_ONLY_ENTRIES};

impl Config {
    /// The configuration in force as a TOML file that gives the same one again, each value with its origin.
    pub fn to_toml(&self) -> String {
        let mut page =
            String::from("# The configuration in force, each value with the place it comes from.\n");
        let described = self.described();
        let mut section = "";
        for entry in BROKER_ENTRIES {
            if entry.section != section {
                section = entry.section;
                page.push_str(&format!("\n# {section}\n"));
            }
            if let Some(config) = described.iter().find(|config| config.name == entry.name) {
                page.push_str(&self.toml_line(entry, config));
            }
        }
        page
    }

    fn toml_line(&self, entry: &Entry, config: &DescribedConfig) -> String {
        let key = toml_key(entry.name);
        let origin = self.origin(entry.name).map_or_else(|| "default".to_owned(), ToString::to_string);
        let Some(value) = &config.value else {
            let state = if entry.is_sensitive() && self.origin(entry.name).is_some() {
                "not shown"
            } else {
                "not set"
            };
            return format!("# {key} is {state}  # {origin}\n");
        };
        let value = match entry.rule.kind {
            ConfigType::Boolean
            | ConfigType::Int
            | ConfigType::Short
            | ConfigType::Long
            | ConfigType::Double => value.clone(),
            _ => toml::Value::from(value.as_str()).to_string(),
        };
        // Where giving a default means more than leaving it out, it is left out.
        let comment =
            if entry.presence_matters && config.source == ConfigSource::Default { "# " } else { "" };
        format!("{comment}{key} = {value}  # {origin}\n")
    }
}

/// The name as a TOML key: in quotes where it continues another name, which TOML would take for a table.
fn toml_key(name: &str) -> String {
    let continues = BROKER_ENTRIES
        .iter()
        .any(|other| name.strip_prefix(other.name).is_some_and(|rest| rest.starts_with('.')));
    if continues { format!("\"{name}\"") } else { name.to_owned() }
}

/// CONFIGURATION.md: every entry with its meaning, type, default, bounds and names.
pub fn configuration_page() -> String {
    let mut page = String::from(HEAD);
    let mut section = "";
    for entry in BROKER_ENTRIES.iter().chain(TOPIC_ONLY_ENTRIES) {
        if entry.section != section {
            section = entry.section;
            page.push_str(&format!("\n## {section}\n"));
        }
        page.push_str(&entry_paragraph(entry));
    }
    page
}

const HEAD: &str = "\
# Configuration

<!-- Written by `logstreams --print-config=markdown` from src/config/table.rs; a test notices when it is stale. -->

A value is looked for in four places, and the later wins: the default, the TOML file (`--config FILE` or the
environment variable `LOGSTREAMS_CONFIG`), the environment, the command line (`-o key=value` or a flag of its own).
The environment variable of a key is its name in capitals with `_` for `.`, after `LOGSTREAMS_`: `log.segment.bytes` is
`LOGSTREAMS_LOG_SEGMENT_BYTES`. An unknown key is an error, so that a misspelt one is noticed. `logstreams --check-config` says
whether everything is in order, `logstreams --print-config` shows what is in force and why.

In the file a key may be dotted, quoted or nested in tables. Where one key continues another, as
`max.connections.per.ip` continues `max.connections`, put the longer one in quotes. Sizes may end in `KiB`, `MiB` or `GiB`,
as text: `log.segment.bytes = \"64MiB\"`.

Names, meanings and defaults are Kafka's wherever Kafka has them. *Topic key* is the name under which a single topic may
have its own value; the broker's value is the default for all topics. *While running* means that AlterConfigs
(`kafka-configs --alter`) changes it at once; the rest holds until the next start. *No effect here* marks what Kafka's
tools may set and read, but what has no meaning on one node or in this version.
";

fn entry_paragraph(entry: &Entry) -> String {
    let mut page = format!("\n### `{}`\n\n{}\n\n", entry.name, entry.doc.trim());
    let mut facts = Vec::new();
    let unit = match entry.rule.unit {
        Unit::Plain => String::new(),
        unit => format!(" ({})", unit.word()),
    };
    facts.push(format!("{}{unit}", entry.rule.kind.word()));
    facts.push(match entry.default {
        "" => "not set by default".to_owned(),
        default => format!("default `{default}`"),
    });
    facts.extend(allowed(entry));
    facts.push(
        match entry.alter {
            Alter::Running => "while running",
            Alter::Restart => "at start",
        }
        .to_owned(),
    );
    if let Some(topic_name) = entry.topic_name {
        facts.push(format!("topic key `{topic_name}`"));
    }
    for alias in entry.aliases {
        facts.push(format!("also `{}`", alias.name));
    }
    if entry.inert {
        facts.push("no effect here".to_owned());
    }
    // Writing to a String cannot fail.
    let _ = write!(page, "*{}*", facts.join("; "));
    if entry.section != "Topics only" {
        let _ = write!(page, " — `{}`", variable_of(entry.name));
    }
    page.push('\n');
    page
}

/// What values may be, in words; nothing where the type says it all.
fn allowed(entry: &Entry) -> Option<String> {
    if entry.rule.kind == ConfigType::Boolean {
        return None;
    }
    if !entry.choices.is_empty() {
        let words: Vec<String> = entry.choices.iter().map(|word| format!("`{word}`")).collect();
        return Some(format!("one of {}", words.join(", ")));
    }
    let (min, max) = entry.rule.bounds?;
    Some(if max == INT_MAX || max == LONG_MAX { format!("{min} or more") } else { format!("{min} to {max}") })
}

#[cfg(test)]
mod tests {
    use super::configuration_page;
    use crate::config::{BROKER_ENTRIES, Config, Sources};

    #[test]
    fn what_is_printed_gives_the_same_configuration_again() -> Result<(), Box<dyn std::error::Error>> {
        let config = Config::from_options(&[
            ("log.dir", "/data/with \"quotes\" and \\"),
            ("log.retention.hours", "3"),
            ("max.connections", "7"),
            ("max.connections.per.ip", "5"),
            ("redis.addr", "off"),
            ("tail.cache.bytes", "1GiB"),
        ])?;
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), config.to_toml())?;
        let again = Config::load(&Sources { file: Some(file.path().to_owned()), ..Sources::default() })?;
        for entry in BROKER_ENTRIES {
            let value = |config: &Config| {
                config
                    .described()
                    .into_iter()
                    .find(|config| config.name == entry.name)
                    .map(|config| config.value)
            };
            assert_eq!(value(&config), value(&again), "{}", entry.name);
        }
        assert!(again.is_given("redis.addr") && !again.is_given("admin.addr"));
        Ok(())
    }

    #[test]
    fn every_entry_has_a_sentence_on_the_page() {
        let page = configuration_page();
        for entry in BROKER_ENTRIES {
            assert!(page.contains(&format!("### `{}`\n", entry.name)), "{}", entry.name);
            assert!(entry.doc.ends_with('.'), "{}", entry.name);
        }
    }
}
