//! The commands: one file per family, each with its table of rows, from which also COMMAND answers.
//!
//! A row names a command, its arity (negative: at least so many), flags, where its keys stand, and what carries it out.
//! To add a command, add a row to its family.

mod client;
mod connection;
mod group_claim;
mod group_info;
mod group_read;
mod groups;
mod keys;
mod parse;
mod pubsub;
mod server;
mod stream;
mod stream_info;
mod stream_read;
mod stream_write;
mod transaction;

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;

use ahash::AHashMap;

use super::client::Client;
use super::error_reply::ErrorReply;
use super::resp::{Args, Encoder};

/// The longest name of a command.
const NAME_BYTES_MAX: usize = 32;

/// What becomes of the connection after a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    /// It ends once its replies have left.
    End,
}

/// What carries out a command has answered, or why it refuses.
pub(super) type CommandResult = Result<Flow, ErrorReply>;
type Running<'r> = Pin<Box<dyn Future<Output = CommandResult> + 'r>>;
type Run = for<'r, 'c> fn(&'r mut Call<'c>) -> Running<'r>;
/// Called with the mark in the connection's bytes at which the reply has left.
pub(super) type WhenSent = Box<dyn FnOnce(u64)>;

/// A command being carried out.
pub(super) struct Call<'c> {
    pub(super) client: &'c Rc<Client>,
    pub(super) args: Args<'c>,
    pub(super) out: &'c mut Encoder,
    /// Whether BLOCK may wait: not in a transaction.
    pub(super) may_wait: bool,
    pub(super) when_sent: &'c RefCell<Vec<WhenSent>>,
}

impl<'c> Call<'c> {
    /// The argument at `index`, which arity promises.
    pub(super) fn arg(&self, index: usize) -> &'c [u8] {
        self.args.get(index).unwrap_or_default()
    }

    /// The argument at `index` as a word in upper case.
    pub(super) fn word(&self, index: usize) -> String {
        String::from_utf8_lossy(self.arg(index)).to_ascii_uppercase()
    }

    /// Answers `+OK`.
    fn ok(&mut self) -> CommandResult {
        self.out.ok();
        Ok(Flow::Continue)
    }
}

/// A property of a command, by the name that COMMAND gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flag {
    Write,
    ReadOnly,
    Fast,
    Blocking,
    PubSub,
    NoMulti,
    Admin,
    Loading,
    Stale,
    MovableKeys,
    /// Ours: may be sent by a RESP2 subscriber.
    InSubscriberMode,
    /// Ours: carried out between MULTI and EXEC.
    InTransaction,
}

impl Flag {
    fn name(self) -> Option<&'static str> {
        Some(match self {
            Flag::Write => "write",
            Flag::ReadOnly => "readonly",
            Flag::Fast => "fast",
            Flag::Blocking => "blocking",
            Flag::PubSub => "pubsub",
            Flag::NoMulti => "no_multi",
            Flag::Admin => "admin",
            Flag::Loading => "loading",
            Flag::Stale => "stale",
            Flag::MovableKeys => "movablekeys",
            Flag::InSubscriberMode | Flag::InTransaction => return None,
        })
    }
}

/// One command.
pub(super) struct CommandRow {
    pub(super) name: &'static str,
    /// Arguments with the name; at least so many if negative.
    arity: i32,
    flags: &'static [Flag],
    /// First and last key and the step between them; 0 for none.
    keys: (i32, i32, i32),
    group: &'static str,
    summary: &'static str,
    run: Run,
}

impl CommandRow {
    pub(super) fn run<'r>(&self, call: &'r mut Call<'_>) -> Running<'r> {
        (self.run)(call)
    }

    /// # Errors
    /// If a command cannot have so many arguments.
    pub(super) fn check_arity(&self, count: usize) -> Result<(), ErrorReply> {
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        let fits = if self.arity >= 0 { count == self.arity } else { count >= -self.arity };
        if fits { Ok(()) } else { Err(ErrorReply::arity(self.name)) }
    }

    pub(super) fn may_block(&self) -> bool {
        self.has(Flag::Blocking)
    }

    pub(super) fn is_allowed_to_subscribers(&self) -> bool {
        self.has(Flag::InSubscriberMode)
    }

    pub(super) fn is_allowed_in_transactions(&self) -> bool {
        !self.has(Flag::NoMulti)
    }

    pub(super) fn is_about_transactions(&self) -> bool {
        self.has(Flag::InTransaction)
    }

    fn has(&self, flag: Flag) -> bool {
        self.flags.contains(&flag)
    }
}

/// Declares the table of a family: name, arity, flags, keys, summary, and the function that carries it out.
macro_rules! commands {
    ($group:literal: $(
        $name:literal $arity:literal ($($flag:ident)*) ($first:literal $last:literal $step:literal) $summary:literal
            => $run:path;
    )+) => {
        /// The commands of this family.
        pub(super) static ROWS: &[$crate::redis::command::CommandRow] = &[$(
            $crate::redis::command::CommandRow {
                name: $name,
                arity: $arity,
                flags: &[$($crate::redis::command::Flag::$flag),*],
                keys: ($first, $last, $step),
                group: $group,
                summary: $summary,
                run: |call| Box::pin($run(call)),
            },
        )+];
    };
}
use commands;

/// The families in the order of their files.
static FAMILIES: &[&[CommandRow]] = &[
    connection::ROWS,
    groups::ROWS,
    keys::ROWS,
    pubsub::ROWS,
    server::ROWS,
    stream::ROWS,
    transaction::ROWS,
];

/// The commands by name.
pub(super) struct CommandTable(AHashMap<&'static [u8], &'static CommandRow>);

impl CommandTable {
    pub(super) fn new() -> Self {
        CommandTable(all().map(|row| (row.name.as_bytes(), row)).collect())
    }

    /// The command of that name, in any case.
    pub(super) fn find(&self, name: &[u8]) -> Option<&'static CommandRow> {
        let mut upper = [0; NAME_BYTES_MAX];
        let upper = upper.get_mut(..name.len())?;
        upper.copy_from_slice(name);
        upper.make_ascii_uppercase();
        self.0.get(&*upper).copied()
    }
}

fn all() -> impl Iterator<Item = &'static CommandRow> {
    FAMILIES.iter().copied().flatten()
}

/// The refusal of a command that there is not, in Redis's words.
pub(super) fn unknown(args: &Args<'_>) -> ErrorReply {
    /// Bytes of the name and of the arguments that are shown.
    const SHOWN_BYTES_MAX: usize = 128;
    let shown = |word: &[u8]| String::from_utf8_lossy(&word[..word.len().min(SHOWN_BYTES_MAX)]).into_owned();
    let name = shown(args.get(0).unwrap_or_default());
    let mut rest = String::new();
    for word in args.from(1) {
        if rest.len() >= SHOWN_BYTES_MAX {
            break;
        }
        rest.push_str(&format!("'{}' ", shown(word)));
    }
    ErrorReply::err(format_args!("unknown command '{name}', with args beginning with: {rest}"))
}

/// The refusal of a subcommand that there is not.
fn unknown_subcommand(command: &str, subcommand: &[u8]) -> ErrorReply {
    let shown = String::from_utf8_lossy(&subcommand[..subcommand.len().min(128)]).into_owned();
    ErrorReply::err(format_args!("unknown subcommand '{shown}'. Try {command} HELP."))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{CommandTable, NAME_BYTES_MAX, all};

    #[test]
    fn every_command_is_found_in_any_case_and_once() {
        let table = CommandTable::new();
        let names: BTreeSet<_> = all().map(|row| row.name).collect();
        assert_eq!(names.len(), all().count());
        for row in all() {
            assert!(row.name.len() <= NAME_BYTES_MAX && row.arity != 0 && !row.summary.is_empty());
            assert_eq!(table.find(row.name.to_ascii_lowercase().as_bytes()).unwrap().name, row.name);
        }
        assert!(table.find(b"nope").is_none() && table.find(&[b'x'; 100]).is_none());
    }
}
