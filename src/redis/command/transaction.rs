//! MULTI and EXEC: commands carried out one behind the other, with one reply for all.
//!
//! What it means here: the queued commands run in their order and none of this connection's in between. XADDs and
//! PUBLISHes that follow on each other and go to one partition are one record batch, up to 128 KiB: all of them are in
//! the log or none. Other clients' commands may run in between, and a command that fails takes nothing back, as in Redis.

use super::{Call, CommandResult, Flow, commands};
use crate::base::clock;
use crate::redis::client::Transaction;
use crate::redis::error_reply::ErrorReply;
use crate::redis::writes::Writes;

commands! { "transactions":
    "DISCARD" 1 (Fast NoMulti InTransaction) (0 0 0) "Forgets the queued commands." => discard;
    "EXEC" 1 (NoMulti InTransaction) (0 0 0) "Carries out the queued commands." => exec;
    "MULTI" 1 (Fast NoMulti InTransaction) (0 0 0) "Begins to queue commands." => multi;
    "UNWATCH" 1 (Fast) (0 0 0) "Does nothing: nothing is watched." => unwatch;
    "WATCH" -2 (Fast NoMulti InTransaction) (1 -1 1) "Refused: no command depends on a stream being unchanged." => watch;
}

async fn multi(call: &mut Call<'_>) -> CommandResult {
    let mut transaction = call.client.transaction.borrow_mut();
    if transaction.is_some() {
        return Err(ErrorReply::err("MULTI calls can not be nested"));
    }
    *transaction = Some(Transaction::default());
    drop(transaction);
    call.ok()
}

async fn discard(call: &mut Call<'_>) -> CommandResult {
    match call.client.transaction.take() {
        Some(_) => call.ok(),
        None => Err(ErrorReply::err("DISCARD without MULTI")),
    }
}

async fn watch(call: &mut Call<'_>) -> CommandResult {
    if call.client.transaction.borrow().is_some() {
        return Err(ErrorReply::err("WATCH inside MULTI is not allowed"));
    }
    Err(ErrorReply::err("WATCH is not supported: a log only grows, so there is nothing to compare"))
}

async fn unwatch(call: &mut Call<'_>) -> CommandResult {
    call.ok()
}

async fn exec(call: &mut Call<'_>) -> CommandResult {
    let Some(transaction) = call.client.transaction.take() else {
        return Err(ErrorReply::err("EXEC without MULTI"));
    };
    if transaction.is_broken {
        return Err(ErrorReply("EXECABORT Transaction discarded because of previous errors.".to_owned()));
    }
    let client = call.client;
    call.out.array(transaction.commands.len());
    let mut writes = Writes::alone(client, clock::now_ms());
    let mut flow = Flow::Continue;
    for owned in &transaction.commands {
        let args = owned.args();
        if writes.add(client, &args) {
            if writes.is_full() {
                writes.finish(client.broker(), call.out).await;
            }
            continue;
        }
        writes.finish(client.broker(), call.out).await;
        let reply_start = call.out.len();
        let Some(row) = args.get(0).and_then(|name| client.front.commands.find(name)) else { continue };
        let mut queued =
            Call { client, args, out: &mut *call.out, may_wait: false, when_sent: call.when_sent };
        match row.run(&mut queued).await {
            Ok(Flow::Continue) => {}
            Ok(Flow::End) => flow = Flow::End, // the others are carried out all the same
            Err(error) => {
                call.out.truncate(reply_start);
                call.out.error(&error.0);
            }
        }
    }
    writes.finish(client.broker(), call.out).await;
    Ok(flow)
}
