//! Layers, aliases, the file, the environment, and what is refused.

use std::collections::BTreeMap;
use std::io::Write;

use super::*;
use crate::config::{CleanupPolicy, ConfigSource, Limit, OptionalAddr, ShardCount, TopicConfig};

fn with_file(text: &str, environment: &[(&str, &str)], options: &[(&str, &str)]) -> Result<Config, String> {
    let mut file = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    file.write_all(text.as_bytes()).map_err(|error| error.to_string())?;
    let sources = Sources {
        file: Some(file.path().to_owned()),
        environment: environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        command_line: options
            .iter()
            .map(|(name, value)| Flag {
                name: (*name).into(),
                value: (*value).into(),
                shown: format!("-o {name}={value}"),
            })
            .collect(),
    };
    let path = file.path().display().to_string();
    Config::load(&sources).map_err(|error| error.to_string().replace(&path, "FILE"))
}

fn refusal(text: &str, environment: &[(&str, &str)], options: &[(&str, &str)]) -> String {
    with_file(text, environment, options).map(|_| String::new()).unwrap_or_else(|error| error)
}

#[test]
fn every_default_satisfies_its_rule() {
    for entry in BROKER_ENTRIES.iter().chain(crate::config::TOPIC_ONLY_ENTRIES) {
        assert!((entry.normalize)(&entry.rule, entry.default).is_ok(), "{}", entry.name);
        if let Some((min, max)) = entry.rule.bounds {
            assert!((entry.normalize)(&entry.rule, &min.to_string()).is_ok(), "{} at {min}", entry.name);
            assert!((entry.normalize)(&entry.rule, &max.to_string()).is_ok(), "{} at {max}", entry.name);
            if let Some(below) = min.checked_sub(1) {
                assert!(
                    (entry.normalize)(&entry.rule, &below.to_string()).is_err(),
                    "{} at {below}",
                    entry.name
                );
            }
            if let Some(above) = max.checked_add(1) {
                assert!(
                    (entry.normalize)(&entry.rule, &above.to_string()).is_err(),
                    "{} at {above}",
                    entry.name
                );
            }
        }
    }
    assert_eq!(Config::default().num_partitions, 1);
}

#[test]
fn names_are_unique_at_each_level() {
    let mut names: Vec<&str> = known_names().collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    let mut topics: Vec<&str> =
        crate::config::topic::topic_entries().filter_map(|entry| entry.topic_name).collect();
    let count = topics.len();
    topics.sort_unstable();
    topics.dedup();
    assert_eq!(topics.len(), count);
}

#[test]
fn the_later_layer_wins() -> Result<(), String> {
    let file = "num.partitions = 2\n[log.segment]\nbytes = \"64MiB\"\n";
    let config = with_file(file, &[], &[])?;
    assert_eq!((config.num_partitions, config.log_segment_bytes), (2, 64 << 20));
    let config = with_file(file, &[("LOGSTREAMS_NUM_PARTITIONS", "3"), ("HOME", "/")], &[])?;
    assert_eq!(config.num_partitions, 3);
    let config = with_file(file, &[("LOGSTREAMS_NUM_PARTITIONS", "3")], &[("num.partitions", "4")])?;
    assert_eq!(config.num_partitions, 4);
    assert_eq!(config.origin("num.partitions"), Some(&Origin::CommandLine("-o num.partitions=4".into())));
    Ok(())
}

#[test]
fn quoted_dotted_and_nested_keys_are_the_same() -> Result<(), String> {
    for file in [
        "log.retention.bytes = 5\nauto.create.topics.enable = false\nlog.cleaner.min.cleanable.ratio = 0.25",
        "\"log.retention.bytes\" = 5\n\"auto.create.topics.enable\" = \"false\"\nlog.cleaner.\"min.cleanable\".ratio = 0.25",
        "[log]\nretention = { bytes = 5 }\ncleaner.min.cleanable.ratio = 0.25\n[auto]\ncreate.topics.enable = false",
    ] {
        let config = with_file(file, &[], &[])?;
        assert_eq!(config.log_retention_bytes, Limit::Of(5));
        assert!(!config.auto_create_topics_enable);
        assert!((config.log_cleaner_min_cleanable_ratio - 0.25).abs() < 1e-9);
    }
    Ok(())
}

#[test]
fn the_finer_unit_wins_in_one_layer_and_the_later_layer_over_it() -> Result<(), String> {
    let both = "log.retention.hours = 1\nlog.retention.minutes = 2\n";
    assert_eq!(with_file(both, &[], &[])?.log_retention_ms, Limit::Of(120_000));
    let all = format!("log.retention.ms = 3\n{both}");
    assert_eq!(with_file(&all, &[], &[])?.log_retention_ms, Limit::Of(3));
    assert_eq!(
        with_file(&all, &[], &[("log.retention.hours", "4")])?.log_retention_ms,
        Limit::Of(14_400_000)
    );
    assert_eq!(with_file("log.retention.hours = -1", &[], &[])?.log_retention_ms, Limit::Unlimited);
    assert_eq!(with_file("log.roll.hours = 2", &[], &[])?.log_roll_ms, 7_200_000);
    Ok(())
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_the_cure() {
    assert_eq!(
        refusal("\nlog.segmnt.bytes = 1\n", &[], &[]),
        "FILE line 2: unknown key 'log.segmnt.bytes'; did you mean 'log.segment.bytes'?"
    );
    assert_eq!(
        refusal("segment.bytes = 1", &[], &[]),
        "FILE line 1: unknown key 'segment.bytes'; did you mean 'log.segment.bytes'?"
    );
    assert_eq!(
        refusal("", &[("LOGSTREAMS_NUM_PARTITION", "1")], &[]),
        "environment variable LOGSTREAMS_NUM_PARTITION is no known setting; did you mean 'LOGSTREAMS_NUM_PARTITIONS'?"
    );
    assert_eq!(
        refusal("", &[("LOGSTREAMS_NUM_PARTITIONS", "many")], &[]),
        "environment variable LOGSTREAMS_NUM_PARTITIONS: Invalid value many for configuration num.partitions: \
         Not a number of type INT"
    );
    assert_eq!(
        refusal("", &[], &[("num.partitions", "0")]),
        "command line -o num.partitions=0: Invalid value 0 for configuration num.partitions: Value must be at least 1"
    );
    assert_eq!(
        refusal("", &[], &[("log.cleanup.policy", "compact,delete")]),
        "command line -o log.cleanup.policy=compact,delete: Invalid value compact,delete for configuration \
         log.cleanup.policy: compaction comes in a later version; use delete"
    );
    assert_eq!(
        refusal("group.max.session.timeout.ms = 5000", &[], &[]),
        "group.min.session.timeout.ms (6000) is greater than group.max.session.timeout.ms (5000): raise the latter"
    );
    assert!(
        refusal("num.partitions = [1]", &[], &[])
            .starts_with("FILE line 1: num.partitions: expected a string")
    );
    assert!(refusal("a = 1\nb = = 2", &[], &[]).starts_with("FILE line 2: "));
    let trap = refusal("max.connections = 1\nmax.connections.per.ip = 2\n", &[], &[]);
    assert!(trap.starts_with("FILE line 2: ") && trap.contains("\"max.connections.per.ip\" = 100"), "{trap}");
    let unreadable = Config::load(&Sources { file: Some("/nowhere/at.all".into()), ..Sources::default() });
    assert!(unreadable.is_err_and(|error| error.to_string().contains("/nowhere/at.all")));
}

#[test]
fn odd_values_are_errors_and_never_panics() {
    let odd = [
        "",
        " ",
        "-",
        "-9223372036854775808",
        "99999999999999999999",
        "NaN",
        "1e400",
        ":",
        "[",
        "a:b:c",
        "é",
    ];
    for entry in BROKER_ENTRIES {
        for text in odd {
            let _ = (entry.normalize)(&entry.rule, text);
        }
        for alias in entry.aliases {
            for text in odd {
                let _ = read_alias(entry, alias, text);
            }
        }
    }
    let too_large = refusal("", &[], &[("tail.cache.bytes", "9000000000GiB")]);
    assert!(too_large.contains("Not a number of type LONG"), "{too_large}");
}

proptest::proptest! {
    #[test]
    fn whatever_is_written_is_read_or_refused(text: String, name: String, entry in 0..BROKER_ENTRIES.len()) {
        let entry = &BROKER_ENTRIES[entry];
        if let Ok(Some(plain)) = (entry.normalize)(&entry.rule, &text) {
            // The plain form means the same again.
            proptest::prop_assert_eq!((entry.normalize)(&entry.rule, &plain), Ok(Some(plain.clone())));
        }
        let _ = read_toml(Path::new("any"), &text);
        let _ = Config::from_options(&[(&name, &text)]);
        let _ = crate::config::validate_topic_override(&name, &text);
    }
}

#[test]
fn a_configuration_can_be_shared_between_shards() {
    fn shared<T: Send + Sync + Clone>(_: &T) {}
    shared(&Config::default());
    shared(&TopicConfig::default());
}

#[test]
fn variables_that_a_container_platform_sets_are_passed_over() {
    for variable in [
        "LOGSTREAMS_PORT",
        "LOGSTREAMS_SERVICE_HOST",
        "LOGSTREAMS_SERVICE_PORT_KAFKA",
        "LOGSTREAMS_PORT_9092_TCP_ADDR",
        "LOGSTREAMS_ADMIN_SERVICE_HOST",
        "LOGSTREAMS_CONFIG",
    ] {
        assert_eq!(refusal("", &[(variable, "tcp://10.0.0.1:9092")], &[]), "", "{variable}");
    }
    assert_ne!(refusal("", &[("LOGSTREAMS_ADVERTISD_PORT", "9092")], &[]), "");
}

#[test]
fn whether_an_address_was_given_is_known() -> Result<(), String> {
    let config = with_file("", &[], &[])?;
    assert!(!config.is_given("redis.addr"));
    let config =
        with_file("redis.addr = \"127.0.0.1:6379\"", &[], &[("admin.addr", "off"), ("shards", "0")])?;
    assert!(config.is_given("redis.addr"));
    assert_eq!(config.admin_addr, OptionalAddr::Off);
    assert_eq!(config.shards, ShardCount::Auto);
    Ok(())
}

#[test]
fn running_changes_lie_on_top_and_fall_back() -> Result<(), String> {
    let config = with_file("log.retention.hours = 1", &[], &[])?;
    let altered = BTreeMap::from([("log.retention.ms".to_owned(), "5".to_owned())]);
    let changed = config.with_dynamic(&altered).map_err(|error| error.to_string())?;
    assert_eq!(changed.log_retention_ms, Limit::Of(5));
    let described = changed.described();
    let retention = described.iter().find(|config| config.name == "log.retention.ms").ok_or("missing")?;
    let sources: Vec<ConfigSource> = retention.synonyms.iter().map(|synonym| synonym.source).collect();
    assert_eq!(sources, [ConfigSource::DynamicBroker, ConfigSource::StaticBroker, ConfigSource::Default]);
    let back = changed.with_dynamic(&BTreeMap::new()).map_err(|error| error.to_string())?;
    assert_eq!(back.log_retention_ms, Limit::Of(3_600_000));
    let refused = |name: &str, value: &str| {
        let altered = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        config.with_dynamic(&altered).map(|_| String::new()).unwrap_or_else(|error| error.to_string())
    };
    assert!(
        refused("kafka.addr", "127.0.0.1:1")
            .starts_with("Cannot update these configs dynamically: kafka.addr")
    );
    assert_eq!(refused("num.partition", "1"), "unknown key 'num.partition'; did you mean 'num.partitions'?");
    assert_eq!(
        refused("message.max.bytes", "-1"),
        "Invalid value -1 for configuration message.max.bytes: Value must be at least 0"
    );
    Ok(())
}

#[test]
fn a_topic_takes_the_brokers_value_unless_it_has_its_own() -> Result<(), String> {
    let config = with_file("log.roll.hours = 1\nlog.segment.bytes = 2097152", &[], &[])?;
    let overrides = BTreeMap::from([("segment.bytes".to_owned(), "1MiB".to_owned())]);
    let topic = TopicConfig::resolve(&config, &overrides).map_err(|error| error.to_string())?;
    assert_eq!((topic.segment_bytes, topic.segment_ms, topic.flush_ms), (1 << 20, 3_600_000, 1000));
    let compact = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
    assert!(TopicConfig::resolve(&config, &compact).is_err());
    let topic = TopicConfig::resolve_internal(&config, &compact).map_err(|error| error.to_string())?;
    assert_eq!(topic.cleanup_policy, CleanupPolicy::Compact);
    Ok(())
}
