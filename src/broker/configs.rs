//! Configs of topics and of the broker: describe, alter.

use std::collections::BTreeMap;

use super::{Broker, BrokerError, share};
use crate::config::{self, Config, ConfigType, DescribedConfig, TopicConfig};
use crate::metadata::records::ConfigOwner;
use crate::model::TopicName;
use crate::shard::{ControllerReply, ControllerRequest, TopicChange};

/// Whose configs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigResource {
    /// A topic's, by name.
    Topic(String),
    /// The broker's (the one node, or the cluster default when the name is empty).
    Broker(String),
    /// A group's, by name, whether or not there is such a group.
    Group(String),
}

/// What to do with one config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlterOp {
    /// Set to the value.
    Set,
    /// Back to the default.
    Delete,
    /// Add to a list.
    Append,
    /// Take from a list.
    Subtract,
}

/// Changes to one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigAlteration {
    /// Whose.
    pub resource: ConfigResource,
    /// Key, what to do, value.
    pub changes: Vec<(String, AlterOp, Option<String>)>,
    /// AlterConfigs' old meaning: what is not named goes back to its default.
    pub replace_all: bool,
}

/// All configs of one resource, or why not.
pub type DescribedResource = Result<Vec<DescribedConfig>, BrokerError>;

impl Broker {
    /// Every config of each resource, with value, source and default; in order.
    pub fn describe_configs(&self, resources: &[ConfigResource]) -> Vec<DescribedResource> {
        resources.iter().map(|resource| self.describe(resource)).collect()
    }

    fn describe(&self, resource: &ConfigResource) -> DescribedResource {
        match resource {
            ConfigResource::Topic(name) => {
                TopicName::new(name).map_err(|illegal| BrokerError::InvalidTopic(illegal.to_string()))?;
                let image = self.image();
                let topic = image.topic(name).ok_or(BrokerError::UnknownTopicOrPartition)?;
                Ok(TopicConfig::described(&self.config(), &topic.configs))
            }
            ConfigResource::Broker(name) => {
                self.check_broker_name(name)?;
                Ok(self.config().described())
            }
            ConfigResource::Group(name) if name.is_empty() => {
                Err(BrokerError::InvalidRequest("Group name must not be empty".to_owned()))
            }
            ConfigResource::Group(name) => {
                let image = self.image();
                let nothing = BTreeMap::new();
                let own = image.group_configs.get(name).unwrap_or(&nothing);
                Ok(config::describe_group(&self.config(), own))
            }
        }
    }

    fn check_broker_name(&self, name: &str) -> Result<(), BrokerError> {
        let known = (0..self.shards()).any(|shard| self.node_id(shard).to_string() == name);
        if name.is_empty() || known {
            return Ok(());
        }
        Err(BrokerError::InvalidRequest(format!(
            "Unexpected broker id, expected {} or empty string, but received {name}",
            self.config().node_id
        )))
    }

    /// Alters; one answer for each resource, in order. With `validate_only` everything is checked and nothing changed.
    pub async fn alter_configs(
        &self,
        alterations: Vec<ConfigAlteration>,
        validate_only: bool,
    ) -> Vec<Result<(), BrokerError>> {
        let mut answers: Vec<Result<(), BrokerError>> = Vec::with_capacity(alterations.len());
        let mut changes = Vec::new();
        let mut changed = Vec::new();
        for (index, alteration) in alterations.iter().enumerate() {
            match self.plan(alteration) {
                Ok(change) => {
                    changes.push(change);
                    changed.push(index);
                    answers.push(Ok(()));
                }
                Err(error) => answers.push(Err(error)),
            }
        }
        if validate_only || changes.is_empty() {
            return answers;
        }
        let reply = self.control(ControllerRequest::SetConfigs { changes }).await;
        let mut replies = match reply {
            Some(ControllerReply::Changed(replies)) => replies.into_iter(),
            _ => Vec::new().into_iter(),
        };
        for index in changed {
            answers[index] = replies.next().map_or(Err(BrokerError::ShardUnavailable), |reply| Ok(reply?));
        }
        answers
    }

    /// Checks an alteration and turns it into keys and new values.
    fn plan(&self, alteration: &ConfigAlteration) -> Result<TopicChange, BrokerError> {
        let image = self.image();
        let nothing = BTreeMap::new();
        let before = match &alteration.resource {
            ConfigResource::Topic(name) => {
                &image.topic(name).ok_or(BrokerError::UnknownTopicOrPartition)?.configs
            }
            ConfigResource::Broker(name) => {
                self.check_broker_name(name)?;
                &image.broker_configs
            }
            ConfigResource::Group(name) => image.group_configs.get(name).unwrap_or(&nothing),
        };
        let described = self.describe(&alteration.resource)?;
        let mut after = if alteration.replace_all { BTreeMap::new() } else { before.clone() };
        for (key, op, value) in &alteration.changes {
            let known = described
                .iter()
                .find(|config| config.name == key)
                .ok_or_else(|| BrokerError::InvalidConfig(unknown_key(&alteration.resource, key)))?;
            alter(&mut after, known, op, value.as_deref())?;
        }
        let changed = after.iter().filter(|(key, value)| before.get(*key) != Some(value));
        let owner = match &alteration.resource {
            ConfigResource::Topic(name) => {
                for (key, value) in changed {
                    config::validate_topic_override(key, value).map_err(invalid)?;
                }
                TopicConfig::resolve_internal(&self.config(), &after).map_err(invalid)?;
                ConfigOwner::Topic(name.clone())
            }
            ConfigResource::Broker(_) => {
                Config::with_dynamic(&self.config(), &after).map_err(invalid)?;
                ConfigOwner::Broker(String::new())
            }
            ConfigResource::Group(name) => {
                for (key, value) in changed {
                    config::validate_group_override(key, value).map_err(invalid)?;
                    if key == config::SHARE_AUTO_OFFSET_RESET && share::read_reset(value).is_none() {
                        return Err(BrokerError::InvalidConfig(format!(
                            "Invalid value {value} for configuration {key}: must be earliest, latest, or \
                             by_duration:<ISO 8601 duration>."
                        )));
                    }
                }
                config::validate_group_bounds(&self.config(), &after).map_err(invalid)?;
                ConfigOwner::Group(name.clone())
            }
        };
        Ok(TopicChange { owner, configs: difference(before, &after) })
    }
}

fn invalid(error: config::ConfigError) -> BrokerError {
    match error {
        config::ConfigError::NotDynamic { .. } => BrokerError::InvalidRequest(error.to_string()),
        error => BrokerError::InvalidConfig(error.to_string()),
    }
}

fn unknown_key(resource: &ConfigResource, key: &str) -> String {
    let checked = match resource {
        ConfigResource::Topic(_) => config::validate_topic_override(key, ""),
        ConfigResource::Group(_) => config::validate_group_override(key, ""),
        ConfigResource::Broker(_) => return format!("Unknown broker config name: {key}"),
    };
    checked.err().map_or_else(String::new, |error| error.to_string())
}

fn alter(
    configs: &mut BTreeMap<String, String>,
    known: &DescribedConfig,
    op: &AlterOp,
    value: Option<&str>,
) -> Result<(), BrokerError> {
    let key = known.name;
    let needed =
        || value.ok_or_else(|| BrokerError::InvalidRequest(format!("Null value not supported for: {key}")));
    match op {
        AlterOp::Delete => {
            configs.remove(key);
        }
        AlterOp::Set => {
            configs.insert(key.to_owned(), needed()?.to_owned());
        }
        AlterOp::Append | AlterOp::Subtract => {
            if known.kind != ConfigType::List {
                return Err(BrokerError::InvalidConfig(format!(
                    "Config value append is not allowed for config key: {key}"
                )));
            }
            let current = configs.get(key).cloned().or_else(|| known.value.clone()).unwrap_or_default();
            let mut entries: Vec<&str> =
                current.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
            for entry in needed()?.split(',').map(str::trim) {
                entries.retain(|present| *present != entry);
                if *op == AlterOp::Append {
                    entries.push(entry);
                }
            }
            configs.insert(key.to_owned(), entries.join(","));
        }
    }
    Ok(())
}

/// The keys whose values differ, with the new value or `None` where there is none any more.
fn difference(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Vec<(String, Option<String>)> {
    let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), None));
    let set = after
        .iter()
        .filter(|(key, value)| before.get(*key) != Some(value))
        .map(|(key, value)| (key.clone(), Some(value.clone())));
    gone.chain(set).collect()
}
