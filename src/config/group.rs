//! What one group may have otherwise than the broker says: the configs of the resource GROUP (KIP-848, KIP-932).

use std::collections::BTreeMap;

use super::describe::{ConfigSource, ConfigSynonym, DescribedConfig, entry_described};
use super::entry::{ConfigType, Entry};
use super::error::ConfigError;
use super::table::{BROKER_ENTRIES, Config};
use super::value::Problem;

/// Where a share group begins that has read nothing yet; no broker-level entry stands behind it.
pub const SHARE_AUTO_OFFSET_RESET: &str = "share.auto.offset.reset";
const SHARE_AUTO_OFFSET_RESET_DEFAULT: &str = "latest";

/// A group's name of a setting and the broker's.
const GROUP_NAMES: &[(&str, &str)] = &[
    ("consumer.session.timeout.ms", "group.consumer.session.timeout.ms"),
    ("consumer.heartbeat.interval.ms", "group.consumer.heartbeat.interval.ms"),
    ("consumer.assignment.interval.ms", "group.consumer.assignment.interval.ms"),
    ("share.session.timeout.ms", "group.share.session.timeout.ms"),
    ("share.heartbeat.interval.ms", "group.share.heartbeat.interval.ms"),
    ("share.assignment.interval.ms", "group.share.assignment.interval.ms"),
    ("share.record.lock.duration.ms", "group.share.record.lock.duration.ms"),
    ("share.delivery.count.limit", "group.share.delivery.count.limit"),
    ("share.partition.max.record.locks", "group.share.partition.max.record.locks"),
];

/// A group's entries as they are with `overrides` over the broker's `config`.
pub fn describe_group(config: &Config, overrides: &BTreeMap<String, String>) -> Vec<DescribedConfig> {
    let own = |name: &'static str| {
        let value = overrides.get(name).cloned();
        value.map(|value| ConfigSynonym { name, value: Some(value), source: ConfigSource::DynamicGroup })
    };
    let described = GROUP_NAMES.iter().filter_map(|(name, broker_name)| {
        let entry = broker_entry(broker_name)?;
        let synonyms = own(name).into_iter().chain(config.synonyms(entry)).collect();
        Some(entry_described(entry, name, false, synonyms))
    });
    let default = ConfigSynonym {
        name: SHARE_AUTO_OFFSET_RESET,
        value: Some(SHARE_AUTO_OFFSET_RESET_DEFAULT.to_owned()),
        source: ConfigSource::Default,
    };
    let synonyms: Vec<ConfigSynonym> = own(SHARE_AUTO_OFFSET_RESET).into_iter().chain([default]).collect();
    let (value, source) = (synonyms[0].value.clone(), synonyms[0].source);
    let reset = DescribedConfig {
        name: SHARE_AUTO_OFFSET_RESET,
        value,
        source,
        read_only: false,
        sensitive: false,
        kind: ConfigType::String,
        documentation: "Where a share group begins that has read nothing yet: earliest, latest, or by_duration:PnDTnHnMn.nS.",
        synonyms,
    };
    described.chain([reset]).collect()
}

/// Checks one override; that of `share.auto.offset.reset` is checked by who can read it.
///
/// # Errors
/// `InvalidGroupValue` for an unknown key or an illegal value.
pub fn validate_group_override(name: &str, value: &str) -> Result<(), ConfigError> {
    if name == SHARE_AUTO_OFFSET_RESET {
        return Ok(());
    }
    let invalid =
        |problem| ConfigError::InvalidGroupValue { name: name.to_owned(), value: value.to_owned(), problem };
    let known = GROUP_NAMES.iter().find(|(known, _)| *known == name).and_then(|(_, name)| broker_entry(name));
    let entry = known.ok_or_else(|| invalid(Problem::new("groups have no such config")))?;
    (entry.normalize)(&entry.rule, value).map(drop).map_err(invalid)
}

fn broker_entry(name: &str) -> Option<&'static Entry> {
    BROKER_ENTRIES.iter().find(|entry| entry.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{GROUP_NAMES, broker_entry, describe_group, validate_group_override};
    use crate::config::Config;

    #[test]
    fn every_name_of_a_group_has_an_entry_of_the_broker_behind_it() {
        for (name, broker_name) in GROUP_NAMES {
            assert!(broker_entry(broker_name).is_some(), "{name}");
        }
    }

    #[test]
    fn a_group_shows_its_own_value_and_the_brokers_behind_it() {
        let own = BTreeMap::from([("share.session.timeout.ms".to_owned(), "50000".to_owned())]);
        let described = describe_group(&Config::default(), &own);
        let config = described.iter().find(|config| config.name == "share.session.timeout.ms").unwrap();
        let values: Vec<_> = config.synonyms.iter().filter_map(|synonym| synonym.value.as_deref()).collect();
        assert_eq!((config.value.as_deref(), values), (Some("50000"), vec!["50000", "45000"]));
        assert!(validate_group_override("share.session.timeout.ms", "soon").is_err());
        assert!(validate_group_override("share.colour", "blue").is_err());
    }
}
