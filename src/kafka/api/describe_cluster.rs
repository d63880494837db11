//! DescribeCluster (key 60), versions 0 to 2 (KIP-700).
//!
//! 1: endpoint type (KIP-919) | 2: fenced brokers (KIP-1073), of which there are none.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};

use super::{CLUSTER_OPERATIONS, NO_OPERATIONS, RequestContext, text};

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    let response = DescribeClusterResponse::default().with_endpoint_type(BROKERS);
    let refuse = |error: ResponseError, message: &str| {
        let response = DescribeClusterResponse::default().with_endpoint_type(BROKERS);
        response.with_error_code(error.code()).with_error_message(Some(text(message)))
    };
    match request.endpoint_type {
        BROKERS => {}
        CONTROLLERS => {
            return refuse(
                ResponseError::MismatchedEndpointType,
                "This is a broker's endpoint, not a controller's.",
            );
        }
        _ => return refuse(ResponseError::UnsupportedEndpointType, "There are no endpoints of this type."),
    }
    let rack = ctx.broker().config().broker_rack.clone().map(text);
    let nodes = ctx.broker().nodes(ctx.dialled).into_iter();
    let brokers = nodes.map(|node| {
        DescribeClusterBroker::default()
            .with_broker_id(BrokerId(node.id))
            .with_host(text(node.host))
            .with_port(i32::from(node.port))
            .with_rack(rack.clone())
    });
    let wants_operations = request.include_cluster_authorized_operations;
    response
        .with_cluster_id(text(ctx.broker().cluster_id()))
        .with_controller_id(BrokerId(ctx.broker().node_id(0)))
        .with_brokers(brokers.collect())
        .with_cluster_authorized_operations(if wants_operations { CLUSTER_OPERATIONS } else { NO_OPERATIONS })
}
