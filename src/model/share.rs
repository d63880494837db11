//! The words of share groups (KIP-932): records that are locked for a member, and what it says of them.

use super::{Offset, PartitionIndex, TopicPartition, Uuid};

/// Names the state that a share group has of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShareKey {
    /// The group.
    pub group_id: String,
    /// The topic.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: PartitionIndex,
}

impl ShareKey {
    /// Which partition of `__share_group_state` holds it: Kafka's hash of "group:topic id:partition".
    pub fn state_partition(&self, partition_count: PartitionIndex) -> PartitionIndex {
        let text = format!("{}:{}:{}", self.group_id, base64_id(self.topic_id), self.partition);
        let add = |hash: i32, unit: u16| hash.wrapping_mul(31).wrapping_add(i32::from(unit));
        (text.encode_utf16().fold(0, add) & i32::MAX) % partition_count.max(1)
    }
}

/// An id as Kafka writes it: 22 characters of URL-safe base64.
fn base64_id(id: Uuid) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const CHARACTERS: u32 = 22;
    let bits = id.as_u128();
    let digit = |index: u32| {
        let shift = 122i64 - 6 * i64::from(index);
        let six = if shift >= 0 { bits >> shift } else { bits << -shift };
        char::from(ALPHABET[usize::try_from(six & 63).unwrap_or(0)])
    };
    (0..CHARACTERS).map(digit).collect()
}

/// What a member says of a record that it has locked. The numbers are those of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcknowledgeType {
    /// 0: there is no such record.
    Gap,
    /// 1: it was processed.
    Accept,
    /// 2: another member shall have it.
    Release,
    /// 3: nobody shall have it.
    Reject,
    /// 4: the member keeps it for another lock duration (KIP-1222).
    Renew,
}

impl AcknowledgeType {
    /// The type with that number.
    pub fn of(number: i8) -> Option<AcknowledgeType> {
        Some(match number {
            0 => AcknowledgeType::Gap,
            1 => AcknowledgeType::Accept,
            2 => AcknowledgeType::Release,
            3 => AcknowledgeType::Reject,
            4 => AcknowledgeType::Renew,
            _ => return None,
        })
    }
}

/// What a member says of records in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcknowledgementBatch {
    /// The first of them.
    pub first_offset: Offset,
    /// The last of them.
    pub last_offset: Offset,
    /// One type for all, or one for each.
    pub types: Vec<AcknowledgeType>,
}

/// Records in a row that are locked for a member now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcquiredRecords {
    /// The first of them.
    pub first_offset: Offset,
    /// The last of them.
    pub last_offset: Offset,
    /// How often they have been delivered, this time included.
    pub delivery_count: i16,
}

/// Why a share group's request was refused for a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// The request contradicts itself.
    #[error("the acknowledgements are not valid")]
    InvalidRequest,
    /// A record is not locked by the member.
    #[error("a record is not acquired by the member")]
    InvalidRecordState,
    /// There is no such partition here.
    #[error("the partition is not here")]
    UnknownPartition,
    /// The state could not be read or stored: try again.
    #[error("the state of the share group cannot be read or stored now")]
    StateNotAvailable,
    /// The state has changed hands: begin anew.
    #[error("the state epoch is not the current one")]
    FencedStateEpoch,
}

/// One partition as a member of a share group names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedPartition {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// Its topic's id.
    pub topic_id: Uuid,
}
