//! One request for every API and version that is served, and the way to send it. Shared by the golden frames and the
//! tests that speak bytes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{self as m, BrokerId, GroupId, ProducerId, ResponseHeader, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use logstreams::model::Uuid;

#[path = "transactions.rs"]
mod transactions;

/// The topic that the golden requests read; it has one batch in partition 0.
pub const TOPIC: &str = "golden";

/// The share group and its member.
pub const SHARE_GROUP: &str = "golden-shares";
pub const SHARE_MEMBER: &str = "golden-sharer";

/// The crate's last version of a share group's request, with what a later one has `skip` bytes behind the two names.
pub fn with_bytes_behind_names(request: (bool, BytesMut), skip: usize, bytes: &[u8]) -> (bool, BytesMut) {
    let (is_flexible, body) = request;
    let (head, rest) = body.split_at(1 + SHARE_GROUP.len() + 1 + SHARE_MEMBER.len() + skip);
    (is_flexible, BytesMut::from(&[head, bytes, rest].concat()[..]))
}

pub fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

pub fn name(name: impl Into<String>) -> TopicName {
    TopicName(text(name))
}

/// What a request may have to name that differs from run to run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known {
    /// The id of [`TOPIC`].
    pub topic_id: Uuid,
}

/// A batch of one uncompressed record, valid but for the CRC that `seal` puts in.
pub fn batch(value: &[u8]) -> BytesMut {
    let mut record = BytesMut::new();
    record.put_slice(&[0, 0, 0, 1]); // attributes, timestamp delta, offset delta, key length -1
    varint(&mut record, value.len());
    record.put_slice(value);
    record.put_u8(0); // headers
    let mut records = BytesMut::new();
    varint(&mut records, record.len());
    records.put_slice(&record);
    let mut batch = BytesMut::new();
    batch.put_i64(0);
    batch.put_i32(i32::try_from(49 + records.len()).unwrap());
    batch.put_i32(-1); // leader epoch
    batch.put_i8(2); // magic
    batch.put_u32(0); // CRC
    batch.put_i16(0); // attributes
    batch.put_i32(0); // last offset delta
    batch.put_i64(1_700_000_000_000);
    batch.put_i64(1_700_000_000_000);
    batch.put_i64(-1); // producer id
    batch.put_i16(-1); // producer epoch
    batch.put_i32(-1); // sequence
    batch.put_i32(1); // records
    batch.put_slice(&records);
    seal(&mut batch);
    batch
}

/// Puts the right CRC into a batch.
pub fn seal(batch: &mut BytesMut) {
    let crc = logstreams::base::crc32c::checksum(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// A signed varint of a length.
fn varint(bytes: &mut BytesMut, length: usize) {
    let mut out = Vec::new();
    logstreams::base::varint::write_i64(&mut out, i64::try_from(length).unwrap());
    bytes.put_slice(&out);
}

/// A whole request frame: size, header, body.
pub fn frame(key: i16, version: i16, correlation_id: i32, flexible: bool, body: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    frame.put_i16(key);
    frame.put_i16(version);
    frame.put_i32(correlation_id);
    frame.put_i16(6);
    frame.put_slice(b"golden");
    if flexible {
        frame.put_u8(0);
    }
    frame.put_slice(body);
    let size = i32::try_from(frame.len() - 4).unwrap();
    frame[..4].copy_from_slice(&size.to_be_bytes());
    frame
}

/// The request frame of an API and version with realistic contents.
pub fn request(key: i16, version: i16, known: Known) -> BytesMut {
    let (flexible, body) = body(key, version, known);
    frame(key, version, 7, flexible, &body)
}

pub fn encoded<R: Request>(request: &R, version: i16) -> (bool, BytesMut) {
    let mut body = BytesMut::new();
    request.encode(&mut body, version).unwrap_or_else(|error| panic!("key {} v{version}: {error}", R::KEY));
    (R::header_version(version) >= 2, body)
}

/// Version 10 of OffsetCommit and OffsetFetch, which the crate does not write: version 9 with the id of [`TOPIC`] in the
/// place of its name.
fn by_topic_id<R: Request>(request: &R, known: Known) -> (bool, BytesMut) {
    let (flexible, body) = encoded(request, 9);
    let length = u8::try_from(TOPIC.len() + 1).unwrap();
    let name = [&[length], TOPIC.as_bytes()].concat();
    let at = body.windows(name.len()).position(|window| window == name).unwrap();
    let mut by_id = BytesMut::from(&body[..at]);
    by_id.put_slice(known.topic_id.as_bytes());
    by_id.put_slice(&body[at + name.len()..]);
    (flexible, by_id)
}

fn body(key: i16, version: i16, known: Known) -> (bool, BytesMut) {
    let group = || GroupId(text(format!("golden-group-{key}-{version}")));
    match key {
        0 => {
            let partition = m::produce_request::PartitionProduceData::default()
                .with_records(Some(batch(b"golden record").freeze()));
            let topic = m::produce_request::TopicProduceData::default().with_partition_data(vec![partition]);
            let topic = if version >= 13 {
                topic.with_topic_id(known.topic_id)
            } else {
                topic.with_name(name(TOPIC))
            };
            let request = m::ProduceRequest::default().with_acks(1).with_timeout_ms(30_000);
            encoded(&request.with_topic_data(vec![topic]), version)
        }
        1 => {
            let partition = m::fetch_request::FetchPartition::default()
                .with_partition(0)
                .with_partition_max_bytes(1 << 20)
                .with_current_leader_epoch(-1);
            let topic = m::fetch_request::FetchTopic::default().with_partitions(vec![partition]);
            let topic = if version >= 13 {
                topic.with_topic_id(known.topic_id)
            } else {
                topic.with_topic(name(TOPIC))
            };
            let request = m::FetchRequest::default()
                .with_max_wait_ms(0)
                .with_min_bytes(1)
                .with_max_bytes(60) // less than a batch: the first comes whole, and no more
                .with_isolation_level(i8::from(version % 2 == 0))
                .with_session_epoch(-1)
                .with_topics(vec![topic]);
            encoded(&request, version)
        }
        2 => {
            let timestamps = match version {
                ..=6 => vec![-1, -2, 0],
                7 => vec![-3],
                8 | 9 => vec![-4],
                10 => vec![-5],
                _ => vec![-6],
            };
            let timestamp = timestamps[usize::try_from(version).unwrap() % timestamps.len()];
            let partition = m::list_offsets_request::ListOffsetsPartition::default()
                .with_timestamp(timestamp)
                .with_current_leader_epoch(-1);
            let topic = m::list_offsets_request::ListOffsetsTopic::default()
                .with_name(name(TOPIC))
                .with_partitions(vec![partition]);
            encoded(
                &m::ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]),
                version.min(10), // the crate's last; version 11 has its form
            )
        }
        3 => {
            let topic = |topic: &str| {
                m::metadata_request::MetadataRequestTopic::default().with_name(Some(name(topic)))
            };
            let mut topics = vec![topic(TOPIC), topic("not/legal"), topic("golden-unknown")];
            if version < 4 {
                topics.pop(); // it would be created
            }
            if version >= 12 {
                let by_id = m::metadata_request::MetadataRequestTopic::default().with_name(None);
                topics.push(by_id.clone().with_topic_id(known.topic_id));
                topics.push(by_id.with_topic_id(Uuid::from_u128(1)));
            }
            let request = m::MetadataRequest::default()
                .with_topics(Some(topics))
                .with_allow_auto_topic_creation(version < 4)
                .with_include_topic_authorized_operations(version >= 8);
            encoded(&request, version)
        }
        8 => {
            let partition = m::offset_commit_request::OffsetCommitRequestPartition::default()
                .with_committed_offset(1)
                .with_committed_metadata(Some(text("note")));
            let unknown = partition.clone().with_partition_index(99);
            let topic = m::offset_commit_request::OffsetCommitRequestTopic::default()
                .with_name(name(TOPIC))
                .with_partitions(vec![partition, unknown]);
            let request = m::OffsetCommitRequest::default()
                .with_group_id(group())
                .with_generation_id_or_member_epoch(-1)
                .with_topics(vec![topic]);
            if version >= 10 { by_topic_id(&request, known) } else { encoded(&request, version) }
        }
        9 => {
            let group = GroupId(text("golden-group-8-5")); // where OffsetCommit v5 has committed
            let request = if version < 8 {
                let topic = m::offset_fetch_request::OffsetFetchRequestTopic::default()
                    .with_name(name(TOPIC))
                    .with_partition_indexes(vec![0, 99]);
                m::OffsetFetchRequest::default().with_group_id(group).with_topics(Some(vec![topic]))
            } else {
                let topic = m::offset_fetch_request::OffsetFetchRequestTopics::default()
                    .with_name(name(TOPIC))
                    .with_partition_indexes(vec![0, 99]);
                let wanted = m::offset_fetch_request::OffsetFetchRequestGroup::default()
                    .with_group_id(group)
                    .with_topics(Some(vec![topic]));
                let unknown = m::offset_fetch_request::OffsetFetchRequestGroup::default()
                    .with_group_id(GroupId(text("golden-unknown")))
                    .with_topics(None);
                m::OffsetFetchRequest::default().with_groups(vec![wanted, unknown])
            };
            // Version 10 is version 9 with the id in the place of the name, as in OffsetCommit.
            if version >= 10 { by_topic_id(&request, known) } else { encoded(&request, version) }
        }
        10 => {
            let request = m::FindCoordinatorRequest::default();
            let request = if version < 4 {
                request.with_key(text("golden"))
            } else {
                request.with_coordinator_keys(vec![text("golden"), text("other")])
            };
            encoded(&request.with_key_type(i8::from(version == 5)), version)
        }
        11 => {
            let protocol = m::join_group_request::JoinGroupRequestProtocol::default()
                .with_name(text("range"))
                .with_metadata(Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]));
            let request = m::JoinGroupRequest::default()
                .with_group_id(group())
                .with_session_timeout_ms(10_000)
                .with_rebalance_timeout_ms(10_000)
                .with_protocol_type(text("consumer"))
                .with_protocols(vec![protocol]);
            // Static members need not come back with an id, so that the reply is a whole one.
            let instance = (version >= 5).then(|| text("instance"));
            encoded(&request.with_group_instance_id(instance), version)
        }
        12 => encoded(
            &m::HeartbeatRequest::default().with_group_id(group()).with_member_id(text("nobody")),
            version,
        ),
        13 => {
            let request = m::LeaveGroupRequest::default().with_group_id(group());
            let member = m::leave_group_request::MemberIdentity::default().with_member_id(text("nobody"));
            let request = if version < 3 {
                request.with_member_id(text("nobody"))
            } else {
                request.with_members(vec![member])
            };
            encoded(&request, version)
        }
        14 => {
            let assignment = m::sync_group_request::SyncGroupRequestAssignment::default()
                .with_member_id(text("nobody"))
                .with_assignment(Bytes::from_static(b"assigned"));
            let protocol = || (version >= 5).then(|| text("consumer"));
            let request = m::SyncGroupRequest::default()
                .with_group_id(group())
                .with_member_id(text("nobody"))
                .with_protocol_type(protocol())
                .with_protocol_name(protocol())
                .with_assignments(vec![assignment]);
            encoded(&request, version)
        }
        15 => {
            let groups = vec![GroupId(text("golden-group-8-5")), GroupId(text("golden-unknown"))];
            let request = m::DescribeGroupsRequest::default().with_groups(groups);
            encoded(&request.with_include_authorized_operations(version >= 3), version)
        }
        16 => {
            let mut request = m::ListGroupsRequest::default();
            if version >= 4 {
                request.states_filter = vec![text("Empty")];
            }
            encoded(&request, version)
        }
        18 => {
            let mut request = m::ApiVersionsRequest::default();
            if version >= 3 {
                request.client_software_name = text("golden");
                request.client_software_version = text("1.0");
            }
            encoded(&request, version)
        }
        19 => {
            let config = m::create_topics_request::CreatableTopicConfig::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("1000")));
            let topic = |topic: String| {
                m::create_topics_request::CreatableTopic::default()
                    .with_name(name(topic))
                    .with_num_partitions(3)
                    .with_replication_factor(1)
            };
            let topics = vec![
                topic(format!("golden-created-{version}")).with_configs(vec![config]),
                topic("not/legal".to_owned()),
                topic("twice".to_owned()),
                topic("twice".to_owned()),
                topic("too-many-replicas".to_owned()).with_replication_factor(2),
            ];
            let request = m::CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(10_000);
            encoded(&request, version)
        }
        20 => {
            let created = name(format!("golden-created-{}", version + 1));
            let request = m::DeleteTopicsRequest::default().with_timeout_ms(10_000);
            let request = if version < 6 {
                request.with_topic_names(vec![created, name("golden-unknown")])
            } else {
                let state = m::delete_topics_request::DeleteTopicState::default();
                request.with_topics(vec![
                    state.clone().with_name(Some(created)),
                    state.clone().with_name(None).with_topic_id(Uuid::from_u128(1)),
                    state.with_name(None),
                ])
            };
            encoded(&request, version)
        }
        21 => {
            let partition = |index| {
                m::delete_records_request::DeleteRecordsPartition::default()
                    .with_partition_index(index)
                    .with_offset(0)
            };
            let topic = m::delete_records_request::DeleteRecordsTopic::default()
                .with_name(name(TOPIC))
                .with_partitions(vec![partition(0), partition(99)]);
            encoded(&m::DeleteRecordsRequest::default().with_topics(vec![topic]), version)
        }
        22 => {
            let request = m::InitProducerIdRequest::default().with_transactional_id(None);
            let request = if version >= 3 {
                request.with_producer_id(ProducerId(-1)).with_producer_epoch(-1)
            } else {
                request
            };
            encoded(&request, version)
        }
        23 => {
            let partition = m::offset_for_leader_epoch_request::OffsetForLeaderPartition::default()
                .with_current_leader_epoch(-1)
                .with_leader_epoch(0);
            let unknown = partition.clone().with_partition(99);
            let topic = m::offset_for_leader_epoch_request::OffsetForLeaderTopic::default()
                .with_topic(name(TOPIC))
                .with_partitions(vec![partition, unknown]);
            encoded(&m::OffsetForLeaderEpochRequest::default().with_topics(vec![topic]), version)
        }
        24 => transactions::add_partitions(version),
        25 => transactions::add_offsets(version),
        26 => transactions::end(version),
        27 => transactions::write_markers(version),
        28 => transactions::commit_offsets(version),
        32 => {
            let resource = |kind, name: &str| {
                m::describe_configs_request::DescribeConfigsResource::default()
                    .with_resource_type(kind)
                    .with_resource_name(text(name))
                    .with_configuration_keys(Some(vec![text("retention.ms"), text("num.partitions")]))
            };
            let resources =
                vec![resource(2, TOPIC), resource(2, "golden-unknown"), resource(4, ""), resource(16, "x")];
            let request = m::DescribeConfigsRequest::default()
                .with_resources(resources)
                .with_include_synonyms(true)
                .with_include_documentation(version >= 3);
            encoded(&request, version)
        }
        33 => {
            let config = m::alter_configs_request::AlterableConfig::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("2000")));
            let resource = |name: &str| {
                m::alter_configs_request::AlterConfigsResource::default()
                    .with_resource_type(2)
                    .with_resource_name(text(name))
                    .with_configs(vec![config.clone()])
            };
            let resources = vec![resource(TOPIC), resource("golden-unknown")];
            encoded(&m::AlterConfigsRequest::default().with_resources(resources), version)
        }
        35 => {
            let topic = m::describe_log_dirs_request::DescribableLogDirTopic::default()
                .with_topic(name(TOPIC))
                .with_partitions(vec![0]);
            encoded(&m::DescribeLogDirsRequest::default().with_topics(Some(vec![topic])), version)
        }
        37 => {
            let topic = |topic: &str, count| {
                m::create_partitions_request::CreatePartitionsTopic::default()
                    .with_name(name(topic))
                    .with_count(count)
                    .with_assignments(None)
            };
            let topics = vec![
                topic("golden-grows", 2 + i32::from(version)),
                topic("golden-unknown", 2),
                topic(TOPIC, 1),
            ];
            encoded(&m::CreatePartitionsRequest::default().with_topics(topics), version)
        }
        42 => {
            let group = GroupId(text(format!("golden-group-8-{}", version + 2)));
            let groups = vec![group, GroupId(text("golden-unknown"))];
            encoded(&m::DeleteGroupsRequest::default().with_groups_names(groups), version)
        }
        44 => {
            let config = |key: &str, operation| {
                m::incremental_alter_configs_request::AlterableConfig::default()
                    .with_name(text(key))
                    .with_config_operation(operation)
                    .with_value(Some(text("3000")))
            };
            let resource = |name: &str, configs| {
                m::incremental_alter_configs_request::AlterConfigsResource::default()
                    .with_resource_type(2)
                    .with_resource_name(text(name))
                    .with_configs(configs)
            };
            let resources = vec![
                resource(TOPIC, vec![config("retention.ms", 0)]),
                resource("golden-unknown", vec![config("retention.ms", 0)]),
                resource("golden-grows", vec![config("no.such.config", 0)]),
            ];
            encoded(&m::IncrementalAlterConfigsRequest::default().with_resources(resources), version)
        }
        47 => {
            let partition = m::offset_delete_request::OffsetDeleteRequestPartition::default();
            let topic = m::offset_delete_request::OffsetDeleteRequestTopic::default()
                .with_name(name(TOPIC))
                .with_partitions(vec![partition.clone(), partition.with_partition_index(99)]);
            let group = GroupId(text("golden-group-8-5"));
            encoded(&m::OffsetDeleteRequest::default().with_group_id(group).with_topics(vec![topic]), version)
        }
        60 => encoded(
            &m::DescribeClusterRequest::default().with_include_cluster_authorized_operations(true),
            version,
        ),
        61 => {
            let topic = m::describe_producers_request::TopicRequest::default()
                .with_name(name(TOPIC))
                .with_partition_indexes(vec![0, 99]);
            encoded(&m::DescribeProducersRequest::default().with_topics(vec![topic]), version)
        }
        65 => transactions::describe(version),
        66 => transactions::list(version),
        29 => encoded(&m::DescribeAclsRequest::default(), version),
        30 => {
            let creation = m::create_acls_request::AclCreation::default();
            encoded(&m::CreateAclsRequest::default().with_creations(vec![creation; 2]), version)
        }
        31 => {
            let filter = m::delete_acls_request::DeleteAclsFilter::default();
            encoded(&m::DeleteAclsRequest::default().with_filters(vec![filter]), version)
        }
        43 => {
            let topic = |topic: &str| {
                m::elect_leaders_request::TopicPartitions::default()
                    .with_topic(name(topic))
                    .with_partitions(vec![0, 99])
            };
            let topics = vec![topic(TOPIC), topic("golden-nowhere")];
            encoded(&m::ElectLeadersRequest::default().with_topic_partitions(Some(topics)), version)
        }
        46 => encoded(&m::ListPartitionReassignmentsRequest::default().with_topics(None), version),
        48 => encoded(&m::DescribeClientQuotasRequest::default(), version),
        50 => {
            let user = m::describe_user_scram_credentials_request::UserName::default();
            let users = vec![user.with_name(text("golden-user"))];
            encoded(&m::DescribeUserScramCredentialsRequest::default().with_users(Some(users)), version)
        }
        55 => {
            let partition = m::describe_quorum_request::PartitionData::default();
            let topic = m::describe_quorum_request::TopicData::default()
                .with_topic_name(name("__cluster_metadata"))
                .with_partitions(vec![partition]);
            encoded(&m::DescribeQuorumRequest::default().with_topics(vec![topic]), version)
        }
        57 => {
            let update = |feature: &str, level| {
                m::update_features_request::FeatureUpdateKey::default()
                    .with_feature(text(feature))
                    .with_max_version_level(level)
            };
            let updates = match version {
                2 => vec![update("group.version", 1)],
                _ => vec![update("group.version", 1), update("golden.version", 3)],
            };
            encoded(&m::UpdateFeaturesRequest::default().with_feature_updates(updates), version)
        }
        68 => {
            let mut request = m::ConsumerGroupHeartbeatRequest::default()
                .with_group_id(GroupId(text(format!("golden-consumers-{version}"))))
                .with_member_id(text("golden-member"))
                .with_rebalance_timeout_ms(60_000)
                .with_subscribed_topic_names(Some(vec![name(TOPIC)]))
                .with_topic_partitions(Some(Vec::new()));
            if version >= 1 {
                request.subscribed_topic_regex = Some(text(TOPIC)); // one topic, since ids give the order of several
            }
            encoded(&request, version)
        }
        69 => {
            let known = GroupId(text(format!("golden-consumers-{version}")));
            let unknown = GroupId(text("golden-nobody"));
            let request = m::ConsumerGroupDescribeRequest::default()
                .with_group_ids(vec![known, unknown])
                .with_include_authorized_operations(true);
            encoded(&request, version)
        }
        74 => {
            let mut request = m::ListConfigResourcesRequest::default();
            if version >= 1 {
                request.resource_types = vec![2, 4];
            }
            encoded(&request, version)
        }
        76 => {
            let request = m::ShareGroupHeartbeatRequest::default()
                .with_group_id(GroupId(text(SHARE_GROUP)))
                .with_member_id(text(SHARE_MEMBER))
                .with_subscribed_topic_names(Some(vec![name(TOPIC)]));
            encoded(&request, version)
        }
        77 => {
            let ids = vec![GroupId(text(SHARE_GROUP)), GroupId(text("golden-nobody"))];
            let request = m::ShareGroupDescribeRequest::default().with_group_ids(ids);
            encoded(&request.with_include_authorized_operations(true), version)
        }
        78 => {
            let partition = m::share_fetch_request::FetchPartition::default();
            let topic = m::share_fetch_request::FetchTopic::default()
                .with_topic_id(known.topic_id)
                .with_partitions(vec![partition.clone(), partition.with_partition_index(99)]);
            let request = m::ShareFetchRequest::default()
                .with_group_id(Some(GroupId(text(SHARE_GROUP))))
                .with_member_id(Some(text(SHARE_MEMBER)))
                .with_max_bytes(1_000_000)
                .with_max_records(10)
                .with_batch_size(10)
                .with_topics(vec![topic]);
            // Behind six numbers: the way of acquiring, and whether locks are renewed.
            with_bytes_behind_names(encoded(&request, 1), 6 * 4, if version >= 2 { &[0, 0] } else { &[] })
        }
        79 => {
            let batch = m::share_acknowledge_request::AcknowledgementBatch::default()
                .with_first_offset(0)
                .with_last_offset(0)
                .with_acknowledge_types(vec![1]);
            let partition = m::share_acknowledge_request::AcknowledgePartition::default()
                .with_acknowledgement_batches(vec![batch]);
            let topic = m::share_acknowledge_request::AcknowledgeTopic::default()
                .with_topic_id(known.topic_id)
                .with_partitions(vec![partition]);
            let request = m::ShareAcknowledgeRequest::default()
                .with_group_id(Some(GroupId(text(SHARE_GROUP))))
                .with_member_id(Some(text(SHARE_MEMBER)))
                .with_share_session_epoch(i32::from(version))
                .with_topics(vec![topic]);
            // Behind the epoch: whether locks are renewed.
            with_bytes_behind_names(encoded(&request, 1), 4, if version >= 2 { &[0] } else { &[] })
        }
        90 => {
            let group =
                m::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup::default()
                    .with_group_id(GroupId(text(SHARE_GROUP)))
                    .with_topics(None);
            // Version 1 asks as version 0 does.
            encoded(&m::DescribeShareGroupOffsetsRequest::default().with_groups(vec![group]), 0)
        }
        91 => {
            let topic = m::alter_share_group_offsets_request::AlterShareGroupOffsetsRequestTopic::default()
                .with_topic_name(name(TOPIC));
            let request = m::AlterShareGroupOffsetsRequest::default().with_topics(vec![topic]);
            encoded(&request.with_group_id(GroupId(text(SHARE_GROUP))), version)
        }
        92 => {
            let topic = m::delete_share_group_offsets_request::DeleteShareGroupOffsetsRequestTopic::default()
                .with_topic_name(name(TOPIC));
            let request = m::DeleteShareGroupOffsetsRequest::default().with_topics(vec![topic]);
            encoded(&request.with_group_id(GroupId(text(SHARE_GROUP))), version)
        }
        75 => {
            let topic = |topic: &str| {
                m::describe_topic_partitions_request::TopicRequest::default().with_name(name(topic))
            };
            let request = m::DescribeTopicPartitionsRequest::default()
                .with_topics(vec![topic("golden-unknown"), topic("golden-grows"), topic(TOPIC)])
                .with_response_partition_limit(2)
                .with_cursor(None);
            encoded(&request, version)
        }
        _ => panic!("no request for api key {key}"),
    }
}

/// Sends bytes and reads one reply without its size; `None` when the server closes instead.
pub fn exchange(stream: &mut TcpStream, bytes: &[u8]) -> Option<Vec<u8>> {
    stream.write_all(bytes).ok()?;
    read_reply(stream)
}

/// Asks and decodes the answer.
pub fn ask<R: Request>(stream: &mut TcpStream, version: i16, request: &R) -> R::Response
where
    R::Response: HeaderVersion,
{
    ask_with::<R>(stream, version, version, &encoded(request, version).1)
}

/// Asks with a body of its own version and decodes the answer, which has the form of `reply_version`.
pub fn ask_with<R: Request>(
    stream: &mut TcpStream,
    version: i16,
    reply_version: i16,
    body: &[u8],
) -> R::Response
where
    R::Response: HeaderVersion,
{
    let flexible = R::header_version(reply_version) >= 2;
    let reply = exchange(stream, &frame(R::KEY, version, 7, flexible, body));
    let mut reply = Bytes::from(reply.expect("an answer"));
    ResponseHeader::decode(&mut reply, R::Response::header_version(reply_version)).unwrap();
    R::Response::decode(&mut reply, reply_version).unwrap()
}

/// Reads one reply without its size; `None` when the server closes instead.
pub fn read_reply(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut size = [0; 4];
    stream.read_exact(&mut size).ok()?;
    let mut reply = vec![0; usize::try_from(i32::from_be_bytes(size)).unwrap()];
    stream.read_exact(&mut reply).ok()?;
    Some(reply)
}

/// Connects with a time limit on every read.
pub fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Creates a topic; its id.
pub fn create_topic(stream: &mut TcpStream, topic: &str, partitions: i32) -> Uuid {
    let topic = m::create_topics_request::CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(1);
    let request = m::CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
    let created = &ask(stream, 7, &request).topics[0];
    assert_eq!(created.error_code, 0);
    created.topic_id
}

/// The body of a Produce, version 8, to one partition.
pub fn produce_body(topic: &str, partition: i32, acks: i16, records: Option<&[u8]>) -> BytesMut {
    let data = m::produce_request::PartitionProduceData::default()
        .with_index(partition)
        .with_records(records.map(Bytes::copy_from_slice));
    let topic = m::produce_request::TopicProduceData::default()
        .with_name(name(topic))
        .with_partition_data(vec![data]);
    let mut body = BytesMut::new();
    m::ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![topic])
        .encode(&mut body, 8)
        .unwrap();
    body
}
