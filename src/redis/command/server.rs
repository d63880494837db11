//! What the server tells of itself: INFO, COMMAND, CONFIG, TIME.

use std::fmt::Write as _;
use std::time::Duration;

use super::connection::REDIS_VERSION;
use super::{Call, CommandResult, CommandRow, Flag, Flow, all, commands, unknown_subcommand};
use crate::base::{clock, glob};
use crate::broker::{AlterOp, ConfigAlteration, ConfigResource};
use crate::redis::error_reply::ErrorReply;
use crate::redis::resp::Encoder;
use crate::runtime::blocking;
use crate::runtime::process;

commands! { "server":
    "COMMAND" -1 (Loading Stale) (0 0 0) "Describes the commands." => command;
    "CONFIG" -2 (Admin NoMulti Loading Stale) (0 0 0) "Looks at and alters the server's configuration." => config;
    "INFO" -1 (Loading Stale) (0 0 0) "Returns information about the server." => info;
    "TIME" 1 (Fast Loading Stale) (0 0 0) "Returns the server's time." => time;
}

async fn time(call: &mut Call<'_>) -> CommandResult {
    let now_ms = clock::now_ms();
    call.out.array(2);
    call.out.bulk((now_ms / 1000).to_string().as_bytes());
    call.out.bulk((now_ms % 1000 * 1000).to_string().as_bytes());
    Ok(Flow::Continue)
}

/// The sections of INFO that are there, in their order.
const SECTIONS: &[&str] =
    &["server", "clients", "memory", "persistence", "stats", "replication", "cpu", "keyspace"];

async fn info(call: &mut Call<'_>) -> CommandResult {
    call.client.front.fan_out.refresh_lags().await;
    let wanted: Vec<String> =
        call.args.from(1).map(|word| String::from_utf8_lossy(word).to_ascii_lowercase()).collect();
    let wants_all = wanted.is_empty()
        || wanted.iter().any(|word| matches!(word.as_str(), "all" | "default" | "everything"));
    let usage = blocking(process::usage).await;
    let mut text = String::new();
    for section in SECTIONS.iter().filter(|section| wants_all || wanted.iter().any(|word| word == **section))
    {
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        let title: String = section
            .chars()
            .take(1)
            .map(|first| first.to_ascii_uppercase())
            .chain(section.chars().skip(1))
            .collect();
        let _ = write!(text, "# {title}\r\n"); // cannot fail
        for (name, value) in section_of(call, section, &usage) {
            let _ = write!(text, "{name}:{value}\r\n");
        }
    }
    call.out.verbatim(&text);
    Ok(Flow::Continue)
}

fn section_of(call: &Call<'_>, section: &str, usage: &process::Usage) -> Vec<(&'static str, String)> {
    let front = &call.client.front;
    let broker = &front.broker;
    let clients = front.clients.totals();
    let uptime_s = clock::since_start().as_secs();
    let text = |text: &str| text.to_owned();
    let seconds = |time: Duration| format!("{:.6}", time.as_secs_f64());
    match section {
        "server" => vec![
            ("redis_version", text(REDIS_VERSION)),
            ("logstreams_version", text(env!("CARGO_PKG_VERSION"))),
            ("redis_mode", text("standalone")),
            ("os", text("Linux")),
            ("arch_bits", usize::BITS.to_string()),
            ("process_id", std::process::id().to_string()),
            ("run_id", text(broker.cluster_id())),
            ("tcp_port", front.port.to_string()),
            ("shards", broker.shards().to_string()),
            ("uptime_in_seconds", uptime_s.to_string()),
            ("uptime_in_days", (uptime_s / 86_400).to_string()),
        ],
        "clients" => vec![
            ("connected_clients", clients.connected.to_string()),
            ("maxclients", broker.config().max_connections.to_string()),
            ("blocked_clients", clients.blocked.to_string()),
            ("pubsub_clients", clients.subscribers.to_string()),
            ("paused_subscriptions", clients.paused.to_string()),
            ("paused_subscriptions_lag", clients.lag.to_string()),
            ("unsent_bytes", clients.unsent_bytes.to_string()),
        ],
        "memory" => vec![
            ("used_memory", usage.resident_bytes.to_string()),
            ("used_memory_rss", usage.resident_bytes.to_string()),
            ("maxmemory", text("0")),
            ("maxmemory_policy", text("noeviction")),
        ],
        "persistence" => vec![("loading", text("0")), ("async_loading", text("0"))],
        "stats" => vec![
            ("total_connections_received", clients.total_connections.to_string()),
            ("total_commands_processed", clients.total_commands.to_string()),
            ("pubsub_channels", subscriber_counts(call).0.to_string()),
            ("pubsub_patterns", subscriber_counts(call).1.to_string()),
        ],
        "replication" => vec![("role", text("master")), ("connected_slaves", text("0"))],
        "cpu" => {
            vec![("used_cpu_sys", seconds(usage.system_cpu)), ("used_cpu_user", seconds(usage.user_cpu))]
        }
        _ => {
            let topics = broker.image().topics().filter(|topic| !topic.name.is_internal()).count();
            if topics == 0 { Vec::new() } else { vec![("db0", format!("keys={topics},expires=0,avg_ttl=0"))] }
        }
    }
}

fn subscriber_counts(call: &Call<'_>) -> (usize, usize) {
    let all = call.client.broker().subscribers();
    let patterns =
        all.iter().filter(|(listening, _)| matches!(listening, crate::broker::Listening::Pattern(_))).count();
    (all.len() - patterns, patterns)
}

async fn command(call: &mut Call<'_>) -> CommandResult {
    if call.args.len() == 1 {
        call.out.array(all().count());
        all().for_each(|row| put_row(call.out, row));
        return Ok(Flow::Continue);
    }
    match call.word(1).as_str() {
        "COUNT" if call.args.len() == 2 => call.out.count(all().count()),
        "INFO" => {
            let wanted: Vec<_> = match call.args.len() {
                2 => all().map(Some).collect(),
                _ => call.args.from(2).map(|name| call.client.front.commands.find(name)).collect(),
            };
            call.out.array(wanted.len());
            for row in wanted {
                match row {
                    Some(row) => put_row(call.out, row),
                    None => call.out.null(),
                }
            }
        }
        "DOCS" => {
            let wanted: Vec<_> = match call.args.len() {
                2 => all().collect(),
                _ => call.args.from(2).filter_map(|name| call.client.front.commands.find(name)).collect(),
            };
            call.out.map(wanted.len());
            wanted.into_iter().for_each(|row| put_docs(call.out, row));
        }
        "LIST" if call.args.len() == 2 => {
            call.out.array(all().count());
            all().for_each(|row| call.out.bulk(row.name.to_ascii_lowercase().as_bytes()));
        }
        "GETKEYS" => put_keys(call)?,
        _ => return Err(unknown_subcommand("COMMAND", call.arg(1))),
    }
    Ok(Flow::Continue)
}

fn put_row(out: &mut Encoder, row: &CommandRow) {
    out.array(10);
    out.bulk(row.name.to_ascii_lowercase().as_bytes());
    out.integer(i64::from(row.arity));
    let flags: Vec<&str> = row.flags.iter().filter_map(|flag| flag.name()).collect();
    out.set(flags.len());
    flags.iter().for_each(|flag| out.simple(flag));
    let (first, last, step) = row.keys;
    [first, last, step].iter().for_each(|place| out.integer(i64::from(*place)));
    let categories: &[&str] = match row.group {
        "stream" => &["@stream"],
        "pubsub" => &["@pubsub"],
        "connection" => &["@connection"],
        "transactions" => &["@transaction"],
        "generic" => &["@keyspace"],
        _ => &["@admin"],
    };
    out.set(categories.len());
    categories.iter().for_each(|category| out.simple(category));
    (0..3).for_each(|_| out.array(0)); // tips, key specifications, subcommands
}

fn put_docs(out: &mut Encoder, row: &CommandRow) {
    out.bulk(row.name.to_ascii_lowercase().as_bytes());
    out.map(2);
    out.bulk(b"summary");
    out.bulk(row.summary.as_bytes());
    out.bulk(b"group");
    out.bulk(row.group.as_bytes());
}

/// COMMAND GETKEYS: where the row says, or behind STREAMS.
fn put_keys(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let Some(row) = call.args.get(2).and_then(|name| call.client.front.commands.find(name)) else {
        return Err(ErrorReply::err("Invalid command specified"));
    };
    row.check_arity(call.args.len() - 2)
        .map_err(|_| ErrorReply::err("Invalid number of arguments specified for command"))?;
    let words: Vec<&[u8]> = call.args.from(2).collect();
    let keys: Vec<&[u8]> = if row.flags.contains(&Flag::MovableKeys) {
        let streams = words.iter().position(|word| word.eq_ignore_ascii_case(b"STREAMS"));
        let rest = streams.map_or(&[][..], |at| &words[at + 1..]);
        rest[..rest.len() / 2].to_vec()
    } else {
        let (first, last, step) = row.keys;
        let place = |place: i32| usize::try_from(place).unwrap_or_else(|_| words.len() - 1);
        match usize::try_from(step) {
            Ok(step) if step > 0 => (place(first)..=place(last)).step_by(step).map(|at| words[at]).collect(),
            _ => Vec::new(),
        }
    };
    if keys.is_empty() {
        return Err(ErrorReply::err("The command has no key arguments"));
    }
    call.out.array(keys.len());
    keys.iter().for_each(|key| call.out.bulk(key));
    Ok(())
}

async fn config(call: &mut Call<'_>) -> CommandResult {
    match (call.word(1).as_str(), call.args.len()) {
        ("GET", 3..) => {
            let described = call.client.broker().config().described();
            let wanted: Vec<_> = described
                .iter()
                .filter(|entry| {
                    call.args
                        .from(2)
                        .any(|pattern| glob::matches(&pattern.to_ascii_lowercase(), entry.name.as_bytes()))
                })
                .collect();
            call.out.map(wanted.len());
            for entry in wanted {
                call.out.bulk(entry.name.as_bytes());
                call.out.bulk(entry.value.as_deref().unwrap_or_default().as_bytes());
            }
            Ok(Flow::Continue)
        }
        ("SET", 4..) if call.args.len().is_multiple_of(2) => {
            let words: Vec<String> =
                call.args.from(2).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
            let changes =
                words.chunks(2).map(|pair| (pair[0].clone(), AlterOp::Set, Some(pair[1].clone()))).collect();
            let resource = ConfigResource::Broker(String::new());
            let alteration = ConfigAlteration { resource, changes, replace_all: false };
            for altered in call.client.broker().alter_configs(vec![alteration], false).await {
                altered.map_err(|error| ErrorReply::err(format_args!("CONFIG SET failed - {error}")))?;
            }
            call.ok()
        }
        ("RESETSTAT", 2) => {
            call.client.front.clients.reset_counts();
            call.ok()
        }
        ("GET" | "SET" | "RESETSTAT", _) => Err(ErrorReply::arity(&format!("config|{}", call.word(1)))),
        _ => Err(unknown_subcommand("CONFIG", call.arg(1))),
    }
}
