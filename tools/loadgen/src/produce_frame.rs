//! A Produce request without its batch, encoded once; a send changes four numbers in it.
//!
//! The crate kafka-protocol encodes the request with an empty record set. Everything in front of the record set's length
//! is the head, everything behind it the tail; a real batch goes between them, so it is never copied.

use anyhow::{Result, ensure};
use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, TransactionalId};
use kafka_protocol::protocol::StrBytes;

use crate::cluster::TopicId;
use crate::control::topic_name;
use crate::wire::{CORRELATION_ID_POSITION, SIZE_BYTES, encode_request};

/// Flexible encodings (compact lengths, tagged fields) begin here.
const FLEXIBLE_VERSION: i16 = 9;
/// Topics are named by id from here on.
pub const TOPIC_ID_VERSION: i16 = 13;
/// Bytes of the partition index, which ends the head.
const PARTITION_BYTES: usize = 4;

/// The fixed part of a run's Produce requests to one topic.
pub struct ProduceFrame {
    version: i16,
    head: Vec<u8>,
    tail: &'static [u8],
}

impl ProduceFrame {
    /// Encodes the request for `topic` (name and id) in `version`.
    ///
    /// # Errors
    /// If the version has no such request.
    pub fn new(
        version: i16,
        topic: (&str, TopicId),
        transactional_id: Option<&str>,
        acks: i16,
        timeout_ms: i32,
    ) -> Result<Self> {
        let (topic, topic_id) = topic;
        let partition = PartitionProduceData::default().with_index(0).with_records(Some(Bytes::new()));
        let mut data = TopicProduceData::default().with_partition_data(vec![partition]);
        if version >= TOPIC_ID_VERSION {
            ensure!(!topic_id.is_nil(), "Produce {version} needs a topic id, Metadata gave none");
            data.topic_id = topic_id;
        } else {
            data.name = topic_name(topic);
        }
        let request = ProduceRequest::default()
            .with_transactional_id(
                transactional_id.map(|id| TransactionalId(StrBytes::from_string(id.to_owned()))),
            )
            .with_acks(acks)
            .with_timeout_ms(timeout_ms)
            .with_topic_data(vec![data]);
        let mut head = encode_request(&request, version, 0)?;
        // An empty record set is a length of one byte, followed by three empty lists of tags; before, it is four bytes.
        let tail: &'static [u8] = if version >= FLEXIBLE_VERSION { &[0, 0, 0] } else { &[] };
        let length_bytes = if version >= FLEXIBLE_VERSION { 1 } else { 4 };
        head.truncate(head.len() - length_bytes - tail.len());
        Ok(Self { version, head, tail })
    }

    /// What follows the batch.
    pub fn tail(&self) -> &'static [u8] {
        self.tail
    }

    /// Writes what precedes a batch of `batch_bytes` for `partition`.
    pub fn write_head(&self, out: &mut Vec<u8>, correlation_id: i32, partition: i32, batch_bytes: usize) {
        out.clear();
        out.extend_from_slice(&self.head);
        let partition_position = out.len() - PARTITION_BYTES;
        out[partition_position..].copy_from_slice(&partition.to_be_bytes());
        out[CORRELATION_ID_POSITION..CORRELATION_ID_POSITION + 4]
            .copy_from_slice(&correlation_id.to_be_bytes());
        let length = u32::try_from(batch_bytes).expect("batches are below 1 GiB");
        if self.version >= FLEXIBLE_VERSION {
            put_unsigned_varint(out, length + 1);
        } else {
            out.extend_from_slice(&length.to_be_bytes());
        }
        let size = out.len() - SIZE_BYTES + batch_bytes + self.tail.len();
        out[..SIZE_BYTES].copy_from_slice(&u32::try_from(size).expect("below 4 GiB").to_be_bytes());
    }
}

fn put_unsigned_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use bytes::{Buf, Bytes};
    use kafka_protocol::messages::{ProduceRequest, RequestHeader};
    use kafka_protocol::protocol::{Decodable, HeaderVersion, Message};

    use super::{ProduceFrame, TOPIC_ID_VERSION};
    use crate::cluster::TopicId;

    #[test]
    fn a_spliced_request_of_every_version_decodes_to_what_was_meant() {
        let topic_id = TopicId::from_bytes([9; 16]);
        for version in ProduceRequest::VERSIONS.min..=ProduceRequest::VERSIONS.max {
            let id = Some("id").filter(|_| version % 2 == 1);
            let frame = ProduceFrame::new(version, ("orders", topic_id), id, -1, 1_500).expect("encodes");
            for batch_bytes in [1usize, 126, 127, 128, 16_383, 70_000] {
                let batch = vec![0xab; batch_bytes];
                let mut bytes = Vec::new();
                frame.write_head(&mut bytes, 42, 5, batch_bytes);
                bytes.extend_from_slice(&batch);
                bytes.extend_from_slice(frame.tail());
                let mut bytes = Bytes::from(bytes);
                assert_eq!(bytes.get_u32() as usize, bytes.remaining());
                let header = RequestHeader::decode(&mut bytes, ProduceRequest::header_version(version))
                    .expect("a header");
                assert_eq!((header.request_api_version, header.correlation_id), (version, 42));
                let request = ProduceRequest::decode(&mut bytes, version).expect("a request");
                assert!(!bytes.has_remaining(), "version {version}");
                assert_eq!((request.acks, request.timeout_ms), (-1, 1_500));
                assert_eq!(request.transactional_id.as_ref().map(|id| id.0.as_str()), id);
                let topic = &request.topic_data[0];
                if version >= TOPIC_ID_VERSION {
                    assert_eq!(topic.topic_id, topic_id);
                } else {
                    assert_eq!(topic.name.as_str(), "orders");
                }
                let partition = &topic.partition_data[0];
                assert_eq!(partition.index, 5);
                assert_eq!(partition.records.as_deref(), Some(&batch[..]));
            }
        }
    }
}
