//! What is known about one configuration entry, whatever its Rust type.
//!
//! The entries themselves stand in `table`; from them follow parsing, bounds, DescribeConfigs, `--print-config`
//! and CONFIGURATION.md.

use super::value::Problem;

/// Kafka's largest INT, the upper bound of every entry of that type.
pub(super) const INT_MAX: i64 = i32::MAX as i64;
/// Kafka's largest LONG.
pub(super) const LONG_MAX: i64 = i64::MAX;

/// A value's type as DescribeConfigs names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigType {
    /// `true` or `false`.
    Boolean,
    /// Text.
    String,
    /// A 32-bit integer.
    Int,
    /// A 16-bit integer.
    Short,
    /// A 64-bit integer.
    Long,
    /// A floating point number.
    Double,
    /// Words separated by commas.
    List,
    /// A Java class name; no entry here has it, clients know it.
    Class,
    /// A secret, never shown.
    Password,
}

impl ConfigType {
    /// Kafka's word for the type, as it stands in messages and on the page.
    pub fn word(self) -> &'static str {
        match self {
            ConfigType::Boolean => "boolean",
            ConfigType::String => "string",
            ConfigType::Int => "int",
            ConfigType::Short => "short",
            ConfigType::Long => "long",
            ConfigType::Double => "double",
            ConfigType::List => "list",
            ConfigType::Class => "class",
            ConfigType::Password => "password",
        }
    }

    /// Whether values are whole numbers.
    pub fn is_integer(self) -> bool {
        matches!(self, ConfigType::Int | ConfigType::Short | ConfigType::Long)
    }
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Nothing that needs a word: counts, switches, text.
    Plain,
    /// Bytes; `KiB`, `MiB` and `GiB` may follow the number.
    Bytes,
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// Minutes.
    Minutes,
    /// Hours.
    Hours,
}

impl Unit {
    /// The unit in words; empty for a plain number.
    pub fn word(self) -> &'static str {
        match self {
            Unit::Plain => "",
            Unit::Bytes => "bytes",
            Unit::Milliseconds => "ms",
            Unit::Microseconds => "us",
            Unit::Minutes => "minutes",
            Unit::Hours => "hours",
        }
    }

    /// How many milliseconds one unit lasts; 1 for what is not a coarser time.
    pub(super) fn milliseconds(self) -> i64 {
        match self {
            Unit::Minutes => 60_000,
            Unit::Hours => 3_600_000,
            _ => 1,
        }
    }
}

/// When a new value takes hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alter {
    /// Only at the next start.
    Restart,
    /// Also while running, by AlterConfigs.
    Running,
}

/// What a value must satisfy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The type.
    pub kind: ConfigType,
    /// The unit.
    pub unit: Unit,
    /// The least and the greatest number allowed.
    pub bounds: Option<(i64, i64)>,
}

/// Another name of an entry: the same length of time in a coarser unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alias {
    /// The other name.
    pub name: &'static str,
    /// The alias's unit; the entry itself counts milliseconds.
    pub unit: Unit,
}

/// One configuration entry.
#[derive(Debug)]
pub struct Entry {
    /// The name at the broker level; for a topic-only entry the topic's name.
    pub name: &'static str,
    /// The name at the topic level, for what a topic may override.
    pub topic_name: Option<&'static str>,
    /// The heading under which the page lists it.
    pub section: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// What a value must satisfy.
    pub rule: Rule,
    /// The default, as one would write it; empty where nothing is set.
    pub default: &'static str,
    /// The words allowed, where the value is a choice.
    pub choices: &'static [&'static str],
    /// When a new broker-level value takes hold.
    pub alter: Alter,
    /// Accepted and stored for the sake of Kafka's tools, without effect here.
    pub inert: bool,
    /// Other names, finest unit first.
    pub aliases: &'static [Alias],
    /// Whether giving the default explicitly means more than leaving it out.
    pub presence_matters: bool,
    /// Reads a value and shows it in its plain form (`64MiB` as `67108864`); `None` where nothing is set.
    pub(super) normalize: fn(&Rule, &str) -> Result<Option<String>, Problem>,
}

impl Entry {
    /// Whether the value is a secret.
    pub fn is_sensitive(&self) -> bool {
        self.rule.kind == ConfigType::Password
    }

    /// The default in its plain form; `None` where nothing is set.
    pub fn default_value(&self) -> Option<String> {
        // A default that does not satisfy its own rule is caught by a test over the table.
        (self.normalize)(&self.rule, self.default).unwrap_or_default()
    }
}
