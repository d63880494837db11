//! The house rules, as a test: who may import whom, where `unsafe` may stand, what must not be left lying about.
//!
//! A module belongs to a floor; an arrow points only downward, and modules of one floor are strangers. Rust does
//! not stop circles inside a crate, this test does. It reads the sources as text with comments and strings blanked,
//! and every rule is tried on a sample that breaks it.

use std::fs;
use std::io;
use std::path::Path;

/// Longest file.
const LINES_MAX: usize = 700;

/// Which modules a module may import, beside itself.
enum May {
    /// Every module of a lower floor.
    AllBelow,
    /// These only.
    Only(&'static [&'static str]),
}

/// The floors: module, floor, what it may import. ARCHITECTURE.md tells what each is for.
const MODULES: &[(&str, u8, May)] = &[
    ("base", 0, May::AllBelow),
    ("model", 0, May::AllBelow),
    ("record", 1, May::AllBelow),
    ("runtime", 1, May::AllBelow),
    ("config", 1, May::AllBelow),
    ("metrics", 1, May::AllBelow),
    ("storage", 2, May::AllBelow),
    ("partition", 3, May::AllBelow),
    ("coordinator", 3, May::Only(&["base", "model", "record", "config"])),
    ("metadata", 3, May::Only(&["base", "model", "record", "config"])),
    ("shard", 4, May::AllBelow),
    ("broker", 5, May::AllBelow),
    ("kafka", 6, May::Only(FRONTS_MAY)),
    ("redis", 6, May::Only(FRONTS_MAY)),
    ("http", 6, May::Only(FRONTS_MAY)),
    ("server", 7, May::AllBelow),
    ("main", 8, May::AllBelow),
    ("cli", 8, May::AllBelow),
    ("dump", 8, May::AllBelow),
];

/// A front sees bytes and verbs, never a file, a shard or a partition.
const FRONTS_MAY: &[&str] = &["base", "model", "record", "config", "metrics", "runtime", "broker"];

/// Modules of the binary, which call the library by its name.
const BINARY: &[&str] = &["main", "cli"];
/// Modules whose work is to print.
const PRINTERS: &[&str] = &["main", "cli", "dump"];

fn floor_of(module: &str) -> Option<u8> {
    MODULES.iter().find(|(name, ..)| *name == module).map(|(_, floor, _)| *floor)
}

fn may_import(importer: &str, imported: &str) -> bool {
    // `main` holds `cli` as its own module.
    if BINARY.contains(&importer) && BINARY.contains(&imported) {
        return true;
    }
    let Some((_, importer_floor, may)) = MODULES.iter().find(|(name, ..)| *name == importer) else {
        return false;
    };
    let below = floor_of(imported).is_some_and(|floor| floor < *importer_floor);
    match may {
        // The binary's `dump` is its neighbour only in the table.
        May::AllBelow => below || (BINARY.contains(&importer) && imported == "dump"),
        May::Only(names) => below && names.contains(&imported),
    }
}

/// One source file, as the rules see it.
struct Source {
    /// Relative to the package, such as `src/kafka/frame.rs`.
    path: String,
    text: String,
    /// The text with comments, strings and test modules blanked, lines kept.
    code: String,
    /// The text with comments and strings blanked, tests still there.
    code_with_tests: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let code_with_tests = without_comments_and_strings(text);
        let is_test_file =
            path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/");
        let code = if is_test_file { String::new() } else { without_test_modules(&code_with_tests) };
        Source { path: path.to_owned(), text: text.to_owned(), code, code_with_tests }
    }

    /// The path of the module within the crate: `["kafka", "frame"]`; none for what is not in `src/`.
    fn module(&self) -> Vec<&str> {
        let Some(inner) = self.path.strip_prefix("src/").and_then(|path| path.strip_suffix(".rs")) else {
            return Vec::new();
        };
        inner.split('/').filter(|part| *part != "mod").collect()
    }

    fn complain(&self, position: usize, what: &str) -> String {
        let line = 1 + self.text.bytes().take(position).filter(|&byte| byte == b'\n').count();
        format!("{} line {line}: {what}", self.path)
    }
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Where `word` stands in `code` as a word of its own, not as a piece of a longer one.
fn find_word(code: &str, word: &str) -> Vec<usize> {
    let bytes = code.as_bytes();
    let is_word_at = |position: Option<usize>| {
        position.and_then(|position| bytes.get(position)).is_some_and(|&byte| is_word_byte(byte))
    };
    let starts_in_word = word.bytes().next().is_some_and(is_word_byte);
    let ends_in_word = word.bytes().last().is_some_and(is_word_byte);
    code.match_indices(word)
        .map(|(position, _)| position)
        .filter(|&position| !(starts_in_word && is_word_at(position.checked_sub(1))))
        .filter(|&position| !(ends_in_word && is_word_at(Some(position + word.len()))))
        .collect()
}

/// Replaces what no rule about code should see by blanks; every byte and line stays where it was.
fn without_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let starts_word = at == 0 || !is_word_byte(bytes[at - 1]);
        let length = if rest.starts_with(b"//") {
            rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            block_comment_length(rest)
        } else if let Some(length) = raw_string_length(rest).filter(|_| starts_word) {
            length
        } else if rest[0] == b'"' {
            quoted_length(rest)
        } else if rest[0] == b'\'' {
            char_length(&text[at..])
        } else {
            0
        };
        let end = (at + length).min(bytes.len());
        for byte in out[at..end].iter_mut().filter(|byte| **byte != b'\n') {
            *byte = b' ';
        }
        at = end.max(at + 1);
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn block_comment_length(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length of `r"..."`, `r#"..."#`, `br"..."` and their like at the front.
fn raw_string_length(rest: &[u8]) -> Option<usize> {
    let prefix = [&b"br"[..], b"cr", b"r"].into_iter().find(|prefix| rest.starts_with(prefix))?.len();
    let hashes = rest[prefix..].iter().take_while(|&&byte| byte == b'#').count();
    let open = prefix + hashes;
    if rest.get(open) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let length = rest[open + 1..].windows(close.len()).position(|window| window == close.as_slice());
    Some(length.map_or(rest.len(), |length| open + 1 + length + close.len()))
}

fn quoted_length(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a character literal at the front; 0 for a lifetime.
fn char_length(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            // The escaped character may itself be a quote, so the closing one is looked for behind it.
            let after = chars.nth(1).map_or(rest.len(), |(position, _)| position);
            rest[after..].find('\'').map_or(0, |length| after + length + 1)
        }
        Some(_) => match chars.next() {
            Some((position, '\'')) => position + 1,
            _ => 0,
        },
        None => 0,
    }
}

/// Blanks every `#[cfg(test)] mod ... { ... }`.
fn without_test_modules(code: &str) -> String {
    let mut out = code.as_bytes().to_vec();
    for (start, attribute) in code.match_indices("#[cfg(test)]") {
        let mut rest = code[start + attribute.len()..].trim_start();
        // Further attributes may stand between.
        while let Some(end) = rest.strip_prefix("#[").and_then(|inner| inner.find(']')) {
            rest = rest[end + 3..].trim_start();
        }
        let is_module = ["mod ", "pub mod ", "pub(crate) mod "].iter().any(|word| rest.starts_with(word));
        let Some(open) = rest.find('{').filter(|&open| is_module && !rest[..open].contains(';')) else {
            continue;
        };
        let mut depth = 0usize;
        let open = code.len() - rest.len() + open;
        for (position, byte) in code.bytes().enumerate().skip(open) {
            match byte {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => {}
            }
            if byte != b'\n' {
                out[position] = b' ';
            }
            if depth == 0 {
                break;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The first names of the paths in `rest`: one name, or those of a group `{a::b, c}`; macros are passed over.
fn first_names(rest: &str) -> Vec<&str> {
    fn name(text: &str) -> Option<&str> {
        let text = text.trim_start();
        let length = text.bytes().take_while(|&byte| is_word_byte(byte)).count();
        let (name, after) = text.split_at(length);
        (!name.is_empty() && !after.starts_with('!')).then_some(name)
    }
    let Some(group) = rest.trim_start().strip_prefix('{') else {
        return name(rest).into_iter().collect();
    };
    let mut names: Vec<&str> = name(group).into_iter().collect();
    let mut depth = 1usize;
    for (position, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 1 => names.extend(name(&group[position + 1..])),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

/// Every top-level module that the source names, with the position of the path.
fn imports(source: &Source) -> Vec<(usize, &str)> {
    let module = source.module();
    let mut roots = vec!["crate::".to_owned()];
    if module.first().is_some_and(|top| BINARY.contains(top)) {
        roots.push("logstreams::".to_owned());
    }
    // As many `super` as the module is deep lead to the crate's root as well.
    roots.push("super::".repeat(module.len().max(1)));
    let mut found = Vec::new();
    for root in &roots {
        for position in find_word(&source.code, root) {
            let rest = &source.code[position + root.len()..];
            found.extend(first_names(rest).into_iter().map(|name| (position, name)));
        }
    }
    found.retain(|(_, name)| {
        name.starts_with(|first: char| first.is_ascii_lowercase()) && !matches!(*name, "self" | "super")
    });
    found
}

fn check_floors(source: &Source) -> Vec<String> {
    let module = source.module();
    let Some(&top) = module.first().filter(|&&top| top != "lib") else {
        return Vec::new();
    };
    let homeless = |name: &str| format!("module {name} has no floor; give it one in tests/tidy.rs");
    if floor_of(top).is_none() {
        return vec![source.complain(0, &homeless(top))];
    }
    imports(source)
        .into_iter()
        .filter(|(_, name)| *name != top && !may_import(top, name))
        .map(|(position, name)| match floor_of(name) {
            Some(_) => source.complain(position, &format!("{top} must not import {name}")),
            None => source.complain(position, &homeless(name)),
        })
        .collect()
}

fn check_words(source: &Source) -> Vec<String> {
    let module = source.module();
    let top = module.first().copied().unwrap_or_default();
    let in_crate = !top.is_empty();
    let mut complaints = Vec::new();
    let mut forbid = |code: &str, word: &str, why: &str| {
        complaints.extend(find_word(code, word).into_iter().map(|position| source.complain(position, why)));
    };
    if in_crate && top != "runtime" {
        forbid(&source.code_with_tests, "unsafe", "unsafe stands only in src/runtime");
        forbid(&source.code_with_tests, "tokio", "only src/runtime names tokio");
    }
    if in_crate && !PRINTERS.contains(&top) {
        for word in ["println!", "eprintln!", "print!", "eprint!"] {
            forbid(&source.code, word, "only the command line prints; use tracing");
        }
    }
    for word in ["dbg!", "todo!", "unimplemented!"] {
        forbid(&source.code_with_tests, word, &format!("{word} is not for a commit"));
    }
    forbid(&source.code, "::*", "no glob imports");
    for word in ["#[ignore]", "#[ignore ", "#[ignore="] {
        forbid(&source.code_with_tests, word, "a test that never runs is no test");
    }
    // Comments too, so in the whole text.
    for word in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")] {
        forbid(&source.text, word, "do it, or write an issue");
    }
    complaints
}

fn check_shape(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    if !source.text.starts_with("//!") {
        complaints.push(source.complain(0, "a file opens with a //! header that says what it is"));
    }
    let lines = source.text.lines().count();
    if lines > LINES_MAX {
        complaints.push(source.complain(0, &format!("{lines} lines; more than {LINES_MAX} are two files")));
    }
    complaints
}

fn check(source: &Source) -> Vec<String> {
    [check_floors(source), check_words(source), check_shape(source)].concat()
}

/// Every Rust file under `directory`, relative to `root`.
fn gather(root: &Path, directory: &Path, sources: &mut Vec<Source>) -> io::Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            // What package managers and builds leave behind is not ours.
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name != "target" && name != "node_modules" && !name.starts_with('.') {
                gather(root, &path, sources)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            sources.push(Source::new(&relative, &fs::read_to_string(&path)?));
        }
    }
    Ok(())
}

#[test]
fn the_house_rules_hold() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for directory in ["src", "tests", "benches", "tools"] {
        gather(root, &root.join(directory), &mut sources)?;
    }
    assert!(sources.len() > 10, "the sources were not found");
    let mut complaints: Vec<String> = sources.iter().flat_map(check).collect();
    complaints.sort();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    Ok(())
}

/// What the rules say about a file of one header line and `body`.
fn verdict(path: &str, body: &str) -> Vec<String> {
    check(&Source::new(path, &format!("//! A sample.\n{body}\n")))
}

#[test]
fn an_arrow_upward_or_sideways_is_found() {
    let upward = [
        ("src/storage/log.rs", "use crate::shard::Shard;", "storage must not import shard"),
        ("src/storage/log.rs", "fn f() { crate::partition::go() }", "storage must not import partition"),
        (
            "src/partition.rs",
            "use crate::{\n    base::clock,\n    coordinator::{group, txn},\n};",
            "partition must not import coordinator",
        ),
        ("src/kafka/api/fetch.rs", "use crate::redis::resp;", "kafka must not import redis"),
        ("src/kafka/api/fetch.rs", "use crate::storage::Log;", "kafka must not import storage"),
        ("src/kafka/connection.rs", "use crate::shard::Shard;", "kafka must not import shard"),
        ("src/coordinator/group.rs", "use crate::storage::Log;", "coordinator must not import storage"),
        ("src/coordinator/group.rs", "use crate::runtime::timer;", "coordinator must not import runtime"),
        ("src/record/batch.rs", "use crate::config::Config;", "record must not import config"),
        ("src/base/clock.rs", "use crate::model::Offset;", "base must not import model"),
        ("src/broker/router.rs", "use super::super::kafka::api;", "broker must not import kafka"),
        ("src/storage.rs", "use super::server;", "storage must not import server"),
        ("src/server.rs", "use crate::dump::run;", "server must not import dump"),
        (
            "src/cli/doctor.rs",
            "use logstreams::odd;",
            "module odd has no floor; give it one in tests/tidy.rs",
        ),
        ("src/misc.rs", "", "module misc has no floor; give it one in tests/tidy.rs"),
    ];
    for (path, body, complaint) in upward {
        let said = verdict(path, body);
        assert!(said.len() == 1 && said[0].ends_with(complaint), "{path} {body}: {said:?}");
    }
}

#[test]
fn an_arrow_downward_or_within_is_fine() {
    let downward = [
        (
            "src/storage/log.rs",
            "use crate::runtime::dma_file;\nuse crate::storage::segment;\nuse super::recovery;",
        ),
        (
            "src/kafka/api/fetch.rs",
            "use crate::broker::Verb;\nuse crate::{base, config, model::{Offset, TopicName}};",
        ),
        ("src/kafka/api/fetch.rs", "use super::super::frame;"),
        ("src/server.rs", "use crate::kafka::connection;"),
        ("src/main.rs", "mod cli;\nuse logstreams::{dump, server};\nuse crate::cli::run;"),
        ("src/lib.rs", "pub mod base;"),
        ("src/model.rs", "crate::table! { x }\ntype T = crate::Thing;"),
        ("src/model.rs", "// crate::server is far above\nconst TEXT: &str = \"crate::server\";"),
        (
            "src/model.rs",
            "#[cfg(test)]\nmod tests {\n    use crate::server::Server;\n    fn f() { if true { } }\n}",
        ),
    ];
    for (path, body) in downward {
        assert_eq!(verdict(path, body), Vec::<String>::new(), "{path} {body}");
    }
}

#[test]
fn words_out_of_place_are_found_with_their_line() {
    let bad = [
        ("src/storage.rs", "fn f() { unsafe { g() } }", "unsafe stands only in src/runtime"),
        ("src/storage.rs", "use tokio::task::JoinHandle;", "only src/runtime names tokio"),
        ("src/storage.rs", "fn f() { println!(\"x\") }", "only the command line prints; use tracing"),
        ("src/storage.rs", "fn f() { eprint!(\"x\") }", "only the command line prints; use tracing"),
        ("src/cli.rs", "fn f() { dbg!(1); }", "dbg! is not for a commit"),
        ("src/cli.rs", "fn f() { todo!() }", "todo! is not for a commit"),
        ("src/cli.rs", "fn f() { unimplemented!() }", "unimplemented! is not for a commit"),
        ("src/storage.rs", "use std::io::*;", "no glob imports"),
        ("tests/x.rs", "#[ignore]\nfn f() {}", "a test that never runs is no test"),
        ("tests/x.rs", "#[ignore = \"slow\"]\nfn f() {}", "a test that never runs is no test"),
        ("src/storage.rs", concat!("// TO", "DO: later"), "do it, or write an issue"),
        ("tools/loadgen/src/main.rs", concat!("// FIX", "ME"), "do it, or write an issue"),
        ("tests/x.rs", concat!("// XX", "X"), "do it, or write an issue"),
    ];
    for (path, body, complaint) in bad {
        assert_eq!(verdict(path, body), [format!("{path} line 2: {complaint}")], "{path} {body}");
    }
}

#[test]
fn words_in_their_place_are_fine() {
    let good = [
        ("src/runtime/mapped_file.rs", "use tokio::task::JoinHandle;\nfn f() { unsafe { g() } }"),
        ("src/dump.rs", "fn f() { println!(\"x\") }"),
        (
            "src/storage.rs",
            "#![deny(unsafe_code)]\n// unsafe tokio println!\nconst A: &str = r#\"unsafe \"dbg!\"#;",
        ),
        (
            "src/storage.rs",
            "fn f<'a>(x: &'a str) -> char { '\"' }\nfn g() -> char { '\\'' }\n/* unsafe /* nested */ unsafe */",
        ),
        ("src/storage.rs", "#[cfg(test)]\nmod tests {\n    use super::*;\n    fn f() { println!(\"x\") }\n}"),
        ("src/config/load/tests.rs", "use super::*;"),
        ("tests/x.rs", "use proptest::prelude::*;\nfn f() { println!(\"x\") }"),
    ];
    for (path, body) in good {
        assert_eq!(verdict(path, body), Vec::<String>::new(), "{path} {body}");
    }
}

#[test]
fn a_file_without_header_or_end_is_found() {
    let headless = check(&Source::new("src/model.rs", "use std::fmt;\n"));
    assert_eq!(headless, ["src/model.rs line 1: a file opens with a //! header that says what it is"]);
    let endless = verdict("src/model.rs", &"\n".repeat(LINES_MAX - 1));
    assert_eq!(endless, ["src/model.rs line 1: 701 lines; more than 700 are two files"]);
}
