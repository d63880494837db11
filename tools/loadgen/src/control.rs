//! A blocking connection for what happens once: versions, metadata, topics, producer ids, offsets.
//!
//! Promise: every call ends within `TIMEOUT`, or as often as it says; errors name the broker.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiVersionsRequest, BrokerId, CreateTopicsRequest, DeleteTopicsRequest, FindCoordinatorRequest,
    InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, MetadataResponse, TopicName, TransactionalId,
};
use kafka_protocol::protocol::{Request, StrBytes};

use crate::transaction;
use crate::wire::{ApiTable, CLIENT_ID, FRAME_BYTES_MAX, SIZE_BYTES, decode_response, encode_request};

/// How long a connect, a read or a write may take.
pub const TIMEOUT: Duration = Duration::from_secs(15);
/// ListOffsets' names for the ends of a log.
pub const EARLIEST: i64 = -2;
/// See `EARLIEST`.
pub const LATEST: i64 = -1;

/// The newest ApiVersions request that we send; an older broker answers error 35 in version 0.
const API_VERSIONS_VERSION: i16 = 3;
/// Topics that are created or deleted at a time; a broker may take a while for each.
const TOPICS_PER_REQUEST: usize = 500;
/// FindCoordinator takes many keys from here on.
const FIND_COORDINATORS_VERSION: i16 = 4;
/// FindCoordinator's numbers for groups and for transactional ids.
pub const GROUP_KEY_TYPE: i8 = 0;
const TRANSACTION_KEY_TYPE: i8 = 1;
/// How often, and how long in between, a coordinator that is not ready is asked again.
const READY_TRIES: u32 = 50;
const READY_PAUSE: Duration = Duration::from_millis(100);
/// DeleteTopics takes structures instead of bare names from here on.
const DELETE_TOPICS_STATES_VERSION: i16 = 6;

/// A connection to one broker, one request at a time.
pub struct Control {
    stream: TcpStream,
    address: String,
    next_correlation_id: i32,
    pub apis: ApiTable,
}

impl Control {
    /// Connects and asks for versions.
    ///
    /// # Errors
    /// If the broker cannot be reached or does not speak Kafka.
    pub fn connect(address: &str) -> Result<Self> {
        let stream = connect(address)?;
        let mut control =
            Self { stream, address: address.to_string(), next_correlation_id: 0, apis: ApiTable::default() };
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str(CLIENT_ID))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let mut response = control.call_at(&request, API_VERSIONS_VERSION);
        if !matches!(&response, Ok(response) if response.error_code == 0) {
            // A reply in version 0 (error 35) may also have failed to decode as version 3.
            response = control.call_at(&ApiVersionsRequest::default(), 0);
        }
        let response = response.with_context(|| format!("no ApiVersions from {address}"))?;
        check(response.error_code).with_context(|| format!("ApiVersions of {address}"))?;
        control.apis = ApiTable::new(&response);
        Ok(control)
    }

    /// Connects to the first address of a comma-separated list that answers.
    ///
    /// # Errors
    /// The last address's error.
    pub fn bootstrap(addresses: &str) -> Result<Self> {
        let mut outcome = Err(anyhow::anyhow!("no bootstrap address given"));
        for address in addresses.split(',').map(str::trim).filter(|address| !address.is_empty()) {
            outcome = Self::connect(address);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// The bare connection, with no request on its way.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Metadata of topics, which are not created by asking.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub fn metadata(&mut self, topics: &[String]) -> Result<MetadataResponse> {
        let topics =
            topics.iter().map(|topic| MetadataRequestTopic::default().with_name(Some(topic_name(topic))));
        self.call(
            &MetadataRequest::default()
                .with_topics(Some(topics.collect()))
                .with_allow_auto_topic_creation(false),
        )
    }

    /// Creates topics that are alike; those that are there already stay as they are.
    ///
    /// # Errors
    /// Whatever the broker says.
    pub fn create_topics(
        &mut self,
        topics: &[String],
        partitions: i32,
        replication: i16,
        configs: &[(String, String)],
    ) -> Result<()> {
        let configs: Vec<CreatableTopicConfig> = configs
            .iter()
            .map(|(name, value)| {
                CreatableTopicConfig::default()
                    .with_name(StrBytes::from_string(name.clone()))
                    .with_value(Some(StrBytes::from_string(value.clone())))
            })
            .collect();
        for topics in topics.chunks(TOPICS_PER_REQUEST) {
            let creatable = topics.iter().map(|topic| {
                CreatableTopic::default()
                    .with_name(topic_name(topic))
                    .with_num_partitions(partitions)
                    .with_replication_factor(replication)
                    .with_configs(configs.clone())
            });
            let request =
                CreateTopicsRequest::default().with_topics(creatable.collect()).with_timeout_ms(timeout_ms());
            let response = self.call(&request)?;
            ensure!(response.topics.len() == topics.len(), "CreateTopics answered without a topic");
            for result in &response.topics {
                match result.error_code.err() {
                    None | Some(ResponseError::TopicAlreadyExists) => {}
                    Some(error) => {
                        let message = result.error_message.as_ref().map(StrBytes::as_str).unwrap_or_default();
                        bail!("creating topic {}: {error} {message}", result.name.as_str())
                    }
                }
            }
        }
        Ok(())
    }

    /// Deletes topics.
    ///
    /// # Errors
    /// Whatever the broker says.
    pub fn delete_topics(&mut self, topics: &[String]) -> Result<()> {
        let takes_states = self.apis.version::<DeleteTopicsRequest>()? >= DELETE_TOPICS_STATES_VERSION;
        for topics in topics.chunks(TOPICS_PER_REQUEST) {
            let names = topics.iter().map(|topic| topic_name(topic));
            let request = DeleteTopicsRequest::default().with_timeout_ms(timeout_ms());
            let request = if takes_states {
                let states = names.map(|name| DeleteTopicState::default().with_name(Some(name)));
                request.with_topics(states.collect())
            } else {
                request.with_topic_names(names.collect())
            };
            let response = self.call(&request)?;
            ensure!(response.responses.len() == topics.len(), "DeleteTopics answered without a topic");
            for (result, topic) in response.responses.iter().zip(topics) {
                let name = result.name.as_ref().map_or(topic.as_str(), |name| name.as_str());
                check(result.error_code).with_context(|| format!("deleting topic {name}"))?;
            }
        }
        Ok(())
    }

    /// A fresh producer id and its epoch, for idempotence without transactions.
    ///
    /// # Errors
    /// Whatever the broker says after some patience with a coordinator that is still loading.
    pub fn init_producer_id(&mut self) -> Result<(i64, i16)> {
        // A field's default in kafka-protocol is not always "none".
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(timeout_ms())
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
        self.init_insistently(&request)
    }

    /// Takes a transactional id over: finds its coordinator, and gets producer id and epoch from it.
    ///
    /// # Errors
    /// As `init_producer_id`.
    pub fn init_transactional_id(&mut self, transactional_id: String) -> Result<transaction::Identity> {
        let id = StrBytes::from_string(transactional_id.clone());
        let (coordinator, address) = self.find_coordinator(&id, TRANSACTION_KEY_TYPE)?;
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(id)))
            .with_transaction_timeout_ms(timeout_ms())
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
        let (producer_id, producer_epoch) = Self::connect(&address)?.init_insistently(&request)?;
        Ok(transaction::Identity { transactional_id, coordinator, producer_id, producer_epoch })
    }

    /// Node id and address of the coordinator of a group or a transactional id.
    ///
    /// # Errors
    /// Whatever the broker says after some patience with one that is not ready.
    pub fn find_coordinator(&mut self, id: &StrBytes, key_type: i8) -> Result<(i32, String)> {
        let is_batched = self.apis.version::<FindCoordinatorRequest>()? >= FIND_COORDINATORS_VERSION;
        let request = FindCoordinatorRequest::default().with_key_type(key_type);
        let request = if is_batched {
            request.with_coordinator_keys(vec![id.clone()])
        } else {
            request.with_key(id.clone())
        };
        for _ in 0..READY_TRIES {
            let response = self.call(&request)?;
            let (error, node, host, port) = match response.coordinators.first() {
                Some(found) => (found.error_code, found.node_id, found.host.clone(), found.port),
                None => (response.error_code, response.node_id, response.host.clone(), response.port),
            };
            match error.err() {
                None => return Ok((node.0, format!("{}:{port}", host.as_str()))),
                Some(error) if transaction::may_pass(&error) => std::thread::sleep(READY_PAUSE),
                Some(error) => bail!("FindCoordinator of {id}: {error}"),
            }
        }
        bail!("FindCoordinator: the broker was not ready for 5 s")
    }

    fn init_insistently(&mut self, request: &InitProducerIdRequest) -> Result<(i64, i16)> {
        for _ in 0..READY_TRIES {
            let response = self.call(request)?;
            match response.error_code.err() {
                None => return Ok((response.producer_id.0, response.producer_epoch)),
                Some(error) if error.is_retriable() || transaction::may_pass(&error) => {
                    std::thread::sleep(READY_PAUSE);
                }
                Some(error) => bail!("InitProducerId: {error}"),
            }
        }
        bail!("InitProducerId: the broker was not ready for 5 s")
    }

    /// One end of the log (`EARLIEST`, `LATEST`) of each partition, by topic and number, in the order asked. The broker must
    /// lead them all.
    ///
    /// # Errors
    /// Whatever the broker says.
    pub fn list_offsets(&mut self, partitions: &[(&str, i32)], end: i64) -> Result<Vec<i64>> {
        let mut topics: Vec<ListOffsetsTopic> = Vec::new();
        for &(topic, partition) in partitions {
            let asked = ListOffsetsPartition::default()
                .with_partition_index(partition)
                .with_current_leader_epoch(-1)
                .with_timestamp(end);
            match topics.last_mut().filter(|last| last.name.as_str() == topic) {
                Some(last) => last.partitions.push(asked),
                None => topics.push(
                    ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![asked]),
                ),
            }
        }
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics);
        let response = self.call(&request)?;
        let mut offsets = HashMap::new();
        for topic in &response.topics {
            for answer in &topic.partitions {
                let name = topic.name.as_str();
                check(answer.error_code)
                    .with_context(|| format!("ListOffsets of {name}-{}", answer.partition_index))?;
                offsets.insert((name, answer.partition_index), answer.offset);
            }
        }
        let offset_of = |place: &(&str, i32)| {
            let (topic, partition) = place;
            let missing = || format!("ListOffsets answered without {topic}-{partition}");
            offsets.get(place).copied().with_context(missing)
        };
        partitions.iter().map(offset_of).collect()
    }

    /// Sends `request` in the highest shared version and waits for its reply.
    ///
    /// # Errors
    /// If versions do not overlap, the connection fails, or the reply does not decode.
    pub fn call<R: Request>(&mut self, request: &R) -> Result<R::Response> {
        let version = self.apis.version::<R>()?;
        self.call_at(request, version).with_context(|| format!("calling {}", self.address))
    }

    fn call_at<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response> {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id += 1;
        self.stream.write_all(&encode_request(request, version, correlation_id)?)?;
        let mut size = [0; SIZE_BYTES];
        self.stream.read_exact(&mut size)?;
        let size = usize::try_from(u32::from_be_bytes(size))?;
        ensure!(size <= FRAME_BYTES_MAX, "a reply of {size} bytes");
        let mut frame = vec![0; size];
        self.stream.read_exact(&mut frame)?;
        let (answered, response) = decode_response::<R>(Bytes::from(frame), version)?;
        ensure!(answered == correlation_id, "reply {answered} to request {correlation_id}");
        Ok(response)
    }
}

/// A TCP connection with the options that every connection here has.
///
/// # Errors
/// If no address of the name accepts.
pub fn connect(address: &str) -> Result<TcpStream> {
    let mut failure = anyhow::anyhow!("the name resolves to no address");
    for resolved in address.to_socket_addrs().with_context(|| format!("resolving {address}"))? {
        match TcpStream::connect_timeout(&resolved, TIMEOUT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                return Ok(stream);
            }
            Err(error) => failure = error.into(),
        }
    }
    Err(failure.context(format!("connecting to {address}")))
}

/// An error code as a result.
///
/// # Errors
/// If the code is not 0.
pub fn check(code: i16) -> Result<()> {
    match code.err() {
        None => Ok(()),
        Some(error) => Err(error.into()),
    }
}

/// A topic's name as the messages want it.
pub fn topic_name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_string()))
}

fn timeout_ms() -> i32 {
    i32::try_from(TIMEOUT.as_millis()).expect("a short timeout")
}
