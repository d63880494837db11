//! What one group may have otherwise than the broker says: the configs of the resource GROUP (KIP-848, KIP-932).
//!
//! Most stand for a config of the broker and are bound by two more of it (KIP-1240): what is out of bounds is refused,
//! and what has come out of bounds since, as the broker's configs changed, counts as the nearest value within.

use std::collections::BTreeMap;

use super::describe::{ConfigSource, ConfigSynonym, DescribedConfig, entry_described};
use super::entry::{ConfigType, Entry};
use super::error::ConfigError;
use super::table::{BROKER_ENTRIES, Config};
use super::value::Problem;

/// Where a share group begins that has read nothing yet.
pub const SHARE_AUTO_OFFSET_RESET: &str = "share.auto.offset.reset";
/// Whether a share group gets records of transactions that are open or aborted.
pub const SHARE_ISOLATION_LEVEL: &str = "share.isolation.level";
/// Whether members of a share group may make locks last longer (KIP-1222).
pub const SHARE_RENEW_ACKNOWLEDGE_ENABLE: &str = "share.renew.acknowledge.enable";

/// A config of groups that stands for one of the broker, within two others.
struct BoundEntry {
    name: &'static str,
    of_broker: &'static str,
    min: &'static str,
    max: &'static str,
}

macro_rules! bound_entries {
    ($($protocol:literal $setting:literal,)*) => {
        &[$(BoundEntry {
            name: concat!($protocol, ".", $setting),
            of_broker: concat!("group.", $protocol, ".", $setting),
            min: concat!("group.", $protocol, ".min.", $setting),
            max: concat!("group.", $protocol, ".max.", $setting),
        },)*]
    };
}

const BOUND_ENTRIES: &[BoundEntry] = bound_entries! {
    "consumer" "session.timeout.ms",
    "consumer" "heartbeat.interval.ms",
    "consumer" "assignment.interval.ms",
    "share" "session.timeout.ms",
    "share" "heartbeat.interval.ms",
    "share" "assignment.interval.ms",
    "share" "record.lock.duration.ms",
    "share" "delivery.count.limit",
    "share" "partition.max.record.locks",
};

/// A config of groups alone.
struct OwnEntry {
    name: &'static str,
    kind: ConfigType,
    default: &'static str,
    /// The words allowed; none where somebody else reads the value.
    choices: &'static [&'static str],
    documentation: &'static str,
}

const OWN_ENTRIES: &[OwnEntry] = &[
    OwnEntry {
        name: SHARE_AUTO_OFFSET_RESET,
        kind: ConfigType::String,
        default: "latest",
        choices: &[],
        documentation: "Where a share group begins that has read nothing yet: earliest, latest, or by_duration:PnDTnHnMn.nS.",
    },
    OwnEntry {
        name: SHARE_ISOLATION_LEVEL,
        kind: ConfigType::String,
        default: "read_uncommitted",
        choices: &["read_committed", "read_uncommitted"],
        documentation: "Whether a share group gets records of transactions that are open or aborted.",
    },
    OwnEntry {
        name: SHARE_RENEW_ACKNOWLEDGE_ENABLE,
        kind: ConfigType::Boolean,
        default: "true",
        choices: &["true", "false"],
        documentation: "Whether members of a share group may make the locks of records last longer.",
    },
];

/// A session must be longer than the time between two heartbeats.
const SESSIONS_AND_HEARTBEATS: [(&str, &str); 2] = [
    ("consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"),
    ("share.session.timeout.ms", "share.heartbeat.interval.ms"),
];

/// A group's entries as they are with `overrides` over the broker's `config`.
pub fn describe_group(config: &Config, overrides: &BTreeMap<String, String>) -> Vec<DescribedConfig> {
    let own = |name: &'static str| {
        let value = overrides.get(name).cloned();
        value.map(|value| ConfigSynonym { name, value: Some(value), source: ConfigSource::DynamicGroup })
    };
    let bound = BOUND_ENTRIES.iter().filter_map(|BoundEntry { name, of_broker, .. }| {
        let entry = broker_entry(of_broker)?;
        let synonyms = own(name).into_iter().chain(config.synonyms(entry)).collect();
        Some(entry_described(entry, name, false, synonyms))
    });
    let alone = OWN_ENTRIES.iter().map(|entry| {
        let default = ConfigSynonym {
            name: entry.name,
            value: Some(entry.default.to_owned()),
            source: ConfigSource::Default,
        };
        let synonyms: Vec<ConfigSynonym> = own(entry.name).into_iter().chain([default]).collect();
        DescribedConfig {
            name: entry.name,
            value: synonyms[0].value.clone(),
            source: synonyms[0].source,
            read_only: false,
            sensitive: false,
            kind: entry.kind,
            documentation: entry.documentation,
            synonyms,
        }
    });
    bound.chain(alone).collect()
}

/// Checks one override for itself; that of `share.auto.offset.reset` is checked by who can read it.
///
/// # Errors
/// `InvalidGroupValue` for an unknown key or an illegal value.
pub fn validate_group_override(name: &str, value: &str) -> Result<(), ConfigError> {
    let invalid =
        |problem| ConfigError::InvalidGroupValue { name: name.to_owned(), value: value.to_owned(), problem };
    if let Some(own) = OWN_ENTRIES.iter().find(|own| own.name == name) {
        return match own.choices {
            [] => Ok(()),
            choices if choices.contains(&value) => Ok(()),
            choices => Err(invalid(Problem::new(format!("must be one of {}", choices.join(", "))))),
        };
    }
    let known = bound_entry(name).and_then(|bound| broker_entry(bound.of_broker));
    let entry = known.ok_or_else(|| invalid(Problem::new("groups have no such config")))?;
    (entry.normalize)(&entry.rule, value).map(drop).map_err(invalid)
}

/// Checks that all overrides of a group are within the broker's bounds, and go together.
///
/// # Errors
/// `Conflict` that names both configs.
pub fn validate_group_bounds(
    config: &Config,
    overrides: &BTreeMap<String, String>,
) -> Result<(), ConfigError> {
    let own = |name: &str| overrides.get(name).and_then(|value| value.trim().parse::<i64>().ok());
    for bound in BOUND_ENTRIES {
        let Some(value) = own(bound.name) else { continue };
        if broker_number(config, bound.min).is_some_and(|min| value < min) {
            return Err(conflict(bound.name, "greater than or equal to", bound.min));
        }
        if broker_number(config, bound.max).is_some_and(|max| value > max) {
            return Err(conflict(bound.name, "less than or equal to", bound.max));
        }
    }
    for (session, heartbeat) in SESSIONS_AND_HEARTBEATS {
        let in_force = |name| own(name).or_else(|| broker_number(config, bound_entry(name)?.of_broker));
        let is_own = overrides.contains_key(session) || overrides.contains_key(heartbeat);
        if is_own && in_force(session) <= in_force(heartbeat) {
            return Err(conflict(session, "greater than", heartbeat));
        }
    }
    Ok(())
}

/// The number that a group has instead of the broker's, within the broker's bounds.
pub fn group_number(config: &Config, name: &str, value: &str) -> Option<i64> {
    let value = value.trim().parse::<i64>().ok()?;
    let bound = bound_entry(name)?;
    let min = broker_number(config, bound.min).unwrap_or(i64::MIN);
    let max = broker_number(config, bound.max).unwrap_or(i64::MAX);
    Some(value.min(max).max(min))
}

fn conflict(name: &str, relation: &str, other: &str) -> ConfigError {
    ConfigError::Conflict(format!("{name} must be {relation} {other}"))
}

fn bound_entry(name: &str) -> Option<&'static BoundEntry> {
    BOUND_ENTRIES.iter().find(|bound| bound.name == name)
}

fn broker_entry(name: &str) -> Option<&'static Entry> {
    BROKER_ENTRIES.iter().find(|entry| entry.name == name)
}

fn broker_number(config: &Config, name: &str) -> Option<i64> {
    config.synonyms(broker_entry(name)?).into_iter().next()?.value?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn overrides(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_name_of_a_group_has_entries_of_the_broker_behind_it() {
        for BoundEntry { name, of_broker, min, max } in BOUND_ENTRIES {
            for of_broker in [of_broker, min, max] {
                assert!(broker_entry(of_broker).is_some(), "{of_broker} for {name}");
            }
        }
    }

    #[test]
    fn a_group_shows_its_own_value_and_the_brokers_behind_it() {
        let own =
            overrides(&[("share.session.timeout.ms", "50000"), (SHARE_ISOLATION_LEVEL, "read_committed")]);
        let described = describe_group(&Config::default(), &own);
        let values = |name: &str| {
            let config = described.iter().find(|config| config.name == name).unwrap();
            assert_eq!(config.value, config.synonyms[0].value);
            config.synonyms.iter().filter_map(|synonym| synonym.value.as_deref()).collect::<Vec<_>>()
        };
        assert_eq!(values("share.session.timeout.ms"), ["50000", "45000"]);
        assert_eq!(values(SHARE_ISOLATION_LEVEL), ["read_committed", "read_uncommitted"]);
        for (name, value) in [
            ("share.session.timeout.ms", "soon"),
            ("share.colour", "blue"),
            (SHARE_ISOLATION_LEVEL, "serializable"),
            (SHARE_RENEW_ACKNOWLEDGE_ENABLE, "perhaps"),
        ] {
            assert!(validate_group_override(name, value).is_err(), "{name}={value}");
        }
    }

    #[test]
    fn what_is_out_of_the_brokers_bounds_is_refused_and_what_has_come_out_of_them_is_taken_as_the_nearest() {
        let config = Config::default();
        let refused = |pairs| validate_group_bounds(&config, &overrides(pairs)).unwrap_err().to_string();
        assert_eq!(
            refused(&[("consumer.session.timeout.ms", "1")]),
            "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms"
        );
        assert_eq!(
            refused(&[("share.delivery.count.limit", "11")]),
            "share.delivery.count.limit must be less than or equal to group.share.max.delivery.count.limit"
        );
        let in_bounds = [("share.session.timeout.ms", "45000"), ("share.heartbeat.interval.ms", "15000")];
        validate_group_bounds(&config, &overrides(&in_bounds)).unwrap();
        assert_eq!(group_number(&config, "consumer.session.timeout.ms", "1"), Some(45_000));
        assert_eq!(group_number(&config, "consumer.session.timeout.ms", "50000"), Some(50_000));
        assert_eq!(group_number(&config, "consumer.session.timeout.ms", "99999"), Some(60_000));
    }
}
