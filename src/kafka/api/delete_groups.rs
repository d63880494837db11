//! DeleteGroups (key 42), versions 0 to 2.
//!
//! 2: flexible.

use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use super::RequestContext;
use crate::kafka::error_code;
use crate::model::group::{DeleteGroup, GroupError, GroupReply, GroupRequest};

pub(super) async fn handle(ctx: &RequestContext<'_>, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group_id in request.groups_names {
        let delete = DeleteGroup { group_id: group_id.to_string() };
        let error = match ctx.broker().delete_group(GroupRequest::Delete(delete)).await {
            GroupReply::Delete(reply) => reply.error,
            _ => Some(GroupError::CoordinatorNotAvailable),
        };
        results.push(
            DeletableGroupResult::default()
                .with_group_id(group_id)
                .with_error_code(error_code::group_code(error)),
        );
    }
    DeleteGroupsResponse::default().with_results(results)
}
