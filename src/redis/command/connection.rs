//! What a client agrees on with the server, and whether anybody is there.

use super::client::{client, client_name};
use super::{Call, CommandResult, Flow, commands};
use crate::redis::client::ReplyMode;
use crate::redis::error_reply::ErrorReply;
use crate::redis::fan_out::Ending;
use crate::redis::resp::Protocol;

/// The version of Redis whose commands are spoken.
pub(super) const REDIS_VERSION: &str = "7.0.15";

commands! { "connection":
    "AUTH" -2 (Fast NoMulti Loading Stale) (0 0 0) "Authenticates the connection." => auth;
    "CLIENT" -2 (Loading Stale) (0 0 0) "Looks at clients, names this one, closes others." => client;
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
    call.client.subscriptions.end_all(call.client, Ending::Said).await;
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
    client.subscriptions.end_all(client, Ending::Said).await;
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
