//! ListConfigResources (key 74), versions 0 and 1.
//!
//! 0: client metrics only (KIP-1000), of which there are none | 1: resources of any type (KIP-1142).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use kafka_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};

use super::{BROKER_RESOURCE, GROUP_RESOURCE, RequestContext, TOPIC_RESOURCE, text};

const BROKER_LOGGER_RESOURCE: i8 = 8;
const CLIENT_METRICS_RESOURCE: i8 = 16;
/// The first version that may ask for other things than client metrics.
const TYPES_VERSION: i16 = 1;

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let response = ListConfigResourcesResponse::default();
    if ctx.version() < TYPES_VERSION {
        return response;
    }
    let types = request.resource_types;
    let is_known = |kind: &i8| {
        matches!(
            *kind,
            TOPIC_RESOURCE
                | BROKER_RESOURCE
                | BROKER_LOGGER_RESOURCE
                | CLIENT_METRICS_RESOURCE
                | GROUP_RESOURCE
        )
    };
    if !types.iter().all(is_known) {
        return response.with_error_code(ResponseError::UnsupportedVersion.code());
    }
    let wants = |kind: i8| types.is_empty() || types.contains(&kind);
    let mut resources = Vec::new();
    let mut list = |kind: i8, name: String| {
        resources.push(ConfigResource::default().with_resource_name(text(name)).with_resource_type(kind));
    };
    if wants(TOPIC_RESOURCE) {
        ctx.broker().image().topics().for_each(|topic| list(TOPIC_RESOURCE, topic.name.to_string()));
    }
    for kind in [BROKER_RESOURCE, BROKER_LOGGER_RESOURCE] {
        if wants(kind) {
            let nodes = ctx.broker().nodes(ctx.dialled);
            nodes.iter().for_each(|node| list(kind, node.id.to_string()));
        }
    }
    if wants(GROUP_RESOURCE) {
        ctx.broker().image().group_configs.keys().for_each(|group| list(GROUP_RESOURCE, group.clone()));
    }
    response.with_config_resources(resources)
}
