//! Text: names, paths and the log filter.

use std::path::PathBuf;

use super::{Problem, Setting};
use crate::config::entry::Rule;

impl Setting for String {
    fn read(_rule: &Rule, text: &str) -> Result<Self, Problem> {
        Ok(text.to_owned())
    }

    fn show(&self) -> Option<String> {
        Some(self.clone())
    }
}

impl Setting for PathBuf {
    fn read(_rule: &Rule, text: &str) -> Result<Self, Problem> {
        if text.is_empty() {
            return Err(Problem::new("The path must not be empty"));
        }
        Ok(PathBuf::from(text))
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string_lossy().into_owned())
    }
}

/// What is logged: a level, or directives such as `info,logstreams::kafka=debug`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    const LEVELS: [&'static str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

    /// The directives, as `tracing` filters understand them.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Setting for LogFilter {
    // Stricter than the filter's own parser, which takes a misspelt level for the name of a module.
    fn read(_rule: &Rule, text: &str) -> Result<Self, Problem> {
        for directive in text.split(',') {
            let level = match directive.split_once('=') {
                Some((target, level)) if !target.is_empty() => level,
                Some(_) => "",
                None => directive,
            };
            if !Self::LEVELS.contains(&level) {
                return Err(Problem(format!(
                    "Expected one of {} or directives such as info,logstreams::kafka=debug",
                    Self::LEVELS.join(", ")
                )));
            }
        }
        Ok(LogFilter(text.to_owned()))
    }

    fn show(&self) -> Option<String> {
        Some(self.0.clone())
    }
}
