//! Transactions by hand, step by step. `tests/transaction_simulation.rs` runs them by seed, `tests/transaction_answers.rs`
//! holds the answers against Kafka's.

use super::*;
use crate::model::TopicName;
use crate::model::transaction::{AddPartitions, EndTransaction, IdPattern, InitProducerId, ListTransactions};

const NOW_MS: i64 = 1_700_000_000_000;
const TIMEOUT_MS: i32 = 60_000;
const TOKEN: ReplyToken = ReplyToken(7);

/// A coordinator whose appends end at once.
struct Desk {
    coordinator: TransactionCoordinator,
    next_producer_id: ProducerId,
    now_ms: i64,
    log: Vec<StateRecord>,
    orders: Vec<MarkerOrder>,
}

impl Desk {
    fn new() -> Self {
        Desk::with(TransactionSettings::default())
    }

    fn with(settings: TransactionSettings) -> Self {
        let mut coordinator = TransactionCoordinator::new(settings);
        assert!(coordinator.loaded(NOW_MS).is_empty());
        Desk { coordinator, next_producer_id: 100, now_ms: NOW_MS, log: Vec::new(), orders: Vec::new() }
    }

    fn ask(&mut self, request: TransactionRequest) -> TransactionReply {
        if self.coordinator.needs_producer_id() {
            self.coordinator.give_producer_id(self.next_producer_id);
            self.next_producer_id += 1;
        }
        let effects = self.coordinator.handle(TOKEN, request, self.now_ms);
        self.settle(effects).expect("an answer")
    }

    fn settle(&mut self, effects: Effects) -> Option<TransactionReply> {
        let mut reply = effects.replies.into_iter().map(|(_, reply)| reply).next();
        self.orders.extend(effects.markers);
        for (append, record) in effects.records {
            self.log.push(record);
            let effects = self.coordinator.appended(append, self.now_ms);
            reply = self.settle(effects).or(reply);
        }
        reply
    }

    fn write_markers(&mut self) {
        for order in std::mem::take(&mut self.orders) {
            let effects = self.coordinator.markers_written(&order, self.now_ms);
            assert_eq!(self.settle(effects), None);
        }
    }

    fn init(&mut self, id: &str) -> (ProducerId, ProducerEpoch) {
        let transactional_id = id.to_owned();
        let init = InitProducerId { transactional_id, timeout_ms: TIMEOUT_MS, present: None };
        match self.ask(TransactionRequest::InitProducerId(init)) {
            TransactionReply::InitProducerId(Ok(given)) => given,
            other => panic!("{other:?}"),
        }
    }

    fn add(
        &mut self,
        producer: (ProducerId, ProducerEpoch),
        version: TransactionVersion,
    ) -> TransactionReply {
        self.ask(TransactionRequest::AddPartitions(AddPartitions {
            transactional_id: "id".to_owned(),
            producer_id: producer.0,
            producer_epoch: producer.1,
            version,
            partitions: vec![TopicPartition::new(TopicName::new("t").unwrap(), 3)],
        }))
    }

    fn end(
        &mut self,
        producer: (ProducerId, ProducerEpoch),
        version: TransactionVersion,
        is_commit: bool,
    ) -> Result<(ProducerId, ProducerEpoch), TransactionError> {
        let end = EndTransaction {
            transactional_id: "id".to_owned(),
            producer_id: producer.0,
            producer_epoch: producer.1,
            version,
            is_commit,
        };
        match self.ask(TransactionRequest::End(end)) {
            TransactionReply::End(ended) => ended,
            other => panic!("{other:?}"),
        }
    }

    fn state(&self) -> TransactionState {
        self.coordinator.describe("id").unwrap().state
    }

    fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        let effects = self.coordinator.on_timer(self.now_ms);
        assert_eq!(self.settle(effects), None);
    }

    fn reload(&mut self) {
        let mut coordinator = TransactionCoordinator::new(TransactionSettings::default());
        for record in &self.log {
            coordinator.replay(&record.key, record.value.as_deref()).unwrap();
        }
        self.coordinator = coordinator;
        self.orders.clear();
        let effects = self.coordinator.loaded(self.now_ms);
        assert_eq!(self.settle(effects), None);
    }
}

const ADDED: TransactionReply = TransactionReply::AddPartitions(Ok(()));

#[test]
fn the_markers_of_a_decided_transaction_are_ordered_again_after_a_restart() {
    let mut desk = Desk::new();
    let producer = desk.init("id");
    assert_eq!(desk.add(producer, TransactionVersion::V2), ADDED);
    assert_eq!(desk.end(producer, TransactionVersion::V2, true), Ok((producer.0, 1)));
    let ordered = desk.orders.clone();
    assert_eq!((ordered.len(), ordered[0].is_commit, ordered[0].producer_epoch), (1, true, 1));
    desk.reload();
    assert_eq!(desk.orders, ordered);
    desk.write_markers();
    assert_eq!(desk.state(), TransactionState::CompleteCommit);
    assert!(desk.coordinator.markers_written(&ordered[0], NOW_MS).is_empty(), "an old order");
    desk.reload();
    assert_eq!((desk.state(), desk.orders.len()), (TransactionState::CompleteCommit, 0));
}

#[test]
fn a_producer_that_has_used_up_its_epochs_goes_on_with_a_new_id() {
    let mut desk = Desk::new();
    let mut producer = desk.init("id");
    for _ in 0..i16::MAX - 1 {
        assert_eq!(desk.add(producer, TransactionVersion::V2), ADDED);
        producer = desk.end(producer, TransactionVersion::V2, true).unwrap();
        desk.write_markers();
    }
    assert_eq!(producer, (100, i16::MAX - 1));
    assert_eq!(desk.add(producer, TransactionVersion::V2), ADDED);
    let (new_id, epoch) = desk.end(producer, TransactionVersion::V2, true).unwrap();
    assert!(new_id > 100 && epoch == 0);
    assert_eq!((desk.orders[0].producer_id, desk.orders[0].producer_epoch), (100, i16::MAX));
    desk.write_markers();
    assert_eq!(desk.end(producer, TransactionVersion::V2, true), Ok((new_id, 0)), "did not hear");
    assert_eq!(desk.add((new_id, 0), TransactionVersion::V2), ADDED);
    let refused = Err(TransactionError::InvalidProducerIdMapping);
    assert_eq!(desk.end(producer, TransactionVersion::V2, true), refused);
}

#[test]
fn a_transaction_lives_as_long_as_its_producer_said() {
    let mut desk = Desk::new();
    let producer = desk.init("id");
    assert_eq!(desk.add(producer, TransactionVersion::V0), ADDED);
    desk.pass(i64::from(TIMEOUT_MS) - 1);
    assert_eq!(desk.state(), TransactionState::Ongoing);
    desk.pass(1);
    assert_eq!(desk.state(), TransactionState::PrepareAbort);
    assert_eq!((desk.orders[0].is_commit, desk.orders[0].producer_epoch), (false, 1));
    let busy = Err(TransactionError::ProducerFenced);
    assert_eq!(desk.end(producer, TransactionVersion::V0, true), busy);
    desk.write_markers();
    assert_eq!(desk.state(), TransactionState::CompleteAbort);
    desk.pass(i64::from(TIMEOUT_MS) * 2);
    assert_eq!((desk.state(), desk.orders.len()), (TransactionState::CompleteAbort, 0));
}

#[test]
fn an_id_to_which_nothing_happens_is_forgotten() {
    let kept_ms = TransactionSettings::default().transactional_id_expiration_ms;
    let mut desk = Desk::new();
    let first = desk.init("id");
    desk.pass(kept_ms - 1);
    assert_eq!(desk.init("id"), (first.0, 1), "this has kept it");
    desk.pass(kept_ms - 1);
    assert_eq!(desk.coordinator.transactional_id_count(), 1);
    desk.pass(1);
    assert_eq!(desk.coordinator.transactional_id_count(), 0);
    assert_eq!(desk.coordinator.next_deadline_ms(), None);
    assert_eq!(desk.log.last().unwrap().value, None);
    let (id, epoch) = desk.init("id");
    assert!(id > first.0 && epoch == 0, "a new producer, since nobody knows how far the old one got");
}

#[test]
fn what_cannot_be_stored_is_not_so_and_a_decided_outcome_is_tried_again() {
    let mut desk = Desk::new();
    let producer = desk.init("id");
    assert_eq!(desk.add(producer, TransactionVersion::V2), ADDED);
    let end = EndTransaction {
        transactional_id: "id".to_owned(),
        producer_id: producer.0,
        producer_epoch: producer.1,
        version: TransactionVersion::V2,
        is_commit: true,
    };
    let effects = desk.coordinator.handle(TOKEN, TransactionRequest::End(end), NOW_MS);
    assert!(effects.replies.is_empty() && effects.markers.is_empty(), "nothing precedes the log");
    let busy = TransactionReply::AddPartitions(Err(TransactionError::ConcurrentTransactions));
    assert_eq!(desk.add(producer, TransactionVersion::V2), busy);
    let error = TransactionError::CoordinatorNotAvailable;
    let failed = desk.coordinator.append_failed(effects.records[0].0, error, NOW_MS);
    assert_eq!(failed.replies, [(TOKEN, TransactionReply::End(Err(error)))]);
    assert_eq!(desk.state(), TransactionState::Ongoing);

    assert_eq!(desk.end(producer, TransactionVersion::V2, true), Ok((producer.0, 1)));
    let order = desk.orders.pop().unwrap();
    let effects = desk.coordinator.markers_written(&order, desk.now_ms);
    let failed = desk.coordinator.append_failed(effects.records[0].0, error, desk.now_ms);
    assert!(failed.is_empty());
    assert_eq!(desk.state(), TransactionState::PrepareCommit);
    desk.pass(RETRY_MS);
    assert_eq!(desk.state(), TransactionState::CompleteCommit);
}

#[test]
fn nobody_is_served_before_the_log_is_read_and_nobody_is_left_waiting_at_the_end() {
    let mut coordinator = TransactionCoordinator::new(TransactionSettings::default());
    coordinator.give_producer_id(1);
    let init = InitProducerId { transactional_id: "id".to_owned(), timeout_ms: 1, present: None };
    let request = TransactionRequest::InitProducerId(init);
    let answer = |error| [(TOKEN, TransactionReply::InitProducerId(Err(error)))];
    let effects = coordinator.handle(TOKEN, request.clone(), NOW_MS);
    assert_eq!(effects.replies, answer(TransactionError::CoordinatorLoadInProgress));
    assert!(coordinator.list(&ListTransactions::default(), NOW_MS).is_err());
    assert!(coordinator.loaded(NOW_MS).is_empty());
    let waiting = coordinator.handle(TOKEN, request, NOW_MS);
    assert!(waiting.replies.is_empty());
    let closed = coordinator.close(TransactionError::NotCoordinator);
    assert_eq!(closed.replies, answer(TransactionError::NotCoordinator));
    assert!(coordinator.appended(waiting.records[0].0, NOW_MS).is_empty());
}

#[test]
fn new_ids_beyond_the_limit_are_refused_and_known_ones_served() {
    let mut desk =
        Desk::with(TransactionSettings { transactional_ids_max: 1, ..TransactionSettings::default() });
    desk.init("id");
    let transactional_id = "other".to_owned();
    let init = InitProducerId { transactional_id, timeout_ms: TIMEOUT_MS, present: None };
    let refused = TransactionReply::InitProducerId(Err(TransactionError::TransactionalIdsMaxReached));
    assert_eq!(desk.ask(TransactionRequest::InitProducerId(init)), refused);
    assert_eq!(desk.init("id").1, 1);
    let wanted =
        ListTransactions { longer_than_ms: -1, pattern: IdPattern::new("i."), ..ListTransactions::default() };
    assert_eq!(desk.coordinator.list(&wanted, NOW_MS).unwrap().len(), 1);
}

#[test]
fn a_newer_producer_of_the_old_kind_does_not_lend_its_epoch_to_the_one_before() {
    let mut desk = Desk::new();
    let old = desk.init("id");
    let new = desk.init("id");
    assert_eq!(desk.add(new, TransactionVersion::V0), ADDED);
    assert_eq!(desk.end(new, TransactionVersion::V0, false), Ok(new));
    desk.write_markers();
    let fenced = Err(TransactionError::ProducerFenced);
    assert_eq!(desk.end(old, TransactionVersion::V2, false), fenced);
}
