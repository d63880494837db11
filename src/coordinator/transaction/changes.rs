//! The one change that a transactional id may have under way: proposed, appended, and only then so.
//!
//! Invariant: [`Transaction::value`] changes here and in `replay`, nowhere else, and only to what is in the log.

use std::sync::Arc;

use crate::model::group::ReplyToken;
use crate::model::transaction::{TransactionError, TransactionReply, TransactionState};
use crate::model::{NO_PRODUCER_EPOCH, NO_PRODUCER_ID, ProducerEpoch};

use super::schema::{self, TransactionValue};
use super::{Effects, MarkerOrder, RETRY_MS, StateRecord, TimerKey, Transaction, TransactionCoordinator};

/// Names one append of a record between its start and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendId(u64);

/// A change on its way to the log.
#[derive(Debug)]
pub(super) struct Pending {
    /// What will be so; none when the id is forgotten.
    pub(super) next: Option<TransactionValue>,
    pub(super) last_producer_epoch: ProducerEpoch,
    pub(super) then: Then,
}

/// What a change is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// A producer is given its id and epoch.
    GiveProducerId(ReplyToken),
    /// Partitions are in the transaction.
    AddPartitions(ReplyToken),
    /// A producer has ended its transaction.
    End(ReplyToken),
    /// A new producer had the transaction of the old one aborted, and is to come again.
    Fence(ReplyToken),
    /// The transaction took too long.
    TimeOut,
    /// All markers are written.
    Complete,
    /// The id is forgotten.
    Expire,
}

impl Pending {
    /// Answers who waits for the change, if anybody does.
    pub(super) fn refuse(&self, error: TransactionError, effects: &mut Effects) {
        match self.then {
            Then::GiveProducerId(token) | Then::Fence(token) => {
                effects.reply(token, TransactionReply::InitProducerId(Err(error)));
            }
            Then::AddPartitions(token) => effects.reply(token, TransactionReply::AddPartitions(Err(error))),
            Then::End(token) => effects.reply(token, TransactionReply::End(Err(error))),
            Then::TimeOut | Then::Complete | Then::Expire => {}
        }
    }
}

impl TransactionCoordinator {
    /// Sends a change of `id` to the log.
    pub(super) fn propose(&mut self, id: &Arc<str>, change: Pending, effects: &mut Effects) {
        let Some(transaction) = self.transactions.get_mut(id) else { return };
        assert!(transaction.pending.is_none(), "one change at a time");
        let append = AppendId(self.next_append);
        self.next_append += 1;
        let value = change.next.as_ref().map(TransactionValue::encode);
        effects.records.push((append, StateRecord { key: schema::key(id), value }));
        transaction.pending = Some(change);
        self.appends.insert(append, id.clone());
    }

    /// The record of `append` is in the log: what it says is so. An id that is not (or no longer) known changes nothing.
    pub fn appended(&mut self, append: AppendId, now_ms: i64) -> Effects {
        let mut effects = Effects::default();
        let Some((id, pending)) = self.take_pending(append) else { return effects };
        let Some(next) = pending.next else {
            self.forget(&id);
            return effects;
        };
        if let Some(transaction) = self.transactions.get_mut(&id) {
            transaction.value = next;
            transaction.last_producer_epoch = pending.last_producer_epoch;
            answer(transaction, pending.then, &mut effects);
        }
        self.entered(&id, now_ms, &mut effects);
        effects
    }

    /// The record of `append` could not be written: nothing has changed, and who waited is told `error`
    /// (CoordinatorNotAvailable makes clients try again). The record must not appear in the log behind later ones.
    pub fn append_failed(&mut self, append: AppendId, error: TransactionError, now_ms: i64) -> Effects {
        let mut effects = Effects::default();
        let Some((id, pending)) = self.take_pending(append) else { return effects };
        pending.refuse(error, &mut effects);
        let again_ms = now_ms.saturating_add(RETRY_MS);
        match pending.then {
            Then::Complete => self.timers.set(TimerKey::Completion(id), again_ms),
            Then::TimeOut => self.timers.set(TimerKey::Timeout(id), again_ms),
            Then::Expire => self.timers.set(TimerKey::Expiration(id), again_ms),
            Then::GiveProducerId(_) => {
                // A producer of which nothing was ever stored leaves no trace.
                let is_new = |it: &Transaction| it.value.producer_epoch == NO_PRODUCER_EPOCH;
                if self.transactions.get(&id).is_some_and(is_new) {
                    self.forget(&id);
                }
            }
            Then::AddPartitions(_) | Then::End(_) | Then::Fence(_) => {}
        }
        effects
    }

    fn take_pending(&mut self, append: AppendId) -> Option<(Arc<str>, Pending)> {
        let id = self.appends.remove(&append)?;
        let pending = self.transactions.get_mut(&id)?.pending.take()?;
        Some((id, pending))
    }

    /// Sets the timers of the state that `id` is in now, and orders the markers if its transaction has just ended.
    pub(super) fn entered(&mut self, id: &Arc<str>, now_ms: i64, effects: &mut Effects) {
        let Some(transaction) = self.transactions.get(id) else { return };
        let value = &transaction.value;
        let timeout = TimerKey::Timeout(id.clone());
        let expiration = TimerKey::Expiration(id.clone());
        match value.state {
            TransactionState::Ongoing => {
                self.timers.cancel(&expiration);
                self.timers.set(timeout, value.start_ms.saturating_add(i64::from(value.timeout_ms)));
            }
            TransactionState::PrepareCommit | TransactionState::PrepareAbort => {
                self.timers.cancel(&expiration);
                self.timers.cancel(&timeout);
                let markers = marker_order(transaction);
                if markers.partitions.is_empty() {
                    self.complete(id, now_ms, effects);
                } else {
                    effects.markers.push(markers);
                }
            }
            TransactionState::Empty
            | TransactionState::CompleteCommit
            | TransactionState::CompleteAbort
            | TransactionState::Dead => {
                self.timers.cancel(&timeout);
                let kept_ms = self.settings.transactional_id_expiration_ms;
                self.timers.set(expiration, value.last_update_ms.saturating_add(kept_ms));
            }
        }
    }

    /// All the markers of an order are in their partitions.
    pub fn markers_written(&mut self, order: &MarkerOrder, now_ms: i64) -> Effects {
        let mut effects = Effects::default();
        let is_current = |transaction: &Transaction| {
            transaction.value.state.is_prepared()
                && transaction.value.producer_id == order.producer_id
                && transaction.value.producer_epoch == order.producer_epoch
        };
        if self.transactions.get(&order.transactional_id).is_some_and(is_current) {
            self.complete(&order.transactional_id.clone(), now_ms, &mut effects);
        }
        effects
    }

    /// Stores that the transaction has ended everywhere. A producer whose epochs are used up has a new id from then on.
    pub(super) fn complete(&mut self, id: &Arc<str>, now_ms: i64, effects: &mut Effects) {
        let Some(transaction) = self.transactions.get(id) else { return };
        if !transaction.value.state.is_prepared() || transaction.pending.is_some() {
            return;
        }
        let mut next = transaction.value.clone();
        next.state = match next.state {
            TransactionState::PrepareCommit => TransactionState::CompleteCommit,
            _ => TransactionState::CompleteAbort,
        };
        next.previous_producer_id = next.producer_id;
        if next.next_producer_id != NO_PRODUCER_ID {
            next.producer_id = next.next_producer_id;
            next.producer_epoch = 0;
        }
        next.next_producer_id = NO_PRODUCER_ID;
        next.partitions.clear();
        next.last_update_ms = now_ms;
        let last_producer_epoch = transaction.last_producer_epoch;
        self.propose(id, Pending { next: Some(next), last_producer_epoch, then: Then::Complete }, effects);
    }

    /// Forgets an id to which nothing has happened for `transactional_id_expiration_ms`.
    pub(super) fn expire(&mut self, id: &Arc<str>, now_ms: i64, effects: &mut Effects) {
        let Some(transaction) = self.transactions.get(id) else { return };
        if transaction.is_busy() || transaction.value.state == TransactionState::Ongoing {
            return; // whatever is under way sets the timer again
        }
        let kept_ms = self.settings.transactional_id_expiration_ms;
        let due_ms = transaction.value.last_update_ms.saturating_add(kept_ms);
        if due_ms > now_ms {
            return self.timers.set(TimerKey::Expiration(id.clone()), due_ms);
        }
        let last_producer_epoch = transaction.last_producer_epoch;
        self.propose(id, Pending { next: None, last_producer_epoch, then: Then::Expire }, effects);
    }

    pub(super) fn forget(&mut self, id: &Arc<str>) {
        self.transactions.remove(id);
        self.timers.cancel(&TimerKey::Timeout(id.clone()));
        self.timers.cancel(&TimerKey::Expiration(id.clone()));
        self.timers.cancel(&TimerKey::Completion(id.clone()));
    }
}

/// Tells who asked for a change that it is so now.
fn answer(transaction: &Transaction, then: Then, effects: &mut Effects) {
    let value = &transaction.value;
    match then {
        Then::GiveProducerId(token) => {
            let given = Ok((value.producer_id, value.producer_epoch));
            effects.reply(token, TransactionReply::InitProducerId(given));
        }
        Then::Fence(token) => {
            let again = Err(TransactionError::ConcurrentTransactions);
            effects.reply(token, TransactionReply::InitProducerId(again));
        }
        Then::AddPartitions(token) => effects.reply(token, TransactionReply::AddPartitions(Ok(()))),
        Then::End(token) => {
            let going_on_with = if value.next_producer_id == NO_PRODUCER_ID {
                (value.producer_id, value.producer_epoch)
            } else {
                (value.next_producer_id, 0)
            };
            effects.reply(token, TransactionReply::End(Ok(going_on_with)));
        }
        Then::TimeOut | Then::Complete | Then::Expire => {}
    }
}

fn marker_order(transaction: &Transaction) -> MarkerOrder {
    let value = &transaction.value;
    MarkerOrder {
        transactional_id: transaction.id.clone(),
        producer_id: value.producer_id,
        producer_epoch: value.producer_epoch,
        is_commit: value.state == TransactionState::PrepareCommit,
        version: value.version,
        partitions: value.partitions.iter().cloned().collect(),
    }
}
