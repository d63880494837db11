//! ListGroups (key 16), versions 0 to 5.
//!
//! 3: flexible | 4: states (KIP-518) | 5: types (KIP-848).

use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};

use super::{RequestContext, text};
use crate::kafka::error_code;
use crate::model::group::ListGroups;

pub(super) async fn handle(ctx: &RequestContext<'_>, request: ListGroupsRequest) -> ListGroupsResponse {
    let reply = ctx
        .broker()
        .list_groups(ListGroups {
            states: request.states_filter.iter().map(ToString::to_string).collect(),
            types: request.types_filter.iter().map(ToString::to_string).collect(),
        })
        .await;
    let groups = reply.groups.into_iter().map(|group| {
        ListedGroup::default()
            .with_group_id(GroupId(text(group.group_id)))
            .with_protocol_type(text(group.protocol_type))
            .with_group_state(text(group.state))
            .with_group_type(text(group.group_type))
    });
    ListGroupsResponse::default()
        .with_error_code(error_code::group_code(reply.error))
        .with_groups(groups.collect())
}
