//! stub
use super::Call;
use crate::broker::Broker;
use crate::model::TopicPartition;
use crate::redis::error_reply::ErrorReply;
pub(super) async fn info_groups(_call: &mut Call<'_>) -> Result<(), ErrorReply> { Ok(()) }
pub(super) async fn info_consumers(_call: &mut Call<'_>) -> Result<(), ErrorReply> { Ok(()) }
pub(super) async fn group_count(_b: &Broker, _p: &TopicPartition) -> Result<usize, ErrorReply> { Ok(0) }
