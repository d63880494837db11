//! Subscriptions by expression: RE2's syntax, linear time, whole names.
//!
//! Clients write what Google's RE2 reads (Kafka uses RE2/J). The engine here reads nearly the same; where the two differ
//! the expression is put into other words first: `\Q...\E` quotes, and inside a class `[`, `&&`, `--` and `~~` are plain
//! characters.

use std::collections::BTreeSet;

use regex::{Regex, RegexBuilder};

use crate::model::group::GroupError;

use super::super::topics::Topics;

/// Most memory that one compiled expression takes; a larger one is refused.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;

/// Compiles an expression that whole topic names are to match.
///
/// # Errors
/// `InvalidRegularExpression` when it is not one, or too large.
pub(super) fn compile(expression: &str) -> Result<Regex, GroupError> {
    let anchored = format!("^(?:{})$", translate(expression));
    // Alone first, so that an unbalanced parenthesis does not pair up with the anchors'.
    let build = |pattern: &str| RegexBuilder::new(pattern).size_limit(COMPILED_BYTES_MAX).build();
    build(&translate(expression))
        .and_then(|_| build(&anchored))
        .map_err(|_| GroupError::InvalidRegularExpression)
}

/// The topics whose whole names match.
pub(super) fn resolve(expression: &str, topics: &Topics) -> BTreeSet<String> {
    let Ok(regex) = compile(expression) else { return BTreeSet::new() };
    let mut found = BTreeSet::new();
    topics.for_each_name(&mut |name| {
        if regex.is_match(name) {
            found.insert(name.to_owned());
        }
    });
    found
}

fn translate(expression: &str) -> String {
    let mut out = String::with_capacity(expression.len() + 8);
    let mut rest = expression;
    let mut class_length: Option<usize> = None;
    while let Some(next) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix("\\Q") {
            let (literal, after) = quoted.split_once("\\E").unwrap_or((quoted, ""));
            out.push_str(&regex::escape(literal));
            rest = after;
            continue;
        }
        let taken = if next == '\\' { escape_length(rest) } else { next.len_utf8() };
        let (piece, after) = rest.split_at(taken);
        match (class_length, piece) {
            (None, "[") => {
                class_length = Some(0);
                out.push('[');
                rest = after;
                if let Some(after) = rest.strip_prefix('^') {
                    out.push('^');
                    rest = after;
                }
                continue;
            }
            (None, _) => out.push_str(piece),
            (Some(length), "]") if length > 0 => {
                class_length = None;
                out.push(']');
            }
            (Some(_), "]") => out.push_str("\\]"),
            (Some(_), "[") => match rest.find(":]").filter(|_| rest.starts_with("[:")) {
                Some(end) => {
                    out.push_str(&rest[..end + 2]);
                    rest = &rest[end + 2..];
                    class_length = class_length.map(|length| length + 1);
                    continue;
                }
                None => out.push_str("\\["),
            },
            (Some(_), "&" | "~") => {
                out.push('\\');
                out.push_str(piece);
            }
            (Some(_), "-") if after.starts_with('-') || out.ends_with("\\-") => out.push_str("\\-"),
            (Some(_), _) => out.push_str(piece),
        }
        class_length = class_length.map(|length| length + 1);
        rest = after;
    }
    out
}

/// The bytes of a backslash and the character behind it.
fn escape_length(rest: &str) -> usize {
    1 + rest.chars().nth(1).map_or(0, char::len_utf8)
}

#[cfg(test)]
mod tests {
    use super::compile;

    fn matches(expression: &str, name: &str) -> bool {
        compile(expression).unwrap().is_match(name)
    }

    #[test]
    fn whole_names_are_matched() {
        assert!(matches("foo.*", "foo-1"));
        assert!(!matches("foo", "foo-1"));
        assert!(!matches("foo|bar", "xbar"));
        assert!(matches("foo|bar", "bar"));
        assert!(matches("", ""));
    }

    #[test]
    fn expressions_mean_what_re2_says() {
        assert!(matches(r"\Qa.b\E.*", "a.b-c"));
        assert!(!matches(r"\Qa.b\E.*", "axb-c"));
        assert!(matches(r"[[a]+", "[a["));
        assert!(matches(r"[a&&b]+", "a&b"));
        assert!(matches(r"[]a]+", "]a"));
        assert!(matches(r"[^]a]+", "bc"));
        assert!(matches(r"[[:alpha:]_]+", "ab_"));
        assert!(matches(r"(?i)ORDERS\.[a-z]{2}", "orders.eu"));
        assert!(matches(r"[a\-z]+", "a-z"));
        assert!(matches(r"[\w.-]+", "a.b-c"));
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for wrong in ["(", "[", ")", "a)(b", "*a", r"\", "(?<x", "(?=a)", r"(a)\1", "a{2000}{2000}"] {
            assert!(compile(wrong).is_err(), "{wrong}");
        }
    }
}
