//! The transactions that this shard coordinates: one coordinator for each partition of `__transaction_state` that it
//! owns.
//!
//! Carries out what the state machines ask for: records into the state log, markers into the partitions of
//! transactions that end (on whichever shards they are), replies, a timer for the next deadline.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ahash::AHashMap;

use super::state_log::{self, StateEntry, StateLog};
use super::{ControllerReply, ControllerRequest, Shard, ShardReply, ShardRequest};
use crate::base::clock;
use crate::config::Config;
use crate::coordinator::transaction::{
    AppendId, Effects, StateRecord, TransactionCoordinator, TransactionSettings, transaction_partition_for,
};
use crate::model::group::ReplyToken;
use crate::model::transaction::{
    ListTransactions, ListedTransaction, TransactionError, TransactionReply, TransactionRequest,
};
use crate::model::{PartitionIndex, ProducerId, TRANSACTION_STATE_TOPIC};
use crate::partition::Partition;
use crate::runtime::local::{Answer, Event, oneshot};
use crate::runtime::{spawn_detached, timeout};

/// The coordinators of one shard, by partition of the transaction state topic.
#[derive(Default)]
pub(super) struct Transactions {
    hosts: RefCell<BTreeMap<PartitionIndex, Rc<TransactionHost>>>,
    next_token: Cell<u64>,
    waiting: RefCell<AHashMap<ReplyToken, Answer<TransactionReply>>>,
    /// Some coordinator has had something to do, so a deadline may have moved and a change may be done.
    changed: Event,
    /// Producer ids that this shard may still give out: the next one and how many.
    producer_ids: Cell<(ProducerId, i64)>,
}

/// One coordinator and its state log.
pub(super) struct TransactionHost {
    pub(super) log: StateLog,
    pub(super) coordinator: RefCell<TransactionCoordinator>,
}

impl Shard {
    /// A producer id that nobody has. Each shard has a block of ids, recorded before the first of them is given, so that
    /// none is given twice.
    ///
    /// # Errors
    /// If the block of ids could not be recorded; none when shard 0 does not answer.
    pub async fn next_producer_id(self: &Rc<Self>) -> Result<ProducerId, Option<super::ControllerError>> {
        let (mut next, mut left) = self.transactions.producer_ids.get();
        if left == 0 {
            let reply = self.call(0, ShardRequest::Control(ControllerRequest::ProducerIds)).await;
            (next, left) = match reply {
                ShardReply::Controlled(ControllerReply::ProducerIds(block)) => block.map_err(Some)?,
                _ => return Err(None),
            };
        }
        self.transactions.producer_ids.set((next + 1, left - 1));
        Ok(next)
    }

    /// Asks the coordinator of the request's transactional id. With `wait_ms` a change under way is waited for that long
    /// before the request is refused for its sake: a producer of transaction version 2 goes on while the markers of its
    /// last transaction are still being written, and cannot know.
    pub(super) async fn ask_transaction(
        self: &Rc<Self>,
        request: TransactionRequest,
        wait_ms: u64,
    ) -> TransactionReply {
        let busy = request.refused(TransactionError::ConcurrentTransactions);
        let deadline = clock::monotonic() + Duration::from_millis(wait_ms);
        loop {
            // Before asking, so that a change in between is not missed.
            let changed = self.transactions.changed.wait();
            let reply = self.ask_transaction_once(&request).await;
            let left = deadline.saturating_duration_since(clock::monotonic());
            if reply != busy || left.is_zero() || self.is_stopping() {
                return reply;
            }
            timeout(left, changed).await;
        }
    }

    async fn ask_transaction_once(self: &Rc<Self>, request: &TransactionRequest) -> TransactionReply {
        let Some(host) = self.transaction_host(request.transactional_id()) else {
            return request.refused(TransactionError::NotCoordinator);
        };
        let may_need_id =
            matches!(request, TransactionRequest::InitProducerId(_) | TransactionRequest::End(_));
        while may_need_id && host.coordinator.borrow().needs_producer_id() {
            match self.next_producer_id().await {
                Ok(producer_id) => host.coordinator.borrow_mut().give_producer_id(producer_id),
                Err(error) => {
                    tracing::error!(?error, "no producer id can be given");
                    return request.refused(TransactionError::CoordinatorNotAvailable);
                }
            }
        }
        let number = self.transactions.next_token.get();
        self.transactions.next_token.set(number + 1);
        let token = ReplyToken(number);
        let (answer, awaited) = oneshot();
        self.transactions.waiting.borrow_mut().insert(token, answer);
        let effects = host.coordinator.borrow_mut().handle(token, request.clone(), clock::now_ms());
        self.carry_out_transaction(&host, effects);
        awaited.await.unwrap_or_else(|| request.refused(TransactionError::NotCoordinator))
    }

    /// The transactional ids of all coordinators of this shard that fit.
    pub(super) fn list_transactions(
        &self,
        wanted: &ListTransactions,
    ) -> Result<Vec<ListedTransaction>, TransactionError> {
        let mut listed = Vec::new();
        for host in self.transactions.hosts.borrow().values() {
            listed.extend(host.coordinator.borrow().list(wanted, clock::now_ms())?);
        }
        Ok(listed)
    }

    fn transaction_host(&self, transactional_id: &str) -> Option<Rc<TransactionHost>> {
        let image = self.image();
        let count = image.topic(TRANSACTION_STATE_TOPIC)?.partitions.len();
        let partition = transaction_partition_for(transactional_id, PartitionIndex::try_from(count).ok()?);
        self.transactions.hosts.borrow().get(&partition).cloned()
    }

    /// Sends replies, appends records, has markers written, and goes on with what all that brings.
    pub(super) fn carry_out_transaction(self: &Rc<Self>, host: &Rc<TransactionHost>, effects: Effects) {
        for (token, reply) in effects.replies {
            if let Some(answer) = self.transactions.waiting.borrow_mut().remove(&token) {
                answer.give(reply);
            }
        }
        for (append, record) in effects.records {
            self.append_transaction_record(host, append, record);
        }
        for order in effects.markers {
            let (shard, host) = (self.clone(), host.clone());
            spawn_detached(async move { shard.write_markers(&host, order).await });
        }
        self.transactions.changed.notify();
    }

    fn append_transaction_record(
        self: &Rc<Self>,
        host: &Rc<TransactionHost>,
        append: AppendId,
        record: StateRecord,
    ) {
        self.flusher.touch(host.log.partition().topic_partition());
        // The place in line is taken here, in the order of the verbs; a client that goes away does not stop it.
        let appending = host.log.append([(Some(record.key), record.value)], None);
        let (shard, host) = (self.clone(), host.clone());
        spawn_detached(async move {
            let appended = appending.await;
            let now_ms = clock::now_ms();
            let effects = match appended {
                Ok(_) => host.coordinator.borrow_mut().appended(append, now_ms),
                Err(error) => {
                    let partition = host.log.partition().topic_partition();
                    tracing::error!(%partition, %error, "cannot store the state of a transaction");
                    let error = TransactionError::CoordinatorNotAvailable;
                    host.coordinator.borrow_mut().append_failed(append, error, now_ms)
                }
            };
            shard.carry_out_transaction(&host, effects);
            shard.rewrite_transactions_if_grown(&host).await;
        });
    }

    /// Begins to coordinate the transactions of a state partition that has just been opened. A log that cannot be read
    /// to its end is not served, since epochs would go back and decided transactions be forgotten.
    pub(super) async fn load_transactions(self: &Rc<Self>, partition: Rc<Partition>) {
        let index = partition.topic_partition().partition;
        let coordinator = RefCell::new(TransactionCoordinator::new(settings(&self.config())));
        let host = Rc::new(TransactionHost { log: StateLog::new(partition), coordinator });
        // Known at once, so that clients hear "loading" and not "not here".
        self.transactions.hosts.borrow_mut().insert(index, host.clone());
        let partition = host.log.partition().topic_partition();
        let replayed = state_log::replay(host.log.partition(), |entry| {
            let StateEntry::Record { key: Some(key), value, .. } = entry else { return };
            if let Err(error) = host.coordinator.borrow_mut().replay(key, value) {
                tracing::error!(%partition, %error, "a record of the transaction state topic is skipped");
            }
        });
        if let Err(error) = replayed.await {
            tracing::error!(%partition, %error, "cannot load transactions; their producers have to wait until the log can \
                be read (restart the server once the cause is gone)");
            return;
        }
        let effects = host.coordinator.borrow_mut().loaded(clock::now_ms());
        self.carry_out_transaction(&host, effects);
    }

    /// Answers all who wait, because the server stops or the state topic is gone.
    pub(super) fn close_transactions(self: &Rc<Self>) {
        let hosts = std::mem::take(&mut *self.transactions.hosts.borrow_mut());
        for host in hosts.into_values() {
            let effects = host.coordinator.borrow_mut().close(TransactionError::NotCoordinator);
            self.carry_out_transaction(&host, effects);
        }
    }

    /// Serves the deadlines of all coordinators, each when it is due.
    pub(super) async fn run_transaction_timers(self: Rc<Self>) {
        let serve = |now_ms| {
            let hosts: Vec<_> = self.transactions.hosts.borrow().values().cloned().collect();
            let serve_one = |host: Rc<_>| self.serve_transaction_deadline(&host, now_ms);
            hosts.into_iter().filter_map(serve_one).min()
        };
        self.serve_deadlines(&self.transactions.changed, serve).await;
    }

    fn serve_transaction_deadline(self: &Rc<Self>, host: &Rc<TransactionHost>, now_ms: i64) -> Option<i64> {
        if host.coordinator.borrow().next_deadline_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            let effects = host.coordinator.borrow_mut().on_timer(now_ms);
            self.carry_out_transaction(host, effects);
        }
        host.coordinator.borrow().next_deadline_ms()
    }

    /// Rewrites the live state at the log's end and lets the rest go, once the log is mostly history.
    async fn rewrite_transactions_if_grown(self: &Rc<Self>, host: &Rc<TransactionHost>) {
        let coordinator = &host.coordinator;
        let live = || {
            let coordinator = coordinator.borrow();
            coordinator.snapshot().map(|record| (Some(record.key), record.value)).collect::<Vec<_>>()
        };
        host.log.rewrite_if_grown(|| coordinator.borrow().live_bytes(), live).await;
    }
}

fn settings(config: &Config) -> TransactionSettings {
    TransactionSettings {
        transaction_max_timeout_ms: config.transaction_max_timeout_ms,
        transactional_id_expiration_ms: config.transactional_id_expiration_ms,
        transactional_ids_max: config.transactional_ids_max,
    }
}
