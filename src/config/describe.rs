//! What DescribeConfigs tells: each entry's value, where it comes from, and what stands behind it.

use std::collections::BTreeMap;

use super::entry::{Alias, Alter, ConfigType, Entry};
use super::origin::Origin;
use super::table::{BROKER_ENTRIES, Config, TopicConfig};
use super::topic::topic_entries;

/// Where a value comes from, in Kafka's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigSource {
    /// The topic's own override.
    DynamicTopic,
    /// The group's own override.
    DynamicGroup,
    /// A broker value altered while running.
    DynamicBroker,
    /// A broker value given at start.
    StaticBroker,
    /// Nobody set it.
    Default,
}

/// One entry as DescribeConfigs tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedConfig {
    /// The name at the level asked for.
    pub name: &'static str,
    /// The value in plain form; `None` where nothing is set and for secrets.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Whether it holds until the next start.
    pub read_only: bool,
    /// Whether the value is a secret.
    pub sensitive: bool,
    /// The type.
    pub kind: ConfigType,
    /// What it is for.
    pub documentation: &'static str,
    /// The value in force and every one behind it, in order.
    pub synonyms: Vec<ConfigSynonym>,
}

/// One of the values that an entry has at its levels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSynonym {
    /// The name at that level.
    pub name: &'static str,
    /// The value.
    pub value: Option<String>,
    /// The level.
    pub source: ConfigSource,
}

impl Config {
    /// The broker's entries, aliases included, in the order of CONFIGURATION.md.
    pub fn described(&self) -> Vec<DescribedConfig> {
        let mut described = Vec::with_capacity(BROKER_ENTRIES.len() + 8);
        for entry in BROKER_ENTRIES {
            let read_only = entry.alter == Alter::Restart;
            described.push(entry_described(entry, entry.name, read_only, self.synonyms(entry)));
            for alias in entry.aliases {
                described.push(self.alias_described(entry, alias));
            }
        }
        described
    }

    /// Whether the entry called `name` was given before the start, be it with its default's value.
    pub fn is_given(&self, name: &str) -> bool {
        self.origins.given.contains_key(name)
    }

    /// Where the value of the entry called `name` was given; `None` for a default.
    pub fn origin(&self, name: &str) -> Option<&Origin> {
        self.origins.get(name).map(|given| &given.origin)
    }

    /// The broker's values of one entry: altered, given, default.
    pub(super) fn synonyms(&self, entry: &Entry) -> Vec<ConfigSynonym> {
        let levels = [
            (self.origins.dynamic.get(entry.name), ConfigSource::DynamicBroker),
            (self.origins.given.get(entry.name), ConfigSource::StaticBroker),
        ];
        let mut synonyms: Vec<ConfigSynonym> = levels
            .into_iter()
            .filter_map(|(given, source)| {
                let given = given?;
                let value = Some(given.text.clone()).filter(|text| !text.is_empty());
                // An alias is shown under the entry's own name, since the value is in the entry's unit.
                Some(ConfigSynonym { name: entry.name, value, source })
            })
            .collect();
        synonyms.push(ConfigSynonym {
            name: entry.name,
            value: entry.default_value(),
            source: ConfigSource::Default,
        });
        synonyms
    }

    /// An alias shows the entry's value in its own coarser unit, or none when that would not be exact.
    fn alias_described(&self, entry: &'static Entry, alias: &'static Alias) -> DescribedConfig {
        let in_unit = |text: Option<String>| -> Option<String> {
            let value = text?.parse::<i64>().ok()?;
            let unit = alias.unit.milliseconds();
            match value {
                ..0 => Some(value.to_string()),
                _ if value % unit == 0 => Some((value / unit).to_string()),
                _ => None,
            }
        };
        let synonyms: Vec<ConfigSynonym> = self
            .synonyms(entry)
            .into_iter()
            .map(|synonym| ConfigSynonym { name: alias.name, value: in_unit(synonym.value), ..synonym })
            .collect();
        DescribedConfig { kind: ConfigType::Int, ..entry_described(entry, alias.name, true, synonyms) }
    }
}

impl TopicConfig {
    /// A topic's entries as they are with `overrides` over the broker's `config`, in the order of CONFIGURATION.md.
    pub fn described(config: &Config, overrides: &BTreeMap<String, String>) -> Vec<DescribedConfig> {
        topic_entries()
            .filter_map(|entry| {
                let name = entry.topic_name?;
                let mut synonyms = Vec::new();
                if let Some(text) = overrides.get(name) {
                    // What is stored was checked when it was set; what an older version stored is shown as it is.
                    let plain = (entry.normalize)(&entry.rule, text).unwrap_or_else(|_| Some(text.clone()));
                    synonyms.push(ConfigSynonym { name, value: plain, source: ConfigSource::DynamicTopic });
                }
                synonyms.extend(config.synonyms(entry));
                Some(entry_described(entry, name, false, synonyms))
            })
            .collect()
    }
}

/// The first of `synonyms` is in force; the last is always the default.
pub(super) fn entry_described(
    entry: &'static Entry,
    name: &'static str,
    read_only: bool,
    mut synonyms: Vec<ConfigSynonym>,
) -> DescribedConfig {
    if entry.is_sensitive() {
        synonyms.iter_mut().for_each(|synonym| synonym.value = None);
    }
    let (value, source) =
        synonyms.first().map_or((None, ConfigSource::Default), |first| (first.value.clone(), first.source));
    DescribedConfig {
        name,
        value,
        source,
        read_only,
        sensitive: entry.is_sensitive(),
        kind: entry.rule.kind,
        documentation: entry.doc.trim(),
        synonyms,
    }
}
