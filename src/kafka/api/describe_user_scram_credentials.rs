//! DescribeUserScramCredentials (key 50), version 0 (KIP-554). There are no users, so none is found.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_user_scram_credentials_response::DescribeUserScramCredentialsResult;
use kafka_protocol::messages::{DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{RequestContext, text};

pub(super) async fn handle(
    _ctx: &RequestContext<'_>,
    request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let mut counts: BTreeMap<StrBytes, usize> = BTreeMap::new();
    for user in request.users.into_iter().flatten() {
        *counts.entry(user.name).or_default() += 1;
    }
    let results = counts.into_iter().map(|(user, count)| {
        let (error, message) = match count {
            1 => (
                ResponseError::ResourceNotFound,
                format!("Attempt to describe a user credential that does not exist: {}", user.as_str()),
            ),
            _ => (
                ResponseError::DuplicateResource,
                format!(
                    "Cannot describe SCRAM credentials for the same user twice in a single request: {}",
                    user.as_str()
                ),
            ),
        };
        DescribeUserScramCredentialsResult::default()
            .with_user(user)
            .with_error_code(error.code())
            .with_error_message(Some(text(message)))
    });
    DescribeUserScramCredentialsResponse::default().with_results(results.collect())
}
