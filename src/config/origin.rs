//! Where each value came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// The place where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A line of the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag of the command line, as the user wrote it.
    CommandLine(String),
    /// Altered while running.
    Altered,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line } => write!(f, "{} line {line}", path.display()),
            Origin::Environment(variable) => write!(f, "environment variable {variable}"),
            Origin::CommandLine(flag) => write!(f, "command line {flag}"),
            Origin::Altered => f.write_str("altered while running"),
        }
    }
}

/// One value that somebody gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The name it was given under: the entry's own or an alias.
    pub name: &'static str,
    /// The value in the entry's own unit.
    pub text: String,
    /// Where.
    pub origin: Origin,
}

/// What was given for each entry, under the entry's own name; the rest stands at its default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Origins {
    /// Before the start: file, environment, command line.
    pub(super) given: BTreeMap<&'static str, Given>,
    /// While running; goes before `given`.
    pub(super) dynamic: BTreeMap<&'static str, Given>,
}

impl Origins {
    /// What counts for the entry called `name`.
    pub(super) fn get(&self, name: &str) -> Option<&Given> {
        self.dynamic.get(name).or_else(|| self.given.get(name))
    }
}
