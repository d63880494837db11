//! CLIENT: what is told of the clients, what this one says of itself, and how others are closed.

use super::{Call, CommandResult, Flow, unknown_subcommand};
use crate::base::clock;
use crate::redis::client::ReplyMode;
use crate::redis::client_table::ClientEntry;
use crate::redis::error_reply::ErrorReply;

/// A name is one word, as CLIENT LIST shows it.
pub(super) fn client_name(name: &[u8]) -> Result<String, ErrorReply> {
    if name.iter().any(|byte| !(b'!'..=b'~').contains(byte)) {
        return Err(ErrorReply::err("Client names cannot contain spaces, newlines or special characters."));
    }
    Ok(String::from_utf8_lossy(name).into_owned())
}

pub(super) async fn client(call: &mut Call<'_>) -> CommandResult {
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
        ("KILL", 3..) => return kill(call),
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
        (
            "ID" | "GETNAME" | "SETNAME" | "SETINFO" | "INFO" | "KILL" | "REPLY" | "NO-EVICT" | "NO-TOUCH",
            _,
        ) => {
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
            wanted_type = Some(client_type(options.value()?)?);
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
        let id = i64::try_from(entry.id).unwrap_or(i64::MAX);
        if wanted_type.as_ref().is_none_or(|wanted| wanted == entry.kind())
            && ids.as_ref().is_none_or(|ids| ids.contains(&id))
        {
            text.push_str(&entry.line(now_ms));
        }
    }
    call.out.verbatim(&text);
    Ok(())
}

/// CLIENT KILL address, or CLIENT KILL with options that must all hold: the connections of those clients end at once.
fn kill(call: &mut Call<'_>) -> CommandResult {
    let wanted = Wanted::parse(call)?;
    let own_id = call.client.id();
    let (mut closed, mut flow) = (0, Flow::Continue);
    for entry in call.client.front.clients.list() {
        if !wanted.includes(&entry) || (wanted.skips_me && entry.id == own_id) {
            continue;
        }
        closed += 1;
        if entry.id == own_id {
            flow = Flow::End; // its answer leaves first
        } else {
            entry.closer.close();
        }
    }
    match call.args.len() {
        3 if closed == 0 => return Err(ErrorReply::err("No such client")),
        3 => call.out.ok(),
        _ => call.out.integer(closed),
    }
    Ok(flow)
}

/// Which clients CLIENT KILL means.
#[derive(Default)]
struct Wanted {
    id: Option<u64>,
    kind: Option<String>,
    peer: Option<String>,
    local: Option<String>,
    skips_me: bool,
}

impl Wanted {
    fn parse(call: &Call<'_>) -> Result<Wanted, ErrorReply> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if call.args.len() == 3 {
            return Ok(Wanted { peer: Some(text(call.arg(2))), ..Wanted::default() });
        }
        let mut wanted = Wanted { skips_me: true, ..Wanted::default() };
        let mut options = super::parse::Options::new(call.args, 2);
        while !options.is_done() {
            if options.take("ID") {
                let id = super::parse::count(options.value()?).unwrap_or(0) as u64;
                if id == 0 {
                    return Err(ErrorReply::err("client-id should be greater than 0"));
                }
                wanted.id = Some(id);
            } else if options.take("TYPE") {
                wanted.kind = Some(client_type(options.value()?)?);
            } else if options.take("ADDR") {
                wanted.peer = Some(text(options.value()?));
            } else if options.take("LADDR") {
                wanted.local = Some(text(options.value()?));
            } else if options.take("USER") {
                let user = options.value()?; // there is one, and all clients are it
                if user != b"default" {
                    return Err(ErrorReply::err(format_args!("No such user '{}'", text(user))));
                }
            } else if options.take("SKIPME") {
                wanted.skips_me = match options.value()?.to_ascii_lowercase().as_slice() {
                    b"yes" => true,
                    b"no" => false,
                    _ => return Err(ErrorReply::syntax()),
                };
            } else {
                return Err(ErrorReply::syntax());
            }
        }
        Ok(wanted)
    }

    fn includes(&self, entry: &ClientEntry) -> bool {
        self.id.is_none_or(|id| id == entry.id)
            && self.kind.as_ref().is_none_or(|kind| kind == entry.kind())
            && self.peer.as_ref().is_none_or(|peer| *peer == entry.peer.to_string())
            && self.local.as_ref().is_none_or(|local| *local == entry.local.to_string())
    }
}

fn client_type(word: &[u8]) -> Result<String, ErrorReply> {
    let word = String::from_utf8_lossy(word).to_ascii_lowercase();
    if !["normal", "pubsub", "master", "replica", "slave"].contains(&word.as_str()) {
        return Err(ErrorReply::err(format_args!("Unknown client type '{word}'")));
    }
    Ok(word)
}

fn help(call: &mut Call<'_>) {
    let lines = [
        "CLIENT GETNAME | ID | INFO | LIST [TYPE type] [ID id...] | NO-EVICT ON|OFF | NO-TOUCH ON|OFF",
        "CLIENT KILL address | KILL [ID id] [TYPE type] [ADDR address] [LADDR address] [USER name] [SKIPME yes|no]",
        "CLIENT REPLY ON|OFF|SKIP | SETINFO LIB-NAME|LIB-VER value | SETNAME name",
    ];
    call.out.array(lines.len());
    for line in lines {
        call.out.simple(line);
    }
}
