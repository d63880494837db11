//! AlterConfigs (key 33), versions 0 to 2. What a request does not name goes back to its default; clients since
//! KIP-339 send IncrementalAlterConfigs instead.
//!
//! 2: flexible.

use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

use super::RequestContext;
use super::incremental_alter_configs::{Alteration, alter};
use crate::broker::AlterOp;

pub(super) async fn handle(ctx: &RequestContext<'_>, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let alterations = request
        .resources
        .into_iter()
        .map(|resource| Alteration {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
            changes: resource
                .configs
                .into_iter()
                .map(|config| {
                    (config.name.to_string(), Some(AlterOp::Set), config.value.map(|value| value.to_string()))
                })
                .collect(),
            replace_all: true,
        })
        .collect();
    let responses = alter(ctx, alterations, request.validate_only).await.into_iter().map(|altered| {
        AlterConfigsResourceResponse::default()
            .with_error_code(altered.error_code)
            .with_error_message(altered.error_message)
            .with_resource_type(altered.resource_type)
            .with_resource_name(altered.resource_name)
    });
    AlterConfigsResponse::default().with_responses(responses.collect())
}
