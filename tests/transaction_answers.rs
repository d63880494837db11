//! What a transaction coordinator and the partitions answer to producers of every kind, request by request. The
//! expectations are Apache Kafka's: `LOGSTREAMS_TEST_TARGET=kafka cargo test --release --test transaction_answers` holds
//! Kafka itself against them.

#![allow(clippy::disallowed_methods, reason = "the tests wait for a server, in real time")]

#[path = "golden/requests.rs"]
#[allow(dead_code, reason = "shared with the golden frames")]
mod requests;
mod support;

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::error::ResponseError as E;
use kafka_protocol::messages::{self as m, GroupId, ProducerId, TransactionalId};
use kafka_protocol::protocol::{HeaderVersion, Request};
use logstreams::record::{BatchBuilder, Compression};

use requests::{connect, name, text};
use support::modes::unique;
use support::process::PATIENCE;
use support::server::{Options, Server};

const NONE: i16 = 0;
/// What a client takes for "try again".
const RETRIABLE: [i16; 4] = [14, 15, 16, 51];

/// A connection and the topic that the test has to itself.
struct Kit {
    stream: TcpStream,
    server: Server,
    topic: String,
    id: String,
    group: String,
}

impl Kit {
    fn start() -> Kit {
        let options = Options { shards: 2, ..Options::default() }
            .set("transaction.abort.timed.out.transaction.cleanup.interval.ms", "500")
            .set("transaction.state.log.num.partitions", "3")
            .set("offsets.topic.num.partitions", "3");
        let server = Server::start(options);
        let stream = connect(server.bootstrap());
        let mut kit =
            Kit { stream, server, topic: unique("topic"), id: unique("id"), group: unique("group") };
        requests::create_topic(&mut kit.stream, &kit.topic, 3);
        for (key_type, key) in [(0, kit.group.clone()), (1, kit.id.clone())] {
            let request = m::FindCoordinatorRequest::default()
                .with_key_type(key_type)
                .with_coordinator_keys(vec![text(key)]);
            kit.insist(|kit| kit.ask(4, &request).coordinators[0].error_code);
        }
        kit
    }

    fn ask<R: Request>(&mut self, version: i16, request: &R) -> R::Response
    where
        R::Response: HeaderVersion,
    {
        requests::ask(&mut self.stream, version, request)
    }

    /// Asks until the answer is not "try again".
    fn insist(&mut self, ask: impl Fn(&mut Kit) -> i16) -> i16 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let code = ask(self);
            if !RETRIABLE.contains(&code) {
                return code;
            }
            assert!(Instant::now() < deadline, "told to try again too often: {code}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn init_once(&mut self, version: i16, timeout_ms: i32, present: (i64, i16)) -> (i16, i64, i16) {
        let mut request = m::InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(text(self.id.clone()))))
            .with_transaction_timeout_ms(timeout_ms);
        if version >= 3 {
            request = request.with_producer_id(ProducerId(present.0)).with_producer_epoch(present.1);
        }
        let reply = self.ask(version, &request);
        (reply.error_code, reply.producer_id.0, reply.producer_epoch)
    }

    fn init_with(&mut self, version: i16, timeout_ms: i32, present: (i64, i16)) -> (i16, i64, i16) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.init_once(version, timeout_ms, present);
            if !RETRIABLE.contains(&answer.0) || Instant::now() > deadline {
                return answer;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn init(&mut self) -> (i64, i16) {
        let (code, producer_id, epoch) = self.init_with(4, 60_000, (-1, -1));
        assert_eq!(code, NONE);
        (producer_id, epoch)
    }

    /// AddPartitionsToTxn for pairs of topic and partition.
    fn add(&mut self, version: i16, producer: (i64, i16), partitions: &[(&str, i32)]) -> Vec<i16> {
        let topics = partitions.iter().map(|(topic, partition)| {
            m::add_partitions_to_txn_request::AddPartitionsToTxnTopic::default()
                .with_name(name(*topic))
                .with_partitions(vec![*partition])
        });
        let request = m::AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(TransactionalId(text(self.id.clone())))
            .with_v3_and_below_producer_id(ProducerId(producer.0))
            .with_v3_and_below_producer_epoch(producer.1)
            .with_v3_and_below_topics(topics.collect());
        let results = self.ask(version, &request).results_by_topic_v3_and_below;
        let code = |topic: &str, partition: i32| {
            let found = results.iter().find(|result| &**result.name == topic).unwrap();
            let at = found.results_by_partition.iter().find(|result| result.partition_index == partition);
            at.unwrap().partition_error_code
        };
        partitions.iter().map(|(topic, partition)| code(topic, *partition)).collect()
    }

    fn add_own(&mut self, producer: (i64, i16), partition: i32) -> i16 {
        let topic = self.topic.clone();
        self.insist(|kit| kit.add(3, producer, &[(&topic, partition)])[0])
    }

    fn end_once(&mut self, version: i16, producer: (i64, i16), is_commit: bool) -> (i16, i64, i16) {
        let request = m::EndTxnRequest::default()
            .with_transactional_id(TransactionalId(text(self.id.clone())))
            .with_producer_id(ProducerId(producer.0))
            .with_producer_epoch(producer.1)
            .with_committed(is_commit);
        let reply = self.ask(version, &request);
        (reply.error_code, reply.producer_id.0, reply.producer_epoch)
    }

    fn end(&mut self, version: i16, producer: (i64, i16), is_commit: bool) -> (i16, i64, i16) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.end_once(version, producer, is_commit);
            if !RETRIABLE.contains(&answer.0) || Instant::now() > deadline {
                return answer;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Produces one record to a partition of the topic; `sequence` below 0 is for a producer that is not idempotent.
    fn produce(
        &mut self,
        version: i16,
        with_id: bool,
        producer: (i64, i16),
        sequence: i32,
        is_transactional: bool,
        partition: i32,
    ) -> (i16, i64) {
        let mut batch = BatchBuilder::new(Compression::None).with_producer(producer.0, producer.1, sequence);
        if is_transactional {
            batch = batch.transactional();
        }
        batch.append(1_700_000_000_000, None, Some(b"value"), std::iter::empty()).unwrap();
        let data = m::produce_request::PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(batch.finish().freeze()));
        let topic = m::produce_request::TopicProduceData::default()
            .with_name(name(self.topic.clone()))
            .with_partition_data(vec![data]);
        let id = with_id.then(|| TransactionalId(text(self.id.clone())));
        let request = m::ProduceRequest::default()
            .with_transactional_id(id)
            .with_acks(-1)
            .with_timeout_ms(30_000)
            .with_topic_data(vec![topic]);
        let reply = self.ask(version, &request);
        let partition = &reply.responses[0].partition_responses[0];
        (partition.error_code, partition.base_offset)
    }

    /// As a client of transaction version 2 does; until the last transaction's markers are out of the way.
    fn produce_two(&mut self, producer: (i64, i16), sequence: i32, partition: i32) -> (i16, i64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.produce(12, true, producer, sequence, true, partition);
            if answer.0 != E::NotEnoughReplicas.code() || Instant::now() > deadline {
                return answer;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn commit_offset(&mut self, version: i16, producer: (i64, i16), offset: i64) -> i16 {
        let partition = m::txn_offset_commit_request::TxnOffsetCommitRequestPartition::default()
            .with_committed_offset(offset);
        let topic = m::txn_offset_commit_request::TxnOffsetCommitRequestTopic::default()
            .with_name(name(self.topic.clone()))
            .with_partitions(vec![partition]);
        let request = m::TxnOffsetCommitRequest::default()
            .with_transactional_id(TransactionalId(text(self.id.clone())))
            .with_group_id(GroupId(text(self.group.clone())))
            .with_producer_id(ProducerId(producer.0))
            .with_producer_epoch(producer.1)
            .with_topics(vec![topic]);
        self.insist(|kit| kit.ask(version, &request).topics[0].partitions[0].error_code)
    }

    /// The committed offset and the error of partition 0.
    fn fetch_offset(&mut self, require_stable: bool) -> (i64, i16) {
        let topic = m::offset_fetch_request::OffsetFetchRequestTopics::default()
            .with_name(name(self.topic.clone()))
            .with_partition_indexes(vec![0]);
        let group = m::offset_fetch_request::OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text(self.group.clone())))
            .with_topics(Some(vec![topic]));
        let request =
            m::OffsetFetchRequest::default().with_groups(vec![group]).with_require_stable(require_stable);
        let reply = self.ask(8, &request);
        let partition = &reply.groups[0].topics[0].partitions[0];
        (partition.committed_offset, partition.error_code)
    }

    /// ListOffsets of the end of a partition.
    fn end_offset(&mut self, partition: i32, is_committed: bool) -> i64 {
        let asked = m::list_offsets_request::ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_timestamp(-1);
        let topic = m::list_offsets_request::ListOffsetsTopic::default()
            .with_name(name(self.topic.clone()))
            .with_partitions(vec![asked]);
        let request = m::ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_isolation_level(i8::from(is_committed))
            .with_topics(vec![topic]);
        self.ask(6, &request).topics[0].partitions[0].offset
    }

    /// (records, last stable offset, aborted transactions) of a fetch at READ_COMMITTED from the beginning.
    fn fetch_committed(&mut self, partition: i32) -> (usize, i64, Vec<(i64, i64)>) {
        let asked = m::fetch_request::FetchPartition::default()
            .with_partition(partition)
            .with_partition_max_bytes(1 << 20);
        let topic = m::fetch_request::FetchTopic::default()
            .with_topic(name(self.topic.clone()))
            .with_partitions(vec![asked]);
        let request = m::FetchRequest::default()
            .with_replica_id((-1).into())
            .with_max_wait_ms(0)
            .with_max_bytes(1 << 20)
            .with_isolation_level(1)
            .with_topics(vec![topic]);
        let reply = self.ask(11, &request);
        let data = &reply.responses[0].partitions[0];
        assert_eq!(data.error_code, NONE);
        let aborted = data.aborted_transactions.iter().flatten();
        (
            data.records.as_ref().map_or(0, Bytes::len),
            data.last_stable_offset,
            aborted.map(|aborted| (aborted.producer_id.0, aborted.first_offset)).collect(),
        )
    }

    /// (error, state, producer id, epoch, timeout, partitions) of the transactional id.
    fn describe(&mut self, id: &str) -> (i16, String, i64, i16, i32, Vec<i32>) {
        let request = m::DescribeTransactionsRequest::default()
            .with_transactional_ids(vec![TransactionalId(text(id.to_owned()))]);
        let reply = self.ask(0, &request);
        let state = &reply.transaction_states[0];
        let mut partitions: Vec<i32> =
            state.topics.iter().flat_map(|topic| topic.partitions.clone()).collect();
        partitions.sort_unstable();
        (
            state.error_code,
            state.transaction_state.to_string(),
            state.producer_id.0,
            state.producer_epoch,
            state.transaction_timeout_ms,
            partitions,
        )
    }

    fn own_state(&mut self) -> String {
        let id = self.id.clone();
        self.describe(&id).1
    }

    fn wait_for_state(&mut self, state: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.own_state() != state {
            assert!(Instant::now() < deadline, "still {} and not {state}", self.own_state());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn stop(mut self) {
        self.server.stop();
    }
}

#[test]
fn a_producer_gets_a_higher_epoch_each_time_and_fences_the_one_before() {
    let mut kit = Kit::start();
    let nobody = (-1, -1);
    let (producer_id, epoch) = kit.init();
    assert_eq!(epoch, 0);
    assert_eq!(kit.init(), (producer_id, 1));
    assert_eq!(kit.init_with(4, 60_000, (producer_id, 1)), (NONE, producer_id, 2), "goes on");
    assert_eq!(kit.init_with(4, 60_000, (producer_id, 1)), (NONE, producer_id, 2), "did not hear");
    assert_eq!(kit.init_with(4, 60_000, (producer_id, 0)).0, E::ProducerFenced.code());
    assert_eq!(kit.init_with(3, 60_000, (producer_id, 0)).0, E::InvalidProducerEpoch.code());
    assert_eq!(kit.init_with(4, 60_000, (producer_id + 1, 2)).0, E::ProducerFenced.code());
    assert_eq!(kit.init_with(4, 60_000, (producer_id, -1)).0, E::InvalidRequest.code());
    assert_eq!(kit.init_with(4, 60_000, (-1, 2)).0, E::InvalidRequest.code());
    assert_eq!(kit.init_with(4, 0, nobody).0, E::InvalidTransactionTimeout.code());
    assert_eq!(kit.init_with(4, 900_001, nobody).0, E::InvalidTransactionTimeout.code());
    assert_eq!(kit.init_with(0, 900_000, nobody), (NONE, producer_id, 3));
    kit.id = String::new();
    assert_eq!(kit.init_with(4, 60_000, nobody).0, E::InvalidRequest.code());
    kit.stop();
}

#[test]
fn the_first_kind_of_transactions_is_answered_as_by_kafka() {
    let mut kit = Kit::start();
    let topic = kit.topic.clone();
    let (producer_id, epoch) = kit.init();
    let producer = (producer_id, epoch);
    assert_eq!(kit.end(3, producer, true).0, E::InvalidTxnState.code(), "nothing was begun");
    assert_eq!(kit.end(3, producer, false).0, E::InvalidTxnState.code(), "nothing was begun");
    let wrong_id = (producer_id + 1, epoch);
    assert_eq!(kit.add(3, wrong_id, &[(&topic, 0)]), [E::InvalidProducerIdMapping.code()]);
    assert_eq!(kit.add(3, (producer_id, 7), &[(&topic, 0)]), [E::ProducerFenced.code()]);
    assert_eq!(kit.add(1, (producer_id, 7), &[(&topic, 0)]), [E::InvalidProducerEpoch.code()]);
    let codes = kit.add(3, producer, &[(&topic, 0), ("unknown", 0)]);
    assert_eq!(codes, [E::OperationNotAttempted.code(), E::UnknownTopicOrPartition.code()]);
    assert_eq!(kit.own_state(), "Empty");
    assert_eq!(kit.add_own(producer, 0), NONE);
    assert_eq!(kit.add_own(producer, 0), NONE, "it is in it already");
    assert_eq!(kit.add_own(producer, 1), NONE);
    let id = kit.id.clone();
    assert_eq!(kit.describe(&id), (NONE, "Ongoing".to_owned(), producer_id, epoch, 60_000, vec![0, 1]));
    assert_eq!(kit.end(3, wrong_id, true).0, E::InvalidProducerIdMapping.code());
    assert_eq!(kit.end(3, (producer_id, 7), true).0, E::ProducerFenced.code());
    assert_eq!(kit.end(1, (producer_id, 7), true).0, E::InvalidProducerEpoch.code());
    assert_eq!(kit.end(3, producer, true), (NONE, -1, -1));
    kit.wait_for_state("CompleteCommit");
    assert_eq!(kit.end(3, producer, true).0, NONE, "the same once more");
    assert_eq!(kit.end(3, producer, false).0, E::InvalidTxnState.code());
    assert_eq!(kit.add_own(producer, 2), NONE);
    assert_eq!(kit.end(0, producer, false).0, NONE);
    kit.wait_for_state("CompleteAbort");
    assert_eq!(kit.end(3, producer, true).0, E::InvalidTxnState.code());
    assert_eq!(kit.init(), (producer_id, epoch + 1), "the end of a transaction keeps the epoch");
    assert_eq!(kit.describe("nobody").0, E::TransactionalIdNotFound.code());
    assert_eq!(kit.describe("").0, E::InvalidRequest.code());
    kit.stop();
}

#[test]
fn the_second_kind_of_transactions_has_an_epoch_for_each() {
    let mut kit = Kit::start();
    let (id, epoch) = kit.init();
    assert_eq!(kit.produce_two((id, epoch), 0, 0), (NONE, 0));
    assert_eq!(kit.produce_two((id, epoch), 0, 0), (NONE, 0), "sent again");
    assert_eq!(kit.produce_two((id, epoch), 1, 0), (NONE, 1));
    assert_eq!(kit.own_state(), "Ongoing");
    assert_eq!(kit.end(5, (id, epoch), true), (NONE, id, epoch + 1));
    assert_eq!(kit.end(5, (id, epoch), true), (NONE, id, epoch + 1), "did not hear");
    assert_eq!(kit.end(5, (id, epoch), false).0, E::InvalidTxnState.code(), "changed its mind");
    assert_eq!(kit.produce_two((id, epoch), 2, 0).0, E::InvalidProducerEpoch.code());
    assert_eq!(kit.produce_two((id, epoch + 1), 5, 1).0, E::OutOfOrderSequenceNumber.code());
    assert_eq!(kit.produce_two((id, epoch + 1), 0, 0), (NONE, 3), "behind the marker");
    assert_eq!(kit.end(5, (id, epoch + 1), false), (NONE, id, epoch + 2));
    kit.wait_for_state("CompleteAbort");
    assert_eq!(kit.end(5, (id, epoch + 2), false), (NONE, id, epoch + 3), "nothing was written");
    kit.wait_for_state("CompleteAbort");
    assert_eq!(kit.end(5, (id, epoch + 3), true).0, E::InvalidTxnState.code(), "nothing was written");
    assert_eq!(kit.end(5, (id, epoch + 7), true).0, E::ProducerFenced.code());
    assert_eq!(kit.end(5, (id, epoch), true).0, E::ProducerFenced.code());
    assert_eq!(kit.end(5, (id + 1, epoch + 3), true).0, E::InvalidProducerIdMapping.code());

    // A newcomer has the open transaction aborted, and is to come again.
    assert_eq!(kit.produce_two((id, epoch + 3), 0, 2), (NONE, 0));
    assert_eq!(kit.init_once(4, 60_000, (-1, -1)).0, E::ConcurrentTransactions.code());
    assert_eq!(kit.init(), (id, epoch + 5));
    assert_eq!(kit.end(5, (id, epoch + 3), true).0, E::ProducerFenced.code());
    assert_eq!(kit.produce_two((id, epoch + 3), 1, 2).0, E::InvalidProducerEpoch.code());
    kit.stop();
}

#[test]
fn records_outside_of_a_transaction_are_refused() {
    let mut kit = Kit::start();
    let producer = kit.init();
    let fenced = E::InvalidProducerEpoch.code();
    let without_id = kit.produce(9, false, producer, 0, true, 0).0;
    assert_eq!(without_id, E::TransactionalIdAuthorizationFailed.code());
    assert_eq!(kit.produce(9, true, producer, 0, true, 0).0, E::InvalidTxnState.code(), "not added");
    assert_eq!(kit.produce(11, true, producer, 0, true, 0).0, E::TransactionAbortable.code(), "not added");
    assert_eq!(kit.add_own(producer, 0), NONE);
    assert_eq!(kit.produce(9, true, producer, 0, true, 0), (NONE, 0));
    assert_eq!(kit.produce(9, true, producer, 0, true, 1).0, E::InvalidTxnState.code(), "not this one");
    assert_eq!(kit.produce(9, true, producer, 1, false, 0).0, E::InvalidTxnState.code(), "while one is open");
    assert_eq!(kit.produce(9, true, (producer.0, 7), 0, true, 2).0, fenced, "the coordinator knows better");
    let wrong_id = (producer.0 + 1000, 0);
    assert_eq!(kit.produce(9, true, wrong_id, 0, true, 2).0, E::InvalidProducerIdMapping.code());
    assert_eq!(kit.end(3, producer, true).0, NONE);
    kit.wait_for_state("CompleteCommit");
    assert_eq!(kit.produce(9, true, producer, 1, true, 0).0, E::InvalidTxnState.code(), "it has ended");
    assert_eq!(kit.add_own(producer, 0), NONE);
    assert_eq!(kit.produce(9, true, producer, 1, true, 0), (NONE, 2));
    assert_eq!(kit.produce(9, true, producer, 5, true, 0).0, E::OutOfOrderSequenceNumber.code());
    let next = kit.init();
    assert_eq!(kit.produce(9, true, producer, 2, true, 0).0, fenced);
    assert_eq!(kit.add_own(next, 0), NONE);
    assert_eq!(kit.produce(9, true, next, 0, true, 0), (NONE, 4), "behind the abort marker");
    kit.stop();
}

#[test]
fn readers_see_what_is_committed_and_are_told_what_is_aborted() {
    let mut kit = Kit::start();
    let (id, epoch) = kit.init();
    let plain = kit.produce(9, false, (-1, -1), -1, false, 0);
    assert_eq!(plain, (NONE, 0));
    assert_eq!(kit.produce_two((id, epoch), 0, 0), (NONE, 1));
    assert_eq!((kit.end_offset(0, false), kit.end_offset(0, true)), (2, 1));
    let (_, stable, aborted) = kit.fetch_committed(0);
    assert_eq!((stable, aborted), (1, vec![]));
    assert_eq!(kit.end(5, (id, epoch), false).0, NONE);
    kit.wait_for_state("CompleteAbort");
    assert_eq!((kit.end_offset(0, false), kit.end_offset(0, true)), (3, 3));
    assert_eq!(kit.fetch_committed(0).2, [(id, 1)]);
    assert_eq!(kit.produce_two((id, epoch + 1), 0, 0), (NONE, 3));
    assert_eq!(kit.end(5, (id, epoch + 1), true).0, NONE);
    kit.wait_for_state("CompleteCommit");
    let (_, stable, aborted) = kit.fetch_committed(0);
    assert_eq!((stable, aborted), (5, vec![(id, 1)]));
    kit.stop();
}

#[test]
fn offsets_of_a_transaction_count_when_it_is_committed() {
    let mut kit = Kit::start();
    let (id, epoch) = kit.init();
    assert_eq!(kit.commit_offset(3, (id, epoch), 5), E::InvalidTxnState.code(), "not added");
    assert_eq!(kit.commit_offset(4, (id, epoch), 5), E::TransactionAbortable.code(), "not added");
    assert_eq!(kit.commit_offset(5, (id, epoch), 5), NONE);
    assert_eq!(kit.fetch_offset(false), (-1, NONE));
    assert_eq!(kit.fetch_offset(true), (-1, E::UnstableOffsetCommit.code()));
    assert_eq!(kit.end(5, (id, epoch), true).0, NONE);
    kit.wait_for_state("CompleteCommit");
    assert_eq!(kit.fetch_offset(true), (5, NONE));
    assert_eq!(kit.commit_offset(5, (id, epoch), 6), E::InvalidProducerEpoch.code());
    assert_eq!(kit.commit_offset(5, (id, epoch + 1), 7), NONE);
    assert_eq!(kit.fetch_offset(false), (5, NONE));
    assert_eq!(kit.fetch_offset(true), (-1, E::UnstableOffsetCommit.code()));
    assert_eq!(kit.end(5, (id, epoch + 1), false).0, NONE);
    kit.wait_for_state("CompleteAbort");
    assert_eq!(kit.fetch_offset(true), (5, NONE));

    let add = m::AddOffsetsToTxnRequest::default()
        .with_transactional_id(TransactionalId(text(kit.id.clone())))
        .with_producer_id(ProducerId(id))
        .with_producer_epoch(epoch + 2)
        .with_group_id(GroupId(text(kit.group.clone())));
    assert_eq!(kit.insist(|kit| kit.ask(0, &add).error_code), NONE);
    assert_eq!(kit.commit_offset(0, (id, epoch + 2), 8), NONE);
    assert_eq!(kit.end(1, (id, epoch + 2), true).0, NONE);
    kit.wait_for_state("CompleteCommit");
    assert_eq!(kit.fetch_offset(true), (8, NONE));
    kit.stop();
}

#[test]
fn a_transaction_that_takes_too_long_is_aborted() {
    let mut kit = Kit::start();
    let (code, id, epoch) = kit.init_with(4, 1_000, (-1, -1));
    assert_eq!(code, NONE);
    assert_eq!(kit.produce_two((id, epoch), 0, 0), (NONE, 0));
    kit.wait_for_state("CompleteAbort");
    assert_eq!(kit.fetch_committed(0).2, [(id, 0)]);
    assert_eq!(kit.produce_two((id, epoch), 1, 0).0, E::InvalidProducerEpoch.code());
    assert_eq!(kit.end(5, (id, epoch), true).0, E::InvalidTxnState.code());
    assert_eq!(kit.end(5, (id, epoch), false), (NONE, id, epoch + 1), "it is aborted, as wanted");
    assert_eq!(kit.end(3, (id, epoch), true).0, E::ProducerFenced.code());
    kit.stop();
}

#[test]
fn transactional_ids_are_listed_by_what_is_asked_for() {
    let mut kit = Kit::start();
    let (id, epoch) = kit.init();
    assert_eq!(kit.produce_two((id, epoch), 0, 0).0, NONE);
    let list = |kit: &mut Kit, request: m::ListTransactionsRequest| {
        let reply = kit.ask(2, &request);
        let unknown: Vec<String> = reply.unknown_state_filters.iter().map(ToString::to_string).collect();
        let listed: Vec<(i64, String)> = reply
            .transaction_states
            .iter()
            .map(|state| (state.producer_id.0, state.transaction_state.to_string()))
            .collect();
        (reply.error_code, listed, unknown)
    };
    let all = || m::ListTransactionsRequest::default().with_duration_filter(-1);
    let own = vec![(id, "Ongoing".to_owned())];
    assert_eq!(list(&mut kit, all()), (NONE, own.clone(), vec![]));
    let by_state = all().with_state_filters(vec![text("Ongoing"), text("Sleeping")]);
    assert_eq!(list(&mut kit, by_state), (NONE, own.clone(), vec!["Sleeping".to_owned()]));
    let by_no_state = all().with_state_filters(vec![text("Sleeping")]);
    assert_eq!(list(&mut kit, by_no_state), (NONE, vec![], vec!["Sleeping".to_owned()]));
    let by_other_state = all().with_state_filters(vec![text("Empty")]);
    assert_eq!(list(&mut kit, by_other_state).1, []);
    assert_eq!(list(&mut kit, all().with_producer_id_filters(vec![ProducerId(id)])).1, own);
    assert_eq!(list(&mut kit, all().with_producer_id_filters(vec![ProducerId(id + 1)])).1, []);
    assert_eq!(list(&mut kit, all().with_duration_filter(60_000)).1, []);
    let by_pattern = |pattern: &str| all().with_transactional_id_pattern(Some(text(pattern.to_owned())));
    assert_eq!(list(&mut kit, by_pattern("id-.*")).1, own);
    assert_eq!(list(&mut kit, by_pattern("id")).1, [], "a pattern is for the whole id");
    assert_eq!(list(&mut kit, by_pattern("")).1, own);
    assert_eq!(list(&mut kit, by_pattern("(")).0, E::InvalidRegularExpression.code());
    kit.stop();
}

#[test]
fn a_forgotten_transaction_can_be_ended_by_hand() {
    let mut kit = Kit::start();
    let (id, epoch) = kit.init();
    assert_eq!(kit.produce_two((id, epoch), 0, 0).0, NONE);
    let describe = |kit: &mut Kit| {
        let topic = m::describe_producers_request::TopicRequest::default()
            .with_name(name(kit.topic.clone()))
            .with_partition_indexes(vec![0]);
        let reply = kit.ask(0, &m::DescribeProducersRequest::default().with_topics(vec![topic]));
        let producer = &reply.topics[0].partitions[0].active_producers[0];
        (
            producer.producer_id.0,
            producer.producer_epoch,
            producer.last_sequence,
            producer.coordinator_epoch,
            producer.current_txn_start_offset,
        )
    };
    assert_eq!(describe(&mut kit), (id, i32::from(epoch), 0, -1, 0));
    let mark = |kit: &mut Kit, epoch: i16, topic: String| {
        let topic = m::write_txn_markers_request::WritableTxnMarkerTopic::default()
            .with_name(name(topic))
            .with_partition_indexes(vec![0]);
        let marker = m::write_txn_markers_request::WritableTxnMarker::default()
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(epoch)
            .with_topics(vec![topic]);
        let reply = kit.ask(1, &m::WriteTxnMarkersRequest::default().with_markers(vec![marker]));
        reply.markers[0].topics[0].partitions[0].error_code
    };
    let topic = kit.topic.clone();
    assert_eq!(mark(&mut kit, epoch, "unknown".to_owned()), E::UnknownTopicOrPartition.code());
    assert_eq!(kit.end_offset(0, true), 0);
    assert_eq!(mark(&mut kit, epoch, topic.clone()), NONE);
    assert_eq!(kit.end_offset(0, true), 2);
    assert_eq!(describe(&mut kit), (id, i32::from(epoch), 0, 0, -1));
    assert_eq!(kit.fetch_committed(0).2, [(id, 0)]);
    kit.stop();
}

#[test]
fn transaction_version_two_is_announced() {
    let mut kit = Kit::start();
    for version in [3, 4] {
        let request = m::ApiVersionsRequest::default()
            .with_client_software_name(text("test"))
            .with_client_software_version(text("1"));
        let reply = kit.ask(version, &request);
        let finalized =
            reply.finalized_features.iter().find(|it| &*it.name == "transaction.version").unwrap();
        assert_eq!((finalized.min_version_level, finalized.max_version_level), (2, 2));
        assert!(reply.finalized_features_epoch >= 0);
        let supported = reply.supported_features.iter().find(|it| &*it.name == "transaction.version");
        let levels = supported.map(|it| (it.min_version, it.max_version));
        assert_eq!(levels, if version >= 4 { Some((0, 2)) } else { None });
    }
    kit.stop();
}
