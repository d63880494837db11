//! The configuration: every entry declared once, from which follow parsing, checks, descriptions and the page.
//!
//! Lives on: every shard, as one immutable [`Config`] in an `Arc`; a change while running makes a new one.
//! Promise: a value of [`Config`] or [`TopicConfig`] satisfies its entry's rule; what a user gives wrong is an error
//! that names its place and the cure, never a panic.
//! Does not: act on any value. Adding an entry is one row in `table`.
//! Source: names, types, bounds and precedence of Apache Kafka 4's broker and topic configs.

mod entry;
mod value;

mod declare;
mod table;

mod describe;
mod error;
mod group;
mod load;
mod nearest;
mod origin;
mod page;
mod topic;

pub use describe::{ConfigSource, ConfigSynonym, DescribedConfig};
pub use entry::{Alias, Alter, ConfigType, Entry, Rule, Unit};
pub use error::ConfigError;
pub use group::{
    SHARE_AUTO_OFFSET_RESET, SHARE_ISOLATION_LEVEL, SHARE_RENEW_ACKNOWLEDGE_ENABLE, describe_group,
    group_number, validate_group_bounds, validate_group_override,
};
pub use load::{CONFIG_FILE_VARIABLE, Flag, Sources, VARIABLE_PREFIX, variable_of};
pub use origin::Origin;
pub use page::configuration_page;
pub use table::{BROKER_ENTRIES, Config, TOPIC_ONLY_ENTRIES, TopicConfig};
pub use topic::validate_topic_override;
pub use value::{
    CleanupPolicy, CompressionType, Limit, ListenAddr, LogFilter, MigrationPolicy, OptionalAddr, Problem,
    ShardCount, TimestampType, WritePath,
};
