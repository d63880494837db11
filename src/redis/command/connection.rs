//! What a client agrees on with the server, and whether anybody is there.

use std::sync::atomic::Ordering;

use super::{Call, CommandResult, Flow, commands, unknown_subcommand};
use crate::base::clock;
use crate::redis::client::ReplyMode;
use crate::redis::error_reply::ErrorReply;
use crate::redis::resp::Protocol;

/// The version of Redis whose commands are spoken.
pub(super) const REDIS_VERSION: &str = "7.0.15";

commands! { "connection":
    "AUTH" -2 (Fast NoMulti Loading Stale) (0 0 0) "Authenticates the connection." => auth;
    "CLIENT" -2 (Loading Stale) (0 0 0) "Looks at clients and names this one." => client;
    "ECHO" 2 (Fast Loading Stale) (0 0 0) "Returns the given string." => echo;
    "HELLO" -1 (Fast NoMulti Loading Stale) (0 0 0) "Handshakes with the server." => hello;
    "PING" -1 (Fast InSubscriberMode) (0 0 0) "Returns PONG, or the given string." => ping;
    "QUIT" -1 (Fast NoMulti InSubscriberMode InTransaction) (0 0 0) "Closes the connection." => quit;
    "RESET" 1 (Fast NoMulti InSubscriberMode InTransaction) (0 0 0) "Resets the connection." => reset;
    "SELECT" 2 (Fast Loading Stale) (0 0 0) "Changes the selected database; there is only 0." => select;
}

async fn ping(call: &mut Call<'_>) -> CommandResult {
    let text = match call.args.len() {
        1 => None,
        2 => Some(call.arg(1)),
        _ => return Err(ErrorReply::arity("ping")),
    };
    if call.client.is_in_subscriber_mode() {
        call.out.array(2);
        call.out.bulk(b"pong");
        call.out.bulk(text.unwrap_or_default());
        return Ok(Flow::Continue);
    }
    match text {
        None => call.out.simple("PONG"),
        Some(text) => call.out.bulk(text),
    }
    Ok(Flow::Continue)
}

async fn echo(call: &mut Call<'_>) -> CommandResult {
    call.out.bulk(call.arg(1));
    Ok(Flow::Continue)
}

async fn quit(call: &mut Call<'_>) -> CommandResult {
    call.out.ok();
    Ok(Flow::End)
}

async fn select(call: &mut Call<'_>) -> CommandResult {
    match super::parse::integer(call.arg(1)) {
        Ok(0) => call.ok(),
        Ok(_) => Err(ErrorReply::err("DB index is out of range")),
        Err(_) => Err(ErrorReply::err("invalid DB index")),
    }
}

async fn reset(call: &mut Call<'_>) -> CommandResult {
    let client = call.client;
    client.transaction.take();
    client.subscriptions.end_all(client).await;
    client.set_protocol(Protocol::Resp2);
    call.out.set_protocol(Protocol::Resp2);
    client.reply_mode.set(ReplyMode::On);
    client.membership.entry.change_words(|words| words.name.clear());
    call.out.simple("RESET");
    Ok(Flow::Continue)
}

/// There are no users yet, so there is no password that could be right.
async fn auth(call: &mut Call<'_>) -> CommandResult {
    match call.args.len() {
        2 => Err(no_password()),
        3 => check_user(call.arg(1)).map(|()| call.out.ok()).map(|()| Flow::Continue),
        _ => Err(ErrorReply::syntax()),
    }
}

fn no_password() -> ErrorReply {
    ErrorReply::err(
        "AUTH <password> called without any password configured for the default user. Are you sure your \
         configuration is correct?",
    )
}

/// As in Redis the default user without a password may come with any.
fn check_user(name: &[u8]) -> Result<(), ErrorReply> {
    if name == b"default" {
        return Ok(());
    }
    Err(ErrorReply("WRONGPASS invalid username-password pair or user is disabled.".to_owned()))
}

async fn hello(call: &mut Call<'_>) -> CommandResult {
    let mut options = super::parse::Options::new(call.args, 1);
    let mut protocol = call.client.protocol();
    if let Some(version) = options.next() {
        protocol = match super::parse::integer(version) {
            Ok(2) => Protocol::Resp2,
            Ok(3) => Protocol::Resp3,
            Ok(_) => return Err(ErrorReply("NOPROTO unsupported protocol version".to_owned())),
            Err(_) => return Err(ErrorReply::err("Protocol version is not an integer or out of range")),
        };
    }
    let mut name = None;
    while !options.is_done() {
        if options.take("AUTH") {
            let user = options.value()?;
            options.value()?;
            check_user(user)?;
        } else if options.take("SETNAME") {
            name = Some(client_name(options.value()?)?);
        } else {
            return Err(ErrorReply::err(format_args!(
                "Syntax error in HELLO option '{}'",
                String::from_utf8_lossy(options.value()?)
            )));
        }
    }
    if let Some(name) = name {
        call.client.membership.entry.change_words(|words| words.name = name);
    }
    call.client.set_protocol(protocol);
    let out = &mut *call.out;
    out.set_protocol(protocol);
    out.map(7);
    out.bulk(b"server");
    out.bulk(b"redis");
    out.bulk(b"version");
    out.bulk(REDIS_VERSION.as_bytes());
    out.bulk(b"proto");
    out.integer(if protocol == Protocol::Resp2 { 2 } else { 3 });
    out.bulk(b"id");
    out.integer(i64::try_from(call.client.id()).unwrap_or(i64::MAX));
    out.bulk(b"mode");
    out.bulk(b"standalone");
    out.bulk(b"role");
    out.bulk(b"master");
    out.bulk(b"modules");
    out.array(0);
    Ok(Flow::Continue)
}

/// A name is one word, as CLIENT LIST shows it.
fn client_name(name: &[u8]) -> Result<String, ErrorReply> {
    if name.iter().any(|byte| !(b'!'..=b'~').contains(byte)) {
        return Err(ErrorReply::err("Client names cannot contain spaces, newlines or special characters."));
    }
    Ok(String::from_utf8_lossy(name).into_owned())
}

async fn client(call: &mut Call<'_>) -> CommandResult {
    let subcommand = call.word(1);
    let entry = &call.client.membership.entry;
    match (subcommand.as_str(), call.args.len()) {
        ("ID", 2) => call.out.integer(i64::try_from(entry.id).unwrap_or(i64::MAX)),
        ("GETNAME", 2) => match entry.words().name {
            name if name.is_empty() => call.out.null(),
            name => call.out.bulk(name.as_bytes()),
        },
        ("SETNAME", 3) => {
            let name = client_name(call.arg(2))?;
            entry.change_words(|words| words.name = name);
            call.out.ok();
        }
        ("SETINFO", 4) => {
            let value = client_name(call.arg(3))?;
            match call.word(2).as_str() {
                "LIB-NAME" => entry.change_words(|words| words.library = value),
                "LIB-VER" => entry.change_words(|words| words.library_version = value),
                other => return Err(ErrorReply::err(format_args!("Unrecognized option '{other}'"))),
            }
            call.out.ok();
        }
        ("INFO", 2) => {
            call.client.front.fan_out.refresh_lags().await;
            call.out.verbatim(&entry.line(clock::now_ms()));
        }
        ("LIST", _) => list(call).await?,
        ("REPLY", 3) => {
            let mode = match call.word(2).as_str() {
                "ON" => ReplyMode::On,
                "OFF" => ReplyMode::Off,
                "SKIP" => ReplyMode::SkipNext,
                _ => return Err(ErrorReply::syntax()),
            };
            call.client.reply_mode.set(mode);
            call.out.ok(); // seen with ON only
        }
        // No client is ever evicted, and no command counts as a touch.
        ("NO-EVICT" | "NO-TOUCH", 3) => match call.word(2).as_str() {
            "ON" | "OFF" => call.out.ok(),
            _ => return Err(ErrorReply::syntax()),
        },
        ("HELP", 2) => help(call),
        ("ID" | "GETNAME" | "SETNAME" | "SETINFO" | "INFO" | "REPLY" | "NO-EVICT" | "NO-TOUCH", _) => {
            return Err(ErrorReply::arity(&format!("client|{subcommand}")));
        }
        _ => return Err(unknown_subcommand("CLIENT", call.arg(1))),
    }
    Ok(Flow::Continue)
}

/// CLIENT LIST [TYPE normal|pubsub] [ID id...].
async fn list(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    call.client.front.fan_out.refresh_lags().await;
    let mut options = super::parse::Options::new(call.args, 2);
    let mut wanted_type = None;
    let mut ids = None;
    while !options.is_done() {
        if options.take("TYPE") {
            let word = String::from_utf8_lossy(options.value()?).to_ascii_lowercase();
            if !["normal", "pubsub", "master", "replica", "slave"].contains(&word.as_str()) {
                return Err(ErrorReply::err(format_args!("Unknown client type '{word}'")));
            }
            wanted_type = Some(word);
        } else if options.take("ID") {
            let mut list = Vec::new();
            while let Some(id) = options.next() {
                list.push(super::parse::integer(id).map_err(|_| ErrorReply::err("Invalid client ID"))?);
            }
            ids = Some(list);
        } else {
            return Err(ErrorReply::syntax());
        }
    }
    let now_ms = clock::now_ms();
    let mut text = String::new();
    for entry in call.client.front.clients.list() {
        let is_subscriber = entry.subscriptions.iter().any(|count| count.load(Ordering::Relaxed) > 0);
        let kind = if is_subscriber { "pubsub" } else { "normal" };
        let id = i64::try_from(entry.id).unwrap_or(i64::MAX);
        if wanted_type.as_ref().is_none_or(|wanted| wanted == kind)
            && ids.as_ref().is_none_or(|ids| ids.contains(&id))
        {
            text.push_str(&entry.line(now_ms));
        }
    }
    call.out.verbatim(&text);
    Ok(())
}

fn help(call: &mut Call<'_>) {
    let lines = [
        "CLIENT GETNAME | ID | INFO | LIST [TYPE type] [ID id...] | NO-EVICT ON|OFF | NO-TOUCH ON|OFF",
        "CLIENT REPLY ON|OFF|SKIP | SETINFO LIB-NAME|LIB-VER value | SETNAME name",
    ];
    call.out.array(lines.len());
    for line in lines {
        call.out.simple(line);
    }
}
