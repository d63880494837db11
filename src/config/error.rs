//! Why a configuration was refused.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::origin::Origin;
use super::value::Problem;

/// Why a configuration was refused: where, what, and what to write instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {error}", path.display())]
    UnreadableFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The file is not TOML.
    #[error("{} line {line}: {problem}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// No entry has this name.
    #[error("{}unknown key '{name}'{}", place(origin), hint(.nearest.as_deref()))]
    UnknownKey {
        /// Where it was given.
        origin: Origin,
        /// The name as given.
        name: String,
        /// The known name most like it.
        nearest: Option<String>,
    },
    /// No entry has this environment variable.
    #[error("environment variable {variable} is no known setting{}", hint(.nearest.as_deref()))]
    UnknownVariable {
        /// The variable.
        variable: String,
        /// The known variable most like it.
        nearest: Option<String>,
    },
    /// The value does not satisfy the entry's rule.
    #[error("{}Invalid value {value} for configuration {name}: {problem}", place(origin))]
    InvalidValue {
        /// Where it was given.
        origin: Origin,
        /// The name as given.
        name: String,
        /// The value as given.
        value: String,
        /// What is wrong with it.
        problem: Problem,
    },
    /// Two values contradict each other.
    #[error("{0}")]
    Conflict(String),
    /// The entry holds from start to end of the process.
    #[error(
        "Cannot update these configs dynamically: {name}; set it in the configuration file and start again"
    )]
    NotDynamic {
        /// The entry.
        name: String,
    },
    /// No topic-level entry has this name.
    #[error("Unknown topic config name: {name}{}", hint(.nearest.as_deref()))]
    UnknownTopicKey {
        /// The name as given.
        name: String,
        /// The known name most like it.
        nearest: Option<String>,
    },
    /// The value does not satisfy the topic-level entry's rule.
    #[error("Invalid value {value} for configuration {name}: {problem}")]
    InvalidTopicValue {
        /// The name.
        name: String,
        /// The value as given.
        value: String,
        /// What is wrong with it.
        problem: Problem,
    },
    /// The value does not satisfy the group-level entry's rule, or there is no such entry.
    #[error("Invalid value {value} for configuration {name}: {problem}")]
    InvalidGroupValue {
        /// The name.
        name: String,
        /// The value as given.
        value: String,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// The beginning of a message about a value; nothing for what came over the wire, whose sender knows where it was.
fn place(origin: &Origin) -> impl fmt::Display {
    match origin {
        Origin::Altered => String::new(),
        _ => format!("{origin}: "),
    }
}

fn hint(nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean '{nearest}'?"),
        None => String::new(),
    }
}
