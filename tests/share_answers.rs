//! What ShareFetch gives within its limits, request by request.

#[path = "golden/requests.rs"]
#[allow(dead_code, reason = "shared with the golden frames")]
mod requests;
mod support;

use std::net::TcpStream;

use kafka_protocol::error::ResponseError as E;
use kafka_protocol::messages::{self as m, GroupId};
use logstreams::model::Uuid;

use requests::{SHARE_GROUP, SHARE_MEMBER, connect, encoded, text, with_bytes_behind_names};
use support::server::{Options, Server};

const NONE: i16 = 0;
const TOPIC: &str = "shared";
const PARTITIONS: i32 = 2;
const BATCHES: i64 = 3;
const MEBIBYTE: i32 = 1 << 20;
/// The resource type of a group's configs.
const GROUP_RESOURCE: i8 = 32;

/// A member of a share group that reads a topic from its begin, batches of one record in each partition.
struct Sharer {
    stream: TcpStream,
    topic_id: Uuid,
    epoch: i32,
}

impl Sharer {
    fn of(server: &Server) -> Sharer {
        let mut stream = connect(server.bootstrap());
        let topic_id = requests::create_topic(&mut stream, TOPIC, PARTITIONS);
        let config = m::incremental_alter_configs_request::AlterableConfig::default()
            .with_name(text("share.auto.offset.reset"))
            .with_value(Some(text("earliest")));
        let group = m::incremental_alter_configs_request::AlterConfigsResource::default()
            .with_resource_type(GROUP_RESOURCE)
            .with_resource_name(text(SHARE_GROUP))
            .with_configs(vec![config]);
        let alter = m::IncrementalAlterConfigsRequest::default().with_resources(vec![group]);
        assert_eq!(requests::ask(&mut stream, 1, &alter).responses[0].error_code, NONE);
        for partition in (0..PARTITIONS).flat_map(|partition| (0..BATCHES).map(move |_| partition)) {
            let mut batch = requests::batch(&[b'x'; 1000]);
            requests::seal(&mut batch);
            let body = requests::produce_body(TOPIC, partition, 1, Some(&batch));
            let produced = requests::ask_with::<m::ProduceRequest>(&mut stream, 8, 8, &body);
            assert_eq!(produced.responses[0].partition_responses[0].error_code, NONE);
        }
        Sharer { stream, topic_id, epoch: 0 }
    }

    /// How many records of each partition a fetch with these limits locks, or why it is refused.
    fn fetch(&mut self, max_bytes: i32, max_records: i32, is_renewal: bool) -> Result<Vec<i64>, i16> {
        let partition = |index| m::share_fetch_request::FetchPartition::default().with_partition_index(index);
        let topic = m::share_fetch_request::FetchTopic::default()
            .with_topic_id(self.topic_id)
            .with_partitions((0..PARTITIONS).map(partition).collect());
        let request = m::ShareFetchRequest::default()
            .with_group_id(Some(GroupId(text(SHARE_GROUP))))
            .with_member_id(Some(text(SHARE_MEMBER)))
            .with_share_session_epoch(self.epoch)
            .with_max_bytes(max_bytes)
            .with_max_records(max_records)
            .with_topics(vec![topic]);
        // Version 2 has the way of acquiring and whether locks are renewed behind six numbers.
        let (_, body) = with_bytes_behind_names(encoded(&request, 1), 6 * 4, &[0, u8::from(is_renewal)]);
        let reply = requests::ask_with::<m::ShareFetchRequest>(&mut self.stream, 2, 1, &body);
        if reply.error_code != NONE {
            return Err(reply.error_code);
        }
        self.epoch += 1;
        let mut locked = vec![0; usize::try_from(PARTITIONS).unwrap()];
        for told in reply.responses.iter().flat_map(|topic| &topic.partitions) {
            assert_eq!(told.error_code, NONE);
            let records = told.acquired_records.iter().map(|it| it.last_offset - it.first_offset + 1);
            locked[usize::try_from(told.partition_index).unwrap()] += records.sum::<i64>();
        }
        Ok(locked)
    }
}

#[test]
fn a_share_fetch_gives_no_more_than_it_was_asked_for() {
    let server = Server::start(Options { shards: 2, ..Options::default() });
    let mut sharer = Sharer::of(&server);
    assert_eq!(sharer.fetch(0, 100, false), Ok(vec![0, 0]), "no bytes are wanted");
    assert_eq!(sharer.fetch(MEBIBYTE, 0, false), Ok(vec![0, 0]), "no records are wanted");
    let first = sharer.fetch(1, 100, false).unwrap();
    assert_eq!(first.iter().sum::<i64>(), 1, "one batch comes whole, in one of the partitions: {first:?}");
    let second = sharer.fetch(1, 100, false).unwrap();
    assert_eq!(second.iter().sum::<i64>(), 1);
    assert_ne!(first, second, "the partitions take turns");
    assert_eq!(sharer.fetch(MEBIBYTE, 100, true), Err(E::InvalidRequest.code()), "renewing is not fetching");
    assert_eq!(sharer.fetch(0, 0, true), Ok(vec![0, 0]));
    assert_eq!(sharer.fetch(MEBIBYTE, 100, false), Ok(vec![BATCHES - 1; 2]), "all that is left");
}
