//! Configs of topics and of the broker: describe, alter.

use super::{Broker, BrokerError};

/// Whose configs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigResource {
    /// A topic's, by name.
    Topic(String),
    /// The broker's (the one node, or the cluster default when the name is empty).
    Broker(String),
}

/// One change to one config.
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
pub type DescribedResource = Result<Vec<crate::config::DescribedConfig>, BrokerError>;

impl Broker {
    /// Every config of each resource, with value, source and default; in order.
    pub fn describe_configs(&self, resources: &[ConfigResource]) -> Vec<DescribedResource> {
        let _ = resources;
        todo!()
    }

    /// Alters; one answer for each resource, in order. With `validate_only` everything is checked and nothing changed.
    pub async fn alter_configs(
        &self,
        alterations: Vec<ConfigAlteration>,
        validate_only: bool,
    ) -> Vec<Result<(), BrokerError>> {
        let _ = (alterations, validate_only);
        todo!()
    }
}
