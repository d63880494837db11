//! One topic's configuration: its overrides laid over the broker's values.

use std::collections::BTreeMap;

use super::entry::Entry;
use super::error::ConfigError;
use super::nearest::nearest;
use super::table::{BROKER_ENTRIES, Config, TOPIC_ONLY_ENTRIES, TopicConfig};
use super::value::{Problem, WritePath};

impl TopicConfig {
    /// The configuration of a topic that users made.
    ///
    /// # Errors
    /// The first override that is unknown or illegal.
    pub fn resolve(
        config: &Config,
        overrides: &BTreeMap<String, String>,
    ) -> Result<TopicConfig, ConfigError> {
        for (name, value) in overrides {
            validate_topic_override(name, value)?;
        }
        TopicConfig::resolve_internal(config, overrides)
    }

    /// The configuration of an internal topic, which may be compacted.
    ///
    /// # Errors
    /// As [`TopicConfig::resolve`].
    pub fn resolve_internal(
        config: &Config,
        overrides: &BTreeMap<String, String>,
    ) -> Result<TopicConfig, ConfigError> {
        let mut topic = TopicConfig::of_broker(config);
        for (name, value) in overrides {
            let entry = find_topic(name)?;
            topic.set(entry, value.trim()).map_err(|problem| invalid(name, value, problem))?;
        }
        Ok(topic)
    }

    /// Whether an append is acknowledged only once it is synced.
    pub fn acknowledges_after_sync(&self) -> bool {
        self.flush_messages == 1
    }

    /// The write path in force: never `Auto`.
    pub fn chosen_write_path(&self) -> WritePath {
        match self.write_path {
            WritePath::Auto if self.acknowledges_after_sync() => WritePath::Dma,
            WritePath::Auto => WritePath::PageCache,
            chosen => chosen,
        }
    }
}

/// A topic without overrides of a broker that is given nothing.
impl Default for TopicConfig {
    fn default() -> Self {
        TopicConfig::of_broker(&Config::default())
    }
}

/// Checks one override of a topic that users made, with Kafka's messages.
///
/// # Errors
/// `UnknownTopicKey` or `InvalidTopicValue`.
pub fn validate_topic_override(name: &str, value: &str) -> Result<(), ConfigError> {
    let entry = find_topic(name)?;
    (entry.normalize)(&entry.rule, value)
        .and_then(|plain| refuse_compaction(entry, &plain.unwrap_or_default()))
        .map_err(|problem| invalid(name, value, problem))
}

/// Every entry that a topic may override.
pub(super) fn topic_entries() -> impl Iterator<Item = &'static Entry> {
    BROKER_ENTRIES.iter().chain(TOPIC_ONLY_ENTRIES).filter(|entry| entry.topic_name.is_some())
}

/// The cleaner does not compact user topics yet; saying so beats silently keeping everything.
pub(super) fn refuse_compaction(entry: &Entry, plain: &str) -> Result<(), Problem> {
    if entry.topic_name == Some("cleanup.policy") && plain.contains("compact") {
        return Err(Problem::new("compaction comes in a later version; use delete"));
    }
    Ok(())
}

fn find_topic(name: &str) -> Result<&'static Entry, ConfigError> {
    topic_entries().find(|entry| entry.topic_name == Some(name)).ok_or_else(|| {
        // A broker's name of something is nearest to the topic's name of the same thing.
        let same = topic_entries().find(|entry| entry.name == name).and_then(|entry| entry.topic_name);
        let names = topic_entries().filter_map(|entry| entry.topic_name);
        let nearest = same.or_else(|| nearest(name, names)).map(str::to_owned);
        ConfigError::UnknownTopicKey { name: name.to_owned(), nearest }
    })
}

fn invalid(name: &str, value: &str, problem: Problem) -> ConfigError {
    ConfigError::InvalidTopicValue { name: name.to_owned(), value: value.to_owned(), problem }
}
