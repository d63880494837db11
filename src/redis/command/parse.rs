//! Arguments as numbers and words.

use crate::redis::error_reply::ErrorReply;
use crate::redis::resp::Args;

/// A whole number.
///
/// # Errors
/// If it is none.
pub(super) fn integer(text: &[u8]) -> Result<i64, ErrorReply> {
    let text = std::str::from_utf8(text).map_err(|_| ErrorReply::not_an_integer())?;
    if text.starts_with('+') {
        return Err(ErrorReply::not_an_integer());
    }
    text.parse().map_err(|_| ErrorReply::not_an_integer())
}

/// A count; a negative one is an error.
///
/// # Errors
/// If it is no number, or negative.
pub(super) fn count(text: &[u8]) -> Result<usize, ErrorReply> {
    usize::try_from(integer(text)?).map_err(|_| ErrorReply::not_an_integer())
}

/// Text; what is no UTF-8 is refused, since groups and consumers are kept as text.
///
/// # Errors
/// If it is not UTF-8.
pub(super) fn text(bytes: &[u8], what: &str) -> Result<String, ErrorReply> {
    let text = std::str::from_utf8(bytes);
    text.map(str::to_owned).map_err(|_| ErrorReply::err(format_args!("the {what} is not UTF-8")))
}

/// Walks over options: words with or without a value.
pub(super) struct Options<'a> {
    args: Args<'a>,
    at: usize,
}

impl<'a> Options<'a> {
    /// Begins at the argument `at`.
    pub(super) fn new(args: Args<'a>, at: usize) -> Self {
        Options { args, at }
    }

    /// Where the next word stands.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The next word as it is, stepped over.
    pub(super) fn next(&mut self) -> Option<&'a [u8]> {
        let word = self.args.get(self.at)?;
        self.at += 1;
        Some(word)
    }

    /// The value that must follow.
    ///
    /// # Errors
    /// If nothing follows.
    pub(super) fn value(&mut self) -> Result<&'a [u8], ErrorReply> {
        self.next().ok_or_else(ErrorReply::syntax)
    }

    /// Steps over the next word if it is `word`, in any case.
    pub(super) fn take(&mut self, word: &str) -> bool {
        let is_next = self.args.get(self.at).is_some_and(|next| next.eq_ignore_ascii_case(word.as_bytes()));
        self.at += usize::from(is_next);
        is_next
    }

    /// Whether all words were stepped over.
    pub(super) fn is_done(&self) -> bool {
        self.at >= self.args.len()
    }
}
