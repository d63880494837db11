//! Every API that is served, in one table: the protocol's own list of what this door can do.
//!
//! From a row follow the module, the [`ApiKey`], the answer to ApiVersions, the dispatch and the name in logs. A row
//! reads: key, name, module, versions, the first flexible version (KIP-482); `by hand` when the module frames its
//! messages itself. Add an API by adding its row and its file.
//! Versions are Apache Kafka 4.3's, as far as they are done here.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;

use bytes::BytesMut;
use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use super::connection::Work;
use super::frame::{self, Reply, RequestHeader};
use super::front::Front;
use super::share_session::ShareSessions;
use super::wire::Malformed;
use super::{decode_guard, error_code};
use crate::broker::{Broker, ConfigResource};
use crate::config::ConfigSource;
use crate::model::group::{
    DescribeModernGroup, DescribeModernGroupReply, GroupError, GroupReply, GroupRequest, ModernGroupState,
};
use crate::model::transaction::{TransactionError, TransactionReply, TransactionRequest};

pub(super) use api_versions::too_new as api_versions_too_new;
pub(super) use fetch::sample_reply as sample_fetch_reply;
pub(super) use produce::sample_reply as sample_produce_reply;

macro_rules! kafka_apis {
    ($($key:literal $name:ident $module:ident $min:literal..=$max:literal $flexible:literal $($hand:ident)*;)*) => {
        $(mod $module;)*

        /// An API that is served.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(super) enum ApiKey {
            $(#[doc = concat!("API key ", $key, ".")] $name = $key,)*
        }

        /// The table, by key.
        static API_ROWS: &[ApiRow] = &[
            $(ApiRow { key: ApiKey::$name, name: stringify!($name), min: $min, max: $max, flexible_from: $flexible },)*
        ];

        /// Hands a request to its API.
        ///
        /// # Errors
        /// A body that is no such message.
        pub(super) async fn answer(ctx: &RequestContext<'_>, body: BytesMut) -> Result<Answer, Malformed> {
            match ctx.header.row.key {
                $(ApiKey::$name => kafka_apis!(@call ctx, body, $module, $($hand)*),)*
            }
        }

        /// Decodes a request's body as [`answer`] would, and nothing else.
        ///
        /// # Errors
        /// A body that is no such message.
        pub(super) fn check(row: &ApiRow, version: i16, body: BytesMut) -> Result<(), Malformed> {
            match row.key {
                $(ApiKey::$name => kafka_apis!(@check row, version, body, $module, $($hand)*),)*
            }
        }
    };
    (@check $row:ident, $version:ident, $body:ident, $module:ident, by hand) => {
        $module::check($row, $version, $body)
    };
    (@check $row:ident, $version:ident, $body:ident, $module:ident,) => {
        check_with($version, $body, $module::handle)
    };
    (@call $ctx:ident, $body:ident, $module:ident, by hand) => {
        $module::answer($ctx, $body).await
    };
    // Boxed, so that the connection's own future stays small.
    (@call $ctx:ident, $body:ident, $module:ident,) => {
        Box::pin(answer_with($ctx, $body, $module::handle)).await
    };
}

kafka_apis! {
//  key name                     module                     versions flexible from
    0   Produce                  produce                    3..=13   9 by hand;
    1   Fetch                    fetch                      4..=18   12 by hand;
    2   ListOffsets              list_offsets               1..=11   6 by hand;
    3   Metadata                 metadata                   0..=13   9;
    8   OffsetCommit             offset_commit              2..=10   8 by hand;
    9   OffsetFetch              offset_fetch               1..=10   6 by hand;
    10  FindCoordinator          find_coordinator           0..=6    3;
    11  JoinGroup                join_group                 0..=9    6;
    12  Heartbeat                heartbeat                  0..=4    4;
    13  LeaveGroup               leave_group                0..=5    4;
    14  SyncGroup                sync_group                 0..=5    4;
    15  DescribeGroups           describe_groups            0..=6    5;
    16  ListGroups               list_groups                0..=5    3;
    18  ApiVersions              api_versions               0..=4    3;
    19  CreateTopics             create_topics              2..=7    5;
    20  DeleteTopics             delete_topics              1..=6    4;
    21  DeleteRecords            delete_records             0..=2    2;
    22  InitProducerId           init_producer_id           0..=5    2;
    23  OffsetForLeaderEpoch     offset_for_leader_epoch    2..=4    4;
    24  AddPartitionsToTxn       add_partitions_to_txn      0..=5    3;
    25  AddOffsetsToTxn          add_offsets_to_txn         0..=4    3;
    26  EndTxn                   end_txn                    0..=5    3;
    27  WriteTxnMarkers          write_txn_markers          1..=2    1 by hand;
    28  TxnOffsetCommit          txn_offset_commit          0..=5    3;
    29  DescribeAcls             describe_acls              1..=3    2;
    30  CreateAcls               create_acls                1..=3    2;
    31  DeleteAcls               delete_acls                1..=3    2;
    32  DescribeConfigs          describe_configs           1..=4    4;
    33  AlterConfigs             alter_configs              0..=2    2;
    35  DescribeLogDirs          describe_log_dirs          1..=4    2;
    37  CreatePartitions         create_partitions          0..=3    2;
    42  DeleteGroups             delete_groups              0..=2    2;
    43  ElectLeaders             elect_leaders              0..=2    2;
    44  IncrementalAlterConfigs  incremental_alter_configs  0..=1    1;
    46  ListPartitionReassignments list_partition_reassignments 0..=0 0;
    47  OffsetDelete             offset_delete              0..=0    1;
    48  DescribeClientQuotas     describe_client_quotas     0..=1    1;
    50  DescribeUserScramCredentials describe_user_scram_credentials 0..=0 0;
    55  DescribeQuorum           describe_quorum            0..=2    0;
    57  UpdateFeatures           update_features            0..=2    0;
    60  DescribeCluster          describe_cluster           0..=2    0;
    61  DescribeProducers        describe_producers         0..=0    0;
    65  DescribeTransactions     describe_transactions      0..=0    0;
    66  ListTransactions         list_transactions          0..=2    0;
    68  ConsumerGroupHeartbeat   consumer_group_heartbeat   0..=1    0;
    69  ConsumerGroupDescribe    consumer_group_describe    0..=1    0;
    74  ListConfigResources      list_config_resources      0..=1    0;
    75  DescribeTopicPartitions  describe_topic_partitions  0..=0    0;
    76  ShareGroupHeartbeat      share_group_heartbeat      1..=1    0;
    77  ShareGroupDescribe       share_group_describe       1..=1    0;
    78  ShareFetch               share_fetch                1..=2    0 by hand;
    79  ShareAcknowledge         share_acknowledge          1..=2    0 by hand;
    90  DescribeShareGroupOffsets describe_share_group_offsets 0..=1 0 by hand;
    91  AlterShareGroupOffsets   alter_share_group_offsets  0..=0    0;
    92  DeleteShareGroupOffsets  delete_share_group_offsets 0..=0    0;
}

/// One API of the table.
#[derive(Debug)]
pub struct ApiRow {
    /// Its key.
    pub(super) key: ApiKey,
    /// Kafka's name of it.
    pub name: &'static str,
    /// The lowest version served.
    pub min: i16,
    /// The highest version served.
    pub max: i16,
    /// The first version with compact lengths and tagged fields.
    pub(super) flexible_from: i16,
}

impl ApiKey {
    /// The key on the wire.
    pub(super) fn key(self) -> i16 {
        self as i16
    }
}

impl ApiRow {
    /// The row of an API key, if the API is served.
    pub(super) fn of_key(key: i16) -> Option<&'static ApiRow> {
        API_ROWS.binary_search_by_key(&key, |row| row.key.key()).ok().map(|index| &API_ROWS[index])
    }

    /// The key on the wire.
    pub fn key(&self) -> i16 {
        self.key.key()
    }

    /// Whether `version` has compact lengths and tagged fields.
    pub(super) fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_from
    }

    /// Whether `version` is served.
    pub(super) fn serves(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    /// Whether a request may wait for others so long that a client may hang up meanwhile, and may then be dropped.
    pub(super) fn may_park(&self) -> bool {
        matches!(self.key, ApiKey::Fetch | ApiKey::JoinGroup | ApiKey::SyncGroup | ApiKey::ShareFetch)
    }

    /// The lowest version that ApiVersions tells. Produce says 0 although 3 is the first that is served: librdkafka
    /// stops compressing when it does not see the old ones (KAFKA-18659).
    pub(super) fn advertised_min(&self) -> i16 {
        if self.key == ApiKey::Produce { 0 } else { self.min }
    }
}

/// The table, by key, for docs and tests.
pub fn api_rows() -> &'static [ApiRow] {
    API_ROWS
}

/// What a handler may know of the request beside its message.
pub(super) struct RequestContext<'a> {
    /// The request's header.
    pub(super) header: RequestHeader,
    /// What the connections of this shard share.
    pub(super) front: &'a Rc<Front>,
    /// Who asks.
    pub(super) peer: SocketAddr,
    /// The address that the client dialled.
    pub(super) dialled: SocketAddr,
    /// Where the connection's work belongs.
    pub(super) work: &'a Work,
    /// The connection's share sessions.
    pub(super) share_sessions: &'a ShareSessions,
}

impl RequestContext<'_> {
    /// The verbs.
    pub(super) fn broker(&self) -> &Broker {
        &self.front.broker
    }

    /// Asks the coordinator of the request's group.
    pub(super) async fn group(&self, request: GroupRequest) -> GroupReply {
        if let Some(group_id) = request.group_id()
            && let Ok(shard) = self.broker().group_coordinator(group_id).await
        {
            self.work.count(shard, 0);
        }
        self.broker().group(request).await
    }

    /// Asks the coordinator of the request's transactional id.
    pub(super) async fn transaction(&self, request: TransactionRequest) -> TransactionReply {
        if let Ok(shard) = self.broker().transaction_coordinator(request.transactional_id()).await {
            self.work.count(shard, 0);
        }
        self.broker().transaction(request).await
    }

    /// The version of the request's API.
    pub(super) fn version(&self) -> i16 {
        self.header.version
    }

    /// The client's address as groups show it.
    pub(super) fn client_host(&self) -> String {
        format!("/{}", self.peer.ip().to_canonical())
    }

    /// The client's name for itself, empty if it has none.
    pub(super) fn client_id(&self) -> &str {
        self.header.client_id.as_deref().unwrap_or("")
    }
}

/// What comes of a request.
pub(super) enum Answer {
    /// It is done.
    Now(Outcome),
    /// It has been dispatched in order and will be done later; the next request may start.
    Later(Pin<Box<dyn Future<Output = Outcome>>>),
}

/// How a request ends.
pub(super) enum Outcome {
    /// With a reply.
    Reply(Reply),
    /// Without one, as the client asked.
    Silent,
    /// With the end of the connection, for this reason.
    Close(String),
}

/// Decode, verb, encode.
async fn answer_with<Q: Decodable, R: Encodable>(
    ctx: &RequestContext<'_>,
    body: BytesMut,
    handle: impl AsyncFnOnce(&RequestContext<'_>, Q) -> R,
) -> Result<Answer, Malformed> {
    let request = decode_guard::decode(body.freeze(), ctx.version())?;
    Ok(reply(ctx, &handle(ctx, request).await))
}

/// Encodes a reply in the request's version.
fn reply(ctx: &RequestContext<'_>, response: &impl Encodable) -> Answer {
    reply_as(ctx, ctx.version(), response)
}

/// Encodes a reply in the form of another version.
fn reply_as(ctx: &RequestContext<'_>, version: i16, response: &impl Encodable) -> Answer {
    Answer::Now(match frame::encode_reply_as(&ctx.header, version, response) {
        Ok(reply) => Outcome::Reply(reply),
        Err(error) => Outcome::Close(error.to_string()),
    })
}

/// Decodes what `_handle` takes.
fn check_with<Q: Decodable, R: Encodable>(
    version: i16,
    body: BytesMut,
    _handle: impl AsyncFnOnce(&RequestContext<'_>, Q) -> R,
) -> Result<(), Malformed> {
    decode_guard::decode::<Q>(body.freeze(), version).map(drop)
}

/// The first version of AddPartitionsToTxn, AddOffsetsToTxn and EndTxn that knows PRODUCER_FENCED.
const PRODUCER_FENCED_VERSION: i16 = 2;

/// The code of what a transaction coordinator refuses, in words that the request's version knows.
fn transaction_code(ctx: &RequestContext<'_>, error: TransactionError) -> i16 {
    match error {
        TransactionError::ProducerFenced if ctx.version() < PRODUCER_FENCED_VERSION => {
            error_code::of_transaction(TransactionError::InvalidProducerEpoch).code()
        }
        error => error_code::of_transaction(error).code(),
    }
}

/// A group of one of the new protocols (`kind`: consumer or share), or what is said of one that there is not.
async fn modern_group(
    ctx: &RequestContext<'_>,
    group_id: &str,
    kind: &str,
    asked: fn(DescribeModernGroup) -> GroupRequest,
) -> Result<DescribeModernGroupReply, (ResponseError, Option<String>)> {
    let described = match ctx.group(asked(DescribeModernGroup { group_id: group_id.to_owned() })).await {
        GroupReply::DescribeConsumer(described) => described,
        _ => return Err((ResponseError::CoordinatorNotAvailable, None)),
    };
    match described.error {
        Some(GroupError::GroupIdNotFound) => {
            let why = if described.is_of_other_type {
                format!("is not a {kind} group")
            } else {
                "not found".to_owned()
            };
            Err((ResponseError::GroupIdNotFound, Some(format!("Group {group_id} {why}."))))
        }
        Some(error) => Err((error_code::of_group(error), None)),
        None => Ok(described),
    }
}

/// Makes sure that there is a share group of that name.
async fn share_group(
    ctx: &RequestContext<'_>,
    group_id: &str,
) -> Result<DescribeModernGroupReply, (ResponseError, Option<String>)> {
    modern_group(ctx, group_id, "share", GroupRequest::DescribeShare).await
}

/// As `share_group`, and that it has no members. Being `asked` to, it is made.
async fn empty_share_group(
    ctx: &RequestContext<'_>,
    group_id: &str,
    asked: fn(DescribeModernGroup) -> GroupRequest,
) -> Result<(), (ResponseError, Option<String>)> {
    match modern_group(ctx, group_id, "share", asked).await?.state {
        ModernGroupState::Empty => Ok(()),
        _ => Err((ResponseError::NonEmptyGroup, Some(ResponseError::NonEmptyGroup.to_string()))),
    }
}

/// What those who ask about ACLs are told, in Kafka's words.
const NO_AUTHORIZER: &str = "No Authorizer is configured.";
/// "Not asked for" in the place of authorized operations.
const NO_OPERATIONS: i32 = i32::MIN;
/// All that can be done to a topic, one bit for each of Kafka's `AclOperation` codes: 3 to 8, 10, 11.
const TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
/// All that can be done to the cluster: 5, 7 to 12.
const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;

/// All that can be done to a group: 3, 6, 8, 10, 11.
const GROUP_OPERATIONS: i32 = 0b1101_0100_1000;
/// Kafka's numbers of what can have configs.
const TOPIC_RESOURCE: i8 = 2;
const BROKER_RESOURCE: i8 = 4;
const GROUP_RESOURCE: i8 = 32;

/// Whose configs are meant, if they are of a type that has any here.
fn config_resource(kind: i8, name: &str) -> Option<ConfigResource> {
    match kind {
        TOPIC_RESOURCE => Some(ConfigResource::Topic(name.to_owned())),
        BROKER_RESOURCE => Some(ConfigResource::Broker(name.to_owned())),
        GROUP_RESOURCE => Some(ConfigResource::Group(name.to_owned())),
        _ => None,
    }
}

/// Kafka's number of a config's source.
fn config_source(source: ConfigSource) -> i8 {
    match source {
        ConfigSource::DynamicTopic => 1,
        ConfigSource::DynamicBroker => 2,
        ConfigSource::StaticBroker => 4,
        ConfigSource::Default => 5,
        ConfigSource::DynamicGroup => 8,
    }
}

/// A text for a message.
fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}
