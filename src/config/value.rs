//! The types that configuration values may have: how each is read from text and shown again.

mod address;
mod choice;
mod number;
mod text;

use std::fmt;

use super::entry::Rule;

pub use address::{ListenAddr, OptionalAddr};
pub use choice::{CleanupPolicy, CompressionType, MigrationPolicy, TimestampType, WritePath};
pub use number::{Limit, ShardCount};
pub use text::LogFilter;

/// Why a text is not a legal value: one sentence without the entry's name, in Kafka's words where it has some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(pub(super) String);

impl Problem {
    pub(super) fn new(sentence: impl Into<String>) -> Self {
        Problem(sentence.into())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A type that a configuration entry may have.
pub(super) trait Setting: Sized {
    /// The words allowed, where the value is a choice.
    const CHOICES: &'static [&'static str] = &[];
    /// Whether giving the default explicitly means more than leaving it out.
    const PRESENCE_MATTERS: bool = false;

    /// Reads a value; the text has no white space around it.
    fn read(rule: &Rule, text: &str) -> Result<Self, Problem>;

    /// The value in its plain form; `None` where nothing is set.
    fn show(&self) -> Option<String>;
}

/// Reads and shows in one step.
pub(super) fn normalize<T: Setting>(rule: &Rule, text: &str) -> Result<Option<String>, Problem> {
    T::read(rule, text.trim()).map(|value| value.show())
}

/// Empty text means "not set".
impl<T: Setting> Setting for Option<T> {
    const CHOICES: &'static [&'static str] = T::CHOICES;

    fn read(rule: &Rule, text: &str) -> Result<Self, Problem> {
        if text.is_empty() { Ok(None) } else { T::read(rule, text).map(Some) }
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(Setting::show)
    }
}
