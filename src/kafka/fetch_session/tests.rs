//! Sessions as a client sees them: what it sends, what it is told.

use std::time::{Duration, Instant};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::{FetchRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::{EVICTABLE_AFTER, FetchSessionCache, NO_SESSION, Resolved, Told};
use crate::base::clock;

const VERSION: i16 = 12;
const TOPIC_ID_VERSION: i16 = 13;

fn topic_name() -> TopicName {
    TopicName(StrBytes::from_static_str("orders"))
}

/// A request of the session and epoch for (partition, offset).
fn request(session_id: i32, session_epoch: i32, partitions: &[(i32, i64)]) -> FetchRequest {
    let partitions = partitions.iter().map(|(partition, offset)| {
        FetchPartition::default().with_partition(*partition).with_fetch_offset(*offset)
    });
    let topic = FetchTopic::default().with_topic(topic_name()).with_partitions(partitions.collect());
    FetchRequest::default()
        .with_session_id(session_id)
        .with_session_epoch(session_epoch)
        .with_topics(vec![topic])
}

fn forget(request: FetchRequest, partitions: &[i32]) -> FetchRequest {
    let topic = ForgottenTopic::default().with_topic(topic_name()).with_partitions(partitions.to_vec());
    request.with_forgotten_topics_data(vec![topic])
}

fn quiet(high_watermark: i64) -> Told {
    Told { is_error: false, high_watermark, log_start_offset: 0, records_bytes: 0 }
}

fn partitions(resolved: &Resolved) -> Vec<i32> {
    resolved.wanted.iter().map(|wanted| wanted.partition).collect()
}

struct Client {
    cache: FetchSessionCache,
    now: Instant,
}

impl Client {
    fn new(slots: usize) -> Self {
        Client { cache: FetchSessionCache::new(slots), now: clock::monotonic() }
    }

    fn resolve(&mut self, request: &FetchRequest) -> Result<Resolved, ResponseError> {
        self.cache.resolve(request, VERSION, self.now)
    }

    /// Sends and gets the answer: partitions served in order, session id, which of them are in the reply.
    fn fetch(
        &mut self,
        request: &FetchRequest,
        told: &[Told],
    ) -> Result<(Vec<i32>, i32, Vec<bool>), ResponseError> {
        let resolved = self.resolve(request)?;
        let (session_id, belongs) = self.cache.complete(&resolved, told, VERSION, self.now)?;
        Ok((partitions(&resolved), session_id, belongs))
    }

    /// A session of these partitions at high watermark 5.
    fn begin(&mut self, wanted: &[(i32, i64)]) -> i32 {
        let told = vec![quiet(5); wanted.len()];
        let (_, id, belongs) = self.fetch(&request(0, 0, wanted), &told).unwrap();
        assert_eq!(belongs, vec![true; wanted.len()]);
        id
    }
}

#[test]
fn a_session_tells_only_news() {
    let mut client = Client::new(10);
    let id = client.begin(&[(0, 0), (1, 0), (2, 0)]);
    assert!(id > NO_SESSION);
    // Nothing named, nothing new: nothing told.
    let told = [quiet(5), quiet(5), quiet(5)];
    let (served, same, belongs) = client.fetch(&request(id, 1, &[]), &told).unwrap();
    assert_eq!((served, same, belongs), (vec![0, 1, 2], id, vec![false; 3]));
    // A new high watermark and an error are news; the error again and its end as well.
    let error = Told { is_error: true, high_watermark: -1, log_start_offset: -1, records_bytes: 0 };
    let (_, _, belongs) = client.fetch(&request(id, 2, &[]), &[quiet(6), error, quiet(5)]).unwrap();
    assert_eq!(belongs, [true, true, false]);
    let (_, _, belongs) = client.fetch(&request(id, 3, &[]), &[quiet(6), error, quiet(5)]).unwrap();
    assert_eq!(belongs, [false, true, false]);
    let (_, _, belongs) = client.fetch(&request(id, 4, &[]), &[quiet(6), quiet(5), quiet(5)]).unwrap();
    assert_eq!(belongs, [false, true, false]);
}

#[test]
fn a_partition_that_gave_records_goes_to_the_end() {
    let mut client = Client::new(10);
    let id = client.begin(&[(0, 0), (1, 0), (2, 0)]);
    let full = Told { records_bytes: 100, ..quiet(5) };
    let (served, _, belongs) = client.fetch(&request(id, 1, &[]), &[full, quiet(5), quiet(5)]).unwrap();
    assert_eq!((served, belongs), (vec![0, 1, 2], vec![true, false, false]));
    let resolved = client.resolve(&request(id, 2, &[(0, 7)])).unwrap();
    assert_eq!(partitions(&resolved), [1, 2, 0]);
    assert_eq!(resolved.wanted[2].offset, 7, "the client's new offset is remembered");
}

#[test]
fn partitions_come_and_go_and_an_empty_session_ends() {
    let mut client = Client::new(10);
    let id = client.begin(&[(0, 0), (1, 0)]);
    let (served, ..) = client.fetch(&forget(request(id, 1, &[(7, 3)]), &[0]), &[quiet(5), quiet(5)]).unwrap();
    assert_eq!(served, [1, 7]);
    let (served, session_id, _) = client.fetch(&forget(request(id, 2, &[]), &[1, 7, 99]), &[]).unwrap();
    assert_eq!((served, session_id), (vec![], NO_SESSION));
    assert_eq!(client.resolve(&request(id, 3, &[])).unwrap_err(), ResponseError::FetchSessionIdNotFound);
    assert_eq!((client.cache.len(), client.cache.partitions), (0, 0));
}

#[test]
fn wrong_ids_epochs_and_ways_of_naming_topics_are_refused() {
    let mut client = Client::new(10);
    let id = client.begin(&[(0, 0)]);
    assert_eq!(client.resolve(&request(id ^ 1, 1, &[])).unwrap_err(), ResponseError::FetchSessionIdNotFound);
    assert_eq!(client.resolve(&request(id, 2, &[])).unwrap_err(), ResponseError::InvalidFetchSessionEpoch);
    let by_id = client.cache.resolve(&request(id, 1, &[]), TOPIC_ID_VERSION, client.now);
    assert_eq!(by_id.unwrap_err(), ResponseError::FetchSessionTopicIdError);
    // Two fetches at once: the one that was overtaken is told so.
    let slow = client.resolve(&request(id, 1, &[])).unwrap();
    client.resolve(&request(id, 2, &[])).unwrap();
    let told = [quiet(5)];
    let overtaken = client.cache.complete(&slow, &told, VERSION, client.now);
    assert_eq!(overtaken.unwrap_err(), ResponseError::InvalidFetchSessionEpoch);
}

#[test]
fn a_full_fetch_replaces_a_session_and_a_final_one_ends_it() {
    let mut client = Client::new(10);
    let first = client.begin(&[(0, 0)]);
    let (_, second, _) = client.fetch(&request(first, 0, &[(0, 0)]), &[quiet(5)]).unwrap();
    assert_ne!(first, second);
    assert_eq!(client.cache.len(), 1);
    let (_, none, belongs) = client.fetch(&request(second, -1, &[(0, 0)]), &[quiet(5)]).unwrap();
    assert_eq!((none, belongs, client.cache.len()), (NO_SESSION, vec![true], 0));
}

#[test]
fn slots_are_bounded_and_only_old_sessions_give_way() {
    let mut client = Client::new(2);
    let oldest = client.begin(&[(0, 0)]);
    client.now += Duration::from_secs(1);
    let newer = client.begin(&[(0, 0)]);
    assert_eq!(client.begin(&[(0, 0)]), NO_SESSION, "both are young");
    client.now += EVICTABLE_AFTER - Duration::from_secs(1);
    assert_ne!(client.begin(&[(0, 0)]), NO_SESSION);
    assert_eq!(client.cache.len(), 2);
    assert_eq!(client.resolve(&request(oldest, 1, &[])).unwrap_err(), ResponseError::FetchSessionIdNotFound);
    assert!(client.resolve(&request(newer, 1, &[])).is_ok());
    let mut none = Client::new(0);
    assert_eq!(none.begin(&[(0, 0)]), NO_SESSION);
}

#[test]
fn a_partition_named_twice_is_one() {
    let mut client = Client::new(10);
    let id = client.begin(&[(0, 0), (0, 4)]);
    let resolved = client.resolve(&request(id, 1, &[])).unwrap();
    assert_eq!(partitions(&resolved), [0]);
    assert_eq!(resolved.wanted[0].offset, 4);
}
