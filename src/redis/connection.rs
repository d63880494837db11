//! One task for each connection: many commands out of one read, carried out in order, replies in that order.
//!
//! Promise: replies leave in the order of the commands, those of one read with one send. XADDs and PUBLISHes that
//! follow on each other reach the log together (see [`super::writes`]). A command that waits (BLOCK) holds its
//! connection and is dropped when the client hangs up.
//! Bounds: a command by [`super::resp::Limits`]; while replies wait for the socket no further command is begun.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;

use bytes::BytesMut;
use futures_lite::future::{self, poll_once};

use super::client::{Client, ReplyMode};
use super::command::{Call, CommandRow, Flow};
use super::error_reply::ErrorReply;
use super::fan_out::Ending;
use super::front::Front;
use super::link::Link;
use super::resp::{Args, Decoded, Decoder, Encoder, OwnedArgs};
use super::writes::Writes;
use crate::base::clock;
use crate::runtime::receive_buffer::ReceiveBuffer;
use crate::runtime::tcp::Stream;
use crate::runtime::{catch_panic, timeout, yield_if_needed};

/// Replies that wait while more commands lie in the buffer, before they are sent all the same.
const UNSENT_REPLIES_MAX_BYTES: usize = 256 << 10;
/// Bytes read ahead while a command waits; a client that sends more is not read until the answer.
const READ_AHEAD_MAX_BYTES: usize = 64 << 10;
/// How long a client may take to read its last replies.
const LAST_REPLIES_GRACE: std::time::Duration = std::time::Duration::from_secs(5);

/// Serves a connection until it closes.
pub async fn serve(stream: Stream, peer: SocketAddr, front: Rc<Front>) {
    let Ok(local) = stream.local_addr() else { return };
    let link = Rc::new(Link::new(stream));
    front.watch(&link);
    let membership = front.clients.enter(peer, local, link.stream().closer(), clock::now_ms());
    let client = Client::new(front.clone(), link.clone(), membership);
    let connection = Connection {
        out: Encoder::new(client.protocol()),
        decoder: Decoder::new(front.limits.command),
        buffer: ReceiveBuffer::new(BytesMut::new(), front.spare_rooms.clone()),
        client: client.clone(),
    };
    if let Err(panic) = catch_panic(connection.run()).await {
        tracing::error!(%peer, panic, "a connection failed");
    }
    client.subscriptions.end_all(&client, Ending::Gone).await;
    link.close();
}

struct Connection {
    client: Rc<Client>,
    buffer: ReceiveBuffer,
    decoder: Decoder,
    out: Encoder,
}

/// What comes next after the commands of one read.
enum Next {
    /// More bytes are needed; so many make the next command whole, if that is known.
    Read(Option<usize>),
    /// The connection ends once its replies have left.
    End,
}

impl Connection {
    async fn run(mut self) {
        loop {
            let next = self.handle_read().await;
            self.send().await;
            let Next::Read(hint) = next else { break };
            if self.client.link.is_closed() || self.client.link.is_ending() {
                break;
            }
            let stream = self.client.link.stream().clone();
            if !matches!(self.buffer.fill(&stream, hint).await, Ok(1..)) {
                break;
            }
        }
        // The client has said its last; what it asked before is answered all the same.
        timeout(LAST_REPLIES_GRACE, self.client.link.wait_while(|link| link.unsent_bytes() > 0)).await;
    }

    /// Carries out all whole commands that were read.
    async fn handle_read(&mut self) -> Next {
        let now_ms = clock::now_ms();
        let mut writes = Writes::shared(&self.client, now_ms);
        let mut taken = 0;
        let mut count = 0;
        let next = loop {
            if self.client.link.is_closed() {
                break Next::End;
            }
            let unread = &self.buffer.bytes()[taken..];
            let size = match self.decoder.decode(unread) {
                Ok(Decoded::Command(size)) => size,
                Ok(Decoded::Partial(hint)) => break Next::Read(hint),
                Err(error) => {
                    self.finish_writes(&mut writes).await;
                    tracing::debug!(peer = %self.client.membership.entry.peer, %error, "closing a connection");
                    self.out.error(&format!("ERR {error}"));
                    break Next::End;
                }
            };
            count += 1;
            let args = self.decoder.args(&unread[..size]);
            if self.may_gather() && writes.add(&self.client, &args) {
                taken += size;
                if writes.is_full() {
                    self.finish_writes(&mut writes).await;
                }
                continue;
            }
            self.finish_writes(&mut writes).await;
            self.buffer.take_frame(taken);
            taken = 0;
            let frame = self.buffer.take_frame(size);
            let args = self.decoder.owned(frame);
            if let Flow::End = self.handle(args).await {
                break Next::End;
            }
            self.start_subscriptions();
            if self.out.len() > UNSENT_REPLIES_MAX_BYTES {
                self.send().await;
            }
            yield_if_needed().await;
        };
        self.finish_writes(&mut writes).await;
        self.buffer.take_frame(taken);
        self.client.front.clients.count_commands(count);
        self.client.note(now_ms);
        next
    }

    /// Whether an XADD or PUBLISH may join others: not within MULTI, nor where it is refused or answered silently.
    fn may_gather(&self) -> bool {
        self.client.reply_mode.get() == ReplyMode::On
            && self.client.transaction.borrow().is_none()
            && !self.client.is_in_subscriber_mode()
    }

    async fn finish_writes(&mut self, writes: &mut Writes) {
        if !writes.is_empty() {
            writes.finish(self.client.broker(), &mut self.out).await;
        }
    }

    /// Puts the replies on their way and waits until there is room for more.
    async fn send(&mut self) {
        let link = &self.client.link;
        link.queue_all(self.out.take());
        link.flush().await;
        // Somebody else may be sending: pushes to a subscriber whose socket is full.
        link.wait_while(|link| !link.is_ending() && link.unsent_bytes() > UNSENT_REPLIES_MAX_BYTES as u64)
            .await;
    }

    /// Pushes of a new subscription come behind its confirmation.
    fn start_subscriptions(&mut self) {
        if self.client.subscriptions.has_unstarted() {
            self.client.link.queue_all(self.out.take());
            self.client.link.flush_soon();
            self.client.subscriptions.start(&self.client);
        }
    }

    /// Carries out one command.
    async fn handle(&mut self, owned: OwnedArgs) -> Flow {
        if self.client.reply_mode.get() != ReplyMode::On {
            self.client.link.queue_all(self.out.take()); // what is taken back begins at the front
        }
        let reply_start = self.out.len();
        self.out.set_protocol(self.client.protocol());
        let flow = self.answer(&owned).await;
        match self.client.reply_mode.get() {
            ReplyMode::On => {}
            ReplyMode::Off => self.out.truncate(reply_start),
            ReplyMode::SkipNext => {
                self.out.truncate(reply_start);
                self.client.reply_mode.set(ReplyMode::SkipThis);
            }
            ReplyMode::SkipThis => {
                self.out.truncate(reply_start);
                self.client.reply_mode.set(ReplyMode::On);
            }
        }
        flow
    }

    async fn answer(&mut self, owned: &OwnedArgs) -> Flow {
        let client = self.client.clone();
        let args = owned.args();
        let row = match check(&client, &args) {
            Ok(Some(row)) => row,
            Ok(None) => return Flow::Continue, // an empty line
            // A browser was talked into sending something here; what follows is not meant for us either.
            Err(_) if is_of_http(&args) => {
                tracing::warn!(peer = %client.membership.entry.peer, "closing a connection: it speaks HTTP");
                return Flow::End;
            }
            Err(error) => {
                if let Some(transaction) = &mut *client.transaction.borrow_mut() {
                    transaction.is_broken = true;
                }
                self.out.error(&error.0);
                return Flow::Continue;
            }
        };
        tracing::trace!(client = client.id(), command = row.name, "command");
        client.note_command(row.name);
        if client.transaction.borrow().is_some() && !row.is_about_transactions() {
            match queue(&client, row, owned) {
                Ok(()) => self.out.simple("QUEUED"),
                Err(error) => self.out.error(&error.0),
            }
            return Flow::Continue;
        }
        let waits = row.may_block() && args.from(1).any(|word| word.eq_ignore_ascii_case(b"BLOCK"));
        if waits {
            // What was answered before must not wait with this command.
            client.link.queue_all(self.out.take());
            client.link.flush_soon();
        }
        let reply_start = self.out.len();
        let when_sent = RefCell::default();
        let mut call =
            Call { client: &client, args, out: &mut self.out, may_wait: true, when_sent: &when_sent };
        let result = if waits {
            match while_connected(row.run(&mut call), &mut self.buffer, &client).await {
                Some(result) => result,
                None => return Flow::End,
            }
        } else {
            row.run(&mut call).await
        };
        let flow = result.unwrap_or_else(|error| {
            self.out.truncate(reply_start);
            self.out.error(&error.0);
            Flow::Continue
        });
        for then in when_sent.take() {
            let mark = client.link.queue_all(self.out.take());
            client.link.flush_soon();
            then(mark);
        }
        flow
    }
}

/// The command that the words name, if it may be carried out now.
fn check(client: &Client, args: &Args<'_>) -> Result<Option<&'static CommandRow>, ErrorReply> {
    let Some(name) = args.get(0) else { return Ok(None) };
    let Some(row) = client.front.commands.find(name) else {
        return Err(super::command::unknown(args));
    };
    row.check_arity(args.len())?;
    if client.is_in_subscriber_mode() && !row.is_allowed_to_subscribers() {
        return Err(ErrorReply::err(format_args!(
            "Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
            row.name.to_ascii_lowercase()
        )));
    }
    Ok(Some(row))
}

/// Whether the words are a line of an HTTP request, as a page in a browser can make one.
fn is_of_http(args: &Args<'_>) -> bool {
    let name = args.get(0).unwrap_or_default();
    name.eq_ignore_ascii_case(b"POST") || name.eq_ignore_ascii_case(b"Host:")
}

/// Queues a command for EXEC.
fn queue(client: &Client, row: &CommandRow, owned: &OwnedArgs) -> Result<(), ErrorReply> {
    let mut transaction = client.transaction.borrow_mut();
    let Some(transaction) = &mut *transaction else { return Ok(()) };
    transaction.size_bytes += owned.size_bytes();
    let refusal = if !row.is_allowed_in_transactions() {
        ErrorReply::err(format_args!("{} is not allowed in transactions", row.name))
    } else if transaction.size_bytes > client.front.limits.transaction_bytes {
        transaction.commands.clear();
        ErrorReply::err("the transaction is larger than redis.query.buffer.max.bytes; send less, or raise it")
    } else {
        transaction.commands.push(owned.clone());
        return Ok(());
    };
    transaction.is_broken = true;
    Err(refusal)
}

/// What happened first while a command was waiting.
enum First<T> {
    Answered(T),
    Read(std::io::Result<usize>),
}

/// Waits for a command's answer, reading on meanwhile to notice a client that hangs up: then `None`.
async fn while_connected<T>(
    answering: impl Future<Output = T>,
    buffer: &mut ReceiveBuffer,
    client: &Rc<Client>,
) -> Option<T> {
    let mut answering = pin!(answering);
    if let Some(answer) = poll_once(answering.as_mut()).await {
        return Some(answer);
    }
    let _blocked = client.membership.entry.block();
    loop {
        if buffer.bytes().len() >= READ_AHEAD_MAX_BYTES {
            return Some(answering.await);
        }
        let answered = async { First::Answered(answering.as_mut().await) };
        let read = async { First::Read(buffer.fill(client.link.stream(), None).await) };
        match future::or(answered, read).await {
            First::Answered(answer) => return Some(answer),
            First::Read(Ok(0) | Err(_)) => return None,
            First::Read(Ok(_)) => {}
        }
    }
}
