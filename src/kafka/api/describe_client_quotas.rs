//! DescribeClientQuotas (key 48), versions 0 and 1 (KIP-546). No quota can be set here, so none is found.
//!
//! 1: flexible.

use kafka_protocol::messages::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};

use super::RequestContext;

pub(super) async fn handle(
    _ctx: &RequestContext<'_>,
    _request: DescribeClientQuotasRequest,
) -> DescribeClientQuotasResponse {
    DescribeClientQuotasResponse::default().with_entries(Some(Vec::new()))
}
